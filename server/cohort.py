"""Who is asked in a round: a seeded draw that depends on nothing but the seed, the round and who is there."""

from collections.abc import Iterable

from featherfed.randomness import derive


def choose_cohort(present: Iterable[int], size: int, *, seed: int, round_number: int, attempt: int) -> tuple[int, ...]:
    """Return `size` of the present shards, or all of them where fewer are there, in rising order.

    Every shard draws a number of its own and the lowest are taken, so that whether shard 7 is there decides about
    shard 7 and one more, never about the whole cohort; order of arrival and names decide nothing.

    >>> choose_cohort(range(100), 4, seed=0, round_number=1, attempt=0)
    (26, 59, 68, 79)
    """
    purpose = f"cohort/{attempt}"
    drawn = sorted(present, key=lambda shard: derive(seed, round_number, shard, purpose))
    return tuple(sorted(drawn[:size]))
