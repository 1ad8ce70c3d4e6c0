"""How a run can be watched besides its terminal: flags, and the watchers that they ask for."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featherfed.errors import ConfigError
from featherfed.server.watchers.watcher import Watcher

if TYPE_CHECKING:
    from featherfed.server.config import RunConfig
    from featherfed.server.dashboard.serving import Where

Command = TypeVar("Command", bound=Callable[..., Any])

DASHBOARD = "127.0.0.1:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """What the flags say. `dashboard` None is no page."""

    dashboard: str | None = DASHBOARD
    dashboard_token: str | None = None
    log_format: str = "text"
    tensorboard: Path | None = None
    mlflow: str | None = None

    def prepare(self) -> "Where | None":
        """Check what can be checked before a run has its folder; return the page's bound socket, if it has a page.

        Raises `ConfigError`.
        """
        for flag, module in (("tensorboard", self.tensorboard and "tensorboard"), ("mlflow", self.mlflow and "mlflow")):
            if module and find_spec(module) is None:
                raise ConfigError(f"--{flag} needs a library: pip install 'featherfed[{flag}]'")
        if self.dashboard is None:
            return None
        # The page's libraries are loaded only where there is one.
        from featherfed.server.dashboard.serving import open_socket

        return open_socket(self.dashboard, self.dashboard_token)

    def flags(self) -> list[str]:
        """Return the flags that say the same again, without those that have their defaults, and without the token.

        >>> Watching(dashboard=None, mlflow="http://127.0.0.1:5000").flags()
        ['--no-dashboard', '--mlflow', 'http://127.0.0.1:5000']
        """
        flags = ["--no-dashboard"] if self.dashboard is None else []
        for name, usual in (("dashboard", DASHBOARD), ("log_format", "text"), ("tensorboard", None), ("mlflow", None)):
            if (value := getattr(self, name)) not in (usual, None):
                flags += [f"--{name.replace('_', '-')}", str(value)]
        return flags

    def records(self, stack: ExitStack, run: str, folder: Path, config: "RunConfig") -> list[Watcher]:
        """Open the records that the flags ask for, to be closed with `stack`; raises `ConfigError`."""
        watchers: list[Watcher] = []
        if self.tensorboard is not None:
            from featherfed.server.watchers.tensorboard_record import TensorBoardRecord

            watchers.append(stack.enter_context(TensorBoardRecord(self.tensorboard / run, config)))
        if self.mlflow is not None:
            from featherfed.server.watchers.mlflow_record import MlflowRecord

            watchers.append(stack.enter_context(MlflowRecord(self.mlflow, run, folder, config)))
        return watchers


def dashboard_flags(command: Command) -> Command:
    """Add `--dashboard` and `--dashboard-token`."""
    for option in (
        click.option("--dashboard-token", envvar="FL_DASHBOARD_TOKEN", metavar="TEXT",
                     help="Needed where others can reach the page.  [env: FL_DASHBOARD_TOKEN]"),
        click.option("--dashboard", metavar="HOST:PORT", default=DASHBOARD, show_default=True,
                     help="Address of the live page and of /metrics; a free port where that one is taken."),
    ):  # fmt: skip
        command = option(command)
    return command


def watch_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all flags of this module to a click command, which gets them as `watching: Watching`."""

    @functools.wraps(command)
    def with_watching(
        *args: Any,
        dashboard: str,
        no_dashboard: bool,
        dashboard_token: str | None,
        log_format: str,
        tensorboard: Path | None,
        mlflow: str | None,
        **kwargs: Any,
    ) -> Any:
        watching = Watching(
            dashboard=None if no_dashboard else dashboard,
            dashboard_token=dashboard_token,
            log_format=log_format,
            tensorboard=tensorboard,
            mlflow=mlflow,
        )
        return command(*args, watching=watching, **kwargs)

    decorated: Callable[..., Any] = with_watching
    for option in (
        click.option("--mlflow", metavar="URI", help="Also record to this MLflow tracking server."),
        click.option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                     help="Also record as TensorBoard event files in DIR/<run>."),
        click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
                     help="What standard output is: lines for people, or one JSON object a line."),
        click.option("--no-dashboard", is_flag=True, help="No live page and no /metrics."),
    ):  # fmt: skip
        decorated = option(decorated)
    return dashboard_flags(decorated)
