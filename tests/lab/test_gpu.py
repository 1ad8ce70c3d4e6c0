"""`python -m lab gpu` where there is no GPU: all of it but the card."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from featherfed.errors import LocalError
from lab import gpu
from lab.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"


def test_command_measures_each_way_and_counts_the_tests_that_need_a_gpu() -> None:
    done = CliRunner().invoke(main, ["gpu", "--device", "cpu", "--small", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.output)
    assert result["tests"]["passed"] == 0 or torch.cuda.is_available()
    assert sum(result["tests"].values()) >= 5
    assert [(row["model"], row["phones"], row["parameters"]) for row in result["rows"]] == [
        ("tiny", 1, 7_946),
        ("tiny", 3, 7_946),
    ]
    for row in result["rows"]:
        assert row["cpu_us"] > 0 and row["device_us"] > 0
        assert row["apart"] < 1e-5
    (rounds,) = result["rounds"]
    assert (rounds["problem"], rounds["phones"]) == ("digits/tiny", 3)
    assert rounds["cpu_s"] > 0 and rounds["device_s"] > 0


def test_devices_that_compute_another_thing_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TOLERANCE", -1.0)
    with pytest.raises(LocalError, match=r"tiny, 1 phones at once: a weight on cpu is 0.0e\+00 from the CPU's"):
        gpu.measure("tiny", "cpu", (), 1)


def _kept(folder: Path, passed: int) -> Path:
    row: dict[str, Any] = {"model": "tiny", "parameters": 7946, "batch": 10, "apart": 2e-5}
    rows = [
        {**row, "phones": 1, "cpu_us": 300.0, "device_us": 600.0},
        {**row, "phones": 10, "cpu_us": 400.0, "device_us": 50.0},
    ]
    about = {"card": "a card", "cpu": "a processor", "cores": 4, "python": "3.12", "torch": "2.14"}
    file = folder / "gpu.json"
    file.write_text(
        json.dumps(
            {
                "machine": about,
                "tests": {"passed": passed, "skipped": 0},
                "rows": rows,
                "rounds": [{"problem": "mnist/tiny", "phones": 100, "cores": 16, "cpu_s": 4.0, "device_s": 0.5}],
            }
        )
    )
    return file


def test_figures_of_another_machine_fill_the_page(tmp_path: Path) -> None:
    page = tmp_path / "PERFORMANCE.md"
    page.write_text(PAGE.read_text())
    arguments = ["gpu", "--from", str(_kept(tmp_path, 5)), "--write", str(page)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "| tiny | 7,946 | 1 | 300.0 | 600.0 | 0.50 | 1.00 | 2e-05 |" in text
    assert "| tiny | 7,946 | 10 | 400.0 | 50.0 | 8.00 | 12.00 | 2e-05 |" in text
    assert "| mnist/tiny | 100 | 4.000 | 0.500 |" in text
    assert "a card, torch 2.14; 5 tests that need a GPU passed on it." in text


def test_page_takes_no_figures_from_a_machine_without_a_gpu(tmp_path: Path) -> None:
    page = tmp_path / "PERFORMANCE.md"
    page.write_text(PAGE.read_text())
    done = CliRunner().invoke(main, ["gpu", "--from", str(_kept(tmp_path, 0)), "--write", str(page)])
    assert done.exit_code == 2
    assert "these are from a machine without one" in done.output
    assert page.read_text() == PAGE.read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU on this machine")
def test_without_a_gpu_the_command_says_so() -> None:
    done = CliRunner().invoke(main, ["gpu"])
    assert done.exit_code == 2
    assert "torch sees no GPU on this machine; --device cpu tries the command without one" in done.output
