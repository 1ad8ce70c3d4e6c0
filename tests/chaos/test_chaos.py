"""The short chaos run with real processes; `make chaos` plays the long one."""

import asyncio
from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from featherfed.fl_bench.chaos.arena import Arena
from featherfed.fl_bench.chaos.schedule import plan, read_schedule
from featherfed.fl_bench.chaos.verdict import broken_promises, figures

HERE = Path(__file__).parent
RUN = {
    "phones": 6, "rounds": 3, "trainers": 1, "problem": "digits/lite", "uplink": "feedback | topk(1/4)",
    "downlink": "rotate | eden(4)", "bandwidth": "128kbps", "mode": "sync",
}  # fmt: skip


@pytest.mark.processes
async def test_nothing_is_lost_when_phones_and_the_server_are_killed(tmp_path: Path) -> None:
    schedule = read_schedule(HERE / "short.toml")
    async with asyncio.timeout(240):
        calm = await Arena(schedule.calm(), tmp_path, "calm").play()
        outcome = await Arena(schedule, tmp_path, "chaos").play()
    assert broken_promises(schedule, calm, outcome) == []
    assert outcome.server_kills == schedule.count("kill-server")
    # A phone that has ended before its fault fell due cannot be killed; that is rare.
    assert outcome.phone_kills >= schedule.count("kill-phone") - 1
    print(figures(schedule, outcome))


def test_schedule_is_its_file_and_another_seed_gives_another() -> None:
    drawn = plan(server_kills=2, phone_kills=8, drops=6, seed=0, **RUN)
    assert drawn == read_schedule(HERE / "short.toml")
    assert drawn != plan(server_kills=2, phone_kills=8, drops=6, seed=1, **RUN)


def test_file_that_is_no_schedule_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "schedule.toml"
    page.write_text((HERE / "short.toml").read_text().replace("kill-phone", "tickle-phone", 1))
    with pytest.raises(ConfigError, match="tickle-phone"):
        read_schedule(page)
