"""docs/RELIABILITY.md names tests and limits that exist, with the numbers that the code has."""

import re
from asyncio.sslproto import SSLProtocol
from pathlib import Path

from featherfed.edge_client import connection
from featherfed.edge_client import limits as phone_limits
from featherfed.server import service
from featherfed.server.door import limits
from featherfed.server.phones import faultbook
from featherfed.wire import limits as both
from featherfed.wire.messages import MAX_FRAME_BYTES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "RELIABILITY.md").read_text(encoding="utf-8")
LIMITS = TEXT.split("\n## Limits\n")[1].split("\n### ")[0]
PHONES_LIMITS = TEXT.split("\n### A phone's own limits\n")[1].split("\n### ")[0]
FUNCTIONS = {
    path.relative_to(ROOT).as_posix(): set(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")))
    for path in (ROOT / "tests").rglob("test_*.py")
}


def test_every_test_that_is_named_is_there() -> None:
    files = set(re.findall(r"tests/[\w/]+\.py", TEXT))
    assert files and files <= set(FUNCTIONS)
    there = set().union(*FUNCTIONS.values())
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", TEXT))
    assert len(named) > 30
    assert named <= there, named - there


def test_limits_have_the_numbers_of_the_code() -> None:
    text = " ".join(LIMITS.split())
    for sentence in (
        f"`HANDSHAKE_BYTES`: {limits.HANDSHAKE_BYTES // 1024} KiB",
        f"`HELLO_BYTES`: {limits.HELLO_BYTES // 1024} KiB",
        f"`FRAME_BYTES`: {limits.FRAME_BYTES // 1024} KiB and {limits.FRAME_BYTES % 1024} bytes",
        f"`SMALL_BURST`, then `SMALL_PER_S` and `SMALL_PER_TASK`: {both.SMALL_BURST},"
        f" then {both.SMALL_PER_S:g} a second and {limits.SMALL_PER_TASK} for each task",
        f"`WAITING_FRAMES`: {limits.WAITING_FRAMES}",
        f"`UNREAD_BYTES`: {both.UNREAD_BYTES // 1024} KiB",
        f"`PATIENCE_S`: {limits.PATIENCE_S:g} s",
        f"`--max-handshakes`: {limits.HANDSHAKES}",
        f"`--max-per-address`: {limits.PER_ADDRESS}",
        f"`KEPT`: {faultbook.KEPT} of a phone, `KEPT_OF_STRANGERS`: {faultbook.KEPT_OF_STRANGERS} of all strangers",
        f"small frames: less than {both.SMALL_BYTES // 1024} KiB",
        f"{both.SLICE_BYTES // 1024} KiB at a time",
    ):
        assert sentence in text, sentence
    assert limits.OPEN_S == service.HELLO_S
    assert f"`HELLO_S`: {limits.OPEN_S:g} each" in text


def test_limits_of_a_phone_have_the_numbers_of_the_code() -> None:
    text = " ".join(PHONES_LIMITS.split())
    for sentence in (
        f"`ANSWER_BYTES`: {phone_limits.ANSWER_BYTES // 1024} KiB",
        f"`OPEN_S`: {connection.OPEN_S:g}; `WELCOME_S`: {phone_limits.WELCOME_S:g}",
        f"`MAX_FRAME_BYTES`: {MAX_FRAME_BYTES // 1024} KiB",
        f"`SMALL_BURST`, then `SMALL_PER_S`: {both.SMALL_BURST}, then {both.SMALL_PER_S:g} a second",
        f"`EARNED_A_MESSAGE`: {phone_limits.EARNED_A_MESSAGE} more",
        f"`LONGEST_HEARTBEAT_S`: {phone_limits.LONGEST_HEARTBEAT_S:g} seconds each",
        f"small frames: less than {both.SMALL_BYTES // 1024} KiB",
    ):
        assert sentence in text, sentence


def test_what_a_connection_holds_adds_up() -> None:
    held = (both.READ_AHEAD_FRAMES + 2) * limits.FRAME_BYTES + both.UNREAD_BYTES
    assert held + both.READ_BYTES < 0.75e6
    assert held + 2 * SSLProtocol.max_size < 1.2e6
