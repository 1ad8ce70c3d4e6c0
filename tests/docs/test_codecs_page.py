"""docs/CODECS.md says what the code does, and its worked example works."""

import sys
from pathlib import Path
from typing import Any

import pytest

from featherfed.codec import grammar, registry
from featherfed.testing import check_stage
from featherfed.user_modules import import_plugins

TEXT = (Path(__file__).parents[2] / "docs" / "CODECS.md").read_text(encoding="utf-8")


def test_worked_example_is_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, test = (part.split("```")[0] for part in TEXT.split("```python\n")[1:3])
    monkeypatch.chdir(tmp_path)
    known = dict(registry.STAGES)
    try:
        (tmp_path / "mytask.py").write_text(own)
        import_plugins(["./mytask.py"])
        names: dict[str, Any] = {}
        exec(test, names)
        names["test_terngrad"]()
        check_stage("terngrad")
    finally:
        sys.modules.pop("mytask", None)
        registry.STAGES.clear()
        registry.STAGES.update(known)


def test_every_stage_and_quantizer_is_explained() -> None:
    for stage in grammar.OURS:
        assert f"**{stage.name}" in TEXT, stage.name
