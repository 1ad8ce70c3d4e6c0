"""A rule with its parameters, and how both are spelled: `trimmed-mean:0.1`, `mytask:Krum:2`."""

from dataclasses import dataclass, fields
from typing import ClassVar


@dataclass(frozen=True)
class Rule:
    """What all rules have in common: the parameters are the dataclass's fields, in their order.

    >>> class Middle(Rule):
    ...     name = "middle"
    >>> str(Middle())
    'middle'
    """

    name: ClassVar[str] = ""
    """What a command line calls it; empty for one of a user's own, which is `module:Class`."""
    example: ClassVar[str] = ""
    """How it is spelled with numbers that make sense, for one that must be given some."""

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Return the names of the numbers that may follow the rule's name."""
        return tuple(field.name for field in fields(cls) if field.init)

    def __str__(self) -> str:
        given = [_number(getattr(self, name)) for name in self.parameters()]
        return ":".join([self.name or f"{type(self).__module__}:{type(self).__qualname__}", *given])


def _number(value: float) -> str:
    """Return the shortest text that is read as the same number.

    >>> _number(2), _number(2.0), _number(1 / 3)
    ('2', '2', '0.3333333333333333')
    """
    return str(value) if isinstance(value, int) else repr(float(value)).removesuffix(".0")
