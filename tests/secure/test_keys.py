"""Keys and streams: vectors of the RFCs through our functions, and that every part of a context counts."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from featherfed.errors import SecrecyError
from featherfed.secure import keys
from featherfed.secure.field import PRIME, from_bytes
from featherfed.secure.keys import PhoneKey
from featherfed.secure.streams import Masked, keystream
from tests.secure.rounds import context_of, key_of

BOB = PhoneKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
ALICES = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")


def test_keys_are_those_of_rfc_7748() -> None:
    """Section 6.1: Bob's keys, Alice's public one, and what they share."""
    assert BOB.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert BOB.shared(ALICES).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_derivation_is_that_of_rfc_5869() -> None:
    """Appendix A.3: no salt and no info."""
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert keys.derived(b"\x0b" * 22, b"", "", 42).hex() == okm


def test_streams_are_those_of_rfc_8439() -> None:
    """Appendix A.1, the first two blocks of the key of zeros."""
    assert keystream(bytes(32), 128).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_that_shares_zero_with_everybody_is_refused(public: bytes) -> None:
    with pytest.raises(SecrecyError, match="is none: what is shared with it is zero"):
        BOB.shared(public)


def test_two_phones_derive_the_same() -> None:
    digest = context_of((3, 8, 5)).digest
    there, back = key_of(3).shared(key_of(8).public), key_of(8).shared(key_of(3).public)
    assert keys.pair_seed(there, digest, 3, 8) == keys.pair_seed(back, digest, 8, 3)
    assert keys.share(there, digest, 3, 8) == keys.share(back, digest, 3, 8)
    # Each way there is another share.
    assert keys.share(there, digest, 3, 8) != keys.share(there, digest, 8, 3)


OTHER = {
    "run": "another run", "round_number": 4, "attempt": 1, "circle": 1, "slice_": 1, "slices": 2, "threshold": 1,
    "least": 5, "uplink": "flat | grid(4)", "bits": 5, "steps": b"\x81", "clip": 2.0, "weights": "examples",
    "model": b"12345678", "members": (1, 2, 3, 5, 4), "keys": tuple(key_of(shard).public for shard in (1, 2, 3, 4, 6)),
    "noise": (1.0, 0.1),
}  # fmt: skip


def test_every_part_of_a_context_changes_every_seed() -> None:
    context = context_of((1, 2, 3, 4, 5), threshold=2)
    assert set(OTHER) == set(context.__dataclass_fields__)
    contexts = [context, *(replace(context, **{name: value}) for name, value in OTHER.items())]  # type: ignore[arg-type]
    shared = key_of(1).shared(key_of(2).public)
    for seeds in (
        {keys.pair_seed(shared, context.digest, 1, 2) for context in contexts},
        {keys.share(shared, context.digest, 1, 2) for context in contexts},
        {keys.stream_key(bytes(16), context.digest) for context in contexts},
        {keys.commitment(bytes(16), context.digest) for context in contexts},
    ):
        assert len(seeds) == len(OTHER) + 1


def test_no_two_streams_of_a_run_are_the_same() -> None:
    """Four phones, three rounds with a retry each: all keys of streams, and all shares."""
    shards, seen, count = (1, 2, 3, 4), set(), 0
    for round_number in (1, 2, 3):
        for attempt in (0, 1):
            digest = context_of(shards, round_number=round_number, attempt=attempt).digest
            for one in shards:
                seen.add(keys.stream_key(keys.new_own_seed(), digest))
                count += 1
                for other in shards:
                    if one != other:
                        shared = key_of(one).shared(key_of(other).public)
                        seen.add(keys.share(shared, digest, one, other).to_bytes(16, "big"))
                        count += 1
                    if one < other:
                        seen.add(keys.stream_key(keys.pair_seed(shared, digest, one, other), digest))
                        count += 1
    assert len(seen) == count


def test_an_own_seed_is_a_number_below_the_prime() -> None:
    seeds = {keys.new_own_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(len(seed) == 16 and from_bytes(seed) == int.from_bytes(seed, "big") < PRIME for seed in seeds)


@pytest.mark.parametrize("bits", range(2, 17))
def test_a_stream_that_is_added_and_subtracted_leaves_what_was_there(bits: int) -> None:
    digest, residues = bytes(range(32)), np.arange(1000) % (1 << bits)
    masked = Masked(1, residues.astype("u1" if bits <= 8 else "<u2"), bits=bits, digest=digest)
    masked.add_stream(bytes(16), 1)
    masked.add_stream(bytes(range(16)), -1)
    assert masked.word != 1
    assert masked.residues.max() < 1 << bits
    assert np.mean(masked.residues == residues) < 0.5
    masked.add_stream(bytes(range(16)), 1)
    masked.add_stream(bytes(16), -1)
    assert (masked.word, masked.residues.tolist()) == (1, residues.tolist())


def test_only_what_masks_loads_the_library() -> None:
    """A server and a phone of a run that masks nothing never import `cryptography`."""
    modules = (
        "featherfed.server.serving, featherfed.edge_client.phone, featherfed.secure.circles, featherfed.secure.context,"
        " featherfed.secure.told, featherfed.secure.field, featherfed.server.rounds.circle"
    )
    program = f"import sys, {modules}; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
