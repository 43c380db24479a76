"""Pictures to measure with: drawn by the simulated camera, grainy enough to be as large as the field's."""

from datetime import UTC, datetime, timedelta
from functools import cache

import drawings
from trapsync.cameras.simulated import card
from trapsync.image import TrapName
from trapsync.jpeg import exif, thumbnail
from trapsync.settings.schema import Camera

FIELD = (2592, 1944)  # 5 MP: traps of the field, 0.8 to 1 MB each
LARGE = (4056, 3040)  # 12 MP
TINY = (640, 480)
FIRST = datetime(2026, 6, 21, 4, 0, tzinfo=UTC)
_GRAIN = 5.0  # grey levels: with this, 5 MP take the field's 0.9 MB


@cache
def picture(size: tuple[int, int]) -> bytes:
    """A sticky card with its insects, as the camera's own capture leaves it."""
    width, height = size
    svg = card(Camera(kind="simulated", resolution=size), drawings.DEVICE, drawings.TAKEN)
    content = thumbnail.draw(svg, width=width, height=height, noise=_GRAIN, seed=1, quality=80)
    return exif.embed_metadata(content, drawings.facts(width=width, height=height))


def of_bytes(count: int) -> bytes:
    """A small picture, made as long as this by data of another program's."""
    small = drawings.trap()
    missing = count - len(small)
    rest = b""
    while missing > 4:
        length = min(missing - 4, 65_000)
        # Nothing that a link could compress.
        filling = (b"\xfe\x01\x91\x37\x5c" * (length // 5 + 1))[:length]
        rest += b"\xff\xec" + (length + 2).to_bytes(2, "big") + filling
        missing -= length + 4
    return small[:2] + rest + small[2:]


def path(number: int, every: int = 20) -> str:
    """Where the picture of this number lies in a spool; one is taken every so many minutes."""
    name = TrapName(drawings.DEVICE, FIRST + timedelta(minutes=every * number))
    return f"{name.folder}/{name}"
