"""`python -m lab agree`: the same scenario with real processes and in virtual time, side by side."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from featherfed.errors import ConfigError, FeatherfedError
from featherfed.fl_bench.cells import report_of, run_cell
from featherfed.fl_bench.codec_tables import markdown
from featherfed.fl_bench.scenario import Cell, read_scenario
from featherfed.server.storage.run_folder import existing
from featherfed.server.storage.store import Store
from lab.documents import fill


@dataclass(frozen=True, slots=True)
class Agreement:
    """One cell run both ways. `transfers`: (round, phone, direction) with payload, and how many differ in bytes."""

    cell: str
    rounds: int
    transfers: int
    differing: int
    same_model: bool
    real_s: float
    virtual_s: float

    @property
    def deviation(self) -> float:
        """How much longer the emulated duration was on real sockets, as a share."""
        return self.real_s / self.virtual_s - 1


def compare(cell: Cell, real: Path, virtual: Path) -> Agreement:
    """Compare two run folders of one cell."""
    payloads = [_payloads(folder) for folder in (real, virtual)]
    keys = payloads[0].keys() | payloads[1].keys()
    models = [(folder / "model.safetensors").read_bytes() for folder in (real, virtual)]
    seconds = [sum(row["seconds"] for row in report_of(folder)["rounds"]) for folder in (real, virtual)]
    return Agreement(
        cell.name,
        cell.config.rounds,
        len(keys),
        sum(payloads[0].get(key) != payloads[1].get(key) for key in keys),
        models[0] == models[1],
        seconds[0],
        seconds[1],
    )


def _payloads(folder: Path) -> dict[tuple[int, int, str], int]:
    store = Store(existing(folder)[0].database)
    try:
        return {key: traffic.payload for key, traffic in store.traffic().items() if traffic.payload}
    finally:
        store.close()


def run_both_ways(file: Path, out: Path, data_dir: str | None) -> list[Agreement]:
    """Run each cell of a scenario both ways in `out/real` and `out/virtual`."""
    pairs = zip(read_scenario(file), read_scenario(file, way="virtual"), strict=True)
    result = []
    for real, virtual in pairs:
        run_cell(virtual, out / "virtual", data_dir)
        run_cell(real, out / "real", data_dir)
        result.append(compare(real, out / "real" / real.name, out / "virtual" / virtual.name))
    return result


def _table(agreements: list[Agreement]) -> str:
    columns = ["cell:", "rounds", "transfers", "other payload bytes", "same model bit for bit:"]
    rows = [
        [
            each.cell, str(each.rounds), str(each.transfers), str(each.differing), "yes" if each.same_model else "NO",
            f"{each.real_s:.1f}", f"{each.virtual_s:.1f}", f"{each.deviation:+.1%}",
        ]
        for each in agreements
    ]  # fmt: skip
    return markdown([*columns, "real s", "virtual s", "deviation"], rows)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs.  [default: a new temporary one]")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def agree(file: Path, out: Path | None, data_dir: str | None, as_json: bool, document: Path | None) -> None:
    """Run the scenario FILE with real processes and in virtual time; fails unless bytes and models are equal."""
    folder = out or Path(tempfile.mkdtemp(prefix="featherfed-agree-"))
    try:
        agreements = run_both_ways(file, folder, data_dir)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    rows: list[dict[str, Any]] = [asdict(each) | {"deviation": each.deviation} for each in agreements]
    click.echo(json.dumps(rows, indent=1) if as_json else _table(agreements))
    if document is not None:
        fill(document, {"lab agree": _table(agreements)})
    if any(each.differing or not each.same_model for each in agreements):
        raise click.ClickException(f"the two ways differ; their runs are in {folder}")
