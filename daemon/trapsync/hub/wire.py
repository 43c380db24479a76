"""Read dates and JSON bodies of requests."""

import re
from typing import Any

from trapsync.errors import TrapsyncError

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


def moment(text: object) -> str:
    """Write a date as the hub stores it, `2022-05-17T18:46:57Z`; any other spelling stays as it is.

    What stays as it is equals no stored date, but it can still be a bound: `2020-01-01` sorts before
    every second of that day.
    """
    written = str(text)
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
