"""A status as lines for people: a label and a text each."""

from datetime import tzinfo

from trapsync.hardware import usb_stick
from trapsync.settings.words import age, count, days_of, when
from trapsync.status.model import (
    ClockStatus,
    DeploymentStatus,
    DestinationStatus,
    DiskStatus,
    LastNight,
    LinkStatus,
    NewestImage,
    NotTakenIn,
    OldPlace,
    Status,
)

_WHEN_DELIVERED = "an image counts as delivered when every required destination has it"
_LINKS = {"web": "HTTPS", "mqtt": "MQTT"}


def lines(status: Status, timezone: tzinfo) -> list[tuple[str, str]]:
    """The status as (label, text), with moments in the trap's time zone; the verdict and its reasons come first."""
    name = f" ({status.name})" if status.name else ""
    return [
        (status.verdict, f"trap {status.device}{name}"),
        *(("", f"- {reason}") for reason in status.reasons),
        ("newest image", _newest(status.newest_image)),
        *((("deployment", _deployment(one, status.at, timezone)),) if (one := status.deployment) else ()),
        *((("last night", _last_night(status.last_night)),) if status.last_night else ()),
        *((("next picture", text),) if (text := _next_picture(status, timezone)) else ()),
        *((name, _destination(one, status.at, timezone)) for name, one in status.destinations.items()),
        ("images", _ledger(status)),
        *(
            ("", f"left alone in the spool: {_left_alone(one)}")
            for one in status.not_taken_in
            if one.kind == "left_alone"
        ),
        *((("", _WHEN_DELIVERED),) if _is_partly_delivered(status) else ()),
        *(("", _old_place(place)) for place in status.old_places or ()),
        *((("stick", usb_stick.described(status.stick)),) if status.stick else ()),
        ("card", _disk(status.disk)),
        *(
            (("battery", _battery(status.battery, status.battery_days)),)
            if status.battery is not None
            else ()
        ),
        ("clock", _clock(status.clock)),
        *(("hub", _link(name, link, status.at, timezone)) for name, link in status.hub.items()),
        ("daemon", _daemon(status)),
    ]


def _newest(newest: NewestImage | None) -> str:
    if newest is None:
        return "none yet"
    return newest.name if newest.age_s is None else f"{newest.name}, {age(newest.age_s)} ago"


def _deployment(one: DeploymentStatus, now: str, timezone: tzinfo) -> str:
    where = f", {one.location_name}" if one.location_name else ""
    if one.ended:
        return f"none; {one.id}{where} ended {when(one.ended, now, timezone)}"
    return f"{one.id}{where}, since {when(one.since, now, timezone)}"


def _last_night(night: LastNight) -> str:
    missed = ", ".join(f"{reason.replace('_', ' ')} {number}" for reason, number in night.missed.items())
    return f"{night.taken} of {night.expected} pictures taken" + (f"; missed: {missed}" if missed else "")


def _next_picture(status: Status, timezone: tzinfo) -> str:
    """When it is due; empty where nothing takes pictures."""
    plan = status.schedule
    if not plan or not (status.daemon.running or status.single_runs):
        return ""
    left = plan.until_next(status.at)
    if left is None or plan.next_picture is None:
        return f"as the trap is started next, {plan.timezone}" if plan.open else ""
    if left < 1:
        return f"due now, {plan.timezone}"
    text = f"{when(plan.next_picture, status.at, timezone)}, {plan.timezone}"
    return text if plan.open else f"{text}; none until then"


def _ledger(status: Status) -> str:
    ledger = status.ledger
    return (
        f"{ledger.captured} captured = {ledger.delivered} delivered + {ledger.pending} pending + "
        f"{ledger.quarantined} quarantined + {ledger.dropped} dropped + {ledger.lost} lost"
    )


def _is_partly_delivered(status: Status) -> bool:
    """Whether images may be at one required destination and not at another."""
    required = [one for one in status.destinations.values() if one.required]
    return bool(status.ledger.pending) and any(one.pending < status.ledger.pending for one in required)


def _left_alone(one: NotTakenIn) -> str:
    return f"{one.reason} ({one.example})" if one.count == 1 else f"{one.reason} ({one.example}, for example)"


def _destination(one: DestinationStatus, now: str, timezone: tzinfo) -> str:
    parts = [f"{one.delivered} delivered, {one.pending} pending"]
    if one.depends_on:
        parts.append(f"comes after {one.depends_on}")
    if not one.required:
        parts.append("best effort")
    if one.refused:
        parts.append(f"{one.refused} refused")
    last = one.last_delivery
    parts.append(f"last {when(last, now, timezone)}" if last else "nothing delivered yet")
    if one.hotplug:
        parts.append("connected now and then")
    elif one.next_attempt:
        parts.append(f"next attempt {when(one.next_attempt, now, timezone)}")
    return "; ".join(parts)


def _old_place(place: OldPlace) -> str:
    where = place.place or place.kind
    return f"{count(place.only_there, 'image')} only at the former place of {place.name} ({where})"


def _disk(disk: DiskStatus) -> str:
    days = "" if disk.days_left is None else f", {days_of(disk.days_left)} at this rate"
    return f"{disk.free_bytes / 1e9:.1f} GB free{days}"


def _battery(level: float, days: float | None) -> str:
    return f"{level:.0f} %" + ("" if days is None else f", empty in about {age(days * 86400)}")


def _clock(clock: ClockStatus) -> str:
    held = clock.held + clock.unsure
    text = "synchronised" if clock.trusted else "not synchronised"
    return f"{text}; {count(held, 'image')} held for the time they were taken at" if held else text


def _link(name: str, link: LinkStatus, now: str, timezone: tzinfo) -> str:
    last = f"last reached {when(link.reached, now, timezone)}" if link.reached else "never reached"
    return f"{_LINKS.get(name, name)}: {last}" + (f"; {link.error}" if link.error else "")


def _daemon(status: Status) -> str:
    if status.daemon.running:
        return "running"
    return "not running: this trap makes single runs (trapsync once)" if status.single_runs else "not running"
