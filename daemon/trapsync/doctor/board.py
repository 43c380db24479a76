"""The board: its power, its temperature, and its clocks."""

from contextlib import suppress
from datetime import UTC

from trapsync.clock import Clock, iso, utc
from trapsync.destinations import Finding
from trapsync.doctor.machine import Machine
from trapsync.errors import CatalogError
from trapsync.hardware.board import read
from trapsync.net.stickypi_rules import FIRST_DAY
from trapsync.settings.schema import Settings
from trapsync.settings.words import count, full
from trapsync.status.model import BoardStatus
from trapsync.status.reasons import UNSURE_ADVICE, impossible_clock, of_the_board
from trapsync.trap import open_to_read

_SAME = 60.0  # seconds that two clocks may be apart
_FIRST_RELEASE = 1_700_000_000  # a clock that says less was never set


def board(settings: Settings, clock: Clock, machine: Machine) -> list[Finding]:
    """Check the board; no finding about what this machine does not have."""
    return [
        *_power_and_heat(settings, machine),
        _clock(settings, clock),
        *_rtc(settings, clock, machine),
    ]


def _power_and_heat(settings: Settings, machine: Machine) -> list[Finding]:
    """What `status` says of it, or what is OK."""
    found = read(machine.root)
    throttled = _throttled(machine) if found.throttled is None else found.throttled
    known = BoardStatus(temperature=found.temperature, throttled=throttled)
    findings = [Finding(one.verdict, "computer", one.text) for one in of_the_board(known, settings.warnings)]
    well = [] if throttled is None else ["no under-voltage since the start"]
    well += [] if found.temperature is None else [f"{found.temperature:.0f} °C"]
    return findings or ([Finding("ok", "computer", "; ".join(well))] if well else [])


def _throttled(machine: Machine) -> int | None:
    """The firmware's get_throttled bits from vcgencmd, where the kernel does not tell them; None without such firmware."""
    answer = machine.ask(("vcgencmd", "get_throttled")) if machine.is_pi else None
    with suppress(ValueError):
        return int((answer or "").partition("throttled=")[2], 16)
    return None


def _clock(settings: Settings, clock: Clock) -> Finding:
    if not clock.trusted():
        return Finding(
            "warning",
            "clock",
            "not synchronised: images are held until the network sets it, then their times are "
            'corrected; with a real-time clock that you set yourself, set trap.clock = "trusted"',
        )
    with suppress(CatalogError):  # which has a finding of its own
        catalog = open_to_read(settings, clock)
        unsure = catalog.times.timings()["unsure"]
        catalog.close()
        if unsure:
            held = f"{count(unsure, 'image')} held, taken before the clock was set and never to be corrected"
            return Finding("warning", "clock", f"synchronised; but {held}: {UNSURE_ADVICE}")
    if (now := utc(clock.wall())) < FIRST_DAY:
        return Finding("warning", "clock", impossible_clock(iso(now)))
    return Finding("ok", "clock", "synchronised")


def _rtc(settings: Settings, clock: Clock, machine: Machine) -> list[Finding]:
    """Check the real-time clock: is there one where it is needed, was it set, is it right?"""
    is_relied_on = settings.trap.clock == "trusted"
    clocks = [(path.parent, machine.number(path)) for path in machine.some("/sys/class/rtc/rtc*/since_epoch")]
    if not clocks and not machine.is_pi:
        return []
    if not clocks and is_relied_on:
        return [
            _real_time("failing", 'there is none, but trap.clock = "trusted" relies on one; set it to "auto"')
        ]
    if not clocks:
        return [_real_time("ok", "none: after a power cut images are held until the network sets the clock")]
    folder, seconds = clocks[0]
    name = machine.read(folder / "name").split(" ")[0] or folder.name
    advice = (
        "set it, with the right time on the Pi: sudo hwclock -w; if it forgets again, its battery is flat"
    )
    if seconds is None or seconds < _FIRST_RELEASE:
        return [_real_time("failing" if is_relied_on else "warning", f"{name} was never set: {advice}")]
    difference = seconds - clock.wall()
    if abs(difference) > _SAME and clock.trusted():
        verdict = f"{name} is {abs(difference):.0f} s {'ahead' if difference > 0 else 'behind'}"
        return [_real_time("warning", f"{verdict}: {advice}")]
    return [_real_time("ok", f"{name}: {full(iso(utc(seconds)), UTC)} UTC")]


def _real_time(verdict: str, text: str) -> Finding:
    return Finding(verdict, "real-time clock", text)
