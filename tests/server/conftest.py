"""A real PostgreSQL of the tests' own, on a Unix socket in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _programs() -> Path | None:
    for program in ("initdb", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)):
        if found := shutil.which(program):
            return Path(found).resolve().parent
    return None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database; skips where PostgreSQL is not installed, fails where CI says that it must be."""
    programs = _programs()
    if programs is None or not (programs / "pg_ctl").exists():
        if os.environ.get("FEATHERFED_REQUIRE_TOOLS"):
            pytest.fail("FEATHERFED_REQUIRE_TOOLS is set, but there is no PostgreSQL")
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    # PostgreSQL refuses to run as root; pytest's own folders are closed to everybody else.
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(prefix="ffpg-"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    as_user = {"user": user.pw_uid, "group": user.pw_gid} if os.geteuid() == 0 else {}

    def pg(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120,
            env={**os.environ, "HOME": str(folder)}, **as_user,  # type: ignore[call-overload]
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    try:
        pg("initdb", "--pgdata", "data", "--username", "featherfed", "--auth", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c shared_buffers=16MB"
        pg("pg_ctl", "--pgdata", "data", "--log", "log", "--wait", "--options", options, "start")
        try:
            yield f"postgresql+psycopg://featherfed@/postgres?host={folder}"
        finally:
            pg("pg_ctl", "--pgdata", "data", "--wait", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
