"""Files that cannot be judged yet: they are still being written, cannot be read, or what should judge them failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trapsync.image import Found
from trapsync.spool.not_taken_in import Tally

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog.facts import Kind

_MAX_FILES = 10_000  # as many as the inbox holds
_FORGET_AFTER = 3600.0  # seconds: a file that nobody asked about for so long is gone, or was judged elsewhere
# Seconds to wait after an examiner was killed, each time longer; killed once more, the file is to blame.
_PAUSES = (60.0, 600.0)
# And after our own program, or the card, failed at it; from the last one on it stays so long.
_PAUSES_OF_FAILURES = (60.0, 600.0, 3600.0)


@dataclass(slots=True)
class _Undecided:
    """A file that cannot be judged yet; the times are seconds of the monotonic clock."""

    found: Found
    since: float  # when it was first seen as it is
    asked: float  # when it was last asked about
    kills: int = 0  # how often its examiner was killed
    killed: float = 0.0  # when that was, the last time
    failures: int = 0  # how often it could not be examined or recorded
    failed: float = 0.0  # when that was, the last time
    kind: Kind | None = None  # of what is not taken in
    reason: str = ""


class UndecidedFiles:
    """Remember files that cannot be judged yet, as long as they stay as they are.

    Unfinished ones, to tell one that is still being written from one that was cut off; those whose
    examiner was killed, to tell a file that is to blame from a machine that is; and those that cannot be read, examined
    or recorded, to try them again later and to say so until then. `now` is in seconds of the monotonic clock.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._files: dict[str, _Undecided] = {}

    def is_stable(self, found: Found, now: float) -> bool:
        """Whether this unfinished file has not changed for `settle` seconds."""
        one = self._remembered(found, now)
        return now - one.since >= self._settle

    def is_suspect(self, found: Found) -> bool:
        """Whether an examiner was killed at this very file."""
        one = self._files.get(found.path)
        return one is not None and one.found == found and one.kills > 0

    def is_paused(self, found: Found, now: float) -> bool:
        """Whether its examiner was killed recently, or it failed, so that it is not to be examined yet."""
        one = self._files.get(found.path)
        if one is None or one.found != found:
            return False
        one.asked = now
        pause = _PAUSES_OF_FAILURES[min(one.failures, len(_PAUSES_OF_FAILURES)) - 1]
        return (one.kills > 0 and now - one.killed < _PAUSES[one.kills - 1]) or (
            one.failures > 0 and now - one.failed < pause
        )

    def is_killed_too_often(self, found: Found, now: float) -> bool:
        """Note that the examiner of this file was killed; whether that was once too often, after all pauses."""
        one = self._remembered(found, now)
        one.kills += 1
        one.killed = now
        one.kind, one.reason = "failed", "its examiner was killed; it is examined again"
        return one.kills > len(_PAUSES)

    def failed(self, found: Found, reason: str, now: float) -> None:
        """Note that this file could not be examined or recorded; it is tried again after a pause."""
        one = self._remembered(found, now)
        one.failures += 1
        one.failed = now
        one.kind, one.reason = "failed", reason

    def unreadable(self, found: Found, reason: str, now: float) -> None:
        """Note that this file cannot be read; it is tried again whenever it is offered, for that costs nothing."""
        one = self._remembered(found, now)
        one.kind, one.reason = "unreadable", reason

    def tallies(self) -> dict[Kind, Tally]:
        """What is not taken in because it cannot be read, examined or recorded."""
        found: dict[Kind, Tally] = {"unreadable": Tally(), "failed": Tally()}
        for path, one in self._files.items():
            if one.kind:
                found[one.kind].add(path, one.reason)
        return found

    def forget_gone(self, is_there: Callable[[Found], bool]) -> None:
        """Forget what could not be read, examined or recorded, and is not there any more as it was."""
        for path, one in [*self._files.items()]:
            if one.kind and not is_there(one.found):
                del self._files[path]

    def forget(self, path: str) -> None:
        """Forget a file that is judged, or gone."""
        self._files.pop(path, None)

    def _remembered(self, found: Found, now: float) -> _Undecided:
        """What is remembered of this file. If there is no room, it is not remembered, and begins anew."""
        one = self._files.get(found.path)
        if one is None or one.found != found:
            one = _Undecided(found, now, now)
            if found.path in self._files or self._has_room(now):
                self._files[found.path] = one
        one.asked = now
        return one

    def _has_room(self, now: float) -> bool:
        if len(self._files) >= _MAX_FILES:
            kept = {path: one for path, one in self._files.items() if now - one.asked < _FORGET_AFTER}
            self._files = kept
        return len(self._files) < _MAX_FILES
