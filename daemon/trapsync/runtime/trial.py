"""New settings on trial: does the trap do well with them? Judged by what it brings about, not by what it says.

Well means: images in the catalog at the new cadence, a camera that does not fail, every part alive, disk and memory
in bounds, and the way home open if it was open before. What was not so before is not asked for: a trap that was
offline, or whose camera was broken, is not worse for still being so.
"""

import os
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trapsync.catalog import Catalog, facts
from trapsync.clock import Clock
from trapsync.files.space import free_bytes
from trapsync.settings import schedule
from trapsync.settings.schema import Settings
from trapsync.trap import bytes_per_day, local_time, place

_LOOKS = 20  # in the time of a trial; but one in ten seconds at least
_INTERVALS = 3  # a trial lasts so many at least
_OF_EXPECTED = 0.7  # of the images that the cadence promises
_FAILURES = 3  # of the camera in a row: then the service gives it up too
_ROUNDS = 3  # until one of them is well: links come and go, and a start takes its time
_HOME = ""  # home itself, among the names of destinations
_HOME_ITSELF = "home itself"
_LATE = 1.2  # jobs come give or take a tenth
_DENSER = 1.1  # times the bytes of before that are no more than chance


@dataclass(frozen=True, slots=True)
class Before:
    """How the trap was when the trial began. `open`: the required destinations that could be reached."""

    pictures: bool
    open: tuple[str, ...]
    home: bool
    bytes_a_day: float

    @classmethod
    def of(cls, settings: Settings, catalog: Catalog, clock: Clock) -> "Before":
        """Look at a trap that ran with these settings until now."""
        known = facts.read(catalog)
        size = catalog.mean_size()
        return cls(
            pictures=bool(size)
            and settings.camera.kind != "none"
            and not (known.capture and known.capture.failures),
            open=_open(settings, catalog.destinations()),
            home=settings.home.is_set and _home_reached(known.home) is not None,
            bytes_a_day=bytes_per_day(settings, clock, size),
        )

    @classmethod
    def recalled(cls, plain: dict[str, Any]) -> "Before":
        """What `plain` wrote."""
        return cls(**plain | {"open": tuple(plain["open"])})

    def plain(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a trial ends. `code` is "well", or one word for what is not."""

    code: str
    reason: str = ""

    @property
    def is_well(self) -> bool:
        """Whether the new settings stay."""
        return self.code == "well"


@dataclass(slots=True)
class Trial:
    """One start of the daemon with settings on trial. `look` is called often, and says when it is over.

    It goes in rounds; the first in which all is well decides, or the last. `rhythms`: how often each destination
    is delivered to, in seconds.
    """

    settings: Settings
    before: Before
    catalog: Catalog
    clock: Clock
    rhythms: Mapping[str, float] = field(default_factory=dict)
    _began: float = field(init=False)
    _looked: float = field(init=False)
    _round_began: float = field(init=False)
    _round: int = field(init=False, default=1)
    _awake: float = field(init=False, default=0.0)
    _over_memory: int = field(init=False, default=0)
    _mark: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Take down where everything stands at its beginning."""
        self._began = self._round_began = self._looked = self.clock.monotonic()
        self._mark = self._heard()

    @property
    def length(self) -> float:
        """Seconds awake that a round lasts: whoever is to be heard from has had the time to speak."""
        words = [self.rhythms.get(name, 0.0) for name in self.before.open]
        words += [self.settings.home.every] if self.before.home else []
        pictures = _INTERVALS * self.settings.capture.every
        return max(self.settings.pushed.trial, pictures, *(_LATE * seconds for seconds in words))

    def look(self, overdue: Sequence[str]) -> Verdict | None:
        """The verdict, once there is one. `overdue`: the parts of the daemon that fell silent."""
        now = self.clock.monotonic()
        since = now - self._looked
        if since < min(10.0, self.settings.pushed.trial / _LOOKS):
            return None
        self._looked = now
        if self._is_time():
            self._awake += since
        return self._worse(overdue) or self._over()

    def of_single_run(self, overdue: Sequence[str], tried: Container[str]) -> Verdict:
        """The verdict on a single run that is over: one picture, and a call at each destination of `tried`."""
        if worse := self._worse(overdue):
            return worse
        count, _ = self.catalog.pictures_since(self._began)
        if self.before.pictures and not count and self._is_time():
            return Verdict("captures", "no picture")
        if closed := [name for name in self._closed() if name in tried or name == _HOME_ITSELF]:
            return _not_reached(closed)
        return Verdict("well")

    def _is_time(self) -> bool:
        """Whether this is a time for pictures."""
        return schedule.is_open(self.settings.capture.windows, place(self.settings), local_time(self.clock))

    def _worse(self, overdue: Sequence[str]) -> Verdict | None:
        """What need not be waited for."""
        if overdue:
            return Verdict("hung", f"no sign of life from: {', '.join(overdue)}")
        capture = facts.read(self.catalog).capture
        if self.before.pictures and capture and capture.failures >= _FAILURES:
            return Verdict("camera", f"no pictures, {capture.failures} failures in a row: {capture.error}")
        return self._too_much_memory() or self._too_many_bytes()

    def _too_much_memory(self) -> Verdict | None:
        """Twice in a row: a peak is no leak."""
        used, limit = memory_used(), self.settings.pushed.limits.memory
        self._over_memory = self._over_memory + 1 if used > limit else 0
        if self._over_memory < 2:
            return None
        return Verdict("memory", f"the daemon uses {used / 1e6:.0f} MB of memory, above {limit / 1e6:.0f} MB")

    def _too_many_bytes(self) -> Verdict | None:
        """Whether the card would fill up soon, and more quickly than before."""
        count, total = self.catalog.pictures_since(self._began)
        if count < 2 or (self.settings.prune.enabled and self.before.open):
            return None
        storage, least = self.settings.storage, self.settings.pushed.limits.least_days
        a_day = bytes_per_day(self.settings, self.clock, total / count)
        days = max(0, free_bytes(storage.spool) - storage.min_free) / a_day if a_day else least
        if days >= least or a_day <= _DENSER * self.before.bytes_a_day:
            return None
        return Verdict(
            "disk", f"{a_day / 1e9:.3g} GB of pictures a day: the card has room for {days:.2g} days"
        )

    def _over(self) -> Verdict | None:
        """What is judged when a round is over."""
        if self._awake < self.length:
            return None
        verdict = self._of_round()
        if not verdict.is_well and self._round < _ROUNDS:
            self._round, self._round_began, self._awake = self._round + 1, self.clock.monotonic(), 0.0
            return None
        return verdict

    def _of_round(self) -> Verdict:
        count, _ = self.catalog.pictures_since(self._round_began)
        expected = self._awake / self.settings.capture.every
        if self.before.pictures and count < max(2, int(_OF_EXPECTED * expected)):
            return Verdict("captures", f"{count} pictures in {self._awake:.0f} s, not {expected:.0f}")
        if closed := self._closed():
            return _not_reached(closed)
        return Verdict("well")

    def _closed(self) -> list[str]:
        """What was reached before the trial and was not since; a destination that is owed nothing may be silent."""
        heard, before = self._heard(), self._mark
        owed = {row["name"] for row in self.catalog.destinations() if row["owed"]}
        closed = [name for name in self.before.open if name in owed and heard.get(name) == before.get(name)]
        if self.before.home and heard[_HOME] in (None, before[_HOME]):
            closed.append(_HOME_ITSELF)
        return closed

    def _heard(self) -> dict[str, Any]:
        """When each destination last confirmed an image, and when home itself was last reached."""
        last = {row["name"]: row["delivered_at"] for row in self.catalog.destinations()}
        return last | {_HOME: _home_reached(facts.read(self.catalog).home)}


def _open(settings: Settings, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The required destinations that confirmed something and did not fail since.

    One that comes after another which is out of reach has nothing to confirm.
    """
    reached = {row["name"] for row in rows if row["delivered_at"] and not row["error"]}
    after = {name: table.get("after") or name for name, table in settings.destinations.items()}
    names = [row["name"] for row in rows if row["required"]]
    return tuple(name for name in names if {name, after.get(name, name)} <= reached)


def _not_reached(closed: Sequence[str]) -> Verdict:
    return Verdict("way_home", f"not reached any more: {', '.join(closed)}")


def _home_reached(links: dict[str, facts.Link]) -> float | None:
    """When home was last reached by a way that is well (unix seconds), as the service tells `status`."""
    return max((link.reached for link in links.values() if link.reached and not link.error), default=None)


def memory_used() -> int:
    """Bytes that this process and its children take, what they share counted once."""
    pids, used = [os.getpid()], 0
    while pids:
        process = Path("/proc") / str(pids.pop())
        with suppress(OSError, ValueError, StopIteration):  # it ended meanwhile
            lines = (process / "smaps_rollup").read_text().splitlines()
            used += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        with suppress(OSError):
            for children in process.glob("task/*/children"):
                pids += map(int, children.read_text().split())
    return used
