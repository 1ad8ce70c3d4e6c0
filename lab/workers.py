"""`python -m lab workers`: a round of a simulated run, on one worker and on several, and its cost without training.

Seconds a round are the median of a run's rounds, each run in a fresh process; the ways take turns, and the ratio is
that of the medians of all turns. The workers are there before the first round that counts. Beside it stands what the
machine gave at that time: how much faster two such runs on one worker each are done at once than one after the other.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill, kept_or_measured
from lab.long_work import Tell, long_work
from lab.virtual import _fresh

if TYPE_CHECKING:
    from featherfed.server.config import RunConfig
    from featherfed.side_by_side import Workers

Given = tuple[dict[str, Any], bool, int, str | None]
"""Settings, whether phones train, so many workers, and the address of the Ray cluster whose actors they are."""
PARTS = ("training", "framework", "ray")
FLOAT32 = {"uplink": "float32", "downlink": "float32"}
TWICE = "twice"
"""Two runs at once: what the machine has for two processes that share nothing."""
WAYS = {"1": 1, "2": 2, TWICE: 1}


def _settings(problem: str, rounds: int, codecs: str, **more: Any) -> dict[str, Any]:
    codec = FLOAT32 if codecs == "float32" else {}
    return {
        "problem": problem, "phones": 100, "cohort": 10, "rounds": rounds, "epochs": 1, "batch_size": 10, "lr": 0.05,
        **codec, **more,
    }  # fmt: skip


def timed_run(given: Given, data_dir: str | None) -> dict[str, Any]:
    """Run settings in virtual time; return the seconds of its rounds (but the first), and what its model is.

    `cpu` are those of this process: all that a round takes where it is its only worker.
    """
    import hashlib

    import featherfed.server.model.aggregation  # noqa: F401  (torch: its import is no part of a round)
    from featherfed.server.config import config_from
    from featherfed.server.storage.run_folder import create
    from featherfed.server.watchers.watcher import RoundSummary, Watcher
    from featherfed.simulation import Fleet, simulate

    settings, trains, workers, address = given
    ends_s: list[float] = []
    cpu_s: list[float] = []

    class Clock(Watcher):
        def version_published(self, summary: RoundSummary) -> None:
            # From one to the next is a round, and the evaluation of the one before it.
            ends_s.append(time.perf_counter())
            cpu_s.append(time.process_time())

    config = config_from(settings)
    with (
        tempfile.TemporaryDirectory(prefix="featherfed-workers-") as path,
        ready_workers(config, workers, address) as crew,
    ):
        folder = simulate(
            config, lambda: create(Path(path), "run", config), Fleet(trains=trains), data_dir=data_dir, watcher=Clock(),
            workers=crew,
        )  # fmt: skip
        model = hashlib.sha256(folder.model.read_bytes()).hexdigest()[:16]
    seconds, cpu = ([end - begin for begin, end in itertools.pairwise(each)] for each in (ends_s, cpu_s))
    return {"seconds": seconds, "cpu": cpu, "model": model}


@contextmanager
def ready_workers(config: "RunConfig", workers: int, address: str | None = None) -> Iterator["Workers"]:
    """Give the workers of a run, which are ready: processes here, or actors of a cluster."""
    from featherfed.edge_client.training_crew import TrainingProcesses, TrainJob
    from featherfed.edge_client.training_host import HostPlan
    from featherfed.side_by_side import Workers

    plan = HostPlan.here(config.problem)

    def processes(size: int) -> TrainingProcesses:
        crew = TrainingProcesses(size, plan)
        while crew.room(TrainJob, 0) < size:
            crew.answers(block=True)
        return crew

    if address is None:
        yield Workers(workers, processes) if workers > 1 else Workers()
        return
    from featherfed.fl_bench.ray_crew import RayCrew
    from featherfed.gateway.ray_cluster import cluster

    with cluster(address) as ray:
        yield Workers(workers, lambda size: RayCrew(ray, size, plan), trains_here=False)


@contextmanager
def _local_cluster(cores: int) -> Iterator[str]:
    """Start a Ray cluster of one node on this machine."""
    from ray.cluster_utils import Cluster

    made: Any = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cores, "object_store_memory": 200_000_000, "include_dashboard": False},
    )
    try:
        yield made.address
    finally:
        made.shutdown()


def _compared(ways: Mapping[str, Given], turns: int, data_dir: str | None, tell: Tell) -> dict[str, Any]:
    """Run each way once a turn; return the medians over all turns, and whether all models are the same."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    models = set()
    for _ in range(turns):
        for way, given in ways.items():
            tell(f"{given[0]['problem']}: {way}")
            rows = _fresh(*[(timed_run, given, data_dir)] * (2 if way == TWICE else 1))
            found[way].append(statistics.mean(statistics.median(row["seconds"]) for row in rows))
            cpu[way].append(statistics.mean(statistics.median(row["cpu"]) for row in rows))
            models |= {row["model"] for row in rows}
    medians, cpu_medians = ({way: statistics.median(each) for way, each in by.items()} for by in (found, cpu))
    return {"medians": medians, "cpu": cpu_medians, "same": len(models) == 1}


def _codecs(model: str) -> tuple[str, ...]:
    return ("float32",) if model != "2nn" else ("float32", "default")


def measure(data_dir: str | None, parts: tuple[str, ...], turns: int, *, small: bool) -> dict[str, Any]:
    """Return the figures of the parts; `small` ones are for tests and mean nothing."""
    from lab.training import machine

    data = "digits" if small else "mnist"
    rounds = {"tiny": 2} if small else {"lite": 5, "2nn": 16, "cnn": 2}
    result: dict[str, Any] = {"machine": machine(), "turns": turns}
    steps = len(WAYS) * sum(len(_codecs(model)) for model in rounds) * ("training" in parts)
    steps += ("framework" in parts) + 3 * ("ray" in parts)
    with long_work(turns * steps) as tell:
        if "training" in parts:
            result["training"] = []
            for model, count in rounds.items():
                for codecs in _codecs(model):
                    settings = _settings(f"{data}/{model}", count + 1, codecs)
                    ways: dict[str, Given] = {name: (settings, True, workers, None) for name, workers in WAYS.items()}
                    row = _compared(ways, turns, data_dir, tell)
                    result["training"].append({"model": model, "codecs": codecs, **row})
        if "framework" in parts:
            settings = _settings(f"{data}/{'tiny' if small else '2nn'}", 3 if small else 21, "float32", eval_every=1000)
            row = _compared({"1": (settings, False, 1, None)}, turns, data_dir, tell)
            model = settings["problem"].partition("/")[2]
            result["framework"] = {"model": model, "seconds": row["medians"]["1"], "cpu": row["cpu"]["1"]}
        if "ray" in parts:
            settings = _settings(f"{data}/{'tiny' if small else 'lite'}", 3 if small else 6, "float32")
            with _local_cluster(2) as address:
                alone: Given = (settings, True, 1, None)
                beside: dict[str, Given] = {"1": alone, "ray": (settings, True, 2, address), TWICE: alone}
                row = _compared(beside, turns, data_dir, tell)
                result["ray"] = {"model": settings["problem"].partition("/")[2], **row}
    return result


def table(result: dict[str, Any]) -> str:
    """Return the table of docs/PERFORMANCE.md."""
    rows = []
    pairs = [(row, row["codecs"], "2", "2 workers") for row in result.get("training", ())]
    if "ray" in result:
        pairs.append((result["ray"], "float32", "ray", "a local Ray cluster of 2"))
    for row, codecs, way, what in pairs:
        one, so, twice = (row["medians"][each] for each in ("1", way, TWICE))
        told = "default codecs" if codecs == "default" else codecs
        same = "yes" if row["same"] else "no"
        rows.append(
            [f"`{row['model']}`, {told}: {what}", f"{one:.3f}", f"{so:.3f}", f"{one / so:.2f}",
             f"{2 * one / twice:.2f}", same]
        )  # fmt: skip
    if "framework" in result:
        row = result["framework"]
        rows.append([f"`{row['model']}`, float32, without training", f"{row['seconds']:.3f}", "–", "–", "–", "–"])
    header = ["a round of ten of 100 phones:", "1 worker, s", "so, s", "× faster", "two runs at once, × faster",
              "same model bit for bit:"]  # fmt: skip
    return markdown(header, rows)


def caption(result: dict[str, Any]) -> str:
    """Return where the figures are from."""
    on, turns = result["machine"], result["turns"]
    return (
        f"{on['cpu']}, {on['cores']} cores; {on['system']}; Python {on['python']}; {turns} turn{'s' * (turns > 1)}."
    )  # fmt: skip


@click.command()
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Measure this only.  [default: all]")
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1), help="How often each way is run.")
@click.option("--small", is_flag=True, help="A size for tests: the figures mean nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def workers(
    data_dir: str | None,
    parts: tuple[str, ...],
    turns: int,
    small: bool,
    as_json: bool,
    kept: tuple[Path, ...],
    document: Path | None,
) -> None:
    """Measure simulated rounds on one worker and on two, on a local Ray cluster, and without training."""
    from featherfed.errors import ConfigError, FeatherfedError

    try:
        result = kept_or_measured(kept, lambda: measure(data_dir, parts or PARTS, turns, small=small))
        made = table(result)
        if document is not None:
            fill(document, {"workers": made, "workers machine": caption(result)})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else made)
