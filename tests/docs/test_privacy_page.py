"""docs/PRIVACY.md has the numbers, the order and the names of the code."""

import re
from dataclasses import fields
from pathlib import Path

import msgpack
import pytest

from featherfed.secure import context, field
from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE, Risks, least_of, threshold_of
from tests.docs import masked_vectors, test_masked_vectors

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "PRIVACY.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())
ROWS = re.findall(
    r"^\| (\d+) \| (\d+), (\d+), (\d+) \| (\d+) \| (2⁻[^|]+) \| ([\d., ]+) % \| (\d+) \|$",
    TEXT,
    re.MULTILINE,
)
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def test_the_table_of_circles_has_rows() -> None:
    assert [int(row[0]) for row in ROWS] == [5, 10, 20, 32, 40]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_circles_stand_what_the_table_says(row: tuple[str, ...]) -> None:
    members, k, t, least, stands, revealed, fails, honest = row
    m = int(members)
    assert (int(k), int(t), int(least)) == (m - 1, threshold_of(m), least_of(m))
    for share, text in zip((0.05, 0.1, 0.2), revealed.split(", "), strict=True):
        exponent = -int(text.removeprefix("2⁻").translate(RAISED))
        chance = Risks(phones=1000, members=m, colluding=share, lost=0).revealed
        assert 2.0 ** (exponent - 0.51) < chance < 2.0 ** (exponent + 0.51)
    for share, text in zip((0.05, 0.1, 0.2), fails.split(", "), strict=True):
        risks = Risks(phones=1000, members=m, colluding=0.1, lost=share)
        assert float(text) == pytest.approx(100 * risks.fails, rel=0.05, abs=0.005)
        assert (risks.may_be_lost, risks.honest_in_a_sum) == (int(stands), int(honest))


def test_the_context_is_hashed_in_the_order_of_the_page() -> None:
    order = (
        f'`"{context.LABEL}"`, run, round, attempt, circle, slice, slices, t, least, uplink, r, steps (bin), clip'
        ' (float 64), weights (`"uniform"`), digest of the model that is changed (bin), shards of all members in'
        " their order (array), their public keys in the same order (array of bin)"
    )
    assert order in FLAT
    assert [one.name for one in fields(context.Context)] == [
        "run", "round_number", "attempt", "circle", "slice_", "slices", "threshold", "least", "uplink", "bits", "steps",
        "clip", "weights", "model", "members", "keys", "noise",
    ]  # fmt: skip
    assert "where phones add noise (DIFFERENTIAL_PRIVACY.md), an array of Z and γ (float 64 each) at the end" in FLAT
    for row in test_masked_vectors.DOCUMENT["rounds"]:
        keys = [bytes.fromhex(phone["public"]) for phone in row["phones"]]
        array = [
            context.LABEL, "20260101-000000-example", 3, 1, 0, 1, 4, 3, 4,
            f"exact(0) | flat | rotate_shared | grid({row['bits']})", row["bits"], bytes([117, 120]), 1.5, "uniform",
            bytes.fromhex("0123456789abcdef"), list(masked_vectors.CIRCLE), keys,
        ]  # fmt: skip
        assert msgpack.packb(array).hex() == row["context"]


def test_numbers_are_those_of_the_code() -> None:
    assert field.PRIME == 2**128 - 159
    assert "p = 2¹²⁸ − 159" in FLAT
    assert f"the phone's own floor ({DEFAULT_LEAST_CIRCLE} by default)" in FLAT
    # 16(k + 1 − t) + 8, and 16(t + 1), in a circle of ten.
    assert f"{16 * (10 - threshold_of(10)) + 8} + {16 * (threshold_of(10) + 1)}" in FLAT


def test_files_that_are_named_are_there() -> None:
    for name in re.findall(r"`(test_\w+\.py)`", TEXT):
        assert (ROOT / "tests" / "secure" / name).exists(), name
    for name in re.findall(r"`((?:featherfed|tests)/[\w/]+\.py)`", TEXT):
        assert (ROOT / name).exists(), name
