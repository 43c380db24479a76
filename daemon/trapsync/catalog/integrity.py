"""Whether a catalog can be believed: what is looked at before a trap relies on it.

SQLite's own checks see that the pages hang together, that indexes agree with their tables and that each
value has its type. A byte that turned over inside a value they do not see: a digest, an id, a moment. So
what the program wrote twice is compared, and what it could never have written is looked for. What is still
not seen can do no harm: see `tests/README.md`, and `tests/test_lost_catalog.py`, which turns bytes over.
"""

import json
import sqlite3
import zlib

# What never changes in a row of `images`, and is sealed: a digest or the evidence of a moment, once wrong,
# would be believed.
SEALED = "key, size, md5, sha256, width, height, metadata, boot_id, monotonic, wall, clock_trusted"
_LONGEST_WAIT = 8 * 86400  # seconds; the settings allow a week

_ON_CARD = "images.gone_at IS NULL"
_HELD = "(images.timing IS NOT NULL AND images.timing IN ('held', 'unsure'))"
_COUNTED = """SELECT '', state, count(*) FROM images GROUP BY 2
              UNION ALL SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2"""
_PATH = "iif(folder = '', files.name, folder || '/' || files.name)"

# What is wrong, and a query that finds a row of it.
_CONTRADICTIONS = {
    "an image whose seal is broken": f"SELECT 1 FROM images WHERE seal != sealed({SEALED})",
    "an image that cannot be": """
        SELECT 1 FROM images WHERE NOT json_valid(metadata) OR conflict NOT IN (0, 1) OR size <= 0
            OR (gone_at IS NULL) != (gone_why IS NULL) OR (state = 'dropped' AND gone_at IS NULL)
            OR ingested_at NOT BETWEEN -1e11 AND 1e11""",
    "an image on the card without its file": f"""
        SELECT 1 FROM images WHERE {_ON_CARD} AND NOT EXISTS
            (SELECT 1 FROM files WHERE image_id = images.id AND {_PATH} = path)""",
    "a held image that is owed to somebody": f"""
        SELECT 1 FROM deliveries JOIN images ON id = image_id WHERE {_HELD}""",
    "a time that cannot be": """
        SELECT 1 FROM images WHERE timing IS NOT NULL AND boot_id IS NULL
            OR (timing IS 'corrected') != (clock_offset IS NOT NULL)""",
    "a file that is not its image's": """
        SELECT 1 FROM files JOIN images ON id = image_id WHERE (files.size != images.size AND leaving != 2)
            OR leaving NOT IN (0, 1, 2) OR (leaving = 1 AND gone_why IS NOT 'pruned')""",
    "a proof of other bytes": """
        SELECT 1 FROM deliveries JOIN images ON id = image_id WHERE deliveries.state = 'delivered'
            AND digest NOT IN ('md5:' || md5, 'sha256:' || sha256, 'echo:' || sha256)""",
    "a delivery that cannot be": f"""
        SELECT 1 FROM deliveries JOIN images ON id = image_id WHERE deliveries.rank != images.rank
            OR attempts NOT BETWEEN 0 AND 10000 OR wait_for NOT BETWEEN 0 AND {_LONGEST_WAIT}
            OR NOT json_valid(coalesce(detail, '{{}}'))
            OR (deliveries.state != 'delivered' AND (digest IS NOT NULL OR confirmed_at IS NOT NULL))""",
    "a delivery to nowhere": """
        SELECT 1 FROM (SELECT DISTINCT destination FROM deliveries)
            WHERE destination NOT IN (SELECT key FROM destinations)""",
    "a destination that cannot be": f"""
        SELECT 1 FROM destinations WHERE active NOT IN (0, 1) OR required NOT IN (0, 1) OR current NOT IN (0, 1)
            OR barred NOT IN (0, 1)
            OR (active AND NOT current)
            OR attempts NOT BETWEEN 0 AND 1000000000 OR wait_for NOT BETWEEN 0 AND {_LONGEST_WAIT}""",
    "an image on the card that is owed to nobody": f"""
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


def problem(db: sqlite3.Connection, pristine: sqlite3.Connection) -> str | None:
    """What is wrong with a catalog, in a few words; None when it can be believed.

    `pristine` is an empty one of the same version: the schema must be the same to the letter, for what it
    says is what SQLite checks.
    """
    verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        return str(verdict)
    if _schema(db) != _schema(pristine):
        return "its schema is not as it was made"
    if db.execute("PRAGMA foreign_key_check").fetchone():
        return "a row belongs to none"
    db.create_function("sealed", -1, seal, deterministic=True)
    for what, query in _CONTRADICTIONS.items():
        if db.execute(query).fetchone():
            return what
    return None


def _schema(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
