"""Root does what it is asked to in the name of the account that the state folder belongs to, or not at all."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import drawn
from daemon import CONFIG

SOMEBODY = 54321  # a number without a name will do

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down: not tested here")


# Whatever is imported while it runs is imported before: the interpreter may lie where only root can read it.
PROGRAM = """\
import importlib, pkgutil, encodings.idna, sqlite_utils, sqlite3, requests, trapsync
for module in pkgutil.walk_packages(trapsync.__path__, "trapsync."):
    if not module.name.endswith(("__main__", "picamera")):
        importlib.import_module(module.name)
trapsync.cli.main()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of somebody's that he can get to, with the config of a trap without a camera."""
    folder = Path(tempfile.mkdtemp(prefix="trapsync-test-"))
    (folder / "trapsync.toml").write_text(CONFIG.format(device=drawn.DEVICE, camera="none"))
    os.chown(folder, SOMEBODY, SOMEBODY)
    yield folder
    shutil.rmtree(folder)


def call(folder: Path, *words: str) -> "subprocess.Popen[str]":
    environment = {key: value for key, value in os.environ.items() if key != "TRAPSYNC_AS_ROOT"}
    command = [sys.executable, "-c", PROGRAM, "-c", str(folder / "trapsync.toml"), *words]
    return subprocess.Popen(
        command, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_what_root_does_before_the_first_start_leaves_nothing_that_is_roots(folder: Path) -> None:
    for words in ("retry", "verify", "status", "images"):
        done = call(folder, words)
        assert "Traceback" not in done.communicate()[1]
    made = list((folder / "state").rglob("*"))
    assert folder / "state" / "catalog.sqlite" in made
    assert {path.stat().st_uid for path in [folder / "state", *made]} == {SOMEBODY}


def test_the_daemon_started_by_root_runs_as_the_owner_of_its_state(folder: Path) -> None:
    process = call(folder, "run")
    try:
        deadline = time.monotonic() + 30
        while not (folder / "state" / "catalog.sqlite").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)  # another process is to come so far
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"\nUid:\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\n" in status
        assert "\nCapPrm:\t0000000000000000\n" in status
    finally:
        process.terminate()
        process.communicate(timeout=15)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_daemon_refuses_to_be_root_and_says_what_to_do(folder: Path, is_there: bool) -> None:
    os.chown(folder, 0, 0)
    if is_there:
        (folder / "state").mkdir()
    done = call(folder, "run")
    _, said = done.communicate(timeout=30)
    assert done.returncode == 1
    assert said.count("\n") == 1
    assert "the daemon does not run as root; make it an account of its own" in said
    assert not (folder / "spool").exists()


def test_the_files_that_the_daemon_makes_are_as_closed_as_its_mask_says(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        call(folder, "retry").communicate()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder / "state").rglob("*")}
    assert modes == {0}
