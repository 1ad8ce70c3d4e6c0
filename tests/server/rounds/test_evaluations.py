"""What versions are worth: found out beside the next round, told in order, and never lost."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from featherfed.errors import ProblemError
from featherfed.learning.evaluation import Evaluation, Evaluator
from featherfed.problem import Place
from featherfed.server import service
from featherfed.server.model.evaluation_work import UnderWay
from featherfed.server.rounds.round_machine import Phase
from featherfed.wire.messages import Accepted
from tests.server.peer import Peer, peer
from tests.server.rounds.waiting import until

Serve = Callable[..., Any]
F32 = npt.NDArray[np.float32]


class Judge:
    """Evaluates when it is told to, what it is told to; remembers what it was asked and for what it was waited."""

    def __init__(self, served: Any) -> None:
        self.asked: list[tuple[F32, F32, asyncio.Future[Evaluation]]] = []
        self.waited = 0
        served.aggregator.evaluates = self

    def __call__(self, evaluator: Evaluator, place: Place, weights: F32) -> UnderWay:
        self.asked.append((weights, weights.copy(), asyncio.get_running_loop().create_future()))

        def wanted() -> None:
            self.waited += 1

        return UnderWay(self.asked[-1][2], wanted)

    async def says(self, nth: int, accuracy: float) -> None:
        """Let an evaluation be done; its weights are what they were when it began."""
        await until(lambda: len(self.asked) == nth)
        weights, then, done = self.asked[-1]
        assert np.array_equal(weights, then)
        done.set_result(Evaluation(1 - accuracy, {"accuracy": accuracy}, 100))

    def fails(self, sentence: str) -> None:
        self.asked[-1][2].set_exception(ProblemError(sentence))


async def play(phone: Peer, number: int) -> None:
    """Have an update of a round counted."""
    task = await phone.task()
    assert task.round == number
    await phone.upload(number, phone.update(task))
    assert isinstance(await phone.receive_until(Accepted), Accepted)


def told(served: Any) -> list[tuple[int, float | None]]:
    return [(each.round_number, each.metrics.get("accuracy")) for (each,) in served.watcher.told("round_closed")]


def in_report(served: Any) -> list[tuple[int, float | None]]:
    return [(row["round"], row["accuracy"]) for row in served.report()["rounds"] if row["state"] == "closed"]


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


ONE: dict[str, Any] = {"problem": "digits/tiny", "phones": 1, "rounds": 3}


async def test_a_round_is_played_while_the_version_before_is_evaluated_and_closes_when_that_is_told(
    serve: Serve,
) -> None:
    async with serve(**ONE) as served, peer(served.address) as phone:
        judge, folder = Judge(served), served.folder
        await phone.join("a")
        await play(phone, 1)
        await play(phone, 2)
        # The second round is complete, and waits for what the first version is worth.
        await until(lambda: judge.waited)
        assert served.service.state.phase is Phase.CLOSING and served.service.state.round_number == 2
        assert (told(served), in_report(served)) == ([], [(1, None)])
        assert [each.round_number for (each,) in served.watcher.told("version_published")] == [1]
        first = folder.model.read_bytes()
        await judge.says(1, 0.5)
        await until(lambda: len(judge.asked) == 2)
        assert (told(served), in_report(served)) == ([(1, 0.5)], [(1, 0.5), (2, None)])
        assert folder.best.read_bytes() == first
        # A worse one is told while its round after is open, and is not the best.
        await judge.says(2, 0.4)
        await until(lambda: len(told(served)) == 2)
        assert in_report(served) == [(1, 0.5), (2, 0.4)]
        assert folder.best.read_bytes() == first
        # The run ends with the last one's.
        await play(phone, 3)
        await until(lambda: judge.waited == 2)
        assert not served.ended.done()
        await judge.says(3, 0.6)
        assert await served.ended is None
        assert told(served) == in_report(served) == [(1, 0.5), (2, 0.4), (3, 0.6)]
        assert same(folder.best, folder.model)


async def test_a_run_with_a_target_plays_no_round_before_it_knows_whether_it_is_reached(serve: Serve) -> None:
    async with serve(**ONE, target="accuracy=0.5") as served, peer(served.address) as phone:
        judge = Judge(served)
        await phone.join("a")
        await play(phone, 1)
        await until(lambda: judge.waited)
        assert served.service.state.phase is Phase.CLOSING
        await judge.says(1, 0.4)
        await play(phone, 2)
        await until(lambda: judge.waited == 2)
        await judge.says(2, 0.5)
        assert await served.ended is None
        assert told(served) == in_report(served) == [(1, 0.4), (2, 0.5)]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_what_a_killed_server_had_not_told_is_evaluated_anew(serve: Serve, mode: str) -> None:
    more = {"mode": "async", "buffer": 1} if mode == "async" else {}
    async with serve(**ONE, **more) as served, peer(served.address) as phone:
        judge = Judge(served)
        await phone.join("a")
        await play(phone, 1)
        await judge.says(1, 0.7)
        await until(lambda: told(served))
        await play(phone, 2)
        await until(lambda: len(judge.asked) == 2)
        served.ended.cancel()
        await asyncio.wait({served.ended})
        assert in_report(served) == [(1, 0.7), (2, None)]
    async with serve(resume=True) as served:
        # As the server comes up, for the state that the second round left.
        await until(lambda: told(served))
        (summary,) = served.watcher.told("round_closed")[0]
        assert (summary.round_number, summary.accepted, summary.measures[0].name) == (2, 1, "accuracy")
        row = served.report()["rounds"][1]
        assert row["accuracy"] == summary.metrics["accuracy"] is not None
        assert (row["loss"], row["seconds"]) == (summary.loss, summary.seconds)
        values = served.store.values()
        assert values["untold"] == "" and values["best"] == ("2" if row["accuracy"] > 0.7 else "1")
        service, aggregator = served.service, served.aggregator
        assert row["loss"] == aggregator.evaluate().loss
        assert service.state.round_number in (2, 3)
    async with serve(resume=True) as served:
        await asyncio.sleep(0.05)
        assert told(served) == [], "once is enough"


@pytest.mark.parametrize(("settings", "number"), [({"target": "accuracy=0.5"}, 1), ({"rounds": 1}, 1)])
async def test_what_decides_whether_a_run_is_over_is_known_before_a_resumed_one_goes_on(
    serve: Serve, settings: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherfed.server.model.aggregation import Aggregator

    async with serve(**{**ONE, **settings}) as served, peer(served.address) as phone:
        judge = Judge(served)
        await phone.join("a")
        await play(phone, number)
        await until(lambda: judge.waited)
        served.ended.cancel()
        await asyncio.wait({served.ended})
    judges: list[Judge] = []
    made = Aggregator.evaluation

    def judged(aggregator: Any) -> UnderWay | None:
        holder = type("Holder", (), {"aggregator": aggregator})
        judges.append(Judge(holder))
        return made(aggregator)

    monkeypatch.setattr(Aggregator, "evaluation", judged)
    async with serve(resume=True) as served, peer(served.address) as phone:
        await until(lambda: judges and judges[0].waited)
        await phone.join("a")
        await asyncio.sleep(0.02)
        assert served.service.state.phase is Phase.CLOSING, "nobody is asked"
        await judges[0].says(1, 0.5)
        assert await served.ended is None
        assert told(served) == in_report(served) == [(1, 0.5)]
        assert same(served.folder.best, served.folder.model)


async def test_an_evaluation_that_fails_ends_the_run_in_its_sentence_and_is_made_anew(serve: Serve) -> None:
    async with serve(**ONE) as served, peer(served.address) as phone:
        judge = Judge(served)
        await phone.join("a")
        await play(phone, 1)
        await until(lambda: judge.asked)
        judge.fails("metric accuracy fails: no such column")
        assert await served.ended == "metric accuracy fails: no such column"
        assert (told(served), in_report(served)) == ([], [(1, None)])
        assert served.watcher.told("ended") == [("metric accuracy fails: no such column",)]
    async with serve(resume=True) as served:
        await until(lambda: told(served))
        assert served.service.state.round_number == 2
        assert told(served) == [(1, served.report()["rounds"][0]["accuracy"])]


async def test_a_run_that_is_stopped_tells_what_is_being_evaluated_before_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SAY_S", 0.05)
    async with serve(**ONE) as served, peer(served.address) as phone:
        judge = Judge(served)
        await phone.join("a")
        await play(phone, 1)
        await until(lambda: judge.asked)
        served.service.stop()
        await until(lambda: judge.waited)
        # Whoever stopped it hears why it is still there.
        await until(lambda: served.watcher.told("note"))
        assert "is being evaluated" in served.watcher.told("note")[0][0]
        await judge.says(1, 0.3)
        assert await served.ended == "the operator stopped the run"
        names = [name for name, _ in served.watcher.events if name in ("round_closed", "ended")]
        assert names == ["round_closed", "ended"]
        assert in_report(served) == [(1, 0.3)]


async def test_rounds_that_are_not_evaluated_are_told_when_they_close(serve: Serve) -> None:
    async with serve(**ONE, eval_every=2) as served, peer(served.address) as phone:
        judge = Judge(served)
        await phone.join("a")
        await play(phone, 1)
        await until(lambda: told(served))
        assert (told(served), judge.asked) == ([(1, None)], [])
        await play(phone, 2)
        await until(lambda: judge.asked)
        await judge.says(1, 0.5)
        await play(phone, 3)
        await until(lambda: len(judge.asked) == 2)
        await judge.says(2, 0.5)
        assert await served.ended is None
        # As good as the best so far is no better.
        assert served.store.values()["best"] == "2"
