"""Destinations linked to the catalog and to one another."""

from pathlib import Path

import pytest

from trap_bench import Memory, Trap
from trapsync import destinations
from trapsync.destinations import Receipt, Scratch
from trapsync.errors import SettingsError, Unreachable
from trapsync.image import Image
from trapsync.runtime.destination_context import CatalogNotebook, connect_all
from trapsync.settings.schema import Settings

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
        ({"a": "", "b": "elsewhere"}, r"destinations.b.after = 'elsewhere': there is no such .*there is: a"),
        ({"a": "elsewhere"}, "there is: no other"),
    ],
)
def test_an_order_that_nobody_can_keep_is_refused(order: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        destinations.check_order({name: {"after": after} for name, after in order.items()}, FILE)


def test_a_chain_of_destinations_is_well() -> None:
    destinations.check_order({"c": {"after": "b"}, "b": {"after": "a"}, "a": {}}, FILE)


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
    notebook, other = (CatalogNotebook(lambda: trap.catalog, name) for name in ("a", "b"))
    notebook.put("job:2", {"id": 7})
    notebook.put("job:1", [1, "zwei"])
    notebook.put("job:2", {"id": 8})
    notebook.put("j%b", 1)
    other.put("job:3", None)
    trap.restart()
    assert notebook.keys("job:") == ["job:1", "job:2"]
    assert (notebook.get("job:2"), notebook.get("job:3")) == ({"id": 8}, None)
    notebook.forget("job:2")
    assert notebook.get("job:2") is None
    assert notebook.keys() == ["j%b", "job:1"]
    assert other.keys() == ["job:3"]


def test_a_scratch_does_what_a_notebook_does() -> None:
    scratch = Scratch()
    scratch.put("b", {"id": 7})
    scratch.put("a", 1)
    scratch.put("x", 1)
    scratch.forget("x")
    scratch.forget("y")
    assert (scratch.keys(), scratch.get("b"), scratch.get("x"), scratch.owed(0, 1e10)) == (
        ["a", "b"],
        {"id": 7},
        None,
        0,
    )


def test_a_notebook_knows_how_many_images_of_a_time_are_still_to_come(trap: Trap) -> None:
    home = Memory("home")
    trap.register(home)
    first = trap.put(0)
    trap.put(100, seed=2)
    trap.ingest()
    notebook = CatalogNotebook(lambda: trap.catalog, "home")
    (since,) = (row["rank"] for row in trap.catalog._query("SELECT min(rank) AS rank FROM images"))
    assert [notebook.owed(since, since + seconds) for seconds in (0, 1, 100, 101)] == [0, 1, 1, 2]
    trap.deliver(home)
    assert notebook.owed(since, since + 1000) == 0
    assert first


def test_the_turn_ends_with_what_is_beyond_single_images_and_its_trouble_is_the_destinations(
    trap: Trap,
) -> None:
    class Tended(Memory):
        trouble_at_the_end: Unreachable | None = None

        def tend(self) -> bool:
            if self.trouble_at_the_end:
                raise self.trouble_at_the_end
            return True

    home = Tended("home")
    trap.register(home)
    home.trouble_at_the_end = Unreachable("the job cannot be queued")
    assert trap.deliver(home).trouble is home.trouble_at_the_end
    assert not trap.catalog.may_go("home")
    home.trouble_at_the_end = None
    assert trap.deliver(home).trouble is None
    assert trap.catalog.destinations()[0]["error"] is None


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
    (image,) = trap.catalog.due("labels", "newest", 1)
    assert trap.catalog.receipt("gallery", image.id) is None
    trap.catalog.mark_delivered("gallery", [(image.id, f"md5:{image.md5}", {"file": "f1"})])
    assert trap.catalog.receipt("gallery", image.id) == {"file": "f1"}
    from trapsync.runtime.destination_context import _address

    assert (
        _address({"gallery": gallery}, lambda: trap.catalog, "gallery", image)
        == f"https://gallery/{image.name}"
    )
    assert asked == [{"file": "f1"}]
    assert _address({}, lambda: trap.catalog, "", image) is None


def test_the_destinations_of_a_config_file_are_linked(trap: Trap) -> None:
    from conformance import tools

    tables = {
        "stick": {"kind": "directory", "path": str(trap.folder / "stick")},
        "disk": {"kind": "directory", "path": str(trap.folder / "disk"), "after": "stick"},
    }
    made = connect_all(Settings(destinations=tables), FILE, tools(), lambda: trap.catalog)
    assert [(one.name, one.settings.after) for one in made] == [("stick", ""), ("disk", "stick")]
