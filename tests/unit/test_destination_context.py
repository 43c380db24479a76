"""Destinations linked to the catalog and to one another."""

from pathlib import Path

import pytest

from memory_context import context
from trap_bench import Memory, Trap
from trapsync import destinations
from trapsync.destinations import DestinationContext, Receipt
from trapsync.errors import CatalogError, SettingsError, Unreachable
from trapsync.image import Image
from trapsync.runtime.destination_context import TrapContext, check_all, connect_all
from trapsync.settings.schema import Settings
from trapsync.settings.schema import Trap as TrapSettings

FILE = Path("trap.toml")


def test_what_comes_after_another_is_given_only_what_that_one_confirmed(trap: Trap) -> None:
    first, second = Memory("first"), Memory("second", after="first")
    trap.register(first, second)
    paths = [trap.put(0), trap.put(1, seed=2)]
    trap.ingest()
    first.trouble[paths[0].rpartition("/")[2]] = Unreachable("no network")
    trap.deliver(first)
    assert trap.deliver(second).delivered == len(second.sent) == len(first.stored) == 1
    first.trouble.clear()
    trap.time.sleep(2000)
    trap.deliver(first)
    assert trap.deliver(second).delivered == 1
    assert second.stored == first.stored


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        ({"a": "a"}, "a after a: none would ever begin"),
        ({"a": "b", "b": "c", "c": "a"}, "a after b after c after a: none would ever begin"),
        (
            {"a": "", "b": "elsewhere"},
            r"destinations.b.depends_on = 'elsewhere': there is no such .*there is: a",
        ),
        ({"a": "elsewhere"}, "there is: no other"),
    ],
)
def test_an_order_that_nobody_can_keep_is_refused(order: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        destinations.check_order({name: {"depends_on": after} for name, after in order.items()}, FILE)


def test_a_chain_of_destinations_is_well() -> None:
    destinations.check_order({"c": {"depends_on": "b"}, "b": {"depends_on": "a"}, "a": {}}, FILE)


def test_an_echo_delivers_but_lets_no_image_leave_the_card(trap: Trap) -> None:
    class Echo(Memory):
        def deliver(self, image: Image, path: Path) -> Receipt:
            return Receipt(f"echo:{super().deliver(image, path).digest.partition(':')[2]}")

    gallery = Echo("gallery", required=True)
    trap.register(gallery)
    trap.put()
    trap.ingest()
    assert trap.deliver(gallery).delivered == 1
    assert trap.prune() == 0
    assert trap.ledger() == (1, 0, 1, 0, 0)
    trap.restart()  # and the catalog is believed


def test_notes_outlive_a_restart_and_belong_to_one_destination(trap: Trap) -> None:
    one, other = trap.context("a"), trap.context("b")
    one.put_note("job:2", {"id": 7})
    one.put_note("job:1", [1, "zwei"])
    one.put_note("job:2", {"id": 8})
    one.put_note("j%b", 1)
    other.put_note("job:3", None)
    trap.restart()
    one, other = trap.context("a"), trap.context("b")
    assert one.note_keys("job:") == ["job:1", "job:2"]
    assert (one.note("job:2"), one.note("job:3")) == ({"id": 8}, None)
    one.forget_note("job:2")
    assert one.note("job:2") is None
    assert one.note_keys() == ["j%b", "job:1"]
    assert other.note_keys() == ["job:3"]


def test_the_tests_context_keeps_notes_as_a_traps_does(trap: Trap) -> None:
    some: tuple[DestinationContext, ...] = (trap.context("a"), context())
    for one in some:
        one.put_note("b", {"id": 7})
        one.put_note("a", 1)
        one.put_note("x", 1)
        one.forget_note("x")
        one.forget_note("y")
        assert (one.note_keys(), one.note_keys("b")) == (["a", "b"], ["b"])
        assert (one.note("b"), one.note("x"), one.pending_between(0, 1e10)) == ({"id": 7}, None, 0)


def test_a_destination_knows_how_many_images_of_a_time_are_still_to_come(trap: Trap) -> None:
    home = Memory("home")
    trap.register(home)
    first = trap.put(0)
    trap.put(100, seed=2)
    trap.ingest()
    given = trap.context("home")
    (since,) = (row["rank"] for row in trap.catalog.connection.query("SELECT min(rank) AS rank FROM images"))
    assert [given.pending_between(since, since + seconds) for seconds in (0, 1, 100, 101)] == [0, 1, 1, 2]
    trap.deliver(home)
    assert given.pending_between(since, since + 1000) == 0
    assert first


def test_without_a_catalog_there_are_no_records(trap: Trap) -> None:
    checked = destinations.check("stick", {"kind": "directory", "path": "copies"}, FILE)
    settings = Settings(trap=TrapSettings(device="0a1b2c3d"))
    given = TrapContext(checked, settings, None, trap.time, trap.time.sleep, {})
    with pytest.raises(CatalogError):
        given.note("a")


def test_the_turn_ends_with_what_is_beyond_single_images_and_its_trouble_is_the_destinations(
    trap: Trap,
) -> None:
    class Tended(Memory):
        trouble_at_the_end: Unreachable | None = None

        def follow_up(self) -> bool:
            if self.trouble_at_the_end:
                raise self.trouble_at_the_end
            return True

    home = Tended("home")
    trap.register(home)
    home.trouble_at_the_end = Unreachable("the job cannot be queued")
    assert trap.deliver(home).trouble is home.trouble_at_the_end
    assert not trap.catalog.deliveries.may_go("home")
    home.trouble_at_the_end = None
    assert trap.deliver(home).trouble is None
    assert trap.catalog.counts.destinations()[0]["error"] is None


def test_an_image_is_fetched_where_the_destination_before_has_it(trap: Trap) -> None:
    asked = []

    class Gallery(Memory):
        def address(self, image: Image, detail: object) -> str:
            asked.append(detail)
            return f"https://gallery/{image.name}"

    gallery = Gallery("gallery")
    trap.register(gallery, Memory("labels"))
    trap.put()
    trap.ingest()
    (image,) = trap.catalog.deliveries.due("labels", "newest", 1)
    assert trap.catalog.deliveries.receipt("gallery", image.id) is None
    trap.catalog.deliveries.mark_delivered("gallery", [(image.id, f"md5:{image.md5}", {"file": "f1"})])
    assert trap.catalog.deliveries.receipt("gallery", image.id) == {"file": "f1"}
    assert trap.context("labels", gallery=gallery).address_of(image) == f"https://gallery/{image.name}"
    assert asked == [{"file": "f1"}]
    assert trap.context("labels").address_of(image) is None


def test_the_destinations_of_a_config_file_are_linked(trap: Trap) -> None:
    tables = {
        "stick": {"kind": "directory", "path": str(trap.folder / "stick")},
        "disk": {"kind": "directory", "path": str(trap.folder / "disk"), "depends_on": "stick"},
    }
    settings = Settings(trap=TrapSettings(device="0a1b2c3d"), destinations=tables)
    made = connect_all(settings, check_all(settings, FILE), trap.catalog, trap.time, trap.time.sleep)
    assert [(one.name, one.settings.depends_on) for one in made] == [("stick", ""), ("disk", "stick")]
