"""What leaves the card leaves it with positive proof, and never otherwise."""

from pathlib import Path

import pytest

import drawings
from trap_bench import Memory, Trap
from trapsync import pipeline
from trapsync.errors import Refused
from trapsync.files.space import free_bytes
from trapsync.image import place_of
from trapsync.jpeg.examination import thumbnail_paths
from trapsync.settings.schema import Prune
from trapsync.settings.units import Duration, Size
from trapsync.spool import pruning


def fill(trap: Trap, count: int, *destinations: Memory) -> None:
    trap.register(*destinations)
    for second in range(count):
        trap.put(second, seed=second + 1)
    trap.ingest()
    trap.time.sleep(100)


def test_confirmed_images_are_removed_oldest_first_and_stay_in_the_catalog(trap: Trap) -> None:
    home = Memory()
    fill(trap, 3, home)
    trap.deliver(home)
    assert trap.prune() == 3
    assert trap.on_card() == set()
    assert trap.ledger() == (3, 3, 0, 0, 0)


def test_a_pending_image_is_never_removed_however_full_the_card_is(trap: Trap) -> None:
    fill(trap, 3, Memory())
    assert trap.prune() == 0
    assert len(trap.on_card()) == 3


def test_an_image_that_one_required_destination_lacks_is_not_removed(trap: Trap) -> None:
    home, stick = Memory("home"), Memory("stick")
    fill(trap, 2, home, stick)
    trap.deliver(home)
    assert trap.prune() == 0


def test_an_image_that_one_required_destination_refused_is_not_removed(trap: Trap) -> None:
    home, stick = Memory("home"), Memory("stick")
    fill(trap, 1, home, stick)
    (path,) = trap.on_card()
    stick.trouble = {Path(path).name: Refused("too large for it")}
    trap.deliver(stick)
    trap.deliver(home)
    assert stick.stored == {}
    assert trap.ledger() == (1, 0, 1, 0, 0)
    assert trap.prune() == 0
    assert trap.on_card() == {path}


def test_a_best_effort_destination_out_of_reach_keeps_nothing_on_the_card(trap: Trap) -> None:
    home, gallery = Memory("home"), Memory("gallery", required=False)
    fill(trap, 2, home, gallery)
    trap.deliver(home)
    assert trap.prune() == 2
    assert trap.catalog.deliveries.due("gallery", "newest", 9) == []


def test_without_any_required_destination_nothing_is_removed(trap: Trap) -> None:
    gallery = Memory("gallery", required=False)
    fill(trap, 2, gallery)
    trap.deliver(gallery)
    assert trap.prune() == 0


def test_nothing_is_removed_while_enough_is_free(trap: Trap) -> None:
    home = Memory()
    fill(trap, 2, home)
    trap.deliver(home)
    assert trap.prune(keep_free=Size(0)) == 0


def test_a_young_image_is_not_removed(trap: Trap) -> None:
    home = Memory()
    fill(trap, 2, home)
    trap.deliver(home)
    assert trap.prune(min_age=Duration(86400)) == 0
    trap.time.sleep(86410)
    assert trap.prune(min_age=Duration(86400)) == 2


def test_killed_between_the_mark_and_the_file_the_next_run_finishes(trap: Trap) -> None:
    home = Memory()
    fill(trap, 2, home)
    trap.deliver(home)
    trap.catalog.proofs.mark_pruned([image.id for image in trap.catalog.proofs.prunable(2e9, 9)])
    trap.restart(reboot=True)
    trap.ingest()
    assert len(trap.on_card()) == 2
    assert trap.prune() == 2
    assert trap.on_card() == set()
    assert trap.ledger() == (2, 2, 0, 0, 0)


def test_what_a_kill_left_marked_is_an_image_like_any_other_once_pruning_is_switched_off(trap: Trap) -> None:
    home = Memory()
    fill(trap, 3, home)
    trap.deliver(home)
    trap.catalog.proofs.mark_pruned([image.id for image in trap.catalog.proofs.prunable(2e9, 9)])
    first, *others = sorted(trap.on_card())
    (trap.storage.spool / first).unlink()  # the kill came right after this
    trap.restart()
    pruning.unmark_all(trap.catalog, trap.storage.spool)
    assert trap.on_card() == set(others)
    assert {image.path for image in trap.catalog.images.on_card(0, 9)} == set(others)
    assert trap.catalog.images.leaving_files() == []
    assert trap.ledger() == (3, 3, 0, 0, 0)
    gallery = Memory("gallery")
    trap.register(home, gallery)
    assert trap.deliver(gallery).delivered == 2


def test_a_file_changed_after_its_proof_is_not_removed(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    trap.put(0, seed=99)
    trap.prune()
    assert len(trap.on_card()) == 1
    assert trap.ingest().new == 1  # it is an image of its own, and pending


def test_a_file_that_cannot_be_removed_keeps_no_other_on_the_card(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Memory()
    fill(trap, 3, home)
    trap.deliver(home)
    stuck = min(trap.on_card())
    unlink = Path.unlink

    def forbidden(self: Path, missing_ok: bool = False) -> None:
        if str(self).endswith(stuck):
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", forbidden)
        assert trap.prune() == 2
    assert trap.on_card() == {stuck}
    assert trap.prune() == 1


def test_what_was_delivered_and_pruned_stays_so_when_a_destination_is_added(trap: Trap) -> None:
    home, stick = Memory("home"), Memory("stick")
    fill(trap, 2, home)
    trap.deliver(home)
    trap.prune()
    trap.register(home, stick)
    assert trap.ledger() == (2, 2, 0, 0, 0)


def test_an_image_that_its_destination_lost_is_pending_and_kept_when_it_is_put_back(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    (path,) = trap.on_card()
    content = (trap.storage.spool / path).read_bytes()
    (image,) = trap.catalog.images.on_card(0, 9)
    trap.prune()
    home.stored.clear()
    trap.catalog.proofs.withdraw_proofs("home", [image.id])
    assert trap.catalog.counts.ledger().lost == 1
    (trap.storage.spool / path).write_bytes(content)
    trap.ingest()
    assert trap.prune() == 0
    assert trap.on_card() == {path}
    assert trap.deliver(home).delivered == 1


def test_an_image_pending_again_between_the_choice_and_the_mark_is_not_pruned(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    (image,) = trap.catalog.proofs.prunable(2e9, 9)
    home.stored.clear()
    trap.catalog.proofs.withdraw_proofs("home", [image.id])
    trap.catalog.proofs.mark_pruned([image.id])
    assert trap.prune() == 0
    assert trap.deliver(home).delivered == 1


def test_an_image_that_was_marked_and_not_removed_stays_when_it_is_pending_again(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    (image,) = trap.catalog.proofs.prunable(2e9, 9)
    trap.catalog.proofs.mark_pruned([image.id])
    home.stored.clear()
    trap.catalog.proofs.withdraw_proofs("home", [image.id])
    assert trap.prune() == 0
    assert trap.deliver(home).delivered == 1
    assert trap.prune() == 1


def test_an_image_lost_by_a_best_effort_destination_is_still_removed(trap: Trap) -> None:
    home, gallery = Memory("home"), Memory("gallery", required=False)
    fill(trap, 1, home, gallery)
    trap.deliver(home)
    trap.deliver(gallery)
    (image,) = trap.catalog.proofs.prunable(2e9, 9)
    trap.catalog.proofs.mark_pruned([image.id])
    trap.catalog.proofs.withdraw_proofs("gallery", [image.id])
    assert trap.prune() == 1
    assert trap.on_card() == set()


def test_a_pruned_image_that_comes_back_is_removed_again(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    trap.prune()
    trap.put(0, seed=1)
    assert trap.ingest().new == 0
    assert trap.prune() == 1
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_the_names_of_pruned_images_stay_taken(trap: Trap) -> None:
    home = Memory()
    fill(trap, 3, home)
    trap.deliver(home)
    names = {Path(path).name for path in trap.on_card()}
    trap.prune()
    assert trap.catalog.images.names_from(drawings.DEVICE, drawings.TAKEN.timestamp()) == names
    assert trap.catalog.images.names_from(drawings.DEVICE, drawings.TAKEN.timestamp() + 9) == set()


def test_a_small_copy_that_cannot_be_removed_is_not_taken_for_its_image(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    home = Memory()
    trap.register(home)
    path = trap.put()
    trap.ingest()
    trap.deliver(home)
    for copy in thumbnail_paths(trap.storage.thumbnails, place_of(path)):
        copy.mkdir(parents=True)
    assert trap.prune() == 1
    assert trap.catalog.facts.read().stuck is None
    assert trap.catalog.images.listing(None, 1)[0]["gone_why"] == "pruned"
    assert "a small copy stays on the card" in caplog.text


def test_its_thumbnails_go_with_the_image(trap: Trap) -> None:
    home = Memory()
    fill(trap, 1, home)
    trap.deliver(home)
    (path,) = trap.on_card()
    thumbnails = thumbnail_paths(trap.storage.thumbnails, place_of(path))
    for thumbnail in thumbnails:
        thumbnail.parent.mkdir(parents=True, exist_ok=True)
        thumbnail.write_bytes(b"small")
    trap.prune()
    assert not any(thumbnail.exists() for thumbnail in thumbnails)


def test_a_sweep_after_pruning_reports_no_loss(trap: Trap) -> None:
    home = Memory()
    fill(trap, 2, home)
    trap.deliver(home)
    trap.prune()
    assert trap.ingest() == pipeline.Ingested()
    assert trap.catalog.counts.vanished() == 0


def test_safe_images_younger_than_the_least_age_go_rather_than_that_capture_stops(trap: Trap) -> None:
    home = Memory()
    fill(trap, 20, home)
    trap.deliver(home)
    settings = Prune(enabled=True, min_age=Duration(10**6), keep_free=Size(0))
    free = free_bytes(trap.storage.spool)
    assert pipeline.prune(trap.catalog, trap.storage, settings, trap.time, trap.destinations, soon=0) == 0
    assert (
        pipeline.prune(trap.catalog, trap.storage, settings, trap.time, trap.destinations, soon=2 * free)
        == 20
    )


def test_what_is_foreseen_takes_no_image_without_proof(trap: Trap) -> None:
    fill(trap, 3, Memory())
    settings = Prune(enabled=True, min_age=Duration(0), keep_free=Size(0))
    assert (
        pipeline.prune(trap.catalog, trap.storage, settings, trap.time, trap.destinations, soon=10**15) == 0
    )
    assert len(trap.on_card()) == 3


def test_what_a_killed_prune_has_removed_did_not_vanish(trap: Trap, caplog: pytest.LogCaptureFixture) -> None:
    home = Memory()
    fill(trap, 2, home)
    trap.deliver(home)
    trap.catalog.proofs.mark_pruned([image.id for image in trap.catalog.proofs.prunable(2e9, 9)])
    (trap.storage.spool / min(trap.on_card())).unlink()
    trap.restart()
    trap.ingest()
    assert "vanished" not in caplog.text
    assert trap.prune() == 1
    assert trap.ledger() == (2, 2, 0, 0, 0)
