"""Notes of destinations: they belong to the place, as its deliveries do."""

import json
from typing import Any

from trapsync.catalog import integrity
from trapsync.catalog.connection import Part
from trapsync.catalog.places import key_of
from trapsync.catalog.rows import KEY, to_json


class Notes(Part):
    """The catalog, as far as destinations note something in it."""

    def get(self, destination: str, key: str) -> Any:
        """What a destination noted under this key; None if nothing."""
        rows = self._connection.query(
            f"SELECT note FROM notes WHERE destination = {KEY} AND key = :key",
            destination=destination,
            key=key,
        )
        return json.loads(rows[0]["note"]) if rows else None

    def put(self, destination: str, key: str, note: Any) -> None:
        """Write a destination's note, in the place of an older one."""
        row = (key_of(self._connection, destination), key, to_json(note))
        with self._connection.transaction("put_note") as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", [*row, integrity.seal(*row)])

    def forget(self, destination: str, key: str) -> None:
        """Remove a destination's note."""
        with self._connection.transaction("forget_note") as db:
            db.execute(
                "DELETE FROM notes WHERE destination = ? AND key = ?",
                [key_of(self._connection, destination), key],
            )

    def keys(self, destination: str, prefix: str = "") -> list[str]:
        """The keys of a destination's notes that begin so, in order."""
        rows = self._connection.query(
            f"""SELECT key FROM notes WHERE destination = {KEY} AND key >= :prefix
               AND substr(key, 1, length(:prefix)) = :prefix ORDER BY key""",
            destination=destination,
            prefix=prefix,
        )
        return [row["key"] for row in rows]
