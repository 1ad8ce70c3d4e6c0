import io
from dataclasses import replace

import pytest
from rich.console import Console

from featherfed.server.measures import LOSS, Measure
from featherfed.server.storage.spent import Spent
from featherfed.server.watchers.display import LiveDisplay, PlainDisplay, display
from featherfed.server.watchers.watcher import RoundSummary, Visitor

PHONE = Visitor(3, "phone-[red]3[/red]", "3g", 91_815)


def summary(number: int, accuracy: float | None = 0.9432) -> RoundSummary:
    loss = None if accuracy is None else 0.1234
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    measures = (Measure("accuracy", fraction=True), LOSS)
    return RoundSummary(number, 8, 10, 9, 1, 0, loss, metrics, 1.234, Spent(31_234, 120_000, 4_000), measures=measures)


def terminal() -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=120, height=60, color_system=None, legacy_windows=False
    )


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def last_frame(shown: LiveDisplay) -> str:
    """Return what the live part shows now."""
    console = Console(file=io.StringIO(), width=120)
    console.print(shown._live.get_renderable())
    return printed(console)


def test_line_of_a_round_says_what_privacy_has_cost() -> None:
    console = Console(file=io.StringIO(), width=200)
    PlainDisplay(console, None).round_closed(replace(summary(1, 0.9), epsilon=5.419))
    assert "  ε 5.42  time " in printed(console)


def test_terminal_gets_the_table_and_a_pipe_gets_lines() -> None:
    assert isinstance(display(terminal(), None, "text"), LiveDisplay)
    assert type(display(Console(file=io.StringIO()), None, "text")) is PlainDisplay


def test_pipe_gets_one_line_an_event_and_the_address_first() -> None:
    console = Console(file=io.StringIO(), width=20)
    with PlainDisplay(console, None) as shown:
        shown.listening("ws://127.0.0.1:8765", "ab12")
        shown.phone_came(PHONE, 1, 10)
        shown.fault("phone-4", 4003, "update of 7 bytes does not have the digest that was announced")
        shown.round_opened(1, 0, frozenset(range(10)))
        shown.round_opened(1, 1, frozenset(range(10)))
        shown.update_accepted(3, 1, 1, 10)
        shown.round_closed(summary(1))
        shown.round_closed(summary(2, None))
        shown.phone_left(3, PHONE.name, 0)
    carried = "up 31.2 kB  down 120 kB  both 151 kB  handshakes 4 kB  time 1.23 s"
    assert printed(console).splitlines() == [
        "listening on ws://127.0.0.1:8765",
        "phone phone-[red]3[/red] plays shard 3: 1/10 connected",
        "phone phone-4 was disconnected (4003): update of 7 bytes does not have the digest that was announced",
        "round 1 is tried again (attempt 2), 10 phones asked so far",
        f"round 1/8  updates 9/10  accuracy 94.32%  loss 0.1234  {carried}",
        f"round 2/8  updates 9/10  accuracy –  loss –  {carried}",
        "phone phone-[red]3[/red] left: 0 connected",
    ]


def test_terminal_counts_the_phones_that_are_waited_for() -> None:
    with LiveDisplay(terminal(), None) as shown:
        shown.phone_came(PHONE, 1, 10)
        shown.phone_came(PHONE, 2, 10)
        assert "waiting for phones" in last_frame(shown)
        assert "2/10" in last_frame(shown)
        shown.phone_left(3, PHONE.name, 1)
        assert "1/10" in last_frame(shown)


def test_bar_of_a_round_counts_its_updates_whoever_comes_and_goes() -> None:
    with LiveDisplay(terminal(), None) as shown:
        shown.phone_came(PHONE, 10, 10)
        shown.round_opened(1, 0, frozenset(range(5)))
        shown.update_accepted(3, 1, 2, 5)
        shown.phone_left(3, PHONE.name, 9)
        shown.phone_came(PHONE, 10, 10)
        assert "round 1 " in last_frame(shown)
        assert "2/5" in last_frame(shown)
        shown.round_opened(1, 1, frozenset(range(5)))
        assert "round 1, attempt 2" in last_frame(shown)


def test_table_grows_by_a_row_a_round_and_shows_the_latest() -> None:
    with LiveDisplay(terminal(), None) as shown:
        for number in range(1, 31):
            shown.round_closed(summary(number))
        frame = last_frame(shown)
    rows = [line for line in frame.splitlines() if "/8 " in line]
    assert len(rows) == 20
    assert "11/8" in rows[0]
    assert "30/8" in rows[-1]
    assert "94.32%" in rows[-1]


def test_terminal_shows_faults_above_the_table_and_the_table_at_the_end() -> None:
    console = terminal()
    with display(console, None, "text") as shown:
        shown.listening("ws://127.0.0.1:8765", "ab12")
        shown.round_closed(summary(1))
        shown.fault("phone-4", 4003, "a sentence")
    text = printed(console)
    assert "listening on ws://127.0.0.1:8765" in text
    assert "phone phone-4 was disconnected (4003): a sentence" in text
    assert "94.32%" in text


@pytest.mark.parametrize("console", [terminal(), Console(file=io.StringIO())], ids=["terminal", "pipe"])
def test_error_inside_passes_through(console: Console) -> None:
    with pytest.raises(ZeroDivisionError), display(console, None, "text"):
        raise ZeroDivisionError


def test_metrics_have_their_names_whatever_they_are_and_a_run_without_a_test_set_has_none() -> None:
    odd = "R² [red]<b>"
    measures = (Measure("mae", higher_is_better=False), Measure(odd), LOSS)
    values = {"mae": 0.25, odd: float("nan")}
    measured = RoundSummary(1, 8, 2, 2, 0, 0, 0.5, values, 1.0, Spent(10, 20), measures=measures)
    console = Console(file=io.StringIO())
    with PlainDisplay(console, None) as plain:
        plain.round_closed(measured)
        plain.round_closed(RoundSummary(2, 8, 2, 2, 0, 0, None, {}, 1.0, Spent(10, 20)))
    carried = "up 10 B  down 20 B  both 30 B  handshakes 0 B  time 1.00 s"
    assert printed(console).splitlines() == [
        f"round 1/8  updates 2/2  mae 0.2500  R² [red]<b> nan  loss 0.5000  {carried}",
        f"round 2/8  updates 2/2  {carried}",
    ]
    with LiveDisplay(terminal(), None) as live:
        live.round_closed(measured)
        assert odd in last_frame(live)
