"""Keys and draws after docs/CODECS.md, section "Randomness", in whole numbers: nothing of numpy or featherfed."""

import hashlib
from dataclasses import dataclass, field

M32, M64, M128 = 2**32 - 1, 2**64 - 1, 2**128 - 1
STEP = 0x2360ED051FC65DA44385DF649FCCF645


def digest_of(seed: int, round_number: int, client: int, purpose: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{round_number}/{client}/{purpose}".encode("ascii"), digest_size=16).digest()


@dataclass
class PageGenerator:
    """PCG64, seeded by the four words of a digest."""

    state: int
    increment: int
    half: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, digest: bytes) -> "PageGenerator":
        a, b = 0x43B0D7E5, 0x8B51F9DD

        def hashed(x: int) -> int:
            nonlocal a
            x ^= a
            a = a * 0x931E8875 & M32
            x = x * a & M32
            return x ^ x >> 16

        pool = [hashed(int.from_bytes(digest[i : i + 4], "little")) for i in range(0, 16, 4)]
        for i in range(4):
            for j in range(4):
                if i != j:
                    r = (0xCA01F9DD * pool[j] - 0x4973F715 * hashed(pool[i])) & M32
                    pool[j] = r ^ r >> 16
        v = []
        for i in range(8):
            x = pool[i % 4] ^ b
            b = b * 0x58F38DED & M32
            x = x * b & M32
            v.append(x ^ x >> 16)
        increment = 2 * (v[5] << 96 | v[4] << 64 | v[7] << 32 | v[6]) + 1 & M128
        generator = cls(increment + (v[1] << 96 | v[0] << 64 | v[3] << 32 | v[2]) & M128, increment)
        generator.output()
        return generator

    def output(self) -> int:
        self.state = (self.state * STEP + self.increment) & M128
        x, turn = self.state >> 64 ^ self.state & M64, self.state >> 122
        return (x >> turn | x << 64 - turn) & M64

    def word(self) -> int:
        if not self.half:
            both = self.output()
            self.half = [both >> 32]
            return both & M32
        return self.half.pop()

    def bytes(self, count: int) -> bytes:
        return b"".join(self.word().to_bytes(4, "little") for _ in range(-(-count // 4)))[:count]

    def random(self) -> float:
        return (self.output() >> 11) * 2.0**-53

    def signs(self, count: int) -> list[int]:
        drawn = self.bytes(-(-count // 8))
        return [1 - 2 * (drawn[i // 8] >> 7 - i % 8 & 1) for i in range(count)]


def positions(size: int, kept: int, generator: PageGenerator) -> list[int]:
    edges = [j * size // kept for j in range(kept + 1)]
    return [edges[j] + int(generator.random() * (edges[j + 1] - edges[j])) for j in range(kept)]
