"""The facts that the daemon's threads leave in the catalog for `status` and for the next start.

Each is one row of the table `facts`, set by its name; a field of `Facts` has its name and type.
"""

import json
import logging
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from trapsync.catalog.connection import Part
from trapsync.catalog.rows import to_json

log = logging.getLogger(__name__)

Name = Literal["bug", "single_runs", "thumbnails", "capture", "times", "unpruned", "stuck", "hub", "told"]


class Capture(msgspec.Struct, frozen=True):
    """How the last capture went: failures in a row, the error, and what looks wrong about the images."""

    failures: int = 0
    error: str | None = None
    oddity: str | UnsetType | None = UNSET


class Stopped(msgspec.Struct, frozen=True):
    """How many images something cannot be done for, and why not for one of them."""

    images: int
    error: str


class Link(msgspec.Struct, frozen=True):
    """One link to the hub: when it was last reached, since when it fails (unix seconds), and why."""

    reached: float | None = None
    since: float | None = None
    error: str | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known, by name; None where there is nothing to say."""

    bug: Any = None  # something failed that should not; the log says what
    single_runs: bool | None = None  # the trap runs on a timer: trapsync once
    thumbnails: str | None = None  # why none are made
    capture: Capture | None = None
    times: Stopped | None = None  # images whose time cannot be corrected
    unpruned: dict[str, str] | None = None  # by destination, why it cannot be asked before images are pruned
    stuck: Stopped | None = None  # delivered images that cannot be removed
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
        """Every fact. One of another shape, by another version, say, counts as not there."""
        with self._connection.refusing("read"):
            rows = self._connection.query("SELECT name, value FROM facts")
            stored = {row["name"]: json.loads(row["value"]) for row in rows}
        known: dict[str, Any] = {}
        for field in msgspec.structs.fields(Facts):
            if stored.get(field.name) is not None:
                try:
                    known[field.name] = msgspec.convert(stored[field.name], field.type)
                except msgspec.ValidationError as error:
                    log.warning("the fact %r in the catalog cannot be used: %s", field.name, error)
        return Facts(**known)
