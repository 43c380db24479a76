"""Destinations of the config file, and the places that they are: a proof belongs to a place, not to a name."""

from collections.abc import Iterable
from itertools import chain, count
from typing import Any

from trapsync.catalog.connection import CatalogFile, Transaction
from trapsync.catalog.rows import HELD, HELD_SOMEWHERE, STATE, Registered


class Places(CatalogFile):
    """The catalog, as far as destinations are places."""

    def register(self, destinations: Iterable[tuple[str, str, bool] | Registered]) -> None:
        """Say which destinations there are: (name, kind, required, identity).

        What is on the card is pending at each that is new, or is another place than it was.
        """
        with self._transaction("register") as db:
            before = _active(db)
            db.execute("UPDATE destinations SET active = 0")
            for one in (Registered(*some) for some in destinations):
                key = self._place_of(db, one.name, one.kind, one.identity)
                db.execute(
                    "UPDATE destinations SET required = ?, active = 1 WHERE key = ?", [one.required, key]
                )
            if _active(db) != before:
                self._judge_anew(db)

    def settle_place(self, destination: str, place: str) -> bool:
        """Say which place a destination is found to be; whether it is another than it was.

        Then what is on the card is pending there, unless it was delivered to that very place before.
        """
        row = self._destination(destination)
        if row is None or row["place"] == place:
            return False
        with self._transaction("settle_place") as db:
            key = self._place_of(db, destination, row["kind"], place)
            if key == row["key"]:  # it was not known until now
                return False
            db.execute("UPDATE destinations SET active = 0 WHERE key = ?", [row["key"]])
            db.execute(
                "UPDATE destinations SET active = ?, required = ? WHERE key = ?",
                [row["active"], row["required"], key],
            )
            self._judge_anew(db)
        return True

    def is_place(self, destination: str, place: str) -> bool:
        """Whether a destination is still this place; another thread, or a command, may have found out otherwise."""
        row = self._destination(destination)
        return row is None or row["place"] == place

    def _destination(self, name: str) -> dict[str, Any] | None:
        """The row of the place that a name stands for."""
        rows = self._query("SELECT * FROM destinations WHERE name = :name AND current = 1", name=name)
        return rows[0] if rows else None

    def _key(self, destination: str) -> str:
        """What deliveries, notes and labels of a destination are kept under: of the place that it is now."""
        row = self._destination(destination)
        return str(row["key"]) if row else destination

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

    def _judge_anew(self, db: Transaction) -> None:
        """The destinations are others than they were: what is pending where, and what counts as delivered."""
        # What is missing on the card may be at the new place: it is asked for there, too.
        self._make_pending(db, "(images.gone_at IS NULL OR images.state = 'pending')")
        # What has left the card as delivered stays so: a new destination cannot have it. Whether that is so of what
        # is marked to leave, only a look at the card can tell: see `withdrawn_marks`.
        db.execute(
            f"""UPDATE images SET state = {STATE} WHERE state != 'dropped' AND state != {STATE}
                AND (gone_at IS NULL OR state = 'pending')"""
        )
        # What was nowhere by the settings of before may be where it must be by those of today.
        db.execute(
            f"""UPDATE images SET state = 'delivered', gone_why = iif(gone_why = 'lost', 'pruned', gone_why)
                WHERE state = 'dropped' AND {STATE} = 'delivered'"""
        )
        db.execute(
            f"""UPDATE images SET state = 'delivered', gone_why = 'pruned'
                WHERE state = 'dropped' AND gone_why = 'lost' AND {HELD_SOMEWHERE}"""
        )
        self._drop_missing(db)

    def _revive(self, db: Transaction, image_id: int) -> None:
        """A file of this image is on the card: look for it there; it is pending wherever it was not delivered.

        One that was pruned and is put back is judged by the destinations of today.
        """
        here = """SELECT iif(folder = '', name, folder || '/' || name) FROM files
                  WHERE image_id = images.id AND leaving != 2"""
        db.execute(
            f"UPDATE images SET path = ({here} LIMIT 1) WHERE id = ? AND path NOT IN ({here})", [image_id]
        )
        # Whoever puts back what was pruned may know that it is not there any more: it is asked for before it goes.
        db.execute(
            """UPDATE deliveries SET confirmed_at = NULL, confirmed_boot = NULL, confirmed_mono = NULL
               WHERE image_id = :id AND confirmed_at IS NOT NULL
               AND EXISTS (SELECT 1 FROM images WHERE id = :id AND gone_why = 'pruned')
               AND EXISTS (SELECT 1 FROM files WHERE image_id = :id AND leaving = 0)""",
            {"id": image_id},
        )
        changed = db.execute(
            """UPDATE images SET gone_at = NULL, gone_why = NULL, unasked = 0, acknowledged_at = NULL
               WHERE id = ? AND gone_at IS NOT NULL AND EXISTS
                   (SELECT 1 FROM files WHERE image_id = images.id AND leaving = 0)""",
            [image_id],
        ).rowcount
        if changed:
            # Refused because it was lost and could not be sent: now it can.
            db.execute(
                """UPDATE deliveries SET state = 'pending', attempts = 0, blamed = 0, acknowledged_at = NULL
                   WHERE image_id = ? AND state = 'refused' AND error LIKE '%and the card has it no longer'""",
                [image_id],
            )
            db.execute("UPDATE files SET leaving = 0 WHERE image_id = ? AND leaving = 1", [image_id])
            self._make_pending(db, "images.id = ?", image_id)
            db.execute(f"UPDATE images SET state = {STATE} WHERE id = ?", [image_id])

    def _unmark(self, db: Transaction, image_id: int) -> None:
        """Take back that an image is to be pruned: its file lies on the card, and stays, as it stands today."""
        db.execute("UPDATE files SET leaving = 0 WHERE image_id = ? AND leaving = 1", [image_id])
        db.execute(
            """UPDATE images SET gone_at = NULL, gone_why = NULL, unasked = 0
               WHERE id = ? AND gone_why = 'pruned'""",
            [image_id],
        )
        self._make_pending(db, "images.id = ?", image_id)
        db.execute(f"UPDATE images SET state = {STATE} WHERE id = ? AND state != 'dropped'", [image_id])

    def _drop_missing(self, db: Transaction, image_id: int | None = None) -> int:
        """Images (or one) that are missing on the card, and that no destination is asked for any more; how many.

        Some of them were there all the same: those are delivered. The others are dropped.
        """
        missing = f"""state = 'pending' AND gone_at IS NOT NULL AND {"1" if image_id is None else "id = ?"}
            AND NOT EXISTS (SELECT 1 FROM deliveries JOIN destinations ON key = destination AND active
                            WHERE image_id = images.id AND deliveries.state = 'pending')"""
        which = [] if image_id is None else [image_id]
        db.execute(
            f"UPDATE images SET state = {STATE} WHERE {missing} AND {STATE} = 'delivered'", list(which)
        )
        # What was pruned once was everywhere, and is delivered as long as one that must have it holds it.
        db.execute(
            f"""UPDATE images SET state = 'delivered', gone_why = 'pruned'
                WHERE {missing} AND gone_why IN ('pruned', 'lost') AND {HELD_SOMEWHERE}""",
            list(which),
        )
        dropped = db.execute(
            f"""UPDATE images SET state = 'dropped', gone_why = iif(gone_why = 'pruned', 'lost', gone_why)
                WHERE {missing}""",
            list(which),
        ).rowcount
        return int(dropped)

    def _make_pending(self, db: Transaction, which: str, *parameters: Any) -> None:
        """Make images pending for every active destination that has no delivery of them yet; not those that are held."""
        db.execute(
            f"""INSERT INTO deliveries (destination, image_id, state, rank)
                SELECT destinations.key, images.id, 'pending', images.rank FROM images, destinations
                WHERE destinations.active AND {which} AND {HELD} IS NOT TRUE ON CONFLICT DO NOTHING""",
            list(parameters),
        )


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
