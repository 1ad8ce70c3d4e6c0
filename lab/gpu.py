"""`python -m lab gpu`: whether a GPU trains as the CPU does, and what a step costs there and here.

    1 phone     phones take turns, by featherfed.learning.training: what `--device cuda` does
    N phones    N phones as one batch, by featherfed.learning.together: what it does in virtual time
    a round     of N phones in virtual time, all of it

Wall time for one phone's step, the median of passes that alternate between the devices, until the updates are here. The
CPU has one thread, as a phone has.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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

MODELS = ("lite", "tiny", "2nn", "cnn")
COHORTS = (10, 100)
PASSES = 7
BATCH, LR = 10, 0.01
ROUNDS = 6
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
            [*command, f"--junitxml={report}", "tests/learning"], cwd=Path(__file__).parents[1], env=environment(),
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
class _Way:
    """A way of training on a device: `train` makes `steps` of one phone, `trained` returns what came of the last."""

    train: Callable[[], None]
    trained: Callable[[], list[Any]]
    steps: int
    parameters: int


def measure(model: str, device: str, cohorts: tuple[int, ...], passes: int) -> list[dict[str, Any]]:
    """Return a row for one phone, and for each size of a cohort in one batch.

    A row has microseconds for a phone's step, the medians `cpu_us` and `device_us` and their `…_range`, and `apart`,
    the largest difference of a weight between the devices after the first pass.

    Raises `LocalError` where that is more than `TOLERANCE`.
    """
    rows = []
    for phones in (1, *cohorts):
        ways = [_in_turns(model, at) if phones == 1 else _batched(model, at, phones) for at in ("cpu", device)]
        for way in ways:
            # No timing: it loads kernels, and shows that both compute the same.
            way.train()
        apart = max(float(abs(one - other).max()) for one, other in zip(*(way.trained() for way in ways), strict=True))
        if not apart <= TOLERANCE:
            raise LocalError(
                f"{model}, {phones} phones at once: a weight on {device} is {apart:.1e} from the CPU's,"
                f" more than {TOLERANCE}"
            )
        timed: list[list[float]] = [[], []]
        for _ in range(passes):
            for way, taken in zip(ways, timed, strict=True):
                began_s = time.perf_counter()
                way.train()
                taken.append(1e6 * (time.perf_counter() - began_s) / way.steps)
        row = {"model": model, "parameters": ways[0].parameters, "phones": phones, "batch": BATCH, "apart": apart}
        for name, taken in zip(("cpu", "device"), timed, strict=True):
            row |= {f"{name}_us": statistics.median(taken), f"{name}_us_range": [min(taken), max(taken)]}
        rows.append(row)
    return rows


def _in_turns(model: str, device: str) -> _Way:
    """Return one phone's epoch; its update comes back to the host, as it does before it is encoded."""
    import numpy as np

    from featherfed.codec.pipeline import Pipeline
    from featherfed.learning.models import build, layout
    from featherfed.learning.training import Trainer
    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem
    from featherfed.randomness import RoundKey
    from featherfed.training_settings import Training

    problem, key = load_problem(f"digits/{model}"), RoundKey(0, 1, 0)
    module = build(problem, 0)
    start = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    space = Pipeline.parse("float32").space(layout(module), key)
    trainer = Trainer(problem, problem.examples(Place(of=3)), device)
    updates: list[Any] = []

    def train() -> None:
        update = trainer.train(start, Training(lr=LR, batch_size=BATCH), key, space)
        assert update is not None, "nobody stops it"
        updates[:] = [update.coordinates]

    return _Way(train, lambda: updates, -(-trainer.examples // BATCH), len(start))


def _batched(model: str, device: str, phones: int) -> _Way:
    """Return an epoch of all phones as one batch; their updates come back to the host."""
    import numpy as np
    import torch

    from featherfed.learning.flat import FlatModel
    from featherfed.learning.models import build
    from featherfed.learning.together import train_as_one
    from featherfed.learning.training import Trainer
    from featherfed.problem import Examples, Place
    from featherfed.problem_loading import load_problem
    from featherfed.randomness import RoundKey
    from featherfed.training_settings import Training

    problem = load_problem(f"digits/{model}")
    whole, module = problem.examples(Place(of=1)), build(problem, 0)
    start = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    shared, steps = FlatModel(module, device), max(4, 120 // phones)
    drawn = torch.randint(len(whole), (phones, steps * BATCH), generator=torch.Generator().manual_seed(0))
    shards = [Examples(whole.parts[0][chosen], whole.targets[chosen]) for chosen in drawn]
    trainers = [Trainer(problem, shard, device, model=shared) for shard in shards]
    keys = [RoundKey(0, 1, index) for index in range(phones)]
    updates: list[Any] = []

    def train() -> None:
        made = train_as_one(trainers, [start] * phones, Training(lr=LR, batch_size=BATCH), keys)
        updates[:] = [update.coordinates for update in made if update is not None]

    return _Way(train, lambda: updates, steps * phones, len(start))


def round_seconds(model: str, device: str, phones: int, workers: Any = None) -> float:
    """Return the median seconds of a round of so many phones in virtual time, evaluation on the digits included."""
    from featherfed.server.config import config_from
    from featherfed.server.storage.run_folder import create
    from featherfed.server.watchers.watcher import RoundSummary, Watcher
    from featherfed.simulation import Fleet, simulate

    ends_s: list[float] = []

    class Clock(Watcher):
        def version_published(self, summary: RoundSummary) -> None:
            ends_s.append(time.perf_counter())

    settings = {
        "problem": f"digits/{model}",
        "phones": phones,
        "cohort": phones,
        "rounds": ROUNDS,
        "lr": LR,
        "epochs": 5,
    }
    config = config_from({**settings, **FLOAT32})
    with tempfile.TemporaryDirectory(prefix="featherfed-gpu-") as folder:
        simulate(
            config, lambda: create(Path(folder), "run", config), Fleet(devices=device), watcher=Clock(), workers=workers
        )
    return statistics.median(end - begin for begin, end in pairwise(ends_s))


def measure_rounds(model: str, device: str, cohorts: tuple[int, ...], least: int) -> list[dict[str, Any]]:
    """Return a row for each cohort: `cpu_s` a round on one worker, `device_s` with phones as one batch.

    `least` phones at once are a batch.
    """
    from featherfed.side_by_side import Workers

    return [
        {
            "model": model,
            "phones": phones,
            "cpu_s": round_seconds(model, "cpu", phones, Workers()),
            "device_s": round_seconds(model, device, phones, Workers(together=least)),
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
    turns = {row["model"]: row for row in rows if row["phones"] == 1}
    return {
        "gpu machine": f"{about['card']}, torch {about['torch']}; {tests} tests that need a GPU passed on it. Beside it"
        f" one thread of {about['cpu']}, {about['cores']} cores; Python {about['python']}.",
        "gpu": markdown(
            ["model:", "parameters", "phones at once", "CPU µs", "GPU µs", "CPU ÷ GPU", "CPU in turns ÷ GPU",
             "GPU in turns ÷ GPU", "largest difference of a weight"],
            [[row["model"], f"{row['parameters']:,}", str(row["phones"]), f"{row['cpu_us']:.1f}",
              f"{row['device_us']:.1f}", f"{row['cpu_us'] / row['device_us']:.2f}",
              *(f"{turns[row['model']][way] / row['device_us']:.2f}" for way in ("cpu_us", "device_us")),
              f"{row['apart']:.0e}"] for row in rows],
        ),
        "gpu rounds": markdown(
            ["model:", "phones a round", "CPU, one worker, s", "GPU, s", "CPU ÷ GPU"],
            [[row["model"], str(row["phones"]), f"{row['cpu_s']:.3f}", f"{row['device_s']:.3f}",
              f"{row['cpu_s'] / row['device_s']:.2f}"] for row in result["rounds"]],
        ),
    }  # fmt: skip


def _measured(device: str, *, small: bool) -> dict[str, Any]:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch sees no GPU on this machine; --device cpu tries the command without one")
    models, cohorts, passes = (MODELS[1:2], (3,), 1) if small else (MODELS, COHORTS, PASSES)
    rows, rounds = [], []
    with long_work(1 + 2 * len(models)) as tell:
        tell("tests that need a GPU")
        tests = run_tests(device)
        for model in models:
            tell(f"steps of {model}")
            rows += measure(model, device, cohorts, passes)
        for model in models:
            tell(f"rounds of {model}")
            rounds += measure_rounds(model, device, cohorts, min(cohorts))
    return {"machine": machine(device), "tests": tests, "rows": rows, "rounds": rounds}


@click.command()
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]),
              help="What to measure beside the CPU; `cpu` tries the command where there is no GPU.")  # fmt: skip
@click.option("--small", is_flag=True, help="A size for tests: the figures mean nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--from", "kept", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def gpu(device: str, small: bool, as_json: bool, kept: Path | None, document: Path | None) -> None:
    """Test and measure training on a GPU beside the CPU, phones in turns and phones as one batch."""
    try:
        result = json.loads(kept.read_text()) if kept else _measured(device, small=small)
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
