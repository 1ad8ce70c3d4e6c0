"""The tables of docs/CODECS.md, and what `fl-bench codec --list` prints."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from featherfed.codec.grammar import OURS, PRESETS
from featherfed.codec.stage import Slot, Stage
from featherfed.errors import LocalError
from featherfed.fl_bench.cells import report_of
from featherfed.fl_bench.codec_figures import Figures
from featherfed.fl_bench.documents import markdown

PROPERTIES = {
    Slot.STRUCTURED: "trains in a subspace",
    Slot.CODER: "lossless",
}


def listing() -> dict[str, list[dict[str, Any]]]:
    """Return all stages with their parameters and properties, and all presets."""
    return {
        "stages": [
            {
                "name": stage.name,
                "slot": stage.slot.name.lower(),
                "parameter": fields(stage)[0].name if fields(stage) else None,
                "range": stage.parameter or None,
                "example": f"{stage.name}({stage.example})" if fields(stage) else stage.name,
                "unbiased": stage.unbiased,
                "properties": _properties(stage),
                "paper": stage.paper,
            }
            for stage in OURS
        ],
        "presets": [{"name": name, "spec": spec} for name, spec in PRESETS.items()],
    }


def _properties(stage: type[Stage]) -> list[str]:
    declared = {
        "unbiased" if stage.unbiased else "biased": True,
        "needs state": stage.needs_state,
        "leaves zeros": stage.leaves_zeros,
        "sums before the inverse": getattr(stage, "shared", False),
        "sends positions": getattr(stage, "sends_positions", False),
        "not on the downlink": bool(stage.phone_only),
    }
    given = [name for name, holds in declared.items() if holds]
    return [*given, PROPERTIES[stage.slot]] if stage.slot in PROPERTIES else given


def stages_table() -> str:
    """Return the stages as a table."""
    rows = [
        [f"`{row['example']}`", row["slot"], row["range"] or "–", ", ".join(row["properties"]), row["paper"]]
        for row in listing()["stages"]
    ]
    return markdown(["stage:", "slot:", "the number is:", "properties:", "source:"], rows)


def presets_table() -> str:
    """Return the presets as a table."""
    return markdown(["preset:", "stands for:"], [[f"`{name}`", f"`{spec}`"] for name, spec in PRESETS.items()])


def figures_table(rows: list[Figures]) -> str:
    """Return measured figures as a table."""
    columns = ["spec:", "data:", "bits", "theory", "vNMSE", "bias", "unbiased ±", "encode MB/s", "decode", "fold"]
    lines = []
    for row in rows:
        speeds = [f"{speed:.0f}" for speed in (row.encode_mb_s, row.decode_mb_s, row.fold_mb_s, row.copy_mb_s)]
        lines.append(
            [
                f"`{row.spec}`",
                row.data,
                _digits(row.bits_per_coordinate),
                _digits(row.theory_bits),
                _digits(row.vnmse),
                _digits(row.bias),
                _digits(row.bias_if_unbiased),
                *speeds,
                f"{row.encode_peak:.1f}",
            ]
        )
    return markdown([*columns, "copy", "peak ×"], lines)


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 1e4 else f"{number:.1e}"


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
