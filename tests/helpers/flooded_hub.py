"""A real `trapsync hub` that is flooded from many addresses without a password, and what a trap sees of it meanwhile.

Run as a program, this is the attacker, in a process of its own: PORT CONNECTIONS BODIES GUESSERS
"""

import base64
import itertools
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import requests

import hub_server
from processes import children, started
from trapsync.hub.app import Hub
from trapsync.hub.server import _allow_files

_ADDRESSES = 60  # that connections come from, so that a limit for each does not end the attack
_BODY = 99_000_000
_SLICE = b"x" * 65536


class Seen(NamedTuple):
    """What a trap and the machine saw: seconds that heartbeats took, and megabytes."""

    waits: list[float]
    memory: float
    temporary: float

    def __str__(self) -> str:
        waits = sorted(self.waits)
        return (
            f"{len(waits)} heartbeats: median {statistics.median(waits):.3f} s, worst {waits[-1]:.2f} s; "
            f"memory {self.memory:.0f} MB, temporary files {self.temporary:.0f} MB"
        )


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, tuple[str, str]]]:
    """The program itself, with a user `trap`; its process, port, and the trap's token."""
    hub = Hub.open(folder / "hub")
    hub.accounts.add("trap", hub_server.PASSWORD, "manager")
    user = hub.accounts.named("trap")
    assert user
    token = hub.accounts.token(user)[0]
    hub.database.close()
    log = folder / "log"
    command = [sys.executable, "-m", "trapsync", "hub", "--folder", str(folder / "hub"), "--port", "0"]
    with (
        log.open("w") as file,
        started(command, stdout=subprocess.DEVNULL, stderr=file, text=True) as process,
    ):
        for _ in range(600):
            if found := re.search(r"listens on http://127.0.0.1:(\d+)", log.read_text()):
                break
            time.sleep(0.1)
        assert found, log.read_text()
        yield process, int(found[1]), (token, "")


def visited(process: "subprocess.Popen[str]", port: int, token: tuple[str, str], seconds: float) -> Seen:
    """Send heartbeats, one each quarter of a second over a connection of its own, and look at the hub's process."""
    waits, memory, temporary = list[float](), 0.0, 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.perf_counter()
        answer = requests.post(
            f"http://127.0.0.1:{port}/heartbeats/0a5bb6f4",
            data=json.dumps({"device": "0a5bb6f4", "verdict": "ok"}),
            auth=token,
            timeout=60,
        )
        waits.append(time.perf_counter() - begun)
        assert answer.status_code == 200, answer.text
        memory, temporary = max(memory, memory_of(process.pid)), max(temporary, _temporary(process.pid))
        time.sleep(0.25)
    return Seen(waits, memory, temporary)


def memory_of(pid: int) -> float:
    """Megabytes that are resident, of a process and its children."""
    total = 0
    for one in [pid, *children(pid)]:
        with suppress(OSError):
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text())
            total += int(found[1]) if found else 0
    return total / 1024


def _temporary(pid: int) -> float:
    """Megabytes of the files that it has open without a name. Only root sees them."""
    total = 0
    with suppress(PermissionError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(link.readlink()).endswith("(deleted)"):
                    total += link.stat().st_size
    return total / 1e6


def flood(folder: Path, connections: int, bodies: int, guessers: int, seconds: float) -> tuple[Seen, Seen]:
    """What a trap sees alone, and under attack."""
    with running(folder) as (hub, port, token):
        alone = visited(hub, port, token, seconds / 4)
        attack = [sys.executable, __file__, *map(str, (port, connections, bodies, guessers))]
        with started(attack, stdout=subprocess.PIPE, text=True) as attacker:
            assert attacker.stdout
            attacker.stdout.readline()  # it has connected with all it has
            attacked = visited(hub, port, token, seconds)
            assert attacker.poll() is None
        assert hub.poll() is None
    return alone, attacked


def no_trap_is_locked_out(count: int, folder: Path) -> str:
    """So many connections, a sixtieth as many bodies, and a tenth as many guessers: a trap gets through."""
    alone, flooded = flood(folder, count, count // 60, count // 10, count / 100)
    # In the suite the machine may be busy with other things.
    assert statistics.median(flooded.waits) <= (2 if count >= 3000 else 10), flooded
    assert flooded.temporary <= 64, flooded
    assert flooded.memory <= 160, flooded
    return f"alone {alone}; flooded {flooded}"


# ── The attacker ─────────────────────────────────────────────────────────────────────────────────────


class _Attacker:
    """One connection that is made again whenever the hub ends it."""

    def __init__(self, number: int, kind: str, port: int) -> None:
        self.kind, self.port = kind, port
        self.address = f"127.0.{1 + number % _ADDRESSES}.1"
        self.socket: socket.socket | None = None
        self.again_at = 0.0
        self.turn = 0

    def connect(self) -> socket.socket:
        """Connect, and send what an attacker of this kind begins with."""
        self.turn += 1
        self.again_at = time.monotonic() + 1
        made = socket.socket()
        made.setblocking(False)
        made.bind((self.address, 0))
        with suppress(BlockingIOError):
            made.connect(("127.0.0.1", self.port))
        self.socket = made
        return made

    def ended(self) -> None:
        """The hub has ended it. The next one follows: at once where it gets the hub to work."""
        assert self.socket
        self.socket.close()
        self.socket = None
        if self.kind in {"guess", "body"}:
            self.again_at = 0.0

    def first(self) -> bytes:
        """What it sends when it is connected."""
        head = b"POST /get_token HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if self.kind == "body":
            return b"POST /_put_new_images HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % _BODY
        if self.kind == "guess":
            guess = base64.b64encode(f"trap:{id(self)}.{self.turn}".encode())
            return head + b"Content-Length: 0\r\nAuthorization: Basic " + guess + b"\r\n\r\n"
        return b"" if self.kind == "idle" else head + b"X-Head: "


class Attack:
    """All attackers, in one thread."""

    def __init__(self, port: int, connections: int, bodies: int, guessers: int) -> None:
        _allow_files(connections + bodies + guessers + 100)
        kinds = [*itertools.islice(itertools.cycle(("half", "drip", "idle")), connections)]
        kinds += ["body"] * bodies + ["guess"] * guessers
        self.attackers = [_Attacker(number, kind, port) for number, kind in enumerate(kinds)]
        self.ready = selectors.DefaultSelector()

    def run(self) -> None:
        """Attack until it is killed. Prints a line when every attacker has connected once."""
        said, drips_at = False, 0.0
        while True:
            now = time.monotonic()
            self._connect(now)
            if now >= drips_at:
                drips_at = now + 1
                self._drip()
            for key, events in self.ready.select(0.05):
                try:
                    self._go_on(key.data, key.events, events)
                except BlockingIOError:
                    continue
                except OSError:
                    self.ready.unregister(key.fileobj)
                    key.data.ended()
            if not said and all(one.turn for one in self.attackers):
                said = True
                os.write(1, b"all have connected\n")

    def _connect(self, now: float) -> None:
        for one in self.attackers:
            if one.socket is None and now >= one.again_at:
                with suppress(OSError):
                    self.ready.register(one.connect(), selectors.EVENT_WRITE, one)

    def _drip(self) -> None:
        for one in self.attackers:
            if one.kind == "drip" and one.socket:
                with suppress(OSError):
                    one.socket.send(b"x")

    def _go_on(self, one: _Attacker, awaited: int, events: int) -> None:
        assert one.socket
        if events & selectors.EVENT_READ and not one.socket.recv(4096):
            raise ConnectionResetError
        if events & selectors.EVENT_WRITE and awaited & selectors.EVENT_READ:
            one.socket.send(_SLICE)  # more of the body
        elif events & selectors.EVENT_WRITE:
            one.socket.send(one.first())
            more = selectors.EVENT_WRITE if one.kind == "body" else 0
            self.ready.modify(one.socket, selectors.EVENT_READ | more, one)


if __name__ == "__main__":
    Attack(*map(int, sys.argv[1:])).run()
