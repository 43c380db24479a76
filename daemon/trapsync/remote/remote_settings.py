"""Remote settings: a document is accepted or refused, tried, and committed or rolled back.

::

    accept ─► validated ─ begin ─► trial ─ commit ─► committed
                                     └─ roll_back ─► rolled back

Settings are applied by a start of the daemon: a trial begins with one, and ends with one when the old settings come
back. A settings document replaces the one before it, all of it. The local override takes precedence over it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from trapsync.clock import Clock, utc
from trapsync.errors import RefusedDocument, StorageError
from trapsync.hardware.device_id import device_id
from trapsync.remote import document as documents
from trapsync.remote import policy
from trapsync.remote import record as records
from trapsync.remote.document import Document
from trapsync.remote.in_force import InForce, lay
from trapsync.remote.record import Record, ResendRequest, Taken
from trapsync.settings import layers
from trapsync.settings.layers import Files
from trapsync.settings.schema import Settings

log = logging.getLogger(__name__)

_STARTS = 2  # of the daemon in a trial; the next one rolls back
_REMEMBERED = 64  # hashes of settings that were rolled back
_AHEAD = 86400.0  # seconds that a document may be issued in the future: the operator's clock may be wrong
# What says nothing about the newest document: an older one lies about, as it may, or was judged already.
_NO_NEWS = {"replay", "rejected_before"}

Facts = dict[str, Any]  # of a trap, as `trial.Before` has them


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a document: "accepted", "known" (it was accepted before), or why it was refused."""

    code: str
    text: str
    hash: str
    kind: str = ""

    @property
    def is_accepted(self) -> bool:
        """Whether it is new, and was accepted."""
        return self.code == "accepted"

    @property
    def is_news(self) -> bool:
        """Whether it is another document than those that came before."""
        return self.code not in {"known", *_NO_NEWS}


class RemoteSettings:
    """The trap's side of remote settings. Each method reads the record, and replaces it durably.

    Several processes may use it at once: the daemon, and the command `settings take`.
    """

    def __init__(self, files: Files, clock: Clock) -> None:
        """`files`: the local settings, read already. SettingsError if one of its keys is malformed."""
        self._files = files
        self._clock = clock
        self._settings = files.local.remote
        self._state = files.local.storage.state
        self._keys = [documents.public_from_text(text) for text in self._settings.keys]

    def accept(self, data: bytes, before: Callable[[], Facts | None] = lambda: None) -> Outcome:
        """Judge a document. Accepted settings wait for the next start; refused ones change nothing.

        `before` tells how the trap is now: after a trial it must not be worse. A document that comes again, as from a
        server, is "known", and nothing is written. Raises StorageError when the card cannot remember it, and
        SettingsError when nothing can be verified on this machine.
        """
        name = documents.document_hash(data)
        try:
            document = self._addressed(data)
        except RefusedDocument as refused:
            return Outcome(refused.code, str(refused), name)
        outcome = Outcome("accepted", _described(document), name, document.kind)

        def judged(record: Record) -> Record:
            nonlocal outcome
            if name in {one.hash for one in (record.committed, record.candidate, record.asked) if one}:
                outcome = replace(outcome, code="known", text="it was accepted before")
                return record
            try:
                return self._judged(record, document, name, before)
            except RefusedDocument as refused:
                outcome = replace(outcome, code=refused.code, text=str(refused))
                if not outcome.is_news:
                    return record
                return replace(record, received=name, code=refused.code, reason=str(refused))

        records.change(self._state, judged)
        return outcome

    def _addressed(self, data: bytes) -> Document:
        """The document, if the operator signed it, and signed it for this trap."""
        if not self._settings.enabled:
            raise RefusedDocument("key", "this trap takes no remote settings: remote.enabled is false")
        document = documents.parse(documents.verify(data, self._keys))
        mine = {"all", f"device:{device_id(self._files.local.trap)}"}
        if document.to not in mine | {f"group:{group}" for group in self._settings.groups}:
            raise RefusedDocument("recipient", f"it is for {document.to}, and not for this trap")
        return document

    def _judged(
        self, record: Record, document: Document, name: str, before: Callable[[], Facts | None]
    ) -> Record:
        """The record once this document is accepted. Raises RefusedDocument."""
        which = (document.epoch, document.version)
        highest = record.highest_resend if document.resend else record.highest
        if which <= highest and name not in record.rejected:
            raise RefusedDocument("replay", f"{which} is not above {highest}, which this trap has had")
        now = self._require_in_time(record, document)
        record = replace(record, floor=max(now, document.issued.timestamp()), received=name)
        if document.resend:
            return replace(record, highest_resend=which, asked=self._request(document, name))
        policy.require_awake(policy.with_remote(self._files, document.settings), utc(now))
        if name in record.rejected:
            raise RefusedDocument("rejected_before", "this trap has tried it, and rolled it back")
        return replace(
            record,
            highest=which,
            candidate=Taken(name, *which, document.settings),
            starts=0,
            # During a trial the trap is not as it was before: what was noted then stays.
            before=record.before if record.state == "trial" else before(),
            state="validated",
            code=None,
            reason=None,
        )

    def _require_in_time(self, record: Record, document: Document) -> float:
        """A moment before which it certainly is not, and at which the document is valid.

        The wall clock counts if it is trusted: without a battery it starts anywhere.
        """
        trusted = self._clock.trusted()
        now = max(record.floor, self._clock.wall()) if trusted else record.floor
        if document.expires.timestamp() <= now:
            raise RefusedDocument("expired", f"it was valid until {document.expires:%Y-%m-%d %H:%M} UTC")
        if trusted and document.issued.timestamp() > now + _AHEAD:
            raise RefusedDocument(
                "expired", f"it is of {document.issued:%Y-%m-%d %H:%M} UTC, which is in the future"
            )
        return now

    def _request(self, document: Document, name: str) -> ResendRequest:
        asked, known = document.resend, self._files.local.destinations
        assert asked is not None
        if asked.destination is not None and asked.destination not in known:
            raise RefusedDocument("settings", f"resend: this trap has no destination {asked.destination!r}")
        return ResendRequest(name, asked.since.timestamp(), asked.until.timestamp(), asked.destination)

    def note_time(self) -> None:
        """Remember a trusted time, once a day: after the next boot the clock may be wrong for weeks."""
        wall = self._clock.wall()
        if self._clock.trusted() and wall > records.read(self._state).floor + 86400:
            records.change(self._state, lambda record: replace(record, floor=wall))

    # The trial

    def begin(self) -> InForce:
        """The settings to run with from this start on; a start within a trial is counted before, durably.

        A trial that was started twice and did not end is rolled back. While there is a local override, or
        remote settings are switched off, no trial begins or goes on.
        """
        found = lay(self._files)
        if found.record.candidate is None:
            return found
        try:
            records.change(self._state, self._begun)
        except StorageError as error:  # what cannot be counted is not tried
            log.error("%s: no remote settings are tried", error)
            return replace(found, settings=self.previous(), taken=None) if found.is_trial else found
        return lay(self._files)

    def _begun(self, record: Record) -> Record:
        if record.candidate is None:
            return record
        if self._files.has_override or not self._settings.enabled:
            return replace(record, state="validated", starts=0)
        if record.starts >= _STARTS:
            reason = f"the daemon was started {_STARTS} times with them, and did not last"
            return _rolled_back(record, "starts", reason)
        try:
            policy.with_remote(self._files, record.candidate.tables)
        except RefusedDocument as refused:  # this trap's own files have changed
            return _rolled_back(record, refused.code, str(refused))
        return replace(record, state="trial", starts=record.starts + 1)

    def previous(self) -> Settings:
        """The settings without those on trial."""
        committed = records.read(self._state).committed
        try:
            return policy.with_remote(self._files, committed.tables) if committed else self._files.local
        except RefusedDocument:
            return self._files.local

    def is_last_start(self) -> bool:
        """Whether the next start would roll back what is on trial."""
        return records.read(self._state).starts >= _STARTS

    def uncount_start(self) -> None:
        """Somebody ends the daemon during a trial: this start does not count."""
        self._change_trial(lambda record: replace(record, starts=max(0, record.starts - 1)))

    def commit(self) -> None:
        """Keep the settings on trial."""
        self._change_trial(
            lambda record: replace(
                record,
                committed=record.candidate,
                candidate=None,
                state="committed",
                starts=0,
                before=None,
            )
        )

    def roll_back(self, code: str, reason: str) -> None:
        """Give up the settings on trial: from the next start on the old ones are in force again."""
        self._change_trial(lambda record: _rolled_back(record, code, reason))

    def _change_trial(self, make: Callable[[Record], Record]) -> None:
        records.change(self._state, lambda record: make(record) if record.state == "trial" else record)

    # Sending again

    def request(self) -> ResendRequest | None:
        """A request to send images again that is not done yet."""
        asked = records.read(self._state).asked
        return asked if asked and asked.again is None else None

    def note_request(self, asked: ResendRequest) -> None:
        """Remember how far it has come, unless there is another by now."""

        def noted(record: Record) -> Record:
            is_same = record.asked is not None and record.asked.hash == asked.hash
            return replace(record, asked=asked) if is_same else record

        records.change(self._state, noted)


def _described(document: Document) -> str:
    if document.resend:
        return f"images from {document.resend.since} until {document.resend.until} are asked for again"
    count = sum(1 for _ in layers.keys(document.settings))
    return f"settings {document.epoch}.{document.version} ({count} keys) are to be tried"


def _rolled_back(record: Record, code: str, reason: str) -> Record:
    assert record.candidate is not None
    log.error("remote settings %d.%d are rolled back: %s", *record.highest, reason)
    rejected = (*record.rejected, record.candidate.hash)[-_REMEMBERED:]
    return replace(
        record,
        candidate=None,
        state="rolled_back",
        starts=0,
        before=None,
        code=code,
        reason=reason,
        rejected=rejected,
    )
