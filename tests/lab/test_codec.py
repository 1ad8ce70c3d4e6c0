"""The tables of docs/CODECS.md are written between their marks."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featherfed.fl_bench import codec_sums
from lab.__main__ import main


def codec(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["codec", *map(str, arguments)])


def test_tables_are_written_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    names = ("codec stages", "codec presets", "codec figures")
    page.write_text("before\n" + "".join(f"<!-- {name}: begin -->stale<!-- {name}: end -->\n" for name in names))
    done = codec("--spec", "float32", "--data", "normal", "--size", "4096", "--write", page)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.startswith("before\n")
    assert "stale" not in text
    assert "| `float32` | normal | 32 | 32 | 0 | 0 |" in text
    page.write_text("no marks")
    done = codec("--spec", "float32", "--data", "normal", "--size", "4096", "--write", page)
    assert done.exit_code == 1
    assert "has no lines" in done.output
    assert page.read_text() == "no marks"


def test_sums_are_written_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_sums, "ROWS", (("secure-small", 10, 1),))
    page = tmp_path / "page.md"
    names = ("codec stages", "codec presets", "codec sums")
    page.write_text("before\n" + "".join(f"<!-- {name}: begin -->stale<!-- {name}: end -->\n" for name in names))
    done = codec("--sums", "--write", page)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "stale" not in text
    assert "| 10 | 1 of 10 | `secure-small` | 0.21 |" in text


def test_accuracy_needs_a_run_to_compare_with(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("as it was")
    done = codec("--write", page, "--accuracy", tmp_path)
    assert done.exit_code == 1
    assert "holds no finished run with --uplink float32" in done.output
    assert page.read_text() == "as it was"
