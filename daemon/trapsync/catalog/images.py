"""Images and their files: taken in, given small copies, and gone from the card."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trapsync.catalog import integrity, states
from trapsync.catalog.connection import Part, Transaction
from trapsync.catalog.rows import HELD, IMAGE, STATE, sealed_values
from trapsync.clock import utc
from trapsync.image import Found, Image, TrapName, parse_name, without_unknown


class Images(Part):
    """The images and their files: ingest, small copies, what leaves the card, and what people ask."""

    # Ingest

    def known_in(self, folder: str) -> dict[str, tuple[int, int]]:
        """The files of one folder that were examined: name -> (size, mtime_ns)."""
        rows = self._connection.query(
            "SELECT name, size, mtime_ns FROM files WHERE folder = :folder", folder=folder
        )
        return {row["name"]: (row["size"], row["mtime_ns"]) for row in rows}

    def folders(self) -> list[str]:
        """Every folder that holds a known file."""
        return [row["folder"] for row in self._connection.query("SELECT DISTINCT folder FROM files")]

    def is_there(self, key: str) -> bool:
        """Whether there is an image with this key."""
        return bool(self._connection.query("SELECT 1 FROM images WHERE key = :key", key=key))

    def is_known(self, found: Found) -> bool:
        """Whether just this file, unchanged, was examined before, or is a corrected one in the making."""
        return bool(
            self._connection.query(
                """SELECT 1 FROM files WHERE folder = :folder AND name = :name
                   AND size = :size AND mtime_ns = :mtime
                   UNION ALL SELECT 1 FROM corrections WHERE path = :path""",
                path=found.path,
                folder=found.folder,
                name=found.name,
                size=found.size,
                mtime=found.mtime_ns,
            )
        )

    def add(self, examined: Iterable[tuple[Found, Image]], moved: Iterable[str] = ()) -> int:
        """Record examined files in one commit, pending for every destination; the number of new images.

        The same identity with the same bytes is the same image (a copy, or moved, or back again). The
        same identity with other bytes is a conflict: kept as an image of its own, and shown. `moved` are paths
        under which some of them lay until now.
        """
        with self._connection.transaction("add") as db:
            for path in moved:
                self._forget_file(db, Found(path, 0, 0), "moved")
            return sum(self._add(db, found, image) for found, image in examined)

    def _add(self, db: Transaction, found: Found, image: Image) -> bool:
        row = db.execute(
            "SELECT id FROM images WHERE key = ? AND sha256 = ?", [image.key, image.sha256]
        ).fetchone() or self._moved(db, image)
        image_id = row[0] if row else self._insert(db, found, image)
        previous = db.execute(
            "SELECT image_id FROM files WHERE folder = ? AND name = ?", [found.folder, found.name]
        ).fetchone()
        db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, 0)",
            [found.folder, found.name, found.size, found.mtime_ns, image_id],
        )
        if previous and previous[0] != image_id:  # other bytes were written over it
            self._lost_a_file(db, previous[0])
        states.revive(db, image_id)
        return row is None

    def _insert(self, db: Transaction, found: Found, image: Image) -> int:
        trap_name, sealed = image.trap_name, sealed_values(image)
        offset = image.evidence.offset if image.evidence and image.timing == "corrected" else None
        db.execute(
            f"""INSERT INTO images ({integrity.SEALED}, seal, path, timing, picture, clock_offset, rank, conflict,
                    state, ingested_at)
                VALUES ({"?, " * len(sealed)} ?, ?, ?, ?, ?, ?, EXISTS (SELECT 1 FROM images WHERE key = ?),
                    'pending', ?)""",
            [
                *(*sealed, integrity.seal(*sealed), image.path, image.timing, image.picture or None, offset),
                trap_name.taken.timestamp() if trap_name else found.mtime_ns / 1e9,
                *(image.key, self._connection.clock.wall()),
            ],
        )
        image_id = int(db.execute("SELECT last_insert_rowid()").fetchone()[0])
        states.make_pending(db, "images.id = ?", image_id)
        return image_id

    def _moved(self, db: Transaction, image: Image) -> tuple[int] | None:
        """The row of a foreign image whose folder or file was renamed, given its new path; None: there is none.

        The same bytes under another path, and nothing under the old one: taken away from there, or pruned and
        put back under the same name elsewhere. Where it was delivered, it lies under the old path.
        """
        if image.trap_name:
            return None
        row = db.execute(
            """SELECT id, key FROM images WHERE sha256 = ? AND gone_at IS NOT NULL AND boot_id IS NULL
               AND NOT EXISTS (SELECT 1 FROM files WHERE image_id = images.id)
               AND (gone_why IN ('vanished', 'moved') OR key = ? OR substr(key, -length(?)) = ?)
               ORDER BY gone_at DESC LIMIT 1""",
            [image.sha256, image.name, f"/{image.name}", f"/{image.name}"],
        ).fetchone()
        if row is None or parse_name(row[1]):
            return None
        sealed = sealed_values(image)
        db.execute(
            f"""UPDATE images SET ({integrity.SEALED}, seal) = ({"?, " * len(sealed)} ?), path = ?,
                    conflict = EXISTS (SELECT 1 FROM images WHERE key = ?) WHERE id = ?""",
            [*sealed, integrity.seal(*sealed), image.path, image.key, row[0]],
        )
        # Other bytes that had come under its old path share it with nobody any more.
        db.execute(
            """UPDATE images SET conflict = 0 WHERE conflict = 1 AND key = :key
               AND (SELECT count(*) FROM images WHERE key = :key) = 1""",
            {"key": row[1]},
        )
        # Where it was delivered before that was noted, it lies under its old path.
        db.execute(
            "UPDATE deliveries SET lies_at = ? WHERE image_id = ? AND state = 'delivered' AND lies_at IS NULL",
            [row[1], row[0]],
        )
        return (row[0],)

    def files_of(self, image: Image) -> list[Found]:
        """The files of this image on the card, for all that is known; of a foreign one, of its bytes."""
        rows = self._connection.query(
            """SELECT iif(folder = '', name, folder || '/' || name) AS path, size, mtime_ns FROM files
               WHERE leaving != 2 AND image_id IN
                   (SELECT id FROM images WHERE key = :key AND sha256 = :sha256
                    UNION SELECT id FROM images WHERE sha256 = :sha256 AND boot_id IS NULL AND :is_foreign)""",
            key=image.key,
            sha256=image.sha256,
            is_foreign=image.trap_name is None,
        )
        return [Found(row["path"], row["size"], row["mtime_ns"]) for row in rows]

    def forget_files(self, paths: Iterable[str], why: str = "vanished") -> int:
        """Somebody took these files from the spool; how many images that leaves without one.

        One that is still pending stays so until its destinations were asked for it (`let_go`): the catalog may be
        older than the card.
        """
        with self._connection.transaction("forget_files") as db:
            return sum(self._forget_file(db, Found(path, 0, 0), why) for path in paths)

    def _forget_file(self, db: Transaction, found: Found, why: str) -> bool:
        row = db.execute(
            "DELETE FROM files WHERE folder = ? AND name = ? RETURNING image_id", [found.folder, found.name]
        ).fetchone()
        return row is not None and self._lost_a_file(db, row[0], why)

    def _lost_a_file(self, db: Transaction, image_id: int, why: str = "vanished") -> bool:
        (left,) = db.execute(
            "SELECT count(*) FROM files WHERE image_id = ? AND leaving != 2", [image_id]
        ).fetchone()
        if left:
            states.revive(db, image_id)
            return False
        gone = db.execute(
            "UPDATE images SET gone_at = ?, gone_why = ? WHERE id = ? AND gone_at IS NULL",
            [self._connection.clock.wall(), why, image_id],
        ).rowcount
        db.execute(
            """DELETE FROM deliveries WHERE image_id = ? AND state = 'pending'
               AND destination NOT IN (SELECT key FROM destinations WHERE active)""",
            [image_id],
        )
        db.execute(
            "UPDATE deliveries SET wait_for = NULL WHERE image_id = ? AND state = 'pending'", [image_id]
        )
        states.drop_missing(db, image_id)
        states.lose(db, image_id)  # pruned, and its proof was withdrawn meanwhile
        return bool(gone)  # if it was pruned, a crash came before that was written down

    # Thumbnails

    def without_thumbnails(self, limit: int) -> list[Image]:
        """Images on the card whose small copies were not made yet, newest first."""
        return self._connection.query_images(
            f"""SELECT {IMAGE}, +thumbnails IS NOT NULL OR +gone_at IS NOT NULL AS is_wrong
                FROM images WHERE thumbnails IS NULL AND gone_at IS NULL
                ORDER BY rank DESC LIMIT :limit""",
            limit=limit,
        )

    def mark_thumbnails(self, made: Mapping[int, bool]) -> None:
        """The small copies of these images, by id, are made, or cannot be.

        They are not flushed, and so this is not: they can be made again.
        """
        with self._connection.unflushed(), self._connection.transaction("mark_thumbnails") as db:
            for image_id, is_made in made.items():
                db.execute("UPDATE images SET thumbnails = ? WHERE id = ?", [int(is_made), image_id])

    def copy_again(self, image_id: int) -> bool:
        """Have small copies made that are missing; False: that was tried, and they cannot be."""
        rows = self._connection.query("SELECT thumbnails FROM images WHERE id = :id", id=image_id)
        stands = rows[0]["thumbnails"] if rows else 0
        if stands == 1:
            with self._connection.transaction("copy_again") as db:
                db.execute("UPDATE images SET thumbnails = NULL WHERE id = ?", [image_id])
        return bool(stands != 0)

    # Prune: what may go is said in `proofs`

    def leaving_files(self, *, only_corrected: bool = False) -> list[Found]:
        """Files that may still lie on the card though their image is pruned, or has a corrected one."""
        leaving = (
            "leaving = 2" if only_corrected else f"(leaving = 2 OR (leaving = 1 AND {STATE} = 'delivered'))"
        )
        rows = self._connection.query(
            f"""SELECT iif(folder = '', name, folder || '/' || name) AS file, files.size AS bytes, mtime_ns, images.*,
                    {integrity.WRONG_PROOF} OR (leaving = 1 AND gone_why IS NOT 'pruned')
                    OR (leaving = 1 AND (files.size != images.size OR key NOT IN (name, {integrity.FILE_PATH})))
                    OR (leaving = 2 AND (timing IS NOT 'corrected' OR path = {integrity.FILE_PATH})) AS is_wrong
                FROM files JOIN images ON images.id = image_id WHERE {leaving}"""
        )
        self._connection.require_sound(rows)
        return [Found(row["file"], row["bytes"], row["mtime_ns"]) for row in rows]

    def forget_pruned(self, paths: Iterable[str]) -> None:
        """These files of pruned or corrected images are off the card."""
        with self._connection.transaction("forget_pruned") as db:
            for found in (Found(path, 0, 0) for path in paths):
                rows = db.execute(
                    "DELETE FROM files WHERE folder = ? AND name = ? RETURNING image_id",
                    [found.folder, found.name],
                ).fetchall()
                for (image_id,) in rows:
                    states.lose(db, image_id)  # should its proof have been withdrawn meanwhile

    # What there is

    def newest(self) -> Image | None:
        """The newest image by its name's time; one from the future, of a clock that was wrong, does not count."""
        newest = f"SELECT {IMAGE} FROM images WHERE rank <= :until ORDER BY rank DESC LIMIT 1"
        images = self._connection.query_images(
            newest, until=self._connection.clock.wall() + 60
        ) or self._connection.query_images(newest, until=math.inf)
        return images[0] if images else None

    def names_from(self, device: str, wall: float, seconds: float = 600.0) -> set[str]:
        """The names of a trap's images from a unix time on, on the card, gone, or to come: they are taken."""
        first, last = (str(TrapName(device, utc(at))) for at in (wall - 1, wall + seconds))
        sql = """SELECT key FROM images WHERE key BETWEEN :first AND :last
                 UNION ALL SELECT key FROM corrections WHERE key BETWEEN :first AND :last"""
        return {row["key"] for row in self._connection.query(sql, first=first, last=last)}

    def mean_size(self, limit: int = 50) -> float:
        """The mean size in bytes of the latest images, to predict how long the card lasts; 0.0 without any."""
        (row,) = self._connection.query(
            "SELECT coalesce(avg(size), 0.0) AS mean FROM (SELECT size FROM images ORDER BY rank DESC LIMIT :n)",
            n=limit,
        )
        return float(row["mean"])

    def batteries(self, since: float) -> list[tuple[float, float]]:
        """What pictures of our own say of the battery, one for each hour: unix seconds and per cent, in their order.

        As many look-ups as hours, however many pictures there are.
        """
        rows = self._connection.query(
            """WITH RECURSIVE hours (at) AS
                   (SELECT :since UNION ALL SELECT at + 3600 FROM hours WHERE at + 3600 < :until)
               SELECT rank, json_extract(metadata, '$.bat') AS level FROM hours JOIN images ON id =
                   (SELECT id FROM images WHERE rank >= at AND rank < at + 3600 ORDER BY rank LIMIT 1)
               WHERE level >= 0 AND boot_id IS NOT NULL AND coalesce(timing, '') NOT IN ('held', 'unsure')
               ORDER BY rank""",
            since=since,
            until=self._connection.clock.wall(),
        )
        return [(row["rank"], float(row["level"])) for row in rows]

    def pictures_since(self, monotonic: float) -> tuple[int, int]:
        """How many pictures this boot took from then on (seconds of the monotonic clock), and their bytes."""
        (row,) = self._connection.query(
            """SELECT count(*) AS n, coalesce(sum(size), 0) AS bytes FROM images
               WHERE boot_id = :boot AND monotonic >= :since""",
            boot=self._connection.now()["boot"],
            since=monotonic,
        )
        return row["n"], row["bytes"]

    def on_card(self, after: int, limit: int) -> list[Image]:
        """Images whose file is on the card, in order of their ids from `after` on."""
        return self._connection.query_images(
            f"SELECT {IMAGE} FROM images WHERE gone_at IS NULL AND id > :after ORDER BY id LIMIT :limit",
            after=after,
            limit=limit,
        )

    def oldest_first(self, page: int = 1000) -> Iterator[dict[str, Any]]:
        """Every image, a page in memory at a time. Within `one_moment` each is there once, whatever a writer does."""
        last = {"rank": -math.inf, "id": 0}
        while rows := self._connection.query(
            """SELECT id, key, path, rank, size, md5, sha256, width, height, state, gone_why, conflict, boot_id, monotonic,
                   timing, metadata FROM images WHERE (rank, id) > (:rank, :id) ORDER BY rank, id LIMIT :page""",
            page=page,
            **last,
        ):
            for row in rows:
                row["metadata"] = without_unknown(json.loads(row["metadata"]))
                yield row
            last = {key: rows[-1][key] for key in ("rank", "id")}

    def paths_of(self, image_ids: Iterable[int]) -> dict[int, str]:
        """Where the files of these images lie, relative to the spool; of those that are on the card."""
        rows = self._connection.query(
            """SELECT image_id, min(iif(folder = '', name, folder || '/' || name)) AS path FROM files
               WHERE leaving != 2 AND image_id IN (SELECT value FROM json_each(:ids)) GROUP BY image_id""",
            ids=json.dumps(list(image_ids)),
        )
        return {row["image_id"]: row["path"] for row in rows}

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
        rows = self._connection.query(
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
            row["deliveries"] = json.loads(row["deliveries"])
            row["metadata"] = without_unknown(json.loads(row["metadata"]))
        return rows
