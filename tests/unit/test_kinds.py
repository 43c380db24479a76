"""Kinds of destinations that packages installed beside the program add."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

import pytest

from conformance import Card, Conformance, entries_in_the_way
from fake_time import FakeTime
from memory_context import SOURCE, connected
from trapsync import destinations
from trapsync.destinations import Destination, kinds
from trapsync.doctor.network import destinations as look
from trapsync.errors import SettingsError
from trapsync.image import Image
from trapsync.settings.schema import Settings

Install = Callable[..., Path]
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put packages into a folder of the path as an installer does: a module, and a folder of metadata beside it."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def add(kind: str, module: str = "", *, package: str = "toy", code: str = "") -> Path:
        module = module or f"{package}_destination"
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{kinds.GROUP}]\n{kind} = {module}\n")
        (folder / f"{module}.py").write_text(code)
        invalidate_caches()
        return folder

    before = set(sys.modules)
    yield add
    for name in set(sys.modules) - before:
        if "destination" in name and not name.startswith("trapsync"):
            del sys.modules[name]


class Shelf:
    """A site: a folder, and a package that delivers there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def connect(self) -> Destination:
        """By the settings alone, as the daemon does."""
        return connected("shelf", {"kind": "shelf", "path": str(self.folder)})

    def stored(self) -> dict[str, bytes]:
        """All that is there, half-written files included."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    @contextmanager
    def broken(self) -> Iterator[None]:
        """The folder is away."""
        away = self.folder.rename(self.folder.with_name("away"))
        yield
        away.rename(self.folder)


class TestAdded(Conformance):
    """The promises that all destinations make, by the template of one that is not part of the program."""

    @pytest.fixture
    def site(self, install: Install, tmp_path: Path) -> Shelf:
        """It is installed as a package `toy`."""
        code = (HELPERS / "example_destination.py").read_text()
        install("shelf", code=code)
        return Shelf(tmp_path / "shelf")

    def strange_entries(self, site: Shelf, card: Card, image: Image) -> Iterator[str]:
        """Where its copy lies."""
        yield from entries_in_the_way(site.folder / image.name)


def test_listing_the_kinds_imports_none(install: Install) -> None:
    install("shelf", code="raise RuntimeError('imported')")
    assert kinds.names() == ["directory", "imagekit", "rclone", "s3", "scale", "shelf", "skylab", "stickypi"]
    with pytest.raises(SettingsError, match=r"must be one of: .*shelf"):
        destinations.check("one", {"kind": "shelve"}, SOURCE)
    assert "toy_destination" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('a long\\nstory')", "RuntimeError: a long story"),
        ("import there_is_no_such_module", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
        ("", "has no attribute 'Settings'"),
        ("Settings, connect = int, print", "none of a destination"),
    ],
)
def test_a_broken_package_is_one_line_and_costs_only_itself(
    install: Install, tmp_path: Path, code: str, reason: str
) -> None:
    install("shelf", code=code)
    with pytest.raises(SettingsError, match=reason) as caught:
        destinations.check("one", {"kind": "shelf"}, SOURCE)
    assert str(caught.value).startswith("trapsync.toml: destinations.one.kind = 'shelf': the package toy 1.0")
    assert "\n" not in str(caught.value)
    assert destinations.check("other", {"kind": "directory", "path": str(tmp_path)}, SOURCE)


def test_two_packages_of_one_kind_are_one_line(install: Install) -> None:
    install("shelf", package="toy")
    install("shelf", package="game")
    with pytest.raises(
        SettingsError, match=r"the package game 1\.0 and the package toy 1\.0 both add this kind"
    ):
        destinations.check("one", {"kind": "shelf"}, SOURCE)


def test_a_package_does_not_take_the_place_of_a_kind_that_ships(install: Install, tmp_path: Path) -> None:
    install("directory", code="raise RuntimeError('imported')")
    assert destinations.check("one", {"kind": "directory", "path": str(tmp_path)}, SOURCE)
    assert "toy_destination" not in sys.modules
    warnings = [found.text for found in look(Settings(), FakeTime(), FakeTime().sleep, SOURCE)]
    assert (
        "directory of the package toy 1.0 has the name of one that ships, which is used instead" in warnings
    )
