"""A snapshot of the trap's health, and its two faces: JSON for programs, lines for people.

It is taken from the catalog, the filesystem and the daemon's lock, so it is true when the daemon is
dead too. The verdict is the worst of its reasons; each reason says what to do about it.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from trapsync import __version__
from trapsync.catalog import Catalog
from trapsync.clock import Clock, iso, utc
from trapsync.errors import CatalogError
from trapsync.files.space import free_bytes
from trapsync.hardware import stick
from trapsync.image import Image
from trapsync.remote.uplink import reachability
from trapsync.settings import schedule
from trapsync.settings.schema import Settings
from trapsync.spool import spool_mark
from trapsync.trap import bytes_per_day, holder, local_time, open_to_read, place

VERDICTS = ("ok", "warning", "failing")
UNSURE_ADVICE = (
    'to deliver them as they are, set trap.unsure_times = "deliver"; if the trap has a real-time clock, '
    'trap.clock = "trusted"; see: trapsync clock'
)
_FEW_DAYS = 3.0  # of disk left: time to come by


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the verdict is not ok, in words for a person."""

    verdict: str
    text: str


def snapshot(
    settings: Settings,
    clock: Clock,
    device: str,
    pushed: dict[str, Any] | None = None,
    *,
    with_home: bool = True,
) -> dict[str, Any]:
    """How the trap is. Keys: see scripts/README.md; seconds and bytes, moments as UTC text.

    `pushed` is what `pushed.report` says. Without `with_home` there is no warning of silence: whoever reads a
    heartbeat has just heard one. Reads only; works beside a daemon, without one, and without a catalog.
    """
    storage = settings.storage
    facts: dict[str, Any] = {
        "device": device,
        "name": settings.trap.name,
        "version": __version__,
        "at": iso(utc(clock.wall())),
        "clock": {"trusted": clock.trusted(), "held": 0, "unsure": 0},
        "daemon": {"running": holder(storage.state) is not None},
        "disk": {"free_bytes": free_bytes(storage.spool), "days_left": None},
        "ledger": dict.fromkeys(("captured", "delivered", "owed", "quarantined", "dropped", "lost"), 0),
        "newest_image": None,
        "battery": None,
        "destinations": {},
        "stick": stick.word(),
        "home": {},
    }
    problem = _add_catalog(facts, settings, clock)
    reasons = [problem] if problem else list(_reasons(facts, settings, clock))
    if text := spool_mark.problem(storage):
        reasons = [Reason("failing", text), *(one for one in reasons if text not in one.text)]
    if with_home and (text := reachability.complaint(facts["home"], settings.home.every, clock.wall())):
        reasons.append(Reason("warning", text))
    facts["home"] = reachability.described(facts["home"])
    if pushed is not None:
        facts["pushed"] = pushed
        reasons += _pushed(pushed)
    facts["verdict"] = max((reason.verdict for reason in reasons), key=VERDICTS.index, default="ok")
    facts["reasons"] = [reason.text for reason in reasons]
    return facts


def _add_catalog(facts: dict[str, Any], settings: Settings, clock: Clock) -> Reason | None:
    """Read what the catalog knows; a Reason if it cannot be read."""
    try:
        catalog = open_to_read(settings, clock)
        try:
            _read(catalog, facts, settings, clock)
        finally:
            catalog.close_reader()
    except (CatalogError, sqlite3.Error) as error:
        return Reason("failing", str(error))
    return None


def _read(catalog: Catalog, facts: dict[str, Any], settings: Settings, clock: Clock) -> None:
    ledger = catalog.ledger()
    facts["ledger"] = {name: getattr(ledger, name) for name in facts["ledger"]}
    facts["clock"] |= catalog.timings()
    facts["conflicts"] = catalog.conflicts()
    facts["vanished"] = catalog.vanished()
    facts["lost"] = catalog.lost()
    facts["missing"] = catalog.missing()
    facts["unasked"] = catalog.unasked()
    facts["old_places"] = catalog.old_places()
    newest = catalog.newest()
    facts["newest_image"] = _newest(newest, clock)
    facts["battery"] = _battery(newest)
    facts["disk"]["days_left"] = _days_left(facts["disk"]["free_bytes"], catalog, settings, clock)
    tables = settings.destinations
    facts["destinations"] = {
        row["name"]: _destination(row, tables.get(row["name"], {}), clock) for row in catalog.destinations()
    }
    known = {"capture", "thumbnails", "times", "bug", "errands", "stuck", "unpruned"} | (
        {"home"} if settings.home.is_set else set()
    )
    facts |= {name: value for name, value in catalog.facts().items() if name in known and value is not None}


def _battery(newest: Image | None) -> float | None:
    """Per cent, as the newest image has it; below zero stands for unknown there."""
    level = newest.metadata.get("bat") if newest else None
    return level if level is not None and level >= 0 else None


def _newest(image: Image | None, clock: Clock) -> dict[str, Any] | None:
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
    return {"name": image.name, "age_s": None if age is None else round(max(0.0, age), 1)}


def _days_left(free: int, catalog: Catalog, settings: Settings, clock: Clock) -> float | None:
    """Days until the card is full at the present rate, if nothing leaves it; None if unknown."""
    size = catalog.mean_size()
    if not size or settings.camera.kind == "none":
        return None
    a_day = bytes_per_day(settings, clock, size)
    return round(max(0, free - settings.storage.min_free) / a_day, 1) if a_day else None


def _destination(row: dict[str, Any], table: dict[str, Any], clock: Clock) -> dict[str, Any]:
    def moment(at: float | None) -> str | None:
        return None if at is None else iso(utc(at))

    return {
        "kind": row["kind"],
        "required": bool(row["required"]),
        "after": table.get("after") or None,
        "hotplug": table.get("hotplug") is True,
        "owed": row["owed"],
        "delivered": row["delivered"],
        "refused": row["refused"],
        "refused_unseen": row["unseen"],
        "place": row["place"],
        "last_delivery": moment(row["delivered_at"]),
        "delivery_age_s": round(max(0.0, clock.wall() - row["delivered_at"]))
        if row["delivered_at"]
        else None,
        "next_attempt": moment(clock.wall() + row["waits"]) if row["waits"] else None,
        "last_error": row["error"],
    }


def _reasons(facts: dict[str, Any], settings: Settings, clock: Clock) -> list[Reason]:
    checks = (_daemon, _capture, _disk, _clock, _losses, _destinations)
    return [reason for check in checks for reason in check(facts, settings, clock)]


def _daemon(facts: dict[str, Any], _settings: Settings, _clock: Clock) -> list[Reason]:
    if facts["daemon"]["running"]:
        return (
            [Reason("warning", "a job of the daemon failed unexpectedly: see its log")]
            if facts.get("bug")
            else []
        )
    if facts.get("errands"):  # none should be
        return []
    return [
        Reason("failing", "the daemon is not running; start it: systemctl start trapsync, or trapsync run")
    ]


def _capture(facts: dict[str, Any], settings: Settings, clock: Clock) -> list[Reason]:
    if settings.camera.kind == "none" or not (facts["daemon"]["running"] or facts.get("errands")):
        return []
    capture = facts.get("capture") or {"failures": 0, "error": None}
    if capture["failures"] >= 3:
        return [
            Reason("failing", f"no pictures, {capture['failures']} failures in a row: {capture['error']}")
        ]
    if capture["failures"]:
        return [Reason("warning", f"the last picture failed: {capture['error']}")]
    if capture.get("oddity"):
        return [Reason("warning", capture["oddity"])]
    newest = facts["newest_image"]
    awake = schedule.is_open(settings.capture.windows, place(settings), local_time(clock))
    if newest and awake and newest["age_s"] is not None and newest["age_s"] > 3 * settings.capture.every + 60:
        return [Reason("failing", f"the newest image is {_ago(newest['age_s'])} old: is the camera well?")]
    return []


def _pushed(report: dict[str, Any]) -> list[Reason]:
    which, why = f"pushed settings {report['epoch']}.{report['version']}", report["reason"]
    match report["state"]:
        case "validated":
            return [Reason("ok", f"{which} wait for the daemon to start again")]
        case "trial":
            return [Reason("ok", f"{which} are on trial")]
        case "rolled_back":
            return [Reason("warning", f"{which} were undone: {why}")]
        case "overridden":
            return [Reason("ok", f"{which} are overridden at the trap: {why}")]
    if report["code"]:
        return [Reason("warning", f"the newest pushed settings were refused: {why}")]
    return []


def _disk(facts: dict[str, Any], settings: Settings, _clock: Clock) -> list[Reason]:
    free, days = facts["disk"]["free_bytes"], facts["disk"]["days_left"]
    if free < settings.storage.min_free:
        return [
            Reason(
                "failing",
                f"the card is full ({free / 1e6:.0f} MB free): no pictures until images are delivered",
            )
        ]
    if days is not None and days < _FEW_DAYS and not settings.prune.enabled:
        return [Reason("warning", f"the card is full in {days:g} days; deliver, prune or change it")]
    return []


def _clock(facts: dict[str, Any], _settings: Settings, _clock: Clock) -> list[Reason]:
    clock, reasons = facts["clock"], []
    if not clock["trusted"]:
        held = f" ({clock['held']} now)" if clock["held"] else ""
        reasons.append(Reason("warning", f"the clock is not synchronised: images are held until it is{held}"))
    if clock["unsure"]:
        held = f"{_count(clock['unsure'], 'image')} held, taken before the clock was set and never to be corrected"
        reasons.append(Reason("warning", f"{held}: {UNSURE_ADVICE}"))
    if times := facts.get("times"):
        text = f"the time of {_count(times['images'], 'image')} cannot be corrected, and is tried again"
        reasons.append(Reason("warning", f"{text}: {times['error']}; see: trapsync images --held"))
    return reasons


def _losses(facts: dict[str, Any], _settings: Settings, _clock: Clock) -> list[Reason]:
    reasons = []
    if facts["ledger"]["quarantined"]:
        n = facts["ledger"]["quarantined"]
        reasons.append(
            Reason("warning", f"{_count(n, 'damaged file')} in quarantine; see: trapsync quarantine")
        )
    if facts.get("lost"):
        text = (
            f"{_count(facts['lost'], 'image')} lost: no destination has them any more, and the card neither"
        )
        reasons.append(Reason("failing", f"{text}; see: trapsync images --lost; then: trapsync acknowledge"))
    if facts.get("missing"):
        text = f"{_count(facts['missing'], 'pending image')} not on the card"
        reasons.append(Reason("warning", f"{text}: the destinations are asked whether they have them"))
    if facts.get("unasked"):
        text = f"{_count(facts['unasked'], 'image')} left the card on the last word of a server that could not be asked"
        reasons.append(Reason("warning", f"{text}: it is asked as soon as it answers"))
    for name, error in (facts.get("unpruned") or {}).items():
        text = f"delivered images cannot leave the card, because {name} cannot be asked for them"
        reasons.append(Reason("warning", f"{text}: {error}"))
    if stuck := facts.get("stuck"):
        text = f"{_count(stuck['images'], 'delivered image')} cannot be removed from the card"
        reasons.append(Reason("warning", f"{text}: {stuck['error']}"))
    if facts.get("vanished"):
        reasons.append(
            Reason(
                "warning",
                f"{_count(facts['vanished'], 'image')} left the card before being delivered: who removed them? "
                "see: trapsync images --dropped; then: trapsync acknowledge",
            )
        )
    if facts.get("conflicts"):
        reasons.append(
            Reason(
                "warning",
                f"{_count(facts['conflicts'], 'image')} with the name of another; see: trapsync images --conflicts",
            )
        )
    if facts.get("thumbnails"):
        reasons.append(Reason("warning", f"no thumbnails: {facts['thumbnails']}"))
    return reasons


def _destinations(facts: dict[str, Any], settings: Settings, _clock: Clock) -> list[Reason]:
    if not facts["destinations"]:
        return [
            Reason("warning", "there is no destination: images stay on the card; add a [destinations.NAME]")
        ]
    reasons = []
    for name, row in facts["destinations"].items():
        if row["refused_unseen"]:
            text = f"{name} refused {_count(row['refused_unseen'], 'image')}; see: trapsync images --refused"
            reasons.append(Reason("warning", text))
        if row["owed"] and row["last_error"] and not row["hotplug"]:
            reasons.append(Reason("warning", f"{name} is out of reach: {row['last_error']}"))
    if facts["stick"] == "failed":
        reasons.append(Reason("warning", f"the stick {stick.described('failed')}"))
    return reasons


# ── For people ───────────────────────────────────────────────────────────────────────────────────────


def lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The snapshot as (label, text) lines for a person; the verdict and its reasons come first."""
    ledger, disk, newest = facts["ledger"], facts["disk"], facts["newest_image"]
    days = "" if disk["days_left"] is None else f", {disk['days_left']:g} days at this rate"
    return [
        (facts["verdict"], f"trap {facts['device']}" + (f" ({facts['name']})" if facts["name"] else "")),
        *(("", f"- {reason}") for reason in facts["reasons"]),
        ("newest image", _newest_line(newest)),
        ("images", _ledger_line(ledger)),
        *((name, _destination_line(row)) for name, row in facts["destinations"].items()),
        *(("", _old_place_line(place)) for place in facts.get("old_places", ())),
        *((("stick", stick.described(facts["stick"])),) if facts["stick"] else ()),
        ("card", f"{disk['free_bytes'] / 1e9:.1f} GB free{days}"),
        ("clock", _clock_line(facts["clock"])),
        *(("home", _home_line(way, known)) for way, known in facts["home"].items()),
        ("daemon", _daemon_line(facts)),
    ]


def _daemon_line(facts: dict[str, Any]) -> str:
    if facts["daemon"]["running"]:
        return "running"
    return "not running: this trap does errands (trapsync once)" if facts.get("errands") else "not running"


def _newest_line(newest: dict[str, Any] | None) -> str:
    if newest is None:
        return "none yet"
    age = "" if newest["age_s"] is None else f", {_ago(newest['age_s'])} ago"
    return f"{newest['name']}{age}"


def _ledger_line(ledger: dict[str, int]) -> str:
    parts = " + ".join(f"{n} {name}" for name, n in ledger.items() if name != "captured")
    return f"{ledger['captured']} captured = {parts}"


def _clock_line(clock: dict[str, Any]) -> str:
    held = clock["held"] + clock["unsure"]
    word = "synchronised" if clock["trusted"] else "not synchronised"
    return f"{word}; {_count(held, 'image')} held for the time they were taken at" if held else word


def _home_line(way: str, known: dict[str, Any]) -> str:
    last = f"last reached {known['reached']}" if known["reached"] else "never reached"
    return f"{way}: {last}" + (f"; {known['error']}" if known["error"] else "")


def _destination_line(row: dict[str, Any]) -> str:
    parts = [f"{row['delivered']} delivered, {row['owed']} owed"]
    if row["after"]:
        parts.append(f"comes after {row['after']}")
    if not row["required"]:
        parts.append("best effort")
    if row["refused"]:
        parts.append(f"{row['refused']} refused")
    parts.append(f"last {row['last_delivery']}" if row["last_delivery"] else "nothing delivered yet")
    if row["hotplug"]:
        parts.append("comes by now and then")
    elif row["next_attempt"]:
        parts.append(f"next attempt {row['next_attempt']}")
    return "; ".join(parts)


def _old_place_line(place: dict[str, Any]) -> str:
    where = place["place"] or place["kind"]
    return f"{_count(place['only_there'], 'image')} only at the former place of {place['name']} ({where})"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
