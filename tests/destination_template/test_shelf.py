"""What every destination must do, shown for this one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance import Card, Killed, entries_in_the_way
from memory_context import connected
from trapsync.destinations import Destination
from trapsync.image import Image


class Site:
    """The other end, as the tests handle it: here a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def tables(self) -> dict[str, dict[str, Any]]:
        """What stands in the settings of a trap that delivers there."""
        return {"far": {"kind": "shelf", "path": str(self.folder)}}

    def connect(self) -> Destination:
        """A new destination that delivers there."""
        return connected("far", self.tables()["far"])

    def stored(self) -> dict[str, bytes]:
        """All that is there by name, half-written files included."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Out of reach, as long as the block lasts."""
        away = self.folder.rename(self.folder.with_name("away"))
        yield
        away.rename(self.folder)


class TestShelf(Killed):
    """The promises of all destinations; those of a server are in `OverHttp`."""

    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        """A new one for each test."""
        return Site(tmp_path / "shelf")

    def strange_entries(self, site: Site, card: Card, image: Image) -> Iterator[str]:
        """One odd thing after another, put where this image lies."""
        yield from entries_in_the_way(site.folder / image.name)
