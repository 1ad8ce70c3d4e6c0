import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from featherfed.server.config import RunConfig
from featherfed.server.measures import LOSS, TARGETS, Measure
from featherfed.server.storage.ledger import DIRECTIONS, FIELDS, Traffic
from featherfed.server.storage.report import Report, make_report, table, write_csv
from featherfed.server.storage.run_folder import RunFolder
from featherfed.server.storage.spent import size
from featherfed.server.storage.store import (
    Statement,
    Store,
    StoredUpdate,
    close_round,
    put_evaluation,
    put_measures,
    put_round,
    put_traffic,
    put_update,
    put_value,
)

CONFIG = RunConfig(problem="digits/lite", phones=3, cohort=3, uplink="rotate | eden(1)", downlink="float32")
DIGEST = b"12345678"


def closed(number: int, accuracy: float | None, started_s: float, seconds: float) -> list[Statement]:
    return [
        put_round(number, 0, [0, 1, 2], (), started_s),
        close_round(number, seconds=seconds, late=1, failed=0),
        put_evaluation(number, 0.5, {"accuracy": accuracy} if accuracy else {}),
        *(put_update(StoredUpdate(number, shard, "accepted", 6, DIGEST, 10, number)) for shard in (0, 2)),
        put_update(StoredUpdate(number, 1, "receiving", 6, DIGEST, 10)),
        *put_traffic(
            {
                (number, shard, way): Traffic(10, 20 * number, 30, 40 * number, 50, shard, 0)
                for shard in range(3)
                for way in DIRECTIONS
            }
        ),
    ]


def report_of(folder: Path, statements: list[Statement]) -> Any:
    run = RunFolder(folder / "mine")
    run.path.mkdir()
    store = Store(run.database)
    store.apply(statements)
    report = make_report(run, CONFIG, store)
    store.close()
    return report


@pytest.fixture
def report(tmp_path: Path) -> Any:
    return report_of(
        tmp_path,
        [
            put_value("parameters", "29322"),
            put_measures((Measure("accuracy", fraction=True), LOSS)),
            *closed(1, 0.93, 0.0, 2.0),
            *closed(2, None, 2.5, 2.0),
            *closed(3, 0.985, 5.0, 2.25),
            put_round(4, 1, [0, 1], (), 8.0),
        ],
    )


def test_report_has_the_keys_that_the_design_promises_and_no_others(report: Any) -> None:
    content = json.loads(report.to_json())
    assert list(content) == [
        "run", "problem", "parameters", "uplink", "downlink", "measures", "rounds", "totals", "to_target",
    ]  # fmt: skip
    row_keys = {
        "round", "state", "cohort", "accepted", "late", "failed", "loss", "metrics", "accuracy", "seconds", "ended_s",
        *DIRECTIONS, "socket", "handshake",
    }  # fmt: skip
    for row in content["rounds"]:
        assert set(row) == row_keys
        assert all(tuple(row[way]) == FIELDS for way in DIRECTIONS)
    assert set(content["totals"]) == {*DIRECTIONS, "socket", "handshake"}
    assert tuple(content["to_target"]) == tuple(f"accuracy={value}" for value in TARGETS)
    assert [each["name"] for each in content["measures"]] == ["accuracy", "loss"]


def test_rounds_hold_what_the_store_has(report: Any) -> None:
    first, second, third, fourth = report.content["rounds"]
    assert [row["state"] for row in (first, second, third, fourth)] == ["closed"] * 3 + ["open"]
    assert (first["cohort"], first["accepted"], first["late"], first["failed"]) == (3, 2, 1, 0)
    assert (second["accuracy"], fourth["seconds"], fourth["accepted"]) == (None, None, 0)
    assert third["uplink"] == dict(zip(FIELDS, (30, 180, 90, 360, 150, 3, 0, 0, 0), strict=True))
    assert (third["socket"], third["handshake"]) == (720, 300)
    assert fourth["downlink"] == dict.fromkeys(FIELDS, 0)


def test_totals_are_the_sums_of_the_rounds(report: Any) -> None:
    for way in DIRECTIONS:
        for field in FIELDS:
            expected = sum(row[way][field] for row in report.content["rounds"])
            assert report.content["totals"][way][field] == expected
    for name in ("socket", "handshake"):
        assert report.content["totals"][name] == sum(report.content["totals"][way][name] for way in DIRECTIONS)


def test_cost_of_a_target_is_what_was_spent_until_it_was_first_reached(report: Any) -> None:
    reached = report.content["to_target"]
    assert reached["accuracy=0.9"] == {
        "round": 1, "seconds": 2.0, "uplink_payload": 60, "uplink_socket": 120, "downlink_socket": 120, "socket": 240,
        "handshake": 300,
    }  # fmt: skip
    for target in ("accuracy=0.95", "accuracy=0.97", "accuracy=0.98"):
        assert reached[target] == {
            "round": 3, "seconds": 7.25, "uplink_payload": 360, "uplink_socket": 720, "downlink_socket": 720,
            "socket": 1440, "handshake": 900,
        }  # fmt: skip
    assert reached["accuracy=0.99"] is None


def test_csv_holds_the_same_rows(report: Any, tmp_path: Path) -> None:
    write_csv(RunFolder(tmp_path), report)
    text = (tmp_path / "rounds.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4
    for row, expected in zip(rows, report.content["rounds"], strict=True):
        for way in DIRECTIONS:
            for field in FIELDS:
                assert int(row[f"{way}_{field}"]) == expected[way][field]
        assert (int(row["socket"]), int(row["handshake"])) == (expected["socket"], expected["handshake"])
        for name in (
            "round",
            "state",
            "cohort",
            "accepted",
            "late",
            "failed",
            "loss",
            "accuracy",
            "seconds",
            "ended_s",
        ):
            assert row[name] == ("" if expected[name] is None else str(expected[name]))


def shown(report: Any) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table(report, console.width))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_table_has_a_line_a_round_the_total_and_the_handshakes(report: Any) -> None:
    text = shown(report)
    assert "mine: digits/lite, 29,322 parameters, up rotate | eden(1), down float32" in text
    cells = list(zip(*([*column.cells] for column in table(report, 200).columns), strict=True))
    assert list(cells[0][:6]) == ["1", "2/3", "93.00%", "2.00", "30 B", "60 B"]
    assert cells[1][2] == ""
    assert list(cells[3][:4]) == ["4", "0/2", "", ""]
    assert cells[4][0] == "total"
    assert "bytes, all phones: 720 B up + 720 B down = 1.44 kB both ways; 900 B of handshakes beside them" in text
    # What the root of a tree counts are its gateways' bytes.
    assert "bytes, all gateways: 720 B up" in shown(Report({**report.content, "gateways": 2}))


def test_narrow_terminal_gets_the_columns_that_fit_it(report: Any) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(table(report, console.width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    headers = [str(column.header).replace("\n", " ") for column in table(report, 80).columns]
    assert headers[4:] == ["up payload", "up socket", "down socket", "both socket", "resent", "wasted"]


def test_run_without_a_round_has_a_report(tmp_path: Path) -> None:
    report = report_of(tmp_path, [])
    content = report.content
    assert (content["rounds"], content["parameters"]) == ([], 0)
    assert content["totals"] == {
        **{way: dict.fromkeys(FIELDS, 0) for way in DIRECTIONS}, "socket": 0, "handshake": 0
    }  # fmt: skip
    assert (content["measures"], content["to_target"]) == ([], {})
    assert "total" in shown(report)
    assert report.to_csv().count("\n") == 1


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (117_288, "117 kB"), (999_900, "1000 kB"), (1_000_000, "1 MB"),
     (6_653_480, "6.65 MB"), (2_500_000_000, "2.5 GB")],
)  # fmt: skip
def test_sizes_are_decimal_as_data_plans_count(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text
