"""A proof belongs to a place: kind, address and account, or a folder's own id; not to a name in the config."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from fake_time import FakeTime
from trap_bench import Memory, OneByOne, Trap
from trapsync.catalog import Catalog
from trapsync.catalog.rows import Registered
from trapsync.destinations import Receipt, confirmation
from trapsync.errors import CatalogError, Unreachable
from trapsync.image import Image

OLDER = Path(__file__).parents[1] / "helpers" / "older"


def at(place: str | None, name: str = "home", *, required: bool = True) -> Memory:
    """A destination in memory that is this place."""
    one = Memory(name, required=required)
    one.identity = place
    return one


class Folder(Memory):
    """A destination that only says which place it is when it is there, as a folder does."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(name)
        self.identity, self.id = None, place
        self.while_away = "nothing"

    def place(self) -> str:
        if self.deaf:
            raise self.deaf
        return self.id


def delivered(trap: Trap, destination: Memory, count: int = 3) -> None:
    """So many images, delivered to this one destination."""
    trap.register(destination)
    for second in range(count):
        trap.put(second, seed=second + 1)
    trap.ingest()
    trap.time.sleep(100)
    assert trap.deliver(destination).delivered == count


# ── Another place under the old name ─────────────────────────────────────────────────────────────────


def test_what_is_on_the_card_is_pending_at_another_server_under_the_old_name(trap: Trap) -> None:
    delivered(trap, at("memory old.example.org"))
    new = at("memory new.example.org")
    trap.register(new)
    assert trap.ledger() == (3, 0, 3, 0, 0)
    assert trap.prune() == 0
    assert trap.deliver(new).delivered == 3
    assert len(new.stored) == 3
    assert trap.prune() == 3


def test_a_folder_that_turns_out_to_be_another_one_is_given_what_is_on_the_card(trap: Trap) -> None:
    delivered(trap, Folder("nas", "directory 1"))
    new = Folder("nas", "directory 2")
    trap.register(new)
    assert trap.prune() == 0  # it is asked, and only then is it known to be another one
    assert trap.ledger() == (3, 0, 3, 0, 0)
    assert trap.deliver(new).delivered == 3
    assert trap.prune() == 3


def test_another_kind_under_the_old_name_is_another_place(trap: Trap) -> None:
    delivered(trap, Memory("home"))
    trap.catalog.places.register([("home", "directory", True)])
    assert trap.ledger() == (3, 0, 3, 0, 0)
    assert trap.catalog.proofs.prunable(2e9, 9) == []


def test_an_echo_of_another_kind_is_no_delivery_of_this_one(trap: Trap) -> None:
    class Echo(Memory):
        def deliver(self, image: Image, path: Path) -> Receipt:
            super().deliver(image, path)
            return Receipt(f"echo:{image.sha256}")

    delivered(trap, Echo("home"), 1)
    trap.catalog.places.register([("home", "stickypi", True)])
    (row,) = trap.catalog.counts.destinations()
    assert (row["pending"], row["delivered"]) == (1, 0)
    assert len(trap.catalog.deliveries.due("home", "newest", 9)) == 1


def test_at_the_old_place_again_only_what_it_never_had_is_pending(trap: Trap) -> None:
    old, new = at("memory old"), at("memory new")
    delivered(trap, old)
    trap.register(new)
    trap.put(9, seed=9)
    trap.ingest()
    trap.deliver(new)
    trap.register(old)
    assert trap.ledger() == (4, 3, 1, 0, 0)
    sent = len(old.sent)
    trap.deliver(old)
    assert len(old.sent) == sent + 1


def test_what_left_the_card_is_shown_as_being_at_the_old_place_only(trap: Trap) -> None:
    old, new = at("memory old"), at("memory new")
    delivered(trap, old, 3)
    assert trap.prune(min_age=0) == 3
    trap.put(9, seed=9)
    trap.register(new)
    trap.ingest()
    trap.deliver(new)
    (place,) = trap.catalog.counts.old_places()
    assert (place["name"], place["place"], place["only_there"]) == ("home", "memory old", 3)
    assert trap.ledger() == (4, 4, 0, 0, 0)


def test_notes_labels_and_back_off_go_with_the_place(trap: Trap) -> None:
    old, new = at("memory old"), at("memory new")
    trap.register(old)
    trap.catalog.notes.put("home", "job:1", 7)
    trap.catalog.deliveries.destination_failed("home", "no answer", 500.0)
    trap.register(new)
    assert trap.catalog.notes.get("home", "job:1") is None
    assert trap.catalog.notes.keys("home") == []
    assert trap.catalog.deliveries.may_go("home")
    assert trap.catalog.deliveries.attempts("home") == 0
    trap.register(old)
    assert trap.catalog.notes.get("home", "job:1") == 7
    assert not trap.catalog.deliveries.may_go("home")


def test_a_destination_that_was_away_from_the_config_is_the_place_that_it_was(trap: Trap) -> None:
    home, other = at("memory home"), at("memory other", "other")
    delivered(trap, home)
    trap.register(other)
    trap.register(home, other)
    assert {row["name"]: row["pending"] for row in trap.catalog.counts.destinations()} == {
        "home": 0,
        "other": 3,
    }


def test_places_come_and_go_and_no_picture_is_sent_twice_to_any(trap: Trap) -> None:
    places = [at(f"memory {n}") for n in range(4)]
    for second, place in enumerate([0, 1, 0, 2, 3, 1, 0, 3]):
        trap.register(places[place])
        trap.put(second, seed=second + 1)
        trap.ingest()
        trap.deliver(places[place])
        assert trap.ledger()[1:3] == (second + 1, 0)
        assert len(places[place].stored) == second + 1
    assert all(len(place.sent) == len(set(place.sent)) for place in places)


def test_what_the_old_place_confirmed_last_counts_for_no_other(trap: Trap) -> None:
    """A command was run with another address in the config file, while the daemon was sending."""
    old, new = at("memory old"), at("memory new")
    trap.register(old)
    trap.put(1)
    trap.ingest()

    class Meanwhile(OneByOne):
        def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
            outcome = super().finished(within)
            trap.catalog.places.settle_place("home", "memory new")
            return outcome

    turn = trap.deliver(old, Meanwhile())
    assert (turn.delivered, len(old.stored)) == (0, 1)
    assert trap.catalog.proofs.prunable(2e12, 9) == []
    trap.catalog.deliveries.end_waits()
    assert trap.deliver(new).delivered == 1


def test_an_answer_of_the_old_place_confirms_and_withdraws_nothing_at_another(trap: Trap) -> None:
    class Switched(Memory):
        def confirm(
            self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
        ) -> Mapping[int, Receipt | Exception]:
            trap.catalog.places.settle_place("home", "memory new")
            return super().confirm(images, at)

    old, new = Switched("home"), at("memory new")
    old.identity = "memory old"
    delivered(trap, new, 2)
    trap.register(old)
    trap.deliver(old)
    old.stored.clear()
    with pytest.raises(Unreachable, match="another place"):
        confirmation.ask_again(trap.catalog, old, trap.catalog.images.on_card(0, 9))
    assert trap.ledger() == (2, 2, 0, 0, 0)


def test_a_destination_may_be_called_as_the_key_of_another_place(trap: Trap) -> None:
    other = at("memory other", "home@2")
    trap.register(at("memory 1"), other)
    trap.register(at("memory 2"), other)
    trap.register(at("memory 2"), other, at("memory 3", "home@3"))
    assert [row["name"] for row in trap.catalog.counts.destinations()] == ["home", "home@2", "home@3"]


# ── A file that was pruned comes back ────────────────────────────────────────────────────────────────


def test_a_picture_put_back_for_a_new_destination_is_pending_there_and_stays(trap: Trap) -> None:
    old, new = at("memory old", "old"), at("memory new", "new")
    trap.register(old)
    path = trap.put(1)
    trap.ingest()
    trap.time.sleep(4000)
    trap.deliver(old)
    backup = (trap.storage.spool / path).read_bytes()
    assert trap.prune() == 1
    trap.register(new)
    (trap.storage.spool / path).write_bytes(backup)
    trap.ingest()
    assert trap.catalog.images.leaving_files() == []
    assert trap.deliver(new).delivered == 1
    assert trap.on_card() == {path}


def test_a_picture_put_back_is_pending_where_it_became_required_meanwhile(trap: Trap) -> None:
    home, gallery = at("memory home"), at("memory gallery", "gallery", required=False)
    gallery.deaf = Unreachable("no answer")
    trap.register(home, gallery)
    path = trap.put(1)
    trap.ingest()
    trap.time.sleep(100)
    trap.deliver(home)
    backup = (trap.storage.spool / path).read_bytes()
    assert trap.prune() == 1
    gallery = at("memory gallery", "gallery")
    trap.register(home, gallery)
    (trap.storage.spool / path).write_bytes(backup)
    trap.ingest()
    assert trap.prune() == 0
    assert trap.deliver(gallery).delivered == 1
    assert trap.prune() == 1


def test_what_was_to_be_pruned_by_the_word_of_another_folder_stays(trap: Trap) -> None:
    delivered(trap, Folder("nas", "directory 1"))
    images = trap.catalog.images.on_card(0, 9)
    trap.catalog.proofs.mark_pruned([image.id for image in images])  # and then it is killed
    new = Folder("nas", "directory 2")
    trap.register(new)
    assert trap.prune() == 0
    assert len(trap.on_card()) == 3
    assert trap.deliver(new).delivered == 3
    assert trap.prune() == 3


def test_a_mark_of_yesterdays_settings_deletes_nothing_today(trap: Trap) -> None:
    home, new = at("memory home"), at("memory new", "new")
    delivered(trap, home, 2)
    trap.catalog.proofs.mark_pruned([image.id for image in trap.catalog.proofs.prunable(2e9, 9)])
    trap.register(home, new)
    assert trap.prune() == 0
    assert len(trap.on_card()) == 2
    assert trap.deliver(new).delivered == 2


@pytest.mark.parametrize("is_swept_first", [True, False])
def test_what_a_killed_prune_removed_before_another_stick_came_is_delivered_and_not_dropped(
    trap: Trap, is_swept_first: bool
) -> None:
    home, stick = at("memory home"), Folder("stick", "directory 1")
    trap.register(home, stick)
    for second in range(4):
        trap.put(second, seed=second + 1)
    trap.ingest()
    trap.time.sleep(100)
    trap.deliver(home)
    trap.deliver(stick)
    trap.catalog.proofs.mark_pruned([image.id for image in trap.catalog.proofs.prunable(2e9, 9)])
    for path in sorted(trap.on_card())[:2]:
        (trap.storage.spool / path).unlink()  # and killed here
    trap.restart()
    new = Folder("stick", "directory 2")
    trap.register(home, new)
    if is_swept_first:
        trap.ingest()
    trap.deliver(new)
    trap.ingest()
    trap.deliver(new)
    trap.deliver(home)
    assert trap.ledger() == (4, 4, 0, 0, 0)
    assert len(new.stored) == 2
    assert trap.prune() == 2
    assert trap.ledger() == (4, 4, 0, 0, 0)


def test_what_a_killed_prune_removed_before_its_server_lost_it_is_lost(trap: Trap) -> None:
    home = at("memory home")
    delivered(trap, home, 2)
    images = trap.catalog.proofs.prunable(2e9, 9)
    trap.catalog.proofs.mark_pruned([image.id for image in images])
    (trap.storage.spool / images[0].path).unlink()  # and killed here
    trap.restart()
    trap.register(home)
    home.stored.clear()
    trap.catalog.proofs.withdraw_proofs("home", [image.id for image in images])
    trap.ingest()
    assert trap.deliver(home).delivered == 1
    assert trap.catalog.counts.ledger().lost == 1
    assert trap.ledger() == (2, 1, 0, 0, 1)


# ── An older catalog ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Catalog]:
    """A catalog that was written by 13fe5f4: six images, two of them pruned, one refused by the stick."""
    path = tmp_path / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLDER / "catalog-13fe5f4.sql").read_text())
    catalog = Catalog.open(path, FakeTime())
    yield catalog
    catalog.close()


def test_a_catalog_from_before_places_keeps_its_account_and_its_notes(older: Catalog) -> None:
    older.places.register(
        [
            Registered("home", "stickypi", True, "stickypi https://a.example.org as trap"),
            Registered("stick", "directory", True),
            Registered("gallery", "imagekit", False, "imagekit https://ik.example.org/demo"),
        ]
    )
    ledger = older.counts.ledger()
    assert (ledger.captured, ledger.delivered, ledger.pending, ledger.quarantined) == (7, 5, 1, 1)
    assert older.notes.get("gallery", "job:1") == {"id": 7}


def test_proofs_from_before_places_count_for_pruning_when_they_are_confirmed_anew(older: Catalog) -> None:
    older.places.register([Registered("home", "stickypi", True, "stickypi https://a.example.org as trap")])
    assert older.proofs.prunable(2e12, 9) == []
    images = older.proofs.unconfirmed("home", 2e12, 9)
    assert len(images) == 4
    older.proofs.confirm("home", [(image.id, f"md5:{image.md5}", {}, "", False) for image in images[:2]])
    assert {image.id for image in older.proofs.prunable(2e12, 9)} == {image.id for image in images[:2]}


def test_a_catalog_from_before_places_meets_another_kind_under_an_old_name(older: Catalog) -> None:
    older.places.register([("home", "directory", True)])
    assert older.counts.ledger().pending == 4  # all that is on the card; what left it stays delivered
    assert older.counts.ledger().delivered == 2


def test_a_catalog_that_no_daemon_has_brought_up_to_date_yet_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLDER / "catalog-13fe5f4.sql").read_text())
    with pytest.raises(CatalogError, match="start the daemon once"):
        Catalog.open_to_read(path, FakeTime())
