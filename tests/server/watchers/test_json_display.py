import io
import json

from rich.console import Console

from featherfed.server.measures import Measure
from featherfed.server.storage.spent import Spent
from featherfed.server.watchers.display import JsonDisplay, PlainDisplay, display
from featherfed.server.watchers.watcher import RoundSummary, Visitor, Watcher, Watchers


class Page:
    url = "http://127.0.0.1:8080/"
    line = "the page is on http://127.0.0.1:8080/"


def console() -> Console:
    return Console(file=io.StringIO(), width=40)


def said(display: PlainDisplay) -> list[str]:
    file = display._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_first_line_is_the_address_and_the_second_the_page() -> None:
    shown = display(console(), Page(), "text")
    shown.listening("ws://127.0.0.1:8765", "ab12")
    assert said(shown) == ["listening on ws://127.0.0.1:8765", Page.line]
    without = display(console(), None, "text")
    without.listening("ws://127.0.0.1:8765", "ab12")
    assert said(without) == ["listening on ws://127.0.0.1:8765"]


def test_json_log_is_one_object_a_line_whatever_a_phone_is_called() -> None:
    log = display(console(), Page(), "json")
    assert isinstance(log, JsonDisplay)
    name = 'phone\u2028"}\x1b[31m' + "x" * 50
    log.listening("ws://127.0.0.1:8765", "ab12")
    log.phone_came(Visitor(3, name, "2g", 30605), 1, 10)
    log.fault(name, 4003, "bad payload")
    measures = (Measure("accuracy", fraction=True), Measure("loss", higher_is_better=False))
    values = {"accuracy": 0.5, "r2": float("-inf")}
    log.round_closed(RoundSummary(1, 8, 10, 9, 1, 0, float("nan"), values, 2.0, Spent(100, 200, 7), measures=measures))
    log.round_opened(2, 0, frozenset({1, 2}))
    log.note("a phone's clock is wrong")
    log.ended("the operator stopped the run")
    lines = [json.loads(line, parse_constant=lambda constant: 1 / 0) for line in said(log)]
    assert [line["event"] for line in lines] == [
        "listening", "phone_came", "fault", "round_closed", "round_opened", "note", "ended",
    ]  # fmt: skip
    assert lines[0]["page"] == Page.url and lines[1]["phone"] == name and lines[1]["link"] == "2g"
    assert (lines[2]["level"], lines[2]["code"]) == ("warning", 4003)
    assert lines[3]["loss"] is None and lines[3]["metrics"] == {"accuracy": 0.5, "r2": None}
    counted = {name: lines[3][f"{name}_bytes"] for name in ("uplink", "downlink", "socket", "handshake")}
    assert counted == {"uplink": 100, "downlink": 200, "socket": 300, "handshake": 7} and "spent" not in lines[3]
    assert [line.get("message", "") for line in lines[2:]] == [
        f"phone {name} was disconnected (4003): bad payload",
        "round 1/8  updates 9/10  accuracy 50.00%  loss nan  "
        "up 100 B  down 200 B  both 300 B  handshakes 7 B  time 2.00 s",
        "",
        "a phone's clock is wrong",
        "",
    ]
    assert all(line["at"].endswith("+00:00") for line in lines)


def test_watchers_pass_everything_on_in_order() -> None:
    told: list[tuple[int, str]] = []

    class Noting(Watcher):
        def __init__(self, number: int) -> None:
            self.number = number

        def download_began(self, shard: int, round_number: int) -> None:
            told.append((self.number, f"{shard} {round_number}"))

    both = Watchers([Noting(1)])
    both.add(Noting(2))
    both.download_began(4, 7)
    assert told == [(1, "4 7"), (2, "4 7")]
    events = [name for name in vars(Watcher) if not name.startswith("_")]
    assert events and all(name in vars(Watchers) for name in events), "a new event must be passed on"
