"""A hub as a service: what it tells systemd, and what works beside it."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import processes
from trapsync.errors import StorageError
from trapsync.runtime import hub_service, systemd


def test_the_hub_tells_systemd_that_it_is_ready_lives_and_ends_and_nothing_while_it_hangs(
    tmp_path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        words = [
            "-m",
            "trapsync",
            "hub",
            "--port",
            "0",
            "--folder",
            str(tmp_path / "hub"),
            "--min-free",
            "0 B",
        ]
        with processes.started(
            [sys.executable, *words], stderr=subprocess.PIPE, text=True, env=os.environ | environment
        ) as hub:
            assert heard.recv(100) == b"READY=1"
            assert hub.stderr
            assert re.search(r"listens on http://127", hub.stderr.readline() + hub.stderr.readline())
            assert [heard.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            hub.send_signal(signal.SIGSTOP)
            heard.settimeout(2)
            with suppress(TimeoutError):
                heard.recv(100)  # it was on its way
            with pytest.raises(TimeoutError):
                heard.recv(100)
            hub.send_signal(signal.SIGCONT)
            heard.settimeout(30)
            hub.terminate()
            while (said := heard.recv(100)) == b"WATCHDOG=1":
                pass
            assert said == b"STOPPING=1"
            assert hub.wait(20) == 0


def test_a_hub_that_answers_nobody_is_not_said_to_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(systemd, "notify", said.append)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert hub_service._feed(f"http://127.0.0.1:{deaf.getsockname()[1]}", 0.2) == 0.05
    assert said == []


@pytest.mark.parametrize(
    ("error", "lines"), [(ZeroDivisionError("a bug"), 3), (StorageError("the disk is full"), 1)]
)
def test_work_that_fails_is_told_and_costs_no_other_work(
    caplog: pytest.LogCaptureFixture, error: Exception, lines: int
) -> None:
    caplog.set_level(logging.ERROR)
    often, enough = [0], threading.Event()

    def count() -> float:
        often[0] += 1
        if often[0] == 3:
            enough.set()
        return 0.0

    def fail() -> float:
        raise error

    with hub_service.running({"bad": fail, "good": count}):
        assert enough.wait(10)
    assert f"bad failed, and goes on in an hour{': the disk is full' * (lines == 1)}" in caplog.text
    assert ("Traceback" in caplog.text) == (lines > 1)
    assert len(caplog.records) == 1
