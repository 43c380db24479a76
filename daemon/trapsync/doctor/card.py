"""The card: its folders, free space, wear, and write latency."""

import os
import stat
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trapsync.clock import Clock
from trapsync.destinations import Finding
from trapsync.doctor.machine import Machine
from trapsync.files import durable, mounts
from trapsync.files.space import free_bytes
from trapsync.settings.schema import Settings
from trapsync.settings.words import count, days_of
from trapsync.spool import spool_mark
from trapsync.status.model import Status
from trapsync.status.reasons import Reason

_PROBE = os.urandom(64 * 1024)  # random, for a card that compresses
_PROBES = 8
_SLOW, _STUCK = 0.25, 2.0  # seconds for one flush: in the middle, and at the worst
_ROOM = 10 * 10**6  # bytes that must be free before anything is written for a trial
# Pre-EOL information of eMMC (JEDEC JESD84-B51): 1 normal, 2 warning, 3 urgent. Its life time goes in steps of 10 %.
_PRE_EOL = {2: "80 % of its reserve is used", 3: "90 % of its reserve is used"}


def card(
    settings: Settings, known: Status | None, reasons: Sequence[Reason], clock: Clock, machine: Machine
) -> list[Finding]:
    """Check the card; of its room and its files say what the status does. Writes half a megabyte to an unnamed file."""
    storage = settings.storage
    folders = (("spool", storage.spool), ("state", storage.state))
    found = [_folder(subject, folder) for subject, folder in folders]
    if text := spool_mark.problem(storage):
        found[0] = Finding("failing", "spool", text)
    return [
        *found,
        *_left_alone(known),
        *_space(settings, known, reasons),
        *_wear(storage.state, machine),
        *_speed(storage.state, clock),
    ]


def _left_alone(known: Status | None) -> list[Finding]:
    """What is not taken in on purpose; what cannot be is a reason of the status, but where nothing could be at all."""
    subject = "not taken in"
    if text := mounts.no_shared_memory():
        return [Finding("failing", subject, text)]
    return [
        Finding("ok", subject, f"{count(one.count, 'file')}, {one.example}: left alone: {one.reason}")
        for one in (known.not_taken_in if known else ())
        if one.kind == "left_alone"
    ]


def _folder(subject: str, folder: Path) -> Finding:
    try:
        is_there = folder.is_dir()
    except PermissionError as error:
        return _forbidden(subject, error)
    if not is_there:
        return Finding("warning", subject, f"{folder} is not there yet; the daemon makes it when it starts")
    if text := mounts.read_only_card(folder):
        return Finding("failing", subject, text)
    if not os.access(folder, os.W_OK | os.X_OK):
        right = f"sudo chown {durable.user()} {folder} && sudo chmod u+rwx {folder}"
        return Finding("failing", subject, f"{folder}: no permission to write; run: {right}")
    if subject == "state" and (reason := _not_ours(folder)):
        return Finding("failing", subject, reason)
    if folder.stat().st_mode & stat.S_IWOTH:
        return Finding(
            "warning",
            subject,
            f"{folder}: everybody on this machine can change what is in it; run: sudo chmod o-w {folder}",
        )
    return Finding("ok", subject, str(folder))


def _not_ours(folder: Path) -> str | None:
    """Find a file there that cannot be changed, one that root left, say."""
    for path in sorted(folder.iterdir()):
        if not path.is_symlink() and not os.access(path, os.W_OK):
            return f"{path}: no permission to write; run: sudo chown -R --reference={folder} {folder}"
    return None


def _space(settings: Settings, known: Status | None, reasons: Sequence[Reason]) -> list[Finding]:
    try:
        free = free_bytes(settings.storage.spool)
    except PermissionError as error:
        return [_forbidden("card", error)]
    days = known.disk.days_left if known else None
    text = f"{free / 1e9:.1f} GB free" + ("" if days is None else f", room for {days_of(days)} of pictures")
    wrong = [Finding(one.verdict, "card", one.text) for one in reasons if one.subject == "card"]
    return wrong or [Finding("ok", "card", text)]


def _forbidden(subject: str, error: PermissionError) -> Finding:
    advice = "no permission to look there; run the doctor as the daemon's user, or with sudo"
    return Finding("failing", subject, f"{error.filename}: {advice}")


def _wear(state: Path, machine: Machine) -> list[Finding]:
    """Check what the kernel knows of the card: file system errors, and its age, where it reports it (eMMC)."""
    try:
        number = state.stat().st_dev
    except OSError:
        return []
    here = machine.at(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    errors = machine.number(f"/sys/fs/ext4/{here.name}/errors_count") or 0
    if errors:
        return [_worn("failing", f"its file system had {errors} errors: copy what is on it, then replace it")]
    device = (here.parent if (here / "partition").exists() else here) / "device"
    lives = [int(word, 16) for word in machine.read(device / "life_time").split() if word.startswith("0x")]
    used = max(lives, default=0) * 10
    reserve = machine.number(device / "pre_eol_info", 16) or 0
    if reserve in _PRE_EOL or used > 80:
        of_life = f"up to {min(used, 100)} % of its life is used" if used else ""
        reasons = ", ".join(filter(None, (_PRE_EOL.get(reserve), of_life)))
        return [
            _worn("failing" if reserve == 3 or used > 100 else "warning", f"{reasons}: replace the card soon")
        ]
    label = " ".join(filter(None, (machine.read(device / "name"), machine.read(device / "date"))))
    if not label:
        return []
    return [
        _worn(
            "ok",
            f"{label}, " + (f"up to {used} % of its life is used" if used else "does not report its wear"),
        )
    ]


def _worn(verdict: str, text: str) -> Finding:
    return Finding(verdict, "card's wear", text)


def _speed(state: Path, clock: Clock) -> list[Finding]:
    """Measure the write latency: each image and each row waits for one or more flushes."""
    if not os.access(state, os.W_OK | os.X_OK) or free_bytes(state) < _ROOM:
        return []
    try:
        took = _flushes(state, clock)
    except OSError as error:
        return [Finding("failing", "card latency", durable.explain(error, state))]
    middle, worst = statistics.median(took), max(took)
    text = f"write latency (fsync) {middle * 1000:.0f} ms, at worst {worst * 1000:.0f} ms"
    if middle > _SLOW or worst > _STUCK:
        advice = "slow, as worn, counterfeit or nearly full cards are; check again, then replace the card"
        return [Finding("warning", "card latency", f"{text}: {advice}")]
    return [Finding("ok", "card latency", text)]


def _flushes(state: Path, clock: Clock) -> list[float]:
    took = []
    with tempfile.TemporaryFile(
        dir=state
    ) as file:  # without a name: nothing is left behind, whatever happens
        for _ in range(_PROBES):
            file.write(_PROBE)
            began = clock.monotonic()
            file.flush()
            os.fsync(file.fileno())
            took.append(clock.monotonic() - began)
    return took
