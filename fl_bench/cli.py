"""`fl-bench`: experiments. Nothing heavy is imported before a command runs."""

import os

import click

from featherfed.fl_bench.late import LateGroup

# A cell is one of several on this machine, and its phones take turns: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@click.group(cls=LateGroup)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Measure what a strategy costs in bytes and time."""


@main.late
def codec() -> click.Command:
    """Import the command."""
    from featherfed.fl_bench.codec import codec

    return codec


@main.late
def compare() -> click.Command:
    """Import the command."""
    from featherfed.fl_bench.compare import compare

    return compare


@main.late
def report() -> click.Command:
    """Import the command."""
    from featherfed.fl_bench.report import report

    return report


@main.late
def demo() -> click.Command:
    """Import the command."""
    from featherfed.fl_bench.demo import demo

    return demo


@main.late
def run() -> click.Command:
    """Import the command."""
    from featherfed.fl_bench.run import run

    return run


if __name__ == "__main__":
    main()
