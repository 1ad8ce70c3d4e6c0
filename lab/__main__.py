"""`python -m lab`: what we measure of ourselves, and hold us to. Nothing heavy is imported before a command runs."""

import os

import click

from featherfed.commandline.late import LateGroup

# Phones take turns on this machine: more threads than cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@click.group(cls=LateGroup)
def main() -> None:
    """Measure featherfed itself: speed, memory, truth of its links, faults, and what the docs say."""


@main.late
def agree() -> click.Command:
    """Run the scenario FILE with real processes and in virtual time; fails unless bytes and models are equal."""
    from lab.agree import agree

    return agree


@main.late
def browsers() -> click.Command:
    """Play a run with two phones in Chromium and eight of Python, and leave pictures of their pages."""
    from lab.browsers import browsers

    return browsers


@main.late
def chaos() -> click.Command:
    """Kill phones and servers by a schedule, and check that nothing is lost."""
    from lab.chaos.command import chaos

    return chaos


@main.late
def audit() -> click.Command:
    """Attack a round with differential privacy by canaries: the ε that it has at least, beside the one it claims."""
    from lab.audit import audit

    return audit


@main.late
def codec() -> click.Command:
    """Fill the tables of docs/CODECS.md: stages, presets and measured figures, or the accuracy of runs."""
    from lab.codec import codec

    return codec


@main.late
def curious() -> click.Command:
    """Attack a masked round as a server that keeps every byte: what it learns of one phone, and of the circle."""
    from lab.curious import curious

    return curious


@main.late
def dashboard() -> click.Command:
    """Measure what the live page, opened once, costs a round without training and links (Linux)."""
    from lab.dashboard import dashboard

    return dashboard


@main.late
def dp_cost() -> click.Command:
    """Measure how much longer a round on sockets takes with --dp, central and distributed."""
    from lab.dp_cost import dp_cost

    return dp_cost


@main.late
def dp_peers() -> click.Command:
    """Accuracy of finished runs with --dp beside pfl-research's central Gaussian mechanism."""
    from lab.dp_peers import dp_peers

    return dp_peers


@main.late
def gpu() -> click.Command:
    """Test and measure training on a GPU beside the CPU, phones in turns and phones as one batch."""
    from lab.gpu import gpu

    return gpu


@main.late
def hostile() -> click.Command:
    """Besiege a server with hostile connections; report its memory and the honest phones' rounds (Linux)."""
    from lab.hostile import hostile

    return hostile


@main.late
def ingest() -> click.Command:
    """Measure how fast one server takes updates, durable and not, beside a bare websockets echo server."""
    from lab.ingest import ingest

    return ingest


@main.late
def links() -> click.Command:
    """Measure links on real sockets: goodput, round trip, lateness and cost beside their nominal figures."""
    from lab.links import links

    return links


@main.late
def peers() -> click.Command:
    """Run the same rounds in featherfed and in Flower, pfl-research and FedJAX, side by side."""
    from lab.peers import peers

    return peers


@main.late
def performance() -> click.Command:
    """Measure training, ingest and a swarm: four minutes on a machine that does nothing else."""
    from lab.performance import performance

    return performance


@main.late
def results() -> click.Command:
    """Judge the GRIDS, folders of fl-bench run, by what the papers say, and write docs/RESULTS.md."""
    from lab.results import results

    return results


@main.late
def secure() -> click.Command:
    """Measure what masks cost: bytes both ways by the ledger, CPU time, rounds on sockets."""
    from lab.secure import secure

    return secure


@main.late
def swarm() -> click.Command:
    """Measure how long a swarm of phones takes to be ready to train, and its memory."""
    from lab.swarm import swarm

    return swarm


@main.late
def training() -> click.Command:
    """Measure local training: CPU time of a step, ours beside autograd's and vmap's."""
    from lab.training import training

    return training


@main.late
def virtual() -> click.Command:
    """Measure virtual time: its cost over the training alone, without training, and in memory; five minutes."""
    from lab.virtual import virtual

    return virtual


@main.late
def visits() -> click.Command:
    """Measure what a phone's visit costs in CPU time, with images as they are, shifted and warped."""
    from lab.visits import visits

    return visits


@main.late
def workers() -> click.Command:
    """Measure simulated rounds on one worker and on two, on a local Ray cluster, and without training."""
    from lab.workers import workers

    return workers


if __name__ == "__main__":
    main(prog_name="python -m lab")
