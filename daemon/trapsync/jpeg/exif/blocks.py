"""What reading and writing share: texts that can be shown, and our own note in a block, the evidence of a time."""

import re
import struct

from trapsync.image import UNWRITABLE, Evidence

LONGEST_TEXT = 4096  # of a text from a file: longer ones are cut, or not evaluated
# The errors of reading an EXIF block that anybody may have written.
UNREADABLE = (ValueError, struct.error, ArithmeticError, LookupError, TypeError, MemoryError)


def clean(text: str) -> str:
    """Remove control characters and surrounding blanks from a text, and limit its length."""
    return UNWRITABLE.sub(" ", text[:LONGEST_TEXT]).strip()


_DEPLOYMENT = re.compile(r"(?:.*, )?deployment ([0-9a-f]{8}-[0-9A-Za-z-]{1,60})", re.ASCII)


def deployment_text(deployment_id: str) -> bytes:
    """How a description ends of which `deployment_in` finds the id."""
    return f", deployment {deployment_id}".encode("ascii", "replace")


def deployment_in(description: str) -> str | None:
    """The id of a deployment at the end of a description; None where there is none."""
    match = _DEPLOYMENT.fullmatch(description)
    return match[1] if match else None


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
