"""Parse an EXIF block safely with piexif, and write and read our own note in it, the evidence of a time."""

import re
import struct
from typing import Any

from trapsync.image import Evidence
from trapsync.jpeg.structure import EXIF_SIGNATURE

LONGEST_TEXT = 4096  # of a text from a file: longer ones are cut, or not evaluated
# The errors of reading an EXIF block that anybody may have written.
UNREADABLE = (ValueError, struct.error, ArithmeticError, LookupError, TypeError, MemoryError)


def load(app1: bytes, *, key_is_name: bool = True) -> dict[str, dict[Any, Any]]:
    """The tags of an APP1 payload by block (`0th`, `Exif`, `GPS` …), under their names or numbers.

    Whatever is wrong with it is one of `UNREADABLE`.
    """
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

    piexif believes any count: one flipped bit makes it build four billion numbers (measured: 6 s, 570 MB). Twice the
    block is allowed, since values may overlap, and eight directories, since EXIF has at most five.
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


def clean(text: str) -> str:
    """Remove control characters and surrounding blanks from a text, and limit its length."""
    return "".join(one if one.isprintable() else " " for one in text[:LONGEST_TEXT]).strip()


_EVIDENCE = re.compile(
    rb"trapsync 1 boot=([0-9A-Za-z-]*) mono=(\d{1,15}\.\d{3}) wall=(-?\d{1,15}\.\d{3}) trusted=([01])"
    rb"(?: offset=(-?\d{1,15}\.\d{3}))?"
)
# Seconds: what `evidence_text` can have noted, so that each sum of them is a date.
_LONGEST_BOOT, _LAST_MOMENT = 1e10, 4e10


def evidence_text(evidence: Evidence) -> bytes:
    """Format the note about the time of a capture, as it stands in `MakerNote`."""
    boot_id = re.sub(r"[^0-9A-Za-z-]", "", evidence.boot_id)[:64]
    times = f"mono={evidence.monotonic:.3f} wall={evidence.wall:.3f}"
    offset = "" if evidence.offset is None else f" offset={evidence.offset:.3f}"
    return f"trapsync 1 boot={boot_id} {times} trusted={int(evidence.trusted)}{offset}".encode("ascii")


def evidence_in(note: object) -> Evidence | None:
    """Parse what `evidence_text` wrote; None for any other note."""
    match = _EVIDENCE.fullmatch(note) if isinstance(note, bytes) else None
    if match is None:
        return None
    boot_id, monotonic, wall, trusted, offset = match.groups()
    times = float(monotonic), float(wall)
    if times[0] > _LONGEST_BOOT or not all(abs(at) < _LAST_MOMENT for at in (times[1], float(offset or 0))):
        return None  # beyond the calendar: this program never noted it
    return Evidence(boot_id.decode(), *times, trusted == b"1", float(offset) if offset else None)
