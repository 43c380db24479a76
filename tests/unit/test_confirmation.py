"""A proof is about today: asked once more before an image leaves the card, and withdrawn when it is wrong."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import drawings
from memory_context import context
from trap_bench import Memory, Trap
from trapsync import pipeline
from trapsync.destinations import Receipt, confirmation, directory
from trapsync.errors import Failed, Refused, StorageError, Unauthorised, Unreachable
from trapsync.image import Found, Image
from trapsync.runtime import verification
from trapsync.settings.schema import Prune
from trapsync.settings.units import Duration, Size
from trapsync.spool import pruning

DAY = 86400.0


class Server(Memory):
    """Tells other bytes from its own, and does not understand the odd ones."""

    def __init__(self, name: str = "home", *, required: bool = True, batch: int = 100) -> None:
        super().__init__(name, required=required, batch=batch)
        self.odd: set[str] = set()

    @property
    def asked_again(self) -> list[int]:
        """Of how many images each question was that asks again."""
        return [len(keys) for keys in self.confirmed]

    def _held(self, images: Sequence[Image], at: Mapping[int, str]) -> dict[int, Receipt | Exception]:
        if any(image.key in self.odd for image in images):
            raise ValueError("what is this?")
        found = super()._held(images, at)
        for image in images:
            if image.id not in found and image.key in self.stored:
                found[image.id] = Refused(f"another image is there ({self.stored[image.key]})")
        return found


def fill(trap: Trap, count: int, *servers: Memory) -> None:
    """So many images, delivered to all of them."""
    trap.register(*servers)
    for second in range(count):
        trap.put(second, seed=second + 1)
    trap.ingest()
    trap.time.sleep(100)
    for server in servers:
        assert trap.deliver(server).delivered == count


# ── Pruning asks once more ───────────────────────────────────────────────────────────────────────────


def test_what_was_confirmed_within_the_day_is_not_asked_for_again(trap: Trap) -> None:
    home = Server()
    fill(trap, 3, home)
    assert trap.prune() == 3
    assert home.asked_again == []


def test_what_was_confirmed_longer_ago_is_asked_for_in_one_question(trap: Trap) -> None:
    home = Server()
    fill(trap, 40, home)
    trap.time.sleep(DAY)
    assert trap.prune() == 40
    assert home.asked_again == [40]


def test_a_reboot_makes_every_confirmation_old(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.restart(reboot=True)
    trap.register(home)
    assert trap.prune() == 2
    assert home.asked_again == [2]


def test_one_question_serves_a_day_of_pruning_one_by_one(trap: Trap) -> None:
    home = Server(batch=512)
    fill(trap, 20, home)
    trap.time.sleep(DAY)
    for _ in range(20):
        choice = pruning.Candidates(trap.catalog, [home], trap.time.wall(), is_urgent=False)
        images = choice.next_images()[:1]
        trap.catalog.proofs.mark_pruned([image.id for image in images])
        pruning.remove_marked(trap.catalog, trap.storage)
        trap.time.sleep(60)
    assert trap.on_card() == set()
    assert home.asked_again == [20]


def test_what_the_server_has_lost_stays_on_the_card_and_is_sent_again(trap: Trap) -> None:
    home = Server()
    fill(trap, 3, home)
    trap.time.sleep(DAY)
    lost = next(iter(home.stored))
    del home.stored[lost]
    assert trap.prune() == 2
    assert len(trap.on_card()) == 1
    assert trap.ledger() == (3, 2, 1, 0, 0)
    assert trap.deliver(home).delivered == 1
    assert trap.prune() == 1


def test_what_the_server_holds_other_bytes_of_stays_on_the_card_and_is_shown(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    changed = next(iter(home.stored))
    home.stored[changed] = "0" * 64
    assert trap.prune() == 1
    assert len(trap.on_card()) == 1
    (row,) = trap.catalog.images.listing("refused", 9)
    assert "another image is there" in row["deliveries"]["home"]["error"]
    assert trap.ledger() == (2, 1, 1, 0, 0)


def test_a_server_that_cannot_be_asked_keeps_its_images_on_the_card(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unreachable("no answer")
    assert trap.prune() == 0


def test_why_nothing_can_be_pruned_is_told_once_in_the_log_and_in_the_facts(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unreachable("no answer")
    for _ in range(60):
        assert trap.prune() == 0
        trap.time.sleep(60)
    assert (trap.catalog.facts.read().unpruned or {}).keys() == {"home"}
    assert caplog.text.count("nothing is pruned, because home cannot be asked") == 1
    assert 1 <= len(home.confirmed) < 20  # with back-off, not each minute
    home.deaf = None
    trap.time.sleep(1000)
    assert trap.prune() == 2
    assert trap.catalog.facts.read().unpruned is None


def test_while_there_is_room_no_destination_is_touched(trap: Trap) -> None:
    class Nas(Server):
        looks = 0

        def place(self) -> str:
            Nas.looks += 1
            return super().place()

    nas = Nas("nas")
    fill(trap, 2, nas)
    looks = Nas.looks
    assert looks
    assert trap.prune(keep_free=Size(0)) == 0
    assert Nas.looks == looks


def urgent(trap: Trap, *destinations: Memory) -> int:
    """Prune as if capture would stop otherwise, and for no other reason."""
    limits = Prune(enabled=True, min_age=Duration(0), keep_free=Size(0))
    return pipeline.prune(trap.catalog, trap.storage, limits, trap.time, destinations, soon=10**15)


def test_before_capture_would_stop_the_last_word_of_a_server_counts_and_status_says_so(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unreachable("no answer")
    assert urgent(trap, home) == 2
    assert trap.catalog.counts.unasked() == 2
    home.deaf = None
    confirmation.ask_about_some(trap.catalog, home, trap.time)
    assert trap.catalog.counts.unasked() == 0


def test_only_the_server_that_was_not_asked_can_say_that_it_has_what_went_on_its_last_word(
    trap: Trap,
) -> None:
    away, there = Server("away"), Server("there")
    fill(trap, 2, away, there)
    trap.time.sleep(DAY)
    away.deaf = Unreachable("no answer")
    assert urgent(trap, away, there) == 2
    confirmation.ask_about_some(trap.catalog, there, trap.time)
    verification.verify_destination(trap.catalog, there, lambda _n: None)
    assert trap.catalog.counts.unasked() == 2
    away.deaf = None
    away.stored.clear()
    assert confirmation.ask_about_some(trap.catalog, away, trap.time) == 2
    assert (trap.catalog.counts.unasked(), trap.catalog.counts.destinations()[0]["refused"]) == (0, 2)


def test_a_server_that_is_left_alone_for_now_does_not_stop_capture(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unreachable("no answer")
    limits = Prune(enabled=True, min_age=Duration(0), keep_free=Size(10**13))
    # First as far as prune.keep_free asks, at which it cannot be reached, and then for capture.
    assert pipeline.prune(trap.catalog, trap.storage, limits, trap.time, [home], soon=10**13) == 2


def test_a_server_that_bars_us_is_not_asked_before_its_time_even_where_capture_stops(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unauthorised("who are you?")
    for _ in range(5):
        assert urgent(trap, home) == 0
        trap.time.sleep(60)
    assert len(home.confirmed) == 1


def test_what_went_on_the_last_word_of_a_server_that_lost_it_is_lost(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unreachable("no answer")
    urgent(trap, home)
    home.deaf = None
    home.stored.clear()
    assert confirmation.ask_about_some(trap.catalog, home, trap.time) == 2
    assert (trap.catalog.counts.lost(), trap.catalog.counts.unasked()) == (2, 0)


def test_a_server_that_does_not_let_us_in_any_more_has_no_last_word(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.time.sleep(DAY)
    home.deaf = Unauthorised("who are you?")
    assert urgent(trap, home) == 0


def test_what_was_never_confirmed_since_it_was_delivered_does_not_go_on_a_last_word(trap: Trap) -> None:
    home = Server()
    fill(trap, 1, home)
    trap.catalog.connection._db.execute(
        "UPDATE deliveries SET confirmed_at = NULL, confirmed_boot = NULL, confirmed_mono = NULL"
    )
    home.deaf = Unreachable("no answer")
    assert urgent(trap, home) == 0


def test_a_stick_that_was_unmounted_when_it_was_done_counts_by_its_last_reading(trap: Trap) -> None:
    stick = Server("stick")
    stick.while_away = "last re-reading"
    fill(trap, 2, stick)
    trap.time.sleep(30 * DAY)
    stick.deaf = Unreachable("the stick is not there")
    assert trap.prune() == 2


def test_a_folder_that_is_away_for_no_reason_counts_by_nothing(trap: Trap) -> None:
    nas = Server("nas")
    nas.while_away = "nothing"
    fill(trap, 2, nas)
    trap.time.sleep(DAY)
    nas.deaf = Unreachable("it is not there")
    assert urgent(trap, nas) == 0


def test_a_receipt_from_a_note_lets_no_image_go_before_its_bytes_were_read(trap: Trap) -> None:
    class Noted(Server):
        def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
            return {
                i: Receipt(r.digest, noted=True)
                for i, r in super().find_existing(images).items()
                if isinstance(r, Receipt)
            }

        def confirm(
            self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
        ) -> Mapping[int, Receipt | Exception]:
            self.confirmed.append([image.key for image in images])
            return {}  # the copies are not there, whatever the note says

    stick = Noted("stick")
    fill(trap, 2, stick)
    trap.catalog.proofs.withdraw_proofs("stick", [image.id for image in trap.catalog.images.on_card(0, 9)])
    trap.deliver(stick)
    assert trap.ledger() == (2, 2, 0, 0, 0)
    assert trap.prune() == 0
    assert stick.asked_again == [2]


def test_what_keeps_images_for_a_while_only_is_never_asked_again(trap: Trap) -> None:
    studio = Server("studio")
    studio.keeps = False
    fill(trap, 2, studio)
    trap.time.sleep(30 * DAY)
    studio.stored.clear()
    assert confirmation.ask_about_some(trap.catalog, studio, trap.time) == 0
    assert trap.prune() == 2
    assert studio.asked_again == []


def test_every_destination_that_must_have_an_image_is_asked(trap: Trap) -> None:
    home, stick, gallery = Server(), Server("stick"), Server("gallery", required=False)
    fill(trap, 3, home, stick, gallery)
    trap.time.sleep(DAY)
    stick.stored.clear()
    assert trap.prune() == 0
    assert (home.asked_again, stick.asked_again, gallery.asked_again) == ([3], [3], [])


def test_an_image_that_cannot_even_be_asked_about_keeps_no_other_on_the_card(trap: Trap) -> None:
    home = Server()
    fill(trap, 5, home)
    trap.time.sleep(DAY)
    home.odd = {min(home.stored)}
    assert trap.prune() == 4
    assert len(trap.on_card()) == 1


def test_a_refused_delivery_is_no_proof(trap: Trap) -> None:
    home, stick = Server(), Server("stick")
    trap.register(home, stick)
    trap.put(1)
    trap.ingest()
    trap.time.sleep(100)
    (image,) = trap.catalog.deliveries.due("stick", "newest", 1)
    stick.trouble = {image.key: Refused("too large")}
    trap.deliver(home)
    trap.deliver(stick)
    assert trap.prune() == 0


# ── A file that cannot be removed ────────────────────────────────────────────────────────────────────


def test_a_card_that_lets_nothing_go_loses_no_mark_and_no_pending_delivery(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home, gallery = Server(), Server("gallery", required=False)
    trap.register(home, gallery)
    for second in range(60):
        trap.put(second, seed=second + 1)
    trap.ingest()
    trap.time.sleep(100)
    trap.deliver(home)

    def forbidden(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", forbidden)
        assert [trap.prune() for _ in range(3)] == [0, 0, 0]
    assert len([one for one in caplog.records if one.levelno >= logging.ERROR]) == 1
    stuck = trap.catalog.facts.read().stuck
    assert stuck is not None
    assert stuck.images == 16
    assert trap.catalog.images.leaving_files() == []
    assert trap.prune(keep_free=Size(0)) == 0
    assert len(trap.on_card()) == 60
    assert trap.deliver(gallery).delivered == 60
    assert trap.prune() == 60
    assert trap.catalog.facts.read().stuck is None


def test_files_with_another_name_elsewhere_free_nothing_and_the_rest_stays(
    trap: Trap, tmp_path: Path
) -> None:
    home = Server()
    fill(trap, 40, home)
    for number, path in enumerate(sorted(trap.on_card())):
        os.link(trap.storage.spool / path, tmp_path / f"{number}.jpg")
    assert trap.prune() == 16


# ── verify, and answers in passing ───────────────────────────────────────────────────────────────────


def test_verify_takes_back_what_it_finds_to_be_wrong(trap: Trap) -> None:
    home = Server()
    fill(trap, 3, home)
    absent, other, _ = sorted(home.stored)
    del home.stored[absent]
    home.stored[other] = "0" * 64
    result = verification.verify_destination(trap.catalog, home, lambda _n: None)
    assert [name for name, _ in result.wrong] == [absent, other]
    assert trap.ledger() == (3, 1, 2, 0, 0)
    assert trap.prune() == 1


def test_a_pruned_image_that_its_server_lost_is_lost_and_acknowledged(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.prune()
    home.stored.clear()
    verification.verify_destination(trap.catalog, home, lambda _n: None)
    assert trap.catalog.counts.ledger().lost == 2
    assert trap.catalog.counts.lost() == 2
    (row,) = trap.catalog.counts.destinations()
    assert (row["pending"], row["refused"], row["unseen"]) == (0, 2, 2)
    assert trap.catalog.deliveries.acknowledge() == 4  # two images, and two deliveries of them
    assert (trap.catalog.counts.lost(), trap.catalog.counts.destinations()[0]["unseen"]) == (0, 0)
    assert trap.catalog.counts.ledger().lost == 2


def test_an_image_that_one_of_two_still_holds_is_not_lost(trap: Trap) -> None:
    home, stick = Server(), Server("stick")
    fill(trap, 1, home, stick)
    trap.prune()
    home.stored.clear()
    verification.verify_destination(trap.catalog, home, lambda _n: None)
    assert trap.catalog.counts.lost() == 0
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_a_lost_image_that_is_put_back_is_delivered_again(trap: Trap) -> None:
    home = Server()
    fill(trap, 1, home)
    (path,) = trap.on_card()
    backup = (trap.storage.spool / path).read_bytes()
    trap.prune()
    home.stored.clear()
    verification.verify_destination(trap.catalog, home, lambda _n: None)
    drawings.put(trap.storage.spool, backup, path)
    trap.ingest()
    assert trap.deliver(home).delivered == 1
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_retry_asks_once_more_for_what_is_off_the_card(trap: Trap) -> None:
    home = Server()
    fill(trap, 2, home)
    trap.prune()
    kept = dict(home.stored)
    home.stored.clear()
    verification.verify_destination(trap.catalog, home, lambda _n: None)
    found = min(kept)
    home.stored[found] = kept[found]  # a restored backup
    assert trap.catalog.deliveries.retry() == 2
    trap.deliver(home)
    assert trap.catalog.counts.ledger().lost == 1
    assert trap.ledger() == (2, 1, 0, 0, 1)
    assert trap.catalog.counts.destinations()[0]["refused"] == 0


def test_a_copy_that_rotted_in_a_folder_is_pending_again_and_stored_beside(
    trap: Trap, tmp_path: Path
) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / directory.MARK).touch()
    table = directory.Settings(kind="directory", path=tmp_path / "stick")
    stick: Any = directory.connect("stick", table, context(trap.time))
    fill(trap, 1, stick)
    (path,) = trap.on_card()
    content = (trap.storage.spool / path).read_bytes()
    (tmp_path / "stick" / path).write_bytes(bytes(len(content)))
    verification.verify_destination(trap.catalog, stick, lambda _n: None)
    assert trap.ledger() == (1, 0, 1, 0, 0)
    assert trap.deliver(stick).delivered == 1
    assert content in [one.read_bytes() for one in (tmp_path / "stick").rglob("*.jpg")]
    assert trap.prune() == 1


# ── Off the card ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("while_away", ["last re-reading", "last confirmation"])
def test_what_is_put_back_is_asked_for_before_it_leaves_again(trap: Trap, while_away: Any) -> None:
    home = Server()
    home.while_away = while_away
    fill(trap, 1, home)
    (path,) = trap.on_card()
    backup = (trap.storage.spool / path).read_bytes()
    assert trap.prune() == 1
    home.stored.clear()  # its owner knows, and puts the picture back
    (trap.storage.spool / path).write_bytes(backup)
    trap.ingest()
    home.deaf = Unreachable("away")
    assert urgent(trap, home) == 0
    home.deaf = None
    assert urgent(trap, home) == 0
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_what_one_of_two_has_again_is_not_lost(trap: Trap) -> None:
    one, two = Server("one"), Server("two")
    fill(trap, 1, one, two)
    assert trap.prune() == 1
    kept = dict(one.stored)
    for server in (one, two):
        server.stored.clear()
        verification.verify_destination(trap.catalog, server, lambda _n: None)
    assert trap.catalog.counts.lost() == 1
    one.stored = kept
    trap.catalog.deliveries.retry()
    trap.deliver(one)
    trap.deliver(two)
    assert trap.catalog.counts.ledger().lost == 0
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_what_a_server_has_again_is_shown_as_lost_nowhere(trap: Trap) -> None:
    home = Server()
    fill(trap, 1, home)
    assert trap.prune() == 1
    kept, home.stored = home.stored, {}
    verification.verify_destination(trap.catalog, home, lambda _n: None)
    home.stored = kept
    trap.catalog.deliveries.retry()
    trap.deliver(home)
    (row,) = trap.catalog.images.listing("delivered", 9)
    assert row["gone_why"] == "pruned"


def test_what_a_place_has_that_must_have_it_now_is_not_lost(trap: Trap) -> None:
    home, gallery = Server(), Server("gallery", required=False)
    fill(trap, 1, home, gallery)
    assert trap.prune() == 1
    home.stored.clear()
    verification.verify_destination(trap.catalog, home, lambda _n: None)
    assert trap.catalog.counts.lost() == 1
    trap.register(home, Server("gallery"))
    assert trap.ledger() == (1, 1, 0, 0, 0)
    assert trap.catalog.counts.lost() == 0


def test_what_vanished_is_delivered_once_all_have_it_that_must_have_it_now(trap: Trap) -> None:
    home, other = Server(), Server("other")
    trap.register(home, other)
    path = trap.put(1)
    trap.ingest()
    trap.deliver(home)
    (trap.storage.spool / path).unlink()
    trap.ingest()
    trap.deliver(other)
    assert trap.ledger() == (1, 0, 0, 0, 1)
    trap.register(home)
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_without_the_id_of_a_boot_no_confirmation_is_of_this_one(trap: Trap) -> None:
    trap.time.boot_id = lambda: ""  # type: ignore[method-assign]
    home = Server()
    fill(trap, 2, home)
    home.stored.clear()
    trap.restart()
    trap.register(home)
    assert trap.prune() == 0


# ── A slice at a time ────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_lost_images_is_noticed_before_anybody_asks(trap: Trap) -> None:
    home = Server(batch=10)
    fill(trap, 30, home)
    trap.time.sleep(8 * DAY)
    home.stored.clear()
    assert confirmation.ask_about_some(trap.catalog, home, trap.time) == 30
    assert trap.ledger() == (30, 0, 30, 0, 0)
    assert trap.deliver(home).delivered == 30


def test_slices_are_an_hour_apart_and_no_image_is_asked_about_twice_a_week(trap: Trap) -> None:
    home = Server(batch=10)
    fill(trap, 30, home)
    for _ in range(10 * 24):
        confirmation.ask_about_some(trap.catalog, home, trap.time)
        confirmation.ask_about_some(trap.catalog, home, trap.time)
        trap.time.sleep(3660)
    assert home.asked_again == [10, 10, 10]


def test_what_a_server_cannot_say_keeps_it_from_being_asked_about_nothing_else(trap: Trap) -> None:
    class Odd(Server):
        def confirm(
            self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
        ) -> Mapping[int, Receipt | Exception]:
            held = dict(super().confirm(images, at))
            return held | {image.id: Failed("what is this?") for image in images if image.key in odd}

    home = Odd(batch=2)
    fill(trap, 6, home)
    odd = sorted(home.stored)[:2]
    for _ in range(20):  # until those are the ones that it was asked about longest ago
        trap.time.sleep(DAY)
        confirmation.ask_about_some(trap.catalog, home, trap.time)
    del home.stored[max(home.stored)]
    for _ in range(20):
        trap.time.sleep(DAY)
        confirmation.ask_about_some(trap.catalog, home, trap.time)
    assert trap.ledger() == (6, 5, 1, 0, 0)


def test_a_clock_of_the_future_does_not_end_the_asking(trap: Trap) -> None:
    home = Server()
    trap.time.step_wall(50 * 365 * DAY)
    fill(trap, 2, home)
    trap.time.step_wall(-50 * 365 * DAY)
    confirmation.ask_about_some(trap.catalog, home, trap.time)
    assert home.asked_again == [2]


# ── Names that meet ──────────────────────────────────────────────────────────────────────────────────


def test_a_strange_image_in_a_batch_costs_itself(trap: Trap, caplog: pytest.LogCaptureFixture) -> None:
    home = Server()
    trap.register(home)
    for second in range(5):
        trap.put(second, seed=second + 1)
    trap.ingest()
    home.odd = {trap.catalog.images.listing(None, 9)[2]["key"]}
    turn = trap.deliver(home)
    assert (turn.delivered, turn.postponed, turn.bugs, turn.trouble) == (4, 1, 1, None)
    assert len(home.stored) == 4
    assert "what is this?" in caplog.text


def test_a_marked_file_that_the_card_does_not_show_keeps_no_image_from_being_delivered(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Server()
    fill(trap, 2, home)
    odd = trap.catalog.images.listing(None, 9)[0]["path"]
    image = trap.catalog.proofs.delivered_to("home", 0, 9)[0]
    trap.catalog.proofs.mark_pruned([image.id])
    trap.catalog.proofs.withdraw_proofs("home", {image.id: "lost"}, {})

    def unreadable(_spool: Path, path: str) -> Found | None:
        raise StorageError(f"{path}: input/output error")

    monkeypatch.setattr(pruning, "stat_file", unreadable)
    new = trap.put(9, seed=9)
    trap.ingest()
    turn = trap.deliver(home)
    assert turn.trouble is None
    assert home.stored[new.rpartition("/")[2]]
    assert odd in trap.on_card()


def test_where_asking_fails_for_every_image_none_is_to_blame(trap: Trap) -> None:
    home = Server()
    trap.register(home)
    for second in range(5):
        trap.put(second, seed=second + 1)
    trap.ingest()
    home.odd = {image["key"] for image in trap.catalog.images.listing(None, 9)}
    for _ in range(10):
        turn = trap.deliver(home)
        assert (turn.refused, turn.postponed) == (0, 0)
        assert "it cannot be asked: failed unexpectedly (ValueError('what is this?'))" in str(turn.trouble)
        trap.time.sleep(2000)
    home.odd = set()
    assert trap.deliver(home).delivered == 5


def test_an_answer_that_cannot_be_recorded_costs_its_own_image(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = Server()
    fill(trap, 4, home)
    odd = trap.catalog.images.listing(None, 9)[1]["key"]
    held = home._held

    def strange(images: Sequence[Image], at: Mapping[int, str]) -> dict[int, Receipt | Exception]:
        found = held(images, at)
        for image in images:
            if image.key == odd:
                found[image.id] = Receipt(f"sha256:{image.sha256}", {"id": "\ud800"}, at="\ud800")
        return found

    monkeypatch.setattr(home, "_held", strange)
    images = trap.catalog.proofs.delivered_to("home", 0, 9)
    asked = confirmation.ask_again(trap.catalog, home, images)
    assert (asked.confirmed, [image.key for image in asked.unsure], asked.withdrawn) == (3, [odd], 0)
    assert "cannot be recorded" in caplog.text


# ── What is missing on the card ──────────────────────────────────────────────────────────────────────


def test_an_older_catalog_asks_the_destination_before_it_says_dropped(trap: Trap) -> None:
    home = Server()
    trap.register(home)
    for second in range(5):
        trap.put(second, seed=second + 1)
    trap.ingest()
    trap.catalog.connection.checkpoint()
    yesterday = trap.storage.catalog.read_bytes()
    trap.time.sleep(100)
    trap.deliver(home)
    assert trap.prune() == 5
    trap.catalog.close()
    trap.storage.catalog.write_bytes(yesterday)
    trap.catalog = type(trap.catalog).open(trap.storage.catalog, trap.time)
    trap.register(home)
    trap.ingest()
    assert trap.catalog.counts.vanished() == 0
    assert trap.catalog.counts.missing() == 5
    trap.deliver(home)
    assert trap.ledger() == (5, 5, 0, 0, 0)
    assert (trap.catalog.counts.vanished(), trap.catalog.counts.missing()) == (0, 0)


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_renamed_folder_holds_the_same_images(
    trap: Trap, caplog: pytest.LogCaptureFixture, is_delivered: bool
) -> None:
    home = Server()
    trap.register(home)
    for number in range(3):
        path = drawings.put(trap.storage.spool, drawings.plain(seed=number), f"DCIM/IMG_{number}.JPG")
        os.utime(trap.storage.spool / path, (10**9, 10**9))
    trap.ingest()
    if is_delivered:
        trap.deliver(home)
    (trap.storage.spool / "DCIM").rename(trap.storage.spool / "site7")
    trap.ingest()
    trap.ingest()
    trap.deliver(home)
    assert trap.ledger() == (3, 3, 0, 0, 0)
    assert len(home.sent) == 3
    assert "not on the card" not in caplog.text
    assert trap.catalog.counts.vanished() == 0
    trap.time.sleep(DAY)
    assert (
        trap.prune() == 3
    )  # asked for where they lie there: under their old names, if they were sent before


def test_what_was_written_over_before_it_was_delivered_is_not_looked_for_in_the_other_file(
    trap: Trap,
) -> None:
    class Careful(Memory):
        def deliver(self, image: Image, path: Path) -> Receipt:
            if hashlib.sha256(path.read_bytes()).hexdigest() != image.sha256:
                raise Failed("its digest differs")
            return super().deliver(image, path)

    home = Careful()
    trap.register(home)
    for seed in range(0, 20, 5):  # a camera whose card was formatted: its names come again
        for number in range(5):
            drawings.put(trap.storage.spool, drawings.plain(seed=seed + number), f"DCIM/IMG_{number}.jpg")
        trap.ingest()
    turn = trap.deliver(home)
    assert (turn.delivered, turn.trouble, turn.refused) == (5, None, 0)
    assert trap.ledger() == (20, 5, 0, 0, 15)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("is_delivered", [True, False])
@pytest.mark.parametrize("order", [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")])
def test_a_renamed_file_is_the_same_image_though_another_has_its_name(
    trap: Trap, order: tuple[str, str], is_delivered: bool, together: bool
) -> None:
    home = Server()
    trap.register(home)
    drawings.put(trap.storage.spool, drawings.plain(seed=1), "a.jpg")
    trap.ingest()
    if is_delivered:
        trap.deliver(home)
    (trap.storage.spool / "a.jpg").rename(trap.storage.spool / "b.jpg")
    drawings.put(trap.storage.spool, drawings.plain(seed=2), "a.jpg")
    for some in [order] if together else [order[:1], order[1:]]:
        trap.ingest(*some)
    trap.ingest()
    trap.deliver(home)
    trap.deliver(home)
    assert trap.catalog.counts.ledger().captured == 2
    assert (trap.catalog.counts.vanished(), trap.catalog.counts.conflicts()) == (0, 0)
    assert len(home.sent) + trap.catalog.counts.destinations()[0]["refused"] == 2


def test_a_copy_under_another_name_is_an_image_of_its_own(trap: Trap) -> None:
    home = Server()
    trap.register(home)
    for name in ("a.jpg", "b.jpg"):
        drawings.put(trap.storage.spool, drawings.plain(), name)
    trap.ingest()
    assert trap.deliver(home).delivered == 2
