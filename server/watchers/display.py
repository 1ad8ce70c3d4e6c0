"""A run on a terminal: a live table where there is one, plain lines elsewhere, JSON lines for log collectors."""

import contextlib
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
from featherfed.server.watchers.watcher import RoundSummary, Visitor, Watcher

ROWS = 20


class Page(Protocol):
    """Where the live page is."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def line(self) -> str:
        """A sentence with its address."""


class Invited(Page, Protocol):
    """Where browsers become phones."""

    def qr(self) -> str:
        """Return its address as a QR code, in lines of blocks; nothing where no telephone could use it."""


class PlainDisplay(Watcher):
    """One line an event, for logs and pipes; an event of which people need not know has none."""

    def __init__(self, console: Console, page: Page | None, phones: Invited | None = None) -> None:
        self._console = console
        self._page, self._phones = page, phones

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _say(self, line: str) -> None:
        """Print one line, at once: whoever reads the pipe waits for it."""
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        self._console.file.flush()

    def _show(self, picture: str) -> None:
        """Show people what is no event, on a terminal that has its signs."""
        with contextlib.suppress(UnicodeEncodeError, LookupError):
            picture.encode(self._console.encoding)
            self._say(picture)

    def _tell(self, event: str, line: str = "", /, *, level: str = "info", **facts: object) -> None:
        """Show one event: its `line` to people, its name and facts to programs."""
        if line:
            self._say(line)

    def listening(self, address: str, run: str) -> None:
        """Tell the addresses: the first lines of standard output."""
        lines = [f"listening on {address}", *(each.line for each in (self._page, self._phones) if each)]
        self._tell(
            "listening", "\n".join(lines), address=address, run=run, page=self._page and self._page.url,
            phone_page=self._phones and self._phones.url,
        )  # fmt: skip
        if self._phones is not None and (code := self._phones.qr()):
            self._show(code)

    def phone_came(self, phone: Visitor, connected: int, expected: int) -> None:
        """Tell who came."""
        self._tell(
            "phone_came", f"phone {phone.name} plays shard {phone.shard}: {connected}/{expected} connected",
            phone=phone.name, shard=phone.shard, link=phone.link, connected=connected, expected=expected,
        )  # fmt: skip

    def phone_left(self, shard: int, name: str, connected: int) -> None:
        """Tell who left."""
        sentence = f"phone {name} left: {connected} connected"
        self._tell("phone_left", sentence, phone=name, shard=shard, connected=connected)

    def phone_rests(self, shard: int, name: str, connected: int) -> None:
        """Tell who was sent away; it has no line, since it is as it should be."""
        self._tell("phone_rests", phone=name, shard=shard, connected=connected)

    def fault(self, name: str, code: int, sentence: str) -> None:
        """Tell a phone's fault."""
        line = f"phone {name} was disconnected ({int(code)}): {sentence}"
        self._tell("fault", line, level="warning", phone=name, code=int(code), sentence=sentence)

    def round_opened(self, round_number: int, attempt: int, cohort: frozenset[int]) -> None:
        """Tell an attempt; the first has no line, since it shows in that of its round."""
        again = f"round {round_number} is tried again (attempt {attempt + 1}), {len(cohort)} phones asked so far"
        self._tell(
            "round_opened", again if attempt else "", level="warning" if attempt else "info",
            round=round_number, attempt=attempt + 1, cohort=len(cohort),
        )  # fmt: skip

    def cancelled(self, shard: int, round_number: int) -> None:
        """Tell of a phone that is late."""
        self._tell("cancelled", shard=shard, round=round_number)

    def round_closed(self, summary: RoundSummary) -> None:
        """Tell a round's result; what is no number is null."""
        facts: dict[str, Any] = {
            name: finite(value) if isinstance(value, float) else value
            for name, value in asdict(summary).items()
            if name not in ("measures", "spent")
        }
        spent = summary.spent
        facts |= {"uplink_bytes": spent.up, "downlink_bytes": spent.down}
        facts |= {"socket_bytes": spent.both, "handshake_bytes": spent.handshakes}
        facts["metrics"] = {name: finite(value) for name, value in summary.metrics.items()}
        self._tell("round_closed", "  ".join(f"{name} {text}" for name, text in _cells(summary)), **facts)

    def note(self, sentence: str) -> None:
        """Tell it."""
        self._tell("note", sentence)

    def ended(self, pause: str | None) -> None:
        """Tell the end; what people are told of it depends on who served the run."""
        self._tell("ended", pause=pause)


class LiveDisplay(PlainDisplay):
    """A table that grows by a row a round, and a bar for the round under way."""

    def __init__(self, console: Console, page: Page | None, phones: Invited | None = None) -> None:
        super().__init__(console, page, phones)
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

    def update_arrived(self, shard: int, round_number: int, arrived: int, target: int) -> None:
        """Move the round's bar."""
        self._bar.update(self._under_way, total=target, completed=arrived)

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
    """One JSON object a line: when (UTC), how grave, what, its line for people if it has one, its facts by name."""

    def _show(self, picture: str) -> None:
        pass

    def _tell(self, event: str, line: str = "", /, *, level: str = "info", **facts: object) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        message = {"message": line} if line else {}
        self._say(json.dumps({"at": at, "level": level, "event": event, **message, **facts}))


def display(console: Console, page: Page | None, log_format: str, phones: Invited | None = None) -> PlainDisplay:
    """Return what fits the console and the wanted format, text or json."""
    if log_format == "json":
        return JsonDisplay(console, page, phones)
    return LiveDisplay(console, page, phones) if console.is_terminal else PlainDisplay(console, page, phones)


def _cells(summary: RoundSummary) -> list[tuple[str, str]]:
    accepted = f"{summary.accepted}/{summary.cohort}"
    updates = [("updates", accepted)]
    if summary.phones is not None:
        updates = [("gateways", accepted), ("updates", str(summary.phones))]
    return [
        ("round", f"{summary.round_number}/{summary.rounds}"),
        *updates,
        *((each.name, each.text(summary.figures.get(each.name))) for each in summary.measures),
        *summary.spent.sizes().items(),
        *(() if summary.epsilon is None else [("ε", f"{summary.epsilon:.3g}")]),
        ("time", f"{summary.seconds:.2f} s"),
    ]
