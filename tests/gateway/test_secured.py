"""A tree over TLS, in which nobody comes in without a token: the gateways neither."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from featherfed.edge_client.one_phone import PhoneOptions, play_phone
from featherfed.errors import ConfigError, LocalError
from featherfed.gateway.serving import Root
from featherfed.server.door import tokens
from tests.gateway.trees import SETTINGS, address, gateway
from tests.serving import serving


def door(authority: dict[str, Path], folder: Path) -> dict[str, Any]:
    return {"tls_cert": authority["cert"], "tls_key": authority["key"], "tokens": folder / "tokens.json"}


async def test_tree_over_tls_with_tokens_at_every_door(tmp_path: Path, authority: dict[str, Path]) -> None:
    ca = str(authority["ca"])
    settings = {**SETTINGS, "rounds": 1}
    (tmp_path / "phones").mkdir()
    of_gateways = tokens.add(tmp_path / "tokens.json", "gateway-*")
    of_phones = tokens.add(tmp_path / "phones" / "tokens.json", "p*")
    async with serving(tmp_path, entrance=door(authority, tmp_path), **{**settings, "gateways": 2}) as root:
        way = Root(url=root.address, token=of_gateways, ca=ca)
        way.check()
        inside = {"entrance": door(authority, tmp_path / "phones"), **settings}
        async with (
            gateway(way, tmp_path / "phones" / "g0", 0, 2, **inside) as (first, told),
            gateway(way, tmp_path / "phones" / "g1", 1, 2, **inside) as (second, told_second),
        ):
            places = [await address(told, first), await address(told_second, second)]
            assert all(place.startswith("wss://127.0.0.1:") for place in [root.address, *places])
            phones = [
                PhoneOptions(
                    server=places[0], others=(places[1],), name=f"p{n}", token=of_phones, ca=ca, train=False
                )
                for n in range(6)
            ]  # fmt: skip
            ends = await asyncio.gather(*(play_phone(phone, lambda line: None) for phone in phones))
            assert ends == ["all 1 rounds are done"] * 6
            assert await asyncio.wait_for(root.ended, 30) is None
            await asyncio.wait_for(asyncio.gather(first, second), 30)
        assert [row["accepted"] for row in root.report()["rounds"]] == [2]


@pytest.mark.parametrize(
    ("token", "ca", "words"),
    [
        (None, True, r"wss://127.0.0.1:\d+ refused this phone \(401\): is --gateway-token right\?"),
        ("gateway-1", True, "this token belongs to phone 'gateway-1', not to 'gateway-0'"),
        ("alice", True, "this token belongs to phone 'alice', not to 'gateway-0'"),
        ("gateway-*", False, r"no server at wss://.* certificate verify failed.* name another with --gateway-of"),
    ],
)
async def test_gateway_that_the_root_does_not_let_in_says_why(
    tmp_path: Path, authority: dict[str, Path], token: str | None, ca: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featherfed.edge_client.phone.FIRST_CONTACT_S", 0.2)
    given = tokens.add(tmp_path / "tokens.json", token or "somebody")
    entrance = door(authority, tmp_path)
    async with serving(tmp_path, entrance=entrance, **{**SETTINGS, "gateways": 2}) as root:
        way = Root(url=root.address, token=given if token else None, ca=str(authority["ca"]) if ca else None)
        async with gateway(way, tmp_path / "g0", 0, 2) as (first, _):
            with pytest.raises(LocalError, match=words):
                await asyncio.wait_for(first, 30)


def test_token_does_not_travel_in_the_clear_to_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"--gateway-token would travel in the clear to 192\.0\.2\.7; .* --insecure"):
        Root(url="ws://192.0.2.7:8765", token="key.secret").check()
    Root(url="ws://192.0.2.7:8765", token="key.secret", insecure=True).check()
    with pytest.raises(ConfigError, match="--gateway-ca is for wss:// addresses, and --gateway-of is ws://root"):
        Root(url="ws://root", ca="ca.pem").check()
    with pytest.raises(ConfigError, match="--gateway-of 'root' is not an address like ws://"):
        Root(url="root").check()
