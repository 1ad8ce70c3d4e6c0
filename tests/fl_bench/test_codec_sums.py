"""`fl-bench codec --sums`: means of cohorts, summed before decoding or after, err as the formulas say."""

import json

import pytest
from click.testing import CliRunner

from featherfed.codec.steps import Fit
from featherfed.fl_bench import codec_sums
from featherfed.fl_bench.cli import main
from featherfed.fl_bench.codec_sums import ROWS, measure_sum

SIZE = 8192


def test_one_circle_errs_by_its_grid_alone() -> None:
    row = measure_sum("secure-4bit", 10, 1, SIZE)
    assert row.bits_per_weight == 4
    for error in row.later:
        # A step is some hundredths of an octave more than the best one.
        assert 0.9 * Fit.of(10, 4).error < error < 1.6 * Fit.of(10, 4).error
    assert row.first < 1


def test_circles_send_a_share_of_the_bits_and_err_by_what_phones_do_not_have_in_common() -> None:
    row = measure_sum("exact(0) | flat | rotate_shared | grid(8)", 40, 4, SIZE)
    assert row.bits_per_weight == 2
    for error, common in zip(row.later, codec_sums.COMMON, strict=True):
        own = (1 - common) * (1 / 10 - 1 / 40) / (common + (1 - common) / 40)
        assert error == pytest.approx(own, rel=0.15)


def test_updates_that_the_server_sees_are_decoded_one_by_one() -> None:
    row = measure_sum("eden-1bit", 10, 0, SIZE)
    # vNMSE 0.571 of each, a tenth in the mean, over the share that is left of the mean's square.
    assert row.later[0] == pytest.approx(0.0571 / (0.5 + 0.05), rel=0.1)


def test_table_and_json_have_a_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_sums, "ROWS", (ROWS[0], ROWS[-1]))
    monkeypatch.setattr(codec_sums, "ROUNDS", 2)
    table = CliRunner().invoke(main, ["codec", "--sums"])
    assert table.exit_code == 0, table.output
    lines = [line for line in table.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert "| 10 | 1 of 10 | `secure-4bit` | 4 |" in lines[2]
    rows = json.loads(CliRunner().invoke(main, ["codec", "--sums", "--json"]).stdout)
    assert [(row["spec"], row["cohort"], row["circles"]) for row in rows] == [ROWS[0], ROWS[-1]]
