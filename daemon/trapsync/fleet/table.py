"""All traps at once: what each last said, judged from afar, and the silent ones named."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

VERDICTS = ("ok", "warning", "failing")
_SILENT = 3  # heartbeats that stay away
_EVERY = 900.0  # seconds, of a heartbeat that does not say
_STATES = {
    "trial": " trial",
    "validated": " pending restart",
    "rolled_back": " rolled back",
    "overridden": " local override",
}


@dataclass(frozen=True, slots=True)
class Trap:
    """One trap as it is known at home. `facts` is its heartbeat, which an older or newer program may have sent."""

    device: str
    facts: dict[str, Any]
    age: float | None  # seconds since it was heard, if anybody knows
    online: bool | None = None  # what a broker says

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.facts.get("name") or self.device)

    @property
    def silent(self) -> float | None:
        """Seconds for which it has been silent, if those are too many."""
        every = self._number("every_s") or _EVERY
        return self.age if self.age is not None and self.age > _SILENT * every else None

    @property
    def verdict(self) -> str:
        """The trap's own verdict; failing for one that is silent, or whose word makes no sense."""
        said = self.facts.get("verdict")
        is_gone = self.silent is not None or (self.age is None and self.online is False)
        return said if said in VERDICTS and not is_gone else "failing"

    @property
    def reasons(self) -> list[str]:
        """Why it is not ok; of a silent one first that, and then what it last said."""
        said = self.facts.get("reasons")
        reasons = [str(reason) for reason in said] if isinstance(said, list) else []
        if self.silent is not None:
            return [f"silent for {ago(self.silent)}", *reasons]
        if self.age is None and self.online is False:
            return ["not connected to the broker", *reasons]
        return reasons

    def cells(self) -> tuple[str, ...]:
        """Its row of the table: see HEADER."""
        disk, clock = self._table("disk"), self._table("clock")
        days, battery = disk.get("days_left"), self._number("battery")
        image, delivery = self._table("newest_image").get("age_s"), self._number("newest_delivery_age_s")
        return (
            self.name,
            self.verdict,
            ago(self.age),
            self._since(image),
            self._since(delivery),
            str(self._table("ledger").get("pending", "-")),
            f"{days:.0f} d" if isinstance(days, int | float) else "-",
            self.settings,
            "-" if battery is None else f"{battery:.0f}%",
            "ok" if clock.get("trusted") else "unset",
        )

    @property
    def settings(self) -> str:
        """Which pushed settings it had last, and what became of them."""
        report = self._table("remote")
        if report.get("version") is None:
            return "refused" if report.get("code") else "-"
        state = _STATES.get(str(report.get("state")), "")
        if not state and report.get("code"):
            state = " refused"
        return f"{report.get('epoch')}.{report['version']}{state}"

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "device": self.device,
            "name": self.name,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "heard_s": self.age,
            "online": self.online,
            "heartbeat": self.facts,
        }

    def _since(self, age: object) -> str:
        """An age that was true when the heartbeat was sent, grown since."""
        return ago(age + (self.age or 0.0)) if isinstance(age, int | float) else "-"

    def _table(self, key: str) -> dict[str, Any]:
        value = self.facts.get(key)
        return value if isinstance(value, dict) else {}

    def _number(self, key: str) -> float | None:
        value = self.facts.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


HEADER = ("trap", "verdict", "heard", "image", "sent", "pending", "disk", "settings", "bat", "clock")


def traps(fleet: dict[str, Any]) -> list[Trap]:
    """The traps of a place's answer, the worst first, then by name."""
    found = [
        Trap(str(one.get("device")), one["heartbeat"], one.get("age_s"), one.get("online"))
        for one in fleet["traps"]
        if isinstance(one, dict) and isinstance(one.get("heartbeat"), dict)
    ]
    return sorted(found, key=lambda trap: (-VERDICTS.index(trap.verdict), _natural(trap.name)))


def _natural(name: str) -> list[tuple[int, str]]:
    """So that valley-2 comes before valley-11."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name.lower())]


def summary(found: list[Trap]) -> str:
    """How many traps, and how many of each verdict."""
    counts = Counter(trap.verdict for trap in found)
    return f"{len(found)} traps: " + ", ".join(f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v])


def worst(found: list[Trap]) -> str:
    """The verdict on the fleet: that of its worst trap."""
    return max((trap.verdict for trap in found), key=VERDICTS.index, default="ok")


def complaints(found: list[Trap]) -> Iterator[tuple[str, str, str]]:
    """Trap, verdict and reason, for each reason."""
    for trap in found:
        for reason in trap.reasons:
            yield trap.name, trap.verdict, reason


def ago(seconds: float | None) -> str:
    """A time span in six characters at the most."""
    if seconds is None:
        return "?"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
