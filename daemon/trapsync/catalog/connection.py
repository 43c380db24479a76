"""The catalog's file: open, write in transactions, query, close. The door to SQLite.

One process writes, through one connection under one lock; `BEGIN IMMEDIATE`, so that no reader that turns writer
meets SQLITE_BUSY; WAL with `synchronous=FULL`, so that a commit survives a power cut. Nothing but SQLite opens the file: to
open and close it beside SQLite drops SQLite's locks (sqlite.org/howtocorrupt.html, 2.2).
"""

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlite_utils import Database

from trapsync.catalog import integrity, stop_marks
from trapsync.catalog.migrations import migrations
from trapsync.catalog.rows import image_of
from trapsync.clock import Clock
from trapsync.errors import CatalogDamaged, CatalogError, CatalogOfNewer, Unstorable
from trapsync.files import failpoint, mounts
from trapsync.image import Image

# Bytes. An image that comes by itself touches a dozen pages, and half as many when it goes, each written whole.
_PAGE = 1024
# Only the value that was to be written is at fault: a number, a text or a row that may not be. Or damage.
_FAULT_OF_VALUE = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
_LARGEST_NUMBER = 2**63
_BUSY_TIMEOUT = 5  # seconds for another process that writes; less than the ten in which a daemon must end
_CHECK_EVERY = 7 * 86400  # seconds between two full checks of a catalog that is always closed in order
_MIGRATIONS = {migration.name for migration in migrations._migrations}


class Transaction:
    """What a transaction hands to those who write in it. Each value that is bound is checked here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        """Run one statement. Raises Unstorable for a value that a column cannot hold as it is."""
        require_storable(parameters.values() if isinstance(parameters, dict) else parameters)
        cursor: sqlite3.Cursor = self._database.execute(sql, parameters)
        return cursor


def require_storable(values: Iterable[Any]) -> None:
    """Unstorable for a text that does not encode, a number beyond 64 bits, and one that is none.

    SQLite refuses the first two by itself, with other errors; of NaN it makes NULL without a word, and of what is
    infinite something that no JSON has.
    """
    for value in values:
        match value:
            case float() if not math.isfinite(value):
                raise Unstorable(f"the catalog cannot hold a value: {value} is no number")
            case int() if not -_LARGEST_NUMBER <= value < _LARGEST_NUMBER:
                raise Unstorable("the catalog cannot hold a value: a number beyond 64 bits")
            case str() if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise Unstorable("the catalog cannot hold a value: a text that does not encode") from None


class Connection:
    """The catalog's file, open. Safe to use from several threads; one process writes."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, *, may_write: bool = True, is_beside: bool = False
    ) -> None:
        """`is_beside`: another process, the daemon, has it open, and closes it in order."""
        self._may_write = may_write
        self._is_beside = is_beside
        self._db = Database(connection, execute_plugins=False)
        self._path = Path(self._db.execute("PRAGMA database_list").fetchone()[2])
        self._in_use: list[tuple[int, int] | None] = []
        self.clock = clock
        self._lock = threading.RLock()
        # When a full check last found nothing wrong; None: the last stop was not clean, and it was not checked since.
        self._checked_at: float | None = None
        # What was found damaged while it was in use: only the next start helps, which rebuilds it.
        self.damage: CatalogDamaged | None = None
        self._doubted = self._is_doubt_news = False

    @classmethod
    def open(cls, path: Path, clock: Clock, *, beside: bool = False) -> Self:
        """Open the catalog for writing; make or migrate it.

        `beside` a daemon that is running: the mark of a clean stop is the daemon's.
        One that is doubted is checked in full before. Raises CatalogDamaged when the file is no catalog, was found
        damaged, or is newer than this program, and CatalogError when it cannot be opened for another reason.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if stop_marks.damage_mark(path).exists():
                raise CatalogDamaged(f"{path}: it was found damaged while it was in use")
            integrity.require_plain(path)
            is_new = not path.exists()
            checked_at = None if beside else stop_marks.take_closed_mark(path)
            connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise CatalogError(f"{path}: the catalog cannot be opened: {_reason(error)}") from error
        catalog = cls(connection, clock, is_beside=beside)
        try:
            catalog._prepare()
            if is_doubted := not beside and stop_marks.doubt_mark(path).exists():
                catalog._require_sound_file()
        # Damage also shows as an error message that is no text, or as a missing column.
        except (sqlite3.DatabaseError, CatalogDamaged, ValueError, LookupError, TypeError) as error:
            catalog._db.close()
            if integrity.is_not_its_fault(error, path):
                raise CatalogError(f"{path}: the catalog cannot be opened: {error}") from error
            kind = CatalogOfNewer if isinstance(error, CatalogOfNewer) else CatalogDamaged
            raise kind(f"{path}: the catalog cannot be used: {error}") from error
        catalog._checked_at = clock.wall() if is_new or is_doubted else checked_at
        catalog._in_use = catalog._files()
        return catalog

    @classmethod
    def open_to_read(cls, path: Path, clock: Clock) -> Self:
        """Open the catalog for reading only, beside a daemon or without one. Close it soon.

        SQLite makes files beside the catalog even in order to read it. Who may not, and finds no
        write-ahead log that belongs to it, reads the file alone: nobody is writing.
        """
        integrity.require_plain(path)
        address = f"{path.absolute().as_uri()}?mode=ro"
        alone = [] if Path(f"{path}-wal").exists() else [f"{address}&immutable=1"]
        for uri in (address, *alone):
            try:
                connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)
                connection.execute("SELECT 1 FROM images LIMIT 1")
                _require_migrated(connection, path)
            except sqlite3.Error as error:
                problem = error
            else:
                return cls(connection, clock, may_write=False)
        raise CatalogError(f"{path}: the catalog cannot be read: {_reason(problem)}") from problem

    def _prepare(self) -> None:
        for pragma in (
            f"page_size={_PAGE}",  # of a new file; an existing one keeps its own
            "journal_mode=WAL",
            "synchronous=FULL",
            "journal_size_limit=1048576",
            "cell_size_check=ON",
            "foreign_keys=ON",
        ):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        integrity.accept_any_text(self._db.conn)
        unknown = {done.name for done in migrations.applied(self._db)} - _MIGRATIONS
        if unknown:
            raise CatalogOfNewer(f"a newer trapsync wrote it ({', '.join(sorted(unknown))})")
        migrations.apply(self._db)
        if not integrity.has_our_schema(
            self._db.conn
        ):  # every query goes by it, and by SQLite's own errors it is a bug
            raise CatalogDamaged("its schema is not as it was made")

    # The full check

    def _require_sound_file(self) -> None:
        if problem := integrity.problem(self._db.conn):
            raise CatalogDamaged(problem)
        stop_marks.end_doubt(self._path)

    def doubt(self) -> None:
        """Have every row checked soon, for something failed that damage would explain; once in the life of a process.

        Whoever has a daemon runs the check beside it (`is_check_due`). If the daemon ends before, the next start does.
        """
        if self._may_write and not self._is_beside and not self._doubted:
            self._doubted = self._is_doubt_news = True
            self._checked_at = None
            stop_marks.mark_doubt(self._path)

    def has_news_of_doubt(self) -> bool:
        """Whether a doubt came up since this was asked last: then a check should begin."""
        is_news, self._is_doubt_news = self._is_doubt_news, False
        return is_news

    def is_check_due(self) -> bool:
        """Whether every row should be checked: the last stop was not clean, or the last check is a week ago."""
        if self._is_beside:
            return False
        at = self._checked_at
        return at is None or not 0 <= self.clock.wall() - at < _CHECK_EVERY

    def note_checked(self) -> None:
        """A full check found nothing wrong."""
        self._checked_at = self.clock.wall()
        stop_marks.end_doubt(self._path)

    def found_damaged(self, problem: str) -> CatalogDamaged:
        """Mark the catalog as damaged, so that the next start rebuilds it; the error to raise."""
        self.damage = CatalogDamaged(problem)
        if self._may_write:  # a reader beside a writer may see what is not so
            stop_marks.mark_damage(self._path)
        return self.damage

    def is_there(self) -> bool:
        """Whether the files that are open still have their names: what is written into others is lost."""
        return self._files() == self._in_use

    def _files(self) -> list[tuple[int, int] | None]:
        return [mounts.identity(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal")]

    def close(self) -> None:
        """Move the write-ahead log into the file and close it; only then it is marked as closed in order."""
        if not self._may_write:
            self._db.close()
            return
        with self._lock:
            is_whole = False
            with suppress(CatalogError):
                is_whole = self.checkpoint() and self.is_there() and not self.damage
            self._db.close()
            if is_whole and self._checked_at is not None:
                stop_marks.mark_closed(self._path, self._checked_at)

    def checkpoint(self) -> bool:
        """Move the whole write-ahead log into the file; False if a reader, or the daemon beside us, keeps some of it."""
        if self._is_beside:
            return False
        with self.refusing("write"):
            # Without the timeout of a write: a reader that stays would hold up everything, and the end.
            self._db.execute("PRAGMA busy_timeout=0").fetchall()
            try:
                ((is_busy, *_),) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._db.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT * 1000}").fetchall()
            return not is_busy

    @contextmanager
    def transaction(self, what: str) -> Iterator[Transaction]:
        """Begin a transaction, here and nowhere else; what happens inside happens whole or not at all.

        `what` names it for the failpoints before and after its commit.
        """
        with self.refusing("write"):
            if self._db.conn.in_transaction:  # ours, as we have the lock: part of `together`
                failpoint.hit(f"catalog: before {what}")
                yield Transaction(self._db)
                failpoint.hit(f"catalog: after {what}")
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._db)
                failpoint.hit(f"catalog: before {what}")
                self._db.execute("COMMIT")
                failpoint.hit(f"catalog: after {what}")
            except BaseException:
                self._db.rollback()
                raise

    @contextmanager
    def unflushed(self) -> Iterator[None]:
        """Commit without a flush: a power cut may undo it until the next commit, which flushes this one too.

        Not within a transaction.
        """
        with self.refusing("write"):
            self._db.execute("PRAGMA synchronous=NORMAL").fetchall()
            try:
                yield
            finally:
                self._db.execute("PRAGMA synchronous=FULL").fetchall()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Put several writes into one commit, since a card is slow at flushes."""
        with self.transaction("together"):
            yield

    def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows that a query finds, as dicts."""
        with self.refusing("read"):
            return list(self._db.query(sql, parameters))

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """Let all queries of a reader see the catalog as it is at the first of them, whatever a writer does meanwhile."""
        with self.refusing("read"):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):  # an error may have ended it
                self._db.execute("ROLLBACK")

    def query_images(self, sql: str, **parameters: Any) -> list[Image]:
        """The images that a query finds, which selects the columns of `rows.IMAGE`.

        And `is_wrong`, where what an index says could contradict the row: it would be found again and again.
        """
        with self.refusing("read"):
            rows = self.query(sql, **parameters)
            try:
                if any(row.get("is_wrong") for row in rows):
                    raise ValueError("an index contradicts it")
                return [image_of(row) for row in rows]
            except (LookupError, TypeError, ValueError) as error:  # no row of ours is like that
                raise self.found_damaged(
                    f"the catalog is damaged: a row is not as it was written: {error!r}"
                ) from error

    def require_sound(self, rows: list[dict[str, Any]]) -> None:
        """Trust these images enough to delete them, or mark the catalog as damaged: see `integrity.require_sound`."""
        try:
            integrity.require_sound(rows)
        except CatalogDamaged as error:
            raise self.found_damaged(str(error)) from None

    @contextmanager
    def refusing(self, what: str) -> Iterator[None]:
        """Hold the lock; raise SQLite's errors as errors of the program, and mark damage."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                refusal = f"the catalog refuses a {what}: {_reason(error)}"
                if integrity.is_damage(error):
                    raise self.found_damaged(refusal) from error
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _FAULT_OF_VALUE | {sqlite3.SQLITE_ERROR}:
                    self.doubt()
                if code in _FAULT_OF_VALUE:
                    raise Unstorable(refusal) from error
                raise CatalogError(refusal) from error
            except json.JSONDecodeError as error:  # of a column: the program writes JSON only
                raise self.found_damaged(f"the catalog refuses a {what}: {error}") from error
            except (UnicodeEncodeError, OverflowError) as error:  # of a value on its way here
                raise Unstorable(f"the catalog cannot hold a value: {error}") from error

    def now(self) -> dict[str, Any]:
        """What a time to wait for is compared with: this boot, and the seconds of its monotonic clock."""
        return {"boot": self.clock.boot_id(), "monotonic": self.clock.monotonic()}


class Part:
    """A part of the catalog: the queries of one subject, over the connection that all parts share."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection


def _require_migrated(connection: sqlite3.Connection, path: Path) -> None:
    done = {name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")}
    if _MIGRATIONS - done:
        connection.close()
        raise CatalogError(
            f"{path}: an older trapsync wrote the catalog; start the daemon once (or: trapsync deliver), and it is "
            f"brought up to date"
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
