"""The page in a real browser: against real runs of real processes, and against plays where a run would be too slow."""

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from featherfed.server.measures import LOSS, Measure
from tests.forked import ForkedProcesses

from .stage import Stage

EVIL = "<img src=x onerror=document.title=1>"
NARROW = {"width": 390, "height": 844}


class Visit:
    """A browser page, and what it said and asked for."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = url
        self.page.goto(url)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def wait(self, expression: str, timeout_s: float = 60) -> None:
        """Wait until a JavaScript expression is true; the library's own way needs an eval, which the page forbids."""
        deadline_s = time.monotonic() + timeout_s
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {expression}; console: {self.said}"
            self.page.wait_for_timeout(50)

    def wait_text(self, selector: str, words: str, timeout_s: float = 60) -> None:
        """Wait until an element is there and has these words."""
        chosen = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{chosen} !== null && {chosen}.textContent.includes({json.dumps(words)})", timeout_s)

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds' table, oldest first, with the exact numbers."""
        script = """rows => rows.map(row => ({round: Number(row.dataset.round), ...Object.fromEntries(
            [...row.querySelectorAll('td')].map(cell => [cell.dataset.name, JSON.parse(cell.dataset.value)]))}))"""
        found: list[dict[str, Any]] = self.page.locator("#rounds tr").evaluate_all(script)
        return found[::-1]

    def quiet(self) -> bool:
        """Whether nothing was said on the console and nothing asked of another origin."""
        assert not self.said, self.said
        assert all(url.startswith(self.url) for url in self.asked), self.asked
        return True


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def open_page(url: str, **context: Any) -> Visit:
        visits.append(Visit(browser, url, **context))
        return visits[-1]

    yield open_page
    for each in visits:
        each.context.close()


def page_of(events: list[dict[str, Any]]) -> str:
    """The page's address from the server's first event."""
    return next(str(event["page"]) for event in events if event["event"] == "listening")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[tuple[Visit, Path]]:
    """A run of three rounds with a swarm of four, and a page that watched it from before the first phone."""
    runs = tmp_path_factory.mktemp("runs")
    events: list[dict[str, Any]] = []
    flags = ["--runs", str(runs), "--name", "first", "--problem", "digits", "--phones", "4", "--rounds", "3",
             "--epochs", "1", "--uplink", "rotate | eden(1)", "--dashboard", "127.0.0.1:0"]  # fmt: skip
    with ForkedProcesses(runs / "logs") as processes:
        address = processes.start_server(flags, events.append)
        visit = Visit(browser, page_of(events))
        visit.page.evaluate(
            """() => { window.moved = 0; new PerformanceObserver(list => { for (const entry of list.getEntries())
               window.moved += entry.value; }).observe({type: 'layout-shift', buffered: true}); }"""
        )
        processes.start_phone("swarm", ["--server", address, "--count", "4", "--links", "3g,4g"], "swarm")
        visit.wait_text("#phase", "done", 120)
        assert visit.quiet()
        assert processes.wait_for_server(60) == 0
    yield visit, runs
    visit.context.close()


def test_page_shows_what_the_report_says(finished: tuple[Visit, Path]) -> None:
    visit, runs = finished
    command = [sys.executable, "-m", "featherfed.commands.server", "report", str(runs / "first"), "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    shown = visit.rounds()
    assert [row["round"] for row in shown] == [1, 2, 3]
    for row, told in zip(shown, report["rounds"], strict=True):
        assert row["accuracy"] == pytest.approx(told["accuracy"], abs=1e-12)
        assert row["loss"] == pytest.approx(told["loss"], abs=1e-12)
        assert (row["updates"], row["late"]) == (told["accepted"], told["late"])
        assert (row["up"], row["down"]) == (told["uplink"]["socket"], told["downlink"]["socket"])
        assert row["wasted"] == told["uplink"]["wasted"] + told["downlink"]["wasted"]
    assert visit.text("#fact-measure-value") == f"{100 * report['rounds'][-1]['accuracy']:.2f} %"
    assert visit.text("#fact-round") == "3 of 3"
    assert "rotate | eden(1)" in visit.text("#command")


def test_nothing_jumps_while_numbers_come(finished: tuple[Visit, Path]) -> None:
    assert finished[0].page.evaluate("window.moved") < 0.01


def test_finished_run_opens_in_the_same_page(finished: tuple[Visit, Path], visit: Callable[..., Visit]) -> None:
    live, runs = finished
    command = [sys.executable, "-m", "featherfed.commands.server", "dashboard", str(runs), "--dashboard", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = re.fullmatch(r"the page is on (\S+).*", process.stdout.readline().strip())
        assert said
        stored = visit(said[1])
        stored.wait_text("#phase", "stored")
        assert stored.rounds() == live.rounds()
        assert stored.text("#run-name") == "first"
        stored.wait_text("#timeline-title", "Round 3")
        stored.page.get_by_role("button", name="Previous round").click()
        stored.wait_text("#timeline-title", "Round 2")
        stored.page.locator("#fleet").focus()
        stored.page.keyboard.press("ArrowRight")
        stored.wait_text("#phone", "swarm-")
        assert stored.quiet()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stdout and process.stdout.close()


def test_killed_phone_is_dropped_and_page_and_server_come_back(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    events: list[dict[str, Any]] = []
    flags = ["--runs", str(tmp_path), "--dashboard", f"127.0.0.1:{port}"]
    new = ["--name", "killed", "--problem", "digits", "--phones", "2", "--rounds", "100000", "--no-durable"]
    with ForkedProcesses(tmp_path / "logs") as processes:
        address = processes.start_server([*flags, *new], events.append)
        watched = visit(page_of(events))
        phone = ["--server", address, "--train", "none", "--patience", "1s"]
        processes.start_phone("stays", [*phone, "--name", "stays"])
        victim = processes.start_phone("victim", [*phone, "--name", EVIL])
        watched.wait("document.querySelectorAll('#rounds tr').length > 3")
        victim.kill()
        watched.wait("document.getElementById('count-dropped').textContent === '1'")
        watched.page.locator("#fleet").focus()
        for _ in range(2):
            watched.page.keyboard.press("ArrowRight")
        names = watched.text("#phone")
        assert EVIL in names or "stays" in names
        assert watched.page.title() == "killed – featherfed" and not watched.page.locator("img").count()
        assert watched.quiet()
        watched.page.reload()
        watched.wait("document.getElementById('count-dropped').textContent === '1'")
        processes.kill_server()
        watched.wait_text("#phase", "reconnecting")
        # What the browser says of a server that is not there is its own affair.
        assert all("Failed to load resource" in line or "ERR_" in line for line in watched.said)
        events.clear()
    with ForkedProcesses(tmp_path / "logs2") as processes:
        processes.start_server(
            ["--resume", str(tmp_path / "killed"), "--dashboard", f"127.0.0.1:{port}"], events.append
        )
        assert page_of(events) == watched.url
        watched.wait("document.getElementById('phase').textContent !== 'reconnecting'")
        watched.wait("document.querySelectorAll('#rounds tr').length > 3")


def test_a_run_that_comes_slowly_is_given_twice_as_long_each_time(
    stage: Callable[..., Stage], visit: Callable[..., Visit]
) -> None:
    url = stage().url
    seen = visit(url)
    seen.wait_text("#phase", "waiting for phones")
    seen.page.goto("about:blank")
    streams: list[Any] = []
    seen.page.route("**/events", lambda route: streams.append(route))
    # Its seconds are ours from here on.
    seen.page.clock.install(time=0)
    seen.page.clock.pause_at(1_000)
    seen.page.goto(url)

    def asked(times: int) -> None:
        deadline_s = time.monotonic() + 30
        while len(streams) < times:
            assert time.monotonic() < deadline_s, len(streams)
            seen.page.wait_for_timeout(50)

    # Seconds to spare each time: what a clock that stands still lets through while the page loads is the machine's.
    asked(1)
    seen.page.clock.run_for(7_000)
    asked(2)
    seen.page.clock.run_for(9_000)
    seen.page.wait_for_timeout(500)
    assert len(streams) == 2
    seen.page.clock.run_for(5_000)
    asked(3)
    seen.page.clock.run_for(25_000)
    streams[-1].continue_()
    seen.wait_text("#phase", "waiting for phones")
    # Of who is silent afterwards, as much is thought as before.
    seen.page.clock.run_for(5_000)
    seen.page.wait_for_timeout(500)
    assert len(streams) == 3


def test_what_a_phone_says_is_text(stage: Callable[..., Stage], visit: Callable[..., Visit]) -> None:
    page = stage()
    page.act(lambda: page.play.come(0, name=EVIL, link="<b onclick=x>2g</b>"))
    page.act(lambda: page.play.scene.fault(EVIL, 4001, "<script>document.title = 'owned'</script>"))
    seen = visit(page.url)
    seen.wait_text("#faults", "<script>document.title = 'owned'</script>")
    assert EVIL in seen.text("#faults")
    seen.page.locator("#fleet").focus()
    seen.page.keyboard.press("Home")
    seen.wait_text("#phone", "<b onclick=x>2g</b>")
    assert not seen.page.locator("img, #faults script, #phone b").count()
    assert seen.page.title().endswith("featherfed") and seen.quiet()


def test_card_says_what_privacy_has_cost_and_of_how_much(
    stage: Callable[..., Stage], visit: Callable[..., Visit]
) -> None:
    page = stage(dp="central", target_epsilon=8.0)

    def begin() -> None:
        page.play.come(0)
        page.play.scene.round_opened(1, 0, frozenset([0]))
        page.play.close_round(1, epsilon=5.419)
        page.play.scene.round_opened(2, 0, frozenset([0]))

    page.act(begin)
    seen = visit(page.url)
    seen.wait_text("#fact-epsilon", "ε 5.42")
    assert seen.text("#fact-budget") == "of 8"
    assert seen.page.locator("#fact-privacy").is_visible() and seen.quiet()
    other = visit(stage().url)
    other.wait_text("#fact-phones", "0 of 3")
    assert not other.page.locator("#fact-privacy").is_visible()


def test_metrics_stand_under_their_own_names_fractions_as_percentages(
    stage: Callable[..., Stage], visit: Callable[..., Visit]
) -> None:
    measures = (Measure("mae", higher_is_better=False), Measure(EVIL), Measure("recall", fraction=True), LOSS)
    page = stage(measures=measures)

    def begin() -> None:
        page.play.come(0)
        page.play.scene.round_opened(1, 0, frozenset([0]))
        page.play.close_round(1, metrics={"mae": 21_500.25, EVIL: float("nan"), "recall": 0.5}, loss=0.25)

    page.act(begin)
    seen = visit(page.url)
    seen.wait_text("#fact-measure-value", "21500")
    assert seen.text("#fact-measure-name") == "mae"
    assert seen.text("#by-round") == "mae and loss by round" and seen.text("#by-bytes") == "mae by bytes, both ways"
    assert seen.page.locator("#fact-measure-more").text_content() == f"{EVIL} –, recall 50.00 %, loss 0.2500"
    assert seen.page.locator("#rounds-head th").all_text_contents()[3:7] == ["mae", EVIL, "recall", "loss"]
    assert seen.page.locator("#rounds td").all_text_contents()[2:6] == ["21500", "–", "50.00 %", "0.2500"]
    assert not seen.page.locator("img").count() and seen.page.title().endswith("featherfed")
    assert seen.quiet()


def test_run_without_a_test_set_has_neither_card_nor_charts_of_metrics(
    stage: Callable[..., Stage], visit: Callable[..., Visit]
) -> None:
    page = stage(measures=())

    def begin() -> None:
        page.play.come(0)
        page.play.scene.round_opened(1, 0, frozenset([0]))
        page.play.close_round(1, metrics={}, loss=None)

    page.act(begin)
    for viewport in (NARROW, {"width": 1280, "height": 900}):
        seen = visit(page.url, viewport=viewport)
        seen.wait_text("#rounds", "3/3")
        for panel in ("#fact-measure", "#by-round-panel", "#by-bytes-panel"):
            assert not seen.page.locator(panel).is_visible()
        assert "loss" not in seen.text("#rounds-head")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert seen.quiet()


def test_page_fits_a_phone_and_is_reached_by_keyboard(stage: Callable[..., Stage], visit: Callable[..., Visit]) -> None:
    page = stage(phones=30, cohort=30)

    def begin() -> None:
        for shard in range(30):
            page.play.come(shard, name=f"a-phone-with-a-long-name-{shard}", link="a-link-with-a-long-name")
        page.play.scene.round_opened(1, 0, frozenset(range(30)))
        page.play.close_round(1)

    page.act(begin)
    seen = visit(page.url, viewport=NARROW, color_scheme="dark")
    seen.wait_text("#count-waiting", "30")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    reached = set()
    for _ in range(20):
        seen.page.keyboard.press("Tab")
        reached.add(seen.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"timeline", "fleet", "round-follow", "table", "faults", "copy", "settings"} <= reached, reached
    seen.page.locator("#fleet").focus()
    seen.page.keyboard.press("End")
    seen.wait_text("#phone", "long-name-29")
    assert seen.page.evaluate("document.getElementById('fleet').scrollTop") > 0, "the chosen tile is scrolled to"
    assert seen.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(15, 19, 25)"
    assert seen.quiet()


def test_token_opens_the_page(stage: Callable[..., Stage], visit: Callable[..., Visit]) -> None:
    page = stage("correct horse battery")
    seen = visit(page.url)
    for token in ("wrong horse battery", "correct horse battery"):
        seen.page.get_by_label("Token of this page").fill(token)
        with seen.page.expect_navigation():
            seen.page.keyboard.press("Enter")
    seen.wait_text("#phase", "waiting for phones")
    assert "horse" not in seen.page.url


def test_thousand_phones_scroll_at_30_frames_a_second(stage: Callable[..., Stage], visit: Callable[..., Visit]) -> None:
    page = stage(phones=1000, cohort=1000)
    clock = itertools.count()

    def begin() -> None:
        for shard in range(1000):
            page.play.come(shard)
        page.play.scene.round_opened(1, 0, frozenset(range(1000)))
        for shard in range(1000):
            page.play.scene.download_began(shard, 1)
            page.play.scene.download_ended(shard, 1)

    def go_on() -> None:
        # A quarter of all phones says something new between two updates of the page.
        step = next(clock)
        scene = page.play.at(0.05 * step)
        for shard in range(step % 20, 1000, 20):
            scene.upload_advanced(shard, 1, (10 * step) % 1000, 1000)
            page.play.carry(1, shard, up=10)

    page.act(begin)
    seen = visit(page.url, viewport={"width": 1920, "height": 1080})
    seen.wait_text("#fact-phones", "1000 of 1000")
    seen.page.evaluate(
        """() => {
          window.frames = [];
          const boards = [document.getElementById('fleet'), document.getElementById('timeline')];
          const step = now => {
            window.frames.push(now);
            for (const board of boards) board.scrollTop += 7;
            requestAnimationFrame(step);
          };
          requestAnimationFrame(step);
        }"""
    )
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s:
        page.act(go_on)
        time.sleep(0.05)
    frames = seen.page.evaluate("window.frames")
    per_s = 1000 * (len(frames) - 1) / (frames[-1] - frames[0])
    assert per_s >= 30, f"{per_s:.1f} frames a second"
    assert seen.page.evaluate("document.getElementById('fleet').scrollTop") > 500
    assert int(seen.text("#count-uploading")) > 500
    assert seen.quiet()
