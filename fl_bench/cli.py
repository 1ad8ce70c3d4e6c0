"""`fl-bench`: experiments. Nothing heavy is imported before a command runs."""

import os

import click

from featherfed.commandline.late import LateGroup

# A cell is one of several on this machine, and its phones take turns: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Every Python that this one starts would look for modules in the current folder first: a file server.py there, or an
# empty json.py, would be imported in place of ours or the library's.
os.environ.setdefault("PYTHONSAFEPATH", "1")


@click.group(cls=LateGroup)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Measure what a strategy costs in bytes and time."""


@main.late
def codec() -> click.Command:
    """Measure codecs: bits, error, bias, and the speed of one core beside a plain memory copy."""
    from featherfed.fl_bench.codec import codec

    return codec


@main.late
def compare() -> click.Command:
    """Say what changed from the runs in BEFORE to those in AFTER, and whether it exceeds the spread over seeds."""
    from featherfed.fl_bench.compare import compare

    return compare


@main.late
def report() -> click.Command:
    """Make a page, plots and data of RUNS: folders of fl-bench run, or of fl-server serve."""
    from featherfed.fl_bench.report import report

    return report


@main.late
def demo() -> click.Command:
    """One server, ten phones, bundled data, a report: under a minute, no download."""
    from featherfed.fl_bench.demo import demo

    return demo


@main.late
def run() -> click.Command:
    """Run the scenario FILE with real processes or in virtual time; a key with a list makes it a grid."""
    from featherfed.fl_bench.run import run

    return run


if __name__ == "__main__":
    main()
