"""A strategy as a string: stages with a bar between them, or the name of a preset.

subsample(1/16) | rotate | quantize(2)
"""

import difflib
import itertools
import re
from dataclasses import fields
from fractions import Fraction
from typing import Any

from featherfed.codec.eden import Eden
from featherfed.codec.entropy import Entropy
from featherfed.codec.floats import BFloat16, Float16, Float32
from featherfed.codec.grid import Grid
from featherfed.codec.lowrank import LowRank
from featherfed.codec.mask import Mask
from featherfed.codec.model_stages import Exact, Feedback, Flat
from featherfed.codec.qsgd import Qsgd
from featherfed.codec.quantize import Quantize
from featherfed.codec.registry import DOWNLINKS, NAME, STAGES, find
from featherfed.codec.rotate import Rotate, RotateShared
from featherfed.codec.sign import Sign, Ternary
from featherfed.codec.stage import Slot, Stage, Trait
from featherfed.codec.stochastic import Stochastic
from featherfed.codec.subsample import Subsample
from featherfed.codec.subspace import Subspace
from featherfed.codec.topk import TopK
from featherfed.codec.vertex import Vertex
from featherfed.errors import SpecError

OURS: tuple[type[Stage], ...] = (
    Feedback, Exact, Flat, Mask, LowRank, Subspace, Subsample, TopK, Rotate, RotateShared, Float32, Float16,
    BFloat16, Quantize, Eden, Vertex, Stochastic, Grid, Qsgd, Sign, Ternary, Entropy,
)  # fmt: skip
"""In the order of the page about them."""

PRESETS: dict[str, str] = {
    "konecny-256x": "subsample(1/16) | rotate | quantize(2)",
    "konecny-mask": "mask(1/16)",
    "konecny-lowrank": "lowrank(1/4)",
    "eden-1bit": "rotate | eden(1)",
    "eden-half": "subsample(1/2) | rotate | eden(1)",
    "eden-tiny": "exact(0) | flat | subsample(1/16) | rotate | eden(1)",
    "vertex-tiny": "exact(0) | flat | rotate | vertex(128)",
    "vertex-small": "exact(0) | flat | rotate | vertex(32)",
    "shared-2bit": "rotate_shared | stochastic(2)",
    "shared-4bit": "rotate_shared | stochastic(4)",
    "stc-400": "feedback | topk(1/400) | ternary | entropy",
    "sign-feedback": "feedback | sign",
    "qsgd-4bit": "qsgd(4) | entropy",
    "intrinsic-1000": "subspace(1000)",
    "secure-small": "subspace(1536) | grid(4)",
    "secure-4bit": "exact(0) | flat | rotate_shared | grid(4)",
}
MAX_SPEC = 256
_STAGE = re.compile(rf"({NAME.pattern})(?:\(\s*([0-9]+(?:/[0-9]+|\.[0-9]+)?)\s*\))?")


def parse_stages(spec: str, *, direction: str) -> list[Stage]:
    """Return the stages of a spec or preset in their order; raises `SpecError` naming the stages that clash."""
    if len(spec) > MAX_SPEC:
        raise SpecError(f"codec spec of {len(spec)} characters exceeds {MAX_SPEC}")
    stages = [_stage(text.strip(), spec, direction) for text in PRESETS.get(spec.strip(), spec).split("|")]
    # What travels is the pipeline's own spelling, which has other blanks and fractions than what was typed.
    if (length := len(" | ".join(map(str, stages)))) > MAX_SPEC:
        raise SpecError(f"codec spec of {length} characters, written out, exceeds {MAX_SPEC}")
    for first, second in itertools.pairwise(stages):
        if first.slot == second.slot:
            raise SpecError(f"{first} and {second} do the same job: a pipeline has one {first.slot.name.lower()} stage")
    _check_pairs(stages)
    for first, second in itertools.pairwise(stages):
        if first.slot > second.slot:
            raise SpecError(
                f"{second} must come before {first}: the order is {' | '.join(s.name.lower() for s in Slot)}"
            )
    for stage in stages:
        if direction == "downlink" and stage.phone_only:
            raise SpecError(f"{stage} cannot be used on the downlink: {stage.phone_only}")
        for trait, why in stage.needs.items():
            if not any(trait in other.offered for other in stages):
                raise SpecError(f"{stage} needs {' or '.join(_offering(trait))} before it: {why}")
    _check_coder(stages)
    return stages


def _check_pairs(stages: list[Stage]) -> None:
    """Raise `SpecError` where a stage refuses what another one does."""
    for first, second in itertools.permutations(sorted(stages, key=lambda stage: stage.slot), 2):
        for trait, why in first.refuses.items():
            if trait in second.offered:
                raise SpecError(f"{first.name} does not go with {second.name}: {why}")


def _offering(trait: Trait) -> list[str]:
    return [stage.name for stage in STAGES.values() if trait in stage.offers] or [f"a stage for {trait.value}"]


def _check_coder(stages: list[Stage]) -> None:
    if stages[-1].slot is Slot.CODER:
        quantizer = next((stage for stage in stages if stage.slot is Slot.QUANTIZER), None)
        if quantizer is None or not getattr(quantizer, "symbol_bits", 0):
            raise SpecError(
                f"{stages[-1]} codes symbols, and {quantizer or 'float32'} makes none: name a quantizer first"
            )


def _stage(text: str, spec: str, direction: str) -> Stage:
    match = _STAGE.fullmatch(text)
    if match is None:
        if text in PRESETS:
            raise SpecError(f"{text} is a whole pipeline, {PRESETS[text]}: write that out in {spec!r}")
        if close := difflib.get_close_matches(text, PRESETS, 1):
            raise SpecError(f"codec spec {spec!r} has {text!r}, no stage and no preset; did you mean {close[0]}?")
        raise SpecError(f"codec spec {spec!r} has {text!r} where a stage like rotate or quantize(2) was expected")
    name, given = match[1], match[2]
    kind = find(name)
    if kind is None and name in DOWNLINKS:
        raise SpecError(f"{name} is a downlink, not a stage of a pipeline; it goes to --downlink, first of all")
    if kind is None:
        known = [*(DOWNLINKS if direction == "downlink" else ()), *STAGES]
        close = difflib.get_close_matches(name, [*known, *PRESETS], 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise SpecError(f"unknown codec stage {name!r}; {hint} (one of your own is loaded by --plugin MODULE)")
    parameters = fields(kind)
    if bool(parameters) != (given is not None):
        raise SpecError(f"{name} takes {'a number, like ' + name + f'({kind.example})' if parameters else 'no number'}")
    if given is None:
        return kind()
    make: Any = kind
    if parameters[0].type in (Fraction, "Fraction"):
        _number, _, divisor = given.partition("/")
        if divisor and int(divisor) == 0:
            raise SpecError(f"{text} divides by zero")
        stage: Stage = make(Fraction(given))
        return stage
    if not given.isdigit():
        raise SpecError(f"{text} needs a whole number, like {name}({kind.example})")
    stage = make(int(given))
    return stage
