"""What a phone adds to a sum: choices that all share, clipping, dither, slices, residuals, and refusals."""

import math

import numpy as np
import pytest

from featherfed.codec.grammar import PRESETS
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.steps import StepState
from featherfed.codec.summable import Summable, dither
from featherfed.codec.summed import Summed
from featherfed.errors import CodecError, ConfigError, ProblemError, SpecError
from featherfed.randomness import RoundKey

from .conftest import normal
from .specs import SUMMED

FLAT = "exact(0) | flat | rotate_shared | grid({})"
SPECS = (
    *SUMMED,
    "exact(0) | rotate_shared | grid(3)",
    "exact(0) | flat | subsample(1/4) | rotate_shared | grid(5)",
    "exact(0) | subsample(1/3) | rotate_shared | grid(9)",
    "exact(0) | mask(1/4) | rotate_shared | grid(4)",
    "exact(0) | lowrank(1/4) | rotate_shared | grid(4)",
    "subspace(100) | grid(16)",
    "exact(0) | mask(1/2) | subsample(1/2) | rotate_shared | grid(2)",
)
LAYOUT = Layout((Tensor("a", (90, 100)), Tensor("b", (71,)), Tensor("c", (3,))))
KEY = RoundKey(7, 3, 5)


def summable(spec: str, layout: Layout = LAYOUT, clip: float = 100.0) -> Summable:
    return Summable(Pipeline.parse(spec), layout, clip=clip)


def steps_of(size: float, adder: Summable) -> bytes:
    """Return steps of this multiple of the clip norm, a power of two."""
    return bytes([192 + 8 * int(math.log2(size))]) * adder.num_blocks


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("exact(0) | rotate | grid(4)", ["grid does not go with rotate", "rotated alike", "secure-4bit"]),
        ("exact(0) | topk(1/20) | grid(4)", ["grid does not go with topk", "other coordinates", "secure-small"]),
        ("subspace(9) | grid(4) | entropy", ["grid does not go with entropy", "cannot be summed", "secure-small"]),
        ("rotate_shared | grid(4)", ["grid(4)", "float32", "exact(0)", "secure-4bit"]),
        ("exact(9) | rotate_shared | grid(4)", ["grid(4)", "float32", "exact(0)", "secure-4bit"]),
        ("exact(0) | grid(4)", ["grid(4) needs rotate_shared", "equally large", "secure-4bit"]),
        ("exact(0) | mask(1/4) | grid(4)", ["grid(4) needs rotate_shared", "secure-4bit"]),
        ("mask(1/4) | rotate_shared | grid(4)", ["exact(0)", "secure-4bit"]),
        ("subspace(9) | grid(1)", ["grid(1)", "grid(2)", "grid(16)"]),
        ("subspace(9) | grid(17)", ["grid(17)", "grid(16)"]),
        ("subspace(9) | eden(2) | grid(4)", ["eden(2)", "grid(4)", "same job"]),
    ],
)
def test_grid_refuses_what_cannot_be_summed_and_names_a_preset_that_can(spec: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        Pipeline.parse(spec)
    for word in words:
        assert word in str(caught.value)


def test_grid_is_not_for_the_downlink() -> None:
    with pytest.raises(SpecError, match=r"grid\(4\) cannot be used on the downlink: it is for sums of many phones"):
        Pipeline.parse("secure-4bit", direction="downlink")


@pytest.mark.parametrize("spec", [spec for name, spec in PRESETS.items() if not name.startswith("secure-")])
def test_every_other_preset_is_refused_with_names_of_those_that_are_summed(spec: str) -> None:
    with pytest.raises(SpecError, match="cannot be summed under a mask") as caught:
        summable(spec)
    assert all(name in str(caught.value) for name in PRESETS if name.startswith("secure-"))


def test_a_rotation_of_each_phones_own_is_refused_by_what_it_declares() -> None:
    pipeline = Pipeline.parse("secure-4bit")
    pipeline.rotation = Pipeline.parse("rotate | eden(1)").rotation
    with pytest.raises(SpecError, match="a rotation or positions of each phone's own"):
        Summable(pipeline, LAYOUT, clip=1.0)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_no_clip_norm_is_refused(clip: float) -> None:
    with pytest.raises(ConfigError, match="needs --clip-norm above 0"):
        summable("secure-4bit", clip=clip)


def test_one_update_alone_is_neither_encoded_nor_decoded() -> None:
    pipeline = Pipeline.parse("secure-4bit")
    with pytest.raises(SpecError, match="sums of many phones"):
        pipeline.encode(normal(LAYOUT.size), LAYOUT, KEY)
    with pytest.raises(SpecError, match="sums of many phones"):
        pipeline.decode(bytes(pipeline.max_bytes(LAYOUT)), LAYOUT, KEY)


@pytest.mark.parametrize("spec", SPECS)
def test_all_phones_of_a_round_send_the_same_coordinates_and_of_the_next_round_others(spec: str) -> None:
    pipeline, adder = Pipeline.parse(spec), summable(spec)
    values = normal(pipeline.space(LAYOUT, KEY).size)
    expanded = [
        pipeline.space(LAYOUT, key).expand(adder.spread(adder._kept(values, key), key)).tobytes()
        for key in (KEY, RoundKey(7, 3, 6), RoundKey(7, 4, 5), RoundKey(8, 3, 5))
    ]
    assert expanded[0] == expanded[1]
    shared_choice = "sub" in spec or "mask" in spec or "lowrank" in spec
    assert len(set(expanded)) == 3 or not shared_choice
    rotated = [adder._kept(values, key).tobytes() for key in (KEY, RoundKey(7, 3, 6), RoundKey(7, 4, 5))]
    assert rotated[0] == rotated[1]
    assert (rotated[0] != rotated[2]) == ("rotate" in spec)


@pytest.mark.parametrize("spec", SPECS)
def test_residues_are_as_many_as_announced_below_the_modulus_and_the_same_again(spec: str) -> None:
    adder = summable(spec)
    values = normal(adder.pipeline.space(LAYOUT, KEY).size)
    before = values.copy()
    steps = adder.steps(None, members=1)
    first, again = (adder.encode(values, KEY, steps=steps).residues for _ in range(2))
    assert first.shape == (adder.coordinates,) == (adder.count(),)
    assert first.dtype == (np.uint8 if adder.bits <= 8 else np.uint16)
    assert int(first.max()) < 1 << adder.bits
    assert np.array_equal(first, again)
    assert np.array_equal(values, before)
    data = adder.pack(first)
    assert len(data) == adder.payload_bytes(adder.count()) <= adder.pipeline.max_bytes(LAYOUT)
    assert np.array_equal(adder.unpack(data, adder.count()), first)


@pytest.mark.parametrize("size", [0, 1, 2, 70, 4095, 4096, 8191, 8192, 12_287, 12_288, 12_289, 30_000])
def test_a_rest_of_less_than_half_a_block_belongs_to_the_block_before(size: int) -> None:
    adder = summable(FLAT.format(4), Layout((Tensor("x", (size,)),)))
    assert adder.num_blocks == max(1, (size + 4096) // 8192)
    runs = list(adder.runs())
    assert [block for block, _ in runs] == (list(range(adder.num_blocks)) if size else [])
    lengths = [run.stop - run.start for _, run in runs]
    assert sum(lengths) == size
    assert all(length == 8192 for length in lengths[:-1])
    assert lengths[-1:] == [] or len(lengths) == 1 or 4096 <= lengths[-1] < 12_288


@pytest.mark.parametrize("shapes", [(), ((0,),), ((1,),), ((2,), (0, 3)), ((65,), (3, 64)), ((8193,),), ((12_289,),)])
@pytest.mark.parametrize("spec", SPECS)
def test_models_of_any_shape_are_summed(spec: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    layout = Layout(tuple(Tensor(str(number), shape) for number, shape in enumerate(shapes)))
    adder = summable(spec, layout)
    steps = adder.steps(None, members=1)
    sent = adder.encode(normal(adder.pipeline.space(layout, KEY).size), KEY, steps=steps).residues
    assert np.array_equal(adder.unpack(adder.pack(sent), adder.count()), sent)
    summed = Summed(adder, KEY, steps=steps, members=1)
    summed.add_circle(sent, [KEY.client])
    assert summed.mean().shape == (layout.size,)
    assert len(adder.steps(summed.next_state(None), members=1)) == adder.num_blocks


@pytest.mark.parametrize("slices", [1, 2, 3, 10, 64])
def test_slices_are_all_coordinates_once_and_each_has_its_share_of_every_block(slices: int) -> None:
    adder = summable(FLAT.format(6), Layout((Tensor("x", (20_011,)),)))
    steps = steps_of(2**-8, adder)
    values = normal(20_011)
    whole = adder.encode(values, KEY, steps=steps).residues
    assert sum(adder.count(slice_, slices) for slice_ in range(slices)) == 20_011
    # The dither is drawn anew for each slice, so that residues differ by one at most.
    for slice_ in range(slices):
        mine = adder.encode(values, KEY, steps=steps, slice_=slice_, slices=slices).residues
        assert len(mine) == adder.count(slice_, slices)
        apart = (mine.astype(int) - whole[slice_::slices]) % 64
        assert set(np.unique(apart)) <= {0, 1, 63}
        blocks = np.zeros(len(mine), int) - 1
        for block, run in adder.runs(slice_, slices):
            blocks[run] = block
        assert np.array_equal(blocks, np.minimum(np.arange(20_011) // 8192, adder.num_blocks - 1)[slice_::slices])


@pytest.mark.parametrize(("slice_", "slices"), [(2, 2), (-1, 2), (0, 0), (0, 101)])
def test_a_slice_that_there_is_not_is_refused(slice_: int, slices: int) -> None:
    adder = summable("subspace(100) | grid(4)")
    with pytest.raises(SpecError, match=f"slice {slice_} of {slices} slices of 100 coordinates"):
        adder.encode(normal(100), KEY, steps=steps_of(1, adder), slice_=slice_, slices=slices)


def test_feedback_with_slices_is_refused() -> None:
    adder = summable("feedback | exact(0) | flat | rotate_shared | grid(4)")
    adder.check(members=10)
    with pytest.raises(SpecError, match="feedback does not go with 2 slices"):
        adder.check(members=10, slices=2)


def test_circles_too_large_for_the_bits_are_refused() -> None:
    with pytest.raises(SpecError, match=r"grid\(4\) has no room for the sum of 100 phones.*grid\(6\)"):
        summable("secure-4bit").check(members=100)


def test_an_update_beyond_the_clip_norm_is_scaled_down_to_it() -> None:
    fine, values = summable(FLAT.format(16), clip=1.0), normal(LAYOUT.size)
    steps = steps_of(2**-15, fine)
    long, clipped = (
        fine.encode(each.astype(np.float32), KEY, steps=steps).residues
        for each in (values, values / np.linalg.norm(values))
    )
    apart = (long.astype(int) - clipped) % 65536
    assert set(np.unique(apart)) <= {0, 1, 65535}


def test_short_updates_are_sent_as_they_are() -> None:
    values = normal(LAYOUT.size)
    norm = float(np.linalg.norm(values))
    # Steps are shares of C: with twice the norm the same step is a byte of an octave less.
    close, wide = summable(FLAT.format(8), clip=1.01 * norm), summable(FLAT.format(8), clip=2.02 * norm)
    one = close.encode(values, KEY, steps=steps_of(2**-5, close)).residues
    other = wide.encode(values, KEY, steps=steps_of(2**-6, wide)).residues
    assert np.array_equal(one, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_never_summed(bad: float) -> None:
    adder, values = summable("secure-4bit"), normal(LAYOUT.size)
    values[[3, 70]] = bad
    with pytest.raises(ProblemError, match=f"cannot be summed: 2 of {LAYOUT.size} numbers are NaN or infinite"):
        adder.encode(values, KEY, steps=steps_of(1, adder))


def test_steps_of_another_model_are_refused() -> None:
    adder = summable("secure-4bit", Layout((Tensor("x", (30_000,)),)))
    with pytest.raises(CodecError, match="3 steps came for 4 blocks of 30000 coordinates"):
        adder.encode(normal(30_000), KEY, steps=b"\x80\x80\x80")


@pytest.mark.parametrize("step", [0, 255])
def test_a_server_may_announce_any_step(step: int) -> None:
    adder = summable(FLAT.format(4), clip=1e6)
    values = normal(LAYOUT.size) * np.float32(1e30)
    residues = adder.encode(values, KEY, steps=bytes([step]) * adder.num_blocks).residues
    assert int(residues.max()) < 16


def test_another_coordinate_count_begins_anew() -> None:
    adder = summable("secure-small")
    first = adder.steps(None, members=10)
    assert adder.steps(StepState(1000, 10, (1e-3,), (1.0,)), members=10) == first
    assert adder.steps(StepState(1536, 10, (1e-3,), (1.0,)), members=10) != first


def test_dither_is_of_the_phone_the_round_and_the_seed() -> None:
    drawn = {dither(RoundKey(*key), 64).tobytes() for key in ((7, 3, 5), (7, 3, 6), (7, 4, 5), (8, 3, 5))}
    assert len(drawn) == 4
    assert np.array_equal(dither(KEY, 9), dither(KEY, 64)[:9])


def test_feedback_keeps_exactly_what_the_sum_of_one_phone_lacks() -> None:
    adder = summable("feedback | exact(0) | flat | rotate_shared | grid(5)", clip=2 * math.sqrt(LAYOUT.size))
    values, steps = normal(LAYOUT.size), adder.steps(None, members=1)
    first = adder.encode(values, KEY, steps=steps)

    def decoded(residues: np.ndarray, key: RoundKey) -> np.ndarray:
        summed = Summed(adder, key, steps=steps, members=1)
        assert summed.add_circle(residues, [key.client]) == []
        return summed.mean()

    assert first.residual is not None
    assert np.allclose(first.residual, values - decoded(first.residues, KEY), atol=1e-5)
    later = RoundKey(7, 4, 5)
    second = adder.encode(values, later, steps=steps, state=first.residual)
    assert second.residual is not None
    both = decoded(first.residues, KEY) + decoded(second.residues, later)
    # What one round lacked the next one sends: after two rounds only the second's residual is missing.
    assert np.allclose(both + second.residual, 2 * values, atol=1e-4)


def test_a_residual_of_an_earlier_uplink_is_sent_once() -> None:
    adder, values = summable(FLAT.format(8)), normal(LAYOUT.size)
    steps = adder.steps(None, members=1)
    sent = adder.encode(values, KEY, steps=steps, state=values)
    assert sent.residual is not None and not sent.residual.any()
    assert np.array_equal(sent.residues, adder.encode(2 * values, KEY, steps=steps).residues)
    other = summable("secure-small")
    kept = other.encode(normal(1536), KEY, steps=other.steps(None, members=1), state=values)
    assert kept.residual is None
