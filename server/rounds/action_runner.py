"""What the round machine says is done: its actions become tasks of phones, files, rows and the next round's sum."""

from featherfed.server.model.run_model import RunModel
from featherfed.server.rounds.assignments import Assignments
from featherfed.server.rounds.closing import RoundCloser
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import (
    Action,
    Assign,
    CancelPhones,
    CloseRound,
    Deadline,
    Finished,
    OpenRound,
    Pause,
)
from featherfed.server.rounds.resume_point import put_facts
from featherfed.server.rounds.upload_register import UploadRegister
from featherfed.server.run_tasks import RunTasks
from featherfed.server.storage.run_storage import RunStorage
from featherfed.server.watchers.watcher import Watcher


class ActionRunner:
    """The `Hands` of a `CurrentRound`."""

    def __init__(
        self,
        model: RunModel,
        storage: RunStorage,
        uploads: UploadRegister,
        assignments: Assignments,
        closer: RoundCloser,
        watcher: Watcher,
        tasks: RunTasks,
    ) -> None:
        self._model = model
        self._commits = storage.commits
        self._uploads = uploads
        self._assignments = assignments
        self._closer = closer
        self._watcher = watcher
        self._tasks = tasks

    def carry_out(self, action: Action, current: CurrentRound) -> None:
        """Do what the machine says, or begin it: returns at once."""
        match action:
            case OpenRound():
                self._open_round(action, current)
            case Assign(shard):
                self._assignments.assign(shard, current)
            case CancelPhones(round_number, shards):
                self._commits.queue(*self._uploads.waste_unwanted(current.state))
                self._assignments.cancel(round_number, shards)
            case CloseRound():
                self._assignments.stop_deadline()
                self._tasks.spawn(self._closer.close(action, current, self._assignments.late))
            case Finished():
                self._commits.queue(*self._uploads.waste_unwanted(current.state))
                self._tasks.end(None)
            case Pause(reason):
                self._tasks.end(reason)

    def stop(self) -> None:
        """Begin nothing more by itself."""
        self._assignments.stop_deadline()

    def _open_round(self, action: OpenRound, current: CurrentRound) -> None:
        # Another attempt of a round, and a round that is resumed, go on with the sum that there is.
        if self._model.sum.open_round != action.round_number:
            self._model.sum.open(action.round_number)
            current.restart_clock()
            self._assignments.late.clear()
        facts = [put_facts(current.state.facts)] if current.state.facts else []
        self._commits.queue(current.row(), *facts)
        self._watcher.round_opened(action.round_number, action.attempt, current.state.cohort)
        self._assignments.start_deadline(Deadline(action.round_number, action.attempt), current)
        for shard in action.cohort:
            self._assignments.assign(shard, current)
