"""Kinds of destinations that packages installed beside the program add."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import documents
from conformance import Conformance
from fake_time import FakeTime
from memory_context import SOURCE
from trapsync import destinations
from trapsync.destinations import kinds
from trapsync.doctor.network import destinations as look
from trapsync.errors import SettingsError
from trapsync.settings.schema import Settings

Install = Callable[..., Path]
PAGE = "daemon/trapsync/destinations/README.md"


def described(folder: Path, package: str, kind: str, module: str) -> None:
    """Write what an installer writes beside a package: its name, and what it adds."""
    metadata = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{kinds.GROUP}]\n{kind} = {module}\n")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put packages into a folder of the path as an installer does: a module, and a folder of metadata beside it."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def add(kind: str, module: str = "", *, package: str = "toy", code: str = "") -> Path:
        module = module or f"{package}_destination"
        described(folder, package, kind, module)
        (folder / f"{module}.py").write_text(code)
        invalidate_caches()
        return folder

    before = set(sys.modules)
    yield add
    for name in set(sys.modules) - before:
        if "destination" in name and not name.startswith("trapsync"):
            del sys.modules[name]


def test_who_follows_the_page_has_a_destination_of_ones_own_that_passes(tmp_path: Path) -> None:
    """Every command of the page as it is written, but for those that need a network."""
    (block,) = (one for one in documents.blocks(PAGE) if one.language == "sh")
    clone, *copy, _environment, _packages, tests = block.commands
    assert clone.startswith("git clone ")
    (tmp_path / "trapsync").symlink_to(documents.ROOT)
    for command in copy:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)

    package = tmp_path / "trapsync-attic"
    assert "shelf" not in "".join(path.read_text().lower() for path in package.iterdir())
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    ((kind, module),) = project["entry-points"][kinds.GROUP].items()
    assert (kind, project["name"]) == ("attic", "trapsync-attic")
    described(package, project["name"], kind, module)
    python, rest = tests.split(" ", 1)
    assert python.endswith("/.venv/bin/python")
    paths = {"PYTHONPATH": os.pathsep.join([str(package), *filter(None, sys.path)])}
    done = subprocess.run(
        f"{sys.executable} {rest} -p no:cacheprovider",
        shell=True,
        cwd=tmp_path,
        env=os.environ | paths,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed[, ]", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 20


NO_FAILPOINT = """
from trapsync.settings.schema import Destination as Settings

def connect(name, settings, context):
    settings.path.write_text("")
"""


def test_a_package_without_a_failpoint_is_told_what_to_write_and_where(install: Install) -> None:
    install("shelf", code=NO_FAILPOINT)
    one = SimpleNamespace(settings=SimpleNamespace(kind="shelf"))
    told = r'toy_destination\.py: connect\(\) writes .* put failpoint\.hit\("shelf: what happened"\) behind'
    with pytest.raises(pytest.fail.Exception, match=told):
        Conformance().test_a_failpoint_stands_beside_whatever_changes_something_that_lasts(cast("Any", one))


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
