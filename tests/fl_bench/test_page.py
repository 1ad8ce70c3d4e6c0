import re
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pytest

from featherfed.fl_bench.page import bytes_plot, measure_plot, run_page
from featherfed.server.measures import LOSS, Measure

TRAFFIC = {
    "theory": 10, "payload": 1000, "message": 1100, "socket": 1200, "handshake": 50, "resent": 100, "wasted": 50,
    "masks": 0, "points": 0,
}  # fmt: skip

ACCURACY = Measure("accuracy", fraction=True)
REACHED = {
    "round": 2,
    "uplink_socket": 2400,
    "downlink_socket": 2400,
    "socket": 4800,
    "handshake": 200,
    "seconds": 40.0,
}


def report(rounds: int, **changes: Any) -> dict[str, Any]:
    rows = [
        {"round": number, "state": "closed", "cohort": 3, "accepted": 2, "late": 1, "failed": 0, "loss": 0.5,
         "metrics": {"accuracy": 0.9 + number / 1000}, "seconds": 1.5, "ended_s": 1.5 * number,
         "uplink": TRAFFIC, "downlink": TRAFFIC, "socket": 2400, "handshake": 100}
        for number in range(1, rounds + 1)
    ]  # fmt: skip
    totals = {key: value * rounds for key, value in TRAFFIC.items()}
    return {
        "run": "mine", "problem": "digits/lite", "parameters": 29_322,
        "uplink": "rotate | eden(1)", "downlink": "float32", "measures": [asdict(each) for each in (ACCURACY, LOSS)],
        "rounds": rows,
        "totals": {"uplink": totals, "downlink": totals, "socket": 2400 * rounds, "handshake": 100 * rounds},
        "to_target": {"accuracy=0.9": REACHED, "accuracy=0.95": None}, **changes,
    }  # fmt: skip


def test_page_holds_the_rounds_the_totals_and_the_command() -> None:
    page = run_page(report(3), ["fl-server serve --uplink 'rotate | eden(1)'", "fl-edge run"], "rounds = 3")
    assert "<td>90.10%" in page and "<td>90.30%" in page
    assert "29,322 parameters" in page
    assert page.count("<tr><td>") == 3 + 1
    assert "90.30%</b><span>best accuracy, round 3 of 3" in page
    # Two updates a round: 1,000 bytes less what was sent again and wasted, beside 4 × 29,322.
    assert "425 B</b><span>an update: 276 × less than float32" in page
    assert "<td>accuracy 90%<td>2\n<td>2.4 kB<td>2.4 kB<td>4.8 kB<td>200 B<td>3.0" in page
    assert "7.2 kB</b><span>both ways, all phones; 300 B of handshakes beside" in page
    assert "<pre>rounds = 3</pre>" in page
    assert "3.6 kB" in page
    assert "fl-server serve --uplink &#39;rotate | eden(1)&#39;" in page


def test_page_of_a_run_with_differential_privacy_says_what_it_has_spent() -> None:
    plain = report(2)
    assert "ε" not in run_page(plain, ["fl-server serve"])
    rows = [{**row, "epsilon": value} for row, value in zip(plain["rounds"], (1.234, None), strict=True)]
    account = {"epsilon": 1.234, "delta": 1e-3, "target_epsilon": 8.0}
    page = run_page({**plain, "rounds": rows, "privacy": account}, ["fl-server serve"])
    assert "ε 1.23</b><span>the privacy of each phone, δ 0.001, of at most 8</span>" in page
    assert '<th rowspan="2">ε' in page and "<td>1.23\n" in page and "<td>–\n" in page


def test_page_needs_nothing_from_elsewhere() -> None:
    page = run_page(report(2), ["fl-server serve"])
    body = re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>', "", page, flags=re.S)
    assert not re.search(r'(src|href)="(?!#)', body)
    assert "@import" not in body


def test_name_of_a_run_can_not_break_out_of_the_page() -> None:
    page = run_page(report(1, run="<script>alert(1)</script>"), ["x"])
    assert "<script>" not in page


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_plots_are_pictures_whatever_the_run_has(rounds: int) -> None:
    for text in [
        bytes_plot(report(rounds)),
        *(measure_plot(report(rounds), ACCURACY, against=what) for what in ("bytes", "time")),
    ]:
        assert ElementTree.fromstring(text).tag.endswith("svg")


def test_round_without_an_evaluation_has_no_point_and_a_dash() -> None:
    content = report(2)
    content["rounds"][1] = {**content["rounds"][1], "metrics": {}, "loss": None, "seconds": None}
    page = run_page(content, ["x"])
    assert page.count("<td>–") == 3
