"""docs/CODECS.md says what the code does, and its worked example works."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featherfed.codec import grammar, lattice, registry
from featherfed.codec.layout import Layout, Tensor
from featherfed.testing import check_stage
from featherfed.user_modules import import_plugins
from tests.docs import page_lattice
from tests.docs.page_arithmetic import f32

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


def test_example_of_a_difference_on_the_lattice_decodes_to_what_the_page_says() -> None:
    example = TEXT.partition("An example. Two tensors")[2].split("```")[1]
    rows = [row.split("  ", 1) for row in example.strip().splitlines()]
    difference = bytes.fromhex("".join(row[0] for row in rows[:-2]))
    numbers, weights = ([float(number) for number in row[1].split()] for row in rows[-2:])
    layout, before = Layout((Tensor("a", (8,)), Tensor("b", (3,)))), [0.5] * 8 + [f32(0.3)] * 3
    exponents, decoded = lattice.decode(difference, layout)
    assert decoded.tolist() == numbers
    assert lattice.moved(np.array(before, np.float32), decoded, exponents, layout).tolist() == weights
    assert page_lattice.moved(before, [(8,), (3,)], difference) == weights
    assert lattice.encode(decoded, (-4, -6), layout) == difference


def test_every_stage_and_quantizer_is_explained() -> None:
    for stage in grammar.OURS:
        assert f"**{stage.name}" in TEXT, stage.name
