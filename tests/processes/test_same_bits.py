"""A server of one kind of CPU and phones of another hold the same bits: each process with kernels of its own."""

import platform
from pathlib import Path

import msgpack
import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from safetensors.numpy import load_file

from featherfed.codec.pipeline import Pipeline
from featherfed.fl_bench.processes import Processes
from featherfed.randomness import RoundKey
from tests.layouts import LAYOUTS

pytestmark = pytest.mark.processes
TIMEOUT_S = 120.0
DISPATCHED = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
KINDS = {
    "x86_64": (
        {"OPENBLAS_CORETYPE": "Haswell"}, {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": DISPATCHED},
    ),
    "aarch64": ({"OPENBLAS_CORETYPE": "NEOVERSEN1"}, {"OPENBLAS_CORETYPE": "ARMV8"}),
}  # fmt: skip
SETTINGS = [
    "--problem", "digits/lite", "--phones", "3", "--rounds", "3", "--seed", "4",
    "--uplink", "rotate | eden(1)", "--downlink", "rotate | eden(4)", "--no-dashboard",
]  # fmt: skip


Kind = dict[str, str]


def run(folder: Path, server: Kind, phones: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve a run, by a server and with phones of these kinds; phones send seeded noise, since training is torch's."""
    with Processes(folder / "logs") as processes:
        with monkeypatch.context() as environment:
            for name, value in server.items():
                environment.setenv(name, value)
            settings = ["--runs", str(folder), "--name", "a", *SETTINGS]
            address = processes.start_server(settings, lambda line: None)
        with monkeypatch.context() as environment:
            for name, value in phones.items():
                environment.setenv(name, value)
            for phone in range(3):
                state = str(folder / f"phone-{phone}")
                flags = ["--server", address, "--shard", f"{phone}/3", "--state-dir", state, "--train", "none"]
                processes.start_phone(f"{phone}", flags)
        assert processes.wait_for_server(TIMEOUT_S) == 0


def test_phones_of_another_kind_hold_the_servers_view_and_either_way_round_the_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() not in KINDS:
        pytest.skip(f"no two kinds of kernels are known for {platform.machine()}")
    one, other = KINDS[platform.machine()]
    run(tmp_path / "first", one, other, monkeypatch)
    run(tmp_path / "second", other, one, monkeypatch)
    saved, layout = load_file(tmp_path / "first" / "a" / "model.safetensors"), LAYOUTS["lite"]
    pipeline = Pipeline.parse("rotate | eden(4)", direction="downlink")
    for phone in range(3):
        held = msgpack.unpackb((tmp_path / "first" / f"phone-{phone}" / "model").read_bytes())
        assert held["version"] >= 2
        view = np.frombuffer(held["weights"], "<f4")
        # The last version is published when nobody asks for it any more: what leads there is in the file.
        for version in range(held["version"] + 1, 4):
            payload = saved[f"phones.chain.{version}"].tobytes()
            view = view + pipeline.decode(payload, layout, RoundKey(4, version))
        assert view.tobytes() == saved["phones.view"].tobytes()
    models = [(tmp_path / name / "a" / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert models[0] == models[1]
