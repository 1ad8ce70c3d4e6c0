"""docs/CODECS.md says what the code does, and its worked example works."""

from pathlib import Path

import numpy as np
import pytest

from featherfed.codec import grammar
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

TEXT = (Path(__file__).parents[2] / "docs" / "CODECS.md").read_text(encoding="utf-8")


def test_worked_example_is_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    code = TEXT.split("```python\n")[1].split("```")[0]
    names: dict[str, type] = {"__name__": __name__}
    exec(code, names)
    monkeypatch.setitem(grammar.STAGES, "terngrad", names["TernGrad"])
    layout = Layout((Tensor("x", (2048,)),))
    values = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    for spec in ("terngrad", "terngrad | entropy"):
        pipeline, total = Pipeline.parse(spec), np.zeros(layout.size)
        for seed in range(300):
            key = RoundKey(seed, 1, 0)
            total += pipeline.decode(pipeline.encode(values, layout, key).payload, layout, key)
        # vNMSE is about M·mean|x|/σ² − 1 = 1.9: the mean of 300 is off by 0.08.
        assert np.linalg.norm(total / 300 - values) < 0.1 * np.linalg.norm(values)
        with pytest.raises(CodecError):
            pipeline.decode(b"\0", layout, RoundKey(0, 1, 0))


def test_every_stage_and_quantizer_is_explained() -> None:
    for name in grammar.STAGES:
        assert f"**{name}" in TEXT, name
