"""A hub with as many traps and images as one wants, made in seconds: rows in its database, and a few small JPEGs.

The newest image of each trap, and its small copies, have a file; all others are rows only.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import drawings
from hub_server import RunningHub
from trapsync.clock import iso
from trapsync.hub.store import place_of
from trapsync.jpeg import examination

REASONS = (
    "nothing was delivered for 9 h: the server cannot be reached (connection timed out); it is tried again in 40 min",
    "the card is full in 3 days: delivery is slower than the camera",
    "the battery is at 18 %, and empty in 2 days",
)
_STATES = ("effective", "trial", "validated", "rolled_back", None)


def fill(hub: RunningHub, traps: int, images: int) -> list[str]:
    """Make traps, each heard within the hour, and images, evenly; the devices."""
    now = hub.hub.clock.wall()
    devices = [f"{0x0A000000 + number:08x}" for number in range(traps)]
    each = images // traps
    with hub.hub.database.writing() as connection:
        connection.executemany(
            "INSERT INTO traps (device, name, named, joined) VALUES (?, ?, ?, ?)",
            [(device, _name(number), now - 9e5, now - 9e5) for number, device in enumerate(devices)],
        )
        connection.executemany(
            "INSERT INTO heartbeats (device, received, body) VALUES (?, ?, ?)",
            [(device, now - number % 700, _beat(number, device)) for number, device in enumerate(devices)],
        )
        add_images(connection, devices, each, now)
    _give_files(hub, devices)
    return devices


def add_images(connection: sqlite3.Connection, devices: list[str], each: int, now: float) -> None:
    """So many rows of images for each device, one in ten minutes, the newest ten minutes ago."""
    md5, made = hashlib.md5(_picture()).hexdigest(), iso(datetime.fromtimestamp(now, UTC))
    newest = datetime.fromtimestamp(now, UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    moments = [iso(newest - timedelta(minutes=10 * step)) for step in range(each)]
    connection.executemany(
        "INSERT INTO images (device, datetime, md5, width, height, lat, lng, temp, hum, bat, datetime_created, api_version) "
        "VALUES (?, ?, ?, 640, 480, ?, ?, 14.5, 80.0, 70, ?, '1')",
        (
            (device, moment, md5, *_place(number), made)
            for number, device in enumerate(devices)
            for moment in moments
        ),
    )


def _give_files(hub: RunningHub, devices: list[str]) -> None:
    original = hub.folder / "original.jpg"
    original.write_bytes(_picture())
    with hub.hub.database.reading() as connection:
        for device in devices:
            sql = "SELECT * FROM images WHERE device = ? ORDER BY datetime DESC LIMIT 1"
            row = connection.execute(sql, (device,)).fetchone()
            for path in _paths(hub, dict(row)) if row else ():
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(original, path)


def _paths(hub: RunningHub, row: dict[str, Any]) -> Iterator[Any]:
    yield hub.store.path(row)
    yield from examination.thumbnail_paths(hub.folder / "thumbnails", str(place_of(row)))


def _picture() -> bytes:
    return drawings.plain(320, 240)


def _name(number: int) -> str:
    return f"{('valley', 'ridge', 'bog', 'orchard')[number % 4]}-{number // 4 + 1}"


def _place(number: int) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if number % 10 == 9 else (46.2 + number % 23 * 0.011, 6.1 + number // 23 * 0.013)


def _beat(number: int, device: str) -> str:
    """Most are fine; some warn, some fail, some have a closed schedule."""
    verdict = "failing" if number % 50 == 7 else "warning" if number % 17 == 3 else "ok"
    reasons = {"failing": [REASONS[0], REASONS[1]], "warning": [REASONS[number % 3]], "ok": []}[verdict]
    content: dict[str, Any] = {
        "schema": 1,
        "device": device,
        "name": _name(number),
        "version": "0.1.0",
        "every_s": 900,
        "verdict": verdict,
        "reasons": reasons,
        "newest_image": {"name": "x.jpg", "age_s": 600 + number},
        "newest_delivery_age_s": 700 + number,
        "schedule_open": number % 3 != 0,
        "next_picture_s": 7200 + 60 * number % 3600 if number % 3 == 0 else 300,
        "last_night": {"night": "2026-06-20", "expected": 120, "taken": 120 - number % 9, "missed": {}},
        "ledger": {
            "captured": 9000,
            "delivered": 8990,
            "pending": number % 11,
            "quarantined": 0,
            "dropped": 0,
        },
        "disk": {"free_bytes": 2e10, "days_left": 20 + number},
        "battery": 30 + number % 70,
        "battery_days": 5 + number % 60,
        "clock": {"trusted": True},
        "remote": {"version": number % 5, "state": _STATES[number % 5]} if number % 5 else {},
    }
    return json.dumps(content)
