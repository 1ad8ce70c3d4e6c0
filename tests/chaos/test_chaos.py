"""The short chaos run with real processes; `make chaos` plays the long ones."""

import asyncio
from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from lab.chaos.arena import Arena
from lab.chaos.schedule import ENDS, KINDS, WAYS, Schedule, plan, read_schedule, transfer_bytes
from lab.chaos.verdict import broken_promises, figures

HERE = Path(__file__).parent
LONG = {path.stem: read_schedule(path) for path in sorted((HERE / "long").glob("*.toml"))}
RUN = {
    "phones": 3, "rounds": 3, "trainers": 0, "problem": "digits/cnn", "uplink": "float32", "downlink": "float32",
    "tls": True, "heartbeat": "2s", "server_kills": 1, "phone_kills": 2, "cuts": 12,
}  # fmt: skip


@pytest.mark.processes
async def test_nothing_is_lost_when_phones_and_the_server_are_killed_and_transfers_cut(tmp_path: Path) -> None:
    schedule = read_schedule(HERE / "short.toml")
    async with asyncio.timeout(240):
        calm = await Arena(schedule.calm(), tmp_path, "calm").play()
        outcome = await Arena(schedule, tmp_path, "chaos").play()
    assert broken_promises(schedule, calm, outcome) == []
    assert outcome.server_kills == schedule.count("kill-server")
    # A fault that waits for a transfer of a phone that has ended never strikes; few do.
    assert outcome.phone_kills >= 1
    assert all(outcome.breaks[how] >= 2 for how in ("rst", "fin", "silence"))
    assert outcome.downloads_cut >= 3
    assert outcome.uploads_cut >= 3
    print(figures([("short", schedule, outcome)]))


def test_schedule_is_its_file_and_another_seed_gives_another() -> None:
    drawn = plan(seed=0, **RUN)
    assert drawn == read_schedule(HERE / "short.toml")
    assert drawn != plan(seed=1, **RUN)


def faults_of(schedule: Schedule) -> set[tuple[str, str, str]]:
    return {(fault.what, fault.way, fault.at) for fault in schedule.faults if fault.what in {"rst", "fin"}}


def test_long_runs_break_everything_that_there_is() -> None:
    every = {(what, way, at) for what in ("rst", "fin") for way in WAYS for at in ENDS}
    for name, schedule in LONG.items():
        assert faults_of(schedule) == every, name
        assert {fault.what for fault in schedule.faults} == set(KINDS), name
        assert {fault.way for fault in schedule.faults if fault.what == "silence"} == set(WAYS), name
        # A phone is also killed in the middle of a download.
        assert {fault.way for fault in schedule.faults if fault.what == "kill-phone"} == set(WAYS), name
    runs = LONG.values()
    assert {schedule.tls for schedule in runs} == {False, True}
    assert {schedule.mode for schedule in runs} == {"sync", "async"}
    assert {schedule.gateways > 0 for schedule in runs} == {False, True}
    in_full = {run.problem for run in runs if run.uplink == run.downlink == "float32"}
    assert in_full == {"digits/cnn", "digits/2nn"}


@pytest.mark.parametrize("name", LONG)
def test_cuts_lie_at_bytes_all_over_a_transfer(name: str) -> None:
    schedule = LONG[name]
    for way, spec, direction in (("up", schedule.uplink, "uplink"), ("down", schedule.downlink, "downlink")):
        size = transfer_bytes(spec, schedule.problem, direction=direction)
        places = [
            fault.after_bytes / size for fault in schedule.faults if fault.what != "kill-server" and fault.way == way
        ]
        assert min(places) < 1 / 3 and max(places) > 2 / 3
        assert len(set(places)) == len(places) or size < 10_000


@pytest.mark.parametrize("change", [("kill-phone", "tickle-phone"), ('way = "up"', 'way = "sideways"')])
def test_file_that_is_no_schedule_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    page = tmp_path / "schedule.toml"
    page.write_text((HERE / "short.toml").read_text().replace(*change, 1))
    with pytest.raises(ConfigError, match=change[1].removeprefix("way = ").strip('"')):
        read_schedule(page)
