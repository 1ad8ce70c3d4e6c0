"""One simulated run on several processes is the run on one, to the bit: its model, its ledger and its order."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file

from featherfed.bandwidth_sim.profile import find_profile, profile_from_flags
from featherfed.edge_client.learner import SgdLearner
from featherfed.edge_client.training_crew import (
    PARTS_AHEAD,
    TRAININGS_AHEAD,
    EvaluateJob,
    Job,
    Result,
    TrainingProcesses,
    TrainJob,
    _Member,
    burden,
    room_of,
)
from featherfed.edge_client.training_host import HostPlan
from featherfed.edge_client.training_together import worth_a_batch
from featherfed.errors import ConfigError, LocalError, ProblemError
from featherfed.learning import together
from featherfed.learning.together import train_as_one
from featherfed.problem import Place
from featherfed.problem_loading import load_problem
from featherfed.problem_names import NamedProblem
from featherfed.server.config import config_from
from featherfed.server.storage.run_folder import RunFolder, create
from featherfed.server.storage.store import Store
from featherfed.side_by_side import Workers
from featherfed.simulation import Fleet, simulate


def ever(phones: int, steps: int) -> bool:
    return True


DROPS = profile_from_flags(bandwidth="256kbps", drop_every="40kB")
MIX = {find_profile("2g"): 0.2, find_profile("lossy-3g"): 0.4, find_profile("4g"): 0.4}
RUNS: dict[str, dict[str, Any]] = {
    "one moment": {},
    "links that drop": {"fleet": Fleet(links=DROPS), "uplink": "float32"},
    "mixed links and devices": {"fleet": Fleet(links=MIX, devices={"slow": 0.5, "cpu": 0.5})},
    "phones that leave": {"fleet": Fleet(links=MIX, dropout=0.3, away_s=5)},
    "feedback": {"uplink": "feedback | sign", "fleet": Fleet(links=MIX)},
    "float32": {"uplink": "float32", "downlink": "float32", "eval_every": 2},
    "over-selection": {"over_select": 1.5, "fleet": Fleet(links=MIX)},
    "mode async": {"mode": "async", "buffer": 2, "fleet": Fleet(links=MIX, devices="mid")},
    "settings by round": {"cohort": {1: 6, 3: 3}, "epochs": "2,1", "uplink": "1:float32,2:rotate | eden(1)"},
    "masks": {"secure": True, "uplink": "secure-4bit", "circle": 5, "cohort": 8},
    "connected when chosen": {"connect": "when-chosen", "fleet": Fleet(links=MIX)},
}


class Lent:
    """Some processes of a crew that outlives the runs of these tests."""

    def __init__(self, crew: TrainingProcesses) -> None:
        self.crew, self.size, self.fault = crew, crew.size, ""
        self.done = self.evaluated = 0

    def room(self, kind: type[Job], waiting: int) -> int:
        return self.crew.room(kind, waiting)

    def take(self, jobs: Mapping[int, Job]) -> None:
        self.crew.take(jobs)

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        answers = self.crew.answers(block=block)
        self.done += sum(result is not None for _, result in answers)
        self.evaluated += sum(isinstance(result, list) for _, result in answers)
        return answers

    def close(self) -> None:
        settle(self.crew)


def settle(crew: TrainingProcesses) -> None:
    """Wait until all processes are ready and none has a job."""
    while crew.busy or crew.room(TrainJob, 0) != crew.size:
        crew.answers(block=True)


@pytest.fixture(scope="module")
def crews() -> Iterator[list[TrainingProcesses]]:
    plan = HostPlan.here("digits/tiny")
    made = [TrainingProcesses(size, plan) for size in (1, 2)]
    yield made
    for crew in made:
        crew.close()


def ran(
    folder: Path, name: str, workers: Workers | int | None, fleet: Fleet | None = None, **settings: Any
) -> RunFolder:
    given = {"problem": "digits/tiny", "phones": 10, "cohort": 6, "rounds": 4, "epochs": 2, "lr": 0.05, **settings}
    config = config_from(given)
    return simulate(config, lambda: create(folder, name, config), fleet or Fleet(), workers=workers)


def all_of(run: RunFolder, *, masked: bool = False) -> tuple[Any, ...]:
    """Return what a run leaves: its model, the rows of its rounds and updates, and every count of its ledger.

    What travels under masks is other bytes in each run, whose keys are new.
    """
    store = Store(run.database)
    try:
        rounds, updates, traffic = store.rounds(), store.updates(), store.traffic()
        updates = [update._replace(digest=b"") if masked else update for update in updates]
        counts = {key: count.as_dict() for key, count in traffic.items()}
    finally:
        store.close()
    return run.model.read_bytes(), rounds, updates, counts, (run.path / "rounds.csv").read_bytes()


def rows_of(run: RunFolder, column: str) -> list[float]:
    """Return a column of a run's rounds."""
    return [float(row[column]) for row in csv.DictReader((run.path / "rounds.csv").read_text().splitlines())]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_to_the_bit_with_any_number_of_workers(
    tmp_path: Path, crews: list[TrainingProcesses], name: str
) -> None:
    masked = "secure" in RUNS[name]
    alone = all_of(ran(tmp_path, "alone", 1, **RUNS[name]), masked=masked)
    # How many there are is a matter of the first ones; that it is the same run, of all.
    for crew in crews if name in list(RUNS)[:3] else crews[1:]:
        lent = Lent(crew)
        workers = Workers(crew.size + 1, lambda size, lent=lent: lent)  # type: ignore[misc]
        settle(crew)
        beside = ran(tmp_path, f"with {crew.size}", workers, **RUNS[name])
        assert all_of(beside, masked=masked) == alone
        assert lent.done > 0, "others trained"


SMOOTH = """
from dataclasses import replace
from torch import nn
from featherfed.problem_loading import load_problem

def model():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 10)
    )

problem = replace(load_problem("digits/2nn"), model=model)
"""
"""2nn without corners: where a unit of a ReLU is within rounding of zero, two ways of training part for good, which one
run in six of these met, by whichever passes."""
AS_ONE: dict[str, dict[str, Any]] = {
    "one moment": {},
    "ReLUs, few steps": {"problem": "digits/2nn", "phones": 70, "epochs": 1},
    "links that drop": {"fleet": Fleet(links=profile_from_flags(bandwidth="2mbps", drop_every="300kB"))},
    "mixed links and devices": {"fleet": Fleet(links=MIX, devices={"slow": 0.5, "cpu": 0.5})},
    "phones that leave": {"fleet": Fleet(links=MIX, dropout=0.3, away_s=5)},
    "shards of any size": {"partition": "quantity:2"},
    "settings by round": {"cohort": {1: 6, 3: 3}, "epochs": "2,1", "uplink": "1:float32,2:mask(1/4)"},
    "mode async": {"mode": "async", "buffer": 2, "fleet": Fleet(devices="mid")},
}


@pytest.mark.parametrize("name", AS_ONE)
def test_a_run_whose_phones_train_as_one_batch_is_the_one_in_turns_to_rounding(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(trainers: list[Any], *given: Any) -> list[Any]:
        sizes.append(len(trainers))
        return train_as_one(trainers, *given)

    (tmp_path / "smooth.py").write_text(SMOOTH)
    monkeypatch.chdir(tmp_path)
    settings = {
        "problem": "./smooth.py:problem", "uplink": "float32", "downlink": "float32", "rounds": 3, **AS_ONE[name],
    }  # fmt: skip
    alone = ran(tmp_path, "alone", Workers(), **settings)
    monkeypatch.setattr(together, "train_as_one", counted)
    beside = ran(tmp_path, "beside", Workers(together=ever), **settings)
    models = [load_file(run.model) for run in (alone, beside)]
    compared = [name for name, value in models[0].items() if value.dtype == np.float32]
    assert sum(models[0][tensor].size for tensor in compared) >= 199_210
    for tensor in compared:
        assert np.abs(models[0][tensor] - models[1][tensor]).max() < 1e-5, tensor
    # Who is asked, who answers and what travels is the same.
    assert all_of(alone)[3] == all_of(beside)[3]
    assert max(sizes) >= 3, "phones were one batch"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"problem": "digits/lite", "phones": 70},
        {"epochs": 1, "uplink": "mask(1/4)"},
        {"phones": 3, "cohort": 2, "devices": {"cuda": 0.5, "cpu": 0.5}},
        {"mode": "async", "buffer": 2},
    ],
    ids=str,
)
def test_a_run_on_a_gpu_is_the_one_on_the_cpu_to_rounding_and_the_same_to_the_bit_each_time(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smooth.py").write_text(SMOOTH)
    monkeypatch.chdir(tmp_path)
    given = {
        "problem": "./smooth.py:problem", "cohort": 10, "rounds": 3, "lr": 0.02, "uplink": "float32",
        "downlink": "float32", **settings,
    }  # fmt: skip
    devices = given.pop("devices", "cuda")
    here = ran(tmp_path, "cpu", 1, **given)
    there, again = (ran(tmp_path, name, None, Fleet(devices=devices), **given) for name in ("cuda", "again"))
    models = [load_file(run.model) for run in (here, there)]
    for tensor, value in models[0].items():
        if value.dtype == np.float32:
            assert np.abs(value - models[1][tensor]).max() < 1e-3, tensor
    assert all_of(here)[3] == all_of(there)[3]
    assert all_of(there) == all_of(again)
    accuracies = [rows_of(run, "accuracy") for run in (here, there)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.01) and len(accuracies[0]) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU on this machine")
def test_a_run_on_a_gpu_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--device cuda, and torch finds no CUDA device here"):
        ran(tmp_path, "cuda", None, Fleet(devices="cuda"))
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_one_phone_in_a_batch_loses_that_phone_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = SgdLearner.encoded

    def fails_for_one(self: SgdLearner, *given: Any) -> Any:
        if self.welcome.shard == 3:
            raise ProblemError("it cannot be encoded")
        return encoded(self, *given)

    monkeypatch.setattr(SgdLearner, "encoded", fails_for_one)
    runs = [ran(tmp_path, name, Workers(together=how), cohort=10) for name, how in (("alone", None), ("batch", ever))]
    counts = [rows_of(run, "accepted") for run in runs]
    assert counts[0] == counts[1] and counts[0][-1] == 9


def test_a_gpu_evaluates_where_all_phones_train_on_one() -> None:
    assert Fleet(devices="cuda").evaluated_on == "cuda"
    for other in (Fleet(), Fleet(devices="mid"), Fleet(devices={"cuda": 0.5, "cpu": 0.5})):
        assert other.evaluated_on == "cpu"
    assert Fleet(devices="cuda", trains=False).evaluated_on == "cpu"


def test_phones_on_a_gpu_train_as_one_batch_where_that_was_measured_to_be_faster() -> None:
    from featherfed.simulation import _workers

    config = config_from({"problem": "digits/tiny", "phones": 10, "cohort": 6})
    named = NamedProblem(load_problem("digits/tiny"), "digits/tiny", "digits/tiny")
    assert _workers(config, Fleet(devices="cuda"), None, named, None).together is worth_a_batch
    for other in (Fleet(), Fleet(devices={"cuda": 0.5, "cpu": 0.5}), Fleet(devices="cuda", trains=False)):
        assert _workers(config, other, 1, named, None).together is None


class Watched(Lent):
    """A crew whose first process is killed as soon as it has a job."""

    def __init__(self, crew: TrainingProcesses) -> None:
        super().__init__(crew)
        self.killed: list[int] = []

    def take(self, jobs: Mapping[int, Job]) -> None:
        super().take(jobs)
        if not self.killed:
            self.killed = self.crew.pids
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)


def test_a_worker_that_dies_is_replaced_and_its_training_made_again(tmp_path: Path) -> None:
    alone = all_of(ran(tmp_path, "alone", 1, rounds=6))
    crew = TrainingProcesses(1, HostPlan.here("digits/tiny"))
    try:
        watched = Watched(crew)
        settle(crew)
        assert all_of(ran(tmp_path, "killed", Workers(2, lambda size: watched), rounds=6)) == alone
        assert watched.killed and crew.pids and crew.pids != watched.killed
        assert not any(psutil.pid_exists(pid) for pid in watched.killed), "no zombie is left"
    finally:
        pids = crew.pids
        crew.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_crew_whose_processes_all_die_leaves_the_run_to_the_one_that_began_it(tmp_path: Path) -> None:
    class Deadly(Lent):
        def take(self, jobs: Mapping[int, Job]) -> None:
            super().take(jobs)
            for pid in self.crew.pids:
                os.kill(pid, signal.SIGKILL)

    alone = all_of(ran(tmp_path, "alone", 1))
    crew = TrainingProcesses(1, HostPlan.here("digits/tiny"))
    try:
        settle(crew)
        assert all_of(ran(tmp_path, "deadly", Workers(2, lambda size: Deadly(crew)))) == alone
    finally:
        crew.close()


def ready(problem: str) -> Workers:
    """Return two workers, of whom the second is there before the first round."""

    return Workers(2, lambda size: ready_crew(problem))


def ready_crew(problem: str) -> TrainingProcesses:
    crew = TrainingProcesses(1, HostPlan.here(problem))
    settle(crew)
    return crew


OWN = """
import os
import torch
import featherfed as ff

def examples(place):
    # The test set has as many as are worth to divide.
    inputs = torch.randn(2050 if place.index == 999 else 40, 4, generator=torch.Generator().manual_seed(place.index))
    return ff.Examples(inputs, (inputs[:, 0] > 0).long())

def loss(outputs, targets):
    if len(targets) == 7 and os.environ.get("FAULT") in ("yes", "exit"):
        raise SystemExit("of mine") if os.environ["FAULT"] == "exit" else ValueError("of mine")
    return torch.nn.functional.cross_entropy(outputs, targets)

def accuracy(outputs, targets):
    # Not where it is tried, on two.
    if len(targets) > 2 and os.environ.get("FAULT") == "metric":
        raise ValueError("of mine")
    return ff.accuracy(outputs, targets)

problem = ff.Problem(
    lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)),
    examples=examples, test=lambda: examples(ff.Place(999, 1000, 0, "iid", None)), loss=loss,
    metrics={"accuracy": accuracy},
)
"""


def test_a_problem_of_ones_own_file_trains_on_workers_and_its_fault_is_said_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    given = {"problem": "./mine.py:problem", "phones": 6, "cohort": 4, "rounds": 4, "batch_size": 11, "max_retries": 0}
    alone = all_of(ran(tmp_path, "alone", 1, **given))
    crew = ready_crew("./mine.py:problem")
    try:
        lent = Lent(crew)
        assert all_of(ran(tmp_path, "beside", Workers(2, lambda size: lent), **given)) == alone
    finally:
        crew.close()
    assert lent.done > 0 and lent.evaluated >= 4
    for fault, sentence in (
        ("yes", "training fails in round 1 (mine.py, line 13)"),
        ("metric", "metric accuracy (mine.py, line 16) fails (mine.py, line 19)"),
    ):
        monkeypatch.setenv("FAULT", fault)
        said = []
        for workers in (1, ready("./mine.py:problem")):
            with pytest.raises(LocalError) as caught:
                ran(tmp_path, "run", workers, **given)
            said.append(str(caught.value))
            shutil.rmtree(tmp_path / "run")
        assert said[0] == said[1]
        assert sentence in said[0] and "of mine" in said[0]


def test_trainings_do_not_wait_for_parts_of_an_evaluation_to_be_handed_out_and_parts_fill_what_they_leave() -> None:
    training, part = TrainJob(*[None] * 4), EvaluateJob(*[None] * 4)  # type: ignore[arg-type]
    assert room_of(TrainJob, 10, [[part] * PARTS_AHEAD]) == TRAININGS_AHEAD
    assert room_of(EvaluateJob, 20, [[training], [training] * TRAININGS_AHEAD, []]) == 2 * PARTS_AHEAD - 1
    # The last ones go to whoever has none in hand.
    assert room_of(TrainJob, 2, [[training]]) == room_of(EvaluateJob, 3, [[part]]) == 0
    assert room_of(TrainJob, 2, [[training], [part]]) == 1
    assert burden([part, part]) < burden([training])


def test_all_that_a_worker_has_done_is_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Pipe()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(TrainingProcesses, "_started", lambda crew: _Member(process, ours, ready=True))
    crew = TrainingProcesses(1, HostPlan.here("digits/tiny"))
    job = EvaluateJob(Place(0, 1, 0, "iid", None), np.zeros(3, np.float32), 0, 1)
    done = [(number, [(0.5,)]) for number in range(PARTS_AHEAD)]
    for number, rows in done:
        crew.take({number: job})
        theirs.send((number, rows))
    assert crew.room(EvaluateJob, 20) == 0
    assert crew.answers(block=True) == done
    assert crew.room(EvaluateJob, 20) == PARTS_AHEAD
    crew.close()
    theirs.close()
    with process:
        pass


def test_a_loss_that_ends_the_program_fails_the_run_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exits.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAULT", "exit")
    given = {"problem": "./exits.py:problem", "phones": 6, "cohort": 4, "rounds": 4, "batch_size": 11, "max_retries": 0}
    for workers in (1, ready("./exits.py:problem")):
        with pytest.raises(LocalError, match=r"training fails in round 1 \(exits.py, line 13\): SystemExit: of mine"):
            ran(tmp_path, "run", workers, **given)
        shutil.rmtree(tmp_path / "run")


class Nobody:
    """A crew that takes nothing, as of a cluster whose actors could not begin."""

    size, fault = 2, "no actor works on the cluster"

    def room(self, kind: type[Job], waiting: int) -> int:
        return 0

    def take(self, jobs: Mapping[int, Job]) -> None:
        raise AssertionError("there is no room")

    def answers(self, *, block: bool) -> list[tuple[int, Result]]:
        return []

    def close(self) -> None:
        pass


def test_a_crew_that_cannot_work_leaves_the_run_to_the_one_that_began_it_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    given = {"problem": "./mine.py:problem", "phones": 6, "cohort": 4, "rounds": 2}
    alone = all_of(ran(tmp_path, "alone", 1, **given))
    assert all_of(ran(tmp_path, "left", Workers(2, lambda size: Nobody(), trains_here=False), **given)) == alone
    assert "phones trained in one process: no actor works on the cluster" in capsys.readouterr().err


SCRIPT = """
import torch
import featherfed as ff
from mine import examples, loss

problem = ff.Problem(lambda: torch.nn.Linear(4, 2), examples=examples, loss=loss)
run = ff.Experiment(problem, phones=4, cohort=2, rounds=2)
print(run.simulate(workers=2).rounds[-1].accepted)
"""


def test_a_problem_of_the_program_that_runs_is_trained_alone_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "script.py").write_text(SCRIPT)
    # Commands keep the current folder off the path of what they start; a user's script has its own folder there.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    told = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout.split()) == (0, ["2"]), told.stderr
    assert "another process cannot load the problem" in told.stderr
    assert "as the program that runs; put it into a file of its own" in told.stderr
