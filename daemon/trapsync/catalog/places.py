"""Destinations of the config file, and the places that they are: a proof belongs to a place, not to a name."""

from collections.abc import Iterable
from itertools import chain, count
from typing import Any

from trapsync.catalog import states
from trapsync.catalog.connection import Connection, Part, Transaction
from trapsync.catalog.rows import Registered


class Places(Part):
    """The catalog, as far as destinations are places."""

    def register(self, destinations: Iterable[tuple[str, str, bool] | Registered]) -> None:
        """Say which destinations there are: (name, kind, required, identity).

        What is on the card is pending at each that is new, or is another place than it was.
        """
        with self._connection.transaction("register") as db:
            before = _active(db)
            db.execute("UPDATE destinations SET active = 0")
            for one in (Registered(*some) for some in destinations):
                key = self._place_of(db, one.name, one.kind, one.identity)
                db.execute(
                    "UPDATE destinations SET required = ?, active = 1 WHERE key = ?", [one.required, key]
                )
            if _active(db) != before:
                states.judge_anew(db)

    def settle_place(self, destination: str, place: str) -> bool:
        """Say which place a destination is found to be; whether it is another than it was.

        Then what is on the card is pending there, unless it was delivered to that very place before.
        """
        row = row_of(self._connection, destination)
        if row is None or row["place"] == place:
            return False
        with self._connection.transaction("settle_place") as db:
            key = self._place_of(db, destination, row["kind"], place)
            if key == row["key"]:  # it was not known until now
                return False
            db.execute("UPDATE destinations SET active = 0 WHERE key = ?", [row["key"]])
            db.execute(
                "UPDATE destinations SET active = ?, required = ? WHERE key = ?",
                [row["active"], row["required"], key],
            )
            states.judge_anew(db)
        return True

    def is_place(self, destination: str, place: str) -> bool:
        """Whether a destination is still this place; another thread, or a command, may have found out otherwise."""
        row = row_of(self._connection, destination)
        return row is None or row["place"] == place

    def _place_of(self, db: Transaction, name: str, kind: str, place: str | None) -> str:
        """The key of a name's row for this place, made or found; it is the current one from here on."""
        rows = db.execute(
            "SELECT key, kind, place FROM destinations WHERE name = ? ORDER BY current DESC, rowid DESC",
            [name],
        ).fetchall()
        key = _chosen(rows, kind, place)
        if key is None:
            key = _free_key(db, name)
            db.execute(
                "INSERT INTO destinations (key, name, kind, required, active, current) VALUES (?, ?, ?, 0, 0, 0)",
                [key, name, kind],
            )
        db.execute("UPDATE destinations SET current = 0 WHERE name = ? AND key != ?", [name, key])
        db.execute(
            "UPDATE destinations SET current = 1, place = coalesce(place, ?) WHERE key = ?", [place, key]
        )
        return key


def _free_key(db: Transaction, name: str) -> str:
    """A key for one more place of this name; another destination may be called as one of them would be."""
    taken = {key for (key,) in db.execute("SELECT key FROM destinations")}
    keys = chain([name], (f"{name}@{number}" for number in count(2)))
    return next(key for key in keys if key not in taken)


def _active(db: Transaction) -> set[tuple[str, bool]]:
    """The places of the destinations in the config file, and whether they must have every image."""
    return set(db.execute("SELECT key, required FROM destinations WHERE active").fetchall())


def _chosen(rows: list[tuple[str, str, str | None]], kind: str, place: str | None) -> str | None:
    """The key of the row (key, kind, place) that stands for this place; the first is the one of now.

    That very place, if it is known. Else the row of now, or the latest, of this kind: which place it is, it
    will tell; only a row whose place was never told can turn out to be one that is.
    """
    same_kind = [(key, its_place) for key, its_kind, its_place in rows if its_kind == kind]
    if place is None:
        return same_kind[0][0] if same_kind else None
    exactly = [key for key, its_place in same_kind if its_place == place]
    untold = [rows[0][0]] if rows and rows[0][1:] == (kind, None) else []
    return next(iter([*exactly, *untold]), None)


def row_of(connection: Connection, name: str) -> dict[str, Any] | None:
    """The row of the place that a destination's name stands for."""
    rows = connection.query("SELECT * FROM destinations WHERE name = :name AND current = 1", name=name)
    return rows[0] if rows else None


def key_of(connection: Connection, destination: str) -> str:
    """What deliveries, notes and labels of a destination are kept under: of the place that it is now."""
    row = row_of(connection, destination)
    return str(row["key"]) if row else destination
