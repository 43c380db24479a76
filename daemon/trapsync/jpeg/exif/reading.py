"""Read EXIF: the Sticky Pi fields of either format, and the standard tags of any camera."""

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

from trapsync.image import Evidence
from trapsync.jpeg.exif.blocks import LONGEST_TEXT, UNREADABLE, clean, evidence_in, load

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

    The evidence is what `embed_metadata` noted about the time of capture.
    """
    if app1 is None:
        return {"exif": False}, None
    try:
        blocks = load(app1)
        metadata = {"exif": True, **_standard_tags(blocks)}
        metadata |= _sticky_pi_fields(blocks)
        if metadata.get("lat") is None and metadata.get("lng") is None:
            metadata |= _place(blocks["GPS"])
        return metadata, evidence_in(blocks["Exif"].get("MakerNote"))
    except UNREADABLE as error:
        return {"exif": True, "exif_error": f"{type(error).__name__}: {clean(str(error))[:200]}"}, None


def _standard_tags(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    tags = {**blocks["0th"], **blocks["Exif"]}
    found: dict[str, Any] = {name: clean(_text(tags.get(name))) for name in _TEXTS if name in tags}
    found |= {name: _whole(tags[name]) for name in _WHOLES if name in tags}
    found |= {name: _ratio(tags[name]) for name in _RATIOS if name in tags}
    return {name: value for name, value in found.items() if value is not None}


def _text(value: object) -> str:
    """Decode a text tag: bytes, or the tuple of numbers that piexif makes of type BYTE."""
    if isinstance(value, tuple) and all(isinstance(one, int) and 0 <= one < 256 for one in value):
        value = bytes(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


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
        return {"UserComment": clean(comment)} if clean(comment) else {}
    return _read_2022(comment)


def _read_2020(make: str) -> dict[str, Any]:
    """A dict written by Python's repr(): evaluated as a literal, never as code."""
    try:
        fields = ast.literal_eval(make if len(make) <= LONGEST_TEXT else "")
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
        return {"format_error": f"the dict in Make cannot be read: {clean(str(error))[:200]}"}
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
                metadata["format_error"] = f"UserComment: {column} is {clean(text)[:40]!r}"
    return metadata


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)
    return clean(value) if isinstance(value, str) else value


def _place(gps: Mapping[str, Any]) -> dict[str, float]:
    """The position in the GPS block, in signed degrees and metres."""
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
