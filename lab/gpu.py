"""`python -m lab gpu`: whether a GPU trains as the CPU does, and what a step costs there and here.

    1 phone     phones take turns, by featherfed.learning.training: what `--device cuda` does
    N phones    N phones as one batch, by featherfed.learning.together: what it does in virtual time
    a round     of N phones of a hundred in virtual time, all of it: on MNIST, one epoch

Wall time for one phone's step, the median of passes that alternate between the devices, until the updates are here. The
CPU trains one phone after the other on one thread, as a worker in virtual time does; a round there has all cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from featherfed.errors import ConfigError, FeatherfedError, LocalError
from featherfed.fl_bench.codec_tables import markdown
from lab.children import environment
from lab.documents import fill
from lab.long_work import long_work

TESTS = ("tests/learning", "tests/test_side_by_side.py")
MODELS = ("lite", "tiny", "2nn", "cnn")
COHORTS = (10, 100)
PASSES = 7
BATCH, LR = 10, 0.01
STEPS = 60
"""A phone's: an epoch of 600 images."""
FEW, SOME = 12, 10
"""So many steps of so many phones are compared: in longer training ReLUs let both devices part for good."""
ROUNDS, ROUNDS_OF = 10, ("lite", "2nn", "cnn")
"""The first half is for what workers and the GPU load."""
FLOAT32 = {"uplink": "float32", "downlink": "float32"}
TOLERANCE = 1e-3
"""What the tests allow between the devices."""


def run_tests(device: str) -> dict[str, int]:
    """Run the tests that skip without a GPU; return how many `passed` and `skipped`.

    Raises `LocalError` where one fails, or where one skips although the device is a GPU.
    """
    with tempfile.TemporaryDirectory(prefix="featherfed-gpu-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *TESTS], cwd=Path(__file__).parents[1], env=environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LocalError(f"the tests that need a GPU fail:\n{(done.stdout + done.stderr)[-4000:]}")
        (suite,) = ElementTree.parse(report).getroot()
    skipped = int(suite.attrib["skipped"])
    if skipped and device != "cpu":
        raise LocalError(f"{skipped} of the tests that need a GPU were skipped, although there is one")
    return {"passed": int(suite.attrib["tests"]) - skipped, "skipped": skipped}


@dataclass(frozen=True, slots=True)
class _Phones:
    """Phones of one model on one device, each with images of its own."""

    trainers: list[Any]
    start: Any

    def in_turns(self) -> list[Any]:
        """Train them one after the other; return their updates, (parameters,) float32 on the host."""
        space, training, keys = self._told()
        made = [
            trainer.train(self.start, training, key, space) for trainer, key in zip(self.trainers, keys, strict=True)
        ]
        return [update.coordinates for update in made]

    def as_one(self) -> list[Any]:
        """Train them as one batch; return the same."""
        from featherfed.learning.together import train_as_one

        _, training, keys = self._told()
        made = train_as_one(self.trainers, [self.start] * len(keys), training, keys)
        return [update.coordinates for update in made if update is not None]

    def _told(self) -> tuple[Any, Any, list[Any]]:
        from featherfed.codec.pipeline import Pipeline
        from featherfed.learning.models import layout
        from featherfed.randomness import RoundKey
        from featherfed.training_settings import Training

        keys = [RoundKey(0, 1, index) for index in range(len(self.trainers))]
        space = Pipeline.parse("float32").space(layout(self.trainers[0].module), keys[0])
        return space, Training(lr=LR, batch_size=BATCH), keys


def _phones(model: str, device: str, count: int, steps: int) -> _Phones:
    """Return phones that each make so many steps in an epoch; the same on every device."""
    import numpy as np
    import torch

    from featherfed.learning.flat import FlatModel
    from featherfed.learning.models import build
    from featherfed.learning.training import Trainer
    from featherfed.problem import Examples, Place
    from featherfed.problem_loading import load_problem

    problem = load_problem(f"digits/{model}")
    whole, module = problem.examples(Place(of=1)), build(problem, 0)
    start = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    shared = FlatModel(module, device)
    drawn = torch.randint(len(whole), (count, steps * BATCH), generator=torch.Generator().manual_seed(0))
    shards = [Examples(whole.parts[0][chosen], whole.targets[chosen]) for chosen in drawn]
    return _Phones([Trainer(problem, shard, device, model=shared) for shard in shards], start)


def measure(model: str, device: str, cohorts: tuple[int, ...], passes: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """Return a row for phones in turns, and for each size of a cohort in one batch.

    A row has microseconds for a phone's step, the medians `cpu_us` of a phone by itself on the CPU and `device_us`
    and their `…_range`, and `apart`, the largest difference of a weight between the devices after a few steps.

    Raises `LocalError` where that is more than `TOLERANCE`.
    """
    rows = []
    alone = _phones(model, "cpu", 1, steps)
    for count in (1, *cohorts):
        here, there = (_phones(model, at, count, FEW) for at in ("cpu", device))
        some = _Phones(here.trainers[:SOME], here.start).in_turns()
        pairs = zip(some, there.in_turns() if count == 1 else there.as_one(), strict=False)
        apart = max(float(abs(one - other).max()) for one, other in pairs)
        if not apart <= TOLERANCE:
            raise LocalError(
                f"{model}, {count} phones at once: a weight on {device} is {apart:.1e} from the CPU's,"
                f" more than {TOLERANCE}"
            )
        phones = _phones(model, device, count, steps)
        ways = {"cpu": alone.in_turns, "device": phones.in_turns if count == 1 else phones.as_one}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(1 + passes):
            for name, train in ways.items():
                began_s = time.perf_counter()
                made = len(train())
                # The first pass loads kernels.
                if number:
                    taken[name].append(1e6 * (time.perf_counter() - began_s) / (made * steps))
        row = {"model": model, "parameters": len(alone.start), "phones": count, "batch": BATCH, "apart": apart}
        for name, each in taken.items():
            row |= {f"{name}_us": statistics.median(each), f"{name}_us_range": [min(each), max(each)]}
        rows.append(row)
    return rows


def round_seconds(problem: str, device: str, phones: int, workers: int, data_dir: str | None) -> float:
    """Return the median seconds of a later round of so many phones in virtual time, evaluation included."""
    from featherfed.server.config import config_from
    from featherfed.server.storage.run_folder import create
    from featherfed.server.watchers.watcher import RoundSummary, Watcher
    from featherfed.simulation import Fleet, simulate

    ends_s: list[float] = []

    class Clock(Watcher):
        def version_published(self, summary: RoundSummary) -> None:
            ends_s.append(time.perf_counter())

    settings = {"problem": problem, "phones": max(COHORTS), "cohort": phones, "rounds": ROUNDS, "lr": LR, "epochs": 1}
    config = config_from({**settings, **FLOAT32})
    with tempfile.TemporaryDirectory(prefix="featherfed-gpu-") as folder:
        simulate(
            config, lambda: create(Path(folder), "run", config), Fleet(devices=device), watcher=Clock(),
            workers=workers, data_dir=data_dir,
        )  # fmt: skip
    return statistics.median(end - begin for begin, end in pairwise(ends_s[len(ends_s) // 2 :]))


def measure_rounds(problem: str, device: str, cohorts: tuple[int, ...], data_dir: str | None) -> list[dict[str, Any]]:
    """Return a row for each cohort: `cpu_s` a round on all cores, `device_s` on the device."""
    cores = os.cpu_count() or 1
    return [
        {
            "problem": problem,
            "phones": phones,
            "cores": cores,
            "cpu_s": round_seconds(problem, "cpu", phones, cores, data_dir),
            "device_s": round_seconds(problem, device, phones, 1, data_dir),
        }
        for phones in cohorts
    ]


def machine(device: str) -> dict[str, Any]:
    """Return what the figures were measured on."""
    import torch

    from lab.training import machine

    card = "no GPU" if device == "cpu" else torch.cuda.get_device_name(device)
    return {**machine(), "card": card, "torch": torch.__version__, "cuda": torch.version.cuda}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the table of docs/PERFORMANCE.md, and the line about what it was measured on."""
    about, rows, tests = result["machine"], result["rows"], result["tests"]["passed"]
    turns = {row["model"]: row["device_us"] for row in rows if row["phones"] == 1}
    return {
        "gpu machine": f"{about['card']}, torch {about['torch']}; {tests} tests that need a GPU passed on it. Beside it"
        f" one thread of {about['cpu']}, {about['cores']} cores; Python {about['python']}.",
        "gpu": markdown(
            ["model:", "parameters", "phones at once", "CPU in turns µs", "GPU µs", "CPU ÷ GPU", "GPU in turns ÷ GPU",
             "largest difference of a weight"],
            [[row["model"], f"{row['parameters']:,}", str(row["phones"]), f"{row['cpu_us']:.1f}",
              f"{row['device_us']:.1f}", f"{row['cpu_us'] / row['device_us']:.2f}",
              f"{turns[row['model']] / row['device_us']:.2f}", f"{row['apart']:.0e}"] for row in rows],
        ),
        "gpu rounds": markdown(
            ["problem:", "phones a round", "CPU, all cores, s", "GPU, s"],
            [[row["problem"], str(row["phones"]), f"{row['cpu_s']:.3f}", f"{row['device_s']:.3f}"]
             for row in result["rounds"]],
        ),
    }  # fmt: skip


def _measured(device: str, data_dir: str | None, *, small: bool) -> dict[str, Any]:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch sees no GPU on this machine; --device cpu tries the command without one")
    models, cohorts, passes = (MODELS[1:2], (3,), 1) if small else (MODELS, COHORTS, PASSES)
    problems = [f"digits/{model}" for model in models] if small else [f"mnist/{model}" for model in ROUNDS_OF]
    rows, rounds = [], []
    with long_work(1 + len(models) + len(problems)) as tell:
        tell("tests that need a GPU")
        tests = run_tests(device)
        for model in models:
            tell(f"steps of {model}")
            rows += measure(model, device, cohorts, passes)
        for problem in problems:
            tell(f"rounds of {problem}")
            rounds += measure_rounds(problem, device, cohorts, data_dir)
    return {"machine": machine(device), "tests": tests, "rows": rows, "rounds": rounds}


@click.command()
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]),
              help="What to measure beside the CPU; `cpu` tries the command where there is no GPU.")  # fmt: skip
@click.option("--small", is_flag=True, help="A size for tests: the figures mean nothing.")
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def gpu(
    device: str, small: bool, data_dir: str | None, as_json: bool, kept: Path | None, document: Path | None
) -> None:
    """Test and measure training on a GPU beside the CPU, phones in turns and phones as one batch."""
    try:
        result = json.loads(kept.read_text()) if kept else _measured(device, data_dir, small=small)
        made = tables(result)
        if document is not None:
            if not result["tests"]["passed"]:
                raise ConfigError("--write fills in a GPU's figures, and these are from a machine without one")
            fill(document, made)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else "\n\n".join(made.values()))
