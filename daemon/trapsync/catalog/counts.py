"""How many images there are of each kind, for `status`; nothing here writes."""

from dataclasses import dataclass
from typing import Any

from trapsync.catalog.connection import Part
from trapsync.catalog.rows import UNASKED, WAIT_LEFT


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounting identity: captured = delivered + pending + quarantined + dropped + lost.

    Lost is what no destination that must have it holds any more, and the card neither.
    """

    captured: int
    delivered: int
    pending: int
    quarantined: int
    dropped: int
    lost: int


class Counts(Part):
    """Images, counted by what they are."""

    def ledger(self) -> Ledger:
        """The accounting identity, from the tallies."""
        tallies = self._tallies()
        delivered, pending, dropped = (tallies.get(("", s), 0) for s in ("delivered", "pending", "dropped"))
        quarantined = self._connection.query("SELECT count(*) AS n FROM quarantine")[0]["n"]
        lost = self._gone("lost")
        captured = delivered + pending + dropped + quarantined
        return Ledger(captured, delivered, pending, quarantined, dropped - lost, lost)

    def _gone(self, why: str, more: str = "1") -> int:
        """How many images of those that are nowhere left the card for this reason."""
        sql = f"SELECT count(*) AS n FROM images WHERE state = 'dropped' AND gone_why = :why AND {more}"
        return int(self._connection.query(sql, why=why)[0]["n"])

    def _tallies(self) -> dict[tuple[str, str], int]:
        return {
            (row["destination"], row["state"]): row["n"]
            for row in self._connection.query("SELECT * FROM tallies")
        }

    def destinations(self) -> list[dict[str, Any]]:
        """The active destinations: their row, `pending`, `delivered`, `refused`, and `waits` in seconds.

        `unseen` are the refusals that the owner has not acknowledged, `failing` the pending deliveries that failed more
        than once, with `failing_key` and `failing_error` of one of them.
        """
        rows = self._connection.query(
            f"""SELECT *, iif(wait_for IS NULL, 0.0, {WAIT_LEFT}) AS waits
                FROM destinations WHERE active ORDER BY name""",
            **self._connection.now(),
        )
        tallies = self._tallies()
        for row in rows:
            for state in ("pending", "delivered", "refused"):
                row[state] = tallies.get((row["key"], state), 0)
            row["unseen"] = self._unseen_refusals(row["key"]) if row["refused"] else 0
            row |= self._failing(row["key"]) if row["pending"] else {"failing": 0}
        return rows

    def _failing(self, key: str) -> dict[str, Any]:
        return self._connection.query(
            """SELECT count(*) AS failing, max(deliveries.rank), images.key AS failing_key, error AS failing_error
               FROM deliveries INDEXED BY deliveries_pending JOIN images ON images.id = image_id
               WHERE destination = :key AND deliveries.state = 'pending' AND attempts > 1""",
            key=key,
        )[0]

    def _unseen_refusals(self, key: str) -> int:
        return int(
            self._connection.query(
                """SELECT count(*) AS n FROM deliveries WHERE destination = :key AND state = 'refused'
                   AND acknowledged_at IS NULL""",
                key=key,
            )[0]["n"]
        )

    def conflicts(self) -> int:
        """How many images share their identity with other bytes, and were not acknowledged."""
        sql = "SELECT count(*) AS n FROM images WHERE conflict = 1 AND acknowledged_at IS NULL"
        return int(self._connection.query(sql)[0]["n"])

    def vanished(self) -> int:
        """How many images somebody took from the card before they were delivered, and were not acknowledged."""
        return self._gone("vanished", "acknowledged_at IS NULL")

    def lost(self) -> int:
        """How many images are nowhere any more though they were delivered, and were not acknowledged."""
        return self._gone("lost", "acknowledged_at IS NULL")

    def missing(self) -> int:
        """How many pending images are not on the card: their destinations are asked for them."""
        sql = "SELECT count(*) AS n FROM images WHERE state = 'pending' AND gone_at IS NOT NULL"
        return int(self._connection.query(sql)[0]["n"])

    def unasked(self) -> int:
        """How many images left the card on the last word of a server that could not be asked, until it is."""
        return int(
            self._connection.query(f"SELECT count(*) AS n FROM images WHERE unasked = 1 AND {UNASKED}")[0][
                "n"
            ]
        )

    def old_places(self) -> list[dict[str, Any]]:
        """Places that a destination of today was before, if some images that left the card lie only there.

        `name`, `kind`, `place`, and how many images (`only_there`).
        """
        places = self._connection.query(
            """SELECT key, name, kind, place FROM destinations AS old WHERE current = 0 AND EXISTS
               (SELECT 1 FROM destinations AS d WHERE d.name = old.name AND d.active) ORDER BY name, key"""
        )
        for place in places:
            place["only_there"] = self._only_there(place["key"])
        return [place for place in places if place["only_there"]]

    def _only_there(self, key: str) -> int:
        return int(
            self._connection.query(
                """SELECT count(*) AS n FROM deliveries JOIN images ON images.id = image_id
                   WHERE destination = :key AND deliveries.state = 'delivered' AND gone_at IS NOT NULL
                   AND images.state = 'delivered' AND NOT EXISTS
                       (SELECT 1 FROM deliveries AS other JOIN destinations ON key = other.destination AND active
                        WHERE other.image_id = images.id AND other.state = 'delivered')""",
                key=key,
            )[0]["n"]
        )
