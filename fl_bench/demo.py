"""`fl-bench demo`: one server, ten phones on 256 kbit/s, no download, a report at the end."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from featherfed.fl_bench.page import run_page
from featherfed.fl_bench.processes import Processes
from featherfed.fl_bench.running import report_of
from featherfed.server.run_folder import existing

PHONES = 10
SETTINGS = {
    "--problem": "digits/lite",
    "--phones": str(PHONES),
    "--cohort": str(PHONES),
    "--rounds": "8",
    "--epochs": "5",
    "--lr": "0.05",
    "--uplink": "rotate | eden(1)",
    "--downlink": "rotate | eden(4)",
}


def run_demo(out: Path | None, bandwidth: str, tell: Callable[[str], None]) -> Path:
    """Run the demo in `out` (or a new folder under the temporary directory), return the report's page."""
    runs = out or Path(tempfile.mkdtemp(prefix="featherfed-demo-"))
    tell(f"one server and {PHONES} phones on {bandwidth}, each a process of its own")
    flags = [part for pair in SETTINGS.items() for part in pair]
    with Processes(runs / "logs") as processes:
        address = processes.start_server(["--runs", str(runs), "--name", "demo", *flags], tell)
        tell(f"the server listens on {address}")
        for number in range(PHONES):
            flags = [
                "--server",
                address,
                "--problem",
                SETTINGS["--problem"],
                "--name",
                f"phone-{number}",
                "--shard",
                f"{number}/{PHONES}",
            ]
            processes.start_phone(f"phone-{number}", [*flags, "--bandwidth", bandwidth])
        processes.wait_for_server(timeout_s=300)
    folder, config = existing(runs / "demo")
    page = folder.path / "report.html"
    each = f"fl-edge run --problem {SETTINGS['--problem']} --shard $shard/{PHONES} --bandwidth {bandwidth}"
    commands = [
        f"fl-bench demo --bandwidth {bandwidth}",
        "# or its parts:",
        config.command(),
        f"for shard in $(seq 0 {PHONES - 1}); do {each} & done; wait",
    ]
    page.write_text(run_page(report_of(folder.path), commands, config.to_toml()), encoding="utf-8")
    tell(f"its page opens again with: fl-server dashboard {folder.path}")
    return page
