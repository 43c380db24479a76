"""Folders that lie in one another are refused: by `settings check`, at each start, and by the hub."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

import daemon_process
from fake_time import FakeTime
from memory_context import context
from trapsync.cli import cli
from trapsync.destinations import directory
from trapsync.errors import SettingsError
from trapsync.files import destination_mark
from trapsync.hub.server import serve
from trapsync.remote.in_force import load
from trapsync.runtime import local_actions
from trapsync.runtime.service import Service
from trapsync.settings.hub import Hub
from trapsync.settings.schema import Storage
from trapsync.spool import overlap, spool_mark

SOURCE = Path("trapsync.toml")


def stick(name: str, path: Path, **more: Any) -> overlap.Destination:
    settings = directory.Settings(kind="directory", path=path, **more)
    return directory.connect(name, settings, context())


def require(spool: Path, state: Path, *destinations: overlap.Destination) -> None:
    overlap.require(Storage(spool=spool, state=state), destinations, SOURCE)


@contextmanager
def mounted(source: Path, point: Path) -> Iterator[None]:
    """The same folder at another place; needs root."""
    point.mkdir(parents=True)
    command = ["mount", "--bind", str(source), str(point)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a filesystem")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_folders_beside_one_another_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool-2").mkdir()
    two = stick("a", tmp_path / "spool-2"), stick("b", tmp_path / "not" / "there")
    require(tmp_path / "spool", tmp_path / "state", *two)


NESTED = {
    "state in spool": ("data", "data/state", "stick", "storage.state = .* lies in storage.spool = "),
    "spool in state": ("state/spool", "state", "stick", "storage.spool = .* lies in storage.state = "),
    "one folder": ("data", "data", "stick", "storage.state = .* is the same folder as storage.spool = "),
    "stick in spool": ("data", "state", "data/a/b", "destinations.home.path = .* lies in storage.spool = "),
    "spool in stick": ("data/spool", "state", "data", "storage.spool = .* lies in destinations.home.path = "),
    "stick in state": ("data", "state", "state/results", "destinations.home.path = .* lies in storage.state = "),
    "stick is spool": ("data", "state", "data/../data", "destinations.home.path = .* is the same folder as"),
}  # fmt: skip


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("case", NESTED)
def test_folders_in_one_another_are_refused_in_one_line(tmp_path: Path, case: str, is_there: bool) -> None:
    *paths, says = NESTED[case]
    spool, state, home = (tmp_path / path for path in paths)
    for folder in (spool, state, home) if is_there else ():
        folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(SettingsError, match=f"^trapsync.toml: {says}") as refusal:
        require(spool, state, stick("home", home))
    assert len(str(refusal.value).splitlines()) == 1


def test_a_link_does_not_hide_that_folders_lie_in_one_another(tmp_path: Path) -> None:
    (tmp_path / "spool" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "spool" / "below")
    for path in (tmp_path / "link", tmp_path / "link" / "not-there-yet"):
        with pytest.raises(SettingsError, match=r"lies in storage\.spool"):
            require(tmp_path / "spool", tmp_path / "state", stick("home", path))


@pytest.mark.parametrize(
    ("source", "path"),
    [("data", "m"), ("data/spool", "m"), ("data/spool/below", "m"), ("data/spool", "m/not/there")],
)
def test_a_bind_mount_does_not_hide_that_folders_lie_in_one_another(
    tmp_path: Path, source: str, path: str
) -> None:
    (tmp_path / "data" / "spool" / "below").mkdir(parents=True)
    home = stick("home", tmp_path / path)
    with mounted(tmp_path / source, tmp_path / "m"), pytest.raises(SettingsError):
        require(tmp_path / "data" / "spool", tmp_path / "state", home)


def test_two_destinations_of_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nas")
    with pytest.raises(SettingsError, match=r"destinations\.b\.path .* same folder as destinations\.a\.path"):
        require(
            tmp_path / "spool",
            tmp_path / "state",
            stick("a", tmp_path / "nas"),
            stick("b", tmp_path / "link"),
        )


def test_two_destinations_of_one_mark_are_refused(tmp_path: Path) -> None:
    both = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / destination_mark.NAME).touch()
        both.append(stick(name, tmp_path / name))
    require(tmp_path / "spool", tmp_path / "state", *both)
    cast("directory.Directory", both[0]).place()
    (tmp_path / "b" / destination_mark.NAME).write_bytes(
        (tmp_path / "a" / destination_mark.NAME).read_bytes()
    )
    with pytest.raises(SettingsError, match=r"have one mark and are one place.*truncate"):
        require(tmp_path / "spool", tmp_path / "state", *both)
    (tmp_path / "b" / destination_mark.NAME).write_bytes(b"")
    require(tmp_path / "spool", tmp_path / "state", *both)


class Server:
    """A destination by what the check asks of it."""

    def __init__(self, name: str, identity: str, **settings: Any) -> None:
        self.name, self.identity = name, identity
        self.settings = type("Settings", (), settings)()


def test_two_destinations_of_one_account_are_refused_unless_they_keep_other_things_there(
    tmp_path: Path,
) -> None:
    one, again = (Server(name, "stickypi https://a, as trap") for name in ("one", "again"))
    with pytest.raises(SettingsError, match=r"destinations\.one and destinations\.again are one place"):
        require(tmp_path / "spool", tmp_path / "state", one, again)
    require(tmp_path / "spool", tmp_path / "state", one, Server("again", "stickypi https://b, as trap"))
    small = Server("small", one.identity, content="thumbnail", folder="/small")
    require(tmp_path / "spool", tmp_path / "state", Server("one", one.identity, content="original"), small)


@pytest.mark.parametrize("inside", ["spool", "state", "nas"])
def test_a_trap_keeps_nothing_in_a_hubs_folder(tmp_path: Path, inside: str) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / overlap.HUB_SIGN).touch()
    places = {name: tmp_path / ("hub" if name == inside else "") / name for name in ("spool", "state", "nas")}
    with pytest.raises(SettingsError, match=r"lies in a hub \("):
        require(places["spool"], places["state"], stick("home", places["nas"]))


SIGNS: dict[str, Callable[[Path], object]] = {
    destination_mark.NAME: Path.touch,
    "catalog.sqlite": Path.touch,
    ".quarantine": Path.mkdir,
    spool_mark.MARK: Path.touch,
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("below", ["", "hub", "a/b/hub"])
def test_a_hub_does_not_start_in_a_folder_of_a_traps(tmp_path: Path, sign: str, below: str) -> None:
    SIGNS[sign](tmp_path / sign)
    with pytest.raises(SettingsError, match="a hub's folder must not be or lie in a"):
        serve(Hub(folder=tmp_path / below, port=0))
    assert [path.name for path in tmp_path.iterdir()] == [sign]


# ── Where it is asked ────────────────────────────────────────────────────────────────────────────────


def nested(folder: Path) -> daemon_process.Daemon:
    """A trap that delivers into its own spool."""
    (folder / "spool").mkdir(parents=True)
    (folder / "spool" / destination_mark.NAME).touch()
    return daemon_process.Daemon(folder, '[destinations.home]\nkind = "directory"\npath = "spool"\n')


def call(trap: daemon_process.Daemon, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(trap.config), *words], standalone_mode=False)


def test_settings_check_refuses_folders_in_one_another(tmp_path: Path) -> None:
    result = call(nested(tmp_path), "settings", "check")
    assert re.match(
        ".*destinations.home.path = .* is the same folder as storage.spool", str(result.exception)
    )


def test_settings_check_needs_no_secret_to_see_that_folders_lie_in_one_another(tmp_path: Path) -> None:
    trap = nested(tmp_path)
    with trap.config.open("a") as file:
        file.write(daemon_process.HUB.format(url="https://hub.example", user="trap"))
    assert not (tmp_path / "password").exists()
    assert "same folder" in str(call(trap, "settings", "check").exception)


def test_the_daemon_does_not_start_with_folders_in_one_another(tmp_path: Path) -> None:
    trap = nested(tmp_path)
    with pytest.raises(SettingsError, match="is the same folder as"):
        Service(load(trap.config))
    assert [path.name for path in tmp_path.iterdir()] == ["spool", "trapsync.toml"]


def test_a_command_in_the_daemons_place_does_not_start_with_folders_in_one_another(tmp_path: Path) -> None:
    trap = nested(tmp_path)
    with (
        pytest.raises(SettingsError, match="is the same folder as"),
        local_actions.opened(load(trap.config).settings, trap.config, FakeTime(), FakeTime().sleep),
    ):
        raise AssertionError("it started")
