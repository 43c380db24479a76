"""Reports as a trap makes them: nights, deployments, and what a hub holds of them."""

import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from drawings import DEVICE
from fake_time import FakeTime
from trapsync.catalog import Catalog
from trapsync.hub.app import Hub
from trapsync.hub.reports import Reports
from trapsync.net import reports
from trapsync.net.http_answer import Answer
from trapsync.remote.uplink.reports import IsHeld, Report, Reporter

NIGHT = date(2026, 6, 21)


def night(number: int = 0, *, taken: int = 2, gaps: int = 1, reason: str = "camera") -> dict[str, Any]:
    """The body of a night, so many after NIGHT."""
    day = NIGHT + timedelta(days=number)
    hours = [[f"{day}T{hour}:00:00Z", 4, taken, taken + 1] for hour in range(19, 24)]
    counts = [5 * (4 - taken) // max(gaps, 1)] * gaps
    counts[:1] = [5 * (4 - taken) - sum(counts[1:])] * bool(gaps)
    missed = [[f"{day}T{20 + at % 4}:20:00Z", f"{day}T23:40:00Z", n, reason] for at, n in enumerate(counts)]
    return {"schema": 1, "night": str(day), "timezone": "Europe/Vienna", "hours": hours, "gaps": missed}


def deployment(number: int = 0, device: str = DEVICE, **terms: Any) -> dict[str, Any]:
    """The body of a deployment that began so many days after NIGHT and lasts."""
    day = NIGHT + timedelta(days=number)
    known = {"latitude": 46.5, "longitude": 11.3, "location_name": "the upper meadow", **terms}
    at = {"began": f"{day}T20:00:00Z", "ended": None, "is_whole": True}
    return {"id": f"{device}-{day:%Y%m%d}T200000Z", **at, "terms": known}


def line(body: dict[str, Any]) -> reports.Line:
    """A body as it is sent."""
    kind, key = ("night", "night") if "night" in body else ("deployment", "id")
    return reports.line(kind, body[key], body)


def lines(*bodies: dict[str, Any]) -> bytes:
    """Bodies as a request has them."""
    return b"".join(line(body).data + b"\n" for body in bodies)


def heard(hub: Any, device: str = DEVICE) -> None:
    """Let the hub know the trap, as its first heartbeat does."""
    hub.fleet.take(device, b'{"device": "%s"}' % device.encode(), device)


def held(there: Reports, device: str = DEVICE) -> dict[str, tuple[int, int]]:
    """The nights that a hub holds: expected and taken of each."""
    found = [watched for watched in there.effort() if watched.device == device]
    kept = {str(one.night): (one.expected, one.taken) for one in found}
    assert len(kept) == len(found)
    return kept


class Trap:
    """The part of a trap that reports, with a catalog of its own, and the way to a hub in this process."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.hub = hub
        self.time = FakeTime()
        self.bodies: list[dict[str, Any]] = []
        self.sources: list[Any] = [self._source]
        self.posted: list[bytes] = []
        self.misdeed: Callable[[Answer], Answer] | None = None
        folder.mkdir(exist_ok=True)
        self._catalog = folder / "catalog.sqlite"
        heard(hub)
        self.start()

    def start(self) -> None:
        """Begin anew, as after a start of the daemon, with the catalog that is there."""
        self.catalog = Catalog.open(self._catalog, self.time)
        self.reporter = Reporter(DEVICE, self.catalog.reports, self.sources, self.time)

    def lose_catalog(self) -> None:
        """Begin with a catalog in which nothing stands."""
        self.catalog.close()
        self._catalog.unlink()
        self.start()

    def put_back(self, folder: Path, copy: Path | None = None) -> None:
        """Let the hub be another folder: an empty one, or with an older copy of its database."""
        folder.mkdir()
        if copy:
            (folder / "hub.sqlite").write_bytes(copy.read_bytes())
        self.hub = Hub.open(folder, self.time)
        heard(self.hub)

    def turns(self, count: int = 1, wait: float = 2 * 3600.0) -> None:
        """So many turns, each long after the one before."""
        for _ in range(count):
            self.reporter.send(self.post)
            self.time.sleep(wait)

    def post(self, data: bytes, since: int) -> Answer:
        """Bring it to the hub."""
        self.posted.append(data)
        answer = json.dumps(self.hub.reports.take(DEVICE, data, since)).encode()
        good = Answer("hub.example.org", 200, {"Content-Type": "application/json"}, answer)
        return self.misdeed(good) if self.misdeed else good

    def sent(self) -> list[str]:
        """The keys of all reports that were sent, in their order."""
        return [json.loads(one)[1] for data in self.posted for one in data.splitlines()]

    def _source(self, _is_held: IsHeld) -> Iterator[Report]:
        for body in self.bodies:
            one = line(body)
            yield Report(one.kind, one.key, one.body)
