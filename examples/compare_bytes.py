"""Strategies by bytes: what each way to compress updates costs until the model is good, up and down, with a plot.

    python examples/compare_bytes.py

writes compare_bytes.png: the same run, the same phones and links, once for each uplink.
"""

import sys

import featherfed as ff

UPLINKS = ("float32", "quantize(4)", "rotate | eden(1)", "vertex-small")
"""From four bytes a weight to a fifth of a bit; docs/CODECS.md has all of them."""


def compare(rounds: int = 15, target: float = 0.9) -> dict[str, ff.Report]:
    """Simulate each strategy, print what it needed to reach the target, and return the reports by uplink."""
    run = ff.Experiment(
        "digits",
        phones=20,
        cohort=10,
        rounds=rounds,
        local=ff.SGD(lr=0.05, epochs=5, batch_size=10),
    )
    reports = {}
    for uplink in UPLINKS:
        reports[uplink] = run.replace(uplink=uplink).simulate(links={"3g": 0.5, "4g": 0.5}, seed=0)
        try:
            there = reports[uplink].to_accuracy(target)
            print(f"{uplink:20} {there.spent}; {there.seconds:.0f} s, {there.round} rounds")
        except ff.NotReachedError as error:
            print(f"{uplink:20} {error}")
    return reports


def plot(reports: dict[str, ff.Report], file: str) -> None:
    """Draw accuracy against bytes both ways of all reports, one line each."""
    axes = None
    for report in reports.values():
        axes = report.plot("accuracy", axes=axes)
    axes.grid(alpha=0.3)
    axes.figure.savefig(file, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    plot(compare(*(int(word) for word in sys.argv[1:])), "compare_bytes.png")
