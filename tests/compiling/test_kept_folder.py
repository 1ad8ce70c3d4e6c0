"""Where what is compiled is kept, and when it goes."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featherfed.compiling import kept_folder

HERE = Path(__file__).parents[2]
HOME = HERE / "featherfed" / "codec" / "compiled"
DAY_S = 86400.0


def test_where_no_folder_can_be_written_a_process_has_one_of_its_own_which_those_it_starts_share(
    tmp_path: Path,
) -> None:
    locked = tmp_path / "locked"
    locked.write_text("a file, where a folder is wanted")
    says = (
        "from featherfed.compiling.kept_folder import COMMON, folder;"
        " print(folder(COMMON)); print(folder(COMMON).stat().st_mode & 0o077)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", f"{says}\nimport subprocess, sys\nsubprocess.run([sys.executable, '-c', {says!r}])"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE), "FL_CACHE_DIR": str(locked), "HOME": str(locked),
             "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    mine, mode, theirs, _ = answer.stdout.split()
    assert mode == "0"
    assert Path(theirs).parent == Path(mine).parent or Path(theirs).parent == Path(mine)
    # It is gone with the process that made it.
    assert list(tmp_path.iterdir()) == [locked]


def kept(base: Path, state: str, *, days: float, installation: Path | None) -> Path:
    """Make a folder that was last used so many days ago; one without an installation is of an earlier release."""
    folder = base / f"compiled-{hashlib.blake2b(state.encode(), digest_size=8).hexdigest()}"
    (folder / "learning_1").mkdir(parents=True)
    code = folder / "learning_1" / "blocks.py310.1.nbc"
    code.write_bytes(b"code")
    if installation is not None:
        (folder / "used").write_text(f"{installation}\n")
    used_s = time.time() - days * DAY_S
    for each in (*folder.rglob("*"), folder):
        os.utime(each, (used_s, used_s))
    return folder


def test_new_folder_removes_those_that_nobody_uses_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_CACHE_DIR", str(tmp_path))
    mine, another = HOME, Path("/another/installation")
    gone = [
        kept(tmp_path, "earlier", days=1.5, installation=mine),
        kept(tmp_path, "unused", days=31, installation=another),
        kept(tmp_path, "old-release", days=31, installation=None),
    ]
    stay = [
        kept(tmp_path, "in-turns", days=0.5, installation=mine),
        kept(tmp_path, "another", days=29, installation=another),
        kept(tmp_path, "old-release-in-use", days=29, installation=None),
    ]
    # A month old and called so, but somebody's own.
    (theirs := kept(tmp_path, "with-a-paper", days=90, installation=None) / "paper.tex").write_text("mine")
    os.utime(theirs, (0, 0))
    papers = kept(tmp_path, "papers", days=90, installation=None).rename(tmp_path / "compiled-papers")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "compiled-0123456789abcdef").symlink_to(kept(elsewhere, "far", days=90, installation=mine))
    (tmp_path / "compiled-file").write_text("a file of somebody's")
    folder = kept_folder.folder(HOME)
    assert not any(each.exists() for each in gone)
    assert all((each / "learning_1" / "blocks.py310.1.nbc").exists() for each in stay)
    assert theirs.read_text() == "mine"
    assert papers.exists()
    assert (tmp_path / "compiled-0123456789abcdef" / "used").exists()
    assert (tmp_path / "compiled-file").exists()
    assert (folder / "used").read_text() == f"{mine}\n"


def test_folder_in_use_is_as_young_as_its_last_use_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_CACHE_DIR", str(tmp_path))
    folder = kept_folder.folder(HOME)
    long_ago_s = time.time() - 90 * DAY_S
    for each in (folder / "used", folder):
        os.utime(each, (long_ago_s, long_ago_s))
    other = kept(tmp_path, "unused", days=90, installation=HOME)
    assert kept_folder.folder(HOME) == folder
    assert time.time() - (folder / "used").stat().st_mtime < DAY_S
    # To look at them all at each start of each phone is no use: a new release does.
    assert other.exists()
