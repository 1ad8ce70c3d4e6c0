"""What Prometheus gets, checked by its own tools."""

import json
import math
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from featherfed.server.dashboard.metrics import Metrics
from featherfed.server.measures import LOSS, Measure

from .stage import Play, Stage

DEPLOY = Path(__file__).parents[3] / "deploy"


def play_two_rounds(play: Play) -> None:
    for shard in range(3):
        play.come(shard)
    for number in (1, 2):
        play.at(5.0 * number).round_opened(number, 0, frozenset(range(3)))
        for shard in range(3):
            play.carry(number, shard, up=100, down=1000)
        play.ledger.entry(number, 0, "uplink").wasted += 40
        play.close_round(number, accuracy=0.8 + number / 20, accepted=2, late=1)
    play.scene.fault("phone-1", 4003, "bad payload")


def samples(play: Play) -> dict[tuple[str, str], float]:
    text = Metrics(play.scene).render()[0].decode()
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_privacy_that_was_spent_is_a_number_where_the_run_has_some(play: Play) -> None:
    play_two_rounds(play)
    assert not any(name == "featherfed_privacy_epsilon" for name, _ in samples(play))
    play.close_round(3, epsilon=4.5)
    play.close_round(4, epsilon=6.25)
    assert samples(play)["featherfed_privacy_epsilon", ""] == 6.25


def test_metrics_are_the_runs_numbers(play: Play) -> None:
    play_two_rounds(play)
    found = samples(play)
    assert found["featherfed_rounds_total", ""] == 2
    assert found["featherfed_updates_total", "accepted"] == 4 and found["featherfed_updates_total", "late"] == 2
    assert found["featherfed_test_accuracy_ratio", ""] == 0.9
    assert found["featherfed_metric", "accuracy"] == 0.9
    assert found["featherfed_phones", "waiting"] == 3
    assert found["featherfed_faults_total", "4003"] == 1
    assert found["featherfed_traffic_bytes_total", "uplink,payload"] == 520
    assert found["featherfed_traffic_bytes_total", "uplink,wasted"] == 80
    assert found["featherfed_traffic_bytes_total", "downlink,payload"] == 6000
    assert found["featherfed_round_duration_seconds_bucket", "2.0"] == 2
    assert found["featherfed_round_duration_seconds_sum", ""] == 4


def test_metrics_of_any_name_are_labels_and_no_number_is_nan(tmp_path: Path) -> None:
    odd = 'R² <b>&"$x$"\\, [red]'
    measures = (Measure("mae", higher_is_better=False), Measure(odd), LOSS)
    play = Play(tmp_path, measures)
    play.come(0)
    assert not any(name.startswith("featherfed_metric") for name, _ in samples(play))
    play.at(1.0).round_opened(1, 0, frozenset([0]))
    play.close_round(1, metrics={"mae": float("nan"), odd: -0.5}, loss=0.5)
    found = samples(play)
    assert math.isnan(found["featherfed_metric", "mae"])
    assert (found["featherfed_metric", odd], found["featherfed_test_loss", ""]) == (-0.5, 0.5)
    assert ("featherfed_test_accuracy_ratio", "") not in found


def test_run_without_a_test_set_has_no_series_of_evaluations(tmp_path: Path) -> None:
    play = Play(tmp_path, ())
    play.at(1.0).round_opened(1, 0, frozenset([0]))
    play.close_round(1, metrics={}, loss=None)
    assert not any("metric" in name or "test" in name for name, _ in samples(play))


def test_number_of_series_does_not_grow_with_phones(tmp_path: Path) -> None:
    few, many = Play(tmp_path), Play(tmp_path, phones=1000)
    for play in (few, many):
        for shard in range(play.config.phones):
            play.come(shard, name=f"phone-{shard}", link=f"link-{shard}")
            play.carry(1, shard, up=1)
    assert samples(few).keys() == samples(many).keys()
    assert b"phone-" not in Metrics(many.scene).render()[0]


def test_promtool_finds_nothing_to_object_to(play: Play, promtool: str) -> None:
    play_two_rounds(play)
    body = Metrics(play.scene).render()[0]
    checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=30)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr.decode()


def test_prometheus_config_is_valid(promtool: str) -> None:
    checked = subprocess.run(
        [promtool, "check", "config", "--syntax-only", DEPLOY / "prometheus.yml"], capture_output=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr.decode()


def queries() -> list[str]:
    """Every expression of the Grafana dashboard, as Grafana would send it."""
    found = []
    for file in sorted((DEPLOY / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            found += [target["expr"].replace("$__rate_interval", "10s") for target in panel.get("targets", [])]
    return found


def ask(base: str, expression: str) -> list[Any]:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{base}/api/v1/query?{query}", timeout=10) as answer:
        content = json.load(answer)
    assert content["status"] == "success", content
    result: list[Any] = content["data"]["result"]
    return result


def test_real_prometheus_scrapes_and_every_grafana_panel_has_data(
    stage: Callable[..., Stage], prometheus: str, tmp_path: Path
) -> None:
    page = stage("correct horse battery")
    page.act(lambda: play_two_rounds(page.play))
    host = page.url.removeprefix("http://").rstrip("/")
    config = (DEPLOY / "prometheus.yml").read_text()
    config = re.sub(r"targets: \[.*?\]", f"targets: ['{host}']", config)
    config = re.sub(r"(scrape_interval): .*", r"\1: 1s", config)
    config = re.sub(r"credentials_file: .*", "credentials: correct horse battery", config)
    (tmp_path / "prometheus.yml").write_text(config)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
             "--web.listen-address=127.0.0.1:0"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        base = None
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            said = re.search(r'Listening on" address=(\S+)', (tmp_path / "log").read_text())
            base = base or (said and f"http://{said[1]}")
            # A rate needs two scrapes.
            if base and ask(base, "count_over_time(featherfed_rounds_total[1m]) > 3"):
                break
            time.sleep(0.3)
        assert base, (tmp_path / "log").read_text()
        assert ask(base, "up")[0]["value"][1] == "1"
        assert ask(base, "featherfed_rounds_total")[0]["value"][1] == "2"
        expressions = queries()
        assert len(expressions) >= 8
        for expression in expressions:
            assert ask(base, expression), f"no data for {expression}"
    finally:
        process.terminate()
        process.wait(20)
