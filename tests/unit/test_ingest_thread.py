"""The ingest thread: what it does first, and what it does where the card or the catalog refuses."""

import threading
from typing import Any, cast
from unittest.mock import Mock

import pytest

from fake_time import FakeTime
from trapsync import pipeline
from trapsync.errors import ExaminerKilled
from trapsync.image import Image
from trapsync.pipeline import Ingested
from trapsync.runtime import ingest_thread
from trapsync.runtime.context import Context
from trapsync.runtime.ingest_thread import IngestThread
from trapsync.runtime.liveness import Liveness
from trapsync.settings.schema import Settings
from trapsync.spool.inbox import Inbox
from trapsync.spool.not_taken_in import Seen


def make(catalog: object = None, most: int = 10) -> tuple[IngestThread, Context]:
    """The room of the ingest thread, without a thread."""
    time = FakeTime()
    inbox, liveness = Inbox(time, most), Liveness(time)
    context = Context(
        Settings(), "0a1b2c3d", time, cast("Any", catalog or Mock()), inbox, liveness, threading.Event()
    )
    return IngestThread(context, Mock()), context


def test_the_ingest_thread_survives_what_the_card_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    ingesting, context = make()
    tried: list[list[str]] = []

    def failing(_c: object, _s: object, paths: list[str], *_: object) -> Ingested:
        tried.append(paths)
        context.stop.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pipeline, "ingest", failing)
    context.inbox.put("a.jpg")
    ingesting.run()
    assert tried == [["a.jpg"]]
    assert not context.inbox.is_empty()  # it is looked at again


def test_a_mistake_of_our_own_costs_the_file_that_causes_it_and_neither_the_thread_nor_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Mock()
    ingesting, context = make(catalog)
    done: list[list[str]] = []

    def failing(_c: object, _s: object, paths: list[str], *_: object) -> Ingested:
        if "bad.jpg" in paths:
            raise ZeroDivisionError("a mistake of our own")
        done.append(paths)
        return Ingested(new=1)

    monkeypatch.setattr(pipeline, "ingest", failing)
    monkeypatch.setattr(context.stop, "wait", lambda _seconds: context.stop.set())
    for path in ("a.jpg", "bad.jpg", "b.jpg"):
        context.inbox.put(path)
    ingesting.run()
    assert done == [["a.jpg"], ["b.jpg"]]
    assert context.inbox.is_empty()  # the next sweep offers it again
    assert "'bad.jpg' cannot be ingested" in caplog.text
    catalog.facts.set.assert_any_call("bug", "ingesting files failed; see the log")


def test_more_files_than_the_inbox_holds_that_cannot_be_done_with_are_no_busy_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are found again and again. Those behind them get their turn as soon as there is one."""
    ingesting, context = make(most=4)
    sweeps, breaths = 0, []

    def sweep(*_: object) -> Seen:
        nonlocal sweeps
        sweeps += 1
        for number in range(6):
            context.inbox.put(f"{number}.jpg")
        return Seen()

    def breathe(seconds: float) -> bool:
        breaths.append(seconds)
        if len(breaths) == 3:
            context.stop.set()
        return False

    outcomes = iter([Ingested(new=1), Ingested(damaged=1)])
    monkeypatch.setattr(context.stop, "wait", breathe)
    monkeypatch.setattr(pipeline, "sweep", sweep)
    monkeypatch.setattr(pipeline, "ingest", lambda *_: next(outcomes, Ingested()))
    sweep()
    ingesting.run()
    assert breaths == [10.0] * 3
    assert sweeps == 1 + 2 + 3  # at once while there was something new, then with a breath before each


def test_small_copies_wait_for_room_instead_of_being_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Wanting:
        def __init__(self) -> None:
            self.facts, self.images = Mock(), self

        def without_thumbnails(self, limit: int) -> list[Image]:
            asked.append(limit)
            return []

    free = [0]
    monkeypatch.setattr("trapsync.runtime.ingest_thread.free_bytes", lambda _folder: free[0])
    ingesting, _ = make(Wanting())
    steps = ingesting._make_thumbnails()
    assert (next(steps), asked) == (False, [])
    free[0] = 10**9
    assert (next(steps), asked) == (False, [1])


@pytest.mark.parametrize(("kills", "marked"), [(2, True), (3, False)])
def test_small_copies_whose_maker_was_killed_are_tried_again_after_a_pause_so_many_times(
    monkeypatch: pytest.MonkeyPatch, kills: int, marked: bool
) -> None:
    marks: dict[int, bool] = {}

    class Wanting:
        def __init__(self) -> None:
            self.facts, self.images = Mock(), self

        def without_thumbnails(self, limit: int) -> list[Image]:
            return [Image("a.jpg", 1, "", "", 1, 1, id=7)] if 7 not in marks else []

        def mark_thumbnails(self, made: dict[int, bool]) -> None:
            marks.update(made)

    monkeypatch.setattr("trapsync.runtime.ingest_thread.free_bytes", lambda _folder: 10**9)
    room, _ = make(Wanting())
    killed = [ExaminerKilled("killed")] * kills
    maker = Mock(side_effect=[*killed, True])
    monkeypatch.setattr(room._examiners, "make_thumbnails", maker)
    steps = room._make_thumbnails()
    for number in range(1, 3):
        assert [next(steps) for _ in range(3)] == [False] * 3
        assert (maker.call_count, marks) == (number, {})
        cast("FakeTime", room._clock).sleep(ingest_thread._LOOK_LATER)
    assert (next(steps), next(steps), maker.call_count) == (True, False, 3)
    assert marks == {7: marked}
