"""What rclone answers about files: their sizes and checksums, and what lies in the way of an image."""

from dataclasses import dataclass
from typing import Any

from trapsync.errors import Refused, Unreachable
from trapsync.net import foreign_json

LARGEST = 1024 * 1024  # bytes of an answer


@dataclass(frozen=True, slots=True)
class Row:
    """What lies under a name: its size, and its checksum in lower case, "" where there is none."""

    size: int
    hash: str


class OtherBytes(Refused):
    """Something else lies under an image's name."""

    def __init__(self, name: str, row: Row) -> None:
        held = f"{row.size} bytes{row.hash and f', {row.hash}'}"
        super().__init__(
            f"another file is there under the name {name} ({held}): both are kept; move or rename that one, then retry"
        )
        self.name = name
        self.row = row


def unfit(name: str) -> Refused:
    """Why a name cannot be asked for: rclone takes a list of names, one in each line."""
    return Refused(f"its name {name!r} holds characters that rclone cannot be told; rename it on the card")


def read(output: bytes, hash_name: str) -> dict[str, Row]:
    """The rows of an answer, by name; an odd row is none. Raises Unreachable where it is no list."""
    try:
        content = foreign_json.decode(output, LARGEST)
    except ValueError as error:
        raise Unreachable(f"what rclone answered is no list of files: {error}") from None
    rows: dict[str, Row] = {}
    for one in content if isinstance(content, list) else ():
        path, size = (one.get("Path"), one.get("Size")) if isinstance(one, dict) else (None, None)
        if isinstance(path, str) and isinstance(size, int):
            hashes: Any = one.get("Hashes")
            value = hashes.get(hash_name) if isinstance(hashes, dict) else None
            rows[path] = Row(size, value.lower() if isinstance(value, str) else "")
    return rows
