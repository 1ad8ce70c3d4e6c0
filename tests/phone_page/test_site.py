"""What the page's server answers, and the address that it prints."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from featherfed.errors import ConfigError
from featherfed.problem import Place
from featherfed.problem_loading import load_problem
from featherfed.problems import digits
from featherfed.server.door import tokens
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.server.phone_page.invitation import hosts, invite
from featherfed.server.phone_page.site import Site

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def site(hosts: frozenset[str] | None = LOOPBACK) -> Site:
    return Site({"problem": "digits/tiny"}, lambda shard: bytes([shard] * 65), shards=3, hosts=hosts, tls=False)


def get(of: Site, path: str, *, allowed: bool = True, host: str = "127.0.0.1:8765", **headers: str) -> Response:
    return of.answer(Request(path, Headers({"Host": host, **headers})), allowed=allowed)


@pytest.mark.parametrize("path", ["/", "/?from=a-qr-code", "/phone/page.js", "/phone/worker.js", "/phone/page.css"])
def test_the_page_is_for_everybody_and_speaks_to_its_own_server_alone(path: str) -> None:
    answer = get(site(), path, allowed=False)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "connect-src 'self' ws://127.0.0.1:8765;" in policy
    assert "unsafe" not in policy and "*" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert int(answer.headers["Content-Length"]) == len(answer.body or b"")


def test_what_is_large_is_squeezed_for_who_can_read_it() -> None:
    plain, squeezed = get(site(), "/phone/page.js"), get(site(), "/phone/page.js", **{"Accept-Encoding": "gzip, br"})
    assert squeezed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(squeezed.body or b"") == plain.body
    assert len(squeezed.body or b"") < len(plain.body or b"") / 2


@pytest.mark.parametrize("path", ["/phone/model.json", "/phone/digits/1"])
def test_the_rest_is_for_those_who_are_let_in(path: str) -> None:
    assert get(site(), path).status_code == 200
    assert get(site(), path, allowed=False).status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/phone/digits/3", "/phone/digits/-1", "/phone/digits/", "/phone/../site.py", "/phone/LICENSES", "/index.html"],
)
def test_nothing_else_is_there(path: str) -> None:
    assert get(site(), path).status_code == 404


def test_a_name_that_was_made_to_point_here_gets_nothing() -> None:
    for host in ("elsewhere.example:8765", "", "127.0.0.1.elsewhere.example"):
        assert get(site(), "/", host=host).status_code == 421
    for host in ("LOCALHOST:8765", "[::1]:8765", "localhost"):
        assert get(site(), "/", host=host).status_code == 200
    assert get(site(None), "/", host="elsewhere.example").status_code == 200


def test_headers_that_come_twice_are_answered_too() -> None:
    """The library raises for them, and a stranger would fill the operator's terminal with tracebacks."""

    def asks(*headers: tuple[str, str]) -> Request:
        return Request("/", Headers(headers))

    host = "Host", "127.0.0.1:8765"
    assert site().answer(asks(host, ("Host", "elsewhere.example")), allowed=True).status_code == 421
    policy = site(None).answer(asks(host, ("Host", "b")), allowed=True).headers["Content-Security-Policy"]
    assert "connect-src 'self';" in policy
    squeezed = site().answer(asks(host, ("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")), allowed=True)
    assert squeezed.headers["Content-Encoding"] == "gzip"
    origin = "Origin", "http://127.0.0.1:8765"
    assert site().turned_away(asks(host, origin)) is None
    assert site().turned_away(asks(host, origin, ("Origin", "http://elsewhere.example"))) is not None
    assert site().turned_away(asks(host, host, origin)) is not None


def test_a_host_that_is_none_says_nothing_in_the_policy() -> None:
    assert get(site(None), "/", host="a; script-src *").headers["Content-Security-Policy"].count("script-src") == 1


def test_an_ipv6_address_is_left_to_self_in_the_policy() -> None:
    """The policy's grammar has no such addresses: Chromium says on the console that it ignores one."""
    answer = get(site(), "/", host="[::1]:8765")
    assert answer.status_code == 200
    assert "connect-src 'self';" in answer.headers["Content-Security-Policy"]


def test_a_page_of_another_origin_is_turned_away() -> None:
    def why(origin: str | None, host: str = "127.0.0.1:8765") -> str | None:
        headers = {"Host": host, **({} if origin is None else {"Origin": origin})}
        return site().turned_away(Request("/", Headers(headers)))

    assert why(None) is None
    assert why("http://127.0.0.1:8765") is None
    for origin in ("http://127.0.0.1:9999", "https://elsewhere.example", "null", ""):
        assert "may not speak for this browser" in str(why(origin))
    assert why("http://elsewhere.example:8765", "elsewhere.example:8765") is not None


def entrance(tmp_path: Path, **options: Any) -> tuple[EntranceOptions, Entrance]:
    made = EntranceOptions(**{"host": "127.0.0.1", "port": 0, "phone_page": True, **options})
    return made, Entrance(made, tmp_path, 4)


def test_on_loopback_the_address_has_no_token_where_none_is_needed(tmp_path: Path) -> None:
    options, opened = entrance(tmp_path)
    with opened:
        port = opened.socket.getsockname()[1]
        assert invite(options, opened).url == f"http://127.0.0.1:{port}/"
        assert "127.0.0.1" in (hosts(options, opened) or ())
        assert not invite(options, opened).qr()
        assert "browsers of this machine join by opening" in invite(options, opened).line


def test_where_tokens_are_in_use_the_address_has_the_one_for_browsers(tmp_path: Path) -> None:
    token = tokens.add(tmp_path / tokens.FILE, "browser-*")
    for given, sentence in ((None, "fl-server token add 'browser-\\*'"), ("wrong", "opens nothing here")):
        options, opened = entrance(tmp_path, phone_token=given)
        with opened, pytest.raises(ConfigError, match=sentence):
            invite(options, opened)
    options, opened = entrance(tmp_path, phone_token=token, host="0.0.0.0", insecure=True)
    with opened:
        address, _, fragment = invite(options, opened).url.partition("#")
        assert fragment == f"token={token}&name=browser-%2A"
        assert "0.0.0.0" not in address
        assert hosts(options, opened) is None
        assert "█" in invite(options, opened).qr()
        cannot = replace(invite(options, opened), cannot="it is no chain")
        assert cannot.line.startswith("browsers cannot take part, and http") and not cannot.qr()
    assert "--phone-page" in options.flags()
    assert token not in " ".join(options.flags())


def test_digits_that_are_handed_out_are_those_of_the_shard() -> None:
    place = Place(2, 5, 7, "shards:2")
    own = load_problem("digits/tiny").examples(place)
    shard = digits.small(place)
    assert len(shard) == 65 * len(own.targets)
    assert list(shard[64::65]) == own.targets.tolist()
