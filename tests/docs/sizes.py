"""What docs/PROTOCOL.md says of sizes and limits, as the code has them."""

import typing

from msgspec import inspect

from featherfed.server.door.limits import (
    FRAME_BYTES,
    HANDSHAKE_BYTES,
    HELLO_BYTES,
    OPEN_S,
    SMALL_PER_TASK,
    WAITING_FRAMES,
)
from featherfed.server.service import HELLO_S, SILENT_HEARTBEATS
from featherfed.wire import messages
from featherfed.wire.limits import SMALL_BURST, SMALL_BYTES, SMALL_PER_S, UNREAD_BYTES
from featherfed.wire.messages import MAX_CHUNK_BYTES, MAX_FRAME_BYTES, Message
from featherfed.wire.session import TABLES, Role
from tests.docs.types import number_of

ASCII = "^[ -~]*$"


def _most(kind: inspect.Type) -> int:
    """Return the most bytes that a field can take in msgpack's shortest forms."""
    match kind:
        case inspect.IntType() | inspect.FloatType():
            return 9
        case inspect.StrType(max_length=most, pattern=pattern):
            assert most is not None
            # ASCII, or four bytes a character in UTF-8.
            most *= 1 if pattern == ASCII else 4
            return (2 if most < 1 << 8 else 3) + most
        case inspect.BytesType(max_length=most):
            assert most is not None
            return (2 if most < 1 << 8 else 3 if most < 1 << 16 else 5) + most
        case inspect.BoolType():
            return 1
        case inspect.UnionType(types=types):
            return max(map(_most, types))
        case inspect.StructType(fields=fields):
            return 1 + sum(_most(field.type) for field in fields)
        case inspect.DictType(key_type=key, value_type=value, max_length=most):
            assert most is not None
            return 3 + most * (_most(key) + _most(value))
        case inspect.ListType(item_type=item, max_length=most):
            assert most is not None
            return 3 + most * _most(item)
    raise AssertionError(f"no size for {kind}")


def most_bytes(message: type[Message]) -> int:
    """Return the most bytes that a message can have: the array's header, its number, its fields; or a frame's limit."""
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return min(MAX_FRAME_BYTES, 2 + sum(_most(field.type) for field in info.fields))


def size_rows() -> list[list[str]]:
    """Return (number, message, sender, most bytes)."""
    phones = {kind for following in TABLES[Role.PHONE].values() for kind in following}
    return [
        [str(number_of(kind)), kind.__name__, "phone" if kind in phones else "server", f"{most_bytes(kind):,}"]
        for kind in typing.get_args(messages.AnyMessage)
    ]


def limit_rows() -> list[list[str]]:
    """Return (what, limit, what happens) of everything that the server holds a phone to."""
    return [
        ["the HTTP upgrade request", f"{HANDSHAKE_BYTES:,} bytes", "HTTP 400 or 431"],
        ["TLS, and then the HTTP upgrade", f"{OPEN_S:g} s each", "closed without a word"],
        ["Hello, after the upgrade", f"{HELLO_S:g} s", "4001"],
        ["a message before Welcome", f"{HELLO_BYTES:,} bytes", "1009"],
        ["a message after it", f"{FRAME_BYTES:,} bytes", "1009"],
        ["`data` of one message", f"`Welcome.chunk_bytes`, here {MAX_CHUNK_BYTES:,}", "4001 or 1009"],
        [
            f"frames of less than {SMALL_BYTES:,} bytes, pings and pongs too",
            f"{SMALL_BURST} at once, then {SMALL_PER_S:g} a second, and {SMALL_PER_TASK} for each Task",
            "4008",
        ],
        ["such small frames that the server has not handled", f"{WAITING_FRAMES}", "4008"],
        ["the server's bytes that the phone does not read", f"{UNREAD_BYTES:,} bytes", "broken off, no close frame"],
        [
            "silence",
            f"{SILENT_HEARTBEATS:g} × `Welcome.heartbeat_s` without a byte either way",
            "broken off, no close frame",
        ],
    ]
