"""Tokens in their file, and at the door of a served run."""

import hmac
import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from featherfed.commands.server import main
from featherfed.edge_client.one_phone import PhoneOptions
from featherfed.errors import ConfigError, RefusedError
from featherfed.server.door import tokens
from featherfed.server.door.tokens import Tokens
from tests.server.peer import CountedClient, Peer, hello, peer

Serve = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def test_a_token_opens_for_its_phone_until_it_is_revoked(path: Path) -> None:
    alice, bob = tokens.add(path, "alice"), tokens.add(path, "bob")
    book = Tokens(path)
    found = book.find(f"Bearer {alice}")
    assert found is not None and found.name == "alice"
    assert book.valid(found)
    # Another process takes it back while this one is using it.
    tokens.revoke(path, "alice")
    assert book.find(f"Bearer {alice}") is None
    assert not book.valid(found)
    assert book.find(f"bearer {bob}") is not None
    # A new token of the same name is another token.
    tokens.add(path, "alice")
    assert not book.valid(found)


def test_what_is_no_token_opens_nothing(path: Path) -> None:
    alice, bob = tokens.add(path, "alice"), tokens.add(path, "bob")
    book = Tokens(path)
    mixed = f"{alice.partition('.')[0]}.{bob.partition('.')[2]}"
    for header in (None, "", "Bearer", "Bearer ", "Bearer .", alice, f"Basic {alice}", f"Bearer {alice}x",
                   f"Bearer {alice[:-1]}", f"Bearer {mixed}", "Bearer unknown.", "Bearer unknown.é\udcff"):  # fmt: skip
        assert book.find(header) is None, header


def test_secrets_are_neither_stored_nor_readable_by_others(path: Path) -> None:
    secret = tokens.add(path, "alice").partition(".")[2]
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_comparison_takes_the_same_way_for_known_and_unknown_keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = tokens.add(path, "alice")
    book, compared = Tokens(path), []

    def compare(known: str, given: str) -> bool:
        compared.append((known, given))
        return hmac.compare_digest(known, given)

    monkeypatch.setattr(tokens, "hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    book.find(f"Bearer {alice}")
    book.find("Bearer unknown.secret")
    assert [len(known) for known, _ in compared] == [64, 64]


def test_a_file_that_goes_or_breaks_opens_to_nobody(path: Path) -> None:
    alice = tokens.add(path, "alice")
    book = Tokens(path)
    content = path.read_text()
    path.write_text("[{}]")
    assert book.find(f"Bearer {alice}") is None
    path.unlink()
    assert book.find(f"Bearer {alice}") is None
    path.write_text(content)
    assert book.find(f"Bearer {alice}") is not None


def test_commands_at_the_same_time_lose_no_token(path: Path) -> None:
    threads = [threading.Thread(target=tokens.add, args=(path, f"phone-{number}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())) == 20


def test_names_that_a_token_opens_for(path: Path) -> None:
    tokens.add(path, "swarm-*")
    tokens.add(path, "alice")
    swarm, alice = tokens.read(path).values()
    alice.check_name("alice")
    swarm.check_name("swarm-17")
    for token, name in ((alice, "alice2"), (alice, "*"), (swarm, "swarm"), (swarm, "bob")):
        with pytest.raises(RefusedError, match="this token belongs to phone"):
            token.check_name(name)


def test_commands(path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["token", *arguments, "--tokens", str(path)])

    made = run("add", "alice")
    assert made.exit_code == 0
    assert Tokens(path).find(f"Bearer {made.stdout.strip()}") is not None
    assert json.loads(run("list", "--json").stdout)[0]["name"] == "alice"
    assert "alice  added 20" in run("list").stdout
    again = run("add", "alice")
    assert again.exit_code == 2
    assert "phone 'alice' has a token" in again.stderr
    assert run("add", "a\x07").exit_code == 2
    assert run("revoke", "alice").exit_code == 0
    gone = run("revoke", "alice")
    assert gone.exit_code == 2
    assert "phone 'alice' has no token" in gone.stderr
    assert "no tokens in" in run("list").stderr


@pytest.mark.parametrize("server", ["ws://phones.example:8765", "ws://192.0.2.1:8765"])
def test_a_phone_sends_no_token_in_the_clear(server: str) -> None:
    with pytest.raises(ConfigError, match="in the clear"):
        PhoneOptions(server=server, token="key.secret").check()
    PhoneOptions(server=server, token="key.secret", insecure=True).check()
    PhoneOptions(server=server.replace("ws://", "wss://"), token="key.secret").check()
    PhoneOptions(server="ws://localhost:8765", token="key.secret").check()


def with_token(address: str, token: str | None) -> connect:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(address, compression=None, proxy=None, create_connection=CountedClient, additional_headers=headers)


@pytest.mark.parametrize(("token", "sentence"), [(None, "no token"), ("key.secret", "this token opens nothing here")])
async def test_without_a_token_there_is_no_websocket(
    serve: Serve, path: Path, token: str | None, sentence: str
) -> None:
    tokens.add(path, "alice")
    async with serve() as served:
        with pytest.raises(InvalidStatus) as caught:
            await with_token(served.address, token)
        response = caught.value.response
        # The operator of a phone with a wrong token asks the operator of the server.
        assert served.watcher.told("fault") == [("stranger", 401, sentence)]
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert b"fl-edge takes one with --token" in (response.body or b"")


async def test_a_phone_may_claim_its_own_name_only(serve: Serve, path: Path) -> None:
    alice, mallory = tokens.add(path, "alice"), tokens.add(path, "mallory")
    async with serve() as served, with_token(served.address, alice) as first:
        older = Peer(first)  # type: ignore[arg-type]
        await older.join("alice")
        # Who holds another token cannot take the place of the phone that is there …
        async with with_token(served.address, mallory) as second:
            thief = Peer(second)  # type: ignore[arg-type]
            await thief.send(hello("alice"))
            assert await thief.closed() == (
                4004,
                "this token belongs to phone 'mallory', not to 'alice'; start fl-edge with --name",
            )
        # … and who holds its token can.
        async with with_token(served.address, alice) as third:
            await Peer(third).join("alice")  # type: ignore[arg-type]
            assert await older.closed() == (4005, "phone 'alice' has a newer connection")


async def test_revocation_ends_the_connection_while_the_server_runs(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featherfed.server.door.entrance.REVOCATION_S", 0.02)
    alice, bob = tokens.add(path, "alice"), tokens.add(path, "bob")
    async with (
        serve() as served,
        with_token(served.address, alice) as first,
        with_token(served.address, bob) as second,
    ):
        stays, goes = Peer(first), Peer(second)  # type: ignore[arg-type]
        await stays.join("alice")
        await goes.join("bob")
        tokens.revoke(path, "bob")
        assert await goes.closed() == (4004, "the token of 'bob' was revoked")
        with pytest.raises(InvalidStatus):
            await with_token(served.address, bob)
        # The round goes on with who is left.
        await stays.upload(1, stays.update(await stays.task()))
        assert await served.ended is None


async def test_without_a_file_of_tokens_anybody_on_this_machine_may_come(serve: Serve) -> None:
    async with serve() as served, peer(served.address) as phone:
        await phone.join("anybody")
