"""What a server has of one phone says nothing of its update: statistics, and other updates that explain the same bytes.

The server of these tests follows the protocol, keeps every byte and takes off every mask that it can: the own seeds of
the survivors, which shares give it, and the seeds of pairs with phones that are gone.
"""

import numpy as np
import pytest
from scipy import stats

from featherfed.secure import field
from featherfed.secure.keys import COMMITMENT_BYTES, new_own_seed, pair_seed
from featherfed.secure.member import Member
from featherfed.secure.opening import Upload
from featherfed.secure.streams import Masked, Residues
from tests.secure.rounds import Phones, Server, context_of, key_of, sum_of

CIRCLE = (11, 4, 7, 0, 9)
ALL = frozenset(CIRCLE)


class Curious(Server):
    """A server that takes off what it can."""

    def stripped(self, shard: int) -> Residues:
        """Return what is left of one phone's upload: its update and the masks between survivors."""
        seeds, shares = self.circle.secrets(self.answers)
        upload, context = self.uploads[shard], self.context
        left = Masked(upload.word, upload.residues, bits=context.bits, digest=context.digest)
        told = {context.place(i): field.from_bytes(data) for (i, of), data in shares.items() if of == shard}
        head = upload.head[COMMITMENT_BYTES:]
        points = [field.from_bytes(head[at : at + 16]) for at in range(0, len(head), 16)]
        (own_seed,) = field.secret_of(points, dict(list(told.items())[: context.threshold]))
        left.add_stream(field.to_bytes(own_seed), -1)
        for (holder, gone), seed in seeds.items():
            if holder == shard:
                left.add_stream(seed, -1 if shard < gone else 1)
        return left.residues


def round_of(update: Residues, *, attempt: int, lost: int | None, bits: int) -> Curious:
    phones = Phones(context_of(CIRCLE, bits=bits, attempt=attempt), bits=bits, count=update.size)
    phones.updates[7] = update
    server = Curious(phones)
    for shard in CIRCLE:
        if shard != lost:
            server.arrive(shard)
    if not server.circle.over:
        server.run()
    assert server.opened is not None
    return server


def p_value(residues: Residues, bits: int) -> float:
    counts = np.bincount(residues, minlength=1 << bits)
    return float(stats.chisquare(counts).pvalue)


def constant(value: int, bits: int, count: int) -> Residues:
    return np.full(count, value, "u1" if bits <= 8 else "<u2")


@pytest.mark.parametrize("lost", [None, 4])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_what_is_left_of_an_upload_is_uniform_and_so_are_its_pairs(bits: int, lost: int | None) -> None:
    """χ² over the values and over pairs of neighbouring ones. The masks that are left are those of fixed keys."""
    count = max(40_000, 20 << (2 * bits))
    server = round_of(constant(0, bits, count), attempt=0, lost=lost, bits=bits)
    # The upload itself has a mask of the operating system's: it may be as odd as once in 10⁹ runs.
    for residues, least in ((server.stripped(7), 1e-4), (server.uploads[7].residues, 1e-9)):
        assert p_value(residues, bits) > least
        wide = residues.astype(np.int64)
        pairs = (wide[::2] << bits) + wide[1::2]
        assert stats.chisquare(np.bincount(pairs, minlength=1 << 2 * bits)).pvalue > least


def test_two_extreme_updates_cannot_be_told_apart() -> None:
    """All zeros, and all of the largest value, 200 fresh attempts each: the p-values of χ² are as uniform in both."""
    bits, found = 4, []
    for value in (0, 15):
        update = constant(value, bits, 640)
        rounds = [round_of(update, attempt=1000 * value + number, lost=4, bits=bits) for number in range(200)]
        found.append([p_value(one.stripped(7), bits) for one in rounds])
    for values in found:
        assert stats.kstest(values, "uniform").pvalue > 1e-4
    assert stats.ks_2samp(*found).pvalue > 1e-4
    # The test sees what is not masked: an update whose last mask is off.
    assert p_value(constant(15, bits, 640), bits) < 1e-100


def test_any_other_update_explains_the_same_bytes() -> None:
    """With the mask of one pair moved, another update of one phone gives what the server has, and the same sum."""
    context = context_of(CIRCLE)
    phones = Phones(context)
    uploads = {shard: phones.upload(shard) for shard in CIRCLE}
    modulus, ours, other = 1 << context.bits, phones.updates[7].astype(int), phones.updates[9].astype(int)
    instead = np.random.default_rng(0).integers(0, modulus, ours.size)
    moved = ours - instead
    zero = Masked(0, constant(0, context.bits, ours.size), bits=context.bits, digest=context.digest)
    zero.add_stream(pair_seed(key_of(7).shared(key_of(9).public), context.digest, 7, 9), 1)
    mask = zero.residues.astype(int)
    # 7 adds the mask of the pair and 9 subtracts it.
    rest = (uploads[7].residues - ours - mask) % modulus
    rest_other = (uploads[9].residues - other + mask) % modulus
    assert np.array_equal((instead + rest + mask + moved) % modulus, uploads[7].residues)
    assert np.array_equal((other + moved + rest_other - (mask + moved)) % modulus, uploads[9].residues)
    left = sum_of(update for shard, update in phones.updates.items() if shard not in (7, 9))
    assert ((np.asarray(left) + instead + other + moved) % modulus).tolist() == sum_of(phones.updates.values())


def test_who_dropped_out_stays_under_its_own_mask() -> None:
    """All its pair seeds are told and its upload came too late: what is left is its own stream, which nobody told."""
    bits, update = 4, constant(15, 4, 40_000)
    phones = Phones(context_of(CIRCLE, bits=bits), count=update.size)
    phones.updates[4] = update
    server = Curious(phones)
    for shard in CIRCLE:
        if shard != 4:
            server.arrive(shard)
    server.run()
    late = phones.upload(4)
    seeds, shares = server.circle.secrets(server.answers)
    left = Masked(late.word, late.residues, bits=bits, digest=phones.context.digest)
    for (holder, gone), seed in seeds.items():
        assert gone == 4
        left.add_stream(seed, -1 if gone < holder else 1)
    assert len(seeds) == 4
    assert not any(of == 4 for _, of in shares)
    assert p_value(left.residues, bits) > 1e-9
    own_seed = phones.member(4).told.own_seed
    left.add_stream(own_seed, -1)
    assert np.array_equal(left.residues, update)


def test_an_upload_of_another_attempt_has_other_bytes() -> None:
    context, again = context_of(CIRCLE), context_of(CIRCLE, attempt=1)
    uploads = []
    for one in (context, again):
        member = Member.begin(key_of(7), new_own_seed(), one, 7)
        uploads.append(Upload(*member.mask(1, constant(0, 4, 1000))))
    assert np.mean(uploads[0].residues == uploads[1].residues) < 0.15
