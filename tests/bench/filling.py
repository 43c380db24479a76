"""A catalog that knows as many images as wanted, without any being examined: for measuring queries."""

from collections.abc import Iterator
from typing import Any

from bench import pictures
from trapsync.catalog import Catalog, integrity
from trapsync.catalog.rows import sealed_values
from trapsync.image import Evidence, Image

HOME = "home"
SIZE = 900_000  # bytes of an image
MTIME = 1_750_000_000 * 10**9
_METADATA = {
    "device_version": "3.1.0",
    "temp": 20.6,
    "hum": 42.6,
    "bat": 72,
    "lum": 1.2,
    "lng": 6.123,
    "lat": 46.201,
    "alt": 412.5,
    "but": False,
}
_SEALED = integrity.SEALED.count(",") + 1


def image(number: int, every: int = 1, size: int = SIZE) -> Image:
    """The image of this number, as an examination would give it; its bytes are nowhere."""
    seen = Evidence("3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11", 60.0 * number, 1782e6 + 60 * number, trusted=True)
    path = pictures.path(number, every)
    return Image(path, size, f"{number:032x}", f"{number:064x}", *pictures.FIELD, _METADATA, seen)


def fill(catalog: Catalog, count: int, pending: int, *, every: int = 1, size: int = SIZE) -> None:
    """Write images into an empty catalog, the newest so many of them still pending for `HOME`.

    What stands there afterwards is what the program would have written, to the letter: the start-up check
    of the whole finds nothing wrong with it.
    """
    catalog.places.register([(HOME, "memory", True)])
    db = catalog.connection._db.conn
    db.execute("BEGIN IMMEDIATE")
    db.executemany(
        f"""INSERT INTO images ({integrity.SEALED}, seal, path, rank, state, ingested_at)
            VALUES ({"?, " * _SEALED} ?, ?, ?, ?, ?)""",
        _rows(count, pending, every, size),
    )
    db.execute(
        """INSERT INTO files SELECT rtrim(rtrim(path, replace(path, '/', '')), '/'), key, size, ?, id, 0
           FROM images ORDER BY path""",
        [MTIME],
    )
    db.execute(
        """INSERT INTO deliveries (destination, image_id, state, rank, digest, delivered_at)
           SELECT ?, id, state, rank, iif(state = 'pending', NULL, 'md5:' || md5), iif(state = 'pending', NULL, rank + 60)
           FROM images""",
        [HOME],
    )
    db.execute("COMMIT")


def _rows(count: int, pending: int, every: int, size: int) -> Iterator[list[Any]]:
    for number in range(count):
        one = image(number, every, size)
        sealed = sealed_values(one)
        assert one.trap_name
        rank = one.trap_name.taken.timestamp()
        state = "pending" if number >= count - pending else "delivered"
        yield [*sealed, integrity.seal(*sealed), one.path, rank, state, rank + 5]
