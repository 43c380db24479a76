"""Processes as the kernel shows them: children, and the time that they used."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def started(command: "list[Any]", **more: Any) -> "Iterator[subprocess.Popen[Any]]":
    """A process that is killed at the end if it has not ended: Popen itself would wait for it, for ever after a failure."""
    with subprocess.Popen(command, **more) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def children(pid: int) -> dict[int, str]:
    """The daemon's child processes with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{pid}\n" in (path / "status").read_text():
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """What the daemon and its children have used, the children that ended included."""
    ticks = 0
    for one in [pid, *children(pid)]:
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:13])) + (sum(map(int, fields[13:15])) if one == pid else 0)
    return ticks / os.sysconf("SC_CLK_TCK")
