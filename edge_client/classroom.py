"""What the phones of one process need once: a data set, its partition, and a model to train them on, one at a time."""

from featherfed.edge_client.learner import SgdLearner
from featherfed.wire.messages import Welcome


class Classroom:
    """Learners that share all but their examples; their trainings must take turns."""

    def __init__(self, welcome: Welcome, data_dir: str | None, device: str) -> None:
        # torch takes seconds to import: only phones that train pay for it.
        from featherfed.learning.data import Shards
        from featherfed.learning.flat import FlatModel
        from featherfed.learning.models import build

        self._device = device
        self._shards = Shards(welcome.data, data_dir, welcome.partition, welcome.shards, welcome.seed)
        self._model = FlatModel(build(welcome.model, 0), device)

    def learner(self, welcome: Welcome) -> SgdLearner:
        """Return the learner of one shard of the run that the class was made for."""
        from featherfed.learning.training import Trainer

        trainer = Trainer(welcome.model, self._shards.examples(welcome.shard), self._device, model=self._model)
        return SgdLearner(welcome, trainer)
