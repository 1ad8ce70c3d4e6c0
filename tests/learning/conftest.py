"""The two ways in which chains of layers are trained: by torch, and by numba where it is installed."""

import pytest

from featherfed.learning import fast


@pytest.fixture(params=["Written", "Compiled"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The class of passes that a chain gets: a test that asks for it runs with numba, and as if there were none."""
    if request.param == "Compiled":
        pytest.importorskip("numba", reason="needs numba: pip install 'featherfed[fast]'")
        fast._loaded.cache_clear()
        monkeypatch.delenv("FL_FAST", raising=False)
        monkeypatch.setattr(fast, "_agreed", None)
        assert fast.passes().startswith("numba ")
    else:
        monkeypatch.setattr(fast, "_agreed", "torch")
    return str(request.param)
