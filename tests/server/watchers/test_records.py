"""Where people keep their runs: TensorBoard's event files, MLflow's tracking server."""

import math
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from featherfed.commands.server import main
from featherfed.server.config import RunConfig
from featherfed.server.storage.spent import Spent
from featherfed.server.watchers.mlflow_record import metric_name
from featherfed.server.watchers.tensorboard_record import scalars
from featherfed.server.watchers.watcher import RoundSummary
from featherfed.server.watching import Watching


def record(watching: Watching, folder: Path, rounds: int = 2) -> None:
    with ExitStack() as stack:
        (watcher,) = watching.records(stack, "run-1", folder, RunConfig(rounds=rounds))
        for number in range(1, rounds + 1):
            watcher.round_closed(
                RoundSummary(
                    number, rounds, 10, 9, 1, 0, None, {"accuracy": number / 10}, 2.0, Spent(1000 * number, 200, 30)
                )
            )
        watcher.ended(None)


def test_tensorboard_event_files_have_the_rounds(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'featherfed[tensorboard]'")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        record(Watching(tensorboard=tmp_path), tmp_path)
        events = EventAccumulator(str(tmp_path / "run-1")).Reload()
    assert [(each.step, round(each.value, 6)) for each in events.Scalars("test/accuracy")] == [(1, 0.1), (2, 0.2)]
    assert [each.value for each in events.Scalars("bytes/uplink")] == [1000, 2000]
    assert [each.value for each in events.Scalars("bytes/both")] == [1200, 2200]
    assert [each.value for each in events.Scalars("bytes/handshake")] == [30, 30]
    assert "test/loss" not in events.Tags()["scalars"], "what was not measured is not recorded"


def test_mlflow_run_has_settings_and_rounds_and_goes_on_when_resumed(tmp_path: Path) -> None:
    pytest.importorskip("alembic", reason="needs mlflow: pip install 'featherfed[mlflow]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("mlflow", reason="needs mlflow: pip install 'featherfed[mlflow]'")
        from mlflow.tracking import MlflowClient

        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        record(Watching(mlflow=uri), tmp_path)
        record(Watching(mlflow=uri), tmp_path, rounds=3)
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("featherfed")
        (run,) = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(run.info.run_id, "test/accuracy")
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.params["uplink"] == RunConfig().uplink and run.data.metrics["bytes/uplink"] == 3000
    assert sorted({each.step for each in history}) == [1, 2, 3]


def test_metrics_go_by_their_names_and_what_is_no_number_is_left_out() -> None:
    odd = 'R² <b>&"$x$", [red]'
    summary = RoundSummary(1, 2, 3, 3, 0, 0, 0.5, {"mae": 0.25, "nothing": math.nan, odd: 0.75}, 1.0, Spent(10, 20))
    found = scalars(summary)
    assert (found["test/mae"], found[f"test/{odd}"], found["test/loss"]) == (0.25, 0.75, 0.5)
    assert "test/nothing" not in found
    # MLflow takes letters, digits, _, -, . and spaces.
    assert metric_name(f"test/{odd}") == "test/R² _b____x___ _red_"
    assert metric_name("test/a/../b") == "test/a_.._b"


def test_privacy_is_recorded_where_the_run_has_some() -> None:
    summary = RoundSummary(1, 2, 3, 3, 0, 0, 0.5, {}, 1.0, Spent(10, 20), epsilon=4.5)
    assert scalars(summary)["privacy/epsilon"] == 4.5
    assert "privacy/epsilon" not in scalars(replace(summary, epsilon=None))


@pytest.mark.parametrize("flag", ["tensorboard", "mlflow"])
def test_missing_library_is_one_sentence_before_a_folder_is_made(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featherfed.server.watching.find_spec", lambda name: None)
    value = str(tmp_path / "here")
    arguments = ["serve", "--port", "0", "--runs", str(tmp_path / "runs"), "--problem", "digits", f"--{flag}", value]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"--{flag} needs a library: pip install 'featherfed[{flag}]'" in result.output
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
