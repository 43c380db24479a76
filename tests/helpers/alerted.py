"""A hub whose alerts turn once a minute of a clock that stands still, and the phones of those who are told.

::

    bench = Bench(tmp_path)
    bench.beat("0a5bb6f4", verdict="failing")
    bench.live(minutes=5)
    assert bench.phone.subjects == ["valley: failing: …"]
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_time import FakeTime
from hub_server import InThisProcess
from trapsync.errors import NotSent
from trapsync.hub.alerts.pings import Pings
from trapsync.hub.alerts.watch import Watch
from trapsync.hub.app import Hub
from trapsync.settings.alert_addresses import Address
from trapsync.settings.alerts import Alerts
from trapsync.settings.units import Duration

MINUTE = 60.0
TRAP = "0a5bb6f4"
NOON = 1_782_043_200.0  # 2026-06-21 12:00 UTC
URL = "ntfy://phone"
CALM: dict[str, Any] = {"timezone": "UTC", "settled": Duration(0), "most_an_hour": 60}


@dataclass(frozen=True)
class Told:
    """A message that came, and when by the wall clock."""

    at: float
    subject: str
    body: str
    picture: bytes | None


class Phone:
    """A messenger that keeps what it is given, or does not take it."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.told: list[Told] = []
        self.asked = 0
        self.fails: Callable[[str], NotSent | None] = lambda _url: None

    @property
    def subjects(self) -> list[str]:
        """Of all messages."""
        return [one.subject for one in self.told]

    def send(self, url: str, subject: str, body: str, *, picture: bytes | None, is_bad: bool) -> None:
        """Take it, or fail."""
        self.asked += 1
        if error := self.fails(url):
            raise error
        self.told.append(Told(self._wall(), subject, body, picture))


class Bench:
    """The hub, its clock, one address or more, and its alerts."""

    def __init__(self, folder: Path, urls: tuple[str, ...] = (URL,), **settings: Any) -> None:
        self.clock = FakeTime(NOON)
        self.hub = Hub.open(folder / "hub", self.clock, InThisProcess())
        self.settings = Alerts(**(CALM | settings))
        self.addresses = tuple(Address(url, number) for number, url in enumerate(urls, start=1))
        self.phone = Phone(self.clock.wall)
        self.pings: Pings | None = None
        self.watch = self.start()

    def start(self, **settings: Any) -> Watch:
        """Start the alerts anew, as the hub does; with other settings, if some are given."""
        if settings:
            self.settings = Alerts(**(CALM | settings))
        self.watch = Watch(
            self.hub,
            self.settings,
            self.addresses,
            self.phone,
            url="https://hub.example.org",
            pings=self.pings,
        )
        return self.watch

    def beat(self, device: str = TRAP, **facts: Any) -> None:
        """Have a heartbeat come from a trap."""
        beat = {"device": device, "name": device, "verdict": "ok", "every_s": 900.0} | facts
        self.hub.fleet.take(device, json.dumps(beat).encode())

    def beat_all(self, devices: Sequence[str], **facts: Any) -> None:
        """Have a heartbeat come from each of many traps, in one transaction."""
        now = self.clock.wall()
        rows = [
            (one, now, json.dumps({"device": one, "name": one, "verdict": "ok"} | facts)) for one in devices
        ]
        with self.hub.database.writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO traps (device) VALUES (?)", [(one,) for one in devices]
            )
            connection.executemany("INSERT INTO heartbeats (device, received, body) VALUES (?, ?, ?)", rows)

    def live(self, minutes: int = 5, *beating: str, step: int = 1, **facts: Any) -> None:
        """Let minutes pass, with a turn in each, or in every so many; these traps send a heartbeat every ten."""
        for number in range(0, minutes, step):
            if beating and number % 10 == 0:
                self.beat_all(beating, **facts)
            self.turn(step)

    def turn(self, step: int = 1) -> None:
        """A turn, and a minute, or so many."""
        self.watch.turn()
        self.clock.sleep(step * MINUTE)

    def off(self, minutes: float) -> None:
        """Switch the hub off for so long."""
        self.clock.sleep(minutes * MINUTE)
        self.start()
