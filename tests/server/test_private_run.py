"""A whole run with differential privacy: what its report, its page, its records and its model say."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import featherfed as ff
from featherfed.errors import ConfigError, LocalError
from featherfed.privacy.accounting import apart, epsilon
from featherfed.privacy.noise import sensitivity
from featherfed.server.storage.report import make_report
from featherfed.server.storage.run_folder import existing
from featherfed.server.storage.store import Store
from featherfed.wire.messages import Accepted
from tests.server.peer import peer

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

Serve = Callable[..., Any]


def experiment(**changes: Any) -> ff.Experiment:
    settings: dict[str, Any] = {
        "phones": 6, "cohort": 3, "rounds": 4, "dp": "central", "clip_norm": 0.01, "noise_multiplier": 1.0,
        "delta": 1e-3, "downlink": "float32", "local": ff.SGD(lr=0.01), **changes,
    }  # fmt: skip
    return ff.Experiment("digits", **settings)


def test_run_says_what_it_has_spent_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = experiment().simulate(folder=folder, train="none", progress=False)
    near = apart(sensitivity(0.01, 0))
    once, twice = (epsilon(rho, 1e-3, apart=near) for rho in (0.5, 1.0))
    assert once < epsilon(0.5, 1e-3)
    spent = [once, once, twice, twice]
    assert [each.epsilon for each in report.rounds] == spent
    assert [row["epsilon"] for row in report.as_dicts()] == spent
    report.save(tmp_path / "saved")
    assert [each.epsilon for each in ff.Report.load(tmp_path / "saved").rounds] == spent
    run, config = existing(folder)
    store = Store(run.database)
    made = make_report(run, config, store)
    store.close()
    assert made.content["privacy"] == {
        "kind": "central", "epsilon": spent[-1], "delta": 1e-3, "target_epsilon": None, "noise_multiplier": 1.0,
        "clip_norm": 0.01, "participations": 2,
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(made.to_csv())))
    assert [float(row["epsilon"]) for row in rows] == pytest.approx(spent)
    with safe_open(run.model, "np") as file:
        assert file.metadata()["model"].endswith(f"differentially private for phones: ε {twice:.4g}, δ 0.001")


def test_run_without_dp_says_nothing_of_it(tmp_path: Path) -> None:
    report = experiment(dp="", noise_multiplier=0.0, delta=0.0).simulate(folder=tmp_path / "run", progress=False)
    assert {each.epsilon for each in report.rounds} == {None}
    assert "epsilon" not in (tmp_path / "run" / "rounds.csv").read_text()


def test_two_runs_of_a_seed_differ_by_their_noise() -> None:
    first, second = (experiment(rounds=1).simulate(train="none", progress=False, seed=3) for _ in range(2))
    assert any((first.weights[name] != second.weights[name]).any() for name in first.weights)


def test_spent_budget_pauses_the_run_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"the privacy budget is spent: ε 4.85 after round 4, and no phone is in more"):
        experiment(rounds=9, participations=2).simulate(folder=tmp_path / "run", train="none", progress=False)


async def test_prolonged_run_goes_on_with_what_is_left(serve: Serve) -> None:
    """Rounds are added to the folder's configuration: what was paid is paid."""
    settings: dict[str, Any] = {
        "phones": 1, "rounds": 1, "dp": "central", "clip_norm": 1.0, "target_epsilon": 8.0, "delta": 1e-3,
    }  # fmt: skip
    async with serve(**settings) as served, peer(served.address) as phone:
        await phone.join("phone")
        await phone.upload(1, phone.update(await phone.task()))
        assert await phone.receive_until(Accepted) == Accepted(1)
        assert await served.ended is None
        config = served.folder.config
    text = config.read_text()
    assert "rounds = 1\n" in text
    config.write_text(text.replace("rounds = 1\n", "rounds = 2\n"))
    async with serve(resume=True) as served:
        told = await served.ended
    told_first = "the privacy budget is spent: ε 8 of --target-epsilon 8 after round 1; another would make it "
    assert told.startswith(told_first)


async def test_run_that_began_without_noise_gets_no_account(serve: Serve) -> None:
    """Whoever adds --dp to its configuration would be told an ε that does not hold."""
    async with serve(phones=1, rounds=1) as served, peer(served.address) as phone:
        await phone.join("phone")
        await phone.upload(1, phone.update(await phone.task()))
        assert await served.ended is None
        config = served.folder.config
    text = config.read_text()
    for old, new in (
        ("rounds = 1\n", "rounds = 2\n"), ('dp = ""', 'dp = "central"'), ("clip_norm = 0.0", "clip_norm = 1.0"),
        ("noise_multiplier = 0.0", "noise_multiplier = 1.0"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    with pytest.raises(ConfigError, match="round 1 of this run was closed without noise, and no account holds for it"):
        async with serve(resume=True):
            pass


async def test_phones_are_told_to_clip(serve: Serve) -> None:
    private = {"dp": "central", "clip_norm": 0.25, "noise_multiplier": 1.0, "delta": 1e-3}
    for settings, told in ((private, 0.25), ({"clip_norm": 0.25}, 0)):
        async with serve(name=f"run-{told}", **settings) as served, peer(served.address) as phone:
            await phone.join("phone")
            assert phone.welcome is not None and phone.welcome.clip == told
