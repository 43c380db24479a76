"""The hub's SQLite file: schema, connections, transactions."""

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from trapsync.catalog.statements import statements
from trapsync.errors import StorageError, TrapsyncError
from trapsync.files import failpoint
from trapsync.files.durable import make_folder

FILE = "hub.sqlite"  # in the hub's folder

# Append only: a hub at a field station is updated years after it was installed. PRAGMA user_version counts them.
_MIGRATIONS = (
    """
    -- A row is a secret of the hub: so far only `key`, which signs tokens and addresses.
    CREATE TABLE secrets (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE users (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        name          TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        role          TEXT NOT NULL CHECK (role IN ('admin', 'read-write', 'read-only'))
    ) STRICT;

    -- A row is an image whose whole file stands, flushed, in its folder. The columns are those of the
    -- Sticky Pi table `images`. `device` keeps the sender's spelling but has no case, as over there.
    -- `datetime` is UTC, written 2022-05-17T18:46:57Z, so that text order is time order.
    -- NULL in a measurement: the image does not say. NULL in `api_user_id`: the user is gone.
    CREATE TABLE images (
        id               INTEGER PRIMARY KEY AUTOINCREMENT,
        device           TEXT NOT NULL COLLATE NOCASE,
        datetime         TEXT NOT NULL,
        md5              TEXT NOT NULL,
        device_version   TEXT,
        width            INTEGER NOT NULL,
        height           INTEGER NOT NULL,
        lat              REAL,
        lng              REAL,
        alt              REAL,
        temp             REAL,
        hum              REAL,
        lum              REAL,
        bat              INTEGER,
        but              INTEGER,
        datetime_created TEXT NOT NULL,
        api_version      TEXT NOT NULL,
        api_user_id      INTEGER REFERENCES users (id) ON DELETE SET NULL,
        UNIQUE (device, datetime)
    ) STRICT;

    -- A row is what one version of one detector found in one image; it goes when its image goes.
    -- `json` is the sender's whole text, contours included. NULL in `api_user_id`: the user is gone.
    CREATE TABLE uid_annotations (
        id               INTEGER PRIMARY KEY AUTOINCREMENT,
        parent_image_id  INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        algo_name        TEXT NOT NULL,
        algo_version     TEXT NOT NULL,
        n_objects        INTEGER NOT NULL,
        json             TEXT NOT NULL,
        datetime_created TEXT NOT NULL,
        api_version      TEXT NOT NULL,
        api_user_id      INTEGER REFERENCES users (id) ON DELETE SET NULL,
        UNIQUE (parent_image_id, algo_name, algo_version)
    ) STRICT;
    """,
    """
    -- A row is the operator's newest signed document under a name that traps ask for. `hash` is the SHA-256
    -- of `data`, in hex; `stored` is UTC text, `user` the name of who published it.
    CREATE TABLE slots (
        name   TEXT PRIMARY KEY,
        data   BLOB NOT NULL,
        hash   TEXT NOT NULL,
        stored TEXT NOT NULL,
        user   TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- A row is a heartbeat of a trap, as it came; the newest of each trap, and a bounded number before it.
    -- `received` is in unix seconds of this machine's clock, for a trap's own may be years off.
    CREATE TABLE heartbeats (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        device   TEXT NOT NULL,
        received REAL NOT NULL,
        body     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX heartbeats_by_device ON heartbeats (device, id);
    """,
    """
    -- A row is who may log in: a person, the vendor's client, or a trap. No password is kept, only its salted hash; a
    -- trap's is random, so that its SHA-256 will do (`sha256:…`). The name of a trap's is its device.
    CREATE TABLE new_users (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        name          TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        role          TEXT NOT NULL CHECK (role IN ('admin', 'manager', 'viewer', 'trap'))
    ) STRICT;
    INSERT INTO new_users SELECT id, name, password_hash,
        CASE role WHEN 'read-write' THEN 'manager' WHEN 'read-only' THEN 'viewer' ELSE role END FROM users;
    DROP TABLE users;
    ALTER TABLE new_users RENAME TO users;

    -- A row is a code that the operator made, without its secret. `terms` is JSON: keys, groups, images. Times are unix
    -- seconds of this machine's clock; `user` is the name of who made it.
    CREATE TABLE invitations (
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        secret_hash TEXT NOT NULL UNIQUE,
        terms       TEXT NOT NULL,
        uses        INTEGER NOT NULL,
        used        INTEGER NOT NULL DEFAULT 0,
        made        REAL NOT NULL,
        until       REAL NOT NULL,
        user        TEXT NOT NULL
    ) STRICT;

    -- A row is a trap that has joined, or has sent a heartbeat. `name` is what its heartbeats say, since `named`. `groups`
    -- is a JSON list. NULL in `joined`: it has no account of its own. `ended`: when it was revoked or forgotten; a code
    -- that was made before does not let it join again. `forgotten`: it is not shown any more.
    CREATE TABLE traps (
        device    TEXT PRIMARY KEY,
        name      TEXT NOT NULL DEFAULT '',
        named     REAL,
        groups    TEXT NOT NULL DEFAULT '[]',
        joined    REAL,
        ended     REAL,
        forgotten INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    INSERT INTO traps (device, name, named)
        SELECT device, CASE WHEN json_valid(body) THEN coalesce(json_extract(body, '$.name'), '') ELSE '' END, 0
        FROM heartbeats WHERE id IN (SELECT max(id) FROM heartbeats GROUP BY device);
    """,
    """
    -- A row is the newest report of a trap about one thing: a night (`key`: its date), a deployment (its id). `body` is JSON
    -- as it came, `sha256` the digest of the line that it came in, in hex. Each that is stored gets a higher `number`, one
    -- that takes the place of another too: by these a trap goes on where it was. `received`: unix seconds of this machine.
    CREATE TABLE reports (
        number   INTEGER PRIMARY KEY AUTOINCREMENT,
        device   TEXT NOT NULL,
        kind     TEXT NOT NULL,
        key      TEXT NOT NULL,
        sha256   TEXT NOT NULL,
        received REAL NOT NULL,
        body     TEXT NOT NULL,
        UNIQUE (device, kind, key)
    ) STRICT;
    CREATE INDEX reports_of_device ON reports (device, number);
    CREATE INDEX reports_of_kind ON reports (kind, device, key);
    """,
    """
    -- By when they came, for plots: a few hundred of a season's.
    CREATE INDEX heartbeats_by_time ON heartbeats (device, received);
    """,
    """
    -- A row is somebody who is logged in by a browser: the SHA-256, in hex, of the secret in the cookie, and which password
    -- it was (its fingerprint), with which the session ends. `made` and `used` are unix seconds of this machine's clock.
    CREATE TABLE sessions (
        secret_hash          TEXT PRIMARY KEY,
        user                 INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        password             TEXT NOT NULL,
        has_default_password INTEGER NOT NULL,
        made                 REAL NOT NULL,
        used                 REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- A row is an image whose row was deleted, and whose file is perhaps still there.
    CREATE TABLE removed_images (
        device   TEXT NOT NULL,
        datetime TEXT NOT NULL,
        PRIMARY KEY (device, datetime)
    ) STRICT, WITHOUT ROWID;

    -- The one row: what this machine's clocks showed when they were last looked at, to delete what is old. `wall` is in unix
    -- seconds, `monotonic` in seconds of the boot; for `wait` seconds that the hub runs from then on nothing is deleted.
    CREATE TABLE looks (
        id        INTEGER PRIMARY KEY CHECK (id = 1),
        boot      TEXT NOT NULL,
        monotonic REAL NOT NULL,
        wall      REAL NOT NULL,
        wait      REAL NOT NULL
    ) STRICT;
    """,
    """
    -- A row is a rule of the alerts that holds for a trap. `detail`: what is worth telling again if it changes; of a silent
    -- trap, when it was heard last. `clear_since`: unix seconds since when it holds no longer, which is told after a while.
    CREATE TABLE alert_states (
        device      TEXT NOT NULL,
        rule        TEXT NOT NULL,
        detail      TEXT NOT NULL,
        clear_since REAL,
        PRIMARY KEY (device, rule)
    ) STRICT, WITHOUT ROWID;

    -- A row is a change of that, or a daily summary, until all addresses were told. `at`: unix seconds; `picture`: an image.
    CREATE TABLE alert_changes (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        device  TEXT NOT NULL,
        name    TEXT NOT NULL,
        rule    TEXT NOT NULL,
        is_on   INTEGER NOT NULL,
        at      REAL NOT NULL,
        text    TEXT NOT NULL,
        picture INTEGER
    ) STRICT;

    -- A row is an address of the alerts, by its SHA-256: `told` is the last change that it was told, `tried` the last that
    -- was under way to it and may have come there.
    CREATE TABLE alert_addresses (
        address TEXT PRIMARY KEY,
        told    INTEGER NOT NULL,
        tried   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- A row is a message that was sent, or may have been; the newest of each address.
    CREATE TABLE alert_messages (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL,
        at      REAL NOT NULL
    ) STRICT;

    -- One row: when alerts were last looked at, in unix seconds, and the date of the last daily summary.
    CREATE TABLE alert_clock (
        id     INTEGER PRIMARY KEY CHECK (id = 1),
        turn   REAL,
        digest TEXT
    ) STRICT;
    """,
)


class TooMany(TrapsyncError):
    """More rows than any answer has."""


class Database:
    """One SQLite file. A connection serves one `reading()` or `writing()` at a time.

    Writers queue at BEGIN IMMEDIATE, also those of another process; readers never wait for them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._resting: list[sqlite3.Connection] = []
        make_folder(path.parent)
        try:
            # Held open for the hub's life: SQLite checkpoints the WAL whenever the last connection closes.
            self._keeper = self._connect()
            path.chmod(0o600)  # password hashes and the signing key are for nobody else
            self._keeper.execute("PRAGMA journal_mode = WAL")
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{path}: the hub's database cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        for connection in (*self._resting, self._keeper):
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading; each query sees one state of the file."""
        with self._connection() as connection:
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One that rests, or a new one; closed when the block raises."""
        try:
            connection = self._resting.pop()  # to open one takes longer than most questions
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._resting.append(connection)

    def rows(self, sql: str, values: Sequence[object], most: int) -> Iterator[dict[str, Any]]:
        """What a query finds, row by row, all of one state of the file. Raises TooMany beyond so many rows."""
        with self.reading() as connection:
            for number, row in enumerate(connection.execute(sql, values)):
                if number == most:
                    raise TooMany(f"more than {most} rows: ask for shorter ranges of time")
                yield dict(row)

    def has(self, count: int, sql: str, values: Sequence[object]) -> bool:
        """Whether a query finds so many rows; none of them is read."""
        with self.reading() as connection:
            (found,) = connection.execute(
                f"SELECT count(*) FROM ({sql} LIMIT ?)",  # noqa: S608
                (*values, count),
            ).fetchone()
        return bool(found == count)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable when the block ends, rolled back when it raises."""
        with self._connection() as connection, self._transaction(connection):
            yield connection

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if connection.in_transaction:  # SQLite itself ends it where the disk is full
                connection.execute("ROLLBACK")
            raise
        failpoint.hit("hub: before the commit")
        connection.execute("COMMIT")
        failpoint.hit("hub: committed")

    def secret(self, name: str) -> str:
        """A random text of this hub, made at the first request."""
        with self.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, secrets.token_hex(32)))
            row = connection.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
        return str(row["value"])

    def _connect(self) -> sqlite3.Connection:
        # isolation_level=None: the sqlite3 module begins no transaction behind our back.
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _migrate(self) -> None:
        # A table that others refer to is replaced with foreign keys off: else its rows count as deleted.
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            with self._transaction(connection):
                self._upgrade(connection)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        (done,) = connection.execute("PRAGMA user_version").fetchone()
        if done > len(_MIGRATIONS):
            raise StorageError(
                f"{self.path}: a newer trapsync has written it; upgrade this one, or restore a copy from before"
            )
        for number, migration in enumerate(_MIGRATIONS[done:], start=done + 1):
            for statement in statements(migration):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
