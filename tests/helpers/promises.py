"""The promises of the program, held against what lies on disks: one place for whoever kills it, starves it or lives with it.

All of it is looked at from outside, as files and tables are; the program is asked nothing.

::

    promises.hub_holds(hub.store, expected)           # each image once, byte for byte, under its name
    promises.copies_are_whole(stick, expected)        # what is there is one of them, byte for byte
    promises.catalog_is_sound(state / "catalog.sqlite")
    promises.nothing_is_left_over(spool, stick, hub)
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from trapsync.catalog import integrity
from trapsync.hub.store import Store, by_ranges


def images_in(folder: Path) -> set[Path]:
    """The images under their final names: no temporary file, and none in a hidden folder such as the quarantine."""
    paths = (Path(where, name) for where, _, names in os.walk(folder) for name in names)
    return {path for path in paths if path.suffix == ".jpg" and not _is_hidden(path.relative_to(folder))}


def digests_in(folder: Path) -> dict[str, str]:
    """File name -> md5 of the images there, read from where they lie; no two of them have one name."""
    paths = images_in(folder)
    found = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in paths}
    assert len(found) == len(paths), "two files of one name"
    return found


def hub_holds(store: Store, expected: Mapping[str, str], but: Collection[str] = ()) -> dict[str, str]:
    """The hub has each of these (file name -> md5) once, whole, under its name, and each of its rows is true.

    `but`: devices whose images do not count. Returns all that it has of the others, which may be more.
    """
    rows = [row for row in store.find(by_ranges([("%", "0000", "9999")])) if row["device"] not in but]
    held = {store.path(row).name: row["md5"] for row in rows}
    assert len(held) == len(rows), "the hub has an image twice"
    assert held.items() >= expected.items(), "the hub lacks an image, or has other bytes"
    on_disk = {store.path(row).name: hashlib.md5(store.path(row).read_bytes()).hexdigest() for row in rows}
    assert on_disk == held, "a row of the hub is not true"
    return held


def copies_are_whole(folder: Path, expected: Mapping[str, str]) -> dict[str, str]:
    """What a folder holds is of these (file name -> md5), byte for byte; returns what it holds."""
    held = digests_in(folder)
    assert held.items() <= expected.items(), f"{folder} holds what nobody took, or other bytes"
    return held


def catalog_is_sound(path: Path) -> None:
    """A catalog passes its own full check."""
    assert integrity.check_file(path) is None


def nothing_is_left_over(*folders: Path) -> None:
    """No temporary file is left in any of these folders."""
    left = [path for folder in folders for path in folder.rglob(".*.part")]
    assert left == []


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
