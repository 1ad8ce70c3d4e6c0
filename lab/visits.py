"""`python -m lab visits`: what one visit of a phone costs in CPU time, with images as they are, shifted and warped.

A visit is the local training of one round. The ways take turns, and each figure is the median over the turns: what else
runs on the machine slows all of them alike.
"""

import json
import os
import statistics
import time
from typing import Any

import click

from lab.training import machine

# Before torch is imported: a phone trains on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

WAYS: dict[str, dict[str, Any]] = {
    "plain": {}, "shift=1": {"shift": 1}, "warp=1": {"warp": 1.0},
    "warp=1 warp_epochs=3": {"warp": 1.0, "warp_epochs": 3},
}  # fmt: skip
UPLINK = "vertex-small"


def measure(name: str, data_dir: str | None, epochs: int, turns: int) -> dict[str, Any]:
    """Return one problem's row: CPU seconds of a visit of so many epochs each way, and the bytes of its update."""
    import numpy as np

    from featherfed.codec.pipeline import Pipeline
    from featherfed.learning.models import build, layout
    from featherfed.learning.training import Trainer
    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem
    from featherfed.randomness import RoundKey
    from featherfed.training_settings import Training

    problem, key = load_problem(name), RoundKey(0, 1, 0)
    place = Place(of=3 if name.startswith("digits") else 100, data_dir=data_dir)
    trainer, module = Trainer(problem, problem.examples(place)), build(problem, 0)
    start = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    space = Pipeline.parse("float32").space(layout(module), key)
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    # The first turn warms up: what torch makes once is nobody's.
    for turn in range(turns + 1):
        for way, given in WAYS.items():
            training = Training(lr=0.01, epochs=1 if not turn else epochs, set=given)
            began_s = time.thread_time()
            trainer.train(start, training, key, space)
            spent[way] += [time.thread_time() - began_s] if turn else []
    return {
        "problem": name, "examples": trainer.examples, "epochs": epochs,
        "update_bytes": round(Pipeline.parse(UPLINK).theory_bytes(layout(module))),
        "cpu_s": {way: round(statistics.median(times), 3) for way, times in spent.items()},
    }  # fmt: skip


@click.command()
@click.option("--problems", default="mnist/tiny,mnist/lite,mnist/cnn", show_default=True, help="Which, with commas.")
@click.option("--epochs", default=5, show_default=True, type=click.IntRange(1), help="Of a visit.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1), help="Visits each way.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def visits(problems: str, epochs: int, turns: int, data_dir: str | None, as_json: bool) -> None:
    """Measure what a phone's visit costs in CPU time: plain, shifted and warped images, in turns."""
    from featherfed.errors import ConfigError, FeatherfedError

    try:
        rows = [measure(name.strip(), data_dir, epochs, turns) for name in problems.split(",")]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"machine": machine(), "visits": rows}, indent=1))
        return
    for row in rows:
        costs = "  ".join(f"{way} {seconds:.3f} s" for way, seconds in row["cpu_s"].items())
        click.echo(f"{row['problem']:>10}  {row['examples']} examples × {row['epochs']} epochs  {costs}")
