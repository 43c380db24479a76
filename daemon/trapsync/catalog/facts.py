"""The facts that the daemon's threads leave in the catalog for `status` and for the next start.

Each is one row of the table `facts`, set by its name; a field of `Facts` has its name and type. Those of the daemon that
runs are kept in its memory as well (`LiveFacts`), where `status` finds them when the card cannot be written any more.
"""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from trapsync.catalog.connection import Part
from trapsync.catalog.rows import to_json
from trapsync.files import process_note

log = logging.getLogger(__name__)

_TRIES = 3  # to read what another process may be writing

Name = Literal[
    "bug",
    "config",
    "jobs",
    "single_runs",
    "thumbnails",
    "capture",
    "not_taken_in",
    "times",
    "unpruned",
    "stuck",
    "follow_ups",
    "trial",
    "hub",
    "told",
]
# Why files or folders of the spool are not taken in: they cannot be read, or listed; our program or the card fails at them;
# nothing can be taken in at all; they are left alone on purpose.
Kind = Literal["unreadable", "failed", "stopped", "left_alone"]


class Capture(msgspec.Struct, frozen=True):
    """How the last capture went: failures in a row, the error, and what looks wrong about the images."""

    failures: int = 0
    error: str | None = None
    oddity: str | UnsetType | None = UNSET


class Stopped(msgspec.Struct, frozen=True):
    """How many images something cannot be done for, and why not for one of them."""

    images: int
    error: str


class FollowUp(msgspec.Struct, frozen=True):
    """How often in a row what follows a destination's deliveries failed, why, and until when of a boot it is left alone."""

    attempts: int
    error: str
    boot: str
    until: float


class TrialTime(msgspec.Struct, frozen=True):
    """What the starts before this one brought, of a trial of the remote settings with this hash.

    `awake`: seconds in which pictures were due; `ran`: all seconds; `pictures`: how many were taken; `began`: when the
    trial did, by a wall clock that was trusted; `oddity`: what looked wrong about the pictures before the trial.
    """

    hash: str
    awake: float
    ran: float = 0.0
    pictures: int = 0
    began: float | None = None
    oddity: str | None = None


class NotTakenIn(msgspec.Struct, frozen=True):
    """Files or folders of the spool that are not taken in: how many, one of them, since when (unix seconds), and why."""

    kind: Kind
    count: int
    example: str
    since: float
    reason: str


class Link(msgspec.Struct, frozen=True):
    """One link to the hub: when it was last reached, since when it fails (unix seconds), why, and whether it rejects us."""

    reached: float | None = None
    since: float | None = None
    error: str | None = None
    denied: bool = False

    @property
    def works(self) -> bool:
        """Whether the hub was reached at the last turn, though not all of its answers may have been any good."""
        return self.error is None or (self.reached or 0.0) >= (self.since or 0.0) > 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known, by name; None where there is nothing to say."""

    bug: Any = None  # something failed that should not; the log says what
    config: str | None = (
        None  # the file was invalid at the start: since when the one ran that is in force, for people
    )
    jobs: dict[str, str] = {}  # what the card or the catalog refuses, by the name of the job, and why
    single_runs: bool | None = None  # the trap runs on a timer: trapsync once
    thumbnails: str | None = None  # why none are made
    capture: Capture | None = None
    not_taken_in: list[NotTakenIn] = []  # what lies in the spool and is no image of the catalog, by kind
    times: Stopped | None = None  # images whose time cannot be corrected
    unpruned: dict[str, str] | None = None  # by destination, why it cannot be asked before images are pruned
    stuck: Stopped | None = None  # delivered images that cannot be removed
    follow_ups: dict[str, FollowUp] = {}  # by destination, where what follows its deliveries fails
    trial: TrialTime | None = None  # of remote settings: a trap that runs for minutes a day adds them up
    hub: dict[str, Link] = {}  # the links to the hub, by name
    told: list[Any] | None = None  # what the hub was told last


class FactTable(Part):
    """The table of facts."""

    def set(self, name: Name, value: object) -> None:
        """Set a fact, None where there is nothing to say any more; what is no news waits for nobody who writes."""
        text = to_json(msgspec.to_builtins(value))
        known = "SELECT 1 FROM facts WHERE name = :name AND value = :text"
        if self._connection.query(known, name=name, text=text):
            return
        with self._connection.transaction("set_fact") as db:
            db.execute(
                """INSERT INTO facts VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at""",
                [name, text, self._connection.clock.wall()],
            )

    def read(self) -> Facts:
        """Every fact, as far as it can be used."""
        return usable(self.stored())

    def failed_follow_ups(self, destination: str) -> int | None:
        """How often in a row what follows the deliveries there failed; None: it is left alone for now."""
        one, now = self.read().follow_ups.get(destination), self._connection.now()
        is_early = one is not None and one.boot == now["boot"] and now["monotonic"] < one.until
        return None if is_early else one.attempts if one else 0

    def note_failed_follow_up(self, destination: str, error: str, wait: float) -> None:
        """It failed once more, and is left alone for so many seconds of this boot."""
        failed, now = self.read().follow_ups, self._connection.now()
        attempts = failed[destination].attempts + 1 if destination in failed else 1
        failed[destination] = FollowUp(attempts, error, now["boot"], now["monotonic"] + wait)
        self.set("follow_ups", failed)

    def forget_failed_follow_ups(self, destination: str) -> None:
        """It went well."""
        failed = self.read().follow_ups
        failed.pop(destination, None)
        self.set("follow_ups", failed or None)

    def stored(self) -> dict[str, Any]:
        """Every fact by its name, as it is stored."""
        with self._connection.refusing("read"):
            rows = self._connection.query("SELECT name, value FROM facts")
            return {row["name"]: json.loads(row["value"]) for row in rows}


def usable(stored: Mapping[str, Any]) -> Facts:
    """Facts as they were stored, with their types. One of another shape, by another version, say, counts as not there."""
    known: dict[str, Any] = {}
    for field in msgspec.structs.fields(Facts):
        if stored.get(field.name) is not None:
            try:
                known[field.name] = msgspec.convert(stored[field.name], field.type)
            except msgspec.ValidationError as error:
                log.warning("the fact %r in the catalog cannot be used: %s", field.name, error)
    return Facts(**known)


class LiveFacts:
    """What this daemon has told since its start, in a note in memory. Any thread may tell."""

    def __init__(self, state: Path) -> None:
        self._told: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._note = process_note.ProcessNote(state)

    def set(self, name: Name, value: object) -> None:
        """Tell a fact, None where there is nothing to say any more."""
        with self._lock:
            self._told[name] = msgspec.to_builtins(value)
            self._note.write(json.dumps(self._told).encode())

    def close(self) -> None:
        """The daemon ends."""
        self._note.close()


def live(process: int | None, state: Path) -> dict[str, Any]:
    """What the daemon that runs has told, by name; empty where none runs, or it cannot be read."""
    for _ in range(_TRIES if process else 0):
        try:
            told = json.loads(process_note.read(process or 0, state) or b"{}")
        except ValueError:  # it is being written just now
            continue
        return told if isinstance(told, dict) else {}
    return {}
