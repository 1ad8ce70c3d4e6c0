"""A run on a terminal: a live table where there is one, plain lines elsewhere, JSON lines for log collectors."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from featherfed.server.measures import finite
from featherfed.server.report import size
from featherfed.server.watcher import RoundSummary, Visitor, Watcher

ROWS = 20


class Page(Protocol):
    """Where the live page is."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def line(self) -> str:
        """A sentence with its address."""


class PlainDisplay(Watcher):
    """One line an event, for logs and pipes."""

    def __init__(self, console: Console, page: Page | None) -> None:
        self._console = console
        self._page = page

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """Print one line, at once: whoever reads the pipe waits for it."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()

    def listening(self, address: str, run: str) -> None:
        """Print the address: the first line of standard output."""
        self.say(f"listening on {address}")
        if self._page is not None:
            self.say(self._page.line)

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Print who came."""
        self.say(f"phone {phone.name} plays shard {phone.shard}: {connected}/{expected} connected")

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """Print who left."""
        self.say(f"phone {name} left: {connected} connected")

    def fault(self, name: str, code: int, sentence: str) -> None:
        """Print a phone's fault."""
        self.say(f"phone {name} was disconnected ({code}): {sentence}")

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """Print a retry; a first attempt shows in the line of its round."""
        if attempt:
            self.say(f"round {round_number} is tried again (attempt {attempt + 1}), {len(cohort)} phones asked so far")

    def round_closed(self, summary: RoundSummary) -> None:
        """Print the round's line."""
        self.say("  ".join(f"{name} {text}" for name, text in _cells(summary)))

    def note(self, sentence: str) -> None:
        """Print it."""
        self.say(sentence)


class LiveDisplay(PlainDisplay):
    """A table that grows by a row a round, and a bar for the round under way."""

    def __init__(self, console: Console, page: Page | None) -> None:
        super().__init__(console, page)
        self._rows: list[tuple[str, ...]] = []
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._under_way = self._bar.add_task("waiting for phones", total=None)
        self._waiting = True
        self._live = Live(self._bar, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.update(self._under_way, visible=False)
        self._live.__exit__(kind, error, trace)

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Move the bar of waiting phones."""
        if self._waiting:
            self._bar.update(self._under_way, total=expected, completed=connected)

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """Move the bar of waiting phones back."""
        if self._waiting:
            self._bar.update(self._under_way, completed=connected)

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """Start the round's bar."""
        self._waiting = False
        again = f", attempt {attempt + 1}" if attempt else ""
        self._bar.reset(self._under_way, description=f"round {round_number}{again}", total=len(cohort))

    def update_accepted(self, shard: int, round_number: int, accepted: int, target: int) -> None:
        """Move the round's bar."""
        self._bar.update(self._under_way, total=target, completed=accepted)

    def round_closed(self, summary: RoundSummary) -> None:
        """Add the round's row."""
        cells = _cells(summary)
        self._rows.append(tuple(text for _, text in cells))
        table = Table(*(escape(name) for name, _ in cells))
        for row in self._rows[-ROWS:]:
            table.add_row(*row)
        self._live.update(Group(table, self._bar))


class JsonDisplay(PlainDisplay):
    """One JSON object a line: when (UTC), what, how grave, and the facts by name."""

    def _log(self, event: str, *, level: str = "info", **facts: object) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.say(json.dumps({"at": at, "level": level, "event": event, **facts}))

    def listening(self, address: str, run: str) -> None:
        """Log the addresses."""
        self._log("listening", address=address, run=run, page=self._page and self._page.url)

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Log who came."""
        self._log(
            "phone_came", phone=phone.name, shard=phone.shard, link=phone.link, connected=connected, expected=expected
        )

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """Log who left."""
        self._log("phone_left", phone=name, shard=shard, connected=connected)

    def fault(self, name: str, code: int, sentence: str) -> None:
        """Log a phone's fault."""
        self._log("fault", level="warning", phone=name, code=int(code), sentence=sentence)

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """Log a round's attempt."""
        level = "warning" if attempt else "info"
        self._log("round_opened", level=level, round=round_number, attempt=attempt + 1, cohort=len(cohort))

    def cancelled(self, shard: int, round_number: int) -> None:
        """Log a phone that is late."""
        self._log("cancelled", shard=shard, round=round_number)

    def round_closed(self, summary: RoundSummary) -> None:
        """Log a round's result; what is no number is null."""
        facts: dict[str, Any] = {
            name: finite(value) if isinstance(value, float) else value
            for name, value in asdict(summary).items()
            if name != "measures"
        }
        facts["metrics"] = {name: finite(value) for name, value in summary.metrics.items()}
        self._log("round_closed", **facts)

    def note(self, sentence: str) -> None:
        """Log it."""
        self._log("note", sentence=sentence)

    def ended(self, pause: str | None) -> None:
        """Log the end."""
        self._log("ended", pause=pause)


def display(console: Console, page: Page | None, log_format: str) -> PlainDisplay:
    """Return what fits the console and the wanted format, text or json."""
    if log_format == "json":
        return JsonDisplay(console, page)
    return LiveDisplay(console, page) if console.is_terminal else PlainDisplay(console, page)


def _cells(summary: RoundSummary) -> list[tuple[str, str]]:
    accepted = f"{summary.accepted}/{summary.cohort}"
    updates = [("updates", accepted)]
    if summary.phones is not None:
        updates = [("gateways", accepted), ("updates", str(summary.phones))]
    return [
        ("round", f"{summary.round_number}/{summary.rounds}"),
        *updates,
        *((each.name, each.text(summary.figures.get(each.name))) for each in summary.measures),
        ("up", size(summary.uplink_bytes)),
        ("down", size(summary.downlink_bytes)),
        ("time", f"{summary.seconds:.2f} s"),
    ]
