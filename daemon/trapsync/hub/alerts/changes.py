"""Which rules hold for which trap, and each change of that, once, in the database."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trapsync.clock import Clock
from trapsync.hub.alerts.conditions import Condition, known, over
from trapsync.hub.database import Database
from trapsync.net.heartbeat import Heartbeat
from trapsync.net.judgement import Trap
from trapsync.settings.alerts import Alerts

ROOM = "room"  # among the rules of changes: the hub itself has none left
DIGEST = "digest"  # among the rules of changes: the daily summary, which waits for its turn as they do

_THE_HUB = Trap(device="", beat=Heartbeat(name="the hub"), age=None)
_NO_ROOM = Condition("no room left, it stores no picture and no heartbeat")
_States = defaultdict[str, dict[str, dict[str, Any]]]  # of each trap, by rule


@dataclass(frozen=True, slots=True)
class Change:
    """A rule that began to hold for a trap, or holds no longer. `at`: unix seconds of this machine.

    `picture` is the id of an image that goes with it.
    """

    number: int
    device: str
    name: str
    rule: str
    is_on: bool
    at: float
    text: str
    picture: int | None = None


class Changes:
    """Keeps what holds, and what changed. One thread uses it."""

    def __init__(self, database: Database, clock: Clock, settings: Alerts) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings

    def note(
        self, traps: list[Trap], received: Mapping[str, str], listening: float, *, has_room: bool = True
    ) -> bool:
        """Compare what the traps say now with what held before; whether anything is to be told.

        `received`: when the newest heartbeat of each came; see `conditions.known` for `listening`. `has_room`: the hub.
        """
        before: _States = defaultdict(dict)
        with self._database.reading() as connection:
            for row in connection.execute("SELECT * FROM alert_states"):
                before[row["device"]][row["rule"]] = dict(row)
        steps = [
            *self._step(_THE_HUB, ROOM, None if has_room else _NO_ROOM, before.pop("", {}).get(ROOM), ""),
            *self._steps(traps, received, before, listening),
        ]
        if steps:
            with self._database.writing() as connection:
                for step in steps:
                    step.write(connection)
        return any(step.is_told for step in steps)

    def add(self, rule: str, text: str, picture: int | None, connection: sqlite3.Connection) -> None:
        """Have something told that is about no trap, in this transaction."""
        _insert(connection, "", "", rule, True, self._clock.wall(), text, picture)

    def _steps(
        self,
        traps: list[Trap],
        received: Mapping[str, str],
        before: _States,
        listening: float,
    ) -> "Iterator[_Step]":
        for trap in traps:
            states, heard = before.pop(trap.device, {}), received.get(trap.device, "")
            for rule, condition in known(trap, self._settings, states, listening).items():
                if rule in self._settings.rules:
                    yield from self._step(trap, rule, condition, states.get(rule), heard)
            yield from (_Step(trap.device, rule) for rule in set(states) - set(self._settings.rules))
        # Of a trap that was forgotten there is nothing to tell.
        for device, states in before.items():
            yield from (_Step(device, rule) for rule in states)

    def _step(
        self, trap: Trap, rule: str, condition: Condition | None, state: dict[str, Any] | None, heard: str
    ) -> "Iterator[_Step]":
        now = self._clock.wall()
        if condition:
            detail = heard if rule == "silent" else condition.detail
            is_new = state is None or (rule != "silent" and state["detail"] != detail)
            if is_new or state["detail"] != detail or state["clear_since"] is not None:  # type: ignore[index]
                yield _Step(
                    trap.device, rule, detail, trap.name, condition.text, now, holds=True, is_told=is_new
                )
        elif state is None or (rule == "silent" and state["detail"] == heard):
            return  # in the second case it is the hub's clock that went back, and nobody was heard
        else:
            clear_since = min(now if state["clear_since"] is None else state["clear_since"], now)
            if now - clear_since >= self._settings.settled:
                is_told = "recovered" in self._settings.rules
                text = over(trap, rule, state["detail"])
                yield _Step(trap.device, rule, "", trap.name, text, now, is_told=is_told)
            elif clear_since != state["clear_since"]:
                yield _Step(trap.device, rule, state["detail"], holds=True, clear_since=clear_since)


@dataclass(frozen=True, slots=True)
class _Step:
    """What is written of one rule about one trap."""

    device: str
    rule: str
    detail: str = ""
    name: str = ""
    text: str = ""
    at: float = 0.0
    holds: bool = False
    is_told: bool = False
    clear_since: float | None = None

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the state, and in the same transaction the change."""
        if self.holds:
            connection.execute(
                "INSERT OR REPLACE INTO alert_states (device, rule, detail, clear_since) VALUES (?, ?, ?, ?)",
                (self.device, self.rule, self.detail, self.clear_since),
            )
        else:
            connection.execute(
                "DELETE FROM alert_states WHERE device = ? AND rule = ?", (self.device, self.rule)
            )
        if self.is_told:
            _insert(connection, self.device, self.name, self.rule, self.holds, self.at, self.text, None)


def _insert(
    connection: sqlite3.Connection,
    device: str,
    name: str,
    rule: str,
    is_on: bool,
    at: float,
    text: str,
    picture: int | None,
) -> None:
    connection.execute(
        "INSERT INTO alert_changes (device, name, rule, is_on, at, text, picture) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (device, name, rule, is_on, at, text, picture),
    )
