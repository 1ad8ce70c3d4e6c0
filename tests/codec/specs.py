"""Every stage in a pipeline of its own, and every preset: what the conformance suite runs over."""

from featherfed.codec.grammar import PRESETS
from featherfed.codec.pipeline import Pipeline

STAGE_SPECS = (
    "float32",
    "float16",
    "bfloat16",
    "exact(0) | float32",
    "flat | rotate | eden(1)",
    "mask(1/4)",
    "lowrank(1/4)",
    "subspace(100)",
    "subsample(1/4)",
    "topk(1/20)",
    "rotate | float32",
    "rotate_shared | float32",
    "quantize(1)",
    "quantize(3)",
    "quantize(8)",
    "rotate | eden(1)",
    "rotate | eden(2)",
    "rotate | eden(3)",
    "rotate | eden(4)",
    "rotate | vertex(2)",
    "rotate | vertex(64)",
    "rotate_shared | stochastic(1)",
    "rotate_shared | stochastic(4)",
    "rotate | stochastic(5)",
    "qsgd(2)",
    "qsgd(8)",
    "sign",
    "feedback | sign",
    "feedback | topk(1/20)",
    "feedback | topk(1/20) | ternary",
    "rotate | quantize(2) | entropy",
    "topk(1/20) | ternary | entropy",
    "mask(1/4) | rotate | eden(1)",
    "lowrank(1/4) | quantize(4)",
    "subspace(100) | quantize(4) | entropy",
    "mask(1/2) | subsample(1/2) | rotate | quantize(2)",
)
SUMMED = tuple(spec for spec in PRESETS.values() if Pipeline.parse(spec).summed)
"""Presets of which nothing is decoded but sums: tests/codec/test_summable.py."""
ALL_SPECS = tuple(spec for spec in dict.fromkeys([*STAGE_SPECS, *PRESETS.values()]) if spec not in SUMMED)
