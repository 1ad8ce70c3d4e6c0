"""Write docs/masked_vectors.json anew: `python -m tests.docs.masked_vectors`. A test never creates what it checks."""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from featherfed.secure import field, keys
from featherfed.secure.context import Context
from featherfed.secure.keys import PhoneKey
from featherfed.secure.member import Member
from featherfed.secure.opening import Upload, open_circle
from featherfed.secure.streams import dtype_of, keystream
from featherfed.secure.told import to_bits
from featherfed.server.rounds.circle import Answered, Arrived, Circle, Opened, SendList, UploadsOver
from featherfed.server.rounds.circle_machine import advance

PAGE = Path(__file__).parents[2] / "docs" / "masked_vectors.json"
CIRCLE = (11, 4, 7, 0, 9)
LOST = 0


def fixed(name: str, length: int) -> bytes:
    """Return bytes that stand for what an operating system would draw."""
    return blake2b(name.encode(), digest_size=length).digest()


def context_of(phones: dict[int, PhoneKey], bits: int) -> Context:
    return Context(
        run="20260101-000000-example", round_number=3, attempt=1, circle=0, slice_=1, slices=4, threshold=3, least=4,
        uplink=f"exact(0) | flat | rotate_shared | grid({bits})", bits=bits, steps=bytes([117, 120]), clip=1.5,
        model=bytes.fromhex("0123456789abcdef"), members=CIRCLE, keys=tuple(phones[shard].public for shard in CIRCLE),
    )  # fmt: skip


def round_of(bits: int) -> dict[str, Any]:
    """Return one round of five phones of which one never comes, with every number that is derived."""
    phones = {shard: PhoneKey(fixed(f"private key of {shard}", 32)) for shard in CIRCLE}
    context = context_of(phones, bits)
    digest = context.digest
    updates = {
        shard: (np.frombuffer(fixed(f"update of {shard}", 24), "<u2") % (1 << bits)).astype(dtype_of(bits))
        for shard in CIRCLE
    }
    members, uploads, rows = {}, {}, []
    for shard in CIRCLE:
        own_seed = field.to_bytes(int.from_bytes(fixed(f"own seed of {shard}", 16), "big") % field.PRIME)
        members[shard] = Member.begin(phones[shard], own_seed, context, shard)
        uploads[shard] = Upload(*members[shard].mask(1, updates[shard]))
        shared = {other: phones[shard].shared(phones[other].public) for other in CIRCLE if other != shard}
        rows.append(
            {
                "shard": shard, "private": phones[shard].private.hex(), "public": phones[shard].public.hex(),
                "own seed": own_seed.hex(),
                "stream": keystream(keys.stream_key(own_seed, digest), 16).hex(),
                "shared": {str(other): p.hex() for other, p in shared.items()},
                "pair seeds": {str(o): keys.pair_seed(p, digest, shard, o).hex() for o, p in shared.items()},
                "shares of its own seed": {
                    str(o): field.to_bytes(keys.share(p, digest, shard, o)).hex() for o, p in shared.items()
                },
                "residues": updates[shard].tolist(), "head": uploads[shard].head.hex(),
                "masked word": uploads[shard].word, "masked residues": uploads[shard].residues.tolist(),
            }
        )  # fmt: skip
    circle = Circle(members=CIRCLE, threshold=context.threshold, least=context.least)
    events: list[Any] = [*(Arrived(shard) for shard in CIRCLE if shard != LOST), UploadsOver()]
    answers: dict[tuple[int, int], bytes] = {}
    lists = []
    opened = None
    while events:
        circle, actions = advance(circle, events.pop(0))
        for action in actions:
            if not isinstance(action, SendList):
                opened = open_circle(context, uploads, action.survivors, *circle.secrets(answers))
                events.append(Opened(opened.liars))
                continue
            sent = action.list_
            for shard in action.to:
                asked = sent.asked_of(shard)
                answers[shard, sent.version] = members[shard].answer(sent.version, sent.final, sent.alive, asked)
                lists.append(
                    {
                        "to": shard, "version": sent.version, "final": sent.final,
                        "alive": to_bits(CIRCLE, sent.alive).hex(), "asked": to_bits(CIRCLE, asked).hex(),
                        "answer": answers[shard, sent.version].hex(),
                    }
                )  # fmt: skip
                events.append(Answered(shard, sent.version))
    assert opened is not None
    return {
        "bits": bits, "context": context.to_bytes().hex(), "H": digest.hex(), "threshold": context.threshold,
        "members": list(CIRCLE), "phones": rows, "lists": lists, "sum of words": opened.word,
        "sum of residues": opened.residues.tolist(),
    }  # fmt: skip


def written() -> str:
    """Return the text of the file."""
    return json.dumps({"rounds": [round_of(4), round_of(10)]}, indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
