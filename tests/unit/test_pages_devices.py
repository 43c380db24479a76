"""Codes, groups and locking traps out by a browser; and the map."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import drawings
import hub_server
from fake_time import FakeTime
from hub_server import RunningHub
from pages_visitor import Visitor
from trapsync.hub.pages.map import Spot, drawn
from trapsync.net.invitation import Code, Terms

KEY = "ed25519:yG0BrYsvtpSyL/YOPJ2eftkNtWBHcrdEUNQJE7mpy68="
DEVICE = "0a5bb6f4"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with (
        hub_server.cheap_passwords(),
        hub_server.running(tmp_path / "hub", clock=FakeTime(), url="https://hub.example.org") as running,
    ):
        yield running


def made_code(page: str) -> Code:
    """The code on a page."""
    found = re.search(r"sudo trapsync join (https://\S+)</pre>", page)
    assert found
    return Code.parse(found[1])


def test_a_trap_joins_with_a_code_that_was_made_on_a_page(hub: RunningHub) -> None:
    admin = Visitor(hub, "owner")

    page = admin.form(
        "/devices", "/devices/invite", uses="2", days="7", groups="valley, hill", keys=KEY, images="on"
    )

    code = made_code(page.text)
    assert code.hub == "https://hub.example.org"
    assert code.fingerprint == Terms((KEY,), ("valley", "hill")).fingerprint()
    assert "no-store" in page.headers["Cache-Control"]
    assert "<svg" in page.text
    asked = {
        "secret": code.secret,
        "device": DEVICE,
        "token_sha256": "0" * 64,
        "fingerprint": code.fingerprint,
    }
    assert hub.ask("join", asked).json()["groups"] == ["valley", "hill"]
    shown = admin.get("/devices").text
    assert "1 of 2 used" in shown
    assert code.secret not in shown
    assert KEY in shown, "the next code is for the same keys"


def test_where_the_package_for_it_is_missing_there_is_no_picture_of_a_code(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "segno", None)
    page = Visitor(hub, "owner").form("/devices", "/devices/invite", uses="1", days="7", keys=KEY)
    assert made_code(page.text)
    assert "<svg" not in page.text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"keys": ""}, "Name the public key"),
        ({"keys": "ed25519:short"}, "keys at most, written ed25519:"),
        ({"uses": "x"}, "What stands in uses is no number"),
        ({"uses": "0"}, "A code is for 1 to 1000 traps"),
        ({"days": "999"}, "A code ends within 400 days"),
        ({"groups": "Valley"}, "A group is written in lower case"),
    ],
)
def test_nonsense_in_the_form_is_told_in_words(hub: RunningHub, changed: dict[str, str], reason: str) -> None:
    fields = {"uses": "1", "days": "7", "groups": "", "keys": KEY} | changed
    answer = Visitor(hub, "owner").form("/devices", "/devices/invite", **fields)
    assert (answer.status_code, reason in answer.text) == (400, True)
    assert hub.hub.enrolment.invitations() == []


def test_a_code_is_withdrawn(hub: RunningHub) -> None:
    admin = Visitor(hub, "owner")
    admin.form("/devices", "/devices/invite", uses="1", days="7", keys=KEY)
    assert admin.form("/devices", "/devices/codes/1/withdraw").headers["Location"] == "/devices"
    assert hub.hub.enrolment.invitations() == []
    assert admin.form("/devices", "/devices/codes/1/withdraw").status_code == 404


def test_groups_are_changed(hub: RunningHub) -> None:
    hub.join(DEVICE, "its own")
    answer = Visitor(hub, "owner").form(
        f"/devices/{DEVICE}", f"/devices/{DEVICE}/groups", groups="hill  bog hill"
    )
    assert answer.headers["Location"] == f"/devices/{DEVICE}"
    assert hub.hub.enrolment.groups(DEVICE) == ("hill", "bog")


@pytest.mark.parametrize(("how", "left"), [("revoke", ["revoked"]), ("forget", [])])
def test_a_trap_is_locked_out_once_that_is_confirmed(hub: RunningHub, how: str, left: list[str]) -> None:
    hub.join(DEVICE, "its own")
    admin = Visitor(hub, "owner")
    assert admin.get(f"/devices/{DEVICE}/{how}").status_code == 200
    assert hub.hub.accounts.named(DEVICE), "nothing happens by looking"

    admin.form(f"/devices/{DEVICE}/{how}", f"/devices/{DEVICE}/{how}")

    assert hub.hub.accounts.named(DEVICE) is None
    assert [trap["state"] for trap in hub.hub.enrolment.traps()] == left


def test_the_card_of_a_revoked_trap_says_first_that_it_is(hub: RunningHub) -> None:
    hub.join(DEVICE, "its own")
    hub.hub.fleet.take(DEVICE, json.dumps({"device": DEVICE, "reasons": ["a", "b", "c"]}).encode(), DEVICE)
    said = "revoked: the hub takes nothing from it any more"
    assert said not in Visitor(hub, "reader").get("/").text
    hub.hub.enrolment.revoke(DEVICE)
    page = Visitor(hub, "reader").get("/").text
    assert page.index(said) < page.index("<p>a") < page.index("<p>and 1 more")


@pytest.mark.parametrize(
    "path", ["/devices/00000000", f"/devices/{DEVICE}/burn", "/devices/%00", "/devices/../x"]
)
def test_what_is_not_there_is_not_found(hub: RunningHub, path: str) -> None:
    hub.join(DEVICE, "its own")
    assert Visitor(hub, "owner").get(path).status_code == 404


def test_what_is_no_way_to_lock_a_trap_out_does_nothing(hub: RunningHub) -> None:
    hub.join(DEVICE, "its own")
    assert Visitor(hub, "owner").form("/devices", f"/devices/{DEVICE}/burn").status_code == 404
    assert hub.hub.accounts.named(DEVICE)


@pytest.mark.parametrize("name", ["reader", "trap"])
def test_who_is_no_admin_sees_nothing_of_it_and_changes_nothing(hub: RunningHub, name: str) -> None:
    hub.join(DEVICE, "its own")
    visitor = Visitor(hub, name)
    assert "Devices" not in visitor.get("/").text
    for path in ("/devices", f"/devices/{DEVICE}", f"/devices/{DEVICE}/forget"):
        assert visitor.get(path).status_code == 403
    for path in ("/devices/invite", f"/devices/{DEVICE}/groups", f"/devices/{DEVICE}/forget"):
        assert visitor.form("/", path, uses="1", days="7", keys=KEY).status_code == 403
    assert hub.hub.accounts.named(DEVICE)


# ── The map ──────────────────────────────────────────────────────────────────────────────────────────


def spot(latitude: float, longitude: float, verdict: str = "ok", name: str = "valley") -> Spot:
    """A trap there."""
    return Spot(DEVICE, name, verdict, latitude, longitude)


def points(svg: str) -> list[tuple[float, float]]:
    """The middles of the marks, those of the worst last."""
    return [(float(x), float(y)) for x, y in re.findall(r'class="mark \w+" d="M([\d.-]+) ([\d.-]+)', svg)]


def test_north_is_up_and_a_metre_is_as_long_in_all_directions() -> None:
    (x, y), (east, _), (_, north) = points(drawn([spot(60, 10), spot(60, 10.2), spot(60.1, 10)]))
    assert y - north == pytest.approx(east - x, rel=0.01)  # at 60° N a degree of longitude is half as long


@pytest.mark.parametrize(
    "places",
    [
        [(46.2, 6.1)],
        [(46.2, 6.1), (46.2, 6.1)],
        [(90.0, 0.0), (-90.0, 180.0)],
        [(-17.0, 179.9), (-17.0, -179.9)],
        [(0.0, -180.0), (0.0, 180.0), (0.0, 0.0)],
        [(46.2, 6.1), (46.2000001, 6.1)],
    ],
)
def test_a_map_of_any_positions_is_whole_and_holds_all_of_them(places: list[tuple[float, float]]) -> None:
    svg = drawn([spot(*place) for place in places])
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert len(points(svg)) == len(places)
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points(svg))
    assert sum("°" in (text.text or "") for text in root.iter("text")) <= 14
    assert re.search(r">\d+ k?m<", svg)


def test_across_the_line_where_the_date_changes_neighbours_are_neighbours() -> None:
    (west, _), (east, _) = points(drawn([spot(-17, 179.9), spot(-17, -179.9)]))
    assert 0 < east - west < 400


def test_the_worst_are_on_top_and_hostile_names_are_text() -> None:
    svg = drawn([spot(1, 1, "failing", "<script>"), spot(1, 1.1, "ok", '"&')])
    root = ElementTree.fromstring(svg)
    assert [mark.attrib["class"] for mark in root.iter("path") if "mark" in mark.attrib["class"]] == [
        "mark ok",
        "mark failing",
    ]
    assert {title.text for title in root.iter("title")} == {"<script>: failing", '"&: ok'}


@pytest.mark.parametrize(("name", "is_there"), [("谷" * 12, True), ("谷" * 20, False), ("x" * 20, True)])
def test_a_name_stands_beside_its_mark_where_it_has_room(name: str, is_there: bool) -> None:
    svg = drawn([spot(46.2, 6.1, name=name)])
    assert (f">{name}</text>" in svg) == is_there
    assert 'aria-label="Map of 1 trap;' in svg


@pytest.mark.parametrize(("place", "is_one"), [("46.20100,6.12300", True), ("-121.00000,46.00000", False)])
def test_a_picture_of_no_place_on_earth_gives_a_trap_no_position(
    hub: RunningHub, place: str, is_one: bool
) -> None:
    hub.hub.fleet.take(DEVICE, json.dumps({"device": DEVICE}).encode())
    picture = drawings.sticky_pi_2022(drawings.COMMENT_2022.replace("46.20100,6.12300", place))
    assert hub.upload(f"{DEVICE}.2026-06-21_20-19-15.jpg", picture).status_code == 200
    page = Visitor(hub, "reader").get("/map").text
    assert ("Without a position" not in page) == is_one


def test_a_picture_of_which_an_older_hub_kept_zeros_has_no_position(hub: RunningHub) -> None:
    hub.hub.fleet.take(DEVICE, json.dumps({"device": DEVICE}).encode())
    hub.upload(f"{DEVICE}.2026-06-21_20-19-15.jpg", drawings.trap())
    with hub.hub.database.writing() as connection:
        connection.execute("UPDATE images SET lat = 0, lng = 0")
    assert "Without a position" in Visitor(hub, "reader").get("/map").text
