"""A card whose power can be cut: a small ext4 of its own that the kernel shuts down in mid-write.

As a program it is the worker on that card: it captures, ingests, delivers and prunes without a pause, and
says on its standard output, outside of that card, what it was promised::

    captured PATH SHA256        pipeline.capture returned
    delivered KEY               pipeline.deliver returned

Shut down without writing out its journal, the filesystem is what had reached the storage so far. What the
kernel still held, files without a flush and names without one, is gone, as it would be without power.
"""

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import drawings
import trap_bench as bench
from fake_time import FakeTime
from trapsync import pipeline
from trapsync.cameras import AlwaysReady, Frame
from trapsync.catalog import Catalog
from trapsync.clock import Clock
from trapsync.destinations import Receipt
from trapsync.image import Image
from trapsync.runtime.destination_context import registered
from trapsync.settings.schema import Prune, Settings, Storage
from trapsync.settings.units import Duration, Size
from trapsync.spool.undecided import UndecidedFiles
from trapsync.trap import open_catalog

_EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux: fs/ext4/ext4.h
_NO_LOG_FLUSH = 2  # do not even write out the journal


def missing() -> str | None:
    """Why no power can be cut here; None where it can."""
    if os.geteuid() != 0:
        return "only root can mount a filesystem and shut it down"
    if shutil.which("mkfs.ext4") is None:
        return "there is no mkfs.ext4"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return None


class Card:
    """An ext4 filesystem in a file, mounted at `folder` within the block."""

    def __init__(self, place: Path, megabytes: int = 256, *options: str) -> None:
        self.folder = place / "card"
        self._device = place / "card.ext4"
        self.folder.mkdir()
        with self._device.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", *options, str(self._device))

    def __enter__(self) -> "Card":
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.is_mount():
            _run("umount", "--lazy", str(self.folder))

    def mount(self) -> None:
        """Put the card in; the filesystem makes good what its journal holds."""
        _run("mount", "-o", "loop", str(self._device), str(self.folder))

    def cut(self) -> None:
        """Cut the power: from now on nothing reaches the card, and what did not reach it yet is lost."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def replug(self) -> None:
        """Take it out and put it in again; nobody may be using it."""
        _run("umount", str(self.folder))
        self.mount()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


# ── The worker ───────────────────────────────────────────────────────────────────────────────────────


class Home(bench.Memory):
    """A server with a mains socket of its own: what it stored stands in a file that is not on the card."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists():
            self.stored = dict(line.split() for line in path.read_text().splitlines())

    def deliver(self, image: Image, path: Path) -> Receipt:
        receipt = super().deliver(image, path)
        with self._path.open("a") as file:
            file.write(f"{image.key} {self.stored[image.key]}\n")
        return receipt


class Painted(AlwaysReady):
    """A camera whose every picture is another."""

    def __init__(self) -> None:
        self._picture = drawings.plain()

    def open(self) -> None:
        pass

    def capture(self, moment: datetime) -> Frame:
        # Some kilobytes more than one block, and never the same twice.
        comment = hashlib.sha256(str(moment).encode()).digest() * 600
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        return Frame(self._picture[:2] + segment + self._picture[2:], 160, 120, "painted")

    def close(self) -> None:
        pass


class Worker:
    """The trap on the card, one step after the other."""

    def __init__(self, card: Path, outside: Path, boot: int) -> None:
        self.storage = Storage(spool=card / "spool", state=card / "state", min_free=Size(0))
        self._settings = Settings(storage=self.storage)
        self.time = FakeTime(1_782_073_155.0 + 86400 * boot)
        for _ in range(boot):
            self.time.reboot(1000.0)
        self.home = Home(outside / "home")
        self.catalog: Catalog = open_catalog(self._settings, self.time)
        self.catalog.places.register(registered([self.home]))
        self._camera, self._undecided = Painted(), UndecidedFiles(0.0)

    def capture(self) -> tuple[str, str]:
        """One picture that is safe now: its path and digest."""
        path = pipeline.capture(self._camera, self._settings, drawings.DEVICE, self.time)
        digest = hashlib.sha256((self.storage.spool / path).read_bytes()).hexdigest()
        self.time.sleep(1)
        return path, digest

    def ingest(self) -> None:
        """Sweep, and record what is found."""
        found: list[str] = []
        pipeline.sweep(self.catalog, self.storage, found.append)
        examiner = bench.examiner(self.storage.spool)
        pipeline.ingest(self.catalog, self.storage, found, examiner, self._undecided, self.time)

    def deliver(self) -> list[str]:
        """All that is pending; the keys of what was sent and is written down."""
        before = len(self.home.sent)
        pipeline.deliver(self.catalog, self.home, self.storage.spool, self.time, bench.OneByOne())
        return self.home.sent[before:]

    def prune(self) -> None:
        """All that is proven."""
        settings = Prune(enabled=True, min_age=Duration(20), keep_free=Size(10**13))
        pipeline.prune(self.catalog, self.storage, settings, self.time, [self.home])


def work(card: Path, outside: Path, boot: int) -> None:
    """Go on for ever; the power ends it."""
    worker = Worker(card, outside, boot)
    number = 0
    while True:
        number += 1
        _say("captured", *worker.capture())
        if number % 3 == 0:
            worker.ingest()
        if number % 6 == 0:
            for key in worker.deliver():
                _say("delivered", key)
        if number % 18 == 0:
            worker.prune()
        if number % 27 == 0:
            worker.catalog.connection.checkpoint()


def switch_flushes_off() -> None:
    """Make a program of this one that believes a write to be safe at once, as so many do."""
    open_safely = Catalog.open

    def open_unsafely(path: Path, clock: Clock) -> Catalog:
        catalog = open_safely(path, clock)
        catalog.connection._db.execute("PRAGMA synchronous=OFF")
        return catalog

    setattr(os, "fsync", lambda _descriptor: None)  # noqa: B010
    setattr(Catalog, "open", open_unsafely)  # noqa: B010


if __name__ == "__main__":
    if "--without-flushes" in sys.argv:
        switch_flushes_off()
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
