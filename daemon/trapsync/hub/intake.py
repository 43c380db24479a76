"""What is made of an uploaded file: the Sticky Pi server's rules, and the row that follows from it.

That server judges by running its parser and answering 500 to whatever that raises. The same files are
taken here, for the same reasons, but the reasons are said.
"""

import ast
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from trapsync import __version__
from trapsync.clock import Clock, iso, utc
from trapsync.hub.accounts import User
from trapsync.hub.store import AlreadyHere, Row, Store
from trapsync.hub.wire import BadRequest
from trapsync.image import Image

log = logging.getLogger(__name__)

Examine = Callable[[Path, str], Image]

# Three fields; the third, and so the true kind of the file, does not matter to the server.
_NAME = re.compile(r"([0-9a-fA-F]{8})\.(\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})\.[^.]*", re.ASCII)
_FIRST_DAY = datetime(2019, 11, 1, tzinfo=UTC)  # "before the platform even existed"
_LONGEST_VERSION = 8  # its column is VARCHAR(8)
# Its columns lat and lng are DECIMAL(9, 6), alt and bat SMALLINT.
_LARGEST = {"lat": 999.999999, "lng": 999.999999, "alt": 32767, "bat": 32767}
_MEASUREMENTS = ("lat", "lng", "alt", "temp", "hum", "lum")


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes uploads in, one at a time."""

    store: Store
    examine: Examine
    clock: Clock

    def take(self, name: str, stream: IO[bytes], md5: str, user: User) -> Row:
        """Store one upload and return its row as the protocol's answer, whose `id` is null.

        `name` is the name of the multipart part; folders in it do not count. `md5` is the sender's, empty
        if it gave none. Raises BadRequest, DamagedImage, AlreadyHere or Conflict, all with nothing changed.
        """
        device, taken = read_name(PurePosixPath(name).name)
        with self.store.arriving(stream) as arrival:
            if md5 and md5 != arrival.md5:
                raise BadRequest(f"the file's md5 is {arrival.md5}, not {md5[:40]} as its sender says")
            image = self.examine(arrival.path.parent, arrival.path.name)
            check(image.metadata)
            row = {**self._row(image, user), "device": device, "datetime": iso(taken)}
            try:
                self.store.keep(row, arrival.path)
            except AlreadyHere:
                log.info("%s is already here, sent again by %s", name, user.name)
                raise
        log.info("stored %s: %d bytes from %s", self.store.path(row).name, arrival.size, user.name)
        return {"id": None, **row, "but": None if row["but"] is None else bool(row["but"])}

    def _row(self, image: Image, user: User) -> Row:
        found = image.metadata
        return {
            "md5": image.md5,
            "device_version": found.get("device_version"),
            "width": image.width,
            "height": image.height,
            **{name: found.get(name) for name in _MEASUREMENTS},
            "bat": None if found.get("bat") is None else round(found["bat"]),
            "but": None if found.get("but") is None else int(found["but"]),
            "datetime_created": iso(utc(self.clock.wall())),
            "api_version": __version__,
            "api_user_id": user.id,
        }


def read_name(name: str) -> tuple[str, datetime]:
    """The device, in the sender's spelling, and the moment that a file name says. Raises BadRequest."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadRequest(f"wrong file name {name[:100]!r}: it must be DDDDDDDD.YYYY-MM-DD_HH-MM-SS.jpg")
    try:
        taken = datetime.strptime(match[2], "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC)
    except ValueError:
        raise BadRequest(f"wrong file name {name!r}: there is no such date") from None
    if taken < _FIRST_DAY:
        raise BadRequest(f"wrong file name {name!r}: dates begin on 2019-11-01")
    return match[1], taken


def check(metadata: dict[str, Any]) -> None:
    """Raise BadRequest for metadata on which the Sticky Pi server's parser, or its database, would fail."""
    reason = _problem_of_make(metadata) or _problem_of_fields(metadata)
    if reason:
        raise BadRequest(reason)


def _problem_of_make(metadata: dict[str, Any]) -> str | None:
    """Its parser evaluates Make: a dict is the format of 2020, an error of *value* means the one of 2022."""
    if not metadata.get("exif"):
        return "the image has no EXIF"
    if "exif_error" in metadata:
        return f"the EXIF cannot be read: {metadata['exif_error']}"
    make = metadata.get("Make")
    if make is None:
        return "the EXIF has no Make"
    try:
        evaluated = ast.literal_eval(make)
    except ValueError:
        return None
    except (SyntaxError, MemoryError, RecursionError):
        return f"the EXIF's Make is {make[:40]!r}; it must be one word, as in StickyPi"
    return None if isinstance(evaluated, dict) else f"the EXIF's Make is the literal {make[:40]!r}"


def _problem_of_fields(metadata: dict[str, Any]) -> str | None:
    if "format_error" in metadata:
        return str(metadata["format_error"])
    if "format" not in metadata:
        return "the EXIF has no Sticky Pi fields in UserComment"
    if len(metadata.get("device_version") or "") > _LONGEST_VERSION:
        return f"device_version is longer than {_LONGEST_VERSION} characters"
    for name, largest in _LARGEST.items():
        if abs(metadata.get(name) or 0) > largest:
            return f"{name} is {metadata[name]}, for which its column has no room"
    return None
