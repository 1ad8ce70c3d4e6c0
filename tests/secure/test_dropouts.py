"""Every dropout at every step: five phones, each silent from one of its steps on, with servers and phones killed."""

from itertools import product

import pytest

from featherfed.server.rounds.circle import CirclePhase, SentList
from tests.secure.rounds import Phones, Server, context_of, sum_of

CIRCLE = (11, 4, 7, 0, 9)
BEFORE, UPLOADED, TOLD_SEEDS, NEVER = range(4)
"""Where a phone dies: before its upload is whole; after it; after it told seeds; not at all."""


@pytest.mark.parametrize("killed", [False, True], ids=["server lives", "server killed at each event"])
@pytest.mark.parametrize("threshold", [2, 3])
def test_every_opened_sum_is_exact_whoever_dies_where(threshold: int, killed: bool) -> None:
    """All 1,024 ways. With t = 2 of k = 4, which no phone would believe, a sum stands two lost phones."""
    context = context_of(CIRCLE, threshold=threshold)
    summed = 0
    for deaths in product(range(4), repeat=len(CIRCLE)):
        dies = dict(zip(CIRCLE, deaths, strict=True))

        def reaches(shard: int, list_: SentList, dies: dict[int, int] = dies) -> bool:
            return dies[shard] == NEVER or (dies[shard] == TOLD_SEEDS and not list_.final)

        phones = Phones(context)
        server = Server(phones, reaches, killed=killed)
        for shard in CIRCLE:
            if dies[shard] != BEFORE:
                server.arrive(shard)
        if not server.circle.over:
            server.run()
        if server.opened is not None:
            summed += 1
            survivors = server.circle.spent
            assert server.opened.residues.tolist() == sum_of(phones.updates[shard] for shard in survivors)
            assert server.opened.word == len(survivors)
        else:
            assert server.circle.phase is CirclePhase.FAILED
        seeds, shares = server.circle.secrets(server.answers)
        assert not {of for _, of in seeds} & {of for _, of in shares}, "both kinds of secret of one phone were told"
        if deaths.count(NEVER) >= context.least:
            assert server.opened is not None
    # Those that die later than `least` others are not needed.
    assert summed >= {2: 106, 3: 16}[threshold]
