"""What virtual time costs, in a small size: wrong results fail, slow ones never."""

from pathlib import Path

import numpy as np
import pytest

from featherfed.simulation import _SharedStates
from featherfed.wire.messages import ModelBegin
from lab.documents import fill
from lab.virtual import measure, tables

PAGE = Path(__file__).parents[2] / "docs" / "BENCHMARKS.md"


@pytest.mark.processes
def test_both_sides_make_the_same_steps_and_the_page_takes_the_table(tmp_path: Path) -> None:
    result = measure(None, ("training", "rounds", "memory"), small=True)
    training = result["training"]
    assert (training["rounds"], training["updates"]) == (2, 6)
    # 1,438 digits among six phones: 24 batches of ten, five times.
    assert training["plain"]["steps"] == 6 * 5 * 24
    assert training["times"] == training["cpu_s"] / training["plain"]["cpu_s"] > 0
    tiny, lite = result["rounds"]
    assert (tiny["model"], lite["model"]) == ("tiny", "lite")
    for row in (tiny, lite):
        assert row["updates"] == 6
        assert 1900 < row["payload_bytes"] < 2300
        assert row["phone_rounds_per_s"] == 6 / row["seconds"]
    assert [(row["phones"], row["updates"]) for row in result["memory"]] == [(200, 20), (2000, 20)]
    # Memory is no matter of speed: 10,000 phones have 2 GB.
    assert all(row["peak_bytes"] < 1e9 for row in result["memory"])
    page = tmp_path / "BENCHMARKS.md"
    page.write_text(PAGE.read_text())
    fill(page, tables(result))
    assert "6 updates" in page.read_text()
    assert "2,000 phones that connect when chosen" in page.read_text()


def test_a_parcel_is_decoded_once_for_all_phones_that_hold_its_base() -> None:
    states, made = _SharedStates(), []

    def begin(version: int, base: int, digest: bytes) -> ModelBegin:
        return ModelBegin(version, base, "float32", [4], digest, 0, b"")

    def decode() -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        made.append(np.zeros(3, np.float32))
        return made[-1]

    first = states.decoded(begin(1, 0, b"12345678"), decode)
    assert states.decoded(begin(1, 0, b"12345678"), decode) is first
    assert states.decoded(begin(1, -1, b"12345678"), decode) is not first
    assert states.decoded(begin(1, 0, b"87654321"), decode) is not first
    states.decoded(begin(2, 1, b"abcdefgh"), decode)
    # A phone that is late decodes for itself, and takes nothing away from the others.
    assert states.decoded(begin(1, 0, b"12345678"), decode) is not first
    assert len(made) == 5
    states.decoded(begin(2, 1, b"abcdefgh"), decode)
    assert len(made) == 5
