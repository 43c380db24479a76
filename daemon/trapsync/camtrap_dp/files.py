"""The pictures of a package: copied or linked into it, found by an address, or not in it.

They lie in its folder `media`, as in the spool: by device and date.
"""

import csv
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from trapsync.camtrap_dp.records import Picture
from trapsync.errors import StorageError
from trapsync.files import durable, failpoint

FOLDER = "media"
_PIECE = 1 << 20
# What the standard takes as a path: it begins with none of . / ~ and holds no two dots.
_VALID = re.compile(r"(?![./~])(?:(?!\.\.).)+", re.DOTALL)

Way = Literal["none", "copy", "link"]


def is_path(text: str) -> bool:
    """Whether the standard takes this as the path or the address of a picture."""
    return bool(_VALID.fullmatch(text))


@dataclass(frozen=True, slots=True)
class Where:
    """Where a picture is said to be: a path in the package, or an address; and whether it is there."""

    path: str
    is_there: bool


class Files:
    """The pictures that are to be put into one package. They are noted first, and brought at the end.

    `way`: whether they are copied, or linked (by a hard link, or else a symbolic one). `base` is an address in place of
    the folder; `by_address`: each picture has its own.
    """

    def __init__(self, way: Way = "none", *, base: str = "", by_address: bool = False) -> None:
        self._way = way
        self._base = base.rstrip("/")
        self._by_address = by_address
        self.missing = 0

    def where(self, picture: Picture) -> Where:
        """Where this picture is to be found by who reads the package."""
        inside = Where(f"{FOLDER}/{picture.path}", False)
        if self._base:
            return Where(f"{self._base}/{quote(picture.path)}", True)
        if self._by_address:
            address = picture.address
            return Where(address, True) if address and is_path(address) else self._not_there(inside)
        if self._way == "none":
            return inside
        return Where(inside.path, True) if picture.source else self._not_there(inside)

    def _not_there(self, inside: Where) -> Where:
        self.missing += 1
        return inside

    def wants(self, picture: Picture) -> bool:
        """Whether this picture is to be brought into the package."""
        return self._way != "none" and picture.source is not None

    def bring(self, orders: "Orders", package: Path) -> None:
        """Bring what was ordered into the package. What is not there any more, or is not what it was, is missing."""
        folders: set[Path] = set()
        for source, path, digest in orders:
            target = package / FOLDER / path
            if target.parent not in folders:
                durable.make_folder(target.parent)
                folders.add(target.parent)
            bring = _copy if self._way == "copy" else _link
            if target.exists() or not bring(source, target, digest):
                self.missing += 1
        for folder in folders:
            durable.flush_folder(folder)
        failpoint.hit("camtrap-dp: pictures brought")


class Orders:
    """Which files are to be brought: source, path in the package, digest. They wait on the disk, however many."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(  # noqa: SIM115 - it lives as long as this
            "w+", encoding="utf-8", errors="surrogateescape", newline="", dir=folder
        )
        self._writer = csv.writer(self._file)

    def add(self, source: Path, path: str, digest: str) -> None:
        """Note one."""
        self._writer.writerow((source, path, digest))

    def __iter__(self) -> Iterator[tuple[Path, str, str]]:
        self._file.seek(0)
        for source, path, digest in csv.reader(self._file):
            yield Path(source), path, digest

    def close(self) -> None:
        """Forget them."""
        self._file.close()


def _copy(source: Path, target: Path, digest: str) -> bool:
    """Copy a file, flushed; False, and no copy, where it is not there or is not what it was."""
    kind, _, known = digest.partition(":")
    found = hashlib.new(kind or "sha256", usedforsecurity=False)
    try:
        descriptor = durable.open_plain(source, os.O_RDONLY)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file, target.open("xb") as copy:
        while piece := _read(file, source):
            found.update(piece)
            copy.write(piece)
        copy.flush()
        os.fsync(copy.fileno())
    failpoint.hit("camtrap-dp: copied")
    if known and found.hexdigest() != known:
        target.unlink()
        return False
    return True


def _read(file: object, source: Path) -> bytes:
    try:
        return file.read(_PIECE)  # type: ignore[attr-defined, no-any-return]
    except OSError as error:
        raise StorageError(durable.explain(error, source)) from error


def _link(source: Path, target: Path, _digest: str) -> bool:
    """Give a file a second name, or lead to it by a link where that cannot be; False where it is no file."""
    if source.is_symlink() or not source.is_file():
        return False
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without such links
        target.symlink_to(source.absolute())
    failpoint.hit("camtrap-dp: linked")
    return True


def clear(folder: Path) -> None:
    """Remove what an export that was killed has left."""
    shutil.rmtree(folder)
    failpoint.hit("camtrap-dp: left-over removed")
