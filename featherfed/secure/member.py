"""A phone's part of one attempt: it masks its update, and tells of its neighbours what a list of survivors needs.

Pure: what must be durable is `Member.told`, which the caller writes to its disk after `begin`, after `mask` and after
each `answer`, each time before the first byte of what came of it leaves the phone.
"""

from collections.abc import Collection
from dataclasses import replace
from hashlib import blake2b

from featherfed.errors import SecrecyError
from featherfed.secure import circles, field, keys
from featherfed.secure.context import Context
from featherfed.secure.keys import PhoneKey
from featherfed.secure.streams import Masked, Residues
from featherfed.secure.told import Survivors, Told


class Member:
    """One phone in one attempt of one round. `told` is its state: all else follows from the key and the context."""

    def __init__(self, key: PhoneKey, context: Context, shard: int, told: Told) -> None:
        if told.digest != context.digest:
            raise SecrecyError(
                f"attempt {context.attempt} of round {context.round_number} came to shard {shard} with another model,"
                " members or settings than before"
            )
        self._key, self._context, self._shard = key, context, shard
        self.told = told

    @classmethod
    def begin(
        cls,
        key: PhoneKey,
        own_seed: bytes,
        context: Context,
        shard: int,
        *,
        before: Told | None = None,
        least_circle: int = circles.DEFAULT_LEAST_CIRCLE,
    ) -> "Member":
        """Return the part of shard `shard`, which has a fresh own seed (`keys.new_own_seed`).

        `before` is the last that this phone has told in this run. Raises `SecrecyError` for an attempt that it must not
        take part in.
        """
        context.check(shard, key.public, least_circle)
        if before is not None:
            before.check_next(context.position)
        told = Told(
            round_number=context.round_number, attempt=context.attempt, digest=context.digest, own_seed=own_seed
        )
        return cls(key, context, shard, told)

    def mask(self, word: int, residues: Residues) -> tuple[bytes, int, Residues]:
        """Return the upload: commitment and points, the masked word, the masked residues (their shape and dtype).

        The same update gives the same bytes, so that an upload can be resumed. Raises `SecrecyError` for another update
        than before: the difference of two under one mask would be no secret.
        """
        context = self._context
        own_seed, digest = self.told.own_seed, context.digest
        masked = Masked(word, residues, bits=context.bits, digest=digest)
        masked.add_stream(own_seed, 1)
        shares = {}
        for other in self._neighbours():
            masked.add_stream(self._pair_seed(other), 1 if self._shard < other else -1)
            shares[context.place(other)] = keys.share(self._shared(other), digest, self._shard, other)
        points = field.points_of(field.from_bytes(own_seed), shares, context.points)
        head = keys.commitment(own_seed, digest) + b"".join(map(field.to_bytes, points))
        hidden = masked.residues
        upload = blake2b(head + masked.word.to_bytes(4, "little") + hidden.tobytes(), digest_size=16).digest()
        if self.told.upload not in (b"", upload):
            raise SecrecyError(
                f"shard {self._shard} has masked an update for attempt {context.attempt} of round"
                f" {context.round_number}, and this is another"
            )
        self.told = replace(self.told, upload=upload)
        return head, masked.word, hidden

    def answer(self, version: int, final: bool, alive: Collection[int], asked: Collection[int]) -> bytes:
        """Return the secrets of `asked`, 16 bytes each in the order of the members.

        Of who is gone it is the pair seed, of a survivor the share of its own seed. Raises `SecrecyError` for a list
        that this phone must not answer, and tells nothing then.
        """
        heard = Survivors(version, final, frozenset(alive), frozenset(asked))
        context = self._context
        self.told = self.told.hear(heard, shard=self._shard, members=context.members, least=context.least)
        return b"".join(
            self._share_of(other) if other in heard.alive else self._pair_seed(other)
            for other in context.members
            if other in heard.asked
        )

    def _neighbours(self) -> list[int]:
        return [other for other in self._context.members if other != self._shard]

    def _shared(self, other: int) -> bytes:
        return self._key.shared(self._context.key(other))

    def _pair_seed(self, other: int) -> bytes:
        return keys.pair_seed(self._shared(other), self._context.digest, self._shard, other)

    def _share_of(self, other: int) -> bytes:
        return field.to_bytes(keys.share(self._shared(other), self._context.digest, other, self._shard))
