"""docs/RULES.md: its file is played, and what it lists is what there is."""

import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from featherfed.fl_bench.cells import run_virtual
from featherfed.fl_bench.scenario import read_scenario
from featherfed.rules.naming import FLAGS, names_of

TEXT = (Path(__file__).parents[2] / "docs" / "RULES.md").read_text(encoding="utf-8")


def test_worked_example_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mytask.py").write_text(TEXT.split("```python\n")[1].split("```")[0])
    (tmp_path / "s.toml").write_text(
        'problem = "digits/tiny"\nphones = 8\ncohort = 7\nrounds = 2\nuplink = "rotate | eden(2)"\nmin_updates = 7\n'
        'aggregate = ["mytask:Krum:2", "mytask:EveryPhoneAlike"]\nserver_optimizer = "mytask:Lion:0.9"\n'
        'server_lr = 0.001\nselect = "mytask:Charged"\nlink = { "3g" = 0.5, "4g" = 0.5 }\n'
    )
    try:
        for cell in read_scenario(tmp_path / "s.toml", way="virtual"):
            run_virtual(cell, tmp_path / "out", None)
            assert "optimizer.momentum" in load_file(tmp_path / "out" / cell.name / "model.safetensors")
    finally:
        sys.modules.pop("mytask", None)


def test_page_lists_all_of_ours() -> None:
    for kind, (flag, _) in FLAGS.items():
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{flag}`"))
        assert [name for name in names_of(kind) if f"`{name}" not in row] == []
