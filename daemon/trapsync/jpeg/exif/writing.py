"""Write EXIF: the tags of a new picture, and a corrected time."""

import hashlib
import math
import re
from ast import literal_eval
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, TypeGuard

from trapsync.clock import utc
from trapsync.errors import DamagedImage
from trapsync.image import Evidence
from trapsync.jpeg.exif import tiff
from trapsync.jpeg.exif.blocks import UNREADABLE, clean, deployment_text, evidence_in, evidence_text
from trapsync.jpeg.structure import header, without_exif

_SECONDS = "%Y-%m-%d %H:%M:%S"
_NEVER_SYNCED = "2000-01-01 00:00:00"  # as the firmware writes it
_LONGEST_NAME = 200  # bytes of a text that somebody chose


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The values that are written as EXIF.

    `taken` is UTC; `offset` is the one from UTC, of whole minutes, in which the times for people are written.
    `deployment` is the id of one, and ends the description. `version` is the column `v` and has at most 8 characters on
    the server. `exposure` is in seconds, a `gain` of 1.0 is ISO 100. Places are WGS-84 degrees and metres; `temperature`
    is in degrees Celsius, `humidity` and `battery` in per cent. `last_sync` is when the clock was last set, in unix
    seconds. None is unknown, everywhere, as is an empty text. `format` is the year of the format in which Sticky Pi
    servers find the values: those of branch main read that of 2020 only.
    """

    taken: datetime
    offset: tzinfo = UTC
    device: str = ""
    description: str = ""
    deployment: str = ""
    artist: str = ""
    copyright: str = ""
    model: str
    software: str
    version: str
    width: int
    height: int
    exposure: float | None = None
    gain: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude: float | None = None
    temperature: float | None = None
    humidity: float | None = None
    battery: float | None = None
    last_sync: int | None = None
    button: bool = False
    evidence: Evidence | None = None
    format: Literal["2020", "2022"] = "2022"


def embed_metadata(jpeg: bytes, facts: Facts) -> bytes:
    """Return a JPEG with our EXIF block in place of any other; the picture data is not changed.

    The block is big-endian TIFF with no thumbnail, right behind the start of the image, as EXIF wants it.
    Raises DamagedImage when `jpeg` is none.
    """
    return _with_block(jpeg, _block(facts))


def correct(jpeg: bytes, taken: datetime, offset: float, last_sync: float) -> bytes:
    """Return a JPEG of ours with another time of capture: `taken` (UTC), wherever a time stands in it.

    It is written in the offset from UTC in which the old one is: of images from before there was a choice, 0. The
    evidence stays as it was and gets `offset` besides; the Sticky Pi `l` becomes `last_sync`, in unix
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
        zeroth, original = _times(taken, _offset(details.get(piexif.ExifIFD.OffsetTimeOriginal)))
        blocks["0th"] |= zeroth
        details |= original
        details[piexif.ExifIFD.MakerNote] = evidence_text(replace(evidence, offset=offset))
        if piexif.ExifIFD.UserComment in details:
            details[piexif.ExifIFD.UserComment] = _synced(details[piexif.ExifIFD.UserComment], last_sync)
        else:
            make = literal_eval(blocks["0th"][piexif.ImageIFD.Make].decode("ascii"))
            synced = f"{utc(last_sync):{_SECONDS}}"
            blocks["0th"][piexif.ImageIFD.Make] = repr({**make, "datetime": synced}).encode()
        if piexif.GPSIFD.GPSTimeStamp in gps:
            gps |= _gps_moment(taken)
        block: bytes = piexif.dump(blocks)
    except UNREADABLE as error:
        raise DamagedImage(f"its EXIF cannot be written anew: {clean(str(error))[:200]}") from error
    return _with_block(jpeg, block)


def _synced(comment: bytes, last_sync: float) -> bytes:
    """Replace in our two lines the time when the clock was set."""
    names, values = (line.split(",") for line in comment.decode("ascii").split("\n"))
    return _two_lines({**dict(zip(names, values, strict=True)), "l": f"{last_sync:.0f}"})


def _two_lines(columns: Mapping[str, str]) -> bytes:
    return f"{','.join(columns)}\n{','.join(columns.values())}".encode("ascii")


def _with_block(jpeg: bytes, block: bytes) -> bytes:
    start = (b"\xff\xd8", b"\xff\xe1", (len(block) + 2).to_bytes(2, "big"), block)
    return b"".join([*start, *without_exif(jpeg)])


def _block(facts: Facts) -> bytes:
    import piexif

    image, exif = piexif.ImageIFD, piexif.ExifIFD
    zeroth_times, times = _times(facts.taken, facts.offset)
    texts = {
        image.Model: facts.model,
        image.Software: facts.software,
        image.Artist: facts.artist,
        image.Copyright: facts.copyright,
    }
    zeroth: dict[int, Any] = {
        # In the format of 2022 exactly one word: its server evaluates it as Python.
        image.Make: b"StickyPi" if facts.format == "2022" else make_of_2020(facts),
        **{tag: _text(text) for tag, text in texts.items() if text},
        **({image.ImageDescription: description} if (description := _description(facts)) else {}),
        **zeroth_times,
    }
    details: dict[int, Any] = {
        exif.ExifVersion: b"0231",  # the first with time offsets
        **times,
        exif.ColorSpace: 1,
        exif.PixelXDimension: facts.width,
        exif.PixelYDimension: facts.height,
    }
    if facts.format == "2022":
        details[exif.UserComment] = user_comment(facts)
    if _positive(facts.exposure):
        details[exif.ExposureTime] = (_within_long(facts.exposure * 1e6), 1_000_000)
    if _positive(facts.gain):
        details[exif.ISOSpeedRatings] = min(65535, max(1, round(facts.gain * 100)))
    if _is_sane(facts.temperature, 999.0):
        details[exif.Temperature] = (round(facts.temperature * 10), 10)
    if _is_sane(facts.humidity, 999.0) and facts.humidity >= 0:
        details[exif.Humidity] = (round(facts.humidity * 10), 10)
    if facts.device:
        details[exif.BodySerialNumber] = _text(facts.device)
    if facts.evidence is not None:
        details[exif.MakerNote] = note = evidence_text(facts.evidence)
        details[exif.ImageUniqueID] = _unique_id(facts.device, note)
    block: bytes = piexif.dump({"0th": zeroth, "Exif": details, "GPS": _gps(facts)})
    return block


def _times(taken: datetime, offset: tzinfo) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """The tags of the moment of capture in an offset from UTC: those of the first directory, and of the EXIF directory."""
    import piexif

    exif, local = piexif.ExifIFD, taken.astimezone(offset)
    moment = local.strftime("%Y:%m:%d %H:%M:%S").encode()
    ahead = local.isoformat(timespec="seconds")[19:].encode()
    return {piexif.ImageIFD.DateTime: moment}, {
        exif.DateTimeOriginal: moment,
        exif.DateTimeDigitized: moment,
        exif.OffsetTime: ahead,
        exif.OffsetTimeOriginal: ahead,
        exif.OffsetTimeDigitized: ahead,
    }


def _offset(text: bytes | None) -> tzinfo:
    """Read `OffsetTimeOriginal`, such as `+05:45`; UTC where there is none."""
    with suppress(ValueError):
        return datetime.strptime((text or b"").decode("ascii"), "%z").tzinfo or UTC
    return UTC


def _unique_id(device: str, note: bytes) -> bytes:
    """32 hexadecimal digits that no other image has: the trap and all its clocks at the moment of capture, as noted.

    So it needs nothing that is kept elsewhere, and can be worked out again. A corrected image keeps the one it has.
    """
    return hashlib.sha256(device.encode() + b" " + note).hexdigest()[:32].encode()


def user_comment(facts: Facts) -> bytes:
    """Format the sensors as the Sticky Pi firmware 3.x does (take_picture.c), without the columns that are not known.

    Two lines with one LF between them: raw ASCII, no character-code prefix, no NUL, no newline at the end.
    The firmware's buffer holds 127 bytes including `EXIF.UserComment=`, and so does this. Where the firmware writes
    numbers that stand for *unknown*, its server keeps them as numbers; a column that is missing becomes null there.
    """
    numbers = {
        "T": (facts.temperature, 999.0, ".1f"),
        "H": (facts.humidity, 999.0, ".1f"),
        "B": (facts.battery, 999.0, ".0f"),
        "L": (-math.log10(facts.exposure) if _positive(facts.exposure) else None, 999.0, ".2f"),
        "lat": (facts.latitude, 90.0, ".5f"),
        "lng": (facts.longitude, 180.0, ".5f"),
        "a": (facts.altitude, 9999.0, ".1f"),
        "l": (facts.last_sync, math.inf, ".0f"),
    }
    known = {
        name: f"{value:{form}}" for name, (value, most, form) in numbers.items() if _is_sane(value, most)
    }
    version = re.sub(r"[^0-9A-Za-z.+-]", "", facts.version)[:8]
    return _two_lines({"v": version, **known, "b": str(int(facts.button))})


def make_of_2020(facts: Facts) -> bytes:
    """Format the sensors as the Sticky Pi firmware of 2020 does: a dict as Python writes it.

    A server of branch main (image_parser.py, images_table.py) fails where one of the keys is missing, but for `temp` and
    `hum`; three zeros are an unknown place to it, and a pair is a fraction. What a trap does not measure is 0.
    """
    exposure = (_within_long(facts.exposure * 1e6) if _positive(facts.exposure) else 0, 1_000_000)
    speed = (round(-math.log2(facts.exposure) * 1000) if _positive(facts.exposure) else 0, 1000)
    place = {"lng": facts.longitude, "lat": facts.latitude, "alt": facts.altitude}
    fields: dict[str, Any] = {
        **{name: round(value, 5) if _is_sane(value, 9999.0) else 0.0 for name, value in place.items()},
        "datetime": _NEVER_SYNCED if facts.last_sync is None else f"{utc(facts.last_sync):{_SECONDS}}",
        "no_flash_exposure_time": exposure,
        "no_flash_bv": (0, 1),
        "no_flash_shutter_speed": speed,
        "no_flash_iso": round(facts.gain * 100) if _positive(facts.gain) else 0,
    }
    measured = {"temp": facts.temperature, "hum": facts.humidity}
    known = {name: round(value, 1) for name, value in measured.items() if _is_sane(value, 999.0)}
    return repr(fields | known).encode("ascii")


def _is_sane(value: float | None, most: float) -> TypeGuard[float]:
    """Whether it is known, and possible: no nan, no 1e30."""
    return value is not None and math.isfinite(value) and abs(value) <= most


def _positive(number: float | None) -> TypeGuard[float]:
    return number is not None and math.isfinite(number) and number > 0


def _within_long(number: float) -> int:
    return min(2**32 - 1, max(1, round(number)))


def _text(text: str) -> bytes:
    """A text of any alphabet, in UTF-8 under the type ASCII.

    As the Metadata Working Group advises, and as exiftool reads it. UTF-8 has had a type of its own since EXIF 3.0, which
    hardly a program knows yet.
    """
    return clean(text).encode()[:_LONGEST_NAME].decode(errors="ignore").encode()


def _description(facts: Facts) -> bytes:
    """What people read of trap and place, and by what the deployment is known again, whole: `deployment_in`."""
    end = deployment_text(facts.deployment) if facts.deployment else b""
    room = _LONGEST_NAME - len(end)
    begin = _text(facts.description)[:room].decode(errors="ignore").encode()
    return begin + end if begin else end.removeprefix(b", ")


def _gps(facts: Facts) -> dict[int, Any]:
    """The GPS block, or nothing when the place is unknown."""
    import piexif

    gps, north, east, height = piexif.GPSIFD, facts.latitude, facts.longitude, facts.altitude
    if not (_is_sane(north, 90) and _is_sane(east, 180)):
        return {}
    above = (
        {gps.GPSAltitudeRef: int(height < 0), gps.GPSAltitude: (round(abs(height) * 100), 100)}
        if _is_sane(height, 99999.0)
        else {}
    )
    return {
        gps.GPSVersionID: (2, 3, 0, 0),
        gps.GPSLatitudeRef: b"N" if north >= 0 else b"S",
        gps.GPSLatitude: _degrees(north),
        gps.GPSLongitudeRef: b"E" if east >= 0 else b"W",
        gps.GPSLongitude: _degrees(east),
        **above,
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
