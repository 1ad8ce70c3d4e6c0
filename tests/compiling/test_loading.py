"""What is said of numba, once, and what is kept and cannot be read."""

import sys
from pathlib import Path

import pytest

from featherfed.compiling.loading import CompiledPackage, say
from featherfed.errors import LocalError

HERE = Path(__file__).parent
PASSES = CompiledPackage(
    home=HERE,
    module=lambda: sys.modules[__name__],
    without="phones train without compiled passes",
    first="how phones train, once for this processor: some 15 s",
)


def test_check_that_fails_for_another_reason_is_not_run_again_and_leaves_what_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kernels.nbi"
    kept.write_bytes(b"kept")
    for error in (LocalError("another gradient"), OSError(28, "No space left on device")):
        ran: list[None] = []

        def fails(error: Exception = error, ran: list[None] = ran) -> None:
            ran.append(None)
            raise error

        with pytest.raises(type(error)):
            PASSES.run_check(fails, tmp_path)
        assert len(ran) == 1
        assert kept.exists()


def test_who_waits_at_a_terminal_for_what_is_compiled_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say.cache_clear()
    PASSES.run_check(lambda: None, tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    PASSES.run_check(lambda: None, tmp_path)
    assert capsys.readouterr().err == "featherfed: compiles how phones train, once for this processor: some 15 s\n"
    (tmp_path / "kernels.nbi").write_bytes(b"kept")
    say.cache_clear()
    PASSES.run_check(lambda: None, tmp_path)
    assert capsys.readouterr().err == ""


def test_what_it_says_is_not_among_a_commands_output_where_there_is_no_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say.cache_clear()
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", None)
        say("numba fails")
    assert capsys.readouterr().out == ""
