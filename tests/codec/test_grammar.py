import pytest

from featherfed.codec.grammar import OURS, PRESETS
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import SpecError


@pytest.mark.parametrize("name", PRESETS)
def test_preset_prints_the_spec_that_it_stands_for(name: str) -> None:
    assert str(Pipeline.parse(name)) == PRESETS[name]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("topk(1/4) | rotate", ["topk", "rotate", "spreads"]),
        ("rotate | topk(1/4)", ["topk", "rotate", "spreads"]),
        ("quantize(2) | float16", ["quantize(2)", "float16", "same job"]),
        ("mask(1/4) | lowrank(1/4)", ["mask(1/4)", "lowrank(1/4)", "same job"]),
        ("quantize(2) | rotate", ["rotate", "before quantize(2)"]),
        ("eden(1)", ["eden(1)", "rotate"]),
        ("rotate_shared | eden(1)", ["eden(1)", "rotate"]),
        ("vertex(8)", ["vertex(8)", "rotate"]),
        ("rotate_shared | vertex(8)", ["vertex(8)", "rotate"]),
        ("rotate | vertex(12)", ["vertex(12)", "power of two from 2 to 128"]),
        ("ternary", ["ternary", "topk"]),
        ("feedback | subsample(1/4)", ["feedback", "subsample"]),
        ("float32 | entropy", ["entropy", "float32"]),
        ("entropy", ["entropy", "float32"]),
        ("rotat", ["rotat", "did you mean rotate"]),
        ("quantize", ["quantize", "takes a number"]),
        ("rotate(3)", ["rotate", "takes no number"]),
        ("quantize(9)", ["quantize(9)", "quantize(8)"]),
        ("eden(1/2)", ["whole number"]),
        ("subsample(0)", ["subsample(0)", "above 0"]),
        ("subsample(3/2)", ["subsample(3/2)", "at most 1"]),
        ("subsample(1/0)", ["zero"]),
        ("subspace(0)", ["no dimension"]),
        ("", ["expected"]),
        ("rotate ||", ["expected"]),
        ("x" * 300, ["300 characters"]),
        # 0.1000…1 is longer as a fraction, and it is the fraction that travels.
        (f"topk(0.1{'0' * 130}1)", ["written out, exceeds 256"]),
    ],
)
def test_nonsense_is_refused_with_a_sentence(spec: str, words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        Pipeline.parse(spec)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("spec", ["mask(1/4)", "lowrank(1/4)", "subspace(10)", "feedback | sign"])
def test_downlink_refuses_what_only_a_phone_can_do(spec: str) -> None:
    with pytest.raises(SpecError, match="downlink"):
        Pipeline.parse(spec, direction="downlink")


def test_every_stage_has_a_paper_and_a_line_of_its_own() -> None:
    for stage in OURS:
        assert stage.paper
        assert (stage.__doc__ or "").strip()
