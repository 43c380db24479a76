"""Verification: hash the images on the card again, and ask the destinations what they hold."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trapsync.catalog import Catalog
from trapsync.destinations import Destination
from trapsync.destinations.confirmation import ask_again
from trapsync.files import durable
from trapsync.image import Image

_CHUNK = 1 << 20
_BATCH = 512


@dataclass(slots=True)
class Verified:
    """What was compared, and what does not agree: (name, what is wrong)."""

    compared: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)


def verify_card(catalog: Catalog, spool: Path, progress: Callable[[int], None]) -> Verified:
    """Read every image on the card once and compare its SHA-256 with the catalog's."""
    result = Verified()
    for image in _pages(lambda after: catalog.images.on_card(after, _BATCH)):
        problem = _compare(spool / image.path, image)
        result.compared += 1
        if problem:
            result.wrong.append((image.path, problem))
        progress(1)
    return result


def verify_destination(
    catalog: Catalog, destination: Destination, progress: Callable[[int], None], *, by_bytes: bool = False
) -> Verified:
    """Ask a destination for all that it confirmed; what it does not hold any more loses its proof at once.

    `by_bytes` has a server look at the stored bytes of each image. Raises Unreachable when it cannot be asked.
    """
    result = Verified()
    after = 0
    while images := catalog.proofs.delivered_to(destination.name, after, destination.confirm_batch):
        asked = ask_again(catalog, destination, images, by_bytes=by_bytes)
        result.wrong += [(image.name, reason) for image, reason in (*asked.absent, *asked.refused)]
        result.wrong += [(image.name, "cannot be told") for image in asked.unsure]
        result.compared += len(images)
        after = images[-1].id
        progress(len(images))
    return result


def _pages(page: Callable[[int], list[Image]]) -> Iterator[Image]:
    after = 0
    while images := page(after):
        yield from images
        after = images[-1].id


def _compare(path: Path, image: Image) -> str | None:
    """None if the file holds the image's bytes, else what is wrong."""
    digest = hashlib.sha256()
    try:
        with os.fdopen(durable.open_plain(path, os.O_RDONLY), "rb") as file:
            if os.fstat(file.fileno()).st_size != image.size:  # of any size: it need not be read
                return "other bytes than were catalogued"
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if digest.hexdigest() == image.sha256 else "other bytes than were catalogued"
