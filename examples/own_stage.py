"""An own codec stage: natural compression, beside the stages that come with featherfed.

    python examples/own_stage.py         # checks the stage, then simulates a run with it

and on sockets, where both ends load the file:

    fl-server serve --plugin examples/own_stage.py --uplink 'natural | entropy' --problem digits --phones 20
    fl-edge swarm --plugin examples/own_stage.py --count 20 --problem digits

A value becomes one of the two powers of two around it, by chance so that it is right in the mean (Horváth et al. 2022,
"Natural Compression for Distributed Deep Learning", arXiv 1905.10988). With M the largest magnitude, |x| lies between
two neighbours of 0, M/64, M/32, …, M, and becomes the upper one with the chance (|x| − lower)/(upper − lower).
"""

import sys

import numpy as np

import featherfed as ff
from featherfed.testing import check_stage

SHARES = np.concatenate([[0], 2.0 ** np.arange(-6, 1)]).astype(np.float32)
"""What a value may become, as shares of the largest magnitude: 0, 1/64, …, 1."""


@ff.stage("natural")
class Natural(ff.Stage):
    """Header: M as float32; a symbol is a sign (8) and the number of a share."""

    slot = ff.Slot.QUANTIZER
    paper = "Horváth et al. 2022, arXiv 1905.10988"
    symbol_bits = 4
    levels = 16

    def header_bytes(self, size: int) -> int:
        """Return the bytes of M; there is none where there is no value."""
        return 4 if size else 0

    def encode(self, values: np.ndarray, generator: np.random.Generator) -> tuple[bytes, np.ndarray]:
        """Return the header and a symbol for each value, (values,) uint8."""
        if not len(values):
            return b"", np.zeros(0, np.uint8)
        magnitudes = np.abs(values)
        largest = magnitudes.max()
        share = magnitudes / largest if largest > 0 else magnitudes
        below = np.clip(np.searchsorted(SHARES, share, side="right") - 1, 0, len(SHARES) - 2)
        chance = (share - SHARES[below]) / (SHARES[below + 1] - SHARES[below])
        number = below + (generator.random(len(values), np.float32) < chance)
        return largest.astype("<f4").tobytes(), (number + 8 * (values < 0)).astype(np.uint8)

    def decode(self, header: bytes, symbols: np.ndarray, size: int) -> np.ndarray:
        """Return the values, (size,) float32."""
        if not size:
            return np.zeros(0, np.float32)
        return np.concatenate([SHARES, -SHARES])[symbols] * np.frombuffer(header, "<f4")[0]


def compare(rounds: int = 15) -> None:
    """Simulate a run with each of three quantizers, and print what they cost."""
    run = ff.Experiment("digits", phones=20, rounds=rounds, local=ff.SGD(lr=0.05, epochs=5))
    for uplink in ("float32", "qsgd(4) | entropy", "natural | entropy"):
        report = run.replace(uplink=uplink).simulate(links="3g", seed=0)
        accuracy = report.rounds[-1].metrics["accuracy"]
        print(f"{uplink:20} {report.spent.up:>12,} bytes up, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    # In a project of your own this line is a test: it raises for the first promise that a stage does not keep.
    check_stage("natural | entropy")
    compare(*(int(word) for word in sys.argv[1:]))
