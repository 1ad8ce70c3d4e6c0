"""The phones' side of learning on a gateway: sums are passed up as they are, models come from above."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from featherfed.errors import CodecError, LocalError
from featherfed.fingerprint import Fingerprint
from featherfed.gateway.round_exchange import News, RoundExchange
from featherfed.initial_weights import InitialWeights
from featherfed.server.config import RunConfig
from featherfed.server.measures import Measures
from featherfed.server.model.evaluation_work import UnderWay
from featherfed.server.model.model_file import PHONES, after, read_model, titled, under, write_model
from featherfed.server.model.round_sum import RoundSum
from featherfed.server.model.run_model import Closing
from featherfed.server.model.run_rules import load_plugins, rules_of, uplinks_of
from featherfed.server.model.version_kinds import versions_of
from featherfed.wire.messages import Welcome, tensor_rows


class GatewayAggregator:
    """The `RunModel` of a gateway: folds as the root would, to the bit; steps and evaluates nothing."""

    measures: Measures = ()

    def __init__(self, config: RunConfig, exchange: RoundExchange, welcome: Welcome) -> None:
        """`welcome` is the root's, with all of its tensors: a gateway needs neither the problem's code nor its data."""
        load_plugins(config)
        self._exchange = exchange
        self.problem = welcome.problem
        self.fingerprint = Fingerprint.of_rows(tensor_rows(welcome.tensors))
        self._layout = self.fingerprint.layout
        # Its phones draw them as it did itself.
        told = welcome.initial
        self.initial = InitialWeights.of_wire(told, welcome.initial_digest) if told else None
        self.versions = versions_of(config.downlink, self._layout, config.seed)
        self._weights = self.versions.view
        self.sum = RoundSum(
            config,
            uplinks_of(config),
            self._layout,
            rules_of(config).aggregate,
            max_examples=welcome.max_examples,
        )

    @property
    def parameters(self) -> int:
        """Number of coordinates of the model."""
        return self._layout.size

    def adopt(self, news: News) -> None:
        """Take the model that a round of the root's begins with, and its steps where circles are summed.

        Raises `LocalError` for steps that cannot be.
        """
        if self.sum.circles is not None:
            try:
                self.sum.circles.follow(news.round_number, news.steps, news.life)
            except CodecError as error:
                raise LocalError(f"the root announces steps that this gateway cannot follow: {error}") from error
        if news.round_number - 1 != self.versions.version:
            self.versions.adopt(news.round_number - 1, news.weights, news.initial, news.difference)
            self._weights = news.weights

    def close(self, round_number: int) -> Closing:
        """Hand up the round's sum, and wait for the next round's model; the root may be further by then.

        Raises `LocalError` where the root is lost meanwhile: the round stays open on the disk.
        """
        news = self._exchange.give(round_number, self.sum.take_partial())
        if news is None:
            return Closing(round_number, over=True)
        self.adopt(news)
        return Closing(news.round_number - 1, following=news.round_number)

    def evaluation(self) -> UnderWay | None:
        """Return None: it is the root's that has a test set."""
        return None

    def best_so_far(self, values: Mapping[str, float | None]) -> bool:
        """Return False: the best model is the root's."""
        return False

    def save(self, path: Path, *, note: str = "") -> None:
        """Write the root's model and what phones hold of it, and what the root has announced of the next round."""
        title = titled(f"{self.problem}, version {self.versions.version}", note)
        others = under(PHONES, self.versions.saved())
        if self.sum.circles is not None:
            others |= self.sum.circles.saved()
        write_model(path, self._layout, self._weights, others, title=title)

    def restore(self, path: Path, version: int) -> None:
        """Go on with a saved model; raises `ConfigError` for a file that cannot be read."""
        self._weights, tensors = read_model(path, self._layout)
        if self.sum.circles is not None:
            self.sum.circles.restore(tensors)
        self.versions.restore(version, after(PHONES, tensors))

    def recall(self, evaluations: Iterable[Mapping[str, float | None]]) -> None:
        """Do nothing: the best model is the root's."""
