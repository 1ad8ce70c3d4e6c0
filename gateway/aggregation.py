"""The phones' side of learning on a gateway: sums are passed up as they are, models come from above."""

import math

from featherfed.codec.fold import Fold
from featherfed.codec.pipeline import Pipeline
from featherfed.fingerprint import Fingerprint
from featherfed.gateway.round_exchange import News, RoundExchange
from featherfed.initial_weights import InitialWeights
from featherfed.rules.server_optimizer import ServerState
from featherfed.server.config import RunConfig
from featherfed.server.model.aggregation import Aggregator, Closing
from featherfed.server.model.run_rules import load_plugins, rules_of
from featherfed.server.model.versions import Versions
from featherfed.wire.messages import Welcome, tensor_rows


class GatewayAggregator(Aggregator):
    """Folds as the root would, to the bit; steps and evaluates nothing, and needs no data."""

    def __init__(self, config: RunConfig, exchange: RoundExchange, welcome: Welcome) -> None:
        """`welcome` is the root's, with all of its tensors: a gateway needs none of the problem's code."""
        load_plugins(config)
        self._config = config
        self._rules = rules_of(config)
        self._exchange = exchange
        self.problem = welcome.problem
        self.fingerprint = Fingerprint.of_rows(tensor_rows(welcome.tensors))
        self.layout = self.fingerprint.layout
        # Its phones draw them as it did itself.
        told = welcome.initial
        self.initial = InitialWeights.of_wire(told, welcome.initial_digest) if told else None
        self.uplink = Pipeline.parse(config.uplink)
        self.versions = Versions(self.layout, Pipeline.parse(config.downlink, direction="downlink"), config.seed)
        self._state = ServerState(self.versions.view)
        self._memory = {}
        self._average = self._state.weights
        self._set_limits(welcome.max_examples)
        self._buffered, self._fresh_weight = False, 0
        self._fold = None
        self.open_round = 0
        self.measures = ()
        self.best_score = -math.inf

    def adopt(self, news: News) -> None:
        """Take the model that a round of the root's begins with."""
        if news.round_number - 1 != self.versions.version:
            self.versions.adopt(news.round_number - 1, news.weights, news.payload)
            self._state = ServerState(news.weights)
            self._average = news.weights

    def close(self, round_number: int) -> Closing:
        """Hand up the round's sum, and wait for the next round's model; the root may be further by then.

        Raises `LocalError` where the root is lost meanwhile: the round stays open on the disk.
        """
        assert isinstance(self._fold, Fold), "a round is closed once, after it was opened"
        news = self._exchange.give(round_number, self._fold.to_bytes())
        self._fold = None
        if news is None:
            return Closing(round_number, None, False, over=True)
        self.adopt(news)
        return Closing(news.round_number - 1, None, False, following=news.round_number)
