"""Reports to the hub: what it is to have once and for good, such as the effort of a night or a deployment.

What they look like, and what a hub answers: `net.reports`. A report goes until the hub has named its digest; one whose
content has changed goes again, and takes the place of the older one there. Nothing of it keeps a heartbeat back, or makes
one longer, and while there is nothing new no request is made.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from trapsync.catalog.reports import HeldReport, Known, Reports
from trapsync.clock import Clock
from trapsync.errors import TrapsyncError, Unreachable
from trapsync.net import backoff, reports
from trapsync.net.http_answer import Answer
from trapsync.net.reports import Line

log = logging.getLogger(__name__)

_LOOK = 3600.0  # seconds between two looks for news, while there is none
_DAY = 86400.0  # seconds after which a hub is asked again that takes no reports, or refused this one
_FIRST = 900.0  # seconds of back-off
_MOST_EXCHANGES = 4  # of one turn: a quarter of a megabyte, or the nights of a year
_NO_PLACE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


class Report(NamedTuple):
    """Something that the hub is to know once. `body` is a JSON object; a kind and key stand for one thing, for good."""

    kind: str
    key: str
    body: dict[str, Any]


# Says whether the hub holds a report of that kind and key already, be it of an older content.
IsHeld = Callable[[str, str], bool]
# Makes reports, oldest first. What the hub holds, and cannot have changed since, need not be made again.
Source = Callable[[IsHeld], Iterable[Report]]
# Sends these bytes, as the reports that follow a number; the answer.
Post = Callable[[bytes, int], Answer]


class Reporter:
    """Sends the reports of one trap, oldest first, and remembers what its hub holds."""

    def __init__(self, device: str, table: Reports, sources: Sequence[Source], clock: Clock) -> None:
        self._device = device
        self._table = table
        self._sources = sources
        self._clock = clock
        self._rest_until = clock.monotonic()
        self._failures = 0
        self._is_behind = False  # the hub has more to say of what it holds
        self._later: dict[str, float] = {}  # digests that were refused, and until when they are left alone
        self._told: set[str] = set()  # of those, what is in the log

    def send(self, post: Post) -> None:
        """Send what the hub does not hold yet, if it is time to look. Raises nothing for what the hub does."""
        if self._clock.monotonic() < self._rest_until:
            return
        try:
            is_all = self._exchange_all(post)
        except TrapsyncError as error:
            self._failed(error)
        else:
            self._failures = 0
            if is_all:
                self._rest_until = self._clock.monotonic() + _LOOK

    def look_now(self) -> None:
        """Look for news at the next heartbeat: somebody is at the trap, and waits."""
        self._rest_until = self._clock.monotonic()

    def _exchange_all(self, post: Post) -> bool:
        """Send in batches, a bounded number of them; whether nothing is left."""
        for _ in range(_MOST_EXCHANGES):
            batch = list(_first(self._unsent()))
            if not batch:
                return True
            known = self._table.known()
            # A hub of which nothing is known, or that has more to say, is only asked: it may hold all of it.
            self._is_behind = not self._exchange(post, known, [] if self._is_behind or not known else batch)
        return False

    def _exchange(self, post: Post, known: Known | None, batch: Sequence[Line]) -> bool:
        """Send a batch and remember what the answer says; whether that is all that the hub has to say."""
        since = known.number if known else 0
        answer = self._answer(post(b"".join(one.data + b"\n" for one in batch), since))
        if known and (answer.hub != known.hub or answer.newest < since):
            log.info("the hub is another one, or was put back to an older copy: it is asked what it holds")
            self._table.note(Known(answer.hub, 0), ())
            return False
        number = max((one.number for one in answer.held), default=since)
        self._table.note(Known(answer.hub, number), [HeldReport(*one[:3]) for one in answer.held])
        is_all = len(answer.held) < reports.MOST_HELD
        if is_all:
            self._leave_alone(batch, answer)
        return is_all

    def _answer(self, answer: Answer) -> reports.Answer:
        if answer.status in _NO_PLACE:
            raise Unreachable(f"{answer}: it takes no reports", wait=_DAY)
        try:
            return reports.answer(answer.json(dict), self._device)
        except ValueError as error:
            raise Unreachable(f"{answer.host} answers to reports what makes no sense: {error}") from None

    def _unsent(self) -> Iterator[Line]:
        """What the hub does not hold as it is now."""
        held, now = self._table.held(), self._clock.monotonic()
        for report in self._made(held):
            try:
                line = reports.line(*report)
            except ValueError as error:
                self._tell(f"the {report.kind} {report.key} cannot be reported: {error}")
                continue
            digest = line.sha256
            if held.get((line.kind, line.key)) != digest and self._later.get(digest, now) <= now:
                yield line

    def _made(self, held: dict[tuple[str, str], str]) -> Iterator[Report]:
        """The reports of all sources. A bug in one costs what it would have made."""
        for source in self._sources:
            try:
                yield from source(lambda kind, key: (kind, key) in held)
            except TrapsyncError:
                raise
            except Exception:
                log.exception("reports to the hub could not be made")

    def _leave_alone(self, batch: Sequence[Line], answer: reports.Answer) -> None:
        """Let what the hub did not take rest for a day: it may be another program by then."""
        until = self._clock.monotonic() + _DAY
        why, taken = dict(answer.refused), {one.sha256 for one in answer.held}
        for line in batch:
            digest = line.sha256
            if digest in taken:
                continue
            self._later[digest] = until
            self._tell(
                f"the hub does not take the {line.kind} {line.key}: {why.get(digest, 'it did not say why')}"
            )

    def _tell(self, text: str) -> None:
        """Log it, once."""
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def _failed(self, error: TrapsyncError) -> None:
        """Try again later, and tell it once: the heartbeat was taken, so the hub is reached."""
        if not self._failures:
            log.info("reports wait: %s", error)
        self._failures += 1
        wait = backoff.wait(self._failures, first=_FIRST, longest=_DAY)
        self._rest_until = self._clock.monotonic() + max(wait, getattr(error, "wait", 0.0))


def _first(lines: Iterable[Line]) -> Iterator[Line]:
    """As many as fit into one request."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line.data) + 1
        if number == reports.MOST_AT_ONCE or size > reports.LARGEST_BATCH:
            return
        yield line
