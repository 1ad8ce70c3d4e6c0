"""Long work under way: a bar with the time left, on a terminal and in a notebook."""

from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from featherfed.server.storage.spent import Spent, size
from featherfed.server.watchers.watcher import RoundSummary, Watcher


class Bar:
    """How many steps are done, what is to be said of them, and the time left; a context manager.

    `progress` None shows it on a terminal, and in a notebook that has ipywidgets (rich draws by them).
    """

    def __init__(self, what: str, steps: int, progress: bool | None = None, *, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        seen = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
        self.shown = seen if progress is None else progress
        """Whether there is a bar to see."""
        self._bar = Progress(
            TextColumn(what), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(), console=console, disable=not self.shown,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=steps, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, done: int, figures: str) -> None:
        """Show that so many steps are done, and what is to be said."""
        self._bar.update(self._task, completed=done, figures=figures)


class ProgressBar(Bar, Watcher):
    """The rounds of a simulation that are done, the last evaluation, bytes up and down and the run's own clock."""

    def __init__(self, rounds: int, progress: bool | None = None, *, console: Console | None = None) -> None:
        super().__init__("round", rounds, progress, console=console)
        self._spent, self._seconds = Spent(), 0.0
        self.notes: list[str] = []
        """What the operator should know besides, in the order in which it was said."""

    def round_closed(self, summary: RoundSummary) -> None:
        """Show a round's figures."""
        self._spent += summary.spent
        self._seconds += summary.seconds
        known = {} if summary.loss is None else {"loss": summary.loss, **summary.metrics}
        figures = [f"{name} {value:.4g}" for name, value in known.items()]
        figures += [f"up {size(self._spent.up)}", f"down {size(self._spent.down)}", f"emulated {self._seconds:.0f} s"]
        self.show(summary.round_number, "  ".join(figures))

    def note(self, sentence: str) -> None:
        """Keep it for who runs the simulation."""
        self.notes.append(sentence)
