"""What a peer is granted before and after the server knows who it is (docs/RELIABILITY.md, "Limits").

Every number is here, with its reason, or in `featherfed/wire/limits.py` if phones grant it as well. Together they bound
what a connection can make the server hold: a stranger's is `HANDSHAKE_BYTES`, then one Hello; a phone's is 2 frames of
`FRAME_BYTES`, after which reading stops, with what the one read before brought (`READ_BYTES`), of which
at most `WAITING_FRAMES` frames are small, and `UNREAD_BYTES` out.
"""

from dataclasses import dataclass

from featherfed.wire.messages import MAX_CHUNK_BYTES

HANDSHAKE_BYTES = 8 * 1024
"""Of the HTTP upgrade; a phone's takes some 300."""
OPEN_S = 10.0
"""For TLS, and again for the HTTP upgrade; the Hello has `service.HELLO_S` after that."""
HELLO_BYTES = 1024
"""Of a message before a phone is admitted."""
FRAME_BYTES = MAX_CHUNK_BYTES + 128
"""Of a message after that: the chunk that Welcome grants, and what UpdateBegin puts around it."""
WAITING_FRAMES = 64
"""Small ones, received and not yet handled; reading stops at 2, but what one read brought is already here.

Of larger ones a read brings no more than its bytes hold, and they are a phone's right: where its link breaks often, its
chunks are small.
"""
SMALL_PER_TASK = 2
"""Small frames that each task brings besides: the first and the last of the update that it asks for. Rounds may follow
each other faster than the clock would allow, most of all in virtual time, where a round over no link takes none."""
PER_ADDRESS = 64
"""Connections of one address (IPv6: one /64), which many phones behind one router share."""
HANDSHAKES = 64
"""Connections that have not been admitted."""
PATIENCE_S = 2.0
"""How long one of them may take before another of its address displaces it; a phone of another address does at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What depends on the run or the operator: connections in all, of one address, and not yet admitted."""

    connections: int
    per_address: int
    per_loopback_address: int
    handshakes: int


def limits_for(
    phones: int, *, connections: int | None = None, per_address: int | None = None, handshakes: int | None = None
) -> Limits:
    """Return the limits of a run.

    Each phone may have a second connection, while the server does not know yet that the first one is dead. On loopback
    all phones of an emulation share one address, which is limited only if `per_address` is given.
    """
    handshakes = handshakes or HANDSHAKES
    connections = connections or 2 * phones + handshakes
    return Limits(
        connections=connections,
        per_address=per_address or PER_ADDRESS,
        per_loopback_address=per_address or connections,
        handshakes=handshakes,
    )
