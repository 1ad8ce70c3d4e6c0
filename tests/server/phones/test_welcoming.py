"""What a phone is told, and what it holds after that."""

from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from featherfed.initial_weights import InitialWeights
from featherfed.server.config import RunConfig
from featherfed.server.welcoming import Welcomes
from featherfed.wire.messages import NOTHING, pack
from tests.layouts import known
from tests.server.peer import hello

RUN = "ab12"
INITIAL = InitialWeights((25, 25, 144, 144, 288, 288, 576, 576), b"12345678")


def welcomes(initial: InitialWeights | None = INITIAL, **settings: Any) -> Welcomes:
    config = RunConfig(problem="digits/lite", **settings)
    model: Any = SimpleNamespace(
        problem="digits/lite",
        fingerprint=known(),
        initial=initial,
        sum=SimpleNamespace(max_examples=144, circles=None),
    )
    return Welcomes(config, RUN, model, shards=10)


def test_newcomer_holds_version_0_where_it_is_drawn() -> None:
    for run in ("", "another"):
        newcomer = replace(hello("a"), run=run, held_version=7)
        assert welcomes().held_version(newcomer) == 0
        assert welcomes(None).held_version(newcomer) == NOTHING
        assert welcomes().answer(newcomer, 3, 1).initial_digest == INITIAL.digest


def test_who_comes_back_holds_what_it_says() -> None:
    for version in (NOTHING, 0, 7):
        assert welcomes().held_version(replace(hello("a"), run=RUN, held_version=version)) == version


def test_who_knows_the_run_and_the_model_is_told_neither_again() -> None:
    stranger = welcomes().answer(hello("a"), 3, 1)
    assert len(stranger.tensors) == len(stranger.initial) == 8
    knows = replace(hello("a"), model_digest=known().digest)
    newcomer = welcomes().answer(knows, 3, 1)
    assert (len(newcomer.tensors), len(newcomer.initial)) == (0, 8)
    back = welcomes().answer(replace(knows, run=RUN), 3, 1)
    assert (back.tensors, back.initial, back.initial_digest) == ([], [], b"")
    assert len(pack(back)) < len(pack(newcomer)) < len(pack(stranger))
