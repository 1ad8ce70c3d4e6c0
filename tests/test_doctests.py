"""The examples in the docstrings are run: what they say is what happens."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

PACKAGES = ("featherfed", "lab")
ELSEWHERE = ("lab.flower_app.", "lab.rounds_app.fed_jax", "lab.rounds_app.pfl_")
"""Runs in the peers' environments: what it imports is not in ours."""
WITH_NUMBA = "featherfed.learning.compiled."
"""Needs the extra featherfed[fast]."""
FEWEST = 30
"""Examples that there are at least: if they are not found any more, this test must not pass in silence."""
FLAGS = doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    names = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [package, *(found.name for found in pkgutil.walk_packages(path, f"{package}."))]
    there = importlib.util.find_spec("numba") is not None
    return [name for name in names if not name.startswith(ELSEWHERE) and (there or not name.startswith(WITH_NUMBA))]


def examples(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    return [test for test in found if test.examples]


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    output: list[str] = []
    for test in examples(name):
        runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output)


def test_there_are_examples_to_run() -> None:
    assert sum(len(test.examples) for name in MODULES for test in examples(name)) >= FEWEST


def test_wrong_example_would_fail() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1
