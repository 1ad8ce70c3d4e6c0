"""Phones that are told when to come again: who is drawn, who is sent away, until when, and how they come back."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import featherfed as ff
from featherfed.by_round import ByRound
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.visit import NOT_ASKED
from featherfed.errors import ConfigError, ProblemError
from featherfed.rules.select import Select, SelectKey
from featherfed.server.rounds.events import Assign, Closed, Deadline, Fail, GaveUp, Joined, OpenRound, Pause
from featherfed.server.rounds.pacing import AHEAD, Pacing, first_rounds
from featherfed.server.rounds.resume_point import rules
from featherfed.server.rounds.round_machine import Phase, Rules, RunState, advance
from featherfed.wire.closing import LEAST_REST_S, Close, read_rest
from featherfed.wire.messages import Accepted, Finish
from tests.server.peer import Peer, hello, peer

Serve = Callable[..., Any]
WAIT_S = 30.0
RULES = Rules(
    phones=6, rounds=8, cohort_size=ByRound(2), target=ByRound(2), min_updates=2, max_retries=1, seed=3, of_all=True
)
PACED = {"phones": 6, "cohort": 1, "rounds": 8, "connect": "when-chosen"}


# The machine


def test_first_round_begins_with_one_phone_and_asks_whom_it_draws_of_all() -> None:
    state, (action,) = advance(RunState(RULES), Joined(5))
    assert action == OpenRound(1, 0, RULES.drawn(1))
    assert state.cohort == frozenset(RULES.drawn(1))
    absent = min(state.cohort - {5})
    assert advance(state, Joined(absent))[1] == (Assign(absent),)


def test_each_round_asks_the_same_phones_whoever_is_there() -> None:
    for present in (frozenset[int](), frozenset({0}), frozenset(range(6))):
        state = RunState(RULES, Phase.CLOSING, 1, present=present)
        _, (action,) = advance(state, Closed(1, False))
        assert action == OpenRound(2, 0, RULES.drawn(2))


def test_retry_asks_those_again_who_have_not_answered_and_no_others() -> None:
    cohort = frozenset(RULES.drawn(1))
    answered, silent = sorted(cohort)
    state = RunState(RULES, Phase.OPEN, 1, 0, cohort, frozenset({answered}), present=frozenset(range(6)))
    again, (action,) = advance(state, Deadline(1, 0))
    assert action == OpenRound(1, 1, (silent,))
    assert again.cohort == cohort
    stranger = min(set(range(6)) - cohort)
    assert advance(again, Joined(stranger))[1] == ()
    _, (paused,) = advance(again, Deadline(1, 1))
    assert isinstance(paused, Pause)


def test_phone_that_failed_is_not_asked_again_in_a_retry() -> None:
    cohort = frozenset(RULES.drawn(1))
    failed, silent = sorted(cohort)
    state, _ = advance(RunState(RULES, Phase.OPEN, 1, 0, cohort), Fail(failed))
    _, (action,) = advance(state, Deadline(1, 0))
    assert action == OpenRound(1, 1, (silent,))


def test_where_a_whole_cohort_has_failed_others_are_asked_who_are_there_or_come() -> None:
    """No deadline need pass for phones that have said that they cannot."""
    cohort = frozenset(RULES.drawn(1))
    there, comes = sorted(set(range(6)) - cohort)[:2]
    rules = replace(RULES, min_updates=1)
    state = RunState(rules, Phase.OPEN, 1, 0, cohort, present=cohort | {there})
    first, second = sorted(cohort)
    state, _ = advance(state, Fail(first))
    state, actions = advance(state, GaveUp(second))
    assert actions[-1] == OpenRound(1, 1, (there,))
    state, actions = advance(state, Joined(comes))
    assert actions == (Assign(comes),)
    assert advance(state, Joined(min(set(range(6)) - state.cohort)))[1] == (), "a cohort is two"


def test_first_rounds_are_those_of_phones_that_are_asked_at_all() -> None:
    firsts = first_rounds(replace(RULES, rounds=2))
    assert firsts == {
        shard: min(number for number in (1, 2) if shard in RULES.drawn(number))
        for shard in {*RULES.drawn(1), *RULES.drawn(2)}
    }
    assert set(first_rounds(replace(RULES, rounds=10_000))) == set(range(6))


def test_selection_by_what_is_known_of_phones_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^select fast-links:0\.5 chooses by what is known of phones"):
        ff.Experiment("digits/tiny", phones=4, connect="when-chosen", select="fast-links")


# When to come again


class FakePhone:
    """What pacing knows of a connection."""

    def __init__(self, shard: int) -> None:
        self.shard, self.rests_s, self.sent_away = shard, 0.0, False
        self.sent: list[Any] = []
        self.closed: list[tuple[int, str]] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def close(self, code: int, sentence: str = "") -> None:
        self.closed.append((code, sentence))


class Stage:
    """A pacing with phones, tasks and a clock of the test's own."""

    def __init__(self, rules: Rules) -> None:
        self.now_s = 0.0
        self.phones = {shard: FakePhone(shard) for shard in range(rules.phones)}
        self.spawned: list[Any] = []
        fleet, clock = SimpleNamespace(connections=self.phones), SimpleNamespace(now_s=lambda: self.now_s)
        tasks = SimpleNamespace(spawn=self.spawned.append)
        self.pacing = Pacing(rules, fleet, clock, tasks)  # type: ignore[arg-type]

    async def settle(self) -> None:
        spawned, self.spawned[:] = list(self.spawned), []
        await asyncio.gather(*spawned)


def draws(rounds: dict[int, int], phones: int = 3) -> Select:
    """Return a selection of one phone a round, by the round's number; phone 0 in all others."""

    class Listed(Select):
        uses_facts = False

        def choose(self, phones: Any, size: int, key: SelectKey) -> list[int]:
            return [rounds.get(key.round_number, 0)]

    return Listed()


def listed(rounds: dict[int, int], last: int = 8) -> Rules:
    one = ByRound(1)
    return Rules(
        phones=3, rounds=last, cohort_size=one, target=one, min_updates=1, max_retries=0, seed=0, of_all=True,
        select=draws(rounds),
    )  # fmt: skip


def test_phones_are_told_their_next_round_or_stay_for_the_very_next_or_are_done() -> None:
    async def play() -> None:
        stage = Stage(listed({2: 1, 5: 2}))
        stage.pacing.round_opened(1, 0, frozenset({0}))
        await stage.settle()
        assert stage.phones[0].closed == stage.phones[1].closed == []
        ((code, reason),) = stage.phones[2].closed
        assert (code, read_rest(reason)) == (Close.RESTS, (5, LEAST_REST_S))
        assert stage.phones[2].sent_away and stage.phones[2].rests_s == LEAST_REST_S
        # Round 2 took 10 s, and round 3 opens: phone 1 is asked no more, and phone 2 in 20 s.
        stage.now_s = 20.0
        stage.pacing.round_opened(3, 0, frozenset({0}))
        await stage.settle()
        assert stage.phones[1].sent == [Finish()]
        assert stage.phones[1].closed == [(Close.DONE, "")]
        assert read_rest(stage.phones[2].closed[-1][1]) == (5, 20.0)

    asyncio.run(play())


def test_who_no_near_round_asks_comes_back_to_be_told_more() -> None:
    async def play() -> None:
        stage = Stage(listed({}, last=1000))
        stage.pacing.round_opened(7, 0, frozenset({0}))
        await stage.settle()
        assert read_rest(stage.phones[1].closed[0][1])[0] == 7 + AHEAD + 1

    asyncio.run(play())


def test_round_that_stands_still_is_asked_about_ever_more_rarely() -> None:
    async def play() -> None:
        stage = Stage(listed({4: 2}))
        stage.pacing.round_opened(1, 0, frozenset({0}))
        await stage.settle()
        stage.now_s = 10.0
        stage.pacing.round_opened(2, 0, frozenset({0}))
        await stage.settle()
        came, state = 0, RunState(listed({}), Phase.OPEN, 2, 0, frozenset({0}))
        while stage.now_s < 610.0:
            stage.pacing.release(stage.phones[2], state)  # type: ignore[arg-type]
            await stage.settle()
            stage.now_s += read_rest(stage.phones[2].closed[-1][1])[1]
            came += 1
        assert came < 10

    asyncio.run(play())


def test_guess_is_what_rounds_took_in_the_mean_or_the_last_one_if_less() -> None:
    async def play(opened_s: list[float]) -> float:
        stage = Stage(listed({8: 2}))
        for number, stage.now_s in enumerate(opened_s, 1):
            stage.pacing.round_opened(number, 0, frozenset({0}))
            await stage.settle()
        return read_rest(stage.phones[2].closed[-1][1])[1]

    # Four rounds until the eighth.
    assert asyncio.run(play([0.0, 10.0, 20.0, 30.0])) == 40.0
    assert asyncio.run(play([0.0, 10.0, 20.0, 80.0])) == pytest.approx(4 * 80 / 3, abs=0.5)
    assert asyncio.run(play([0.0, 10.0, 20.0, 22.0])) == 8.0


def test_phones_are_sent_away_from_a_later_attempt_of_a_resumed_round() -> None:
    async def play() -> None:
        stage = Stage(listed({8: 2}))
        stage.pacing.round_opened(4, 2, frozenset({0}))
        await stage.settle()
        assert read_rest(stage.phones[2].closed[0][1])[0] == 8

    asyncio.run(play())


@pytest.mark.parametrize("then", [[(2, 0), (3, 0)], [(1, 1)]])
def test_phone_is_not_sent_away_that_a_round_or_an_attempt_asks_which_opened_meanwhile(
    then: list[tuple[int, int]],
) -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow(Select):
        uses_facts = False

        def choose(self, phones: Any, size: int, key: SelectKey) -> list[int]:
            started.set()
            assert go_on.wait(WAIT_S)
            return [1 if key.round_number == 3 else 0]

    async def play() -> None:
        stage = Stage(replace(listed({}), select=Slow()))
        stage.pacing.round_opened(1, 0, frozenset({0}))
        settling = asyncio.ensure_future(stage.settle())
        await asyncio.to_thread(started.wait)
        *passed, last = then
        for opened in passed:
            stage.pacing.round_opened(*opened, frozenset({0}))
        stage.pacing.round_opened(*last, frozenset({0, 1}))
        go_on.set()
        await settling
        await stage.settle()
        assert stage.phones[1].closed == []

    asyncio.run(play())


def test_selection_that_fails_for_a_later_round_keeps_phones_until_it_is_that_round_s_turn() -> None:
    class Failing(Select):
        uses_facts = False

        def choose(self, phones: Any, size: int, key: SelectKey) -> list[int]:
            return [99] if key.round_number == 2 else [0]

    async def play() -> None:
        failing = replace(listed({}), select=Failing())
        with pytest.raises(ProblemError):
            failing.drawn(2)
        stage = Stage(failing)
        stage.pacing.round_opened(1, 0, frozenset({0}))
        await stage.settle()
        assert stage.phones[1].closed == []

    asyncio.run(play())


# On sockets


def drawn(**settings: Any) -> list[int]:
    """Return whom each round of a run on digits asks, of whom there is one a round."""
    from featherfed.server.config import config_from

    made = rules(config_from({"problem": "digits", **PACED, **settings}))
    return [made.drawn(number)[0] for number in range(1, made.rounds + 1)]


async def come(phone: Peer, shard: int) -> None:
    welcome = await phone.join(f"phone-{shard}", shard=shard, shards=6)
    assert welcome.shard == shard


async def test_phone_that_is_not_asked_is_sent_away_and_gets_its_task_when_it_comes_back(serve: Serve) -> None:
    order = drawn()
    later = next(shard for shard in order[2:] if shard not in order[:2])
    number = order.index(later) + 1
    async with serve(**PACED) as served:
        async with peer(served.address) as phone:
            await come(phone, later)
            code, reason = await phone.closed()
        assert (code, read_rest(reason)[0]) == (Close.RESTS, number)
        # Its shard is its own, whoever asks, and it comes back by its name.
        async with peer(served.address) as other:
            await other.send(hello("other", shard=later, shards=6))
            assert (await other.closed())[0] == Close.LATER
        for each, shard in enumerate(order[: number - 1], 1):
            async with peer(served.address) as phone:
                await come(phone, shard)
                task = await phone.task()
                assert task.round == each
                await phone.upload(each, phone.update(task))
                await phone.receive_until(Accepted)
        async with peer(served.address) as phone:
            await come(phone, later)
            assert (await phone.task()).round == number
        names = [name for _, name, _ in served.watcher.told("phone_rests")]
    assert f"phone-{later}" in names


async def test_phone_that_no_later_round_asks_is_told_that_it_is_done(serve: Serve) -> None:
    order = drawn(rounds=3)
    never = min(set(range(6)) - set(order))
    async with serve(**{**PACED, "rounds": 3}) as served, peer(served.address) as phone:
        await come(phone, never)
        assert await phone.receive_until(Finish) == Finish()
        assert await phone.closed() == (Close.DONE, "")


async def test_whole_phones_play_a_paced_run_to_its_end_and_hold_no_connection_meanwhile(serve: Serve) -> None:
    lines: list[str] = []
    async with serve(**{**PACED, "rounds": 5}) as served:
        phones = [PhoneOptions(server=served.address, train=False, shard=(shard, 6)) for shard in range(6)]
        ends = await asyncio.wait_for(asyncio.gather(*(play_phone(one, lines.append) for one in phones)), 2 * WAIT_S)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        rows = served.report()["rounds"]
        assert served.store.faults() == []
    assert [row["accepted"] for row in rows] == [1] * 5
    assert set(ends) <= {NOT_ASKED, "all 5 rounds are done"}


async def test_shard_of_a_phone_that_does_not_come_back_from_its_rest_is_given_to_another(
    serve: Serve,
) -> None:
    order = drawn()
    later = next(shard for shard in order[2:] if shard not in order[:2])
    async with serve(**PACED, heartbeat=0.05) as served:
        async with peer(served.address) as phone:
            await come(phone, later)
            assert (await phone.closed())[0] == Close.RESTS
        await asyncio.sleep(LEAST_REST_S + 0.5)
        async with peer(served.address) as other:
            await other.send(hello("other", shard=later, shards=6))
            other.welcome = welcome = await other.receive()  # type: ignore[assignment]
            assert welcome.shard == later  # type: ignore[union-attr]


async def test_paced_run_whose_server_is_killed_goes_on_to_the_same_model(serve: Serve) -> None:
    settings = {**PACED, "phones": 4, "rounds": 4, "downlink": "lattice(1)"}

    async def play(address: str) -> None:
        phones = [PhoneOptions(server=address, train=False, name=f"p{shard}", shard=(shard, 4)) for shard in range(4)]
        await asyncio.wait_for(asyncio.gather(*(play_phone(one, lambda line: None) for one in phones)), 2 * WAIT_S)

    async with serve(**settings, name="calm") as served:
        await play(served.address)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        calm = served.folder.model.read_bytes()
    async with serve(**settings, name="killed") as served:
        playing = asyncio.create_task(play(served.address))
        while not served.watcher.told("round_closed"):
            await asyncio.sleep(0.001)
        served.ended.cancel()
        await asyncio.wait({served.ended})
        playing.cancel()
        await asyncio.wait({playing})
    async with serve(resume=True, name="killed") as served:
        await play(served.address)
        assert await asyncio.wait_for(served.ended, WAIT_S) is None
        assert [row["accepted"] for row in served.report()["rounds"]] == [1] * 4
        assert served.folder.model.read_bytes() == calm


# Whole runs


@contextlib.contextmanager
def joined() -> Iterator[list[str]]:
    """Note which phones a virtual run welcomes."""
    names: list[str] = []
    from featherfed.server.phones.fleet import Fleet

    admit = Fleet.admit

    def noting(self: Fleet, phone: Any, hello: Any, *, run: str) -> None:
        names.append(hello.name)
        admit(self, phone, hello, run=run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fleet, "admit", noting)
        yield names


def test_virtual_run_makes_the_same_model_as_with_phones_that_stay_for_fewer_bytes(tmp_path: Path) -> None:
    reports, names = {}, {}
    for connect in ("always", "when-chosen"):
        run = ff.Experiment(
            "digits/tiny", phones=20, cohort=2, rounds=4, local=ff.SGD(0.05, batch_size=40), connect=connect,
            downlink="lattice(1)",
        )  # fmt: skip
        with joined() as came:
            reports[connect] = run.simulate(folder=tmp_path / connect, seed=1, links="4g")
        names[connect] = set(came)
    models = [(tmp_path / connect / "model.safetensors").read_bytes() for connect in reports]
    assert models[0] == models[1]
    asked = {f"phone-{shard}" for shard in first_rounds(rules(run.config(1)))}
    assert names["when-chosen"] == asked < names["always"]
    spent = [report.spent.handshakes for report in reports.values()]
    assert spent[1] < spent[0]
    assert [row.accepted for row in reports["when-chosen"].rounds] == [2] * 4


def test_nobody_of_a_run_in_virtual_time_looks_for_its_server_while_it_rests() -> None:
    run = ff.Experiment("digits/tiny", phones=4, cohort=1, rounds=12, connect="when-chosen")
    with joined() as came:
        run.simulate(seed=2, links="2g")
    made = rules(run.config(2))
    asked = [f"phone-{made.drawn(number)[0]}" for number in range(1, 13)]
    # At the most one visit for each round that asks it.
    assert all(came.count(name) <= asked.count(name) for name in came)
