"""A value by round: one number or name for a whole run, or another one from some rounds on.

Written as text, `12,6` are the values of rounds 1 and 2, and `1:12,5:6` says from which round on each holds; the last
value stays. In TOML and Python it may also be a table, `{ 1 = 12, 5 = 6 }`, or a list, `[12, 6]`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Union

from featherfed.errors import ConfigError

T = TypeVar("T")
S = TypeVar("S")

ByRoundOr = Union[T, Sequence[T], Mapping[int, T]]  # noqa: UP007 - an alias with a type variable
"""What a keyword takes whose value may change by round."""
LIKE = "like 12,6 for rounds 1 and 2, or 1:12,5:6 for a change in round 5"
_FROM = re.compile(r"\s*([0-9]{1,9})\s*:(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ByRound(Generic[T]):
    """`first` holds from round 1 on, each of `later` from the round that is its key on.

    >>> sizes = ByRound(12, {5: 6})
    >>> sizes.at(1), sizes.at(4), sizes.at(5), sizes.at(99)
    (12, 12, 6, 6)
    """

    first: T
    later: Mapping[int, T] = field(default_factory=dict)

    def at(self, round_number: int) -> T:
        """Return the value in a round; that of round 0, before the first one, is the first."""
        if not self.later:
            return self.first
        begun = [each for each in self.later if each <= round_number]
        return self.later[max(begun)] if begun else self.first

    @property
    def values(self) -> tuple[T, ...]:
        """All values, in the order of their rounds."""
        return (self.first, *(self.later[each] for each in sorted(self.later)))

    def map(self, function: Callable[[T], S]) -> "ByRound[S]":
        """Return what a function makes of each value."""
        return ByRound(function(self.first), {each: function(value) for each, value in self.later.items()})

    def text(self, spell: Callable[[T], str] = str) -> str:
        """Return the text that `by_round` reads as this.

        >>> ByRound(12).text(), ByRound(12, {2: 6}).text(), ByRound(12, {5: 6}).text()
        ('12', '12,6', '1:12,5:6')
        """
        rounds = (1, *sorted(self.later))
        if rounds == tuple(range(1, len(rounds) + 1)):
            return ",".join(map(spell, self.values))
        return ",".join(f"{each}:{spell(value)}" for each, value in zip(rounds, self.values, strict=True))


def steps(values: Mapping[int, T]) -> ByRound[T]:
    """Return the values from their rounds on, one of which is round 1; what changes nothing is left out.

    >>> steps({1: 12, 3: 12, 5: 6})
    ByRound(first=12, later={5: 6})
    """
    first, later = values[1], {}
    last = first
    for number in sorted(values):
        if values[number] != last:
            last = later[number] = values[number]
    return ByRound(first, later)


def is_by_round(value: object) -> bool:
    """Return whether a setting's value is one by round: a table, a list, or text with a comma or a round before it.

    >>> [is_by_round(value) for value in (12, "12", "12,6", "1:12", [12, 6], {1: 12})]
    [False, False, True, True, True, True]
    """
    if isinstance(value, str):
        return "," in value or _FROM.fullmatch(value) is not None
    return isinstance(value, ByRound | Mapping) or (isinstance(value, Sequence) and not isinstance(value, bytes))


def by_round(value: Any) -> ByRound[Any]:
    """Return the value by round that is written as text, as a table or as a list; of text the pieces stay text.

    Raises `ConfigError` with one sentence for what says no value for some round, or two.

    >>> by_round("0.1, 0.05")
    ByRound(first='0.1', later={2: '0.05'})
    >>> by_round({"1": 12, "5": 6})
    ByRound(first=12, later={5: 6})
    >>> by_round("5:6")
    Traceback (most recent call last):
        ...
    featherfed.errors.ConfigError: '5:6' says nothing of round 1: begin with 1:
    """
    if isinstance(value, ByRound):
        return value
    if isinstance(value, str):
        pairs = _pairs(value)
    elif isinstance(value, Mapping):
        pairs = [(_number(key, value), each) for key, each in value.items()]
    else:
        pairs = list(enumerate(value, 1))
    known: dict[int, Any] = {}
    for number, each in pairs:
        if number < 1:
            raise ConfigError(f"{value!r} names round {number}, and rounds count from 1")
        if not isinstance(value, str) and is_by_round(each):
            raise ConfigError(f"{value!r} has {each!r} for round {number}, and a round has one value")
        if number in known:
            raise ConfigError(f"{value!r} names round {number} twice")
        known[number] = each
    if not known:
        raise ConfigError(f"{value!r} has no value, {LIKE}")
    if 1 not in known:
        raise ConfigError(f"{value!r} says nothing of round 1: begin with {'1:' if isinstance(value, str) else '1'}")
    return steps(known)


def _number(key: object, whole: object) -> int:
    if isinstance(key, int) and not isinstance(key, bool):
        return key
    if isinstance(key, str) and re.fullmatch("[0-9]{1,9}", key):
        return int(key)
    raise ConfigError(f"{whole!r} has {key!r} where the number of a round was expected, {LIKE}")


def _pairs(text: str) -> list[tuple[int, str]]:
    pieces = text.split(",")
    named = [_FROM.fullmatch(piece) for piece in pieces]
    if any(named) and not all(named):
        raise ConfigError(f"{text!r} names the rounds of some values and not of others; it is {LIKE}")
    pairs = [
        (int(match[1]), match[2].strip()) if match else (place, piece.strip())
        for place, (piece, match) in enumerate(zip(pieces, named, strict=True), 1)
    ]
    if not all(piece for _, piece in pairs):
        raise ConfigError(f"{text!r} has a round without a value; it is {LIKE}")
    return pairs
