"""A run with the page, and a phone's browser with its finger."""

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from featherfed.errors import LocalError
from lab.finger import draw
from tests.forked import ForkedProcesses

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class Run:
    """A server in a process of its own, whose page is for browsers."""

    def __init__(self, folder: Path, number: int, flags: Sequence[str], *, token: str = "") -> None:
        self.folder = folder / "runs" / f"run-{number}"
        self.events: list[dict[str, Any]] = []
        self._processes = ForkedProcesses(folder / f"logs-{number}")
        self._flags = flags
        self._token = token
        given = [] if "--resume" in flags else ["--runs", str(self.folder.parent), "--name", self.folder.name]
        with mock.patch.dict(os.environ, {"FL_PHONE_TOKEN": token} if token else {}):
            try:
                flags = [*given, "--no-dashboard", "--phone-page", *flags]
                self.address = self._processes.start_server(flags, self.events.append)
            except LocalError:
                self.close()
                raise
        [self.url] = [str(event["phone_page"]) for event in self.events if event["event"] == "listening"]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def python_phones(self, count: int) -> None:
        arguments = ["--server", self.address, "--count", str(count)]
        self._processes.start_phone("swarm", arguments, "swarm")

    def kill(self) -> None:
        """End the server as a crash does."""
        self._processes.kill_server()

    def wait(self, timeout_s: float = 120) -> None:
        assert self._processes.wait_for_server(timeout_s) == 0

    def rounds(self) -> list[dict[str, Any]]:
        """Return what the log says of the closed rounds."""
        return [event for event in self.events if event["event"] == "round_closed"]

    def came(self, count: int) -> list[str]:
        """Return the names of the phones that came, when the log has told of so many: it may be behind a page."""
        deadline_s = time.monotonic() + 60
        while len(names := [each["phone"] for each in self.events if each["event"] == "phone_came"]) < count:
            assert time.monotonic() < deadline_s, names
            time.sleep(0.05)
        return names

    def traffic(self, shard: int, field: str) -> dict[str, int]:
        """Return a field of the ledger, summed over the rounds of one phone, by direction."""
        with sqlite3.connect(self.folder / "run.sqlite") as database:
            query = f"SELECT direction, SUM({field}) FROM traffic WHERE shard = ? GROUP BY direction"
            return dict(database.execute(query, (shard,)))

    def close(self) -> None:
        self._processes.__exit__(None, None, None)


NETWORK = ("WebSocket connection to ", "Failed to load resource: ")


class Browsing:
    """One browser: its page, what it said and what it asked for."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**{**PHONE, **context})
        self.said: list[str] = []
        self.asked: list[str] = []
        self.url = url
        self.page: Any = None
        self.open()

    def open(self) -> None:
        """Open a tab."""
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(self.url)

    def draw(self, digit: int) -> None:
        """Draw a digit with a finger, and say which one it is."""
        draw(self.page, digit)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def number(self, selector: str) -> int:
        return int(self.page.locator(selector).get_attribute("data-value"))

    def wait_text(self, selector: str, words: str, timeout_s: float = 60) -> None:
        """Wait until an element has these words; the library's own way needs an eval, which the page forbids."""
        deadline_s = time.monotonic() + timeout_s
        while words not in (seen := self.text(selector)):
            assert time.monotonic() < deadline_s, f"{words!r} is not in {seen!r}; console: {self.said}"
            self.page.wait_for_timeout(50)

    def wait_value(self, expression: str, value: Any, timeout_s: float = 60) -> None:
        """Wait until an expression has a value on the page."""
        deadline_s = time.monotonic() + timeout_s
        while (seen := self.page.evaluate(expression)) != value:
            assert time.monotonic() < deadline_s, f"{expression} is {seen!r}"
            self.page.wait_for_timeout(50)

    def kept(self) -> dict[str, Any]:
        """Return what the phone keeps, by name: sizes of arrays in place of arrays."""
        script = """() => new Promise((done, fail) => {
            const request = indexedDB.open('featherfed-phone');
            request.onerror = () => fail(request.error);
            request.onsuccess = () => {
                const store = request.result.transaction('memory').objectStore('memory');
                const keys = store.getAllKeys(), values = store.getAll();
                values.onsuccess = () => {
                    request.result.close();
                    const pairs = keys.result.map((key, i) => [key, values.result[i]]);
                    done(JSON.stringify(Object.fromEntries(pairs),
                        (_, value) => ArrayBuffer.isView(value) ? value.length : value));
                };
            };
        })"""
        found: dict[str, Any] = json.loads(self.page.evaluate(script))
        return found

    def unforeseen(self) -> list[str]:
        """Return what the console said besides what a browser itself says of a network that is gone or refuses."""
        return [each for each in self.said if not each.startswith(NETWORK)]

    def quiet(self) -> bool:
        """Whether nothing was said on the console and nothing asked of another origin."""
        assert not self.said, self.said
        origin = "/".join(self.url.split("/")[:3])
        assert all(url.startswith(f"{origin}/") for url in self.asked), self.asked
        return True
