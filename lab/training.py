"""`python -m lab training`: what a step of local training costs, beside the ways of doing it that were not taken.

    ours       featherfed.learning.training: passes written out, steps fused into them
    autograd   the same model and batches by torch's autograd and torch.optim.SGD
    vmap       torch.func.vmap over eight phones at once, each with weights of its own; time for one phone's step

CPU time of one thread, the best of several passes over one shard: what else runs on the machine counts least there.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import click

# Before torch is imported: a phone trains on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PHONES = 8
PASSES = 3
SPECS = ("mask(1/16)", "lowrank(1/8)", "subspace(1000)")


def _best_us(train: Callable[[], int]) -> float:
    """Return CPU microseconds a step; `train` returns how many steps it made."""
    best = float("inf")
    for _ in range(PASSES):
        began_s = time.thread_time()
        steps = train()
        best = min(best, (time.thread_time() - began_s) / steps)
    return round(1e6 * best, 1)


def measure(name: str, data_dir: str | None, batch: int) -> dict[str, Any]:
    """Return one model's row: CPU microseconds a step of each way, and of ours in each structured space."""
    import numpy as np
    import torch

    from featherfed.codec.pipeline import Pipeline
    from featherfed.learning.models import build, layout
    from featherfed.learning.together import Copies
    from featherfed.learning.training import Trainer
    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem
    from featherfed.randomness import RoundKey
    from featherfed.training_settings import Training

    problem = load_problem(name)
    shard = problem.examples(Place(of=3 if name.startswith("digits") else 100, data_dir=data_dir))
    (inputs,) = shard.parts
    trainer, key, module = Trainer(problem, shard), RoundKey(0, 1, 0), build(problem, 0)
    start = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    settings = {"plain": Training(lr=0.01, batch_size=batch)}
    settings["momentum"] = Training(lr=0.01, batch_size=batch, momentum=0.9)

    def ours(way: str, spec: str) -> Callable[[], int]:
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
            loss = torch.nn.functional.cross_entropy(module(inputs[chosen]), shard.targets[chosen])
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

    row = {"problem": name, "parameters": len(start), "batch": batch, "ours_us": _best_us(ours("plain", "float32"))}
    row |= {"autograd_us": _best_us(autograd), "vmap_us": _best_us(vmap)}
    row["ours_momentum_us"] = _best_us(ours("momentum", "float32"))
    return row | {f"ours_{spec}_us": _best_us(ours("plain", spec)) for spec in SPECS}


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
    "--problems", default="mnist/lite,mnist/2nn,mnist/mlp,mnist/cnn", show_default=True, help="Which, with commas."
)
@click.option("--batch-size", default=10, show_default=True, type=click.IntRange(1, 60), help="Examples a step.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def training(problems: str, batch_size: int, data_dir: str | None, as_json: bool) -> None:
    """Measure local training: CPU time of a step, ours beside autograd's and vmap's."""
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
        ratio = row["autograd_us"] / row["ours_us"]
        click.echo(
            f"{row['problem']:>10}  ours {row['ours_us']:8.0f} us a step  autograd {row['autograd_us']:8.0f} us"
            f"  vmap {row['vmap_us']:8.0f} us  {ratio:.1f} x faster than autograd"
        )
