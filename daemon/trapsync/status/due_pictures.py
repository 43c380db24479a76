"""When the next picture is due, and which one should be there by now, by the schedule and the clock as they stand."""

import math
from datetime import datetime
from typing import NamedTuple

from trapsync.clock import Clock, iso, utc
from trapsync.settings import schedule
from trapsync.settings.schema import Settings
from trapsync.settings.windows import Window
from trapsync.status.model import ScheduleStatus, Status
from trapsync.trap import place

_FIRST = 300.0  # seconds for the first picture of a window, from its opening until it is in the catalog
_WANDER = 60.0  # seconds by which a clock may have been corrected since the picture of an opening


def schedule_status(
    status: Status, settings: Settings, clock: Clock, *, is_clock_set: bool
) -> ScheduleStatus | None:
    """What is open now, and when the next picture is due; None without a camera.

    `is_clock_set`: the clock was trusted at some moment of this boot.
    """
    if settings.camera.kind == "none":
        return None
    at, now = place(settings), clock.wall()
    windows = settings.capture.schedule if is_clock_set else ()
    is_open = bool(schedule.open_at(windows, at, now))
    until = schedule.closes(windows, at, now) if is_open and windows else math.inf
    due = _next(status, settings, windows, now)
    return ScheduleStatus(
        timezone=str(at.timezone),
        open=is_open,
        open_until=None if until == math.inf else iso(utc(until)),
        next_picture=None if due is None else iso(utc(due)),
        ignored=bool(settings.capture.schedule) and not is_clock_set,
    )


def _next(status: Status, settings: Settings, windows: tuple[str, ...], now: float) -> float | None:
    """When the next picture is due; None if that is not known: no daemon runs, or a timer starts the trap."""
    at, every = place(settings), settings.capture.every
    opening = schedule.next_opening(windows, at, now)
    if not status.daemon.running:
        return opening if status.single_runs and not schedule.open_at(windows, at, now) else None
    age = status.newest_image.age_s if status.newest_image else None
    due = now if age is None else now + max(0.0, every - age)
    turns = [due] if schedule.open_at(windows, at, due) else []
    return min([*turns, *([] if opening is None else [opening])], default=None)


class Missing(NamedTuple):
    """A picture that should be there by now: of which time that was open, and since when."""

    window: Window
    since: float


def missing(status: Status, settings: Settings, now: float) -> Missing | None:
    """The picture that is missing, judged by the latest time that was open: three intervals without one are too many.

    While the schedule is closed no picture grows old. None if there is none to judge by, or its age is unknown.
    """
    newest, every = status.newest_image, settings.capture.every
    if not newest or newest.age_s is None or not status.schedule:
        return None
    windows, at = () if status.schedule.ignored else settings.capture.schedule, place(settings)
    last = schedule.last_opened(windows, at, now)
    if last and now - last.begin < _FIRST:  # its picture may be on its way; then the time before counts
        last = schedule.last_opened(windows, at, last.begin - 1)
    if last is None:
        return None
    since = max(last.begin - _WANDER, last.end - 3 * every - 60)
    return Missing(last, since) if now - newest.age_s < since else None


def local_span(window: Window, settings: Settings) -> str:
    """`21:00 to 05:30`, in the trap's time zone."""
    zone = place(settings).timezone
    return " to ".join(f"{datetime.fromtimestamp(at, zone):%H:%M}" for at in window if abs(at) < math.inf)
