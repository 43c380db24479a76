"""The real daemon as a process, with a config file of its own: for tests from end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import drawings
from trapsync.hardware.device_id import device_id
from trapsync.remote.in_force import report
from trapsync.runtime import config_check
from trapsync.status import snapshot
from trapsync.trap import system_clock

CONFIG = """\
[trap]
device = "{device}"
clock = "trusted"
[storage]
spool = "spool"
state = "state"
min_free = "1 MB"
[camera]
kind = "{camera}"
resolution = [320, 240]
warm_up = "0 s"
[camera.simulated]
seed = 7
[capture]
every = "1 s"
[ingest]
stable_after = "1 s"
rescan_every = "5 s"
"""

HUB = """
[destinations.hub]
kind = "stickypi"
url = "{url}"
username = "{user}"
password_file = "password"
every = "1 s"
retry_initial = "100 ms"
retry_max = "500 ms"
"""

STICK = """
[destinations.stick]
kind = "directory"
path = "stick"
every = "1 s"
retry_initial = "100 ms"
retry_max = "500 ms"
"""


class Daemon:
    """A daemon's folder: its config, and the process once it is started."""

    program: tuple[str, ...] = ("-m", "trapsync")

    def __init__(self, folder: Path, more: str = "", *, camera: str = "none") -> None:
        self.folder = folder
        self.config = folder / "trapsync.toml"
        self.spool = folder / "spool"
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(CONFIG.format(device=drawings.DEVICE, camera=camera) + more)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, **environment: str) -> None:
        """Start `trapsync run`; its log goes to a file."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, "-c", str(self.config), "run", *arguments],
                stderr=log,
                stdout=log,
                env=os.environ | environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the daemon's own process."""
        assert self._process
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the daemon's own process."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code; None while it lives."""
        assert self._process
        return self._process.poll()

    def wait(self, seconds: float = 15) -> int:
        """Wait for its end; its exit code."""
        assert self._process
        return self._process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and wait for the end; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another command of the program on the same trap."""
        return subprocess.run(
            [sys.executable, "-m", "trapsync", "-c", str(self.config), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def status(self) -> dict[str, Any]:
        """What `status --json` says, asked in this process: a command takes half a second to start.

        `tests/daemon/test_daemon.py` compares it with what the command prints.
        """
        found = config_check.load(self.config)
        settings, config = found.settings, config_check.shown(found.files)
        now = snapshot(
            settings, system_clock(settings), device_id(settings.trap), report(found), config=config
        )
        printed: dict[str, Any] = json.loads(json.dumps(now.plain()))
        return printed

    def text(self) -> str:
        """Its log."""
        return self.log.read_text()

    def until(self, claim: Callable[[dict[str, Any]], bool], seconds: float = 40) -> dict[str, Any]:
        """Look at the status until the claim holds; the status then. Fails with the log otherwise."""
        deadline = time.monotonic() + seconds
        while True:
            facts = self.status()
            if claim(facts):
                return facts
            assert time.monotonic() < deadline, f"in vain: {facts}\n{self.text()}"
            time.sleep(0.05)  # another process is to come so far

    def until_log(self, text: str, seconds: float = 20, since: int = 0) -> None:
        """Wait until the log says so, after so many characters of it."""
        deadline = time.monotonic() + seconds
        while text not in self.text()[since:]:
            assert time.monotonic() < deadline, f"the log never said {text!r}:\n{self.text()}"
            time.sleep(0.05)


@contextmanager
def running(
    folder: Path, more: str = "", *, camera: str = "none", arguments: tuple[str, ...] = ()
) -> Iterator[Daemon]:
    """A daemon that runs until the block ends."""
    daemon = Daemon(folder, more, camera=camera)
    daemon.start(*arguments)
    try:
        daemon.until_log("watching over")
        yield daemon
    finally:
        if daemon._process and daemon._process.poll() is None:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def deliver_to(folder: Path, url: str, user: str, password: str) -> str:
    """The config of a hub as destination; writes its password beside the config."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    return HUB.format(url=url, user=user)
