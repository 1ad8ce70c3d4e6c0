"""A phone's part in circles: its update for an attempt, masked where that is asked, and its answers to lists.

All that must outlive the phone is in `PhoneState.secrets`, and durable before anything that came of it leaves: the key
of the run, the keys of others that it has seen there, and what it has told in its last attempt (`featherfed.secure`).
"""

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgpack

from featherfed.codec.layout import Layout
from featherfed.codec.residues import Residues
from featherfed.codec.space import F32
from featherfed.codec.summable import Summable
from featherfed.edge_client.download import buildable
from featherfed.edge_client.phone_state import PendingUpdate, PhoneState
from featherfed.edge_client.private_update import private_residues
from featherfed.errors import LocalError, ProtocolError, SecrecyError
from featherfed.privacy.discrete_gaussian import Source
from featherfed.randomness import RoundKey
from featherfed.secure.context import KEY_BYTES, Context
from featherfed.secure.told import Told, from_bits, pinned
from featherfed.wire.closing import readable
from featherfed.wire.messages import Circle, Survivors, Welcome

if TYPE_CHECKING:
    from featherfed.secure.keys import PhoneKey
    from featherfed.secure.member import Member

WORD = 1
"""What each update counts for in the sum of words."""
WORD_BYTES = 4
SEED_BYTES = 32


@dataclass(slots=True)
class _Kept:
    """What a phone keeps of a run: its own key, those of others by shard, what it has told last, and its noise.

    `promised` is what the run has promised of the noise of its phones, and `noise` the seed of this phone's own in its
    last attempt: fresh in each, told to nobody, and forgotten with the attempt's other secrets.
    """

    private: bytes
    pins: dict[int, bytes]
    told: Told | None
    promised: tuple[float, float] | None = None
    noise: bytes = b""

    def to_bytes(self) -> bytes:
        told = None if self.told is None else self.told.to_bytes()
        packed: bytes = msgpack.packb([self.private, list(self.pins.items()), told, self.promised, self.noise])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "_Kept":
        private, pins, told, promised, noise = msgpack.unpackb(data)
        return cls(
            private,
            {shard: key for shard, key in pins},
            None if told is None else Told.from_bytes(told),
            None if promised is None else (promised[0], promised[1]),
            noise,
        )


class Secrets:
    """One connection's view of them: which keys the server has told is counted anew for each."""

    def __init__(self, phone_state: PhoneState, *, least_circle: int) -> None:
        self._phone_state = phone_state
        self._least_circle = least_circle
        self._keys: dict[int, bytes] = {}
        self._made: tuple[bytes, PhoneKey] | None = None

    def public(self) -> bytes:
        """Return this phone's public key in its run, which is made and kept when it is asked for first."""
        return self._key().public

    def hold_to(self, welcome: Welcome) -> None:
        """Keep what the run promises of its phones' noise; raises `SecrecyError` where it has promised more before.

        More than before is no harm: a run that goes on for more rounds under the same ε has more noise in each.
        """
        kept, told = self._kept(), (float(welcome.noise), float(welcome.colluding))
        before = kept.promised or (0.0, 0.0)
        if told[0] >= before[0] and told[1] >= before[1]:
            if welcome.noise and told != kept.promised:
                self._phone_state.put_secrets(replace(kept, promised=told).to_bytes())
        elif kept.promised is not None:
            raise SecrecyError(
                f"run {readable(welcome.run)} promised noise of {kept.promised[0]:g} in each sum though"
                f" {kept.promised[1]:g} of a circle collude, and says now {told[0]:g} and {told[1]:g}"
            )

    def keys_of(self, circle: Circle, shard: int) -> tuple[bytes, ...]:
        """Return the public keys of a circle's members, in their order; raises `ProtocolError` for too few of them."""
        if not (circle.threshold or circle.members):
            return ()
        new = [each for each in circle.members if each not in self._keys and each != shard]
        if len(circle.keys) != KEY_BYTES * len(new):
            raise ProtocolError(f"a circle with {len(circle.keys)} bytes of keys, for {len(new)} members that are new")
        for place, member in enumerate(new):
            self._keys[member] = circle.keys[place * KEY_BYTES : (place + 1) * KEY_BYTES]
        return tuple(self.public() if each == shard else self._keys[each] for each in circle.members)

    def enclose(
        self, update: PendingUpdate, circle: Circle, keys: tuple[bytes, ...], welcome: Welcome, layout: Layout
    ) -> tuple[PendingUpdate, bytes]:
        """Return an update as this circle's attempt sums it, and what must be kept before any of it leaves; blocks.

        Nothing is changed: what is kept meanwhile is seen by who asks. Raises `SecrecyError` for a circle that this
        phone must not be in.
        """
        assert update.coordinates is not None, "what is summed is made of coordinates"
        uplink = buildable(update.uplink, "uplink")
        summable = Summable(uplink, layout, clip=welcome.clip)
        head, word, context, secrets, source = b"", WORD, b"", self._phone_state.secrets, os.urandom
        member: Member | None = None
        if welcome.masked or circle.threshold:
            # Whatever the circle says: in a masked run one without masks is refused.
            its = _context(circle, keys, welcome, str(uplink), summable.bits, update.model)
            member, kept = self._begin(its, welcome.shard)
            source, context = _expanded(kept.noise), its.to_bytes()
        residues, residual = self._residues(summable, update.coordinates, circle, welcome, source)
        if member is not None:
            head, word, residues = member.mask(word, residues)
            secrets = replace(kept, told=member.told).to_bytes()
        payload = head + word.to_bytes(WORD_BYTES, "little") + summable.pack(residues)
        made_up = replace(update, payload=payload, residual=residual, attempt=circle.attempt, context=context)
        return made_up, secrets

    def _residues(
        self, summable: Summable, coordinates: F32, circle: Circle, welcome: Welcome, source: Source
    ) -> tuple[Residues, F32 | None]:
        """Return what is summed of an update, and what it leaves for the next one."""
        if welcome.bounded or welcome.noise:
            return private_residues(summable, coordinates, circle, welcome, source), None
        key = RoundKey(welcome.seed, circle.round, welcome.shard)
        made = summable.encode(
            coordinates, key, steps=circle.steps, slice_=circle.slice, slices=circle.slices,
            state=self._phone_state.residual,
        )  # fmt: skip
        return made.residues, made.residual

    def answer(self, update: PendingUpdate, survivors: Survivors, shard: int) -> tuple[bytes, bytes]:
        """Return what this phone tells of its neighbours, and what must be kept before that leaves; blocks.

        Nothing is changed. Raises `SecrecyError` for a list that it must not answer.
        """
        from featherfed.secure.member import Member

        kept = self._kept()
        if not update.context or kept.told is None:
            raise SecrecyError(
                f"a list of attempt {survivors.attempt} of round {survivors.round} came before the upload"
            )
        context = Context.from_bytes(update.context)
        member = Member(self._key(), context, shard, kept.told)
        alive, asked = from_bits(context.members, survivors.alive), from_bits(context.members, survivors.asked)
        answer = member.answer(survivors.version, survivors.final, alive, asked)
        return answer, replace(kept, told=member.told).to_bytes()

    def end(self) -> None:
        """Forget the keys: the run is over."""
        if self._phone_state.secrets:
            self._phone_state.drop_secrets()

    def forget(self, round_number: int) -> None:
        """Forget the own seed of a round that is over for this phone."""
        if not self._phone_state.secrets:
            return
        told = self._kept().told
        if told is not None and told.round_number == round_number and told.own_seed:
            kept = replace(self._kept(), told=told.forgotten(), noise=b"")
            self._phone_state.put_secrets(kept.to_bytes())

    def _begin(self, context: Context, shard: int) -> tuple["Member", _Kept]:
        from featherfed.secure.keys import new_own_seed
        from featherfed.secure.member import Member

        kept = self._kept()
        if kept.told is not None and kept.told.digest == context.digest and kept.told.own_seed:
            # Killed between the seed and the update that it masks.
            return Member(self._key(), context, shard, kept.told), kept
        pins = pinned(kept.pins, context.members, context.keys)
        member = Member.begin(
            self._key(), new_own_seed(), context, shard, before=kept.told, least_circle=self._least_circle
        )
        return member, replace(kept, pins=pins, noise=os.urandom(SEED_BYTES))

    def _kept(self) -> _Kept:
        if not self._phone_state.secrets:
            from featherfed.secure.keys import PhoneKey

            self._phone_state.put_secrets(_Kept(PhoneKey.new().private, {}, None).to_bytes())
        try:
            return _Kept.from_bytes(self._phone_state.secrets)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LocalError(f"cannot read this phone's secrets: {error}; remove them to begin anew") from error

    def _key(self) -> "PhoneKey":
        private = self._kept().private
        if self._made is None or self._made[0] != private:
            from featherfed.secure.keys import PhoneKey

            self._made = private, PhoneKey(private)
        return self._made[1]


def _expanded(seed: bytes) -> Source:
    from featherfed.secure.streams import expanded

    return expanded(seed)


def _context(
    circle: Circle, keys: tuple[bytes, ...], welcome: Welcome, uplink: str, bits: int, model: bytes
) -> Context:
    return Context(
        run=welcome.run, round_number=circle.round, attempt=circle.attempt, circle=circle.circle,
        slice_=circle.slice, slices=circle.slices, threshold=circle.threshold, least=circle.least, uplink=uplink,
        bits=bits, steps=circle.steps, clip=float(welcome.clip), model=model, members=tuple(circle.members), keys=keys,
        noise=(float(welcome.noise), float(welcome.colluding)) if welcome.noise else None,
    )  # fmt: skip
