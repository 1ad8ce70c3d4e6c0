"""`--downlink` as a string: `lattice(1)`, `fresh | rotate | eden(4)`, or the pipeline of a chain."""

import re
from fractions import Fraction

from featherfed.codec.chain import Chain
from featherfed.codec.downlink import Downlink
from featherfed.codec.fresh import Fresh
from featherfed.codec.grammar import MAX_SPEC
from featherfed.codec.lattice import Lattice
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.registry import FRESH, LATTICE, NAME
from featherfed.errors import SpecError

_LATTICE = re.compile(rf"{LATTICE}(?:\(\s*([0-9]+(?:/[0-9]+|\.[0-9]+)?)\s*\))?")

_BY_ROUND = re.compile(r"^\s*[0-9]+\s*:|,")


def parse_downlink(spec: str) -> Downlink:
    """Return the downlink of a spec; raises `SpecError`.

    >>> str(parse_downlink("fresh | eden-1bit")), str(parse_downlink("lattice(0.5)"))
    ('fresh | rotate | eden(1)', 'lattice(1/2)')
    """
    if len(spec) > MAX_SPEC:
        raise SpecError(f"codec spec of {len(spec)} characters exceeds {MAX_SPEC}")
    if _BY_ROUND.search(spec):
        raise SpecError(f"downlink {spec!r} has values by round, and is one for all rounds; an uplink may change")
    first, bar, rest = spec.partition("|")
    name = NAME.match(first.strip())
    if name is not None and name[0] == FRESH:
        if first.strip() != FRESH:
            raise SpecError(f"fresh takes no number, and {first.strip()!r} has more")
        if not bar:
            raise SpecError("fresh needs a pipeline behind it, like fresh | rotate | eden(4)")
        made = Fresh(Pipeline.parse(rest, direction="downlink"))
        if (length := len(str(made))) > MAX_SPEC:
            raise SpecError(f"codec spec of {length} characters, written out, exceeds {MAX_SPEC}")
        return made
    if name is not None and name[0] == LATTICE:
        return _lattice(spec)
    return Chain(Pipeline.parse(spec, direction="downlink"))


def pipeline_of(downlink: Downlink) -> Pipeline | None:
    """Return the codec pipeline of a downlink, if it has one."""
    return downlink.pipeline if isinstance(downlink, Chain | Fresh) else None


def _lattice(spec: str) -> Lattice:
    match = _LATTICE.fullmatch(spec.strip())
    if match is None:
        raise SpecError(f"{spec!r} is not lattice(1) alone, with a number in parentheses: it needs no other stage")
    if match[1] is None:
        raise SpecError("lattice takes a number, like lattice(1)")
    if "/" in match[1] and not int(match[1].partition("/")[2]):
        raise SpecError(f"{spec} divides by zero")
    return Lattice(Fraction(match[1]))
