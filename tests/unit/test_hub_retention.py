"""What is older than [hub.keep] says is deleted at the hub, and nothing else, whatever a clock says."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import reported
from drawings import DEVICE
from fake_time import FakeTime
from trapsync.clock import iso, utc
from trapsync.files import failpoint
from trapsync.hub.app import Hub
from trapsync.hub.believed_time import DAY, LOOK_EVERY
from trapsync.hub.retention import Retention
from trapsync.settings.hub import Keep
from trapsync.settings.units import Keeping

OTHER = "0a1b2c3e"
START = datetime(2026, 6, 21, 21, tzinfo=UTC)
KEPT = 30  # days
PICTURE = b"picture"


class Season:
    """A hub to which a picture of each night comes, in the time of a test."""

    def __init__(self, folder: Path, **keep: float) -> None:
        self.time = FakeTime(START.timestamp())
        self.folder = folder
        self.keep = Keep(**{what: Keeping(days * DAY) for what, days in keep.items()})
        self.hub = Hub.open(folder, self.time)
        self.start_again()

    def start_again(self) -> None:
        self.hub.database.close()
        self.hub = Hub.open(self.folder, self.time)
        hub = self.hub
        self.retention = Retention(hub.database, hub.store, hub.thumbnails, self.keep, self.time)

    def put(self, taken: datetime | None = None, device: str = DEVICE) -> dict[str, Any]:
        now = utc(self.time.wall())
        row = dict.fromkeys(
            ("device_version", "lat", "lng", "alt", "temp", "hum", "lum", "bat", "but", "api_user_id")
        )
        row |= {
            "device": device,
            "datetime": iso(taken or now),
            "md5": md5(PICTURE).hexdigest(),
            "width": 1,
            "height": 1,
        }
        row |= {"datetime_created": iso(now), "api_version": "1"}
        arrival = self.hub.store.incoming / "arrived.jpg"
        arrival.write_bytes(PICTURE)
        self.hub.store.keep(row, arrival)
        return row

    def look(self) -> None:
        """Let the hub do all that it would do now."""
        while self.retention.step() < LOOK_EVERY:
            pass

    def nights(self, count: int, *, come: bool = True) -> None:
        """Let so many nights pass, in which the hub runs."""
        for _ in range(count):
            if come:
                self.put()
            self.time.sleep(DAY)
            self.look()

    def images(self, device: str = DEVICE) -> list[str]:
        with self.hub.database.reading() as connection:
            rows = connection.execute("SELECT * FROM images WHERE device = ?", (device,)).fetchall()
        assert all(self.hub.store.path(dict(row)).exists() for row in rows)
        assert len(rows) == len(list((self.folder / "images" / device).rglob("*.jpg")))
        return [row["datetime"] for row in rows]

    def count(self, table: str) -> int:
        with self.hub.database.reading() as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def season(tmp_path: Path) -> Iterator[Season]:
    found = Season(tmp_path / "hub", images=KEPT)
    yield found
    found.hub.database.close()


def test_each_picture_is_kept_as_long_as_is_set_and_a_day_at_most_longer(season: Season) -> None:
    season.nights(KEPT + 20)
    first = utc(season.time.wall()) - timedelta(days=KEPT + 1)
    assert season.images() == [iso(START + timedelta(days=day)) for day in range(20, KEPT + 20)]
    assert season.images()[0] >= iso(first)
    assert len(list((season.folder / "images" / DEVICE).iterdir())) == KEPT


def test_without_a_setting_nothing_is_ever_deleted(tmp_path: Path) -> None:
    season = Season(tmp_path)
    season.nights(1)
    season.time.sleep(1000 * DAY)
    season.nights(20)
    assert len(season.images()) == 21


def test_what_was_deleted_is_told_once_a_day(season: Season, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    season.nights(KEPT + 5)
    told = [record.message for record in caplog.records if "deleted" in record.message]
    assert told == ["deleted what is older than [hub.keep] says: 1 images"] * 5


def test_a_clock_that_jumps_years_ahead_deletes_nothing_however_long_it_stays(season: Season) -> None:
    season.nights(10)
    season.time.step_wall(4 * 365 * DAY)
    season.nights(30, come=False)
    assert len(season.images()) == 10


def test_a_hub_that_starts_years_ahead_deletes_nothing(season: Season) -> None:
    season.nights(10)
    season.time.reboot()
    season.time.step_wall(4 * 365 * DAY)
    season.start_again()
    season.nights(30, come=False)
    assert len(season.images()) == 10


def test_after_a_jump_nothing_is_deleted_for_a_week_even_where_a_trap_agrees(
    season: Season, caplog: pytest.LogCaptureFixture
) -> None:
    season.nights(10)
    season.time.step_wall(4 * 365 * DAY)
    season.put(device=OTHER)  # the same time server lied to it
    season.nights(6, come=False)
    assert "nothing that is old is deleted for 7 days" in caplog.text
    season.start_again()  # which does not make the week shorter, nor begin it again
    season.time.step_wall(-4 * 365 * DAY)
    season.nights(6, come=False)
    assert len(season.images()) == 10


def test_a_hub_that_starts_years_ahead_waits_a_week_even_where_a_trap_agrees(season: Season) -> None:
    season.nights(10)
    season.time.reboot()
    season.time.step_wall(4 * 365 * DAY)
    season.start_again()
    season.put(device=OTHER)
    season.nights(6, come=False)
    assert len(season.images()) == 10


def test_a_week_after_a_jump_it_goes_on(season: Season) -> None:
    season.nights(10)
    season.time.step_wall(400 * DAY)
    season.nights(9)
    assert season.images()[0] > iso(START + timedelta(days=400))


def test_what_came_while_the_clock_was_behind_is_old_by_its_own_time_only(season: Season) -> None:
    season.time.step_wall(-300 * DAY)
    season.put(START)
    season.time.step_wall(300 * DAY)
    season.put(START - timedelta(days=200))
    season.time.sleep(DAY)
    season.nights(KEPT - 2)
    assert season.images()[:2] == [iso(START - timedelta(days=200)), iso(START)]


def test_a_picture_that_comes_late_is_kept_from_then_on(season: Season) -> None:
    season.put(START - timedelta(days=200), OTHER)
    season.nights(KEPT)
    assert len(season.images(OTHER)) == 1
    season.nights(3)
    assert season.images(OTHER) == []


def test_a_trap_whose_clock_is_in_the_past_loses_nothing_sooner(season: Season) -> None:
    season.nights(10)
    season.put(datetime(2019, 12, 1, tzinfo=UTC), OTHER)
    season.nights(KEPT - 1)
    assert len(season.images(OTHER)) == 1


def test_what_says_to_be_years_ahead_makes_nothing_else_old(season: Season) -> None:
    later = 4 * 365 + 60
    season.put(START + timedelta(days=later), OTHER)
    reported.heard(season.hub)
    season.hub.reports.take(DEVICE, reported.lines(reported.night(later)), 0)
    season.nights(10)
    season.time.step_wall(4 * 365 * DAY)
    season.nights(30, come=False)
    assert len(season.images()) == 10


def test_where_nothing_new_comes_nothing_ages(season: Season) -> None:
    season.nights(10)
    season.nights(3 * KEPT, come=False)
    assert len(season.images()) == 10


def test_a_winter_in_which_the_hub_was_off_is_no_jump_if_it_is_a_month(season: Season) -> None:
    season.nights(20)
    season.time.sleep(30 * DAY)
    season.time.reboot()
    season.start_again()
    season.nights(1)
    assert season.images()[0] > iso(START)


def test_with_an_image_go_its_annotations_and_its_small_copies(season: Season) -> None:
    row = season.put()
    copies = season.hub.thumbnails._paths(season.hub.store.path(row))
    copies[0].parent.mkdir(parents=True)
    for path in copies:
        path.touch()
    _annotate(season)
    season.time.sleep(DAY)
    season.nights(KEPT + 2)
    assert season.count("uid_annotations") == 0
    assert not any(path.exists() for path in copies)


def _annotate(season: Season) -> None:
    with season.hub.database.writing() as connection:
        connection.execute(
            "INSERT INTO uid_annotations (parent_image_id, algo_name, algo_version, n_objects, json, datetime_created, "
            "api_version) SELECT max(id), 'a', '1', 0, '{}', ?, '1' FROM images",
            (iso(utc(season.time.wall())),),
        )


def test_annotations_reports_and_heartbeats_end_each_by_its_own_setting(tmp_path: Path) -> None:
    season = Season(tmp_path / "hub", annotations=40, reports=60, heartbeats=50)
    hub = season.hub
    for day in range(100):
        reported.heard(hub)
        season.put()
        _annotate(season)
        hub.reports.take(DEVICE, reported.lines(reported.night(day)), 0)
        season.nights(1, come=False)
    ended = {**reported.deployment(0), "ended": iso(START + timedelta(days=3))}
    hub.reports.take(DEVICE, reported.lines(ended, reported.deployment(5)), 0)
    season.nights(1)
    assert len(season.images()) == 101
    assert (season.count("uid_annotations"), season.count("heartbeats")) == (39, 49)
    assert len(reported.held(hub.reports)) == 60
    season.nights(62)
    assert [one.began for _, one in hub.reports.deployments()] == [START.replace(hour=20) + timedelta(days=5)]
    assert season.count("heartbeats") == 1  # by which the trap is known


def test_of_a_trap_that_rests_the_newest_report_stays_by_which_it_knows_the_hub(tmp_path: Path) -> None:
    season = Season(tmp_path / "hub", reports=60)
    reported.heard(season.hub)
    season.hub.reports.take(DEVICE, reported.lines(reported.night(0), reported.night(1)), 0)
    newest = season.hub.reports.take(DEVICE, b"", 0)["newest"]
    season.nights(70)
    assert list(reported.held(season.hub.reports)) == [reported.night(1)["night"]]
    assert season.hub.reports.take(DEVICE, b"", newest)["newest"] == newest


def test_a_step_that_fails_is_done_again_at_the_next_look(
    season: Season, monkeypatch: pytest.MonkeyPatch
) -> None:
    season.nights(KEPT)
    season.put()
    season.time.sleep(DAY)
    with monkeypatch.context() as patch:
        patch.setattr(season.hub.store, "delete", Mock(side_effect=OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            season.look()
    season.time.sleep(LOOK_EVERY)
    season.look()
    assert season.images()[0] == iso(START + timedelta(days=1))


def test_a_file_that_cannot_be_removed_costs_itself_and_no_start(
    season: Season, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [season.put(START + timedelta(seconds=second)) for second in range(3)]
    victim = season.hub.store.path(rows[1])
    victim.unlink()
    victim.mkdir()  # which is not removed like a file, by root either
    assert len(season.hub.store.delete((row["device"], row["datetime"]) for row in rows)) == 3
    assert [path.name for path in victim.parent.iterdir()] == [victim.name]
    assert f"files of 1 deleted images stay: {victim}: " in caplog.text
    caplog.clear()
    row = season.put(START + timedelta(seconds=9))
    season.hub.store.delete([(row["device"], row["datetime"])])
    assert not season.hub.store.path(row).exists()
    assert "stay" not in caplog.text
    season.start_again()
    assert season.count("removed_images") == 1
    victim.rmdir()
    season.start_again()
    assert season.count("removed_images") == 0


def test_a_small_copy_that_cannot_be_removed_keeps_no_image(season: Season) -> None:
    copies = season.hub.thumbnails._paths(season.hub.store.path(season.put()))
    copies[0].mkdir(parents=True)
    season.time.sleep(DAY)
    season.nights(KEPT + 2)
    assert season.images()[0] > iso(START)


def test_a_hub_that_is_killed_at_any_point_of_a_deletion_leaves_no_file_without_a_row(tmp_path: Path) -> None:
    names = ("hub: before the commit", "hub: committed", "hub: deleted", "hub: folder removed")
    for number, name in enumerate(name for name in names for _ in range(3)):
        season = Season(tmp_path / str(number), images=KEPT)
        rows = [season.put(START + timedelta(seconds=second)) for second in range(3)]
        hits = [number % 3 + 1]

        def die(at: str, name: str = name, hits: list[int] = hits) -> None:
            hits[0] -= at == name
            if at == name and not hits[0]:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(failpoint, "hit", die)
            season.hub.store.delete((row["device"], row["datetime"]) for row in rows)
        season.start_again()
        assert len(season.images()) in {0, 3}, name
        assert season.count("removed_images") == 0


def test_an_image_that_came_again_before_its_old_file_was_gone_stays(season: Season) -> None:
    row = season.put()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", Mock(side_effect=PermissionError))
        season.hub.store.delete([(row["device"], row["datetime"])])
    season.put()
    season.start_again()
    assert len(season.images()) == 1
    assert not season.hub.store.conflicts.exists()
