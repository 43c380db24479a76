"""What is read from 300 made-up EXIF blocks, held against exiftool, which had no part in writing or reading them."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import drawings
import external_programs
import tiff_blocks
from tiff_blocks import BYTE, UNDEFINED, Written
from trapsync.jpeg import exif

_FILES = 300
# What exiftool calls them, where that is another name than EXIF's.
_NAMES = {
    "DateTime": "ModifyDate",
    "DateTimeDigitized": "CreateDate",
    "BodySerialNumber": "SerialNumber",
    "ISOSpeedRatings": "ISO",
    "ExposureBiasValue": "ExposureCompensation",
}
_PLACE = {"lat": "GPSLatitude", "lng": "GPSLongitude", "alt": "GPSAltitude"}
_TEXTS = tiff_blocks.ZEROTH_TEXTS | tiff_blocks.EXIF_TEXTS | tiff_blocks.USER_COMMENT
_NUMBERS = tiff_blocks.ZEROTH_WHOLES | tiff_blocks.EXIF_WHOLES | tiff_blocks.EXIF_NUMBERS


def exiftools_view(folder: Path) -> dict[str, dict[str, str]]:
    """All files in one process: by file name, the tags under `directory:name`. Numbers are texts as well here."""
    command = ["exiftool", "-config", "", "-json", "-n", "-G1", "-EXIF:all"]
    command += [f"-Composite:{name}" for name in _PLACE.values()]
    run = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, timeout=120)
    rows = json.loads(run.stdout, parse_int=str, parse_float=str)
    return {Path(row["SourceFile"]).name: row for row in rows}


def theirs(row: dict[str, str], written: Written, name: str) -> str | None:
    """A tag's value as exiftool has it, as a text in our spelling: one line, up to the first NUL."""
    own, other = ("IFD0", "ExifIFD") if name in tiff_blocks.IN_ZEROTH else ("ExifIFD", "IFD0")
    called = _NAMES.get(name, name)
    value = row.get(f"{own}:{called}", row.get(f"{other}:{called}"))
    if value is None or name in _NUMBERS:
        return value and value.split()[0]  # of several, we read the first
    kind, count = written.kinds[name]
    is_bytes = kind == BYTE or (kind == UNDEFINED and count == 1)
    if is_bytes and name not in ("Copyright", "UserComment") and re.fullmatch(r"\d+( \d+)*", value):
        value = bytes(map(int, value.split())).decode("utf-8", "replace")
    if name == "Copyright":  # of two texts with a NUL between them, it makes two lines
        value = value.partition("\n")[0]
    return value.partition("\0")[0].strip()


def place_of(row: dict[str, str], name: str) -> str | None:
    """The position with its sign; None where the reference says no hemisphere, for which exiftool takes north or east."""
    called = _PLACE[name]
    if name == "alt":  # above the sea where there is no reference: exiftool leaves that to others
        return row.get("Composite:GPSAltitude", row.get("GPS:GPSAltitude"))
    hemisphere = row.get(f"GPS:{called}Ref", "").strip()[:1].upper()
    known = "NS" if name == "lat" else "EW"
    return row.get(f"Composite:{called}") if hemisphere and hemisphere in known else None


def seen(row: dict[str, str], written: Written) -> dict[str, str | None]:
    """All that it says of the tags that we read."""
    tags = {name: theirs(row, written, name) for name in (*_TEXTS, *_NUMBERS) if name in written.kinds}
    return tags | {name: place_of(row, name) for name in _PLACE}


def is_same(ours: Any, other: str | None) -> bool:
    if isinstance(ours, str) or other in (None, ""):
        return bool(ours == other)
    try:
        return bool(float(other or "nan") == pytest.approx(ours, rel=1e-6, abs=1e-8))
    except ValueError:
        return False


def test_no_value_of_three_hundred_made_up_files_differs_from_exiftools(tmp_path: Path) -> None:
    external_programs.require("exiftool", shows="what is read, held against another reader")
    blocks = {f"{seed:03d}": tiff_blocks.made_up(seed) for seed in range(_FILES)}
    for file, written in blocks.items():
        (tmp_path / f"{file}.jpg").write_bytes(tiff_blocks.inserted(written.app1, drawings.plain()))
        (tmp_path / f"{file}-sound.jpg").write_bytes(tiff_blocks.inserted(written.sound, drawings.plain()))
    rows = exiftools_view(tmp_path)
    assert len(rows) == 2 * _FILES

    wrong, missing, same = [], [], Counter[tuple[str, str]]()
    for file, written in blocks.items():
        ours, _ = exif.read(written.app1)
        # What is not broken must be what stands there: exiftool gives up whole directories that we read.
        sound, damaged = (seen(rows[name], written) for name in (f"{file}-sound.jpg", f"{file}.jpg"))
        for name in sound.keys() | (ours.keys() & damaged.keys()):
            is_broken = _PLACE.get(name, name) in written.broken
            expected = (damaged if is_broken else sound).get(name)
            if name in ours and is_same(ours[name], expected):
                same[name, written.order] += not is_broken
            elif name in ours:
                wrong.append(f"{file} {name}: {ours[name]!r}, exiftool {expected!r}")
            elif expected and not is_broken:
                missing.append(f"{file} {name}: exiftool {expected!r}")
    assert wrong == []
    assert missing == []

    names = {*_TEXTS, *_NUMBERS, *_PLACE}
    assert set(same) == {(name, order) for name in names for order in "<>"}
    assert {name for written in blocks.values() for name in written.broken} >= names - _PLACE.keys()
    for written_so in ("closed", "open"):
        texts = {(name, one.order) for one in blocks.values() for name in getattr(one, written_so)}
        assert texts == {(name, order) for name in _TEXTS.keys() - {"UserComment"} for order in "<>"}
    assert sum(same.values()) > 5000
