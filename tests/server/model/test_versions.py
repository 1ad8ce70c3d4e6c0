"""What phones decode is what the server believes that they hold, whichever way they took, in every kind of downlink."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherfed.codec import lattice
from featherfed.codec.downlink import NOTHING, Held, Step
from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.layout import Layout, Tensor
from featherfed.errors import ConfigError, LocalError
from featherfed.server.model.version_kinds import versions_of
from featherfed.server.model.versions import Parcel, Versions

LAYOUT = Layout((Tensor("a.weight", (30, 20)), Tensor("a.bias", (30,)), Tensor("still", (7,)), Tensor("none", (0, 3))))
SEED = 7
FROM_INITIAL = ("lattice(1)", "lattice(1/8)", "fresh | rotate | eden(4)", "fresh | float32")
KINDS = ("float32", "float16", "rotate | eden(4)", "rotate | eden(1)", *FROM_INITIAL)


def steps(count: int) -> list[np.ndarray]:
    """Return a model and what each of some small steps makes of it; one tensor does not move."""
    generator = np.random.default_rng(0)
    models = [generator.standard_normal(LAYOUT.size).astype(np.float32)]
    for _ in range(1, count):
        step = generator.normal(0, 0.01, LAYOUT.size).astype(np.float32)
        step[630:] = 0
        models.append(models[-1] + step)
    return models


def walk(spec: str, count: int) -> tuple[Versions, list[np.ndarray]]:
    """Return versions after steps of a model, and the view of each version."""
    versions, views = versions_of(spec, LAYOUT, SEED), []
    for weights in steps(count):
        versions.publish(weights)
        views.append(versions.view.copy())
    return versions, views


def unpacked(parcel: Parcel, held: Held) -> Held:
    """Return what a phone holds after a parcel."""
    downlink = parse_downlink(parcel.spec)
    step = Step(parcel.base, parcel.version, parcel.lengths)
    downlink.check(step, LAYOUT)
    ends = accumulate(parcel.lengths)
    parts = [parcel.payload[end - length : end] for end, length in zip(ends, parcel.lengths, strict=True)]
    return downlink.apply(step, parts, held, LAYOUT, SEED)


def holding(views: list[np.ndarray], version: int) -> Held:
    return Held(version, views[version], views[0]) if 0 <= version < len(views) else Held()


@pytest.mark.parametrize("spec", KINDS)
@settings(max_examples=15, deadline=None)
@given(held=st.integers(-1, 9), count=st.integers(1, 9))
def test_every_phone_ends_with_the_bits_of_the_server_s_view(spec: str, held: int, count: int) -> None:
    versions, views = walk(spec, count)
    if held == count - 1:
        return
    parcel = versions.parcel(held)
    assert parcel.version == count - 1
    assert sum(parcel.lengths) == len(parcel.payload)
    phone = unpacked(parcel, holding(views, held))
    assert phone.version == count - 1
    assert phone.weights is not None and phone.weights.tobytes() == versions.view.tobytes()
    if spec in FROM_INITIAL:
        assert phone.initial is not None and phone.initial.tobytes() == views[0].tobytes()


@pytest.mark.parametrize("spec", FROM_INITIAL)
def test_phone_holds_the_same_bits_whatever_it_missed(spec: str) -> None:
    """A phone that comes in every round and one that comes twice have the model of one that comes last."""
    versions, views = versions_of(spec, LAYOUT, SEED), []
    often, rarely = Held(), Held()
    for number, weights in enumerate(steps(12)):
        versions.publish(weights)
        views.append(versions.view)
        often = unpacked(versions.parcel(often.version), often)
        if number in (3, 11):
            rarely = unpacked(versions.parcel(rarely.version), rarely)
    late = unpacked(versions.parcel(NOTHING), Held())
    for phone in (often, rarely, late):
        assert phone.weights is not None and phone.weights.tobytes() == versions.view.tobytes()


def test_phone_that_is_one_behind_gets_one_difference() -> None:
    versions, _ = walk("rotate | eden(4)", 6)
    parcel = versions.parcel(4)
    assert (parcel.base, parcel.spec, len(parcel.lengths)) == (4, "rotate | eden(4)", 1)
    assert len(parcel.payload) < 4 * LAYOUT.size / 5


@pytest.mark.parametrize("held", [0, 1, 20, 38])
def test_phone_that_missed_rounds_gets_one_difference_on_the_lattice_and_less_than_the_chain(held: int) -> None:
    lattice, chain = walk("lattice(1)", 40)[0].parcel(held), walk("rotate | eden(4)", 40)[0].parcel(held)
    assert (lattice.base, len(lattice.lengths)) == (held, 1)
    assert len(lattice.payload) < len(chain.payload)


@pytest.mark.parametrize("held", [0, 1, 38])
def test_fresh_code_is_the_same_for_all_that_hold_anything(held: int) -> None:
    versions, _ = walk("fresh | rotate | eden(4)", 40)
    assert versions.parcel(held) is versions.parcel(0)
    assert versions.parcel(0).base == 0
    assert versions.parcel(-1).payload.endswith(versions.parcel(0).payload)


@pytest.mark.parametrize("spec", ["rotate | eden(4)", "float16"])
def test_parcel_is_never_larger_than_the_model_itself(spec: str) -> None:
    versions, _ = walk(spec, 40)
    for held in range(-1, 40):
        assert len(versions.parcel(held).payload) <= 4 * LAYOUT.size


def test_phone_that_is_far_behind_gets_the_whole_model() -> None:
    versions, _ = walk("float16", 12)
    parcel = versions.parcel(0)
    assert (parcel.base, parcel.spec, parcel.theory) == (-1, "float32", 4 * LAYOUT.size)


def test_chain_does_not_grow_with_the_run() -> None:
    short, long = (
        [len(array) for name, array in walk("rotate | eden(4)", count)[0].saved().items() if name != "view"]
        for count in (15, 60)
    )
    assert len(long) == len(short)
    assert sum(long) <= 4 * LAYOUT.size


def test_lattice_keeps_so_many_versions_and_gives_the_others_all_that_was_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("featherfed.server.model.lattice_versions.KEPT_VERSIONS", 5)
    versions, views = walk("lattice(1)", 20)
    bases = [versions.parcel(held).base for held in range(19)]
    assert bases == [0] * 15 + [15, 16, 17, 18]
    assert len([name for name in versions.saved() if name.startswith("step.")]) == 5
    for held in (3, 15):
        phone = unpacked(versions.parcel(held), holding(views, held))
        assert phone.weights is not None and phone.weights.tobytes() == versions.view.tobytes()


def test_lattice_makes_the_numbers_that_have_no_room_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy, _ = walk("lattice(1)", 20)
    monkeypatch.setattr("featherfed.server.model.lattice_parcels.NUMBERS_BYTES", 4 * LAYOUT.size)
    narrow, _ = walk("lattice(1)", 20)
    assert len(narrow.parcels.known()) <= 4  # type: ignore[attr-defined]
    for held in (7, 2, 18, 0, 7):
        assert narrow.parcel(held) == roomy.parcel(held)
        assert len(narrow.parcels.known()) <= 4  # type: ignore[attr-defined]


def test_lattice_without_room_for_all_decodes_a_few_differences_for_each_and_not_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("featherfed.server.model.lattice_parcels.NUMBERS_BYTES", 24 * LAYOUT.size)
    versions, _ = walk("lattice(1)", 41)
    decoded: list[bytes] = []
    decode = lattice.decode
    monkeypatch.setattr(lattice, "decode", lambda step, layout: decoded.append(step) or decode(step, layout))
    for held in range(1, 40):
        versions.parcel(held)
    assert 0 < len(decoded) <= 40


def test_lattice_begins_with_the_first_round_that_moves_anything() -> None:
    versions, held = versions_of("lattice(1)", LAYOUT, SEED), Held()
    first, second = steps(2)
    for weights in (first, first, second, second):
        versions.publish(weights)
        held = unpacked(versions.parcel(held.version), held)
        assert held.weights is not None and held.weights.tobytes() == versions.view.tobytes()
    assert not np.array_equal(versions.view, first)


def test_view_of_the_lattice_is_within_three_quarters_of_a_step_of_the_model() -> None:
    models = steps(40)
    versions, _ = walk("lattice(1)", 40)
    rms = float(np.sqrt(np.mean((models[1] - models[0])[:600] ** 2)))
    # A step is a power of two, at least the rms and below twice of it.
    step = 2.0 ** np.ceil(np.log2(rms))
    off = np.abs(versions.view - models[-1])[:600]
    assert off.max() <= 0.75 * step
    assert 0.25 * step < np.sqrt(np.mean(off**2)) < 0.4 * step


def test_number_stays_until_the_model_is_three_quarters_of_a_step_away() -> None:
    versions, start = versions_of("lattice(1)", LAYOUT, SEED), np.zeros(LAYOUT.size, np.float32)
    moved = []
    for place in (0, 1, 1.5, 1.7, 1.8, 1.3, 1.2):
        versions.publish(start + np.float32(place))
        moved.append(float(versions.view[0]))
    assert moved == [0, 1, 1, 1, 2, 2, 1]


def test_phone_of_the_future_is_taken_for_one_that_holds_nothing() -> None:
    for spec in ("float32", *FROM_INITIAL):
        versions, _ = walk(spec, 2)
        assert versions.parcel(17) == versions.parcel(-1)


# Some lose more than the difference itself (vNMSE above 1), some are biased.
LOSSY = (
    "rotate | eden(1)", "rotate | eden(4)", "konecny-256x", "eden-tiny", "vertex-tiny", "quantize(1)", "shared-2bit",
    "topk(1/20)", "topk(1/20) | ternary", "topk(1/20) | ternary | entropy", "sign", "qsgd(2) | entropy",
    "subsample(1/16)", "bfloat16",
)  # fmt: skip


@pytest.mark.parametrize("spec", LOSSY)
def test_repeated_lossy_downlinks_converge(spec: str) -> None:
    versions = versions_of(spec, LAYOUT, SEED)
    weights = np.random.default_rng(0).standard_normal(LAYOUT.size).astype(np.float32)
    errors = []
    for _ in range(400):
        versions.publish(weights)
        errors.append(float(np.linalg.norm(versions.view - weights) / np.linalg.norm(weights)))
    assert max(errors) <= 1
    assert errors[-1] < 0.02


@pytest.mark.parametrize("spec", KINDS)
def test_parcels_of_a_version_stay_what_they_are_when_the_next_is_published(spec: str) -> None:
    """They may be made in another thread meanwhile."""
    versions, _ = walk(spec, 5)
    expected = [walk(spec, 5)[0].parcel(held) for held in range(-1, 4)]
    parcels = versions.parcels
    versions.publish(steps(6)[-1])
    assert [parcels.parcel(held) for held in range(-1, 4)] == expected
    assert (parcels.version, versions.parcels.version) == (4, 5)


def test_what_was_made_for_phones_is_not_made_again_for_the_next_version() -> None:
    versions, _ = walk("lattice(1)", 5)
    again = versions_of("lattice(1)", LAYOUT, SEED)
    again.restore(versions.version, versions.saved())
    again.parcel(2)
    again.publish(steps(6)[-1])
    assert {0, 2, 3, 5} <= set(again.parcels.known())  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", KINDS)
def test_restored_versions_give_the_same_parcels(spec: str) -> None:
    versions, _ = walk(spec, 5)
    again = versions_of(spec, LAYOUT, SEED)
    again.restore(versions.version, versions.saved())
    for held in range(-1, 4):
        assert again.parcel(held) == versions.parcel(held)
    more = steps(6)[-1]
    versions.publish(more)
    again.publish(more)
    for held in range(-1, 5):
        assert again.parcel(held) == versions.parcel(held)


@pytest.mark.parametrize("spec", KINDS)
def test_versions_that_are_restored_before_anything_was_learned_go_on(spec: str) -> None:
    (first, second), versions, again = steps(2), versions_of(spec, LAYOUT, SEED), versions_of(spec, LAYOUT, SEED)
    versions.publish(first)
    again.restore(0, versions.saved())
    for weights in (first, second):
        versions.publish(weights)
        again.publish(weights)
        assert [again.parcel(held) for held in (-1, 0)] == [versions.parcel(held) for held in (-1, 0)]
        again.restore(again.version, again.saved())


@pytest.mark.parametrize("spec", KINDS)
@pytest.mark.parametrize("missed", [(), (3,), (1, 2, 3), (0, 1)])
def test_gateway_s_phones_hold_the_root_s_view(spec: str, missed: tuple[int, ...]) -> None:
    """A gateway adopts what it was sent; it may have missed versions, and so may its phones."""
    root, gateway = versions_of(spec, LAYOUT, SEED), versions_of(spec, LAYOUT, SEED)
    above, phone, rarely = Held(), Held(), Held()
    for number, weights in enumerate(steps(7)):
        root.publish(weights)
        if number in missed:
            continue
        parcel = root.parcel(above.version)
        above = unpacked(parcel, above)
        assert above.weights is not None
        last = parcel.payload[len(parcel.payload) - parcel.lengths[-1] :]
        gateway.adopt(number, above.weights, above.initial, last)
        assert gateway.view.tobytes() == root.view.tobytes()
        phone = unpacked(gateway.parcel(phone.version), phone)
        assert phone.weights is not None and phone.weights.tobytes() == root.view.tobytes()
        if number in (2, 6):
            rarely = unpacked(gateway.parcel(rarely.version), rarely)
            assert rarely.weights is not None and rarely.weights.tobytes() == root.view.tobytes()


def test_gateway_that_lost_what_it_would_pass_on_says_so() -> None:
    (first, second), initial = walk("fresh | float32", 2)[1], steps(1)[0]
    with pytest.raises(LocalError, match="code of version 1 is lost"):
        versions_of("fresh | float32", LAYOUT, SEED).adopt(1, second, initial, b"")
    with pytest.raises(LocalError, match="code of version 1 makes another model"):
        versions_of("fresh | float32", LAYOUT, SEED).adopt(1, second, initial, bytes(4 * LAYOUT.size))
    with pytest.raises(LocalError, match="steps of version 1 are lost"):
        versions_of("lattice(1)", LAYOUT, SEED).adopt(1, second, first, b"")
    step = walk("lattice(1)", 2)[0].parcel(0).payload
    with pytest.raises(LocalError, match="version 1 does not lie on the lattice"):
        versions_of("lattice(1)", LAYOUT, SEED).adopt(1, second + np.float32(1e-4), first, step)


@settings(deadline=None, max_examples=60)
@given(st.integers(-44, 24), st.integers(-44, 38), st.sampled_from(["1", "1/1048576", "1048576"]))
def test_lattice_of_any_scale_leads_phones_to_the_server_s_bits(size: int, step: int, factor: str) -> None:
    random = np.random.default_rng(0)
    layout = Layout((Tensor("a", (7,)), Tensor("b", (1,))))
    spec = parse_downlink(f"lattice({factor})")
    versions = versions_of(f"lattice({factor})", layout, 0)
    weights = (random.standard_normal(8) * 10.0**size).astype(np.float32)
    versions.publish(weights)
    initial, views = versions.view, [versions.view]
    for number in range(1, 4):
        weights = (weights + random.standard_normal(8) * 10.0**step).astype(np.float32)
        versions.publish(np.nan_to_num(weights))
        views.append(versions.view)
        for held in range(number):
            parcel = versions.parcel(held)
            down = Step(parcel.base, parcel.version, parcel.lengths)
            spec.check(down, layout)
            made = spec.apply(down, [parcel.payload], Held(held, views[held], initial), layout, 0)
            assert made.weights is not None and made.weights.tobytes() == versions.view.tobytes()


def test_lattice_that_cannot_reach_the_initial_weights_says_so() -> None:
    versions = versions_of("lattice(1)", LAYOUT, 0)
    with pytest.raises(ConfigError, match=r"begins with a weight of 1e\+25, and lattice\(1\) reaches to 2\.4"):
        versions.publish(np.full(LAYOUT.size, 1e25, np.float32))
