"""Read dates and JSON bodies of requests."""

import re
from typing import Any

from flask.json.provider import DefaultJSONProvider

from trapsync.errors import TrapsyncError
from trapsync.net import foreign_json, reports

# Bytes of the JSON that asks for something: 10,000 images are 650 kB. Other bodies, by the name of their view; None: as
# large as an upload may be.
LARGEST_QUESTION = 2**20
LARGEST_BODIES: dict[str, int | None] = {
    "put_new_images": None,
    "put_uid_annotations": 16 * 2**20,
    "put_reports": reports.LARGEST_BATCH,
}
UPLOADS = "/_put_new_images"  # the path of the endpoint that takes images
_MOST_VALUES = 10**6  # in annotations: five hundred outlines of two hundred points are 300,000
_LONGEST = 1000  # characters of a device or a date in a question

# All of UTC, to the second: what the Sticky Pi server emits, what its file names and its old versions
# have, and what its database prints. An offset, fractions or a missing Z match nothing there, nor here.
_SPELLINGS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})Z",
        r"(\d{4}-\d{2}-\d{2})_(\d{2}-\d{2}-\d{2})",
        r"(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})",
    )
)


class BadRequest(TrapsyncError):
    """The request cannot be answered; the Sticky Pi protocol knows only 500 for it."""


class Busy(TrapsyncError):
    """The hub is at work on other things: 503, to come again."""


class ForeignJson(DefaultJSONProvider):
    """How Flask reads the JSON of a request: within bounds, and nothing in it that SQLite does not take."""

    sort_keys = False

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Decode it; ValueError, for which Flask answers 400."""
        text = s.encode() if isinstance(s, str) else s
        return foreign_json.decode(text, len(text), most_values=_MOST_VALUES, strict=True)


def short(value: object) -> str:
    """A device in a question, or a pattern of one, as text. SQLite gives up on long patterns."""
    text = str(value)
    if len(text) > _LONGEST:
        raise BadRequest(f"a value of the question is longer than {_LONGEST} characters")
    return text


def moment(text: object) -> str:
    """Write a date as the hub stores it, `2022-05-17T18:46:57Z`; any other spelling stays as it is.

    What stays as it is equals no stored date, but it can still be a bound: `2020-01-01` sorts before
    every second of that day.
    """
    written = short(text)
    for spelling in _SPELLINGS:
        match = spelling.fullmatch(written)
        if match:
            return f"{match[1]}T{match[2].replace('-', ':')}Z"
    return written


def questions(body: object, *keys: str) -> list[dict[str, Any]]:
    """Read a request's list of objects, each of which must have these keys; others do not matter."""
    if not isinstance(body, list):
        raise BadRequest("the body must be a JSON list")
    for entry in body:
        if not isinstance(entry, dict):
            raise BadRequest("the body must be a list of objects")
        missing = [key for key in keys if key not in entry]
        if missing:
            raise BadRequest(f"an object in the list has no {missing[0]!r}")
    return body
