"""What docs/ARCHITECTURE.md promises of the code's shape, where no other tool holds it."""

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from featherfed.training_settings import Training

ROOT = Path(__file__).parents[1]
SOURCES = ("featherfed", "server", "edge_client", "gateway", "fl_bench", "bandwidth_sim")
NAMED_LATE = {
    "featherfed/__init__.py": "public names are imported when they are used",
    "featherfed/problem_loading.py": "a problem by its name",
    "featherfed/user_modules.py": "a user's file",
    "featherfed/rules/naming.py": "a rule by its name",
    "featherfed/learning/described.py": "what installed families of problems are called",
}
"""Where a module's name is a value, and import-linter sees no arrow."""
LEAST_FILES = {"featherfed/training_settings.py", "featherfed/learning/training.py"}
"""What a new training setting touches; `ff.SGD` takes it, and spells out the older ones for type checkers."""


def sources() -> Iterator[tuple[str, str]]:
    """Yield the path and text of each module that is installed, once."""
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != ROOT):
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("featherfed", exclude_type_checking_imports=True, cache_dir=None)
    arrows = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(arrows) > 250
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_names_alone_are_imported_behind_import_linter_s_back() -> None:
    found = {path for path, text in sources() if re.search(r"\bimport_module\(|__import__\(", text)}
    assert found == set(NAMED_LATE)


@pytest.mark.parametrize("setting", ["prox_mu", "weight_decay"])
def test_a_training_setting_stands_in_its_declaration_and_where_it_is_trained_with(setting: str) -> None:
    assert setting in Training.__dataclass_fields__
    found = {path for path, text in sources() if re.search(rf"\b{setting}\b", text)}
    assert found == LEAST_FILES | {"featherfed/local_training.py"}


def test_installed_bench_stays_small() -> None:
    # 2,500 lines, and since then the table of sums, a cluster's workers, ε, links of one's own, results that know what
    # they were told, and flags: of these, of masks, of workers.
    since = (
        "fl_bench/codec_sums.py",
        "fl_bench/differences.py",
        "fl_bench/own_links.py",
        "fl_bench/ray_crew.py",
    )
    lines = sum(text.count("\n") for path, text in sources() if path.startswith("fl_bench/"))
    added = sum((ROOT / path).read_text(encoding="utf-8").count("\n") for path in since)
    assert 0 < lines - added < 2780
