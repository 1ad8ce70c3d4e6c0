"""The sums of circles, from the last upload to the round's sum: lists go out, answers come in, masks come off.

What a list says is on the disk before anybody hears of it, and what phones answer before it counts: a server that is
killed in between says the same again, and opens the same sum.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from featherfed.errors import OpeningError, RefusedError
from featherfed.secure.circles import head_bytes
from featherfed.secure.told import to_bits
from featherfed.server.config import RunConfig
from featherfed.server.model.circle_sums import TERMS
from featherfed.server.phones.fault_desk import FaultDesk
from featherfed.server.phones.fleet import Fleet
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds import circle as circles
from featherfed.server.rounds.circle import CirclePhase
from featherfed.server.rounds.circle_book import CircleBook
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import Answered, Count, Discard, Expired, OpenCircle, Opened, SendList
from featherfed.server.rounds.round_machine import Phase
from featherfed.server.rounds.stored_circles import StoredCircles
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.run_tasks import RunTasks
from featherfed.server.storage.circle_rows import StoredCircle, put_circle, put_list, put_shares
from featherfed.server.storage.privacy_rows import put_charges
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.storage.store import Statement, put_value
from featherfed.wire.messages import SECRET_BYTES, Accepted, AnyMessage, Shares, Survivors

if TYPE_CHECKING:
    from featherfed.secure import opening


class Unmasking:
    """The hands of the circles of a run."""

    def __init__(
        self,
        config: RunConfig,
        book: CircleBook,
        storage: RunStorage,
        uploads: UploadRegister,
        fleet: Fleet,
        desk: FaultDesk,
        tasks: RunTasks,
    ) -> None:
        self._deadline_s = config.unmask_deadline
        self._book = book
        self._storage = storage
        self._uploads = uploads
        self._fleet = fleet
        self._desk = desk
        self._tasks = tasks
        self._round_number = 0
        self._answers: dict[tuple[int, int, int], bytes] = {}
        """By attempt, shard and version: what phones of the open round have answered."""
        self._deadlines: dict[int, tuple[Expired, asyncio.TimerHandle]] = {}
        """By circle: of its last list."""

    def restore(self, state: SummedState) -> None:
        """Take what the disk has of an open round, and open again what was summed, in whichever attempt; blocks."""
        here = state.accepted | state.arrived
        stored = StoredCircles.read(
            self._storage.store, state.round_number, here, plan=state.plans.at(state.round_number)
        )
        self._round_number = state.round_number
        self._answers.update(stored.answers)
        for attempt, dealt in stored.attempts.items():
            then = replace(state, attempt=attempt, circles=dealt)
            for number, circle in enumerate(dealt):
                if circle.phase is CirclePhase.SUMMED:
                    total = self._sum(then, number, self._told(then, number))
                    self._book.sums.add(number, total.residues, tuple(sorted(circle.survivors)))

    def rows(self, state: SummedState) -> list[Statement]:
        """Return what keeps the circles of an attempt, and what they are made by."""
        terms = put_value(TERMS, json.dumps([state.round_number, self._book.sums.terms(state.round_number)]))
        return [terms, *(put_circle(self._row(state, number)) for number in range(len(state.circles)))]

    @staticmethod
    def _row(state: SummedState, number: int) -> StoredCircle:
        circle = state.circles[number]
        place = state.round_number, state.attempt, number
        if circle.phase is CirclePhase.SUMMED:
            return StoredCircle(*place, "summed", circle.members, tuple(sorted(circle.survivors)))
        # Where all circles fail at once the round may be closing already.
        over = state.phase in (Phase.UNMASKING, Phase.CLOSING)
        return StoredCircle(*place, "over" if over else "open", circle.members)

    def send_list(self, action: SendList, state: SummedState, current: CurrentRound) -> None:
        """Send a list of survivors when it is durable; its time runs from when it is sent first."""
        place = state.round_number, state.attempt, action.circle
        durable = self._storage.commits.queue(put_list(*place, action.list_.version, action.list_.to_bytes()))
        self._tasks.spawn(self._tell(durable, action, state))
        self._start_deadline(Expired(*place, state.circles[action.circle].lists[-1].version), current)

    def _start_deadline(self, expired: Expired, current: CurrentRound) -> None:
        """Let the time of a circle's last list run, and go on where it runs: phones that come and go stop nothing."""
        if expired.circle in self._deadlines and self._deadlines[expired.circle][0] == expired:
            return
        self._stop_deadline(expired.circle)
        timer = asyncio.get_running_loop().call_later(self._deadline_s, self._time_is_up, expired, current)
        self._deadlines[expired.circle] = expired, timer

    def _time_is_up(self, expired: Expired, current: CurrentRound) -> None:
        del self._deadlines[expired.circle]
        self._tasks.spawn(current.post_alone(expired))

    async def _tell(self, durable: "asyncio.Future[None]", action: SendList, state: SummedState) -> None:
        await durable
        sent, members = action.list_, state.circles[action.circle].members
        alive = to_bits(members, sent.alive)
        for shard in action.to:
            asked = to_bits(members, sent.asked_of(shard))
            self._send(shard, Survivors(state.round_number, state.told_attempt, sent.version, sent.final, alive, asked))

    def _send(self, shard: int, message: AnyMessage) -> None:
        if phone := self._fleet.connections.get(shard):
            self._tasks.spawn(phone.send(message))

    async def take(self, phone: PhoneConnection, message: Shares, current: CurrentRound) -> None:
        """Take what a phone answers; raises `RefusedError` for an answer that cannot be one."""
        state = current.state
        if not isinstance(state, SummedState) or (message.round, message.attempt) != (
            state.round_number,
            state.told_attempt,
        ):
            return
        number = state.place(phone.shard)
        asked = None if number is None else state.circles[number].asked(phone.shard, message.version)
        if number is None or asked is None:
            raise RefusedError(f"an answer to list {message.version}, of which phone {phone.name!r} was not asked")
        if len(message.data) != SECRET_BYTES * len(asked):
            raise RefusedError(f"an answer of {len(message.data)} bytes, to a list that asks for {len(asked)} secrets")
        if state.circles[number].over:
            # Nothing is asked for any more, and what came now would outlive the round.
            return
        key = (state.attempt, phone.shard, message.version)
        if key in self._answers:
            if self._answers[key] != message.data:
                raise RefusedError(f"another answer to list {message.version} than before")
            return
        self._answers[key] = message.data
        self._storage.commits.queue(put_shares(message.round, *key, message.data))
        await current.post_alone(Answered(message.round, phone.shard, state.attempt, message.version))

    def open_circle(self, action: OpenCircle, state: SummedState, current: CurrentRound) -> None:
        """Take the masks off the sum of a circle, and add it to the round's.

        The deadline of its last list runs on: if the sum cannot be opened yet, nobody is waited for beyond it.
        """
        self._tasks.spawn(self._open(action.circle, state, current))

    async def _open(self, number: int, state: SummedState, current: CurrentRound) -> None:
        loop = asyncio.get_running_loop()
        survivors = state.circles[number].survivors
        price = self._book.sums.price(state.round_number, len(state.circles[number].members), len(survivors))
        # What is read is durable then, and paid for before it is read.
        paid = () if price is None else put_charges(state.round_number, survivors, price)
        await self._storage.commits.write(*paid)
        try:
            total = await loop.run_in_executor(None, self._sum, state, number, self._told(state, number))
        except OpeningError as error:
            self._blame(error.at_fault, str(error), state)
            outcome = circles.Opened(error.at_fault, error.lacking, spoilt=not error.lacking)
            await current.post_alone(Opened(state.round_number, state.attempt, number, outcome, price))
            return
        self._blame(total.liars, "a share of it is not on the polynomial of what it is a share of", state)
        async with current.lock:
            now = current.state
            if (now.round_number, now.attempt) == (state.round_number, state.attempt) and now.phase in _GOING_ON:
                shards = tuple(sorted(survivors))
                await loop.run_in_executor(None, self._book.sums.add, number, total.residues, shards)
                outcome = circles.Opened(total.liars)
                current.post(Opened(state.round_number, state.attempt, number, outcome, price))

    def _told(self, state: SummedState, number: int) -> dict[tuple[int, int], bytes]:
        """Return what the phones of a circle have answered so far, by shard and version."""
        return {
            (shard, version): data
            for (attempt, shard, version), data in self._answers.items()
            if attempt == state.attempt and state.circles[number].asked(shard, version) is not None
        }

    def _sum(self, state: SummedState, number: int, answers: Mapping[tuple[int, int], bytes]) -> "opening.Opened":
        """Return the sum of a circle without its masks, in a thread; raises `OpeningError`."""
        from featherfed.secure import opening

        circle, context = state.circles[number], self._book.context(state, number)
        seeds, shares = circle.secrets(answers)
        stored = _Uploads(self._storage, self._book, state, number, context.head_bytes)
        return opening.open_circle(context, stored, circle.survivors, seeds, shares)

    def _blame(self, shards: Iterable[int], sentence: str, state: SummedState) -> None:
        """Close the connections of phones that told what cannot be true, and book why."""
        for shard in sorted(shards):
            phone = self._fleet.connections.get(shard)
            name = self._fleet.names.get(shard, "stranger")
            booked = self._desk.book(shard, name, OpeningError.code, sentence, round_number=state.round_number)
            if booked:
                self._storage.commits.queue(*booked)
            if phone is not None:
                self._tasks.spawn(phone.close(OpeningError.code, sentence))

    def count(self, action: Count, state: SummedState) -> None:
        """Note that updates are in the sum, and tell their phones when that is durable."""
        counted = self._uploads.count(action.round_number, action.shards)
        circle = state.circles[action.circle]
        for shard in action.shards if circle.threshold else ():
            entry = self._storage.ledger.entry(action.round_number, shard, "uplink")
            entry.points += head_bytes(len(circle.members))
        durable = self._storage.commits.queue(*counted, put_circle(self._row(state, action.circle)))
        self._tasks.spawn(self._accept(durable, action))

    async def _accept(self, durable: "asyncio.Future[None]", action: Count) -> None:
        await durable
        for shard in action.shards:
            self._send(shard, Accepted(action.round_number))

    def discard(self, action: Discard) -> None:
        """Forget what an attempt that is over has brought, and is in no sum."""
        self._storage.commits.queue(*self._uploads.discard(action.round_number))

    def begin(self, round_number: int) -> None:
        """Forget what was answered in the last round where another one opens."""
        if round_number != self._round_number:
            self._round_number = round_number
            self._answers.clear()

    def stop(self) -> None:
        """Wait for no answers any more."""
        for number in list(self._deadlines):
            self._stop_deadline(number)

    def _stop_deadline(self, number: int) -> None:
        if number in self._deadlines:
            self._deadlines.pop(number)[1].cancel()


_GOING_ON = (Phase.OPEN, Phase.UNMASKING)


class _Uploads(Mapping[int, "opening.Upload"]):
    """The stored updates of a circle by shard, one in memory at a time."""

    def __init__(self, storage: RunStorage, book: CircleBook, state: SummedState, number: int, head_bytes: int) -> None:
        self._storage, self._book, self._state, self._number = storage, book, state, number
        self._head_bytes = head_bytes

    def __getitem__(self, shard: int) -> "opening.Upload":
        from featherfed.secure import opening

        data = self._storage.payloads.read((self._state.round_number, shard))
        word, residues = self._book.sums.parse(self._state.round_number, self._number, data[self._head_bytes :])
        return opening.Upload(data[: self._head_bytes], word, residues)

    def __iter__(self) -> Iterator[int]:
        return iter(self._state.circles[self._number].survivors)

    def __len__(self) -> int:
        return len(self._state.circles[self._number].survivors)
