"""How a phone trains in a round, and how its update travels: what Welcome said, with what the Task changes."""

from dataclasses import dataclass, fields

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


def settings_of(welcome: Welcome, task: Task) -> RoundSettings:
    """Return what holds in the round of a task; raises `ProtocolError` for what this phone cannot do."""
    changes = dict(task.changes)
    uplink = changes.pop(UPLINK, welcome.uplink)
    if not isinstance(uplink, str):
        raise ProtocolError(f"an uplink that is {str(uplink)[:64]!r}")
    training = Training.from_wire(welcome.training).changed(changes)
    try:
        return RoundSettings(buildable(uplink, "uplink"), training.in_round(task.round))
    except ConfigError as error:
        raise ProtocolError(f"training in round {task.round} with {error}") from error
