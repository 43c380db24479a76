"""Whoever reads secrets leaves no core dump, and shows its memory to no process of its account."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from trapsync.files.private_memory import keep_memory_private

_SET_DUMPABLE, NOBODY = 4, 65534
ASK = (
    "import ctypes, resource; print(ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_CORE)[0])"
)


def become_somebody(also: Callable[[], object]) -> None:
    """Be an ordinary account, if this is root; a process that changes its account is as private as it will be."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1, 0, 0, 0)
    also()


def forked(work: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        code = 3
        with suppress(BaseException):
            code = work()
        os._exit(code)
    return child


def is_open_to_its_account(what: str, also: Callable[[], object]) -> bool:
    """Whether another process of the account opens that file of one that has done `also`."""
    ready, tell = os.pipe()
    hold, release = os.pipe()

    def stay() -> int:
        os.close(release)
        become_somebody(also)
        os.write(tell, b"x")
        os.read(hold, 1)
        return 0

    process = forked(stay)
    os.read(ready, 1)

    def look() -> int:
        become_somebody(lambda: None)
        try:
            os.close(os.open(f"/proc/{process}/{what}", os.O_RDONLY))
        except PermissionError:
            return 1
        return 0

    code = os.waitstatus_to_exitcode(os.waitpid(forked(look), 0)[1])
    for descriptor in (release, hold, ready, tell):
        os.close(descriptor)
    os.waitpid(process, 0)
    assert code in (0, 1)
    return code == 0


@pytest.mark.parametrize("what", ["mem", "environ", "fd", "maps"])
def test_another_process_of_the_account_sees_nothing_of_it(what: str) -> None:
    assert is_open_to_its_account(what, lambda: None)
    assert not is_open_to_its_account(what, keep_memory_private)


def printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096)),
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


def test_every_command_begins_with_it() -> None:
    assert printed(ASK) == "1 4096"
    command = "import sys; sys.argv = ['trapsync', '--version']\nfrom trapsync.cli import main\n"
    assert printed(f"{command}try: main()\nexcept SystemExit: pass\n{ASK}") == "0 0"


def test_every_child_of_the_daemon_begins_with_it() -> None:
    assert printed(f"from trapsync.runtime.child_process import become_child; become_child()\n{ASK}") == "0 0"


def test_where_the_system_has_nothing_of_the_kind_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_name: object) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setitem(sys.modules, "resource", None)
    keep_memory_private()


def test_a_note_of_the_daemon_can_be_read_all_the_same(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from trapsync.files import private_memory, process_note\n"
        "private_memory.keep_memory_private()\n"
        "note = process_note.ProcessNote(Path(sys.argv[1])); note.write(b'told')\n"
        "read = 'import sys; from pathlib import Path; from trapsync.files.process_note import read; '\n"
        "read += 'print(read(int(sys.argv[1]), Path(sys.argv[2])))'\n"
        "subprocess.run([sys.executable, '-c', read, str(os.getpid()), sys.argv[1]], check=True); note.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "b'told'\n"
