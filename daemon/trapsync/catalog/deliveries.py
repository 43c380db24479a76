"""Deliveries: what is pending, what was delivered, what was refused and what waits."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from trapsync.catalog import states
from trapsync.catalog.connection import Part
from trapsync.catalog.places import key_of, row_of
from trapsync.catalog.rows import HELD, IMAGE, KEY, STATE, WAIT_LEFT, Proof, to_json
from trapsync.clock import Clock
from trapsync.image import Image

# May it go now? Waits are counted on the monotonic clock of the boot they were set in; after a reboot
# they are served once more from its start, which is at most `retry_max` too long.
_MAY_GO = """(wait_for IS NULL OR (wait_boot = :boot AND wait_until <= :monotonic)
              OR (wait_boot != :boot AND wait_for <= :monotonic))"""

# A destination may come after another: only what that one has confirmed.
_HAS_COME = """(:after = '' OR EXISTS (SELECT 1 FROM deliveries AS before WHERE before.destination =
                    (SELECT d.key FROM destinations AS d WHERE d.name = :after AND d.current = 1)
                AND before.image_id = deliveries.image_id AND before.state = 'delivered'))"""

_BOOT_MARK = slice(-12, None)  # of a boot's id: enough to tell it from another


class Deliveries(Part):
    """The catalog, as far as deliveries go."""

    # Whether a destination may be reached

    def may_go(self, destination: str) -> bool:
        """Whether the destination's back-off is over."""
        return bool(
            self._connection.query(
                f"SELECT 1 FROM destinations WHERE name = :name AND current = 1 AND {_MAY_GO}",
                name=destination,
                **self._connection.now(),
            )
        )

    def attempts(self, destination: str) -> int:
        """How many attempts to reach it failed in a row."""
        row = row_of(self._connection, destination)
        return int(row["attempts"]) if row else 0

    def is_barred(self, destination: str) -> bool:
        """Whether it answered at the last attempt that failed, and did not let us in."""
        row = row_of(self._connection, destination)
        return bool(row and row["barred"])

    def destination_failed(
        self, destination: str, error: str, wait: float, *, is_barred: bool = False
    ) -> None:
        """Remember a failed attempt to reach a destination, and leave it alone for `wait` seconds."""
        with self._connection.transaction("destination_failed") as db:
            db.execute(
                """UPDATE destinations SET attempts = attempts + 1, error = :error, error_at = :wall, barred = :barred,
                   wait_boot = :boot, wait_until = :monotonic + :wait, wait_for = :wait
                   WHERE name = :name AND current = 1""",
                {
                    "name": destination,
                    "error": error,
                    "wait": wait,
                    "barred": is_barred,
                    "wall": self._connection.clock.wall(),
                    **self._connection.now(),
                },
            )

    def destination_answered(self, destination: str) -> None:
        """Forget earlier failures: it answers."""
        with self._connection.transaction("destination_answered") as db:
            db.execute(
                """UPDATE destinations SET attempts = 0, error = NULL, wait_for = NULL
                   WHERE name = ? AND current = 1 AND (attempts > 0 OR wait_for IS NOT NULL OR error IS NOT NULL)""",
                [destination],
            )

    # Deliver

    def due(
        self, destination: str, order: Literal["newest", "oldest"], limit: int, *, after: str = ""
    ) -> list[Image]:
        """The next images pending for a destination whose own back-off is over; those that failed come last.

        `after` names another destination: only what was delivered there.
        """
        direction = "DESC" if order == "newest" else "ASC"
        images: list[Image] = []
        for attempts, first in (("= 0", ""), ("> 0", "attempts, ")):
            images += self._connection.query_images(
                f"""SELECT {IMAGE}, +deliveries.state != 'pending' AS is_wrong
                    FROM deliveries INDEXED BY deliveries_pending JOIN images ON images.id = image_id
                    WHERE destination = {KEY} AND deliveries.state = 'pending'
                    AND attempts {attempts} AND {_MAY_GO} AND {_HAS_COME}
                    ORDER BY {first}deliveries.rank {direction} LIMIT :limit""",
                destination=destination,
                limit=limit - len(images),
                after=after,
                **self._connection.now(),
            )
        return images

    def next_attempt(self, destination: str) -> float | None:
        """Seconds until a wait there is over: the destination's own, else the first of its images; None: nothing waits."""
        for waiting in (
            "destinations WHERE name = :destination AND current = 1",
            f"deliveries INDEXED BY deliveries_pending WHERE destination = {KEY} AND state = 'pending'",
        ):
            sql = f"SELECT min({WAIT_LEFT}) AS seconds FROM {waiting} AND wait_for IS NOT NULL"
            (row,) = self._connection.query(sql, destination=destination, **self._connection.now())
            if row["seconds"] is not None:
                return float(row["seconds"])
        return None

    def off_card(self, image_ids: Iterable[int]) -> set[int]:
        """Which of these images have no file on the card."""
        rows = self._connection.query(
            "SELECT id FROM images WHERE gone_at IS NOT NULL AND id IN (SELECT value FROM json_each(:ids))",
            ids=json.dumps(list(image_ids)),
        )
        return {row["id"] for row in rows}

    def has_due(self, destination: str, since: float) -> bool:
        """Whether anything may go there now that has not failed since a moment of this boot's monotonic clock."""
        return bool(
            self._connection.query(
                f"""SELECT 1 FROM deliveries INDEXED BY deliveries_pending
                    WHERE destination = {KEY} AND state = 'pending' AND {_MAY_GO}
                    AND (wait_for IS NULL OR wait_boot != :boot OR wait_until - wait_for < :since) LIMIT 1""",
                destination=destination,
                since=since,
                **self._connection.now(),
            )
        )

    def mark_delivered(self, destination: str, proofs: Sequence[Proof | tuple[Any, ...]]) -> None:
        """Record confirmed deliveries in one commit: see `Proof`."""
        if not proofs:
            return
        now, key = self._connection.clock.wall(), key_of(self._connection, destination)
        with self._connection.transaction("mark_delivered") as db:
            for proof in (Proof(*some) for some in proofs):
                # An image whose file vanished while it was sent was pending nowhere any more.
                db.execute(
                    """INSERT INTO deliveries (destination, image_id, state, rank, digest, detail, lies_at,
                           confirmed_at, confirmed_boot, confirmed_mono, delivered_at)
                       SELECT ?, id, 'delivered', rank, ?, ?, ?, ?, ?, ?, ? FROM images WHERE id = ?
                       ON CONFLICT DO UPDATE SET state = 'delivered', digest = excluded.digest,
                       detail = excluded.detail, lies_at = excluded.lies_at, confirmed_at = excluded.confirmed_at,
                       confirmed_boot = excluded.confirmed_boot, confirmed_mono = excluded.confirmed_mono,
                       delivered_at = excluded.delivered_at, error = NULL, wait_for = NULL""",
                    [key, *proven(self._connection.clock, proof), now, proof.image_id],
                )
                db.execute(
                    f"""UPDATE images SET state = 'delivered', gone_why = iif(gone_why = 'lost', 'pruned', gone_why)
                        WHERE id = ? AND state != 'delivered' AND {STATE} = 'delivered'""",
                    [proof.image_id],
                )
                states.drop_missing(db, proof.image_id)
            db.execute(
                """UPDATE destinations SET delivered_at = ?, attempts = 0, error = NULL, wait_for = NULL
                   WHERE key = ?""",
                [now, key],
            )

    def mark_refused(self, destination: str, image_id: int, reason: str) -> None:
        """The destination will never take it as it is: final until the owner says retry."""
        with self._connection.transaction("mark_refused") as db:
            db.execute(
                """UPDATE deliveries SET state = 'refused', error = ?, wait_for = NULL
                   WHERE destination = ? AND image_id = ? AND state = 'pending'""",
                [reason, key_of(self._connection, destination), image_id],
            )
            states.drop_missing(db, image_id)

    def postpone(
        self, destination: str, image_id: int, reason: str, wait: float, *, path: str | None = None
    ) -> None:
        """Leave one delivery pending for `wait` seconds; with `path` only if the image's file lies there still."""
        with self._connection.transaction("postpone") as db:
            db.execute(
                f"""UPDATE deliveries SET error = :reason, wait_boot = :boot,
                   wait_until = :monotonic + :wait, wait_for = :wait
                   WHERE destination = {KEY} AND image_id = :id AND state = 'pending'
                   AND (:path IS NULL OR EXISTS (SELECT 1 FROM images WHERE id = :id AND path = :path))""",
                {
                    "reason": reason,
                    "wait": wait,
                    "path": path,
                    "destination": destination,
                    "id": image_id,
                    **self._connection.now(),
                },
            )

    def count_attempt(self, destination: str, image_id: int) -> tuple[int, int]:
        """One more attempt failed; how many that makes, and before how many of them another image passed."""
        with self._connection.transaction("count_attempt") as db:
            row = db.execute(
                f"""UPDATE deliveries SET attempts = min(attempts + 1, 9999), blamed = blamed + (n > others), others = n
                   FROM (SELECT coalesce(max(n), 0) AS n FROM tallies
                         WHERE destination = {KEY} AND state = 'delivered')
                   WHERE destination = {KEY} AND image_id = :id AND state = 'pending'
                   RETURNING attempts, blamed""",
                {"destination": destination, "id": image_id},
            ).fetchone()
            return (row[0], row[1]) if row else (0, 0)

    def let_go(self, destination: str, image_id: int) -> bool | None:
        """A destination was asked for an image that it has not, and the image is not there to be sent.

        None: it is on the card, for all that is known. Else it is no longer pending there; whether it is dropped
        with that.
        """
        with self._connection.transaction("let_go") as db:
            gone = db.execute(
                """DELETE FROM deliveries WHERE destination = ? AND image_id = ? AND state = 'pending'
                   AND EXISTS (SELECT 1 FROM images WHERE id = image_id AND gone_at IS NOT NULL)""",
                [key_of(self._connection, destination), image_id],
            ).rowcount
            return bool(states.drop_missing(db, image_id)) if gone else None

    def retry(self, destination: str | None = None, image_key: str | None = None) -> int:
        """The owner says retry: refused deliveries are pending again, waits are over. How many were refused.

        An image that left the card is asked for once more; what does not have it then, has refused it no longer.
        """
        which = f"""(:destination IS NULL OR destination = {KEY})
                   AND destination IN (SELECT d.key FROM destinations AS d WHERE d.active)
                   AND (:key IS NULL OR EXISTS (SELECT 1 FROM images WHERE id = image_id AND key = :key))"""
        with self._connection.transaction("retry") as db:
            parameters = {"destination": destination, "key": image_key}
            # What left the card as delivered is delivered, whatever another destination refused.
            db.execute(
                f"""UPDATE images SET state = 'pending' WHERE state = 'dropped' AND id IN
                    (SELECT image_id FROM deliveries WHERE state = 'refused' AND {which})""",
                parameters,
            )
            count = db.execute(
                f"""UPDATE deliveries SET state = 'pending', attempts = 0, blamed = 0, wait_for = NULL,
                    acknowledged_at = NULL WHERE state = 'refused' AND {which}""",
                parameters,
            ).rowcount
        self.end_waits(destination)
        return int(count)

    def acknowledge(self) -> int:
        """The owner has seen what was dropped, lost, refused or in conflict and is off the card; how many.

        It stays counted, and does not make the verdict worse any more.
        """
        now = self._connection.clock.wall()
        with self._connection.transaction("acknowledge") as db:
            images = db.execute(
                """UPDATE images SET acknowledged_at = ? WHERE acknowledged_at IS NULL AND gone_at IS NOT NULL
                   AND (state = 'dropped' OR conflict = 1)""",
                [now],
            ).rowcount
            refused = db.execute(
                """UPDATE deliveries SET acknowledged_at = ? WHERE acknowledged_at IS NULL AND state = 'refused'
                   AND EXISTS (SELECT 1 FROM images WHERE id = image_id AND gone_at IS NOT NULL)""",
                [now],
            ).rowcount
        return int(images + refused)

    def end_waits(self, destination: str | None = None) -> None:
        """Whatever waits after failures may go at once, to one destination or to all."""
        with self._connection.transaction("end_waits") as db:
            for table, column in (("deliveries", "destination"), ("destinations", "key")):
                db.execute(
                    f"""UPDATE {table} SET wait_for = NULL
                        WHERE wait_for IS NOT NULL AND (:destination IS NULL OR {column} = {KEY})""",
                    {"destination": destination},
                )

    def receipt(self, destination: str, image_id: int) -> dict[str, Any] | None:
        """The detail that a destination wanted remembered with its receipt; None: it has not confirmed it."""
        rows = self._connection.query(
            f"""SELECT detail FROM deliveries
               WHERE destination = {KEY} AND image_id = :id AND state = 'delivered'""",
            destination=destination,
            id=image_id,
        )
        return json.loads(rows[0]["detail"] or "{}") if rows else None

    def pending_between(self, destination: str, since: float, until: float) -> int:
        """How many images of a time (unix seconds, the end not included) are pending there, or held."""
        return int(
            self._connection.query(
                f"""SELECT (SELECT count(*) FROM deliveries WHERE destination = {KEY} AND state = 'pending'
                            AND rank >= :since AND rank < :until)
                    + (SELECT count(*) FROM images WHERE {HELD} AND gone_at IS NULL
                       AND rank >= :since AND rank < :until) AS n""",
                destination=destination,
                since=since,
                until=until,
            )[0]["n"]
        )


def proven(clock: Clock, proof: Proof) -> list[Any]:
    """digest, detail, lies_at and when it was confirmed; a note beside the copy confirms nothing."""
    detail = to_json(dict(proof.detail)) if proof.detail else None
    when = [None] * 3 if proof.noted else _confirmed_now(clock)
    return [proof.digest, detail, proof.at or None, *when]


def _confirmed_now(clock: Clock) -> list[Any]:
    """confirmed_at, confirmed_boot, confirmed_mono."""
    return [clock.wall(), clock.boot_id()[_BOOT_MARK] or None, clock.monotonic()]


def boot_now(clock: Clock) -> dict[str, Any]:
    return {
        "boot_mark": clock.boot_id()[_BOOT_MARK],
        "monotonic": clock.monotonic(),
    }
