"""Settings from afar in the running daemon: taken, tried, kept or undone; and images that the owner asks for again."""

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeVar

from trapsync.catalog import Catalog
from trapsync.clock import Clock
from trapsync.destinations import Destination
from trapsync.errors import CatalogError, StorageError, TrapsyncError
from trapsync.remote import resend
from trapsync.remote.in_force import InForce, lay
from trapsync.remote.remote_settings import Outcome, PushedSettings
from trapsync.runtime.trial import Before, Trial, Verdict
from trapsync.trap import holder, system_clock

log = logging.getLogger(__name__)

Made = TypeVar("Made")


def begin(found: InForce, make: Callable[[InForce], Made]) -> Made:
    """What `make` makes of the settings in force. If some are on trial, this start counts.

    Settings on trial with which nothing can even be made are rolled back at once.
    """
    if holder(found.settings.storage.state) is not None:  # it will find the lock taken, and try nothing
        return make(found)
    memory = PushedSettings(found.files, system_clock(found.settings))
    begun = memory.begin()
    try:
        return make(begun)
    except TrapsyncError as error:
        if not begun.is_trial:
            raise
        memory.roll_back("settings", str(error))
        return make(lay(found.files))


class Afar:
    """What comes from the owner to a running daemon, by whatever way.

    `begin_again` ends the daemon to start with other settings; `run_now` lets the jobs run whose names begin so.
    """

    def __init__(
        self,
        found: InForce,
        clock: Clock,
        begin_again: Callable[[], object],
        run_now: Callable[[str], object],
    ) -> None:
        """`found`: the settings that the daemon runs with. SettingsError if the trusted keys are none."""
        self._found = found
        self._clock = clock
        self._begin_again = begin_again
        self._run_now = run_now
        self._pushed = PushedSettings(found.files, clock)
        self._trial: Trial | None = None

    @property
    def is_trying(self) -> bool:
        """Whether settings are on trial."""
        return self._trial is not None

    def receive(self, data: bytes) -> Outcome:
        """Take a document that came from afar, from any thread. Settings that were taken begin with a start.

        Raises StorageError and SettingsError: then it is not known what becomes of it, and it is to come again.
        """
        outcome = self._pushed.accept(data)
        is_news = outcome.code not in {"known", "replay", "rejected_before"}
        log.log(
            logging.WARNING if is_news else logging.DEBUG,
            "document %.12s: %s: %s",
            outcome.hash,
            outcome.code,
            outcome.text,
        )
        if outcome.is_accepted and outcome.kind == "resend":
            self._run_now("ask again")
        elif outcome.is_accepted:
            self._begin_again()
        return outcome

    def try_settings(self, catalog: Catalog, rhythms: Mapping[str, float]) -> None:
        """If these settings are on trial, know from the first moment on how the trap was before.

        `rhythms`: how often each destination is delivered to, in seconds.
        """
        found = self._found
        if not found.is_trial:
            return
        if found.record.before is not None:
            before = Before.recalled(found.record.before)
        else:
            before = Before.of(self._pushed.previous(), catalog, self._clock)
            self._pushed.note_before(before.plain())
        self._trial = Trial(found.settings, before, catalog, self._clock, rhythms)
        log.warning(
            "these settings are on trial: %d.%d, start %d", *found.record.highest, found.record.starts
        )

    def judge(self, overdue: Sequence[str]) -> None:
        """Keep settings on trial that do well; undo those that do not, and begin again with the old ones.

        `overdue`: the parts of the daemon that fell silent.
        """
        if self._trial is None:
            return
        try:
            if verdict := self._trial.look(overdue):
                self._carry_out(verdict)
        except (CatalogError, StorageError) as error:
            log.error("%s", error)

    def judge_single_run(self, overdue: Sequence[str], tried: Container[str]) -> None:
        """Keep settings on trial after a single run that went well, roll them back after the second that did not.

        `tried`: the destinations that it called at.
        """
        if self._trial is None:
            return
        try:
            verdict = self._trial.of_single_run(overdue, tried)
            if verdict.is_well or self._pushed.is_last_start():
                self._carry_out(verdict)
            else:
                log.warning(
                    "a single run did not go well with the new settings: %s; one more", verdict.reason
                )
        except (CatalogError, StorageError) as error:
            log.error("%s", error)

    def _carry_out(self, verdict: Verdict) -> None:
        if verdict.is_well:
            self._pushed.commit()
            log.warning("the trap does well with the new settings: they stay")
        else:
            self._pushed.roll_back(verdict.code, verdict.reason)
            self._begin_again()
        self._trial = None

    def interrupted(self) -> None:
        """Somebody ends the daemon in the middle of a trial: that says nothing about the settings."""
        if self._trial is None:
            return
        try:
            self._pushed.interrupted()
        except TrapsyncError as error:  # then this start of the trial counts
            log.error("%s", error)

    def resend(
        self, catalog: Catalog, destinations: Sequence[Destination], progress: Callable[[], object]
    ) -> None:
        """Ask the destinations about what the operator asked for; what they lost is delivered at once."""
        self._pushed.note_time()
        asked = self._pushed.asked()
        if asked and resend.answer(catalog, destinations, asked, self._pushed.note_asked, progress).again:
            self._run_now("deliver")
