"""How a phone trains in a round, and how its update travels: what Welcome said, with what the Task changes."""

from dataclasses import dataclass, fields
from typing import Any

from msgspec.structs import replace

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


def spelled_out(welcome: Welcome, task: Task) -> Task:
    """Return the task with all settings of its round, for who has heard another Welcome of the run.

    Each Welcome has the settings of the round in which it was said, and what a Task changes is other than those.
    """
    told = dict(zip((each.name for each in fields(Training)), welcome.training, strict=False))
    return replace(task, changes={UPLINK: welcome.uplink, **told, **task.changes})


class RunSettings:
    """What a Welcome said, read once; raises `ProtocolError` for what this phone cannot do."""

    def __init__(self, welcome: Welcome) -> None:
        self._training = Training.from_wire(welcome.training)
        self._uplinks = {welcome.uplink: buildable(welcome.uplink, UPLINK)}
        """That of Welcome, and the last other one: a pipeline costs more to build than a small update to encode."""
        self._told: dict[str, Any] = {}
        self._changed = self._training
        """What the last Task's changes made of it."""

    def in_round(self, task: Task) -> RoundSettings:
        """Return what holds in the round of a task; raises `ProtocolError` for what this phone cannot do."""
        changes = dict(task.changes)
        first = next(iter(self._uplinks))
        spec = changes.pop(UPLINK, first)
        if not isinstance(spec, str):
            raise ProtocolError(f"an uplink that is {str(spec)[:64]!r}")
        if spec not in self._uplinks:
            self._uplinks = {first: self._uplinks[first], spec: buildable(spec, UPLINK)}
        try:
            if changes != self._told:
                self._changed, self._told = self._training.changed(changes), changes
            return RoundSettings(self._uplinks[spec], self._changed.in_round(task.round))
        except ConfigError as error:
            raise ProtocolError(f"training in round {task.round} with {error}") from error
