"""A pipeline with a stage of a user's own, tried out before anything is sent with it."""

import numpy as np

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError, ProblemError
from featherfed.randomness import RoundKey

LAYOUT = Layout((Tensor("a", (40, 30)), Tensor("b", (130,)), Tensor("c", (3,))))


def try_out(pipeline: Pipeline, layout: Layout = LAYOUT) -> None:
    """Encode and decode values once; raises `ProblemError` where what comes out is not a model's update."""
    key = RoundKey(0, 1, 0)
    values = np.random.default_rng(0).standard_normal(pipeline.space(layout, key).size).astype(np.float32)
    payload = pipeline.encode(values, layout, key).payload
    if len(payload) > (most := pipeline.max_bytes(layout)):
        raise ProblemError(f"{pipeline} makes {len(payload)} bytes, and says that {most} are the most")
    try:
        pipeline.decode(payload, layout, key)
    except CodecError as error:
        raise ProblemError(f"{pipeline} cannot decode what it encodes: {error}") from error
