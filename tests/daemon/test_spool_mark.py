"""A spool on a disk of its own that is not mounted: nothing is taken, nothing is forgotten, and it goes on by itself."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

import daemon_process
import drawings
from trap_bench import Memory, Trap
from trapsync import pipeline, status
from trapsync.cameras import AlwaysReady, Frame
from trapsync.errors import StorageError
from trapsync.files import durable, failpoint
from trapsync.settings.schema import Settings, Storage
from trapsync.spool import quarantine, spool_mark
from trapsync.spool.spool_mark import MARK, SpoolWatch

ANOTHER = "this is not the spool of last time: is its disk mounted"


class Killed(BaseException):
    """Stands for SIGKILL where the process of the test must live on."""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A spool and a state folder that were never used."""
    storage = Storage(spool=tmp_path / "spool", state=tmp_path / "state")
    storage.spool.mkdir()
    storage.state.mkdir()
    return storage


def below(storage: Storage) -> Path:
    """Unmount the spool's disk: what is left is the folder below. Where the disk is then."""
    disk = storage.spool.with_name("disk")
    storage.spool.rename(disk)
    storage.spool.mkdir()
    return disk


def mount_again(storage: Storage, disk: Path) -> None:
    assert list(storage.spool.iterdir()) == []
    storage.spool.rmdir()
    disk.rename(storage.spool)


def ids(storage: Storage) -> tuple[str, str]:
    """What stands in the mark, and what is remembered."""
    return (storage.spool / MARK).read_text(), (storage.state / "spool-id").read_text()


# ── The mark ─────────────────────────────────────────────────────────────────────────────────────────


def test_on_first_use_the_spool_is_marked_and_its_id_remembered(storage: Storage) -> None:
    assert spool_mark.problem(storage) is None
    spool_mark.prepare(storage)
    mark, remembered = before = ids(storage)
    assert mark == remembered
    assert f"id = {spool_mark.remembered(storage)}" in mark
    spool_mark.prepare(storage)
    assert ids(storage) == before
    assert spool_mark.problem(storage) is None


def test_two_spools_have_different_ids(storage: Storage, tmp_path: Path) -> None:
    spool_mark.prepare(storage)
    first = spool_mark.remembered(storage)
    (storage.spool / MARK).unlink()
    (storage.state / "spool-id").unlink()
    spool_mark.prepare(storage)
    assert spool_mark.remembered(storage) not in {None, first}


def test_where_the_state_folder_was_lost_the_mark_is_adopted(storage: Storage) -> None:
    spool_mark.prepare(storage)
    before = ids(storage)
    (storage.state / "spool-id").unlink()
    spool_mark.prepare(storage)
    assert ids(storage) == before


@pytest.mark.parametrize("found", ["nothing", "another spool", "no folder"])
def test_a_spool_that_is_another_one_than_last_time_is_left_alone_until_its_owner_accepts_it(
    storage: Storage, tmp_path: Path, found: str
) -> None:
    spool_mark.prepare(storage)
    known = spool_mark.remembered(storage)
    below(storage)
    if found == "another spool":
        other = Storage(spool=storage.spool, state=tmp_path / "other")
        spool_mark.prepare(other)
    if found == "no folder":
        storage.spool.rmdir()
    names = sorted(tmp_path.glob("spool/*"))
    with pytest.raises(StorageError) as caught:
        spool_mark.prepare(storage)
    assert str(caught.value) == spool_mark.problem(storage)
    assert str(caught.value).startswith(f"{storage.spool}: {ANOTHER}")
    assert "run: trapsync spool --accept" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.glob("spool/*")) == names
    assert spool_mark.remembered(storage) == known
    if found == "no folder":
        with pytest.raises(StorageError, match="no such folder"):
            spool_mark.accept(storage)
        return
    assert spool_mark.accept(storage) == spool_mark.remembered(storage) != known
    assert spool_mark.problem(storage) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_what_is_no_file_is_no_mark_and_is_neither_followed_nor_waited_for(
    storage: Storage, kind: str
) -> None:
    spool_mark.prepare(storage)
    mark = storage.spool / MARK
    mark.unlink()
    match kind:
        case "link":
            mark.symlink_to(storage.state / "spool-id")
        case "dangling link":
            mark.symlink_to("/nowhere")
        case "pipe":
            os.mkfifo(mark)
        case "folder":
            mark.mkdir()
        case "device":
            if os.geteuid() != 0:
                pytest.skip("needs root")
            os.mknod(mark, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    assert ANOTHER in str(spool_mark.problem(storage))
    if kind == "folder":
        mark.rmdir()
    spool_mark.accept(storage)
    assert spool_mark.problem(storage) is None
    assert mark.is_file()
    assert not mark.is_symlink()


@pytest.mark.parametrize("content", [b"", b"trapsync spool\nid = 12", b"\xff" * 10_000_000])
def test_a_mark_that_is_damaged_is_made_anew_with_the_same_id(storage: Storage, content: bytes) -> None:
    spool_mark.prepare(storage)
    before = ids(storage)
    (storage.spool / MARK).write_bytes(content)
    assert spool_mark.problem(storage) is None
    spool_mark.prepare(storage)
    assert ids(storage) == before


@pytest.mark.parametrize("content", [b"", b"\0" * 50])
def test_what_is_remembered_and_damaged_is_learnt_from_the_mark(storage: Storage, content: bytes) -> None:
    spool_mark.prepare(storage)
    before = ids(storage)
    (storage.state / "spool-id").write_bytes(content)
    spool_mark.prepare(storage)
    assert ids(storage) == before


@pytest.mark.parametrize("name", ["write: flushed", "write: done", "spool: marked", "spool: remembered"])
@pytest.mark.parametrize("nth", [1, 2])
def test_killed_at_first_use_it_is_that_of_last_time(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    hits: list[str] = []

    def hit(at: str) -> None:
        hits.append(at)
        if hits.count(name) == nth:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(failpoint, "hit", hit)
        try:
            spool_mark.prepare(storage)
        except Killed:
            pass
        else:
            assert nth == 2  # each is marked and remembered once
    spool_mark.prepare(storage)
    assert len(set(ids(storage))) == 1


def test_a_card_that_takes_no_mark_is_no_reason_not_to_begin(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the card is full")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        spool_mark.prepare(storage)
    assert "the card is full" in caplog.text
    assert spool_mark.problem(storage) is None
    spool_mark.prepare(storage)
    assert len(set(ids(storage))) == 1


def test_the_daemon_says_once_that_it_is_another_one_and_once_that_it_is_back(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    spool_mark.prepare(storage)
    told: list[str] = []
    watch = SpoolWatch(storage, lambda: told.append("back"))
    assert watch.is_right()
    disk = below(storage)
    assert [watch.is_right() for _ in range(3)] == [False] * 3
    mount_again(storage, disk)
    assert [watch.is_right() for _ in range(3)] == [True] * 3
    assert told == ["back"]
    assert [ANOTHER in record.message for record in caplog.records] == [True, False]


# ── What is left alone ───────────────────────────────────────────────────────────────────────────────


class Camera(AlwaysReady):
    """Takes a picture; `meanwhile` is what happens during the exposure."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._meanwhile = meanwhile

    def open(self) -> None:
        pass

    def capture(self, _when: datetime) -> Frame:
        self._meanwhile()
        return Frame(drawings.plain(), 160, 120, "imx477")

    def close(self) -> None:
        pass


def test_no_image_of_a_disk_that_is_not_mounted_is_reported_as_lost(trap: Trap) -> None:
    home = Memory()
    trap.register(home)
    paths = {trap.put(second, seed=second) for second in range(4)}
    spool_mark.prepare(trap.storage)
    trap.ingest()
    disk = below(trap.storage)
    with pytest.raises(StorageError, match=ANOTHER):
        trap.ingest()
    assert trap.ledger() == (4, 0, 4, 0, 0)
    assert trap.catalog.counts.vanished() == 0
    mount_again(trap.storage, disk)
    assert trap.ingest() == pipeline.Ingested()
    assert trap.on_card() == paths
    assert trap.deliver(home).delivered == 4


@pytest.mark.parametrize("folder", ["", drawings.DEVICE])
def test_a_disk_that_is_unmounted_during_a_sweep_costs_the_sweep_and_no_image(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    trap.put()
    trap.put(path="other.jpg", seed=2)
    spool_mark.prepare(trap.storage)
    trap.ingest()
    known_in = trap.catalog.images.known_in
    disks: list[Path] = []

    def unmount(asked: str) -> dict[str, tuple[int, int]]:
        if asked == folder and not disks:
            disks.append(below(trap.storage))
        return known_in(asked)

    monkeypatch.setattr(trap.catalog.images, "known_in", unmount)
    with pytest.raises(StorageError, match=ANOTHER):
        pipeline.sweep(trap.catalog, trap.storage, lambda _path: None)
    assert disks
    assert trap.ledger() == (2, 0, 2, 0, 0)


def test_what_is_in_quarantine_stays_in_the_account_while_its_disk_is_not_mounted(trap: Trap) -> None:
    drawings.put(trap.storage.spool, b"no picture", "bad.jpg")
    spool_mark.prepare(trap.storage)
    trap.ingest()
    below(trap.storage)
    quarantine.reconcile(trap.catalog, trap.storage)
    assert trap.ledger() == (1, 0, 0, 1, 0)


def test_no_picture_is_taken_into_the_folder_below(trap: Trap) -> None:
    settings, camera = Settings(storage=trap.storage), Camera()
    spool_mark.prepare(trap.storage)
    assert pipeline.capture(camera, settings, drawings.DEVICE, trap.time)
    disk = below(trap.storage)
    with pytest.raises(StorageError, match=ANOTHER):
        pipeline.capture(camera, settings, drawings.DEVICE, trap.time)
    mount_again(trap.storage, disk)
    assert pipeline.capture(camera, settings, drawings.DEVICE, trap.time)


def test_a_disk_that_is_unmounted_during_the_exposure_gets_no_picture_below(trap: Trap) -> None:
    settings, camera = Settings(storage=trap.storage), Camera(lambda: below(trap.storage))
    spool_mark.prepare(trap.storage)
    with pytest.raises(StorageError, match=ANOTHER):
        pipeline.capture(camera, settings, drawings.DEVICE, trap.time)
    assert list(trap.storage.spool.iterdir()) == []


def test_status_says_it_first_and_once(trap: Trap) -> None:
    settings = Settings(storage=trap.storage)
    spool_mark.prepare(trap.storage)
    below(trap.storage)
    text = spool_mark.problem(trap.storage)
    trap.catalog.facts.set("capture", {"failures": 3, "error": text})
    now = status.snapshot(settings, trap.time, drawings.DEVICE)
    assert now.verdict == "failing"
    assert [ANOTHER in reason for reason in now.reasons].count(True) == 1
    assert now.reasons[0] == text


# ── The commands ─────────────────────────────────────────────────────────────────────────────────────


def test_the_commands_say_it_in_one_line_and_the_owner_accepts_another_spool(tmp_path: Path) -> None:
    trap = daemon_process.Daemon(tmp_path / "trap")
    storage = Storage(spool=trap.spool, state=trap.folder / "state")
    done = trap.run("spool")
    assert (done.returncode, "not marked yet" in done.stdout) == (0, True)
    trap.spool.mkdir()
    drawings.put(trap.spool, drawings.trap(), drawings.NAME)
    assert trap.run("once").returncode < 3
    done = trap.run("spool")
    assert (done.returncode, "the same as before" in done.stdout) == (0, True)
    below(storage)
    alone = trap.config.read_text()
    trap.config.write_text(alone + '[destinations.stick]\nkind = "directory"\npath = "stick"\n')
    for command in (["deliver"], ["verify"], ["retry"]):
        done = trap.run(*command)
        assert done.returncode == 1, command
        assert done.stderr == f"trapsync: {spool_mark.problem(storage)}\n", command
    trap.config.write_text(alone)
    assert list(trap.spool.iterdir()) == []
    assert trap.status()["ledger"]["pending"] == 1
    done = trap.run("spool")
    assert (done.returncode, ANOTHER in done.stdout) == (1, True)
    assert ANOTHER in trap.run("doctor").stdout.replace("\n", " ")
    done = trap.run("spool", "--accept")
    assert (done.returncode, "the same as before" in done.stdout) == (0, True)
    assert trap.run("once").returncode < 3
    assert trap.status()["ledger"]["dropped"] == 1  # it is meant: what lay in the other one is gone


# ── The daemon, on a real mount ──────────────────────────────────────────────────────────────────────


class Disk:
    """A filesystem of its own that is mounted on the spool, or is not."""

    def __init__(self, folder: Path, spool: Path) -> None:
        self.path, self._spool = folder, spool
        for made in (folder, spool):
            made.mkdir(parents=True)
        self._run("mount", "-t", "tmpfs", "trapsync-test", str(folder))

    def mount(self) -> None:
        self._run("mount", "--bind", str(self.path), str(self._spool))

    def unmount(self) -> None:
        self._run("umount", "--lazy", str(self._spool))

    def pictures(self) -> int:
        return len(list(self.path.glob("*/*/*.jpg")))

    def close(self) -> None:
        for path in (self._spool, self.path):
            subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


@contextmanager
def running(trap: daemon_process.Daemon, *arguments: str) -> Iterator[None]:
    """This daemon, in its folder."""
    said = len(trap.text()) if trap.log.exists() else 0
    trap.start(*arguments)
    try:
        trap.until_log("watching over", since=said)
        yield
        assert trap.stop() == 0
    finally:
        if trap.poll() is None:
            trap.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_spool_whose_disk_is_not_mounted_gets_no_picture_and_goes_on_when_it_is(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = f'[destinations.stick]\nkind = "directory"\npath = "{stick}"\nevery = "1 s"\n'
    trap = daemon_process.Daemon(tmp_path / "trap", camera="simulated")
    disk = Disk(tmp_path / "disk", trap.spool)
    try:
        disk.mount()
        with running(trap, "--captures", "4"):
            trap.until(lambda f: f["ledger"]["pending"] == 4)
        trap.config.write_text(trap.config.read_text() + more)

        # It starts without the disk, says so, and takes nothing; and goes on once the disk is there.
        disk.unmount()
        with running(trap):
            facts = trap.until(lambda f: f["verdict"] == "failing")
            assert ANOTHER in facts["reasons"][0]
            assert (facts["ledger"]["captured"], facts["vanished"]) == (4, 0)
            assert list(trap.spool.iterdir()) == []
            disk.mount()
            trap.until(lambda f: f["ledger"]["delivered"] > 4)

            # The same while it runs.
            since = len(trap.text())
            disk.unmount()
            # Of the main thread: a capture may have said before it that there is no picture.
            trap.until_log("until then no image is taken", since=since)
            trap.until(lambda f: f["verdict"] == "failing")
            taken = disk.pictures()
            assert list(trap.spool.iterdir()) == []
            disk.mount()
            trap.until_log("is back", since=since, seconds=60)
            facts = trap.until(lambda f: f["ledger"]["delivered"] > taken)
            assert facts["ledger"]["dropped"] == facts["vanished"] == 0
        assert trap.text().count(ANOTHER) < 12  # in an hour without its disk, as many
        assert "Traceback" not in trap.text()
        disk.unmount()
        assert list(trap.spool.iterdir()) == []
    finally:
        disk.close()
