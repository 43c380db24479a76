"""Labels: what destinations answered about the images that they were given."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trapsync.catalog import integrity
from trapsync.catalog.connection import Part
from trapsync.catalog.label_export import Labelled
from trapsync.catalog.places import key_of
from trapsync.catalog.rows import KEY, to_json
from trapsync.image import Label

# What was delivered with a task, and has no answer of that task yet.
_OPEN = """deliveries.state = 'delivered' AND json_extract(detail, '$.task') IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.destination = deliveries.destination
                           AND labels.image_id = deliveries.image_id
                           AND labels.task = json_extract(detail, '$.task'))"""


class Labels(Part):
    """The catalog, as far as labels go."""

    def unlabelled(self, destination: str) -> dict[str, int]:
        """The tasks of a destination that have not been answered yet: the task's id -> the image's."""
        rows = self._connection.query(
            f"""SELECT image_id, json_extract(detail, '$.task') AS task FROM deliveries
                WHERE destination = {KEY} AND {_OPEN}""",
            destination=destination,
        )
        return {row["task"]: row["image_id"] for row in rows}

    def put(self, destination: str, labels: Mapping[int, Label]) -> None:
        """Record what was answered, in one commit; by image id."""
        if not labels:
            return
        key = key_of(self._connection, destination)
        with self._connection.transaction("put_labels") as db:
            for image_id, label in labels.items():
                row = (
                    *(key, image_id, label.state, label.task, label.reason),
                    to_json([dict(shape) for shape in label.annotations]),
                )
                db.execute(
                    "INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [*row, self._connection.clock.wall(), integrity.seal(*row)],
                )

    def answered(self, destination: str | None = None) -> list[Labelled]:
        """Every image that was answered about, by one destination or by any, in the order of their times."""
        rows = self._connection.query(
            f"""SELECT images.id AS image_id, images.key, sha256, width, height, destination, labels.state, task,
                   reason, annotations
               FROM labels JOIN images ON images.id = image_id
               WHERE :destination IS NULL OR destination = {KEY} ORDER BY rank, images.id, destination""",
            destination=destination,
        )
        return [_labelled(row) for row in rows]

    def done_of(self, image_ids: Iterable[int]) -> Iterator[tuple[Labelled, str, float]]:
        """What was answered about these images, without errors: with the kind of the destination, and when it came."""
        rows = self._connection.query(
            """SELECT images.id AS image_id, images.key, sha256, width, height, destination, labels.state, task, reason,
                   annotations, kind, at
               FROM labels JOIN images ON images.id = image_id JOIN destinations ON destinations.key = destination
               WHERE labels.state = 'done' AND image_id IN (SELECT value FROM json_each(:ids))
               ORDER BY images.id, destination""",
            ids=json.dumps(list(image_ids)),
        )
        for row in rows:
            yield _labelled(row), row["kind"], row["at"]

    def counts(self) -> list[dict[str, Any]]:
        """For each destination that was given a task: how many are `open`, `done` and in `error`."""
        return self._connection.query(
            f"""SELECT destination, count(*) FILTER (WHERE {_OPEN}) AS open,
                    (SELECT count(*) FROM labels WHERE labels.destination = deliveries.destination
                     AND labels.state = 'done') AS done,
                    (SELECT count(*) FROM labels WHERE labels.destination = deliveries.destination
                     AND labels.state = 'error') AS error
                FROM deliveries WHERE deliveries.state = 'delivered'
                AND json_extract(detail, '$.task') IS NOT NULL GROUP BY destination"""
        )


def _labelled(row: dict[str, Any]) -> Labelled:
    label = Label(row["task"], row["state"], json.loads(row["annotations"]), row["reason"])
    plain = ("image_id", "key", "sha256", "width", "height", "destination")
    return Labelled(label=label, **{column: row[column] for column in plain})
