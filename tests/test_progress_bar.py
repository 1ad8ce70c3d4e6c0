"""The bar of a simulation: on a terminal, and nowhere else unless it is asked for."""

import io
import json

import pytest
from rich.console import Console

from featherfed.progress_bar import ProgressBar
from featherfed.server.storage.spent import Spent
from featherfed.server.watchers.watcher import RoundSummary


def shown(*, terminal: bool, progress: bool | None = None) -> str:
    out = io.StringIO()
    with ProgressBar(3, progress, console=Console(file=out, force_terminal=terminal, width=120)) as bar:
        for number in (1, 2):
            bar.round_closed(
                RoundSummary(
                    number, 3, 2, 2, 0, 0, 0.5, {"mae": 3.25}, seconds=2.5, spent=Spent(1000, 9),
                )
            )  # fmt: skip
    return out.getvalue()


def test_bar_shows_rounds_metrics_bytes_and_the_run_s_own_time_on_a_terminal() -> None:
    text = shown(terminal=True)
    for part in ("2/3", "loss 0.5", "mae 3.25", "up 2 kB", "down 18 B", "emulated 5 s"):
        assert part in text


def test_bar_is_silent_where_nobody_looks_unless_it_is_told() -> None:
    assert shown(terminal=False) == ""
    assert shown(terminal=True, progress=False) == ""
    assert "2/3" in shown(terminal=False, progress=True)


def test_bar_is_a_widget_in_a_notebook() -> None:
    nbclient = pytest.importorskip("nbclient", reason="there is no Jupyter: pip install nbclient ipykernel ipywidgets")
    pytest.importorskip("ipywidgets", reason="there is no ipywidgets: pip install 'featherfed[notebook]'")
    from nbformat.v4 import new_code_cell, new_notebook

    run = 'ff.Experiment("digits/tiny", phones=4, cohort=2, rounds=3).simulate(seed=0)'
    notebook = new_notebook(cells=[new_code_cell(f"import featherfed as ff\nreport = {run}")])
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3", store_widget_state=True).execute()
    shown = [output["data"] for output in notebook.cells[0].outputs if output["output_type"] == "display_data"]
    assert any("application/vnd.jupyter.widget-view+json" in each for each in shown)
    assert "3/3" in json.dumps(notebook.metadata["widgets"])
