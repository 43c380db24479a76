"""The demonstration: a trap, a server, and a link between them that drops in the middle.

Everything is real but the camera: the daemon runs as it runs on a Pi, the hub is the server that ships
with the program, and the link is a TCP relay that is taken down while pictures keep coming.
"""

import argparse
import hashlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

TRAPSYNC = Path(sys.executable).with_name("trapsync")
MEMORY_LIMIT_MB = 64
CONFIG = """\
[trap]
device = "7a3f09c1"
name = "demonstration"
latitude = 47.39
longitude = 8.05
clock = "trusted"

[storage]
spool = "spool"
state = "state"
min_free = "10 MB"

[camera]
kind = "simulated"
resolution = [2028, 1520]

[capture]
every = "2 s"

[destinations.hub]
kind = "stickypi"
url = "http://127.0.0.1:{port}"
username = "trapsync"
password_file = "password"
every = "1 s"
retry_initial = "1 s"
retry_max = "3 s"

[hub]
url = "http://127.0.0.1:{port}"
username = "trapsync"
password_file = "password"
every = "2 s"
"""


class Link:
    """A TCP relay on loopback that can be taken down: connections break and new ones are refused."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self.is_up = True
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def take_down(self) -> None:
        """Break what is open; from now on nothing gets through."""
        self.is_up = False
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def bring_up(self) -> None:
        """Let connections through again."""
        self.is_up = True

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if not self.is_up:
                self.refused += 1
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            self._open.discard(end)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Program:
    """One command of the program, running; its last log lines and its memory are kept."""

    def __init__(self, *arguments: str) -> None:
        self.lines: deque[str] = deque(maxlen=8)
        self.peak_mb = 0.0
        self._process = subprocess.Popen(
            [TRAPSYNC, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())

    def measure(self) -> float:
        """The resident memory of this process in MB, now; the highest is kept."""
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            self.peak_mb = max(self.peak_mb, int(kilobytes) / 1024)
        return self.peak_mb

    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> int:
    """Run the demonstration; 0 only if every image was confirmed delivered."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    folder = Path(tempfile.mkdtemp(prefix="trapsync-demo-"))
    with _stage(folder) as (hub_port, hub):
        link = Link(hub_port)
        config = _write_config(folder, link.port)
        trap = Program("--config", str(config), "run", "--captures", str(options.images))
        if options.keep:
            _invite(hub_port)
        try:
            facts = _play(trap, link, config, options.images)
        finally:
            trap.stop()
        if not options.keep:
            hub.stop()
        code = _report(facts, trap, link, folder, options.images)
        if options.keep:
            _go_on(config, hub_port)
    return code


def _invite(port: int) -> None:
    print(
        f"look at the trap in a browser: http://127.0.0.1:{port}   name: trapsync   password: trapsync\n",
        flush=True,
    )


def _go_on(config: Path, port: int) -> None:
    """Let the trap run on, for who looks at it, until Ctrl-C."""
    trap = Program("--config", str(config), "run")
    try:
        print("\nthe trap runs on until Ctrl-C")
        _invite(port)
        while trap.is_running():
            time.sleep(0.5)
    finally:
        trap.stop()


def _leave(number: int, _: object) -> None:
    """Told to end: leave by every `finally`, so that neither the trap nor the server runs on alone."""
    for repeated in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(repeated, signal.SIG_IGN)
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=12, metavar="N", help="how many pictures to take (default 12)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="then run on until Ctrl-C, to be looked at in a browser"
    )
    options = parser.parse_args()
    if options.images < 1:
        parser.error("--images must be at least 1")
    return options


@contextmanager
def _stage(folder: Path) -> Iterator[tuple[int, Program]]:
    """Start the hub on a free port of this machine and wait until it answers."""
    port = _free_port()
    hub = Program("hub", "--folder", str(folder / "hub"), "--port", str(port))
    try:
        deadline = time.monotonic() + 30
        while not _answers(port):
            if not hub.is_running() or time.monotonic() > deadline:
                sys.exit("the hub did not start:\n" + "\n".join(hub.lines))
            time.sleep(0.1)
        yield port, hub
    finally:
        hub.stop()


def _answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _write_config(folder: Path, port: int) -> Path:
    config = folder / "trapsync.toml"
    config.write_text(CONFIG.format(port=port))
    password = folder / "password"
    password.write_text("trapsync\n")
    password.chmod(0o600)
    return config


class Stage:
    """What the audience sees: a live picture on a terminal, lines elsewhere."""

    def __init__(self, images: int) -> None:
        self._console = Console(highlight=False)
        self._images = images
        self._last = ""
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> "Stage":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Announce a turn of events."""
        self._console.print(f"── {text}", style="bold")

    def show(self, facts: dict[str, Any], link: Link, trap: Program) -> None:
        """Show how things stand."""
        if self._live:
            self._live.update(self._picture(facts, link, trap), refresh=True)
            return
        ledger, row = facts["ledger"], facts["destinations"].get("hub", {})
        error = f"; {row['last_error']}" if row.get("last_error") else ""
        line = f"   {ledger['captured']:3} captured, {ledger['delivered']:3} delivered, {ledger['pending']:3} pending{error}"
        if line != self._last:
            self._console.print(line, soft_wrap=True)
            self._last = line

    def _picture(self, facts: dict[str, Any], link: Link, trap: Program) -> Group:
        ledger, row = facts["ledger"], facts["destinations"].get("hub", {})
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_row(
            "captured", self._bar(ledger["captured"], "cyan"), f"{ledger['captured']}/{self._images}"
        )
        table.add_row(
            "delivered", self._bar(ledger["delivered"], "green"), f"{ledger['delivered']}/{self._images}"
        )
        table.add_row("pending", self._bar(ledger["pending"], "yellow"), str(ledger["pending"]))
        table.add_row("link", Text("up", "green") if link.is_up else Text("DOWN", "bold red"), "")
        table.add_row(
            "last error", Text(row.get("last_error") or "none", "red" if row.get("last_error") else ""), ""
        )
        log = Text("\n".join(trap.lines), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(table, Text(""), log)

    def _bar(self, count: int, colour: str) -> ProgressBar:
        return ProgressBar(
            total=self._images, completed=count, width=40, complete_style=colour, finished_style=colour
        )


def _play(trap: Program, link: Link, config: Path, images: int) -> dict[str, Any]:
    """Watch until all is delivered. The link goes down after a third of the pictures, for a third of them."""
    down_at, up_at = max(1, images // 3), max(2, 2 * images // 3)
    was_down = False
    deadline = time.monotonic() + 120 + 6 * images
    facts = _status(config)
    with Stage(images) as stage:
        stage.say(f"a trap takes {images} pictures and delivers them to a server on this machine")
        while trap.is_running() and time.monotonic() < deadline:
            facts = _status(config)
            trap.measure()
            captured, pending = facts["ledger"]["captured"], facts["ledger"]["pending"]
            if not was_down and captured >= down_at:
                link.take_down()
                was_down = True
                stage.say("the link goes down; pictures keep coming, and wait in the spool")
            if not link.is_up and captured >= min(up_at, images) and link.refused and pending:
                link.bring_up()
                stage.say(
                    f"the link is back after {link.refused} refused connections; {pending} pictures are pending"
                )
            stage.show(facts, link, trap)
            if captured >= images and pending == 0 and link.is_up:
                break
            time.sleep(0.3)
    if not trap.is_running():
        print("the daemon ended by itself:", *trap.lines, sep="\n  ")
    return facts


def _status(config: Path) -> dict[str, Any]:
    """What `trapsync status --json` says: the program's own word, as any user would ask for it."""
    answer = subprocess.run(
        [TRAPSYNC, "--config", config, "status", "--json"], capture_output=True, text=True
    )
    if not answer.stdout:
        sys.exit(f"trapsync status failed: {answer.stderr}")
    facts: dict[str, Any] = json.loads(answer.stdout)
    return facts


def _report(facts: dict[str, Any], trap: Program, link: Link, folder: Path, images: int) -> int:
    """Say how it ended, with the accounting identity; compare both ends byte for byte."""
    ledger = facts["ledger"]
    sent = _digests(folder / "spool")
    stored = _digests(folder / "hub" / "images")
    same = len(sent) == images and sorted(sent.values()) == sorted(stored.values())
    rest = " + ".join(f"{n} {name}" for name, n in ledger.items() if name != "captured")
    print(f"\n{ledger['captured']} captured = {rest}")
    print(
        f"the server holds {len(stored)} images, {'byte for byte those' if same else 'NOT those'} of the trap"
    )
    print(
        f"the link was down once and refused {link.refused} connections; nothing was lost, nothing came twice"
    )
    print(
        f"the daemon's own process used {trap.peak_mb:.1f} MB of memory at most (limit: {MEMORY_LIMIT_MB} MB)"
    )
    print(f"\npictures:    {folder / 'spool'}\non the server: {folder / 'hub' / 'images'}")
    print(f"look around: {TRAPSYNC} --config {folder / 'trapsync.toml'} images")
    print(f"remove all:  rm -r {folder}")
    whole = ledger["captured"] == ledger["delivered"] == images and same and bool(link.refused)
    if not whole:
        print("\nNOT all images were delivered; the daemon's last words:", *trap.lines, sep="\n  ")
    return int(not whole or trap.peak_mb > MEMORY_LIMIT_MB)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.jpg")}


if __name__ == "__main__":
    sys.exit(main())
