"""The doctor: what could keep this trap from working, and what to do about each finding."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trapsync import envelope, pushed, thumbnail
from trapsync.clock import Clock
from trapsync.destinations import Finding, Tools, connect
from trapsync.device import device_id
from trapsync.errors import CatalogError, TrapsyncError
from trapsync.linked import thumbnails_of
from trapsync.pipeline import free_bytes
from trapsync.sensors import sources
from trapsync.settings import Settings
from trapsync.status import UNSURE_ADVICE
from trapsync.trap import holder, open_to_read, place


def examine_trap(settings: Settings, clock: Clock, tools: Tools, source: Path) -> list[Finding]:
    """All findings, in the order in which an image meets what they are about. Sends no image."""
    return [
        _device(settings),
        _camera(settings),
        _sensors(settings),
        _schedule(settings),
        *_folders(settings),
        _space(settings),
        _catalog(settings, clock),
        _thumbnails(),
        _clock(settings, clock),
        _daemon(settings),
        *_pushed(settings, source),
        *_destinations(settings, tools, source),
    ]


def _device(settings: Settings) -> Finding:
    try:
        return Finding("ok", "device", f"this trap is {device_id(settings.trap)}")
    except TrapsyncError as error:
        return Finding("failing", "device", str(error))


def _camera(settings: Settings) -> Finding:
    """Only whether the software is there: the hardware belongs to the daemon while it runs."""
    kind = settings.camera.kind
    if kind == "none":
        return Finding("warning", "camera", "none: only files that others put into the spool are delivered")
    if kind == "simulated":
        missing = None if settings.camera.simulated.replay else thumbnail.missing()
        if missing:
            return Finding("failing", "camera", f"the simulated camera draws with libvips: {missing}")
        return Finding(
            "warning", "camera", 'simulated: these are no real pictures; set camera.kind = "picamera"'
        )
    import importlib.util

    if importlib.util.find_spec("picamera2"):
        return Finding("ok", "camera", "picamera2 is installed")
    return Finding(
        "failing",
        "camera",
        "picamera2 is not installed: sudo apt install python3-picamera2, in a venv that sees system packages",
    )


def _sensors(settings: Settings) -> Finding:
    known = ", ".join(f"{one.name} from {one.command[-1]}" for one in sources(settings.sensors))
    return Finding("ok", "sensors", known or "none: temperature and humidity of the images are unknown")


def _schedule(settings: Settings) -> Finding:
    try:
        place(settings)
    except TrapsyncError as error:
        return Finding("failing", "schedule", str(error))
    return Finding("ok", "schedule", ", ".join(settings.capture.windows) or "day and night")


def _folders(settings: Settings) -> list[Finding]:
    folders = (("spool", settings.storage.spool), ("state", settings.storage.state))
    return [_folder(subject, folder) for subject, folder in folders]


def _folder(subject: str, folder: Path) -> Finding:
    try:
        is_there = folder.is_dir()
    except PermissionError as error:
        return _forbidden(subject, error)
    if not is_there:
        return Finding("warning", subject, f"{folder} is not there yet; the daemon makes it when it starts")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            "failing", subject, f"{folder}: no permission to write; run the doctor as the daemon's user"
        )
    return Finding("ok", subject, str(folder))


def _space(settings: Settings) -> Finding:
    try:
        free, least = free_bytes(settings.storage.spool), settings.storage.min_free
    except PermissionError as error:
        return _forbidden("card", error)
    text = f"{free / 1e9:.1f} GB free"
    if free < least:
        return Finding(
            "failing", "card", f"{text}: below storage.min_free, no pictures are taken; free some space"
        )
    if free < 5 * least:
        return Finding("warning", "card", f"{text}: not much; enable [prune] or change the card")
    return Finding("ok", "card", text)


def _forbidden(subject: str, error: PermissionError) -> Finding:
    advice = "no permission to look there; run the doctor as the daemon's user, or with sudo"
    return Finding("failing", subject, f"{error.filename}: {advice}")


def _catalog(settings: Settings, clock: Clock) -> Finding:
    try:
        catalog = open_to_read(settings, clock)
        images = catalog.ledger().captured
        catalog.close_reader()
    except CatalogError as error:
        return Finding(
            "failing" if os.access(settings.storage.catalog, os.F_OK) else "warning", "catalog", str(error)
        )
    return Finding("ok", "catalog", f"{images} images")


def _thumbnails() -> Finding:
    missing = thumbnail.missing()
    if missing:
        return Finding("warning", "thumbnails", f"none are made: {missing}")
    return Finding("ok", "thumbnails", "libvips is installed")


def _clock(settings: Settings, clock: Clock) -> Finding:
    if not clock.trusted():
        return Finding(
            "warning",
            "clock",
            "not synchronised: images are held until the network comes and sets it, then their times are "
            'corrected; with a real-time clock that you set yourself, say trap.clock = "trusted"',
        )
    with suppress(CatalogError):  # which has a finding of its own
        catalog = open_to_read(settings, clock)
        unsure = catalog.timings()["unsure"]
        catalog.close_reader()
        if unsure:
            held = (
                f"synchronised; but {unsure} images from before it was can never be corrected, and are held"
            )
            return Finding("warning", "clock", f"{held}: {UNSURE_ADVICE}")
    return Finding("ok", "clock", "synchronised")


def _daemon(settings: Settings) -> Finding:
    process = holder(settings.storage.state)
    if process is None:
        return Finding(
            "warning", "daemon", "not running; start it: systemctl start trapsync, or trapsync run"
        )
    return Finding("ok", "daemon", f"running as process {process}")


def _pushed(settings: Settings, source: Path) -> list[Finding]:
    """Settings from afar, where they are switched on."""
    if not settings.pushed.enabled:
        return []
    try:
        envelope.require()
        keys = ", ".join(envelope.public_from_text(text).id for text in settings.pushed.keys)
        facts = pushed.report(source)
    except TrapsyncError as error:
        return [Finding("failing", "pushed", str(error))]
    if facts["code"]:
        return [Finding("warning", "pushed", f"{facts['state']}, {facts['code']}: {facts['reason']}")]
    return [Finding("ok", "pushed", f"{facts['state']}; trusts {keys}")]


def _destinations(settings: Settings, tools: Tools, source: Path) -> list[Finding]:
    if not settings.destinations:
        return [
            Finding(
                "warning", "destinations", "there is none: images stay on the card; add a [destinations.NAME]"
            )
        ]
    findings = []
    tools = replace(tools, thumbnails=thumbnails_of(settings))
    for name, table in settings.destinations.items():
        try:
            destination = connect(name, table, tools, source)
        except TrapsyncError as error:
            findings.append(Finding("failing", name, str(error)))
            continue
        findings += [Finding(found.verdict, name, found.text) for found in destination.check()]
        destination.close()
    return findings
