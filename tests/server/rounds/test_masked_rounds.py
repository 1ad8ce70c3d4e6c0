"""Masked rounds over real connections, with phones that do what a test says: right, wrong, late or never."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from featherfed.secure.circles import head_bytes
from featherfed.wire.messages import Accepted, Cancel, Shares, Survivors
from tests.server.rounds.masker import Masker, masker, maskers

Serve = Callable[..., Any]
FIVE: dict[str, Any] = {"phones": 5, "circle": 5, "secure": True, "uplink": "secure-4bit"}


pytestmark = pytest.mark.timeout(30)


def rows(served: Any, table: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(served.folder.database)) as connection:
        return connection.execute(f"select * from {table}").fetchall()


async def answer_until(phone: Masker, last: type[Any]) -> None:
    """Answer all lists that come, until the server says how the round went for this phone."""
    while not isinstance(message := await phone.receive(), last):
        if isinstance(message, Survivors):
            await phone.send(phone.answer(message))


async def finish(phones: list[Masker], last: type[Any] = Accepted) -> None:
    """Have phones answer until they hear that they count."""
    await asyncio.gather(*(answer_until(phone, last) for phone in phones))


async def test_five_phones_are_summed(serve: Serve) -> None:
    async with serve(**FIVE) as served, maskers(served.address, 5) as phones:
        for phone in phones:
            await phone.send_update(await phone.circle())
        await finish(phones)
        assert await served.ended is None
        for table in ("chunks", "circles", "lists", "shares"):
            assert rows(served, table) == []


TEN = {**FIVE, "phones": 10}


async def wait_for(what: Callable[[], Any]) -> None:
    while not what():
        await asyncio.sleep(0.01)


async def give_up(phone: Masker) -> None:
    """Leave the round, as a phone that has nothing to send does: nobody waits for a deadline."""
    await phone.connection.close(4012, "nothing to send")


async def by_circle(phones: list[Masker]) -> dict[int, list[tuple[Masker, Any]]]:
    dealt: dict[int, list[tuple[Masker, Any]]] = {}
    for phone in phones:
        circle = await phone.circle()
        dealt.setdefault(circle.circle, []).append((phone, circle))
    return dealt


async def test_a_phone_whose_server_was_killed_before_its_key_is_in_no_circle(serve: Serve) -> None:
    async with serve(**FIVE) as served, contextlib.AsyncExitStack() as stack:
        for shard in range(5):
            phone = await stack.enter_async_context(masker(served.address, shard))
            await phone.join(f"p{shard}", shard=shard, shards=5)
    async with serve(resume=True) as served:
        await asyncio.sleep(0.2)
        assert not served.watcher.told("round_opened")
        async with maskers(served.address, 5) as phones:
            for phone in phones:
                await phone.send_update(await phone.circle())
            await finish(phones)
            assert await served.ended is None


async def test_a_circle_that_failed_before_its_first_list_fails_again_after_a_kill(serve: Serve) -> None:
    async with serve(**TEN) as served, maskers(served.address, 10) as phones:
        first, second = (await by_circle(phones)).values()
        for phone, circle in (*first[:2], *second[:4]):
            await phone.send_update(circle)
        for phone, _ in (*first[2:], *second[4:]):
            await give_up(phone)
        for phone, _ in second[:4]:
            await phone.list_()
    kept = {phone.shard: phone for phone, _ in second[:4]}
    async with serve(resume=True) as served, contextlib.AsyncExitStack() as stack:
        back = []
        for shard, old in kept.items():
            phone = await stack.enter_async_context(masker(served.address, shard, old.key))
            phone.member, phone.context = old.member, old.context
            await phone.enter(10)
            back.append(phone)
        await finish(back)
        assert await served.ended is None


async def test_phones_of_a_failed_circle_are_told_and_their_bytes_are_gone(serve: Serve) -> None:
    async with serve(**TEN) as served, maskers(served.address, 10) as phones:
        first, second = (await by_circle(phones)).values()
        for phone, circle in (*first, *second[1:]):
            await phone.send_update(circle)
        liar, circle = second[0]
        true = liar.mask(circle)
        word = head_bytes(5)
        await liar.send_update(circle, true[:word] + b"lies" + true[word + 4 :])
        await asyncio.gather(finish([phone for phone, _ in first]), finish([phone for phone, _ in second], Cancel))
        assert await served.ended is None
        for table in ("chunks", "circles", "lists", "shares"):
            assert rows(served, table) == []


async def test_a_liar_and_a_silent_phone_end_a_circle_at_its_deadline(serve: Serve) -> None:
    async with (
        serve(**FIVE, max_retries=0, unmask_deadline=0.5) as served,
        maskers(served.address, 5) as phones,
    ):
        for phone in phones:
            await phone.send_update(await phone.circle())
        for phone in phones[:4]:
            shares = phone.answer(await phone.list_())
            if phone is phones[3]:
                shares = Shares(shares.round, shares.attempt, shares.version, bytes(len(shares.data)))
            await phone.send(shares)
        async with asyncio.timeout(10):
            assert "0 of at least 1 updates" in (await served.ended or "")


async def test_a_phone_that_comes_and_goes_puts_off_no_deadline(serve: Serve) -> None:
    async with (
        serve(**FIVE, max_retries=0, unmask_deadline=1.0) as served,
        maskers(served.address, 5) as phones,
    ):
        for phone in phones[:4]:
            await phone.send_update(await phone.circle())
        await give_up(phones[4])
        for phone in phones[:3]:
            await phone.send(phone.answer(await phone.list_()))
        async with asyncio.timeout(10):
            while not served.ended.done():
                # It may come when the run has just ended.
                with contextlib.suppress(OSError, WebSocketException):
                    async with masker(served.address, 3, phones[3].key) as again:
                        await again.enter(5)
                        await again.receive_until(Survivors)
                        await asyncio.sleep(0.3)
        assert "0 of at least 1 updates" in (served.ended.result() or "")


async def test_bits_behind_the_last_number_are_refused_when_they_come(serve: Serve) -> None:
    uplink = "exact(0) | flat | rotate_shared | grid(3)"
    async with serve(**{**FIVE, "uplink": uplink}, slices=3) as served, maskers(served.address, 5) as phones:
        for phone in phones[1:]:
            await phone.send_update(await phone.circle())
        spoilt = phones[0].mask(await phones[0].circle())
        spoilt = spoilt[:-1] + bytes([spoilt[-1] | 1])
        await phones[0].upload(1, spoilt)
        code, sentence = await phones[0].closed()
        assert code == 4003, sentence
        await finish(phones[1:])
        assert await served.ended is None


async def test_an_answer_that_comes_during_the_close_is_not_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from featherfed.server.storage.run_folder import RunFolder

    promote, closing = RunFolder.promote, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(folder: Any, *given: Any, **named: Any) -> None:
        loop.call_soon_threadsafe(closing.set)
        time.sleep(0.3)
        promote(folder, *given, **named)

    async with serve(**{**FIVE, "phones": 7, "circle": 7}) as served, maskers(served.address, 7) as phones:
        monkeypatch.setattr(RunFolder, "promote", slow)
        for phone in phones:
            await phone.send_update(await phone.circle())
        lists = [await phone.list_() for phone in phones]
        answers = [phone.answer(list_) for phone, list_ in zip(phones, lists, strict=True)]
        for phone, answer in zip(phones[:-1], answers, strict=False):
            await phone.send(answer)
        await closing.wait()
        await phones[-1].send(answers[-1])
        assert await served.ended is None
        assert rows(served, "shares") == []


async def test_keys_that_a_stopped_delivery_took_along_come_with_the_next(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featherfed.server.rounds.downlink import Downlink

    parcel, held = Downlink._parcel, [0]
    never = asyncio.Event()

    async def slow(downlink: Any, *given: Any) -> Any:
        held[0] += 1
        if held[0] <= 10:
            await never.wait()
        return await parcel(downlink, *given)

    async with serve(**TEN, rounds=2, deadline=2.0) as served, maskers(served.address, 10) as phones:
        monkeypatch.setattr(Downlink, "_parcel", slow)
        for phone, circle in [pair for pairs in (await by_circle(phones)).values() for pair in pairs]:
            await phone.send_update(circle)
        await finish(phones)
        await wait_for(lambda: held[0] > 10)
        never.set()
        for phone in phones:
            circle = await phone.circle()
            assert (circle.round, circle.attempt) == (2, 1)


async def test_a_quorum_waits_for_circles_that_can_be_summed(serve: Serve) -> None:
    async with serve(**TEN, quorum=8) as served, maskers(served.address, 10) as phones:
        first, second = (await by_circle(phones)).values()
        for phone, circle in (*first, *second[:3]):
            await phone.send_update(circle)
        await phones[0].connection.ping()
        await second[3][0].send_update(second[3][1])
        await second[4][0].receive_until(Cancel)
        await finish([phone for phone, _ in (*first, *second[:4])])
        assert await served.ended is None
        assert served.report()["rounds"][0]["accepted"] == 9


async def test_no_file_of_a_run_has_a_masked_byte_after_its_round(serve: Serve) -> None:
    async with serve(**FIVE, rounds=2) as served, maskers(served.address, 5) as phones:
        told: list[bytes] = []
        for phone in phones:
            await phone.send_update(await phone.circle())
            told.append(phone.masked)
        for phone in phones:
            shares = phone.answer(await phone.list_())
            told.append(shares.data)
            await phone.send(shares)
        await wait_for(lambda: served.watcher.told("round_opened")[-1][0] == 2)
        files = b"".join(path.read_bytes() for path in served.folder.path.rglob("*") if path.is_file())
        assert served.store.phones()[0].encode() in files
        for secret in told:
            assert not any(secret[at : at + 16] in files for at in range(0, len(secret), 400))


async def test_another_phone_of_a_name_has_another_key_and_takes_no_place(serve: Serve) -> None:
    async with serve(**FIVE) as served, maskers(served.address, 5) as phones:
        circles = [await phone.circle() for phone in phones]
        async with masker(served.address, 0) as other:
            await other.enter(5)
            code, sentence = await other.closed()
            assert code == 4004 and "another key" in sentence
        for phone, circle in zip(phones, circles, strict=True):
            await phone.send_update(circle)
        await finish(phones)
        assert await served.ended is None


async def test_a_run_whose_phones_all_rest_pauses_and_goes_on_with_the_next_round(serve: Serve) -> None:
    async with serve(**FIVE, rounds=2) as served, maskers(served.address, 5) as phones:
        for phone in phones:
            circle, word = await phone.circle(), head_bytes(5)
            true = phone.mask(circle)
            await phone.send_update(circle, true[:word] + b"lies" + true[word + 4 :])
        for phone in phones:
            await phone.send(phone.answer(await phone.list_()))
        assert "all other phones of the run rest" in (await served.ended or "")
    keys = [phone.key for phone in phones]
    async with serve(resume=True) as served, contextlib.AsyncExitStack() as stack:
        await wait_for(lambda: served.watcher.told("round_opened"))
        assert served.watcher.told("round_opened")[-1][0] == 2
        for shard, key in enumerate(keys):
            back = await stack.enter_async_context(masker(served.address, shard, key))
            await back.enter(5)
            assert (await back.circle()).round == 2


async def test_a_phone_that_takes_no_part_is_not_waited_for_and_stays(serve: Serve) -> None:
    six = {**FIVE, "phones": 6, "circle": 6, "rounds": 2}
    async with serve(**six) as served, maskers(served.address, 6) as phones:
        circles = [await phone.circle() for phone in phones]
        for phone, circle in zip(phones[:5], circles, strict=False):
            await phone.send_update(circle)
        # Of another attempt it says nothing.
        await phones[5].send(Shares(1, 7, 0, b""))
        await phones[5].send(Shares(1, 0, 0, b""))
        await finish(phones[:5])
        assert (await phones[5].circle()).round == 2
        assert served.store.faults() == []


async def test_an_answer_to_no_list_that_has_data_is_a_fault(serve: Serve) -> None:
    async with serve(**FIVE) as served, maskers(served.address, 5) as phones:
        await phones[0].circle()
        await phones[0].send(Shares(1, 0, 0, bytes(16)))
        assert await phones[0].closed() == (4001, "an answer of 16 bytes to no list")


async def test_circles_wait_for_keys_where_phones_come_when_they_are_chosen(serve: Serve) -> None:
    settings = {**FIVE, "connect": "when-chosen", "deadline": 600.0}
    async with serve(**settings) as served, contextlib.AsyncExitStack() as stack:
        phones = []
        for shard in range(5):
            assert rows(served, "circles") == [], "no circle before all are here"
            phones.append(await stack.enter_async_context(masker(served.address, shard)))
            await phones[-1].enter(5)
        for phone in phones:
            await phone.send_update(await phone.circle())
        await finish(phones)
        assert await served.ended is None


async def test_circles_are_dealt_at_the_deadline_without_those_who_have_not_come(serve: Serve) -> None:
    settings = {**FIVE, "phones": 6, "connect": "when-chosen", "deadline": 1.5}
    async with serve(**settings) as served, contextlib.AsyncExitStack() as stack:
        phones = []
        for shard in range(5):
            phones.append(await stack.enter_async_context(masker(served.address, shard)))
            await phones[-1].enter(6)
        circles = [await phone.circle() for phone in phones]
        assert {tuple(circle.members) for circle in circles} == {tuple(circles[0].members)}
        assert sorted(circles[0].members) == list(range(5)) and circles[0].attempt == 0
        late = await stack.enter_async_context(masker(served.address, 5))
        await late.enter(6)
        for phone, circle in zip(phones, circles, strict=True):
            await phone.send_update(circle)
        await finish(phones)
        assert await served.ended is None
