"""docs/masked_vectors.json is what the code gives, and what an implementation gives that follows docs/PRIVACY.md."""

import json
from hashlib import blake2b
from typing import Any

import pytest

from tests.docs import masked_vectors, page_masked

DOCUMENT: dict[str, list[dict[str, Any]]] = json.loads(masked_vectors.PAGE.read_text(encoding="utf-8"))
ROUNDS = pytest.mark.parametrize("row", DOCUMENT["rounds"], ids=lambda row: f"{row['bits']} bits")


def test_the_file_is_what_the_code_gives() -> None:
    """A change of it is a change of the protocol; `python -m tests.docs.masked_vectors` writes it anew."""
    assert masked_vectors.written() == masked_vectors.PAGE.read_text(encoding="utf-8")


def test_the_page_s_parts_are_those_of_the_rfcs() -> None:
    """RFC 7748 section 5.2, RFC 5869 A.3, RFC 8439 A.1."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert page_masked.x25519(scalar, point).hex() == shared
    assert page_masked.hkdf(b"\x0b" * 22, b"", "", 8).hex() == "8da4e775a563c18f"
    assert page_masked.chacha20(bytes(32), 8).hex() == "76b8e0ada0f13d90"


@ROUNDS
def test_the_page_masks_as_the_vectors_say(row: dict[str, Any]) -> None:
    h, members, bits = bytes.fromhex(row["H"]), row["members"], row["bits"]
    assert blake2b(bytes.fromhex(row["context"]), digest_size=32).digest() == h
    publics = {phone["shard"]: bytes.fromhex(phone["public"]) for phone in row["phones"]}
    for phone in row["phones"]:
        shard, private = phone["shard"], bytes.fromhex(phone["private"])
        own_seed = bytes.fromhex(phone["own seed"])
        assert page_masked.public(private) == publics[shard]
        assert page_masked.chacha20(page_masked.hkdf(own_seed, h, "stream", 32), 16).hex() == phone["stream"]
        masks, shares = [(1, own_seed)], {}
        for other in members:
            if other == shard:
                continue
            shared = page_masked.x25519(private, publics[other])
            assert shared.hex() == phone["shared"][str(other)]
            seed = page_masked.pair_seed(shared, h, shard, other)
            assert seed.hex() == phone["pair seeds"][str(other)]
            masks.append((1 if shard < other else -1, seed))
            shares[members.index(other) + 1] = page_masked.share(shared, h, shard, other)
            value = shares[members.index(other) + 1].to_bytes(16, "big").hex()
            assert value == phone["shares of its own seed"][str(other)]
        count = len(members) - row["threshold"]
        head = page_masked.commitment(own_seed, h) + b"".join(
            point.to_bytes(16, "big") for point in page_masked.points(own_seed, shares, count)
        )
        assert head.hex() == phone["head"]
        masked = page_masked.added(1, phone["residues"], masks, h, bits)
        assert masked == (phone["masked word"], phone["masked residues"])


@ROUNDS
def test_the_page_answers_and_opens_as_the_vectors_say(row: dict[str, Any]) -> None:
    h, members, bits = bytes.fromhex(row["H"]), row["members"], row["bits"]
    phones = {phone["shard"]: phone for phone in row["phones"]}
    seeds: dict[tuple[int, int], bytes] = {}
    shares: dict[int, dict[int, int]] = {member: {} for member in members}
    alive: list[int] = []
    for list_ in row["lists"]:
        to, alive = list_["to"], page_masked.members_of(members, bytes.fromhex(list_["alive"]))
        answer = b""
        for of in page_masked.members_of(members, bytes.fromhex(list_["asked"])):
            if of in alive:
                assert list_["final"]
                secret = bytes.fromhex(phones[of]["shares of its own seed"][str(to)])
                shares[of][members.index(to) + 1] = int.from_bytes(secret, "big")
            else:
                secret = seeds[to, of] = bytes.fromhex(phones[to]["pair seeds"][str(of)])
            answer += secret
        assert answer.hex() == list_["answer"]
    word = sum(phones[shard]["masked word"] for shard in alive)
    residues = [sum(column) for column in zip(*(phones[shard]["masked residues"] for shard in alive), strict=True)]
    masks = [(-1 if holder < gone else 1, seed) for (holder, gone), seed in seeds.items()]
    for shard in alive:
        head = bytes.fromhex(phones[shard]["head"])
        values = {-number: int.from_bytes(head[16 * number - 8 : 16 * number + 8], "big") for number in (1, 2)}
        values |= dict(list(shares[shard].items())[: row["threshold"]])
        own_seed = page_masked.value_at(values, 0).to_bytes(16, "big")
        assert page_masked.commitment(own_seed, h) == head[:8]
        masks.append((-1, own_seed))
    opened = page_masked.added(word, residues, masks, h, bits)
    assert opened == (row["sum of words"], row["sum of residues"])
    assert opened[0] == len(alive)
    plain = [sum(column) % 2**bits for column in zip(*(phones[shard]["residues"] for shard in alive), strict=True)]
    assert opened[1] == plain
