"""From when on what kept pictures from being taken, from the runs of the daemon and the captures that failed.

::

    off         the trap was shut down in order
    no_power    it started again, or not, without having been shut down
    battery     the same, and the last picture before said that the battery was low
    card        the card, or another disk of the spool, did not take pictures
    camera      the camera gave none
    clock       the time of what happened then is not known, or the clock was stepped over it
    paused      the daemon was stopped, and the trap stayed on
    settings    the daemon began again with other settings
    unknown     nothing that is remembered explains it
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from trapsync.catalog import Catalog
from trapsync.catalog.runs import Failures, Run
from trapsync.clock import WRITTEN
from trapsync.net.reports import Reason

_STEP = 120.0  # seconds by which the clock must have been stepped to count: it is set a little all the time
_MOST = 0.5  # the share of a gap that boots of unknown time must fill


class Change(NamedTuple):
    """From `at` on (unix seconds) this is what keeps pictures from being taken; None: nothing that is known.

    `otherwise` is the reason where nothing else explains it.
    """

    at: float
    reason: Reason | None
    otherwise: Reason = "unknown"


class Now(NamedTuple):
    """The present: the time (unix seconds), the boot, whether the daemon runs, and below what a battery is low (%)."""

    at: float
    boot_id: str
    is_running: bool
    low_battery: float


class Reasons:
    """Why pictures were not taken, at any moment."""

    def __init__(self, catalog: Catalog, runs: Sequence[Run], now: Now, since: float = -math.inf) -> None:
        """Of pictures, those from `since` on are looked at (unix seconds)."""
        self._catalog = catalog.runs
        self._now = now
        self._since = max(since, -1e11)
        unsure = self._catalog.unsure_boots()
        self._unsure_runs = [run for run in runs if run.boot_id in unsure]
        self._battery: tuple[float, float, float | None] = (0.0, 0.0, None)  # of slots from when until when
        self._failures: dict[int, list[Failures]] = {}
        for one in self._catalog.failures():
            self._failures.setdefault(one.run, []).append(one)
        self._runs = runs
        self._changes = sorted(self._all_changes(), key=attrgetter("at"))
        self._at = [one.at for one in self._changes]

    def of(self, begin: float, end: float) -> Reason:
        """Why there is no picture in a slot: what held at its beginning, else what began in it."""
        after = bisect_right(self._at, begin)
        here = self._changes[after - 1] if after else Change(begin, None)
        coming = self._changes[after : bisect_right(self._at, end)]
        found = (one.reason for one in (here, *coming) if one.reason)
        return self._with_battery(next(found, here.otherwise), end)

    def _with_battery(self, reason: Reason, at: float) -> Reason:
        if reason != "no_power":
            return reason
        if not self._battery[0] <= at < self._battery[1]:
            self._battery = (at, self._catalog.next_certain(at), self._catalog.battery_at(at))
        level = self._battery[2]
        return "battery" if level is not None and level < self._now.low_battery else reason

    # What each run says

    def _all_changes(self) -> Iterator[Change]:
        for run, later, until in self._placed():
            # The next run knows better, where the clock was put back meanwhile.
            changes = chain(self._in_run(run), self._after(run, later))
            yield from (one for one in changes if one.at <= until)
        for before, after in self._catalog.clock_steps(_STEP, self._since):
            yield Change(before + 1, "clock")
            yield Change(after, None)

    def _placed(self) -> Iterator[tuple[Run, Run | None, float]]:
        """The runs of known time that tell of anything since then, each with the next one, and until when it counts."""
        ordered = in_order(self._runs)
        earlier = [run.id for run in ordered if run.began.at is not None and run.began.at <= self._since]
        first = earlier[-1] if earlier else -1
        begins = {run.id: run.began.at for run in ordered}
        found: list[tuple[Run, Run | None, float]] = []
        later: Run | None = None
        until = math.inf
        for run in reversed([run for run in self._runs if run.began.at is not None and run.id >= first]):
            found.append((run, later, until))
            until, later = begins.get(run.id) or until, run
        return reversed(found)

    def _in_run(self, run: Run) -> Iterator[Change]:
        """From a failure until the next picture. Single runs come and go: between them the trap has no power."""
        otherwise: Reason = "no_power" if run.is_single else "unknown"
        assert run.began.at is not None
        yield Change(run.began.at, None, otherwise)
        for one in self._failures.get(run.id, []):
            if one.first.at is None or one.last.at is None:
                continue
            yield Change(one.first.at, one.reason)
            over = self._catalog.next_picture(one.boot_id, one.last.monotonic)
            if over is not None or run.is_single:
                yield Change(max(one.last.at, over or one.last.at), None, otherwise)

    def _after(self, run: Run, later: Run | None) -> Iterator[Change]:
        """From the end of a run, as far as that is known, until the next one of known time."""
        if later is None and self._now.is_running and run.boot_id == self._now.boot_id:
            return
        ended = self._end_of(run, later)
        yield Change(ended, self._ending(run, later, ended))

    def _end_of(self, run: Run, later: Run | None) -> float:
        """The last moment of a run that is known."""
        assert run.began.at is not None
        if run.ended and run.ended.at is not None:
            return run.ended.at
        is_same = later is not None and later.boot_id == run.boot_id
        until = later.began.monotonic if later and is_same else 1e11
        picture = self._catalog.last_picture(run.boot_id, run.began.monotonic, until)
        failures = [one.last.at for one in self._failures.get(run.id, []) if one.last.at is not None]
        return max([run.began.at, *failures, *([picture[0]] if picture else [])])

    def _ending(self, run: Run, later: Run | None, ended: float) -> Reason:
        until = later.began.at if later and later.began.at is not None else self._now.at
        if self._unsure_time(run, later) >= _MOST * (until - ended):
            return "clock"
        stays_on = (later.boot_id if later else self._now.boot_id) == run.boot_id
        match run.ending:
            case "settings" | "card":
                return run.ending
            case "stopped":
                return "paused" if stays_on else "off"
            case "failed":
                return "unknown"
        if run.is_single:
            return "no_power"
        return "unknown" if stays_on else "no_power"

    def _unsure_time(self, run: Run, later: Run | None) -> float:
        """Seconds of the boots between two runs of whose time nothing is known; -1 without any."""
        first = bisect_right(self._unsure_runs, run.id, key=attrgetter("id"))
        last = bisect_left(self._unsure_runs, later.id, key=attrgetter("id")) if later else None
        boots = {one.boot_id for one in self._unsure_runs[first:last]}
        return sum(map(self._catalog.last_of_boot, boots)) if boots else -1.0


def in_order(runs: Sequence[Run]) -> list[Run]:
    """The most runs of known time of which each began after the one before; of as many, the later ones.

    A clock that was trusted and wrong puts a run years away: it must not decide what was due in between. None is
    of a time before this program was written.
    """
    placed = [(run.began.at, run) for run in runs if run.began.at is not None and run.began.at >= WRITTEN]
    before: list[int] = []  # for each, the one before it in the longest row that ends with it
    ends: list[int] = []  # the last one of the best row of each length
    for number, (at, _) in enumerate(placed):
        length = bisect_right(ends, at, key=lambda one: placed[one][0])
        before.append(ends[length - 1] if length else -1)
        ends[length : length + 1] = [number]
    row, last = [], ends[-1] if ends else -1
    while last >= 0:
        row.append(placed[last][1])
        last = before[last]
    return row[::-1]


def in_force(runs: Iterable[Run]) -> Iterator[tuple[float, Run]]:
    """From when on which schedule was in force: the runs, in order, with which another one began."""
    last: Run | None = None
    for run in runs:
        if run.began.at is not None and (last is None or run.schedule != last.schedule):
            yield run.began.at, run
            last = run
