"""A hub whose disk is full, or almost: it says so, stores nothing and nothing by half, and goes on when there is room."""

import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import requests

import drawings
import hub_server
from fake_time import FakeTime
from hub_server import RunningHub
from trapsync.files import durable, space
from trapsync.hub.database import Database

DEVICE, NAME = drawings.DEVICE, drawings.NAME
OTHER = NAME.replace("_20-", "_21-")
ANNOTATION = [{"annotations": [], "metadata": {"algo_name": "a", "algo_version": "1", "device": DEVICE,
               "datetime": "2026-06-21T20:19:15Z", "md5": ""}}]  # fmt: skip


def beat(hub: RunningHub) -> requests.Response:
    """Send a heartbeat."""
    url = f"{hub.url}/heartbeats/{DEVICE}"
    return requests.post(url, json={"device": DEVICE}, auth=hub.auth(), timeout=30)


def stored(hub: RunningHub) -> list[str]:
    """Every file in the folders of images, and what the tables hold."""
    files = [str(path) for name in ("images", "conflicts") for path in (hub.folder / name).rglob("*.*g")]
    with hub.hub.database.reading() as connection:
        tables = "heartbeats", "images", "uid_annotations"
        return files + [
            str(tuple(row)) for table in tables for row in connection.execute(f"SELECT * FROM {table}")
        ]


def test_below_the_floor_nothing_is_stored_and_everything_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeTime()
    with hub_server.running(tmp_path, clock=clock, min_free=10**6) as hub:
        assert hub.upload(NAME, drawings.trap()).status_code == 200
        assert beat(hub).status_code == 200
        before = stored(hub)
        monkeypatch.setattr(space, "free_bytes", lambda _folder: 10**6 - 1)
        caplog.clear()
        for _ in range(3):
            for answer in (
                hub.upload(OTHER, drawings.trap(seed=2)),
                hub.upload(NAME, drawings.trap(seed=3)),  # a conflict
                hub.ask("put_uid_annotations", ANNOTATION),
                beat(hub),
            ):
                assert answer.status_code == 507
                assert answer.text == (
                    "this hub has 1 MB of room left, and is to leave 1 MB free: nothing more is stored\n"
                )
        assert stored(hub) == before
        assert len([one for one in caplog.records if "nothing more is stored" in one.message]) == 1
        clock.sleep(61)
        assert beat(hub).status_code == 507
        assert len([one for one in caplog.records if "nothing more is stored" in one.message]) == 2
        assert len(hub.ask("get_images/metadata", [ANNOTATION[0]["metadata"]]).json()) == 1
        monkeypatch.undo()
        assert hub.upload(OTHER, drawings.trap(seed=2)).status_code == 200


def test_a_full_database_is_told_as_that_and_what_was_sent_is_taken_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with hub_server.running(tmp_path) as hub:
        hub.auth()
        connect = Database._connect

        def full(self: Database) -> sqlite3.Connection:
            connection = connect(self)
            connection.execute("PRAGMA max_page_count = 1")  # it is as many as there are
            return connection

        monkeypatch.setattr(Database, "_connect", full)
        hub.hub.database._resting.clear()
        statuses = set()
        for number in range(40):  # until the last page is full
            statuses.add(
                hub.upload(f"{DEVICE}.2026-06-21_20-20-{number:02}.jpg", drawings.trap()).status_code
            )
        assert statuses == {200, 507}
        count = len(hub.rows())
        monkeypatch.undo()
        hub.hub.database._resting.clear()
        assert hub.upload(f"{DEVICE}.2026-06-21_20-20-39.jpg", drawings.trap()).status_code == 200
        assert len(hub.stored()) == count + 1
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("module", "call"), [(os, "fsync"), (durable, "make_folder"), (durable, "flush_folder")]
)
def test_a_full_disk_is_told_as_that_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: Any, call: str
) -> None:
    with hub_server.running(tmp_path) as hub:
        hub.auth()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "somewhere")

        monkeypatch.setattr(module, call, full)
        assert hub.upload(NAME, drawings.trap()).status_code == 507
        monkeypatch.undo()
        assert hub.rows() == []
        assert list((tmp_path / "images" / ".incoming").iterdir()) == []
        assert hub.upload(NAME, drawings.trap()).status_code == 200
    assert not any(record.exc_info for record in caplog.records)


def test_a_mistake_of_the_hubs_own_is_one_line_to_who_asks_and_loud_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with hub_server.running(tmp_path) as hub:
        hub.auth()
        monkeypatch.setattr(type(hub.hub.fleet), "take", lambda *_: 1 / 0)
        answer = beat(hub)
    assert answer.status_code == 500
    assert "a bug in the hub: its log has more" in answer.text
    assert [record.exc_info is not None for record in caplog.records] == [True]
