"""Whom a document reaches: the traps that have the address, as far as their heartbeats say, and what they do now.

Nobody vouches for a heartbeat. So this is shown to a person, and decides nothing but whether an address was mistyped.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trapsync.errors import SettingsError, one_line
from trapsync.fleet.connection import Connection
from trapsync.net.judgement import Trap, ago, traps
from trapsync.settings import config_file, layers
from trapsync.settings.schema import DEVICE, GROUP, Settings
from trapsync.settings.words import count

_ADDRESS = re.compile(rf"device:{DEVICE.pattern}|group:{GROUP.pattern}|all")
_MOST_NAMED = 5
_LONG_NAMED = 2 * 86400.0  # seconds for which a trap has to have its name before an address may be that name


@dataclass(frozen=True, slots=True)
class Audience:
    """An address, and the traps that it reaches.

    `is_known` is False where no trap leaves heartbeats (a folder). `silent`: how many traps do not say their groups, as an
    older program does not.
    """

    to: str
    traps: tuple[Trap, ...]
    is_known: bool = True
    silent: int = 0

    def __str__(self) -> str:
        """Whom it is for: `all traps`, `group valley`, `device 0123abcd`."""
        kind, _, name = self.to.partition(":")
        return f"{kind} {name}" if name else "all traps"

    @property
    def reach(self) -> str:
        """Which traps it reaches, as a sentence."""
        if not self.is_known:
            return "which traps that reaches is unknown: no heartbeats come here"
        reached = (
            f"reaches {count(len(self.traps), 'trap')}" if self.traps else "reaches no trap that was heard"
        )
        more = f"; {self.silent} more may have that group, and do not say so" if self.silent else ""
        return reached + more

    def heard_above(self, key: str, last: int) -> list[Trap]:
        """The traps that say they have had a higher number of this key: it may have been used on another computer."""
        return [
            trap
            for trap in self.traps
            if trap.beat.remote.key == key and (trap.beat.remote.version or 0) > last
        ]

    def rows(self, keys: Sequence[str]) -> list[tuple[str, ...]]:
        """For each trap its name, device and age, and what it does now by each of these keys."""
        return [
            (trap.name, trap.device, ago(trap.age), *(_present(trap, key) for key in keys))
            for trap in self.traps
        ]


def find(text: str, connection: Connection, *, anyway: bool = False) -> Audience:
    """Whom what was typed after --to means: `device:0123abcd`, `group:valley`, `all`; or a trap's name.

    Raises SettingsError for what no trap is called, has or is, unless `anyway`.
    """
    heard = traps(connection.fleet()) if connection.hears else []
    if not _ADDRESS.fullmatch(text):
        return Audience(*_named(text, heard, connection))
    kind, _, name = text.partition(":")
    if kind == "all":
        return Audience(text, tuple(heard), connection.hears)
    if kind == "device":
        found = [trap for trap in heard if trap.device == name]
        if connection.hears and not found and not anyway:
            raise SettingsError(f"{text}: {_nobody('device', [trap.device for trap in heard], connection)}")
        return Audience(text, tuple(found), connection.hears)
    found = [trap for trap in heard if name in (trap.beat.remote.groups or ())]
    silent = sum(trap.beat.remote.groups is None and trap.beat.remote.version is not None for trap in heard)
    if connection.hears and not (found or silent) and not anyway:
        groups = Counter(group for trap in heard for group in trap.beat.remote.groups or ())
        raise SettingsError(f"{text}: {_nobody('group', [one_line(group) for group in groups], connection)}")
    return Audience(text, tuple(found), connection.hears, silent)


def _named(text: str, heard: Sequence[Trap], connection: Connection) -> tuple[str, tuple[Trap, ...]]:
    named = [trap for trap in heard if text in (trap.device, trap.name)]
    if len(named) != 1:
        found = "no trap is" if not named else f"{len(named)} traps are"
        raise SettingsError(
            f"{found} called {text!r} in {connection.name}; write device:ID, group:NAME or all"
        )
    (trap,) = named
    if text != trap.device and trap.named is not None and trap.named < _LONG_NAMED:
        # What a trap is called it says itself: a stolen one may take the name of another.
        raise SettingsError(
            f"{text!r} is the name of trap {trap.device} for {ago(trap.named)} only; if that is right, "
            f"write --to device:{trap.device}"
        )
    return f"device:{trap.device}", (trap,)


def _nobody(what: str, known: Sequence[str], connection: Connection) -> str:
    shown = sorted(known)[:_MOST_NAMED]
    more = ", …" if len(known) > len(shown) else ""
    there = f"there are {', '.join(shown)}{more}" if shown else "no trap has said one"
    return f"no trap at {connection.name} has that {what} ({there}); to publish all the same: --anyway"


def _present(trap: Trap, key: str) -> str:
    """What a trap does now, by one key, as far as it says."""
    values = trap.beat.remote.values
    if values is None:
        return "?" if trap.beat.remote.groups is not None else "takes no remote settings"
    if key.startswith("deployment."):
        return "not in its heartbeat"
    return one_line(values[key]) if key in values else f"default{_default(key)}"


def _default(key: str) -> str:
    found = layers.value_at(config_file.plain(Settings()), tuple(key.split(".")))
    return f" ({found})" if found not in (None, "", []) else ""
