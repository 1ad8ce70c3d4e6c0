"""What every test may ask for: the data folder, a served run in this process, and one thread of arithmetic."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from filelock import FileLock

from tests.programs import program
from tests.serving import Served, serving
from tests.skipped import pytest_terminal_summary  # noqa: F401

# Before torch or numpy is imported: two test workers with two threads each only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONGEST = (
    "tests/lab/test_peers.py", "tests/phone_page/test_page.py", "tests/test_side_by_side.py",
    "tests/learning/test_fast.py", "tests/deploy/test_wheel.py", "tests/fl_bench/test_tether.py",
    "tests/lab/test_speed_benches.py", "tests/commandline/test_signals.py", "tests/examples/test_examples.py",
    "tests/processes/test_run.py", "tests/server/door/test_hostile_files.py", "tests/processes/test_tree.py",
    "tests/fl_bench/test_cluster.py", "tests/gateway/test_masked_tree.py", "tests/lab/test_workers.py",
    "tests/fl_bench/test_current_folder.py", "tests/server/dashboard/test_page.py", "tests/lab/test_virtual.py",
    "tests/lab/test_agree.py", "tests/processes/test_own_problem.py", "tests/test_experiment.py",
    "tests/chaos/test_crash_points.py", "tests/lab/test_peer_rounds.py", "tests/lab/test_gpu.py",
    "tests/chaos/test_chaos.py", "tests/phone_page/test_doors.py", "tests/commandline/test_streams.py",
    "tests/phone_page/test_accuracy.py", "tests/chaos/test_masked_gateway_crash_points.py",
    "tests/chaos/test_phones_account_survives.py", "tests/processes/test_masked_tree.py",
    "tests/gateway/test_ray_tree.py", "tests/fl_bench/test_virtual_run.py", "tests/fl_bench/test_report.py",
    "tests/processes/test_masked_trials.py", "tests/chaos/test_masked_crash_points.py",
)  # fmt: skip
"""The files that take a quarter of a minute and more, by `pytest --durations=0`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one that began last would run for a minute beside an idle worker."""
    rank = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(LONGEST)))


CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def _mnist_folder() -> Path | None:
    named = os.environ.get("FL_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data"
    folder = Path(named).resolve()
    return folder if (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists() else None


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the full MNIST: skips where there is none, fails where CI says that it must be there."""
    folder = _mnist_folder()
    if folder is None:
        if os.environ.get("FEATHERFED_REQUIRE_MNIST"):
            pytest.fail("FEATHERFED_REQUIRE_MNIST is set, but FL_DATA_DIR holds no MNIST")
        pytest.skip("needs the full MNIST: set FL_DATA_DIR to a folder in torchvision's layout")
    return folder


@pytest.fixture
def ray_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray cluster at a time, whatever pytest's workers do: `auto` finds any, and two starve each other."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "ray.lock"):
        yield


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Served]]:
    """Serve a run on loopback: `async with serve(phones=2, rounds=1) as served:`; `resume=True` goes on with it.

    `entrance` are more of `EntranceOptions`; everything else is the run's.
    """
    return functools.partial(serving, tmp_path)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate authority, and a certificate of it for 127.0.0.1 with its key."""
    folder = tmp_path_factory.mktemp("authority")
    paths = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(paths["ca"])
    issued.private_key_pem.write_to_path(paths["key"])
    paths["cert"].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return paths


# Not longer than a module: until it ends, Playwright has a loop running in this thread, in which no other can run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium under Playwright."""
    path = program("chromium", "apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()
