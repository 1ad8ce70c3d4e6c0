"""An actor of a cluster by itself: what it keeps, and in what pieces it answers. `test_cluster.py` has clusters."""

import pickle
from typing import Any

import numpy as np
import pytest

from featherfed.edge_client.training_host import HostPlan, TrainingHost
from featherfed.fl_bench.ray_crew import KEPT_WEIGHTS, TrainingActor
from featherfed.problem import Place
from tests.layouts import LAYOUTS, task, welcome

ray = pytest.importorskip("ray", reason="needs ray: pip install 'featherfed[ray]'")
TASK = task(3, "float32", lr=0.05)
PLAN = HostPlan(problem="digits/lite", plugins=(), data_dir=None)


def weights_of(version: int) -> Any:
    made = np.random.default_rng(version).normal(0, 0.05, LAYOUTS["lite"].size).astype(np.float32)
    made.setflags(write=False)  # as the object store has them
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what versions are read from the object store from now on; a reference is the version itself."""
    versions: list[int] = []

    def get(version: int) -> Any:
        versions.append(version)
        return weights_of(version)

    monkeypatch.setattr(ray, "get", get)
    return versions


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_an_update_is_the_host_s_in_any_number_of_pieces(pieces: int, read: list[int]) -> None:
    said = TrainingActor(PLAN).train(1, [1], welcome(), TASK, None, pieces)
    parts = said if pieces > 1 else [said]
    assert len(parts) == pieces and max(map(len, parts)) - min(map(len, parts)) <= 1
    host = TrainingHost(PLAN)
    assert pickle.loads(b"".join(parts)) == host.train(welcome(), weights_of(1).copy(), TASK, None)


def test_weights_are_read_once_whatever_is_done_with_them_and_the_newest_are_kept(read: list[int]) -> None:
    actor = TrainingActor(PLAN)
    host, place = TrainingHost(PLAN), Place()
    for version in range(KEPT_WEIGHTS + 1):
        actor.train(version, [version], welcome(), TASK, None, 1)
        said = actor.evaluate(version, [version], place, [(1, 3), (0, 1)])
        assert said == [host.evaluate(place, weights_of(version).copy(), *span) for span in ((1, 3), (0, 1))]
    assert read == list(range(KEPT_WEIGHTS + 1))
    for version in (1, KEPT_WEIGHTS, 0):
        actor.evaluate(version, [version], place, [(0, 1)])
    assert read == [*range(KEPT_WEIGHTS + 1), 0]
