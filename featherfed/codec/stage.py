"""What a stage of a pipeline is, and what it declares about itself.

A stage fills one slot of a pipeline, and slots come in the order of `Slot`: the value of each is what the stages after
it work on. Grammar and pipeline decide by what a stage declares, never by its type or name.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from types import MappingProxyType
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.codec.space import F32, Space
from featherfed.errors import CodecError, SpecError
from featherfed.randomness import RoundKey

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
_NO_LEVELS = np.zeros(0, np.float32)


class Slot(enum.IntEnum):
    """The places in a pipeline, in their order."""

    STATE = 0
    """feedback: adds what earlier updates left out"""
    EXACT = 1
    """exact: below how many values a tensor is sent as it is"""
    WHOLE = 2
    """flat: the model is one tensor"""
    STRUCTURED = 3
    """mask, lowrank, subspace: what is trained"""
    SPARSE = 4
    """subsample, topk: which values are sent"""
    ROTATION = 5
    """rotate, rotate_shared"""
    QUANTIZER = 6
    """float32, quantize, eden, …: values to symbols"""
    CODER = 7
    """entropy: symbols to bytes"""


class Trait(enum.Enum):
    """What a stage does to the values after it, as far as other stages care."""

    NORMAL = "values that are about normal"
    OWN_ROTATION = "a rotation of each phone's own"
    SPREAD = "each value spread over many"
    LARGEST = "only the largest values"
    SCALED_UP = "values scaled up, to make up for those that are left out"
    SUBSPACE = "a subspace of the round's own in place of all weights"
    ONE_TENSOR = "a model without tensors"
    WHOLLY_CODED = "no tensor as it is"
    EVEN = "coordinates that are about equally large"
    VARYING_LENGTH = "codes of varying length"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage with its parameters, which are its dataclass fields; at most one, written in parentheses."""

    name: ClassVar[str] = ""
    """Its name in a spec, which `registry.stage` gives it."""
    slot: ClassVar[Slot]
    paper: ClassVar[str] = "–"
    """Where it comes from."""
    unbiased: ClassVar[bool] = True
    """Whether the mean of many decoded updates is the update (of the coordinates that are trained)."""
    needs_state: ClassVar[bool] = False
    leaves_zeros: ClassVar[bool] = False
    """Whether a decoded update is zero where the phone sent nothing."""
    draws: ClassVar[bool] = True
    """Of a quantizer: whether `encode` takes anything from its generator."""
    in_blocks: ClassVar[bool] = False
    """Of a quantizer: whether its values are whole numbers times their block's number (`levels`)."""
    summed: ClassVar[bool] = False
    """Of a quantizer: whether what phones send is summed before it is decoded (`summable`)."""
    offers: ClassVar[frozenset[Trait]] = frozenset()
    """What it does to the values after it; `offered` says so of one with its parameter."""
    needs: ClassVar[Mapping[Trait, str]] = MappingProxyType({})
    """What a stage before it must offer, and why."""
    refuses: ClassVar[Mapping[Trait, str]] = MappingProxyType({})
    """What no other stage of the pipeline may offer, and why."""
    phone_only: ClassVar[str] = ""
    """Why it cannot be used on the downlink; empty where it can."""
    parameter: ClassVar[str] = ""
    """What the number in parentheses is, with its range; empty for a stage without one."""
    example: ClassVar[str] = ""
    """A parameter that makes sense, for lists and for the tests that every stage inherits."""

    @property
    def block_levels(self) -> F32:
        """Levels, where a value is its symbol's level times its block's number: whole numbers, at most 2¹¹."""
        return _NO_LEVELS

    @property
    def offered(self) -> frozenset[Trait]:
        """What it does to the values after it, with its parameter."""
        return self.offers

    @property
    def symbol_values(self) -> F32:
        """What each symbol stands for, without its block's number, (levels, values a symbol); empty: not that alone."""
        return self.block_levels[:, None]

    def symbols(self, size: int) -> int:
        """Return how many symbols a quantizer makes of `size` values: one each where it says nothing else."""
        return size

    def table(self, header: bytes) -> F32 | None:
        """Return the value of each symbol, without its block's number, where that is all there is to decoding."""
        return None

    def __str__(self) -> str:
        given = [str(getattr(self, field.name)) for field in fields(self)]
        return f"{self.name}({given[0]})" if given else self.name


class Structured(Protocol):
    """Says which coordinates are trained."""

    def space(self, layout: Layout, key: RoundKey, exact_below: int) -> Space:
        """Return the space of one phone in one round."""


class Sparse(Protocol):
    """Chooses the values that are sent."""

    sends_positions: ClassVar[bool]
    """Whether positions travel; if not, both ends draw the same ones."""

    def kept(self, size: int) -> int:
        """Return how many of `size` values are sent."""

    def positions_bits(self, size: int) -> float:
        """Return the theoretical size of the positions."""

    def select(self, values: F32, generator: np.random.Generator) -> I64:
        """Return the rising positions of the values to send; of `values` only the length counts where none travel."""

    def factors(self, size: int) -> F32:
        """Return what the receiver multiplies the values with."""


class Rotation(Protocol):
    """An orthogonal map of one tensor's values."""

    shared: ClassVar[bool]

    def forward(self, values: F32, key: RoundKey, index: int) -> F32:
        """Rotate the values of part `index`."""

    def forward_runs(self, values: F32, key: RoundKey, index: int) -> Iterator[F32]:
        """Yield `forward` run by run, each but the last of whole blocks, in room that the next one uses again."""

    def backward(self, values: F32, key: RoundKey, index: int, numbers: F32 | None = None) -> F32:
        """Undo `forward`, in place of `values`: whole numbers up to 2¹¹ where their blocks' numbers are given."""

    def draw(self, size: int, key: RoundKey, index: int) -> U8:
        """Return the bytes of all signs of part `index`, which has `size` values."""

    def draw_rows(self, sizes: Sequence[tuple[int, int]], keys: Sequence[RoundKey]) -> list[U8]:
        """Return `draw` of each (index, size) of parts, one row for each key: (keys, bytes)."""


class Quantizer(Protocol):
    """Values to symbols."""

    symbol_bits: int
    """Bits of a symbol; 0 says that the values are all in the header."""
    levels: int
    """Symbols are below this."""
    draws: ClassVar[bool]
    """Whether `encode` takes anything from its generator: only then is it one of this phone and round."""
    in_blocks: ClassVar[bool]
    """Whether it is one of `levels.Levels`: values are whole numbers times their block's number."""

    def symbols(self, size: int) -> int:
        """Return how many symbols stand for `size` values."""

    @property
    def block_levels(self) -> F32:
        """As in `Stage`; none where values are made in another way."""

    @property
    def symbol_values(self) -> F32:
        """As in `Stage`."""

    def table(self, header: bytes) -> F32 | None:
        """As in `Stage`."""

    def header_bytes(self, size: int) -> int:
        """Return the bytes of the numbers that go with `size` symbols."""

    def encode(self, values: F32, generator: np.random.Generator) -> tuple[bytes, U8]:
        """Return the header and the symbols."""

    def decode(self, header: bytes, symbols: U8, size: int) -> F32:
        """Return the values."""


class Coder(Protocol):
    """Positions and symbols to bytes."""

    fixed_size: ClassVar[bool]
    """Whether symbols are packed as they are, at `symbol_bits` each."""

    def max_bytes(self, size: int, symbol_bits: int) -> int:
        """Return the most bytes that `size` symbols can take."""

    def encode(self, symbols: U8, quantizer: Quantizer) -> bytes:
        """Return the bytes of the symbols."""

    def decode(self, payload: "Reader", size: int, quantizer: Quantizer) -> U8:
        """Return the symbols."""

    def max_positions_bytes(self, size: int, kept: int) -> int:
        """Return the most bytes that `kept` positions below `size` can take."""

    def encode_positions(self, positions: I64, size: int) -> bytes:
        """Return the bytes of rising positions."""

    def decode_positions(self, payload: "Reader", size: int, kept: int) -> I64:
        """Return `kept` rising positions below `size`."""


class Reader:
    """Takes a payload apart from its front; asking for more than there is raises `CodecError`."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._payload) - self._at

    def take(self, num_bytes: int) -> bytes:
        """Return the next bytes."""
        if num_bytes > self.left:
            raise CodecError(f"payload of {len(self._payload)} bytes ends {num_bytes - self.left} bytes too early")
        self._at += num_bytes
        return self._payload[self._at - num_bytes : self._at]

    def peek(self, num_bytes: int) -> bytes:
        """Return the next bytes, or as many as there are, without taking them."""
        return self._payload[self._at : self._at + num_bytes]

    def finish(self) -> None:
        """Raise `CodecError` unless all was taken."""
        if self.left:
            raise CodecError(f"payload of {len(self._payload)} bytes has {self.left} bytes too many")


def finite(values: F32) -> F32:
    """Return `values`, or raise `CodecError` if any is NaN or infinite."""
    # A sum is NaN or infinite wherever a number is, and costs a third of asking for each; it may also overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(values.sum())
    if suspect and not np.isfinite(values).all():
        raise CodecError(f"{int((~np.isfinite(values)).sum())} of {values.size} numbers are NaN or infinite")
    return values


def check_fraction(stage: str, fraction: Fraction) -> None:
    """Raise `SpecError` unless 0 < fraction ≤ 1."""
    if not 0 < fraction <= 1:
        raise SpecError(f"{stage}({fraction}) keeps a fraction that is not above 0 and at most 1")


def check_bits(stage: str, bits: int, least: int, most: int) -> None:
    """Raise `SpecError` unless the number of bits is one that the stage knows."""
    if not least <= bits <= most:
        raise SpecError(f"{stage}({bits}) is not one of {stage}({least}) … {stage}({most})")
