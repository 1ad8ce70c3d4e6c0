"""Write what docs/SCALING.md takes from docs/PERFORMANCE.md: `python -m tests.docs.scaling`, after `make performance`.

What a million phones take is arithmetic on what one phone and one update took; a test holds the page to it.
"""

import re
from pathlib import Path

from featherfed.codec.exact_sum import partial_sum_bytes
from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill
from tests.layouts import LAYOUTS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "SCALING.md"
PHONES = 1_000_000
A_GATEWAY = 20_000
"""Phones of one gateway."""
COHORT = 10_000
HEARTBEATS = (20, 300)
MODELS = (("lite", "rotate | eden(1)"), ("cnn", "rotate_shared | stochastic(1)"))


def rows(table: str) -> list[list[str]]:
    """Return the cells of a table of docs/PERFORMANCE.md, its head left out."""
    text = (DOCS / "PERFORMANCE.md").read_text(encoding="utf-8")
    body = text.split(f"<!-- {table}: begin -->")[1].split(f"<!-- {table}: end -->")[0]
    # A bar in a codec spec is no end of a cell.
    lines = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in body.strip().splitlines()]
    return [[cell.replace("\\|", "|").strip(" `|") for cell in line] for line in lines[2:]]


def figure(table: str, what: str) -> float:
    """Return the number in the last cell of the row that begins with `what`: of the most phones, if of several."""
    *_, cell = [row[-1] for row in rows(table) if row[0] == what]
    return float(cell.split()[0])


def update_ms(model: str, uplink: str) -> float:
    """Return the CPU time of one update with durability, in milliseconds."""
    (row,) = [row for row in rows("ingest") if row[:2] == [f"digits/{model}", uplink] and row[4] == "yes"]
    return float(row[7])


def update_bytes(model: str, uplink: str) -> int:
    """Return the size of one update."""
    (row,) = [row for row in rows("ingest") if row[:2] == [f"digits/{model}", uplink] and row[4] == "yes"]
    return int(row[2].replace(",", ""))


def tables() -> dict[str, str]:
    """Return the tables of docs/SCALING.md by their names."""
    phone_kib = figure("memory", "server, for each connected idle phone")
    admit_ms = figure("memory", "server, CPU to admit a phone")
    gateways = PHONES // A_GATEWAY
    made = [
        ["connections", f"{phone_kib:g} KiB a phone", f"{phone_kib * A_GATEWAY / 1024:,.0f} MiB, {A_GATEWAY:,} sockets",
         f"{phone_kib * PHONES / 1024**2:.1f} GiB, {PHONES:,} sockets"],
        ["all phones come at once", f"{admit_ms:g} ms of CPU a phone",
         f"{admit_ms * A_GATEWAY / 1000:.0f} s of one core",
         f"{admit_ms * PHONES / 1e6 * 1000 / 60:.0f} min of one core"],
        *(
            [f"pings, --heartbeat {seconds}s", f"one each {seconds} s a phone", f"{A_GATEWAY / seconds:,.0f} a second",
             f"{PHONES / seconds:,.0f} a second"]
            for seconds in HEARTBEATS
        ),
    ]  # fmt: skip
    for model, uplink in MODELS:
        ms, size = update_ms(model, uplink), update_bytes(model, uplink)
        share = COHORT // gateways
        made += [
            [f"{COHORT:,} updates of {model}, {uplink}", f"{ms:g} ms of CPU, {size:,} bytes an update",
             f"{ms * share / 1000:.2f} s of one core, {size * share / 1e6:.2f} MB",
             f"{ms * COHORT / 1000:.0f} s of cores, {size * COHORT / 1e6:.0f} MB"],
            [f"sums of {model} to the root", f"{partial_sum_bytes(LAYOUTS[model].size):,} bytes a gateway", "one",
             f"{partial_sum_bytes(LAYOUTS[model].size) * gateways / 1e6:.0f} MB at the root"],
        ]  # fmt: skip
    head = ["what:", "for each:", f"a gateway of {A_GATEWAY:,} phones", f"all {gateways} gateways"]
    return {"million": markdown(head, made)}


if __name__ == "__main__":
    fill(PAGE, tables())
