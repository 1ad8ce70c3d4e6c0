"""One round's updates, kept decoded until it closes, for an aggregate that needs all of them."""

from featherfed.codec.clip import clip
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.randomness import RoundKey
from featherfed.rules.aggregate import Updates


class KeptUpdates:
    """Takes the place of a `Fold`."""

    def __init__(self, pipeline: Pipeline, layout: Layout, *, clip_norm: float) -> None:
        self._pipeline, self._layout = pipeline, layout
        self._clip_norm = clip_norm
        self._updates: dict[int, tuple[F32, int]] = {}

    def add(self, payload: bytes, key: RoundKey, weight: int) -> None:
        """Decode the update of a phone and keep it; raises `CodecError` and keeps nothing of it."""
        update = clip(self._pipeline.decode(payload, self._layout, key), self._clip_norm)
        self._updates[key.client] = update, weight

    def updates(self, key: RoundKey) -> Updates:
        """Return what was added, in the rising order of shards, whatever order it came in."""
        shards = sorted(self._updates)
        rows, weights = [self._updates[shard][0] for shard in shards], [self._updates[shard][1] for shard in shards]
        return Updates(rows, weights, shards, key)
