"""The seals of the catalog's pages: what they vouch for is as it was, and everything else is looked at."""

import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from subprocess import check_output

import pytest

from trap_bench import Memory, Trap
from trapsync.catalog import Catalog, integrity
from trapsync.catalog import file as catalog_file
from trapsync.catalog.file import damage_mark
from trapsync.catalog.pages import PAGE, PageSeals, _seals_of
from trapsync.errors import CatalogDamaged
from trapsync.files import failpoint
from trapsync.settings.schema import Settings
from trapsync.trap import open_catalog


class Killed(BaseException):
    """Stands for SIGKILL where the process of the test must live on."""


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows whenever every row of a catalog is looked at."""
    made: list[str] = []
    real = integrity.problem

    def problem(db: sqlite3.Connection, pristine: sqlite3.Connection) -> str | None:
        made.append("looked")
        return real(db, pristine)

    monkeypatch.setattr(integrity, "problem", problem)
    return made


def work(trap: Trap, images: int = 8) -> None:
    """Some images are found and delivered."""
    home = Memory("home")
    trap.register(home)
    for second in range(images):
        trap.put(second, seed=second)
    trap.ingest()
    trap.deliver(home)


def kill(trap: Trap) -> None:
    """The daemon is killed: what is in the write-ahead log stays there."""
    files = [Path(f"{trap.storage.catalog}{suffix}") for suffix in ("", "-wal", "-seals")]
    left = [file.read_bytes() for file in files]
    trap.catalog._db.close()
    for file, content in zip(files, left, strict=True):
        file.write_bytes(content)


def start(trap: Trap, *, beside: bool = False) -> None:
    trap.catalog = Catalog.open(trap.storage.catalog, trap.time, beside=beside)


def test_after_a_clean_end_and_after_a_kill_no_row_is_looked_at(trap: Trap, looks: list[str]) -> None:
    work(trap)
    trap.catalog.close()
    start(trap)
    trap.put(50, seed=50)
    trap.ingest()
    kill(trap)
    assert Path(f"{trap.storage.catalog}-wal").stat().st_size > 4096
    start(trap)
    assert trap.ledger() == (9, 8, 1, 0, 0)
    assert looks == []


def test_another_process_that_closes_the_catalog_last_leaves_us_our_log(trap: Trap) -> None:
    trap.catalog.close()
    start(trap)
    work(trap)
    trap.catalog.checkpoint()  # which seals, and so reads the catalog's file
    ask = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        "print(*db.execute('SELECT count(*) FROM images').fetchone()); db.close()"
    )

    def asked() -> int:
        return int(check_output([sys.executable, "-c", ask, trap.storage.catalog], text=True))

    assert asked() == 8
    assert trap.catalog.is_there()
    trap.put(50, seed=50)
    trap.ingest()
    assert asked() == 9


def test_a_log_that_somebody_took_away_is_missed(trap: Trap) -> None:
    work(trap)
    assert trap.catalog.is_there()
    Path(f"{trap.storage.catalog}-wal").unlink()
    assert not trap.catalog.is_there()


def test_a_bit_that_turned_over_anywhere_is_seen(trap: Trap) -> None:
    work(trap)
    trap.catalog.close()
    seals, content = PageSeals(trap.storage.catalog), trap.storage.catalog.read_bytes()
    assert seals.hold()
    dice = random.Random(1)
    pages = len(content) // PAGE
    places = [PAGE * page + dice.randrange(PAGE) for page in range(pages) for _ in range(10)]
    for at in places:
        damaged = bytearray(content)
        damaged[at] ^= 1 << dice.randrange(8)
        trap.storage.catalog.write_bytes(damaged)
        assert not seals.hold(), at
    assert len(places) > 300
    for other in (content[:-1], content[:-PAGE], content + bytes(PAGE), b"", content[PAGE:] + content[:PAGE]):
        trap.storage.catalog.write_bytes(other)
        assert not seals.hold()
    trap.storage.catalog.write_bytes(content)
    start(trap)


@pytest.mark.parametrize("what", ["gone", "empty", "cut", "longer", "of other pages"])
def test_without_its_seals_every_row_is_looked_at_and_it_is_sealed_again(
    trap: Trap, looks: list[str], what: str
) -> None:
    work(trap)
    trap.catalog.close()
    seals = Path(f"{trap.storage.catalog}-seals")
    whole = seals.read_bytes()
    damaged = {"empty": b"", "cut": whole[:-4], "longer": whole + b"1234", "of other pages": whole[::-1]}
    if what == "gone":
        seals.unlink()
    else:
        seals.write_bytes(damaged[what])
    start(trap)
    assert looks == ["looked"]
    assert seals.read_bytes() == whole
    trap.restart()
    assert looks == ["looked"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_the_log_is_folded_in_every_row_is_looked_at_only_if_it_must_be(
    trap: Trap, looks: list[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    work(trap)

    def renewing(seals: PageSeals) -> None:
        if when == "after":
            renew(seals)
        raise Killed

    renew = PageSeals.renew
    monkeypatch.setattr(PageSeals, "renew", renewing)
    with pytest.raises(Killed):
        trap.catalog.checkpoint()
    monkeypatch.undo()
    monkeypatch.setattr(integrity, "problem", lambda *_: looks.append("looked"))
    kill(trap)
    start(trap)
    assert looks == (["looked"] if when == "before" else [])
    assert trap.ledger() == (8, 8, 0, 0, 0)
    trap.restart()
    assert len(looks) <= 1


def test_a_reader_that_stays_keeps_the_log_and_in_the_end_everything_is_sealed(
    trap: Trap, looks: list[str]
) -> None:
    work(trap, images=2)
    with closing(sqlite3.connect(trap.storage.catalog, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM images").fetchone()
        for second in range(10, 20):
            trap.put(second, seed=second)
            trap.ingest()
            trap.catalog.checkpoint()
        assert Path(f"{trap.storage.catalog}-wal").stat().st_size > 0
    trap.put(30, seed=30)
    trap.ingest()
    trap.catalog.checkpoint()
    assert PageSeals(trap.storage.catalog).hold()
    trap.restart()
    assert looks == []


def test_what_was_folded_in_while_a_reader_stayed_is_sealed_with_what_is_folded_in_next(trap: Trap) -> None:
    work(trap, images=9)
    with closing(sqlite3.connect(trap.storage.catalog, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM images").fetchone()
        trap.catalog.checkpoint()  # all pages are in the file, but the log cannot begin anew
        assert not PageSeals(trap.storage.catalog).hold()
    trap.catalog.set_fact("capture", 1)  # now it does: of the pages before, it knows nothing any more
    trap.catalog.checkpoint()
    assert PageSeals(trap.storage.catalog).hold()


def test_a_long_log_is_folded_in_by_whoever_writes(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_file, "_LONG_LOG", 200_000)
    longest = 0
    for number in range(200):
        trap.catalog.set_fact("capture", number)
        longest = max(longest, Path(f"{trap.storage.catalog}-wal").stat().st_size)
    assert 100_000 < longest < 300_000


def test_a_short_log_is_left_alone_where_that_is_asked_for(trap: Trap) -> None:
    log = Path(f"{trap.storage.catalog}-wal")
    trap.catalog.set_fact("capture", 1)
    trap.catalog.checkpoint(10**6)
    assert log.stat().st_size > 0
    trap.catalog.checkpoint(1000)
    assert log.stat().st_size == 0


def test_beside_a_daemon_nothing_is_looked_at_and_nothing_folded_in(trap: Trap, looks: list[str]) -> None:
    work(trap)
    Path(f"{trap.storage.catalog}-seals").unlink()
    command = Catalog.open(trap.storage.catalog, trap.time, beside=True)
    assert looks == []
    command.retry()
    command.set_fact("bug", "no")
    log = Path(f"{trap.storage.catalog}-wal").stat().st_size
    command.close()
    assert Path(f"{trap.storage.catalog}-wal").stat().st_size == log > 4096


def test_whatever_is_written_folded_and_killed_in_any_order_the_seals_are_those_of_the_file(
    trap: Trap, looks: list[str]
) -> None:
    dice, second = random.Random(3), 0
    home = Memory("home")
    trap.register(home)
    for _ in range(60):
        match dice.choice(["work", "work", "fold", "kill", "end", "command"]):
            case "work":
                for _ in range(dice.randrange(1, 12)):
                    second += 1
                    trap.put(second, seed=second % 50)
                trap.ingest()
                trap.deliver(home)
            case "fold":
                trap.catalog.checkpoint()
            case "kill":
                kill(trap)
                start(trap)
            case "end":
                trap.restart()
            case "command":
                command = Catalog.open(trap.storage.catalog, trap.time, beside=True)
                command.set_fact("bug", second)
                command.close()
        assert PageSeals(trap.storage.catalog).hold()
    assert looks == []
    assert second > 50


def test_the_seals_are_flushed_under_a_failpoint(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    hits: list[str] = []
    monkeypatch.setattr(failpoint, "hit", hits.append)
    work(trap, images=1)
    trap.catalog.checkpoint()
    assert hits[-1] == "catalog: sealed"


def turn_a_byte_over(trap: Trap) -> None:
    """A digest rots on the card, in a page that is not written again."""
    (md5,) = trap.catalog._db.execute("SELECT md5 FROM images LIMIT 1").fetchone()
    content = trap.storage.catalog.read_bytes()
    at = content.index(md5.encode())
    with trap.storage.catalog.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))


def test_pages_that_rotted_while_the_seals_could_not_be_written_get_none_unseen(
    trap: Trap, looks: list[str]
) -> None:
    work(trap, images=40)
    trap.restart()
    looks.clear()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fdatasync", full)
        trap.catalog.set_fact("x", 1)
        trap.catalog.checkpoint()
    turn_a_byte_over(trap)
    trap.catalog.set_fact("x", 2)
    trap.catalog.checkpoint()
    assert not PageSeals(trap.storage.catalog).hold()
    trap.catalog.close()
    with pytest.raises(CatalogDamaged):
        start(trap)
    assert looks == ["looked"]
    trap.storage.catalog.unlink()
    start(trap)


def break_a_page(trap: Trap, index: str) -> None:
    """A page of an index is no page any more, and has its seal all the same."""
    (root,) = trap.catalog._db.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = ?", [index]
    ).fetchone()
    trap.catalog.close()
    with trap.storage.catalog.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(b"\xff" * 100)
    pages = trap.storage.catalog.read_bytes()
    Path(f"{trap.storage.catalog}-seals").write_bytes(_seals_of(pages))


def test_a_catalog_that_is_found_damaged_in_use_is_rebuilt_by_the_next_start(trap: Trap) -> None:
    work(trap)
    break_a_page(trap, "deliveries_of_image")
    settings = Settings(storage=trap.storage)
    trap.catalog = open_catalog(settings, trap.time)  # its seals hold: nothing is looked at
    with pytest.raises(CatalogDamaged):
        trap.register(Memory("another"))
    assert damage_mark(trap.storage.catalog).exists()
    trap.catalog._db.close()
    trap.catalog = open_catalog(settings, trap.time)
    assert not damage_mark(trap.storage.catalog).exists()
    assert trap.storage.catalog.with_suffix(".damaged-1").exists()
    trap.register(home := Memory("home"))
    trap.ingest()
    assert trap.deliver(home).delivered == 8
