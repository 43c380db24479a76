"""A hub's database with many images, heartbeats and nights, written in seconds: rows without files."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import reported
from trapsync.clock import iso
from trapsync.hub.database import Database

NOW = datetime(2026, 6, 25, 10, tzinfo=UTC)
_IMAGE = (
    "INSERT INTO images (device, datetime, md5, width, height, temp, hum, bat, datetime_created, api_version) "
    "VALUES (?, ?, ?, 1600, 1200, ?, ?, ?, '2026-06-25T10:00:00Z', '1')"
)


def device(number: int) -> str:
    """The id of a trap."""
    return f"{number:08x}"


def beat(number: int, **more: Any) -> dict[str, Any]:
    """A heartbeat of that trap."""
    return {
        "schema": 1,
        "device": device(number),
        "name": f"valley-{number}",
        "version": "1.0",
        "every_s": 900,
        "verdict": "ok",
        "reasons": [],
        "newest_image": {"name": "0000.jpg", "age_s": 600.0},
        "ledger": {"captured": 1200, "delivered": 1190, "pending": 10, "quarantined": 0, "dropped": 0},
        "disk": {"free_bytes": 2.0e10, "days_left": 80.0},
        "clock": {"trusted": True, "held": 0, "unsure": 0},
        "battery": 77.0,
        "remote": {"state": "committed", "version": 7, "refused": 0},
        **more,
    }


def add_images(
    database: Database, number: int, count: int, *, every: float = 300.0, at_night: int = 72
) -> None:
    """So many images of a trap, up to the night before NOW: a number a night, from 20:00 UTC on."""

    def rows() -> Iterator[tuple[Any, ...]]:
        for at in range(count):
            night, slot = divmod(at, at_night)
            begin = datetime(2026, 6, 24, 20, tzinfo=UTC) - timedelta(days=night)
            taken = begin + timedelta(seconds=every * slot)
            temp, hum = 12 + slot % 9, 60 + slot % 30
            yield device(number), iso(taken), f"{at:032x}", temp, hum, 80

    with database.writing() as connection:
        connection.executemany(_IMAGE, rows())


def add_heartbeats(database: Database, number: int, days: int, *, name: str = "") -> None:
    """The heartbeats of so many days up to NOW, thinned as the hub does: all of two days, then one an hour."""
    now, body = NOW.timestamp(), json.dumps(beat(number, **({"name": name} if name else {})))
    moments = [now - 3600.0 * hour for hour in range(24 * days, 48, -1)]
    moments += [now - 900.0 * quarter for quarter in range(4 * 48, -1, -1)]
    with database.writing() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO traps (device, name, named, joined) VALUES (?, ?, 0, 0)",
            (device(number), name or f"valley-{number}"),
        )
        connection.executemany(
            "INSERT INTO heartbeats (device, received, body) VALUES (?, ?, ?)",
            ((device(number), at, body) for at in moments),
        )


def add_nights(database: Database, number: int, count: int, zone: str = "Europe/Vienna") -> None:
    """The reports of so many nights, the last one that of the evening before NOW."""
    last = (NOW.date() - reported.NIGHT).days - 1
    bodies = [{**reported.night(last - at), "timezone": zone} for at in range(count)]
    with database.writing() as connection:
        connection.executemany(
            "INSERT INTO reports (device, kind, key, sha256, received, body) VALUES (?, 'night', ?, ?, 0, ?)",
            (
                (device(number), body["night"], f"{at:064x}", json.dumps(body))
                for at, body in enumerate(bodies)
            ),
        )
