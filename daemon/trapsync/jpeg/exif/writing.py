"""Write EXIF: the tags of a new picture, and a corrected time."""

import math
import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeGuard

from trapsync.errors import DamagedImage
from trapsync.image import Evidence
from trapsync.jpeg.exif import tiff
from trapsync.jpeg.exif.blocks import UNREADABLE, clean, evidence_in, evidence_text
from trapsync.jpeg.structure import header, without_exif

# Sticky Pi firmware 3.x, take_picture.c: header, printf formats and sentinels are its own.
_HEADER = "v,T,H,B,L,lat,lng,a,l,b"
_NO_TEMPERATURE = -300.0
_NO_HUMIDITY = -1.0
_NO_BATTERY = -1
_NEVER_SYNCED = "2000-01-01 00:00:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The values that are written as EXIF.

    `taken` is UTC. `version` is the column `v` and has at most 8 characters on the server. `exposure` is
    in seconds, a `gain` of 1.0 is ISO 100. Places are WGS-84 degrees and metres, 0.0 when unknown;
    `temperature` is in degrees Celsius, `humidity` and `battery` in per cent. `last_sync` is when the
    clock was last set, in unix seconds. None is unknown, everywhere.
    """

    taken: datetime
    model: str
    software: str
    version: str
    width: int
    height: int
    exposure: float | None = None
    gain: float | None = None
    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float = 0.0
    temperature: float | None = None
    humidity: float | None = None
    battery: float | None = None
    last_sync: int | None = None
    button: bool = False
    evidence: Evidence | None = None


def embed_metadata(jpeg: bytes, facts: Facts) -> bytes:
    """Return a JPEG with our EXIF block in place of any other; the picture data is not changed.

    The block is big-endian TIFF with no thumbnail, right behind the start of the image, as EXIF wants it.
    Raises DamagedImage when `jpeg` is none.
    """
    return _with_block(jpeg, _block(facts))


def correct(jpeg: bytes, taken: datetime, offset: float, last_sync: float) -> bytes:
    """Return a JPEG of ours with another time of capture: `taken` (UTC), wherever a time stands in it.

    The evidence stays as it was and gets `offset` besides; the Sticky Pi `l` becomes `last_sync`, in unix
    seconds. The same arguments give the same bytes. Raises DamagedImage when it is none of ours.
    """
    import piexif

    app1 = header(jpeg).exif
    try:
        blocks = _load(app1 or b"")
        details, gps = blocks["Exif"], blocks["GPS"]
        evidence = evidence_in(details.get(piexif.ExifIFD.MakerNote))
        if evidence is None:
            raise ValueError("it holds no evidence of its time")
        moment = taken.strftime("%Y:%m:%d %H:%M:%S").encode()
        blocks["0th"][piexif.ImageIFD.DateTime] = moment
        details[piexif.ExifIFD.DateTimeOriginal] = details[piexif.ExifIFD.DateTimeDigitized] = moment
        details[piexif.ExifIFD.MakerNote] = evidence_text(replace(evidence, offset=offset))
        details[piexif.ExifIFD.UserComment] = _synced(details[piexif.ExifIFD.UserComment], last_sync)
        if piexif.GPSIFD.GPSTimeStamp in gps:
            gps |= _gps_moment(taken)
        block: bytes = piexif.dump(blocks)
    except UNREADABLE as error:
        raise DamagedImage(f"its EXIF cannot be written anew: {clean(str(error))[:200]}") from error
    return _with_block(jpeg, block)


def _synced(comment: bytes, last_sync: float) -> bytes:
    """Replace in our two lines the time when the clock was set."""
    names, values = (line.split(",") for line in comment.decode("ascii").split("\n"))
    values[names.index("l")] = f"{last_sync:.0f}"
    return f"{','.join(names)}\n{','.join(values)}".encode("ascii")


def _with_block(jpeg: bytes, block: bytes) -> bytes:
    start = (b"\xff\xd8", b"\xff\xe1", (len(block) + 2).to_bytes(2, "big"), block)
    return b"".join([*start, *without_exif(jpeg)])


def _block(facts: Facts) -> bytes:
    import piexif

    image, exif = piexif.ImageIFD, piexif.ExifIFD
    moment = facts.taken.strftime("%Y:%m:%d %H:%M:%S").encode()
    zeroth: dict[int, Any] = {
        image.Make: b"StickyPi",  # exactly one word: its server evaluates it as Python
        image.Model: _ascii(facts.model),
        image.Software: _ascii(facts.software),
        image.DateTime: moment,
    }
    details: dict[int, Any] = {
        exif.ExifVersion: b"0231",  # the first with time offsets
        exif.DateTimeOriginal: moment,
        exif.DateTimeDigitized: moment,
        exif.OffsetTime: b"+00:00",
        exif.OffsetTimeOriginal: b"+00:00",
        exif.OffsetTimeDigitized: b"+00:00",
        exif.ColorSpace: 1,
        exif.PixelXDimension: facts.width,
        exif.PixelYDimension: facts.height,
        exif.UserComment: user_comment(facts),
    }
    if _positive(facts.exposure):
        details[exif.ExposureTime] = (_within_long(facts.exposure * 1e6), 1_000_000)
    if _positive(facts.gain):
        details[exif.ISOSpeedRatings] = min(65535, max(1, round(facts.gain * 100)))
    if facts.evidence is not None:
        details[exif.MakerNote] = evidence_text(facts.evidence)
    block: bytes = piexif.dump({"0th": zeroth, "Exif": details, "GPS": _gps(facts)})
    return block


def user_comment(facts: Facts) -> bytes:
    """Format the sensors exactly as the Sticky Pi firmware 3.x does.

    Two lines with one LF between them: raw ASCII, no character-code prefix, no NUL, no newline at the end.
    The firmware's buffer holds 127 bytes including `EXIF.UserComment=`, and so does this.
    """
    values = (
        re.sub(r"[^0-9A-Za-z.+-]", "", facts.version)[:8],
        f"{_sane(facts.temperature, _NO_TEMPERATURE):.1f}",
        f"{_sane(facts.humidity, _NO_HUMIDITY):.1f}",
        f"{_sane(facts.battery, _NO_BATTERY):.0f}",
        f"{_luminosity(facts.exposure):.2f}",
        f"{_sane(facts.latitude, 0.0):.5f}",
        f"{_sane(facts.longitude, 0.0):.5f}",
        f"{_sane(facts.altitude, 0.0, 9999.0):.1f}",
        _NEVER_SYNCED if facts.last_sync is None else f"{facts.last_sync:.0f}",
        str(int(facts.button)),
    )
    return f"{_HEADER}\n{','.join(values)}".encode("ascii")


def _sane(value: float | None, unknown: float, limit: float = 999.0) -> float:
    """The value, or the sentinel for one that is missing or impossible (nan, 1e30)."""
    return value if value is not None and math.isfinite(value) and abs(value) <= limit else unknown


def _luminosity(exposure: float | None) -> float:
    """The firmware's `lum`: the decimal logarithm of one over the exposure in seconds; 0.0 unknown."""
    return -math.log10(exposure) if _positive(exposure) else 0.0


def _positive(number: float | None) -> TypeGuard[float]:
    return number is not None and math.isfinite(number) and number > 0


def _within_long(number: float) -> int:
    return min(2**32 - 1, max(1, round(number)))


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace").replace(b"\0", b"")[:200]


def _gps(facts: Facts) -> dict[int, Any]:
    """The GPS block, or nothing when the place is unknown: 0, 0 lies in the Atlantic."""
    import piexif

    gps, north, east = piexif.GPSIFD, facts.latitude, facts.longitude
    if (north, east) == (0.0, 0.0) or not (abs(north) <= 90 and abs(east) <= 180):
        return {}
    height = _sane(facts.altitude, 0.0, 99999.0)
    return {
        gps.GPSVersionID: (2, 3, 0, 0),
        gps.GPSLatitudeRef: b"N" if north >= 0 else b"S",
        gps.GPSLatitude: _degrees(north),
        gps.GPSLongitudeRef: b"E" if east >= 0 else b"W",
        gps.GPSLongitude: _degrees(east),
        gps.GPSAltitudeRef: int(height < 0),
        gps.GPSAltitude: (round(abs(height) * 100), 100),
        gps.GPSMapDatum: b"WGS-84",
        **_gps_moment(facts.taken),
    }


def _gps_moment(taken: datetime) -> dict[int, Any]:
    import piexif

    return {
        piexif.GPSIFD.GPSTimeStamp: ((taken.hour, 1), (taken.minute, 1), (taken.second, 1)),
        piexif.GPSIFD.GPSDateStamp: taken.strftime("%Y:%m:%d").encode(),
    }


def _degrees(angle: float) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Degrees, minutes and seconds as rationals; a ten-thousandth of a second is 3 mm."""
    minutes, seconds = divmod(round(abs(angle) * 3600 * 10_000), 60 * 10_000)
    return (minutes // 60, 1), (minutes % 60, 1), (seconds, 10_000)


def _load(app1: bytes) -> dict[str, dict[int, Any]]:
    """The tags of a block of ours by directory (`0th`, `Exif`, `GPS`) and number, as piexif takes them; no broken ones."""
    import piexif

    block = tiff.read(app1)
    kept = {
        "0th": _kept(block.zeroth, piexif.TAGS["Image"]),
        "Exif": _kept(block.exif, piexif.TAGS["Exif"]),
        "GPS": _kept(block.gps, piexif.TAGS["GPS"]),
    }
    if sum(tag.size for tags in kept.values() for tag in tags.values()) > len(
        app1
    ):  # some have the same bytes
        raise ValueError("the values are larger than the block")
    return {name: {number: _value(tag) for number, tag in tags.items()} for name, tags in kept.items()}


def _kept(directory: tiff.Directory | None, known: dict[int, dict[str, Any]]) -> dict[int, tiff.Tag]:
    """The tags that piexif can write as they are; it writes the pointers itself."""
    found = directory.tags if directory else {}
    return {
        number: tag
        for number, tag in found.items()
        if known.get(number, {}).get("type") == tag.kind and number not in tiff.POINTERS
    }


def _value(tag: tiff.Tag) -> Any:
    """A tag's value as piexif takes it: bytes, a number or a pair of them, or a tuple of several."""
    if tag.kind in (tiff.ASCII, tiff.UNDEFINED):
        return tag.raw.partition(b"\0")[0] if tag.kind == tiff.ASCII else tag.raw
    values = tuple(one if len(one) > 1 else one[0] for one in tag.unpacked())
    return values[0] if len(values) == 1 else values
