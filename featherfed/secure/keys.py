"""All keys of masked rounds: one X25519 key a phone and run, and what two phones derive from theirs.

P = X25519 of two phones' keys is the same on both ends. From it and the digest H of the attempt, by HKDF-SHA256
(RFC 5869; ikm P, salt H):

    pair seed of i < j     info "pair/i/j"     16 bytes
    share of j's at l      info "share/j/l"    32 bytes, the highest first, modulo the prime

A phone's own seed is drawn by the operating system for each attempt. The key of a seed's stream is HKDF-SHA256 (ikm
the seed, salt H, info "stream"), 32 bytes; the commitment to an own seed BLAKE2b of 8 bytes of it under the key H.
"""

import secrets
from hashlib import blake2b

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from featherfed.errors import SecrecyError
from featherfed.secure.field import PRIME, to_bytes

SEED_BYTES = 16
COMMITMENT_BYTES = 8


class PhoneKey:
    """A phone's X25519 key, for one run. What it has in common with others is computed once each."""

    def __init__(self, private: bytes) -> None:
        self.private = private
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()
        self._shared: dict[bytes, bytes] = {}

    @classmethod
    def new(cls) -> "PhoneKey":
        """Return a fresh key, from the operating system."""
        return cls(secrets.token_bytes(32))

    def shared(self, public: bytes) -> bytes:
        """Return P, 32 bytes; raises `SecrecyError` for a public key that has nothing in common with any."""
        found = self._shared.get(public)
        if found is None:
            try:
                found = self._key.exchange(X25519PublicKey.from_public_bytes(public))
            except ValueError:
                raise SecrecyError(f"the public key {public.hex()} is none: what is shared with it is zero") from None
            self._shared[public] = found
        return found


def derived(key: bytes, digest: bytes, info: str, length: int) -> bytes:
    """Return HKDF-SHA256 of `key` with the digest of the attempt as salt."""
    return HKDF(algorithm=SHA256(), length=length, salt=digest, info=info.encode()).derive(key)


def pair_seed(shared: bytes, digest: bytes, one: int, other: int) -> bytes:
    """Return the seed of the mask that two shards add and subtract, 16 bytes."""
    return derived(shared, digest, f"pair/{min(one, other)}/{max(one, other)}", SEED_BYTES)


def share(shared: bytes, digest: bytes, of: int, holder: int) -> int:
    """Return the value at `holder` of the polynomial of `of`, which both can derive: nobody has to send it."""
    return int.from_bytes(derived(shared, digest, f"share/{of}/{holder}", 32), "big") % PRIME


def stream_key(seed: bytes, digest: bytes) -> bytes:
    """Return the ChaCha20 key of a seed in this attempt, 32 bytes."""
    return derived(seed, digest, "stream", 32)


def new_own_seed() -> bytes:
    """Return an own seed, 16 bytes that are below the prime: fresh for each attempt, durable before it is used."""
    return to_bytes(secrets.randbelow(PRIME))


def commitment(own_seed: bytes, digest: bytes) -> bytes:
    """Return what an upload says of its own seed, so that a wrong share is found."""
    return blake2b(own_seed, key=digest, digest_size=COMMITMENT_BYTES).digest()
