"""The tables of docs/CODECS.md, and what `fl-bench codec --list` prints."""

from dataclasses import fields
from typing import Any

from featherfed.codec.grammar import OURS, PRESETS
from featherfed.codec.stage import Slot, Stage
from featherfed.fl_bench.codec_figures import Figures
from featherfed.fl_bench.codec_sums import COMMON, SumFigures

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
        "sums before decoding": stage.summed,
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


def sums_table(rows: list[SumFigures]) -> str:
    """Return the errors of cohorts' means as a table."""
    lines = [
        [
            str(row.cohort),
            f"{row.circles} of {row.cohort // row.circles}" if row.circles else "each seen",
            f"`{row.spec}`",
            _digits(row.bits_per_weight),
            *(f"{error:.2g}" for error in (row.first, *row.later)),
        ]
        for row in rows
    ]
    later = [f"later, ρ = {common:g}" for common in COMMON]
    return markdown(["cohort", "circles:", "spec:", "bits a weight", f"error first, ρ = {COMMON[0]:g}", *later], lines)


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 1e4 else f"{number:.1e}"


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table; a column whose name ends in `:` is of text, all others are of numbers."""
    marks = ["---" if column.endswith(":") else "--:" for column in columns]
    lines = [[column.removesuffix(":") for column in columns], *rows]
    # A bar in a codec spec would end its cell.
    cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    return "\n".join([f"| {cells[0]} |", f"|{'|'.join(marks)}|", *(f"| {line} |" for line in cells[1:])])
