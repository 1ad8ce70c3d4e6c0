"""An experiment: described once, simulated and served, in notebooks and in processes of its own."""

import asyncio
import multiprocessing
import pickle
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import featherfed as ff
from featherfed.bandwidth_sim.profile import find_profile
from featherfed.fl_bench.grid import run_grid
from featherfed.fl_bench.scenario import read_scenario
from featherfed.problem_loading import load_problem
from featherfed.server.config import read_config
from tests import own_regression

LINKS = {"2g": 0.5, "3g": 0.5}


def small(problem: Any = "digits/tiny", **changes: Any) -> ff.Experiment:
    settings = {"phones": 4, "cohort": 3, "rounds": 2, "local": ff.SGD(0.05, batch_size=40), **changes}
    return ff.Experiment(problem, **settings)


def model_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# The same as the command lines


def test_simulation_is_the_scenario_s_virtual_run_bit_for_bit(tmp_path: Path) -> None:
    run = small(uplink="rotate | eden(1)", server=ff.FedAdam(lr=0.02), local=ff.SGD(0.05, settings={"shift": 1}))
    report = run.simulate(links=LINKS, devices={"slow": 0.5, "20ms": 0.5}, seed=3, dropout=0.2, away=5,
                          folder=tmp_path / "mine")  # fmt: skip
    scenario = tmp_path / "cell.toml"
    scenario.write_text(
        'problem = "digits/tiny"\nphones = 4\ncohort = 3\nrounds = 2\nlr = 0.05\nset.shift = 1\nseed = 3\n'
        'uplink = "rotate | eden(1)"\nserver_optimizer = "fedadam"\nserver_lr = 0.02\n'
        'link = { "2g" = 0.5, "3g" = 0.5 }\ndevice = { "slow" = 0.5, "20ms" = 0.5 }\ndropout = 0.2\naway = "5s"\n'
    )
    run_grid(read_scenario(scenario, way="virtual"), tmp_path / "theirs", None, jobs=1)
    theirs = tmp_path / "theirs" / "run"
    assert model_of(tmp_path / "mine") == model_of(theirs)
    assert read_config(tmp_path / "mine" / "config.toml") == read_config(theirs / "config.toml")
    again = ff.Report.read(theirs)
    assert (again.rounds, again.seconds) == (report.rounds, report.seconds)


@pytest.mark.processes
def test_served_to_phones_it_gives_the_simulation_s_model_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = f"{Path(own_regression.__file__)}:problem"
    run = small(problem, phones=2, cohort=2, uplink="rotate | eden(2)")
    simulated = run.simulate(folder=tmp_path / "simulated")
    served: list[ff.Report] = []

    def serve() -> None:
        served.append(run.serve("127.0.0.1:0", folder=tmp_path / "served"))

    # Not the main thread, which has the signals: a service of somebody's own may well do this.
    server = threading.Thread(target=serve)
    server.start()
    said = ""
    while not (first := re.search(r"^listening on (ws://\S+)$", said, re.MULTILINE)) and server.is_alive():
        time.sleep(0.05)
        said += capsys.readouterr().out
    assert first, said
    phones = [sys.executable, "-m", "featherfed.edge_client.cli", "swarm", "--count", "2"]
    done = subprocess.run(
        [*phones, "--server", first[1], "--problem", problem], capture_output=True, text=True, timeout=120
    )
    server.join(30)
    assert done.returncode == 0, done.stderr
    assert model_of(tmp_path / "served") == model_of(tmp_path / "simulated")
    assert [each.metrics for each in served[0].rounds] == [each.metrics for each in simulated.rounds]
    assert served[0].folder == tmp_path / "served"


def test_torch_s_threads_of_this_process_change_nothing() -> None:
    code = (
        "import featherfed as ff, torch, hashlib\n"
        "run = ff.Experiment('digits', phones=2, rounds=1, local=ff.SGD(0.05, batch_size=200), uplink='float32')\n"
        "report = run.simulate()\n"
        "print(torch.get_num_threads())\n"
        "print(hashlib.sha256(b''.join(w.tobytes() for w in report.weights.values())).hexdigest(), report.rounds)\n"
    )
    outputs = []
    for threads in ("1", "2"):
        environment = {"OMP_NUM_THREADS": threads, "PATH": "", "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
        )
        assert done.returncode == 0, done.stderr
        first, rest = done.stdout.split("\n", 1)
        assert first == threads, "the process's own number of threads is put back"
        outputs.append(rest)
    assert outputs[0] == outputs[1]


# In one process, in notebooks, in processes


def test_twice_in_one_process_gives_the_same_and_leaves_the_process_s_randomness_alone() -> None:
    run = small()
    random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), torch.random.get_rng_state()
    first, again = run.simulate(links=LINKS), run.simulate(links=LINKS)
    assert first == again
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert first != run.simulate(links=LINKS, seed=1)


async def test_inside_a_running_event_loop_as_in_a_notebook() -> None:
    run = small()
    inside = run.simulate(links="3g")
    assert asyncio.get_running_loop().is_running()
    assert inside == await asyncio.to_thread(run.simulate, links="3g")


async def test_errors_come_out_of_the_thread_beside_a_running_loop() -> None:
    failing = ff.Problem(own_regression.model, examples=lambda place: own_regression.table(0, 0), name="empty")
    with pytest.raises(ff.LocalError, match="there are no examples for shard"):
        small(failing).simulate()


@pytest.mark.processes
def test_ctrl_c_in_a_notebook_ends_the_simulation_and_its_thread() -> None:
    code = (
        "import asyncio, os, signal, threading, featherfed as ff\n"
        "run = ff.Experiment('digits', phones=2, rounds=1_000_000)\n"
        "async def cell():\n"
        "    try:\n"
        "        run.simulate(train='none')\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped', threading.active_count())\n"
        "threading.Timer(6, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "loop = asyncio.new_event_loop()\n"  # not asyncio.run, which has a handler of its own for Ctrl-C
        "loop.run_until_complete(cell())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "stopped 1\n", done.stderr


def test_simulations_of_several_threads_take_turns_and_do_not_mix() -> None:
    run, found = small(), dict[int, ff.Report]()

    def simulate(seed: int) -> None:
        found[seed] = run.simulate(links=LINKS, seed=seed)

    threads = [threading.Thread(target=simulate, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in (0, 1)] == [run.simulate(links=LINKS, seed=seed) for seed in (0, 1)]


@pytest.mark.processes
def test_processes_that_are_spawned_simulate_a_problem_of_a_module() -> None:
    run = small("tests.own_regression:problem")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(run.simulate, links=LINKS, seed=2).result(timeout=120)
    assert there == run.simulate(links=LINKS, seed=2)
    assert set(there.weights) == {"weight", "bias"}


def test_problem_is_named_by_the_module_that_has_it() -> None:
    run = small(own_regression.problem)
    assert run.config().problem == "tests.own_regression:problem"
    assert pickle.loads(pickle.dumps(run)).config(3) == run.config(3)
    assert small(load_problem("mnist/2nn")).config().problem == "mnist/2nn"


def test_problem_that_no_module_has_runs_here_and_is_refused_to_other_processes() -> None:
    run = small(ff.Problem(own_regression.model, examples=lambda place: own_regression.table(place.index, 40)))
    assert len(run.simulate().rounds) == 2
    with pytest.raises(ff.ConfigError, match="another process cannot load the problem 'own', which no module has"):
        pickle.dumps(run)


def test_problem_of_the_program_itself_runs_and_is_refused_to_other_processes(tmp_path: Path) -> None:
    source = Path(own_regression.__file__).read_text()
    (tmp_path / "task.py").write_text(
        f"{source}\n"
        "if __name__ == '__main__':\n"
        "    import pickle\n"
        "    run = ff.Experiment(problem, phones=2, rounds=1)\n"
        "    report = run.simulate(folder='kept')\n"
        "    print(run.config().problem, report.problem, len(report.rounds))\n"
        "    try:\n"
        "        pickle.dumps(run)\n"
        "    except ff.ConfigError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "task.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    told, refused = done.stdout.splitlines()
    assert told == "./task.py:problem ./task.py:problem 1"
    assert refused == (
        "another process cannot load the problem './task.py:problem', which is defined in ./task.py, as the program"
        " that runs; put it into a file of its own, like mytask.py, and say Experiment('mytask:problem', …)"
    )


def test_program_that_came_by_standard_input_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("__main__")
    problem = ff.Problem(own_regression.model, examples=lambda place: own_regression.table(place.index, 40))
    vars(module).update(__file__="<stdin>", problem=problem)
    monkeypatch.setitem(sys.modules, "__main__", module)
    run = small(problem)
    assert run.config().problem == "notebook:problem"
    with pytest.raises(ff.ConfigError, match="which is defined in a notebook or at a prompt, as the program that runs"):
        pickle.dumps(run)


# What can be said


def test_links_are_names_rates_profiles_mixes_or_one_for_each_phone() -> None:
    run = small(phones=2, cohort=2, rounds=1)
    seconds = {
        name: run.simulate(links=links, train="none").seconds
        for name, links in {
            "none": None, "name": "2g", "profile": find_profile("2g"), "rate": "8kbps/1mbps", "mix": {"3g": 1, "4g": 1},
            "each": ["2g", None],
        }.items()
    }  # fmt: skip
    assert seconds["name"] == seconds["profile"] > seconds["mix"] > seconds["none"]
    assert seconds["rate"] > seconds["none"]
    assert seconds["each"] > seconds["none"]


def test_links_of_one_s_own_are_named_beside_ours(tmp_path: Path) -> None:
    run, file = small(phones=2, cohort=2, rounds=1), tmp_path / "mine.toml"
    file.write_text('[village]\nup = "8kbps"\ndown = "1mbps"\n')
    report = run.simulate(links={"village": 1}, profiles=file, train="none")
    # A phone says its link's name, so one of another length takes another time.
    assert (
        report.seconds == run.simulate(links=replace(find_profile("8kbps/1mbps"), name="village"), train="none").seconds
    )
    with pytest.raises(ff.ConfigError, match="unknown link 'vilage': did you mean 'village'"):
        run.simulate(links=["3g", "vilage"], profiles=str(file))
    with pytest.raises(ff.ConfigError, match=r"profiles: cannot read .*none.toml: No such file"):
        run.simulate(links="3g", profiles=tmp_path / "none.toml")
    with pytest.raises(ff.ConfigError, match="profiles = 3 is not the path of a TOML file"):
        run.simulate(profiles=3)  # type: ignore[arg-type]


def test_another_experiment_is_made_by_what_differs() -> None:
    run = small(own_regression.problem, server=ff.FedYogi(0.5))
    other = run.replace(uplink="float32", rounds=1)
    assert other.config() == ff.Experiment(
        own_regression.problem, phones=4, cohort=3, rounds=1, local=ff.SGD(0.05, batch_size=40), uplink="float32",
        server=ff.FedYogi(0.5),
    ).config()  # fmt: skip
    assert "server=FedYogi(lr=0.5)" in repr(run)


def test_folder_is_a_run_s_and_never_written_over(tmp_path: Path) -> None:
    run = small(rounds=1)
    report = run.simulate(train="none", folder=tmp_path / "x" / "y")
    assert report.folder == tmp_path / "x" / "y"
    assert ff.Report.read(tmp_path / "x" / "y") == report
    for again in (run.simulate, run.serve):
        with pytest.raises(ff.ConfigError, match="y exists; choose another one"):
            again(folder=tmp_path / "x" / "y")
    assert run.simulate(train="none").folder is None


def test_rules_are_objects_or_their_names() -> None:
    run = small(server=ff.FedAdam(1 / 3), aggregate=ff.TrimmedMean(0.1), select=ff.FastLinks(), uplink="float32")
    config = run.config()
    assert (config.server_optimizer, config.server_lr) == ("fedadam", 1 / 3)
    assert (config.aggregate, config.select) == ("trimmed-mean:0.1", "fast-links:0.5")
    named = {"server": "fedadam", "aggregate": "trimmed-mean:0.1", "select": "fast-links:0.5", "uplink": "float32"}
    assert small(**named).config() == replace(config, server_lr=1.0)
    assert pickle.loads(pickle.dumps(run)).config() == config


def test_rule_that_no_name_leads_to_is_refused() -> None:
    class Inner(ff.Median):
        name = ""

    with pytest.raises(ff.ConfigError, match=r"no name leads to the class of .*Inner"):
        small(aggregate=Inner())


def test_rule_of_one_s_own_is_an_object_or_a_name() -> None:
    run = small(aggregate=own_regression.First(), uplink="float32")
    assert run.config().aggregate == "tests.own_regression:First"
    assert run.simulate() == run.replace(aggregate="tests.own_regression:First").simulate()
    assert run.simulate().rounds[-1].loss != run.replace(aggregate="mean").simulate().rounds[-1].loss


def test_values_by_round_are_what_each_round_is_run_with(tmp_path: Path) -> None:
    run = small(
        phones=6, rounds=4, cohort=[5, 2], uplink={1: "rotate | eden(1)", 3: "float32"},
        local=ff.SGD(lr=[0.05, 0.02], epochs={1: 2, 4: 1}, batch_size=["all", 40]),
    )  # fmt: skip
    report = run.simulate(folder=tmp_path / "mine")
    assert [(row.cohort, row.accepted) for row in report.rounds] == [(5, 5), (2, 2), (2, 2), (2, 2)]
    one_bit, whole = report.rounds[1].uplink, report.rounds[2].uplink
    for row in report.rounds:
        assert row.uplink.payload == row.uplink.theory
    assert whole.payload == 2 * 4 * report.parameters and one_bit.payload < whole.payload / 20
    assert report.uplink == "1:rotate | eden(1),3:float32"
    config = read_config(tmp_path / "mine" / "config.toml")
    assert config == run.config()
    assert [config.training(number).epochs for number in (3, 4)] == [2, 1]
    scenario = tmp_path / "cell.toml"
    scenario.write_text(
        'problem = "digits/tiny"\nphones = 6\ncohort = "5,2"\nrounds = 4\nlr = "0.05,0.02"\nbatch_size = "all,40"\n'
        'epochs = { 1 = 2, 4 = 1 }\nuplink = { 1 = "rotate | eden(1)", 3 = "float32" }\n'
    )
    run_grid(read_scenario(scenario, way="virtual"), tmp_path / "theirs", None, jobs=1)
    assert model_of(tmp_path / "mine") == model_of(tmp_path / "theirs" / "run")


WRONG = [
    ({"cohort": [3, 5]}, "from round 2 on: cohort=5 exceeds phones=4"),
    ({"cohort": {2: 3}}, "cohort = {2: 3} says nothing of round 1"),
    ({"uplink": ["float32", "rotat"]}, "unknown codec stage 'rotat'"),
    ({"cohrt": 3}, "has no keyword 'cohrt'; did you mean 'cohort'"),
    ({"lr": 0.1}, r"has no keyword 'lr'; local=ff.SGD\(…\) takes it"),
    ({"seed": 1}, r"has no keyword 'seed'; simulate\(seed=…\) or serve\(seed=…\) takes it"),
    ({"phones": "ten"}, "phones = 'ten' is not a whole number"),
    ({"phones": True}, "phones = True is not a whole number"),
    ({"cohort": 5}, "cohort=5 exceeds phones=4"),
    ({"local": 0.1}, r"local = 0.1 does not say how phones train; ff.SGD\(lr=0.1\) does"),
    ({"local": ff.SGD(settings={"shft": 1})}, "has no such setting; did you mean 'shift'"),
    ({"server": 0.1}, r"server = 0.1 is no ff.ServerOptimizer; ff.FedAdam\(lr=0.1\) is one"),
    ({"server": ff.Median()}, r"server = Median\(\) is no ff.ServerOptimizer"),
    ({"server": ff.FedAdam(-1)}, "server.lr=-1.0 is not a number above 0"),
    ({"aggregate": ff.FedAvg()}, r"aggregate = FedAvg\(lr=1.0\) is no ff.Aggregate; ff.TrimmedMean\(0.1\) is one"),
    ({"aggregate": ff.Krum(1), "uplink": "topk(0.1)"}, "aggregate"),
    ({"server": "fedadm"}, "unknown server optimizer 'fedadm'; did you mean 'fedadam'"),
    ({"uplink": "rotat"}, "unknown codec stage 'rotat'"),
    ({"partition": "dirichlet"}, "dirichlet"),
    ({"deadline": "5s"}, "deadline = '5s' is not a number"),
    ({"problem": 3}, "problem = 3 is a int, and neither an ff.Problem nor the name of one"),
    ({"problem": "digit"}, "unknown problem 'digit'; did you mean 'digits'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "sentence"), WRONG, ids=[next(iter(given)) + str(n) for n, (given, _) in enumerate(WRONG)]
)
def test_what_cannot_be_run_is_refused_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ff.ConfigError, match=sentence) as caught:
        small(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"links": "3gg"}, "unknown link '3gg': did you mean '3g'"),
        ({"links": 3}, "link 3 is neither a name like '3g', nor a rate"),
        ({"links": ["3g"]}, "links has 1 links for 4 phones"),
        ({"links": {}}, "link = {} is not the name of a link"),
        ({"links": {"3g": 0}}, "shares above 0"),
        ({"devices": "toaster"}, "device 'toaster' is not one of"),
        ({"devices": 3}, "device 3 is neither a name nor a time"),
        ({"seed": -1}, "seed=-1 is below 0"),
        ({"seed": 0.5}, "seed = 0.5 is not a whole number"),
        ({"train": "adam"}, "train = 'adam' is not 'sgd' or 'none'"),
        ({"dropout": 1}, "dropout = 1 is not a share from 0 to below 1"),
        ({"away": "soon"}, "away = 'soon' is not a time"),
        ({"folder": 3}, "folder = 3 is not the path of a folder"),
        ({"link": "3g"}, r"simulate\(\) has no keyword 'link'; did you mean 'links'"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ff.ConfigError, match=sentence):
        small().simulate(**given)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:http", ":8765", "127.0.0.1:99999", 8765])
def test_address_is_a_host_and_a_port(tmp_path: Path, address: Any) -> None:
    with pytest.raises(ff.ConfigError, match="is not HOST:PORT"):
        small().serve(address, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_light_until_it_is_used() -> None:
    code = (
        "import sys, featherfed as ff\n"
        "heavy = {'torch', 'numpy', 'sqlalchemy', 'rich', 'websockets', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(ff.__all__) == {name for name in dir(ff) if name != '__version__'}\n"
        "assert all(getattr(ff, name).__doc__ for name in ff.__all__)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# What a run says of itself


def lame(**broken: Any) -> ff.Problem:
    """Return a regression with some part of its own."""
    return replace(own_regression.problem, name="", **broken)


def empty_on_one(place: ff.Place) -> ff.Examples:
    inputs = torch.ones(0 if place.index == 1 else 60, 4)
    return ff.Examples(inputs, inputs[:, :1])


def nan_on_one(place: ff.Place) -> ff.Examples:
    inputs = torch.full((60, 4), float("nan") if place.index == 1 else 1.0)
    return ff.Examples(inputs, inputs[:, :1])


@pytest.mark.parametrize(
    ("examples", "why"),
    [
        (empty_on_one, r"phone-1: problem own: examples\(\) fails .*there are no examples for shard 1 of 4"),
        (nan_on_one, "phone-1: .*training diverged in round 1: .* the loss is nan"),
    ],
)
def test_phone_that_a_simulation_loses_is_told(examples: Any, why: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"of 4 phones the run lost {why}") as told:
        report = small(lame(examples=examples), cohort=4).simulate(progress=False)
    assert len(told) == 1 and told[0].filename == __file__, "at the line that simulates"
    assert [each.accepted for each in report.rounds] == [3, 3]


def test_phones_that_leave_and_come_back_are_not_lost() -> None:
    report = small(own_regression.problem, rounds=4).simulate(dropout=0.5, away=5, progress=False)
    assert report.seconds > 0, "or nobody has left: only that takes time here"


def test_run_that_is_not_kept_names_no_folder_when_it_ends() -> None:
    hopeless = small(lame(loss=lambda outputs, targets: (outputs - targets).mean() * float("nan")))
    with pytest.raises(ff.LocalError, match=r"^the run ends: round 1 had 0 of at least 1 updates"):
        hopeless.simulate(progress=False)


def test_metric_of_the_whole_test_set_is_tried_before_any_round(tmp_path: Path) -> None:
    asked = []

    def broken(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        asked.append(len(outputs))
        raise ValueError("no positive is there")

    run = small(lame(metrics={"f1": ff.metric(broken, whole=True)}))
    with pytest.raises(ff.ProblemError, match=r"metric f1 .* fails .*: ValueError: no positive is there"):
        run.simulate(progress=False, folder=tmp_path / "simulated")
    with pytest.raises(ff.ProblemError, match=r"metric f1 .* fails .*: ValueError: no positive is there"):
        run.serve("127.0.0.1:0", folder=tmp_path / "served", progress=False)
    assert asked == [100, 100], "the whole test set"
    assert not [*tmp_path.iterdir()], "a run that could not begin leaves no folder"


def test_class_in_place_of_a_rule_is_refused() -> None:
    with pytest.raises(ff.ConfigError, match=r"aggregate = Median is a class; give one of it, like Median\(…\)"):
        small(aggregate=ff.Median)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ff.Experiment("digits", phones=0), "phones=0 is below 1"),
        (lambda: ff.Experiment("digits", cohort=[5, 50]), "from round 2 on: cohort=50 exceeds phones=10"),
        (lambda: ff.Experiment("digits", mode="async", quorum=3), "quorum=3 is for mode='sync'; with mode='async' say"),
        (lambda: ff.Experiment("digits").config(seed=-1), "seed=-1 is below 0"),
        (lambda: ff.SGD(epochs=0), "epochs=0 is below 1"),
    ],
)
def test_what_is_wrong_is_said_in_the_keywords_of_python(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ff.ConfigError) as raised:
        make()
    assert str(raised.value).startswith(words)
    assert "--" not in str(raised.value)
