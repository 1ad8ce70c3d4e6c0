"""The layouts of MNIST's models, for tests that want real ones; and a Welcome of a run that plays one."""

from typing import Any

import numpy as np

from featherfed.fingerprint import Fingerprint
from featherfed.learning.initial_draws import initial_weights
from featherfed.learning.models import build, fingerprint, layout
from featherfed.problem import Problem
from featherfed.problem_loading import load_problem
from featherfed.problems.image_models import MODELS
from featherfed.training_settings import Training
from featherfed.wire.messages import Task, Welcome, tensor_entries

NAMES = ("mlp", "2nn", "cnn", "tiny", "lite")
LAYOUTS = {name: layout(MODELS[name](1, 10)) for name in NAMES}


def known(model: str = "lite") -> Fingerprint:
    return fingerprint(MODELS[model](1, 10))


def welcome(
    run: str = "ab12", *, model: str = "lite", shard: int = 2, shards: int = 10, seed: int = 0, **more: Any
) -> Welcome:
    """Return the Welcome of a run on the digits."""
    told = known(model)
    trains = Training(set=more.pop("settings", {})).to_wire()
    fields = {
        "partition": "iid", "max_examples": 1438, "heartbeat_s": 20.0, "chunk_bytes": 16384, "uplink": "float32",
        "downlink": "float32", "training": trains,
    }  # fmt: skip
    return Welcome(
        **{
            "run": run, "problem": f"digits/{model}", "shard": shard, "shards": shards, "seed": seed,
            "tensors": tensor_entries(told.rows()), **fields, **more,
        }
    )  # fmt: skip


def task(round_number: int, uplink: str, **training: Any) -> Task:
    """Return the Task of a round that changes what `welcome` says."""
    return Task(round_number, round_number - 1, {"uplink": uplink, **training})


def digits(model: str = "lite") -> Problem:
    """Return the digits' problem with a model."""
    return load_problem(f"digits/{model}")


def weights_of(model: str = "lite", seed: int = 0) -> np.ndarray:
    """Return the weights that a server begins with."""
    return initial_weights(digits(model), seed, build(digits(model), 0))[0]
