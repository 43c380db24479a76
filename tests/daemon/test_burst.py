"""Files that come all at once, slowly, by a rename, or while nobody looks: found within one sweep, and whole."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import daemon_process
import drawings

FILES = int(os.environ.get("TRAPSYNC_BURST", "6000"))
SWEEP = 5.0  # seconds, in the config of `daemon_process`, give or take a tenth
TINY = drawings.plain(16, 16)


def picture(number: int) -> bytes:
    """A small one of its own."""
    return TINY[:2] + b"\xff\xfe\x00\x0a%08d" % number + TINY[2:]


def fill(folder: Path, first: int, count: int) -> dict[str, str]:
    """So many files; their digests by name."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for number in range(first, first + count):
        content, name = picture(number), f"IMG_{number:05}.jpg"
        (folder / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


@contextmanager
def running(folder: Path) -> Iterator[tuple[daemon_process.Daemon, Path]]:
    """A daemon that brings everything to a stick."""
    stick = folder / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = "thumbnails = false\n"
    more += f'[destinations.stick]\nkind = "directory"\npath = "{stick}"\nevery = "1 s"\n'
    with daemon_process.running(folder / "trap", more) as trap:
        yield trap, stick


def arrived(stick: Path) -> dict[str, str]:
    """What the stick holds: digests by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in stick.rglob("*.jpg")}


def expect(trap: daemon_process.Daemon, stick: Path, digests: dict[str, str], seconds: float = 60) -> None:
    """All of these arrive, and nothing else, and nothing is in quarantine."""
    facts = trap.until(lambda f: f["ledger"]["delivered"] >= len(digests), seconds)
    assert (facts["ledger"]["quarantined"], facts["ledger"]["pending"]) == (0, 0)
    assert arrived(stick) == digests


def test_a_burst_while_the_daemon_is_stopped_is_found_within_one_sweep(tmp_path: Path) -> None:
    with daemon_process.running(tmp_path / "trap", "thumbnails = false\n") as trap:
        burst = trap.spool / "burst"
        digests = fill(burst, FILES, 1)
        trap.until(lambda f: f["ledger"]["captured"] == 1)  # the folder is watched
        trap.signal(signal.SIGSTOP)
        digests |= fill(burst, 0, FILES)
        for name in digests:  # three events for each, which is more than the kernel keeps
            (burst / name).open("ab").close()
        trap.signal(signal.SIGCONT)
        began = time.monotonic()
        facts = trap.until(lambda f: f["ledger"]["captured"] == len(digests), seconds=200)
        took = time.monotonic() - began
        assert facts["ledger"]["pending"] == len(digests)
        with closing(sqlite3.connect(trap.folder / "state" / "catalog.sqlite")) as db:
            assert dict(db.execute("SELECT replace(key, 'burst/', ''), sha256 FROM images")) == digests
        assert took < 1.1 * SWEEP + FILES / 50, f"{took:.1f} s"


def test_a_burst_beside_a_busy_daemon_and_one_before_its_start_are_found(tmp_path: Path) -> None:
    digests = fill(tmp_path / "trap" / "spool" / "before", 0, 300)
    with running(tmp_path) as (trap, stick):
        for part in range(5):
            digests |= fill(trap.spool / f"part-{part}", 1000 * (part + 1), 60)
        expect(trap, stick, digests)


def test_a_slow_writer_is_waited_for_and_no_part_of_its_file_is_delivered(tmp_path: Path) -> None:
    content = drawings.trap()
    writer = (  # for four seconds, with pauses shorter than `ingest.stable_after`
        "import sys, time; content = open(sys.argv[1], 'rb').read(); file = open(sys.argv[2], 'wb', 0)\n"
        "for at in range(0, len(content), 300): file.write(content[at : at + 300]); time.sleep(0.35)"
    )
    (tmp_path / "whole").write_bytes(content)
    with running(tmp_path) as (trap, stick):
        slow = subprocess.Popen([sys.executable, "-c", writer, tmp_path / "whole", trap.spool / "slow.jpg"])
        while slow.poll() is None:
            assert arrived(stick) == {}
            assert trap.status()["ledger"]["quarantined"] == 0
            with suppress(subprocess.TimeoutExpired):
                slow.wait(0.05)
        expect(trap, stick, {"slow.jpg": hashlib.sha256(content).hexdigest()})


def test_renames_links_and_folders_moved_in_and_about_are_found(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    with running(tmp_path) as (trap, stick):
        digests = fill(outside / "deep" / "deeper", 0, 50)
        outside.rename(trap.spool / "moved-in")
        digests |= fill(tmp_path / "links", 50, 50)
        for name in digests.keys() - {path.name for path in (trap.spool / "moved-in").rglob("*.jpg")}:
            (trap.spool / name).hardlink_to(tmp_path / "links" / name)
        for number in range(100, 150):
            name, content = f"IMG_{number:05}.jpg", picture(number)
            (trap.spool / f".{name}.part").write_bytes(content)
            (trap.spool / f".{name}.part").rename(trap.spool / name)
            digests[name] = hashlib.sha256(content).hexdigest()
        expect(trap, stick, digests)


def test_a_folder_that_is_moved_while_it_is_worked_through_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as (trap, stick):
        digests = fill(trap.spool / "here", 0, 400)
        trap.until(lambda f: f["ledger"]["captured"] > 0)
        (trap.spool / "here").rename(trap.spool / "there")
        deadline = time.monotonic() + 60
        while not digests.items() <= arrived(stick).items():
            assert time.monotonic() < deadline, trap.text()[-3000:]
            time.sleep(0.2)  # another process is to come so far
        facts = trap.until(lambda f: f["ledger"]["pending"] == 0)
        # A foreign file is known by its path: what was delivered from the old place is delivered once more.
        assert set(arrived(stick).values()) == set(digests.values())
        assert facts["ledger"]["quarantined"] == 0


def test_a_spool_that_is_removed_and_made_again_is_watched_again_when_its_owner_accepts_it(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as (trap, stick):
        digests = fill(trap.spool / "before", 0, 20)
        expect(trap, stick, digests)
        shutil.rmtree(trap.spool)
        digests |= fill(trap.spool / "after", 100, 20)
        assert trap.run("spool", "--accept").returncode == 0
        expect(trap, stick, digests)
        trap.spool.rename(tmp_path / "gone")
        digests |= fill(trap.spool / "after", 200, 20)
        assert trap.run("spool", "--accept").returncode == 0
        expect(trap, stick, digests)
        assert trap.stop() == 0
        assert "Traceback" not in trap.text()
