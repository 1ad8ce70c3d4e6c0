"""Twenty phones at once, with and without a link, against a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featherfed.fl_bench.processes import Processes

pytestmark = pytest.mark.processes
PHONES = 20
LINKS = (
    [],
    ["--bandwidth", "5mbps", "--latency", "10ms", "--jitter", "5ms", "--loss", "1%"],
    ["--bandwidth", "2mbps", "--drop-every", "60kB", "--drop-how", "close"],
    ["--bandwidth", "2mbps/5mbps", "--drop-every", "100kB"],
    ["--link", "lte"],
)


def test_twenty_phones_on_all_kinds_of_links_finish_and_every_update_counts_once(tmp_path: Path) -> None:
    # Updates and models of 117 kB: on the links that drop, no connection lives long enough for one.
    settings = ["--runs", str(tmp_path), "--name", "a", "--problem", "digits", "--phones", str(PHONES)]
    settings += ["--cohort", str(PHONES), "--rounds", "1"]
    with Processes(tmp_path / "logs") as processes:
        address = processes.start_server(settings, lambda event: None)
        flags = ["--server", address, "--train", "none"]
        phones = [
            processes.start_phone(f"{number}", [*flags, "--name", f"phone-{number}", *LINKS[number % len(LINKS)]])
            for number in range(PHONES)
        ]
        assert processes.wait_for_server(120.0) == 0
        assert [phone.wait(30.0) for phone in phones] == [0] * PHONES
    told = subprocess.run(
        [sys.executable, "-m", "featherfed.commands.server", "report", str(tmp_path / "a"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(told.stdout)["rounds"]
    assert [(row["state"], row["accepted"]) for row in rows] == [("closed", PHONES)]
    for way in ("uplink", "downlink"):
        payload, theory, resent = (sum(row[way][name] for row in rows) for name in ("payload", "theory", "resent"))
        assert theory <= payload <= theory + resent
