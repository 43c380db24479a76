"""Read EXIF: the Sticky Pi fields of either format, and the standard tags of any camera."""

import ast
import math
from collections.abc import Callable
from typing import Any

from trapsync.image import Evidence, without_unknown
from trapsync.jpeg.exif import tiff
from trapsync.jpeg.exif.blocks import LONGEST_TEXT, UNREADABLE, clean, deployment_in, evidence_in
from trapsync.jpeg.exif.tiff import Directory, Tag

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

# The standard tags, by the directory in which they belong. Some programs write one into the other.
_MAKE, _MAKER_NOTE, _USER_COMMENT = 0x010F, 0x927C, 0x9286
_ZEROTH_TEXTS = {
    "Make": _MAKE,
    "Model": 0x0110,
    "Software": 0x0131,
    "Artist": 0x013B,
    "Copyright": 0x8298,
    "ImageDescription": 0x010E,
    "DateTime": 0x0132,
}
_EXIF_TEXTS = {
    "DateTimeOriginal": 0x9003,
    "DateTimeDigitized": 0x9004,
    "OffsetTime": 0x9010,
    "OffsetTimeOriginal": 0x9011,
    "OffsetTimeDigitized": 0x9012,
    "SubSecTimeOriginal": 0x9291,
    "LensModel": 0xA434,
    "BodySerialNumber": 0xA431,
}
_ZEROTH_WHOLES = {"Orientation": 0x0112}
_EXIF_WHOLES = {
    "ISOSpeedRatings": 0x8827,
    "Flash": 0x9209,
    "WhiteBalance": 0xA403,
    "ExposureProgram": 0x8822,
    "MeteringMode": 0x9207,
}
_EXIF_NUMBERS = {
    "ExposureTime": 0x829A,
    "FNumber": 0x829D,
    "FocalLength": 0x920A,
    "BrightnessValue": 0x9203,
}
_ZEROTH = _ZEROTH_TEXTS | _ZEROTH_WHOLES

# The tags of the position: the reference (a hemisphere), and the value.
_LATITUDE, _LONGITUDE, _ALTITUDE = (1, 2), (3, 4), (5, 6)


def read(app1: bytes | None) -> tuple[dict[str, Any], Evidence | None]:
    """Read the payload of an APP1 EXIF segment; None for a file that has none.

    The metadata is JSON-able, and no number in it is infinite or NaN. Its keys:

    - `exif`: whether there is an EXIF block at all. Always present.
    - `exif_error`: why the block cannot be read at all. Then there are no others: a damaged block is no reason
      to lose an image.
    - `exif_skipped`: the names of tags and directories that are there but broken, or that say nothing (0/0). The
      others are there all the same.
    - `format`: "2020" or "2022" when the file holds Sticky Pi fields just as that project's own server
      accepts them; `format_error` instead when it holds such fields and the server would fail on them.
    - `device_version temp hum bat lum lat lng alt but`: columns of the Sticky Pi server, in its types
      (`bat` is a float, `but` a bool), as far as the file gives them and knows them. `lat lng alt` are None when a 2020
      file says all zero; from the GPS directory for files without Sticky Pi fields, each for itself. An angle whose
      hemisphere is not known is left out: it is as likely on the other side of the world.
    - `no_flash_exposure_time no_flash_analog_gain no_flash_digital_gain`: as the vendor reads 2020 files.
    - `Make Model DateTimeOriginal ...`: standard tags under their EXIF names: texts up to their first NUL (blank
      ones are left out), whole numbers (`ISOSpeedRatings`), or floats (`ExposureTime` in seconds).
      `UserComment` when it is somebody's prose.
    - `deployment`: the id of its deployment, where `ImageDescription` ends with it, as `embed_metadata` writes it.

    The evidence is what `embed_metadata` noted about the time of capture.
    """
    if app1 is None:
        return {"exif": False}, None
    try:
        block = _Block(tiff.read(app1))
        metadata = {"exif": True, **_standard_tags(block)}
        metadata |= _sticky_pi_fields(block)
        if deployment := deployment_in(metadata.get("ImageDescription", "")):
            metadata["deployment"] = deployment
        if metadata.get("lat") is None and metadata.get("lng") is None:
            metadata |= _place(block)
        if block.skipped:
            metadata["exif_skipped"] = ", ".join(block.skipped)
        note = block.find("MakerNote", _MAKER_NOTE)
        return metadata, evidence_in(note.raw) if note else None
    except UNREADABLE as error:
        return {"exif": True, "exif_error": f"{type(error).__name__}: {clean(str(error))[:200]}"}, None


class _Block:
    """The directories of a block, and the names of what was found broken in it."""

    def __init__(self, found: tiff.Directories) -> None:
        missing = Directory({}, frozenset())
        self.skipped = [
            name
            for name, one in (("Exif directory", found.exif), ("GPS directory", found.gps))
            if one is None
        ]
        self._zeroth, self._exif, self.gps = found.zeroth, found.exif or missing, found.gps or missing

    def find(self, name: str, number: int) -> Tag | None:
        """A standard tag, from where it belongs or else from the other directory."""
        own, other = (self._zeroth, self._exif) if name in _ZEROTH else (self._exif, self._zeroth)
        return own.tags.get(number) or other.tags.get(number)

    def read(self, name: str, number: int, value_of: Callable[[Tag], Any]) -> Any:
        """The value of a standard tag; None where there is none, or where it cannot be read, which is noted."""
        is_there = self._zeroth.has(number) or self._exif.has(number)
        return self._value(name, self.find(name, number), value_of, is_there=is_there)

    def read_gps(self, name: str, number: int, value_of: Callable[[Tag], Any]) -> Any:
        """The same for a tag of the position."""
        return self._value(name, self.gps.tags.get(number), value_of, is_there=self.gps.has(number))

    def _value(self, name: str, tag: Tag | None, value_of: Callable[[Tag], Any], *, is_there: bool) -> Any:
        value = None if tag is None else value_of(tag)
        if value is None and is_there:
            self.skipped.append(name)
        return value


def _standard_tags(block: _Block) -> dict[str, Any]:
    kinds: tuple[tuple[dict[str, int], Callable[[Tag], Any]], ...] = (
        (_ZEROTH_TEXTS | _EXIF_TEXTS, _shown),
        (_ZEROTH_WHOLES | _EXIF_WHOLES, Tag.whole),
        (_EXIF_NUMBERS, _fraction),
        ({"ExposureBiasValue": 0x9204}, _signed_fraction),
    )
    found = {
        name: block.read(name, number, value_of)
        for numbers, value_of in kinds
        for name, number in numbers.items()
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _shown(tag: Tag) -> str | None:
    text = tag.text()
    return None if text is None else clean(text)


def _fraction(tag: Tag) -> float | None:
    number = tag.number()
    return None if number is None else float(number)


def _signed_fraction(tag: Tag) -> float | None:
    """The same of a tag that is signed, and that some cameras write with an unsigned type."""
    return _fraction(tag._replace(kind=tiff.SIGNED_RATIONAL) if tag.kind == tiff.RATIONAL else tag)


def _sticky_pi_fields(block: _Block) -> dict[str, Any]:
    """The fields in either format of the project; its server decides by `Make` too."""
    make = block.find("Make", _MAKE)
    maker = make.text() or "" if make else ""
    if maker.lstrip().startswith("{"):
        return _read_2020(maker)
    tag = block.find("UserComment", _USER_COMMENT)
    fields = _fields_text(tag) if tag else ""
    if _COLUMNS.keys() & set(fields.partition("\n")[0].split(",")):
        return _read_2022(fields)
    comment = block.read("UserComment", _USER_COMMENT, _prose)
    return {"UserComment": comment} if comment else {}


def _fields_text(comment: Tag) -> str:
    """The comment as that server reads it: a NUL in it is one of its characters, and no number."""
    code, text = _taken_apart(comment.raw)
    raw = text if code in (b"ASCII", b"") else comment.raw
    return (raw.partition(b"\0")[0] if comment.kind == tiff.ASCII else raw).decode("utf-8", "replace")


def _prose(comment: Tag) -> str | None:
    """Somebody's comment, in the character code that it names; None for a tag of numbers, or another code."""
    if comment.text() is None:
        return None
    code, text = _taken_apart(comment.raw)
    match code:
        case b"UNICODE":
            shown = _utf16(text, comment.order)
        case b"JIS" if comment.order == "<":  # some write the bytes of each pair the other way round there
            return None
        case b"JIS":
            shown = (b"\x1b$B" + text.partition(b"\0")[0]).decode("iso2022_jp", "replace")
        case _:
            shown = text.partition(b"\0")[0].decode("utf-8", "replace")
    return clean(shown.partition("\0")[0])


def _taken_apart(raw: bytes) -> tuple[bytes | None, bytes]:
    """The character code of a comment and its text; None for one without a code, which some write.

    Some fill the eight bytes of the code with blanks.
    """
    code = raw[:8].rstrip(b"\0 ")
    if len(raw) >= 8 and code in (b"ASCII", b"UNICODE", b"JIS", b""):
        return code, raw[8:]
    return None, raw


def _utf16(text: bytes, order: str) -> str:
    """UTF-16 in the block's byte order, unless it shows another: some programs write one order everywhere."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    even, odd = text[0::2].count(0), text[1::2].count(0)  # most letters have a zero before or behind them
    big_endian = even > odd if even != odd else order == ">"
    return text.decode("utf-16-be" if big_endian else "utf-16-le", "replace")


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
    return without_unknown(metadata)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)
    return clean(value) if isinstance(value, str) else value


def _place(block: _Block) -> dict[str, float]:
    """The position in the GPS directory, in signed degrees and metres; what is not known is not in it."""
    place = {
        "lat": _angle(block, "GPSLatitude", _LATITUDE, "NS", most=90),
        "lng": _angle(block, "GPSLongitude", _LONGITUDE, "EW", most=180),
        "alt": _altitude(block),
    }
    return {name: value for name, value in place.items() if value is not None}


def _angle(
    block: _Block, name: str, numbers: tuple[int, int], hemispheres: str, *, most: int
) -> float | None:
    """Signed degrees, to the millimetre; None where the angle or its hemisphere is not known.

    `hemispheres` are the first letters of the positive and the negative one. `North` is written too, and `n`.
    """
    angle: float | None = block.read_gps(name, numbers[1], lambda tag: _degrees(tag, most))
    reference = block.read_gps(f"{name}Ref", numbers[0], lambda tag: _letter(tag, hemispheres))
    if angle is None or reference is None:
        return None
    # A sign says the same as the letter, or one of them is wrong.
    if angle < 0 and reference == hemispheres[0]:
        return None
    return abs(angle) if reference == hemispheres[0] else -abs(angle)


def _letter(tag: Tag, letters: str) -> str | None:
    first = (tag.text() or "").strip()[:1].upper()
    return first if first and first in letters else None


def _degrees(tag: Tag, most: int) -> float | None:
    """Degrees from degrees, minutes and seconds, of which the last may be missing; None where they are no angle."""
    parts = tag.numbers(4)
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not 1 <= len(known) <= 3:
        return None
    total = sum(abs(part) / 60**power for power, part in enumerate(known))
    return round(math.copysign(total, min(known)), 8) if total <= most else None


def _altitude(block: _Block) -> float | None:
    """Metres above the sea, or below it: 1 and, since EXIF 3.0, 3. Without a reference they are above, says EXIF."""
    height = block.read_gps("GPSAltitude", _ALTITUDE[1], _fraction)
    below = block.read_gps("GPSAltitudeRef", _ALTITUDE[0], _sea_level)
    if height is None or (below is None and block.gps.has(_ALTITUDE[0])):
        return None
    return -abs(height) if below in (1, 3) else (height if height >= 0 else None)


def _sea_level(tag: Tag) -> int | None:
    return tag.whole() if len(tag.numbers(2)) == 1 and tag.whole() in range(4) else None
