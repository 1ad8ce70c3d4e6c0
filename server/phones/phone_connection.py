"""One phone's connection: messages in and out by the session's rules, and every byte of it in the ledger."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State as SocketState

from featherfed.errors import ProtocolError
from featherfed.server.door.guarded_connection import GuardedConnection
from featherfed.server.storage.ledger import Ledger, Traffic
from featherfed.wire.closing import Close, reason
from featherfed.wire.liveness import Pulse
from featherfed.wire.messages import (
    NOTHING,
    AnyMessage,
    Circle,
    Hello,
    Key,
    ModelBegin,
    ModelChunk,
    Shares,
    Survivors,
    Task,
    UpdateBegin,
    UpdateChunk,
    WholeModel,
    WholeUpdate,
    is_whole_update,
    pack,
    unpack,
)
from featherfed.wire.session import Role, Session, State

UNSENT_BYTES = 16 * 1024
_OF_UPDATES, _OF_MODELS = (UpdateBegin, UpdateChunk, WholeUpdate), (ModelBegin, ModelChunk, WholeModel)
STRANGER = -1
"""The ledger's shard for connections that never said a valid Hello."""


class NumberedRound(Protocol):
    """The round that is played now."""

    @property
    def number(self) -> int:
        """The round that bytes belong to now."""


class TakesUpdates(Protocol):
    """Takes updates of one message as they come from the socket."""

    def takes(self, phone: "PhoneConnection", update: WholeUpdate) -> bool:
        """Whether it would take this one."""

    def take(self, phone: "PhoneConnection", update: WholeUpdate, counted: Traffic) -> None:
        """Take it: no further message of the phone is received until it is told `go_on` or `go_on_after`.

        `counted` is the ledger's entry that its bytes are in.
        """


class PhoneConnection:
    """A connection whose bytes belong to (current round, shard) from its Hello on.

    Its messages are received one by one, by one task. An update of one message need not wake it: where nothing else of
    the phone is being handled, it is taken at once, as the socket brings it, by `takes_updates`.
    """

    def __init__(self, websocket: ServerConnection, ledger: Ledger, current_round: NumberedRound, pulse: Pulse) -> None:
        assert isinstance(websocket, GuardedConnection), "serve() was given create_connection=GuardedConnection"
        self.websocket = websocket
        self.shard = STRANGER
        self.name = ""
        self.held_version = NOTHING
        self.partial = (b"", 0)
        """Digest and length of the model bytes that the phone kept from a broken download."""
        self.pending_round = NOTHING
        """The round whose finished update the phone has come with, until it is told what becomes of it."""
        self.hello_number = 0
        """Which Hello of the run its was."""
        self.replaced = False
        """Whether its phone has a newer connection."""
        self.told_of = 1
        """The round whose settings its Welcome has."""
        self.sent_away = False
        """Whether it was told that no round asks it now."""
        self.rests_s = 0.0
        """For so long it was told to stay away, until a later round asks it."""
        self.counted_in = 0
        """The round in which the last message's bytes were counted."""
        self.frame_began_s: float | None = None
        """When the first bytes of the last message came, by the loop's clock."""
        self.takes_updates: TakesUpdates | None = None
        self._held = False
        self._before_next: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._waker: asyncio.Future[None] | None = None
        """Not done while the phone's task has nothing to do but wait for a message."""
        self._pulse = pulse
        self._session = Session()
        self._sending = asyncio.Lock()
        self._ledger = ledger
        self._current_round = current_round
        self._up = self._down = 0  # bytes of the socket that are in the ledger
        self._handshake = True
        self._to_train = NOTHING
        """The version that the last task names."""
        websocket.listener = self
        keep_little_unsent(websocket)

    def forgets(self, round_number: int) -> None:
        """Note that the phone is told Accepted or Cancel: it has no update of that round to send any more."""
        if self.pending_round == round_number:
            self.pending_round = NOTHING

    def traffic(self, direction: str) -> Traffic:
        """Return the ledger's entry that this connection's bytes belong to now."""
        return self._ledger.entry(self._current_round.number, self.shard, direction)

    @property
    def open(self) -> bool:
        """Whether what is sent now goes to the socket."""
        return self.websocket.state is SocketState.OPEN

    @property
    def parted(self) -> bool:
        """Whether the phone has said goodbye, or answered ours, or was sent away: its connection did not break."""
        protocol = self.websocket.protocol
        sent_away = protocol.close_sent is not None and protocol.close_sent.code != Close.DONE
        return sent_away or protocol.close_rcvd is not None

    @property
    def more_waits(self) -> bool:
        """Whether another message of the phone is here, whole, and waits to be received."""
        return len(self.websocket.recv_messages.frames) > 0

    def lives(self, now_s: float) -> bool:
        """Return whether bytes have moved lately; asked a few times within the silence that is allowed."""
        return self.websocket.beats(self._pulse, now_s)

    def abort(self) -> None:
        """End the connection without a word: its other end is not there."""
        self.websocket.transport.abort()

    async def receive(self) -> AnyMessage:
        """Return the next message; raises `RemoteError` on a fault, `ConnectionClosed` at the end."""
        await self._until_one_waits()
        frame = await self.websocket.recv()
        if isinstance(frame, str):
            raise ProtocolError(f"text frame of {len(frame)} characters; frames are binary")
        message = unpack(frame)
        self._note(frame, message)
        return message

    async def _until_one_waits(self) -> None:
        """Return when a message waits or the connection is lost, and what was taken at once is answered."""
        while self._held or not self._something_waits:
            if (work := self._before_next) is None:
                self._waker = asyncio.get_running_loop().create_future()
                await self._waker
            else:
                self._before_next = None
                await work()
                self._held = False

    def wake(self) -> None:
        """Let the task that receives go on, if it may."""
        may = (not self._held and self._something_waits) or self._before_next is not None
        if may and self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    @property
    def _something_waits(self) -> bool:
        """Whether a message waits, or the connection is lost."""
        return self.more_waits or self.websocket.recv_messages.closed

    def offered(self, frame: bytes) -> bool:
        """Have an update taken that is all in this frame; return whether it was.

        Whatever is wrong with it is found, and said, where it is received.
        """
        takes = self.takes_updates
        if takes is None or self._held or self._waker is None or self._waker.done() or not is_whole_update(frame):
            return False
        try:
            message = unpack(frame)
            if not (isinstance(message, WholeUpdate) and takes.takes(self, message)):
                return False
            counted = self._note(frame, message)
        except Exception:
            return False
        assert counted is not None, "it is past its handshake"
        self._held = True
        try:
            takes.take(self, message, counted)
        except Exception as error:
            self.go_on_after(partial(_raise, error))
        return True

    def go_on(self) -> None:
        """Receive the next message: the update that was taken is answered."""
        self._held = False
        self.wake()

    def go_on_after(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do this where messages are received, before the next; what it raises is raised there."""
        self._before_next = work
        self.wake()

    def _note(self, frame: bytes, message: AnyMessage) -> Traffic | None:
        """Follow a message and count it; return where, once the handshake is done.

        Raises `ProtocolError`, and changes nothing, where the message is out of turn.
        """
        self._session.follow(Role.PHONE, message)
        self.frame_began_s, self.websocket.frame_began_s = self.websocket.frame_began_s, None
        if self._handshake:
            if not isinstance(message, Hello):
                raise ProtocolError(f"{type(message).__name__} before Hello")
            return None
        entry = self._count_received()
        self.counted_in = self._current_round.number
        entry.message += len(frame)
        if isinstance(message, _OF_UPDATES):
            entry.payload += len(message.data)
        elif isinstance(message, Key | Shares):
            entry.masks += len(frame)
        return entry

    async def send(self, *messages: AnyMessage) -> None:
        """Send messages in one piece; returns when the socket took them. What comes too late for Finish is dropped.

        Who comes while another's messages wait for a slow phone waits behind them: the session's order is the wire's.
        """
        async with self._sending:
            if self._session.states[Role.SERVER] is State.OVER:
                return
            frames = []
            for message in messages:
                frames.append(pack(message))
                self._session.follow(Role.SERVER, message)
                if isinstance(message, Task) or (isinstance(message, WholeModel) and message.version != self._to_train):
                    self._to_train = message.version
                    self.websocket.expect_update()
                if self.open and not self._handshake:
                    entry = self.traffic("downlink")
                    entry.message += len(frames[-1])
                    if isinstance(message, _OF_MODELS):
                        entry.payload += len(message.data)
                    elif isinstance(message, Survivors):
                        entry.masks += len(frames[-1])
                    elif isinstance(message, Circle) and message.threshold:
                        entry.masks += len(frames[-1]) - len(message.steps)
            self.websocket.join_writes(len(frames))
            for frame in frames:
                await self.websocket.send_frame(frame)
            self._count_sent()

    def send_at_once(self, message: AnyMessage, packed: bytes) -> bool:
        """Send a message as it was packed, if nothing stands in its way; return whether it was sent.

        For what carries no payload and changes no task, after the handshake.
        """
        websocket = self.websocket
        if self._sending.locked() or not (self.open and websocket.writes_messages) or websocket.paused:
            return False
        if self._session.states[Role.SERVER] is State.OVER:
            return False
        self._session.follow(Role.SERVER, message)
        websocket.write_message(packed)
        sent, entry = websocket.bytes_sent, self.traffic("downlink")
        entry.message += len(packed)
        entry.socket += sent - self._down
        self._down = sent
        return True

    def count(self) -> None:
        """Bring the ledger up to what the socket has carried."""
        if self.websocket.bytes_received != self._up:
            self._count_received()
        self._count_sent()

    def _count_received(self) -> Traffic:
        up = self.websocket.bytes_received
        entry = self.traffic("uplink")
        if self._handshake:
            entry.handshake += up - self._up
        else:
            entry.socket += up - self._up
        self._up = up
        return entry

    def _count_sent(self) -> None:
        down = self.websocket.bytes_sent
        if down == self._down:
            return
        entry = self.traffic("downlink")
        if self._handshake:
            entry.handshake += down - self._down
        else:
            entry.socket += down - self._down
        self._down = down

    def count_cut(self) -> None:
        """Count what came of a message that the end of the connection cut off: it is sent again."""
        cut = 0 if self._handshake else self.websocket.bytes_cut
        if cut:
            entry = self.traffic("uplink")
            entry.message += cut
            entry.payload += cut
            entry.resent += cut

    def handshake_done(self) -> None:
        """Count all bytes so far, Welcome included, as handshake; what follows is the round's."""
        self.count()
        self._handshake = False
        self.websocket.forget_handshake()

    async def close(self, code: int, sentence: str = "") -> None:
        """End the connection with a code and a sentence; one that is lost is closed too."""
        await self.websocket.close(code, reason(sentence))


def keep_little_unsent(websocket: ServerConnection) -> None:
    """Keep the kernel from taking megabytes for a slow phone: a ping or a Cancel would wait behind them for minutes."""
    raw = websocket.transport.get_extra_info("socket")
    if raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6} and sys.platform == "linux":
        # Within TLS its socket may be closed before the connection hears of it.
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


async def _raise(error: Exception) -> None:
    """Raise an error of what a socket's callback did where it can be said, and ends one connection."""
    raise error
