"""Warnings before the end: the battery by its trend, the card by its room, the supply, and the heat."""

import random
import re
from itertools import pairwise
from math import pi, sin
from typing import Any

import pytest

import trap_bench as bench
from statuses import status
from trapsync.clock import utc
from trapsync.fleet import table
from trapsync.hardware import board
from trapsync.hardware.board import Board
from trapsync.image import Evidence, Found, Image, TrapName
from trapsync.net import heartbeat as read_heartbeat
from trapsync.net import judgement
from trapsync.remote import heartbeat
from trapsync.settings.schema import Settings, Warnings
from trapsync.status import snapshot
from trapsync.status.forecast import Reading, days_until_empty
from trapsync.status.model import BoardStatus
from trapsync.status.reasons import of_the_board, of_the_trap

DAY = 86400.0
NOW = 1_782_073_155.0


def readings(
    trend: float, sun: float = 0.0, days: float = 5.0, a_day: int = 24, since: float = 0.0
) -> list[Reading]:
    """A battery that is at 90 % on the whole, and rises or falls so much a day; the sun moves it up and down each day."""
    drawn = random.Random(7)
    begins, steps = NOW - days * DAY, range(round(days * a_day))
    levels = [90 + trend * (n / a_day - since) + sun * sin(2 * pi * n / a_day) for n in steps]
    return [
        (begins + n * DAY / a_day, min(100.0, max(0.0, level + drawn.uniform(-1, 1))))
        for n, level in enumerate(levels)
    ]


def by_days(*levels: float) -> list[Reading]:
    """A battery that had these levels at the ends of days, and moved evenly in between; a reading an hour."""
    begins = NOW - (len(levels) - 1) * DAY
    return [
        (begins + (day + hour / 24) * DAY, before + (after - before) * hour / 24)
        for day, (before, after) in enumerate(pairwise(levels))
        for hour in range(24)
    ]


# ── The battery ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("known", "days"),
    [
        (readings(-10), 4.0),  # at 40 % by now
        (readings(-10, sun=15), 2.5),  # which ends in a morning, 15 % lower
        (readings(-10, sun=15, a_day=4), 2.5),
        (readings(-30, days=2), 1.0),
        ([(NOW - n * DAY, 30.0 + 10 * n) for n in (4, 3, 2, 1, 0)], 3.0),  # a picture a day
    ],
)
def test_a_battery_that_falls_from_day_to_day_is_known_to_end(known: list[Reading], days: float) -> None:
    found = days_until_empty(known, NOW)
    assert found is not None
    assert abs(found - days) < 0.6


@pytest.mark.parametrize(
    "known",
    [
        [],
        [(NOW - DAY, 80.0), (NOW, 40.0)],  # two points are no trend
        [(NOW - n * DAY, 40.0 + 20 * n) for n in (2, 1, 0)],  # nor are three
        by_days(90, 70, 50, 52, 70, 66),  # two days of clouds, then the sun
        readings(-30, days=1),  # nor is one day: the sun may come
        readings(0),
        readings(0, sun=30),
        readings(+8, sun=10),
        readings(-0.3),  # nobody can tell
    ],
)
def test_where_the_trend_is_not_clear_nothing_is_said(known: list[Reading]) -> None:
    assert days_until_empty(known, NOW) is None


def test_a_new_battery_is_judged_by_its_own_readings() -> None:
    old = [(at - 3 * DAY, level) for at, level in readings(-40, days=2)]
    found = days_until_empty(old + readings(-20, days=3), NOW)
    assert found is not None
    assert abs(found - 1.5) < 0.5


def test_single_bad_readings_do_not_move_it() -> None:
    known = [(at, 0.0 if n % 13 == 5 else level) for n, (at, level) in enumerate(readings(-10))]
    found = days_until_empty(known, NOW)
    assert found is not None
    assert abs(found - 4.0) < 0.6


def test_readings_that_are_old_say_nothing_of_now() -> None:
    assert days_until_empty(readings(-10), NOW + 2 * DAY) is None


def put(trap: bench.Trap, known: list[Reading], **evidence: Any) -> None:
    """Pictures of which each says how full the battery is."""
    found = []
    for number, (at, level) in enumerate(known):
        name = f"{TrapName('0a1b2c3d', utc(at))}"
        seen = Evidence("boot", float(number), at, **({"trusted": True} | evidence))
        image = Image(name, 1, "0" * 32, f"{at:064.0f}", 160, 120, {"bat": level}, seen)
        found.append((Found(name, 1, number), image))
    trap.catalog.images.add(found)


def test_status_heartbeat_and_fleet_tell_the_end_of_the_battery(trap: bench.Trap) -> None:
    shift = trap.time.wall() - NOW
    put(trap, [(at + shift, level) for at, level in readings(-10, sun=15, a_day=72)])
    found = snapshot(Settings(storage=trap.storage), trap.time, "0a1b2c3d")
    assert found.battery_days is not None
    assert 2 < found.battery_days < 3.1
    (reason,) = [one for one in found.reasons if "battery" in one]
    assert reason.startswith(f"the battery is at {found.battery:.0f} %, and empty in about ")
    beat = read_heartbeat.read(read_heartbeat.decode(heartbeat.compose(found, 900)))
    assert reason in beat.reasons
    (row,) = judgement.traps({"traps": [{"device": "0a1b2c3d", "age_s": 5, "heartbeat": beat.plain()}]})
    assert table.cells(row)[table.HEADER.index("bat")] == f"{found.battery:.0f}% {found.battery_days:.0f} d"


def test_pictures_whose_time_is_not_known_are_no_readings(trap: bench.Trap) -> None:
    known = [(at + trap.time.wall() - NOW, level) for at, level in readings(-10)]
    put(trap, known[:100])
    put(trap, known[100:], trusted=False)
    assert len(trap.catalog.images.batteries(trap.time.wall() - 5 * DAY)) == 100


# ── What they say ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "warnings", "says"),
    [
        ({"battery": 12.0}, {}, "the battery is at 12 %: charge it, change it, or take fewer pictures"),
        ({"battery": 12.0}, {"battery": 10.0}, ""),
        (
            {"battery": 60.0, "battery_days": 2.2},
            {},
            "the battery is at 60 %, and empty in about 2 days: charge",
        ),
        ({"battery": 60.0, "battery_days": 0.3}, {}, "empty in about 7 h: charge"),
        ({"battery": 60.0, "battery_days": 2.2}, {"battery_days": 1.0}, ""),
        (
            {"disk": {"free_bytes": 10**10, "days_left": 2.6}},
            {},
            "the card is full in about 3 days; deliver,",
        ),
        ({"disk": {"free_bytes": 10**10, "days_left": 2.6}}, {"card_days": 2.0}, ""),
    ],
)
def test_the_thresholds_are_settings(
    trap: bench.Trap, more: dict[str, Any], warnings: dict[str, float], says: str
) -> None:
    settings = Settings(storage=trap.storage, warnings=Warnings(**warnings))  # type: ignore[arg-type]
    found = [
        one
        for one in of_the_trap(status(**more), settings, trap.time)
        if re.search("battery|card is", one.text)
    ]
    assert [one.verdict for one in found] == (["warning"] if says else [])
    assert says in "".join(one.text for one in found)


@pytest.mark.parametrize(
    ("bits", "degrees", "warnings", "told"),
    [
        (0, 60.0, {}, []),
        (None, None, {}, []),
        (0x50005, 60.0, {}, ["failing under-voltage now", "warning the computer is slowed down now"]),
        (0x50000, 60.0, {}, ["warning under-voltage at some time since the start"]),
        (0x50001, 60.0, {"under_voltage": False}, []),
        (0, 76.0, {}, ["warning the computer has 76 °C: give it shade"]),
        (0, 76.0, {"temperature": 78.0}, []),
        (0xE000E, 81.0, {}, ["warning the computer has 81 °C, and is slowed down"]),
        (0, 85.0, {"temperature": 150.0}, ["failing the computer has 85 °C, and hardly works"]),
    ],
)
def test_the_supply_and_the_heat_are_told(
    bits: int | None, degrees: float | None, warnings: dict[str, float], told: list[str]
) -> None:
    known = BoardStatus(temperature=degrees, throttled=bits)
    found = list(of_the_board(known, Warnings(**warnings)))  # type: ignore[arg-type]
    assert [f"{one.verdict} {one.text}"[: len(says)] for one, says in zip(found, told, strict=True)] == told


def test_status_reads_the_board(trap: bench.Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "read", lambda: Board(0x1, 90.0))
    found = snapshot(Settings(storage=trap.storage), trap.time, "0a1b2c3d")
    assert found.board == BoardStatus(temperature=90.0, throttled=1)
    assert [reason.partition(",")[0] for reason in found.reasons[-2:]] == [
        "under-voltage now",
        "the computer has 90 °C",
    ]
    assert found.verdict == "failing"
