"""`fl-bench codec`: the figures are measured, complete and what the stages promise."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featherfed.codec.grammar import OURS, PRESETS
from featherfed.fl_bench.cli import main

FIELDS = {
    "spec", "data", "bits_per_coordinate", "theory_bits", "vnmse", "bias", "encode_mb_s", "decode_mb_s", "fold_mb_s",
}  # fmt: skip
SMALL = ("--size", "20000", "--seeds", "20")
PAGE = Path(__file__).parents[2] / "docs" / "CODECS.md"


def codec(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["codec", *arguments])


def test_json_has_an_object_for_each_spec_and_kind_of_data() -> None:
    done = codec("--spec", "rotate | eden(1)", "--spec", "quantize(1)", "--data", "normal,lognormal", *SMALL, "--json")
    assert done.exit_code == 0, done.output
    rows = {(row["spec"], row["data"]): row for row in json.loads(done.stdout)}
    assert len(rows) == 4
    for row in rows.values():
        assert set(row) >= FIELDS
        assert row["copy_mb_s"] > row["encode_mb_s"] > 0
        # An unbiased code's mean error is the single ones', less the square root of their number.
        assert 0.8 < row["bias"] / row["bias_if_unbiased"] < 1.2
    eden, published = rows["rotate | eden(1)", "normal"], rows["quantize(1)", "normal"]
    assert eden["vnmse"] < 0.6 and published["vnmse"] > 10
    assert 1 <= eden["bits_per_coordinate"] < 1.01


@pytest.mark.parametrize("spec", ["lowrank(1/4)", "feedback | topk(1/100) | ternary | entropy", "vertex-tiny"])
def test_stages_of_every_slot_can_be_measured(spec: str) -> None:
    done = codec("--spec", spec, "--data", "normal", *SMALL, "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)[0]
    assert row["spec"] == spec
    assert row["pipeline"] == PRESETS.get(spec, spec)
    assert (row["vnmse"] == 0) == (spec == "lowrank(1/4)")


def test_a_real_update_is_measured(mnist_dir: Path) -> None:
    done = codec("--spec", "rotate | eden(2)", "--data", "update-2nn", "--data-dir", str(mnist_dir), *SMALL, "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)[0]
    assert row["coordinates"] == 199_210
    assert row["vnmse"] < 0.14
    assert row["bias"] < 1.1 * row["bias_if_unbiased"]


def test_list_names_every_stage_and_preset() -> None:
    listed = json.loads(codec("--list", "--json").stdout)
    assert [stage["name"] for stage in listed["stages"]] == [stage.name for stage in OURS]
    assert {preset["name"]: preset["spec"] for preset in listed["presets"]} == PRESETS
    for stage in listed["stages"]:
        assert (stage["parameter"] is None) == (stage["range"] is None) == ("(" not in stage["example"])
    plain = codec("--list").stdout
    assert all(f"`{name}`" in plain for name in PRESETS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--spec", "eden(1)"], "eden(1) needs rotate"),
        (["--data", "norm"], "unknown data 'norm'; there are normal, lognormal, update-2nn, update-cnn"),
        (["--seeds", "3"], "3 is not in the range x>=20"),
        (["--data", "update-2nn", "--data-dir", "/dev/null"], "name a folder that holds MNIST"),
    ],
)
def test_wrong_flags_are_refused_with_a_sentence(arguments: list[str], words: str) -> None:
    done = codec(*arguments)
    assert done.exit_code in (1, 2)
    assert words in done.output
    assert "Traceback" not in done.output


def test_the_page_lists_every_stage_and_preset_as_they_are() -> None:
    from featherfed.fl_bench.codec_tables import presets_table, stages_table

    text = PAGE.read_text(encoding="utf-8")
    assert stages_table() in text and presets_table() in text, "run python -m lab codec --write docs/CODECS.md"


def test_a_spec_of_sums_has_no_single_updates_to_measure() -> None:
    done = codec("--spec", "secure-4bit", *SMALL)
    assert done.exit_code == 2
    assert "secure-4bit has no single updates to measure; --sums measures means of cohorts" in done.output


def test_sums_choose_their_specs_themselves() -> None:
    done = codec("--sums", "--spec", "secure-4bit")
    assert done.exit_code == 2
    assert "--sums measures specs of its own" in done.output
