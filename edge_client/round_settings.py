"""How a phone trains in a round, and how its update travels: what Welcome said, with what the Task changes."""

from dataclasses import dataclass

from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.download import buildable
from featherfed.errors import ConfigError, ProtocolError
from featherfed.training_settings import Training
from featherfed.wire.messages import Task, Welcome

UPLINK = "uplink"


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """What holds in one round; the learning rate is that round's."""

    uplink: Pipeline
    training: Training


class RunSettings:
    """What a Welcome said, read once; raises `ProtocolError` for what this phone cannot do."""

    def __init__(self, welcome: Welcome) -> None:
        self._training = Training.from_wire(welcome.training)
        self._uplink = _Uplink(welcome.uplink)
        self._changed = self._uplink
        """The last one that a Task named."""

    def in_round(self, task: Task) -> RoundSettings:
        """Return what holds in the round of a task; raises `ProtocolError` for what this phone cannot do."""
        changes = dict(task.changes)
        uplink, training = self._uplink, self._training
        if UPLINK in changes:
            spec = changes.pop(UPLINK)
            if not isinstance(spec, str):
                raise ProtocolError(f"an uplink that is {str(spec)[:64]!r}")
            if spec != self._changed.spec:
                self._changed = _Uplink(spec)
            uplink = self._changed
        try:
            return RoundSettings(uplink.pipeline, training.changed(changes).in_round(task.round))
        except ConfigError as error:
            raise ProtocolError(f"training in round {task.round} with {error}") from error


class _Uplink:
    """A spec and its pipeline, which costs more to build than a small update to encode."""

    def __init__(self, spec: str) -> None:
        self.spec, self.pipeline = spec, buildable(spec, "uplink")
