"""What the Sticky Pi server takes, and what it answers with a bare 500.

It follows the server's image parser and the columns of its database (branch develop of 2023). The
destination asks before a byte is sent; the hub, which says its reasons, asks when one has arrived.
"""

import ast
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from trapsync.image import Image

# The server refuses earlier dates: there was no Sticky Pi before. A trap that shows one has no clock.
FIRST_DAY = datetime(2019, 11, 1, tzinfo=UTC)
# nginx in front of the server takes bodies of 100 MiB; the form around the image is far below 4 kB.
_LARGEST = 100 * 2**20 - 4096
# Columns of its database, where they are narrower than a float: the largest magnitude that fits.
_COLUMN_LIMITS = {"lat": 999.999999, "lng": 999.999999, "alt": 32767.0, "bat": 32767.0}
_NUMBERS = ("temp", "hum", "bat", "lum", "lat", "lng", "alt")
_LONGEST_VERSION = 8
_LONGEST_MAKE = 2000


def problem(image: Image) -> str | None:
    """Why the Sticky Pi server would never take this image, or None. Works on the examined record alone.

    A date before Sticky Pi existed is not among the reasons: that waits for the clock to be put right.
    """
    only = "kept on the card; the Sticky Pi API only takes"
    if image.trap_name is None:
        return f"{only} names such as 512858f4.2022-05-17_18-46-57.jpg"
    if not 0 < image.size <= _LARGEST:
        return f"{only} images up to 100 MB; this has {image.size} bytes"
    reason = metadata_problem(image.metadata)
    return f"kept on the card; the Sticky Pi API would fail on it: {reason}" if reason else None


def metadata_problem(metadata: Mapping[str, Any]) -> str | None:
    """Why the server's parser, or its database, would fail on an image with this metadata, or None."""
    if not metadata.get("exif"):
        return "the image has no EXIF"
    if error := metadata.get("exif_error") or metadata.get("format_error"):
        return f"its metadata cannot be read: {error}"
    return _problem_with_make(metadata) or _problem_with_columns(metadata)


def _problem_with_make(metadata: Mapping[str, Any]) -> str | None:
    """The server reads Make as a Python literal: a dict is the format of 2020; a ValueError, that is an
    expression but no literal (StickyPi), the one of 2022; anything else ends in its 500."""
    make = metadata.get("Make")
    if not isinstance(make, str):
        return "the EXIF has no Make"
    if len(make) > _LONGEST_MAKE:
        return f"the EXIF's Make has {len(make)} characters"
    found = _format_of(make)
    if not found:
        return f"the EXIF's Make is {make[:40]!r}; it must be one word, as in StickyPi"
    if "format" not in metadata:
        return "the EXIF has no Sticky Pi fields in UserComment"
    if found != metadata["format"]:
        return f"the EXIF's Make is of the format of {found}, its fields are of {metadata['format']}"
    return None


@lru_cache(100)  # a fleet's traps have the same
def _format_of(make: str) -> str:
    """Which format the server takes an image for, by its Make; empty for neither."""
    try:
        return "2020" if isinstance(ast.literal_eval(make), dict) else ""
    except ValueError:
        return "2022"
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        return ""


def _problem_with_columns(metadata: Mapping[str, Any]) -> str | None:
    version = metadata.get("device_version")
    if version is not None and len(str(version)) > _LONGEST_VERSION:
        return f"device_version {version!r} is longer than {_LONGEST_VERSION} characters"
    for name in _NUMBERS:
        value = metadata.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} is {value!r}, which is no number"
        # NOTE: a latitude of -121 passes: genuine images of 2020 have the two swapped, and it takes them.
        if abs(value) > _COLUMN_LIMITS.get(name, math.inf):
            return f"{name} is {value!r}, which the server's database has no room for"
    return None
