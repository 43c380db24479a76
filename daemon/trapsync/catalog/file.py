"""The catalog's file: opened, checked, written to in transactions, asked, closed. The door to SQLite.

One process writes, through one connection under one lock; `BEGIN IMMEDIATE`, so that no reader-turned-
writer meets SQLITE_BUSY; WAL with `synchronous=FULL`, so that a commit survives a power cut.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from sqlite_utils import Database

from trapsync.catalog import integrity
from trapsync.catalog.migrations import migrations
from trapsync.catalog.pages import PAGE, PageSeals
from trapsync.catalog.rows import image_of
from trapsync.clock import Clock
from trapsync.errors import CatalogDamaged, CatalogError, StorageError, Unstorable
from trapsync.files import durable, failpoint
from trapsync.image import Image

# What a transaction hands to those who write in it.
Transaction = Database

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# No room, no permission, an I/O error, another program that writes: another try may go well.
_NOT_ITS_FAULT = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
# What was to be written is at fault, and nothing else: a number, a text or a row that may not be.
_FAULT_OF_VALUE = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
_PATIENCE = 5  # seconds for another process that writes; less than the ten in which a daemon must end
_LONG_LOG = 3 * 10**6  # bytes of write-ahead log that are folded in by whoever wrote the last of them
_MIGRATIONS = {migration.name for migration in migrations._migrations}


class CatalogFile:
    """The catalog's file, open. Safe to use from several threads; one process writes."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        seals: PageSeals | None = None,
        *,
        may_write: bool = True,
    ) -> None:
        """`seals` has who may fold the write-ahead log into the file."""
        self._may_write = may_write
        self._db = Database(connection, execute_plugins=False)
        self._seals = seals
        self._path = Path(self._db.execute("PRAGMA database_list").fetchone()[2])
        self._in_use: list[tuple[int, int] | None] = []
        self._clock = clock
        self._lock = threading.RLock()
        # What was found damaged while it was in use: only opening it again, elsewhere, helps.
        self.damage: CatalogDamaged | None = None

    @classmethod
    def open(cls, path: Path, clock: Clock, *, beside: bool = False) -> Self:
        """Open the catalog for writing, make or migrate it, and check that it is sound.

        `beside` a daemon that is running it need not be checked again, and the daemon folds the log in.
        Raises CatalogDamaged when the file is no sound catalog, or newer than this program, and
        CatalogError when it cannot be opened for another reason.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if damage_mark(path).exists():
                raise CatalogDamaged(f"{path}: it was found damaged while it was in use")
            if any(Path(f"{path}{suffix}").is_dir() for suffix in ("", "-wal", "-shm")):
                raise CatalogDamaged(f"{path}: a folder is in its place")
            seals = None if beside else PageSeals(path)
            is_sealed = seals is not None and seals.hold()
            connection = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise CatalogError(f"{path}: the catalog cannot be opened: {_reason(error)}") from error
        catalog = cls(connection, clock, seals)
        try:
            catalog._prepare()
            if seals and not is_sealed:
                catalog._check()
                seals.put_anew()
                with suppress(CatalogError):
                    catalog.checkpoint()
        # Damage meets us as a message of SQLite that is no text, or as a column that is missing, too.
        except (sqlite3.DatabaseError, CatalogDamaged, ValueError, LookupError, TypeError) as error:
            catalog._close_files()
            if _is_not_its_fault(error, path):
                raise CatalogError(f"{path}: the catalog cannot be opened: {error}") from error
            raise CatalogDamaged(f"{path}: the catalog cannot be used: {error}") from error
        catalog._in_use = catalog._files()
        return catalog

    @classmethod
    def open_to_read(cls, path: Path, clock: Clock) -> Self:
        """Open the catalog for reading only, beside a daemon or without one. Close it soon.

        SQLite makes files beside the catalog even in order to read it. Who may not, and finds no
        write-ahead log that belongs to it, reads the file alone: nobody is writing.
        """
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
            f"page_size={PAGE}",  # of a new file; one that is there keeps its own
            "journal_mode=WAL",
            "synchronous=FULL",
            "journal_size_limit=1048576",
            "wal_autocheckpoint=0",  # what is folded in must be sealed
            "foreign_keys=ON",
        ):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        # A text may hold any bytes after damage, and must be read all the same, to be told.
        self._db.conn.text_factory = partial(str, encoding="utf-8", errors="replace")
        unknown = {done.name for done in migrations.applied(self._db)} - _MIGRATIONS
        if unknown:
            raise CatalogDamaged(f"a newer trapsync wrote it ({', '.join(sorted(unknown))})")
        migrations.apply(self._db)

    def _check(self) -> None:
        pristine = Database(memory=True, execute_plugins=False)
        migrations.apply(pristine)
        if problem := integrity.problem(self._db.conn, pristine.conn):
            raise CatalogDamaged(f"it is damaged ({problem})")

    def is_there(self) -> bool:
        """Whether the files that are open still have their names: what is written into others is lost."""
        return self._files() == self._in_use

    def _files(self) -> list[tuple[int, int] | None]:
        return [_identity(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal")]

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it; what cannot be folded now, is next time."""
        with self._lock:
            with suppress(CatalogError):
                self.checkpoint()
            self._close_files()

    def _close_files(self) -> None:
        self._db.close()
        if self._seals:
            self._seals.close()

    def close_reader(self) -> None:
        """Close what `open_to_read` opened."""
        self._db.close()

    def checkpoint(self, least: int = 0) -> None:
        """Fold the write-ahead log into the file, as far as readers allow; for idle moments.

        A log of fewer than `least` bytes is left alone.
        """
        if self._seals is None or self._seals.log_size() < least:
            return
        with self._refusing("write"):
            self._seals.note()
            # Not with the patience of a write: a reader that stays would hold up everybody, and the end.
            self._db.execute("PRAGMA busy_timeout=0").fetchall()
            try:
                ((is_busy, *_),) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._db.execute(f"PRAGMA busy_timeout={_PATIENCE * 1000}").fetchall()
            if not is_busy:
                self._seals.renew()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Transaction]:
        """The only place where a transaction begins; what happens inside happens whole or not at all.

        `what` names it for the failpoints before and after its commit.
        """
        with self._refusing("write"):
            if self._db.conn.in_transaction:  # it is ours, for the lock is: a part of `together`
                failpoint.hit(f"catalog: before {what}")
                yield self._db
                failpoint.hit(f"catalog: after {what}")
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                failpoint.hit(f"catalog: before {what}")
                self._db.execute("COMMIT")
                failpoint.hit(f"catalog: after {what}")
            except BaseException:
                self._db.rollback()
                raise
            if self._seals and self._seals.log_size() > _LONG_LOG:
                with suppress(CatalogError):  # the next one tries again
                    self.checkpoint()

    @contextmanager
    def _unflushed(self) -> Iterator[None]:
        """What is committed in here a power cut may undo, until the next commit, which flushes this one too.

        Not within a transaction.
        """
        with self._refusing("write"):
            self._db.execute("PRAGMA synchronous=NORMAL").fetchall()
            try:
                yield
            finally:
                self._db.execute("PRAGMA synchronous=FULL").fetchall()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several writes in one commit: flushes are what a card is slow at."""
        with self._transaction("together"):
            yield

    def _query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        with self._refusing("read"):
            return list(self._db.query(sql, parameters))

    def _images(self, sql: str, **parameters: Any) -> list[Image]:
        return [image_of(row) for row in self._query(sql, **parameters)]

    @contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        """Hold the lock, and say in our own words what SQLite does not do."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                refusal = f"the catalog refuses a {what}: {_reason(error)}"
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                    self.damage = CatalogDamaged(refusal)
                    if self._may_write:  # who only reads beside a writer may see what is not so
                        _mark_damage(self._path)
                    raise self.damage from error
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FAULT_OF_VALUE:
                    raise Unstorable(refusal) from error
                raise CatalogError(refusal) from error
            except (UnicodeEncodeError, OverflowError) as error:  # of a parameter, before SQLite saw it
                raise Unstorable(f"the catalog cannot hold a value: {error}") from error

    def _now(self) -> dict[str, Any]:
        return {"boot": self._clock.boot_id(), "monotonic": self._clock.monotonic()}


def damage_mark(catalog: Path) -> Path:
    """The file that says, beside a catalog, that it was found damaged: the next start rebuilds it."""
    return catalog.with_suffix(".damaged")


def _mark_damage(catalog: Path) -> None:
    """Say durably that the catalog is damaged; on a card that takes not even that, its seals go."""
    mark = damage_mark(catalog)
    try:
        durable.write(mark, [b"found damaged in use\n"])
        failpoint.hit("catalog: marked as damaged")
    except (OSError, StorageError):
        with suppress(OSError):
            Path(f"{catalog}-seals").unlink(missing_ok=True)
            failpoint.hit("catalog: seals removed")


def _require_migrated(connection: sqlite3.Connection, path: Path) -> None:
    done = {name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")}
    if _MIGRATIONS - done:
        connection.close()
        raise CatalogError(
            f"{path}: an older trapsync wrote the catalog; start the daemon once (or: trapsync deliver), and it is "
            f"brought up to date"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_not_its_fault(error: Exception, path: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # so says a damaged header too
        return not all(os.access(place, os.W_OK) for place in (path, path.parent))
    return code in _NOT_ITS_FAULT


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
