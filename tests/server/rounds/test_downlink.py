"""What a phone gets on its way down, as the phone sees it: the real server over a real socket."""

import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from featherfed.bandwidth_sim.profile import find_profile
from featherfed.edge_client.learner import fingerprint_of
from featherfed.edge_client.round_settings import RunSettings
from featherfed.initial_weights import InitialWeights, digest_of, drawn
from featherfed.learning.models import build
from featherfed.problem_loading import load_problem
from featherfed.server.config import config_from
from featherfed.server.model.lattice_parcels import LatticeParcels
from featherfed.server.model.parcels import Parcel
from featherfed.server.phones.phone_connection import PhoneConnection
from featherfed.server.rounds.events import Deadline
from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.run_folder import create
from featherfed.simulation import Fleet, simulate
from featherfed.training_settings import Training
from featherfed.wire.messages import (
    MAX_CHUNK_BYTES,
    Accepted,
    Ack,
    AnyMessage,
    Cancel,
    Finish,
    Hello,
    ModelBegin,
    ModelChunk,
    Task,
    UpdateBegin,
    Welcome,
    WholeModel,
    pack,
)
from featherfed.wire.session import Role, Session, State
from tests.server.peer import Peer, digest, hello, peer

Serve = Callable[..., Any]
RUN = "ab12"


def empty(name: str) -> Hello:
    """Return the Hello of a phone that could not draw version 0."""
    return replace(hello(name), run=RUN)


async def welcome(phone: Peer, message: Hello) -> Welcome:
    await phone.send(message)
    answer = await phone.receive()
    assert isinstance(answer, Welcome)
    phone.welcome = answer
    return answer


async def begun(phone: Peer) -> tuple[Task, ModelBegin]:
    """Return the next task and the beginning of its model."""
    while not isinstance(message := await phone.receive(), Task | WholeModel):
        pass
    task = message if isinstance(message, Task) else message.task()
    begin = await phone.receive() if isinstance(message, Task) else message
    begin = begin.begin() if isinstance(begin, WholeModel) else begin
    assert isinstance(begin, ModelBegin)
    return task, begin


async def rest(phone: Peer, begin: ModelBegin) -> bytes:
    """Return a model's bytes from where it begins to its end."""
    data = begin.data
    while begin.offset + len(data) < sum(begin.lengths):
        chunk = await phone.receive()
        assert isinstance(chunk, ModelChunk)
        assert chunk.offset == begin.offset + len(data)
        data += chunk.data
    return data


async def test_model_arrives_in_order_and_has_its_digest(serve: Serve) -> None:
    async with serve(phones=1, run_id=RUN) as served, peer(served.address) as phone:
        await welcome(phone, empty("a"))
        task, begin = await begun(phone)
        data = await rest(phone, begin)
        assert (task.round, begin.base, begin.offset) == (1, -1, 0)
        assert len(data) == sum(begin.lengths) == 4 * 29_322
        assert digest(data) == begin.digest


async def test_differences_on_a_lattice_are_made_once_and_not_on_the_event_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, bool]] = []
    make = LatticeParcels._make

    def making(parcels: LatticeParcels, base: int) -> Parcel:
        made.append((base, threading.current_thread() is threading.main_thread()))
        return make(parcels, base)

    monkeypatch.setattr(LatticeParcels, "_make", making)
    async with serve(phones=3, rounds=2, downlink="lattice(1)") as served, contextlib.AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(peer(served.address)) for _ in range(3)]
        for number, phone in enumerate(phones):
            await welcome(phone, hello(f"p{number}"))
        for phone in phones:
            await phone.upload(1, phone.update(await phone.task()))
        assert [(await phone.task()).round for phone in phones] == [2, 2, 2]
    assert made == [(0, False)]


async def test_first_round_sends_no_model_to_phones_that_are_new_to_the_run(serve: Serve) -> None:
    async with serve(phones=1) as served, peer(served.address) as phone:
        answer = await welcome(phone, hello("a"))
        layout = fingerprint_of(answer).layout
        initial = InitialWeights.of_wire(answer.initial, answer.initial_digest)
        assert digest_of(drawn(initial.draws, layout, answer.seed)) == answer.initial_digest
        task = await phone.receive_until(Task)
        assert isinstance(task, Task) and task.version == 0
        await phone.upload(1, phone.update(task))
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert isinstance(await phone.receive(), Finish)
        await served.ended
        down = [each for (_, _, way), each in served.store.traffic().items() if way == "downlink"]
        assert sum(each.payload for each in down) == sum(each.theory for each in down) == 0
        assert sum(each.socket for each in down) > 0


async def test_weights_of_a_problem_s_own_travel_once_whole_and_exact(serve: Serve) -> None:
    settings = {"rounds": 2, "problem": "tests.own_problems:two_inputs", "downlink": "float16"}
    async with serve(phones=1, **settings) as served, peer(served.address) as phone:
        answer = await welcome(phone, hello("a"))
        assert (answer.initial, answer.initial_digest) == ([], b"")
        task, begin = await begun(phone)
        assert (begin.version, begin.base, begin.spec) == (0, -1, "float32")
        weights = await rest(phone, begin)
        own = build(load_problem(str(settings["problem"])), 0).parameters()
        assert weights == b"".join(each.detach().numpy().astype("<f4").tobytes() for each in own)
        await phone.upload(1, phone.update(task))
        second, difference = await begun(phone)
        assert (second.version, difference.base) == (1, 0)
        assert digest(await rest(phone, difference)) == difference.digest


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is laid out as Linux has it")
async def test_task_and_a_small_model_are_one_segment(serve: Serve) -> None:
    def segments(phone: Peer) -> int:
        """Return tcpi_data_segs_in (tcp(7), linux/tcp.h): how many segments with data have come."""
        sock = phone.connection.transport.get_extra_info("socket")
        (count,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152)
        return int(count)

    # Where nothing changes in round 2, there is no task beside the model.
    settings = {"phones": 1, "rounds": 2, "uplink": "vertex-small", "downlink": "vertex-small", "epochs": "1,2"}
    async with serve(**settings) as served, peer(served.address) as phone:
        phone.welcome = await welcome(phone, hello("a"))
        task = await phone.task()
        before = segments(phone)
        await phone.upload(task.round, phone.update(task))
        task = await phone.task()
        assert task.round == 2
        # Accepted; then the next task with its model.
        assert segments(phone) - before == 2


async def test_whole_numbers_among_the_settings_take_a_byte(serve: Serve) -> None:
    async with serve(phones=1, lr=1.0) as served, peer(served.address) as phone:
        answer = await welcome(phone, hello("a"))
        assert Training.from_wire(answer.training).lr == 1.0
        # Epochs, the batch, lr, its decay, momentum, weight decay, FedProx's μ and no setting of the problem's.
        assert b"\x98\x01\x0a\x01\x01\x00\x00\x00\x80" in pack(answer)


async def test_preset_travels_written_out_and_the_run_keeps_its_name(serve: Serve) -> None:
    async with serve(phones=1, uplink="vertex-small") as served, peer(served.address) as phone:
        await welcome(phone, hello("a"))
        # A phone needs the stages of CODECS.md, and no list of names.
        assert phone.welcome is not None and phone.welcome.uplink == "exact(0) | flat | rotate | vertex(32)"
        assert 'uplink = "vertex-small"' in (served.folder.path / "config.toml").read_text()


async def test_welcome_carries_the_settings_of_the_run_and_tasks_nothing_more(serve: Serve) -> None:
    settings = {
        "epochs": 3,
        "batch_size": 0,
        "lr": 0.5,
        "lr_decay": 0.5,
        "momentum": 0.25,
        "prox_mu": 0.125,
        "set": {"shift": 2},
    }
    run = serve(phones=1, rounds=2, uplink="rotate | eden(1)", **settings)
    async with run as served, peer(served.address) as phone:
        answer = await welcome(phone, hello("a"))
        first = await phone.task()
        await phone.upload(1, phone.update(first))
        second = await phone.task()
    assert (first, second) == (Task(1, 0), Task(2, 1))
    assert len(pack(second)) == 4
    for task, lr in ((first, 0.5), (second, 0.25)):
        asked = RunSettings(answer).in_round(task)
        assert str(asked.uplink) == "rotate | eden(1)"
        assert asked.training == Training(epochs=3, batch_size=0, lr=lr, momentum=0.25, prox_mu=0.125, set={"shift": 2})


async def test_phone_that_holds_the_model_gets_the_task_alone(serve: Serve) -> None:
    async with serve(phones=1, run_id=RUN) as served:
        async with peer(served.address) as phone:
            await welcome(phone, empty("a"))
            await phone.task()
        async with peer(served.address) as phone:
            await welcome(phone, replace(empty("a"), held_version=0))
            task = await phone.receive_until(Task)
            assert isinstance(task, Task)
            await phone.upload(1, phone.update(task))
            while not isinstance(message := await phone.receive(), Accepted):
                assert isinstance(message, Ack), "no model came between"


@pytest.mark.parametrize("kept_bytes", [1, 40_000])
async def test_broken_download_goes_on_from_the_byte_that_the_phone_has(serve: Serve, kept_bytes: int) -> None:
    async with serve(phones=1, run_id=RUN) as served:
        async with peer(served.address) as phone:
            await welcome(phone, empty("a"))
            whole = (await begun(phone))[1]
            data = await rest(phone, whole)
        async with peer(served.address) as phone:
            await welcome(phone, replace(empty("a"), partial_digest=whole.digest, partial_bytes=kept_bytes))
            begin = (await begun(phone))[1]
            assert (begin.digest, begin.offset) == (whole.digest, kept_bytes)
            assert data[:kept_bytes] + await rest(phone, begin) == data


async def test_bytes_of_another_model_are_not_built_upon(serve: Serve) -> None:
    async with serve(phones=1, run_id=RUN) as served, peer(served.address) as phone:
        await welcome(phone, replace(empty("a"), partial_digest=b"87654321", partial_bytes=5000))
        begin = (await begun(phone))[1]
        assert begin.offset == 0


@pytest.mark.parametrize(
    ("link", "least", "most"),
    [
        ("unlimited", 100_000, MAX_CHUNK_BYTES),
        ("4g", 100_000, MAX_CHUNK_BYTES),
        ("256kbps", 9_000, 16_384),
        ("2g", 9_000, 16_384),
    ],
)
def test_chunks_of_models_grow_as_far_as_others_may_wait_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, least: int, most: int
) -> None:
    sizes: dict[int, list[int]] = {}
    send = PhoneConnection.send

    async def sending(phone: PhoneConnection, *messages: AnyMessage) -> None:
        for message in messages:
            if isinstance(message, ModelBegin | ModelChunk):
                sizes.setdefault(phone.shard, []).append(len(message.data))
        await send(phone, *messages)

    monkeypatch.setattr(PhoneConnection, "send", sending)
    config = config_from({"problem": "digits/2nn", "phones": 1, "rounds": 3, "downlink": "float32", "eval_every": 3})
    fleet = Fleet(links=None if link == "unlimited" else find_profile(link), trains=False)
    simulate(config, lambda: create(tmp_path, "run", config), fleet, workers=1)
    chunks = sizes[0]
    model = 4 * 199_210
    assert sum(chunks) == 2 * model
    assert chunks[0] < 10_000
    assert least <= max(chunks) <= most


async def test_straggler_s_next_task_is_not_the_cancelled_one(serve: Serve) -> None:
    run = serve(phones=2, rounds=2, cohort=2, quorum=1, downlink="rotate | eden(4)")
    async with run as served, peer(served.address) as fast, peer(served.address) as slow:
        await welcome(fast, hello("fast"))
        await welcome(slow, hello("slow"))
        task = await fast.task()
        await fast.upload(1, fast.update(task))
        assert await asyncio.wait_for(slow.receive_until(Cancel), 30) == Cancel(1)
        following, _ = await asyncio.wait_for(begun(slow), 30)
        assert following.round == 2


async def test_question_about_an_old_update_in_the_middle_of_a_download_disturbs_nothing(serve: Serve) -> None:
    # A model that no socket takes at once.
    async with (
        serve(phones=1, run_id=RUN, problem="digits/cnn", uplink="vertex-small") as served,
        peer(served.address) as phone,
    ):
        await welcome(phone, empty("a"))
        task, begin = await begun(phone)
        await phone.send(UpdateBegin(7, 1000, bytes(8), 1, 0, b""))
        cancelled, got = None, len(begin.data)
        while got < sum(begin.lengths):
            message = await asyncio.wait_for(phone.receive(), 30)
            if isinstance(message, ModelChunk):
                got += len(message.data)
            else:
                cancelled, after = message, got
        assert cancelled == Cancel(7)
        assert after < got, "the answer came before the model's end"
        await phone.upload(task.round, phone.update(task))
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert await asyncio.wait_for(served.ended, 30) is None


async def test_tasks_of_a_phone_that_reads_nothing_for_rounds_stay_in_their_order(serve: Serve) -> None:
    run = serve(phones=2, cohort=2, quorum=1, rounds=4, problem="digits/2nn", uplink="vertex-small")
    async with run as served, peer(served.address) as fast, peer(served.address) as slow:
        await welcome(fast, hello("fast"))
        await welcome(slow, hello("slow"))
        session = Session()
        session.follow(Role.PHONE, hello("slow"))
        assert slow.welcome is not None
        session.follow(Role.SERVER, slow.welcome)
        session.follow(Role.SERVER, await slow.receive())
        # Until here: from now on what the server sends waits in its buffers.
        slow.connection.transport.pause_reading()
        for number in (1, 2, 3):
            await fast.upload(number, fast.update(await fast.task()))
            assert await fast.receive_until(Accepted) == Accepted(number)
        slow.connection.transport.resume_reading()
        task: Task | None = None
        while task is None or session.states[Role.SERVER] is not State.IDLE:
            message = await asyncio.wait_for(slow.receive(), 30)
            session.follow(Role.SERVER, message)
            if isinstance(message, Task):
                task = message
        assert task.round == 4


class Gated:
    """A phone's connection that takes one piece at a time, when it may."""

    def __init__(self) -> None:
        self.shard, self.told_of, self.held_version, self.open = 0, 1, -1, True
        self.partial, self.websocket = (b"", 0), self
        self.bytes_waiting = 0
        self.gate, self.pieces = asyncio.Semaphore(0), list[Any]()

    def traffic(self, direction: str) -> Any:
        return Traffic()

    async def send(self, *messages: AnyMessage) -> None:
        self.pieces.append(messages)
        await self.gate.acquire()


async def test_phone_that_is_asked_again_while_its_model_comes_gets_the_rest_of_it(serve: Serve) -> None:
    """A download that takes longer than a deadline would never end; and what has left counts as held."""
    async with serve(phones=2) as served:
        downlink, phone = served.service._downlink, Gated()

        async def sent(pieces: int) -> None:
            async with asyncio.timeout(20):
                while len(phone.pieces) < pieces:
                    await asyncio.sleep(0.001)

        first = asyncio.create_task(downlink.deliver(phone, 1, None))
        await sent(1)
        phone.gate.release()
        await sent(2)
        second = asyncio.create_task(downlink.deliver(phone, 1, None))
        for _ in range(1000):
            phone.gate.release()
        await asyncio.wait_for(asyncio.gather(first, second), 20)
        begin = next(piece[1] for piece in phone.pieces[2:] if isinstance(piece[0], Task))
        assert isinstance(begin, ModelBegin)
        assert begin.offset == sum(len(piece[-1].data) for piece in phone.pieces[:2])
        assert phone.held_version == 0
        # The last bytes are under way: what is said behind them is said to a phone that holds them.
        phone = Gated()
        phone.gate.release()
        third = asyncio.create_task(downlink.deliver(phone, 1, None))
        async with asyncio.timeout(20):
            while phone.held_version != 0:
                phone.gate.release()
                await asyncio.sleep(0)
        fourth = asyncio.create_task(downlink.deliver(phone, 1, None))
        for _ in range(10):
            phone.gate.release()
        await asyncio.wait_for(asyncio.gather(third, fourth), 20)
        assert [type(each) for each in phone.pieces[-1]] == [Task]


async def test_phone_that_was_called_off_is_asked_again_though_it_came_with_an_update(serve: Serve) -> None:
    async with (
        serve(phones=2, cohort=1, run_id=RUN, deadline=0.3, max_retries=50) as served,
        peer(served.address) as came,
        peer(served.address) as other,
    ):
        await welcome(came, replace(hello("a"), run=RUN, held_version=0, pending_round=1))
        await welcome(other, hello("b"))
        async with asyncio.timeout(10):
            # It has forgotten its update then.
            assert await came.receive_until(Cancel) == Cancel(1)
            assert await came.receive_until(Task) == Task(1, 0)


async def test_phone_whose_update_was_sent_away_is_asked_again_though_it_came_with_one(serve: Serve) -> None:
    """It came with an update that its round did not want, and was told so as it asked; another attempt asks it."""
    async with (
        serve(phones=2, cohort=1, run_id=RUN, max_retries=50) as served,
        peer(served.address) as one,
        peer(served.address) as other,
    ):
        for phone, name in ((one, "a"), (other, "b")):
            await welcome(phone, replace(hello(name), run=RUN, held_version=0, pending_round=1))
        state = served.service.state
        assert state.round_number == 1
        spare = 1 - min(state.cohort)
        phone = (one, other)[spare]
        await phone.send(UpdateBegin(1, 1000, bytes(8), 1, 0, b""))
        async with asyncio.timeout(10):
            assert await phone.receive_until(Cancel) == Cancel(1)
            served.service._round.post(Deadline(1, 0))
            assert await phone.receive_until(Task) == Task(1, 0)
