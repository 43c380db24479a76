"""The table of images for R and spreadsheets: its columns, and a row for each image, as CSV (RFC 4180).

What is not known is empty. The columns are described in scripts/README.md.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timezone
from typing import Any

from trapsync.clock import iso
from trapsync.image import parse_name

Row = dict[str, Any]

COLUMNS = (
    *("image", "trap", "device", "deployment"),
    *("time_utc", "time_local", "utc_offset_h", "time_state", "not_before", "not_after"),
    *("size_bytes", "width_px", "height_px", "sha256", "md5", "state"),
    *("latitude", "longitude", "altitude_m", "temperature_c", "humidity_percent", "battery_percent"),
    *("exposure_s", "iso", "lum", "button", "model"),
)
# What is measured, by its name in the catalog's metadata.
_MEASURED = {
    "lat": "latitude",
    "lng": "longitude",
    "alt": "altitude_m",
    "temp": "temperature_c",
    "hum": "humidity_percent",
    "bat": "battery_percent",
    "ExposureTime": "exposure_s",
    "ISOSpeedRatings": "iso",
    "lum": "lum",
}
_STATES = {
    None: "sure",
    "confirmed": "sure",
    "released": "unsure",
}  # of the time; the other timings stand as they are
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Line:
    """A file for `csv` that hands back what is written."""

    def write(self, text: str) -> str:
        return text


def lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """The header and a line for each row, in UTF-8."""
    writer = csv.DictWriter(_Line(), COLUMNS, restval="")
    yield writer.writeheader().encode()
    for row in rows:
        yield writer.writerow(row).encode()


def row(
    image: Mapping[str, Any],
    trap: str,
    offset: timezone,
    bounds: Callable[[Mapping[str, Any]], Mapping[str, str | None]],
) -> Row:
    """The row of an image of `catalog.images.oldest_first`.

    `trap` is what people call the trap, and `offset` that of its local time; `bounds` says between which moments an
    image was taken whose time is unsure (`not_before`, `not_after`).
    """
    metadata = image["metadata"]
    found = {ours: metadata.get(name) for name, ours in _MEASURED.items()}
    found |= {
        "image": no_formula(image["key"], "./"),
        "trap": no_formula(trap),
        "deployment": no_formula(metadata.get("deployment", "")),
        "size_bytes": image["size"],
        "width_px": image["width"],
        "height_px": image["height"],
        "sha256": image["sha256"],
        "md5": image["md5"],
        "state": "lost" if image["gone_why"] == "lost" else image["state"],
        "button": {True: "TRUE", False: "FALSE"}.get(metadata.get("but")),
        "model": no_formula(metadata.get("Model", "")),
    }
    at, state = taken(image)
    name = parse_name(image["key"])
    if name is None:
        return found | _times(at)
    found |= {"device": name.device, "time_state": state}
    if state == "unsure":
        found |= bounds(image)
    return found | _times(at.astimezone(offset) if at else None)


def taken(image: Mapping[str, Any]) -> tuple[datetime | None, str]:
    """When an image of `catalog.images.oldest_first` was taken, if that is known, and how it is known.

    `sure`, `corrected`, `held`, `unsure`; "" for another program's, of whose clock nothing is known. Another camera's
    time is as its EXIF has it, with a time zone or without one.
    """
    name = parse_name(image["key"])
    if name is None:
        return taken_by_camera(image["metadata"]), ""
    if image["boot_id"] is None:
        return name.taken, ""
    state = _STATES.get(image["timing"], image["timing"])
    return (None if state in {"held", "unsure"} else name.taken), state


def no_formula(text: str, before: str = "'") -> str:
    """The text with something before it, if a spreadsheet would take it for a formula; before a path, what leaves it one."""
    return before + text if text.startswith(_FORMULA) else text


def _times(local: datetime | None) -> Row:
    if local is None:
        return {}
    known = {"time_local": local.isoformat(" ")[:19]}
    ahead = local.utcoffset()
    if ahead is not None:
        known |= {"time_utc": iso(local), "utc_offset_h": f"{ahead.total_seconds() / 3600:g}"}
    return known


def taken_by_camera(metadata: Mapping[str, Any]) -> datetime | None:
    """Local time, as its EXIF has it; with its offset from UTC, if that is there."""
    with suppress(ValueError):
        local = datetime.strptime(metadata.get("DateTimeOriginal", ""), "%Y:%m:%d %H:%M:%S")
        with suppress(ValueError, OverflowError):  # which no year from 1 to 9999 has in UTC
            offset = datetime.strptime(metadata.get("OffsetTimeOriginal", ""), "%z").tzinfo
            local.replace(tzinfo=offset).astimezone(UTC)
            return local.replace(tzinfo=offset)
        return local
    return None
