"""Who may look, and what an answer tells a browser."""

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from featherfed.errors import ConfigError
from featherfed.server.dashboard.app import STATIC
from featherfed.server.dashboard.serving import open_socket

from .stage import Stage

TOKEN = "correct horse battery"


def ask(stage: Stage, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection(urlsplit(stage.url).netloc, timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read_all = answer.read()
    connection.close()
    return answer


def test_every_answer_is_closed_to_other_origins(stage: Callable[..., Stage]) -> None:
    page = stage()
    for path in ("/", "/api/runs", "/static/main.js", "/static/vendor/uplot.js", "/metrics", "/healthz", "/nothing"):
        answer = ask(page, path, Origin="https://elsewhere.example")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert "server" not in answer.headers


def test_page_has_no_inline_script_or_style_and_names_no_other_host() -> None:
    for file in Path(str(STATIC)).glob("*.*"):
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text, file
        if file.suffix == ".html":
            assert " style=" not in text and "<style" not in text and "onload=" not in text
            assert text.count("<script") == text.count('<script type="module" src='), file
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text, file


def test_page_is_read_only(stage: Callable[..., Stage]) -> None:
    page = stage()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/api/runs", "/metrics", "/static/main.js"):
            assert ask(page, path, method).status == 405, (method, path)


def test_page_elsewhere_whose_name_points_here_is_refused(stage: Callable[..., Stage]) -> None:
    page = stage()
    assert ask(page, "/api/runs", Host="attacker.example").status == 421
    assert ask(page, "/api/runs", Host="localhost:1234").status == 200


def test_path_cannot_leave_the_static_folder(stage: Callable[..., Stage]) -> None:
    page = stage()
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/api/runs/..%2f..%2fetc/events"):
        assert ask(page, path).status == 404, path


def test_with_a_token_nothing_is_shown_without_it(stage: Callable[..., Stage]) -> None:
    page = stage(TOKEN)
    for path in ("/", "/api/runs", "/metrics", "/static/main.js"):
        assert ask(page, path).status == 401, path
        assert ask(page, path, Authorization="Bearer wrong horse").status == 401
        assert ask(page, path, Authorization=f"Bearer {TOKEN}").status == 200
    assert ask(page, "/", Accept="text/html").status == 303
    assert ask(page, "/healthz").status == ask(page, "/readyz").status == 200
    assert ask(page, "/?token=" + TOKEN.replace(" ", "+")).status == 401, "a token in an address would lie in logs"


def test_form_trades_the_token_for_a_cookie_that_is_not_the_token(stage: Callable[..., Stage]) -> None:
    page = stage(TOKEN)
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert ask(page, "/login", "POST", "token=wrong", **form).status == 401
    answer = ask(page, "/login", "POST", "token=" + TOKEN.replace(" ", "+"), **form)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 303 and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert ask(page, "/api/runs", Cookie=cookie.partition(";")[0]).status == 200
    assert ask(page, "/api/runs", Cookie="featherfed=guess").status == 401
    assert ask(page, "/login", "POST", "x" * 5000, **form).status == 413


def test_readiness_follows_the_run(stage: Callable[..., Stage]) -> None:
    page = stage()
    assert ask(page, "/readyz").status == 200
    page.act(lambda: page.play.scene.ended("the operator stopped the run"))
    answer = ask(page, "/readyz")
    assert (answer.status, answer.read_all) == (503, b"the run is paused\n")
    assert ask(page, "/healthz").status == 200


@pytest.mark.parametrize(
    ("address", "token", "words"),
    [
        ("8080", None, "is not HOST:PORT"),
        ("127.0.0.1:http", None, "is not HOST:PORT"),
        ("127.0.0.1:99999", None, "is not HOST:PORT"),
        ("0.0.0.0:0", None, "protect it with --dashboard-token"),
        ("0.0.0.0:0", "short", "8 to 256 printable"),
        ("192.0.2.1:0", TOKEN, "choose another, or --no-dashboard"),
    ],
)
def test_wrong_address_is_one_sentence(address: str, token: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_socket(address, token)


def test_taken_port_gives_way_to_a_free_one() -> None:
    first = open_socket("127.0.0.1:0", None)
    port = first.sock.getsockname()[1]
    second = open_socket(f"127.0.0.1:{port}", None)
    with first.sock, second.sock:
        assert second.sock.getsockname()[1] != port
        assert second.line.endswith(f"(port {port} is taken)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert open_socket("127.0.0.1:0", None).sock.close() is None
