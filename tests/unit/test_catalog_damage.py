"""A damaged catalog: whoever finds it marks it, and the next start rebuilds it, always."""

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import check_output

import pytest
from sqlite_utils import Database

from trap_bench import Memory, Trap
from trapsync.catalog import Catalog, integrity
from trapsync.catalog.migrations import migrations
from trapsync.catalog.stop_marks import damage_mark, doubt_mark
from trapsync.errors import CatalogDamaged, CatalogError, Unstorable
from trapsync.runtime import catalog_check, startup
from trapsync.settings.schema import Settings
from trapsync.trap import open_catalog

WEEK = 7 * 86400


def work(trap: Trap, images: int = 8) -> None:
    """Some images are found and delivered, long enough ago to be pruned."""
    home = Memory("home")
    trap.register(home)
    for second in range(images):
        trap.put(second, seed=second)
    trap.ingest()
    trap.deliver(home)
    trap.time.sleep(4000)


def kill(trap: Trap) -> None:
    """The daemon is killed: what is in the write-ahead log stays there."""
    files = [Path(f"{trap.storage.catalog}{suffix}") for suffix in ("", "-wal")]
    left = [file.read_bytes() for file in files]
    trap.catalog.connection._db.close()
    for file, content in zip(files, left, strict=True):
        file.write_bytes(content)


def start(trap: Trap) -> None:
    """As the daemon opens the catalog."""
    trap.catalog = open_catalog(Settings(storage=trap.storage), trap.time)


def rot(trap: Trap, change: Callable[[Path], object]) -> None:
    """Bits flip on the card between a clean stop and the next start: neither size nor time of the file changes."""
    trap.catalog.close()
    catalog = trap.storage.catalog
    before = catalog.stat()
    change(catalog)
    os.utime(catalog, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert catalog.stat().st_size == before.st_size
    start(trap)
    assert not trap.catalog.connection.is_check_due()


def sql(statement: str) -> Callable[[Path], object]:
    """What a flipped bit may come to."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute(statement)
            db.commit()

    return change


def break_a_page(path: Path) -> None:
    """A page of an index becomes no page."""
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries_of_image'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 1024)
        file.write(b"\xff" * 100)


def assert_rebuilt_by_the_next_start(trap: Trap) -> None:
    card, catalog = trap.on_card(), trap.storage.catalog
    assert damage_mark(catalog).exists()
    trap.catalog.close()
    start(trap)
    assert not damage_mark(catalog).exists()
    assert catalog.with_suffix(".damaged-1").exists()
    trap.register(home := Memory("home"))
    trap.ingest()
    assert trap.deliver(home).delivered == len(card) == 8
    assert not trap.catalog.connection.is_check_due()


def test_a_catalog_that_was_closed_in_order_is_checked_once_a_week(trap: Trap) -> None:
    work(trap)
    for days in range(1, 7):
        trap.restart()
        assert not trap.catalog.connection.is_check_due(), days
        trap.time.sleep(86000)
    trap.time.sleep(WEEK)
    trap.restart()
    assert trap.catalog.connection.is_check_due()
    trap.catalog.connection.note_checked()
    trap.restart()
    assert not trap.catalog.connection.is_check_due()


def test_after_a_kill_it_is_checked_however_often_it_was_opened_and_closed_meanwhile(trap: Trap) -> None:
    work(trap)
    trap.restart()
    trap.put(50, seed=50)
    trap.ingest()
    kill(trap)
    start(trap)
    trap.restart()
    assert trap.catalog.connection.is_check_due()
    catalog_check.check(trap.catalog, trap.storage.catalog, lambda: None)
    assert trap.catalog.connection.damage is None
    assert not trap.catalog.connection.is_check_due()
    trap.restart()
    assert not trap.catalog.connection.is_check_due()


@pytest.mark.parametrize("what", ["catalog", "catalog's log", "mark"])
def test_what_somebody_changed_between_stop_and_start_is_checked(trap: Trap, what: str) -> None:
    work(trap)
    trap.catalog.close()
    catalog = trap.storage.catalog
    if what == "catalog":
        sql("DELETE FROM facts")(catalog)
    elif what == "mark":
        catalog.with_suffix(".closed").write_bytes(b"\xff checked at never")
    else:
        Path(f"{catalog}-wal").write_bytes(b"of an older round")
    start(trap)
    assert trap.catalog.connection.is_check_due()


def test_a_command_beside_the_daemon_leaves_checks_and_marks_to_it(trap: Trap) -> None:
    work(trap)
    command = Catalog.open(trap.storage.catalog, trap.time, beside=True)
    assert not command.connection.is_check_due()
    command.deliveries.retry()
    command.close()
    assert not trap.storage.catalog.with_suffix(".closed").exists()
    assert trap.catalog.connection.is_there()


def test_a_catalog_of_an_earlier_version_loses_its_seals_and_nothing_else(trap: Trap) -> None:
    work(trap)
    trap.catalog.close()
    trap.storage.catalog.with_suffix(".closed").unlink()
    seals = Path(f"{trap.storage.catalog}-seals")
    seals.write_bytes(b"1234" * 40)
    start(trap)
    assert not seals.exists()
    assert trap.catalog.connection.is_check_due()
    assert trap.ledger() == (8, 8, 0, 0, 0)


def ask_another_process(trap: Trap, statement: str) -> int:
    """What another process finds, or does, which then closes the catalog."""
    ask = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "print(*(db.execute(sys.argv[2]).fetchone() or [0])); db.close()"
    )
    return int(check_output([sys.executable, "-c", ask, trap.storage.catalog, statement], text=True))


COUNT = "SELECT count(*) FROM images"


def test_another_process_that_closes_the_catalog_last_leaves_us_our_log(trap: Trap) -> None:
    work(trap)
    trap.catalog.connection.checkpoint()
    assert ask_another_process(trap, COUNT) == 8
    assert trap.catalog.connection.is_there()
    trap.put(50, seed=50)
    trap.ingest()
    assert ask_another_process(trap, COUNT) == 9


def test_where_sqlite_lost_its_locks_and_two_wrote_the_next_start_checks_and_the_one_after_it_rebuilds(
    trap: Trap,
) -> None:
    work(trap)
    trap.catalog.connection.checkpoint()
    trap.storage.catalog.open("rb").close()  # which takes all locks of this process from the file
    assert ask_another_process(trap, COUNT) == 8
    assert not trap.catalog.connection.is_there()
    for number in range(9):  # into a log that has no name any more
        trap.catalog.notes.put("home", f"{number}", "x" * 900)
    ask_another_process(trap, "UPDATE images SET path = path || hex(zeroblob(400))")
    trap.catalog.close()
    start(trap)
    assert trap.catalog.connection.is_check_due()
    catalog_check.check(trap.catalog, trap.storage.catalog, lambda: None)
    assert trap.catalog.connection.damage
    assert_rebuilt_by_the_next_start(trap)


def test_a_page_that_rots_at_rest_is_found_when_it_is_used(trap: Trap) -> None:
    work(trap)
    rot(trap, break_a_page)
    with pytest.raises(CatalogDamaged):
        trap.register(Memory("another"))
    assert_rebuilt_by_the_next_start(trap)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET md5 = replace(md5, 'a', 'b')",
        "UPDATE images SET wall = wall + 1",
        "UPDATE deliveries SET digest = 'sha256:00'",
        "UPDATE files SET leaving = 1 WHERE image_id = 3",
        "UPDATE files SET leaving = 2 WHERE image_id = 3",
        "UPDATE files SET image_id = 4 WHERE image_id = 3",
    ],
)
def test_a_value_that_rots_at_rest_lets_no_image_leave_the_card(trap: Trap, change: str) -> None:
    work(trap)
    rot(trap, sql(change))
    home = Memory("home")
    home.identity = "memory home"
    with pytest.raises(CatalogDamaged):
        trap.prune()
    assert len(trap.on_card()) == 8
    assert_rebuilt_by_the_next_start(trap)


def test_an_image_whose_row_rots_at_rest_is_not_even_marked_to_leave(trap: Trap) -> None:
    work(trap)
    rot(trap, sql("UPDATE images SET wall = wall + 1"))
    with pytest.raises(CatalogDamaged):
        trap.prune()
    marked = trap.catalog.connection._db.execute("SELECT count(*) FROM files WHERE leaving = 1")
    assert marked.fetchone() == (0,)


def test_metadata_that_rots_at_rest_is_found_when_it_is_read(trap: Trap) -> None:
    work(trap)
    rot(trap, sql("UPDATE images SET metadata = replace(metadata, '{', '[') WHERE id = 3"))
    with pytest.raises(CatalogDamaged):
        trap.catalog.proofs.delivered_to("home", 0, 9)
    assert_rebuilt_by_the_next_start(trap)


def test_what_rots_at_rest_and_is_not_used_is_found_by_the_check(trap: Trap) -> None:
    work(trap)
    rot(trap, sql("UPDATE images SET md5 = replace(md5, 'a', 'b')"))
    trap.time.sleep(WEEK)
    assert trap.catalog.connection.is_check_due()
    catalog_check.check(trap.catalog, trap.storage.catalog, lambda: None)
    assert "an image whose seal is broken" in str(trap.catalog.connection.damage)
    assert_rebuilt_by_the_next_start(trap)


@pytest.mark.parametrize("way", ["ends", "takes too long", "cannot read"])
def test_a_check_that_comes_to_no_end_says_nothing_about_the_catalog(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    work(trap)
    kill(trap)
    start(trap)
    path = trap.storage.catalog
    if way == "ends":
        monkeypatch.setattr(catalog_check, "_run", print)  # and says nothing by the pipe
    elif way == "takes too long":
        monkeypatch.setattr(catalog_check, "_MAX_TIME", 0)
    else:
        path = path.with_name("elsewhere")
    catalog_check.check(trap.catalog, path, lambda: None)
    assert trap.catalog.connection.damage is None
    assert trap.catalog.connection.is_check_due()
    assert not damage_mark(trap.storage.catalog).exists()


def test_where_not_even_the_mark_can_be_written_the_next_start_checks_again(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(trap)
    rot(trap, break_a_page)

    def full(_path: object, _flags: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trapsync.files.durable.open_plain", full)
        with pytest.raises(CatalogError):
            trap.register(Memory("another"))
    trap.catalog.close()
    start(trap)
    assert trap.catalog.connection.is_check_due()
    catalog_check.check(trap.catalog, trap.storage.catalog, lambda: None)
    assert_rebuilt_by_the_next_start(trap)


def test_the_checksum_of_the_schema_is_that_of_the_migrations() -> None:
    db = Database(memory=True, execute_plugins=False)
    migrations.apply(db)
    assert hex(integrity.schema_checksum(db.conn)) == hex(integrity.SCHEMA)
    db.conn.close()


def schema(change: str) -> Callable[[Path], object]:
    """What a flipped bit in the page of the schema may come to."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute(f"UPDATE sqlite_schema SET sql = {change}")
            db.commit()

    return damage


@pytest.mark.parametrize(
    "change",
    [
        "replace(sql, 'clock_trusted', 'clock_trustee') WHERE name = 'images'",
        "replace(sql, 'INTO tallies', 'INTO dallies') WHERE type = 'trigger'",
        "replace(sql, 'n + 1', 'n + 3') WHERE type = 'trigger'",
        "replace(sql, 'folder', 'golder') WHERE name = 'files'",
    ],
)
def test_a_schema_that_rots_at_rest_is_found_by_the_start(trap: Trap, change: str) -> None:
    """It was no damage to SQLite: deliveries, or ingest, failed until the check of the week."""
    work(trap)
    trap.catalog.close()
    catalog = trap.storage.catalog
    before = catalog.stat()
    schema(change)(catalog)
    os.utime(catalog, ns=(before.st_atime_ns, before.st_mtime_ns))
    start(trap)
    assert catalog.with_suffix(".damaged-1").exists()
    trap.register(home := Memory("home"))
    trap.ingest()
    assert trap.deliver(home).delivered == 8


@pytest.mark.timeout(20)
def test_a_delivery_that_only_an_index_holds_for_pending_is_not_asked_about_without_end(trap: Trap) -> None:
    """One byte of its state: it was found, asked about and recorded again and again, in one turn that never ended."""
    trap.register(home := Memory("home"))
    trap.put(1)
    trap.ingest()
    trap.catalog.close()
    catalog = trap.storage.catalog
    content = catalog.read_bytes()
    with closing(sqlite3.connect(catalog)) as db:
        query = "SELECT pageno FROM dbstat WHERE name = 'deliveries' AND pagetype = 'leaf'"
        page = (db.execute(query).fetchone()[0] - 1) * 1024
    at = content.index(b"pending", page, page + 1024)
    before = catalog.stat()
    catalog.write_bytes(content[:at] + b"qending" + content[at + 7 :])
    os.utime(catalog, ns=(before.st_atime_ns, before.st_mtime_ns))
    start(trap)
    trap.destinations = [home]
    with pytest.raises(CatalogDamaged, match="an index contradicts it"):
        trap.deliver(home)
    trap.catalog.close()
    start(trap)
    trap.register(home)
    trap.ingest()
    assert trap.deliver(home).delivered == 1


@pytest.mark.timeout(20)
def test_a_picture_that_only_an_index_holds_for_lacking_is_not_copied_without_end(trap: Trap) -> None:
    work(trap)
    values = "UPDATE images SET thumbnails = 1 WHERE id = 3"
    rot(trap, lambda path: without_indexes(path, values))
    with pytest.raises(CatalogDamaged, match="an index contradicts it"):
        trap.catalog.images.without_thumbnails(9)
    assert_rebuilt_by_the_next_start(trap)


def without_indexes(path: Path, statement: str) -> None:
    """Change a value of a table behind the back of its indexes: their pages stay as they were."""
    pages = {}
    with closing(sqlite3.connect(path)) as db:
        indexes = "SELECT pageno FROM dbstat JOIN sqlite_schema USING (name) WHERE type = 'index'"
        for (page,) in db.execute(indexes).fetchall():
            pages[page] = path.read_bytes()[(page - 1) * 1024 : page * 1024]
    sql(statement)(path)
    with path.open("r+b") as file:
        for page, content in pages.items():
            file.seek((page - 1) * 1024)
            file.write(content)


def test_a_row_of_which_no_image_can_be_made_is_damage(trap: Trap) -> None:
    work(trap)
    trap.catalog.connection._db.execute("UPDATE images SET metadata = '[' || metadata WHERE id = 3")
    with pytest.raises(CatalogDamaged):
        trap.catalog.images.on_card(0, 9)
    assert_rebuilt_by_the_next_start(trap)


# ── Doubt: what fails for no reason that is known may be damage ──────────────────────────────────────


def test_a_start_that_ends_by_a_bug_has_the_next_one_check_the_catalog_before_it_uses_it(trap: Trap) -> None:
    """Else it could end at the same row each time, long before the check in the background is due."""
    work(trap)
    rot(trap, sql("UPDATE images SET md5 = replace(md5, 'a', 'b')"))
    with pytest.raises(ZeroDivisionError), startup.doubting(trap.storage.catalog):
        raise ZeroDivisionError("in the middle of a start")
    trap.catalog.connection._db.close()
    start(trap)
    assert not doubt_mark(trap.storage.catalog).exists()
    assert trap.storage.catalog.with_suffix(".damaged-1").exists()


def test_a_sound_catalog_that_was_doubted_is_kept_and_not_checked_again(trap: Trap) -> None:
    work(trap)
    kill(trap)
    with pytest.raises(ZeroDivisionError), startup.doubting(trap.storage.catalog):
        raise ZeroDivisionError("a mistake of our own")
    start(trap)
    assert not doubt_mark(trap.storage.catalog).exists()
    assert not trap.catalog.connection.is_check_due()
    assert trap.ledger() == (8, 8, 0, 0, 0)
    with pytest.raises(CatalogError), startup.doubting(trap.storage.catalog):
        raise CatalogError("the card is full")  # an error that is known
    assert not doubt_mark(trap.storage.catalog).exists()


def test_after_a_bug_or_a_refusal_that_damage_would_explain_the_check_is_due_once(trap: Trap) -> None:
    work(trap)
    trap.catalog.connection.note_checked()
    connection, insert = trap.catalog.connection, "INSERT INTO facts VALUES ('bug', NULL, 0)"
    for is_first in (True, False):
        with pytest.raises(Unstorable), connection.transaction("test") as db:
            db.execute(insert)
        assert connection.is_check_due() is is_first
        assert connection.has_news_of_doubt() is is_first
        assert doubt_mark(trap.storage.catalog).exists() is is_first
        assert not connection.has_news_of_doubt()
        catalog_check.check(trap.catalog, trap.storage.catalog, lambda: None)
        assert not connection.is_check_due()
        assert not doubt_mark(trap.storage.catalog).exists()


def test_a_command_beside_the_daemon_leaves_doubt_to_it(trap: Trap) -> None:
    work(trap)
    command = Catalog.open(trap.storage.catalog, trap.time, beside=True)
    command.connection.doubt()
    assert not doubt_mark(trap.storage.catalog).exists()
    stop = doubt_mark(trap.storage.catalog)
    stop.touch()
    Catalog.open(trap.storage.catalog, trap.time, beside=True).close()
    assert stop.exists()
    command.close()
