"""What durability costs: the same rounds with the store on the disk and on a RAM disk, phones that do not train."""

import statistics
import tempfile
from pathlib import Path

from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.processes import Processes

PHONES, ROUNDS, REPEATS = 20, 12, 3
RAM_DISK = Path("/dev/shm")
SETTINGS = ("--problem", "digits", "--uplink", "eden-1bit", "--downlink", "rotate | eden(4)", "--eval-every", "1000")


def round_seconds(runs: Path, name: str) -> list[float]:
    """Return the seconds of each round of one run, the first left out: it waits for phones to load."""
    flags = ["--runs", str(runs), "--name", name, "--phones", str(PHONES), "--cohort", str(PHONES)]
    with Processes(runs / f"{name}.logs") as processes:
        address = processes.start_server([*flags, "--rounds", str(ROUNDS), *SETTINGS], lambda event: None)
        count = ["--count", str(PHONES), "--workers", "1"]
        processes.start_phone("swarm", ["--server", address, "--train", "none", *count], "swarm")
        processes.wait_for_server(120.0)
    return [row["seconds"] for row in report_of(runs / name)["rounds"][1:]]


def durability() -> str:
    """Return the comparison as a Markdown table: medians over the rounds of `REPEATS` runs each, taken in turns."""
    taken: dict[str, list[float]] = {"disk": [], "RAM disk": []}
    with tempfile.TemporaryDirectory(dir=".") as disk, tempfile.TemporaryDirectory(dir=RAM_DISK) as memory:
        for repeat in range(REPEATS):
            for kind, folder in (("disk", disk), ("RAM disk", memory)):
                taken[kind] += round_seconds(Path(folder), f"run-{repeat}")
    medians = {kind: statistics.median(seconds) for kind, seconds in taken.items()}
    cost = medians["disk"] / medians["RAM disk"] - 1
    rows = [f"| {kind} | {1000 * seconds:.0f} ms |" for kind, seconds in medians.items()]
    return "\n".join(["| store on | a round of 20 phones, median |", "|---|---|", *rows, f"| cost | {cost:+.0%} |"])
