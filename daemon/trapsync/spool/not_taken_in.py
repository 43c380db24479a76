"""What lies in the spool and is not taken in, counted by kind: how many, one of them, and why."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trapsync.errors import is_refusal, one_line, unexpected

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog.facts import Kind
    from trapsync.catalog.facts import NotTakenIn as Told

log = logging.getLogger(__name__)

LONGEST = 600  # characters of an example or a reason
_MAX_WHATS = 8  # kinds of things that are counted apart


@dataclass(slots=True)
class Tally:
    """Files or folders of one kind: how many, the first of them, and why that is not taken in."""

    count: int = 0
    example: str = ""
    reason: str = ""
    whats: Counter[str] = field(default_factory=Counter)

    def add(self, path: str, reason: str) -> None:
        """Count one."""
        if not self.count:
            self.example, self.reason = one_line(path, LONGEST), one_line(reason, LONGEST)
        self.count += 1

    def add_what(self, path: str, what: str) -> None:
        """Count one of several things that are told together: `2 .png, 1 .heic`."""
        is_known = what in self.whats or len(self.whats) < _MAX_WHATS
        self.whats[what if is_known else "others"] += 1
        self.add(path, "")
        self.reason = ", ".join(f"{n} {one_line(what, 40)}" for what, n in self.whats.most_common())


@dataclass(slots=True)
class Seen:
    """What one scan of the spool met: how many files it offered, and what is not taken in.

    `failed` are folders at which our own program did.
    """

    offered: int = 0
    unreadable: Tally = field(default_factory=Tally)
    failed: Tally = field(default_factory=Tally)
    left_alone: Tally = field(default_factory=Tally)

    def tallies(self) -> dict[Kind, Tally]:
        """By kind."""
        return {"unreadable": self.unreadable, "failed": self.failed, "left_alone": self.left_alone}


@contextmanager
def skip_on_bug(path: str, note: Callable[[str], object]) -> Iterator[None]:
    """Log an unexpected error about one file or folder, note it with its reason, and go on: it stays in the spool."""
    try:
        yield
    except Exception as error:
        if is_refusal(error):
            raise
        log.exception("%r cannot be ingested; it stays in the spool", path)
        note(unexpected(error))


class NotTakenIn:
    """What several sources found, put together, and since when. Any thread may tell."""

    def __init__(self) -> None:
        self._since: dict[Kind, float] = {}
        self._found: dict[str, Mapping[Kind, Tally]] = {}
        self._lock = threading.Lock()

    def remember(self, before: Sequence[Told]) -> None:
        """What a daemon before this one told: what is still so has been since then."""
        self._since = {one.kind: one.since for one in before}

    def told(self, source: str, tallies: Mapping[Kind, Tally], now: float) -> list[dict[str, Any]]:
        """All there is to tell, after `source` has found this; `now` is in unix seconds."""
        with self._lock:
            for kind in self._found.get(source, {}).keys() - {
                kind for kind, one in tallies.items() if one.count
            }:
                if not any(kind in found for name, found in self._found.items() if name != source):
                    self._since.pop(kind, None)
            self._found[source] = {kind: one for kind, one in tallies.items() if one.count}
            kinds = dict.fromkeys(kind for found in self._found.values() for kind in found)
            return [self._of(kind, now) for kind in kinds]

    def _of(self, kind: Kind, now: float) -> dict[str, Any]:
        tallies = [found[kind] for found in self._found.values() if kind in found]
        return {
            "kind": kind,
            "count": sum(one.count for one in tallies),
            "example": tallies[0].example,
            "since": self._since.setdefault(kind, now),
            "reason": tallies[0].reason,
        }
