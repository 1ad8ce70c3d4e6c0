"""pfl-research's FedAvg with its central Gaussian mechanism, in its simulation, over phones and weights of ours.

`python -m lab.pfl_app.gaussian FOLDER` reads `order.json` and `data.npz` there, and prints a line of JSON: the accuracy
after the last round, and the noise that its accountant asked for.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_accountant import PLDPrivacyAccountant
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
from torch import nn
from torch.nn.functional import cross_entropy

from featherfed.learning.models import build
from featherfed.problem_loading import load_problem

KNOWN = "known"


class Model(nn.Module):
    """One of our models, with the two functions that pfl asks for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch."""
        self.train()
        return cross_entropy(self.inner(images), labels)

    @torch.no_grad()
    def metrics(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Weighted]:
        """Return how many labels of a batch the model knows."""
        self.eval()
        return {KNOWN: Weighted(int((self.inner(images).argmax(1) == labels).sum()), len(labels))}


class Shuffled(PyTorchTensorDataset):
    """A phone's examples, in another order in each epoch."""

    def iter(self, batch_size: int | None) -> Any:
        """Go through them once."""
        order = torch.randperm(len(self))
        for begin in range(0, len(self), batch_size or len(self)):
            chosen = order[begin : begin + (batch_size or len(self))]
            yield [part[chosen] for part in self.raw_data]


def main(folder: Path) -> None:
    """Run the rounds."""
    torch.set_num_threads(1)
    order: dict[str, Any] = json.loads((folder / "order.json").read_text())
    torch.manual_seed(order["seed"])
    np.random.seed(order["seed"])
    with np.load(folder / "data.npz") as data:
        images, labels, starts = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]), data["starts"]
        test = Shuffled((torch.from_numpy(data["test_images"]), torch.from_numpy(data["test_labels"])))
    module = Model(build(load_problem(order["problem"]), order["seed"]))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    phones = [
        Shuffled((images[begin:end], labels[begin:end]), user_id=str(number))
        for number, (begin, end) in enumerate(pairwise(starts))
    ]
    # One shuffled row of all phones, over and over: a phone is in a round in so many as there are in a pass.
    row = np.random.default_rng(order["seed"]).permutation(len(phones)).tolist()
    data_set = FederatedDataset(lambda number: phones[number], MinimizeReuseUserSampler(row))
    accountant = PLDPrivacyAccountant(
        num_compositions=order["compositions"],
        sampling_probability=order["sampled"],
        mechanism="gaussian",
        epsilon=order["epsilon"],
        delta=order["delta"],
    )
    noise = GaussianMechanism.from_privacy_accountant(accountant=accountant, clipping_bound=order["clip_norm"])
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=order["rounds"],
            # Phones' own evaluations are left out but of the first round, which always has them.
            evaluation_frequency=order["rounds"] + 1,
            train_cohort_size=order["cohort"],
            val_cohort_size=None,
        ),
        SimulatedBackend(
            training_data=data_set, val_data=data_set, postprocessors=[CentrallyAppliedPrivacyMechanism(noise)]
        ),
        model,
        NNTrainHyperParams(
            local_batch_size=order["batch_size"], local_num_epochs=order["epochs"], local_learning_rate=order["lr"]
        ),
        send_metrics_to_platform=False,
    )
    accuracy = model.evaluate(test, eval_params=NNEvalHyperParams(local_batch_size=500)).to_simple_dict()
    (last,) = accuracy.values()
    print(json.dumps({"accuracy": float(last), "noise": accountant.noise_parameter}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
