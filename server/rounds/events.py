"""What the round machines hear and say: events come in, actions are to be carried out in their order."""

from dataclasses import dataclass

from featherfed.privacy.accounting import Price
from featherfed.server.rounds.circle import Opened as CircleOpened
from featherfed.server.rounds.circle import SentList


@dataclass(frozen=True, slots=True)
class Joined:
    """The phone of a shard is connected; its link's name and what it carries up, as far as the phone says."""

    shard: int
    link: str = ""
    bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """The phone of a shard has been away for longer than the grace time; it may still come back."""

    shard: int


@dataclass(frozen=True, slots=True)
class Accept:
    """A valid update is durable; of how many examples, and how long after its task.

    It is in the sum, or, where circles are summed, waits for its circle.
    """

    shard: int
    round_number: int
    examples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Fail:
    """A phone of the cohort sent what cannot count; it is not asked again in this round."""

    shard: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A phone said that it cannot train, and is gone; it may come back."""

    shard: int


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time is up for one attempt of one round."""

    round_number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The round's model is durable; `reached` says that no other round is needed.

    `following` is the next round where that is not the one after: a gateway follows its root.
    """

    round_number: int
    reached: bool
    following: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A gateway's root is in this round; `life` says how many times the gateway has come to it without its memory."""

    round_number: int
    life: int = 0


@dataclass(frozen=True, slots=True)
class Resume:
    """The server is back: go on from the state that the disk gave; `reached` as in the last `Closed`."""

    reached: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """The operator ends the run."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The phone of a shard has answered a list of survivors of its circle."""

    round_number: int
    shard: int
    attempt: int
    version: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Time is up for the answers to a list."""

    round_number: int
    attempt: int
    circle: int
    version: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of `OpenCircle`: the circle's sum is in the round's sum, or `outcome` says why it is not.

    `price` is what it cost each of its survivors, where a sum costs once it can be opened.
    """

    round_number: int
    attempt: int
    circle: int
    outcome: CircleOpened
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Ask these phones, and let the deadline run."""

    round_number: int
    attempt: int
    cohort: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a phone that came (back) the open round's task."""

    shard: int


@dataclass(frozen=True, slots=True)
class CancelPhones:
    """Tell these phones to stop their work on a round."""

    round_number: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Make the next version of what was accepted, durable, then report `Closed`."""

    round_number: int
    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget what has come of a round and is in no sum: another attempt has other masks."""

    round_number: int


@dataclass(frozen=True, slots=True)
class EndUploads:
    """Take no more updates in this attempt of a round: on the disk before a phone is told."""

    round_number: int


@dataclass(frozen=True, slots=True)
class SendList:
    """Send a list of survivors to these members of a circle, and wait for their answers."""

    circle: int
    list_: SentList
    to: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpenCircle:
    """Add the sum of a circle to the round's sum, then report `Opened`."""

    circle: int


@dataclass(frozen=True, slots=True)
class Count:
    """The updates of these phones of a circle are in the sum: tell them when that is durable."""

    round_number: int
    circle: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """All rounds are done, or the target is reached."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The run cannot or shall not go on now; its state is kept."""

    reason: str


Event = Joined | Lost | GaveUp | Accept | Fail | Deadline | Closed | Asked | Resume | Stop | Answered | Expired | Opened
Action = (
    OpenRound
    | Assign
    | CancelPhones
    | CloseRound
    | Finished
    | Pause
    | EndUploads
    | Discard
    | SendList
    | OpenCircle
    | Count
)
