"""Destinations: what is owed and delivered to them, and what they noted."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from trapsync import soundness
from trapsync.catalog.file import CatalogFile, Transaction
from trapsync.catalog.rows import HELD, IMAGE, STATE
from trapsync.image import Image

# May it go now? Waits are counted on the monotonic clock of the boot they were set in; after a reboot
# they are served once more from its start, which is at most `retry_longest` too long.
_MAY_GO = """(wait_for IS NULL OR (wait_boot = :boot AND wait_until <= :monotonic)
              OR (wait_boot != :boot AND wait_for <= :monotonic))"""

# A destination may come after another: only what that one has confirmed.
_HAS_COME = """(:after = '' OR EXISTS (SELECT 1 FROM deliveries AS before WHERE before.destination = :after
                AND before.image_id = deliveries.image_id AND before.state = 'delivered'))"""


class Deliveries(CatalogFile):
    """The catalog, as far as deliveries go."""

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
                    f"""UPDATE images SET state = {STATE} WHERE state != 'dropped' AND state != {STATE}
                        AND (gone_at IS NULL OR state = 'owed')"""
                )

    def _owe(self, db: Transaction, which: str, *parameters: Any) -> None:
        """Owe images to every active destination that has no delivery of them yet; not those that are held."""
        db.execute(
            f"""INSERT INTO deliveries (destination, image_id, state, rank)
                SELECT destinations.name, images.id, 'owed', images.rank FROM images, destinations
                WHERE destinations.active AND {which} AND {HELD} IS NOT TRUE ON CONFLICT DO NOTHING""",
            list(parameters),
        )

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
                f"""SELECT {IMAGE} FROM deliveries INDEXED BY deliveries_owed
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

    def has_due(self, destination: str, since: float) -> bool:
        """Whether anything may go there now that has not failed since a moment of this boot's monotonic clock."""
        return bool(
            self._query(
                f"""SELECT 1 FROM deliveries INDEXED BY deliveries_owed
                    WHERE destination = :destination AND state = 'owed' AND {_MAY_GO}
                    AND (wait_for IS NULL OR wait_boot != :boot OR wait_until - wait_for < :since) LIMIT 1""",
                destination=destination,
                since=since,
                **self._now(),
            )
        )

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
                        WHERE id = ? AND state != 'delivered' AND {STATE} = 'delivered'""",
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

    def delivered_to(self, destination: str, after: int, limit: int) -> list[Image]:
        """Images confirmed by a destination, in order of their ids from `after` on: to ask it again."""
        return self._images(
            f"""SELECT {IMAGE} FROM deliveries JOIN images ON images.id = image_id
                WHERE destination = :destination AND deliveries.state = 'delivered' AND image_id > :after
                ORDER BY image_id LIMIT :limit""",
            destination=destination,
            after=after,
            limit=limit,
        )

    def confirmed_between(
        self, destination: str, since: float, until: float, *, after: int, limit: int
    ) -> list[int]:
        """Ids of images of a time (unix seconds) that were confirmed there and are on the card, from `after` on."""
        rows = self._query(
            """SELECT images.id AS id FROM images JOIN deliveries ON image_id = images.id
               WHERE destination = :name AND deliveries.state = 'delivered' AND gone_at IS NULL
               AND images.rank >= :since AND images.rank < :until AND images.id > :after
               ORDER BY images.id LIMIT :limit""",
            name=destination,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
        return [row["id"] for row in rows]

    def receipt(self, destination: str, image_id: int) -> dict[str, Any] | None:
        """The detail that a destination wanted remembered with its receipt; None: it has not confirmed it."""
        rows = self._query(
            """SELECT detail FROM deliveries
               WHERE destination = :name AND image_id = :id AND state = 'delivered'""",
            name=destination,
            id=image_id,
        )
        return json.loads(rows[0]["detail"] or "{}") if rows else None

    def owed_between(self, destination: str, since: float, until: float) -> int:
        """How many images of a time (unix seconds, the end not included) are owed there, or held."""
        return int(
            self._query(
                f"""SELECT (SELECT count(*) FROM deliveries WHERE destination = :name AND state = 'owed'
                            AND rank >= :since AND rank < :until)
                    + (SELECT count(*) FROM images WHERE {HELD} AND gone_at IS NULL
                       AND rank >= :since AND rank < :until) AS n""",
                name=destination,
                since=since,
                until=until,
            )[0]["n"]
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
