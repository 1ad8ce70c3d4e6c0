"""A phone's whole numbers under differential privacy: bounded, noised as promised, and of its own randomness alone."""

import random
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from featherfed.codec.pipeline import Pipeline
from featherfed.codec.steps import size_of
from featherfed.codec.summable import Summable
from featherfed.edge_client.phone_state import PendingUpdate, PhoneState
from featherfed.edge_client.private_update import private_residues
from featherfed.edge_client.secrets import Secrets
from featherfed.errors import SecrecyError
from featherfed.privacy.bounded import Bound
from featherfed.privacy.phones_noise import Promise
from featherfed.secure.keys import PhoneKey
from featherfed.secure.streams import expanded
from featherfed.wire.messages import Circle, Welcome
from tests import layouts

UPLINK = "exact(0) | flat | rotate_shared | grid(12)"
LAYOUT = layouts.LAYOUTS["tiny"]
SIZE = LAYOUT.size
BYTE = 130
KEYS = [PhoneKey.new().public for _ in range(4)]
CIRCLE = Circle(1, 0, 0, 0, 1, 3, 5, bytes([BYTE]), [0, 1, 2, 3, 4], b"".join(KEYS))


def welcome(**more: Any) -> Welcome:
    given: dict[str, Any] = {"bounded": True, "noise": 1.5, "colluding": 0.1, "masked": True, **more}
    return layouts.welcome("run", model="tiny", shard=0, shards=5, clip=0.5, uplink=UPLINK, **given)


def summable() -> Summable:
    return Summable(Pipeline.parse(UPLINK), LAYOUT, clip=0.5)


def update(scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(0).normal(0, 1, SIZE) * scale).astype(np.float32)


def centred(residues: np.ndarray) -> np.ndarray:
    return (residues.astype(np.int64) + 2048) % 4096 - 2048


def test_update_without_noise_keeps_the_bound_however_long_it_was() -> None:
    for scale in (1e-6, 1.0, 1e6):
        sent = centred(private_residues(summable(), update(scale), CIRCLE, welcome(noise=0), random.randbytes))
        assert int((sent * sent).sum()) <= Bound(size_of(BYTE), SIZE).squared


def test_noise_is_what_welcome_and_circle_imply() -> None:
    """Within 5 %: of 7,946 draws four standard errors are 6 % of the variance."""
    plain = centred(private_residues(summable(), update(0.0), CIRCLE, welcome(noise=0), random.randbytes))
    assert not plain.any()
    noised = centred(private_residues(summable(), update(0.0), CIRCLE, welcome(), random.Random(1).randbytes))
    sigma = Promise(1.5, 0.1).sigma(Bound(size_of(BYTE), SIZE), 5, 5)
    assert np.std(noised) == pytest.approx(sigma, rel=0.05)
    weaker = centred(
        private_residues(summable(), update(0.0), replace(CIRCLE, least=4), welcome(), random.Random(1).randbytes)
    )
    # With fewer honest survivors each adds more.
    assert np.std(weaker) == pytest.approx(sigma * (5 / 4) ** 0.5, rel=0.05)


def test_nothing_follows_from_the_runs_seed() -> None:
    made = [private_residues(summable(), update(), CIRCLE, welcome(seed=7), random.randbytes) for _ in range(2)]
    assert (made[0] != made[1]).mean() > 0.9


def test_same_secret_bytes_give_the_same_update() -> None:
    made = [private_residues(summable(), update(), CIRCLE, welcome(), expanded(bytes(32))) for _ in range(2)]
    assert (made[0] == made[1]).all()


@pytest.mark.parametrize(
    ("circle", "told", "words"),
    [
        ({"slices": 2}, {}, "2 slices, in a run with differential privacy"),
        ({"least": 4}, {"colluding": 0.9}, "of the 4 survivors of a circle of 5 as many may be colluding"),
        ({}, {"noise": 1e9}, "noise of .* steps is beyond the 1048576"),
    ],
)
def test_circle_whose_noise_would_not_do_is_refused(circle: dict[str, Any], told: dict[str, Any], words: str) -> None:
    with pytest.raises(SecrecyError, match=words):
        private_residues(summable(), update(), replace(CIRCLE, **circle), welcome(**told), random.randbytes)


def pending() -> PendingUpdate:
    return PendingUpdate(1, b"", 1, None, coordinates=update(), uplink=UPLINK, model=bytes(8))


def enclosed(secrets: Secrets, circle: Circle, told: Welcome) -> tuple[bytes, bytes]:
    made, kept = secrets.enclose(pending(), circle, secrets.keys_of(circle, 0), told, LAYOUT)
    return made.payload, kept


def test_killed_before_the_update_was_kept_it_sends_the_same_bytes() -> None:
    state = PhoneState(None)
    state.enter("run", 0)
    first, kept = enclosed(Secrets(state, least_circle=5), CIRCLE, welcome())
    state.put_secrets(kept)
    assert enclosed(Secrets(state, least_circle=5), CIRCLE, welcome())[0] == first


def test_each_attempt_has_noise_of_its_own_which_is_forgotten_with_the_round() -> None:
    """Two sums over the same phones must not share the noise that hides them."""
    state = PhoneState(None)
    state.enter("run", 0)
    seeds = []
    for attempt in range(3):
        secrets = Secrets(state, least_circle=5)
        _, kept = enclosed(secrets, replace(CIRCLE, attempt=attempt), welcome())
        state.put_secrets(kept)
        seeds.append(secrets._kept().noise)
    assert len({*seeds}) == 3 and {len(seed) for seed in seeds} == {32}
    secrets.forget(1)
    assert secrets._kept().noise == b""


def test_run_that_promises_less_than_before_is_refused() -> None:
    state = PhoneState(None)
    state.enter("run", 0)
    secrets = Secrets(state, least_circle=5)
    secrets.hold_to(welcome())
    secrets.hold_to(welcome())
    for less in ({"noise": 1.4}, {"noise": 0}, {"colluding": 0.0}):
        with pytest.raises(SecrecyError, match=r"run run promised noise of 1\.5 in each sum though 0.1 of a circle"):
            Secrets(state, least_circle=5).hold_to(welcome(**less))


def test_run_that_promises_more_than_before_is_held_to_that() -> None:
    """As one does whose --rounds were raised under the same --target-epsilon."""
    state = PhoneState(None)
    state.enter("run", 0)
    Secrets(state, least_circle=5).hold_to(welcome())
    Secrets(state, least_circle=5).hold_to(welcome(noise=2.0, colluding=0.2))
    with pytest.raises(SecrecyError, match=r"promised noise of 2 in each sum though 0\.2 of a circle collude"):
        Secrets(state, least_circle=5).hold_to(welcome(colluding=0.2))


def test_phones_that_were_promised_other_noise_have_other_masks() -> None:
    state = PhoneState(None)
    state.enter("run", 0)
    secrets = Secrets(state, least_circle=5)
    keys = secrets.keys_of(CIRCLE, 0)
    promises = (welcome(), welcome(noise=1.4), welcome(colluding=0.2), welcome(noise=0))
    contexts = {secrets.enclose(pending(), CIRCLE, keys, told, LAYOUT)[0].context for told in promises}
    assert len(contexts) == 4
