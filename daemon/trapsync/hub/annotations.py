"""What detectors found in images (the Sticky Pi table `uid_annotations`)."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from trapsync import __version__
from trapsync.clock import Clock, iso, utc
from trapsync.hub.accounts import User
from trapsync.hub.database import Database
from trapsync.hub.store import MOST_ROWS, Row, Wanted
from trapsync.hub.wire import BadRequest, moment, questions, short

_INSERT = """
    INSERT INTO uid_annotations (parent_image_id, algo_name, algo_version, n_objects, json,
                                 datetime_created, api_version, api_user_id)
    VALUES (:parent_image_id, :algo_name, :algo_version, :n_objects, :json,
            :datetime_created, :api_version, :api_user_id)
    RETURNING *
"""


class Annotations:
    """The annotations of one hub, each of a stored image."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def put(self, body: object, user: User) -> list[Row]:
        """Store a list of annotations, all or none; the answer leaves out their (long) `json`.

        Raises BadRequest if an image is not stored or has another md5, or if the same version of the same detector
        has annotated it already.
        """
        with self._database.writing() as connection:
            return [
                {**self._put_one(connection, entry, user), "json": ""}
                for entry in questions(body, "annotations", "metadata")
            ]

    def find(self, wanted: Wanted, *, with_json: bool) -> Iterator[Row]:
        """The annotations of the images that are wanted. Raises TooMany."""
        start = (
            "SELECT uid_annotations.* FROM uid_annotations JOIN images ON images.id = parent_image_id WHERE"
        )
        sql = f"{start} {wanted.condition} ORDER BY uid_annotations.id"
        for row in self._database.rows(sql, wanted.values, MOST_ROWS):
            if not with_json:
                del row["json"]
            yield row

    def _put_one(self, connection: sqlite3.Connection, entry: dict[str, Any], user: User) -> Row:
        if not isinstance(entry["annotations"], list):
            raise BadRequest("'annotations' must be a list")
        (about,) = questions([entry["metadata"]], "algo_name", "algo_version", "device", "datetime", "md5")
        values = {
            "parent_image_id": _parent(connection, about, user),
            "algo_name": _short(about, "algo_name", 64),
            "algo_version": _short(about, "algo_version", 46),
            "n_objects": len(entry["annotations"]),
            "json": json.dumps(entry),
            "datetime_created": iso(utc(self._clock.wall())),
            "api_version": __version__,
            "api_user_id": user.id,
        }
        try:
            return dict(connection.execute(_INSERT, values).fetchone())
        except sqlite3.IntegrityError:
            raise BadRequest("this version of this algorithm has annotated this image already") from None


def _parent(connection: sqlite3.Connection, about: dict[str, Any], user: User) -> int:
    sql = "SELECT id, md5 FROM images WHERE device = ? AND datetime = ?"
    key = (short(about["device"]), moment(about["datetime"]))
    image = connection.execute(sql, key).fetchone() if user.may_see(key[0]) else None
    if image is None:
        raise BadRequest(f"there is no image {key[0]} {key[1]} to annotate")
    if image["md5"] != about["md5"]:
        raise BadRequest(f"the image {key[0]} {key[1]} has another md5")
    return int(image["id"])


def _short(about: dict[str, Any], key: str, longest: int) -> str:
    text = str(about[key])
    if len(text) > longest:
        raise BadRequest(f"{key} is longer than {longest} characters")
    return text
