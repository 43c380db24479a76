"""The pages of traps and nights: what they say, where they lead, and what they answer to odd addresses."""

import io
import json
import re
import socket
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

import camtrap_packages
import drawings
import filled_hub
import hub_server
import night_site
import reported
from fake_time import FakeTime
from filled_hub import NOW
from hub_server import RunningHub
from night_site import DEVICE, HOSTILE, MARKED, NIGHT, TRAP, Reader, places, taken
from trapsync.cli.common import Moment
from trapsync.clock import iso
from trapsync.hub.pages import downloads
from trapsync.settings import config_file
from trapsync.settings.project import Contributor, Project

PROJECT = Project(title="Moths", sampling_design="systematicRandom", contributors=(Contributor("Ada"),))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub on 25 June 2026 that nobody knows yet."""
    with (
        hub_server.cheap_passwords(),
        hub_server.running(tmp_path / "hub", clock=FakeTime(NOW.timestamp()), project=PROJECT) as running,
    ):
        yield running


@pytest.fixture
def names(hub: RunningHub) -> list[str]:
    """The pictures of a trap with two nights, the last ones the newest."""
    return night_site.furnish(hub)


@pytest.fixture
def reader(hub: RunningHub) -> Reader:
    return Reader(hub)


def text(page: str) -> str:
    """What a page says, without its elements."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


# ── The trap ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("names")
def test_a_trap_says_how_it_is_and_what_it_has(reader: Reader, names: list[str]) -> None:
    says = text(reader.page(TRAP))
    for one in (
        "warning",
        "the battery is low",
        "heard 0 s ago",
        "battery 77 %",
        "20.0 GB free, full in 80 days",
        "pending 10",
        "clock set",
        "Times are local, of Europe/Vienna.",
        "Taken Wed 24 Jun 2026 23:35:00.",
        "Remote settings that the trap had last: 7",
        "capture.every 30 min",
        "1.5 m",
        "10 of 20 taken; missed: 10 (the camera failed)",
    ):
        assert one in says
    assert f"/picture/full/{names[-1]}" in places(reader.page(TRAP))


@pytest.mark.usefixtures("names")
def test_texts_of_a_trap_are_text(reader: Reader) -> None:
    for path in (TRAP, NIGHT, f"{NIGHT}?image=2026-06-24T21:35:00Z"):
        page = reader.page(path)
        assert HOSTILE not in page
        assert MARKED not in page
        assert "alert(" in text(page)
        assert not re.search(r"<(script(?! src=./assets/page)|style|[a-z]+[^>]*\s(style|on[a-z]+)=)", page)


@pytest.mark.usefixtures("names")
def test_all_that_pages_lead_to_is_there(hub: RunningHub) -> None:
    owner, seen, ahead = Reader(hub, "owner"), set[str](), [TRAP]
    while ahead and len(seen) < 200:
        path = ahead.pop().partition("#")[0]
        if path in seen or not path or urlsplit(path).netloc:
            continue
        seen.add(path)
        answer = owner.get(path)
        assert answer.status_code == 200, path
        if "text/html" in answer.headers["Content-Type"]:
            ahead += [one for one in places(answer.text) if one.startswith("/trap/") or "picture" in one]
    assert {TRAP, NIGHT, f"{NIGHT}/images.zip", f"{NIGHT}/camtrap-dp.zip", f"{TRAP}/settings.toml"} <= seen
    assert {f"{TRAP}?span={one}" for one in ("2d", "30d", "90d", "all")} <= seen
    assert len(seen) > 30


@pytest.mark.parametrize(
    "path", ["/trap/0a5bb6f5", "/trap/x", "/trap/0A5BB6F4", "/trap/%00", "/trap/..%2f", "/trap/" + "a" * 999]
)
@pytest.mark.usefixtures("names")
def test_what_is_no_trap_is_not_found(reader: Reader, path: str) -> None:
    assert reader.get(path).status_code == 404


def test_a_trap_that_was_never_heard_has_a_page(hub: RunningHub, reader: Reader) -> None:
    hub.join(DEVICE, "secret")
    says = text(reader.page(TRAP))
    assert "has not been heard yet" in says
    assert "no picture yet" in says
    assert "Times are UTC: the trap has not reported its time zone yet." in says
    assert "nothing is known of this time" in says


@pytest.mark.usefixtures("names")
def test_a_revoked_trap_has_its_pictures_and_says_that_it_is(hub: RunningHub, reader: Reader) -> None:
    hub.hub.enrolment.revoke(DEVICE)
    page = reader.page(TRAP)
    assert "This trap was revoked" in page
    assert f"{TRAP}/2026-06-22" in places(page)


def test_a_trap_of_which_there_are_only_pictures_has_a_page(hub: RunningHub, reader: Reader) -> None:
    night_site.upload(hub, taken(0))
    assert "No heartbeat has come from this trap." in text(reader.page(TRAP))
    assert "1 picture here" in text(reader.page(NIGHT))


def test_a_heartbeat_that_is_none_costs_its_place_only(hub: RunningHub, reader: Reader) -> None:
    with hub.hub.database.writing() as connection:
        connection.execute(
            'INSERT INTO heartbeats (device, received, body) VALUES (?, ?, \'{"battery": "full"}\')',
            (DEVICE, NOW.timestamp() - 60),
        )
    assert "its heartbeat makes no sense" in text(reader.page(TRAP))


def test_a_temperature_that_is_none_costs_its_place_in_the_plot_only(hub: RunningHub, reader: Reader) -> None:
    night_site.upload(hub, taken(0), drawings.sticky_pi_2022(drawings.COMMENT_2022.replace("20.6", "1e300")))
    assert "Temperature: nothing is known of this time" in text(reader.page(TRAP))
    night_site.upload(hub, taken(0, 22))
    assert "Temperature: 20.6 °C" in text(reader.page(TRAP))


def test_nights_are_shown_some_at_a_time_and_winters_are_skipped(hub: RunningHub, reader: Reader) -> None:
    reported.heard(hub.hub)
    night_site.report(hub, *(reported.night(-number) for number in (0, 20, 200)))
    shown, path = list[str](), TRAP
    while path:
        page = reader.page(path)
        shown += re.findall(rf'href="{TRAP}/([\d-]+)"', page.partition('<ol class="strips">')[2])
        older = re.search(r'rel="next" href="([^"]+)"', page)
        path = unescape(older[1]) if older else ""
    assert shown == ["2026-06-21", "2026-06-01", "2025-12-03"]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "query", ["before=x", "before=0001-01-01", "before=9999-12-31", "span=x", "span=all&before=1970-01-01"]
)
def test_odd_questions_about_a_trap_have_an_answer(reader: Reader, query: str) -> None:
    assert reader.get(f"{TRAP}?{query}").status_code == 200


@pytest.mark.parametrize("span", ["2d", "30d", "90d", "all"])
def test_heartbeats_that_the_hub_has_thinned_are_no_gaps_in_a_plot(
    hub: RunningHub, reader: Reader, span: str
) -> None:
    filled_hub.add_heartbeats(hub.hub.database, 1, 90)
    body = json.dumps(filled_hub.beat(1))
    with hub.hub.database.writing() as connection:
        sql = "INSERT INTO heartbeats (device, received, body) VALUES (?, ?, ?)"
        daily = [(filled_hub.device(1), NOW.timestamp() - 86400.0 * day, body) for day in range(91, 130)]
        connection.executemany(sql, daily)
    page = reader.page(f"/trap/{filled_hub.device(1)}?span={span}")
    (battery,) = re.findall(r"<title>Battery.*?</svg>", page, re.DOTALL)
    assert (battery.count("<path"), battery.count("<circle")) == (1, 0)


# ── The night ────────────────────────────────────────────────────────────────────────────────────────


def test_a_night_says_what_was_taken_and_missed_and_shows_its_pictures(
    reader: Reader, names: list[str]
) -> None:
    page = reader.page(NIGHT)
    for one in (
        "Wednesday, 24 June 2026",
        "3 pictures here. 10 of 20 taken; missed: 10 (the camera failed)",
        "22:00 4 2 the camera failed",
        "22:20 01:40 10 the camera failed",
    ):
        assert one in text(page)
    assert {f"/picture/small/{name}" for name in names[3:]} <= places(page)
    assert f"{TRAP}/2026-06-22" in places(page)


@pytest.mark.usefixtures("names")
def test_a_night_without_pictures_says_so(reader: Reader) -> None:
    says = text(reader.page(f"{TRAP}/2026-06-21"))
    assert "no picture of this night has come" in says
    assert "missed: 10 (the camera failed)" in says
    assert "0 pictures here. No report yet." in text(reader.page(f"{TRAP}/2025-01-01"))


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "night",
    [
        "2026-06-26",
        "2030-01-01",
        "0001-01-01",
        "9999-12-31",
        "2026-02-30",
        "20260624",
        "x",
        "2026-06-24x",
        "%0a",
    ],
)
def test_a_night_to_come_and_one_that_is_none_are_not_found(reader: Reader, night: str) -> None:
    for more in ("", "/images.zip", "/camtrap-dp.zip"):
        assert reader.get(f"{TRAP}/{night}{more}").status_code == 404


def test_many_pictures_are_shown_page_by_page_each_once(hub: RunningHub, reader: Reader) -> None:
    filled_hub.add_images(hub.hub.database, 1, 500, every=30.0, at_night=500)
    trap = f"/trap/{filled_hub.device(1)}/2026-06-24"
    seen, path, pages = list[str](), trap, list[str]()
    while path:
        page = reader.page(path)
        seen += re.findall(r'src="/picture/small/([^"]+)"', page)
        pages.append(path)
        later = re.search(r'rel="next" href="([^"]+)"', page)
        path = unescape(later[1]).partition("#")[0] if later else ""
    assert len(seen) == len(set(seen)) == 500
    assert len(pages) == 3
    back = re.search(r'rel="prev" href="([^"]+)"', reader.page(pages[1]))
    assert back
    assert re.findall(r"small/([^\"]+)", reader.page(unescape(back[1]))) == seen[:240]


# ── A picture ────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_has_its_times_its_measurements_and_its_neighbours(
    reader: Reader, names: list[str]
) -> None:
    page = reader.page(f"{NIGHT}?image=2026-06-24T20:00:00Z")
    for one in ("Wed 24 Jun 2026 22:00:00", "UTC 2026-06-24 20:00:00", "temperature", "position 46."):
        assert one in text(page)
    assert f'rel="prev" href="{TRAP}/2026-06-22?image=2026-06-22T21:35:00Z"' in page
    assert f'rel="next" href="{NIGHT}?image=2026-06-24T20:30:00Z"' in page
    assert f"/picture/full/{names[3]}" in places(page)
    last = reader.page(f"{NIGHT}?image=2026-06-24T21:35:00Z")
    assert 'rel="next"' not in last
    assert "1 object" in text(last)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "image", ["x", "2026-06-24T20:00:01Z", "2026-06-22T20:00:00Z", "%00", "9" * 999, "' OR 1=1 --"]
)
def test_a_picture_that_a_night_does_not_have_is_not_found(reader: Reader, image: str) -> None:
    assert reader.get(f"{NIGHT}?image={image}").status_code == 404
    assert reader.get(f"{NIGHT}?after={image}").status_code == 200


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("name", ["image", "after", "until"])
def test_a_question_that_is_too_long_is_the_askers_mistake(reader: Reader, name: str) -> None:
    assert reader.get(f"{NIGHT}?{name}={'9' * 1001}").status_code == 400


# ── Downloads ────────────────────────────────────────────────────────────────────────────────────────


def test_the_zip_of_a_night_has_its_pictures_byte_for_byte(
    hub: RunningHub, reader: Reader, names: list[str]
) -> None:
    answer = reader.get(f"{NIGHT}/images.zip")
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{DEVICE}-2026-06-24.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.namelist() == names[3:]
        assert found.infolist()[0].date_time == (2026, 6, 24, 22, 0, 0)
        paths = {hub.store.path(row).name: hub.store.path(row) for row in hub.rows()}
        assert all(found.read(name) == paths[name].read_bytes() for name in found.namelist())


def test_a_picture_whose_file_is_missing_is_named_in_the_zip(
    hub: RunningHub, reader: Reader, names: list[str]
) -> None:
    path_of(hub, names[4]).unlink()
    with zipfile.ZipFile(io.BytesIO(reader.get(f"{NIGHT}/images.zip").content)) as found:
        assert found.namelist() == [names[3], names[5], "not-in-this-zip.txt"]
        assert names[4] in found.read("not-in-this-zip.txt").decode()


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("name", ["images", "camtrap-dp"])
def test_a_night_of_very_many_pictures_has_no_zip(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(downloads, "_MOST", 2)
    answer = reader.get(f"{NIGHT}/{name}.zip")
    assert (answer.status_code, "too many for a zip" in answer.text) == (403, True)


def test_a_night_of_which_nothing_came_has_no_zip(reader: Reader, names: list[str]) -> None:
    assert names
    assert reader.get(f"{TRAP}/2026-06-21/images.zip").status_code == 404


def test_a_picture_that_goes_during_a_download_ends_it(hub: RunningHub, reader: Reader) -> None:
    """The connection ends before the length that was said, so that a browser shows a failure."""
    large = drawings.trap(taken=taken(0)) + bytes(24 * 2**20)
    names = [night_site.upload(hub, taken(0), large), night_site.upload(hub, taken(10))]
    asked = reader.browser.prepare_request(requests.Request("GET", f"{hub.url}{NIGHT}/images.zip"))
    head = f"GET {NIGHT}/images.zip HTTP/1.1\r\nHost: x\r\nCookie: {asked.headers['Cookie']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        connection.sendall(head.encode())
        begin = connection.recv(1000)
        path_of(hub, names[1]).unlink()
        size = len(begin) + sum(len(piece) for piece in iter(lambda: connection.recv(1 << 20), b""))
    said = re.search(rb"Content-Length: (\d+)", begin)
    assert said
    assert 0 < size < int(said[1])


def test_downloads_that_nobody_reads_hold_no_thread(hub: RunningHub, reader: Reader) -> None:
    """More of them than the hub has threads; pages and uploads go on, and each gets its zip in the end."""
    content = drawings.trap(taken=taken(0)) + bytes(48 * 2**20)  # more than waitress keeps for who is slow
    night_site.upload(hub, taken(0), content)
    with ExitStack() as stack:
        slow = [stack.enter_context(reader.get(f"{NIGHT}/images.zip", stream=True)) for _ in range(12)]
        assert reader.get(TRAP).status_code == 200
        night_site.upload(hub, taken(10))
        assert all(len(one.content) == int(one.headers["Content-Length"]) > len(content) for one in slow[:1])


def test_a_night_as_camtrap_dp_is_a_valid_package_with_its_pictures(
    reader: Reader, names: list[str], tmp_path: Path
) -> None:
    answer = reader.get(f"{NIGHT}/camtrap-dp.zip")
    assert answer.status_code == 200, answer.text
    package = tmp_path / "package"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        found.extractall(package)
    assert camtrap_packages.problems(package) == []
    media = camtrap_packages.rows(package, "media")
    assert [row["mediaID"] for row in media] == names[3:]
    assert all((package / row["filePath"]).is_file() for row in media)
    assert len(camtrap_packages.rows(package, "sampling-gaps")) == 1
    assert len(camtrap_packages.rows(package, "observations")) == 1


@pytest.mark.usefixtures("names")
def test_without_a_project_there_is_no_package_but_a_line(hub: RunningHub, reader: Reader) -> None:
    object.__setattr__(hub.hub, "project", Project())
    answer = reader.get(f"{NIGHT}/camtrap-dp.zip")
    assert answer.status_code == 403
    assert "a package of Camtrap DP needs project.title, project.sampling_design" in text(answer.text)


# ── What is prepared for the operator ────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("names")
def test_an_admin_gets_command_lines_and_the_settings_to_change(hub: RunningHub) -> None:
    owner = Reader(hub, "owner")
    says = text(owner.page(TRAP))
    assert f"trapsync push {DEVICE}.toml --to device:{DEVICE} --hub {hub.url} --user owner" in says
    resend = re.search(
        r"trapsync resend --from (\S+) --until (\S+) --to device:(\w+)", text(owner.page(NIGHT))
    )
    assert resend
    since, until = (Moment().convert(one, None, None) for one in resend.groups()[:2])
    assert (iso(since), until - since) == ("2026-06-24T10:00:00Z", timedelta(days=1))
    answer = owner.get(f"{TRAP}/settings.toml")
    assert tomllib.loads(answer.text) == {
        "capture": {"every": "30 min", "schedule": ["22:00 - 02:00"]},
        "camera": {"gain": 2.5},
    }
    assert config_file.tables(answer.text, Path("x.toml"))


@pytest.mark.usefixtures("names")
def test_a_viewer_gets_neither(reader: Reader) -> None:
    for path in (TRAP, NIGHT):
        assert "trapsync " not in text(reader.page(path)).replace("· trapsync", "")
    assert reader.get(f"{TRAP}/settings.toml").status_code == 403


@pytest.mark.usefixtures("names")
def test_what_the_hub_holds_for_a_trap_is_shown_and_whether_it_is_there(
    hub: RunningHub, reader: Reader
) -> None:
    data = b"trapsync-signed-1 0123456789abcdef " + b"0" * 128 + b"\n{}"
    own, group = (
        hub.hub.fleet.put(f"{to}.settings", data + to.encode(), HOSTILE)
        for to in (f"device-{DEVICE}", "group-valley")
    )
    hub.hub.fleet.put("group-other.settings", data, "owner")
    body = {"device": DEVICE, "remote": {**night_site.REMOTE, "last_received_hash": own}}
    hub.hub.fleet.take(DEVICE, json.dumps(body).encode())
    says = text(reader.page(TRAP))
    assert re.search(rf"device-{DEVICE}.settings \S+ <script>\S+ there", says)
    assert re.search(r"group-valley.settings \S+ \S+ not reported yet", says)
    assert "group-other" not in says
    assert own != group


def path_of(hub: RunningHub, name: str) -> Path:
    """The file of a picture."""
    return next(hub.store.path(row) for row in hub.rows() if hub.store.path(row).name == name)
