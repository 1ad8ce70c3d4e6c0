"""Who gets in by the page and who does not: tokens, TLS, other origins, and runs that a browser cannot take part in."""

from collections.abc import Callable
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from featherfed.server.door import tokens

from .browsing import Browsing, Run

TINY = ("--problem", "digits/tiny", "--epochs", "1", "--uplink", "eden-1bit", "--phones", "2", "--rounds", "1")
Start = Callable[..., Run]
Open = Callable[..., Browsing]


@pytest.fixture
def guarded(tmp_path: Path, start: Start, authority: dict[str, Path]) -> Run:
    """A run with TLS and one token for all browsers."""
    path = tmp_path / "tokens.json"
    token = tokens.add(path, "browser-*")
    cert, key = str(authority["cert"]), str(authority["key"])
    run = start(*TINY, "--tokens", str(path), "--tls-cert", cert, "--tls-key", key, token=token)
    assert run.url == f"https://127.0.0.1:{run.port}/#token={token}&name=browser-%2A"
    return run


def test_one_token_is_for_many_browsers_over_tls_and_revoking_it_ends_them(
    guarded: Run, phone: Open, tmp_path: Path
) -> None:
    mine, other = (phone(guarded.url, ignore_https_errors=True) for _ in range(2))
    mine.draw(1)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    assert mine.kept()["name"].startswith("browser-")
    # The token travels in no request line.
    assert not any("token" in url.partition("#")[0] for url in mine.asked)
    tokens.revoke(tmp_path / "tokens.json", "browser-*")
    mine.wait_text("#says", "the token of 'browser-*' was revoked")
    other.page.reload()
    other.wait_text("#refused", "opens nothing here")


def test_without_a_token_or_with_a_wrong_one_the_page_says_so(guarded: Run, phone: Open) -> None:
    bare = guarded.url.partition("#")[0]
    for address in (bare, f"{bare}#token=abcd.wrong"):
        mine = phone(address, ignore_https_errors=True)
        mine.wait_text("#refused", "this address has no token, or one that opens nothing here")
        assert mine.page.locator("#join").is_hidden()


def test_a_page_of_another_origin_gets_no_socket(start: Start) -> None:
    """Nor does one whose name was made to point to this machine."""
    run = start(*TINY)
    own = f"http://127.0.0.1:{run.port}"
    with connect(run.address, origin=Origin(own), subprotocols=[Subprotocol("featherfed")]) as opened:
        assert opened.subprotocol == "featherfed"
    for origin in ("http://elsewhere.example", "null"):
        with pytest.raises(InvalidStatus, match="403"), connect(run.address, origin=Origin(origin)):
            pass
    pretended = f"elsewhere.example:{run.port}"
    line = create_connection(("127.0.0.1", run.port))
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://{pretended}/", sock=line, origin=Origin(f"http://{pretended}"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--problem", "{file}:problem"), "cannot be drawn by hand"),
        (("--problem", "digits/tiny", "--secure"), "sums under masks"),
    ],
)
def test_a_run_that_no_browser_can_train_is_refused_in_a_sentence(
    start: Start, phone: Open, tmp_path: Path, flags: tuple[str, ...], sentence: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nimport featherfed as ff\n\n\n"
        "def examples(place):\n    return ff.Examples(torch.zeros(4, 3), torch.zeros(4, 1))\n\n\n"
        "problem = ff.Problem(lambda: torch.nn.Linear(3, 1), examples=examples, loss=torch.nn.functional.mse_loss)\n"
    )
    run = start(*(flag.format(file=file) for flag in flags), "--phones", "6", "--rounds", "1")
    mine = phone(run.url)
    mine.wait_text("#refused", sentence)
    assert any(sentence in event["message"] for event in run.events if event["event"] == "listening")
    assert mine.page.locator("#join").is_hidden()
    assert mine.quiet()


def test_an_uplink_that_a_browser_cannot_do_is_named(start: Start, phone: Open) -> None:
    flags: list[Any] = ["--problem", "digits/tiny", "--uplink", "stc-400", "--phones", "1", "--rounds", "1"]
    run = start(*flags)
    mine = phone(run.url)
    mine.draw(0)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "this phone cannot do topk and ternary and entropy, which the uplink of this run needs")
    assert mine.page.locator("#join").is_visible()
