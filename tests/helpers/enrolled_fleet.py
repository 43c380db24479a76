"""Traps that join one hub with one code, as an operator has them do it: every command is typed, every process is real.

::

    with enrolled(folder, 30) as fleet:
        print(fleet.typed, fleet.seconds)
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import processes
from daemon_process import Daemon
from fault_server import JSON, FaultServer

_PASSWORD = "an operator's password"
_PATIENCE = 300.0  # seconds, of thirty daemons that start on two cores


@dataclass
class EnrolledFleet:
    """A hub, its operator's computer, and traps. `typed` are the commands in their order, with the place of each."""

    desk: Path
    url: str
    traps: list[Daemon]
    typed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def type(self, place: str, *words: str, folder: Path | None = None, code: int = 0) -> str:
        """Type a command somewhere; what it said. It has to end with this code."""
        self.typed.append((place, "trapsync " + " ".join(words)))
        environment = os.environ | {"TRAPSYNC_OWNER": str(self.desk / "config" / "owner.toml")}
        done = subprocess.run(
            [sys.executable, "-m", "trapsync", *words],
            cwd=folder or self.desk,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def invite(self, uses: int) -> str:
        """Make a code for so many traps."""
        said = self.type("operator", "hub", "invite", "--group", "valley", "--uses", str(uses))
        found = re.search(r"trapsync join (\S+)", said)
        assert found, said
        return found[1]

    def fleet(self) -> list[dict[str, Any]]:
        """What `trapsync fleet` shows; it is not counted as typed."""
        environment = os.environ | {"TRAPSYNC_OWNER": str(self.desk / "config" / "owner.toml")}
        command = [sys.executable, "-m", "trapsync", "fleet", "--json"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        shown: list[dict[str, Any]] = json.loads(done.stdout)["traps"]
        return shown

    def heard(self) -> set[str]:
        """The devices that have sent a heartbeat."""
        return {trap["device"] for trap in self.fleet() if trap["heard_s"] is not None}

    def until(self, claim: Any, what: str) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + _PATIENCE
        while not claim():
            assert time.monotonic() < deadline, what
            for trap in self.traps:
                assert trap.poll() is None, trap.text()
            time.sleep(0.5)


def device_of(number: int) -> str:
    """The id of a trap."""
    return f"0a1b{number:04x}"


@contextmanager
def enrolled(folder: Path, count: int) -> Iterator[EnrolledFleet]:
    """A fleet of so many traps, each of which has joined, runs, and was heard."""
    desk = folder / "desk"
    desk.mkdir(parents=True)
    password = desk / "password"
    password.write_text(_PASSWORD)
    password.chmod(0o600)
    with ExitStack() as stack:
        fleet = EnrolledFleet(desk, "", [])
        secret = ("--password-file", "password")
        fleet.type("hub", "hub", "users", "add", "mia", "--role", "admin", *secret)
        fleet.url = stack.enter_context(_hub(fleet))
        fleet.type("operator", "hub", "login", fleet.url, "--user", "mia", *secret)
        fleet.type("operator", "keys", "new")
        begun = time.monotonic()
        code = fleet.invite(count)
        for number in range(count):
            trap = new_trap(folder, device_of(number))
            words = ("-c", str(trap.config), "join", code, "--name", f"valley-{number + 1}", "--no-restart")
            fleet.type("trap", *words)
            _hasten(trap)
            trap.start()
            stack.callback(_end, trap)
            fleet.traps.append(trap)
        fleet.until(lambda: len(fleet.heard()) == count, "not all were heard")
        fleet.seconds = time.monotonic() - begun
        yield fleet


@contextmanager
def _hub(fleet: EnrolledFleet) -> Iterator[str]:
    fleet.typed.append(("hub", "trapsync hub"))
    command = [sys.executable, "-m", "trapsync", "hub", "--port", "0"]
    log = fleet.desk / "hub.log"
    with log.open("w") as said, processes.started(command, cwd=fleet.desk, stderr=said) as program:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"listens on (http://\S+)", log.read_text())):
            assert program.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        try:
            yield found[1]
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(30)


def new_trap(folder: Path, device: str) -> Daemon:
    """A trap that is installed and takes a picture an hour."""
    trap = Daemon(folder / device, camera="simulated")
    text = trap.config.read_text()
    text = re.sub(r'device = "\w+"', f'device = "{device}"', text)
    trap.config.write_text(text.replace('[capture]\nevery = "1 s"', '[capture]\nevery = "1 h"'))
    return trap


def _hasten(trap: Daemon) -> None:
    """Have it call every few seconds: what is measured is not the quarter of an hour between two heartbeats."""
    text = trap.config.read_text()
    for line, often in (("[hub]", 'every = "5 s"'), ('kind = "stickypi"', 'every = "1 s"')):
        assert text.count(f"{line}\n") == 1
        text = text.replace(f"{line}\n", f"{line}\n{often}\n")
    trap.config.write_text(text)


def _end(trap: Daemon) -> None:
    if trap.poll() is None:
        trap.kill()


def lock_out(fleet: EnrolledFleet) -> None:
    """Revoke the first and forget the second: they are strangers, the others go on."""
    first, second, *others = fleet.traps
    fleet.type("operator", "hub", "revoke", device_of(0), "--yes")
    fleet.type("operator", "hub", "forget", "valley-2", "--yes")
    for trap in (first, second):
        trap.until_log("the hub does not know this trap, or no more", 60)
    shown = {trap["device"] for trap in fleet.fleet()}
    assert shown == {device_of(0), *(device_of(number + 2) for number in range(len(others)))}
    listed = fleet.type("operator", "hub", "devices")
    rows = [line.split()[:3] for line in listed.splitlines()]
    assert ([device_of(0), "valley-1", "revoked"] in rows, device_of(1) in listed) == (True, False)


def be_lied_to(fleet: EnrolledFleet, folder: Path) -> None:
    """Whoever took the hub over names keys of his own to a trap that joins: it refuses them, and is as it was."""
    terms = {"keys": [f"ed25519:{'A' * 43}="], "groups": ["valley"], "images": True}
    code = fleet.invite(1)
    answer = json.dumps({"device": "deadbeef", **terms}).encode()
    with FaultServer(lambda *_: (200, JSON, answer)) as liar:
        trap = new_trap(folder, "deadbeef")
        before = trap.config.read_bytes()
        words = ("-c", str(trap.config), "join", code.replace(fleet.url, liar.url), "--no-restart")
        said = fleet.type("trap", *words, code=1)
    assert "names other keys or groups than the code" in said
    assert (said.count("\n"), trap.config.read_bytes()) == (1, before)
    assert not list(trap.folder.glob("*.token"))


def commands_by_place(typed: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How many commands were typed where."""
    places = [place for place, _ in typed]
    return {place: places.count(place) for place in dict.fromkeys(places)}
