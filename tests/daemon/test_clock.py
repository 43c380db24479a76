"""A clock that is wrong: images are held, their times corrected, and only then delivered."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import piexif
import pytest

import daemon_process
import drawings
import hub_server
from trap_bench import Memory, Trap
from trapsync import pipeline, status
from trapsync.cameras import AlwaysReady, Frame
from trapsync.catalog.facts import Stopped
from trapsync.errors import DamagedImage, StorageError
from trapsync.files import durable, failpoint
from trapsync.image import Correction, Evidence, Image, parse_name
from trapsync.jpeg import examination, exif
from trapsync.runtime import clock_correction
from trapsync.settings.schema import Settings
from trapsync.settings.schema import Trap as TrapSettings
from trapsync.settings.time_zone import exif_offset

HOUR, DAY = 3600.0, 86400.0
KATHMANDU = timedelta(hours=5, minutes=45)  # where all these pictures are taken


class Killed(BaseException):
    """Stands for SIGKILL where the process of the test must live on."""


class Eye(AlwaysReady):
    """A camera whose every picture is another one."""

    def __init__(self) -> None:
        self._seed = 0

    def open(self) -> None:
        pass

    def capture(self, _when: datetime) -> Frame:
        self._seed += 1
        return Frame(drawings.plain(seed=self._seed), 160, 120, "imx477", 0.01, 1.0)

    def close(self) -> None:
        pass


class Field:
    """A trap in the field: it takes pictures, and its clock is set or is not."""

    def __init__(self, trap: Trap, **settings: Any) -> None:
        self.trap, self.time, self.home = trap, trap.time, Memory()
        self.settings = Settings(
            trap=TrapSettings(
                latitude=46.2, longitude=6.1, altitude=400.0, timezone="Asia/Kathmandu", **settings
            ),
            storage=trap.storage,
        )
        self.truth: dict[bytes, float] = {}
        self.failures = clock_correction.Failures(trap.time)
        self._eye, self._true = Eye(), self.time.wall() - self.time.monotonic()
        trap.register(self.home)

    def now(self) -> float:
        """The time that it really is."""
        return self.time.monotonic() + self._true

    def reboot(self, off: float, *, wrong_by: float) -> None:
        """Off for so long; then the clock is wrong, and nobody says otherwise."""
        now = self.now()
        self.trap.restart(reboot=True)
        self._true = now + off - self.time.monotonic()
        self.time.step_wall(self.now() + wrong_by - self.time.wall())
        self.time.is_trusted = False

    def synchronise(self) -> None:
        """A time server was reached."""
        self.time.step_wall(self.now() - self.time.wall())
        self.time.is_trusted = True

    def capture(self, count: int = 1, every: float = 1200.0) -> list[str]:
        """Take pictures and ingest them; their paths."""
        paths = []
        for _ in range(count):
            paths.append(self.take(self.trap.catalog.images.names_from(drawings.DEVICE, self.time.wall())))
            self.trap.ingest()
            self.time.sleep(every)
        return paths

    def take(self, taken: Container[str] = ()) -> str:
        """Take a picture, and tell nobody; its path. `taken` are the names that are known not to be free."""
        path = pipeline.capture(
            self._eye, self.settings, drawings.DEVICE, self.time, taken, offset=exif_offset(self.settings)
        )
        self.truth[self.picture(path)] = self.now()
        return path

    def picture(self, path: str) -> bytes:
        """What a camera saw: it stays when the metadata changes."""
        content = (self.trap.storage.spool / path).read_bytes()
        return content[content.index(b"\xff\xda") :]

    def settle(self) -> int:
        """Until there is nothing more to put right; how many images were."""
        return sum(iter(self._step, 0))

    def _step(self) -> int:
        return clock_correction.correct_times(
            self.trap.catalog, self.trap.storage, self.settings.trap, self.rewrite, self.failures
        )

    def rewrite(
        self, corrections: Iterable[Correction]
    ) -> Iterator[tuple[Correction, Image | DamagedImage | FileExistsError]]:
        """As the examiners do it, in this process."""
        for one in corrections:
            try:
                yield one, examination.rewrite(self.trap.storage.spool, one)
            except (DamagedImage, FileExistsError) as error:
                yield one, error

    def rows(self) -> list[dict[str, Any]]:
        """All images of the catalog, oldest first."""
        return self.trap.catalog.images.listing(None, 10_000)[::-1]

    def status(self) -> dict[str, Any]:
        """What `status --json` would say."""
        return status.snapshot(self.settings, self.time, drawings.DEVICE).plain()

    def check(self) -> None:
        """Name, EXIF and catalog agree with the truth within two seconds, and each image is there once."""
        rows = [row for row in self.rows() if row["gone_at"] is None]
        assert {row["path"] for row in rows} == self.trap.on_card()
        assert len({row["key"] for row in rows}) == len(rows) == len(self.truth)
        assert {self.picture(row["path"]) for row in rows} == set(self.truth)
        for row in rows:
            name = parse_name(row["key"])
            assert name
            assert abs(name.taken.timestamp() - self.truth[self.picture(row["path"])]) < 2
            found = examination.examine(self.trap.storage.spool, row["path"])
            assert found.metadata["DateTimeOriginal"] == f"{name.taken + KATHMANDU:%Y:%m:%d %H:%M:%S}"
            assert found.metadata["OffsetTimeOriginal"] == "+05:45"
            assert (found.sha256, found.md5, found.size) == (row["sha256"], row["md5"], row["size"])
            assert found.metadata == row["metadata"]
        self.trap.ledger()
        self.trap.restart()  # which looks whether the catalog contradicts itself


@pytest.fixture
def field(trap: Trap) -> Field:
    """A trap that woke up 90 days in the past."""
    one = Field(trap)
    one.time.is_trusted = False
    one.time.step_wall(-90 * DAY)
    return one


@pytest.mark.parametrize("catalog_is", ["kept", "lost"])
@pytest.mark.parametrize("is_pruned", [False, True])
def test_a_corrected_image_that_comes_back_as_it_was_is_no_other_image(
    field: Field, catalog_is: str, is_pruned: bool
) -> None:
    (old,) = field.capture()
    spool = field.trap.storage.spool
    content = (spool / old).read_bytes()
    field.synchronise()
    field.settle()
    field.trap.deliver(field.home)
    assert field.trap.on_card() != {old}
    if is_pruned and catalog_is == "kept":
        assert field.trap.prune() == 1
    corrected = field.trap.on_card()
    if catalog_is == "lost":
        field.trap.storage.catalog.rename(field.trap.storage.catalog.with_suffix(".away"))
        for suffix in ("-wal", "-shm"):
            Path(f"{field.trap.storage.catalog}{suffix}").unlink(missing_ok=True)
        field.trap.restart()
        field.trap.register(field.home)
    (spool / old).parent.mkdir(exist_ok=True)
    (spool / old).write_bytes(content)
    field.trap.ingest()
    field.settle()
    field.trap.deliver(field.home)
    assert field.trap.on_card() == corrected
    assert len(field.home.stored) == 1
    assert field.trap.ledger() == (1, 1, 0, 0, 0)
    field.trap.restart()


def test_an_edited_picture_that_kept_its_exif_is_another_picture_and_is_not_deleted(field: Field) -> None:
    (old,) = field.capture()
    spool = field.trap.storage.spool
    content = (spool / old).read_bytes()
    field.synchronise()
    field.settle()
    field.trap.deliver(field.home)
    edited = content[:-2] + bytes([content[-3] ^ 1]) + content[-2:]  # another development of it, say
    (spool / old).write_bytes(edited)
    field.trap.ingest()
    field.settle()
    field.trap.deliver(field.home)
    assert len(field.trap.on_card()) == 2
    assert len(field.home.stored) == 2


def test_a_corrected_image_is_not_delivered_again_where_the_owner_vouches_for_the_clock(field: Field) -> None:
    (old,) = field.capture()
    spool = field.trap.storage.spool
    content = (spool / old).read_bytes()
    field.synchronise()
    field.settle()
    field.trap.deliver(field.home)
    (spool / old).write_bytes(content)
    field.settings = Settings(trap=TrapSettings(clock="trusted"), storage=field.trap.storage)
    field.trap.ingest()
    field.settle()
    field.trap.deliver(field.home)
    assert len(field.home.stored) == 1
    assert len(field.trap.on_card()) == 1


def test_a_picture_whose_corrected_file_vanished_undelivered_is_kept_when_its_old_file_comes_back(
    field: Field,
) -> None:
    (old,) = field.capture()
    spool = field.trap.storage.spool
    content = (spool / old).read_bytes()
    field.synchronise()
    field.settle()
    (corrected,) = field.trap.on_card()
    (spool / corrected).unlink()
    field.trap.ingest()
    field.trap.deliver(field.home)
    assert field.trap.ledger() == (1, 0, 0, 0, 1)
    drawings.put(spool, content, old)
    field.trap.ingest()
    field.settle()
    assert {field.picture(path) for path in field.trap.on_card()} == set(field.truth)
    field.trap.deliver(field.home)
    assert len(field.home.stored) == 1


def test_an_old_file_put_back_for_a_new_destination_is_pending_there(field: Field) -> None:
    (old,) = field.capture()
    spool, new = field.trap.storage.spool, Memory("new")
    content = (spool / old).read_bytes()
    field.synchronise()
    field.settle()
    field.trap.deliver(field.home)
    assert field.trap.prune() == 1
    field.trap.register(new)
    drawings.put(spool, content, old)
    field.trap.ingest()
    field.settle()
    assert field.trap.deliver(new).delivered == 1
    assert {field.picture(path) for path in field.trap.on_card()} == set(field.truth)


def test_an_image_whose_old_file_vanishes_while_it_is_corrected_is_pending(field: Field) -> None:
    (old,) = field.capture()
    field.synchronise()

    def meanwhile(corrections: Iterable[Correction]) -> Any:
        yield from field.rewrite(corrections)
        (field.trap.storage.spool / old).unlink()
        assert field.trap.catalog.images.forget_files([old]) == 1

    clock_correction.correct_times(
        field.trap.catalog, field.trap.storage, field.settings.trap, meanwhile, field.failures
    )
    field.trap.ingest()
    assert field.trap.ledger() == (1, 0, 1, 0, 0)
    assert field.trap.deliver(field.home).delivered == 1


def test_images_taken_before_the_clock_is_set_are_held_and_count_as_pending(field: Field) -> None:
    field.capture(3)
    assert field.settle() == 0
    assert field.trap.deliver(field.home).delivered == 0
    assert field.home.asked == []
    assert field.trap.ledger() == (3, 0, 3, 0, 0)
    assert field.trap.catalog.times.timings() == {"held": 3, "unsure": 0}
    other = Memory("other")
    field.trap.register(field.home, other)  # one that is new is not pending them either
    assert field.trap.deliver(other).delivered == 0
    field.trap.restart()


def test_a_foreign_file_is_not_held(field: Field) -> None:
    drawings.put(field.trap.storage.spool, drawings.plain(), "DCIM/IMG_0001.JPG")
    drawings.put(field.trap.storage.spool, drawings.trap(evidence=None), f"a/{drawings.NAME}")
    untrusted = Evidence("boot", 1.0, 2.0, trusted=False)
    drawings.put(field.trap.storage.spool, drawings.trap(seed=2, evidence=untrusted), "renamed by hand.jpg")
    field.trap.ingest()
    assert field.trap.deliver(field.home).delivered == 3


def test_once_the_clock_is_set_times_are_corrected_and_the_images_delivered_once(field: Field) -> None:
    old = field.capture(20)
    field.synchronise()
    field.capture(2)
    assert field.trap.deliver(field.home).delivered == 2
    assert field.settle() == 20
    field.check()
    assert not set(old) & field.trap.on_card()
    assert field.trap.deliver(field.home).delivered == 20
    assert sorted(field.home.sent) == sorted({row["key"] for row in field.rows()})
    assert field.trap.ledger() == (22, 22, 0, 0, 0)
    assert field.trap.ingest() == pipeline.Ingested()
    assert field.settle() == 0


def test_another_offset_counts_for_new_pictures_and_a_correction_leaves_each_its_own(field: Field) -> None:
    (first,) = field.capture()
    field.settings = Settings(trap=TrapSettings(utc_offset="-05:00"), storage=field.trap.storage)
    (second,) = field.capture()
    field.synchronise()
    field.settle()
    ahead = {row["was"]: row["metadata"]["OffsetTimeOriginal"] for row in field.rows()}
    assert ahead == {Path(first).name: "+05:45", Path(second).name: "-05:00"}
    for row in field.rows():
        tags, name = row["metadata"], parse_name(row["key"])
        moment = f"{tags['DateTimeOriginal']}{tags['OffsetTimeOriginal']}"
        assert name
        assert datetime.strptime(moment, "%Y:%m:%d %H:%M:%S%z") == name.taken


def test_what_the_clock_showed_is_kept_in_the_catalog_and_in_the_file(field: Field) -> None:
    showed = field.time.wall()
    (path,) = field.capture()
    field.synchronise()
    offset, set_at = field.time.wall() - field.time.monotonic(), field.time.wall()
    field.settle()
    (row,) = field.rows()
    assert (row["timing"], row["was"]) == ("corrected", Path(path).name)
    assert (row["wall"], row["clock_trusted"]) == (pytest.approx(showed, abs=0.001), 0)
    content = (field.trap.storage.spool / row["path"]).read_bytes()
    blocks = piexif.load(content)
    assert (
        f"wall={showed:.3f} trusted=0 offset={offset:.3f}".encode()
        in blocks["Exif"][piexif.ExifIFD.MakerNote]
    )
    taken = row["key"][9:19].replace("-", ":").encode()
    assert blocks["GPS"][piexif.GPSIFD.GPSDateStamp] == taken
    local = f"{drawings.TAKEN + KATHMANDU:%Y:%m:%d %H}".encode()
    assert blocks["0th"][piexif.ImageIFD.DateTime].startswith(local)
    assert blocks["Exif"][piexif.ExifIFD.DateTimeDigitized].startswith(local)
    names, values = blocks["Exif"][piexif.ExifIFD.UserComment].decode().split("\n")
    assert dict(zip(names.split(","), values.split(","), strict=True))["l"] == f"{set_at:.0f}"
    assert row["metadata"]["format"] == "2022"


def test_a_time_that_was_right_is_confirmed_and_its_file_left_alone(field: Field) -> None:
    field.time.step_wall(90 * DAY - 0.9)
    (path,) = field.capture()
    before = (field.trap.storage.spool / path).stat()
    field.synchronise()
    assert field.settle() == 1
    assert (field.trap.storage.spool / path).stat() == before
    assert field.rows()[0]["timing"] == "confirmed"
    assert field.trap.deliver(field.home).delivered == 1


@pytest.mark.parametrize("step", [-HOUR, -DAY, 90 * DAY])
def test_after_a_step_no_two_images_share_a_name_and_all_times_end_right(field: Field, step: float) -> None:
    field.synchronise()
    field.time.is_trusted = False
    field.capture(5, every=1.0)
    field.time.step_wall(step)
    field.capture(5, every=1.0)
    field.time.step_wall(-step)
    field.capture(5, every=0.4)  # faster than seconds pass
    field.synchronise()
    field.settle()
    rows = field.rows()
    assert len({row["key"] for row in rows}) == 15
    assert field.trap.deliver(field.home).delivered == 15
    assert len(field.home.sent) == len(set(field.home.sent)) == 15


def test_an_image_whose_true_second_is_taken_gets_the_nearest(field: Field) -> None:
    field.time.step_wall(0.75 - field.time.wall() % 1)
    field.capture(3, every=0.1)
    field.synchronise()
    assert field.settle() == 3
    field.check()


def test_the_name_of_an_image_that_left_the_card_is_not_given_again(field: Field) -> None:
    field.synchronise()
    (gone,) = field.capture(every=0)
    field.trap.deliver(field.home)
    field.trap.prune()
    field.time.is_trusted = False
    field.time.step_wall(-HOUR)
    field.capture(every=0)
    field.synchronise()
    field.settle()
    assert Path(gone).name not in {Path(path).name for path in field.trap.on_card()}
    assert len({row["key"] for row in field.rows()}) == 2


def test_a_trap_whose_owner_vouches_for_its_clock_holds_nothing(field: Field) -> None:
    field.capture(2)
    field.settings = Settings(trap=TrapSettings(clock="trusted"), storage=field.trap.storage)
    assert field.settle() == 2
    assert field.trap.deliver(field.home).delivered == 2
    assert {row["timing"] for row in field.rows()} == {"confirmed"}


# ── Never correctable ────────────────────────────────────────────────────────────────────────────────


def between(field: Field, key: str) -> tuple[float | None, float | None]:
    (row,) = [row for row in field.rows() if row["key"] == key]
    return clock_correction.bounds(field.trap.catalog.times.boots(), row["boot_id"], row["monotonic"])


def test_images_of_a_boot_that_ended_first_are_bounded_by_their_neighbours_and_stay_held(
    field: Field,
) -> None:
    field.synchronise()
    field.settle()
    field.capture(2)
    last_known = field.now() - 1200
    field.reboot(HOUR, wrong_by=-30 * DAY)
    field.settle()
    unsure = field.capture(3)
    field.reboot(HOUR, wrong_by=-30 * DAY)
    field.settle()
    assert field.trap.catalog.times.timings() == {"held": 0, "unsure": 3}
    first, second, _ = (Path(path).name for path in unsure)
    assert between(field, first)[1] is None
    field.synchronise()
    field.settle()
    began = field.now() - field.time.monotonic()
    for name, monotonic in ((first, 10.0), (second, 1210.0)):
        (row,) = [row for row in field.rows() if row["key"] == name]
        truth = field.truth[field.picture(row["path"])]
        earliest, latest = between(field, name)
        assert earliest == pytest.approx(last_known + monotonic, abs=0.01)
        assert latest == pytest.approx(began - (2410.0 - monotonic), abs=0.01)
        assert earliest
        assert latest
        assert earliest <= truth <= latest
    field.trap.deliver(field.home)
    assert len(field.home.sent) == 2
    field.trap.restart()


def test_the_owner_may_have_unsure_images_delivered_as_they_are(field: Field) -> None:
    paths = field.capture(2)
    field.reboot(HOUR, wrong_by=-30 * DAY)
    assert field.settle() == 0
    field.settings = Settings(
        trap=TrapSettings(timezone="Asia/Kathmandu", uncertain_times="deliver"), storage=field.trap.storage
    )
    assert field.settle() == 2
    field.trap.deliver(field.home)
    assert sorted(field.home.sent) == [Path(path).name for path in paths]
    assert {row["timing"] for row in field.rows()} == {"released"}
    field.trap.restart()


# ── A card with a history ────────────────────────────────────────────────────────────────────────────


def lose_catalog(field: Field) -> None:
    """The daemon begins again without a catalog."""
    field.trap.catalog.close()
    for path in field.trap.storage.state.glob("catalog.sqlite*"):
        path.unlink()
    field.trap.restart()
    field.trap.register(field.home)
    field.trap.ingest()


def test_a_corrected_image_is_known_as_such_when_the_catalog_is_lost(field: Field) -> None:
    field.capture(2)
    field.synchronise()
    field.settle()
    field.trap.deliver(field.home)
    before = {(row["key"], row["sha256"], row["timing"], row["clock_offset"]) for row in field.rows()}
    lose_catalog(field)
    assert field.settle() == 0
    after = {(row["key"], row["sha256"], row["timing"], row["clock_offset"]) for row in field.rows()}
    assert {(k, s, t) for k, s, t, _ in after} == {(k, s, t) for k, s, t, _ in before}
    field.trap.deliver(field.home)
    assert len(field.home.sent) == 2  # asked for, not sent again


@pytest.mark.parametrize("with_catalog", [True, False])
def test_an_earlier_boot_is_known_by_one_image_of_it(field: Field, with_catalog: bool) -> None:
    field.capture(2)
    field.synchronise()
    field.capture(1)  # and the daemon dies before it puts anything right
    field.reboot(HOUR, wrong_by=-30 * DAY)
    if not with_catalog:
        lose_catalog(field)
    assert field.settle() == 2
    field.check()


def test_a_held_image_that_is_taken_from_the_card_is_dropped_and_held_again_when_it_comes_back(
    field: Field,
) -> None:
    (path,) = field.capture()
    full = field.trap.storage.spool / path
    content = full.read_bytes()
    full.unlink()
    field.trap.ingest()
    assert field.trap.ledger() == (1, 0, 0, 0, 1)
    field.synchronise()
    assert field.settle() == 0
    full.write_bytes(content)
    field.trap.ingest()
    assert field.trap.ledger() == (1, 0, 1, 0, 0)
    assert field.settle() == 1
    field.check()


# ── Misfortunes ──────────────────────────────────────────────────────────────────────────────────────


def steps(field: Field, monkeypatch: pytest.MonkeyPatch, *, kill_at: int = -1) -> list[str]:
    """Settle, and note what durable side effects that has; killed at one of them, by its number."""
    hits: list[str] = []

    def hit(name: str) -> None:
        hits.append(name)
        if len(hits) - 1 == kill_at:
            raise Killed(name)

    monkeypatch.setattr(failpoint, "hit", hit)
    with suppress(Killed):
        field.settle()
    monkeypatch.setattr(failpoint, "hit", failpoint._pass)
    return hits


def test_killed_at_any_step_of_the_correction_each_image_is_there_once_and_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, name = 0, ""
    while name != "survived":
        trap = Trap(tmp_path / str(number))
        field = Field(trap)
        field.time.is_trusted = False
        field.time.step_wall(-90 * DAY)
        field.capture(2)
        field.synchronise()
        hits = steps(field, monkeypatch, kill_at=number)
        name = hits[number] if number < len(hits) else "survived"
        trap.restart()
        trap.ingest()  # a sweep comes first, and must take nothing for a new image
        assert trap.ledger() == (2, 0, 2, 0, 0), name
        field.settle()
        field.check()
        assert trap.deliver(field.home).delivered == 2, name
        assert sorted(field.home.sent) == sorted(row["key"] for row in field.rows()), name
        assert trap.ledger() == (2, 2, 0, 0, 0), name
        trap.catalog.close()
        number += 1
    assert number > 12
    assert {"correction: announced", "correction: written", "correction: recorded", "write: renamed"} <= set(
        hits
    )


def test_a_corrected_file_that_the_sweep_finds_before_it_is_recorded_is_no_new_image(field: Field) -> None:
    field.capture(2)
    field.synchronise()
    rewrite = field.rewrite

    def overtaken(corrections: Iterable[Correction]) -> Any:
        for one, outcome in rewrite(corrections):
            assert field.trap.ingest() == pipeline.Ingested()
            yield one, outcome
        assert field.trap.ingest() == pipeline.Ingested()

    field.rewrite = overtaken  # type: ignore[method-assign]
    assert field.settle() == 2
    assert field.trap.ledger() == (2, 0, 2, 0, 0)


def test_a_card_without_room_costs_no_image_and_what_was_written_counts(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.capture(3)
    field.synchronise()
    rewrite = field.rewrite
    written: list[Correction] = []

    def full(corrections: Iterable[Correction]) -> Any:
        for one, outcome in rewrite(corrections):
            if written:
                raise StorageError("the card is full")
            written.append(one)
            yield one, outcome

    monkeypatch.setattr(field, "rewrite", full)
    with pytest.raises(StorageError):
        field.settle()
    assert field.trap.catalog.times.timings()["held"] == 2
    monkeypatch.undo()
    assert field.settle() == 2
    field.check()


def test_an_image_that_cannot_be_corrected_keeps_no_other_back_is_shown_and_tried_again(
    field: Field,
) -> None:
    paths = field.capture(3)
    broken = field.trap.storage.spool / paths[0]
    stat, whole = broken.stat(), broken.read_bytes()
    damage(broken, whole[:-9] + b"\xff" * 9, stat)
    field.synchronise()
    assert field.settle() == 2
    assert field.trap.catalog.times.timings()["held"] == 1
    assert field.trap.catalog.times.announced() == {}
    told = Stopped(1, f"{broken.name}: it is no longer the image that was examined")
    assert field.trap.catalog.facts.read().times == told
    assert any(broken.name in reason for reason in field.status()["reasons"])
    damage(broken, whole, stat)  # it was the card's reader, and the card is well
    assert field.settle() == 0
    field.time.sleep(600)
    assert field.settle() == 1
    assert field.settle() == 0
    assert field.trap.catalog.facts.read().times is None
    field.check()


def test_an_image_that_never_can_be_corrected_is_tried_less_and_less_often(field: Field) -> None:
    (path,) = field.capture()
    broken = field.trap.storage.spool / path
    damage(broken, broken.read_bytes()[:-9] + b"\xff" * 9, broken.stat())
    field.synchronise()
    tries = 0
    rewrite = field.rewrite

    def counted(corrections: Iterable[Correction]) -> Any:
        nonlocal tries
        tries += 1
        return rewrite(corrections)

    field.rewrite = counted  # type: ignore[method-assign]
    for _ in range(30 * 24):  # a month of hours
        field.settle()
        field.time.sleep(3600)
    assert 30 <= tries <= 120
    broken.unlink()
    field.trap.ingest()
    field.settle()
    assert field.trap.catalog.facts.read().times is None


def damage(path: Path, content: bytes, stat: os.stat_result) -> None:
    """Other bytes, and nothing else shows it."""
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_stranger_under_the_name_is_not_written_over(field: Field) -> None:
    field.capture()
    field.synchronise()
    rewrite = field.rewrite

    def too_late(corrections: Iterable[Correction]) -> Any:
        some = list(corrections)
        for one in some:
            if not (field.trap.storage.spool / one.path).exists():
                drawings.put(field.trap.storage.spool, b"a stranger", one.path)
                break
        yield from rewrite(some)
        field.rewrite = rewrite  # type: ignore[method-assign]

    field.rewrite = too_late  # type: ignore[method-assign]
    assert field.settle() == 0
    assert field.settle() == 1
    assert [path.read_bytes() for path in field.trap.storage.spool.rglob("*.jpg")].count(b"a stranger") == 1


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("first", ["picture", "corrected"])
def test_a_picture_and_a_corrected_image_that_want_one_name_at_one_moment_both_stay(
    field: Field, monkeypatch: pytest.MonkeyPatch, first: str, links: bool
) -> None:
    """The name is free when each of them looks, and each has its file finished before one gets it."""
    if not links:  # a card with a FAT
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    field.capture(every=0)
    field.synchronise()
    claim = durable._claim

    def overtaken(path: Path, temporary: Path) -> bool:
        monkeypatch.setattr(durable, "_claim", claim)
        field.take() if first == "picture" else field.settle()
        assert path.exists()
        return claim(path, temporary)

    monkeypatch.setattr(durable, "_claim", overtaken)
    if first == "picture":
        assert field.settle() == 0
        assert field.settle() == 1
    else:
        field.take()
    field.trap.ingest()
    assert len({row["sha256"] for row in field.rows()}) == 2
    field.check()
    assert not list(field.trap.storage.spool.rglob(".*.part"))


def test_a_dangling_link_has_its_name_too(field: Field) -> None:
    (path,) = field.capture(every=0)
    link = field.trap.storage.spool / path
    link.unlink()
    link.symlink_to("nowhere")
    assert field.take() != path
    assert link.is_symlink()


def no_links(self: Path, _target: Path) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted", str(self))


@pytest.mark.parametrize("note", [b"", b"nonsense", b"trapsync 1 boot=x mono=1 wall=1 trusted=0"])
def test_exif_that_is_not_ours_is_not_written_anew(note: bytes) -> None:
    picture = drawings.with_exif({"Exif": {piexif.ExifIFD.MakerNote: note}})
    with pytest.raises(DamagedImage):
        exif.correct(picture, drawings.TAKEN, 1.0, 2.0)
    with pytest.raises(DamagedImage):
        exif.correct(drawings.plain(), drawings.TAKEN, 1.0, 2.0)


def test_a_correction_leaves_all_else_in_the_exif_as_it_was() -> None:
    seen = Evidence("boot", 12.5, 1000.25, trusted=False)
    before = exif.embed_metadata(
        drawings.plain(), drawings.facts(evidence=seen, taken=drawings.TAKEN - timedelta(days=90))
    )
    after = exif.correct(before, drawings.TAKEN, 5000.0, 1652813182)
    was, is_ = (exif.read(drawings.block_of(one))[0] for one in (before, after))
    changed = {"DateTime", "DateTimeOriginal", "DateTimeDigitized"}
    assert {key: value for key, value in was.items() if key not in changed} == {
        key: value for key, value in is_.items() if key not in changed
    }
    assert exif.read(drawings.block_of(after))[1] == Evidence("boot", 12.5, 1000.25, False, 5000.0)
    # As if it had been taken under that clock.
    right = exif.embed_metadata(
        drawings.plain(), drawings.facts(evidence=Evidence("boot", 12.5, 1000.25, False, 5000.0))
    )
    assert exif.read(drawings.block_of(right)) == exif.read(drawings.block_of(after))


# ── The real daemon ──────────────────────────────────────────────────────────────────────────────────


class Machine(daemon_process.Daemon):
    """The real daemon and its commands on a machine whose clock can be stepped and set."""

    def __init__(
        self, folder: Path, more: str = "", *, wrong_by: float = 0.0, camera: str = "simulated"
    ) -> None:
        super().__init__(folder, more, camera=camera)
        text = self.config.read_text().replace('clock = "trusted"', 'clock = "auto"')
        self.config.write_text(text.replace('every = "1 s"\n[ingest]', 'every = "2 s"\n[ingest]'))
        self.clock = folder / "clock"
        self.clock.mkdir()
        self.step(wrong_by)

    def step(self, wrong_by: float) -> None:
        """Let the wall clock be wrong by so many seconds."""
        descriptor = os.open(self.clock / "wrong_by", os.O_WRONLY | os.O_CREAT)
        os.pwrite(descriptor, f"{wrong_by:32}".encode(), 0)  # in place, for whoever has it open
        os.close(descriptor)

    def synchronise(self) -> None:
        """As timesyncd does it: first the clock, then the file."""
        self.step(0.0)
        (self.clock / "set").touch()

    def popen(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start the daemon or a command; what it says goes to the log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).parents[1] / "helpers" / "wrong_clock.py"),
                    "-c",
                    str(self.config),
                    *arguments,
                ],
                stderr=log,
                stdout=log,
                env=os.environ | {"CLOCK": str(self.clock)} | environment,
                start_new_session=True,
            )

    def start(self, *arguments: str, **environment: str) -> None:
        self._process = self.popen("run", *arguments, **environment)

    def cpu(self) -> float:
        """Seconds of CPU that the daemon's own process took."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def evidence(self) -> list[tuple[str, Evidence]]:
        """(name, evidence) of every image on the card, in the order in which they were taken."""
        found = [
            examination.examine(self.spool, str(p.relative_to(self.spool))) for p in self.spool.rglob("*.jpg")
        ]
        return sorted(((i.name, i.evidence) for i in found if i.evidence), key=lambda one: one[1].monotonic)


def test_the_daemon_corrects_what_it_took_90_days_in_the_past_before_it_delivers_it(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        more = daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        trap = Machine(tmp_path, more, wrong_by=-90 * DAY)
        text = trap.config.read_text().replace("[trap]", '[trap]\ntimezone = "America/Panama"')
        trap.config.write_text(text)
        trap.start("--captures", "3")
        try:
            trap.until(lambda facts: facts["clock"]["held"] == 3)
            wrong = dict(trap.evidence())
            offset = datetime.now(UTC).timestamp() - time.monotonic()
            assert hub.stored() == {}
            trap.synchronise()
            facts = trap.until(lambda facts: facts["ledger"]["delivered"] == 3)
            assert (facts["clock"]["held"], facts["ledger"]["captured"]) == (0, 3)
            right = trap.evidence()
            assert set(hub.stored()) == {name for name, _ in right}
            for picture in trap.spool.rglob("*.jpg"):  # in local time, as they were written
                tags, _ = exif.read(drawings.block_of(picture.read_bytes()))
                local = datetime.strptime(picture.name[9:28], "%Y-%m-%d_%H-%M-%S") - timedelta(hours=5)
                assert tags["DateTimeOriginal"] == f"{local:%Y:%m:%d %H:%M:%S}"
                assert tags["OffsetTimeOriginal"] == "-05:00"
            assert not set(hub.stored()) & set(wrong)
            errors = []
            for name, seen in right:
                parsed = parse_name(name)
                assert parsed
                errors.append(abs(parsed.taken.timestamp() - (seen.monotonic + offset)))
                assert seen.offset == pytest.approx(offset, abs=0.5)
            assert max(errors) < 2
            sys.stdout.write(f"3 images of 90 days ago: right to {max(errors):.2f} s before any was sent\n")
            assert [seen.wall for _, seen in right] == sorted(seen.wall for seen in wrong.values())
            said = json.loads(trap.run("clock", "--json").stdout)
            assert said["images"]["corrected"] == 3
            assert trap.stop() == 0
        finally:
            end(trap)


def end(trap: Machine) -> None:
    if trap._process and trap._process.poll() is None:
        os.killpg(trap.pid, signal.SIGKILL)
        trap.wait()


def test_a_clock_that_is_stepped_while_the_daemon_runs_costs_no_picture_and_no_cpu(tmp_path: Path) -> None:
    trap = Machine(tmp_path)
    trap.start()
    try:
        wrong_by, pictures, spent = 0.0, 2, []
        for step in (-HOUR, -DAY, 90 * DAY):
            trap.until(lambda facts: facts["ledger"]["captured"] >= pictures)  # noqa: B023 - called at once
            before, wrong_by, pictures = trap.cpu(), wrong_by + step, pictures + 3
            trap.step(wrong_by)
            trap.until_log(f"stepped by {step:+.0f} s")
            trap.until(lambda facts: facts["ledger"]["captured"] >= pictures)  # noqa: B023
            spent.append(trap.cpu() - before)
        assert trap.stop() == 0
        assert max(spent) < 1.0, "three pictures and a step"
        names, evidence = zip(*trap.evidence(), strict=True)
        gaps = [after.monotonic - before.monotonic for before, after in pairwise(evidence)]
        assert max(gaps) <= 4.0  # two intervals
        # None is made up for: one that is would come at once. A late one is followed by one that is not, by less.
        assert min(gaps) >= 0.5
        # Of the files only: had two had one name, the catalog would have counted one more.
        assert len(set(names)) == len(names) == trap.status()["ledger"]["captured"]
        sys.stdout.write(
            f"{len(names)} pictures every 2 s over steps of -1 h, -1 d, +90 d: gaps of {min(gaps):.2f} to "
            f"{max(gaps):.2f} s; CPU around each step {', '.join(f'{one:.2f}' for one in spent)} s\n"
        )
    finally:
        end(trap)


@pytest.mark.parametrize(
    "place",
    ["correction: announced#1", "correction: written#1", "correction: recorded#1", "prune: removed#2"],
)
def test_killed_for_good_in_the_middle_of_a_correction_no_image_is_lost_and_none_is_twice(
    tmp_path: Path, place: str
) -> None:
    more = daemon_process.deliver_to(tmp_path, "http://127.0.0.1:9", "nobody", "nothing")
    trap = Machine(tmp_path, more, camera="none")
    boot = "4f0c0d5e-0000-4000-8000-000000000000"
    for number in range(4):
        monotonic, is_set = 100.0 + 60 * number, number == 3
        wall = drawings.TAKEN.timestamp() + monotonic - (0 if is_set else DAY)
        taken = datetime.fromtimestamp(wall, UTC)
        name = f"{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        seen = Evidence(boot, monotonic, wall, is_set)
        drawings.put(trap.spool, drawings.trap(seed=number, taken=taken, evidence=seen), name)
    assert trap.popen("deliver", TRAPSYNC_FAILPOINT=place).wait(60) == -signal.SIGKILL
    assert trap.popen("deliver").wait(60) == 1  # there is no server
    rows = json.loads(trap.run("images", "--json").stdout)
    assert sorted(row["path"] for row in rows) == sorted(
        str(path.relative_to(trap.spool)) for path in trap.spool.rglob("*.jpg")
    )
    assert sorted(name for name, _ in trap.evidence()) == [
        f"{drawings.DEVICE}.{drawings.TAKEN + timedelta(seconds=100 + 60 * n):%Y-%m-%d_%H-%M-%S}.jpg"
        for n in range(4)
    ]
    assert [row["timing"] for row in rows] == [None, "corrected", "corrected", "corrected"]
    assert trap.status()["ledger"] == {
        "captured": 4,
        "delivered": 0,
        "pending": 4,
        "quarantined": 0,
        "dropped": 0,
        "lost": 0,
    }
