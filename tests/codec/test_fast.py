"""Compiled loops of the codecs: the same bits as numpy's, for every size, and on another processor's vectors."""

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from featherfed.codec import fast, fast_loading
from featherfed.codec.eden import Eden
from featherfed.codec.exact_sum import ExactSum
from featherfed.codec.fold import Update
from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.rotate import Rotate, RotateShared, draw_signs, rotate_span_back, spans
from featherfed.codec.vertex import Vertex
from featherfed.randomness import RoundKey

from .test_same_bits import differences, digests

SIZES = (
    *range(1, 36),
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    257,
    511,
    513,
    1000,
    1024,
    2047,
    3000,
    4099,
    8191,
    8192,
    8193,
    16383,
)
SPECS = (
    *(f"exact(0) | rotate | eden({bits})" for bits in range(1, 5)),
    *(f"exact(0) | rotate | vertex({values})" for values in (2, 16, 32, 128)),
    *(f"exact(0) | rotate_shared | stochastic({bits})" for bits in (1, 3, 4, 8)),
)
KEY = RoundKey(0, 1, 2)


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    pytest.importorskip("numba", reason="needs numba: pip install 'featherfed[fast]'")
    assert fast_loading.load()


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], tuple[object, object]]:
    """Ask something twice: of numpy, and of the compiled loops."""
    kernels = fast.kernels()
    assert kernels is not None

    def asked(what: Callable[[], object]) -> tuple[object, object]:
        monkeypatch.setattr(fast, "_kernels", None)
        by_numpy = what()
        monkeypatch.setattr(fast, "_kernels", kernels)
        return by_numpy, what()

    return asked


def vectors(size: int) -> Iterator[np.ndarray]:
    """Yield normal values, large and so small that some have not all their bits; zeros of both signs; ties."""
    drawn = np.random.default_rng(size)
    normal = drawn.standard_normal(size).astype(np.float32)
    for scale in (1.0, 1e-42, 1e25):
        values = normal * np.float32(scale)
        values[drawn.random(size) < 0.2] = 0
        values[drawn.random(size) < 0.1] *= np.float32(-0.0)
        yield values
    yield np.rint(2 * normal)
    yield np.full(size, -0.0, np.float32)


def broken(size: int) -> Iterator[np.ndarray]:
    """Yield values of which one is infinite or no number, or so large that sums overflow."""
    for number in (np.inf, -np.inf, np.nan, np.float32(3e38)):
        values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
        values[size // 2] = number
        yield values


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("kind", [vectors, broken])
def test_rotations_and_quantizers_have_numpys_bits(
    both: Callable[..., tuple[list[bytes], list[bytes]]], kind: Callable[[int], Iterator[np.ndarray]]
) -> None:
    quantizers = [Eden(1), Eden(2), Eden(4), Vertex(2), Vertex(32), Vertex(128)]

    def results(values: np.ndarray) -> list[bytes]:
        made = [Rotate().forward(values, KEY, 0).tobytes(), Rotate().backward(values.copy(), KEY, 0).tobytes()]
        for quantizer in quantizers:
            header, symbols = quantizer.encode(values, np.random.default_rng(0))
            made += [header, symbols.tobytes()]
        return made

    for size in SIZES if kind is vectors else (1, 2, 40, 300, 8192, 9000):
        for values in kind(size):
            by_numpy, compiled = both(functools.partial(results, values))
            assert compiled == by_numpy, f"{size} values like {values[:3]}"


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_whole_numbers_are_rotated_back_to_numpys_bits(both: Callable[..., tuple[bytes, bytes]]) -> None:
    drawn = np.random.default_rng(0)
    for size, scale in itertools.product(SIZES, (1.0, 1e-40, -2.5, 3e38)):
        whole = drawn.integers(-2, 3, size).astype(np.float32)
        numbers = np.full((1, -(-size // 8192)), scale, np.float32)
        signs = draw_signs(3 * size + 64, drawn)[None]

        def back(whole: np.ndarray = whole, numbers: np.ndarray = numbers, signs: np.ndarray = signs) -> bytes:
            values, scratch = whole.copy()[None], np.empty(4 * whole.size + 64, np.float32)
            for span in spans(whole.size):
                rotate_span_back(values[:, span], signs, span, whole.size, scratch, numbers)
            return values.tobytes()

        by_numpy, compiled = both(back)
        assert compiled == by_numpy, f"{size} values times {scale}"


@pytest.mark.parametrize("spec", SPECS)
def test_updates_of_tensors_of_every_size_are_coded_and_summed_to_numpys_bits(
    both: Callable[..., tuple[list[bytes], list[bytes]]], spec: str
) -> None:
    pipeline = Pipeline.parse(spec)
    layout = Layout(tuple(Tensor(f"{size}", (size,)) for size in SIZES if size < 4000 or size == 16383))

    def results() -> list[bytes]:
        made, updates = [], []
        for client in range(3):
            key = RoundKey(0, 1, client)
            values = np.random.default_rng(client).standard_normal(layout.size).astype(np.float32)
            payload = pipeline.encode(values * np.float32(10.0 ** (-9 * client)), layout, key).payload
            made += [payload, pipeline.decode(payload, layout, key).tobytes()]
            updates.append(Update(payload, key, 7 + client))
        for key in (RoundKey(0, 1), None):
            total = pipeline.fold(layout, key, updates=3)
            assert total.add_all(updates) == [None] * 3
            made += [total.to_bytes(), total.mean().tobytes()]
        return made

    by_numpy, compiled = both(results)
    assert compiled == by_numpy


def test_payload_that_is_wrong_is_refused_alike(both: Callable[..., tuple[list[str], list[str]]]) -> None:
    pipeline, layout = Pipeline.parse("exact(0) | rotate | vertex(32)"), Layout((Tensor("a", (70,)), Tensor("b", (9,))))
    payload = bytearray(pipeline.encode(np.ones(79, np.float32), layout, KEY).payload)
    wrong = [bytes(payload)]
    for at in range(len(payload)):
        other = payload.copy()
        other[at] ^= 0xFF
        wrong.append(bytes(other))

    def faults() -> list[str]:
        total = pipeline.fold(layout, None, updates=100)
        found = [str(fault) for fault in total.add_all([Update(each, KEY, 1) for each in wrong])]
        return [*found, total.to_bytes().hex()]

    by_numpy, compiled = both(faults)
    assert compiled == by_numpy
    assert set(by_numpy[:-1]) > {"None"}


def test_values_of_every_length_are_added_to_numpys_bits(both: Callable[..., tuple[bytes, bytes]]) -> None:
    for size in (1, 7, 16, 33, 70_000):
        values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
        values.flags.writeable = False

        def total(values: np.ndarray = values) -> bytes:
            made = ExactSum(values.size, 2)
            made.add(values, 3)
            # The product has more digits than a float64.
            made.add(values[::-1] * np.float32(2.0**-20), (1 << 29) + 1)
            return made.to_bytes()

        by_numpy, compiled = both(total)
        assert compiled == by_numpy


def test_each_loop_is_compiled_for_one_set_of_types() -> None:
    """Another one would be compiled in the midst of a round, for seconds."""
    from featherfed.codec.compiled import decoding, quantizing, rotation

    for loop in (rotation.rotate, decoding.add_span, decoding.add_values, quantizing.eden, quantizing.vertex):
        assert len(loop.signatures) == 1, loop


SAYS = """
import sys
from featherfed.codec import fast, fast_loading
from tests.codec import same_bits
assert fast_loading.load() and fast.kernels() is not None
from featherfed.compiling.emitter import LANES
print("vectors of", LANES, file=sys.stderr)
same_bits.main()
"""


def test_vectors_of_another_processor_change_no_bit(tmp_path: Path) -> None:
    """All that both ends compute, by numpy in one process and by loops for another CPU in the other."""
    another = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "FL_CACHE_DIR": str(tmp_path)}
    there, says = digests(another, "-c", SAYS)
    assert "vectors of 4\n" in says
    assert differences(digests({"FL_FAST": "0"})[0], there) == []


def test_numba_that_fails_is_said_once_and_numpy_codes(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('its library is of another age')\n")
    says = "from featherfed.codec import fast, fast_loading as l; print(l.load(), l.load(), fast.kernels())"
    here = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", says], capture_output=True, text=True, timeout=100, check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(here), str(tmp_path)])},
    )  # fmt: skip
    assert done.stdout == "False False None\n"
    assert done.stderr == (
        "featherfed: updates are coded without compiled loops, since numba fails: ImportError: its library is of"
        " another age; FL_FAST=0 does without it\n"
    )


def test_small_model_alone_is_no_reason_to_load_numba() -> None:
    says = (
        "import sys; from featherfed.codec.fast_loading import load_for; load_for(10_000);"
        " print('numba' in sys.modules);"
        " load_for(1 << 20); print('numba' in sys.modules)"
    )
    here = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", says], capture_output=True, text=True, timeout=100, check=True, cwd=here
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True"]


def test_loops_that_compute_something_else_are_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from featherfed.codec.compiled import kernels

    add = kernels.Kernels.add
    monkeypatch.setattr(
        kernels.Kernels, "add", lambda self, total, *more: add(self, total[:-1], more[0][:-1], *more[1:])
    )
    monkeypatch.setattr(fast, "_kernels", None)
    assert not fast_loading.load.__wrapped__()
    assert fast.kernels() is None
    assert "others than numpy's; FL_FAST=0 does without it" in capsys.readouterr().err


@pytest.mark.parametrize("shared", [False, True])
def test_signs_of_many_phones_are_those_that_each_draws(shared: bool) -> None:
    keys = [RoundKey(seed, number, client) for seed in (0, 1 << 60) for number in (1, 900) for client in range(-1, 40)]
    sizes = list(enumerate((1, 2, 63, 64, 65, 400, 8193)))
    stage = RotateShared() if shared else Rotate()
    for (index, size), drawn in zip(sizes, stage.draw_rows(sizes, keys), strict=True):
        assert drawn.dtype == np.uint8
        assert np.array_equal(drawn, np.stack([stage.draw(size, key, index) for key in keys]))
