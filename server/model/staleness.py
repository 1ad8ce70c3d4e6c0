"""What an update weighs that was trained on an older version: FedBuff (Nguyen et al. 2022, arXiv 2106.06639), exactly.

An update of n examples that was trained on version τ and counts while version t is the newest is stale by s = t − τ:

    w ← w + η · Σ n d(s) Δ / Σ n,    d(s) = 1/√(1+s)

The denominator knows no staleness, as in the paper: a buffer of old updates takes a shorter step, not a step of full
length in an old direction. Weights are whole numbers of 1/1024 of an example, so that the sum stays exact and does
not depend on the order of arrival within a buffer (featherfed/codec/exact_sum.py); which buffer an update falls into
does, by the nature of the method.
"""

import math

UNIT = 1024


def stale_weight(examples: int, staleness: int) -> int:
    """Return n · d(s) in units of 1/1024 of an example.

    >>> stale_weight(100, 0), stale_weight(100, 3), stale_weight(1, 10**9)
    (102400, 51200, 1)
    """
    return max(1, round(examples * UNIT / math.sqrt(1 + staleness)))
