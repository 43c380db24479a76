"""What there is: what `status` and the commands show, and the program asks; nothing here writes."""

import json
import math
from dataclasses import dataclass
from typing import Any

from trapsync.catalog.connection import CatalogFile
from trapsync.catalog.rows import HELD, IMAGE, UNASKED
from trapsync.clock import utc
from trapsync.image import Image, TrapName


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


class Views(CatalogFile):
    """The catalog, as far as one looks at it."""

    def ledger(self) -> Ledger:
        """The accounting identity, from the tallies."""
        tallies = self._tallies()
        delivered, pending, dropped = (tallies.get(("", s), 0) for s in ("delivered", "pending", "dropped"))
        quarantined = self._query("SELECT count(*) AS n FROM quarantine")[0]["n"]
        lost = self._gone("lost")
        captured = delivered + pending + dropped + quarantined
        return Ledger(captured, delivered, pending, quarantined, dropped - lost, lost)

    def _gone(self, why: str, more: str = "1") -> int:
        """How many images of those that are nowhere left the card for this reason."""
        sql = f"SELECT count(*) AS n FROM images WHERE state = 'dropped' AND gone_why = :why AND {more}"
        return int(self._query(sql, why=why)[0]["n"])

    def _tallies(self) -> dict[tuple[str, str], int]:
        return {(row["destination"], row["state"]): row["n"] for row in self._query("SELECT * FROM tallies")}

    def destinations(self) -> list[dict[str, Any]]:
        """The active destinations: their row, `pending`, `delivered`, `refused`, and `waits` in seconds.

        `unseen` are the refusals that the owner has not acknowledged.
        """
        rows = self._query("SELECT * FROM destinations WHERE active ORDER BY name")
        tallies = self._tallies()
        for row in rows:
            for state in ("pending", "delivered", "refused"):
                row[state] = tallies.get((row["key"], state), 0)
            row["unseen"] = self._unseen_refusals(row["key"]) if row["refused"] else 0
            row["waits"] = self._waits(row)
        return rows

    def _waits(self, row: dict[str, Any]) -> float:
        if row["wait_for"] is None:
            return 0.0
        now = self._now()
        until = row["wait_until"] if row["wait_boot"] == now["boot"] else row["wait_for"]
        return max(0.0, float(until) - float(now["monotonic"]))

    def newest(self) -> Image | None:
        """The newest image by its name's time; one from the future, of a clock that was wrong, does not count."""
        newest = f"SELECT {IMAGE} FROM images WHERE rank <= :until ORDER BY rank DESC LIMIT 1"
        images = self._images(newest, until=self._clock.wall() + 60) or self._images(newest, until=math.inf)
        return images[0] if images else None

    def names_from(self, device: str, wall: float, seconds: float = 600.0) -> set[str]:
        """The names of a trap's images from a unix time on, on the card, gone, or to come: they are taken."""
        first, last = (str(TrapName(device, utc(at))) for at in (wall - 1, wall + seconds))
        sql = """SELECT key FROM images WHERE key BETWEEN :first AND :last
                 UNION ALL SELECT key FROM corrections WHERE key BETWEEN :first AND :last"""
        return {row["key"] for row in self._query(sql, first=first, last=last)}

    def mean_size(self, limit: int = 50) -> float:
        """The mean size in bytes of the latest images, to predict how long the card lasts; 0.0 without any."""
        (row,) = self._query(
            "SELECT coalesce(avg(size), 0.0) AS mean FROM (SELECT size FROM images ORDER BY rank DESC LIMIT :n)",
            n=limit,
        )
        return float(row["mean"])

    def pictures_since(self, monotonic: float) -> tuple[int, int]:
        """How many pictures this boot took from then on (seconds of the monotonic clock), and their bytes."""
        (row,) = self._query(
            """SELECT count(*) AS n, coalesce(sum(size), 0) AS bytes FROM images
               WHERE boot_id = :boot AND monotonic >= :since""",
            boot=self._now()["boot"],
            since=monotonic,
        )
        return row["n"], row["bytes"]

    def _unseen_refusals(self, key: str) -> int:
        return int(
            self._query(
                """SELECT count(*) AS n FROM deliveries WHERE destination = :key AND state = 'refused'
                   AND acknowledged_at IS NULL""",
                key=key,
            )[0]["n"]
        )

    def conflicts(self) -> int:
        """How many images share their identity with other bytes, and were not acknowledged."""
        sql = "SELECT count(*) AS n FROM images WHERE conflict = 1 AND acknowledged_at IS NULL"
        return int(self._query(sql)[0]["n"])

    def vanished(self) -> int:
        """How many images somebody took from the card before they were delivered, and were not acknowledged."""
        return self._gone("vanished", "acknowledged_at IS NULL")

    def lost(self) -> int:
        """How many images are nowhere any more though they were delivered, and were not acknowledged."""
        return self._gone("lost", "acknowledged_at IS NULL")

    def missing(self) -> int:
        """How many pending images are not on the card: their destinations are asked for them."""
        sql = "SELECT count(*) AS n FROM images WHERE state = 'pending' AND gone_at IS NOT NULL"
        return int(self._query(sql)[0]["n"])

    def unasked(self) -> int:
        """How many images left the card on the last word of a server that could not be asked, until it is."""
        return int(self._query(f"SELECT count(*) AS n FROM images WHERE unasked = 1 AND {UNASKED}")[0]["n"])

    def old_places(self) -> list[dict[str, Any]]:
        """Places that a destination of today was before, if some images that left the card lie only there.

        `name`, `kind`, `place`, and how many images (`only_there`).
        """
        places = self._query(
            """SELECT key, name, kind, place FROM destinations AS old WHERE current = 0 AND EXISTS
               (SELECT 1 FROM destinations AS d WHERE d.name = old.name AND d.active) ORDER BY name, key"""
        )
        for place in places:
            place["only_there"] = self._only_there(place["key"])
        return [place for place in places if place["only_there"]]

    def _only_there(self, key: str) -> int:
        return int(
            self._query(
                """SELECT count(*) AS n FROM deliveries JOIN images ON images.id = image_id
                   WHERE destination = :key AND deliveries.state = 'delivered' AND gone_at IS NOT NULL
                   AND images.state = 'delivered' AND NOT EXISTS
                       (SELECT 1 FROM deliveries AS other JOIN destinations ON key = other.destination AND active
                        WHERE other.image_id = images.id AND other.state = 'delivered')""",
                key=key,
            )[0]["n"]
        )

    def on_card(self, after: int, limit: int) -> list[Image]:
        """Images whose file is on the card, in order of their ids from `after` on."""
        return self._images(
            f"SELECT {IMAGE} FROM images WHERE gone_at IS NULL AND id > :after ORDER BY id LIMIT :limit",
            after=after,
            limit=limit,
        )

    def listing(self, state: str | None, limit: int) -> list[dict[str, Any]]:
        """Images newest first, with their deliveries as JSON: for people.

        `state` may be 'refused', 'conflict' or 'held' too.
        """
        where = {
            None: "1",
            "refused": "id IN (SELECT image_id FROM deliveries WHERE state = 'refused')",
            "conflict": "conflict = 1",
            "held": f"{HELD} AND gone_at IS NULL",
            "dropped": "state = 'dropped' AND gone_why != 'lost'",
            "lost": "state = 'dropped' AND gone_why = 'lost'",
        }.get(state, "state = :state")
        rows = self._query(
            f"""SELECT id, key, path, size, md5, sha256, width, height, state, gone_at, gone_why, conflict,
                   thumbnails, boot_id, monotonic, wall, clock_trusted, clock_offset, timing, was, metadata,
                   (SELECT json_group_object(iif(current, name, name || ' (before: ' || coalesce(place, kind) || ')'),
                        json_object('state', deliveries.state, 'error', deliveries.error,
                        'delivered_at', deliveries.delivered_at, 'confirmed_at', deliveries.confirmed_at))
                    FROM deliveries JOIN destinations ON destinations.key = destination
                        AND (active OR (current = 0 AND deliveries.state = 'delivered'))
                    WHERE image_id = images.id) AS deliveries
                FROM images WHERE {where} ORDER BY rank DESC LIMIT :limit""",
            limit=limit,
            **({"state": state} if ":state" in where else {}),
        )
        for row in rows:
            row["deliveries"], row["metadata"] = json.loads(row["deliveries"]), json.loads(row["metadata"])
        return rows
