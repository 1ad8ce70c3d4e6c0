"""The hands of a round whose circles are summed: what concerns circles is `Unmasking`'s, all else as in any round."""

from featherfed.server.rounds.action_runner import ActionRunner
from featherfed.server.rounds.circle_book import CircleBook
from featherfed.server.rounds.current_round import CurrentRound
from featherfed.server.rounds.events import Action, Count, Discard, EndUploads, OpenCircle, OpenRound, SendList
from featherfed.server.rounds.summed_machine import SummedState
from featherfed.server.rounds.unmasking import Unmasking
from featherfed.server.storage.commits import Commits
from featherfed.server.watchers.watcher import Watcher


class CircleHands:
    """The `Hands` of a `CurrentRound` with circles."""

    def __init__(
        self, hands: ActionRunner, unmasking: Unmasking, book: CircleBook, commits: Commits, watcher: Watcher
    ) -> None:
        self._hands = hands
        self._watcher = watcher
        self._book = book
        self._unmasking = unmasking
        self._commits = commits

    def carry_out(self, action: Action, current: CurrentRound) -> None:
        """Do what the machine says, or begin it: returns at once."""
        state = current.state
        assert isinstance(state, SummedState), "the machine of a run that sums circles"
        match action:
            case SendList():
                self._unmasking.send_list(action, state, current)
            case OpenCircle():
                self._unmasking.open_circle(action, state, current)
            case Count():
                self._unmasking.count(action, state)
                for shard in action.shards:
                    self._watcher.update_accepted(shard, action.round_number, state.count, state.target)
            case EndUploads():
                # A phone that is called off forgets its secrets of the attempt: a server that is killed must not ask
                # it for them again.
                self._book.kept = self._commits.queue(*self._unmasking.rows(state))
            case Discard():
                self._unmasking.discard(action)
            case OpenRound():
                self._unmasking.begin(state.round_number)
                if state.rules.total and not state.cohort and (drawn := state.rules.asked(state.round_number)):
                    self._watcher.note(
                        f"round {state.round_number} asks {drawn} phones of this gateway, fewer than the"
                        f" {state.plans.at(state.round_number).least} of a masked circle: they send nothing"
                    )
                # No phone is told of a circle that a killed server could deal otherwise.
                self._book.kept = self._commits.queue(*self._unmasking.rows(state))
                self._hands.carry_out(action, current)
            case _:
                self._hands.carry_out(action, current)

    def stop(self) -> None:
        """Begin nothing more by itself."""
        self._unmasking.stop()
        self._hands.stop()
