"""A run that is resumed with less noise than it has promised says who will not follow, or does not begin."""

from pathlib import Path
from typing import Any

import pytest

from featherfed.errors import ConfigError
from featherfed.server.config import config_from
from featherfed.server.kept_promise import keep_promise
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.storage.circle_rows import put_key
from featherfed.server.storage.privacy_rows import put_privacy
from featherfed.server.storage.store import Store

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

RUN: dict[str, Any] = {
    "phones": 12, "cohort": 6, "rounds": 4, "dp": "distributed", "secure": True, "circle": 6, "clip_norm": 0.01,
    "target_epsilon": 8.0, "delta": 1e-3, "downlink": "float32", "uplink": "subspace(300) | grid(12)",
    "problem": "digits/tiny",
}  # fmt: skip
CENTRAL: dict[str, Any] = {
    name: value for name, value in RUN.items() if name not in ("secure", "circle", "uplink")
} | {"dp": "central", "uplink": "eden-1bit"}  # fmt: skip


def said(store: Store, settings: dict[str, Any], **changes: Any) -> str | None:
    config = config_from({**settings, **changes})
    return keep_promise(config, store, Aggregator(config, None))


def test_phones_that_were_promised_more_are_counted_and_told_what_keeps_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    assert said(store, RUN) is None
    store.apply([put_key(shard, bytes(32)) for shard in range(4)])
    # More noise is no harm, and is promised from then on.
    assert said(store, RUN, rounds=8) is None
    sentence = said(store, RUN, rounds=8, target_epsilon=30.0)
    assert sentence is not None
    assert sentence.startswith("4 of 12 phones were promised noise of ") and "0.1 of a circle collude, and" in sentence
    assert "it is solved from target_epsilon = 30, rounds and participations in config.toml" in sentence
    kept = float(sentence.rpartition("noise_multiplier = ")[2].split()[0])
    assert said(store, RUN, rounds=8, target_epsilon=30.0, noise_multiplier=kept) is None
    assert str(said(store, RUN, rounds=4)).startswith("4 of 12 phones were promised")
    fewer = said(store, RUN, rounds=8, colluding=0.0)
    assert fewer is not None and "say" in fewer and "though 0 of a circle collude" in fewer
    store.close()


def test_run_that_no_phone_could_follow_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    assert said(store, RUN) is None
    store.apply([put_key(shard, bytes(32)) for shard in range(9)])
    with pytest.raises(ConfigError, match=r"9 of 12 phones were .* keep them; the 3 others are too few for a round"):
        said(store, RUN, target_epsilon=30.0)
    # Nothing was kept of what was refused.
    assert said(store, RUN) is None
    store.close()


def test_nobody_was_promised_anything_before_a_phone_came(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    assert said(store, RUN) is None and said(store, RUN, target_epsilon=30.0) is None
    store.apply([put_key(shard, bytes(32)) for shard in range(4)])
    assert said(store, RUN, target_epsilon=30.0) is None
    store.close()


def test_less_of_the_servers_noise_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    assert said(store, CENTRAL) is None
    store.apply([put_privacy(1, epsilon=1.0, delta=1e-3, noise_multiplier=2.0)])
    sentence = said(store, CENTRAL, target_epsilon=0.0, noise_multiplier=1.0)
    assert sentence == (
        "rounds from here on have noise of 1 clip norms, and had 2 until round 1: config.toml has noise_multiplier = 1;"
        " what was spent stays spent"
    )
    assert said(store, CENTRAL, target_epsilon=0.0, noise_multiplier=2.5) is None
    assert said(store, {name: CENTRAL[name] for name in ("problem", "phones", "cohort", "rounds")}) is None
    store.close()
