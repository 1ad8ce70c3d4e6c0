"""pfl-research's FedAvg with its central Gaussian mechanism, in its simulation, over phones and weights of ours.

`python -m lab.rounds_app.pfl_gaussian FOLDER` reads `order.json` and `data.npz` there, and prints a line of JSON: the
accuracy after the last round, and the noise that its accountant asked for.
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
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_accountant import PLDPrivacyAccountant
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism

from featherfed.learning.models import build
from featherfed.problem_loading import load_problem
from lab.rounds_app.pfl_research import EVALUATED_AT_ONCE, Model


class Phone(PyTorchTensorDataset):
    """A phone's examples, in another order in each epoch, and with its images moved as the problem's settings say."""

    def __init__(self, parts: tuple[torch.Tensor, ...], name: str, moved: Any, generator: np.random.Generator) -> None:
        super().__init__(parts, user_id=name)
        self._moved, self._generator = moved, generator

    def iter(self, batch_size: int | None) -> Any:
        """Go through them once."""
        order = torch.from_numpy(self._generator.permutation(len(self)))
        images, labels = (part[order] for part in self.raw_data)
        if self._moved is not None:
            images = self._moved(images, self._generator)
        for begin in range(0, len(self), batch_size or len(self)):
            chosen = slice(begin, begin + (batch_size or len(self)))
            yield [images[chosen], labels[chosen]]


def main(folder: Path) -> None:
    """Run the rounds."""
    torch.set_num_threads(1)
    order: dict[str, Any] = json.loads((folder / "order.json").read_text())
    torch.manual_seed(order["seed"])
    np.random.seed(order["seed"])
    with np.load(folder / "data.npz") as data:
        images, labels, starts = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]), data["starts"]
        test = PyTorchTensorDataset((torch.from_numpy(data["test_images"]), torch.from_numpy(data["test_labels"])))
    problem, generator = load_problem(order["problem"]), np.random.default_rng(order["seed"])
    moved = problem.augment and problem.augment(problem.settings_with(order["set"]))
    module = Model(build(problem, order["seed"]))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    phones = [
        Phone((images[begin:end], labels[begin:end]), str(number), moved, generator)
        for number, (begin, end) in enumerate(pairwise(starts))
    ]
    # One shuffled row of all phones, over and over: a phone is in a round in so many as there are in a pass.
    row = generator.permutation(len(phones)).tolist()
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
    accuracy = model.evaluate(test, eval_params=NNEvalHyperParams(local_batch_size=EVALUATED_AT_ONCE)).to_simple_dict()
    (last,) = accuracy.values()
    print(json.dumps({"accuracy": float(last), "noise": accountant.noise_parameter}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
