"""The trap's health at one moment: what is known, and the verdict with its reasons.

::

    model.py     what a status consists of: the keys of its JSON, with their types
    reasons.py   what keeps the verdict from being ok, and what to do about it
    due_pictures.py  when the next picture is due, and which one is missing

It is taken from the catalog, the file system and the daemon's lock, so it is also true when the daemon is dead. Of a
daemon that runs, what it told last is taken from its memory: a card that turned read-only keeps nothing new.
`cli.show_status` shows it to people; `remote.heartbeat` cuts it to what goes to the hub.
"""

import sqlite3
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from trapsync import __version__
from trapsync.catalog import Catalog, facts
from trapsync.catalog.counts import Ledger
from trapsync.catalog.deployments import Deployment
from trapsync.clock import Clock, iso, utc
from trapsync.effort import nights
from trapsync.errors import CatalogError
from trapsync.files.mounts import read_only_card
from trapsync.files.space import free_bytes
from trapsync.hardware import board, prepared_card, usb_stick
from trapsync.image import Image
from trapsync.settings.schema import Settings
from trapsync.spool import spool_mark
from trapsync.status.due_pictures import schedule_status
from trapsync.status.forecast import days_until_empty
from trapsync.status.model import (
    VERDICTS,
    BoardStatus,
    ClockStatus,
    DaemonStatus,
    DeploymentStatus,
    DestinationStatus,
    DiskStatus,
    LastNight,
    LinkStatus,
    NewestImage,
    NotTakenIn,
    OldPlace,
    RemoteSettings,
    Status,
)
from trapsync.status.reasons import (
    Reason,
    about,
    of_a_prepared_card,
    of_remote_settings,
    of_silence,
    of_the_board,
    of_the_trap,
    of_what_is_known,
)
from trapsync.trap import bytes_per_day, holder, open_to_read

_DAYS_OF_BATTERY = 5  # that a forecast rests on: longer than a cloud, shorter than a season
_DENIED_FOR_GOOD = 2  # times in a row: once may be the server's own mistake


def snapshot(
    settings: Settings,
    clock: Clock,
    device: str,
    pushed: dict[str, Any] | None = None,
    *,
    config: str | None = None,
    with_hub: bool = True,
    with_night: bool = True,
) -> Status:
    """How the trap is now. Reads only; works beside a daemon, without one, and without a catalog."""
    return judged(settings, clock, device, pushed, config=config, with_hub=with_hub, with_night=with_night)[0]


def judged(
    settings: Settings,
    clock: Clock,
    device: str,
    pushed: dict[str, Any] | None = None,
    *,
    config: str | None = None,
    with_hub: bool = True,
    with_night: bool = True,
) -> tuple[Status, list[Reason]]:
    """How the trap is now, and why: the one judge, of status, heartbeat, fleet, LED and doctor.

    `pushed` is what `in_force.report` returns, `config` says what is wrong with the config file. Without `with_hub` there is
    no warning of a silent link: whoever reads a heartbeat has just heard from the trap.
    """
    storage = settings.storage
    daemon = holder(storage.state)
    status = Status(
        device=device,
        name=settings.trap.name,
        version=__version__,
        at=iso(utc(clock.wall())),
        clock=ClockStatus(trusted=clock.trusted()),
        daemon=DaemonStatus(running=daemon is not None),
        disk=DiskStatus(free_bytes=free_bytes(storage.spool)),
        ledger=Ledger(0, 0, 0, 0, 0, 0),
        stick=usb_stick.word(),
        joining=prepared_card.waiting(),
        board=_board(board.read()),
    )
    if pushed is not None:
        status.remote = msgspec.convert(pushed, RemoteSettings)
    told, problem, is_clock_set = facts.live(daemon, storage.state), None, status.clock.trusted
    try:
        catalog = open_to_read(settings, clock)
        try:
            with catalog.connection.one_moment():
                told = _read(catalog, status, settings, clock) | told
                status.last_night = _last_night(catalog, settings) if with_night else UNSET
            is_clock_set = is_clock_set or catalog.times.is_known()
        finally:
            catalog.close()
    except (CatalogError, sqlite3.Error) as error:
        problem = str(error)
    known = facts.usable(told)
    links = _add_facts(status, known, settings)
    status.schedule = schedule_status(status, settings, clock, is_clock_set=is_clock_set) or UNSET
    if problem:
        reasons = [Reason("failing", problem, "catalog"), *of_what_is_known(status, settings)]
    else:
        reasons = of_the_trap(status, settings, clock)
    reasons += about("joined", of_a_prepared_card(status))
    reasons += about("computer", of_the_board(status.board or None, settings.warnings))
    if text := read_only_card(storage.spool, storage.state):
        reasons.insert(0, Reason("failing", text, "spool"))
    if text := spool_mark.problem(storage):
        reasons = [Reason("failing", text, "spool"), *(one for one in reasons if text not in one.text)]
    if status.daemon.running and known.config and not config:
        config = (
            f"the config file was invalid when the daemon started: it runs on the one of {known.config}; the file is valid "
            "now, so to apply it: sudo systemctl reload trapsync"
        )
    if config:
        status.config = config
        reasons.insert(0, Reason("failing", config, "config"))
    if with_hub and (text := of_silence(links, settings.hub.every, clock.wall())):
        reasons.append(Reason("warning", text, "hub"))
    status.hub = {name: _link(link) for name, link in links.items()}
    reasons += about("remote settings", of_remote_settings(status))
    status.verdict = max((reason.verdict for reason in reasons), key=VERDICTS.index, default="ok")
    status.reasons = [reason.text for reason in reasons]
    return status, reasons


def _read(catalog: Catalog, status: Status, settings: Settings, clock: Clock) -> dict[str, Any]:
    """Add what the catalog counts; return the facts in it, as they are stored."""
    status.ledger = catalog.counts.ledger()
    timings = catalog.times.timings()
    status.clock.held, status.clock.unsure = timings["held"], timings["unsure"]
    status.conflicts = catalog.counts.conflicts()
    status.vanished = catalog.counts.vanished()
    status.lost = catalog.counts.lost()
    status.missing = catalog.counts.missing()
    status.unasked = catalog.counts.unasked()
    status.old_places = msgspec.convert(catalog.counts.old_places(), list[OldPlace])
    newest = catalog.images.newest()
    status.newest_image = _newest(newest, clock)
    status.deployment = _deployment(catalog.deployments.all())
    status.battery = _battery(newest)
    status.battery_days = _battery_days(catalog, clock.wall())
    status.disk.days_left = _days_left(status.disk.free_bytes, catalog, settings, clock)
    tables = settings.destinations
    status.destinations = {
        row["name"]: _destination(row, tables.get(row["name"], {}), clock)
        for row in catalog.counts.destinations()
    }
    return catalog.facts.stored()


def _add_facts(status: Status, known: facts.Facts, settings: Settings) -> dict[str, facts.Link]:
    """Add what the daemon told; return the links to the hub, as they are remembered."""
    status.not_taken_in = [
        NotTakenIn(
            kind=one.kind, count=one.count, example=one.example, since=_moment(one.since), reason=one.reason
        )
        for one in known.not_taken_in
    ]
    status.jobs = known.jobs or UNSET
    ours = {name: one for name, one in known.follow_ups.items() if name in settings.destinations}
    status.follow_ups = ours or UNSET
    for name in ("bug", "single_runs", "thumbnails", "capture", "times", "unpruned", "stuck"):
        if (value := getattr(known, name)) is not None:
            setattr(status, name, value)
    return known.hub if settings.hub.is_set else {}


def _board(known: board.Board) -> BoardStatus | UnsetType:
    if known == board.Board():
        return UNSET
    return BoardStatus(temperature=known.temperature, throttled=known.throttled)


def _last_night(catalog: Catalog, settings: Settings) -> LastNight | UnsetType:
    night = nights.last_night(catalog, settings)
    if night is None:
        return UNSET
    return LastNight(night=night.name, expected=night.expected, taken=night.taken, missed=night.reasons())


def _battery(newest: Image | None) -> float | None:
    """Per cent, as the newest image has it."""
    level: float | None = newest.metadata.get("bat") if newest else None
    return level


def _battery_days(catalog: Catalog, now: float) -> float | None:
    return days_until_empty(catalog.images.batteries(now - _DAYS_OF_BATTERY * 86400), now)


def _newest(image: Image | None, clock: Clock) -> NewestImage | None:
    """The newest image and its age: by the monotonic clock within its own boot, else by the wall."""
    if image is None:
        return None
    seen = image.evidence
    if seen and seen.boot_id == clock.boot_id():
        age = clock.monotonic() - seen.monotonic
    elif image.trap_name:
        age = clock.wall() - image.trap_name.taken.timestamp()
    else:
        age = None
    return NewestImage(name=image.name, age_s=None if age is None else round(max(0.0, age), 1))


def _deployment(known: list[Deployment]) -> DeploymentStatus | None:
    if not known:
        return None
    one = known[-1]
    return DeploymentStatus(
        id=one.id,
        since=iso(utc(one.began)),
        ended=_moment(one.ended),
        location_name=one.terms.get("location_name"),
    )


def _days_left(free: int, catalog: Catalog, settings: Settings, clock: Clock) -> float | None:
    """Days until the card is full at the present rate, if nothing leaves it; None if unknown."""
    size = catalog.images.mean_size()
    if not size or settings.camera.kind == "none":
        return None
    a_day = bytes_per_day(settings, clock, size)
    return round(max(0, free - settings.storage.min_free) / a_day, 1) if a_day else None


def _destination(row: dict[str, Any], table: dict[str, Any], clock: Clock) -> DestinationStatus:
    at = row["delivered_at"]
    return DestinationStatus(
        kind=row["kind"],
        required=bool(row["required"]),
        depends_on=table.get("depends_on") or None,
        hotplug=table.get("hotplug") is True,
        pending=row["pending"],
        delivered=row["delivered"],
        refused=row["refused"],
        refused_unseen=row["unseen"],
        place=row["place"],
        last_delivery=_moment(at),
        delivery_age_s=round(max(0.0, clock.wall() - at)) if at else None,
        next_attempt=_moment(clock.wall() + row["waits"] if row["waits"] else None),
        last_error=row["error"],
        failing=row["failing"],
        denied=bool(row["barred"]) and row["attempts"] >= _DENIED_FOR_GOOD,
        failing_error=f"{row['failing_key']}: {row['failing_error']}" if row["failing"] else None,
    )


def _link(link: facts.Link) -> LinkStatus:
    return LinkStatus(
        reached=_moment(link.reached or None), failing_since=_moment(link.since or None), error=link.error
    )


def _moment(at: float | None) -> str | None:
    return None if at is None else iso(utc(at))
