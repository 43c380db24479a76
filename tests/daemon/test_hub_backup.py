"""A hub's backup: whole whenever it is cut, and the way back while traps go on."""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import daemon_process
import drawings
import hub_server
from hub_server import RunningHub
from trapsync.cli import cli
from trapsync.errors import StorageError
from trapsync.files import failpoint
from trapsync.hub import backup
from trapsync.hub.app import Hub
from trapsync.hub.store import place_of

TAKEN = drawings.TAKEN


def name_of(second: int) -> str:
    return f"{drawings.DEVICE}.{TAKEN + timedelta(seconds=second):%Y-%m-%d_%H-%M-%S}.jpg"


def picture(second: int) -> bytes:
    return drawings.trap(seed=second + 1, taken=TAKEN + timedelta(seconds=second))


def copy(tmp_path: Path, *, verify: bool = False) -> backup.Outcome:
    return backup.copy(tmp_path / "hub", tmp_path / "copy", lambda _: None, verify=verify)


def say(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["hub", "backup", *map(str, words)], standalone_mode=False)


def held(folder: Path) -> dict[str, str]:
    """The images that a backup has rows of, with their md5: each lies there, whole."""
    with closing(sqlite3.connect(folder / "hub.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM images")]
    for row in rows:
        assert hashlib.md5((folder / "images" / place_of(row)).read_bytes()).hexdigest() == row["md5"]
    return {place_of(row).name: row["md5"] for row in rows}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path / "hub") as running:
        for second in range(4):
            assert running.upload(name_of(second), picture(second)).status_code == 200
        yield running


def test_a_backup_of_a_running_hub_has_each_image_and_the_next_one_copies_what_is_new(
    hub: RunningHub, tmp_path: Path
) -> None:
    said = say("--folder", tmp_path / "hub", tmp_path / "copy")
    assert said.stdout.startswith(f"{tmp_path / 'copy'}: 4 images, 4 of them new (")
    assert said.stdout.endswith("; none could not be copied\n")
    assert said.stderr.startswith(f"{tmp_path / 'copy'} is on the same disk as {tmp_path / 'hub'}: ")
    assert held(tmp_path / "copy") == hub.stored()
    hub.upload(name_of(9), picture(9))
    outcome = copy(tmp_path)
    assert (outcome.images, outcome.new, outcome.problems) == (5, 1, [])
    assert held(tmp_path / "copy") == hub.stored()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "copy" / "hub.sqlite").stat().st_mode & 0o777 == 0o600


def test_other_versions_of_an_image_are_in_the_backup(hub: RunningHub, tmp_path: Path) -> None:
    assert hub.upload(name_of(0), picture(0)[:-2] + b"\0\xff\xd9").status_code == 500
    copy(tmp_path)
    kept = [path.relative_to(tmp_path / "hub") for path in (tmp_path / "hub" / "conflicts").rglob("*.jpg")]
    assert len(kept) == 1
    assert (tmp_path / "copy" / kept[0]).read_bytes() == (tmp_path / "hub" / kept[0]).read_bytes()


@pytest.mark.parametrize("name", ["backup: database copied", "backup: image copied", "backup: complete"])
def test_a_backup_that_is_cut_anywhere_is_the_one_before_or_the_new_one(
    hub: RunningHub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(tmp_path)
    before = held(tmp_path / "copy")
    hub.upload(name_of(9), picture(9))

    def die(at: str) -> None:
        if at == name:
            raise KeyboardInterrupt

    monkeypatch.setattr(failpoint, "hit", die)
    with suppress(KeyboardInterrupt):
        copy(tmp_path)
    monkeypatch.undo()
    assert held(tmp_path / "copy") in (before, hub.stored())
    assert copy(tmp_path).problems == []
    assert held(tmp_path / "copy") == hub.stored()


def test_a_damaged_image_is_told_and_a_good_copy_of_it_is_not_replaced(
    hub: RunningHub, tmp_path: Path
) -> None:
    copy(tmp_path)
    (victim,) = (tmp_path / "hub" / "images").rglob(name_of(1))
    victim.write_bytes(b"rotten")
    assert copy(tmp_path, verify=True).problems == []
    assert held(tmp_path / "copy") == hub.stored() | {name_of(1): hashlib.md5(picture(1)).hexdigest()}
    shutil.rmtree(tmp_path / "copy")
    said = say("--folder", tmp_path / "hub", tmp_path / "copy")
    assert said.return_value == 1
    assert f"{name_of(1)}: is damaged: its md5 is" in said.output


def test_a_copy_that_was_damaged_is_found_by_verify_and_made_good(hub: RunningHub, tmp_path: Path) -> None:
    copy(tmp_path)
    (victim,) = (tmp_path / "copy" / "images").rglob(name_of(1))
    victim.write_bytes(b"rotten")
    assert copy(tmp_path).new == 0
    assert copy(tmp_path, verify=True).new == 1
    assert held(tmp_path / "copy") == hub.stored()


def test_an_image_that_the_hubs_disk_does_not_give_costs_itself(hub: RunningHub, tmp_path: Path) -> None:
    (victim,) = (tmp_path / "hub" / "images").rglob(name_of(1))
    victim.unlink()
    victim.mkdir()  # which cannot be read, by root either
    outcome = copy(tmp_path)
    assert (outcome.images, outcome.new) == (4, 3)
    assert [one.rpartition("/")[2] for one in outcome.problems] == [
        f"{name_of(1)}: cannot be read: Is a directory"
    ]
    assert (tmp_path / "copy" / "hub.sqlite").exists()
    assert list((tmp_path / "copy").rglob("*.part")) == []


def test_another_image_under_the_name_of_a_deleted_one_is_copied_and_that_one_stays(
    hub: RunningHub, tmp_path: Path
) -> None:
    copy(tmp_path)
    hub.hub.store.delete([(drawings.DEVICE, f"{TAKEN + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}")])
    assert hub.upload(name_of(1), picture(1)[:-2] + b"\0\xff\xd9").status_code == 200
    assert copy(tmp_path).new == 1
    assert held(tmp_path / "copy") == hub.stored()
    (before,) = (tmp_path / "copy" / "conflicts").rglob("*.jpg")
    assert before.read_bytes() == picture(1)
    assert before.name == name_of(1).replace("jpg", f"{hashlib.md5(picture(1)).hexdigest()}.jpg")


def test_a_backup_is_not_written_over_by_a_hub_that_begins_anew(hub: RunningHub, tmp_path: Path) -> None:
    copy(tmp_path)
    before = (tmp_path / "copy" / "hub.sqlite").read_bytes()
    Hub.open(tmp_path / "new").database.close()
    with pytest.raises(StorageError, match="the backup of another hub lies there; choose another folder"):
        backup.copy(tmp_path / "new", tmp_path / "copy", lambda _: None)
    assert (tmp_path / "copy" / "hub.sqlite").read_bytes() == before
    backup.copy(tmp_path / "copy", tmp_path / "back", lambda _: None)  # restored, it is the same hub
    assert backup.copy(tmp_path / "back", tmp_path / "copy", lambda _: None).problems == []
    assert held(tmp_path / "copy") == hub.stored()


def test_a_backup_whose_database_is_damaged_gets_a_new_one(hub: RunningHub, tmp_path: Path) -> None:
    copy(tmp_path)
    (tmp_path / "copy" / "hub.sqlite").write_bytes(b"rotten" * 1000)
    assert copy(tmp_path).new == 0
    assert held(tmp_path / "copy") == hub.stored()


def test_what_is_deleted_meanwhile_is_no_problem_and_what_is_missing_is(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (missing,) = (tmp_path / "hub" / "images").rglob(name_of(2))
    missing.unlink()

    def delete(at: str) -> None:
        if at == "backup: database copied":
            monkeypatch.undo()
            hub.hub.store.delete([(drawings.DEVICE, f"{TAKEN + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}")])

    monkeypatch.setattr(failpoint, "hit", delete)
    outcome = copy(tmp_path)
    assert (outcome.images, outcome.new) == (3, 2)
    assert [problem.rpartition("/")[2] for problem in outcome.problems] == [f"{name_of(2)}: is missing"]


def test_what_can_be_no_backup_is_one_line(hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no hub in this folder; name its folder with --folder"):
        backup.copy(tmp_path / "none", tmp_path / "copy", lambda _: None)
    (tmp_path / "hub" / "hub.lock").touch()
    with pytest.raises(StorageError, match="a hub ran in this folder; move it away"):
        backup.copy(tmp_path / "hub", tmp_path / "hub", lambda _: None)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file"):
        backup.copy(tmp_path / "hub", tmp_path / "file", lambda _: None)
    assert not (tmp_path / "none").exists()


PRUNE = """
[prune]
enabled = true
min_age = "0 s"
keep_free = "9000 GB"
"""


def test_a_hub_is_restored_while_a_trap_goes_on_and_no_picture_that_is_anywhere_is_lost(
    tmp_path: Path,
) -> None:
    folder, old, card = tmp_path / "hub", tmp_path / "old", tmp_path / "trap"

    def put(trap: daemon_process.Daemon, count: int, *seconds: int) -> None:
        """Let pictures come to the trap, until the hub has so many."""
        for second in seconds:
            drawings.put(card / "spool", picture(second), name_of(second))
        trap.until(lambda facts: facts["destinations"]["hub"]["delivered"] == count)

    with hub_server.cheap_passwords(), hub_server.running(folder) as hub:
        table = daemon_process.deliver_to(card, hub.url, hub.user, hub.password)
        with daemon_process.running(card, table) as trap:
            put(trap, 2, 0, 1)
            copy(tmp_path)
            put(trap, 3, 2)
            trap.stop()
        trap.config.write_text(trap.config.read_text() + PRUNE)
        assert trap.run("prune", "--yes").returncode == 0
        assert list((card / "spool").rglob("*.jpg")) == []
        with daemon_process.running(card, table) as trap:
            put(trap, 4, 3)
            trap.stop()
    folder.rename(old)
    drawings.put(card / "spool", picture(4), name_of(4))
    with daemon_process.running(card, table) as trap:
        assert say("--folder", tmp_path / "copy", folder).return_value == 0
        with hub_server.running(folder, port=hub.port) as hub:
            said = trap.run("verify").stdout
            trap.until(lambda _: {name_of(3), name_of(4)} <= hub.stored().keys())
            assert hub.stored().keys() == {name_of(second) for second in (0, 1, 3, 4)}
            facts = trap.status()
    assert said.splitlines()[-2:] == [f"  {name_of(second)}: it is not there any more" for second in (2, 3)]
    assert (facts["ledger"]["captured"], facts["ledger"]["delivered"], facts["ledger"]["lost"]) == (5, 4, 1)
    assert any("1 image lost" in reason for reason in facts["reasons"])
    assert [path.name for path in (old / "images").rglob(name_of(2))] == [name_of(2)]
