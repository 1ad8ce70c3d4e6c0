"""What every codec stage promises, as checks that a user's own tests can run: `check_stage("terngrad | entropy")`.

The suite of this project runs the same checks over each stage and preset of ours.
"""

from collections.abc import Callable

import numpy as np

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.codec.trial import try_out
from featherfed.errors import CodecError
from featherfed.randomness import RoundKey

LAYOUT = Layout((Tensor("a", (40, 30)), Tensor("conv", (8, 3, 5, 5)), Tensor("c", (3,)), Tensor("d", (700,))))
KEY = RoundKey(7, 3, 5)
SHAPES: tuple[tuple[int, ...], ...] = ((1,), (2,), (3, 64), (65,), (127,), (8191,), (8193,), (0, 70), ())
"""Tensors of vectors, by their lengths: blocks that end anywhere, tensors without values, a model without tensors."""
EXTREME: dict[str, Callable[[int], F32]] = {
    "zeros": lambda n: np.zeros(n, np.float32),
    "equal values": lambda n: np.full(n, 3.25, np.float32),
    "denormal values": lambda n: np.full(n, 1e-42, np.float32),
    "one huge value": lambda n: np.concatenate([np.full(min(n, 1), 1e30), np.zeros(max(n - 1, 0))]).astype(np.float32),
    "alternating values": lambda n: np.where(np.arange(n) % 2, 1e3, -1e-3).astype(np.float32),
}
FUZZED = 200
ROUNDS = 400


def check_stage(spec: str) -> None:
    """Check a pipeline, like `"terngrad | entropy"`; its stage must be imported.

    Raises `AssertionError` with a sentence for the first promise that is not kept, `SpecError` for a spec that is none.
    """
    for check in CHECKS:
        check(spec)


def check_spec(spec: str) -> None:
    """A spec is read as it is printed."""
    printed = str(Pipeline.parse(spec))
    _hold(str(Pipeline.parse(printed)) == printed, f"{spec} is printed as {printed!r}, which is read as another")


def check_both_ends(spec: str) -> None:
    """Both ends share only spec, seed and bytes, and what is decoded resembles what was sent."""
    phone, server = Pipeline.parse(spec), Pipeline.parse(spec)
    try_out(phone, LAYOUT)
    values = _normal(phone, LAYOUT)
    payload = phone.encode(values, LAYOUT, KEY).payload
    decoded = server.decode(payload, LAYOUT, KEY)
    _hold(decoded.dtype == np.float32, f"{spec} decodes to {decoded.dtype}, and not to float32")
    _hold(np.array_equal(decoded, phone.decode(payload, LAYOUT, KEY)), f"{spec} decodes the same bytes to other values")
    sent = phone.space(LAYOUT, KEY).expand(values)
    _hold(float(decoded @ sent) > 0, f"{spec} decodes to an update that does not point where the sent one does")


def check_purity(spec: str) -> None:
    """Encoding is a function of its arguments, which it leaves as they are."""
    pipeline = Pipeline.parse(spec)
    values = _normal(pipeline, LAYOUT)
    before = values.copy()
    first, again = (pipeline.encode(values, LAYOUT, KEY).payload for _ in range(2))
    _hold(
        first == again,
        f"{spec} encodes the same values to other bytes; only the given generator may be random",
    )
    _hold(np.array_equal(values, before), f"{spec} changes the values that it is given")


def check_size(spec: str) -> None:
    """A payload is no larger than announced, and of the size that the formulas say where nothing is entropy coded."""
    pipeline = Pipeline.parse(spec)
    size = len(pipeline.encode(_normal(pipeline, LAYOUT), LAYOUT, KEY).payload)
    most = pipeline.max_bytes(LAYOUT)
    _hold(size <= most, f"{spec} makes {size} bytes, and says that {most} are the most")
    fields = [field for part in pipeline.formats(pipeline.space(LAYOUT, KEY)) for field in part.fields]
    if all(field.fixed for field in fields):
        _hold(size == most, f"{spec} makes {size} bytes, and says that they are always {most}")


def check_extreme_values(spec: str) -> None:
    """Extreme values stay finite, and zeros are zeros again."""
    pipeline = Pipeline.parse(spec)
    for kind, make in EXTREME.items():
        values = make(pipeline.space(LAYOUT, KEY).size)
        decoded = pipeline.decode(pipeline.encode(values, LAYOUT, KEY).payload, LAYOUT, KEY)
        _hold(bool(np.isfinite(decoded).all()), f"{spec} decodes {kind} to NaN or infinity")
        _hold(kind != "zeros" or not decoded.any(), f"{spec} decodes zeros to something else")


def check_shapes(spec: str) -> None:
    """Tensors of any length are taken, also of none and of one value."""
    pipeline = Pipeline.parse(spec, exact_below=2)
    for lengths in SHAPES:
        layout = Layout(tuple(Tensor(str(length), (length,)) for length in lengths))
        payload = pipeline.encode(_normal(pipeline, layout), layout, KEY).payload
        shape, most = pipeline.decode(payload, layout, KEY).shape, pipeline.max_bytes(layout)
        _hold(shape == (sum(lengths),), f"{spec} decodes tensors of {lengths} values to an array of shape {shape}")
        _hold(len(payload) <= most, f"{spec} makes {len(payload)} bytes of tensors of {lengths} values, not {most}")


def check_lengths(spec: str) -> None:
    """One byte too few or too many is refused."""
    pipeline = Pipeline.parse(spec)
    payload = pipeline.encode(_normal(pipeline, LAYOUT), LAYOUT, KEY).payload
    for what, wrong in (("few", payload[:-1]), ("many", payload + b"\0")):
        try:
            pipeline.decode(wrong, LAYOUT, KEY)
        except CodecError:
            continue
        raise AssertionError(f"{spec} decodes a payload with one byte too {what}")


def check_any_bytes(spec: str) -> None:
    """Whatever bytes come are decoded to the shape, finite, or refused as `CodecError`: they come from a network."""
    pipeline, generator = Pipeline.parse(spec), np.random.default_rng(11)
    good = pipeline.encode(_normal(pipeline, LAYOUT), LAYOUT, KEY).payload
    for _ in range(FUZZED):
        payload = bytearray(good)
        for _ in range(int(generator.integers(1, 5))):
            payload[int(generator.integers(len(payload)))] = int(generator.integers(256))
        if generator.random() < 0.3:
            del payload[int(generator.integers(len(payload))) :]
        try:
            decoded = pipeline.decode(bytes(payload), LAYOUT, KEY)
        except CodecError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{spec} raises {type(error).__name__} for bytes that are none of its own, and not CodecError: {error}"
            ) from error
        fits = decoded.shape == (LAYOUT.size,) and bool(np.isfinite(decoded).all())
        _hold(fits, f"{spec} decodes bytes that are none of its own to another shape, NaN or infinity")


def check_bias(spec: str) -> None:
    """Where a pipeline says that it is unbiased, the mean of many decoded updates is the update.

    The mean of n decoded vectors differs from the update by about √(vNMSE/n) if and only if there is no bias.
    """
    pipeline, layout = Pipeline.parse(spec), Layout((Tensor("a", (2048,)),))
    if not pipeline.unbiased or pipeline.structured:
        return
    values = _normal(pipeline, layout)
    total, errors = np.zeros(layout.size), 0.0
    for round_number in range(ROUNDS):
        key = RoundKey(1, round_number, 0)
        decoded = pipeline.decode(pipeline.encode(values, layout, key).payload, layout, key)
        total += decoded
        errors += float(((decoded - values) ** 2).sum() / (values**2).sum())
    bias = float(np.linalg.norm(total / ROUNDS - values) / np.linalg.norm(values))
    # Over 2048 coordinates the squared ratio has a deviation of about √(2/2048) = 3 %: 1.3 is nine of them. A Hadamard
    # rotation is not uniform, which leaves EDEN a bias below 1 %.
    most = 1.3 * np.sqrt(errors / ROUNDS / ROUNDS) + 0.01
    _hold(bias <= most, f"{spec} says that it is unbiased, and the mean of {ROUNDS} is off by {bias:.1%} > {most:.1%}")


CHECKS: tuple[Callable[[str], None], ...] = (
    check_spec, check_both_ends, check_purity, check_size, check_extreme_values, check_shapes, check_lengths,
    check_any_bytes, check_bias,
)  # fmt: skip


def _hold(promise: bool, sentence: str) -> None:
    if not promise:
        raise AssertionError(sentence)


def _normal(pipeline: Pipeline, layout: Layout) -> F32:
    drawn = np.random.default_rng(0).standard_normal(pipeline.space(layout, KEY).size)
    return drawn.astype(np.float32)
