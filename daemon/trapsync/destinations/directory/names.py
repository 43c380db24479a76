"""The names that a copy in a folder may have, and the one that it has while it is written."""

import os
from pathlib import PurePosixPath

from trapsync.files import durable
from trapsync.image import Image

_LONGEST_NAME = 255  # bytes, on every file system that a stick has


def of(place: str, image: Image) -> list[PurePosixPath]:
    """The paths that its copy may have, in this order: its own, and where other bytes have that, those with its digest.

    `place` is the one that the layout gives it. They are the same at each time, so that a copy is found again after the
    catalog was lost.
    """
    own = PurePosixPath(place)
    return [own, *(own.with_name(_with_digest(own, image.sha256[:digits])) for digits in (8, 32))]


def _with_digest(own: PurePosixPath, digits: str) -> str:
    """`IMG_0001.3f9a2c81.JPG`; a long name is cut so that it fits."""
    end = f".{digits}{own.suffix}"
    stem = os.fsencode(own.stem)[: _LONGEST_NAME - len(os.fsencode(end))]
    return stem.decode("utf-8", "ignore") + end


def temporary(name: str, device: str) -> str:
    """While a copy is written; with the device, for two traps may share a folder."""
    return durable.temporary_name(name, f".{device}" if device else "")


def is_below(place: str) -> bool:
    """Whether this is the path of a file below a folder."""
    parts = PurePosixPath(place)
    return not parts.is_absolute() and ".." not in parts.parts and bool(parts.name)
