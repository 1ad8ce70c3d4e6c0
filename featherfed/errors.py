"""One error tree.

::

    FeatherfedError
    ├── LocalError            ours: a wrong flag, a missing file, a run folder that cannot be used
    │   ├── ConfigError       a setting that cannot work; the sentence names the way out (exit code 2)
    │   │   ├── SpecError     a codec spec that cannot be built, naming the stages that clash
    │   │   └── ProblemError  a fault in a user's own file, named with its line
    │   ├── DataError         data that cannot be read or downloaded
    │   ├── NotReachedError   a value of a metric that no round of a run reached
    │   ├── DivergedError     training whose loss is no number: no update of this round
    │   └── UnexpectedError   a fault that nobody foresaw: says what and where, for whoever mends it
    └── RemoteError           the other side's fault: ends that connection with a close code, never the round
        ├── ProtocolError     not our protocol: a bad frame, a message out of turn, a wrong length
        │   └── SecrecyError  a message that a phone of a masked round must not answer
        ├── VersionError      another version of our protocol
        ├── CodecError        a payload that does not decode to what was announced
        ├── RefusedError      understood and refused: admission, limits, a wrong digest
        └── OpeningError      a circle whose sum cannot be opened, with the shards at fault where they are known

A sentence is lower case, has no full stop and gives the actual numbers.
"""

import traceback


class FeatherfedError(Exception):
    """The root of everything that this project raises on purpose."""


class LocalError(FeatherfedError):
    """A fault on this side."""


class ConfigError(LocalError):
    """A setting that cannot work."""


class SpecError(ConfigError):
    """A codec spec that cannot be built."""


class ProblemError(ConfigError):
    """A fault in a user's own file: it cannot be imported, raises, or does not fit together."""


class DataError(LocalError):
    """Data that cannot be read or downloaded."""


class UnexpectedError(LocalError):
    """A fault that nobody foresaw, in a sentence; the fault itself is its `__cause__`."""

    def __init__(self, fault: BaseException) -> None:
        self.fault = fault
        self.__cause__ = fault

    def __str__(self) -> str:
        what = f"{type(self.fault).__name__}: {self.fault}" if str(self.fault) else type(self.fault).__name__
        frames = traceback.extract_tb(self.fault.__traceback__)
        return f"{what} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else what


class NotReachedError(LocalError):
    """A value of a metric that no round of a run reached."""


class DivergedError(LocalError):
    """Training went beyond all numbers: this round has no update of this phone, a later one may."""

    def __init__(self, round_number: int, steps: int, lr: float, loss: float) -> None:
        self.round_number, self.steps, self.lr, self.loss = round_number, steps, lr, loss

    def __str__(self) -> str:
        return (
            f"training diverged in round {self.round_number}: after {self.steps} steps with learning rate {self.lr:g}"
            f" the loss is {self.loss:g}; a lower --lr may help"
        )


class RemoteError(FeatherfedError):
    """A fault of the other side.

    `code` is the WebSocket close code (4000-4999, docs/PROTOCOL.md) that ends the connection.
    """

    code = 4000


class ProtocolError(RemoteError):
    """A bad frame, a message out of turn, a wrong length."""

    code = 4001


class SecrecyError(ProtocolError):
    """What a phone of a masked round was asked, and must not do (docs/PRIVACY.md)."""


class SpentError(SecrecyError):
    """A phone that was in a final list of a round, and has nothing more for it; in a later one it may be asked again.

    Whoever asks may be a gateway that has lost its disk: no fault, and nothing to end a connection for.
    """


class VersionError(RemoteError):
    """Another version of our protocol."""

    code = 4002


class CodecError(RemoteError):
    """A payload that does not decode to what was announced."""

    code = 4003


class RefusedError(RemoteError):
    """Understood, and refused."""

    code = 4004


class OpeningError(RemoteError):
    """A circle whose sum cannot be opened: of whom own seeds are lacking, and who is known to have sent wrong parts.

    `lacking` is empty where all seeds were found and the sum is still no sum of the survivors' updates: nobody is known
    to be at fault then.
    """

    code = 4001

    def __init__(self, lacking: frozenset[int] = frozenset(), at_fault: frozenset[int] = frozenset()) -> None:
        self.lacking, self.at_fault = lacking, at_fault

    def __str__(self) -> str:
        if not self.lacking:
            return "the masks of the circle do not cancel: seeds, shares or models differ, and nothing says whose"
        of = ", ".join(map(str, sorted(self.lacking)))
        who = f"; wrong parts came from {', '.join(map(str, sorted(self.at_fault)))}" if self.at_fault else ""
        return f"the shares of the own seeds of {len(self.lacking)} shards ({of}) miss their commitments{who}"
