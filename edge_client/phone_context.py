"""What a phone keeps over all of its connections, and each of them uses."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from msgspec.structs import replace

from featherfed.edge_client.addresses import Addresses
from featherfed.edge_client.dialing import Dialer
from featherfed.edge_client.learner import fingerprint_of
from featherfed.edge_client.limits import MAX_PARAMETERS
from featherfed.edge_client.phone_state import PhoneState
from featherfed.edge_client.training_runner import TrainingRunner
from featherfed.errors import ProtocolError
from featherfed.fingerprint import Fingerprint
from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE
from featherfed.wire.chunking import ChunkSizer
from featherfed.wire.messages import NOTHING, TensorEntry, Welcome, tensor_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneSettings:
    """`shard` is (index, of), or None to be given one. `step_s`: seconds a training step of this device takes.

    `link` and `link_bytes_per_s` are what the phone says of its way up: a label, and bytes a second (0: not known).
    `others` are more addresses where the server may be. `server_flag` and `token_flag` are what errors call them.
    In a masked circle of fewer than `least_circle` phones it takes no part; `only_masked`: nor in a run without masks.
    Nor in one whose phones add less noise to a sum than `least_noise` times what one of them moves it by.
    """

    server: str
    others: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    token: str | None = None
    tls: ssl.SSLContext | None = None
    step_s: float = 0.0
    patience_s: float = 600.0
    link: str = ""
    link_bytes_per_s: int = 0
    least_circle: int = DEFAULT_LEAST_CIRCLE
    only_masked: bool = False
    least_noise: float = 0.0
    server_flag: str = "--server"
    token_flag: str = "--token"


class Progress:
    """How far the update under way is durable, over all connections, and what that says about the link."""

    def __init__(self) -> None:
        self.sizer = ChunkSizer()
        self._round_number, self._durable = NOTHING, 0

    def durable(self, round_number: int, offset: int) -> None:
        """Note that the server has the first `offset` bytes of a round's update."""
        if round_number != self._round_number:
            self._round_number, self._durable = round_number, 0
        self.sizer.carried(max(0, offset - self._durable))
        self._durable = offset

    def chunk_bytes(self, round_number: int, offset: int, most: int, *, bytes_per_s: float = 0.0) -> int:
        """Return how many bytes of a round's update to send next, of which the first `offset` were sent."""
        arrived = self._durable if round_number == self._round_number else 0
        return self.sizer.chunk_bytes(most, max(0, offset - arrived), bytes_per_s=bytes_per_s)


class KnownModel:
    """The model that a phone knows: its own problem's, or the one that a server has told it of."""

    def __init__(self, known: Fingerprint | None = None) -> None:
        self._known = known

    @property
    def digest(self) -> bytes:
        """Its digest, or nothing where none is known."""
        return self._known.digest if self._known is not None else b""

    def whole(self, welcome: Welcome) -> Welcome:
        """Return a Welcome with the model's tensors in it; raises `ProtocolError` where they are not known."""
        if welcome.tensors:
            told = fingerprint_of(welcome)
            if not 0 < told.layout.size <= MAX_PARAMETERS:
                raise ProtocolError(f"a model with {told.layout.size} parameters; the limit is {MAX_PARAMETERS}")
            self._known = told
        if self._known is None:
            raise ProtocolError("a Welcome without the model's tensors, and this phone knows no model")
        return replace(welcome, tensors=_entries(self._known))


@lru_cache(maxsize=4)
def _entries(known: Fingerprint) -> list[TensorEntry]:
    """Return a model's entries: of phones of one process, the same."""
    return tensor_entries(known.rows())


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneContext:
    """One phone: who it is, what it has, and how it reaches its server; `say` is told what people may want to read."""

    settings: PhoneSettings
    name: str
    phone_state: PhoneState
    dialer: Dialer
    runner: TrainingRunner
    addresses: Addresses
    model: KnownModel
    say: Callable[[str], None]
    progress: Progress = field(default_factory=Progress)
