"""The grammar of `--downlink`, and downloads that no honest server sends."""

from fractions import Fraction

import numpy as np
import pytest

from featherfed.codec.chain import Chain
from featherfed.codec.downlink import Held, Step
from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.floats import Float16
from featherfed.codec.fresh import Fresh
from featherfed.codec.lattice import Lattice
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.registry import stage
from featherfed.errors import CodecError, SpecError

LAYOUT = Layout((Tensor("a", (20, 10)),))


def test_spec_says_the_kind() -> None:
    assert parse_downlink("lattice(1/2)") == Lattice(Fraction(1, 2))
    assert isinstance(parse_downlink("fresh|rotate|eden(4)"), Fresh)
    assert isinstance(parse_downlink("rotate | eden(4)"), Chain)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (" lattice( 0.5 ) ", "lattice(1/2)"),
        ("lattice(2)", "lattice(2)"),
        ("fresh|eden-1bit", "fresh | rotate | eden(1)"),
        ("eden-1bit", "rotate | eden(1)"),
    ],
)
def test_spec_is_written_out_and_means_the_same(given: str, written: str) -> None:
    assert str(parse_downlink(given)) == written
    assert str(parse_downlink(written)) == written


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("lattice", r"lattice takes a number, like lattice\(1\)"),
        ("lattice(0)", "not a factor"),
        ("lattice(1/0)", "divides by zero"),
        ("lattice(1) | entropy", r"is not lattice\(1\) alone"),
        ("lattice(-1)", r"is not lattice\(1\) alone"),
        ("lattices(1)", r"unknown codec stage 'lattices'; did you mean lattice\?"),
        ("fres | eden-1bit", r"unknown codec stage 'fres'; did you mean fresh\?"),
        ("1:lattice(1),2:float32", r"'1:lattice\(1\),2:float32' has values by round, and is one for all rounds"),
        ("eden-1bt", r"'eden-1bt', no stage and no preset; did you mean eden-1bit\?"),
        ("fresh | eden-1bit | entropy", r"eden-1bit is a whole pipeline, rotate \| eden\(1\): write that out"),
        ("fresh(2) | float32", "fresh takes no number"),
        ("fresh", "fresh needs a pipeline"),
        ("fresh |", "expected"),
        ("fresh | lattice(1)", "lattice.* downlink"),
        ("fresh | fresh | float32", "fresh.* downlink"),
        ("fresh | mask(1/4)", "cannot be used on the downlink"),
        ("rotate | lattice(1)", "lattice.* downlink"),
        ("x" * 257, "257 characters exceeds 256"),
        ("fresh | " + "eden-1bit" + " " * 240, "characters exceeds 256"),
    ],
)
def test_spec_that_can_not_be_is_refused(spec: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_downlink(spec)


@pytest.mark.parametrize("name", ["lattice", "fresh"])
def test_stage_of_a_user_s_own_cannot_have_the_name_of_a_downlink(name: str) -> None:
    with pytest.raises(SpecError, match="has the name of a downlink"):
        stage(name)(Float16)


@pytest.mark.parametrize("spec", ["lattice(1)", "fresh | float32"])
def test_uplink_has_no_such_stage_and_says_where_it_belongs(spec: str) -> None:
    with pytest.raises(SpecError, match="is a downlink, not a stage"):
        Pipeline.parse(spec)


@pytest.mark.parametrize(
    ("spec", "step", "words"),
    [
        ("lattice(1)", Step(0, 3, (5, 5)), "2 parts of lattice.* from version 0 to 3, which has 1"),
        ("lattice(1)", Step(-1, 3, (800,)), "1 parts of lattice.* from version -1 to 3, which has 2"),
        ("lattice(1)", Step(-1, 0, (800, 4)), "2 parts .* which has 1"),
        ("lattice(1)", Step(-1, 0, (804,)), "initial weights of 804 bytes, and 200 float32 numbers have 800"),
        ("lattice(1)", Step(3, 3, (5,)), "leads from version 3 to 3"),
        ("lattice(1)", Step(4, 3, (5,)), "leads from version 4 to 3"),
        ("lattice(1)", Step(1, 3, (1 << 50,)), r"part of \d+ bytes exceeds the \d+ bytes that lattice\(1\) can need"),
        ("fresh | float32", Step(2, 3, (800,)), "from version 2; each of its codes is to version 0"),
        ("fresh | float32", Step(0, 3, (801,)), "part of 801 bytes exceeds the 800"),
        ("float32", Step(-1, 3, (801,)), "part of 801 bytes exceeds the 800"),
    ],
)
def test_download_that_no_server_sends_is_refused_before_a_byte_of_it(spec: str, step: Step, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        parse_downlink(spec).check(step, LAYOUT)


@pytest.mark.parametrize("spec", ["lattice(1)", "fresh | float32"])
def test_initial_weights_that_are_no_numbers_are_refused(spec: str) -> None:
    spoilt = np.full(200, np.nan, "<f4").tobytes()
    with pytest.raises(CodecError, match="initial weights are not all finite"):
        parse_downlink(spec).apply(Step(-1, 0, (800,)), [spoilt], Held(), LAYOUT, 0)


@pytest.mark.parametrize("spec", ["lattice(1)", "fresh | float32", "float32"])
def test_difference_to_nothing_that_is_held_is_refused(spec: str) -> None:
    with pytest.raises(CodecError, match="version 0, which this phone does not hold"):
        parse_downlink(spec).apply(Step(0, 1, (1,)), [b"\0"], Held(), LAYOUT, 0)
