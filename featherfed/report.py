"""What a run gave, as plain values: its rounds with bytes both ways and metrics by name, and when a metric was reached.

report = run.simulate(links="3g")
report.rounds[-1].metrics["accuracy"]
report.to("accuracy", 0.97).spent.both
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featherfed.errors import ConfigError, NotReachedError
from featherfed.nearest import nearest
from featherfed.server.storage.ledger import DIRECTIONS, Traffic
from featherfed.server.storage.report import make_report
from featherfed.server.storage.run_folder import RunFolder, existing
from featherfed.server.storage.spent import Spent, running, size
from featherfed.server.storage.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F32 = npt.NDArray[np.float32]
SAVED = "report.json"
AXES = {
    "socket_bytes": "bytes both ways, all phones",
    "uplink_bytes": "bytes up, all phones",
    "downlink_bytes": "bytes down, all phones",
    "seconds": "seconds of the run",
    "round": "round",
}
"""What `Report.plot` can draw a metric against."""


@dataclass(frozen=True, slots=True)
class Round:
    """One closed round.

    `cohort` phones were asked, `accepted` updates count, `late` ones came after the close and `failed` phones sent
    none. `loss` (None: not evaluated) and `metrics`, by name, are the server's model's on the test set. `seconds` is
    what the round took, and `ended_s` the run's clock at its end; `uplink` and `downlink` are the ledger's counts, of
    all phones. `epsilon` is what the run has said of a phone at most up to its end (None: no differential privacy).
    """

    round: int
    cohort: int
    accepted: int
    late: int
    failed: int
    loss: float | None
    metrics: Mapping[str, float]
    seconds: float
    ended_s: float
    uplink: Traffic
    downlink: Traffic
    epsilon: float | None = None

    @property
    def spent(self) -> Spent:
        """Bytes of the sockets of all phones in this round: `up`, `down`, `both`, and `handshakes` beside them."""
        return Spent.of(self.uplink, self.downlink)


@dataclass(frozen=True, slots=True)
class Reached:
    """The first round that reached a value of a metric, and what the run had used at its end.

    `value` is what it reached and `seconds` the run's clock. `spent` are bytes of the sockets of all phones, from the
    first: `up`, `down`, `both`, and `handshakes` beside them; printed it says all four.
    """

    metric: str
    value: float
    round: int
    seconds: float
    spent: Spent


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A run that is over.

    `problem` is its name, `parameters` how many weights are learned, `uplink` and `downlink` the codec specs. `metrics`
    says of each metric, and of the loss, whether higher is better. `weights` are the learned tensors of the server's
    model by name, float32: `module.load_state_dict(…, strict=False)` takes them as tensors. `folder` is the run's, None
    where none was kept.
    """

    problem: str
    parameters: int
    uplink: str
    downlink: str
    seed: int
    rounds: tuple[Round, ...]
    metrics: Mapping[str, bool]
    weights: Mapping[str, F32] = field(compare=False)
    folder: Path | None = None

    def __repr__(self) -> str:
        last = next((each for each in reversed(self.rounds) if each.loss is not None), None)
        known = {name: self.value_of(name, last) for name in self.metrics} if last else {}
        values = [f"{name} {'–' if value is None else format(value, '.4g')}" for name, value in known.items()]
        told = [f"{len(self.rounds)} rounds", *values, str(self.spent), f"{self.seconds:.1f} s"]
        return f"<Report of {self.problem}: {', '.join(told)}>"

    @property
    def spent(self) -> Spent:
        """Bytes of the sockets of all phones in all rounds: `up`, `down`, `both`, and `handshakes` beside them."""
        return sum((each.spent for each in self.rounds), Spent())

    @property
    def seconds(self) -> float:
        """The run's clock at the end of its last round: emulated seconds where it was simulated."""
        return self.rounds[-1].ended_s if self.rounds else 0.0

    def value_of(self, metric: str, of: Round) -> float | None:
        """Return a metric of a round, or its loss; None where the round was not evaluated.

        Raises `ConfigError` for a name that this run does not measure.
        """
        if metric not in self.metrics:
            raise ConfigError(f"the run of {self.problem} measures no {metric!r}{nearest(metric, self.metrics)}")
        return of.loss if metric == "loss" else of.metrics.get(metric)

    def best(self, metric: str | None = None) -> Round:
        """Return the first round with the best value of a metric; raises `NotReachedError` where none was evaluated.

        `metric` None is the first one that the problem has, or the loss.
        """
        metric = metric or self._first_metric()
        known = [(value, each) for each in self.rounds if (value := self._number(metric, each)) is not None]
        if not known:
            raise NotReachedError(f"no round of {self.problem} was evaluated")
        higher = self.metrics[metric]
        return max(known, key=lambda pair: (pair[0] if higher else -pair[0], -pair[1].round))[1]

    def _first_metric(self) -> str:
        return next((each for each in self.metrics if each != "loss"), "loss")

    def to(self, metric: str, value: float) -> Reached:
        """Return the first round that reached a value of a metric, by the metric's own direction.

        Raises `NotReachedError` where no round did, and `ConfigError` for a metric that there is not.
        """
        higher = self.metrics.get(metric, True)
        for each, spent in self._running():
            there = self._number(metric, each)
            if there is not None and (there >= value if higher else there <= value):
                return Reached(metric, there, each.round, each.ended_s, spent)
        best = self.best(metric)
        raise NotReachedError(
            f"{metric} {value:g} was not reached in {len(self.rounds)} rounds; the best is"
            f" {self.value_of(metric, best):g} in round {best.round}"
        )

    def to_accuracy(self, value: float) -> Reached:
        """Return `to("accuracy", value)`."""
        return self.to("accuracy", value)

    def _running(self) -> Iterator[tuple[Round, Spent]]:
        return zip(self.rounds, running(each.spent for each in self.rounds), strict=True)

    def _number(self, metric: str, of: Round) -> float | None:
        value = self.value_of(metric, of)
        return None if value is None or math.isnan(value) else value

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return a flat row for each round, for data frames.

        Metrics and loss are there by name, bytes as `uplink_socket`, …; `socket` and `handshake` are sums of both ways.
        `epsilon` is there for runs with differential privacy.
        """
        rows, private = [], any(each.epsilon is not None for each in self.rounds)
        for each in self.rounds:
            row = asdict(each)
            figures = {name: self.value_of(name, each) for name in self.metrics}
            traffic = {f"{way}_{name}": count for way in ("uplink", "downlink") for name, count in row.pop(way).items()}
            del row["metrics"]
            if not private:
                del row["epsilon"]
            both = {"socket": each.spent.both, "handshake": each.spent.handshakes}
            rows.append({**row, **figures, **traffic, **both})
        return rows

    def save(self, folder: str | Path) -> None:
        """Write `report.json`, `rounds.csv` and `model.safetensors` to a new folder; raises `ConfigError`.

        `Report.load` reads them.
        """
        from safetensors.numpy import save_file

        path, rows = Path(folder), self.as_dicts()
        content = {
            "problem": self.problem, "parameters": self.parameters, "uplink": self.uplink, "downlink": self.downlink,
            "seed": self.seed, "metrics": dict(self.metrics), "rounds": rows,
        }  # fmt: skip
        try:
            path.mkdir(parents=True)
            (path / SAVED).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            with open(path / "rounds.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            save_file(dict(self.weights), path / "model.safetensors")
        except FileExistsError as error:
            raise ConfigError(f"the folder {path} exists; choose another one for the report") from error
        except OSError as error:
            raise ConfigError(f"cannot write the report to {path}: {error.strerror}") from error

    def plot(
        self,
        metric: str | None = None,
        *,
        against: str = "socket_bytes",
        label: str | None = None,
        axes: "Axes | None" = None,
    ) -> "Axes":
        """Draw a metric against what the run used until then, and return matplotlib's axes.

        `metric` None is the first one that the problem has, or the loss. `against` is `socket_bytes` (both ways),
        `uplink_bytes`, `downlink_bytes`, `seconds` or `round`. `axes` are those of another plot, to compare; `label` is
        this run's name in the legend, by default its uplink. Raises `ConfigError`.
        """
        name = metric or self._first_metric()
        if against not in AXES:
            raise ConfigError(f"against = {against!r} is nothing to plot against{nearest(against, AXES)}")
        points = []
        for each, spent in self._running():
            used = {
                "socket_bytes": spent.both,
                "uplink_bytes": spent.up,
                "downlink_bytes": spent.down,
                "seconds": each.ended_s,
                "round": each.round,
            }[against]
            value = self.value_of(name, each)
            if value is not None:
                points.append((used, value))
        if axes is None:
            # pyplot: what it makes is shown at once in a notebook, and by pyplot.show() elsewhere.
            from matplotlib import pyplot

            axes = pyplot.subplots()[1]
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label or self.uplink)
        if against.endswith("bytes"):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, place: size(int(x)))
        axes.set_xlabel(AXES[against])
        axes.set_ylabel(name)
        axes.legend()
        return axes

    @classmethod
    def load(cls, folder: str | Path) -> "Report":
        """Return the report that `save` wrote to a folder; raises `ConfigError` where there is none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(folder)
        try:
            content = json.loads((path / SAVED).read_text(encoding="utf-8"))
            plain = {name: content[name] for name in ("problem", "parameters", "uplink", "downlink", "seed", "metrics")}
            rounds = tuple(_saved_round(row, content["metrics"]) for row in content["rounds"])
            return cls(**plain, rounds=rounds, weights=load_file(path / "model.safetensors"))
        except OSError as error:
            way_out = "; Report.read reads the folder of a run" if (path / "run.sqlite").exists() else ""
            raise ConfigError(f"{path} holds no saved report: {error.strerror or error}{way_out}") from error
        except KeyError as error:
            raise ConfigError(f"{path / SAVED} is no saved report: it has no {error}") from error
        except (ValueError, TypeError, AttributeError, SafetensorError) as error:
            raise ConfigError(f"{path} is no saved report: {error}") from error

    @classmethod
    def read(cls, folder: str | Path) -> "Report":
        """Return the report of a run's folder, of `Experiment.serve` or `fl-server serve`; raises `ConfigError`.

        That is what `simulate(folder=…)` keeps, too; a folder of `Report.save` is for `Report.load`.
        """
        path = Path(folder)
        run, config = existing(path)
        store = Store(run.database)
        try:
            content = make_report(run, config, store).content
        finally:
            store.close()
        return cls(
            problem=config.problem, parameters=content["parameters"], uplink=config.spelled("uplink"),
            downlink=config.downlink, seed=config.seed, weights=_weights(run), folder=path,
            metrics={each["name"]: each["higher_is_better"] for each in content["measures"]},
            rounds=tuple(_round(row) for row in content["rounds"] if row["state"] == "closed"),
        )  # fmt: skip


_PLAIN = ("round", "cohort", "accepted", "late", "failed", "loss", "seconds", "ended_s")


def _round(row: Mapping[str, Any]) -> Round:
    plain = {name: row[name] for name in (*_PLAIN, "metrics")}
    up, down = (Traffic(**row[way]) for way in DIRECTIONS)
    return Round(**plain, uplink=up, downlink=down, epsilon=row.get("epsilon"))


def _saved_round(row: Mapping[str, Any], metrics: Mapping[str, bool]) -> Round:
    """Return the round of a row of `Report.as_dicts`."""
    plain = {name: row[name] for name in _PLAIN}
    up, down = (Traffic(**{each.name: row[f"{way}_{each.name}"] for each in fields(Traffic)}) for way in DIRECTIONS)
    values = {name: row[name] for name in metrics if name != "loss" and row[name] is not None}
    return Round(**plain, metrics=values, uplink=up, downlink=down, epsilon=row.get("epsilon"))


def _weights(run: RunFolder) -> dict[str, F32]:
    from safetensors.numpy import load_file

    if not run.model.exists():
        return {}
    prefix = "model."
    return {
        name.removeprefix(prefix): tensor for name, tensor in load_file(run.model).items() if name.startswith(prefix)
    }
