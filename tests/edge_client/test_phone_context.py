"""What phones keep: of one process, one description of the model that all of them play."""

from featherfed.edge_client.phone_context import KnownModel
from featherfed.wire.messages import Welcome, pack, unpack
from tests.layouts import welcome


def arrived() -> Welcome:
    told = unpack(pack(welcome()))
    assert isinstance(told, Welcome)
    return told


def test_phones_of_one_process_share_what_they_know_of_the_model() -> None:
    first, second = (KnownModel().whole(arrived()) for _ in range(2))
    assert first == arrived() and first.tensors is second.tensors
