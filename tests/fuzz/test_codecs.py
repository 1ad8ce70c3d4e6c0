"""Whatever bytes an update has, it decodes to finite numbers of the right shape or is refused, in any pipeline."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.codec.downlink import Held, Step
from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.steps import StepState
from featherfed.codec.summable import Summable
from featherfed.codec.summed import Summed
from featherfed.errors import CodecError, SpecError
from featherfed.randomness import RoundKey
from featherfed.server.door.tokens import Tokens, add
from featherfed.server.model.version_kinds import versions_of
from tests.codec.specs import ALL_SPECS, SUMMED

from .budget import count, inputs

KEY = RoundKey(7, 3, 5)
LAYOUT = Layout((Tensor("a", (5, 20)), Tensor("b", (7,)), Tensor("c", (130,))))
SHARE = 0.4 / len(ALL_SPECS)


@st.composite
def payloads(draw: st.DrawFn, good: bytes, most: int) -> bytes:
    """Random bytes of any length, of the right length, or a good payload that was tampered with."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=most + 4))
    if kind == 1:
        return draw(st.binary(min_size=len(good), max_size=len(good)))
    payload = bytearray(good)
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, len(payload) - 1)))
        if kind == 2 and payload:
            payload[place] = draw(st.integers(0, 255))
        else:
            payload[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(payload)


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_any_bytes_decode_to_the_shape_or_are_refused(spec: str) -> None:
    pipeline = Pipeline.parse(spec)
    size = pipeline.space(LAYOUT, KEY).size
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    good, most = pipeline.encode(values, LAYOUT, KEY).payload, pipeline.max_bytes(LAYOUT)

    @inputs(SHARE)
    @given(payloads(good, most))
    def decodes_or_refuses(payload: bytes) -> None:
        count("decoders of all codecs")
        fold = pipeline.fold(LAYOUT, KEY.shared(), updates=2)
        try:
            decoded = pipeline.decode(payload, LAYOUT, KEY)
        except CodecError as error:
            assert str(error)
            decoded = None
        else:
            assert decoded.shape == (LAYOUT.size,)
            assert np.isfinite(decoded).all()
            assert len(payload) <= most, "a valid payload is larger than the server lets one be"
        try:
            fold.add(payload, KEY, 3)
        except CodecError:
            assert fold.count == 0
            assert not fold.mean().any()
        else:
            assert decoded is not None or pipeline.sums_rotated
            assert np.isfinite(fold.mean()).all()

    decodes_or_refuses()


@pytest.mark.parametrize("spec", [*SUMMED, "exact(0) | flat | rotate_shared | grid(11)"])
def test_any_bytes_are_residues_whose_sum_is_finite_or_are_refused(spec: str) -> None:
    adder = Summable(Pipeline.parse(spec), LAYOUT, clip=1.0)
    values = np.random.default_rng(0).standard_normal(adder.pipeline.space(LAYOUT, KEY).size).astype(np.float32)
    good = adder.pack(adder.encode(values, KEY, steps=adder.steps(None, members=2)).residues)

    @inputs(0.01)
    @given(payloads(good, len(good)), st.binary(min_size=1, max_size=1), st.integers(1, 3))
    def adds_or_refuses(payload: bytes, steps: bytes, slices: int) -> None:
        count("residues of sums")
        summed = Summed(adder, KEY.shared(), steps=steps, members=2, slices=slices)
        try:
            residues = adder.unpack(payload, adder.count(slices - 1, slices))
        except CodecError as error:
            assert str(error)
            return
        summed.add_circle(residues, [3], slices - 1)
        assert np.isfinite(summed.mean()).all()
        assert len(adder.steps(summed.next_state(None), members=2)) == 1

    adds_or_refuses()


@inputs(0.02)
@given(st.binary(max_size=99))
def test_any_bytes_are_a_state_of_steps_or_are_refused(data: bytes) -> None:
    count("states of steps")
    try:
        state = StepState.from_bytes(data)
    except CodecError as error:
        assert str(error)
    else:
        assert len(state.announced(3, 8)) == len(state.deviations)


MODELS = [np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32) for seed in range(2)]
DOWNLINKS = ("lattice(1/4)", "lattice(4)", "fresh | rotate | eden(4)", "fresh | topk(1/20) | ternary | entropy")


@pytest.mark.parametrize("spec", DOWNLINKS)
@pytest.mark.parametrize("base", [-1, 0])
def test_any_difference_makes_a_model_or_is_refused(spec: str, base: int) -> None:
    downlink, versions = parse_downlink(spec), versions_of(spec, LAYOUT, KEY.seed)
    for model in MODELS:
        versions.publish(model)
    parcel = versions.parcel(base)
    whole, good = np.split(np.frombuffer(parcel.payload, np.uint8), [len(parcel.payload) - parcel.lengths[-1]])
    held = Held(0, MODELS[0], MODELS[0]) if base == 0 else Held()

    @inputs(0.04 / len(DOWNLINKS))
    @given(payloads(good.tobytes(), 2 * len(good)))
    def decodes_or_refuses(difference: bytes) -> None:
        count("downlinks of one difference")
        parts = [*([whole.tobytes()] if base < 0 else []), difference]
        step = Step(base, 1, tuple(map(len, parts)))
        try:
            downlink.check(step, LAYOUT)
            made = downlink.apply(step, parts, held, LAYOUT, KEY.seed)
        except CodecError as error:
            assert str(error)
        else:
            assert made.weights is not None and made.weights.shape == (LAYOUT.size,)
            assert np.isfinite(made.weights).all()

    decodes_or_refuses()


@inputs(0.02)
@given(st.binary(max_size=99), st.booleans())
def test_any_partial_sum_is_one_or_is_refused(data: bytes, whole: bool) -> None:
    count("partial sums")
    if whole:
        data = ExactSum(3).to_bytes()[: len(data)] + data
    try:
        ExactSum.from_bytes(data).mean()
    except CodecError as error:
        assert str(error)


WORDS = sorted({word for spec in ALL_SPECS for word in spec.replace("|", " ").split()})


@inputs(0.05)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from([*WORDS, "|", "|", "topk(0)", "eden(9)", "(", "1/0", "", "fresh", "lattice(1/2)"]),
            max_size=9,
        ).map(" ".join),
    )
)
def test_any_text_is_a_spec_or_is_refused(text: str) -> None:
    """Task and ModelBegin bring specs to the phone."""
    count("codec specs")
    try:
        pipeline = Pipeline.parse(text)
    except SpecError as error:
        assert str(error)
    else:
        assert str(Pipeline.parse(str(pipeline))) == str(pipeline)
    try:
        downlink = parse_downlink(text)
    except SpecError as error:
        assert str(error)
    else:
        assert str(parse_downlink(str(downlink))) == str(downlink)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    add(path, "alice")
    return Tokens(path)


@inputs(0.03)
@given(header=st.one_of(st.text(max_size=80), st.text(max_size=80).map("Bearer ".__add__)))
def test_any_authorization_opens_nothing(book: Tokens, header: str) -> None:
    count("Authorization headers")
    assert book.find(header) is None
