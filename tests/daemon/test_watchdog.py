"""The word to systemd's watchdog is true: it ends when a part of the daemon does, and never before."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

import child_faults
import daemon_process
import drawings
import hub_server
from fault_server import FaultServer, Forwarding
from processes import children

PUT = "/_put_new_images"
IMPATIENT = (
    ("[camera]", '[camera]\ntimeout = "2 s"'),
    ("[ingest]", '[ingest]\ntimeout = "2 s"'),
)


class Systemd:
    """What systemd hears, and when: the times of the words to its watchdog."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.heard: list[float] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(100):
            if message == b"WATCHDOG=1":
                self.heard.append(time.monotonic())

    def silence(self) -> float:
        """Seconds since the last word."""
        return time.monotonic() - self.heard[-1]

    def longest_silence(self) -> float:
        """The longest time between two words, up to now."""
        return max(later - earlier for earlier, later in pairwise([*self.heard, time.monotonic()]))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", str(self.address))
        self._thread.join(5)
        self._socket.close()


@contextmanager
def watched(
    folder: Path, more: str = "", *, part: str = "nothing"
) -> Iterator[tuple[daemon_process.Daemon, Systemd]]:
    """A daemon with a camera that systemd watches over, a part of which may freeze."""
    systemd = Systemd(folder / "notify")
    trap = daemon_process.Daemon(folder / "trap", more, camera="simulated")
    trap.program = (child_faults.__file__, part)
    config = trap.config.read_text()
    for old, new in IMPATIENT:
        config = config.replace(old, new)
    trap.config.write_text(config)
    trap.start(NOTIFY_SOCKET=str(systemd.address), WATCHDOG_USEC="2000000")
    try:
        trap.until_log("watching over")
        yield trap, systemd
    finally:
        if trap.poll() is None:
            os.killpg(trap.pid, signal.SIGKILL)
            trap.wait()
        systemd.close()


def passes(trap: daemon_process.Daemon, seconds: float) -> None:
    """Let the daemon live for so long; that it does not end is a part of every test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert trap.poll() is None, trap.text()
        time.sleep(0.1)  # another process is to come so far


@pytest.mark.parametrize("part", sorted(child_faults.FREEZING))
def test_a_part_that_freezes_ends_the_words_to_the_watchdog(tmp_path: Path, part: str) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = f'[destinations.stick]\nkind = "directory"\nevery = "1 s"\npath = "{stick}"\n'
    with watched(tmp_path, more, part=part) as (trap, systemd):
        deadline = time.monotonic() + 40
        while not systemd.heard or systemd.silence() < 3.0:
            if part == "main" and not systemd.heard and time.monotonic() > deadline - 35:
                break  # its first word would come from the part that froze
            assert time.monotonic() < deadline, f"it goes on saying that it is well\n{trap.text()}"
            passes(trap, 0.2)
        if part != "main":
            assert "no report from: " in trap.text()


def test_while_the_camera_is_broken_deliveries_go_on(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = f'[destinations.stick]\nkind = "directory"\nevery = "1 s"\npath = "{stick}"\n'
    with watched(tmp_path, more, part="camera") as (trap, _):
        trap.until(lambda f: f["verdict"] == "failing" and "the cable is loose" in f["reasons"][0])
        drawings.put(trap.spool, drawings.trap(), drawings.NAME)
        trap.until(lambda f: f["ledger"]["delivered"] == 1)
        assert trap.status()["verdict"] == "failing"


@pytest.mark.parametrize("child", [0, 1])  # the camera's process and an examiner, in some order
def test_a_child_that_is_frozen_is_replaced_and_the_words_go_on(tmp_path: Path, child: int) -> None:
    with watched(tmp_path) as (trap, systemd):
        trap.until(lambda f: f["ledger"]["captured"] > 1)
        both = sorted(pid for pid, command in children(trap.pid).items() if "spawn_main" in command)
        assert len(both) == 2
        os.kill(both[child], signal.SIGSTOP)
        before = trap.status()["ledger"]["captured"]
        # One that was frozen before it took a file is given up after 3 × 2 + 30 s, and another must start.
        trap.until(lambda f: f["ledger"]["captured"] > before + 3, seconds=90)
        assert systemd.silence() < 2.0


def test_a_healthy_busy_daemon_never_misses_a_word(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub, FaultServer(Forwarding(hub.url)) as front:
        more = daemon_process.deliver_to(tmp_path / "trap", front.url, hub.user, hub.password)
        front.plan(PUT, *["slow"] * 6, *["late"] * 6)
        with watched(tmp_path, more) as (trap, systemd):
            for number in range(300):
                drawings.put(trap.spool, drawings.trap(seed=number % 5), f"burst/{number}.jpg")
            passes(trap, 20)
            assert systemd.longest_silence() < 2.0
            assert sum(front.injected.values()) >= 4
            assert trap.status()["ledger"]["captured"] > 300
