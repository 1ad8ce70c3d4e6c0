"""Masked sums after docs/PRIVACY.md alone, in plain Python: a second implementation, which shares no code with ours.

X25519 is RFC 7748's ladder, HKDF RFC 5869 over the standard library's HMAC, ChaCha20 RFC 8439's rounds.
"""

import hmac
from hashlib import blake2b

PRIME = 2**128 - 159
CURVE = 2**255 - 19


def x25519(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little") & ~7 & ((1 << 255) - 1) | 1 << 254
    u = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x1, x2, z2, x3, z3, swapped = u, 1, 0, u, 1, 0
    for bit in reversed(range(255)):
        now = k >> bit & 1
        if swapped ^ now:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = now
        a, b = (x2 + z2) % CURVE, (x2 - z2) % CURVE
        c, d = (x3 + z3) % CURVE, (x3 - z3) % CURVE
        da, cb = d * a % CURVE, c * b % CURVE
        x3, z3 = (da + cb) ** 2 % CURVE, x1 * (da - cb) ** 2 % CURVE
        aa, bb = a * a % CURVE, b * b % CURVE
        e = (aa - bb) % CURVE
        x2, z2 = aa * bb % CURVE, e * (aa + 121665 * e) % CURVE
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, CURVE - 2, CURVE) % CURVE).to_bytes(32, "little")


def public(private: bytes) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


def hkdf(key: bytes, salt: bytes, info: str, length: int) -> bytes:
    pseudorandom = hmac.digest(salt, key, "sha256")
    out, block, number = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(pseudorandom, block + info.encode() + bytes([number]), "sha256")
        out, number = out + block, number + 1
    return out[:length]


def chacha20(key: bytes, length: int) -> bytes:
    words = [int.from_bytes(key[at : at + 4], "little") for at in range(0, 32, 4)]
    out = b""
    for counter in range(-(-length // 64)):
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *words, counter, 0, 0, 0]
        x = list(start)
        for _ in range(10):
            for a, b, c, d in (
                (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
            ):  # fmt: skip
                for one, other, into, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    x[one] = (x[one] + x[other]) % 2**32
                    mixed = x[into] ^ x[one]
                    x[into] = (mixed << turn | mixed >> (32 - turn)) % 2**32
        out += b"".join(((i + j) % 2**32).to_bytes(4, "little") for i, j in zip(x, start, strict=True))
    return out[:length]


def pair_seed(shared: bytes, h: bytes, one: int, other: int) -> bytes:
    return hkdf(shared, h, f"pair/{min(one, other)}/{max(one, other)}", 16)


def share(shared: bytes, h: bytes, of: int, holder: int) -> int:
    return int.from_bytes(hkdf(shared, h, f"share/{of}/{holder}", 32), "big") % PRIME


def commitment(own_seed: bytes, h: bytes) -> bytes:
    return blake2b(own_seed, key=h, digest_size=8).digest()


def value_at(values: dict[int, int], x: int) -> int:
    total = 0
    for i, value in values.items():
        for j in values:
            if i != j:
                value = value * (x - j) * pow(i - j, -1, PRIME) % PRIME
        total += value
    return total % PRIME


def points(own_seed: bytes, shares: dict[int, int], count: int) -> list[int]:
    values = {0: int.from_bytes(own_seed, "big"), **shares}
    return [value_at(values, -number) for number in range(1, count + 1)]


def mask(seed: bytes, h: bytes, count: int, bits: int) -> tuple[int, list[int]]:
    size = 1 if bits <= 8 else 2
    stream = chacha20(hkdf(seed, h, "stream", 32), 4 + size * count)
    numbers = [int.from_bytes(stream[at : at + size], "little") % 2**bits for at in range(4, len(stream), size)]
    return int.from_bytes(stream[:4], "little"), numbers


def added(word: int, residues: list[int], masks: list[tuple[int, bytes]], h: bytes, bits: int) -> tuple[int, list[int]]:
    """Add the streams of (sign, seed)."""
    for sign, seed in masks:
        own_word, numbers = mask(seed, h, len(residues), bits)
        word += sign * own_word
        residues = [residue + sign * number for residue, number in zip(residues, numbers, strict=True)]
    return word % 2**32, [residue % 2**bits for residue in residues]


def members_of(members: list[int], bits: bytes) -> list[int]:
    number = int.from_bytes(bits, "little")
    return [member for place, member in enumerate(members) if number >> place & 1]
