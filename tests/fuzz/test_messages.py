"""Whatever bytes come, they are a message or the other side's fault, and the session's rules hold."""

import typing

import msgpack
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from featherfed.errors import ProtocolError, RemoteError
from featherfed.wire import messages
from featherfed.wire.messages import (
    MAX_CHUNK_BYTES,
    PROTOCOL_VERSION,
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
    TensorEntry,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
    pack,
    unpack,
)
from featherfed.wire.session import Role, Session, State

from .budget import count, inputs

small = st.integers(0, 6)
data = st.binary(max_size=6)
digest = st.just(b"12345678")
spec = st.text(" |()aZ~", max_size=9)
setting = st.booleans() | small | st.floats(0, 1) | st.text(max_size=9)
settings = st.dictionaries(st.text(min_size=1, max_size=3), setting, max_size=2)
draws = st.integers(1, 9) | st.lists(st.floats(-1, 1), min_size=2, max_size=2)
tensors = st.builds(TensorEntry, st.just("a.weight"), st.lists(small, max_size=3), st.just(b"") | digest)
MESSAGES: dict[type[Message], st.SearchStrategy[AnyMessage]] = {
    Hello: st.builds(
        Hello, st.just(PROTOCOL_VERSION), st.just("x"), st.integers(-1, 3), small, st.just(b"") | digest, st.just(""),
        st.integers(-1, 3), st.integers(-1, 3), st.just(""), small, data, small, small,
    ),
    Welcome: st.builds(
        Welcome, st.just("r"), st.just("digits/lite"), st.just("iid"), small, st.integers(1, 9), small,
        st.integers(1, 9), st.floats(0, 9), spec, spec, st.lists(setting | settings, max_size=8),
        st.just(b"") | digest, st.lists(draws, max_size=2), st.lists(tensors, max_size=2), st.just(1024),
        st.booleans(), st.floats(0, 9),
    ),
    Task: st.builds(
        Task, small, small, st.dictionaries(st.text(min_size=1, max_size=3), setting | settings, max_size=2)
    ),
    ModelBegin: st.builds(
        ModelBegin, small, st.integers(-1, 3), st.just("float32"), st.lists(small, min_size=1, max_size=3), digest,
        small, data,
    ),
    ModelChunk: st.builds(ModelChunk, small, data),
    UpdateBegin: st.builds(UpdateBegin, small, st.integers(1, 9), digest, st.integers(1, 9), small, data, small),
    UpdateChunk: st.builds(UpdateChunk, small, data),
    Ack: st.builds(Ack, small, small),
    Accepted: st.builds(Accepted, small),
    Cancel: st.builds(Cancel, small),
    Finish: st.builds(Finish, st.text(max_size=9)),
    WholeUpdate: st.builds(WholeUpdate, small, st.binary(min_size=1, max_size=6), small, small),
    WholeModel: st.builds(WholeModel, small, data, st.integers(-1, 3)),
    Key: st.builds(Key, st.just(bytes(32))),
    Circle: st.builds(
        Circle, small, small, small, small, st.integers(1, 9), small, small, data, st.lists(small, max_size=4),
        st.binary(max_size=64),
    ),
    Survivors: st.builds(Survivors, small, small, small, st.booleans(), data, data),
    Shares: st.builds(Shares, small, small, small, data),
}  # fmt: skip
any_message = st.one_of(*MESSAGES.values())

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=99),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message, with some of its bytes changed, inserted or missing."""
    frame = bytearray(pack(draw(any_message)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(frame)))
        frame[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(frame)


frames = st.one_of(
    st.binary(max_size=200),
    mutated(),
    st.lists(anything, max_size=12).map(msgpack.packb),
    st.tuples(st.integers(1, 17), st.lists(anything, max_size=11)).map(lambda pair: msgpack.packb([pair[0], *pair[1]])),
)


def test_every_message_is_fuzzed() -> None:
    assert set(MESSAGES) == set(typing.get_args(messages.AnyMessage))


@inputs(0.3)
@given(frames)
def test_any_bytes_are_a_message_or_a_remote_error(frame: bytes) -> None:
    count("message parser")
    try:
        message = unpack(frame)
    except RemoteError as error:
        assert 0 < len(str(error)) < 2000
        return
    # What was let in can be sent on, and is what it was.
    again = unpack(pack(message))
    assert msgspec.to_builtins(again, builtin_types=(bytes,)) == msgspec.to_builtins(message, builtin_types=(bytes,))
    payload = getattr(message, "data", b"")
    assert len(payload) <= MAX_CHUNK_BYTES


@inputs(0.2)
@given(st.lists(st.tuples(st.sampled_from(Role), any_message), max_size=25))
def test_any_sequence_keeps_the_sessions_rules(sequence: list[tuple[Role, AnyMessage]]) -> None:
    """What is refused changes nothing; a transfer's bytes come in order and end where they were announced to end."""
    count("session")
    session, received = Session(), dict.fromkeys(Role, 0)
    total = dict.fromkeys(Role, 0)
    for role, message in sequence:
        before = dict(session.states)
        try:
            session.follow(role, message)
        except ProtocolError as error:
            assert session.states == before
            assert str(error)
            continue
        other = Role.SERVER if role is Role.PHONE else Role.PHONE
        assert session.states[other] is before[other]
        if isinstance(message, UpdateBegin | ModelBegin):
            total[role] = message.size if isinstance(message, UpdateBegin) else sum(message.lengths)
            received[role] = message.offset + len(message.data)
        elif isinstance(message, UpdateChunk | ModelChunk):
            received[role] = message.offset + len(message.data)
        assert received[role] <= total[role]
        if session.states[role] in (State.UPLOADING, State.SENDING):
            assert received[role] < total[role]
    # Nothing but Hello and Welcome can come first.
    if session.states[Role.SERVER] is not State.NEW:
        assert session.states[Role.PHONE] is not State.NEW
