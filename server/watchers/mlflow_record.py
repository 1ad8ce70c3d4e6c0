"""A run as an MLflow run: its settings as parameters, one metric a round and figure.

A tracking server may be slow or gone, so a thread of its own does the talking, and what it could not send is dropped
and said at the end.
"""

import os
import queue
import re
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from featherfed.errors import ConfigError
from featherfed.server.config import RunConfig
from featherfed.server.watchers.tensorboard_record import scalars
from featherfed.server.watchers.watcher import RoundSummary, Watcher


def metric_name(name: str) -> str:
    """Return a name that MLflow takes: others than letters, digits, `_`, `-`, `.`, `/` and spaces become `_`.

    >>> metric_name("test/F1 (macro)"), metric_name("test/m²/s")
    ('test/F1 _macro_', 'test/m²_s')
    """
    group, slash, rest = name.partition("/")
    return group + slash + re.sub(r"[^\w. -]", "_", rest)


EXPERIMENT = "featherfed"
LAST_WORDS_S = 30.0
"""How long the end of a run waits for the tracking server."""


class MlflowRecord(Watcher):
    """One MLflow run; a resumed run goes on with the same one, whose id is in `mlflow.id` of its folder."""

    def __init__(self, uri: str, run: str, folder: Path, config: RunConfig) -> None:
        """Raises `ConfigError` where the server does not answer."""
        # Unless told otherwise the library tries for minutes before it says that a server is not there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client: Any = MlflowClient(tracking_uri=uri)
            self._run_id = self._resumed(folder) or self._begin(run, folder, config)
        except (MlflowException, OSError, ImportError) as error:
            sentence = str(error).splitlines()[0]
            raise ConfigError(f"--mlflow {uri} cannot be used: {sentence}") from error
        self._rounds: queue.SimpleQueue[RoundSummary | None] = queue.SimpleQueue()
        self._status = "KILLED"
        self._lost: list[str] = []
        self._thread = threading.Thread(target=self._send, name="mlflow", daemon=True)

    def _resumed(self, folder: Path) -> str | None:
        kept = folder / "mlflow.id"
        if not kept.exists():
            return None
        run_id = kept.read_text().strip()
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _begin(self, run: str, folder: Path, config: RunConfig) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
        run_id = str(self._client.create_run(experiment, run_name=run).info.run_id)
        for name, value in config.settings().items():
            self._client.log_param(run_id, name, value)
        (folder / "mlflow.id").write_text(run_id + "\n")
        return run_id

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._status = "FAILED"
        self._rounds.put(None)
        self._thread.join(LAST_WORDS_S)
        if self._thread.is_alive():
            self._lost.append(f"no answer within {LAST_WORDS_S:g} s")
        if self._lost:
            print(f"MLflow has not all of this run: {self._lost[0]}", file=sys.stderr)

    def round_closed(self, summary: RoundSummary) -> None:
        """Hand the round to the thread."""
        self._rounds.put(summary)

    def ended(self, pause: str | None) -> None:
        """Note how the run ended."""
        self._status = "FINISHED" if pause is None else "KILLED"

    def _send(self) -> None:
        while (summary := self._rounds.get()) is not None:
            try:
                for name, value in scalars(summary).items():
                    self._client.log_metric(self._run_id, metric_name(name), value, step=summary.round_number)
            except Exception as error:  # whatever the library raises, the run goes on
                self._lost.append(f"round {summary.round_number}: {str(error).splitlines()[0]}")
        try:
            self._client.set_terminated(self._run_id, status=self._status)
        except Exception as error:
            self._lost.append(str(error).splitlines()[0])
