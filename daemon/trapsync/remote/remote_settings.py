"""Remote settings: taken or refused, tried, kept or rolled back.

::

    accept ─► validated ─ begin ─► trial ─ commit ─► committed
                                     └─ roll_back ─► rolled back

What is applied is applied by a start of the daemon: a trial begins with one, and ends with one where the old settings
come back. A settings document replaces the one before it, all of it. What a person wrote at the trap goes before it.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

from trapsync.clock import Clock, utc
from trapsync.errors import RefusedDocument, StorageError
from trapsync.hardware.device_id import device_id
from trapsync.remote import document as envelope
from trapsync.remote import policy
from trapsync.remote import record as remembered
from trapsync.remote.document import Document
from trapsync.remote.in_force import InForce, lay
from trapsync.remote.record import Asked, Record, Taken
from trapsync.settings import layers
from trapsync.settings.layers import Files
from trapsync.settings.schema import Settings

log = logging.getLogger(__name__)

_STARTS = 2  # of the daemon in a trial; the next one rolls back
_REMEMBERED = 64  # hashes of settings that were undone
_AHEAD = 86400.0  # seconds that a document may be issued in the future: the owner's clock may be off
# What says nothing about the newest document: an older one lies about, as it may, or was judged already.
_NO_NEWS = {"replay", "rejected_before"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a document: "accepted", "known" (it was taken before), or why it was refused."""

    code: str
    text: str
    hash: str
    kind: str = ""

    @property
    def is_accepted(self) -> bool:
        """Whether it is new, and was taken."""
        return self.code == "accepted"


# ── Taking, trying, keeping, undoing ─────────────────────────────────────────────────────────────────


class PushedSettings:
    """The trap's side of settings from afar. Each method reads what is remembered, and replaces it durably.

    Several processes may use it at once: the daemon, and a command that brings a document by hand.
    """

    def __init__(self, files: Files, clock: Clock) -> None:
        """`files`: the local settings, read already. SettingsError if its keys are none."""
        self._files = files
        self._clock = clock
        self._settings = self._files.local.pushed
        self._state = self._files.local.storage.state
        self._keys = [envelope.public_from_text(text) for text in self._settings.keys]

    def accept(self, data: bytes) -> Outcome:
        """Judge a document. Taken settings wait for the next start; refused ones change nothing.

        A document that is brought again, as servers do, is "known", and nothing is written. Raises StorageError when
        the card cannot remember it, and SettingsError when nothing can be verified on this machine.
        """
        name = envelope.document_hash(data)
        try:
            document = self._addressed(data)
        except RefusedDocument as refused:
            return Outcome(refused.code, str(refused), name)
        with remembered.changing(self._state) as change:
            try:
                change.record = self._judged(change.record, document, name)
            except _KnownError:
                return Outcome("known", "it was taken before", name, document.kind)
            except RefusedDocument as refused:
                if refused.code not in _NO_NEWS:
                    change.record = replace(
                        change.record, received=name, code=refused.code, reason=str(refused)
                    )
                return Outcome(refused.code, str(refused), name, document.kind)
        return Outcome("accepted", _described(document), name, document.kind)

    def _addressed(self, data: bytes) -> Document:
        """The document, if the owner signed it, and signed it for this trap."""
        if not self._settings.enabled:
            raise RefusedDocument("key", "this trap takes no settings from afar: pushed.enabled is false")
        document = envelope.parse(envelope.verify(data, self._keys))
        mine = {"all", f"device:{device_id(self._files.local.trap)}"}
        if document.to not in mine | {f"group:{group}" for group in self._settings.groups}:
            raise RefusedDocument("addressee", f"it is for {document.to}, and not for this trap")
        return document

    def _judged(self, record: Record, document: Document, name: str) -> Record:
        """What is to be remembered once this document is taken. Raises RefusedDocument, _KnownError."""
        if name in {one.hash for one in (record.committed, record.candidate, record.asked) if one}:
            raise _KnownError
        which = (document.epoch, document.version)
        highest = record.highest_resend if document.resend else record.highest
        if which <= highest and name not in record.rejected:
            raise RefusedDocument("replay", f"{which} is not above {highest}, which this trap has had")
        now = self._require_in_time(record, document)
        record = replace(record, floor=max(now, document.issued.timestamp()), received=name)
        if document.resend:
            return replace(record, highest_resend=which, asked=self._asked(document, name))
        policy.require_awake(policy.with_pushed(self._files, document.settings), utc(now))
        if name in record.rejected:
            raise RefusedDocument("rejected_before", "this trap has tried it, and undone it")
        return replace(
            record,
            highest=which,
            candidate=Taken(name, *which, document.settings),
            starts=0,
            # A trial that is cut short says nothing of how the trap was before it.
            before=record.before if record.state == "trial" else None,
            state="validated",
            code=None,
            reason=None,
        )

    def _require_in_time(self, record: Record, document: Document) -> float:
        """A moment before which it certainly is not, at which the document is good.

        The wall clock's word counts if it is trusted: without a battery it starts anywhere.
        """
        trusted = self._clock.trusted()
        now = max(record.floor, self._clock.wall()) if trusted else record.floor
        if document.expires.timestamp() <= now:
            raise RefusedDocument("expired", f"it was good until {document.expires:%Y-%m-%d %H:%M} UTC")
        if trusted and document.issued.timestamp() > now + _AHEAD:
            raise RefusedDocument(
                "expired", f"it is of {document.issued:%Y-%m-%d %H:%M} UTC, which is in the future"
            )
        return now

    def _asked(self, document: Document, name: str) -> Asked:
        asked, known = document.resend, self._files.local.destinations
        assert asked is not None
        if asked.destination is not None and asked.destination not in known:
            raise RefusedDocument("settings", f"resend: this trap has no destination {asked.destination!r}")
        return Asked(name, asked.since.timestamp(), asked.until.timestamp(), asked.destination)

    def note_time(self) -> None:
        """Remember a trusted time, once a day: after the next boot the clock may be wrong for weeks."""
        wall = self._clock.wall()
        if self._clock.trusted() and wall > remembered.read(self._state).floor + 86400:
            with remembered.changing(self._state) as change:
                change.record = replace(change.record, floor=wall)

    # The trial

    def begin(self) -> InForce:
        """What the daemon is to run with from this start on; a start within a trial is counted before, durably.

        A trial that was started twice and came to no end is rolled back. While a person's override is there, or
        pushed settings are switched off, no trial begins or goes on.
        """
        found = lay(self._files)
        if found.record.candidate is None:
            return found
        try:
            with remembered.changing(self._state) as change:
                change.record = self._begun(change.record)
        except StorageError as error:  # what cannot be counted is not tried
            log.error("%s: no pushed settings are tried", error)
            return replace(found, settings=self.previous(), taken=None) if found.is_trial else found
        return lay(self._files)

    def _begun(self, record: Record) -> Record:
        if record.candidate is None:
            return record
        if self._files.has_override or not self._settings.enabled:
            return replace(record, state="validated", starts=0)
        if record.starts >= _STARTS:
            return _rolled_back(
                record, "starts", f"the daemon was started {_STARTS} times with them, and did not last"
            )
        try:
            policy.with_pushed(self._files, record.candidate.tables)
        except RefusedDocument as refused:  # this trap's own files have changed
            return _rolled_back(record, refused.code, str(refused))
        return replace(record, state="trial", starts=record.starts + 1)

    def previous(self) -> Settings:
        """The settings as they are without those on trial."""
        committed = remembered.read(self._state).committed
        try:
            return policy.with_pushed(self._files, committed.tables) if committed else self._files.local
        except RefusedDocument:
            return self._files.local

    def note_before(self, before: dict[str, Any]) -> None:
        """Remember how the trap was when the trial began: it must not be worse in the end."""
        with remembered.changing(self._state) as change:
            change.record = replace(change.record, before=before)

    def is_last_start(self) -> bool:
        """Whether the next start would roll back what is on trial."""
        return remembered.read(self._state).starts >= _STARTS

    def interrupted(self) -> None:
        """A person ends the daemon during a trial: this start does not count."""
        with remembered.changing(self._state) as change:
            if change.record.state == "trial":
                change.record = replace(change.record, starts=max(0, change.record.starts - 1))

    def commit(self) -> None:
        """The trap does well with the new settings: they stay."""
        with remembered.changing(self._state) as change:
            record = change.record
            if record.state == "trial":
                change.record = replace(
                    record,
                    committed=record.candidate,
                    candidate=None,
                    state="committed",
                    starts=0,
                    before=None,
                )

    def roll_back(self, code: str, reason: str) -> None:
        """The trap does worse: from the next start on the old settings are in force again."""
        with remembered.changing(self._state) as change:
            if change.record.state == "trial":
                change.record = _rolled_back(change.record, code, reason)

    # Sending again

    def asked(self) -> Asked | None:
        """A request to send images again that was not done yet."""
        asked = remembered.read(self._state).asked
        return asked if asked and asked.again is None else None

    def note_asked(self, done: Asked) -> None:
        """Remember what became of it."""
        with remembered.changing(self._state) as change:
            if change.record.asked and change.record.asked.hash == done.hash:
                change.record = replace(change.record, asked=done)


class _KnownError(Exception):
    """This very document was taken before."""


def _described(document: Document) -> str:
    if document.resend:
        return f"images from {document.resend.since} until {document.resend.until} are to be sent again"
    count = sum(1 for _ in layers.keys(document.settings))
    return f"settings {document.epoch}.{document.version} ({count} keys) are to be tried"


def _rolled_back(record: Record, code: str, reason: str) -> Record:
    assert record.candidate is not None
    log.error("pushed settings %d.%d are undone: %s", *record.highest, reason)
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
