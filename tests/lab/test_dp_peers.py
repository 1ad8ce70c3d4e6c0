"""The comparison with pfl-research's central Gaussian: what it is told, what is kept, and the table."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import featherfed as ff
from featherfed.errors import ConfigError
from featherfed.fl_bench.results import read_runs
from featherfed.server.config import RunConfig, config_from
from lab import dp_peers

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

RUN: dict[str, Any] = {
    "problem": "digits/tiny", "phones": 12, "cohort": 6, "rounds": 4, "dp": "central", "clip_norm": 0.5,
    "target_epsilon": 8.0, "delta": 1e-3, "uplink": "eden-1bit", "set": {"shift": 1},
}  # fmt: skip


def config(**changes: Any) -> RunConfig:
    return config_from({**RUN, **changes})


def test_our_assumption_is_one_release_for_each_round_of_a_phone_and_its_own_is_sampling() -> None:
    fixed, sampled = (dp_peers.order(config(), assumed) for assumed in dp_peers.ASSUMED)
    assert (fixed["compositions"], fixed["sampled"]) == (2, 1.0)
    assert (sampled["compositions"], sampled["sampled"]) == (4, 0.5)
    assert fixed["set"] == {"shift": 1} and fixed["clip_norm"] == 0.5 and fixed["delta"] == 1e-3
    with pytest.raises(ConfigError, match="of runs with target_epsilon"):
        dp_peers.order(config(target_epsilon=0.0, noise_multiplier=1.0), "fixed")


def test_runs_that_are_kept_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def run(told: dict[str, Any], python: Path, data_dir: str | None) -> dict[str, float]:
        asked.append(told)
        return {"accuracy": 0.5, "noise": 1.25}

    monkeypatch.setattr(dp_peers, "run", run)
    kept = tmp_path / "kept.json"
    for _ in range(2):
        rows = dp_peers.beside([config()], Path("python"), kept, None, lambda line: None)
        assert len(rows) == len(asked) == 2 and json.loads(kept.read_text()) == rows
    assert len(dp_peers.beside([config(seed=1)], None, kept, None, lambda line: None)) == 2


def test_table_has_the_account_each_seed_and_what_pfl_came_to(tmp_path: Path) -> None:
    settings = {name: value for name, value in RUN.items() if name not in ("problem", "set")}
    local = ff.SGD(settings={"shift": 1})
    for seed in (0, 1):
        experiment = ff.Experiment("digits/tiny", local=local, **settings)
        experiment.simulate(seed=seed, folder=tmp_path / f"seed={seed}", progress=False)
        (tmp_path / f"seed={seed}" / "done").touch()
    strategies = read_runs([tmp_path])
    told = dp_peers.order(strategies[0].runs[1].config, "fixed")
    made = dp_peers.table(strategies, [{"told": told, "accuracy": 0.625, "noise": 1.25}])
    head, _, row = made.strip().splitlines()
    assert head.startswith("| phones | noise | ε |") and row.startswith("| 12 | central | 8 | 8.00 | ")
    first, second = (run.report["rounds"][-1]["metrics"]["accuracy"] for run in strategies[0].runs)
    mean = (first + second) / 2
    assert f"| {100 * mean:.1f} ({100 * first:.1f}, {100 * second:.1f}) |" in row
    assert row.endswith("| 62.5 (62.5), Z 1.25 | – |")
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    kept.write_text(json.dumps([{"told": told, "accuracy": 0.625, "noise": 1.25}]))
    page.write_text(f"<!-- {dp_peers.TABLE}: begin -->\n<!-- {dp_peers.TABLE}: end -->\n")
    given = [str(tmp_path), "--kept", str(kept), "--write", str(page)]
    done = CliRunner().invoke(dp_peers.dp_peers, given)
    assert done.exit_code == 0 and row in done.output and row in page.read_text()
