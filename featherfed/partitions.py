"""How one data set becomes the shards of many phones: seeded and disjoint.

    iid           equal shares of a shuffle
    shards:N      sorted by label, cut in N·phones slices, N slices a phone (McMahan et al. 2017: shards:2)
    dirichlet:A   each label is spread over the phones by a draw from Dir(A, …, A) (Hsu et al. 2019)
    quantity:A    an IID shuffle cut in shares drawn from Dir(A, …, A)

Every example is used by iid, dirichlet and quantity; shards:N leaves out fewer than N·phones of them. Every phone has
at least one example.
"""

import math

import numpy as np
import numpy.typing as npt

from featherfed.errors import ConfigError
from featherfed.randomness import RoundKey

Indices = npt.NDArray[np.int64]
LARGEST = 1e6
"""Of a scheme's number, and the least concentration is its inverse: far beyond, a draw from Dir(A, …, A) is 0/0."""
SCHEMES = ("iid", "shards:N", "dirichlet:A", "quantity:A")


def parse_partition(spec: str) -> tuple[str, float]:
    """Return the scheme's name and its number (0 for iid), or raise `ConfigError`."""
    name, _, text = spec.partition(":")
    if spec == "iid":
        return name, 0.0
    if name not in {"shards", "dirichlet", "quantity"}:
        raise ConfigError(f"unknown partition {spec!r}; there are {', '.join(SCHEMES)}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    kind, least, example = ("a whole number", 1, "2") if name == "shards" else ("a number", 1 / LARGEST, "0.5")
    if not least <= number <= LARGEST or (name == "shards" and not number.is_integer()):
        raise ConfigError(
            f"partition {spec[:40]!r} needs {kind} from {least:g} to {LARGEST:g} after the colon, like {name}:{example}"
        )
    return name, number


def check_enough(spec: str, examples: int, phones: int) -> None:
    """Raise `ConfigError` where there are too few examples for each phone to get one, or its slices.

    >>> check_enough("shards:2", 60_000, 30_000)
    """
    name, number = parse_partition(spec)
    each = int(number) if name == "shards" else 1
    if examples < each * phones:
        slices = f", {each} slices each" if each > 1 else ""
        way = f"at most --phones {examples // each}" if examples >= each else "more examples, or fewer slices"
        raise ConfigError(
            f"{examples} examples cannot be partitioned {spec} among {phones} phones{slices}; choose {way}"
        )


def largest_shard(spec: str, examples: int, shards: int) -> int:
    """Return the most of `examples` that one of the shards can get, whatever the seed.

    >>> [largest_shard(spec, 60_000, 7) for spec in ("iid", "shards:2", "quantity:1")]
    [8572, 8570, 59994]
    """
    name, number = parse_partition(spec)
    if name == "iid":
        return -(-examples // shards)
    if name == "shards":
        slices = int(number)
        return max(1, examples // (slices * shards)) * slices
    return max(1, examples - shards + 1)


def partition_counts(spec: str, count: int, shards: int, seed: int) -> list[Indices]:
    """Return the indices of each shard of `count` examples without labels, by a scheme that needs none."""
    name, _ = parse_partition(spec)
    if name not in ("iid", "quantity"):
        raise ConfigError(f"--partition {spec} goes by labels, and this problem's targets are none; choose iid")
    return partition_labels(spec, np.broadcast_to(np.int64(0), (count,)), shards, seed)


def partition_labels(spec: str, labels: npt.NDArray[np.integer], shards: int, seed: int) -> list[Indices]:
    """Return the indices of each shard, `shards` arrays of int64 in rising order.

    Raises `ConfigError` where there are fewer examples than the scheme must hand out.
    """
    name, number = parse_partition(spec)
    generator = RoundKey(seed, 0).generator(f"partition/{spec}/{shards}")
    check_enough(spec, len(labels), shards)
    if name == "dirichlet":
        return _dirichlet(labels, shards, number, generator)
    order = generator.permutation(len(labels))
    if name == "shards":
        slices = int(number) * shards
        # A stable sort of a shuffle: equal labels stay in seeded order.
        order = order[np.argsort(labels[order], kind="stable")]
        width = len(labels) // slices
        dealt = generator.permutation(slices).reshape(shards, -1)
        return [np.sort(np.concatenate([order[s * width : (s + 1) * width] for s in row])) for row in dealt]
    if name == "quantity":
        ends = _cuts(generator.dirichlet(np.full(shards, number)), len(labels) - shards)
        # One example for each phone first, so that no phone is left with nothing to train on.
        return [np.sort(part) for part in np.split(order, (ends + np.arange(1, shards + 1))[:-1])]
    return [np.sort(part) for part in np.array_split(order, shards)]


def _cuts(shares: npt.NDArray[np.float64], total: int) -> Indices:
    return np.rint(np.cumsum(shares) * total).astype(np.int64)


def _dirichlet(
    labels: npt.NDArray[np.integer], shards: int, concentration: float, generator: np.random.Generator
) -> list[Indices]:
    parts: list[list[Indices]] = [[] for _ in range(shards)]
    for label in np.unique(labels):
        mine = generator.permutation(np.flatnonzero(labels == label))
        ends = _cuts(generator.dirichlet(np.full(shards, concentration)), len(mine))
        for share, piece in zip(parts, np.split(mine, ends[:-1]), strict=True):
            share.append(piece)
    result = [np.concatenate(part) for part in parts]
    for index, part in enumerate(result):
        if len(part) == 0:
            # The richest phone gives one example to a phone that drew none.
            richest = max(range(shards), key=lambda shard: len(result[shard]))
            result[index], result[richest] = result[richest][:1], result[richest][1:]
    return [np.sort(part) for part in result]
