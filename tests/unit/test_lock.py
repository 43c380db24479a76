"""The trap's lock: what lies under its name, and what stands in it, is not believed."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import processes
from trapsync.errors import StorageError
from trapsync.remote import record
from trapsync.trap import holder, lock, tell_daemon

CATCHES = """\
import os, signal
for number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: os.write(1, b"%d\\n" % number))
"""
WAITS = "print('ready', flush=True)\nwhile True: signal.pause()\n"


@contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that has said that it is ready."""
    with processes.started(command, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_the_lock_empties_no_file_that_a_link_leads_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (tmp_path / "daemon.lock").symlink_to(victim)
    with pytest.raises(StorageError, match=r"daemon\.lock: a link is in the way; remove it"), lock(tmp_path):
        pass
    assert victim.read_text() == "whole"
    assert holder(tmp_path) is None


def test_the_lock_makes_no_file_where_a_link_leads_nowhere(tmp_path: Path) -> None:
    for name in ("daemon.lock", "remote_settings.lock"):
        (tmp_path / name).symlink_to(tmp_path / "made")
    with pytest.raises(StorageError, match="a link is in the way"), lock(tmp_path):
        pass
    with pytest.raises(StorageError, match="a link is in the way"):
        record.change(tmp_path, lambda known: known)
    assert not (tmp_path / "made").exists()


def test_a_fifo_in_the_place_of_the_lock_holds_nobody_up(tmp_path: Path) -> None:
    for name in ("daemon.lock", "remote_settings.lock"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(StorageError, match="is no plain file"), lock(tmp_path):
        pass
    with pytest.raises(StorageError, match="is no plain file"):
        record.change(tmp_path, lambda known: known)
    assert holder(tmp_path) is None


@pytest.mark.parametrize("text", ["", "-1", "0", "1 2", "one", "9" * 30, "12\n34"])
def test_a_lock_with_no_process_id_in_it_is_held_all_the_same(tmp_path: Path, text: str) -> None:
    with (tmp_path / "daemon.lock").open("w") as file:
        file.write(text)
        file.flush()
        assert holder(tmp_path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(tmp_path) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_daemon_gets_its_signal(number: signal.Signals) -> None:
    with running([sys.executable, "-c", CATCHES + WAITS, "trapsync", "run"]) as daemon:
        tell_daemon(daemon.pid, number)
        assert daemon.stdout
        assert daemon.stdout.readline() == f"{number.value}\n"


COMMAND = [sys.executable, "-c", f"import signal\n{WAITS}", "trapsync", "deliver"]
PROGRAM = ["sh", "-c", "trap 'echo caught' USR1; echo ready; while :; do sleep 0.1; done"]


@pytest.mark.parametrize("command", [COMMAND, PROGRAM], ids=["another command", "another program"])
def test_a_process_that_is_no_daemon_gets_no_signal(command: list[str]) -> None:
    with running(command) as process:
        with pytest.raises(
            StorageError, match=f"^process {process.pid} stands in daemon.lock and is no daemon"
        ):
            tell_daemon(process.pid, signal.SIGUSR1)
        process.terminate()  # any signal before this one would have come first
        assert process.stdout
        assert (process.stdout.read(), process.wait()) == ("", -signal.SIGTERM)


@pytest.mark.parametrize("process", [2**22 + 1, 2**40])
def test_a_process_that_is_not_there_gets_no_signal(process: int) -> None:
    with pytest.raises(StorageError, match="there is no process"):
        tell_daemon(process, signal.SIGUSR1)


def test_a_record_that_is_too_deep_is_none(tmp_path: Path) -> None:
    record.path(tmp_path).write_text("[" * 500_000)
    found = record.read(tmp_path)
    assert (found.in_force, found.damaged is not None) == (None, True)
