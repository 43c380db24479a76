"""What keeps the verdict from being ok, and what to do about it.

The verdict is the worst of the reasons. A reason of the verdict ok is news.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain

from msgspec import UNSET

from trapsync import cameras
from trapsync.catalog.facts import Capture, Link
from trapsync.clock import Clock, iso
from trapsync.files.mounts import read_only_card
from trapsync.hardware import usb_stick
from trapsync.hardware.board import (
    CAPPED,
    CLOSE_TO_LIMIT,
    LIMIT,
    SINCE_START,
    SLOWED,
    THROTTLED,
    UNDER_VOLTAGE,
)
from trapsync.net.stickypi_rules import FIRST_DAY
from trapsync.settings.schema import Settings, Warnings
from trapsync.settings.words import age, count
from trapsync.status import due_pictures
from trapsync.status.model import BoardStatus, Status
from trapsync.trap import began

UNSURE_ADVICE = (
    'to deliver them as they are, set trap.uncertain_times = "deliver"; if the trap has a real-time clock, '
    'trap.clock = "trusted"; see: trapsync clock'
)
_POWER = "a stronger supply, or a shorter or thicker cable"
_COOLING = "give it shade, a vent or a heat sink"
_SILENT = 3  # intervals without the hub that are worth a warning; the fleet's table has the same


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the verdict is what it is, in words for a person. `subject` is the doctor's word for what it is about."""

    verdict: str
    text: str
    subject: str = ""


def of_the_trap(status: Status, settings: Settings, clock: Clock) -> list[Reason]:
    """What is to be said of a trap whose catalog can be read."""
    return [
        *about("daemon", _daemon(status), _jobs(status)),
        *about("camera", _capture(status, settings), _old_image(status, settings, clock)),
        *about("not taken in", _not_taken_in(status)),
        *about("card", _disk(status, settings)),
        *about("battery", _battery(status, settings.warnings)),
        *about("clock", _clock(status)),
        *about("schedule", _schedule(status)),
        *about("deployment", _deployment(status, settings)),
        *about("images", _losses(status), _pruning(status)),
        *about("thumbnails", _thumbnails(status)),
        *about("destinations", _destinations(status)),
    ]


def about(subject: str, *found: Iterable[Reason]) -> Iterator[Reason]:
    """The same reasons, of this subject where they have none of their own."""
    for reason in chain.from_iterable(found):
        yield reason if reason.subject else replace(reason, subject=subject)


def of_what_is_known(status: Status, settings: Settings) -> list[Reason]:
    """What is to be said of a trap whose catalog cannot be read: what its daemon told."""
    return [
        *about("camera", _capture(status, settings)),
        *about("not taken in", _not_taken_in(status)),
        *about("daemon", _jobs(status)),
    ]


def of_the_board(board: BoardStatus | None, warnings: Warnings) -> Iterator[Reason]:
    """What is to be said of the computer: its supply, and its temperature."""
    if board is None:
        return
    now = board.throttled or 0
    before = now >> SINCE_START
    if warnings.under_voltage and now & UNDER_VOLTAGE:
        yield Reason("failing", f"under-voltage now, which damages cards: {_POWER}")
    elif warnings.under_voltage and before & UNDER_VOLTAGE:
        yield Reason("warning", f"under-voltage at some time since the start, which damages cards: {_POWER}")
    degrees = board.temperature
    if degrees is not None and degrees >= LIMIT:
        yield Reason("failing", f"the computer has {degrees:.0f} °C, and hardly works any more: {_COOLING}")
    elif degrees is not None and degrees >= warnings.temperature:
        slowed = ", and is slowed down" if degrees >= SLOWED else ""
        yield Reason("warning", f"the computer has {degrees:.0f} °C{slowed}: {_COOLING}")
    elif now & (CAPPED | THROTTLED | CLOSE_TO_LIMIT):
        yield Reason("warning", f"the computer is slowed down now: {_COOLING}, or a stronger supply")


def of_a_prepared_card(status: Status) -> Iterator[Reason]:
    """Why the trap has not joined the hub that its card was prepared for."""
    if status.joining:
        yield Reason("warning", status.joining)


def of_remote_settings(status: Status) -> list[Reason]:
    """How far the newest remote settings are, if there are any."""
    report = status.remote
    if report is UNSET:
        return []
    which = f"remote settings {report.version}"
    found = []
    match report.state:
        case "validated":
            found = [Reason("ok", f"{which} are pending a restart of the daemon")]
        case "trial":
            found = [Reason("ok", f"{which} are on trial")]
        case "rolled_back" if report.refused is None:
            found = [Reason("warning", f"{which} were rolled back: {report.reason}")]
        case "overridden":
            found = [Reason("ok", f"{which} are overridden locally: {report.reason}")]
    if report.refused is not None and report.state != "overridden":
        text = f"number {report.refused} of the operator was refused, {report.code}: {report.reason}"
        found.append(Reason("warning", text))
    if report.damaged:
        found.append(Reason("warning", report.damaged))
    return found


def of_silence(links: Mapping[str, Link], every: float, now: float) -> str | None:
    """What to warn of if no link has reached the hub for a while, or it rejects this trap; None if there is nothing."""
    if not links or any(link.error is None for link in links.values()):
        return None
    if denied := next(
        (link.error for link in links.values() if link.denied), None
    ):  # time alone mends nothing
        return f"the hub rejects this trap: {denied}"
    silent = min(now - (link.reached or link.since or 0.0) for link in links.values())
    if silent < max(_SILENT * every, 3600.0):
        return None
    error = next(iter(links.values())).error
    return f"no heartbeat reached the hub for {silent / 3600:.0f} h: {error}"


def _daemon(status: Status) -> Iterator[Reason]:
    if status.daemon.running and status.bug:
        yield Reason("warning", "a job of the daemon failed unexpectedly: see its log")
    if not status.daemon.running and not status.single_runs:  # on a timer there need not be one
        text = "the daemon is not running; start it: sudo systemctl start trapsync, or trapsync run"
        yield Reason("failing", text)


def _jobs(status: Status) -> Iterator[Reason]:
    """Jobs that the card or the catalog refuses, those of one error together."""
    by_error: dict[str, list[str]] = {}
    for name, error in (status.jobs or {}).items() if status.daemon.running else ():
        by_error.setdefault(error, []).append(name)
    for error, names in by_error.items():
        yield Reason("warning", f"jobs of the daemon fail, and are tried again ({', '.join(names)}): {error}")


def _takes_pictures(status: Status, settings: Settings) -> bool:
    return settings.camera.kind != "none" and bool(status.daemon.running or status.single_runs)


def _capture(status: Status, settings: Settings) -> Iterator[Reason]:
    if not _takes_pictures(status, settings):
        return
    capture = status.capture or Capture()
    if text := cameras.missing(settings.camera):  # which no further attempt changes
        yield Reason("failing", f"no pictures: {text}")
    elif capture.failures >= 3:
        yield Reason("failing", f"no pictures, {capture.failures} failures in a row: {capture.error}")
    elif capture.failures:
        yield Reason("warning", f"the last picture failed: {capture.error}")
    elif capture.oddity:
        yield Reason("warning", capture.oddity)


def _old_image(status: Status, settings: Settings, clock: Clock) -> Iterator[Reason]:
    """The newest image is older than the last time for pictures, and nothing else says why."""
    newest, now = status.newest_image, clock.wall()
    if (
        not newest
        or newest.age_s is None
        or not _takes_pictures(status, settings)
        or any(_capture(status, settings))
        or read_only_card(settings.storage.spool)
    ):
        return
    missing = due_pictures.missing(status, settings, now)
    if missing is None:
        return
    text = f"the newest image is {age(newest.age_s)} old"
    if missing.window.end < now:
        text += f", and there is none of the last time for pictures, {due_pictures.local_span(missing.window, settings)}"
    if missing.window.end < now and began(settings.storage.state, now) > missing.since:
        yield Reason("warning", f"{text}: was the trap off then, or did it have other settings?")
    else:
        yield Reason("failing", f"{text}: does the camera work? see: trapsync doctor")


def _not_taken_in(status: Status) -> Iterator[Reason]:
    for one in status.not_taken_in:
        match one.kind:
            case "unreadable":
                what = "1 file or folder" if one.count == 1 else f"{one.count} files or folders"
                yield Reason("warning", f"{what} cannot be read: {one.reason}")
            case "failed":
                what = f"{count(one.count, 'file')} cannot be taken in yet"
                yield Reason("warning", f"{what}: {one.example}: {one.reason}")
            case "stopped":
                yield Reason("failing", f"new files cannot be taken in: {one.reason}")


def _disk(status: Status, settings: Settings) -> Iterator[Reason]:
    free, days = status.disk.free_bytes, status.disk.days_left
    if free < settings.storage.min_free:
        text = f"the card is full ({free / 1e6:.0f} MB free): no pictures until images are delivered"
        yield Reason("failing", text)
    elif days is not None and days < settings.warnings.card_days and not settings.prune.enabled:
        yield Reason("warning", f"the card is full in about {age(days * 86400)}; deliver, prune or change it")


def _battery(status: Status, warnings: Warnings) -> Iterator[Reason]:
    level, days = status.battery, status.battery_days
    if level is None:
        return
    end = f", and empty in about {age(days * 86400)}" if days is not None else ""
    if level < warnings.battery or (days is not None and days < warnings.battery_days):
        yield Reason(
            "warning", f"the battery is at {level:.0f} %{end}: charge it, change it, or take fewer pictures"
        )


def impossible_clock(at: str) -> str:
    """What to say of a clock that is trusted by setting, and is before Sticky Pis were: servers take nothing from then."""
    return (
        f'the clock says {at}, which cannot be, and trap.clock = "trusted" believes it: '
        f'set it (timedatectl), or write trap.clock = "auto"'
    )


def _clock(status: Status) -> Iterator[Reason]:
    clock = status.clock
    if not clock.trusted:
        held = f" ({clock.held} now)" if clock.held else ""
        yield Reason("warning", f"the clock is not synchronised: images are held until it is{held}")
    elif status.at < iso(FIRST_DAY):
        yield Reason("warning", impossible_clock(status.at))
    if clock.unsure:
        held = (
            f"{count(clock.unsure, 'image')} held, taken before the clock was set and never to be corrected"
        )
        yield Reason("warning", f"{held}: {UNSURE_ADVICE}")
    if times := status.times:
        text = f"the time of {count(times.images, 'image')} cannot be corrected yet, and is tried again"
        yield Reason("warning", f"{text}: {times.error}; see: trapsync images --held")


def _schedule(status: Status) -> Iterator[Reason]:
    if status.schedule and status.schedule.ignored:
        text = "pictures are taken day and night, whatever capture.schedule says"
        yield Reason("warning", f"{text}: the clock has not been set since the trap started")


def _deployment(status: Status, settings: Settings) -> Iterator[Reason]:
    """Whether pictures are taken that belong to no deployment, since the owner ended the last one."""
    last, newest = status.deployment, status.newest_image
    if not (last and last.ended and newest and newest.age_s is not None) or settings.camera.kind == "none":
        return
    ended, now = (datetime.fromisoformat(text) for text in (last.ended, status.at))
    if now - timedelta(seconds=newest.age_s) > ended:
        text = f"pictures belong to no deployment, as it was ended on {last.ended[:10]}"
        yield Reason("warning", f"{text}; to begin one: trapsync deployment start")


def _losses(status: Status) -> Iterator[Reason]:
    if n := status.ledger.quarantined:
        yield Reason("warning", f"{count(n, 'damaged file')} in quarantine; see: trapsync quarantine")
    if status.lost:
        text = f"{count(status.lost, 'image')} lost: neither a destination nor the card has them any more"
        yield Reason("failing", f"{text}; see: trapsync images --lost; then: trapsync acknowledge")
    if status.missing:
        text = f"{count(status.missing, 'pending image')} not on the card"
        yield Reason("warning", f"{text}: the destinations are asked whether they have them")
    if status.unasked:
        text = f"{count(status.unasked, 'image')} removed on an older confirmation, as the server was unreachable"
        yield Reason("warning", f"{text}: it is asked as soon as it answers")
    if status.vanished:
        text = f"{count(status.vanished, 'image')} left the card before being delivered: who removed them?"
        yield Reason("warning", f"{text} see: trapsync images --dropped; then: trapsync acknowledge")
    if status.conflicts:
        text = f"{count(status.conflicts, 'image')} with the name of another"
        yield Reason("warning", f"{text}; see: trapsync images --conflicts")


def _thumbnails(status: Status) -> Iterator[Reason]:
    if status.thumbnails:
        yield Reason("warning", f"no thumbnails: {status.thumbnails}")


def _pruning(status: Status) -> Iterator[Reason]:
    for name, error in (status.unpruned or {}).items():
        text = f"delivered images cannot leave the card, because {name} cannot be asked for them"
        yield Reason("warning", f"{text}: {error}")
    if stuck := status.stuck:
        text = f"{count(stuck.images, 'delivered image')} cannot be removed from the card"
        yield Reason("warning", f"{text}: {stuck.error}")


def _destinations(status: Status) -> Iterator[Reason]:
    if not status.destinations:
        text = "there is no destination: images stay on the card; add a [destinations.NAME]"
        yield Reason("warning", text)
    for name, one in status.destinations.items():
        if one.refused_unseen:
            text = f"{name} refused {count(one.refused_unseen, 'image')}; see: trapsync images --refused"
            yield Reason("warning", text, name)
        if one.failing:
            text = f"{name} did not take {count(one.failing, 'image')}, tried again less and less often"
            yield Reason("warning", f"{text}: {one.failing_error}", name)
        if one.denied:
            text = (
                f"{name} does not let this trap in, and nothing is delivered there until somebody fixes that"
            )
            yield Reason("failing", f"{text}: {one.last_error}", name)
        elif one.pending and one.last_error and not one.hotplug:
            yield Reason("warning", f"{name} is unreachable: {one.last_error}", name)
        elif not (one.delivered or one.last_delivery or one.refused or one.failing or one.hotplug):
            text = f"{name} is not proven yet: nothing was delivered there; before you leave, wait for the first delivery"
            yield Reason("warning", text, name)
    for name, failed in (status.follow_ups or {}).items():
        text = (
            f"what follows the deliveries to {name} failed ({failed.attempts} in a row), and is tried again"
        )
        yield Reason("warning", f"{text}: {failed.error}", name)
    if status.stick == "failed":
        yield Reason("warning", f"the stick {usb_stick.described('failed')}")
