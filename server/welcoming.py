"""What a phone is told of the run that it comes to."""

from featherfed.codec.abilities import check_able
from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.pipeline import Pipeline
from featherfed.server.circle_plan import clip_of
from featherfed.server.config import RunConfig
from featherfed.server.model.run_model import RunModel
from featherfed.wire.messages import NOTHING, Hello, Welcome, tensor_entries


class Welcomes:
    """Makes the Welcomes of a run."""

    def __init__(self, config: RunConfig, run: str, model: RunModel, *, shards: int) -> None:
        self._config, self._run, self._model, self._shards = config, run, model, shards

    def check(self, hello: Hello, round_number: int) -> None:
        """Raise `RefusedError` for a phone that could not do what this round or a later one asks for."""
        config = self._config
        later = [each for each in config.later.get("uplink", ()) if each > round_number]
        check_able(hello.stages, [config.uplink_at(each) for each in (round_number, *later)], config.downlink)

    def held_version(self, hello: Hello) -> int:
        """Return which version a phone holds once it is welcomed: who is new to the run draws version 0.

        Who comes back to it and holds nothing has not been able to.
        """
        if hello.run == self._run:
            return hello.held_version
        return NOTHING if self._model.initial is None else 0

    def answer(self, hello: Hello, shard: int, round_number: int) -> Welcome:
        """Return the Welcome of the phone that plays `shard`, with the settings of a round."""
        config, known, initial = self._config, self._model.fingerprint, self._model.initial
        circles = self._model.sum.circles
        promise = None if circles is None else circles.promise
        knows_model = hello.model_digest == known.digest
        if knows_model and hello.run == self._run:
            initial = None
        return Welcome(
            self._run,
            self._model.problem,
            config.partition,
            shard,
            self._shards,
            config.seed,
            self._model.sum.max_examples,
            # A whole number takes a byte in place of nine.
            int(config.heartbeat) if config.heartbeat.is_integer() else config.heartbeat,
            # Written out where the operator named a preset: a phone need not know the presets of this release.
            str(Pipeline.parse(config.uplink_at(round_number))),
            str(parse_downlink(config.downlink)),
            config.training(round_number).to_wire(),
            b"" if initial is None else initial.digest,
            [] if initial is None else initial.to_wire(),
            [] if knows_model else tensor_entries(known.rows()),
            masked=config.masks,
            clip=self._clip(),
            bounded=circles is not None and circles.noise is not None,
            noise=0 if promise is None else promise.noise_multiplier,
            colluding=0 if promise is None else promise.colluding,
        )

    def _clip(self) -> float:
        """Return to what the phones clip: where a single update is not seen here, and where it must not be longer."""
        if self._model.sum.circles is not None:
            return clip_of(self._config)
        return self._config.clip_norm if self._config.dp else 0.0
