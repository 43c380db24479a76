"""Small JPEGs for the tests, drawn here: nobody else's pictures are in this repository.

A picture is decoded nowhere in most tests, so one is drawn once and dressed with metadata as needed.
"""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import piexif

from trapsync.image import Evidence
from trapsync.jpeg import exif, structure, thumbnail

DEVICE = "0a1b2c3d"
TAKEN = datetime(2026, 6, 21, 20, 19, 15, tzinfo=UTC)
NAME = f"{DEVICE}.2026-06-21_20-19-15.jpg"
EVIDENCE = Evidence("3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11", 1234.567, 1782073155.25, trusted=True)

# Both formats of the project that the program grew out of, with values of our own.
MAKE_2020 = (
    "{'lng': 6.123, 'lat': 46.201, 'alt': 412.5, 'datetime': '2020-06-20 06:38:36', "
    "'no_flash_exposure_time': (23646, 1000000), 'no_flash_iso': 100, 'no_flash_bv': (236, 100), "
    "'no_flash_shutter_speed': (5402260, 1000000), 'temp': 21.899999618530273, 'hum': 76.80000305175781}"
)
COMMENT_2022 = "v,T,H,B,L,lat,lng,a,l,b\n3.1.0,20.6,42.6,72,1.20,46.20100,6.12300,412.5,1652813182,1"

_SCENE = """<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 160 120"
preserveAspectRatio="none"><rect width="160" height="120" fill="#cc3"/>
<rect width="80" height="60" fill="#a22"/><circle cx="{x}" cy="80" r="18" fill="#221"/></svg>"""


@cache
def plain(width: int = 160, height: int = 120, seed: int = 1, quality: int = 80) -> bytes:
    """A JPEG without any EXIF; its top left quarter is red. Another seed is another picture."""
    svg = _SCENE.format(w=width, h=height, x=30 + seed * 7 % 100)
    return thumbnail.draw(svg, width=width, height=height, noise=3, seed=seed, quality=quality)


def facts(**changes: Any) -> exif.Facts:
    """Facts as a trap with all sensors has them."""
    known: dict[str, Any] = {
        "taken": TAKEN,
        "model": "imx477",
        "software": "trapsync 0.1.0",
        "version": "0.1.0",
        "width": 160,
        "height": 120,
        "exposure": 0.066642,
        "gain": 2.5,
        "latitude": 46.201,
        "longitude": 6.123,
        "altitude": 412.5,
        "temperature": 20.6,
        "humidity": 42.6,
        "battery": 72,
        "last_sync": 1652813182,
        "button": True,
        "evidence": EVIDENCE,
    }
    return exif.Facts(**(known | changes))


def trap(seed: int = 1, **changes: Any) -> bytes:
    """A JPEG as this program's own capture leaves it."""
    return exif.embed_metadata(plain(seed=seed), facts(**changes))


def with_exif(tags: dict[str, dict[int, Any]], seed: int = 1) -> bytes:
    """A JPEG with EXIF as piexif writes it from its own dictionaries."""
    block: bytes = piexif.dump(tags)
    picture = plain(seed=seed)
    return picture[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + picture[2:]


def sticky_pi_2020(make: str = MAKE_2020) -> bytes:
    """A JPEG of the firmware 1 to 2: the sensors are a dict in Make."""
    return with_exif({"0th": {piexif.ImageIFD.Make: make.encode(), piexif.ImageIFD.Model: b"RP_ov5647"}})


def sticky_pi_2022(comment: str | bytes = COMMENT_2022, make: bytes = b"StickyPi") -> bytes:
    """A JPEG of the firmware 3: the sensors are two lines in UserComment."""
    raw = comment.encode() if isinstance(comment, str) else comment
    return with_exif({"0th": {piexif.ImageIFD.Make: make}, "Exif": {piexif.ExifIFD.UserComment: raw}})


def block_of(picture: bytes) -> bytes:
    """The payload of a JPEG's EXIF segment."""
    block = structure.header(picture).exif
    assert block is not None
    return block


def put(spool: Path, content: bytes, path: str = f"{DEVICE}/2026-06-21/{NAME}") -> str:
    """Lay a file into a spool; its path in there."""
    (spool / path).parent.mkdir(parents=True, exist_ok=True)
    (spool / path).write_bytes(content)
    return path
