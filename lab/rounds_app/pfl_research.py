"""pfl-research's FedAvg in its simulation; where PFL_WORKER_ADDRESSES names several processes, this is one of them."""

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.selector import get_framework_module
from pfl.metrics import Metrics, StringMetricName, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn.functional import cross_entropy

from featherfed.learning.models import build
from featherfed.problem_loading import load_problem
from lab.rounds_app.given import Given

EVALUATED_AT_ONCE = 500
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
        known = int((self.inner(images).argmax(1) == labels).sum())
        return {KNOWN: Weighted(known, len(labels))}


class Notes(TrainingProcessCallback[Any]):
    """Notes the end of each round; it stands behind the evaluation."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._alone = get_framework_module().distributed.global_rank == 0

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Note it, once."""
        if self._alone:
            figures = aggregate_metrics.to_simple_dict()
            known = figures.get(str(StringMetricName(f"Central val | {KNOWN}")))
            updates = next(value for name, value in figures.items() if "number of devices" in name)
            self._given.note(int(updates), None if known is None else float(known))
        return False, Metrics()


def main(folder: Path) -> None:
    """Run the rounds."""
    torch.set_num_threads(1)
    given = Given.read(folder)
    inner = build(load_problem(given.order.problem), 0)
    inner.load_state_dict({name: torch.from_numpy(array) for name, array in given.weights.items()})
    module = Model(inner)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    phones = [
        PyTorchTensorDataset((torch.from_numpy(images), torch.from_numpy(labels)), user_id=str(number))
        for number, (images, labels) in enumerate(given.shards)
    ]
    order = list(chain.from_iterable(given.cohorts))
    data = FederatedDataset(lambda number: phones[number], MinimizeReuseUserSampler(order))
    rounds, cohort = len(given.cohorts), len(given.cohorts[0])
    test = PyTorchTensorDataset(tuple(map(torch.from_numpy, given.test)))
    evaluation = CentralEvaluationCallback(test, NNEvalHyperParams(local_batch_size=EVALUATED_AT_ONCE))
    FederatedAveraging().run(
        # No phone evaluates before and after it trains, but in the first round, where it always does.
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=cohort,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(
            local_batch_size=given.order.batch_size,
            local_num_epochs=given.order.epochs,
            local_learning_rate=given.order.lr,
        ),
        callbacks=[evaluation, Notes(given)],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
