"""Print a digest of everything that both ends of a link, or two servers, compute: `python -m tests.codec.same_bits`.

What is printed must be the same whatever library multiplies matrices, with whatever kernels and threads, and whatever
instructions numpy uses. The values come from whole numbers alone, which no C library touches.
"""

import hashlib
import json
import math
from collections.abc import Iterator

import numpy as np

from featherfed.codec.fold import Update
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.summable import Summable
from featherfed.codec.summed import Summed
from featherfed.errors import SpecError
from featherfed.initial_weights import drawn
from featherfed.randomness import RoundKey
from featherfed.rules.aggregates import trimmed_mean
from featherfed.rules.naming import load_aggregate, load_server_optimizer
from featherfed.rules.server_optimizer import ServerState
from featherfed.server.model.averaging import averaged
from featherfed.server.model.kept_updates import KeptUpdates
from featherfed.server.model.version_kinds import versions_of

from .specs import ALL_SPECS, SUMMED

LAYOUT = Layout((Tensor("a", (40, 30)), Tensor("conv", (8, 3, 5, 5)), Tensor("long", (91, 300)), Tensor("b", (10,))))
"""A matrix, a kernel, blocks of 8192 with one that overlaps, and values that travel as they are."""
PHONES = 3
DOWNLINKS = (
    "lattice(1)",
    "lattice(1/3)",
    "lattice(64)",
    "fresh | rotate | eden(4)",
    "fresh | topk(1/20) | ternary | entropy",
)
"""Those that are no pipelines."""


def values(size: int, name: str, scale: float = 1.0) -> np.ndarray:
    """Return about normal numbers with full fractions, (size,) float32."""
    drawn = RoundKey(0, 0).generator(name).integers(-(1 << 22), 1 << 22, (4, size))
    total: np.ndarray = drawn.sum(axis=0).astype(np.float32) * np.float32(scale * 2.0**-22)
    return total


def rows() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each result."""
    for spec in ALL_SPECS:
        yield from both_ends(spec)
        yield from downlink(spec)
    for spec in (*SUMMED, "exact(0) | flat | subsample(1/2) | rotate_shared | grid(9)"):
        yield from summed(spec)
    for spec in DOWNLINKS:
        yield from downlink(spec)
    yield from learning()
    yield "initial weights", drawn([1200, 75, (-0.3, 1.1), (1.0, 1.0)], LAYOUT, 5).tobytes()


def both_ends(spec: str) -> Iterator[tuple[str, bytes]]:
    """Yield payloads, what they decode to, and their sums."""
    pipeline = Pipeline.parse(spec)
    updates, state = [], None
    for phone in range(PHONES):
        key = RoundKey(3, 2, phone)
        coordinates = values(pipeline.space(LAYOUT, key).size, f"{phone}", 10.0**-phone)
        encoded = pipeline.encode(coordinates, LAYOUT, key, state)
        state = encoded.state
        updates.append(Update(encoded.payload, key, 7 + phone))
        yield f"{spec}: payload {phone}", encoded.payload
        yield f"{spec}: decoded {phone}", pipeline.decode(encoded.payload, LAYOUT, key).tobytes()
    for name, key, longest in (
        ("", RoundKey(3, 2), math.inf),
        (" clipped", RoundKey(3, 2), 1.0),
        (" async", None, 9e9),
    ):
        fold = pipeline.fold(LAYOUT, key, updates=PHONES, clip_norm=longest)
        assert fold.add_all(updates) == [None] * PHONES
        yield f"{spec}: sum{name}", fold.to_bytes()
        yield f"{spec}: mean{name}", fold.mean().tobytes()


def summed(spec: str) -> Iterator[tuple[str, bytes]]:
    """Yield what phones send of sums, clipped and not, their means, and the steps of the rounds after."""
    pipeline, state = Pipeline.parse(spec), None
    adder = Summable(pipeline, LAYOUT, clip=30.0)
    for round_number in range(1, 4):
        key, steps = RoundKey(3, round_number), adder.steps(state, members=PHONES)
        total, slices = Summed(adder, key, steps=steps, members=PHONES, slices=2), 2
        for slice_ in range(slices):
            residues = np.zeros(adder.count(slice_, slices), np.int64)
            clients = range(PHONES * slice_, PHONES * slice_ + PHONES)
            for phone in clients:
                mine = RoundKey(3, round_number, phone)
                update = values(pipeline.space(LAYOUT, mine).size, f"{phone}", 2.0**-phone)
                sent = adder.encode(update, mine, steps=steps, slice_=slice_, slices=slices)
                yield f"{spec}: round {round_number}, residues {phone}", adder.pack(sent.residues)
                residues += sent.residues
            total.add_circle(residues, clients, slice_)
        state = total.next_state(state)
        yield f"{spec}: round {round_number}, mean", total.mean().tobytes()
        yield f"{spec}: round {round_number}, steps after", steps + state.to_bytes()


def downlink(spec: str) -> Iterator[tuple[str, bytes]]:
    """Yield what a server publishes with a spec, and what its phones then hold."""
    try:
        versions = versions_of(spec, LAYOUT, 5)
    except SpecError:
        return
    model = np.zeros(LAYOUT.size, np.float32)
    for version in range(4):
        model = model + values(LAYOUT.size, f"version {version}")
        versions.publish(model)
        for held in range(-1, version):
            yield f"{spec}: from {held} to {version}", versions.parcel(held).payload
        yield f"{spec}: view {version}", versions.view.tobytes()


def learning() -> Iterator[tuple[str, bytes]]:
    """Yield the server's steps, its mean over versions, and the robust aggregates."""
    for name in ("fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"):
        rule, weights = load_server_optimizer(name, 0.3), values(LAYOUT.size, "start")
        state = ServerState(weights, rule.start(weights))
        for step in range(4):
            state = rule.step(state, values(LAYOUT.size, f"step {step}", 0.1), step + 1)
        yield name, state.weights.tobytes() + b"".join(array.tobytes() for array in state.arrays.values())
    average = values(LAYOUT.size, "start")
    for version in (1, 2, 3, 1000):
        average = averaged(average, values(LAYOUT.size, f"version {version}"), version, 0.97)
    yield "average", average.tobytes()
    for count in (4, 5):
        updates = np.stack([values(1000, f"update {number}") for number in range(count)])
        for trim in (0.1, 0.5):
            yield f"trimmed mean {trim} of {count}", trimmed_mean(updates, trim).tobytes()
            yield f"trimmed mean {trim} of {count}, one", trimmed_mean(updates[:, :1].copy(), trim).tobytes()
    pipeline = Pipeline.parse("rotate | eden(2)")
    kept = KeptUpdates(pipeline, LAYOUT, clip_norm=1.0)
    for phone in range(PHONES):
        key = RoundKey(0, 1, phone)
        kept.add(pipeline.encode(values(LAYOUT.size, f"{phone}"), LAYOUT, key).payload, key, 1)
    updates = kept.updates(RoundKey(0, 1))
    yield "kept updates", load_aggregate("trimmed-mean:0.1").combine({}, updates)[1].tobytes()
    for text in ("geometric-median", "krum:1", "multi-krum:1"):
        yield text, load_aggregate(text).combine({}, updates)[1].tobytes()


def main() -> None:
    """Print {name: digest} as JSON."""
    print(json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in rows()}))


if __name__ == "__main__":
    main()
