"""Check whether a catalog can be trusted.

SQLite's own checks see that pages, indexes and tables agree, and that each value has its type. They do not see a bit
that flipped inside a value: a digest, an id, a time. So what the program wrote twice is compared, and what it
could never have written is looked for. What is still not seen does no harm: `tests/daemon/test_lost_catalog.py` flips
bits to show it.

The full check reads every row. It runs in the background (`runtime.catalog_check`); where an image is to leave the
card, its own row and proofs are checked first (`require_sound`).
"""

import json
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from trapsync.errors import CatalogDamaged

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BESIDE = ("-journal", "-wal", "-shm")  # what SQLite has beside a catalog
# No room, no permission, an I/O error, another program that writes: another try may succeed.
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

# The columns of `images` that never change and have a checksum, `seal`: a wrong digest or a wrong time of capture would
# be trusted.
SEALED = "key, size, md5, sha256, width, height, metadata, boot_id, monotonic, wall, clock_trusted"
# What `schema_checksum` says of the schema of this version; a test tells it.
SCHEMA = 0x72CD63DB
_MAX_WAIT = 8 * 86400  # seconds; the settings allow a week

_COLUMNS = SEALED.split(", ")
# Whether an image has a delivery that was confirmed with the digest of other bytes.
_OTHER_DIGEST = "digest NOT IN ('md5:' || md5, 'sha256:' || sha256, 'echo:' || sha256)"
WRONG_PROOF = f"""EXISTS (SELECT 1 FROM deliveries WHERE image_id = images.id
                  AND deliveries.state = 'delivered' AND {_OTHER_DIGEST})"""

_ON_CARD = "images.gone_at IS NULL"
_HELD = "(images.timing IS NOT NULL AND images.timing IN ('held', 'unsure'))"
_COUNTED = """SELECT '', state, count(*) FROM images GROUP BY 2
              UNION ALL SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2"""
FILE_PATH = "iif(folder = '', files.name, folder || '/' || files.name)"

# What is wrong, and a query that finds a row of it.
_CONTRADICTIONS = {
    "an image whose seal is broken": f"SELECT 1 FROM images WHERE seal != sealed({SEALED})",
    "an image that cannot be": """
        SELECT 1 FROM images WHERE NOT json_valid(metadata) OR conflict NOT IN (0, 1) OR size <= 0
            OR (gone_at IS NULL) != (gone_why IS NULL) OR (state = 'dropped' AND gone_at IS NULL)
            OR ingested_at NOT BETWEEN -1e11 AND 1e11""",
    "an image on the card without its file": f"""
        SELECT 1 FROM images WHERE {_ON_CARD} AND NOT EXISTS
            (SELECT 1 FROM files WHERE image_id = images.id AND {FILE_PATH} = path)""",
    "a held image that is pending for somebody": f"""
        SELECT 1 FROM deliveries JOIN images ON id = image_id WHERE {_HELD}""",
    "a time that cannot be": """
        SELECT 1 FROM images WHERE timing IS NOT NULL AND boot_id IS NULL
            OR (timing IS 'corrected') != (clock_offset IS NOT NULL)""",
    "a file that is not its image's": """
        SELECT 1 FROM files JOIN images ON id = image_id WHERE (files.size != images.size AND leaving != 2)
            OR leaving NOT IN (0, 1, 2) OR (leaving = 1 AND gone_why IS NOT 'pruned')""",
    "a proof of other bytes": f"""
        SELECT 1 FROM deliveries JOIN images ON id = image_id WHERE deliveries.state = 'delivered'
            AND {_OTHER_DIGEST}""",
    "a delivery that cannot be": f"""
        SELECT 1 FROM deliveries JOIN images ON id = image_id WHERE deliveries.rank != images.rank
            OR attempts NOT BETWEEN 0 AND 10000 OR wait_for NOT BETWEEN 0 AND {_MAX_WAIT}
            OR NOT json_valid(coalesce(detail, '{{}}'))
            OR (deliveries.state != 'delivered' AND (digest IS NOT NULL OR confirmed_at IS NOT NULL))""",
    "a delivery to nowhere": """
        SELECT 1 FROM (SELECT DISTINCT destination FROM deliveries)
            WHERE destination NOT IN (SELECT key FROM destinations)""",
    "a destination that cannot be": f"""
        SELECT 1 FROM destinations WHERE active NOT IN (0, 1) OR required NOT IN (0, 1) OR current NOT IN (0, 1)
            OR barred NOT IN (0, 1)
            OR (active AND NOT current)
            OR attempts NOT BETWEEN 0 AND 1000000000 OR wait_for NOT BETWEEN 0 AND {_MAX_WAIT}""",
    "an image on the card that is pending nowhere": f"""
        SELECT 1 FROM destinations WHERE active AND (SELECT count(*) FROM images WHERE {_ON_CARD} AND NOT {_HELD}) !=
            (SELECT count(*) FROM deliveries JOIN images ON id = image_id
             WHERE destination = destinations.key AND {_ON_CARD})""",
    "a wrong tally": f"""
        SELECT 1 FROM (SELECT * FROM ({_COUNTED}) EXCEPT SELECT * FROM tallies)
        UNION ALL SELECT 1 FROM (SELECT * FROM tallies WHERE n != 0 EXCEPT SELECT * FROM ({_COUNTED}))""",
    "a note whose seal is broken": """
        SELECT 1 FROM notes WHERE seal != sealed(destination, key, note) OR NOT json_valid(note)""",
    "a label whose seal is broken": """
        SELECT 1 FROM labels WHERE seal != sealed(destination, image_id, state, task, reason, annotations)
            OR at NOT BETWEEN -1e11 AND 1e11""",
    "a fact that cannot be read": "SELECT 1 FROM facts WHERE NOT json_valid(value)",
}


def seal(*values: str | float | None) -> int:
    """The CRC-32 of the values of SEALED, in their order."""
    return zlib.crc32(json.dumps(values).encode())


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is damaged."""
    return _code(error) in _DAMAGE


def is_not_its_fault(error: Exception, path: Path) -> bool:
    """Whether an error says nothing about the file itself, and another try may succeed."""
    if _code(error) == sqlite3.SQLITE_READONLY:  # a damaged header says so too
        return not all(os.access(place, os.W_OK) for place in (path, path.parent))
    return _code(error) in _NOT_ITS_FAULT


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def accept_any_text(connection: sqlite3.Connection) -> None:
    """Read texts that are no UTF-8, too: after damage they must be read in order to be reported."""
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")


def require_sound(rows: Iterable[Mapping[str, Any]]) -> None:
    """Check images before they may leave the card; CatalogDamaged if one is not as it was written.

    A row has the columns SEALED and `seal` of its image, and `is_wrong`: what the query found besides.
    """
    for row in rows:
        if row["is_wrong"] or seal(*(row[column] for column in _COLUMNS)) != row["seal"]:
            raise CatalogDamaged(
                f"the catalog is damaged: the row of image {row['id']} is not as it was written"
            )


def require_plain(path: Path) -> None:
    """Raise CatalogDamaged where SQLite would open something else than files: a FIFO, say, which never answers."""
    for name in (path, *(Path(f"{path}{suffix}") for suffix in BESIDE)):
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(name.lstat().st_mode):
                raise CatalogDamaged(f"{name}: something that is no plain file is in its place")


def check_file(path: Path) -> str | None:
    """What is wrong with a catalog's file, in a few words; None if it can be trusted.

    Opens it read-only; a daemon may write meanwhile. Raises sqlite3.Error when that says nothing about the file.
    """
    try:
        require_plain(path)
    except CatalogDamaged as error:
        return str(error)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
        accept_any_text(connection)
        try:
            return problem(connection)
        # Damage also shows as an error message that is no text, or as a missing column.
        except (sqlite3.DatabaseError, ValueError, LookupError, TypeError) as error:
            if is_not_its_fault(error, path):
                raise
            return str(error)


def problem(db: sqlite3.Connection) -> str | None:
    """What is wrong with an open catalog, in a few words; None if it can be trusted."""
    verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        return str(verdict)
    if not has_our_schema(db):  # SQLite checks only what the schema says
        return "its schema is not as it was made"
    if db.execute("PRAGMA foreign_key_check").fetchone():
        return "a row belongs to none"
    db.create_function("sealed", -1, seal, deterministic=True)
    for what, query in _CONTRADICTIONS.items():
        if db.execute(query).fetchone():
            return what
    return None


def has_our_schema(db: sqlite3.Connection) -> bool:
    """Whether the catalog has the schema of this version: by its checksum, as each start asks for it."""
    return schema_checksum(db) == SCHEMA


def schema_checksum(db: sqlite3.Connection) -> int:
    """The CRC-32 of a schema, but for the table of sqlite-utils, whose text depends on its version."""
    rows = db.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name != '_sqlite_migrations' ORDER BY type, name"
    )
    return zlib.crc32(json.dumps(rows.fetchall()).encode())
