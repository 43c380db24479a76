"""Damage in any page of the catalog: after at most one end of the daemon the next start rebuilds it (reliability 7).

The header and a leaf of each table and each index are damaged, in six ways by turns; then any page. Half of it
befalls a catalog that was closed in order, whose mark stands: nothing but its use finds that. In the end each picture was
delivered once.
"""

import os
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

import child_faults
import daemon_process
import drawings
from trap_bench import Memory
from trapsync.catalog import integrity
from trapsync.destinations import directory
from trapsync.errors import CatalogDamaged, TrapsyncError
from trapsync.runtime import clock_correction, startup
from trapsync.settings.schema import Settings
from trapsync.status import snapshot
from worked_trap import Well

ANYWHERE = int(os.environ.get("TRAPSYNC_DAMAGES", "20"))
PAGE = 1024

Damage = Callable[[bytearray, int, random.Random], object]


def bit(content: bytearray, at: int, dice: random.Random) -> None:
    """Turn over one bit of what is not zero."""
    used = [byte for byte in range(at, at + PAGE) if content[byte]]
    content[dice.choice(used or [at])] ^= 1 << dice.randrange(8)


def hole(content: bytearray, at: int, dice: random.Random) -> None:
    """Put 64 bytes of an erased block somewhere."""
    at += dice.randrange(0, PAGE, 64)
    content[at : at + 64] = b"\xff" * 64


def zeros(content: bytearray, at: int, _dice: random.Random) -> None:
    """Leave nothing."""
    content[at : at + PAGE] = bytes(PAGE)


def noise(content: bytearray, at: int, dice: random.Random) -> None:
    """Put anything."""
    content[at : at + PAGE] = dice.randbytes(PAGE)


def another(content: bytearray, at: int, dice: random.Random) -> None:
    """Put what belongs elsewhere, as a card does that mixes up its blocks."""
    other = dice.randrange(len(content) // PAGE) * PAGE
    content[at : at + PAGE] = content[other : other + PAGE]


def byte(content: bytearray, at: int, dice: random.Random) -> None:
    """Change one byte."""
    content[at + dice.randrange(PAGE)] = dice.randrange(256)


WAYS: list[Damage] = [bit, zeros, byte, noise, hole, another]


def pages(catalog: Path) -> list[tuple[str, int]]:
    """The header, and the last leaf of each table and each index (of a small one its root): where each begins."""
    with closing(sqlite3.connect(catalog)) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE rootpage > 0 ORDER BY name")
        ]
        query = "SELECT max(pageno) FROM dbstat WHERE name = ? AND pagetype = 'leaf'"
        leaves = [(name, db.execute(query, [name]).fetchone()[0]) for name in names]
    return [(name, (page - 1) * PAGE) for name, page in [("sqlite_schema", 1), *leaves]]


class Start:
    """The well's daemon, as far as it runs in this process: a start, and what it does until the full check comes."""

    def __init__(self, well: Well, folder: Path, content: bytes, *, is_marked: bool) -> None:
        self.trap = one = Well.__new__(Well)
        one.__dict__ |= well.__dict__ | {"folder": folder}
        shutil.copytree(well.folder, folder)
        one.storage = type(one.storage)(
            spool=folder / "spool", state=folder / "state", min_free=one.storage.min_free
        )
        one.home, one.stick = Memory("home"), Memory("stick", required=False)
        one.home.stored = dict(well.home.stored)
        before = one.storage.catalog.stat()
        one.storage.catalog.write_bytes(content)
        if is_marked:  # as bits flip on a card: neither size nor time changes
            os.utime(one.storage.catalog, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.is_marked = is_marked
        self.settings = Settings(storage=one.storage)
        self.has_opened = False

    def steps(self) -> Iterator[Callable[[], object]]:
        """What a daemon does, in its order; each is a job or a thread of its own there."""
        one = self.trap
        yield self.start
        yield lambda: snapshot(self.settings, one.time, drawings.DEVICE).plain()
        yield one.ingest
        yield self.correct_times
        yield lambda: one.deliver(one.home)
        yield lambda: one.deliver(one.stick)
        yield lambda: one.catalog.images.without_thumbnails(9)
        yield one.prune
        if not self.is_marked or one.catalog.connection.is_check_due():
            yield self.check

    def start(self) -> None:
        """As the service starts."""
        one, self.has_opened = self.trap, False
        with startup.doubting(one.storage.catalog):
            one.catalog, _ = startup.open_trap(
                *(self.settings, [], drawings.DEVICE, one.time, one.time.sleep),
                has_spool=True,
                is_single_run=False,
            )
            self.has_opened = True
            one.register(one.home, one.stick)
            one.catalog.facts.read()

    def correct_times(self) -> None:
        """What the ingest thread does besides."""
        failures = clock_correction.Failures(self.trap.time)
        one = self.trap
        clock_correction.correct_times(one.catalog, one.storage, self.settings.trap, iter, failures)  # type: ignore[arg-type] # there is none

    def check(self) -> None:
        """The full check, which the daemon runs beside."""
        if problem := integrity.check_file(self.trap.storage.catalog):
            raise self.trap.catalog.connection.found_damaged(problem)

    def lives(self) -> bool:
        """Start and work; False where that ends the daemon. What fails otherwise is a job's, and is tried again."""
        for number, step in enumerate(self.steps()):
            try:
                step()
            except CatalogDamaged:
                break
            except Exception as error:
                if number == 0:
                    break
                if not isinstance(error, TrapsyncError):  # as `Context.tell` does for a bug
                    self.trap.catalog.connection.doubt()
        else:
            return True
        if self.has_opened:
            self.trap.catalog.close()
        return False


def damaged(content: bytes, at: int, way: Damage, dice: random.Random) -> bytes:
    """The catalog with one damage."""
    new = bytearray(content)
    way(new, at, dice)
    return bytes(new)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["each part", "anywhere"])
def test_after_one_end_at_most_the_next_start_is_well_and_each_picture_was_delivered_once(
    tmp_path: Path, folder_in_memory: Path, where: str
) -> None:
    well = Well(tmp_path / "trap")
    well.catalog.notes.put("home", "job", {"id": 1})
    well.catalog.facts.set("not_taken_in", None)
    well.catalog.close()
    card, held = well.contents(), dict(well.home.stored)
    catalog = well.storage.catalog
    content, dice = catalog.read_bytes(), random.Random(where)
    parts = pages(catalog)
    assert len(parts) > 30
    if where == "anywhere":
        parts = [("anywhere", dice.randrange(len(content) // PAGE) * PAGE) for _ in range(ANYWHERE)]
    ended = rebuilt = 0
    for number, (name, at) in enumerate(parts):
        way = WAYS[(number + number // len(WAYS)) % len(WAYS)]
        one = Start(
            well,
            folder_in_memory / f"damage{number}",
            damaged(content, at, way, dice),
            is_marked=bool(number % 2),
        )
        what = f"{name} at {at}: {way.__name__}, {'at rest' if one.is_marked else 'after a kill'}"
        if not one.lives():
            ended += 1
            assert one.lives(), what
        rebuilt += (one.trap.storage.state / "catalog.damaged-1").exists()
        one.trap.time.sleep(8 * 86400)  # the longest wait that is believed
        one.trap.ingest()
        one.trap.deliver(one.trap.home)
        for key, digests in card.items():
            assert one.trap.home.stored[key] in digests, what
        assert one.trap.home.stored.items() >= held.items(), what
        assert not set(one.trap.home.sent) & held.keys(), what
        assert len(one.trap.home.sent) == len(set(one.trap.home.sent)), what
        one.trap.catalog.close()
        shutil.rmtree(one.trap.folder)
    sys.stdout.write(f"{len(parts)} damages: {ended} ended a daemon, {rebuilt} were rebuilt\n")
    assert ended > len(parts) / 8
    assert rebuilt >= ended


def in_log(catalog: Path) -> None:
    """Damage in the write-ahead log: its last commits are gone, with a part of one that others rest on."""
    log = Path(f"{catalog}-wal")
    content = bytearray(log.read_bytes())
    for at in range(len(content) // 3, len(content), 501):
        content[at] ^= 0x10
    log.write_bytes(content)


def in_page(name: str, way: Damage) -> Callable[[Path], None]:
    """Damage in the last leaf of a table or an index."""

    def damage(catalog: Path) -> None:
        with closing(sqlite3.connect(catalog)) as db:  # nobody has it open: the log goes into the file
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        content = catalog.read_bytes()
        at = dict(pages(catalog))[name]
        catalog.write_bytes(damaged(content, at, way, random.Random(name)))

    return damage


def in_digest(catalog: Path) -> None:
    """A bit of a digest turns over."""
    with closing(sqlite3.connect(catalog)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (sha256,) = db.execute("SELECT sha256 FROM images LIMIT 1").fetchone()
    content = bytearray(catalog.read_bytes())
    content[content.index(sha256.encode()) + 7] ^= 1
    catalog.write_bytes(content)


KILLED: dict[str, Callable[[Path], None]] = {
    "images": in_page("images", zeros),
    "deliveries_of_image": in_page("deliveries_of_image", zeros),
    "header": in_page("sqlite_schema", noise),
    "log": in_log,
    "digest": in_digest,
}


class Trap:
    """A real daemon whose check runs at once, with a stick; pictures come one by one."""

    def __init__(self, folder: Path) -> None:
        self.stick = folder / "stick"
        self.stick.mkdir()
        (self.stick / directory.MARK).touch()
        more = f'[destinations.stick]\nkind = "directory"\npath = "{self.stick}"\nevery = "1 s"\n'
        self.daemon = daemon_process.Daemon(folder / "trap", more)
        self.catalog = folder / "trap" / "state" / "catalog.sqlite"
        self.aside = self.catalog.with_suffix(".damaged-1")
        self.pictures: list[str] = []

    def new_picture(self) -> None:
        """Another program puts one into the spool."""
        number = len(self.pictures)
        self.pictures.append(f"{drawings.DEVICE}.2026-06-22_00-00-{number:02}.jpg")
        drawings.put(self.daemon.spool, drawings.trap(seed=number), self.pictures[-1])

    def copies(self) -> list[str]:
        """What the stick holds."""
        return sorted(copy.name for copy in self.stick.rglob("*.jpg"))

    def is_done(self) -> bool:
        """Whether it runs, and every picture is delivered. A catalog that cannot be read tells nothing."""
        facts = self.daemon.status()
        return bool(facts["daemon"]["running"] and facts["ledger"]["delivered"] == len(self.pictures))

    def is_back(self, *, needs_aside: bool) -> bool:
        """Whether it is done, by a catalog that was rebuilt if that is needed."""
        return (self.aside.exists() or not needs_aside) and self.is_done()

    def come_back(self, until: Callable[[], bool]) -> int:
        """Start until this is so; how often the daemon ended."""
        ends, deadline = 0, time.monotonic() + 60
        self.daemon.start()
        while not until():
            assert time.monotonic() < deadline, self.daemon.text()
            if self.daemon.poll() is not None:
                ends += 1
                self.daemon.start()
            time.sleep(0.05)
        return ends


@pytest.mark.timeout(200)
def test_the_real_daemon_comes_back_after_one_end_at_most_whatever_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill, and while it runs; each time a new picture comes, and in the end each was delivered once."""
    monkeypatch.setattr(daemon_process.Daemon, "program", (child_faults.__file__, "checking"))
    trap, ends = Trap(tmp_path), {}
    for _ in range(4):
        trap.new_picture()
    trap.come_back(trap.is_done)
    try:
        for what, damage in KILLED.items():
            trap.daemon.kill()
            damage(trap.catalog)
            trap.new_picture()
            # Of the log SQLite takes what is sound: then there may be nothing to put aside.
            ends[what] = trap.come_back(partial(trap.is_back, needs_aside=what != "log"))
            trap.aside.unlink(missing_ok=True)
        # While it runs, in the very files that it has open: what it has in memory it does not read again.
        for path, at in ((trap.catalog, PAGE), (Path(f"{trap.catalog}-wal"), 8192)):
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes(max(path.stat().st_size - at, 0)))
        trap.new_picture()
        while len(trap.copies()) < len(trap.pictures) and trap.daemon.poll() is None:
            time.sleep(0.05)
        if trap.daemon.poll() is None:
            trap.daemon.stop()
        ends["while it runs"] = trap.come_back(trap.is_done)
        assert trap.daemon.stop() == 0
    finally:
        if trap.daemon.poll() is None:
            trap.daemon.kill()
    assert max(ends.values()) == 1, ends
    assert integrity.check_file(trap.catalog) is None
    assert trap.copies() == trap.pictures
