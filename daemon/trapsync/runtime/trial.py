"""New settings on trial: whether the trap works as well with them as before, judged by what it does.

All must be OK: images in the catalog at the new interval that show something, a camera that does not fail, every part alive,
disk and memory within bounds, and what could be reached before is reached. What was not so before is not asked for: a trap
that was offline, or whose camera was broken, is not worse for still being so.
"""

import logging
import math
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from trapsync.catalog import Catalog, facts
from trapsync.clock import Clock
from trapsync.errors import CatalogError, StorageError, TrapsyncError
from trapsync.files.space import free_bytes
from trapsync.remote.in_force import InForce, lay
from trapsync.remote.remote_settings import Outcome, RemoteSettings
from trapsync.settings import schedule
from trapsync.settings.schema import Settings
from trapsync.settings.units import Size
from trapsync.trap import bytes_per_day, holder, open_to_read, place, system_clock

log = logging.getLogger(__name__)

Made = TypeVar("Made")

_LOOKS = 20  # in the time of a trial; but one in ten seconds at least
_INTERVALS = 3  # a trial lasts so many at least
_OF_EXPECTED = 0.7  # of the images that the interval promises
_FAILURES = 3  # of the camera in a row: then the service gives it up too
_LONGEST = 3  # times its length, until all is OK: links come and go, and a start takes its time
_MAX_MEMORY = 350 * 10**6  # bytes of the daemon and its children: a Pi has 512 MB
_HUB = "the hub"
_LATE = 1.2  # jobs come give or take a tenth
_DAYS = 2 * 86400.0  # by the calendar: a trap whose schedule is open for minutes a day comes to a verdict too
_DENSER = 1.1  # times the bytes of before that are no more than chance


def begin(found: InForce, make: Callable[[InForce], Made]) -> Made:
    """Return what `make` makes of the settings in force. If some are on trial, this start counts.

    Settings on trial with which nothing can even be made are rolled back at once.
    """
    if holder(found.settings.storage.state) is not None:  # it will find the lock taken, and try nothing
        return make(found)
    remote = RemoteSettings(found.files, system_clock(found.settings))
    begun = remote.begin()
    try:
        return make(begun)
    except TrapsyncError as error:
        if not begun.is_trial:
            raise
        remote.roll_back("settings", str(error))
        return make(lay(found.files))


@dataclass(frozen=True, slots=True)
class Before:
    """How the trap was when the settings came. `open`: the required destinations that could be reached."""

    pictures: bool
    open: tuple[str, ...]
    hub: bool
    bytes_a_day: float

    @classmethod
    def of(cls, settings: Settings, catalog: Catalog, clock: Clock) -> "Before":
        """Look at a trap that ran with these settings until now."""
        known = catalog.facts.read()
        size = catalog.images.mean_size()
        return cls(
            pictures=bool(size)
            and settings.camera.kind != "none"
            and not (known.capture and known.capture.failures),
            open=_open(settings, catalog.counts.destinations()),
            hub=settings.hub.is_set and _hub_reached(known.hub) is not None,
            bytes_a_day=bytes_per_day(settings, clock, size),
        )

    @classmethod
    def recalled(cls, plain: dict[str, Any]) -> "Before":
        """What `plain` returned."""
        known = plain | {"hub": plain["home"], "open": tuple(plain["open"])}
        del known["home"]
        return cls(**known)

    def plain(self) -> dict[str, Any]:
        """Return it for the record, under the names of 13fe5f4: that version may take over again after an upgrade."""
        known = asdict(self) | {"home": self.hub}
        del known["hub"]
        return known


def before_now(settings: Settings, clock: Clock) -> dict[str, Any] | None:
    """How a trap is now, for another process than the daemon; None if it never ran."""
    try:
        catalog = open_to_read(settings, clock)
    except CatalogError:
        return None
    try:
        return Before.of(settings, catalog, clock).plain()
    finally:
        catalog.close()


def receive(
    remote: RemoteSettings, data: bytes, settings: Settings, catalog: Catalog, clock: Clock
) -> Outcome:
    """Take a document from the hub, in any thread, on a trap that runs with these settings, and log the outcome.

    Raises StorageError and SettingsError: then it is unknown what becomes of it, and it is to come again.
    """
    outcome = remote.accept(data, lambda: Before.of(settings, catalog, clock).plain())
    level = logging.WARNING if outcome.is_news else logging.DEBUG
    log.log(level, "document %.12s, %s: %s", outcome.hash, outcome.code, outcome.text)
    return outcome


class Failure(NamedTuple):
    """Why settings on trial are rolled back: a code, and the reason for people."""

    code: str
    reason: str


class Trial:
    """One start of the daemon with settings on trial. `judge` is called often, and says when it is over.

    All is waited for that should be heard from; as soon as all is OK after that, the settings are committed.
    """

    def __init__(
        self,
        settings: Settings,
        before: Before,
        catalog: Catalog,
        clock: Clock,
        intervals: Mapping[str, float],
        previous: Settings | None = None,
    ) -> None:
        """`intervals`: how often each destination is delivered to, in seconds. `previous`: the settings of before."""
        self.settings = settings
        self._previous = previous or settings
        self.before = before
        self._catalog = catalog
        self._clock = clock
        self._intervals = intervals
        self._began = self._looked = clock.monotonic()
        self._delivered_before = catalog.counts.ledger().delivered
        self._awake = 0.0
        self._earlier = facts.TrialTime("", 0.0)
        self._over_memory = 0
        self._makes_room = bool(settings.prune.enabled and before.open)  # what is delivered leaves the card
        self._heard_before, self._hub_before = self._heard()
        self.is_passed = False
        """Whether all was OK for long enough."""

    @property
    def awake(self) -> float:
        """Seconds awake with these settings, in all starts."""
        return self._awake

    def resume(self, earlier: facts.TrialTime) -> None:
        """Begin with what starts that somebody ended brought: a trap may never run for as long as a trial takes."""
        self._earlier = earlier
        self._awake = earlier.awake

    def so_far(self) -> facts.TrialTime:
        """What this start and those before it brought."""
        count, _ = self._catalog.images.pictures_since(self._began)
        earlier, ran = self._earlier, self._clock.monotonic() - self._began
        began = earlier.began
        if began is None and self._clock.trusted():
            began = self._clock.wall() - ran
        awake, ran = round(self._awake, 1), round(earlier.ran + ran, 1)
        return facts.TrialTime(earlier.hash, awake, ran, earlier.pictures + count, began, earlier.oddity)

    @property
    def length(self) -> float:
        """Seconds awake that a trial lasts at least: whatever is to be heard from has had the time."""
        words = [self._intervals.get(name, 0.0) for name in self.before.open]
        words += [self.settings.hub.every] if self.before.hub else []
        pictures = _INTERVALS * self.settings.capture.every
        return max(self.settings.remote.trial, pictures, *(_LATE * seconds for seconds in words))

    @property
    def longest(self) -> float:
        """Seconds by the calendar after which it ends if all is OK, though pictures were due for minutes a day only."""
        turns = (_LATE * self._intervals.get(name, 0.0) for name in self.before.open)
        return max(_DAYS, _INTERVALS * self.settings.capture.every, *turns)

    def _lasts(self) -> float:
        """For how long it lasts by the calendar: by this trap's running time, or by a clock that is trusted."""
        so_far = self.so_far()
        by_wall = self._clock.wall() - so_far.began if so_far.began and self._clock.trusted() else 0.0
        return max(so_far.ran, by_wall)

    def look(self, overdue: Sequence[str]) -> Failure | None:
        """What is worse than before, if that is certain. `overdue`: the parts of the daemon that are silent."""
        now = self._clock.monotonic()
        since = now - self._looked
        if since < min(10.0, self.settings.remote.trial / _LOOKS):
            return None
        self._looked = now
        if self._is_time():
            self._awake += since
        if worse := self._worse(overdue):
            return worse
        days = self._lasts() / self.longest
        none, missing = self._no_pictures(is_over=days >= 1), self._missing()
        self.is_passed = (days >= 1 or self._awake >= self.length) and not (none or missing)
        if none and days >= 1:  # pictures need nothing that comes and goes
            return none
        return none or missing if days >= _LONGEST or self._awake >= _LONGEST * self.length else None

    def look_at_single_run(self, overdue: Sequence[str], tried: Container[str]) -> Failure | None:
        """What went wrong in a single run that is over: one picture, and a try of each destination of `tried`."""
        if worse := self._worse(overdue):
            return worse
        count, _ = self._catalog.images.pictures_since(self._began)
        if self.before.pictures and not count and self._is_time():
            return Failure("captures", "no picture")
        return self._odd_pictures() or _unreachable(
            name for name in self._closed() if name in tried or name == _HUB
        )

    def _is_time(self) -> bool:
        """Whether this is a time for pictures; it is while the clock was never trusted in this boot."""
        is_set = self._clock.trusted() or self._catalog.times.is_known()
        windows = self.settings.capture.schedule if is_set else ()
        return bool(schedule.open_at(windows, place(self.settings), self._clock.wall()))

    def _worse(self, overdue: Sequence[str]) -> Failure | None:
        """What need not be waited for."""
        if overdue:
            return Failure("hung", f"no sign of life from: {', '.join(overdue)}")
        capture = self._catalog.facts.read().capture
        if self.before.pictures and capture and capture.failures >= _FAILURES:
            return Failure("camera", f"no pictures, {capture.failures} failures in a row: {capture.error}")
        return self._too_much_memory() or self._too_many_bytes() or self._too_narrow()

    def _too_much_memory(self) -> Failure | None:
        """Twice in a row: a peak is no leak."""
        used, limit = memory_used(), _MAX_MEMORY
        self._over_memory = self._over_memory + 1 if used > limit else 0
        if self._over_memory < 2:
            return None
        return Failure("memory", f"the daemon uses {used / 1e6:.0f} MB of memory, above {limit / 1e6:.0f} MB")

    def _too_many_bytes(self) -> Failure | None:
        """Whether the card would fill up soon, and more quickly than before."""
        return None if self._makes_room else self._full_card(1.0)

    def _too_narrow(self) -> Failure | None:
        """Whether a destination falls behind for good by its limit, and did not before."""
        count, total = self._catalog.images.pictures_since(self._began)
        taken = bytes_per_day(self.settings, self._clock, total / count) if count >= 2 else 0.0
        for name in self.before.open:
            old, new = (_bytes_a_day(settings, name) for settings in (self._previous, self.settings))
            if new < taken and old >= self.before.bytes_a_day:
                text = f"{name} carries {new / 1e6:.3g} MB a day by its bandwidth"
                return Failure("bandwidth", f"{text}, and {taken / 1e6:.3g} MB are taken")
        return None

    def _full_card(self, stays: float) -> Failure | None:
        """Whether the card would fill up soon, if this part of the pictures stays on it, and there are more than before."""
        count, total = self._catalog.images.pictures_since(self._began)
        if count < 2:
            return None
        storage, least = self.settings.storage, self.settings.remote.limits.min_days
        a_day = bytes_per_day(self.settings, self._clock, total / count)
        free, stay = max(0, free_bytes(storage.spool) - storage.min_free), stays * a_day
        days = free / stay if stay else least
        if days >= least or a_day <= _DENSER * self.before.bytes_a_day:
            return None
        text = f"{stay / 1e9:.3g} GB of pictures a day" + (" are not delivered" if stays < 1 else "")
        return Failure("disk", f"{text}: the card has room for {days:.2g} days")

    def _no_pictures(self, *, is_over: bool) -> Failure | None:
        """Too few pictures for the time that they were due. Where the calendar ends the trial, those of all starts count."""
        so_far, earlier = self.so_far(), facts.TrialTime("", 0.0) if is_over else self._earlier
        count, awake = so_far.pictures - earlier.pictures, so_far.awake - earlier.awake
        expected = awake / self.settings.capture.every
        if not self.before.pictures or count >= max(1.0 if is_over else 2.0, _OF_EXPECTED * expected):
            return None
        return Failure("captures", f"{count} pictures in {awake:.0f} s, not {max(1.0, expected):.0f}")

    def _odd_pictures(self) -> Failure | None:
        """Pictures that look wrong, where those before the trial did not."""
        capture = self._catalog.facts.read().capture
        if not self.before.pictures or self._earlier.oddity or not (capture and capture.oddity):
            return None
        return Failure("picture", capture.oddity)

    def _missing(self) -> Failure | None:
        """What is not OK yet, and may become so."""
        return self._odd_pictures() or self._too_few_deliveries() or _unreachable(self._closed())

    def _too_few_deliveries(self) -> Failure | None:
        """Whether the card would fill up although images leave it: what is taken is more than what is delivered."""
        count, _ = self._catalog.images.pictures_since(self._began)
        delivered = self._catalog.counts.ledger().delivered - self._delivered_before
        return self._full_card(max(0.0, 1 - delivered / count)) if count and self._makes_room else None

    def _closed(self) -> list[str]:
        """What was reached before the trial and was not since; a destination for which nothing is pending may be silent."""
        (heard, hub), before = self._heard(), self._heard_before
        pending = {row["name"] for row in self._catalog.counts.destinations() if row["pending"]}
        closed = [
            name for name in self.before.open if name in pending and heard.get(name) == before.get(name)
        ]
        if self.before.hub and hub in (None, self._hub_before):
            closed.append(_HUB)
        return closed

    def _heard(self) -> tuple[dict[str, float | None], float | None]:
        """When each destination last confirmed an image, and when the hub was last reached."""
        last = {row["name"]: row["delivered_at"] for row in self._catalog.counts.destinations()}
        return last, _hub_reached(self._catalog.facts.read().hub)


class Judge:
    """Commits settings on trial, or rolls them back."""

    def __init__(self, trial: Trial, remote: RemoteSettings, catalog: Catalog, document_hash: str) -> None:
        self._trial = trial
        self._remote = remote
        self._catalog = catalog
        known = catalog.facts.read()
        earlier = known.trial
        if earlier is None or earlier.hash != document_hash:  # the trial begins
            oddity = known.capture.oddity if known.capture else None
            earlier = facts.TrialTime(document_hash, 0.0, oddity=oddity or None)
            self._note(earlier)
        trial.resume(earlier)

    @classmethod
    def of(
        cls,
        found: InForce,
        remote: RemoteSettings,
        catalog: Catalog,
        clock: Clock,
        intervals: Mapping[str, float] = MappingProxyType({}),
    ) -> "Judge | None":
        """For a daemon or single run with these settings; None if they are not on trial."""
        if not found.is_trial:
            return None
        candidate = found.record.candidate
        number = candidate.version if candidate else 0
        log.warning("the remote settings %d are on trial, start %d", number, found.record.starts)
        known = found.record.before
        previous = remote.previous()
        before = Before.recalled(known) if known else Before.of(previous, catalog, clock)
        trial = Trial(found.settings, before, catalog, clock, intervals, previous)
        return cls(trial, remote, catalog, candidate.hash if candidate else "")

    def judge(self, overdue: Sequence[str]) -> str | None:
        """Return "committed" or "rolled back" once the trial is over. `overdue`: the parts of the daemon that are silent."""
        try:
            return self._conclude(self._trial.look(overdue), is_passed=self._trial.is_passed)
        except (CatalogError, StorageError) as error:
            log.error("%s", error)
            return None

    def judge_single_run(self, overdue: Sequence[str], tried: Container[str]) -> None:
        """At the end of a single run: commit if all is OK, roll back at the second that was not.

        `tried`: the destinations that were tried.
        """
        try:
            failure = self._trial.look_at_single_run(overdue, tried)
            if failure and not self._remote.is_last_start():
                log.warning("a single run failed with the new settings: %s; one more", failure.reason)
                return
            self._conclude(failure, is_passed=True)
        except (CatalogError, StorageError) as error:
            log.error("%s", error)

    def _conclude(self, failure: Failure | None, *, is_passed: bool) -> str | None:
        if failure:
            self._remote.roll_back(*failure)
            return "rolled back"
        if is_passed:
            self._remote.commit()
            log.warning("the trap works with the new settings: they are committed")
            return "committed"
        return None

    def interrupted(self) -> None:
        """Somebody ends the daemon during the trial: that says nothing about the settings, but its time counts."""
        try:
            self._remote.uncount_start()
        except TrapsyncError as error:  # then this start of the trial counts
            log.error("%s", error)
        self._note(self._trial.so_far())

    def _note(self, time: facts.TrialTime) -> None:
        try:
            self._catalog.facts.set("trial", time)
        except TrapsyncError as error:  # then its time does not count
            log.error("%s", error)


def _unreachable(names: Iterable[str]) -> Failure | None:
    text = ", ".join(names)
    return Failure("link_lost", f"not reached any more: {text}") if text else None


def _open(settings: Settings, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The required destinations that confirmed something and did not fail since.

    One that comes after another which is unreachable has nothing to confirm.
    """
    reached = {row["name"] for row in rows if row["delivered_at"] and not row["error"]}
    after = {name: table.get("depends_on") or name for name, table in settings.destinations.items()}
    names = [row["name"] for row in rows if row["required"]]
    return tuple(name for name in names if {name, after.get(name, name)} <= reached)


def _bytes_a_day(settings: Settings, name: str) -> float:
    """What a destination's bandwidth carries in a day, where it is limited."""
    return 86400.0 * Size.parse(settings.destinations.get(name, {}).get("bandwidth", "0 B")) or math.inf


def _hub_reached(links: dict[str, facts.Link]) -> float | None:
    """When the hub was last reached by a link that is OK (unix seconds)."""
    return max((link.reached for link in links.values() if link.reached and link.works), default=None)


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
