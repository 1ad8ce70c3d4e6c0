import pytest

from featherfed.errors import ProtocolError
from featherfed.wire.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    Cancel,
    Finish,
    Hello,
    ModelBegin,
    ModelChunk,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
)
from featherfed.wire.session import Role, Session, State

HELLO = Hello(PROTOCOL_VERSION, "phone-7", -1, 0, link="3g", link_bytes_per_s=91815)
TRAINING = [1, 10, 0.1, 1, 0, 0, 0, {}]
WELCOME = Welcome("ab12", "digits/lite", "iid", 0, 10, 0, 144, 20.0, "float32", "float32", TRAINING)
TASK = Task(1, 0)
DIGEST = b"12345678"


def started() -> Session:
    session = Session()
    session.follow(Role.PHONE, HELLO)
    session.follow(Role.SERVER, WELCOME)
    return session


def test_whole_round() -> None:
    session = started()
    session.follow(Role.SERVER, TASK)
    session.follow(Role.SERVER, ModelBegin(0, -1, "float32", [6], DIGEST, 0, b"abc"))
    session.follow(Role.SERVER, ModelChunk(3, b"def"))
    assert session.states[Role.SERVER] is State.IDLE
    session.follow(Role.PHONE, UpdateBegin(1, 5, DIGEST, 10, 0, b"he"))
    session.follow(Role.PHONE, UpdateChunk(2, b"llo"))
    assert session.states[Role.PHONE] is State.READY
    session.follow(Role.SERVER, Accepted(1))
    session.follow(Role.SERVER, Finish("done"))
    assert session.states[Role.SERVER] is State.OVER


def test_whole_round_in_whole_messages() -> None:
    session = started()
    session.follow(Role.SERVER, TASK)
    session.follow(Role.SERVER, WholeModel(1, b"abcdef"))
    assert session.states[Role.SERVER] is State.IDLE
    # It gives up the one that is under way, as UpdateBegin does.
    session.follow(Role.PHONE, UpdateBegin(1, 5, DIGEST, 10, 0, b"he"))
    session.follow(Role.PHONE, WholeUpdate(2, b"hello"))
    assert session.states[Role.PHONE] is State.READY
    with pytest.raises(ProtocolError, match="UpdateChunk out of turn"):
        session.follow(Role.PHONE, UpdateChunk(2, b"llo"))
    early = Session()
    early.follow(Role.PHONE, HELLO)
    with pytest.raises(ProtocolError, match="before the server is idle"):
        early.follow(Role.PHONE, WholeUpdate(1, b"hello"))


def test_model_that_begins_without_bytes_goes_on_where_it_begins() -> None:
    """Only an update begins with a question: a phone that took bytes from anywhere would keep a file with a hole."""
    session = started()
    session.follow(Role.SERVER, TASK)
    session.follow(Role.SERVER, ModelBegin(0, -1, "float32", [6], DIGEST, 2, b""))
    with pytest.raises(ProtocolError, match="chunk at offset 4, expected 2"):
        session.follow(Role.SERVER, ModelChunk(4, b"ef"))
    session.follow(Role.SERVER, ModelChunk(2, b"cdef"))
    assert session.states[Role.SERVER] is State.IDLE


def test_update_goes_on_from_the_acknowledged_byte() -> None:
    session = started()
    session.follow(Role.PHONE, UpdateBegin(1, 5, DIGEST, 10, 0, b""))
    session.follow(Role.SERVER, Ack(1, 3))
    session.follow(Role.PHONE, UpdateChunk(3, b"lo"))
    assert session.states[Role.PHONE] is State.READY


@pytest.mark.parametrize(
    ("role", "message", "words"),
    [
        (Role.PHONE, HELLO, "Hello out of turn: the phone is ready"),
        (Role.PHONE, UpdateChunk(0, b""), "UpdateChunk out of turn"),
        (Role.SERVER, WELCOME, "Welcome out of turn: the server is idle"),
        (Role.SERVER, ModelChunk(0, b""), "ModelChunk out of turn"),
        (Role.PHONE, Ack(1, 0), "Ack out of turn: the phone is ready"),
        (Role.PHONE, UpdateBegin(1, 2, DIGEST, 1, 0, b"abc"), "exceeds 2 bytes"),
    ],
)
def test_message_out_of_turn_is_refused_and_changes_nothing(role: Role, message: object, words: str) -> None:
    session = started()
    before = dict(session.states)
    with pytest.raises(ProtocolError, match=words):
        session.follow(role, message)  # type: ignore[arg-type]
    assert session.states == before


def test_gap_between_chunks_is_refused() -> None:
    session = started()
    session.follow(Role.PHONE, UpdateBegin(1, 9, DIGEST, 10, 0, b"abc"))
    with pytest.raises(ProtocolError, match="chunk at offset 4, expected 3"):
        session.follow(Role.PHONE, UpdateChunk(4, b"x"))


def test_update_before_the_welcome_is_refused() -> None:
    session = Session()
    session.follow(Role.PHONE, HELLO)
    with pytest.raises(ProtocolError, match="before"):
        session.follow(Role.PHONE, UpdateBegin(1, 2, DIGEST, 1, 0, b""))


def test_cancel_of_another_round_leaves_the_model_under_way() -> None:
    session = started()
    session.follow(Role.SERVER, TASK)
    session.follow(Role.SERVER, Cancel(7))
    session.follow(Role.SERVER, ModelBegin(0, -1, "float32", [6], DIGEST, 0, b"abc"))
    session.follow(Role.SERVER, Cancel(7))
    session.follow(Role.SERVER, ModelChunk(3, b"def"))
    assert session.states[Role.SERVER] is State.IDLE


def test_cancelled_model_gives_way_to_the_next_task() -> None:
    session = started()
    session.follow(Role.SERVER, TASK)
    session.follow(Role.SERVER, ModelBegin(0, -1, "float32", [6], DIGEST, 0, b"abc"))
    session.follow(Role.SERVER, Cancel(1))
    session.follow(Role.SERVER, TASK)
    session.follow(Role.SERVER, ModelBegin(0, -1, "float32", [6], DIGEST, 0, b"abcdef"))
    assert session.states[Role.SERVER] is State.IDLE
