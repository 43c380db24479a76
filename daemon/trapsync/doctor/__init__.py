"""Check what could keep this trap from working, and say what to do about each finding.

::

    __init__.py   all findings, in their order; those about settings and catalog
    machine.py    the kernel's files and other programs' answers, or simulated ones
    camera.py     the camera, its modes, other programs that use it
    card.py       folders, space, wear, write latency
    board.py      power, temperature, clocks
    service.py    systemd, watchdogs, the log
    network.py    secrets, hub, remote settings, destinations

It may run beside the daemon: it sends no image, does not use the camera then, and writes only an unnamed temporary file.
"""

import sys
from collections.abc import Callable, Iterable
from datetime import datetime

from trapsync.clock import Clock
from trapsync.destinations import Finding
from trapsync.doctor import network
from trapsync.doctor.board import board
from trapsync.doctor.camera import camera
from trapsync.doctor.card import card
from trapsync.doctor.machine import Machine
from trapsync.doctor.service import service
from trapsync.errors import CatalogError, TrapsyncError
from trapsync.hardware.device_id import device_id
from trapsync.hardware.sensors import sources
from trapsync.jpeg import thumbnail
from trapsync.remote.in_force import InForce, report
from trapsync.runtime import config_check, landlock
from trapsync.settings import schedule
from trapsync.settings.schema import Settings
from trapsync.settings.words import age, count
from trapsync.status import judged
from trapsync.status.model import Status
from trapsync.status.reasons import Reason
from trapsync.trap import open_to_read, place

# Of these there is one thing to say, in the doctor's words or in those of the status.
_ONE_CAUSE = {"clock", "thumbnails", "remote settings", "destinations", "catalog", "card", "spool"}
_LIBVIPS = "from trapsync.jpeg import thumbnail; print(thumbnail.version())"
_RESTRICTED = "from trapsync.runtime import restricted; print('lacking:', restricted.probe())"


def examine_trap(
    found: InForce, clock: Clock, sleep: Callable[[float], None], machine: Machine | None = None
) -> list[Finding]:
    """Make all findings, in the order of an image's way through the trap. Sends no image."""
    settings, source = found.settings, found.source
    machine = machine or Machine()
    known, reasons = _judged(found, clock)
    findings = [
        _config(found),
        _device(settings),
        *camera(settings, machine),
        _sensors(settings, machine),
        _schedule(settings, clock),
        *card(settings, known, reasons, clock, machine),
        _catalog(settings, clock),
        _thumbnails(machine),
        _isolation(machine),
        *board(settings, clock, machine),
        *service(settings, machine),
        *network.secrets(settings, source),
        *network.named_files(settings, source),
        *network.without_tls(settings),
        *network.proxies(settings),
        *network.joined(settings),
        *network.hub(settings, clock),
        *network.remote(found),
        *network.destinations(settings, clock, sleep, source),
    ]
    # Of the computer there are findings already, by the same judge.
    return with_reasons(findings, [reason for reason in reasons if reason.subject != "computer"])


def with_reasons(findings: list[Finding], reasons: Iterable[Reason]) -> list[Finding]:
    """The findings, and what the status says beyond them: for it and for the doctor one cause has one verdict."""
    more = [
        Finding(one.verdict, one.subject, one.text)
        for one in reasons
        if one.verdict != "ok" and not any(_tells(finding, one) for finding in findings)
    ]
    wrong = {finding.subject for finding in more}
    return [one for one in findings if one.verdict != "ok" or one.subject not in wrong] + more


def _tells(finding: Finding, reason: Reason) -> bool:
    if (finding.subject, finding.verdict) != (reason.subject, reason.verdict):
        return False
    return finding.subject in _ONE_CAUSE or finding.text in reason.text


def _judged(found: InForce, clock: Clock) -> tuple[Status | None, list[Reason]]:
    """The status and its reasons; None where it cannot be had."""
    try:
        return judged(found.settings, clock, "", report(found), config=config_check.shown(found.files))
    except (TrapsyncError, OSError):  # which has a finding of its own
        return None, []


def _config(found: InForce) -> Finding:
    if problem := config_check.shown(found.files):
        return Finding("failing", "config", problem)
    return Finding("ok", "config", f"{found.source} is valid")


def _device(settings: Settings) -> Finding:
    try:
        return Finding("ok", "device", f"this trap is {device_id(settings.trap)}")
    except TrapsyncError as error:
        return Finding("failing", "device", str(error))


def _sensors(settings: Settings, machine: Machine) -> Finding:
    found = sources(settings.sensors, machine.at("/sys"))
    known = ", ".join(f"{one.name} from {one.command[-1]}" for one in found)
    return Finding("ok", "sensors", known or "none: images are stored without temperature and humidity")


def _schedule(settings: Settings, clock: Clock) -> Finding:
    try:
        at = place(settings)
    except TrapsyncError as error:
        return Finding("failing", "schedule", str(error))
    windows, now = settings.capture.schedule, clock.wall()
    if not windows:
        return Finding("ok", "schedule", "day and night")
    text, opening = f"{', '.join(windows)}, {at.timezone}", schedule.next_opening(windows, at, now)
    if schedule.open_at(windows, at, now):
        text += "; open now"
    elif opening is not None:
        text += f"; opens at {datetime.fromtimestamp(opening, at.timezone):%H:%M} (in {age(opening - now)})"
    return Finding("ok", "schedule", text)


def _catalog(settings: Settings, clock: Clock) -> Finding:
    try:
        catalog = open_to_read(settings, clock)
        images = catalog.counts.ledger().captured
        catalog.close()
    except CatalogError as error:
        return Finding("failing", "catalog", str(error))
    return Finding("ok", "catalog", f"{count(images, 'image')}")


def _thumbnails(machine: Machine) -> Finding:
    """Load libvips in a process of its own: a broken one may crash the process that loads it."""
    missing = thumbnail.missing()
    if missing:
        return Finding("warning", "thumbnails", f"disabled: {missing}")
    answer = machine.ask((sys.executable, "-I", "-c", _LIBVIPS)) or "no answer"
    answer = answer.strip().splitlines()[-1]
    if not answer.startswith("libvips"):
        return Finding("warning", "thumbnails", f"disabled: libvips does not work: {answer}")
    return Finding("ok", "thumbnails", f"enabled ({answer})")


def _isolation(machine: Machine) -> Finding:
    """Have a process give up its rights as the examiners do, and say which this kernel leaves to it.

    Most people cannot change their kernel, so that is no warning; one that only was told not to do it is.
    """
    answer = (machine.ask((sys.executable, "-I", "-c", _RESTRICTED)) or "no answer").strip().splitlines()[-1]
    head, _, lacking = answer.partition("lacking:")
    if head or not answer.startswith("lacking:"):
        return Finding("warning", "isolation", f"examiners and camera cannot give up rights: {answer}")
    if not lacking:
        return Finding("ok", "isolation", "examiners and camera: no network, and no files but their own")
    verdict = "warning" if landlock.SWITCHED_OFF in lacking else "ok"
    return Finding(verdict, "isolation", f"examiners and camera: {lacking.strip()}")
