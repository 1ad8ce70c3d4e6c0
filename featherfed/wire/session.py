"""The rules of a session, without I/O: which message may follow which, and how the bytes of a transfer add up.

Each end is a track of its own, since messages cross on the way: a phone may send chunks of an update that the server
has just cancelled. Both ends run the same tables on both tracks, so a fault is found where it is made and where it
arrives. Everything that changes a state is in this file.

    phone    NEW --Hello--> READY --UpdateBegin--> UPLOADING --(last byte)--> READY
                            READY, UPLOADING --WholeUpdate--> READY
                            READY, UPLOADING --Key, Shares--> the same
    server   NEW --Welcome--> IDLE --Task--> TASKED --ModelBegin--> SENDING --(last byte)--> IDLE
                                IDLE, TASKED, SENDING --WholeModel--> IDLE
                                TASKED --Circle--> TASKED
                                IDLE, TASKED, SENDING --Survivors--> the same
                                IDLE, TASKED, SENDING --Finish--> OVER
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

from featherfed.errors import ProtocolError
from featherfed.wire.messages import (
    Accepted,
    Ack,
    AnyMessage,
    Cancel,
    Circle,
    Finish,
    Hello,
    Key,
    Message,
    ModelBegin,
    ModelChunk,
    Shares,
    Survivors,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
)


class Role(enum.Enum):
    """The two ends of a session."""

    PHONE = "phone"
    SERVER = "server"

    # There is one of each; the hash of its name, computed anew in Python, would cost more than the look-up.
    __hash__ = object.__hash__


class State(enum.Enum):
    """Where one end's track stands."""

    NEW = "new"
    READY = "ready"
    UPLOADING = "uploading"
    IDLE = "idle"
    TASKED = "tasked"
    SENDING = "sending"
    OVER = "over"

    __hash__ = object.__hash__


Table = Mapping[State, Mapping[type[Message], State]]

_IN_ANY_TASK: dict[type[Message], State] = {Finish: State.OVER, Task: State.TASKED, WholeModel: State.IDLE}

TABLES: Mapping[Role, Table] = MappingProxyType(
    {
        Role.PHONE: {
            State.NEW: {Hello: State.READY},
            State.READY: {
                UpdateBegin: State.UPLOADING,
                WholeUpdate: State.READY,
                Key: State.READY,
                Shares: State.READY,
            },
            # A cancelled update may give way to the next round's.
            State.UPLOADING: {
                UpdateChunk: State.UPLOADING,
                UpdateBegin: State.UPLOADING,
                WholeUpdate: State.READY,
                Key: State.UPLOADING,
                Shares: State.UPLOADING,
            },
        },
        Role.SERVER: {
            State.NEW: {Welcome: State.IDLE},
            State.IDLE: {
                **_IN_ANY_TASK,
                Ack: State.IDLE,
                Accepted: State.IDLE,
                Cancel: State.IDLE,
                Survivors: State.IDLE,
                ModelBegin: State.SENDING,
            },
            State.TASKED: {
                **_IN_ANY_TASK,
                Circle: State.TASKED,
                Survivors: State.TASKED,
                ModelBegin: State.SENDING,
                Ack: State.TASKED,
                Accepted: State.TASKED,
                Cancel: State.TASKED,
            },
            State.SENDING: {
                **_IN_ANY_TASK,
                ModelChunk: State.SENDING,
                Ack: State.SENDING,
                Accepted: State.SENDING,
                Survivors: State.SENDING,
                # It may be about another round than the one whose model is under way: a phone that comes back with an
                # old update gets its task at once, and asks for that update while the model comes.
                Cancel: State.SENDING,
            },
            State.OVER: {},
        },
    }
)
"""`TABLES[sender][state][message] = next state`; what is not here is out of turn."""

# What the other track must have reached before this track may make its first move.
_NEEDS_PEER: Mapping[type[Message], State] = MappingProxyType(
    {Welcome: State.READY, UpdateBegin: State.IDLE, WholeUpdate: State.IDLE, Key: State.IDLE, Shares: State.IDLE}
)
_BEGINNINGS, _CHUNKS = (ModelBegin, UpdateBegin), (ModelChunk, UpdateChunk)


class Transfer:
    """How far one transfer of known size has come; bytes arrive in order, or not at all."""

    def __init__(self, total_bytes: int, *, asks: bool) -> None:
        """`asks`: an empty beginning asks how much is there already, and bytes may then begin anywhere."""
        self.total_bytes = total_bytes
        self.offset = 0
        self.started = False
        self._asks = asks

    def advance(self, offset: int, num_bytes: int) -> bool:
        """Take `num_bytes` at `offset`, return whether the transfer is complete; raise `ProtocolError` on a gap."""
        if self.started and offset != self.offset:
            raise ProtocolError(f"chunk at offset {offset}, expected {self.offset}")
        if offset + num_bytes > self.total_bytes:
            raise ProtocolError(f"chunk of {num_bytes} bytes at offset {offset} exceeds {self.total_bytes} bytes")
        self.started = self.started or num_bytes > 0 or not self._asks
        self.offset = offset + num_bytes
        return self.offset == self.total_bytes


class Session:
    """Both tracks of one connection; feed it every message in the order in which it was sent or received."""

    def __init__(self) -> None:
        self.states = {Role.PHONE: State.NEW, Role.SERVER: State.NEW}
        self._transfers: dict[Role, Transfer] = {}

    def follow(self, sender: Role, message: AnyMessage) -> None:
        """Move the sender's track, or raise `ProtocolError` and change nothing."""
        state = self.states[sender]
        following = TABLES[sender][state].get(type(message))
        if following is None:
            raise ProtocolError(f"{type(message).__name__} out of turn: the {sender.value} is {state.value}")
        needed = _NEEDS_PEER.get(type(message))
        if needed is not None:
            peer = Role.SERVER if sender is Role.PHONE else Role.PHONE
            if self.states[peer] is State.NEW:
                raise ProtocolError(f"{type(message).__name__} before the {peer.value} is {needed.value}")
        if isinstance(message, _BEGINNINGS):
            total = message.size if isinstance(message, UpdateBegin) else sum(message.lengths)
            transfer = Transfer(total, asks=isinstance(message, UpdateBegin))
            done = transfer.advance(message.offset, len(message.data))
            self._transfers[sender] = transfer
        elif isinstance(message, _CHUNKS):
            done = self._transfers[sender].advance(message.offset, len(message.data))
        else:
            done = False
        if done:
            following = State.READY if sender is Role.PHONE else State.IDLE
        self.states[sender] = following
