"""Whole runs in which phones add the noise: what the account says, what is opened, and what a kill leaves of it."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featherfed as ff
from featherfed.errors import ConfigError, LocalError
from featherfed.privacy.accounting import Price, epsilon
from featherfed.server.config import config_from
from featherfed.server.model.circle_sums import TERMS
from featherfed.server.storage.privacy_rows import account, charged
from featherfed.server.storage.report import make_report
from featherfed.server.storage.run_folder import RunFolder, existing
from featherfed.server.storage.store import Store, put_round, put_value
from featherfed.wire.messages import Circle
from tests.server.rounds.masker import Masker, maskers
from tests.server.rounds.test_masked_rounds import finish

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")
pytestmark = pytest.mark.timeout(120)

Serve = Callable[..., Any]
RUN: dict[str, Any] = {
    "phones": 12, "cohort": 6, "rounds": 4, "dp": "distributed", "secure": True, "circle": 6, "clip_norm": 0.01,
    "noise_multiplier": 1.0, "delta": 1e-3, "downlink": "float32", "uplink": "subspace(300) | grid(12)",
    "problem": "digits/tiny",
}  # fmt: skip


def price(members: int = 6, survivors: int = 6, **changes: Any) -> Price:
    """Return what a sum costs, from a plan made as the server makes it."""
    from featherfed.server.model.aggregation import Aggregator

    aggregator = Aggregator(config_from({**RUN, **changes}), None)
    assert aggregator.sum.circles is not None
    found = aggregator.sum.circles.price(1, members, survivors)
    assert found is not None
    return found


def test_account_charges_what_a_final_list_had(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = {key: value for key, value in RUN.items() if key != "problem"}
    report = ff.Experiment("digits/tiny", **settings).simulate(folder=folder, train="none", progress=False)
    paid = price()
    assert paid.rho <= 0.5
    once, twice = (epsilon(times * paid.rho, 1e-3, times * paid.xi) for times in (1, 2))
    assert [each.epsilon for each in report.rounds] == [once, once, twice, twice]
    run, config = existing(folder)
    store = Store(run.database)
    made = make_report(run, config, store)
    assert {each.rounds for each in account(store).phones.values()} == {2}
    store_terms = store.values()[TERMS]
    store.close()
    assert json.loads(store_terms)[0] == 4
    assert made.content["privacy"]["kind"] == "distributed" and made.content["privacy"]["epsilon"] == twice


def test_spent_budget_pauses_the_run_with_a_sentence(tmp_path: Path) -> None:
    settings = {**RUN, "rounds": 9, "participations": 2, "circle": 6}
    settings.pop("problem")
    with pytest.raises(LocalError, match=r"the privacy budget is spent: ε .* after round 4, and no phone is in more"):
        ff.Experiment("digits/tiny", **settings).simulate(folder=tmp_path / "run", train="none", progress=False)


@pytest.mark.parametrize(("dp", "secure"), [("distributed", True), ("central", True), ("central", False)])
def test_model_of_a_run_with_next_to_no_noise_is_that_of_a_run_without(dp: str, secure: bool) -> None:
    """So what is noised is the mean, in its own sign and size, through masks, circles and steps."""
    settings = {
        **RUN,
        "dp": dp,
        "secure": secure,
        "rounds": 1,
        "cohort": 12,
        "noise_multiplier": 1e-3,
        "clip_norm": 0.05,
    }
    settings |= {"uplink": "exact(0) | flat | rotate_shared | grid(16)"}
    settings.pop("problem")
    plain = {"phones": 12, "cohort": 12, "rounds": 1, "uplink": "float32", "clip_norm": 0.05, "downlink": "float32"}
    models = [
        np.concatenate([each.ravel() for each in report.weights.values()])
        for report in (
            ff.Experiment("digits/tiny", **one).simulate(train="none", progress=False, seed=1)
            for one in (settings, plain)
        )
    ]
    still = {**plain, "server": ff.FedAvg(lr=1e-9)}
    start = ff.Experiment("digits/tiny", **still).simulate(train="none", progress=False, seed=1)
    origin = np.concatenate([each.ravel() for each in start.weights.values()])
    moved, wanted = models[0] - origin, models[1] - origin
    assert np.linalg.norm(moved - wanted) < 0.1 * np.linalg.norm(wanted)


SIX: dict[str, Any] = {**RUN, "phones": 6, "rounds": 1, "uplink": "subspace(300) | grid(12)", "lost": 0.0}


def with_a_false_word(phone: Masker, circle: Circle) -> bytes:
    """Return an update whose circle's sum is none once it is open."""
    data = phone.mask(circle)
    at = phone.context.head_bytes  # type: ignore[union-attr]
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def test_sum_that_was_opened_costs_though_no_round_was_closed_with_it(serve: Serve) -> None:
    """Its word was false, the server has seen the numbers: who is in it has paid, and the report says so."""
    settings = {**SIX, "max_retries": 0}
    async with serve(**settings) as served, maskers(served.address, 6) as phones:
        for phone in phones:
            circle = await phone.circle()
            await phone.send_update(circle, with_a_false_word(phone, circle) if phone.shard == 5 else None)
        with contextlib.suppress(Exception):
            await finish(phones)
        said = await served.ended
        assert "0 of at least 1 updates" in said
        store = served.store
        assert charged(store, 1) == frozenset(range(6))
        assert account(store).most == price(phones=6, lost=0.0)
        assert served.report()["privacy"]["epsilon"] == epsilon(account(store).most.rho, 1e-3)


async def test_circle_with_fewer_survivors_than_planned_is_not_opened_and_costs_nothing(serve: Serve) -> None:
    settings = {**SIX, "max_retries": 0, "deadline": 1.0}
    async with serve(**settings) as served, maskers(served.address, 6) as phones:
        for phone in phones[:5]:
            await phone.send_update(await phone.circle())
        said = await served.ended
        assert "round 1 had 0 of at least 1 updates" in said
        assert charged(served.store, 1) == frozenset() and account(served.store).most == Price(0.0)


async def test_phone_refuses_a_list_with_fewer_survivors_than_its_noise_needs(serve: Serve) -> None:
    """Six of six where masks alone stand one that is lost: the circle says so, and the phone holds the server to it."""
    async with serve(**SIX) as served, maskers(served.address, 6) as phones:
        circles = [await phone.circle() for phone in phones]
        assert {circle.least for circle in circles} == {6}
        welcome = phones[0].welcome
        assert welcome is not None and welcome.masked and welcome.bounded
        assert (welcome.noise, welcome.colluding, welcome.clip) == (1.0, 0.1, 0.01)
        for phone, circle in zip(phones, circles, strict=True):
            await phone.send_update(circle)
        await finish(phones)
        assert await served.ended is None
        assert served.report()["rounds"][0]["accepted"] == 6


def test_open_round_is_not_gone_on_with_by_other_noise_than_its_phones_have_added(tmp_path: Path) -> None:
    """Its sums would be charged for at the price of the new noise, and have the old one."""
    from featherfed.server.model.aggregation import Aggregator
    from featherfed.server.rounds.resume_point import begin, resume

    settings = {**RUN, "noise_multiplier": 0.0, "target_epsilon": 20.0}
    folder, config = RunFolder(tmp_path), config_from(settings)
    store, aggregator = Store(folder.database), Aggregator(config, None)
    assert aggregator.sum.circles is not None
    begin(config, store, aggregator)
    dealt = put_value(TERMS, json.dumps([1, aggregator.sum.circles.terms(1)]))
    store.apply([put_round(1, 1, [0, 1, 2, 3, 4, 5], [], 0.0), dealt])
    resume(config, store, folder, Aggregator(config, None))
    for changed in ({"rounds": 8}, {"target_epsilon": 30.0}):
        longer = config_from({**settings, **changed})
        with pytest.raises(ConfigError, match=r"round 1 is open.* noise_multiplier = (\S+) and not .*") as said:
            resume(longer, store, folder, Aggregator(longer, None))
        kept = float(str(said.value).split("noise_multiplier = ")[2].split()[0])
        again = config_from({**settings, **changed, "noise_multiplier": kept})
        assert resume(again, store, folder, Aggregator(again, None)).state.round_number == 1
    for name, value in {"circle": 5, "clip_norm": 0.02, "lost": 0.2, "uplink": "subspace(200) | grid(12)"}.items():
        other = config_from({**settings, name: value})
        with pytest.raises(ConfigError, match=f"round 1 is open, and its circles have .*{name} = .* and not"):
            resume(other, store, folder, Aggregator(other, None))
    store.close()
