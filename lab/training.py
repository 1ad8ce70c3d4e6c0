"""`python -m lab training`: what a step of local training costs, beside the ways of doing it that were not taken.

    ours       featherfed.learning.training by torch: passes written out, steps fused into them
    compiled   the same by numba, where featherfed[fast] is installed
    loop       the compiled passes alone, over the same batches: no shuffling, no update
    autograd   a plain loop: the same model and batches by torch's autograd and torch.optim.SGD
    own        featherfed.learning.training of a user's own model, which goes by autograd
    vmap       torch.func.vmap over eight phones at once, each with weights of its own; time for one phone's step

CPU time of one thread: the ways take turns over one shard, and each figure is the median of its turns.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click

# Before torch is imported: a phone trains on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PHONES = 8
TURNS = 5
SPECS = ("mask(1/16)", "lowrank(1/8)", "subspace(1000)")


def _medians_us(ways: Mapping[str, Callable[[], int]]) -> dict[str, float]:
    """Return CPU microseconds a step of each way; calling one trains, and returns how many steps it made."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, train in ways.items():
            began_s = time.thread_time()
            steps = train()
            # The first turn is for what is made once.
            if turn:
                found[name].append((time.thread_time() - began_s) / steps)
    return {f"{name}_us": round(1e6 * statistics.median(each), 1) for name, each in found.items()}


@contextmanager
def _trained_by(name: str) -> Iterator[None]:
    """Have what is made meanwhile train by torch or by numba."""
    from featherfed.learning.fast import agree, passes

    before = passes()
    agree(name)
    try:
        yield
    finally:
        agree(before)


def measure(name: str, data_dir: str | None, batch: int) -> dict[str, Any]:
    """Return one model's row: CPU microseconds a step of each way, and of ours in each structured space."""
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from featherfed.codec.pipeline import Pipeline
    from featherfed.learning.evaluation import Evaluator
    from featherfed.learning.fast import compiled_passes, passes
    from featherfed.learning.flat import FlatModel
    from featherfed.learning.models import build, layout
    from featherfed.learning.together import Copies
    from featherfed.learning.training import Trainer
    from featherfed.problem import Examples, Place
    from featherfed.problem_loading import load_problem
    from featherfed.randomness import RoundKey
    from featherfed.training_settings import Training

    problem = load_problem(name)
    shard = problem.examples(Place(of=3 if name.startswith("digits") else 100, data_dir=data_dir))
    (inputs,) = shard.parts
    key, module = RoundKey(0, 1, 0), build(problem, 0)
    start = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    settings = {"plain": Training(lr=0.01, batch_size=batch)}
    settings["momentum"] = Training(lr=0.01, batch_size=batch, momentum=0.9)

    def ours(trainer: Trainer, way: str = "plain", spec: str = "float32") -> Callable[[], int]:
        space = Pipeline.parse(spec).space(layout(module), key)

        def train() -> int:
            update = trainer.train(start, settings[way], key, space)
            assert update is not None, "nobody stops it"
            return update.steps

        return train

    def autograd() -> int:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        batches = torch.split(torch.randperm(len(shard.targets)), batch)
        for chosen in batches:
            optimizer.zero_grad()
            loss = cross_entropy(module(inputs[chosen]), shard.targets[chosen])
            torch.autograd.backward(loss)
            optimizer.step()
        return len(batches)

    copies, weights = Copies(module, torch.nn.functional.cross_entropy), torch.from_numpy(start).repeat(PHONES, 1)

    def vmap() -> int:
        batches = torch.split(torch.randperm(len(shard.targets)), PHONES * batch)[:-1]
        for chosen in batches:
            images = inputs[chosen].view(PHONES, -1, *inputs.shape[1:])
            gradient, _ = copies.gradient(weights, (images,), shard.targets[chosen].view(PHONES, -1))
            weights.sub_(gradient, alpha=0.01)
        return PHONES * len(batches)

    own = replace(problem, loss=lambda outputs, targets: cross_entropy(outputs, targets))
    test = problem.test_examples(Place(data_dir=data_dir))
    assert test is not None, "ours have a test set"
    few = Examples(test.parts[0][:1000], test.targets[:1000])

    def evaluate(evaluator: Evaluator) -> Callable[[], int]:
        def run() -> int:
            evaluator.evaluate(start)
            return 1

        return run

    with _trained_by("torch"):
        trainer = Trainer(problem, shard)
        ways = {"ours": ours(trainer), "autograd": autograd, "own": ours(Trainer(own, shard)), "vmap": vmap}
        ways["ours_momentum"] = ours(trainer, "momentum")
        ways |= {f"ours_{spec}": ours(trainer, "plain", spec) for spec in SPECS}
        ways["evaluate_1000"] = evaluate(Evaluator(problem, few, FlatModel(build(problem, 0))))
    compiled = compiled_passes(FlatModel(build(problem, 0)), tuple(inputs.shape[1:]))
    if compiled is not None:
        trainer = Trainer(problem, shard)
        ways["compiled"], ways["compiled_momentum"] = ours(trainer), ours(trainer, "momentum")
        ways["compiled_evaluate_1000"] = evaluate(Evaluator(problem, few, FlatModel(build(problem, 0))))
        parts, targets = compiled.prepare(shard)
        order = torch.randperm(len(targets))

        def loop() -> int:
            compiled.begin()
            return len(compiled.descend(parts, targets, order, batch, 0.0))

        ways["loop"] = loop
    return {
        "problem": name, "parameters": len(start), "batch": batch, "passes": passes(), **_medians_us(ways)
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


@click.command()
@click.option(
    "--problems",
    default="mnist/lite,mnist/tiny,mnist/2nn,mnist/mlp,mnist/cnn",
    show_default=True,
    help="Which, with commas.",
)
@click.option("--batch-size", default=10, show_default=True, type=click.IntRange(1, 60), help="Examples a step.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def training(problems: str, batch_size: int, data_dir: str | None, as_json: bool) -> None:
    """Measure local training: CPU time of a step, ours by torch and by numba beside autograd's and vmap's."""
    from featherfed.errors import ConfigError, FeatherfedError

    try:
        rows = [measure(name.strip(), data_dir, batch_size) for name in problems.split(",")]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"machine": machine(), "training": rows}, indent=1))
        return
    for row in rows:
        with_numba = f"  compiled {row['compiled_us']:8.0f} us" if "compiled_us" in row else ""
        click.echo(
            f"{row['problem']:>10}  ours {row['ours_us']:8.0f} us a step{with_numba}  autograd"
            f" {row['autograd_us']:8.0f} us  vmap {row['vmap_us']:8.0f} us"
            f"  {row['autograd_us'] / row['ours_us']:.1f} x faster than autograd"
        )
