"""A problem's file is found by module, by path and by name; what is wrong with it is a sentence with its line."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from featherfed import problem_loading
from featherfed.errors import ConfigError, ProblemError
from featherfed.problem_loading import is_installed, load_problem

GOOD = """
import torch
import featherfed as ff
from beside import WIDTH

def model():
    return torch.nn.Linear(WIDTH, 1)

problem = ff.Problem(model, examples=lambda place: ff.Examples(torch.zeros(2, WIDTH), torch.zeros(2, 1)))
number = 3
class Kind: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a user's two files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "goodtask.py").write_text(GOOD)
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    path, modules = list(sys.path), set(sys.modules)
    load_problem.cache_clear()
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    load_problem.cache_clear()


@pytest.mark.parametrize("name", ["goodtask:problem", "./goodtask.py:problem", "goodtask.py:problem"])
def test_file_of_the_current_folder_is_found_with_what_lies_beside_it(name: str, folder: Path) -> None:
    problem = load_problem(name)
    assert problem.name == "goodtask:problem"
    assert problem.model().in_features == 4


def test_file_of_another_folder_is_found_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_problem("../goodtask.py:problem").model().in_features == 4
    assert load_problem(f"{folder}/goodtask.py:problem").name == "goodtask:problem"


def test_file_that_is_imported_by_its_path_and_by_its_name_is_one_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))  # as Python does with the folder of a script
    problem = load_problem("./goodtask.py:problem")
    assert load_problem("goodtask:problem").model is problem.model


@pytest.mark.parametrize("name", ["task.v2.py", "my-task.py", "mein modell.py", "aufgabe ä.py"])
def test_file_may_be_called_as_files_are(name: str, folder: Path) -> None:
    (folder / "task.py").write_text("raise RuntimeError('nobody has asked for this one')")
    (folder / name).write_text(GOOD)
    assert load_problem(f"./{name}:problem").name == f"{name.removesuffix('.py')}:problem"


def test_file_called_like_a_module_of_python_s_does_not_take_its_place(folder: Path) -> None:
    import json

    (folder / "json.py").write_text(GOOD)
    assert load_problem("./json.py:problem").name == "json:problem"
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nothing:problem",
            r"there is no module 'nothing' in .* or among the installed ones; a file is named by its path in place of"
            r" the module, like \./nothing\.py",
        ),
        ("./goodtask.py", r"\./goodtask\.py does not say which ff\.Problem of the file: \./goodtask\.py:problem does"),
        ("goodtask:Kind", r"'Kind' in .*goodtask\.py is a class, and no ff\.Problem"),
        ("./nothing.py:problem", r"there is no file nothing\.py"),
        ("goodtask:probelm", r"goodtask\.py has no 'probelm'; did you mean 'problem'"),
        ("beside:problem", r"beside\.py has no 'problem', and no ff\.Problem at all"),
        ("goodtask:number", r"'number' in .*goodtask\.py is of type int, and no ff\.Problem"),
        ("goodtask:model", r"'model' in .*goodtask\.py is a function, and no ff\.Problem"),
        (":problem", r"':problem' is not MODULE:ATTRIBUTE, like mytask:problem"),
        ("minst", r"unknown problem 'minst'; did you mean 'mnist'\?; a file of your own is named like mytask:problem"),
        ("mnist/lits", "unknown model 'lits' of problem mnist; did you mean 'lite'"),
    ],
)
def test_name_that_leads_nowhere_is_a_sentence(name: str, words: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load_problem(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nimport nonesuch\n", r"\(badtask\.py, line 2\): ModuleNotFoundError: No module named 'nonesuch'"),
        ("x = 1\n\ny = 1 / 0\n", r"\(badtask\.py, line 3\): ZeroDivisionError: division by zero"),
        ("x = 1\ndef (:\n", r"\(badtask\.py, line 2\): SyntaxError: "),
        (
            "import featherfed as ff\nproblem = ff.Problem(1, examples=2)\n",
            r"\(badtask\.py, line 2\): a problem's model",
        ),
        ("import helper\n", r"\(helper\.py, line 1\): KeyError: 'gone'"),
    ],
)
@pytest.mark.parametrize("name", ["badtask:problem", "./badtask.py:problem"])
def test_fault_in_the_file_names_its_line(name: str, text: str, words: str, folder: Path) -> None:
    (folder / "badtask.py").write_text(text)
    (folder / "helper.py").write_text("x = {}['gone']\n")
    with pytest.raises(ProblemError, match=rf"--problem {name}.*{words}"):
        load_problem(name)
    assert "badtask" not in sys.modules


def test_problems_of_installed_packages_are_known_by_their_entry_points(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "package.py").write_text(f"{GOOD}\ndef family(model):\n    return problem\n")
    monkeypatch.syspath_prepend(folder)
    points = [
        EntryPoint("theirs", "package:problem", problem_loading.GROUP),
        EntryPoint("family", "package:family", problem_loading.GROUP),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    assert load_problem("theirs").name == "theirs"
    assert load_problem("family/wide").name == "family/wide"
    with pytest.raises(ConfigError, match="problem 'theirs' has one model, and 'theirs/wide' asks for another"):
        load_problem("theirs/wide")
    assert is_installed("theirs") and is_installed("mnist/2nn") and not is_installed("package:problem")


def test_featherfed_is_light_and_says_what_is_public() -> None:
    import subprocess

    program = (
        "import sys; import featherfed as ff; assert not {'torch', 'numpy'} & set(sys.modules);"
        "assert all(hasattr(ff, name) for name in ff.__all__) and set(ff.__all__) <= set(dir(ff));"
        "ff.load_problem('mnist/2nn'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
