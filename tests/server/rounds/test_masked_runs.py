"""Masked rounds of the whole product, in virtual time: sums as without masks, and nothing of one phone is left."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import featherfed as ff
from featherfed.errors import ConfigError
from featherfed.secure.circles import head_bytes
from featherfed.server.config import config_from
from featherfed.server.serving import check
from featherfed.server.storage.report import make_report
from featherfed.server.storage.run_folder import RunFolder, create
from featherfed.server.storage.store import Store
from featherfed.simulation import Fleet, simulate

PHONES = 11


def ran(folder: Path, *, fleet: Fleet | None = None, **settings: Any) -> RunFolder:
    """Return the folder of a run of two rounds whose phones send noise."""
    given = {"problem": "digits/lite", "phones": PHONES, "cohort": PHONES, "rounds": 2, "eval_every": 2, **settings}
    config = config_from(given)
    check(config)
    name = "-".join(f"{key}={value}" for key, value in settings.items()).replace("/", "").replace("|", "")
    return simulate(config, lambda: create(folder, name.replace(" ", ""), config), fleet or Fleet(trains=False))


def totals(folder: RunFolder, **settings: Any) -> dict[str, Any]:
    given = {"problem": "digits/lite", "phones": PHONES, "cohort": PHONES, "rounds": 2, "eval_every": 2, **settings}
    store = Store(folder.database)
    try:
        content: dict[str, Any] = make_report(folder, config_from(given), store).content["totals"]
    finally:
        store.close()
    return content


@pytest.mark.parametrize(
    "settings",
    [
        {"uplink": "secure-4bit", "circle": 5},
        {"uplink": "secure-4bit", "circle": 20},
        {"uplink": "exact(0) | flat | rotate_shared | grid(9)", "circle": 5, "slices": 2},
        {"uplink": "subspace(300) | grid(5)", "circle": 11},
        {"uplink": "feedback | exact(0) | flat | rotate_shared | grid(6)", "circle": 6},
        {"uplink": "exact(0) | flat | subsample(1/4) | rotate_shared | grid(4),secure-4bit", "circle": 6},
    ],
    ids=str,
)
def test_masked_sum_is_the_sum_without_masks_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    plain = ran(tmp_path, **settings)
    masked = ran(tmp_path, secure=True, **settings)
    assert masked.model.read_bytes() == plain.model.read_bytes()


def test_what_masks_cost_is_in_the_ledger_to_the_byte(tmp_path: Path) -> None:
    settings = {"uplink": "secure-4bit", "circle": 11}
    plain, masked = (totals(ran(tmp_path, **given), **given) for given in (settings, settings | {"secure": True}))
    assert (plain["uplink"]["masks"], plain["uplink"]["points"], plain["downlink"]["masks"]) == (0, 0, 0)
    assert masked["uplink"]["points"] == 2 * PHONES * head_bytes(PHONES)
    assert masked["uplink"]["payload"] - plain["uplink"]["payload"] == masked["uplink"]["points"]
    assert masked["uplink"]["message"] - plain["uplink"]["message"] >= masked["uplink"]["masks"] > 0
    # docs/PRIVACY.md: below 200 bytes up for a phone and round in a circle of ten, its key once.
    assert (masked["uplink"]["masks"] + masked["uplink"]["points"]) / (2 * PHONES) < 240


def test_nothing_of_one_phone_is_left_on_the_disk_after_its_round(tmp_path: Path) -> None:
    folder = ran(tmp_path, secure=True, circle=5)
    database = sqlite3.connect(str(folder.database))
    for table in ("chunks", "circles", "lists", "shares"):
        assert database.execute(f"select count(*) from {table}").fetchone() == (0,), table
    assert database.execute("select count(*) from keys").fetchone() == (PHONES,)
    database.close()


def test_phones_that_leave_are_not_in_the_sum_and_the_round_goes_on(tmp_path: Path) -> None:
    settings = {"secure": True, "circle": 11, "deadline": 30.0, "phones": PHONES, "rounds": 6}
    folder = ran(tmp_path, fleet=Fleet(trains=False, dropout=0.2, away_s=200.0), **settings)
    store = Store(folder.database)
    rounds = store.rounds()
    counted: dict[int, int] = {}
    for update in store.updates():
        if update.state == "accepted":
            counted[update.round_number] = counted.get(update.round_number, 0) + 1
    store.close()
    assert [row.state for row in rounds] == ["closed"] * 6
    assert min(counted.values()) < PHONES


def test_masked_experiment_needs_no_other_word() -> None:
    config = ff.Experiment("digits/lite", phones=PHONES, secure=True).config()
    assert (config.secure, config.uplink) == (True, "secure-4bit")
    assert ff.Experiment("digits/lite", phones=PHONES).config().uplink == "vertex-small"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"uplink": "vertex-small"}, "--secure: --uplink .*vertex.* cannot be summed under a mask.*secure-4bit"),
        ({"aggregate": "median"}, "--aggregate median looks at single updates"),
        ({"mode": "async"}, "--secure hides updates in the sum of one round, and --mode async"),
        ({"gateways": 3}, "each gateway's are its own: of the 11 phones that a round asks one of 3 has 3"),
        ({"gateways": 2, "slices": 2, "circle": 5}, "--slices 2 gives each circle another part .* --gateways 2 each"),
        ({"circle": 4}, "--circle 4 hides a phone among fewer than 5"),
        ({"cohort": 4}, "--secure needs circles of at least 5 phones, and a round asks 4"),
        ({"slices": 3}, "--slices 3 exceeds the 1 circles of 11 phones"),
        ({"uplink": "secure-4bit,eden-1bit"}, "--secure: --uplink .*eden"),
    ],
    ids=str,
)
def test_what_cannot_be_masked_is_refused_naming_both(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check(config_from({"problem": "digits/lite", "phones": PHONES, "cohort": PHONES, "secure": True, **settings}))
