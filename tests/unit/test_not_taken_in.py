"""Nothing is silent: what lies in the spool and is not taken in is counted, with an example, since when, and why."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import pytest

import drawings
import trap_bench as bench
import without_root
from statuses import status as a_status
from trapsync import pipeline
from trapsync.catalog import facts
from trapsync.cli.show_status import lines
from trapsync.doctor.card import card
from trapsync.doctor.machine import Machine
from trapsync.errors import Failed, StorageError
from trapsync.files import destination_mark, mounts, process_note
from trapsync.image import Found, Image
from trapsync.remote import heartbeat
from trapsync.runtime.context import Context
from trapsync.runtime.ingest_thread import IngestThread
from trapsync.runtime.jobs import Jobs
from trapsync.runtime.liveness import Liveness
from trapsync.settings.schema import Camera, Hub, Settings
from trapsync.settings.schema import Trap as TrapSettings
from trapsync.spool.inbox import Inbox
from trapsync.spool.not_taken_in import NotTakenIn, Tally
from trapsync.status import judged, snapshot
from trapsync.status.model import Status
from trapsync.trap import lock

CONFIG = f"""\
[trap]
device = "{drawings.DEVICE}"
clock = "trusted"
[storage]
spool = "spool"
state = "state"
min_free = "0 B"
[camera]
kind = "none"
[destinations.stick]
kind = "directory"
path = "stick"
"""


class Life:
    """A trap on the bench with the daemon's own ingest thread and jobs, whose steps a test takes."""

    def __init__(self, trap: bench.Trap) -> None:
        self.trap = trap
        self.settings = Settings(
            trap=TrapSettings(device=drawings.DEVICE),
            storage=trap.storage,
            camera=Camera(kind="none"),
            hub=Hub(),
            destinations={"home": {"hotplug": True}},  # that nothing was delivered yet is no warning
        )
        self.examine: Callable[..., object] = trap._examiner
        self.begin()

    def begin(self) -> None:
        """A daemon starts."""
        trap, stop = self.trap, cast("Any", Stop())
        self.context = Context(
            *(self.settings, drawings.DEVICE, trap.time, trap.catalog, Inbox(trap.time)),
            Liveness(trap.time),
            stop,
        )
        self.context.not_taken_in.remember(trap.catalog.facts.read().not_taken_in)
        examiners = cast("Any", type("", (), {"examine": lambda _, files: self.examine(files)})())
        self.ingest_thread = IngestThread(self.context, examiners)
        self.jobs = Jobs(self.context, [], lambda *_: None, lambda _: None)

    def look(self, seconds: float = 300.0) -> Status:
        """So much time passes, then a sweep comes and all that it offers is examined; the status then."""
        self.trap.time.sleep(seconds)
        self.jobs.sweep()
        while not self.context.inbox.is_empty():
            self.ingest_thread.step()
            self.trap.time.sleep(2)
        self.ingest_thread.tell_not_taken_in()
        return self.status()

    def status(self) -> Status:
        """As it is now, beside the daemon that has the trap's lock."""
        return snapshot(self.settings, self.trap.time, drawings.DEVICE)


class Stop:
    """Nobody says stop, and nobody waits."""

    def is_set(self) -> bool:
        return False

    def wait(self, _seconds: float = 0.0) -> bool:
        return False


@pytest.fixture
def life(trap: bench.Trap) -> Iterator[Life]:
    trap.register(bench.Memory())
    with lock(trap.storage.state):
        yield Life(trap)


def kinds(now: Status) -> dict[str, tuple[int, str]]:
    """Kind to count and example."""
    return {one.kind: (one.count, one.example) for one in now.not_taken_in}


# ── What cannot be read ──────────────────────────────────────────────────────────────────────────────


def test_what_root_copied_in_is_told_until_it_can_be_read(tmp_path: Path) -> None:
    spool, stick = tmp_path / "spool", tmp_path / "stick"
    (tmp_path / "trapsync.toml").write_text(CONFIG)
    stick.mkdir()
    (stick / destination_mark.NAME).touch()
    for seed, path in enumerate(("good.jpg", "r.jpg", "card2/in.jpg")):
        drawings.put(spool, drawings.trap(seed=seed), path)
    (spool / "r.jpg").chmod(0o000)  # to whom it does not belong it is what mode 600 is
    (spool / "card2").chmod(0o000)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return without_root.run(["-m", "trapsync", "-c", str(tmp_path / "trapsync.toml"), *words])

    assert run("deliver").returncode == 0
    with lock(tmp_path / "state"):  # as if a daemon were running
        now = json.loads(run("status", "--json").stdout)
    assert now["verdict"] == "warning"
    assert now["ledger"]["captured"] == 1
    (reason,) = [one for one in now["reasons"] if "read" in one]
    assert reason.startswith("2 files or folders cannot be read: ")
    advice = reason.partition("no permission to read it; run: ")[2].replace("sudo ", "")
    assert advice == f"chown -R --reference={spool} {spool} && chmod -R u+rwX {spool}"
    assert "not taken in" in run("doctor").stdout

    if os.geteuid() != 0:  # who has no sudo can only do the second half
        advice = advice.partition("&& ")[2]
    subprocess.run(["sh", "-c", advice], check=True)
    assert run("deliver").returncode == 0
    now = json.loads(run("status", "--json").stdout)
    assert (now["not_taken_in"], now["ledger"]["delivered"]) == ([], 3)


def test_the_hub_is_told_how_many_are_not_taken_in() -> None:
    one = {"kind": "unreadable", "count": 2, "example": "r.jpg", "since": None, "reason": "no permission"}
    alone = one | {"kind": "left_alone", "count": 5}
    assert json.loads(heartbeat.compose(a_status(not_taken_in=[one, alone]), 900))["not_taken_in"] == 2


def test_a_folder_that_cannot_be_listed_and_a_file_that_cannot_be_looked_up_are_told(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.trap.put(path="good.jpg")
    life.trap.put(1, path="locked/in.jpg")
    lstat = Path.lstat

    def failing(path: Path) -> os.stat_result:
        if path.name == "odd.jpg":
            raise OSError(5, "Input/output error", str(path))
        return lstat(path)

    drawings.put(life.trap.storage.spool, b"any", "odd.jpg")
    monkeypatch.setattr(Path, "lstat", failing)
    scandir = os.scandir

    def closed(path: Path) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    now = life.look()
    assert now.verdict == "warning"
    assert kinds(now)["unreadable"][0] == 2
    assert "2 files or folders cannot be read: " in now.reasons[0]
    since = now.not_taken_in[0].since
    life.context.live.close()
    life.begin()  # a restart keeps since when it is so
    assert life.look().not_taken_in[0].since == since
    monkeypatch.undo()
    (life.trap.storage.spool / "odd.jpg").unlink()
    now = life.look()
    assert (now.verdict, now.not_taken_in, now.ledger.captured) == ("ok", [], 2)


# ── What cannot be examined or recorded ──────────────────────────────────────────────────────────────


def test_a_file_at_which_our_own_program_fails_is_told_and_tried_less_and_less_often(life: Life) -> None:
    tried: list[float] = []

    def examine(files: list[Found]) -> Iterator[tuple[Found, Image | Exception]]:
        for found in files:
            if found.path == "bad.jpg":
                tried.append(life.trap.time.monotonic())
                yield found, ZeroDivisionError("a mistake of our own")
            else:
                yield from life.trap._examiner([found])

    life.examine = examine
    life.trap.put(path="bad.jpg")
    life.trap.put(1, path="good.jpg")
    now = life.look()
    assert (now.verdict, kinds(now)) == ("warning", {"failed": (1, "bad.jpg")})
    reason = "failed unexpectedly (ZeroDivisionError('a mistake of our own')): see the log"
    assert now.reasons == [f"1 file cannot be taken in yet: bad.jpg: {reason}"]
    assert now.ledger.captured == 1
    for _ in range(48):  # four hours of sweeps
        now = life.look()
    assert kinds(now) == {"failed": (1, "bad.jpg")}
    assert 4 <= len(tried) <= 8
    life.examine = life.trap._examiner
    now = life.look(3600)
    assert (now.verdict, now.not_taken_in, now.ledger.captured) == ("ok", [], 2)


def test_a_file_that_the_card_does_not_let_be_read_costs_itself(life: Life) -> None:
    def examine(files: list[Found]) -> Iterator[tuple[Found, Image | Exception]]:
        for found in files:
            yield (
                found,
                StorageError(f"{found.path}: input/output error; the card or the stick may be failing"),
            )

    life.examine = examine
    life.trap.put(path="worn.jpg")
    assert kinds(life.look()) == {"failed": (1, "worn.jpg")}
    (life.trap.storage.spool / "worn.jpg").unlink()
    assert life.look().not_taken_in == []


def test_a_folder_at_which_a_sweep_fails_costs_itself_and_is_told(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.trap.put(path="a/a.jpg")
    life.trap.put(1, path="b/b.jpg")
    known_in = life.trap.catalog.images.known_in

    def failing(folder: str) -> object:
        if folder == "a":
            raise OverflowError("too large")
        return known_in(folder)

    monkeypatch.setattr(life.trap.catalog.images, "known_in", failing)
    now = life.look()
    assert (now.ledger.captured, kinds(now)) == (1, {"failed": (1, "a")})


def test_while_nothing_can_be_examined_the_status_is_failing_and_says_why(life: Life) -> None:
    def none(_files: object) -> object:
        raise StorageError("no file can be examined: /dev/shm is missing")

    life.examine = none
    life.trap.put(path="a.jpg")
    life.jobs.sweep()
    life.ingest_thread.step()
    now = life.status()
    assert (now.verdict, kinds(now)) == ("failing", {"stopped": (1, "a.jpg")})
    assert now.reasons == ["new files cannot be taken in: no file can be examined: /dev/shm is missing"]
    life.examine = life.trap._examiner
    now = life.look()
    assert (now.verdict, now.not_taken_in, now.ledger.captured) == ("ok", [], 1)


def test_jobs_that_the_card_refuses_are_a_warning_with_those_of_one_error_together(life: Life) -> None:
    refused = {"sweep": "the filesystem is read-only", "prune": "the filesystem is read-only"}
    life.context.tell("jobs", refused)
    now = life.status()
    assert now.verdict == "warning"
    assert (
        "jobs of the daemon fail, and are tried again (sweep, prune): the filesystem is read-only"
        in now.reasons
    )
    life.context.tell("jobs", None)
    assert life.status().verdict == "ok"


def test_an_image_that_a_destination_does_not_take_is_a_warning_with_its_reason(life: Life) -> None:
    home = bench.Memory()
    life.trap.register(home)
    key = life.trap.put(path="odd.jpg")
    life.trap.put(1, path="good.jpg")
    life.look()
    home.trouble[key] = Failed("it declines this one")
    for _ in range(2):
        life.trap.deliver(home)
        life.trap.time.sleep(2000)
    now = life.status()
    assert now.verdict == "warning"
    text = "home did not take 1 image, tried again less and less often: odd.jpg: it declines this one"
    assert now.reasons == [text]
    home.trouble.clear()
    life.trap.deliver(home)
    assert life.status().verdict == "ok"


# ── What is left alone on purpose ────────────────────────────────────────────────────────────────────


def test_what_is_left_alone_is_a_plain_line_and_no_warning(life: Life) -> None:
    spool = life.trap.storage.spool
    life.trap.put(path="a.jpg")
    for name in ("b.HEIC", "c.heic", "d.png", "README", ".hidden.png"):
        (spool / name).touch()
    (spool / "card").symlink_to(spool)
    os.mkfifo(spool / "pipe.jpg")
    now = life.look()
    assert now.verdict == "ok"
    ((count, _),) = kinds(now).values()
    assert count == 6
    (line,) = [text for _, text in lines(now, UTC) if text.startswith("left alone in the spool: ")]
    for what in ("2 .heic", "1 .png", "1 without a suffix", "1 links", "1 links or special files"):
        assert what in line
    assert json.loads(heartbeat.compose(now, 900))["not_taken_in"] == 0


def test_a_tally_is_bounded_whatever_the_names(life: Life) -> None:
    tally = Tally()
    for number in range(1000):
        tally.add_what(f"{number}\n\udcff{'x' * 5000}", f".{number}{'y' * 1000}")
    assert tally.count == 1000
    assert len(tally.example) <= 600
    assert tally.reason.isprintable()
    assert len(tally.whats) == 9
    assert len(tally.reason) < 500


def test_two_sources_are_put_together_and_what_one_has_no_more_stays_of_the_other() -> None:
    found, one = NotTakenIn(), Tally(1, "a", "why")
    found.told("sweep", {"unreadable": one}, 100.0)
    (told,) = found.told("ingest", {"unreadable": Tally(2, "b", "so")}, 200.0)
    assert (told["count"], told["example"], told["since"]) == (3, "a", 100.0)
    (told,) = found.told("sweep", {"unreadable": Tally()}, 300.0)
    assert (told["count"], told["example"], told["since"]) == (2, "b", 100.0)
    assert found.told("ingest", {}, 400.0) == []
    (told,) = found.told("ingest", {"unreadable": one}, 500.0)
    assert told["since"] == 500.0


# ── A card that takes no writes ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "is_read_only"),
    [("rw,errors=remount-ro", False), ("ro", True), ("rw,errors=remount-ro,emergency_ro", True)],
)
def test_a_file_system_that_turned_read_only_is_known_by_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, is_read_only: bool
) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    (tmp_path / "mounts").write_text(
        f"22 1 0:5 / /dev rw - devtmpfs devtmpfs ro\n43 27 {number} / /var rw,relatime shared:1 - ext4 /dev/x {options}\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mounts")
    assert mounts.is_read_only(tmp_path) is is_read_only


def test_a_card_that_is_read_only_is_failing_at_once_and_named(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert life.look().verdict == "ok"
    monkeypatch.setattr(mounts, "is_read_only", lambda _folder: True)
    now = life.status()
    assert now.verdict == "failing"
    assert now.reasons[0].startswith(
        f"{life.trap.storage.spool}: the card is read-only: it is failing, or damaged"
    )
    settings, clock = life.settings, life.trap.time
    found = card(settings, *judged(settings, clock, ""), clock, Machine())
    (finding,) = [one for one in found if one.subject == "spool"]
    assert (finding.verdict, finding.text) == ("failing", now.reasons[0])


def test_the_captures_failures_are_told_though_the_catalog_cannot_be_written(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.settings = Settings(storage=life.trap.storage, camera=Camera(kind="simulated"))
    life.trap.catalog.connection._db.execute("PRAGMA query_only=ON")
    failed = facts.Capture(3, "spool: the filesystem is read-only; the card may be failing")
    life.context.tell("capture", failed)
    assert life.trap.catalog.facts.read().capture is None
    now = life.status()
    assert now.verdict == "failing"
    assert f"no pictures, 3 failures in a row: {failed.error}" in now.reasons

    # Nor is a catalog needed at all.
    life.trap.storage.catalog.unlink()
    assert f"no pictures, 3 failures in a row: {failed.error}" in life.status().reasons
    # The daemon that told it is gone, and what it told with it.
    life.context.live.close()
    assert not [one for one in life.status().reasons if "no pictures" in one]


def test_a_note_is_read_by_another_process_and_is_about_its_folder_only(tmp_path: Path) -> None:
    note = process_note.ProcessNote(tmp_path)
    code = (
        "import sys; from pathlib import Path; from trapsync.files.process_note import read\n"
        "print(read(int(sys.argv[1]), Path(sys.argv[2])).decode(), read(int(sys.argv[1]), Path('/else')))"
    )
    for text in ("longer than the next", "short"):
        note.write(text.encode())
        done = subprocess.run(
            [sys.executable, "-c", code, str(os.getpid()), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{text} b''\n"
    note.close()
    assert process_note.read(os.getpid(), tmp_path) == b""
    assert process_note.read(2**22 + 1, tmp_path) == b""


@pytest.mark.parametrize("content", [b"{", b"[]", b'"x"', b"\xff", b'{"capture": 5}'])
def test_a_note_that_is_none_counts_as_nothing_told(tmp_path: Path, content: bytes) -> None:
    note = process_note.ProcessNote(tmp_path)
    note.write(content)
    assert facts.usable(facts.live(os.getpid(), tmp_path)) == facts.Facts()
    note.close()


def test_a_sweep_tells_what_it_offered(trap: bench.Trap) -> None:
    trap.put()
    assert pipeline.sweep(trap.catalog, trap.storage, lambda _path: None).offered == 1
