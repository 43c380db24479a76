"""Processes as the kernel shows them: children, and the time that they used."""

import os
import re
import subprocess
import threading
import time
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


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes; 0 of one that is gone."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


class IdleTime:
    """How long nothing worked: no thread of a process, of what it started, or of this one, ran or wanted to run.

    So the load of the machine does not count. `seconds` is what it came to when `stop` returns.
    """

    def __init__(self, pid: int) -> None:
        self.seconds = 0.0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Look no more."""
        self._stop.set()
        self._thread.join()
        return self.seconds

    def _look(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.003):
            states = set(self._states())
            now = time.monotonic()
            self.seconds += 0.0 if states & {"R", "D"} else now - last
            last = now

    def _states(self) -> Iterator[str]:
        found = [self._pid, os.getpid()]
        for pid in found:
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    if int(task.name) != threading.get_native_id():
                        yield (task / "stat").read_text().rpartition(")")[2].split()[0]
                    if pid != os.getpid():
                        found += map(int, (task / "children").read_text().split())
