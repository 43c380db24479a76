"""From the catalog to the destinations: once, whole, and again when it must be."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

import drawings
from trap_bench import Memory, OneByOne, Trap
from trapsync.catalog.counts import Counts
from trapsync.catalog.rows import Proof
from trapsync.destinations import Receipt, next_upload
from trapsync.destinations.outcomes import Outcome, Send
from trapsync.errors import (
    CatalogError,
    Failed,
    Held,
    Refused,
    StorageError,
    Unauthorised,
    Unreachable,
)
from trapsync.image import Image
from trapsync.runtime.upload_pool import UploadPool
from trapsync.settings.schema import Settings
from trapsync.status import snapshot


def fill(trap: Trap, count: int, *destinations: Memory) -> list[str]:
    """Register the destinations and ingest so many images; their keys, oldest first."""
    trap.register(*destinations)
    paths = [trap.put(second, seed=second + 1) for second in range(count)]
    trap.ingest()
    return [path.rpartition("/")[2] for path in paths]


def pool(trap: Trap, home: Memory, threads: int) -> UploadPool:
    """Uploads to this destination, so many at a time."""
    return UploadPool(structs.replace(home.settings, transfers=threads), trap.time)


def test_everything_pending_is_asked_for_once_and_sent_once(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 5, home)
    assert trap.deliver(home).delivered == 5
    assert len(home.asked) == 1
    assert sorted(home.sent) == keys
    assert trap.ledger() == (5, 5, 0, 0, 0)


def test_when_all_is_delivered_nothing_is_asked_and_nothing_is_sent(trap: Trap) -> None:
    home = Memory()
    fill(trap, 3, home)
    trap.deliver(home)
    home.asked.clear()
    home.sent.clear()
    trap.deliver(home)
    assert (home.asked, home.sent) == ([], [])


@pytest.mark.parametrize(("order", "first"), [("newest", -1), ("oldest", 0)])
def test_images_go_in_the_order_that_the_owner_chose(trap: Trap, order: str, first: int) -> None:
    home = Memory()
    home.settings = structs.replace(home.settings, order=order)
    keys = fill(trap, 3, home)
    trap.deliver(home)
    assert home.sent[0] == keys[first]


def test_what_the_destination_holds_already_is_not_sent_again(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 3, home)
    (image,) = (i for i in trap.catalog.images.on_card(0, 9) if i.key == keys[1])
    home.stored[image.key] = image.sha256
    assert trap.deliver(home).delivered == 3
    assert keys[1] not in home.sent


def test_a_destination_out_of_reach_is_left_alone_until_its_wait_is_over(trap: Trap) -> None:
    home = Memory()
    fill(trap, 2, home)
    home.deaf = Unreachable("no answer")
    assert trap.deliver(home).trouble is home.deaf
    assert not trap.catalog.deliveries.may_go("home")
    trap.time.sleep(1001)
    assert trap.catalog.deliveries.may_go("home")
    home.deaf = None
    assert trap.deliver(home).delivered == 2


def test_the_back_off_grows_and_a_restart_does_not_forget_it(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    home.deaf = Unreachable("no answer")
    for _ in range(12):
        trap.deliver(home)
    trap.restart()
    assert trap.catalog.deliveries.attempts("home") == 12
    assert not trap.catalog.deliveries.may_go("home")
    (row,) = trap.catalog.counts.destinations()
    assert 100 <= row["waits"] <= 1000  # the longest wait, less the jitter


def test_the_back_off_grows_where_asking_works_and_sending_does_not(trap: Trap) -> None:
    home = Memory()
    (key,) = fill(trap, 1, home)
    home.trouble[key] = Unreachable("the upload stalled")
    for _ in range(8):
        trap.deliver(home)
        trap.time.sleep(1001)
    assert trap.catalog.deliveries.attempts("home") == 8
    home.trouble.clear()
    assert trap.deliver(home).delivered == 1
    assert trap.catalog.deliveries.attempts("home") == 0


def test_after_a_reboot_a_wait_is_served_at_most_once_more(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    home.deaf = Unreachable("no answer", wait=600)
    trap.deliver(home)
    trap.restart(reboot=True)
    assert not trap.catalog.deliveries.may_go("home")
    trap.time.sleep(600)
    assert trap.catalog.deliveries.may_go("home")


@pytest.mark.parametrize("step", [-90 * 86400.0, 90 * 86400.0])
def test_a_step_of_the_clock_neither_ends_nor_prolongs_a_wait(trap: Trap, step: float) -> None:
    home = Memory()
    fill(trap, 1, home)
    home.deaf = Unreachable("no answer", wait=600)
    trap.deliver(home)
    trap.time.step_wall(step)
    assert not trap.catalog.deliveries.may_go("home")
    trap.time.sleep(601)
    assert trap.catalog.deliveries.may_go("home")


def test_wrong_credentials_are_tried_at_most_every_fifteen_minutes(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    home.deaf = Unauthorised("wrong password")
    trap.deliver(home)
    assert trap.catalog.counts.destinations()[0]["waits"] >= 900


def test_no_image_is_begun_once_the_destination_is_out_of_reach(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 5, home)
    home.trouble[keys[-1]] = Unreachable("the line is dead")  # newest first
    turn = trap.deliver(home)
    assert home.sent == [keys[-1]]
    assert str(turn.trouble) == "the line is dead"
    assert trap.ledger() == (5, 0, 5, 0, 0)


def test_uploads_in_flight_when_the_line_dies_still_count(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 6, home)
    home.trouble[keys[-1]] = Unreachable("the line is dead")
    turn = trap.deliver(home, pool(trap, home, 3))
    assert turn.trouble
    assert turn.delivered == len(home.stored) == trap.ledger()[1]


def test_a_refused_image_is_final_and_keeps_nobody_back(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 3, home)
    home.trouble[keys[1]] = Refused("another picture has that name")
    turn = trap.deliver(home)
    assert (turn.delivered, turn.refused) == (2, 1)
    home.sent.clear()
    trap.time.sleep(10**6)
    trap.deliver(home)
    assert home.sent == []
    assert trap.ledger() == (3, 2, 1, 0, 0)


def test_the_owner_says_retry_and_a_refused_image_is_pending_again(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 1, home)
    home.trouble[keys[0]] = Refused("no")
    trap.deliver(home)
    home.trouble.clear()
    assert trap.catalog.deliveries.retry("home") == 1
    assert trap.deliver(home).delivered == 1


@pytest.mark.parametrize("is_found_first", [False, True])
def test_an_image_whose_folder_was_moved_waits_for_no_file_at_the_old_path(
    trap: Trap, is_found_first: bool
) -> None:
    home = Memory()
    trap.register(home)
    trap.ingest(trap.put(path=f"here/{drawings.NAME}"))

    class Moving(OneByOne):
        """The folder is moved when the uploads begin, and perhaps found before the first of them fails."""

        def start(self, images: Sequence[Image], send: Send) -> None:
            if not (trap.storage.spool / "there").exists():
                (trap.storage.spool / "here").rename(trap.storage.spool / "there")
                if is_found_first:
                    trap.ingest()
            super().start(images, send)

    trap.deliver(home, Moving())
    trap.ingest()
    trap.deliver(home)

    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_one_image_that_fails_waits_by_itself_while_the_others_go(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 3, home)
    home.trouble[keys[2]] = Failed("the server answered 500")
    turn = trap.deliver(home)
    assert (turn.delivered, turn.postponed, turn.trouble) == (2, 1, None)
    assert trap.deliver(home).postponed == 0  # it waits
    trap.time.sleep(11)
    home.trouble.clear()
    assert trap.deliver(home).delivered == 1


def test_an_image_that_keeps_failing_while_others_pass_is_set_aside(trap: Trap) -> None:
    home = Memory()
    poison = fill(trap, 1, home)[0]
    home.trouble[poison] = Failed("the server answered 500")
    for second in range(1, 9):
        trap.put(second, seed=second + 1)
        trap.ingest()
        trap.deliver(home)
        trap.time.sleep(1001)
    assert home.sent.count(poison) == 5
    (row,) = trap.catalog.images.listing("refused", 9)
    assert "5 attempts" in row["deliveries"]["home"]["error"]


def test_a_server_that_takes_no_image_at_all_is_left_alone_and_no_image_is_blamed(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    keys = fill(trap, 40, home)[1:]
    home.trouble = dict.fromkeys(keys, Failed("the server answered 500"))
    home.sent.clear()
    assert "takes no image" in str(trap.deliver(home).trouble)
    assert len(home.sent) == 3
    for _ in range(60):
        trap.time.sleep(1001)
        assert trap.deliver(home).refused == 0
    trap.restart()  # its catalog can still be believed
    home.trouble.clear()
    trap.time.sleep(1001)
    assert trap.deliver(home).delivered == 39


def test_images_that_fail_keep_the_others_back_for_a_turn_at_most(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 7, home)
    home.trouble = dict.fromkeys(keys[3:], Failed("the server answered 500"))  # newest first
    for _ in range(3):
        trap.deliver(home)
        trap.time.sleep(11)
    assert set(home.stored) == set(keys[:3])


def test_a_held_image_stays_pending_without_counting_as_a_failure(trap: Trap) -> None:
    home = Memory()
    keys = fill(trap, 1, home)
    home.trouble[keys[0]] = Held("the clock was not set")
    for _ in range(20):
        assert trap.deliver(home).refused == 0
        trap.time.sleep(1001)
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_a_held_image_is_looked_at_again_when_its_destination_says_but_never_later_than_usual(
    trap: Trap,
) -> None:
    home = Memory()
    (key,) = fill(trap, 1, home)
    for wait, until in ((60.0, 60.0), (10**6, 1000.0)):
        asked = len(home.asked)
        home.trouble[key] = Held("its small copy is not made yet", wait=wait)
        assert trap.deliver(home).postponed == 1
        trap.time.sleep(until - 1)
        assert trap.deliver(home).postponed == 0
        trap.time.sleep(2)
        assert len(home.asked) == asked + 1
    del home.trouble[key]
    assert trap.deliver(home).delivered == 1


def test_a_file_that_vanishes_before_it_is_sent_costs_only_itself(trap: Trap) -> None:
    home = Memory()
    fill(trap, 3, home)
    path = trap.storage.spool / next(iter(trap.on_card()))
    path.unlink()
    turn = trap.deliver(home)
    assert (turn.delivered, turn.postponed) == (2, 1)
    trap.ingest()
    assert trap.ledger() == (3, 2, 1, 0, 0)  # the destination is asked before it counts as dropped
    trap.deliver(home)
    assert trap.ledger() == (3, 2, 0, 0, 1)


def test_an_image_that_vanishes_while_it_is_sent_is_delivered_if_it_arrived(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)

    class Vanishing(OneByOne):
        def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
            if outcome := super().finished(within):
                (trap.storage.spool / outcome[0].path).unlink()
                trap.ingest()
            return outcome

    assert trap.deliver(home, Vanishing()).delivered == 1
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_a_lost_mark_is_found_again_by_asking(trap: Trap) -> None:
    home = Memory()
    fill(trap, 3, home)
    for image in trap.catalog.deliveries.due("home", "newest", 9):
        home.deliver(image, trap.storage.spool / image.path)  # and then the power goes, before the mark
    home.sent.clear()
    trap.restart(reboot=True)
    assert trap.deliver(home).delivered == 3
    assert home.sent == []


def test_a_bug_in_a_destination_is_loud_and_costs_one_image_its_turn(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    home = Memory()
    keys = fill(trap, 5, home)
    home.trouble[keys[2]] = ZeroDivisionError("a mistake of our own")
    turn = trap.deliver(home)
    assert (turn.delivered, turn.postponed, turn.bugs, turn.trouble) == (4, 1, 1, None)
    assert "ZeroDivisionError: a mistake of our own" in caplog.text
    assert trap.ledger() == (5, 4, 1, 0, 0)
    home.sent.clear()
    assert trap.deliver(home).trouble is None  # it waits, and is in nobody's way
    assert home.sent == []
    trap.time.sleep(30)
    trap.deliver(home)
    assert home.sent == [keys[2]]


def test_a_destination_that_fails_at_each_image_is_left_alone_and_no_image_is_blamed(trap: Trap) -> None:
    home = Memory()
    for key in fill(trap, 20, home):
        home.trouble[key] = ZeroDivisionError()
    turn = trap.deliver(home)
    assert (turn.postponed, turn.refused) == (3, 0)
    assert "it takes no image: ZeroDivisionError()" in str(turn.trouble)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a mistake"), OSError(5, "Input/output error"), Refused("odd")], ids=repr
)
def test_what_follows_the_deliveries_is_tried_again_by_itself_when_it_fails_and_the_images_go_on(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    home, tried = Memory(), []

    def fails() -> bool:
        tried.append(trap.time.monotonic())
        raise error

    monkeypatch.setattr(home, "follow_up", fails)
    trap.register(home)
    for second in range(30):  # a picture and a turn every five minutes
        trap.put(second, seed=second)
        trap.ingest()
        turn = trap.deliver(home)
        assert (turn.delivered, turn.trouble) == (1, None)
        trap.time.sleep(300)
    assert 8 < len(tried) < 29  # the longest wait is 1,000 s here
    assert caplog.text.count("Traceback") == 1
    status = snapshot(settings_of(trap, home), trap.time, drawings.DEVICE)
    assert [reason for reason in status.reasons if f"({len(tried)} in a row)" in reason] != []
    assert status.verdict == "failing"  # there is no daemon here
    trap.restart(reboot=True)
    monkeypatch.undo()
    assert trap.deliver(home).trouble is None
    assert trap.catalog.facts.read().follow_ups == {}


def test_a_bug_about_its_place_leaves_a_destination_alone_longer_and_longer(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, other, asked = Memory(), Memory("other"), []

    def fails() -> str:
        asked.append(trap.time.monotonic())
        raise ZeroDivisionError("a mistake of our own")

    monkeypatch.setattr(home, "place", fails)
    fill(trap, 2, home, other)
    for _ in range(30):
        if trap.catalog.deliveries.may_go("home"):
            turn = trap.deliver(home)
            assert (turn.bugs, turn.delivered) == (1, 0)
        trap.deliver(other)
        trap.time.sleep(300)
    assert 8 < len(asked) < 29
    assert caplog.text.count("Traceback") == 1
    assert len(other.stored) == 2
    (row,) = [one for one in trap.catalog.counts.destinations() if one["name"] == "home"]
    assert "failed unexpectedly (ZeroDivisionError('a mistake of our own')): see the log" in row["error"]
    monkeypatch.undo()
    assert trap.deliver(home).delivered == 2


def settings_of(trap: Trap, *destinations: Memory) -> Settings:
    return Settings(storage=trap.storage, destinations={one.name: {"kind": "memory"} for one in destinations})


@pytest.mark.parametrize("error", [CatalogError("it is busy"), StorageError("the card is full")], ids=repr)
def test_what_the_card_or_the_catalog_refuses_is_not_laid_to_a_destination(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    home = Memory()
    fill(trap, 1, home)

    def fails() -> bool:
        raise error

    monkeypatch.setattr(home, "follow_up", fails)
    with pytest.raises(type(error)):
        trap.deliver(home)
    assert trap.catalog.facts.read().follow_ups == {}
    assert trap.catalog.deliveries.attempts("home") == 0


def test_a_receipt_that_cannot_be_recorded_costs_its_own_image(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Memory()
    keys = fill(trap, 5, home)
    deliver = home.deliver

    def strange(image: Image, path: Path) -> Receipt:
        receipt = deliver(image, path)
        return replace(receipt, at="\ud800") if image.key == keys[2] else receipt

    monkeypatch.setattr(home, "deliver", strange)
    turn = trap.deliver(home)
    assert (turn.delivered, turn.postponed, turn.bugs, turn.trouble) == (4, 1, 1, None)
    assert trap.ledger() == (5, 4, 1, 0, 0)
    (row,) = [one for one in trap.catalog.counts.destinations() if one["name"] == "home"]
    assert row["failing"] == 0  # once is not told yet
    for _ in range(2):  # it arrived, and that cannot be recorded either, where it lies
        monkeypatch.setattr(
            home, "find_existing", lambda images: {i.id: Receipt("x", at="\ud800") for i in images}
        )
        trap.time.sleep(2000)
        assert trap.deliver(home).bugs == 1
    (row,) = trap.catalog.counts.destinations()
    assert (row["failing"], row["failing_key"]) == (1, keys[2])
    assert row["failing_error"].startswith(
        "what became of it cannot be recorded: the catalog cannot hold a value"
    )


def test_an_image_is_delivered_only_when_every_required_destination_has_confirmed_it(trap: Trap) -> None:
    home, stick, gallery = Memory("home"), Memory("stick"), Memory("gallery", required=False)
    fill(trap, 1, home, stick, gallery)
    trap.deliver(home)
    assert trap.ledger() == (1, 0, 1, 0, 0)
    trap.deliver(stick)
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_without_a_required_destination_nothing_counts_as_delivered(trap: Trap) -> None:
    gallery = Memory("gallery", required=False)
    fill(trap, 1, gallery)
    assert trap.deliver(gallery).delivered == 1
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_everything_on_the_card_is_pending_at_a_new_destination(trap: Trap) -> None:
    home, stick = Memory("home"), Memory("stick")
    fill(trap, 3, home)
    trap.deliver(home)
    trap.register(home, stick)
    assert trap.ledger() == (3, 0, 3, 0, 0)
    assert trap.deliver(stick).delivered == 3
    assert trap.ledger() == (3, 3, 0, 0, 0)


def test_at_a_destination_taken_from_the_settings_nothing_is_pending_any_more(trap: Trap) -> None:
    home, stick = Memory("home"), Memory("stick")
    fill(trap, 2, home, stick)
    trap.deliver(home)
    trap.register(home)
    assert trap.ledger() == (2, 2, 0, 0, 0)
    assert [row["name"] for row in trap.catalog.counts.destinations()] == ["home"]


def test_no_more_images_are_under_way_than_the_owner_allows(trap: Trap) -> None:
    home = Memory()
    fill(trap, 20, home)
    under_way: list[int] = []

    class Counted(UploadPool):
        def start(self, images: Sequence[Image], send: Send) -> None:
            super().start(images, send)
            under_way.append(len(self._uploads))

    uploads = Counted(structs.replace(home.settings, transfers=4), trap.time)
    assert trap.deliver(home, uploads).delivered == 20
    assert max(under_way) == 4


def test_a_new_picture_does_not_wait_for_a_long_backlog(trap: Trap) -> None:
    home = Memory()
    fill(trap, 5, home)
    newest = ""

    class WhileAPictureIsTaken(OneByOne):
        def start(self, images: Sequence[Image], send: Send) -> None:
            nonlocal newest
            if home.sent and not newest:
                newest = trap.put(100, seed=100).rpartition("/")[2]
                trap.ingest()
            super().start(images, send)

    assert trap.deliver(home, WhileAPictureIsTaken()).delivered == 6
    assert home.sent.index(newest) == 2
    assert len(home.asked) == 2


class Batches(Memory):
    """A destination that takes several images as one upload."""

    deliver_batch = 3

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[list[str]] = []

    def deliver_all(self, images: Sequence[tuple[Image, Path]]) -> Mapping[int, Outcome]:
        self.uploads.append([image.key for image, _ in images])
        return super().deliver_all(images)


def test_a_destination_that_takes_several_images_at_once_is_given_so_many(trap: Trap) -> None:
    home = Batches()
    keys = fill(trap, 7, home)[::-1]
    assert trap.deliver(home, UploadPool(home.settings, trap.time)).delivered == 7
    assert sorted(home.uploads) == sorted([keys[:3], keys[3:6], keys[6:]])
    assert trap.ledger() == (7, 7, 0, 0, 0)


def test_of_images_that_are_sent_at_once_each_has_its_own_outcome(trap: Trap) -> None:
    home = Batches()
    refused, good, failed = fill(trap, 3, home)
    home.trouble |= {refused: Refused("never"), failed: Failed("not now")}
    turn = trap.deliver(home, UploadPool(home.settings, trap.time))
    assert (turn.delivered, turn.refused, turn.postponed, turn.trouble) == (1, 1, 1, None)
    assert len(home.uploads) == 1
    assert home.stored.keys() == {good}


def test_where_sending_several_fails_as_a_whole_it_is_the_outcome_of_each(trap: Trap) -> None:
    class Away(Batches):
        def deliver_all(self, _images: Sequence[tuple[Image, Path]]) -> Mapping[int, Outcome]:
            raise Unreachable("away")

    home = Away()
    fill(trap, 5, home)
    turn = trap.deliver(home, UploadPool(structs.replace(home.settings, transfers=1), trap.time))
    assert str(turn.trouble) == "away"
    assert trap.ledger() == (5, 0, 5, 0, 0)


def test_a_destination_that_forgets_one_of_several_costs_that_one(trap: Trap) -> None:
    home = Batches()
    forgotten = fill(trap, 3, home)[1]
    all_of_them = home.deliver_all

    def forgetful(images: Sequence[tuple[Image, Path]]) -> Mapping[int, Outcome]:
        gone = {image.id for image, _ in images if image.key == forgotten}
        return {number: one for number, one in all_of_them(images).items() if number not in gone}

    home.deliver_all = forgetful  # type: ignore[method-assign]
    turn = trap.deliver(home, UploadPool(home.settings, trap.time))
    assert (turn.delivered, turn.bugs, turn.postponed) == (2, 1, 1)


def test_a_new_picture_waits_for_one_upload_and_its_bytes_are_few(trap: Trap) -> None:
    home = Batches()
    fill(trap, 9, home)
    newest = ""

    class WhileAPictureIsTaken(OneByOne):
        def start(self, images: Sequence[Image], send: Send) -> None:
            nonlocal newest
            if len(home.uploads) == 1 and not newest:
                newest = trap.put(100, seed=100).rpartition("/")[2]
                trap.ingest()
            super().start(images, send)

    assert trap.deliver(home, WhileAPictureIsTaken()).delivered == 10
    assert home.uploads[2][0] == newest
    large = deque(Image(f"{number}.jpg", 7_000_000, "", "", 1, 1) for number in range(4))
    assert [len(next_upload(large, 16)) for _ in range(2)] == [2, 2]
    assert len(next_upload(deque([Image("1.jpg", 10**8, "", "", 1, 1)]), 16)) == 1


def test_a_burst_of_deliveries_is_recorded_together_and_a_slow_one_at_once(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Memory()
    fill(trap, 20, home)
    recorded: list[int] = []
    mark = trap.catalog.deliveries.mark_delivered

    def counted(name: str, proofs: Sequence[Proof]) -> None:
        recorded.append(len(proofs))
        mark(name, proofs)

    monkeypatch.setattr(trap.catalog.deliveries, "mark_delivered", counted)

    class Slow(OneByOne):
        def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
            if len(home.sent) >= 18:
                trap.time.sleep(5)
            return super().finished(within)

    assert trap.deliver(home, Slow()).delivered == 20
    assert recorded == [16, 3, 1]


def test_an_image_that_arrived_is_recorded_while_another_hangs(trap: Trap) -> None:
    home, may_end = Memory(), threading.Event()
    keys = fill(trap, 2, home)
    store = home.deliver

    def send(image: Image, path: Path) -> Receipt:
        if image.key == keys[1]:  # the first to go
            assert may_end.wait(60)
        return store(image, path)

    home.deliver = send  # type: ignore[method-assign]
    ledgers: list[tuple[int, ...]] = []

    class Watched(UploadPool):
        def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
            outcome = super().finished(0.01)
            if not outcome:
                trap.time.sleep(within)
                ledgers.append(trap.ledger())
                if ledgers[-1][1]:
                    may_end.set()
            return outcome

    assert trap.deliver(home, Watched(home.settings, trap.time)).delivered == 2
    assert (2, 1, 1, 0, 0) in ledgers


def test_the_next_attempt_is_the_end_of_the_destinations_wait_or_of_the_first_images(trap: Trap) -> None:
    home, deliveries = Memory(), trap.catalog.deliveries
    first, second = fill(trap, 2, home)
    assert deliveries.next_attempt("home") is None
    home.trouble |= {first: Held("not yet", wait=300.0), second: Held("not yet", wait=60.0)}
    trap.deliver(home)
    assert deliveries.next_attempt("home") == 60.0
    trap.time.sleep(20.0)
    assert deliveries.next_attempt("home") == 40.0
    trap.time.sleep(50.0)  # it is over, and was not tried
    assert deliveries.next_attempt("home") == 0.0
    home.deaf = Unreachable("no answer", wait=600)
    trap.deliver(home)
    assert 600.0 <= (deliveries.next_attempt("home") or 0.0) <= 1000.0
    trap.time.reboot()
    assert 590.0 <= (deliveries.next_attempt("home") or 0.0) <= 1000.0
    home.deaf = None
    home.trouble.clear()
    trap.time.sleep(1100.0)
    trap.deliver(home)
    assert deliveries.next_attempt("home") is None


def test_the_status_is_of_one_moment_whatever_is_delivered_while_it_is_read(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Memory()
    fill(trap, 2, home)
    counted = Counts.conflicts

    def deliver_meanwhile(counts: Counts) -> int:
        assert trap.deliver(home).delivered == 2
        return counted(counts)

    monkeypatch.setattr(Counts, "conflicts", deliver_meanwhile)
    status = snapshot(settings_of(trap, home), trap.time, drawings.DEVICE)
    assert (status.ledger.delivered, status.destinations["home"].delivered) == (0, 0)
    monkeypatch.undo()
    status = snapshot(settings_of(trap, home), trap.time, drawings.DEVICE)
    assert (status.ledger.delivered, status.destinations["home"].delivered) == (2, 2)
