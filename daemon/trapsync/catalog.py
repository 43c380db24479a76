"""The catalog: the SQLite record of every image, and every query in the program.

One process writes, through one connection under one lock; `BEGIN IMMEDIATE`, so that no reader-turned-
writer meets SQLITE_BUSY; WAL with `synchronous=FULL`, so that a commit survives a power cut. The folder
is the truth: whatever is lost here is found again by the sweep and by asking the destinations.
"""

import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlite_utils import Database

from trapsync import failpoint, soundness
from trapsync.clock import Clock, utc
from trapsync.errors import CatalogDamaged, CatalogError
from trapsync.image import Correction, Evidence, Found, Image, TrapName, parse_name
from trapsync.migrations import migrations

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
_PATIENCE = 5  # seconds for another process that writes; less than the ten in which a daemon must end

# May it go now? Waits are counted on the monotonic clock of the boot they were set in; after a reboot
# they are served once more from its start, which is at most `retry_longest` too long.
_MAY_GO = """(wait_for IS NULL OR (wait_boot = :boot AND wait_until <= :monotonic)
              OR (wait_boot != :boot AND wait_for <= :monotonic))"""

# An image is delivered when there is a required destination and all of them confirmed its digest.
_STATE = """CASE WHEN EXISTS (SELECT 1 FROM destinations WHERE active AND required)
                  AND NOT EXISTS (SELECT 1 FROM destinations AS d WHERE d.active AND d.required
                      AND NOT EXISTS (SELECT 1 FROM deliveries WHERE image_id = images.id
                          AND destination = d.name AND state = 'delivered' AND digest NOT LIKE 'echo:%'))
             THEN 'delivered' ELSE 'owed' END"""

_IMAGE = """images.id, path, size, md5, sha256, width, height, metadata,
            images.boot_id, monotonic, wall, clock_trusted, images.clock_offset"""

# A destination may come after another: only what that one has confirmed.
_HAS_COME = """(:after = '' OR EXISTS (SELECT 1 FROM deliveries AS before WHERE before.destination = :after
                AND before.image_id = deliveries.image_id AND before.state = 'delivered'))"""

TIMINGS = ("held", "confirmed", "corrected", "unsure", "released")
# Held: taken under a clock that was not synchronised, and owed to nobody until its time is put right.
_HELD = "images.timing IN ('held', 'unsure')"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounting identity: captured = delivered + owed + quarantined + dropped."""

    captured: int
    delivered: int
    owed: int
    quarantined: int
    dropped: int


class Catalog:
    """The catalog's file, open. Safe to use from several threads; one process writes."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._db = Database(connection, execute_plugins=False)
        self._clock = clock
        self._lock = threading.RLock()
        # What was found damaged while it was in use: only opening it again, elsewhere, helps.
        self.damage: CatalogDamaged | None = None

    # Opening and closing

    @classmethod
    def open(cls, path: Path, clock: Clock) -> "Catalog":
        """Open the catalog for writing, make or migrate it, and check that it is sound.

        Raises CatalogDamaged when the file is no sound catalog, or newer than this program, and
        CatalogError when it cannot be opened for another reason.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if any(Path(f"{path}{suffix}").is_dir() for suffix in ("", "-wal", "-shm")):
                raise CatalogDamaged(f"{path}: a folder is in its place")
            connection = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise CatalogError(f"{path}: the catalog cannot be opened: {_reason(error)}") from error
        catalog = cls(connection, clock)
        try:
            catalog._prepare()
        # Damage meets us as a message of SQLite that is no text, or as a column that is missing, too.
        except (sqlite3.DatabaseError, CatalogDamaged, ValueError, LookupError, TypeError) as error:
            connection.close()
            if _is_not_its_fault(error, path):
                raise CatalogError(f"{path}: the catalog cannot be opened: {error}") from error
            raise CatalogDamaged(f"{path}: the catalog cannot be used: {error}") from error
        return catalog

    @classmethod
    def open_to_read(cls, path: Path, clock: Clock) -> "Catalog":
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
            except sqlite3.Error as error:
                problem = error
            else:
                return cls(connection, clock)
        raise CatalogError(f"{path}: the catalog cannot be read: {_reason(problem)}") from problem

    def _prepare(self) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "journal_size_limit=1048576",
            "foreign_keys=ON",
        ):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        # A text may hold any bytes after damage, and must be read all the same, to be told.
        self._db.conn.text_factory = partial(str, encoding="utf-8", errors="replace")
        unknown = {done.name for done in migrations.applied(self._db)} - _MIGRATIONS
        if unknown:
            raise CatalogDamaged(f"a newer trapsync wrote it ({', '.join(sorted(unknown))})")
        migrations.apply(self._db)
        pristine = Database(memory=True, execute_plugins=False)
        migrations.apply(pristine)
        if problem := soundness.problem(self._db.conn, pristine.conn):
            raise CatalogDamaged(f"it is damaged ({problem})")

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it; what cannot be folded now, is next time."""
        with self._lock:
            with suppress(CatalogError):
                self.checkpoint()
            self._db.close()

    def close_reader(self) -> None:
        """Close what `open_to_read` opened."""
        self._db.close()

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, as far as readers allow; for idle moments."""
        with self._refusing("write"):
            # Not with the patience of a write: a reader that stays would hold up everybody, and the end.
            self._db.execute("PRAGMA busy_timeout=0").fetchall()
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._db.execute(f"PRAGMA busy_timeout={_PATIENCE * 1000}").fetchall()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Database]:
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

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several writes in one commit: flushes are what a card is slow at."""
        with self._transaction("together"):
            yield

    def _query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        with self._refusing("read"):
            return list(self._db.query(sql, parameters))

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
                    raise self.damage from error
                raise CatalogError(refusal) from error

    def _now(self) -> dict[str, Any]:
        return {"boot": self._clock.boot_id(), "monotonic": self._clock.monotonic()}

    # Destinations

    def register(self, destinations: Iterable[tuple[str, str, bool]]) -> None:
        """Say which destinations there are: (name, kind, required). New ones are owed what is on the card."""
        with self._transaction("register") as db:
            before = db.execute("SELECT name, required FROM destinations WHERE active").fetchall()
            db.execute("UPDATE destinations SET active = 0")
            for name, kind, required in destinations:
                db.execute(
                    """INSERT INTO destinations (name, kind, required, active) VALUES (?, ?, ?, 1)
                       ON CONFLICT DO UPDATE SET kind = excluded.kind, required = excluded.required,
                       active = 1""",
                    [name, kind, required],
                )
            after = db.execute("SELECT name, required FROM destinations WHERE active").fetchall()
            if set(before) != set(after):
                # What has left the card as delivered stays so: a new destination cannot have it.
                self._owe(db, "images.gone_at IS NULL")
                db.execute(
                    f"""UPDATE images SET state = {_STATE} WHERE state != 'dropped' AND state != {_STATE}
                        AND (gone_at IS NULL OR state = 'owed')"""
                )

    def _owe(self, db: Database, which: str, *parameters: Any) -> None:
        """Owe images to every active destination that has no delivery of them yet; not those that are held."""
        db.execute(
            f"""INSERT INTO deliveries (destination, image_id, state, rank)
                SELECT destinations.name, images.id, 'owed', images.rank FROM images, destinations
                WHERE destinations.active AND {which} AND {_HELD} IS NOT TRUE ON CONFLICT DO NOTHING""",
            list(parameters),
        )

    def destinations(self) -> list[dict[str, Any]]:
        """The active destinations: their row, `owed`, `delivered`, `refused`, and `waits` in seconds."""
        rows = self._query("SELECT * FROM destinations WHERE active ORDER BY name")
        tallies = self._tallies()
        for row in rows:
            for state in ("owed", "delivered", "refused"):
                row[state] = tallies.get((row["name"], state), 0)
            row["waits"] = self._waits(row)
        return rows

    def _waits(self, row: dict[str, Any]) -> float:
        if row["wait_for"] is None:
            return 0.0
        now = self._now()
        until = row["wait_until"] if row["wait_boot"] == now["boot"] else row["wait_for"]
        return max(0.0, float(until) - float(now["monotonic"]))

    def may_go(self, destination: str) -> bool:
        """Whether the destination's back-off is over."""
        return bool(
            self._query(
                f"SELECT 1 FROM destinations WHERE name = :name AND {_MAY_GO}",
                name=destination,
                **self._now(),
            )
        )

    def attempts(self, destination: str) -> int:
        """How many attempts to reach it failed in a row."""
        rows = self._query("SELECT attempts FROM destinations WHERE name = :name", name=destination)
        return rows[0]["attempts"] if rows else 0

    def destination_failed(self, destination: str, error: str, wait: float) -> None:
        """Remember a failed attempt to reach a destination, and leave it alone for `wait` seconds."""
        with self._transaction("destination_failed") as db:
            db.execute(
                """UPDATE destinations SET attempts = attempts + 1, error = :error, error_at = :wall,
                   wait_boot = :boot, wait_until = :monotonic + :wait, wait_for = :wait WHERE name = :name""",
                {
                    "name": destination,
                    "error": error,
                    "wait": wait,
                    "wall": self._clock.wall(),
                    **self._now(),
                },
            )

    def destination_answered(self, destination: str) -> None:
        """Forget earlier failures: it answers."""
        with self._transaction("destination_answered") as db:
            db.execute(
                """UPDATE destinations SET attempts = 0, error = NULL, wait_for = NULL
                   WHERE name = ? AND (attempts > 0 OR wait_for IS NOT NULL OR error IS NOT NULL)""",
                [destination],
            )

    # Ingest

    def known_in(self, folder: str) -> dict[str, tuple[int, int]]:
        """The files of one folder that were examined: name -> (size, mtime_ns)."""
        rows = self._query("SELECT name, size, mtime_ns FROM files WHERE folder = :folder", folder=folder)
        return {row["name"]: (row["size"], row["mtime_ns"]) for row in rows}

    def folders(self) -> list[str]:
        """Every folder that holds a known file."""
        return [row["folder"] for row in self._query("SELECT DISTINCT folder FROM files")]

    def is_known(self, found: Found) -> bool:
        """Whether just this file, unchanged, was examined before, or is a corrected one in the making."""
        return bool(
            self._query(
                """SELECT 1 FROM files WHERE folder = :folder AND name = :name
                   AND size = :size AND mtime_ns = :mtime
                   UNION ALL SELECT 1 FROM corrections WHERE path = :path""",
                path=found.path,
                folder=found.folder,
                name=found.name,
                size=found.size,
                mtime=found.mtime_ns,
            )
        )

    def add(self, examined: Iterable[tuple[Found, Image]]) -> int:
        """Record examined files in one commit, owed to every destination; the number of new images.

        The same identity with the same bytes is the same image (a copy, or moved, or back again). The
        same identity with other bytes is a conflict: kept as an image of its own, and shown.
        """
        with self._transaction("add") as db:
            return sum(self._add(db, found, image) for found, image in examined)

    def _add(self, db: Database, found: Found, image: Image) -> bool:
        row = db.execute(
            "SELECT id FROM images WHERE key = ? AND sha256 = ?", [image.key, image.sha256]
        ).fetchone()
        image_id = row[0] if row else self._insert(db, found, image)
        previous = db.execute(
            "SELECT image_id FROM files WHERE folder = ? AND name = ?", [found.folder, found.name]
        ).fetchone()
        db.execute(
            """INSERT OR REPLACE INTO files SELECT ?, ?, ?, ?, id, gone_why IS 'pruned' AND state = 'delivered'
               FROM images WHERE id = ?""",
            [found.folder, found.name, found.size, found.mtime_ns, image_id],
        )
        if previous and previous[0] != image_id:  # other bytes were written over it
            self._lost_a_file(db, previous[0])
        self._revive(db, image_id)
        return row is None

    def _insert(self, db: Database, found: Found, image: Image) -> int:
        trap_name, sealed = image.trap_name, _sealed(image)
        offset = image.evidence.offset if image.evidence and image.timing == "corrected" else None
        db.execute(
            f"""INSERT INTO images ({soundness.SEALED}, seal, path, timing, clock_offset, rank, conflict,
                    state, ingested_at)
                VALUES ({"?, " * len(sealed)} ?, ?, ?, ?, ?, EXISTS (SELECT 1 FROM images WHERE key = ?), 'owed', ?)""",
            [
                *(*sealed, soundness.seal(*sealed), image.path, image.timing, offset),
                trap_name.taken.timestamp() if trap_name else found.mtime_ns / 1e9,
                *(image.key, self._clock.wall()),
            ],
        )
        image_id = int(db.execute("SELECT last_insert_rowid()").fetchone()[0])
        self._owe(db, "images.id = ?", image_id)
        return image_id

    def _revive(self, db: Database, image_id: int) -> None:
        """A file of this image is on the card: look for it there, and owe it again if it was dropped."""
        here = """SELECT iif(folder = '', name, folder || '/' || name) FROM files
                  WHERE image_id = images.id AND leaving != 2"""
        db.execute(
            f"UPDATE images SET path = ({here} LIMIT 1) WHERE id = ? AND path NOT IN ({here})", [image_id]
        )
        changed = db.execute(
            """UPDATE images SET gone_at = NULL, gone_why = NULL WHERE id = ? AND gone_at IS NOT NULL
               AND (gone_why != 'pruned' OR state = 'owed')""",
            [image_id],
        ).rowcount
        if changed:
            self._owe(db, "images.id = ?", image_id)
            db.execute(f"UPDATE images SET state = {_STATE} WHERE id = ?", [image_id])

    def forget_files(self, paths: Iterable[str], why: str = "vanished") -> int:
        """Somebody took these files from the spool. An image left without one and still owed is dropped."""
        with self._transaction("forget_files") as db:
            return sum(self._forget_file(db, Found(path, 0, 0), why) for path in paths)

    def _forget_file(self, db: Database, found: Found, why: str) -> bool:
        row = db.execute(
            "DELETE FROM files WHERE folder = ? AND name = ? RETURNING image_id", [found.folder, found.name]
        ).fetchone()
        return row is not None and self._lost_a_file(db, row[0], why)

    def _lost_a_file(self, db: Database, image_id: int, why: str = "vanished") -> bool:
        (left,) = db.execute(
            "SELECT count(*) FROM files WHERE image_id = ? AND leaving != 2", [image_id]
        ).fetchone()
        if left:
            self._revive(db, image_id)
            return False
        gone = db.execute(
            """UPDATE images SET gone_at = ?, gone_why = ?, state = iif(state = 'owed', 'dropped', state)
               WHERE id = ? AND gone_at IS NULL""",
            [self._clock.wall(), why, image_id],
        ).rowcount
        db.execute("DELETE FROM deliveries WHERE image_id = ? AND state = 'owed'", [image_id])
        return bool(gone)  # if it was pruned, a crash came before that was written down

    # Thumbnails

    def without_thumbnails(self, limit: int) -> list[Image]:
        """Images on the card whose small copies were not made yet, newest first."""
        return self._images(
            f"""SELECT {_IMAGE} FROM images WHERE thumbnails IS NULL AND gone_at IS NULL
                ORDER BY rank DESC LIMIT :limit""",
            limit=limit,
        )

    def mark_thumbnails(self, image_id: int, *, made: bool) -> None:
        """The small copies are made, or cannot be."""
        with self._transaction("mark_thumbnails") as db:
            db.execute("UPDATE images SET thumbnails = ? WHERE id = ?", [int(made), image_id])

    # Deliver

    def due(
        self, destination: str, order: Literal["newest", "oldest"], limit: int, *, after: str = ""
    ) -> list[Image]:
        """The next images owed to a destination whose own back-off is over; those that failed come last.

        `after` names another destination: only what was delivered there.
        """
        direction = "DESC" if order == "newest" else "ASC"
        images: list[Image] = []
        for attempts, first in (("= 0", ""), ("> 0", "attempts, ")):
            images += self._images(
                f"""SELECT {_IMAGE} FROM deliveries INDEXED BY deliveries_owed
                    JOIN images ON images.id = image_id
                    WHERE destination = :destination AND deliveries.state = 'owed'
                    AND attempts {attempts} AND {_MAY_GO} AND {_HAS_COME}
                    ORDER BY {first}deliveries.rank {direction} LIMIT :limit""",
                destination=destination,
                limit=limit - len(images),
                after=after,
                **self._now(),
            )
        return images

    def mark_delivered(self, destination: str, proofs: Sequence[tuple[int, str, dict[str, Any]]]) -> None:
        """Record confirmed deliveries in one commit: (image id, confirmed digest, detail)."""
        if not proofs:
            return
        now = self._clock.wall()
        with self._transaction("mark_delivered") as db:
            for image_id, digest, detail in proofs:
                # Of an image whose file vanished while it was sent, nothing was owed any more.
                db.execute(
                    """INSERT INTO deliveries (destination, image_id, state, rank, digest, detail, delivered_at)
                       SELECT ?, id, 'delivered', rank, ?, ?, ? FROM images WHERE id = ?
                       ON CONFLICT DO UPDATE SET state = 'delivered', digest = excluded.digest,
                       detail = excluded.detail, delivered_at = excluded.delivered_at, error = NULL,
                       wait_for = NULL""",
                    [destination, digest, json.dumps(detail) if detail else None, now, image_id],
                )
                db.execute(
                    f"""UPDATE images SET state = 'delivered'
                        WHERE id = ? AND state != 'delivered' AND {_STATE} = 'delivered'""",
                    [image_id],
                )
            db.execute(
                """UPDATE destinations SET delivered_at = ?, attempts = 0, error = NULL, wait_for = NULL
                   WHERE name = ?""",
                [now, destination],
            )

    def mark_refused(self, destination: str, image_id: int, reason: str) -> None:
        """The destination will never take it as it is: final until the owner says retry."""
        with self._transaction("mark_refused") as db:
            db.execute(
                """UPDATE deliveries SET state = 'refused', error = ?, wait_for = NULL
                   WHERE destination = ? AND image_id = ? AND state = 'owed'""",
                [reason, destination, image_id],
            )

    def postpone(self, destination: str, image_id: int, reason: str, wait: float) -> None:
        """Leave one delivery owed for `wait` seconds."""
        with self._transaction("postpone") as db:
            db.execute(
                """UPDATE deliveries SET error = :reason, wait_boot = :boot,
                   wait_until = :monotonic + :wait, wait_for = :wait
                   WHERE destination = :destination AND image_id = :id AND state = 'owed'""",
                {
                    "reason": reason,
                    "wait": wait,
                    "destination": destination,
                    "id": image_id,
                    **self._now(),
                },
            )

    def count_attempt(self, destination: str, image_id: int) -> tuple[int, int]:
        """One more attempt failed; how many that makes, and before how many of them another image passed."""
        with self._transaction("count_attempt") as db:
            row = db.execute(
                """UPDATE deliveries SET attempts = min(attempts + 1, 9999), blamed = blamed + (n > others), others = n
                   FROM (SELECT coalesce(max(n), 0) AS n FROM tallies
                         WHERE destination = :destination AND state = 'delivered')
                   WHERE destination = :destination AND image_id = :id AND state = 'owed'
                   RETURNING attempts, blamed""",
                {"destination": destination, "id": image_id},
            ).fetchone()
            return (row[0], row[1]) if row else (0, 0)

    def retry(self, destination: str | None = None, image_key: str | None = None) -> int:
        """The owner says retry: refused deliveries are owed again, waits are over. How many were refused."""
        which = """(:destination IS NULL OR destination = :destination)
                   AND (:key IS NULL OR EXISTS (SELECT 1 FROM images WHERE id = image_id AND key = :key))"""
        with self._transaction("retry") as db:
            parameters = {"destination": destination, "key": image_key}
            count = db.execute(
                f"""UPDATE deliveries SET state = 'owed', attempts = 0, blamed = 0, wait_for = NULL
                    WHERE state = 'refused' AND {which}
                    AND EXISTS (SELECT 1 FROM images WHERE id = image_id AND gone_at IS NULL)""",
                parameters,
            ).rowcount
        self.end_waits(destination)
        return int(count)

    def end_waits(self, destination: str | None = None) -> None:
        """Whatever waits after failures may go at once, to one destination or to all."""
        with self._transaction("end_waits") as db:
            for table, column in (("deliveries", "destination"), ("destinations", "name")):
                db.execute(
                    f"""UPDATE {table} SET wait_for = NULL
                        WHERE wait_for IS NOT NULL AND (:name IS NULL OR {column} = :name)""",
                    {"name": destination},
                )

    def owe_again(self, destination: str, image_ids: Iterable[int]) -> None:
        """A destination no longer holds what it once confirmed: these are owed again."""
        with self._transaction("owe_again") as db:
            for image_id in image_ids:
                db.execute(
                    """UPDATE deliveries SET state = 'owed', digest = NULL, delivered_at = NULL, attempts = 0,
                       blamed = 0, wait_for = NULL, error = 'the destination lost it'
                       WHERE destination = ? AND image_id = ?""",
                    [destination, image_id],
                )
                db.execute(
                    f"UPDATE images SET state = {_STATE} WHERE id = ? AND state != 'dropped'", [image_id]
                )
                kept = db.execute(
                    """UPDATE files SET leaving = 0 WHERE image_id = ? AND leaving = 1
                       AND EXISTS (SELECT 1 FROM images WHERE id = image_id AND state = 'owed')""",
                    [image_id],
                ).rowcount
                if kept:  # it was to be pruned, and may not be any more
                    self._revive(db, image_id)

    def delivered_to(self, destination: str, after: int, limit: int) -> list[Image]:
        """Images confirmed by a destination, in order of their ids from `after` on: to ask it again."""
        return self._images(
            f"""SELECT {_IMAGE} FROM deliveries JOIN images ON images.id = image_id
                WHERE destination = :destination AND deliveries.state = 'delivered' AND image_id > :after
                ORDER BY image_id LIMIT :limit""",
            destination=destination,
            after=after,
            limit=limit,
        )

    # Notes of destinations

    def note(self, destination: str, key: str) -> Any:
        """What a destination noted under this key; None if nothing."""
        rows = self._query(
            "SELECT note FROM notes WHERE destination = :name AND key = :key", name=destination, key=key
        )
        return json.loads(rows[0]["note"]) if rows else None

    def put_note(self, destination: str, key: str, note: Any) -> None:
        """Write a destination's note, in the place of an older one."""
        row = (destination, key, json.dumps(note))
        with self._transaction("put_note") as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", [*row, soundness.seal(*row)])

    def forget_note(self, destination: str, key: str) -> None:
        """Remove a destination's note."""
        with self._transaction("forget_note") as db:
            db.execute("DELETE FROM notes WHERE destination = ? AND key = ?", [destination, key])

    def note_keys(self, destination: str, prefix: str = "") -> list[str]:
        """The keys of a destination's notes that begin so, in order."""
        rows = self._query(
            """SELECT key FROM notes WHERE destination = :name AND key >= :prefix
               AND substr(key, 1, length(:prefix)) = :prefix ORDER BY key""",
            name=destination,
            prefix=prefix,
        )
        return [row["key"] for row in rows]

    def owed_between(self, destination: str, since: float, until: float) -> int:
        """How many images of a time (unix seconds, the end not included) are owed there, or held."""
        return int(
            self._query(
                f"""SELECT (SELECT count(*) FROM deliveries WHERE destination = :name AND state = 'owed'
                            AND rank >= :since AND rank < :until)
                    + (SELECT count(*) FROM images WHERE {_HELD} AND gone_at IS NULL
                       AND rank >= :since AND rank < :until) AS n""",
                name=destination,
                since=since,
                until=until,
            )[0]["n"]
        )

    def receipt(self, destination: str, image_id: int) -> dict[str, Any] | None:
        """The detail that a destination wanted remembered with its receipt; None: it has not confirmed it."""
        rows = self._query(
            """SELECT detail FROM deliveries
               WHERE destination = :name AND image_id = :id AND state = 'delivered'""",
            name=destination,
            id=image_id,
        )
        return json.loads(rows[0]["detail"] or "{}") if rows else None

    # Prune

    def prunable(self, older_than: float, limit: int) -> list[Image]:
        """Images on the card with every required proof, older than a unix time; oldest first."""
        return self._images(
            f"""SELECT {_IMAGE} FROM images WHERE state = 'delivered' AND gone_at IS NULL
                AND rank <= :older AND ingested_at <= :older ORDER BY rank LIMIT :limit""",
            older=older_than,
            limit=limit,
        )

    def mark_pruned(self, image_ids: Iterable[int]) -> None:
        """Durable before any file goes: from here on these may be deleted, after a crash too."""
        with self._transaction("mark_pruned") as db:
            for image_id in image_ids:
                marked = db.execute(
                    "UPDATE images SET gone_at = ?, gone_why = 'pruned' WHERE id = ? AND state = 'delivered'",
                    [self._clock.wall(), image_id],
                ).rowcount
                if not marked:  # it was owed again meanwhile
                    continue
                db.execute("UPDATE files SET leaving = 1 WHERE image_id = ? AND leaving = 0", [image_id])
                # A best-effort destination that never took it will not get it any more.
                db.execute("DELETE FROM deliveries WHERE image_id = ? AND state = 'owed'", [image_id])

    def pruned_files(self) -> list[Found]:
        """Files that may still lie on the card though their image is pruned, or has a corrected one."""
        columns = "SELECT iif(folder = '', name, folder || '/' || name) AS path, size, mtime_ns FROM files"
        rows = self._query(f"{columns} WHERE leaving = 1 UNION ALL {columns} WHERE leaving = 2")
        return [Found(row["path"], row["size"], row["mtime_ns"]) for row in rows]

    def forget_pruned(self, paths: Iterable[str]) -> None:
        """These files of pruned or corrected images are off the card."""
        with self._transaction("forget_pruned") as db:
            for found in (Found(path, 0, 0) for path in paths):
                db.execute("DELETE FROM files WHERE folder = ? AND name = ?", [found.folder, found.name])

    # Times

    def note_boot(self) -> None:
        """Remember this boot, and what its monotonic clock lacks to the wall as soon as that can be trusted."""
        # As in `clock.evidence`: first the trust.
        trusted, boot = self._clock.trusted(), self._clock.boot_id()
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        known = self._query("SELECT number, clock_offset FROM boots WHERE boot_id = :boot", boot=boot)
        if not boot or (
            known and known[0]["number"] and (known[0]["clock_offset"] is not None or not trusted)
        ):
            return
        with self._transaction("note_boot") as db:
            db.execute(
                """INSERT INTO boots SELECT ?, coalesce(max(number), 0) + 1, NULL, NULL FROM boots
                   WHERE true ON CONFLICT (boot_id) DO UPDATE SET number = coalesce(number, excluded.number)""",
                [boot],
            )
            if trusted:
                self._know_offset(db, boot, wall - monotonic, wall)

    def _know_offset(self, db: Database, boot: str, offset: float, trusted_at: float) -> None:
        db.execute(
            """INSERT INTO boots VALUES (?, NULL, ?, ?) ON CONFLICT (boot_id) DO UPDATE
               SET clock_offset = excluded.clock_offset, trusted_at = excluded.trusted_at
               WHERE clock_offset IS NULL""",
            [boot, offset, trusted_at],
        )

    def learn_offsets(self) -> None:
        """Find out from other images of a boot what its clock lacked, where this catalog was not there."""
        rows = self._query(
            f"""SELECT DISTINCT boot_id, others.offset, others.wall FROM images JOIN (
                    SELECT boot_id AS boot, clock_trusted, wall, min(monotonic),
                        iif(clock_trusted, wall - monotonic, clock_offset) AS offset
                    FROM images WHERE boot_id IN (SELECT boot_id FROM images WHERE {_HELD})
                    AND (clock_trusted OR clock_offset IS NOT NULL) GROUP BY boot_id) AS others
                ON boot_id = boot
                WHERE {_HELD} AND boot_id != '' AND boot_id NOT IN
                    (SELECT boot_id FROM boots WHERE clock_offset IS NOT NULL)"""
        )
        if rows:
            with self._transaction("learn_offsets") as db:
                for row in rows:
                    self._know_offset(db, row["boot_id"], row["offset"], row["wall"])

    def correctable(self, limit: int) -> list[tuple[Image, float, float]]:
        """Held images of boots whose clock was set: (image, offset, when that was). The announced come first."""
        rows = self._query(
            f"""SELECT {_IMAGE}, boots.clock_offset AS found, trusted_at
                FROM images JOIN boots USING (boot_id)
                WHERE {_HELD} AND boots.clock_offset IS NOT NULL AND gone_at IS NULL
                ORDER BY images.id NOT IN (SELECT image_id FROM corrections), boot_id, monotonic LIMIT :limit""",
            limit=limit,
        )
        return [(_image(row), row["found"], row["trusted_at"]) for row in rows]

    def is_taken(self, key: str) -> bool:
        """Whether an image has this name, had it, or is to have it."""
        return bool(
            self._query(
                "SELECT 1 FROM images WHERE key = :key UNION ALL SELECT 1 FROM corrections WHERE key = :key",
                key=key,
            )
        )

    def announced(self) -> dict[int, TrapName]:
        """The corrected files that are being written: image id -> the new name."""
        rows = self._query("SELECT image_id, key FROM corrections")
        return {row["image_id"]: name for row in rows if (name := parse_name(row["key"]))}

    def announce(self, corrections: Iterable[Correction]) -> None:
        """Durable before any of these files is written: what appears under their names is no new image."""
        with self._transaction("announce") as db:
            for one in corrections:
                db.execute(
                    "INSERT OR REPLACE INTO corrections VALUES (?, ?, ?)",
                    [one.image.id, str(one.name), one.path],
                )

    def withdraw(self, image_id: int) -> None:
        """The corrected file is not to be: what lies under its name is looked at by the next sweep."""
        with self._transaction("withdraw") as db:
            db.execute("DELETE FROM corrections WHERE image_id = ?", [image_id])

    def correct(self, corrected: Iterable[tuple[Correction, Found, Image]]) -> None:
        """The new files are the images from here on, and owed; the old ones are to be deleted."""
        with self._transaction("correct") as db:
            for one, found, image in corrected:
                db.execute("UPDATE files SET leaving = 2 WHERE image_id = ?", [one.image.id])
                self._reseal(db, one, image)
                db.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, 0)",
                    [found.folder, found.name, found.size, found.mtime_ns, one.image.id],
                )
                db.execute("DELETE FROM corrections WHERE image_id = ?", [one.image.id])
                self._let_go(db, "corrected", "id = ?", one.image.id)

    def _reseal(self, db: Database, correction: Correction, image: Image) -> None:
        sealed = _sealed(image)
        db.execute(
            f"""UPDATE images SET ({soundness.SEALED}, seal) = ({"?, " * len(sealed)} ?), path = ?, rank = ?,
                    was = key, clock_offset = ?, thumbnails = NULL, conflict = 0 WHERE id = ?""",
            [
                *(*sealed, soundness.seal(*sealed), image.path, correction.name.taken.timestamp()),
                *(correction.offset, correction.image.id),
            ],
        )

    def confirm(self, image_ids: Iterable[int] | None = None) -> int:
        """The times of these held images are right as they are, or those of all; how many those were."""
        with self._transaction("confirm") as db:
            if image_ids is None:
                return self._let_go(db, "confirmed", _HELD)
            return sum(self._let_go(db, "confirmed", f"id = ? AND {_HELD}", one) for one in image_ids)

    def give_up(self) -> int:
        """Held images of boots that ended before the clock was set will never be put right; how many."""
        which = """timing = 'held' AND boot_id IS NOT :boot AND gone_at IS NULL AND boot_id NOT IN
                    (SELECT boot_id FROM boots WHERE clock_offset IS NOT NULL)"""
        boot = self._clock.boot_id() or None
        if not self._query(f"SELECT 1 FROM images WHERE {which} LIMIT 1", boot=boot):
            return 0
        with self._transaction("give_up") as db:
            return int(
                db.execute(f"UPDATE images SET timing = 'unsure' WHERE {which}", {"boot": boot}).rowcount
            )

    def release_unsure(self) -> int:
        """The owner says that images which cannot be put right are to be delivered; how many those were."""
        if not self._query("SELECT 1 FROM images WHERE timing = 'unsure' LIMIT 1"):
            return 0
        with self._transaction("release_unsure") as db:
            return self._let_go(db, "released", "timing = 'unsure'")

    def _let_go(self, db: Database, timing: str, which: str, *parameters: Any) -> int:
        """These are held no longer: owed to every destination, and as old as their time says."""
        ids = [row[0] for row in db.execute(f"SELECT id FROM images WHERE {which}", list(parameters))]
        for image_id in ids:
            db.execute(
                "UPDATE images SET timing = ?, ingested_at = ? WHERE id = ?",
                [timing, self._clock.wall(), image_id],
            )
            self._owe(db, "images.id = ? AND images.gone_at IS NULL", image_id)
        return len(ids)

    def timings(self) -> dict[str, int]:
        """How many images are held on the card for their time: 'held' and 'unsure'."""
        rows = self._query(
            f"SELECT timing, count(*) AS n FROM images WHERE {_HELD} AND gone_at IS NULL GROUP BY timing"
        )
        return {"held": 0, "unsure": 0} | {row["timing"]: row["n"] for row in rows}

    def boots(self) -> list[dict[str, Any]]:
        """Every boot in its order, those of unknown order first.

        Beside the table's columns: `last`, the latest monotonic time of an image of it, and how many images
        are `held`, `confirmed`, `corrected`, `unsure`, `released`.
        """
        counts = "".join(f", count(*) FILTER (WHERE timing = '{one}') AS {one}" for one in TIMINGS)
        return self._query(
            f"""SELECT boot_id, number, boots.clock_offset, trusted_at, coalesce(last, 0) AS last,
                    {", ".join(f"coalesce({one}, 0) AS {one}" for one in TIMINGS)}
                FROM (SELECT boot_id FROM boots
                      UNION SELECT boot_id FROM images WHERE timing IS NOT NULL)
                LEFT JOIN boots USING (boot_id)
                LEFT JOIN (SELECT boot_id, max(monotonic) AS last FROM images
                           WHERE boot_id IS NOT NULL GROUP BY boot_id) USING (boot_id)
                LEFT JOIN (SELECT boot_id{counts} FROM images WHERE timing IS NOT NULL AND state != 'dropped'
                           GROUP BY boot_id) USING (boot_id)
                ORDER BY number NULLS FIRST"""
        )

    # Quarantine

    def add_quarantined(self, path: str, kept_as: str, reason: str, size: int) -> None:
        """Record a damaged file before it is moved; saying it twice is saying it once."""
        self.correct_quarantine(add=[(path, kept_as, reason, size)])

    def correct_quarantine(
        self, *, add: Iterable[tuple[str, str, str, int]] = (), remove: Iterable[int] = ()
    ) -> None:
        """Record files that are in quarantine (path, kept_as, reason, size), and forget rows by their ids."""
        with self._transaction("correct_quarantine") as db:
            for row in add:
                db.execute(
                    """INSERT INTO quarantine (path, kept_as, reason, size, found_at) VALUES (?, ?, ?, ?, ?)
                       ON CONFLICT DO UPDATE SET reason = excluded.reason""",
                    [*row, self._clock.wall()],
                )
            for row_id in remove:
                db.execute("DELETE FROM quarantine WHERE id = ?", [row_id])

    def quarantined(self) -> list[dict[str, Any]]:
        """What is in quarantine, oldest first."""
        return self._query("SELECT * FROM quarantine ORDER BY id")

    def release_quarantined(self, quarantine_id: int) -> None:
        """Forget a quarantined file: it is back in the spool, or gone."""
        self.correct_quarantine(remove=[quarantine_id])

    # What there is

    def ledger(self) -> Ledger:
        """The accounting identity, from the tallies."""
        tallies = self._tallies()
        delivered, owed, dropped = (tallies.get(("", s), 0) for s in ("delivered", "owed", "dropped"))
        quarantined = self._query("SELECT count(*) AS n FROM quarantine")[0]["n"]
        return Ledger(delivered + owed + dropped + quarantined, delivered, owed, quarantined, dropped)

    def _tallies(self) -> dict[tuple[str, str], int]:
        return {(row["destination"], row["state"]): row["n"] for row in self._query("SELECT * FROM tallies")}

    def newest(self) -> Image | None:
        """The newest image by its name's time; one from the future, of a clock that was wrong, does not count."""
        newest = f"SELECT {_IMAGE} FROM images WHERE rank <= :until ORDER BY rank DESC LIMIT 1"
        images = self._images(newest, until=self._clock.wall() + 60) or self._images(newest, until=math.inf)
        return images[0] if images else None

    def names_from(self, device: str, wall: float, seconds: float = 600.0) -> set[str]:
        """The names of a trap's images from a unix time on, on the card, gone, or to come: they are taken."""
        first, last = (str(TrapName(device, utc(at))) for at in (wall - 1, wall + seconds))
        sql = """SELECT key FROM images WHERE key BETWEEN :first AND :last
                 UNION ALL SELECT key FROM corrections WHERE key BETWEEN :first AND :last"""
        return {row["key"] for row in self._query(sql, first=first, last=last)}

    def recent_sizes(self, limit: int = 50) -> list[int]:
        """The sizes in bytes of the latest images, to predict how long the card lasts."""
        return [
            row["size"] for row in self._query("SELECT size FROM images ORDER BY rank DESC LIMIT :n", n=limit)
        ]

    def conflicts(self) -> int:
        """How many images share their identity with other bytes."""
        return int(self._query("SELECT count(*) AS n FROM images WHERE conflict = 1")[0]["n"])

    def vanished(self) -> int:
        """How many images somebody took from the card before they were delivered."""
        rows = self._query(
            "SELECT count(*) AS n FROM images WHERE state = 'dropped' AND gone_why = 'vanished'"
        )
        return int(rows[0]["n"])

    def on_card(self, after: int, limit: int) -> list[Image]:
        """Images whose file is on the card, in order of their ids from `after` on."""
        return self._images(
            f"SELECT {_IMAGE} FROM images WHERE gone_at IS NULL AND id > :after ORDER BY id LIMIT :limit",
            after=after,
            limit=limit,
        )

    def listing(self, state: str | None, limit: int) -> list[dict[str, Any]]:
        """Images newest first, with their deliveries as JSON: for people.

        `state` may be 'refused', 'conflict' or 'held' too.
        """
        where = {
            None: "1",
            "refused": "id IN (SELECT image_id FROM deliveries WHERE state = 'refused')",
            "conflict": "conflict = 1",
            "held": f"{_HELD} AND gone_at IS NULL",
        }.get(state, "state = :state")
        rows = self._query(
            f"""SELECT id, key, path, size, md5, sha256, width, height, state, gone_at, gone_why, conflict,
                   thumbnails, boot_id, monotonic, wall, clock_trusted, clock_offset, timing, was, metadata,
                   (SELECT json_group_object(destination, json_object('state', deliveries.state,
                        'error', deliveries.error, 'delivered_at', deliveries.delivered_at))
                    FROM deliveries JOIN destinations ON name = destination AND active
                    WHERE image_id = images.id) AS deliveries
                FROM images WHERE {where} ORDER BY rank DESC LIMIT :limit""",
            limit=limit,
            **({"state": state} if ":state" in where else {}),
        )
        for row in rows:
            row["deliveries"], row["metadata"] = json.loads(row["deliveries"]), json.loads(row["metadata"])
        return rows

    def _images(self, sql: str, **parameters: Any) -> list[Image]:
        return [_image(row) for row in self._query(sql, **parameters)]

    # Facts

    def set_fact(self, name: str, value: Any) -> None:
        """Tell `status` something, if it is news; what is not, waits for nobody who writes."""
        text = json.dumps(value)
        if self._query("SELECT 1 FROM facts WHERE name = :name AND value = :text", name=name, text=text):
            return
        with self._transaction("set_fact") as db:
            db.execute(
                """INSERT INTO facts VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at""",
                [name, text, self._clock.wall()],
            )

    def facts(self) -> dict[str, Any]:
        """Everything that was told, by name."""
        return {row["name"]: json.loads(row["value"]) for row in self._query("SELECT name, value FROM facts")}


_MIGRATIONS = {migration.name for migration in migrations._migrations}


def _sealed(image: Image) -> list[Any]:
    """The values of `soundness.SEALED`, in their order."""
    seen = image.evidence
    return [
        *(image.key, image.size, image.md5, image.sha256, image.width, image.height),
        json.dumps(image.metadata),
        *((seen.boot_id, seen.monotonic, seen.wall, int(seen.trusted)) if seen else (None,) * 4),
    ]


def _image(row: dict[str, Any]) -> Image:
    boot_id = row["boot_id"]
    evidence = (
        None
        if boot_id is None
        else Evidence(boot_id, row["monotonic"], row["wall"], bool(row["clock_trusted"]), row["clock_offset"])
    )
    plain = {key: row[key] for key in ("id", "path", "size", "md5", "sha256", "width", "height")}
    return Image(metadata=json.loads(row["metadata"]), evidence=evidence, **plain)


def _is_not_its_fault(error: Exception, path: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # so says a damaged header too
        return not all(os.access(place, os.W_OK) for place in (path, path.parent))
    return code in _NOT_ITS_FAULT


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
