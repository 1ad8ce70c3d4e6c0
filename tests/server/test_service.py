"""A served run on real sockets, and phones that are honest, wrong, or gone."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featherfed.wire.messages import (
    Accepted,
    Ack,
    Cancel,
    Finish,
    UpdateBegin,
    UpdateChunk,
    WholeModel,
    pack,
)

from .peer import digest, hello, peer

Serve = Callable[..., Any]
WAIT_S = 30.0


async def finish(served: Any) -> str | None:
    outcome: str | None = await asyncio.wait_for(served.ended, WAIT_S)
    return outcome


async def test_one_round_of_two_phones(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as first, peer(served.address) as second:
        await first.join("first")
        await second.join("second")
        tasks = [await first.task(), await second.task()]
        assert [task.round for task in tasks] == [1, 1]
        for phone, task in zip((first, second), tasks, strict=True):
            await phone.upload(1, phone.update(task))
            assert await phone.receive_until(Accepted) == Accepted(1)
        for phone in (first, second):
            finish_message = await phone.receive_until(Finish)
            assert finish_message == Finish("all 1 rounds are done")
            assert await phone.closed() == (1000, ""), "Finish has said why"
        assert await finish(served) is None
        report = served.report()
    (row,) = report["rounds"]
    assert (row["state"], row["cohort"], row["accepted"], row["late"], row["failed"]) == ("closed", 2, 2, 0, 0)
    assert row["accuracy"] is not None
    assert served.folder.model.exists()
    assert served.folder.best.exists()


async def test_ledger_holds_what_the_phones_sockets_carried(serve: Serve) -> None:
    async with serve(uplink="rotate | eden(1)", downlink="rotate | eden(4)") as served:
        async with peer(served.address) as first, peer(served.address) as second:
            phones = (first, second)
            for phone, name in zip(phones, ("first", "second"), strict=True):
                await phone.join(name)
            payloads = []
            for phone in phones:
                payloads.append(phone.update(await phone.task()))
                await phone.upload(1, payloads[-1])
                await phone.receive_until(Accepted)
            assert await finish(served) is None
            for phone in phones:
                await phone.connection.wait_closed()
        report = served.report()
    up, down = report["totals"]["uplink"], report["totals"]["downlink"]
    assert up["socket"] + up["handshake"] == sum(phone.connection.bytes_sent for phone in phones)
    assert down["socket"] + down["handshake"] == sum(phone.connection.bytes_received for phone in phones)
    assert up["payload"] == up["theory"] == sum(map(len, payloads))
    begin = sum(len(pack(UpdateBegin(1, len(data), digest(data), 1, 0, data))) for data in payloads)
    assert up["message"] == begin
    assert up["message"] < up["socket"] < up["message"] + 2 * 40
    assert down["payload"] < down["message"] < down["socket"]
    assert up["resent"] == up["wasted"] == down["resent"] == down["wasted"] == 0


WRONG: dict[str, tuple[list[Any], int, str]] = {
    "not msgpack": ([b"\xc1nonsense"], 4001, "not msgpack"),
    "text": (["hello"], 4001, "text frame of 5 characters; frames are binary"),
    "unknown message": ([b"\x91\x63"], 4001, "not a message of protocol 3"),
    "out of turn": ([hello("again")], 4001, "Hello out of turn: the phone is ready"),
    "gap": ([UpdateBegin(1, 100, b"12345678", 1, 0, b"abc"), UpdateChunk(7, b"x")], 4001, "expected 3"),
    "too long": ([UpdateBegin(1, 2, b"12345678", 1, 0, b"abc")], 4001, "exceeds 2 bytes"),
    "too large": ([UpdateBegin(1, 10**9, b"12345678", 1, 0, b"abc")], 4004, "update of 1000000000 bytes exceeds"),
    "wrong digest": ([UpdateBegin(1, 3, b"12345678", 1, 0, b"abc")], 4004, "digest"),
    "wrong length": ([UpdateBegin(1, 3, digest(b"abc"), 1, 0, b"abc")], 4003, "too early"),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_fault_of_a_phone_ends_its_connection_and_not_the_round(serve: Serve, kind: str) -> None:
    frames, code, sentence = WRONG[kind]
    async with serve() as served, peer(served.address) as honest, peer(served.address) as wrong:
        await wrong.join("wrong")
        await honest.join("honest")
        task = await honest.task()
        for frame in frames:
            await wrong.send(frame)
        closed_code, closed_reason = await wrong.closed()
        assert closed_code == code
        assert sentence in closed_reason
        await honest.upload(1, honest.update(task))
        await honest.receive_until(Accepted)
        assert await finish(served) is None
        (fault,) = served.store.faults()
        (row,) = served.report()["rounds"]
    assert (fault.phone, fault.code, fault.round) == ("wrong", code, 1)
    assert sentence in fault.sentence
    assert (row["accepted"], row["failed"]) == (1, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_update_with_a_number_that_is_none_is_refused(serve: Serve, value: float) -> None:
    async with serve() as served, peer(served.address) as honest, peer(served.address) as wrong:
        await wrong.join("wrong")
        await honest.join("honest")
        task = await honest.task()
        update = np.frombuffer(wrong.update(task), "<f4").copy()
        update[10] = value  # in the first tensor, of 400 values
        await wrong.upload(1, update.tobytes())
        code, sentence = await wrong.closed()
        assert code == 4003
        assert "1 of 400 numbers are NaN or infinite" in sentence
        await honest.upload(1, honest.update(task))
        assert await finish(served) is None
        accepted = served.aggregator.versions.view
    assert np.isfinite(accepted).all()


async def test_phone_of_another_version_is_told_so(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as other:
        await other.send(b"\x93\x01\x63\xa1x")
        code, sentence = await other.closed()
        assert code == 4002
        assert "protocol 3" in sentence
        assert "99" in sentence


async def test_message_before_hello_is_refused(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as other:
        await other.send(UpdateChunk(0, b""))
        code, sentence = await other.closed()
        assert code == 4001
        assert "UpdateChunk" in sentence


async def test_one_phone_more_than_shards_is_refused(serve: Serve) -> None:
    async with serve(phones=1) as served, peer(served.address) as first, peer(served.address) as second:
        await first.join("first")
        await second.send(hello("second"))
        code, sentence = await second.closed()
        assert code == 4007
        assert "all 1 shards are taken" in sentence


async def test_newer_connection_of_a_phone_replaces_the_older(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as older, peer(served.address) as newer:
        shard = (await older.join("same")).shard
        assert (await newer.join("same")).shard == shard
        assert await older.closed() == (4005, "phone 'same' has a newer connection")


async def test_update_sent_twice_counts_once(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as first, peer(served.address) as second:
        await first.join("first")
        await second.join("second")
        task = await first.task()
        payload = first.update(task)
        await first.upload(1, payload)
        assert await first.receive_until(Accepted) == Accepted(1)
        await first.upload(1, payload)
        assert await first.receive_until(Accepted) == Accepted(1)
        await second.upload(1, second.update(await second.task()))
        assert await finish(served) is None
        report = served.report()
    assert report["rounds"][0]["accepted"] == 2
    assert report["rounds"][0]["uplink"]["resent"] == len(payload)


async def test_upload_goes_on_from_the_last_durable_byte(serve: Serve) -> None:
    async with serve(phones=1) as served:
        async with peer(served.address) as phone:
            await phone.join("phone")
            payload = phone.update(await phone.task())
            await phone.upload(1, payload, upto=40_000)
            while (await phone.receive_until(Ack)).offset < 40_000:  # type: ignore[union-attr]
                pass
        async with peer(served.address) as phone:
            await phone.join("phone")
            await phone.send(UpdateBegin(1, len(payload), digest(payload), 1, 0, b""))
            assert await phone.receive_until(Ack) == Ack(1, 40_000)
            for offset in range(40_000, len(payload), 16384):
                await phone.send(UpdateChunk(offset, payload[offset : offset + 16384]))
            assert await phone.receive_until(Accepted) == Accepted(1)
        assert await finish(served) is None
        traffic = served.report()["rounds"][0]["uplink"]
    assert traffic["payload"] == len(payload)
    assert traffic["resent"] == 0


async def test_straggler_is_cancelled_at_quorum_and_its_bytes_are_wasted(serve: Serve) -> None:
    async with (
        serve(phones=2, quorum=1, rounds=2) as served,
        peer(served.address) as fast,
        peer(served.address) as slow,
    ):
        await slow.join("slow")
        await fast.join("fast")
        await slow.upload(1, slow.update(await slow.task()), upto=30_000)
        while (await slow.receive_until(Ack)).offset < 30_000:  # type: ignore[union-attr]
            pass
        await fast.upload(1, fast.update(await fast.task()))
        assert await slow.receive_until(Cancel) == Cancel(1)
        # The next round asks both again.
        task = await slow.task()
        assert task.round == 2
        await fast.upload(2, fast.update(await fast.task()))
        assert await finish(served) is None
        first_row = served.report()["rounds"][0]
    assert (first_row["accepted"], first_row["late"], first_row["failed"]) == (1, 1, 0)
    assert first_row["uplink"]["wasted"] == 30_000


async def test_dead_phone_delays_a_round_by_no_more_than_its_deadline(serve: Serve) -> None:
    async with serve(deadline=0.5) as served, peer(served.address) as alive, peer(served.address) as dead:
        await dead.join("dead")
        await alive.join("alive")
        await alive.upload(1, alive.update(await alive.task()))
        assert await finish(served) is None
        (row,) = served.report()["rounds"]
    assert (row["accepted"], row["late"]) == (1, 1)
    assert row["seconds"] >= 0.5


async def test_run_pauses_when_no_cohort_answers(serve: Serve) -> None:
    async with serve(deadline=0.05, max_retries=1) as served, peer(served.address) as one, peer(served.address) as two:
        await one.join("one")
        await two.join("two")
        assert await finish(served) == "round 1 had 0 of at least 1 updates in each of 2 attempts"
        assert await one.closed() == (4006, "round 1 had 0 of at least 1 updates in each of 2 attempts")


async def test_stop_tells_the_phones_why(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as phone:
        await phone.join("phone")
        served.service.stop()
        assert await phone.closed() == (4006, "the operator stopped the run")
        assert await finish(served) == "the operator stopped the run"


async def test_second_version_travels_as_a_difference_to_those_who_hold_the_first(serve: Serve) -> None:
    spec = "rotate | eden(2)"
    async with serve(phones=1, rounds=2, downlink=spec) as served, peer(served.address) as phone:
        await phone.join("phone")
        await phone.upload(1, phone.update(await phone.task()))
        await phone.receive_until(Accepted)
        whole = await phone.receive()
        assert isinstance(whole, WholeModel), "one difference fits one frame, and no task is said beside it"
        assert (whole.version, whole.base) == (1, 0)
        assert len(whole.data) < 4 * served.aggregator.versions.view.size / 8


async def test_any_hello_field_out_of_its_limits_is_refused(serve: Serve) -> None:
    async with serve() as served:
        for frame in (
            pack(hello("x")).replace(b"\xa1x", b"\xa1\x07"),  # a control character in the name
            pack(hello("x")).replace(b"\xa1x", b"\xa0"),  # no name
        ):
            async with peer(served.address) as other:
                await other.send(frame)
                code, _ = await other.closed()
                assert code == 4001


async def test_run_that_reached_its_target_is_over_when_it_is_resumed(serve: Serve) -> None:
    async with serve(phones=1, rounds=5, target="accuracy=0.01") as served, peer(served.address) as phone:
        await phone.join("phone")
        await phone.upload(1, phone.update(await phone.task()))
        assert await finish(served) is None
    async with serve(resume=True) as served:
        assert await finish(served) is None
        assert len(served.report()["rounds"]) == 1


async def told(served: Any, what: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not served.watcher.told(what):
            await asyncio.sleep(0.002)


async def test_phone_that_is_back_before_it_is_known_to_be_lost_is_asked_again(serve: Serve) -> None:
    """Its grace time ended, and it came back, while a round was being closed: events wait for that."""
    async with serve(phones=1, rounds=2, heartbeat=0.2) as served, contextlib.AsyncExitStack() as stack:
        async with peer(served.address) as gone:
            await gone.join("phone")
            await gone.task()
        async with served.service._round.lock:
            async with asyncio.timeout(WAIT_S):
                while not served.service.fleet._away:
                    await asyncio.sleep(0.01)
            back = await stack.enter_async_context(peer(served.address))
            await back.join("phone")
            task = await back.task()
        await back.upload(1, back.update(task))
        assert (await asyncio.wait_for(back.task(), WAIT_S)).round == 2


async def test_phone_that_is_back_before_it_has_given_up_is_asked_in_the_next_round(serve: Serve) -> None:
    """It has no update of this round, and is there for the next one."""
    async with serve(phones=2, rounds=2) as served, contextlib.AsyncExitStack() as stack:
        other, first = [await stack.enter_async_context(peer(served.address)) for _ in range(2)]
        await other.join("other")
        await first.join("first")
        await first.task()
        async with served.service._round.lock:
            await first.connection.close(4012, "it has diverged")
            await told(served, "fault")
            back = await stack.enter_async_context(peer(served.address))
            await back.join("first")
            await back.task()
        await other.upload(1, other.update(await other.task()))
        assert (await asyncio.wait_for(back.task(), WAIT_S)).round == 2
        assert served.service.state.present == {0, 1}


async def test_fault_in_a_round_that_is_being_closed_costs_the_phone_no_later_one(serve: Serve) -> None:
    async with serve(phones=2, rounds=2, quorum=1) as served, contextlib.AsyncExitStack() as stack:
        quick, wrong = [await stack.enter_async_context(peer(served.address)) for _ in range(2)]
        await quick.join("quick")
        await wrong.join("wrong")
        gate, close = threading.Event(), served.aggregator.close

        def slow(number: int) -> Any:
            gate.wait(WAIT_S)
            return close(number)

        served.aggregator.close = slow
        await quick.upload(1, quick.update(await quick.task()))
        await told(served, "cancelled")
        await wrong.send(b"nonsense")
        assert (await wrong.closed())[0] == 4001
        # By now its fault waits for the round.
        await asyncio.sleep(0.2)
        back = await stack.enter_async_context(peer(served.address))
        await back.join("wrong")
        gate.set()
        task = await asyncio.wait_for(back.task(), WAIT_S)
        assert task.round == 2
        await asyncio.sleep(0.1)
        await back.upload(2, back.update(task))
        assert await asyncio.wait_for(back.receive_until(Accepted), WAIT_S) == Accepted(2)
