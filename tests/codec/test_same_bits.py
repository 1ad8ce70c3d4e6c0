"""The same bits on every CPU: what both ends compute does not depend on the matrix library, its kernels or numpy's."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

HERE = Path(__file__).parents[2]
KERNELS = {
    "x86_64": [("Haswell", "1"), ("SkylakeX", "2"), ("Nehalem", "1"), ("Nehalem", "2")],
    "aarch64": [("ARMV8", "1"), ("NEOVERSEN1", "2")],
}
"""OpenBLAS's kernels, and how many threads they may have."""
DISPATCHED = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
"""What numpy has kernels for beyond its baseline, and this CPU has too."""


def digests(environment: dict[str, str], *program: str) -> tuple[dict[str, str], str]:
    """Return what `tests.codec.same_bits` prints in an environment, and what the library says of itself."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *(program or ("-m", "tests.codec.same_bits"))],
        capture_output=True, text=True, check=False, timeout=120, cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE), **environment},
    )  # fmt: skip
    if done.returncode < 0:
        pytest.skip(f"{environment} ends with signal {-done.returncode} on this CPU")
    assert done.returncode == 0, done.stderr
    result: dict[str, str] = json.loads(done.stdout)
    return result, done.stderr


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return digests({})[0]


def differences(left: dict[str, str], right: dict[str, str]) -> list[str]:
    assert left.keys() == right.keys()
    return [name for name in left if left[name] != right[name]]


@pytest.mark.parametrize(("kernels", "threads"), KERNELS.get(platform.machine(), []))
def test_matrix_kernels_and_threads_change_no_bit(here: dict[str, str], kernels: str, threads: str) -> None:
    named = {"OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    there, says = digests({**named, "OPENBLAS_VERBOSE": "2"})
    if f"core: {kernels}".lower() not in says.lower():
        pytest.skip(f"the matrix library here has no kernels {kernels}: {says.strip() or 'it is another one'}")
    assert differences(here, there) == []


@pytest.mark.parametrize("kept", [0, 1])
def test_numpys_instructions_change_no_bit(here: dict[str, str], kept: int) -> None:
    without = DISPATCHED[kept:]
    if not without:
        pytest.skip(f"numpy has no kernels beyond its baseline for this CPU but {DISPATCHED}")
    assert differences(here, digests({"NPY_DISABLE_CPU_FEATURES": " ".join(without)})[0]) == []
