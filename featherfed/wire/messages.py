"""The messages, one frozen class each: a msgpack array whose first element is the message's number.

A message is checked when it is parsed and when it is packed, by the same constraints, so that what one end sends the
other never refuses. docs/PROTOCOL.md says the same in words.
"""

import typing
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import msgpack
import msgspec
from msgspec import Meta, Struct

from featherfed.errors import ProtocolError, VersionError
from featherfed.wire.chunking import LEAST_BYTES

PROTOCOL_VERSION = 3
MAX_CHUNK_BYTES = 1 << 17
MAX_FRAME_BYTES = MAX_CHUNK_BYTES + (1 << 16)
"""The largest ModelBegin, with 4,096 lengths of 9 bytes, has less than that."""
MAX_TEXT = 256
MAX_TENSORS = 4096
MAX_DIMENSIONS = 16
MAX_SETTINGS = 64
MAX_MEMBERS = 1024
PUBLIC_KEY_BYTES = 32
SECRET_BYTES = 16
"""Of a pair's seed, and of a share."""

_MOVES = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""What no name may have, since names are printed: control characters (U+009B is what ESC [ is), ends of lines and
paragraphs, and what turns the rest of a line around."""
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[^{_MOVES}]+\Z")]
Label = Annotated[str, Meta(max_length=32, pattern=rf"^[^{_MOVES}]*\Z")]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Spec = Annotated[str, Meta(max_length=MAX_TEXT, pattern=r"^[ -~]*$")]
Digest = Annotated[bytes, Meta(min_length=8, max_length=8)]
Chunk = Annotated[bytes, Meta(max_length=MAX_CHUNK_BYTES)]
Steps = Annotated[bytes, Meta(max_length=1 << 16)]
"""The steps of `grid`, a byte a block."""
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Members = Annotated[list[Count], Meta(min_length=0, max_length=MAX_MEMBERS)]
MemberBits = Annotated[bytes, Meta(max_length=MAX_MEMBERS // 8)]
"""One bit a member, in the order of `Circle.members`, the lowest of a byte first."""
Positive = Annotated[int, Meta(ge=1, lt=1 << 53)]
Version = Annotated[int, Meta(ge=-1, lt=1 << 53)]
Unsigned64 = Annotated[int, Meta(ge=0)]  # Meta's bounds are signed 64 bit; msgpack's own limit is 2^64 - 1
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Whole = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
Setting = bool | Whole | Number | Text
Draw = Positive | Annotated[list[Number], Meta(min_length=2, max_length=2)]
"""How a tensor's initial weights are drawn: `featherfed.initial_weights.Draw`. (msgspec 0.22 dies of a tuple here.)"""
Settings = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=64)], Setting], Meta(max_length=MAX_SETTINGS)]
Changes = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Setting | Settings], Meta(max_length=MAX_SETTINGS)
]

NOTHING = -1
"""A version, shard or round that is not there."""


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all messages are: a struct that travels as an array of its fields in the order of their declaration.

    The last ones are left out where they have their defaults.
    """


def digest_of(data: bytes) -> bytes:
    """Return what `digest` fields hold: the first 8 bytes of SHA-256, for which processors have instructions."""
    return sha256(data).digest()[:8]


class Hello(Message, frozen=True, tag=1):
    """Phone: who I am, which shard I ask for (−1: any), what I still hold of which run, and which link I am on.

    `link` and `link_bytes_per_s` (up, 0: not known) are for people who watch; nothing is decided by them.
    `model_digest` is that of the model that the phone knows; empty: none. `stages` has a bit for each codec stage that
    it can do (`featherfed.codec.abilities`); 0: all of them.
    """

    protocol: Count
    name: Name
    shard: Version
    shards: Count
    model_digest: Annotated[bytes, Meta(max_length=8)] = b""
    run: Annotated[str, Meta(max_length=64)] = ""
    held_version: Version = NOTHING
    pending_round: Version = NOTHING
    link: Label = ""
    link_bytes_per_s: Count = 0
    partial_digest: Annotated[bytes, Meta(max_length=8)] = b""
    partial_bytes: Count = 0
    stages: Count = 0


class TensorEntry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tensor of the model, in the flat vector's order; `digest` is empty, or that of one that does not travel."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    shape: Annotated[list[Count], Meta(max_length=MAX_DIMENSIONS)]
    digest: Annotated[bytes, Meta(max_length=8)]


def tensor_entries(rows: "Iterable[tuple[str, tuple[int, ...], bytes]]") -> "list[TensorEntry]":
    """Return the entries of (name, shape, digest) rows."""
    return [TensorEntry(name, list(shape), digest) for name, shape, digest in rows]


def tensor_rows(tensors: "Iterable[TensorEntry]") -> list[tuple[str, tuple[int, ...], bytes]]:
    """Return the rows of entries."""
    return [(entry.name, tuple(entry.shape), entry.digest) for entry in tensors]


class Welcome(Message, frozen=True, tag=2):
    """Server: the run, its problem and model, the shard that this phone plays, how it trains, and the limits.

    `problem` is a name for people, and of the phone's own code where it has it; no end imports what the other names.
    `max_examples` is the most that an update may weigh. Updates travel as `uplink` says, models as `downlink` does, and
    `training` is `featherfed.training_settings.Training` in the order of its fields, which checks it. `tensors` are
    left out where the run's model is the one that Hello named. `initial` says how version 0 is drawn, tensor by tensor,
    and `initial_digest` is that of its weights: both are empty where they are the problem's own, which then travel, and
    left out for a phone that knows the run and the model. `masked` says that updates are summed under masks, for which
    the phone sends its `Key` next; `clip` is the longest L2 norm of an update, which the phone sees to where the
    server sees sums alone, and with differential privacy (0: no bound of the phone's). `bounded` says that the phone
    rounds what is summed at random by itself, to whole numbers of a bounded norm, and without a dither. `noise` is the
    deviation of the noise that phones add to each sum at least, over the most that one of them moves it by, though a
    share `colluding` of a circle adds none (0: phones add no noise).
    """

    run: Name
    problem: Name
    partition: Name
    shard: Count
    shards: Positive
    seed: Unsigned64
    max_examples: Positive
    heartbeat_s: NotNegative
    uplink: Spec
    downlink: Spec
    training: Annotated[list[Setting | Settings], Meta(max_length=MAX_SETTINGS)]
    initial_digest: Annotated[bytes, Meta(max_length=8)] = b""
    initial: Annotated[list[Draw], Meta(max_length=MAX_TENSORS)] = []
    tensors: Annotated[list[TensorEntry], Meta(max_length=MAX_TENSORS)] = []
    chunk_bytes: Annotated[int, Meta(ge=LEAST_BYTES, le=MAX_CHUNK_BYTES)] = MAX_CHUNK_BYTES
    masked: bool = False
    clip: NotNegative = 0
    bounded: bool = False
    noise: NotNegative = 0
    colluding: Annotated[float, Meta(ge=0, le=1)] = 0


class Task(Message, frozen=True, tag=3):
    """Server: train on `version` in `round`; `changes` is what is other in this round than Welcome said.

    Its keys are `uplink` and the names of the fields of `featherfed.training_settings.Training`. To a gateway whose
    phones' updates are summed in circles it says the steps of `grid`, and how many times that gateway has come without
    its memory: attempts of such a one have other numbers than those that its phones may know.
    """

    round: Count
    version: Count
    changes: Changes = {}
    steps: Steps = b""
    life: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0


class ModelBegin(Message, frozen=True, tag=4):
    """Server: the model of `version` in `sum(lengths)` bytes, from `offset` on; `base` −1 says that it is whole.

    Otherwise `lengths[i]` bytes are the difference from version base + i to base + i + 1 in the pipeline `spec`, which
    is the run's downlink where it is empty.
    """

    version: Count
    base: Version
    spec: Spec
    lengths: Annotated[list[Count], Meta(min_length=1, max_length=MAX_TENSORS)]
    digest: Digest
    offset: Count
    data: Chunk


class ModelChunk(Message, frozen=True, tag=5):
    """Server: the next bytes of the model that is under way."""

    offset: Count
    data: Chunk


class UpdateBegin(Message, frozen=True, tag=6):
    """Phone: my update of `round`, its size, digest and weight, and its first bytes from `offset` on.

    Without data it asks how much is durable: after a dropped link the phone goes on from the Ack. `attempt` is that of
    the circle that the update is summed in.
    """

    round: Count
    size: Positive
    digest: Digest
    examples: Positive
    offset: Count
    data: Chunk
    attempt: Count = 0


class UpdateChunk(Message, frozen=True, tag=7):
    """Phone: the next bytes of the update that is under way."""

    offset: Count
    data: Chunk


class Ack(Message, frozen=True, tag=8):
    """Server: the first `offset` bytes of the update of `round` are durable."""

    round: Count
    offset: Count


class Accepted(Message, frozen=True, tag=9):
    """Server: the update of `round` counts, exactly once; sent again for an update that is sent again."""

    round: Count


class Cancel(Message, frozen=True, tag=10):
    """Server: stop the work on `round`; its update is not wanted any more."""

    round: Count


class Finish(Message, frozen=True, tag=11):
    """Server: the run is over; `reason` is a sentence for people. Left out: no later round asks this phone."""

    reason: Text = ""


class WholeUpdate(Message, frozen=True, tag=12):
    """Phone: my update of `round` and its weight, all in this frame. A frame comes whole or not at all.

    `examples` 0, or left out, is `Welcome.max_examples`: of data that is cut alike, what every phone has.
    """

    round: Count
    data: Annotated[bytes, Meta(min_length=1, max_length=MAX_CHUNK_BYTES)]
    examples: Count = 0
    attempt: Count = 0

    def begin(self, max_examples: int) -> UpdateBegin:
        """Return the same as the beginning of an update that ends with it."""
        examples = self.examples or max_examples
        return UpdateBegin(self.round, len(self.data), digest_of(self.data), examples, 0, self.data, self.attempt)


class WholeModel(Message, frozen=True, tag=13):
    """Server: the model of `version`, as one difference to `base` in the run's downlink, all in this frame.

    Where the last Task was not of this version, it stands for the Task of the round that trains it, too.
    """

    version: Count
    data: Chunk
    base: Version = 0

    def begin(self) -> ModelBegin:
        """Return the same as the beginning of a model that ends with it."""
        return ModelBegin(self.version, self.base, "", [len(self.data)], digest_of(self.data), 0, self.data)

    def task(self) -> Task:
        """Return the Task that it stands for where none of this version came before it."""
        return Task(self.version + 1, self.version)


class Key(Message, frozen=True, tag=14):
    """Phone: the public half of my X25519 key of this run; the first message after a Welcome that says `masked`."""

    public: Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]


class Circle(Message, frozen=True, tag=15):
    """Server: with whom this phone's update of `round` is summed, in this attempt of the round, and in which steps.

    It comes with the Task. The phone sends slice `slice` of `slices` of its coordinates, in `steps` of `grid` (one byte
    a block). `members` are shards, in their order, this phone's among them; `keys` the public keys of those that this
    connection has not been told yet, one after the other in that order. `threshold` of a member's neighbours can open
    its secret, and phones open no sum of fewer than `least`. Threshold 0: no masks, and no members.
    """

    round: Count
    attempt: Count
    circle: Count
    slice: Count
    slices: Positive
    threshold: Count
    least: Count
    steps: Steps
    members: Members = []
    keys: Annotated[bytes, Meta(max_length=PUBLIC_KEY_BYTES * MAX_MEMBERS)] = b""


class Survivors(Message, frozen=True, tag=16):
    """Server: `alive` are those whose updates of this attempt are in the sum; lists only shrink.

    The phone answers with what it knows of those in `asked`: of who is gone the seed that it shares with it, and in a
    `final` list of who is alive its share of that one's own seed.
    """

    round: Count
    attempt: Count
    version: Count
    final: bool
    alive: MemberBits
    asked: MemberBits = b""


class Shares(Message, frozen=True, tag=17):
    """Phone: the answer to `Survivors`: 16 bytes for each of those asked for, in the order of the circle's members.

    `version` 0, without data, answers `Circle`: the phone was in a final list of the round, and takes no part in this
    attempt.
    """

    round: Count
    attempt: Count
    version: Count
    data: Chunk


AnyMessage = (
    Hello
    | Welcome
    | Task
    | ModelBegin
    | ModelChunk
    | UpdateBegin
    | UpdateChunk
    | Ack
    | Accepted
    | Cancel
    | Finish
    | WholeUpdate
    | WholeModel
    | Key
    | Circle
    | Survivors
    | Shares
)

M = TypeVar("M", bound=Message)
_unpack: Callable[..., Any] = msgpack.unpackb
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


def _spare(message: type[Message]) -> tuple[Any, ...]:
    """Return the defaults of a message's last fields."""
    known = msgspec.structs.fields(message)
    made = [each.default if each.default_factory is msgspec.NODEFAULT else each.default_factory() for each in known]
    return tuple(default for default in made if default is not msgspec.NODEFAULT)


_SPARE = {message: _spare(message) for message in typing.get_args(AnyMessage) if _spare(message)}


def pack(message: AnyMessage) -> bytes:
    """Return the message as one binary frame; a value outside its field's limits raises `msgspec.ValidationError`."""
    if isinstance(message, _CHUNKS) and (packed := _packed_chunk(message)):
        return packed
    spare = _SPARE.get(type(message))
    packed = _encoder.encode(message if spare is None else _trimmed(message, spare))
    _decoder.decode(packed)
    return packed


def _packed_chunk(message: ModelChunk | UpdateChunk) -> bytes:
    """Return what `pack` does, its data copied once and not three times; nothing for a value outside its limits."""
    offset, data = message.offset, message.data
    size = len(data)
    if not 0 <= offset < 1 << 53 or size > MAX_CHUNK_BYTES:
        return b""
    # An array of three, as all integers and lengths in the fewest bytes.
    head = _CHUNK_HEADS[type(message)] + _encoder.encode(offset)
    if size < 1 << 8:
        head += bytes((0xC4, size))
    elif size < 1 << 16:
        head += b"\xc5" + size.to_bytes(2, "big")
    else:
        head += b"\xc6" + size.to_bytes(4, "big")
    return b"".join((head, data))


_CHUNKS = (ModelChunk, UpdateChunk)
_CHUNK_HEADS = {ModelChunk: b"\x93\x05", UpdateChunk: b"\x93\x07"}


def _trimmed(message: AnyMessage, spare: tuple[Any, ...]) -> list[Any]:
    """Return the message's elements up to the last one that is not its default."""
    elements = [message.__struct_config__.tag, *msgspec.structs.astuple(message)]
    defaults = list(spare)
    while defaults and elements[-1] == defaults.pop():
        elements.pop()
    return elements


def is_whole_update(frame: bytes) -> bool:
    """Return whether a frame says that it holds a `WholeUpdate`, which only `unpack` knows: by its second byte."""
    return frame[1:2] == _WHOLE_UPDATE


_WHOLE_UPDATE = _encoder.encode(WholeUpdate.__struct_config__.tag)


def unpack(frame: bytes) -> AnyMessage:
    """Return the message in `frame`, or raise `ProtocolError` with a sentence that says what is wrong with it.

    A frame is read straight into the one type that its number names, so that no other structure is ever built, however
    deep or long the frame claims that it is.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame with {len(frame)} bytes exceeds limit of {MAX_FRAME_BYTES} bytes")
    try:
        message: AnyMessage = _decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _fault(frame, error) from error
    if type(message) is Hello and message.protocol != PROTOCOL_VERSION:
        raise VersionError(f"this is protocol {PROTOCOL_VERSION}, the phone speaks {[message.protocol]}")
    return message


def _fault(frame: bytes, error: Exception) -> ProtocolError | VersionError:
    """Return what is wrong with a frame: slower than to read one, under limits of its own, and in more words."""
    try:
        fields = _unpack(
            frame,
            max_str_len=MAX_TEXT,
            max_bin_len=MAX_CHUNK_BYTES,
            max_array_len=MAX_TENSORS,
            max_map_len=MAX_SETTINGS,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as cause:
        return ProtocolError(f"frame of {len(frame)} bytes is not msgpack: {str(cause) or type(cause).__name__}")
    if isinstance(fields, list) and fields[:1] == [1] and fields[1:2] != [PROTOCOL_VERSION]:
        # Whatever else another version's Hello holds, its second element is its version: say so, not what differs.
        return VersionError(f"this is protocol {PROTOCOL_VERSION}, the phone speaks {fields[1:2]}")
    return ProtocolError(f"not a message of protocol {PROTOCOL_VERSION}: {error}")
