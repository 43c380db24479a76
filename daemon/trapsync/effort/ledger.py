"""Every slot of a trap, with the picture that is in it or the reason why there is none."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

from trapsync.catalog import Catalog
from trapsync.catalog.runs import Run
from trapsync.effort.reasons import Now, Reasons, in_force, in_order
from trapsync.effort.slots import Span, filled, wanted
from trapsync.net.reports import Reason
from trapsync.settings.schedule import Place
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import system_zone
from trapsync.trap import holder

# Intervals beyond what is asked about, in which pictures may count for a slot, or tell of the one before.
_AROUND = 4
_SILENCE = 14 * 86400.0  # seconds without a picture, before the first run, that are no season of this trap


class Slot(NamedTuple):
    """A moment at which a picture was due, until the next one (unix seconds), and the reason if there is none."""

    begin: float
    end: float
    is_taken: bool
    reason: Reason | None


class Gap(NamedTuple):
    """Slots one after another that were missed for the same reason: from when until when, and how many."""

    since: float
    until: float
    missed: int
    reason: Reason


class Ledger:
    """What a trap watched, from its first run or picture until now."""

    def __init__(self, catalog: Catalog, now: Now) -> None:
        """`catalog` is asked again for each slot: let it be of one moment (`connection.one_moment`)."""
        self._catalog = catalog
        self._runs = catalog.runs.all()
        ordered = in_order(self._runs)
        self._now = now._replace(at=max([now.at, *self._known_moments(ordered[-1:])]))
        self._schedules = list(in_force(ordered))

    @cached_property
    def known_from(self) -> float | None:
        """When the first run began; before it no reason is known: the catalog was lost, or is of an older program."""
        return self._schedules[0][0] if self._schedules else None

    @cached_property
    def began(self) -> float | None:
        """From when on anything is known: the first run, or the pictures that lead up to it; None: nothing is."""
        if self.known_from is None:
            return None
        earlier = self._catalog.runs.first_picture_before(self.known_from, _SILENCE)
        return self.known_from if earlier is None else earlier

    @property
    def now(self) -> float:
        """Until when (unix seconds)."""
        return self._now.at

    def slots(self, since: float = -math.inf, until: float = math.inf) -> Iterator[Slot]:
        """The slots that begin in a span and before now, in order."""
        until = min(until, self._now.at)
        if self.known_from is None:
            return
        if since < self.known_from:
            since = max(since, self.began or self.known_from)
        if since >= until:
            return
        # Some before and one after: what is in them may count for the first and the last.
        around = _AROUND * max(
            (run.schedule.every for _, run in self._schedules if run.schedule), default=0.0
        )
        spans = self._spans(since - around, min(until + around, self._now.at))
        pictures = self._catalog.runs.pictures(since - around, until + around)
        reasons = Reasons(self._catalog, self._runs, self._now, since - around)
        for one in filled(spans, pictures, self._now.at):
            if one.begin >= until:
                return
            if one.begin < since:
                continue
            is_known = one.begin >= self.known_from
            missed = None if one.is_taken else reasons.of(one.begin, one.end) if is_known else "unknown"
            yield Slot(*one, reason=missed)

    def _spans(self, since: float, until: float) -> Iterator[Span]:
        begins = [at for at, _ in self._schedules]
        if since < begins[0] and self.began is not None:
            begins[0] = self.began
        for (_, run), begin, end in zip(self._schedules, begins, [*begins[1:], math.inf], strict=True):
            if run.schedule:
                windows, every = run.schedule.windows, run.schedule.every
                yield from wanted(windows, _place(run), every, (begin, end), (since, until))

    def _known_moments(self, last: Sequence[Run]) -> Iterator[float]:
        """Moments of the last run: they are over, whatever a clock says that is not set."""
        for run in last:
            yield from (one.at for one in (run.began, run.ended) if one and one.at is not None)
            if picture := self._catalog.runs.last_picture(run.boot_id, 0.0, math.inf):
                yield picture[0]


def ledger(catalog: Catalog, settings: Settings) -> Ledger:
    """The ledger of the trap whose catalog this is, as of now."""
    clock = catalog.connection.clock
    is_running = holder(settings.storage.state) is not None
    return Ledger(catalog, Now(clock.wall(), clock.boot_id(), is_running, settings.warnings.battery))


def gaps(slots: Iterable[Slot]) -> Iterator[Gap]:
    """What was missed, in order: slots that follow each other, be it in another window, with one reason."""
    gap: Gap | None = None
    for one in slots:
        if gap and one.reason == gap.reason:
            gap = Gap(gap.since, one.end, gap.missed + 1, gap.reason)
            continue
        if gap:
            yield gap
        gap = Gap(one.begin, one.end, 1, one.reason) if one.reason else None
    if gap:
        yield gap


def _place(run: Run) -> Place:
    assert run.schedule
    return Place(run.schedule.latitude, run.schedule.longitude, _zone(run.schedule.timezone))


def _zone(name: str) -> ZoneInfo:
    """The zone of that name; UTC for one that this machine does not know."""
    try:
        return system_zone() if name == "localtime" else ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return ZoneInfo("UTC")
