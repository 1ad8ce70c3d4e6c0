"""The server's part: sums of any cohort and width, and what false shares, heads and seeds do."""

from dataclasses import replace

import pytest

from featherfed.errors import OpeningError
from featherfed.secure import field, keys, opening
from featherfed.secure.opening import Opened, Upload, open_circle
from featherfed.server.rounds import circle as machine
from featherfed.server.rounds.circle import CirclePhase, SentList
from tests.secure.rounds import Phones, Server, context_of, key_of, sum_of, update_of


class Liars(Phones):
    """Phones of which some tell shares that are none."""

    liars: frozenset[int] = frozenset()

    def answer(self, shard: int, list_: SentList) -> bytes:
        data = super().answer(shard, list_)
        return bytes(255 - byte for byte in data) if shard in self.liars else data


def ran(server: Server) -> Server:
    for shard in server.context.members:
        server.arrive(shard)
    if not server.circle.over:
        server.run()
    return server


@pytest.mark.parametrize("members", [3, 4, 5, 6, 7, 10, 20, 32, 40, 128])
def test_a_masked_sum_is_the_sum(members: int) -> None:
    bits = 2 + members % 15
    phones = Phones(context_of(range(members), bits=bits), bits=bits, count=301)
    server = Server(phones)
    lost = set(range(0, 2 * (members - phones.context.least), 2))
    for shard in range(members):
        if shard not in lost:
            server.arrive(shard)
    if lost:
        server.run()
    assert server.opened is not None
    assert server.opened.word == members - len(lost)
    left = [update for shard, update in phones.updates.items() if shard not in lost]
    assert server.opened.residues.tolist() == sum_of(left, bits=bits)
    assert server.opened.residues.dtype == phones.updates[0].dtype
    assert not server.expiries


def test_what_is_not_masked_is_summed_by_the_same_call() -> None:
    context = context_of((1, 2), threshold=0, least=1, keys=())
    uploads = {shard: Upload(b"", 1, update_of(shard)) for shard in (1, 2)}
    opened = open_circle(context, uploads, frozenset({1, 2}), {}, {})
    assert opened.residues.tolist() == sum_of(update_of(shard) for shard in (1, 2))
    assert not context.head_bytes


@pytest.mark.parametrize("liars", [{3}, {3, 8}, {0, 9}])
def test_liars_are_named_and_the_sum_is_right(liars: set[int]) -> None:
    phones = Liars(context_of(range(10)))
    phones.liars = frozenset(liars)
    server = ran(Server(phones))
    assert server.circle.phase is CirclePhase.SUMMED
    assert server.opened is not None
    assert server.opened.residues.tolist() == sum_of(phones.updates.values())
    assert server.circle.at_fault == liars


def framing(*framed: int) -> type[Phones]:
    """Return phones of which 4 publishes points that make the shares that some tell of its seed look wrong."""

    class Framer(Phones):
        def upload(self, shard: int) -> Upload:
            upload = super().upload(shard)
            if shard != 4:
                return upload
            context, key, digest = self.context, key_of(4), self.context.digest
            shares = {
                context.place(other): keys.share(key.shared(context.key(other)), digest, 4, other)
                for other in context.members if other != 4
            }  # fmt: skip
            for other in framed:
                shares[context.place(other)] += 1
            own_seed = self.member(4).told.own_seed
            points = field.points_of(field.from_bytes(own_seed), shares, context.points)
            return replace(upload, head=upload.head[:8] + b"".join(map(field.to_bytes, points)))

    return Framer


def test_one_phone_cannot_have_another_named() -> None:
    """The points of 4 fit all shares but one, which its holder told as it should: who lied of the two is not known."""
    server = ran(Server(framing(5)(context_of(range(10)))))
    assert server.circle.phase is CirclePhase.SUMMED
    assert server.opened is not None
    assert server.opened.residues.tolist() == sum_of(server.phones.updates.values())
    assert not server.circle.at_fault


def test_points_that_contradict_two_phones_name_their_own() -> None:
    phones = framing(5, 6)(context_of(range(10)))
    uploads = {shard: phones.upload(shard) for shard in range(10)}
    everybody = frozenset(range(10))
    shares = {}
    for shard in everybody:
        data = phones.member(shard).answer(1, True, everybody, everybody - {shard})
        others = [other for other in range(10) if other != shard]
        shares |= {(shard, other): data[16 * place : 16 * place + 16] for place, other in enumerate(others)}
    opened = open_circle(phones.context, uploads, everybody, {}, shares)
    assert opened.liars == {4}


def test_too_many_liars_end_the_circle() -> None:
    phones = Liars(context_of(range(10)))
    phones.liars = frozenset({1, 3, 5, 7, 9})
    server = ran(Server(phones))
    assert server.circle.phase is CirclePhase.FAILED
    assert server.opened is None
    assert server.circle.spent == set(range(10))


@pytest.mark.parametrize("byte", [0, 9])
def test_a_phone_whose_head_gives_no_seed_is_named(byte: int) -> None:
    """Its commitment, or its first point."""

    class Forger(Phones):
        def upload(self, shard: int) -> Upload:
            upload = super().upload(shard)
            head = bytearray(upload.head)
            head[byte] ^= 1
            return replace(upload, head=bytes(head)) if shard == 4 else upload

    server = ran(Server(Forger(context_of(range(10)))))
    assert server.circle.phase is CirclePhase.FAILED
    assert server.circle.at_fault == {4}


def test_a_false_pair_seed_spoils_the_sum_and_names_nobody() -> None:
    class Liar(Phones):
        def answer(self, shard: int, list_: SentList) -> bytes:
            data = super().answer(shard, list_)
            return bytes(16) if shard == 4 and not list_.final else data

    phones = Liar(context_of(range(5)))
    server = Server(phones)
    for shard in range(1, 5):
        server.arrive(shard)
    server.run()
    assert server.circle.phase is CirclePhase.FAILED
    assert not server.circle.at_fault


def test_another_model_on_one_phone_fails_its_circle() -> None:
    phones, stranger = Phones(context_of(range(5))), Phones(context_of(range(5), model=b"another!"))
    server = Server(phones)
    for shard in range(4):
        server.arrive(shard)
    server.uploads[4] = stranger.upload(4)
    phones.disk[4] = replace(phones.member(4).told, upload=b"sent").to_bytes()
    server.post(machine.Arrived(4))
    if not server.circle.over:
        server.run()
    assert server.circle.phase is CirclePhase.FAILED
    assert server.opened is None


def test_what_does_not_open_says_so_in_a_sentence() -> None:
    assert str(OpeningError()) == (
        "the masks of the circle do not cancel: seeds, shares or models differ, and nothing says whose"
    )
    assert str(OpeningError(frozenset({4}), frozenset({2, 1}))) == (
        "the shares of the own seeds of 1 shards (4) miss their commitments; wrong parts came from 1, 2"
    )


def test_a_search_among_shares_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no choice of shares fits, so many are tried and no more."""
    tried = []
    secret_of = field.secret_of
    monkeypatch.setattr(field, "secret_of", lambda *given: tried.append(0) or secret_of(*given))
    phones = Liars(context_of(range(32)))
    server = Server(phones)
    for shard in range(31):
        server.arrive(shard)
    server.uploads[31] = phones.upload(31)
    shares = {(holder, 31): bytes([holder]) * 16 for holder in range(31)}
    heads = {31: server.uploads[31].head}
    with pytest.raises(OpeningError):
        opening._own_seeds(phones.context, heads, shares)
    assert len(tried) == opening.MOST_TRIES


def test_an_opened_circle_is_plain_numbers() -> None:
    server = ran(Server(Phones(context_of(range(5)))))
    assert isinstance(server.opened, Opened)
    assert not server.opened.liars
