"""What a phone is told of the run that it comes to."""

from featherfed.codec.pipeline import Pipeline
from featherfed.fingerprint import Fingerprint
from featherfed.initial_weights import InitialWeights
from featherfed.server.config import RunConfig
from featherfed.wire.messages import NOTHING, Hello, Welcome, tensor_entries


class Welcomes:
    """Makes the Welcomes of a run."""

    def __init__(
        self,
        config: RunConfig,
        run: str,
        problem: str,
        *,
        shards: int,
        known: Fingerprint,
        initial: InitialWeights | None,
        max_examples: int,
    ) -> None:
        """`known` is the run's model; `initial` says how its first weights are drawn, None where they travel."""
        self._config, self._run, self._problem = config, run, problem
        self._shards, self._known, self._initial, self._max_examples = shards, known, initial, max_examples

    def held_version(self, hello: Hello) -> int:
        """Return which version a phone holds once it is welcomed: who is new to the run draws version 0.

        Who comes back to it and holds nothing has not been able to.
        """
        if hello.run == self._run:
            return hello.held_version
        return NOTHING if self._initial is None else 0

    def answer(self, hello: Hello, shard: int) -> Welcome:
        """Return the Welcome of the phone that plays `shard`."""
        config, known, initial = self._config, self._known, self._initial
        knows_model = hello.model_digest == known.digest
        if knows_model and hello.run == self._run:
            initial = None
        return Welcome(
            self._run,
            self._problem,
            config.partition,
            shard,
            self._shards,
            config.seed,
            self._max_examples,
            # A whole number takes a byte in place of nine.
            int(config.heartbeat) if config.heartbeat.is_integer() else config.heartbeat,
            # Written out where the operator named a preset: a phone need not know the presets of this release.
            str(Pipeline.parse(config.uplink)),
            str(Pipeline.parse(config.downlink, direction="downlink")),
            config.training().to_wire(),
            b"" if initial is None else initial.digest,
            [] if initial is None else initial.to_wire(),
            [] if knows_model else tensor_entries(known.rows()),
        )
