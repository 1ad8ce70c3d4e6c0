"""`python -m lab codec`: the tables of docs/CODECS.md, measured, or of the runs of scenarios/codec_accuracy.toml."""

from pathlib import Path
from typing import Any

import click

from featherfed.codec.grammar import PRESETS
from featherfed.errors import ConfigError, FeatherfedError, LocalError
from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.codec import KINDS, SEEDS, SIZE, SPECS, measured
from featherfed.fl_bench.codec_sums import measured_sums
from featherfed.fl_bench.codec_tables import figures_table, markdown, presets_table, stages_table, sums_table
from lab.documents import fill


@click.command()
@click.option(
    "--write",
    "document",
    required=True,
    help="Fill the tables of this page.",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--spec", "specs", multiple=True, default=SPECS, help="Codec spec or preset; may be repeated.")
@click.option("--data", "kinds", default=KINDS, show_default=True, help="Kinds of data, with commas.")
@click.option("--size", type=click.IntRange(1), default=SIZE, show_default=True, help="Values that are drawn.")
@click.option("--data-dir", type=click.Path(), help="Folder with data sets.  [default: FL_DATA_DIR, else a cache]")
@click.option(
    "--accuracy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Fill the accuracy of the runs in DIR instead.",
)
@click.option("--sums", is_flag=True, help="Fill the errors of sums in place of the figures of single updates.")
def codec(
    document: Path, specs: tuple[str, ...], kinds: str, size: int, data_dir: str | None, accuracy: Path | None,
    sums: bool,
) -> None:  # fmt: skip
    """Fill the tables of docs/CODECS.md: stages, presets and measured figures, or sums, or the accuracy of runs."""
    try:
        if accuracy is not None:
            fill(document, {"codec accuracy": accuracy_table(accuracy)})
            return
        tables = {"codec stages": stages_table(), "codec presets": presets_table()}
        if sums:
            fill(document, {**tables, "codec sums": sums_table(list(measured_sums()))})
            return
        rows = measured(specs, kinds, size, SEEDS, data_dir)
        fill(document, {**tables, "codec figures": figures_table(rows)})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error


def accuracy_table(folder: Path) -> str:
    """Return accuracy and megabytes of the runs of a grid over `uplink`; raises `LocalError` where there are none."""
    reports = [report_of(cell.parent) for cell in folder.glob("*/done")]
    reports.sort(key=lambda report: -report["totals"]["uplink"]["socket"])
    baseline = next((report for report in reports if report["uplink"] == "float32"), None)
    if baseline is None:
        raise LocalError(f"{folder} holds no finished run with --uplink float32 to compare with")
    rows = []
    for report in reports:
        up, accuracy = report["totals"]["uplink"]["socket"], _accuracy(report)
        spec = PRESETS.get(report["uplink"], report["uplink"])
        rows.append(
            [
                f"`{report['uplink']}`" + ("" if spec == report["uplink"] else f" = `{spec}`"),
                str(len(report["rounds"])),
                f"{100 * accuracy:.2f}",
                f"{100 * (accuracy - _accuracy(baseline)):+.2f}",
                f"{up / 1e6:.3f}",
                f"{baseline['totals']['uplink']['socket'] / up:.0f}×",
            ]
        )
    return markdown(["uplink:", "rounds", "accuracy %", "points", "uplink MB", "less"], rows)


def _accuracy(report: dict[str, Any]) -> float:
    return float(next(row["accuracy"] for row in reversed(report["rounds"]) if row["accuracy"] is not None))
