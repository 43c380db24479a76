"""Processes that a test leaves behind: ended when it fails, and before its time limit fails it.

A plugin of pytest, registered by `conftest`. A test that is failed by its time limit in the middle of
`with subprocess.Popen(...)` would otherwise wait for ever for a process that nobody ends.
"""

import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest

_NAME = "TRAPSYNC_TEST_PROCESS"  # in the environment of all that descends from this process
_CLEARING = 30.0  # seconds that a test has for its own clearing up, once its time limit has failed it


class LeftOver:
    """Remembers which processes there were when the present phase of a test began, and ends the others."""

    def __init__(self) -> None:
        self._before = _processes()
        self._has_failed = False
        self._mark = f"{os.getpid()}-{time.time_ns()}"
        os.environ[_NAME] = self._mark
        # A job in the background begins with SIGINT ignored, and its children would inherit that. With a handler
        # the suite ignores it as before, and its children begin with the default.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Begin with a test."""
        self._before, self._has_failed = _processes(), False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        """What was started for several tests together is there already, and lives on."""
        self._before = _processes()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        """What a test used may wait for a process, too; and its time limit is over when it has failed."""
        if self._has_failed:
            signal.signal(signal.SIGALRM, lambda *_: self.end())
            signal.setitimer(signal.ITIMER_REAL, _CLEARING, _CLEARING)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """After a test that failed, whatever it left is ended."""
        report = yield
        self._has_failed |= report.failed
        if call.when == "teardown" and self._has_failed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.end()
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_timeout_set_timer(self) -> Generator[None, Any, Any]:
        """Before the time limit fails a test, end what the test may be waiting for; and once more after it."""
        answer = yield
        fail = signal.getsignal(signal.SIGALRM)

        def end_and_fail(number: int, frame: Any) -> None:
            try:
                self.end()
                self._before = set()  # should that not be enough: all of them, see below
            finally:
                assert callable(fail)
                fail(number, frame)

        if callable(fail):
            signal.signal(signal.SIGALRM, end_and_fail)
        return answer

    def end(self) -> None:
        """Kill (SIGKILL) what descends from this process and was not there when the phase began."""
        # Those of multiprocessing serve the whole session.
        kept = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}  # type: ignore[attr-defined]
        for pid in set(self._descendants()) - self._before - kept:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _descendants(self) -> Iterator[int]:
        """By the environment that they inherited, which an orphan has too, or else by their parents."""
        parents = {pid: _parent(pid) for pid in _processes()}
        for pid in parents:
            if pid != os.getpid() and (_is_below(pid, parents) or self._is_marked(pid)):
                yield pid

    def _is_marked(self, pid: int) -> bool:
        with suppress(OSError):
            return f"{_NAME}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    while pid := parents.get(pid, 0):
        if pid == os.getpid():
            return True
    return False


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - before each test


def _parent(pid: int) -> int:
    """Its parent; 0 for a process that is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
