"""`python -m lab`: what we measure of ourselves, and hold us to. Nothing heavy is imported before a command runs."""

import os

import click

from featherfed.fl_bench.late import LateGroup

# Phones take turns on this machine: more threads than cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@click.group(cls=LateGroup)
def main() -> None:
    """Measure featherfed itself: speed, memory, truth of its links, faults, and what the docs say."""


@main.late
def agree() -> click.Command:
    """Import the command."""
    from lab.agree import agree

    return agree


@main.late
def chaos() -> click.Command:
    """Import the command."""
    from lab.chaos.command import chaos

    return chaos


@main.late
def dashboard() -> click.Command:
    """Import the command."""
    from lab.dashboard import dashboard

    return dashboard


@main.late
def hostile() -> click.Command:
    """Import the command."""
    from lab.hostile import hostile

    return hostile


@main.late
def ingest() -> click.Command:
    """Import the command."""
    from lab.ingest import ingest

    return ingest


@main.late
def links() -> click.Command:
    """Import the command."""
    from lab.links import links

    return links


@main.late
def peers() -> click.Command:
    """Import the command."""
    from lab.peers import peers

    return peers


@main.late
def performance() -> click.Command:
    """Import the command."""
    from lab.performance import performance

    return performance


@main.late
def results() -> click.Command:
    """Import the command."""
    from lab.results import results

    return results


@main.late
def swarm() -> click.Command:
    """Import the command."""
    from lab.swarm import swarm

    return swarm


@main.late
def training() -> click.Command:
    """Import the command."""
    from lab.training import training

    return training


@main.late
def virtual() -> click.Command:
    """Import the command."""
    from lab.virtual import virtual

    return virtual


if __name__ == "__main__":
    main(prog_name="python -m lab")
