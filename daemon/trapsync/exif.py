"""The JPEG's metadata, written and read: the one door to piexif.

What is written is what the Sticky Pi firmware 3.x writes (the format of 2022: `Make` is `StickyPi`, the
sensors are two lines of text in `UserComment`) plus the standard tags that any viewer shows. What is read
is that, the format of 2020 (a dict in `Make`), and the standard tags of anybody's camera. piexif is
imported inside functions, so that the daemon's own process can import this module without it.
"""

import ast
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeGuard

from trapsync.errors import DamagedImage
from trapsync.image import Evidence
from trapsync.jpeg import EXIF_SIGNATURE, header, is_exif, segments

_LONGEST_TEXT = 4096  # of a text from a file: longer ones are cut, or not evaluated

# Sticky Pi firmware 3.x, take_picture.c: header, printf formats and sentinels are its own.
_HEADER = "v,T,H,B,L,lat,lng,a,l,b"
_NO_TEMPERATURE = -300.0
_NO_HUMIDITY = -1.0
_NO_BATTERY = -1
_NEVER_SYNCED = "2000-01-01 00:00:00"

# What the Sticky Pi server calls those columns, and how it reads them (its ImageParser). `l` it ignores.
_COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "v": ("device_version", str),
    "T": ("temp", float),
    "H": ("hum", float),
    "B": ("bat", float),
    "L": ("lum", float),
    "lat": ("lat", float),
    "lng": ("lng", float),
    "a": ("alt", float),
    "b": ("but", lambda text: bool(int(text))),
}

_TEXTS = (
    "Make",
    "Model",
    "Software",
    "Artist",
    "Copyright",
    "ImageDescription",
    "DateTime",
    "DateTimeOriginal",
    "DateTimeDigitized",
    "OffsetTime",
    "OffsetTimeOriginal",
    "OffsetTimeDigitized",
    "SubSecTimeOriginal",
    "LensModel",
    "BodySerialNumber",
)
_WHOLES = ("Orientation", "ISOSpeedRatings", "Flash", "WhiteBalance", "ExposureProgram", "MeteringMode")
_RATIOS = ("ExposureTime", "FNumber", "FocalLength", "ExposureBiasValue", "BrightnessValue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What EXIF is written from.

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


# --- Writing ------------------------------------------------------------------------------------------------


def dress(jpeg: bytes, facts: Facts) -> bytes:
    """The same JPEG with our EXIF block, in place of whatever EXIF it had; the picture data is untouched.

    The block is big-endian TIFF with no thumbnail, right behind the start of the image, as EXIF wants it.
    Raises DamagedImage when `jpeg` is none.
    """
    return _with_block(jpeg, _block(facts))


def correct(jpeg: bytes, taken: datetime, offset: float, last_sync: float) -> bytes:
    """The same JPEG of our own with another time of capture: `taken` (UTC), wherever a time stands in it.

    The evidence stays as it was and gets `offset` besides; the Sticky Pi `l` becomes `last_sync`, in unix
    seconds. The same arguments give the same bytes. Raises DamagedImage when it is none of ours.
    """
    import piexif

    app1 = header(jpeg).exif
    try:
        blocks = _load(app1 or b"", key_is_name=False)
        details, gps = blocks["Exif"], blocks["GPS"]
        evidence = _evidence(details.get(piexif.ExifIFD.MakerNote))
        if evidence is None:
            raise ValueError("it holds no evidence of its time")
        moment = taken.strftime("%Y:%m:%d %H:%M:%S").encode()
        blocks["0th"][piexif.ImageIFD.DateTime] = moment
        details[piexif.ExifIFD.DateTimeOriginal] = details[piexif.ExifIFD.DateTimeDigitized] = moment
        details[piexif.ExifIFD.MakerNote] = _evidence_text(replace(evidence, offset=offset))
        details[piexif.ExifIFD.UserComment] = _synced(details[piexif.ExifIFD.UserComment], last_sync)
        if piexif.GPSIFD.GPSTimeStamp in gps:
            gps |= _gps_moment(taken)
        block: bytes = piexif.dump(blocks)
    except _UNREADABLE as error:
        raise DamagedImage(f"its EXIF cannot be written anew: {_clean(str(error))[:200]}") from error
    return _with_block(jpeg, block)


def _synced(comment: bytes, last_sync: float) -> bytes:
    """Our two lines with the moment when the clock was set."""
    names, values = (line.split(",") for line in comment.decode("ascii").split("\n"))
    values[names.index("l")] = f"{last_sync:.0f}"
    return f"{','.join(names)}\n{','.join(values)}".encode("ascii")


def _with_block(jpeg: bytes, block: bytes) -> bytes:
    pieces: list[bytes | memoryview] = [b"\xff\xd8", b"\xff\xe1", (len(block) + 2).to_bytes(2, "big"), block]
    whole = memoryview(jpeg)
    for segment in segments(jpeg):
        if not is_exif(segment.marker, jpeg[segment.payload : segment.end]):
            pieces.append(whole[segment.start : segment.end])
    pieces.append(whole[segment.end :])
    return b"".join(pieces)


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
        details[exif.MakerNote] = _evidence_text(facts.evidence)
    block: bytes = piexif.dump({"0th": zeroth, "Exif": details, "GPS": _gps(facts)})
    return block


def user_comment(facts: Facts) -> bytes:
    """The sensors in the words of the Sticky Pi firmware 3.x, to the byte.

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
    """The value, or the sentinel for one that is missing or that no sensor can mean (nan, 1e30)."""
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


def _evidence_text(evidence: Evidence) -> bytes:
    boot_id = re.sub(r"[^0-9A-Za-z-]", "", evidence.boot_id)[:64]
    times = f"mono={evidence.monotonic:.3f} wall={evidence.wall:.3f}"
    offset = "" if evidence.offset is None else f" offset={evidence.offset:.3f}"
    return f"trapsync 1 boot={boot_id} {times} trusted={int(evidence.trusted)}{offset}".encode("ascii")


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


# --- Reading ------------------------------------------------------------------------------------------------


def read(app1: bytes | None) -> tuple[dict[str, Any], Evidence | None]:
    """Read the payload of an APP1 EXIF segment; None for a file that has none.

    The metadata is JSON-able, and no number in it is infinite or NaN. Its keys:

    - `exif`: whether there is an EXIF block at all. Always present.
    - `exif_error`: why the block cannot be read. Then there are no others: a damaged block is no reason
      to lose an image.
    - `format`: "2020" or "2022" when the file holds Sticky Pi fields just as that project's own server
      accepts them; `format_error` instead when it holds such fields and the server would fail on them.
    - `device_version temp hum bat lum lat lng alt but`: columns of the Sticky Pi server, in its types
      (`bat` is a float, `but` a bool), as far as the file gives them. `lat lng alt` are None when a 2020
      file says all zero; from the GPS block for files without Sticky Pi fields.
    - `no_flash_exposure_time no_flash_analog_gain no_flash_digital_gain`: as the vendor reads 2020 files.
    - `Make Model DateTimeOriginal ...`: standard tags under their EXIF names: texts, whole numbers
      (`ISOSpeedRatings`), or floats (`ExposureTime` in seconds). `UserComment` when it is somebody's prose.

    The evidence is what `dress` noted about the moment of capture.
    """
    if app1 is None:
        return {"exif": False}, None
    try:
        blocks = _load(app1)
        metadata = {"exif": True, **_standard_tags(blocks)}
        metadata |= _sticky_pi_fields(blocks)
        if metadata.get("lat") is None and metadata.get("lng") is None:
            metadata |= _place(blocks["GPS"])
        return metadata, _evidence(blocks["Exif"].get("MakerNote"))
    except _UNREADABLE as error:
        return {"exif": True, "exif_error": f"{type(error).__name__}: {_clean(str(error))[:200]}"}, None


# What reading an EXIF block that anybody may have written can end in.
_UNREADABLE = (ValueError, struct.error, ArithmeticError, LookupError, TypeError, MemoryError)


def _load(app1: bytes, *, key_is_name: bool = True) -> dict[str, dict[Any, Any]]:
    import piexif

    tiff = app1[len(EXIF_SIGNATURE) :]
    # piexif takes what it does not recognise for the name of a file to open.
    if not app1.startswith(EXIF_SIGNATURE) or tiff[:2] not in (b"MM", b"II"):
        raise ValueError("the block is not TIFF")
    _refuse_bombs(tiff)
    blocks: dict[str, dict[Any, Any]] = piexif.load(tiff, key_is_name=key_is_name)
    return blocks


# Bytes per value of the TIFF types 1 to 12; piexif refuses any other by itself.
_TYPE_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
_POINTERS = {0x8769, 0x8825, 0xA005}  # to the Exif, GPS and interoperability blocks


def _refuse_bombs(tiff: bytes) -> None:
    """Refuse counts that do not fit into the block; ValueError.

    piexif believes any count: one flipped bit makes it build four billion numbers (measured: 6 s, 570 MB).
    """
    endian = "<" if tiff[:2] == b"II" else ">"
    room = 2 * len(tiff)
    waiting = [struct.unpack_from(endian + "L", tiff, 4)[0]]
    seen = set()
    while waiting:
        offset = waiting.pop()
        if offset in seen:
            continue
        seen.add(offset)
        entries, following = _entries(tiff, offset, endian)
        for tag, kind, count, value in entries:
            room -= count * (_TYPE_SIZES[kind] if kind < len(_TYPE_SIZES) else 0)
            if tag in _POINTERS:
                waiting.append(value)
        waiting.extend(following)
        if room < 0 or len(seen) > 8:
            raise ValueError("the values are larger than the block")


def _entries(tiff: bytes, offset: int, endian: str) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    """The directory at an offset: (tag, type, count, value or its offset) each, and the next directory."""
    (count,) = struct.unpack_from(endian + "H", tiff, offset)
    end = offset + 2 + 12 * count
    if end > len(tiff):
        raise ValueError("a directory is larger than the block")
    entries = [struct.unpack_from(endian + "HHLL", tiff, at) for at in range(offset + 2, end, 12)]
    following = struct.unpack(endian + "L", tiff[end : end + 4])[0] if end + 4 <= len(tiff) else 0
    # The GPS and other sub-blocks have no successor; what stands behind them is data. Only the first counts.
    is_first = offset == struct.unpack_from(endian + "L", tiff, 4)[0]
    return entries, [following] if following and is_first else []


def _standard_tags(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    tags = {**blocks["0th"], **blocks["Exif"]}
    found: dict[str, Any] = {name: _clean(_text(tags.get(name))) for name in _TEXTS if name in tags}
    found |= {name: _whole(tags[name]) for name in _WHOLES if name in tags}
    found |= {name: _ratio(tags[name]) for name in _RATIOS if name in tags}
    return {name: value for name, value in found.items() if value is not None}


def _text(value: object) -> str:
    """A text from whatever the tag holds: bytes, or the tuple of numbers that piexif makes of type BYTE."""
    if isinstance(value, tuple) and all(isinstance(one, int) and 0 <= one < 256 for one in value):
        value = bytes(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _clean(text: str) -> str:
    """Without NULs and control characters, without blanks around, and not too long."""
    return "".join(one if one.isprintable() else " " for one in text[:_LONGEST_TEXT]).strip()


def _whole(value: object) -> int | None:
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else None


def _ratio(value: object) -> float | None:
    """A float from a rational; None for a division by zero or a tag of another type."""
    match value:
        case (int(numerator), int(denominator)) if denominator:
            return numerator / denominator
        case _:
            return None


def _sticky_pi_fields(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields in either format of the project; its server decides by `Make` too."""
    make = _text(blocks["0th"].get("Make"))
    if make.lstrip().startswith("{"):
        return _read_2020(make)
    comment = _text(blocks["Exif"].get("UserComment")).removeprefix("ASCII\0\0\0").removeprefix("\0" * 8)
    head = comment.partition("\n")[0].split(",")
    if not _COLUMNS.keys() & set(head):
        return {"UserComment": _clean(comment)} if _clean(comment) else {}
    return _read_2022(comment)


def _read_2020(make: str) -> dict[str, Any]:
    """A dict written by Python's repr(): evaluated as a literal, never as code."""
    try:
        fields = ast.literal_eval(make if len(make) <= _LONGEST_TEXT else "")
        metadata: dict[str, Any] = {name: float(fields[name]) for name in ("lat", "lng", "alt")}
        metadata |= {name: float(fields[name]) for name in ("temp", "hum") if name in fields}
        if "no_flash_bv" in fields:
            metadata["no_flash_exposure_time"] = _exact_ratio(fields["no_flash_exposure_time"])
            metadata["no_flash_analog_gain"] = int(fields["no_flash_iso"])
            metadata["no_flash_digital_gain"] = _exact_ratio(fields["no_flash_bv"])
            _exact_ratio(fields["no_flash_shutter_speed"]), fields["datetime"]  # the server wants them
    except (
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as error:
        return {"format_error": f"the dict in Make cannot be read: {_clean(str(error))[:200]}"}
    if not all(math.isfinite(number) for number in metadata.values()):
        return {"format_error": "the dict in Make holds a number without end"}
    if metadata["lat"] == metadata["lng"] == metadata["alt"] == 0:
        metadata |= {"lat": None, "lng": None, "alt": None}
    return {"format": "2020", **metadata}


def _exact_ratio(pair: tuple[int, int]) -> float:
    return float(pair[0] / pair[1])


def _read_2022(comment: str) -> dict[str, Any]:
    """Two lines, names and values; a bad value costs itself, and the format's name."""
    lines = comment.split("\n")
    if len(lines) != 2:
        return {"format_error": f"UserComment has {len(lines)} lines, not two"}
    metadata: dict[str, Any] = {"format": "2022"}
    for column, text in zip(lines[0].split(","), lines[1].split(","), strict=False):
        if column in _COLUMNS:
            name, kind = _COLUMNS[column]
            try:
                metadata[name] = _finite(kind(text))
            except ValueError:
                metadata.pop("format", None)
                metadata["format_error"] = f"UserComment: {column} is {_clean(text)[:40]!r}"
    return metadata


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)
    return _clean(value) if isinstance(value, str) else value


def _place(gps: Mapping[str, Any]) -> dict[str, float]:
    """Where a camera with a satellite receiver was, in signed degrees and metres."""
    place = {
        "lat": _signed(gps.get("GPSLatitude"), gps.get("GPSLatitudeRef") in (b"S", b"s")),
        "lng": _signed(gps.get("GPSLongitude"), gps.get("GPSLongitudeRef") in (b"W", b"w")),
    }
    known = {name: angle for name, angle in place.items() if angle is not None}
    if len(known) < 2:
        return {}
    height = _ratio(gps.get("GPSAltitude"))
    if height is not None:
        known["alt"] = -height if gps.get("GPSAltitudeRef") == 1 else height
    return known


def _signed(angle: object, negative: bool) -> float | None:
    """Degrees from three rationals, to the millimetre; None when they are no angle."""
    if not isinstance(angle, tuple) or len(angle) != 3:
        return None
    degrees, minutes, seconds = (_ratio(part) for part in angle)
    if degrees is None or minutes is None or seconds is None:
        return None
    total = round(degrees + minutes / 60 + seconds / 3600, 8)
    return (-total if negative else total) if total <= 180 else None


_EVIDENCE = re.compile(
    rb"trapsync 1 boot=([0-9A-Za-z-]*) mono=(\d{1,15}\.\d{3}) wall=(-?\d{1,15}\.\d{3}) trusted=([01])"
    rb"(?: offset=(-?\d{1,15}\.\d{3}))?"
)


def _evidence(note: object) -> Evidence | None:
    match = _EVIDENCE.fullmatch(note) if isinstance(note, bytes) else None
    if match is None:
        return None
    boot_id, monotonic, wall, trusted, offset = match.groups()
    times = float(monotonic), float(wall)
    return Evidence(boot_id.decode(), *times, trusted == b"1", float(offset) if offset else None)
