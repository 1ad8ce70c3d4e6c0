"""`python -m lab dp-peers`: accuracy of finished runs with `--dp`, beside pfl-research's central Gaussian mechanism.

pfl has the same model, shards, local training, clip norm, ε and δ as the runs with the server's noise; its updates go
without a codec, as it has none, and its models are not averaged. Whom a round asks is one shuffled row of the phones,
over and over, as in its own benchmarks. Its noise is solved for by its own accountant, twice: for what we assume
(`fixed`: a phone pays for each round that it is in, and nothing is claimed for the draw), and for what its benchmarks
assume (`sampled`: a secret coin of cohort/phones for each phone and round, which no such row is).
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featherfed.errors import ConfigError, FeatherfedError, LocalError
from featherfed.fl_bench.codec_tables import markdown
from lab.children import environment
from lab.documents import fill
from lab.environments import PFL, check, commands_of

if TYPE_CHECKING:
    from featherfed.fl_bench.results import Strategy
    from featherfed.server.config import RunConfig

ASSUMED = ("fixed", "sampled")
LIMIT_S = 1800.0
TABLE = "accuracy under noise"
APP = "lab.rounds_app.pfl_gaussian"


def order(config: "RunConfig", assumed: str) -> dict[str, Any]:
    """Return what a run of pfl is told; raises `ConfigError` for a run of ours that it has nothing to compare with."""
    from featherfed.server.privacy_plan import delta_of, participations

    training = config.training()
    cohort = config.closing_updates_at(1)
    fixed = assumed == "fixed"
    if not config.target_epsilon:
        raise ConfigError("the comparison is of runs with target_epsilon")
    return {
        "problem": config.problem, "partition": config.partition, "seed": config.seed, "phones": config.phones,
        "cohort": cohort, "rounds": config.rounds, "epochs": training.epochs, "batch_size": training.batch_size,
        "lr": training.lr, "set": dict(training.set), "clip_norm": config.clip_norm, "epsilon": config.target_epsilon,
        "delta": delta_of(config),
        "compositions": participations(config) if fixed else config.rounds,
        "sampled": 1.0 if fixed else cohort / config.phones,
    }  # fmt: skip


def run(told: dict[str, Any], python: Path, data_dir: str | None) -> dict[str, float]:
    """Run pfl in its environment; return `accuracy` after the last round, and `noise`, the multiplier that it solved.

    Raises `LocalError` where it fails.
    """
    import numpy as np

    from featherfed.problem import Place
    from featherfed.problem_loading import load_problem

    problem = load_problem(told["problem"])
    place = {name: told[name] for name in ("seed", "partition")} | {"of": told["phones"], "data_dir": data_dir}
    shards = [problem.examples(Place(index=index, **place)) for index in range(told["phones"])]
    test = problem.test_examples(Place(**place))
    assert test is not None, "our problems have a test set"
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            Path(folder) / "data.npz",
            images=np.concatenate([shard.parts[0].numpy() for shard in shards]),
            labels=np.concatenate([shard.targets.numpy() for shard in shards]),
            starts=np.cumsum([0, *map(len, shards)]),
            test_images=test.parts[0].numpy(),
            test_labels=test.targets.numpy(),
        )
        (Path(folder) / "order.json").write_text(json.dumps(told))
        done = subprocess.run(
            [str(python), "-m", APP, folder],
            capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment(OMP_NUM_THREADS="1"),
        )  # fmt: skip
    if done.returncode:
        raise LocalError(f"pfl-research failed: {done.stderr.strip()[-600:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside(
    runs: Sequence["RunConfig"], python: Path | None, kept: Path, data_dir: str | None, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return pfl's runs of these and more, `{"told", "accuracy", "noise"}`; those that `kept` lacks are run and kept.

    Without its Python none is run.
    """
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for config in runs:
        for assumed in ASSUMED:
            told = order(config, assumed)
            if python is None or any(row["told"] == told for row in rows):
                continue
            tell(f"pfl-research: ε {told['epsilon']:g}, {assumed}, seed {told['seed']}")
            rows.append({"told": told, **run(told, python, data_dir)})
            kept.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def table(strategies: Sequence["Strategy"], rows: Sequence[dict[str, Any]]) -> str:
    """Return a row for each strategy: its account, accuracy after the last round by seeds, bits a weight, and pfl's."""
    cells = []
    for strategy in strategies:
        config, last = strategy.config, [run.report["rounds"][-1] for run in strategy.runs]
        accounts = [run.report["privacy"] for run in strategy.runs]
        parameters = strategy.runs[0].report["parameters"]
        sent = sum(each["accepted"] for run in strategy.runs for each in run.report["rounds"])
        up = [run.report["totals"]["uplink"] for run in strategy.runs]
        # Of a masked update, what its masks need is told apart.
        update = 8 * sum(each["payload"] - each["points"] for each in up) / (sent * parameters)
        socket = 8 * sum(each["socket"] for each in up) / (sent * parameters)
        of_pfl = []
        for assumed in ASSUMED:
            wanted = [order(run.config, assumed) for run in strategy.runs]
            found = [row for row in rows if row["told"] in wanted] if config.dp == "central" else []
            noise = f", Z {found[0]['noise']:.3g}" if found else ""
            of_pfl.append(_seeds([row["accuracy"] for row in found]) + noise)
        cells.append(
            [
                f"{config.phones:,}",
                config.dp,
                f"{config.target_epsilon:g}",
                f"{max(each['epsilon'] for each in accounts):.2f}",
                f"{accounts[0]['noise_multiplier']:.3g}",
                f"{config.clip_norm:g}",
                _seeds([each["metrics"]["accuracy"] for each in last]),
                f"{update:.2f}; {socket:.2f}",
                *of_pfl,
            ]
        )
    return markdown(
        ["phones", "noise:", "ε", "account", "Z", "C", "accuracy, %", "bits a weight up: update; socket",
         "pfl-research, the same account", "with sampling assumed"],
        cells,
    )  # fmt: skip


def _seeds(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return "–"
    mean = sum(accuracies) / len(accuracies)
    return f"{100 * mean:.1f} ({', '.join(f'{100 * each:.1f}' for each in accuracies)})"


@click.command
@click.argument("grids", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pfl", "where", help="Folder of pfl's commands, or auto to make it; runs what is not kept.")
@click.option("--kept", default="results/pfl_noise.json", show_default=True, type=click.Path(path_type=Path),
              help="Where pfl's figures are kept.")  # fmt: skip
@click.option("--data-dir", help="Folder with data sets.  [default: FL_DATA_DIR, else a cache]")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def dp_peers(
    grids: tuple[Path, ...], where: str | None, kept: Path, data_dir: str | None, document: Path | None
) -> None:
    """Accuracy of the GRIDS, folders of fl-bench run with --dp, beside pfl-research's central Gaussian mechanism."""
    from featherfed.fl_bench.results import read_runs

    def tell(line: str) -> None:
        click.echo(line, err=True)

    try:
        strategies = read_runs(grids)
        if plain := [strategy.name for strategy in strategies if not strategy.config.dp]:
            raise ConfigError(f"{plain[0]} was run without --dp")
        central = [run.config for each in strategies if each.config.dp == "central" for run in each.runs]
        python = None
        if where is not None:
            programs = commands_of(PFL, where, tell)
            check(PFL, programs, ("torch", "featherfed"))
            python = programs / "python"
        rows = beside(central, python, kept, data_dir, tell)
        made = table(strategies, rows)
        if document is not None:
            fill(document, {TABLE: made})
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(made)
