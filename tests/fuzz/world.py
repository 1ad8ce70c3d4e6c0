"""What all phones of a fuzzed run share, their gateways and their server: whether it is calm, and what must not be."""

import asyncio

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.learning.noise import noise_update
from featherfed.randomness import RoundKey
from featherfed.wire.messages import digest_of

HOST, PORT = "server", 80
TRAINS_S = 0.2
LINKS = (None, None, 100_000.0, 10_000.0)


class World:
    """What all phones of a run share: whether it is calm, and what must not be."""

    def __init__(self, seed: int, *, deadline_s: float) -> None:
        self.seed, self.deadline_s = seed, deadline_s
        self.calm = asyncio.Event()
        self.calm_task = asyncio.ensure_future(self.calm.wait())
        self.calm_s: float | None = None
        """When it became calm, by the loop's clock."""
        self.renames = True
        """Whether phones forget their names: whoever rests until a later round would leave its shard to nobody."""
        self.over = False
        """Whether the run is done, and its server gone."""
        self.carried = (0, 0)
        """Bytes up and down that earlier lives of the server have in the ledger."""
        self.ends: list[str] = []
        self.faults: list[str] = []
        self.story: list[str] = []
        self.heard: set[tuple[int, int]] = set()
        """Round and shard of what was Accepted."""
        self.payloads: dict[tuple[int, int, bytes], bytes] = {}
        """By round, shard and digest: all updates that were trained."""
        self.run_seed, self.layout, self.pipeline = 0, Layout(()), Pipeline.parse("float32")

    def calm_down(self) -> None:
        """From now on everybody is there and answers."""
        self.calm_s = asyncio.get_running_loop().time()
        self.note("it is calm")
        self.calm.set()

    def note(self, sentence: str) -> None:
        self.story.append(f"{asyncio.get_running_loop().time():9.3f} {sentence}")

    def train(self, round_number: int, shard: int, anew: int) -> bytes:
        """Return the update that a shard has of a round, the `anew`-th time that its phone has forgotten all."""
        key, layout, pipeline = RoundKey(self.run_seed, round_number, shard), self.layout, self.pipeline
        noise = noise_update(
            pipeline.space(layout, key).size, RoundKey(self.run_seed, round_number, shard + 100 * anew)
        )
        payload = pipeline.encode(noise, layout, key).payload
        self.payloads[round_number, shard, digest_of(payload)] = payload
        return payload
