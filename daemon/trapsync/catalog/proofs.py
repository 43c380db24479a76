"""Proofs: asked for again, withdrawn when they are wrong, and what may leave the card for them."""

import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from trapsync.catalog import integrity, states
from trapsync.catalog.connection import Part, Transaction
from trapsync.catalog.deliveries import boot_now, proven
from trapsync.catalog.places import key_of
from trapsync.catalog.rows import IMAGE, KEY, STATE, UNASKED, Proof, image_of
from trapsync.image import Found, Image

# Confirmed within the last day, by the monotonic clock of this boot: what was said before a reboot is asked again.
_IS_FRESH = """(coalesce(confirmed_boot, '') != '' AND confirmed_boot = :boot_mark
                AND confirmed_mono > :monotonic - 86400.0 AND confirmed_mono <= :monotonic)"""
# What takes a delivery's proof back.
_NO_PROOF = """digest = NULL, detail = NULL, lies_at = NULL, delivered_at = NULL,
               confirmed_at = NULL, confirmed_boot = NULL, confirmed_mono = NULL"""


class Proofs(Part):
    """The catalog, as far as proofs are held against what destinations say today."""

    def delivered_to(
        self, destination: str, after: int, limit: int, since: float = -math.inf, until: float = math.inf
    ) -> list[Image]:
        """Images confirmed by a destination, in order of their ids from `after` on: to ask it again.

        Only those of a time, if it is given (unix seconds, the end not included).
        """
        return self._connection.query_images(
            f"""SELECT {IMAGE} FROM deliveries JOIN images ON images.id = image_id
                WHERE destination = {KEY} AND deliveries.state = 'delivered' AND image_id > :after
                AND images.rank >= :since AND images.rank < :until
                ORDER BY image_id LIMIT :limit""",
            destination=destination,
            after=after,
            limit=limit,
            since=since,
            until=until,
        )

    def lies_at(self, destination: str, image_ids: Iterable[int]) -> dict[int, str]:
        """Under which key or path images lie at a destination, by id, where their receipts said."""
        rows = self._connection.query(
            f"""SELECT image_id, lies_at FROM deliveries WHERE destination = {KEY} AND lies_at IS NOT NULL
                AND image_id IN (SELECT value FROM json_each(:ids))""",
            destination=destination,
            ids=json.dumps(list(image_ids)),
        )
        return {row["image_id"]: row["lies_at"] for row in rows}

    def to_ask_again(
        self,
        destination: str,
        limit: int,
        *,
        older_than: float,
        rest: float = 0.0,
        but: Iterable[int] = (),
    ) -> list[Image]:
        """Delivered images that a destination has not confirmed for so many seconds; the oldest word first.

        Those on the card, and those that left it on the last word of a server which could not be asked. None if
        it was asked less than `rest` seconds ago. `but` are left out, by id. By the wall clock: it
        only says who is asked sooner.
        """
        now = self._connection.clock.wall()
        return self._connection.query_images(
            f"""SELECT {IMAGE} FROM images CROSS JOIN deliveries ON image_id = images.id AND destination = {KEY}
                WHERE images.id IN (SELECT image_id FROM files WHERE leaving = 0
                                    UNION ALL SELECT id FROM images WHERE unasked = 1)
                AND deliveries.state = 'delivered' AND (confirmed_at IS NULL
                    OR (unasked = 1 AND confirmed_boot = '') OR confirmed_at NOT BETWEEN :now - :older AND :now + 60.0)
                AND images.id NOT IN (SELECT value FROM json_each(:but))
                AND NOT EXISTS (SELECT 1 FROM destinations AS d WHERE d.key = {KEY}
                                AND :rest > 0 AND d.asked_at BETWEEN :now - :rest AND :now)
                ORDER BY confirmed_at NULLS FIRST, images.id LIMIT :limit""",
            destination=destination,
            now=now,
            older=older_than,
            rest=rest,
            limit=limit,
            but=json.dumps(list(but)),
        )

    def note_asked(self, destination: str) -> None:
        """A slice of what a destination confirmed was asked about just now."""
        with self._connection.transaction("note_asked") as db:
            db.execute(
                "UPDATE destinations SET asked_at = ? WHERE name = ? AND current = 1",
                [self._connection.clock.wall(), destination],
            )

    def confirm(self, destination: str, proofs: Iterable[Proof | tuple[Any, ...]]) -> None:
        """A destination confirmed anew what it holds, in one commit."""
        key = key_of(self._connection, destination)
        with self._connection.transaction("confirm") as db:
            for proof in (Proof(*some) for some in proofs):
                db.execute(
                    """UPDATE deliveries SET digest = ?, detail = coalesce(?, detail), lies_at = coalesce(?, lies_at),
                           confirmed_at = ?, confirmed_boot = ?, confirmed_mono = ?
                       WHERE destination = ? AND image_id = ? AND state = 'delivered'""",
                    [*proven(self._connection.clock, proof), key, proof.image_id],
                )
                db.execute(
                    f"UPDATE images SET unasked = 0 WHERE id = ? AND unasked = 1 AND NOT {UNASKED}",
                    [proof.image_id],
                )

    def withdraw_proofs(
        self,
        destination: str,
        absent: Iterable[int] | Mapping[int, str] = (),
        refused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """What a destination confirmed once is not so: durable when this returns.

        `absent` images are not there any more (by id, perhaps with the reason): pending again, if they are on the
        card. `refused` are others under their names, by id, with the reason. What left the card and is now nowhere
        is lost, and counted so.
        """
        key = key_of(self._connection, destination)
        with self._connection.transaction("withdraw_proofs") as db:
            why = absent if isinstance(absent, Mapping) else dict.fromkeys(absent, "it is not there any more")
            for image_id, reason in why.items():
                self._withdraw(db, key, image_id, "pending", reason)
            for image_id, reason in refused.items():
                self._withdraw(db, key, image_id, "refused", reason)

    def _withdraw(self, db: Transaction, key: str, image_id: int, state: str, reason: str) -> None:
        row = db.execute(
            """SELECT gone_at IS NOT NULL AND NOT EXISTS
                   (SELECT 1 FROM files WHERE image_id = images.id AND leaving = 1) FROM images WHERE id = ?""",
            [image_id],
        ).fetchone()
        if row is None:
            return
        if is_gone := row[0]:
            state, reason = "refused", f"{reason}; and the card has it no longer"
        db.execute(
            f"""UPDATE deliveries SET state = ?, {_NO_PROOF}, attempts = 0, blamed = 0, wait_for = NULL, error = ?,
                acknowledged_at = NULL WHERE destination = ? AND image_id = ? AND state = 'delivered'""",
            [state, reason, key, image_id],
        )
        if is_gone:
            states.lose(db, image_id)
            return
        # One that is marked to leave may have left: that is looked at next (`withdrawn_marks`).
        db.execute(
            f"UPDATE images SET state = {STATE} WHERE id = ? AND state != 'dropped' AND gone_at IS NULL",
            [image_id],
        )

    # Prune

    def unconfirmed(
        self, destination: str, older_than: float, limit: int, but: Iterable[int] = ()
    ) -> list[Image]:
        """Images that could be pruned, but for the word of this destination, which is older than a day.

        `but` are left out, by id.
        """
        return self._connection.query_images(
            f"""SELECT {IMAGE} FROM images CROSS JOIN deliveries ON image_id = images.id AND destination = {KEY}
                WHERE images.state = 'delivered' AND gone_at IS NULL
                AND images.rank <= :older AND ingested_at <= :older
                AND deliveries.state = 'delivered' AND digest NOT LIKE 'echo:%' AND NOT {_IS_FRESH}
                AND images.id NOT IN (SELECT value FROM json_each(:but))
                ORDER BY images.rank LIMIT :limit""",
            destination=destination,
            older=older_than,
            limit=limit,
            but=json.dumps(list(but)),
            **boot_now(self._connection.clock),
        )

    def prunable(
        self,
        older_than: float,
        limit: int,
        excused: Iterable[str] = (),
        trusted: Iterable[str] = (),
        but: Iterable[int] = (),
    ) -> list[Image]:
        """Images on the card that may go, older than a unix time; oldest first.

        Every destination that must have them confirmed them within the last day, by a digest that is theirs. Of
        those `excused` the last confirmation counts, of those `trusted` the receipt. `but` are left out, by id.
        """
        rows = self._connection.query(
            f"""SELECT *, {integrity.WRONG_PROOF} AS is_wrong
                FROM images WHERE state = 'delivered' AND gone_at IS NULL
                AND rank <= :older AND ingested_at <= :older
                AND EXISTS (SELECT 1 FROM destinations WHERE active AND required)
                AND NOT EXISTS (SELECT 1 FROM destinations AS d WHERE d.active AND d.required AND NOT EXISTS
                    (SELECT 1 FROM deliveries WHERE destination = d.key AND image_id = images.id
                     AND deliveries.state = 'delivered' AND digest NOT LIKE 'echo:%'
                     AND ({_IS_FRESH} OR d.name IN (SELECT value FROM json_each(:trusted))
                          OR (confirmed_at IS NOT NULL AND d.name IN (SELECT value FROM json_each(:excused))))))
                AND id NOT IN (SELECT value FROM json_each(:but))
                ORDER BY rank LIMIT :limit""",
            older=older_than,
            limit=limit,
            excused=json.dumps(list(excused)),
            trusted=json.dumps(list(trusted)),
            but=json.dumps(list(but)),
            **boot_now(self._connection.clock),
        )
        self._connection.require_sound(rows)
        return [image_of(row) for row in rows]

    def mark_pruned(self, image_ids: Iterable[int], unasked: Iterable[str] = ()) -> None:
        """Durable before any file goes: from here on these may be deleted, after a crash too.

        `unasked` are the names of servers whose last word counted because they could not be asked.
        """
        names = json.dumps(list(unasked))
        with self._connection.transaction("mark_pruned") as db:
            for image_id in image_ids:
                marked = db.execute(
                    f"""UPDATE images SET gone_at = :now, gone_why = 'pruned', unasked = EXISTS
                            (SELECT 1 FROM destinations AS d JOIN deliveries ON destination = d.key
                             WHERE d.active AND d.required AND image_id = images.id AND NOT {_IS_FRESH}
                             AND d.name IN (SELECT value FROM json_each(:names)))
                        WHERE id = :id AND state = 'delivered' AND {STATE} = 'delivered'""",
                    {
                        "now": self._connection.clock.wall(),
                        "id": image_id,
                        "names": names,
                        **boot_now(self._connection.clock),
                    },
                ).rowcount
                if not marked:  # it became pending again meanwhile
                    continue
                db.execute(
                    f"""UPDATE deliveries SET confirmed_boot = '' WHERE image_id = :id AND state = 'delivered'
                        AND NOT {_IS_FRESH} AND destination IN
                            (SELECT d.key FROM destinations AS d WHERE d.active AND d.required
                             AND d.name IN (SELECT value FROM json_each(:names)))""",
                    {"id": image_id, "names": names, **boot_now(self._connection.clock)},
                )
                db.execute("UPDATE files SET leaving = 1 WHERE image_id = ? AND leaving = 0", [image_id])
                # A best-effort destination that never took it will not get it any more.
                db.execute("DELETE FROM deliveries WHERE image_id = ? AND state = 'pending'", [image_id])

    def withdrawn_marks(self) -> list[Found]:
        """Files that were marked as pruned by proofs which do not count any more, if they are still there."""
        rows = self._connection.query(
            f"""SELECT iif(folder = '', name, folder || '/' || name) AS path, files.size AS size, mtime_ns
                FROM files JOIN images ON images.id = image_id WHERE leaving = 1 AND {STATE} != 'delivered'"""
        )
        return [Found(row["path"], row["size"], row["mtime_ns"]) for row in rows]

    def unmark_pruned(self, paths: Iterable[str]) -> None:
        """These files are not to be removed, or cannot be: their images are on the card, and stand as they do today."""
        with self._connection.transaction("unmark_pruned") as db:
            for found in (Found(path, 0, 0) for path in paths):
                rows = db.execute(
                    "SELECT image_id FROM files WHERE folder = ? AND name = ? AND leaving = 1",
                    [found.folder, found.name],
                ).fetchall()
                for (image_id,) in rows:
                    states.unmark(db, image_id)
