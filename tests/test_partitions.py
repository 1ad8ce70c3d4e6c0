import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherfed.errors import ConfigError
from featherfed.partitions import partition_labels as partition

LABELS = np.random.default_rng(0).integers(0, 10, 1000)
SPECS = ("iid", "shards:1", "shards:2", "dirichlet:0.1", "dirichlet:10", "quantity:0.3")


@given(st.sampled_from(SPECS), st.integers(1, 60), st.integers(0, 5))
def test_shards_are_disjoint_seeded_and_use_every_example(spec: str, shards: int, seed: int) -> None:
    parts = partition(spec, LABELS, shards, seed)
    everything = np.concatenate(parts)
    assert len(parts) == shards
    assert len(np.unique(everything)) == len(everything)
    left_out = len(LABELS) - len(everything)
    assert left_out < int(spec[-1]) * shards if spec.startswith("shards") else left_out == 0
    assert min(map(len, parts)) >= 1
    for part, again in zip(parts, partition(spec, LABELS, shards, seed), strict=True):
        assert np.array_equal(part, again)


@pytest.mark.parametrize("spec", SPECS)
def test_another_seed_gives_other_shards(spec: str) -> None:
    first, other = (partition(spec, LABELS, 10, seed)[0] for seed in (0, 1))
    assert not np.array_equal(first, other)


def test_two_shard_phones_see_few_labels() -> None:
    kinds = [len(np.unique(LABELS[part])) for part in partition("shards:2", LABELS, 50, 0)]
    assert max(kinds) <= 4
    assert np.mean(kinds) < 3


def test_small_dirichlet_is_more_skewed_than_a_large_one() -> None:
    def largest_share(spec: str) -> float:
        parts = partition(spec, LABELS, 10, 0)
        return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts]))

    assert largest_share("dirichlet:0.1") > largest_share("dirichlet:100") + 0.2


@pytest.mark.parametrize(
    "spec", ["", "uniform", "shards", "shards:0", "shards:1.5", "dirichlet:x", "dirichlet:-1", "quantity:nan"]
)
def test_nonsense_is_refused_with_a_sentence(spec: str) -> None:
    with pytest.raises(ConfigError, match="partition"):
        partition(spec, LABELS, 10, 0)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match="1000 examples"):
        partition("shards:2", LABELS, 501, 0)
