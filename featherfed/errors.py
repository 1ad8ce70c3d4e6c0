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
        ├── VersionError      another version of our protocol
        ├── CodecError        a payload that does not decode to what was announced
        └── RefusedError      understood and refused: admission, limits, a wrong digest

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


class VersionError(RemoteError):
    """Another version of our protocol."""

    code = 4002


class CodecError(RemoteError):
    """A payload that does not decode to what was announced."""

    code = 4003


class RefusedError(RemoteError):
    """Understood, and refused."""

    code = 4004
