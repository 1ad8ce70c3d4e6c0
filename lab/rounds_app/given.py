"""What each program is given, and what it notes: files, so that no environment needs more than numpy for them."""

import itertools
import json
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.orders import Order

_GIVEN, _NOTES = "given.json", "notes.jsonl"


@dataclass(frozen=True)
class Given:
    """Rounds to run, as ordered: `cohorts` names each one's phones; all start from the weights in `weights.npz`.

    `layers` describes the model as a chain, as a browser's phone is told (docs/BROWSER.md).
    """

    folder: str
    order: Order
    cohorts: list[list[int]]
    layers: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Given":
        """Read what was written into a folder."""
        said = json.loads((folder / _GIVEN).read_text())
        return cls(str(folder), Order(**said["order"]), said["cohorts"], said["layers"])

    def write(self) -> None:
        """Write it into its folder."""
        (Path(self.folder) / _GIVEN).write_text(json.dumps(asdict(self)))

    @cached_property
    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """The first weights by torch's names, in torch's shapes."""
        with np.load(Path(self.folder) / "weights.npz") as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def shards(self) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Each phone's images, (n, 1, 28, 28) and normalised, with their labels (n)."""
        images, labels, starts = (self._array(name) for name in ("images", "labels", "starts"))
        return [(images[start:end], labels[start:end]) for start, end in itertools.pairwise(starts)]

    @property
    def test(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The test set, as a shard."""
        return self._array("test_images"), self._array("test_labels")

    def _array(self, name: str) -> npt.NDArray[Any]:
        with np.load(Path(self.folder) / "data.npz") as file:
            array: npt.NDArray[Any] = file[name]
        return array

    def note(self, updates: int, accuracy: float | None, *, at_s: float | None = None) -> None:
        """Note that a round has ended, now or `at_s` of `time.time`; from one to the next there is one evaluation."""
        with open(Path(self.folder) / _NOTES, "a") as notes:
            notes.write(json.dumps({"s": at_s or time.time(), "updates": updates, "accuracy": accuracy}) + "\n")

    def notes(self) -> list[dict[str, Any]]:
        """Return what was noted of each round: when it ended (`s`, of `time.time`), its updates and its accuracy."""
        notes = Path(self.folder) / _NOTES
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
