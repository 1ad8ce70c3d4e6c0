"""Whole phones against a served run, and against servers that are gone, wrong or refuse."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response

from featherfed.bandwidth_sim.virtual import run
from featherfed.edge_client import visit
from featherfed.edge_client.dialing import DirectDialer
from featherfed.edge_client.learner import NoiseLearner
from featherfed.edge_client.local_problem import LocalProblem
from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.edge_client.phone import Phone
from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import ConfigError, DataError, LocalError
from featherfed.server.model.versions import Versions
from featherfed.wire.messages import Finish, pack

from ..idx_files import write_mnist

Serve = Callable[..., Any]
WAIT_S = 30.0


def options(address: str, **changes: Any) -> PhoneOptions:
    return PhoneOptions(**{"server": address, "train": False, **changes})


async def play(phone: PhoneOptions, lines: list[str] | None = None) -> str:
    said = [] if lines is None else lines
    return await asyncio.wait_for(play_phone(phone, said.append), WAIT_S)


async def test_phones_play_a_run_to_its_end(serve: Serve) -> None:
    async with serve(phones=3, rounds=4, uplink="rotate | eden(1)", downlink="rotate | eden(4)") as served:
        reasons = await asyncio.gather(*(play(options(served.address)) for _ in range(3)))
        assert await served.ended is None
        report = served.report()
    assert reasons == ["all 4 rounds are done"] * 3
    assert [row["accepted"] for row in report["rounds"]] == [3] * 4


async def test_training_lowers_the_loss_of_the_server_s_model(serve: Serve) -> None:
    async with serve(phones=2, rounds=2, epochs=2, lr=0.05) as served:
        lines: list[str] = []
        before = served.aggregator.evaluate()
        await asyncio.gather(*(play(options(served.address, train=True), lines) for _ in range(2)))
        after = served.aggregator.evaluate()
    assert after.loss < 0.8 * before.loss
    assert sum("trained" in line for line in lines) == 4


async def test_phones_come_back_after_a_server_restart_and_send_nothing_twice(serve: Serve) -> None:
    lines: list[str] = []
    async with serve(phones=2, rounds=12) as served:
        port = served.address.rpartition(":")[2]
        phones = [asyncio.create_task(play(options(served.address, name=name), lines)) for name in ("a", "b")]
        while lines.count("round 3: accepted") < 2:
            await asyncio.sleep(0.001)
        served.ended.cancel()
        await asyncio.wait({served.ended})
    async with serve(resume=True, port=int(port)) as served:
        reasons = await asyncio.gather(*phones)
        report = served.report()
    assert reasons == ["all 12 rounds are done"] * 2
    assert [row["accepted"] for row in report["rounds"]] == [2] * 12
    assert all(lines.count(f"round {number}: accepted") == 2 for number in range(1, 13))


@pytest.mark.parametrize("downlink", ["rotate | eden(4)", "lattice(1)", "fresh | rotate | eden(4)"])
async def test_phones_hold_the_server_s_views_whatever_they_missed_and_whoever_was_killed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, downlink: str
) -> None:
    views: dict[int, bytes] = {}
    held: list[tuple[int, bytes, bytes]] = []
    stand, hold = Versions._stand, PhoneState.hold

    def standing(self: Versions, version: int, view: np.ndarray) -> None:
        views[version] = view.tobytes()
        stand(self, version, view)

    def holding(
        self: PhoneState,
        version: int,
        weights: np.ndarray,
        initial: np.ndarray | None = None,
        difference: bytes = b"",
    ) -> None:
        held.append((version, weights.tobytes(), b"" if initial is None else initial.tobytes()))
        hold(self, version, weights, initial, difference)

    monkeypatch.setattr(Versions, "_stand", standing)
    monkeypatch.setattr(PhoneState, "hold", holding)

    def phones(address: str) -> "list[asyncio.Task[str]]":
        folders = {name: str(tmp_path / name) for name in "abc"}
        return [
            asyncio.create_task(play(options(address, name=name, state_dir=folder), lines))
            for name, folder in folders.items()
        ]

    lines: list[str] = []
    async with serve(phones=3, cohort=1, rounds=12, downlink=downlink) as served:
        first = phones(served.address)
        while "round 5: accepted" not in lines:
            await asyncio.sleep(0.001)
        for task in (*first, served.ended):
            task.cancel()
        await asyncio.wait({*first, served.ended})
    async with serve(resume=True) as served:
        assert await asyncio.gather(*phones(served.address)) == ["all 12 rounds are done"] * 3
    assert len({version for version, *_ in held}) == 12
    assert all(weights == views[version] for version, weights, _ in held)
    assert {initial for *_, initial in held} == ({b""} if downlink.startswith("rotate") else {views[0]})


async def test_phone_that_draws_other_initial_weights_says_so_and_gets_them_whole(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "digest_of", lambda weights: b"87654321")
    lines: list[str] = []
    async with serve(phones=1, rounds=2) as served:
        await play(options(served.address), lines)
        down = {number: each.payload for (number, _, way), each in served.store.traffic().items() if way == "downlink"}
        parameters = served.aggregator.parameters
    assert sum("is not the one that the server has drawn; it is asked for anew" in line for line in lines) == 1
    assert down[1] == 4 * parameters
    assert "round 2: accepted" in lines


async def test_no_phone_downloads_anything_in_the_first_round(serve: Serve) -> None:
    async with serve(phones=2, rounds=2, uplink="rotate | eden(1)") as served:
        await asyncio.gather(*(play(options(served.address, train=True)) for _ in range(2)))
        down = [
            (number, each.payload) for (number, _, way), each in served.store.traffic().items() if way == "downlink"
        ]
    assert [payload for number, payload in down if number == 1] == [0, 0]
    assert all(payload for number, payload in down if number == 2)


async def test_phone_s_state_directory_keeps_its_name_and_model(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    async with serve(phones=1, rounds=1) as served:
        await play(options(served.address, state_dir=str(folder)))
        shards = served.store.phones()
    phone_state = PhoneState(folder)
    assert shards == {0: phone_state.name}
    assert phone_state.held_version == 0
    assert phone_state.pending is None


async def test_shard_that_was_asked_for_is_played(serve: Serve) -> None:
    async with serve(phones=3) as served:
        await asyncio.gather(*(play(options(served.address, name=f"p{n}", shard=(n, 3))) for n in (2, 0, 1)))
        assert served.store.phones() == {0: "p0", 1: "p1", 2: "p2"}


async def test_server_away_is_said_in_one_sentence_with_the_way_out() -> None:
    with pytest.raises(LocalError, match=r"no server at ws://127.0.0.1:1 for .* start it with fl-server serve"):
        await play(options("ws://127.0.0.1:1", patience_s=0.1))


async def test_token_that_is_refused_ends_the_phone_at_once() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer wrong"
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no")

    async with serve_websocket(lambda connection: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LocalError, match=r"refused this phone \(401\): is --token right"):
            await play(options(f"ws://127.0.0.1:{port}", token="wrong"))


@pytest.mark.parametrize(
    ("frame", "words"),
    [(b"\xc1", "not msgpack"), (pack(Finish("early")), "out of turn"), ("text", "text frame of 4 characters")],
)
async def test_server_that_breaks_the_protocol_is_left(frame: bytes | str, words: str) -> None:
    closed: list[int | None] = []

    async def answer(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(frame)
        await connection.wait_closed()
        closed.append(connection.close_code)

    async with serve_websocket(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LocalError, match=rf"the server broke the protocol: .*{words}"):
            await play(options(f"ws://127.0.0.1:{port}"))
    assert closed == [4001]


async def test_phone_over_a_dropping_link_loses_no_acknowledged_byte(serve: Serve) -> None:
    from featherfed.bandwidth_sim.profile import profile_from_flags

    link = profile_from_flags(bandwidth="4mbps", drop_every="60kB")
    async with serve(phones=1, rounds=2, downlink="rotate | eden(4)") as served:
        await play(options(served.address, name="dropped", profile=link))
        report = served.report()
    up = report["totals"]["uplink"]
    size = 4 * report["parameters"]
    assert [row["accepted"] for row in report["rounds"]] == [1, 1]
    assert up["payload"] - up["resent"] == 2 * size
    # Each of the drops may have lost what was on its way: at most what the link holds.
    assert up["resent"] < 0.15 * up["payload"]


async def test_phone_looks_for_its_shard_at_every_address(serve: Serve, tmp_path: Path) -> None:
    async with serve(phones=2, name="full") as full, serve(phones=1, name="free") as free:
        others = [asyncio.create_task(play(options(full.address, name=name))) for name in "ab"]
        while len(full.service.fleet.connections) < 2:
            await asyncio.sleep(0.001)
        nobody = "ws://127.0.0.1:1"
        assert await play(options(nobody, others=(full.address, free.address), name="c")) == "all 1 rounds are done"
        assert await free.ended is None
        await asyncio.gather(*others)
        with pytest.raises(LocalError, match=r"no server at ws://127\.0\.0\.1:1 or ws://.* for"):
            await play(options(nobody, others=(free.address,), name="d", patience_s=0.2))


async def test_phone_without_a_shard_anywhere_ends_at_once(serve: Serve) -> None:
    async with serve(phones=1, name="one", deadline=60.0) as one, serve(phones=1, name="two") as two:
        for served in (one, two):
            served.service.fleet.names[0] = "somebody"
        with pytest.raises(LocalError, match="all 1 shards are taken"):
            await play(options(one.address, others=(two.address,), name="late"))


def test_addresses_of_a_phone_are_alike() -> None:
    with pytest.raises(ConfigError, match="some --server addresses are ws:// and some wss://"):
        options("ws://a", others=("wss://b",)).check()
    with pytest.raises(ConfigError, match="--server 'b' is not an address like ws://127"):
        options("ws://a", others=("b",)).check()


async def test_phone_without_its_data_never_joins(serve: Serve, tmp_path: Path) -> None:
    write_mnist(tmp_path, [1, 26, 3])
    async with serve(phones=1) as served:
        with pytest.raises(DataError, match="has labels from 1 to 26"):
            await play(options(served.address, train=True, problem="mnist/lite", data_dir=str(tmp_path)))
        assert served.watcher.told("phone_came") == []


async def test_phone_that_finds_no_data_for_its_run_leaves_at_once_and_no_round_waits(serve: Serve) -> None:
    def find_nothing(data_dir: str | None) -> None:
        raise DataError("cannot read\x1b[2J /nowhere: no such file")

    def bare(name: str, device: str) -> LocalProblem:
        local = LocalProblem(name, device)
        local.problem = replace(local.problem, prepare=find_nothing)
        return local

    async with serve(phones=2, rounds=2, deadline=600.0) as served:
        other = asyncio.create_task(play(options(served.address, name="other")))
        while not served.watcher.told("phone_came"):
            await asyncio.sleep(0.001)
        with pytest.raises(DataError, match="/nowhere"):
            phone = play_phone(options(served.address, name="bare", train=True), str, make_local=bare)
            await asyncio.wait_for(phone, WAIT_S)
        assert await other == "all 2 rounds are done"
        assert [row["accepted"] for row in served.report()["rounds"]] == [1, 1]
    ((name, code, sentence),) = served.watcher.told("fault")
    assert (name, code) == ("bare", 4010)
    assert sentence.startswith("it cannot play: problem digits/lite: prepare() fails (")
    assert sentence.endswith("cannot read?[2J /nowhere: no such file")


async def test_unnamed_phone_that_was_killed_gets_its_shard_again(serve: Serve) -> None:
    async with serve(phones=2, rounds=20, heartbeat=0.2, deadline=600.0) as served:
        phones = [asyncio.create_task(play(options(served.address))) for _ in range(2)]
        while served.watcher.told("round_closed") == []:
            await asyncio.sleep(0.001)
        # As its process's end would: without a word, and with its name gone.
        killed = phones.pop()
        killed.cancel()
        while served.watcher.told("phone_left") == []:
            await asyncio.sleep(0.001)
        lines: list[str] = []
        phones.append(asyncio.create_task(play(options(served.address), lines)))
        assert await asyncio.gather(*phones) == ["all 20 rounds are done"] * 2
        await asyncio.gather(killed, return_exceptions=True)
    assert lines[0].startswith("all 2 shards are taken; the shard of a phone that left is free in 1 s; waiting")


async def test_phone_follows_no_redirect_with_its_token() -> None:
    asked: list[str | None] = []

    def point_elsewhere(connection: ServerConnection, request: Request) -> Response:
        asked.append(request.headers.get("Authorization"))
        response = connection.respond(HTTPStatus.MOVED_PERMANENTLY, "over there")
        response.headers["Location"] = "/elsewhere"
        return response

    async def nobody(connection: ServerConnection) -> None: ...

    async with serve_websocket(nobody, "127.0.0.1", 0, process_request=point_elsewhere) as server:
        address = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        with pytest.raises(LocalError, match=r"the server answered 301 and points to /elsewhere"):
            await play(options(address, token="t0ken", patience_s=0.0))
    assert asked == ["Bearer t0ken"]


async def test_phone_asks_no_proxy_of_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serve(phones=1) as served:
        assert await play(options(served.address)) == "all 1 rounds are done"


def test_phone_stops_looking_for_its_server_where_its_last_wait_is_too_short_for_the_clock() -> None:
    """The larger a simulation's clock, the coarser it is: after a wait that does not move it comes the same one."""

    class Nobody(DirectDialer):
        calls = 0

        async def connect(self, host: str, port: int) -> None:
            self.calls += 1
            assert self.calls < 10_000, "it looks for ever"
            raise ConnectionRefusedError

    async def look(number: int) -> None:
        # It looks for ten seconds, in which the clock passes 16.
        await asyncio.sleep(6.1 + number / 7)
        phone = Phone(
            PhoneSettings(server="ws://server:80"), name=f"phone-{number}", phone_state=PhoneState(None),
            dialer=Nobody(), make_learner=NoiseLearner, say=lambda line: None,
        )  # fmt: skip
        with pytest.raises(LocalError, match="no server at"):
            await phone.run()

    for number in range(60):
        run(look(number))
