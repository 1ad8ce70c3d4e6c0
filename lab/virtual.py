"""`python -m lab virtual`: what virtual time costs beside the training itself, without any, and in memory.

training   a run beside a plain loop that makes the same local steps: two processes at the same time, a core each,
           so that whatever else the machine does slows both
rounds     phone-rounds a second where phones send noise: everything but the training
memory     what a fleet needs, all of its phones connected, or those that a round asks
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click

from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill, kept_or_measured
from lab.long_work import long_work
from lab.memory import resident_bytes

PARTS = ("training", "rounds", "memory")
MIX = {"2g": 0.2, "3g": 0.5, "4g": 0.3}
DOWNLINK = "rotate | eden(4)"
TWO_KB = {"tiny": "rotate | eden(2)", "lite": "subsample(1/2) | rotate | eden(1)"}
"""Uplinks whose updates have about 2 kB."""
AIMS = {"training": 1.2, "rounds": 300.0, "memory": 1.4e9}


def _cell(how: dict[str, Any], /, **settings: Any) -> Any:
    from featherfed.fl_bench.scenario import Cell
    from featherfed.server.config import config_from

    return Cell({}, config_from({"downlink": DOWNLINK, **settings}), {"link": MIX, "as": "virtual", **how})


def _training_cell(data: str, phones: int, cohort: int, rounds: int) -> Any:
    # Five epochs in batches of ten, as in the project's issue and in McMahan et al. 2017.
    return _cell(
        {}, problem=f"{data}/lite", phones=phones, cohort=cohort, rounds=rounds, epochs=5, lr=0.05,
        uplink="rotate | eden(1)",
    )  # fmt: skip


def virtual_run(cell: Any, data_dir: str | None) -> dict[str, Any]:
    """Run a cell; return seconds and CPU seconds, what its report counts, and the process's peak memory in bytes."""
    import featherfed.server.model.aggregation  # noqa: F401  (torch: its import is no part of a run)
    from featherfed.fl_bench.cells import report_of, run_virtual

    with tempfile.TemporaryDirectory(prefix="featherfed-virtual-") as folder:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        run_virtual(cell, Path(folder), data_dir)
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        report = report_of(Path(folder) / cell.name)
    peak = resident_bytes("VmHWM")
    updates = sum(row["accepted"] for row in report["rounds"])
    return {
        "phones": cell.config.phones,
        "rounds": len(report["rounds"]),
        "updates": updates,
        "payload_bytes": report["totals"]["uplink"]["payload"] / updates,
        "emulated_s": sum(row["seconds"] for row in report["rounds"]),
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_bytes": peak,
    }


def plain_loop(cell: Any, data_dir: str | None) -> dict[str, Any]:
    """Make a cell's local steps, and nothing else, round by round from the mean of the round before."""
    import numpy as np

    from featherfed.codec.pipeline import Pipeline
    from featherfed.learning.flat import FlatModel
    from featherfed.learning.models import build, layout
    from featherfed.learning.training import Trainer
    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem
    from featherfed.randomness import RoundKey

    config = cell.config
    began_s, cpu_s = time.perf_counter(), time.process_time()
    problem = load_problem(config.problem)
    module = build(problem, config.seed)
    model, trainers = FlatModel(module, "cpu"), dict[int, Trainer]()
    weights = model.weights.numpy().copy()
    generator = np.random.Generator(np.random.PCG64(config.seed))
    steps = 0
    for round_number in range(1, config.rounds + 1):
        settings = config.training().in_round(round_number)
        change = np.zeros_like(weights)
        for shard in map(int, generator.choice(config.phones, config.cohort, replace=False)):
            if shard not in trainers:
                place = Place(shard, config.phones, config.seed, config.partition, data_dir)
                trainers[shard] = Trainer(problem, problem.examples(place), model=model)
            key = RoundKey(config.seed, round_number, shard)
            space = Pipeline.parse(config.uplink).space(layout(module), key)
            update = trainers[shard].train(weights, settings, key, space)
            assert update is not None, "nobody stops it"
            change += update.coordinates
            steps += update.steps
        weights = weights + change / config.cohort
    return {"steps": steps, "seconds": time.perf_counter() - began_s, "cpu_s": time.process_time() - cpu_s}


def _fresh(*calls: tuple[Callable[..., dict[str, Any]], Any, str | None]) -> list[dict[str, Any]]:
    """Make the calls at the same time, each in a fresh interpreter, so that none pays for what another one left."""
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, mp_context=context) for _ in calls]
    try:
        futures = [pool.submit(make, cell, data) for pool, (make, cell, data) in zip(pools, calls, strict=True)]
        return [future.result() for future in futures]
    finally:
        for pool in pools:
            pool.shutdown()


def measure(data_dir: str | None, parts: tuple[str, ...], *, small: bool) -> dict[str, Any]:
    """Return the figures of the parts; `small` ones are for tests and mean nothing."""
    from lab.training import machine

    data = "digits" if small else "mnist"
    result: dict[str, Any] = {"machine": machine()}
    fleets = [(200, 10, 2, "always"), (2_000, 10, 2, "when-chosen")]
    if not small:
        fleets = [(10_000, 100, 2, "always"), (100_000, 100, 5, "when-chosen")]
        fleets += [(1_000_000, 100, 5, "when-chosen")]
    steps = ("training" in parts) + len(TWO_KB) * ("rounds" in parts) + len(fleets) * ("memory" in parts)
    with long_work(steps) as tell:
        if "training" in parts:
            tell("a run beside a plain loop")
            cell = _training_cell(data, *((6, 3, 2) if small else (100, 10, 30)))
            virtual, plain = _fresh((virtual_run, cell, data_dir), (plain_loop, cell, data_dir))
            result["training"] = {**virtual, "plain": plain, "times": virtual["cpu_s"] / plain["cpu_s"]}
        if "rounds" in parts:
            phones, cohort, rounds = (6, 3, 2) if small else (100, 50, 60)
            result["rounds"] = []
            for model, uplink in TWO_KB.items():
                tell(f"rounds of {model} without training")
                cell = _cell(
                    {"train": "none"}, problem=f"digits/{model}", phones=phones, cohort=cohort, rounds=rounds,
                    uplink=uplink, eval_every=1000,
                )  # fmt: skip
                (row,) = _fresh((virtual_run, cell, data_dir))
                result["rounds"].append(
                    {"model": model, "uplink": uplink, **row, "phone_rounds_per_s": row["updates"] / row["seconds"]}
                )
        if "memory" in parts:
            result["memory"] = []
            for phones, cohort, rounds, connect in fleets:
                tell(f"{phones:,} phones, connected {connect}")
                cell = _cell(
                    {"train": "none"}, problem=f"{data}/lite", phones=phones, cohort=cohort, rounds=rounds,
                    uplink=TWO_KB["lite"], eval_every=1000, connect=connect,
                )  # fmt: skip
                (row,) = _fresh((virtual_run, cell, data_dir))
                result["memory"].append({"connect": connect, **row})
    return result


def table(result: dict[str, Any]) -> str:
    """Return the table of docs/BENCHMARKS.md."""
    rows = []
    if "training" in result:
        row = result["training"]
        rows.append(
            [
                f"{row['rounds']} rounds of {row['phones']} phones, `lite`, {row['updates']} updates,"
                f" {row['emulated_s'] / 60:.0f} emulated minutes: × a plain loop of their {row['plain']['steps']:,}"
                " local steps, CPU time",
                f"≤ {AIMS['training']}",
                f"{row['times']:.2f} ({row['cpu_s']:.1f} s, {row['plain']['cpu_s']:.1f} s)",
            ]
        )
    for row in result.get("rounds", ()):
        rows.append(
            [
                f"phone-rounds a second without training, `{row['model']}`, `{row['uplink']}`,"
                f" {row['payload_bytes']:,.0f} bytes an update",
                f"≥ {AIMS['rounds']:.0f}",
                f"{row['phone_rounds_per_s']:.0f}",
            ]
        )
    return markdown(["what:", "aim:", "measured:"], rows)


def memory_table(result: dict[str, Any]) -> str:
    """Return the table of what fleets need in memory."""
    rows = []
    for row in result.get("memory", ()):
        how = "connected" if row["connect"] == "always" else "that connect when chosen"
        rows.append(
            [
                f"{row['phones']:,} phones {how}, {row['updates']} updates: peak memory of the process",
                f"under {AIMS['memory'] / 1e9:.1f} GB" if row["connect"] == "always" else "under 8 GB",
                f"{row['peak_bytes'] / 1e9:.2f} GB",
            ]
        )
    return markdown(["what:", "aim:", "measured:"], rows)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/BENCHMARKS.md that there are figures for."""
    made = {"lab virtual": table(result)} if result.keys() & {"training", "rounds"} else {}
    return made | ({"lab virtual memory": memory_table(result)} if "memory" in result else {})


@click.command()
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Measure this only.  [default: all]")
@click.option("--small", is_flag=True, help="A size for tests: the figures mean nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def virtual(
    data_dir: str | None,
    parts: tuple[str, ...],
    small: bool,
    as_json: bool,
    kept: tuple[Path, ...],
    document: Path | None,
) -> None:
    """Measure virtual time: its cost over the training alone, without training, and in memory; five minutes."""
    from featherfed.errors import ConfigError, FeatherfedError

    try:
        result = kept_or_measured(kept, lambda: measure(data_dir, parts or PARTS, small=small))
        made = tables(result)
        if document is not None:
            fill(document, made)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else "\n\n".join(made.values()))
