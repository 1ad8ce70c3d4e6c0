"""The stages that a spec can name: ours, those of installed packages, and those of a user's own file.

Each is registered by the decorator where its class stands, ours too; the grammar and the pipeline know of a stage only
what it declares.
"""

import dataclasses
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeVar

from featherfed.codec.stage import Coder, Quantizer, Rotation, Slot, Sparse, Stage, Structured
from featherfed.errors import SpecError
from featherfed.user_code import place_of_class
from featherfed.user_modules import import_source

GROUP = "featherfed.stages"
"""The entry points by which a package offers stages: the name of each is the stage's, its value the module."""
STAGES: dict[str, type[Stage]] = {}
"""By name, in the order in which they were registered."""
NAME = re.compile(r"[a-z][a-z0-9_]*")
LATTICE, FRESH = DOWNLINKS = ("lattice", "fresh")
"""What `downlink_grammar` knows beside pipelines."""
_MEMBERS: dict[Slot, type[Any]] = {
    Slot.STRUCTURED: Structured, Slot.SPARSE: Sparse, Slot.ROTATION: Rotation, Slot.QUANTIZER: Quantizer,
    Slot.CODER: Coder,
}  # fmt: skip

AnyStage = TypeVar("AnyStage", bound=Stage)


def stage(name: str) -> Callable[[type[AnyStage]], type[AnyStage]]:
    """Register a class as the stage of a name, for any codec spec from now on.

    The class is a `Stage` with a slot and what the protocol of that slot asks for (`featherfed.codec.stage`), and a
    frozen dataclass of at most one field, a whole number or a `Fraction`: what stands in parentheses. Raises
    `SpecError` for a class that is not, and for a name that is another's.
    """

    def register(kind: type[AnyStage]) -> type[AnyStage]:
        if not isinstance(kind, type) or not issubclass(kind, Stage):
            raise SpecError(f"stage {name!r} is {kind!r}, and no subclass of ff.Stage")
        if "__dataclass_fields__" not in vars(kind):
            kind = dataclasses.dataclass(frozen=True)(kind)
        _check(name, kind)
        kind.name = name
        STAGES[name] = kind
        return kind

    return register


def find(name: str) -> type[Stage] | None:
    """Return the stage of a name: whatever the name is, only what is installed here is imported for it."""
    if name not in STAGES and (module := _entry_points().get(name)):
        import_source(module.partition(":")[0], f"codec stage {name}")
    return STAGES.get(name)


def _check(name: str, kind: type[Stage]) -> None:
    what = f"stage {name!r}{place_of_class(kind)}"
    if NAME.fullmatch(name) is None:
        raise SpecError(f"{what} is not named by small letters, digits and _, like terngrad")
    if name in DOWNLINKS:
        raise SpecError(f"{what} has the name of a downlink")
    known = STAGES.get(name)
    # The same class again is a file that was read again, as in a notebook.
    if known is not None and (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise SpecError(f"{what} has the name of another: {known.__module__}.{known.__qualname__}")
    if not isinstance(getattr(kind, "slot", None), Slot):
        raise SpecError(f"{what} says no slot; there are {', '.join(f'Slot.{slot.name}' for slot in Slot)}")
    parameters = dataclasses.fields(kind)
    if len(parameters) > 1:
        raise SpecError(f"{what} has {len(parameters)} parameters, and parentheses hold one number at most")
    if parameters and parameters[0].type not in (int, Fraction, "int", "Fraction"):
        raise SpecError(f"{what} has the parameter {parameters[0].name}, which is neither an int nor a Fraction")
    given = {field.name for field in parameters}
    if missing := [member for member in _members(kind.slot) if member not in given and not hasattr(kind, member)]:
        raise SpecError(f"{what} fills the {kind.slot.name.lower()} slot, and has no {', '.join(missing)}")


def _members(slot: Slot) -> list[str]:
    """Return what a stage of a slot must have, as its protocol says."""
    protocol = _MEMBERS.get(slot)
    if protocol is None:
        return []
    return [*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_"))]


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}
