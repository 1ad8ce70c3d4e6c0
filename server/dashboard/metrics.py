"""What Prometheus scrapes: sums over phones, so that a million of them make no more series than ten."""

import math
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from featherfed.server.dashboard.scene import Scene
from featherfed.server.dashboard.view import PhoneState, RoundRow, parts
from featherfed.server.storage.report import ACCURACY

ROUND_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds of the histogram's buckets."""


class RunCollector(Collector):
    """Reads a scene when it is scraped."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        self._scene.look()
        yield from self._run()
        yield from self._phones()
        yield from self._bytes()

    def _run(self) -> Iterator[Metric]:
        scene, about = self._scene, self._scene.about
        info = InfoMetricFamily("featherfed_run", "What is run.")
        settings = {name: str(about.settings[name]) for name in ("problem", "uplink", "downlink")}
        info.add_metric([], {"run": about.name, **settings})
        yield info
        rows = [row for _, row in sorted(scene.rounds.items())]
        closed = [row for row in rows if row.state == "closed"]
        yield CounterMetricFamily("featherfed_rounds", "Rounds that are closed.", value=len(closed))
        yield GaugeMetricFamily("featherfed_rounds_planned", "Rounds of the whole run.", value=about.rounds)
        yield _histogram(closed)
        updates = CounterMetricFamily(
            "featherfed_updates",
            "Updates that were asked for in closed rounds, by what became of them.",
            labels=["outcome"],
        )
        for outcome in ("accepted", "late", "failed"):
            updates.add_metric([outcome], sum(getattr(row, outcome) for row in closed))
        yield updates
        if private := [row.epsilon for row in closed if row.epsilon is not None]:
            yield GaugeMetricFamily(
                "featherfed_privacy_epsilon",
                "What closed rounds have said of a phone at most, with the run's δ.",
                value=private[-1],
            )
        yield from _evaluated([row for row in closed if row.loss is not None or row.metrics])

    def _phones(self) -> Iterator[Metric]:
        scene = self._scene
        phones = GaugeMetricFamily("featherfed_phones", "Phones, by what they are doing.", labels=["state"])
        states = scene.states()
        for state in PhoneState:
            phones.add_metric([state.name.lower()], states[state])
        yield phones
        yield GaugeMetricFamily("featherfed_phones_expected", "Phones of the run.", value=scene.about.phones)
        faults = CounterMetricFamily(
            "featherfed_faults", "Connections that were ended for what a phone did, by close code.", labels=["code"]
        )
        for code, count in sorted(scene.fault_codes.items()):
            faults.add_metric([str(code)], count)
        yield faults

    def _bytes(self) -> Iterator[Metric]:
        traffic = CounterMetricFamily(
            "featherfed_traffic_bytes",
            "Bytes of all sockets, by direction and by what they were spent on; the kinds are disjoint.",
            labels=["direction", "kind"],
        )
        for way, total in self._scene.totals().items():
            for kind, amount in parts(total).items():
                traffic.add_metric([way, kind], amount)
        yield traffic


def _evaluated(rows: Sequence[RoundRow]) -> Iterator[Metric]:
    """Yield what the newest evaluation says: what is no number as NaN, for which Prometheus has a word."""
    if not rows:
        return
    loss = math.nan if rows[-1].loss is None else rows[-1].loss
    metrics = {name: math.nan if value is None else value for name, value in rows[-1].metrics.items()}
    yield GaugeMetricFamily("featherfed_test_loss", "Of the newest model that was evaluated.", value=loss)
    if metrics:
        of_all = GaugeMetricFamily(
            "featherfed_metric", "The problem's metrics on its test set, of the newest model that was evaluated.",
            labels=["name"],
        )  # fmt: skip
        for name, value in metrics.items():
            of_all.add_metric([name], value)
        yield of_all
    if ACCURACY in metrics:
        yield GaugeMetricFamily(
            "featherfed_test_accuracy_ratio", "The metric accuracy, 0 to 1.", value=metrics[ACCURACY]
        )


def _histogram(closed: Iterable[RoundRow]) -> Metric:
    durations = [row.seconds for row in closed if row.seconds is not None]
    buckets = [(str(bound), float(sum(each <= bound for each in durations))) for bound in ROUND_SECONDS]
    return HistogramMetricFamily(
        "featherfed_round_duration_seconds",
        "Of closed rounds, from their opening to the durable model.",
        buckets=[*buckets, ("+Inf", float(len(durations)))],
        sum_value=sum(durations),
    )


class Metrics:
    """A registry of this run's own: nothing that another library registered is in it."""

    def __init__(self, scene: Scene) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(RunCollector(scene))
        ProcessCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """Return body and content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
