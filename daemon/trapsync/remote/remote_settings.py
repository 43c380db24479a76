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

from trapsync.clock import WRITTEN, Clock, utc
from trapsync.errors import RefusedDocument, StorageError
from trapsync.hardware.device_id import device_id
from trapsync.net.slots import slots_of_trap
from trapsync.remote import document as documents
from trapsync.remote import policy
from trapsync.remote import record as records
from trapsync.remote.document import Document
from trapsync.remote.in_force import InForce, lay
from trapsync.remote.record import (
    BELIEVED_AHEAD,
    FARTHEST,
    Last,
    Record,
    Refusal,
    ReplayGuard,
    ResendRequest,
    Seen,
    Taken,
)
from trapsync.settings import layers
from trapsync.settings.layers import Files
from trapsync.settings.schema import Settings

log = logging.getLogger(__name__)

_STARTS = 2  # of the daemon in a trial; the next one rolls back
_REMEMBERED = 64  # hashes of settings that were rolled back, and ids of keys that were revoked
_DAY = 86400.0
_AHEAD = _DAY  # seconds that a document may be issued in the future: the operator's clock may be wrong
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

    @property
    def slots(self) -> list[str]:
        """Where documents for this trap lie."""
        device, groups = device_id(self._files.local.trap), self._settings.groups
        return slots_of_trap(device, groups, [key.id for key in self._keys])

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
            if self._is_known(record, document, name):
                outcome = replace(outcome, code="known", text="it was accepted before")
                return record
            try:
                record = self._judged(record, document, name, before)
                if record.committed and record.committed.hash == name:
                    outcome = replace(outcome, text=f"settings {document.version} need no trial")
                return record
            except RefusedDocument as refused:
                outcome = replace(outcome, code=refused.code, text=str(refused))
                if not outcome.is_news or refused.code == "key":
                    return record
                why = Refusal(name, document.version, refused.code, str(refused))
                return replace(record, received=name, refused=why)

        records.change(self._state, judged)
        return outcome

    def _addressed(self, data: bytes) -> Document:
        """The document, if one of the operator's keys signed it, and signed it for this trap."""
        if not self._settings.enabled:
            raise RefusedDocument("key", "this trap takes no remote settings: remote.enabled is false")
        document = documents.parse(documents.verify(data, self._keys))
        mine = {"all", f"device:{device_id(self._files.local.trap)}"}
        if document.to not in mine | {f"group:{group}" for group in self._settings.groups}:
            raise RefusedDocument("recipient", f"it is for {document.to}, and not for this trap")
        return replace(document, key=documents.signer(data) or "")

    def _is_known(self, record: Record, document: Document, name: str) -> bool:
        """Whether it was accepted, and what it brought is still there."""
        if document.kind == "keys":
            seen = record.guard.had(document.key).get("keys")
            return seen is not None and seen.hash == name
        return name in {one.hash for one in (record.committed, record.candidate, record.asked) if one}

    def _judged(
        self, record: Record, document: Document, name: str, before: Callable[[], Facts | None]
    ) -> Record:
        """The record once this document is accepted. Raises RefusedDocument."""
        self._require_new(record, document, name)
        floor = self._require_in_time(record.guard, document)
        seen = Seen(document.version, name)
        guard = replace(record.guard, floor=floor).with_document(
            document.key, document.kind, seen, [key.id for key in self._keys]
        )
        record = replace(record, guard=guard, received=name)
        if document.kind == "keys":
            return _revoked(record, document)
        if document.resend:
            return replace(record, asked=self._request(document, name), refused=None)
        policy.require_awake(policy.with_remote(self._files, document.settings), utc(self._now(guard)))
        if name in record.rejected:
            raise RefusedDocument("rejected_before", "this trap has tried it, and rolled it back")
        last = Last(document.key, document.version, document.issued.timestamp())
        record = replace(
            record, guard=replace(guard, last=last), code=None, reason=None, refused=None, damaged=None
        )
        taken = Taken(name, document.version, document.settings, document.key)
        # One that is under way ends: what was committed before it comes back, with other texts.
        if not policy.needs_trial(document.settings, record.committed.tables if record.committed else {}):
            return _committed(record, taken)
        return replace(
            record,
            candidate=taken,
            starts=0,
            # During a trial the trap is not as it was before: what was noted then stays.
            before=record.before if record.state == "trial" else before(),
            state="validated",
        )

    def _require_new(self, record: Record, document: Document, name: str) -> None:
        """RefusedDocument for what was had before or is older than that, and for a key that was revoked.

        The same document may come once more where what it brought was lost (`Seen.hash`).
        """
        guard, key, version = record.guard, document.key, document.version
        if key in guard.revoked:
            raise RefusedDocument(
                "key", f"the key {key}, which signed it, was revoked by {guard.revoked[key]}"
            )
        had = guard.had(key)
        seen = had.get(document.kind, Seen(0))
        if version <= seen.version and name != seen.hash and name not in record.rejected:
            raise RefusedDocument(
                "replay", f"number {version} is not above {seen.version}, which this key had"
            )
        farthest = max((one.version for one in had.values()), default=0) + FARTHEST
        if version > farthest and document.kind != "keys":
            raise RefusedDocument(
                "number", f"number {version} is above {farthest}; see: trapsync keys jump --help"
            )
        if document.issued.timestamp() < self._earliest(guard, document):
            raise RefusedDocument(
                "replay",
                f"it was issued {document.issued:%Y-%m-%d %H:%M:%S} UTC, before what this trap has had",
            )

    def _earliest(self, guard: ReplayGuard, document: Document) -> float:
        """When a document of this kind was issued at the earliest: the numbers of two keys say nothing of each other."""
        last, trusted = guard.last, {key.id for key in self._keys} - guard.revoked.keys() - {document.key}
        is_of_another = document.kind == "settings" and last is not None and last.key in trusted
        return max(guard.since, last.issued) if last and is_of_another else guard.since

    def _now(self, guard: ReplayGuard) -> float:
        """The time as far as it is known: without a battery the wall clock starts anywhere."""
        return self._clock.wall() if self._is_believed() else guard.floor

    def _is_believed(self) -> bool:
        """Whether the wall clock counts: it is trusted, and can be right."""
        return self._clock.trusted() and self._clock.wall() >= WRITTEN

    def _require_in_time(self, guard: ReplayGuard, document: Document) -> float:
        """The floor after this document, if it is valid now."""
        now, issued = self._now(guard), document.issued.timestamp()
        if document.expires.timestamp() <= now:
            raise RefusedDocument("expired", f"it was valid until {document.expires:%Y-%m-%d %H:%M} UTC")
        if issued > now + (_AHEAD if self._is_believed() else BELIEVED_AHEAD):
            raise RefusedDocument(
                "expired", f"it is of {document.issued:%Y-%m-%d %H:%M} UTC, which is in the future"
            )
        return max(self._after_look(guard).floor, issued)

    def _after_look(self, guard: ReplayGuard) -> ReplayGuard:
        """The guard after a look at the clock: one that is believed raises the floor within bounds, and lowers it.

        A time server can lie, and is not asked who it is: so a clock alone does not take the floor beyond `BELIEVED_AHEAD`.
        """
        wall = self._clock.wall()
        if not self._is_believed() or wall > guard.floor + BELIEVED_AHEAD:
            return guard
        return replace(guard, floor=wall, since=min(guard.since, wall))

    def _request(self, document: Document, name: str) -> ResendRequest:
        asked, known = document.resend, self._files.local.destinations
        assert asked is not None
        if asked.destination is not None and asked.destination not in known:
            raise RefusedDocument("settings", f"resend: this trap has no destination {asked.destination!r}")
        since, until = asked.since.timestamp(), asked.until.timestamp()
        return ResendRequest(name, since, until, asked.destination, key=document.key)

    def note_time(self) -> None:
        """Remember a trusted time, once a day: after the next boot the clock may be wrong for weeks."""
        guard = records.read(self._state).guard
        new = self._after_look(guard)
        if abs(new.floor - guard.floor) > _DAY or new.since != guard.since:
            records.change(self._state, lambda known: replace(known, guard=self._after_look(known.guard)))

    # The trial

    def begin(self) -> InForce:
        """The settings to run with from this start on; a start within a trial is counted before, durably.

        A trial that was started twice and did not end is rolled back. While there is a local override, or
        remote settings are switched off, no trial begins or goes on.
        """
        found = lay(self._files)
        if found.record.candidate is None and not found.record.damaged:
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
            lambda record: _committed(record, record.candidate) if record.candidate else record
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
    if document.kind == "keys":
        return f"number {document.version} of the key {document.key}; revoked: {', '.join(document.revoke) or 'none'}"
    if asked := document.resend:
        return f"number {document.version}: images from {asked.since} until {asked.until} are asked for again"
    count = sum(1 for _ in layers.keys(document.settings))
    return f"settings {document.version} ({count} keys) are to be tried"


def _revoked(record: Record, document: Document) -> Record:
    """The record without those keys, and without what they have sent that is not done yet."""
    if document.key in document.revoke:
        raise RefusedDocument("keys", "a key cannot revoke itself: sign it with the other one")
    revoked = {**record.guard.revoked, **dict.fromkeys(document.revoke, document.key)}
    record = replace(record, guard=replace(record.guard, revoked=dict([*revoked.items()][-_REMEMBERED:])))
    if record.asked and record.asked.again is None and record.asked.key in revoked:
        record = replace(record, asked=None)
    if record.candidate and record.candidate.key in revoked:
        return _rolled_back(record, "key", f"the key {record.candidate.key}, which signed them, was revoked")
    return record


def _committed(record: Record, taken: Taken) -> Record:
    """The record with these settings in force, from the next start on at the latest."""
    return replace(
        record,
        committed=taken,
        candidate=None,
        state="committed",
        starts=0,
        before=None,
    )


def _rolled_back(record: Record, code: str, reason: str) -> Record:
    assert record.candidate is not None
    log.error("remote settings %d are rolled back: %s", record.candidate.version, reason)
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
