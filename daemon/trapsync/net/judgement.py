"""A trap judged from afar: its verdict and the reasons, from its newest heartbeat and how long ago that came."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from trapsync.errors import one_line
from trapsync.net import heartbeat
from trapsync.net.heartbeat import Heartbeat
from trapsync.settings.words import count

VERDICTS = ("ok", "warning", "failing")
_SILENT = 3  # heartbeats that stay away
_LATE = 0.5  # of the time after which it is silent: one heartbeat and a half
_EVERY = 900.0  # seconds, of a heartbeat that does not say
_LONGEST_NAME, _LONGEST_REASON = 60, 200  # characters
_LONGEST_SPAN = 1e10  # seconds
_STATES = {
    "trial": " trial",
    "validated": " pending restart",
    "rolled_back": " rolled back",
    "overridden": " local override",
}


@dataclass(frozen=True, slots=True)
class Trap:
    """One trap as it is known at home: its last heartbeat, and how long ago that came. Texts for people are clean."""

    device: str
    beat: Heartbeat
    age: float | None  # seconds since it was heard, if anybody knows
    online: bool | None = None  # what a broker says
    odd: str = ""  # why what came last is no heartbeat
    named: float | None = None  # seconds for which it has been called so, if anybody knows
    joined: float | None = None  # seconds since it joined, of one that has not been heard yet

    @property
    def name(self) -> str:
        """What people call it."""
        return one_line(self.beat.name or "", _LONGEST_NAME) or self.device

    @property
    def silent(self) -> float | None:
        """Seconds for which it has been silent, if those are too many."""
        return self.age if self.age is not None and self.age > self.patience else None

    @property
    def patience(self) -> float:
        """Seconds without a heartbeat after which it is silent."""
        return _SILENT * (self.beat.every_s or _EVERY)

    @property
    def is_late(self) -> bool:
        """Whether a heartbeat has stayed away, of a trap that is not silent yet."""
        return self.silent is None and self.age is not None and self.age > _LATE * self.patience

    @property
    def verdict(self) -> str:
        """The trap's own verdict; failing for one that is silent, or whose heartbeat makes no sense."""
        if self.joined is not None:
            return "failing" if self.joined > _SILENT * _EVERY else "warning"
        is_gone = self.silent is not None or (self.age is None and self.online is False)
        return "failing" if is_gone or self.odd else self.beat.verdict or "failing"

    @property
    def reasons(self) -> list[str]:
        """Why it is not ok; of a silent one first that, and then what it last said."""
        if self.joined is not None:
            return [f"joined {ago(self.joined)} ago, and has not been heard yet"]
        reasons = [one_line(reason, _LONGEST_REASON) for reason in self.beat.reasons]
        if self.odd:
            reasons = [f"its heartbeat makes no sense: {self.odd}", *reasons]
        if self.silent is not None:
            return [f"silent for {ago(self.silent)}", *reasons]
        if self.age is None and self.online is False:
            return ["not connected to the broker", *reasons]
        return reasons

    @property
    def settings(self) -> str:
        """Which settings sent remotely it had last, what became of them, and what it refused since."""
        report = self.beat.remote
        found = "" if report.version is None else f"{report.version}{_STATES.get(report.state or '', '')}"
        refused = "" if report.refused is None else f"{report.refused or ''} refused".strip()
        return ", ".join(text for text in (found, refused) if text) or "-"

    def since(self, age: float) -> float:
        """An age that was true when the heartbeat was sent, grown since; seconds."""
        return age + (self.age or 0.0)

    @property
    def until_next(self) -> float | None:
        """Seconds until the next picture is due, while the schedule is closed."""
        due = self.beat.next_picture_s
        return (
            None if self.beat.schedule_open is not False or due is None else max(0.0, due - self.since(0.0))
        )

    @property
    def room(self) -> str:
        """The days until its card is full; empty where nobody knows."""
        days = self.beat.disk.days_left
        return "" if days is None else "> 1 y" if days > 366 else f"{days:.0f} d"

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "device": self.device,
            "name": self.name,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "heard_s": self.age,
            "online": self.online,
            "heartbeat": self.beat.plain(),
        }


def traps(fleet: dict[str, Any]) -> list[Trap]:
    """The traps of a place's answer, the worst first, then by name."""
    found = [_trap(one) for one in fleet["traps"] if isinstance(one, dict)]
    unheard = fleet.get("unheard")
    found += [_unheard(one) for one in unheard if isinstance(one, dict)] if isinstance(unheard, list) else []
    return sorted(found, key=lambda trap: (-VERDICTS.index(trap.verdict), _natural(trap.name)))


def _trap(entry: dict[str, Any]) -> Trap:
    """One entry of the answer. What is odd in it costs this row only, and stands in it."""
    device, online, age = (entry.get(key) for key in ("device", "online", "age_s"))
    try:
        beat = heartbeat.read(entry.get("heartbeat"))
        odd = beat.odd or ""
    except ValueError as error:
        beat, odd = Heartbeat(), str(error)
    return Trap(
        device=one_line(device, _LONGEST_NAME),
        beat=beat,
        age=_span(age),
        online=online if isinstance(online, bool) else None,
        odd=one_line(entry.get("odd") or odd),
        named=_span(entry.get("named_s")),
    )


def _unheard(entry: dict[str, Any]) -> Trap:
    """One that has joined a hub, and has not sent a heartbeat."""
    name = entry.get("name")
    return Trap(
        device=one_line(entry.get("device"), _LONGEST_NAME),
        beat=Heartbeat(name=name if isinstance(name, str) else None),
        age=None,
        joined=_span(entry.get("joined_s")) or 0.0,
    )


def _span(value: object) -> float | None:
    """Seconds that a row can show; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LONGEST_SPAN:
        return None
    return float(value)


def _natural(name: str) -> list[tuple[int, str]]:
    """So that valley-2 comes before valley-11."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name.lower())]


def summary(found: list[Trap]) -> str:
    """How many traps, and how many of each verdict."""
    counts = Counter(trap.verdict for trap in found)
    return f"{count(len(found), 'trap')}: " + ", ".join(
        f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v]
    )


def worst(found: list[Trap]) -> str:
    """The verdict on the fleet: that of its worst trap."""
    return max((trap.verdict for trap in found), key=VERDICTS.index, default="ok")


def ago(seconds: float | None) -> str:
    """A time span in six characters at the most."""
    if seconds is None:
        return "?"
    if seconds > 366 * 86400:
        return "> 1 y"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
