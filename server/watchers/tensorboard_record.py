"""A run as TensorBoard event files: one scalar a round and figure."""

import math
from pathlib import Path
from types import TracebackType
from typing import Self

from featherfed.errors import ConfigError
from featherfed.server.config import RunConfig
from featherfed.server.watchers.watcher import RoundSummary, Watcher

FLUSH_S = 5


class TensorBoardRecord(Watcher):
    """Writes from a thread of the library's own, so a slow disk holds up nothing."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Raises `ConfigError` where the folder cannot be written."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(folder, flush_secs=FLUSH_S)
        except OSError as error:
            raise ConfigError(f"--tensorboard: cannot write {folder}: {error.strerror}") from error
        self._writer.add_text("command", f"`{config.command()}`")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def round_closed(self, summary: RoundSummary) -> None:
        """Add the round's scalars."""
        for name, value in scalars(summary).items():
            self._writer.add_scalar(name, value, summary.round_number)


def scalars(summary: RoundSummary) -> dict[str, float]:
    """Return what is recorded of a round; figures that were not measured are left out."""
    figures = {
        **{f"test/{name}": value for name, value in summary.figures.items()},
        "bytes/uplink": summary.spent.up,
        "bytes/downlink": summary.spent.down,
        "bytes/both": summary.spent.both,
        "bytes/handshake": summary.spent.handshakes,
        "privacy/epsilon": summary.epsilon,
        "round/seconds": summary.seconds,
        "round/accepted": summary.accepted,
        "round/late": summary.late,
        "round/failed": summary.failed,
    }
    return {name: float(value) for name, value in figures.items() if value is not None and math.isfinite(value)}
