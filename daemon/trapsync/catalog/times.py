"""Boots, and the images whose time they hold up: held, confirmed, corrected, unsure, released."""

from collections.abc import Iterable
from typing import Any

from trapsync.catalog import integrity, states
from trapsync.catalog.connection import Part, Transaction
from trapsync.catalog.rows import HELD, IMAGE, STATE, TIMINGS, image_of, sealed_values
from trapsync.image import Correction, Found, Image, TrapName, parse_name

_TWIN_STATE = STATE.replace("images.", "twin.")


class Times(Part):
    """The catalog, as far as times are put right; what is held no longer is pending."""

    # Boots

    def note_boot(self) -> None:
        """Remember this boot, and what its monotonic clock lacks to the wall as soon as that can be trusted."""
        # As in `clock.evidence`: first the trust.
        trusted, boot = self._connection.clock.trusted(), self._connection.clock.boot_id()
        wall, monotonic = self._connection.clock.wall(), self._connection.clock.monotonic()
        known = self._connection.query(
            "SELECT number, clock_offset FROM boots WHERE boot_id = :boot", boot=boot
        )
        if not boot or (
            known and known[0]["number"] and (known[0]["clock_offset"] is not None or not trusted)
        ):
            return
        with self._connection.transaction("note_boot") as db:
            db.execute(
                """INSERT INTO boots SELECT ?, coalesce(max(number), 0) + 1, NULL, NULL FROM boots
                   WHERE true ON CONFLICT (boot_id) DO UPDATE SET number = coalesce(number, excluded.number)""",
                [boot],
            )
            if trusted:
                self._know_offset(db, boot, wall - monotonic, wall)

    def _know_offset(self, db: Transaction, boot: str, offset: float, trusted_at: float) -> None:
        db.execute(
            """INSERT INTO boots VALUES (?, NULL, ?, ?) ON CONFLICT (boot_id) DO UPDATE
               SET clock_offset = excluded.clock_offset, trusted_at = excluded.trusted_at
               WHERE clock_offset IS NULL""",
            [boot, offset, trusted_at],
        )

    def is_known(self) -> bool:
        """Whether the clock was trusted at any moment of this boot."""
        which = "SELECT 1 FROM boots WHERE boot_id = :boot AND boot_id != '' AND clock_offset IS NOT NULL"
        with self._connection.refusing("read"):
            return bool(self._connection.query(which, boot=self._connection.clock.boot_id()))

    def learn_offsets(self) -> None:
        """Find out from other images of a boot what its clock lacked, where this catalog was not there."""
        # Of each boot with held images: its first image that knows the offset, because its clock was set by then, or
        # because it was corrected. Not of a boot whose offset is known: the boot's own word is the better one.
        rows = self._connection.query(
            f"""SELECT DISTINCT boot_id, others.offset, others.wall FROM images JOIN (
                    SELECT boot_id AS boot, clock_trusted, wall, min(monotonic),
                        iif(clock_trusted, wall - monotonic, clock_offset) AS offset
                    FROM images WHERE boot_id IN (SELECT boot_id FROM images WHERE {HELD})
                    AND (clock_trusted OR clock_offset IS NOT NULL) GROUP BY boot_id) AS others
                ON boot_id = boot
                WHERE {HELD} AND boot_id != '' AND boot_id NOT IN
                    (SELECT boot_id FROM boots WHERE clock_offset IS NOT NULL)"""
        )
        if rows:
            with self._connection.transaction("learn_offsets") as db:
                for row in rows:
                    self._know_offset(db, row["boot_id"], row["offset"], row["wall"])

    def boots(self) -> list[dict[str, Any]]:
        """Every boot in its order, those of unknown order first.

        Beside the table's columns: `last`, the latest monotonic time of an image of it, and how many images
        are `held`, `confirmed`, `corrected`, `unsure`, `released`.
        """
        counts = "".join(f", count(*) FILTER (WHERE timing = '{one}') AS {one}" for one in TIMINGS)
        return self._connection.query(
            f"""SELECT boot_id, number, boots.clock_offset, trusted_at, coalesce(last, 0) AS last,
                    {", ".join(f"coalesce({one}, 0) AS {one}" for one in TIMINGS)}
                FROM (SELECT boot_id FROM boots
                      UNION SELECT boot_id FROM images WHERE timing IS NOT NULL)
                LEFT JOIN boots USING (boot_id)
                LEFT JOIN (SELECT boot_id, max(monotonic) AS last FROM images
                           WHERE boot_id IS NOT NULL GROUP BY boot_id) USING (boot_id)
                LEFT JOIN (SELECT boot_id{counts} FROM images WHERE timing IS NOT NULL AND state != 'dropped'
                           GROUP BY boot_id) USING (boot_id)
                ORDER BY number NULLS FIRST"""
        )

    # Held images

    def correctable(self, limit: int) -> list[tuple[Image, float, float]]:
        """Held images of boots whose clock was set: (image, offset, when that was). The announced come first."""
        rows = self._connection.query(
            f"""SELECT {IMAGE}, boots.clock_offset AS found, trusted_at
                FROM images JOIN boots USING (boot_id)
                WHERE {HELD} AND boots.clock_offset IS NOT NULL AND gone_at IS NULL
                ORDER BY images.id NOT IN (SELECT image_id FROM corrections), boot_id, monotonic LIMIT :limit""",
            limit=limit,
        )
        return [(image_of(row), row["found"], row["trusted_at"]) for row in rows]

    def drop_twins(self) -> int:
        """Let go of held images that were corrected already and came back as they were; how many.

        Their old file is found again where the catalog was lost before that was deleted, or where somebody
        copied it back. The same bytes but for the EXIF, of the same moment of the same boot, are the same picture:
        the old file is to be deleted, but where a destination of today does not have what left the card. An edited
        one, which has kept the EXIF, is another picture.
        """
        twins = self._connection.query(
            f"""SELECT images.id, twin.id AS twin, images.state FROM images
                JOIN images AS twin USING (boot_id, monotonic, picture)
                WHERE {HELD} AND images.gone_at IS NULL AND twin.timing = 'corrected'
                AND (twin.gone_at IS NULL OR twin.state = 'delivered' AND {_TWIN_STATE} = 'delivered')"""
        )
        if not twins:
            return 0
        with self._connection.transaction("drop_twins") as db:
            for row in twins:
                db.execute(
                    "UPDATE files SET image_id = ?, leaving = 2 WHERE image_id = ?", [row["twin"], row["id"]]
                )
                db.execute("DELETE FROM corrections WHERE image_id = ?", [row["id"]])
                db.execute("DELETE FROM images WHERE id = ?", [row["id"]])
                db.execute(
                    "UPDATE tallies SET n = n - 1 WHERE destination = '' AND state = ?", [row["state"]]
                )
        return len(twins)

    def is_taken(self, key: str) -> bool:
        """Whether an image has this name, had it, or is to have it."""
        return bool(
            self._connection.query(
                "SELECT 1 FROM images WHERE key = :key UNION ALL SELECT 1 FROM corrections WHERE key = :key",
                key=key,
            )
        )

    def announced(self) -> dict[int, TrapName]:
        """The corrected files that are being written: image id -> the new name."""
        rows = self._connection.query("SELECT image_id, key FROM corrections")
        return {row["image_id"]: name for row in rows if (name := parse_name(row["key"]))}

    def announce(self, corrections: Iterable[Correction]) -> None:
        """Durable before any of these files is written: what appears under their names is no new image."""
        with self._connection.transaction("announce") as db:
            for one in corrections:
                db.execute(
                    "INSERT OR REPLACE INTO corrections VALUES (?, ?, ?)",
                    [one.image.id, str(one.name), one.path],
                )

    def withdraw(self, image_id: int) -> None:
        """The corrected file is not to be: what lies under its name is looked at by the next sweep."""
        with self._connection.transaction("withdraw") as db:
            db.execute("DELETE FROM corrections WHERE image_id = ?", [image_id])

    def correct(self, corrected: Iterable[tuple[Correction, Found, Image]]) -> None:
        """The new files are the images from here on, and pending; the old ones are to be deleted."""
        with self._connection.transaction("correct") as db:
            for one, found, image in corrected:
                db.execute("UPDATE files SET leaving = 2 WHERE image_id = ?", [one.image.id])
                self._reseal(db, one, image)
                db.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, 0)",
                    [found.folder, found.name, found.size, found.mtime_ns, one.image.id],
                )
                db.execute("DELETE FROM corrections WHERE image_id = ?", [one.image.id])
                self._let_go(db, "corrected", "id = ?", one.image.id)
                states.revive(db, one.image.id)  # the old file may have vanished meanwhile

    def _reseal(self, db: Transaction, correction: Correction, image: Image) -> None:
        sealed = sealed_values(image)
        db.execute(
            f"""UPDATE images SET ({integrity.SEALED}, seal) = ({"?, " * len(sealed)} ?), path = ?, rank = ?,
                    was = key, clock_offset = ?, thumbnails = NULL, conflict = 0 WHERE id = ?""",
            [
                *(*sealed, integrity.seal(*sealed), image.path, correction.name.taken.timestamp()),
                *(correction.offset, correction.image.id),
            ],
        )

    def confirm_times(self, image_ids: Iterable[int] | None = None) -> int:
        """The times of these held images are right as they are, or those of all; how many those were."""
        with self._connection.transaction("confirm") as db:
            if image_ids is None:
                return self._let_go(db, "confirmed", HELD)
            return sum(self._let_go(db, "confirmed", f"id = ? AND {HELD}", one) for one in image_ids)

    def give_up(self) -> int:
        """Held images of boots that ended before the clock was set will never be put right; how many."""
        which = """timing = 'held' AND boot_id IS NOT :boot AND gone_at IS NULL AND boot_id NOT IN
                    (SELECT boot_id FROM boots WHERE clock_offset IS NOT NULL)"""
        boot = self._connection.clock.boot_id() or None
        if not self._connection.query(f"SELECT 1 FROM images WHERE {which} LIMIT 1", boot=boot):
            return 0
        with self._connection.transaction("give_up") as db:
            return int(
                db.execute(f"UPDATE images SET timing = 'unsure' WHERE {which}", {"boot": boot}).rowcount
            )

    def release_unsure(self) -> int:
        """The owner says that images which cannot be put right are to be delivered; how many those were."""
        if not self._connection.query("SELECT 1 FROM images WHERE timing = 'unsure' LIMIT 1"):
            return 0
        with self._connection.transaction("release_unsure") as db:
            return self._let_go(db, "released", "timing = 'unsure'")

    def _let_go(self, db: Transaction, timing: str, which: str, *parameters: Any) -> int:
        """These are held no longer: pending for every destination, and as old as their time says."""
        ids = [row[0] for row in db.execute(f"SELECT id FROM images WHERE {which}", list(parameters))]
        for image_id in ids:
            db.execute(
                "UPDATE images SET timing = ?, ingested_at = ? WHERE id = ?",
                [timing, self._connection.clock.wall(), image_id],
            )
            states.make_pending(db, "images.id = ? AND images.gone_at IS NULL", image_id)
        return len(ids)

    def timings(self) -> dict[str, int]:
        """How many images are held on the card for their time: 'held' and 'unsure'."""
        rows = self._connection.query(
            f"SELECT timing, count(*) AS n FROM images WHERE {HELD} AND gone_at IS NULL GROUP BY timing"
        )
        return {"held": 0, "unsure": 0} | {row["timing"]: row["n"] for row in rows}
