"""Which stages a phone says that it has, by Hello's `stages`: docs/PROTOCOL.md, "What a phone can do"."""

from collections.abc import Iterable

from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import RefusedError

NUMBERED = (
    "feedback", "exact", "flat", "mask", "lowrank", "subspace", "subsample", "topk", "rotate", "rotate_shared",
    "float32", "float16", "bfloat16", "quantize", "eden", "vertex", "stochastic", "grid", "qsgd", "sign", "ternary",
    "entropy", "lattice", "fresh",
)  # fmt: skip
"""Each has the bit of its place. New ones come last: phones that know nothing of them keep their bits."""


def check_able(stages: int, uplinks: Iterable[str], downlink: str) -> None:
    """Raise `RefusedError`, with a sentence for the phone, unless it can do all of these; 0 stands for every stage.

    A stage of somebody's own has no bit: phones that say what they can do do not have it.
    """
    if not stages:
        return
    specs = [("uplink", str(Pipeline.parse(each))) for each in uplinks]
    for what, spec in [*specs, ("downlink", str(parse_downlink(downlink)))]:
        names = [part.partition("(")[0].strip() for part in spec.split("|")]
        missing = [each for each in names if each not in NUMBERED or not stages >> NUMBERED.index(each) & 1]
        if missing:
            raise RefusedError(f"this phone cannot do {' and '.join(missing)}, which the {what} of this run needs")
