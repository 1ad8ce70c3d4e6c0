"""Puts the page together for one run."""

from featherfed.errors import ProblemError
from featherfed.learning.chain import described
from featherfed.learning.models import build
from featherfed.problem import Place, Problem
from featherfed.problems import digits
from featherfed.server.config import RunConfig
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.server.phone_page.invitation import hosts
from featherfed.server.phone_page.site import Site


def open_site(config: RunConfig, problem: Problem, options: EntranceOptions, entrance: Entrance) -> str | None:
    """Serve the page at the entrance; return why browsers cannot train this run's model, or None."""
    cannot = None
    try:
        if config.secure:
            raise ProblemError("this run sums under masks, which a browser's phone cannot; join with fl-edge instead")
        model = described(problem, build(problem, 0))
    except ProblemError as error:
        cannot = str(error)
        model = {"cannot": cannot}

    def shard(index: int) -> bytes:
        return digits.small(Place(index, config.phones, config.seed, config.partition))

    entrance.page = Site(
        model,
        shard if model.get("digits") else None,
        shards=config.phones,
        hosts=hosts(options, entrance),
        tls=entrance.tls is not None,
    )
    return cannot
