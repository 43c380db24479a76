"""The hub, over real HTTP on the loopback: what it answers, what it keeps, and who may."""

import gzip
import hashlib
import io
import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import piexif
import pytest
import pyvips
import requests

import hub_server
from hub_server import PASSWORD, RunningHub
from trapsync.errors import SettingsError, StorageError, TrapsyncError
from trapsync.hub import database as database_module
from trapsync.hub import store as store_module
from trapsync.hub.accounts import DEFAULT_PASSWORD
from trapsync.hub.admission import Guesses
from trapsync.hub.app import Hub, make_app
from trapsync.hub.database import Database
from trapsync.hub.links import LINK_LIFE
from trapsync.hub.server import listen, prepare_accounts, serve
from trapsync.hub.store import Store
from trapsync.hub.thumbnails import NO_EXAMINER, Thumbnails
from trapsync.hub.wire import moment
from trapsync.image import Image
from trapsync.jpeg import exif, structure, thumbnail
from trapsync.settings.hub import Hub as Settings
from trapsync.settings.open_links import is_loopback

DEVICE = "0a5bb6f4"
NAME = f"{DEVICE}.2026-06-20_20-19-15.jpg"
KEY = {"device": DEVICE, "datetime": "2026-06-20T20:19:15Z"}
EVERYTHING = {"device": "%", "start_datetime": "2000-01-01T00:00:00Z", "end_datetime": "2055-01-01T00:00:00Z"}
COMMENT = b"v,T,H,B,L,lat,lng,a,l,b\n3.1.0,20.6,42.6,72,1.20,49.26142,-123.25088,97.3,1652811355,1"


class HandClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 6, 21, tzinfo=UTC).timestamp()

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def boot_id(self) -> str:
        return ""

    def trusted(self) -> bool:
        return True


def plain(shade: int = 0) -> bytes:
    content: bytes = (pyvips.Image.black(64, 48) + shade).cast("uchar").jpegsave_buffer(strip=True)
    return content


def dressed(make: bytes | None = b"StickyPi", comment: bytes | None = COMMENT, shade: int = 0) -> bytes:
    zeroth = {} if make is None else {piexif.ImageIFD.Make: make}
    details = {} if comment is None else {piexif.ExifIFD.UserComment: comment}
    jpeg = io.BytesIO()
    piexif.insert(piexif.dump({"0th": zeroth, "Exif": details}), plain(shade), jpeg)
    return jpeg.getvalue()


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def columns(**values: str) -> bytes:
    return f"{','.join(values)}\n{','.join(values.values())}".encode()


GOOD = dressed()
OTHER = dressed(shade=9)
LEGACY = dressed(make=b"{'lat': 0.0, 'lng': 0.0, 'alt': 0.0, 'temp': 20.7, 'hum': 82.0}", comment=None)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path / "hub") as running:
        yield running


@pytest.fixture(scope="module")
def empty_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """For tests after which nothing is stored, so that they can share one."""
    with hub_server.running(tmp_path_factory.mktemp("hub")) as running:
        yield running
        assert running.rows() == []
        assert list(running.folder.rglob("*.jpg")) == []


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """For tests that only look: four images of two devices."""
    with hub_server.running(tmp_path_factory.mktemp("hub")) as running:
        for name in LIBRARY:
            assert running.upload(name, GOOD).status_code == 200
        yield running
        assert sorted(running.stored()) == LIBRARY


LIBRARY = [
    "0a5bb6f4.2026-06-20_20-19-15.jpg",
    "0a5bb6f4.2026-06-20_20-37-59.jpg",
    "0a5bb6f4.2026-06-21_00-00-00.jpg",
    "1b74105a.2026-06-20_20-19-15.jpg",
]


# --- Storing ------------------------------------------------------------------------------------------------


def test_a_stored_image_is_answered_with_its_row_and_a_null_id(hub: RunningHub) -> None:
    answer = hub.upload(NAME, GOOD, md5_of(GOOD))

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    (row,) = answer.json()
    assert row.pop("datetime_created").endswith("Z")
    assert row.pop("api_version")
    assert row == {
        "id": None,
        "device": DEVICE,
        "datetime": "2026-06-20T20:19:15Z",
        "md5": md5_of(GOOD),
        "device_version": "3.1.0",
        "width": 64,
        "height": 48,
        "lat": 49.26142,
        "lng": -123.25088,
        "alt": 97.3,
        "temp": 20.6,
        "hum": 42.6,
        "lum": 1.2,
        "bat": 72,
        "but": True,
        "api_user_id": row["api_user_id"],
    }


def test_a_stored_image_is_found_with_an_id_and_a_whole_number_for_the_button(hub: RunningHub) -> None:
    stored = hub.upload(NAME, GOOD).json()[0]

    (found,) = hub.ask("get_images/metadata", [KEY]).json()

    assert type(found["id"]) is int
    assert found["but"] == 1
    assert type(found["but"]) is int
    assert found == {**stored, "id": found["id"], "but": 1, "url": ""}


def test_the_bytes_lie_in_the_folder_of_their_device_and_day(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)

    assert (hub.folder / "images" / DEVICE / "2026-06-20" / NAME).read_bytes() == GOOD
    assert hub.stored() == {NAME: md5_of(GOOD)}


@pytest.mark.parametrize(
    ("name", "content", "device"),
    [
        pytest.param("0A5BB6F4.2026-06-20_20-19-15.jpg", GOOD, "0A5BB6F4", id="upper-case device"),
        pytest.param(f"{DEVICE}.2026-06-20_20-19-15.jpeg", GOOD, DEVICE, id="jpeg"),
        pytest.param(f"{DEVICE}.2026-06-20_20-19-15.png", GOOD, DEVICE, id="any extension"),
        pytest.param(f"../../{NAME}", GOOD, DEVICE, id="folders in the name"),
        pytest.param(NAME, GOOD + b"garbage", DEVICE, id="bytes behind the end"),
        pytest.param(NAME, LEGACY, DEVICE, id="format of 2020"),
        pytest.param(NAME, dressed(make=b"sticky-pi"), DEVICE, id="an expression for a Make"),
        pytest.param(NAME, dressed(comment=b"v\n3.1.0"), DEVICE, id="no sensors"),
        pytest.param(f"{DEVICE}.2019-11-01_00-00-00.jpg", GOOD, DEVICE, id="the first day"),
    ],
)
def test_what_the_original_takes_is_taken(hub: RunningHub, name: str, content: bytes, device: str) -> None:
    answer = hub.upload(name, content, md5_of(content))

    assert (answer.status_code, answer.json()[0]["device"]) == (200, device)
    assert list(hub.stored().values()) == [md5_of(content)]
    assert all(path.is_relative_to(hub.folder / "images") for path in hub.folder.rglob("*.jpg"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("file", GOOD, "wrong file name"),
        (f"{DEVICE}.2026-06-20_20-19-15", GOOD, "wrong file name"),
        (f"{DEVICE}.2026-06-20_20-19-15.x.jpg", GOOD, "wrong file name"),
        ("0a5bb6.2026-06-20_20-19-15.jpg", GOOD, "wrong file name"),
        ("0a5bb6fg.2026-06-20_20-19-15.jpg", GOOD, "wrong file name"),
        (f"{DEVICE}.2026-02-31_20-19-15.jpg", GOOD, "no such date"),
        (f"{DEVICE}.2019-10-31_23-59-59.jpg", GOOD, "begin on 2019-11-01"),
        (f"{DEVICE}.2126-06-20_20-19-15.jpg", GOOD, "lies in the future"),
        (NAME, b"", "empty"),
        (NAME, b"GIF89a and so on", "not a JPEG"),
        (NAME, GOOD[: len(GOOD) * 6 // 10], "cut off"),
        (NAME, GOOD[:-2], "cut off"),
        (NAME, plain(), "no EXIF"),
        (NAME, dressed(make=None), "no Make"),
        (NAME, dressed(make=b"Raspberry Pi"), "one word"),
        (NAME, dressed(make=b"123"), "must be one word"),
        (NAME, dressed(make=b"{'lat': 1.0}", comment=None), "Make"),
        (NAME, dressed(comment=None), "UserComment"),
        (NAME, dressed(comment=b"v,T,H"), "lines"),
        (NAME, dressed(comment=columns(v="3.1.0", T="")), "UserComment"),
        (NAME, dressed(comment=columns(v="3.1.0", T="nan")), "UserComment"),
        (NAME, dressed(comment=columns(v="3.1.0", b="true")), "UserComment"),
        (NAME, dressed(comment=columns(v="3.1.0", lat="1000.5")), "no room"),
        (NAME, dressed(comment=columns(v="3.1.0", B="1e30")), "no room"),
        (NAME, dressed(comment=columns(v="3.1.0-rc.1")), "device_version"),
    ],
)
def test_what_the_original_fails_on_is_refused_with_a_reason(
    empty_hub: RunningHub, name: str, content: bytes, says: str
) -> None:
    answer = empty_hub.upload(name, content)

    assert answer.status_code == 500
    assert answer.headers["Content-Type"].startswith("text/html")
    assert says in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("md5", [md5_of(OTHER), md5_of(GOOD).upper()])
def test_another_md5_than_the_senders_is_refused(empty_hub: RunningHub, md5: str) -> None:
    assert empty_hub.upload(NAME, GOOD, md5).status_code == 500


def test_the_name_of_the_part_counts_and_not_that_of_the_file(hub: RunningHub) -> None:
    def upload(part: str, filename: str) -> int:
        files = {part: (filename, GOOD)}
        url = f"{hub.url}/_put_new_images"
        return requests.post(url, files=files, auth=hub.auth(), timeout=10).status_code

    assert upload("file", NAME) == 500
    assert upload(NAME, "zzz") == 200


@pytest.mark.parametrize("has_libvips", [True, False])
def test_a_picture_with_stray_bytes_that_a_trap_delivers_is_taken(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, has_libvips: bool
) -> None:
    """A hub without libvips refused it, at each attempt; the trap's decoder had found it whole."""
    if not has_libvips:
        monkeypatch.setattr(thumbnail, "missing", lambda: "libvips is missing: run this")
    first = next(structure.segments(GOOD)).end
    odd = GOOD[:first] + b"?>" + GOOD[first:]
    assert hub.upload(NAME, odd, md5_of(odd)).status_code == 200
    assert hub.stored() == {NAME: md5_of(odd)}
    assert hub.upload("0a5bb6f4.2026-06-20_20-37-59.jpg", odd[:-400]).status_code == 500


def test_a_request_without_a_file_is_refused(empty_hub: RunningHub) -> None:
    answer = requests.post(f"{empty_hub.url}/_put_new_images", auth=empty_hub.auth(), timeout=10)

    assert answer.status_code == 500


def test_of_several_images_those_before_the_bad_one_are_stored(hub: RunningHub) -> None:
    second, third = LIBRARY[1], LIBRARY[2]
    files = {NAME: (NAME, GOOD), second: (second, b"bad"), third: (third, GOOD)}

    answer = requests.post(f"{hub.url}/_put_new_images", files=files, auth=hub.auth(), timeout=10)

    assert answer.status_code == 500
    assert hub.stored() == {NAME: md5_of(GOOD)}


def test_several_good_images_are_answered_with_a_row_each(hub: RunningHub) -> None:
    files = {name: (name, GOOD) for name in LIBRARY}

    answer = requests.post(f"{hub.url}/_put_new_images", files=files, auth=hub.auth(), timeout=10)

    assert len(answer.json()) == 4
    assert sorted(hub.stored()) == LIBRARY


def test_a_body_beyond_the_limit_is_413(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub", largest_body=1000) as hub:
        assert hub.upload(NAME, dressed(comment=COMMENT + b" " * 2000)).status_code == 413
        assert hub.rows() == []


def test_a_connection_that_breaks_in_the_body_stores_nothing(empty_hub: RunningHub) -> None:
    with closing(socket.create_connection(("127.0.0.1", empty_hub.port))) as connection:
        connection.sendall(
            b"POST /_put_new_images HTTP/1.1\r\nHost: hub\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n" + GOOD
        )

    assert empty_hub.ask("get_images/metadata", [KEY]).json() == []


@pytest.mark.parametrize("place", ["images/.incoming", "thumbnails/.making"])
def test_what_a_crash_left_in_the_way_in_is_gone_after_a_start(tmp_path: Path, place: str) -> None:
    """A picture, a download's tables, and a link: what that leads to stays."""
    folder, elsewhere = tmp_path / place, tmp_path / "elsewhere"
    for path in (folder / "0123.jpg", folder / "trapsync-hub-x" / "tables" / "media.csv", elsewhere / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GOOD)
    (folder / "link").symlink_to(elsewhere)

    store = Store(tmp_path, Database(tmp_path / "hub.sqlite"))
    Thumbnails(tmp_path, store, NO_EXAMINER)

    assert list(folder.iterdir()) == []
    assert (elsewhere / "x").exists()


# --- Never twice, never overwritten -------------------------------------------------------------------------


def test_the_same_bytes_again_are_refused_and_change_nothing(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    before = hub.rows()

    answer = hub.upload(NAME, GOOD, md5_of(GOOD))

    assert answer.status_code == 500
    assert "stored already" in answer.text
    assert hub.rows() == before
    assert [path.name for path in hub.folder.rglob("*.jpg")] == [NAME]


def test_a_conflict_never_overwrites_and_is_kept_aside(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    before = hub.rows()

    answer = hub.upload(NAME, OTHER, md5_of(OTHER))

    assert answer.status_code == 500
    assert "conflict" in answer.text
    assert hub.rows() == before
    assert hub.store.path(before[0]).read_bytes() == GOOD
    (aside,) = hub.store.conflicts.rglob("*.jpg")
    assert aside.read_bytes() == OTHER


def test_a_conflict_sent_again_and_again_is_kept_once(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)

    for _ in range(3):
        hub.upload(NAME, OTHER)

    assert len(list(hub.store.conflicts.rglob("*.jpg"))) == 1


def test_a_file_is_written_once_as_it_comes(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Werkzeug wrote it to a temporary file first."""
    monkeypatch.setattr(
        "werkzeug.formparser.default_stream_factory", lambda *_, **__: pytest.fail("a second copy")
    )
    large = GOOD + bytes(3 * 10**6)

    assert hub.upload(NAME, large, md5_of(large)).status_code == 200
    assert hub.store.path(hub.rows()[0]).read_bytes() == large
    assert list(hub.store.incoming.iterdir()) == []


def test_of_many_other_versions_of_one_second_ten_are_kept(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    others = [dressed(shade=shade) for shade in range(10, 22)]

    said = [hub.upload(NAME, other).text for other in others]

    assert ["was moved to conflicts" in text for text in said] == [True] * 10 + [False] * 2
    assert "was not kept: 10 others are in conflicts" in said[-1]
    assert {path.read_bytes() for path in hub.store.conflicts.rglob("*.jpg")} == {*others[:10]}
    assert "was moved to conflicts" in hub.upload(NAME, others[3]).text  # it is there already
    assert list(hub.store.incoming.iterdir()) == []


def test_of_a_hundred_files_in_a_request_all_are_looked_at_and_none_of_more_stays(hub: RunningHub) -> None:
    files = {f"{DEVICE}.2026-06-20_20-{n // 60:02}-{n % 60:02}.jpg": ("x", GOOD) for n in range(101)}
    url, auth = f"{hub.url}/_put_new_images", hub.auth()

    assert requests.post(url, files=files, auth=auth, timeout=60).status_code == 413
    assert [path for path in hub.store.images.rglob("*") if path.is_file()] == []
    files.popitem()
    assert len(requests.post(url, files=files, auth=auth, timeout=60).json()) == 100


def test_a_device_in_another_case_is_the_same_device(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)

    assert hub.upload(NAME.upper().replace("JPG", "jpg"), OTHER).status_code == 500
    assert hub.stored() == {NAME: md5_of(GOOD)}


@pytest.fixture
def crashed(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> RunningHub:
    """A hub that died after the rename of GOOD and before its row."""
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_INSERT", "INSERT INTO nowhere VALUES (:md5)")
        assert hub.upload(NAME, GOOD).status_code == 500
    assert hub.rows() == []
    assert [path.name for path in hub.folder.rglob("*.jpg")] == [NAME]
    return hub


def test_after_a_crash_before_the_row_the_same_image_is_stored(crashed: RunningHub) -> None:
    assert crashed.upload(NAME, GOOD, md5_of(GOOD)).status_code == 200
    assert crashed.stored() == {NAME: md5_of(GOOD)}
    assert list(crashed.store.conflicts.rglob("*.jpg")) == []


def test_after_a_crash_before_the_row_other_bytes_are_stored_and_the_file_is_kept_aside(
    crashed: RunningHub,
) -> None:
    assert crashed.upload(NAME, OTHER, md5_of(OTHER)).status_code == 200
    assert crashed.stored() == {NAME: md5_of(OTHER)}
    (aside,) = crashed.store.conflicts.rglob("*.jpg")
    assert aside.read_bytes() == GOOD


def test_of_eight_uploads_of_one_image_at_once_one_stores_it(hub: RunningHub) -> None:
    hub.auth()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: hub.upload(NAME, GOOD, md5_of(GOOD)).status_code, range(8)))

    assert sorted(statuses) == [200] + [500] * 7
    assert hub.stored() == {NAME: md5_of(GOOD)}
    assert [path.name for path in hub.folder.rglob("*.jpg")] == [NAME]


def test_of_eight_uploads_for_one_second_the_one_that_got_200_is_stored(hub: RunningHub) -> None:
    hub.auth()
    contents = [dressed(shade=20 * number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda content: hub.upload(NAME, content).status_code, contents))

    assert sorted(statuses) == [200] + [500] * 7
    winner = contents[statuses.index(200)]
    assert hub.stored() == {NAME: md5_of(winner)}
    assert hub.store.path(hub.rows()[0]).read_bytes() == winner
    assert len(list(hub.store.conflicts.rglob("*.jpg"))) == 7


def test_eight_images_at_once_are_all_stored(hub: RunningHub) -> None:
    hub.auth()
    names = [f"{DEVICE}.2026-06-20_20-19-{second:02}.jpg" for second in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: hub.upload(name, GOOD), names))

    assert [answer.status_code for answer in answers] == [200] * 8
    assert sorted(hub.stored()) == names


# --- Finding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["2026-06-20T20:19:15Z", "2026-06-20_20-19-15", "2026-06-20 20:19:15"])
def test_a_date_is_understood_in_three_spellings(library: RunningHub, spelling: str) -> None:
    (row,) = library.ask("get_images/metadata", [{**KEY, "datetime": spelling}]).json()

    assert row["datetime"] == "2026-06-20T20:19:15Z"


@pytest.mark.parametrize(
    "key",
    [
        {**KEY, "datetime": "2026-06-20T20:19:15+00:00"},
        {**KEY, "datetime": "2026-06-20T20:19:15"},
        {**KEY, "datetime": 1782000000},
        {**KEY, "device": "ffffffff"},
        {**KEY, "device": "%"},
        {**KEY, "device": None},
        {**KEY, "device": "0a5bb6f4' OR '1'='1"},
        {**KEY, "datetime": "2026-06-20T20:19:15Z' OR '1'='1"},
        {**KEY, "device": '"); DROP TABLE images; --'},
    ],
)
def test_what_matches_nothing_is_missing_from_the_answer(library: RunningHub, key: dict[str, Any]) -> None:
    answer = library.ask("get_images/metadata", [key])

    assert (answer.status_code, answer.json()) == (200, [])


def test_hits_come_once_each_in_any_case_and_whatever_else_is_asked(library: RunningHub) -> None:
    asked = [
        {**KEY, "device": "1B74105A"},
        KEY,
        {**KEY, "url": "x", "md5": "y"},
        {**KEY, "device": "unknown"},
    ]

    found = library.ask("get_images/metadata", asked).json()

    assert [row["device"] for row in found] == [DEVICE, "1b74105a"]


def test_ten_thousand_keys_in_one_question_are_answered(library: RunningHub) -> None:
    keys = [{"device": f"{number:08x}", "datetime": KEY["datetime"]} for number in range(10_000)]

    assert len(library.ask("get_images/metadata", [*keys, KEY]).json()) == 1


@pytest.mark.parametrize("body", [[], [{}], [{"device": DEVICE}], {}, None, ["x"], "x"])
@pytest.mark.parametrize("user", ["trap", "reader"])
def test_a_question_without_keys_is_500(empty_hub: RunningHub, body: Any, user: str) -> None:
    answer = requests.post(
        f"{empty_hub.url}/get_images/metadata",
        data=json.dumps(body),
        headers={"Content-Type": "application/json"},
        auth=empty_hub.auth(user),
        timeout=10,
    )

    assert answer.status_code == 500


def test_an_unknown_kind_of_url_is_500(library: RunningHub) -> None:
    assert library.ask("get_images/bogus", [KEY]).status_code == 500


@pytest.mark.parametrize(
    ("device", "start", "end", "count"),
    [
        ("%", "2026-06-20T00:00:00Z", "2026-06-22T00:00:00Z", 4),
        ("0a5bb6f4", "2026-06-20T00:00:00Z", "2026-06-22T00:00:00Z", 3),
        ("0A5B____", "2026-06-20T00:00:00Z", "2026-06-22T00:00:00Z", 3),
        ("0a5bb6f4", "2026-06-20T20:19:15Z", "2026-06-21T00:00:00Z", 2),
        ("0a5bb6f4", "2026-06-20_20-19-16", "2026-06-21 00:00:01", 2),
        ("0a5bb6f4", "2026-06-21", "2026-06-22", 1),
        ("0a5bb6f4", "2026-06-22T00:00:00Z", "2026-06-20T00:00:00Z", 0),
        ("0a5bb6f4' OR 1=1 --", "2026-06-20T00:00:00Z", "2026-06-22T00:00:00Z", 0),
    ],
)
def test_a_series_holds_its_start_and_not_its_end(
    library: RunningHub, device: str, start: str, end: str, count: int
) -> None:
    asked = {"device": device, "start_datetime": start, "end_datetime": end}

    assert len(library.ask("get_image_series/metadata", [asked]).json()) == count


def test_a_long_answer_is_compressed_for_those_who_can_read_that(library: RunningHub) -> None:
    def ask(encoding: str) -> bytes:
        url, headers = f"{library.url}/get_image_series/metadata", {"Accept-Encoding": encoding}
        auth = library.auth()
        with requests.post(
            url, json=[EVERYTHING], headers=headers, auth=auth, timeout=10, stream=True
        ) as answer:
            return bytes(answer.raw.read(decode_content=False))

    compressed, written = ask("gzip"), ask("identity")

    assert gzip.decompress(compressed) == written
    assert len(compressed) < len(written) / 2


@pytest.mark.parametrize(
    ("spelt", "kept"),
    [("2026-06-20_20-19-15", "2026-06-20T20:19:15Z"), ("2026-06-20", "2026-06-20"), (None, "None")],
)
def test_a_moment_is_kept_in_one_spelling_or_as_it_came(spelt: object, kept: str) -> None:
    assert moment(spelt) == kept


# --- Addresses of images ------------------------------------------------------------------------------------


def test_the_address_of_an_image_needs_no_password_and_gives_its_bytes(library: RunningHub) -> None:
    (row,) = library.ask("get_images/image", [KEY]).json()

    answer = requests.get(row["url"], timeout=10)

    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.content == GOOD
    assert NAME in row["url"]


def test_one_byte_of_an_image_tells_the_digest_of_the_bytes_as_they_are(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    (row,) = hub.ask("get_images/image", [KEY]).json()

    def asked() -> requests.Response:
        return requests.get(row["url"], headers={"Range": "bytes=0-0"}, timeout=10)

    assert (asked().status_code, asked().content, asked().headers["ETag"]) == (
        206,
        GOOD[:1],
        f'"{md5_of(GOOD)}"',
    )
    assert requests.get(row["url"], timeout=10).headers["ETag"] == f'"{md5_of(GOOD)}"'
    (path,) = map(hub.store.path, hub.rows())
    path.write_bytes(GOOD[:-1] + b"X")
    assert asked().headers["ETag"] == f'"{md5_of(GOOD[:-1] + b"X")}"'
    path.unlink()
    assert asked().status_code == 404
    assert requests.get(row["url"], timeout=10).status_code == 404


def test_a_hub_in_a_folder_named_from_here_finds_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with hub_server.running(Path("hub")) as hub:
        hub.upload(NAME, GOOD)
        (row,) = hub.ask("get_images/image", [KEY]).json()

        assert requests.get(row["url"], timeout=10).content == GOOD


@pytest.mark.parametrize(("what", "width", "height"), [("thumbnail", 512, 384), ("thumbnail-mini", 128, 96)])
def test_small_copies_fit_their_boxes(hub: RunningHub, what: str, width: int, height: int) -> None:
    picture = pyvips.Image.black(1024, 768).jpegsave_buffer(strip=True)
    taken = datetime(2026, 6, 20, tzinfo=UTC)
    facts = exif.Facts(taken=taken, model="", software="", version="1", width=1024, height=768)
    hub.upload(NAME, exif.embed_metadata(picture, facts))
    (row,) = hub.ask(f"get_image_series/{what}", [EVERYTHING]).json()

    copy = pyvips.Image.new_from_buffer(requests.get(row["url"], timeout=10).content, "")

    assert (copy.width, copy.height) == (width, height)


def test_where_no_small_copy_can_be_made_the_image_is_sent(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: Path) -> None:
        raise TrapsyncError("libvips is missing")

    monkeypatch.setattr(thumbnail, "make", make)
    hub.upload(NAME, GOOD)
    (row,) = hub.ask("get_images/thumbnail", [KEY]).json()

    assert requests.get(row["url"], timeout=10).content == GOOD


def test_an_address_is_the_same_for_an_hour_and_ends_after_a_week(tmp_path: Path) -> None:
    clock = HandClock()
    with hub_server.running(tmp_path / "hub", clock=clock) as hub:
        hub.upload(NAME, GOOD)
        (row,) = hub.ask("get_images/image", [KEY]).json()
        clock.now += 3599
        assert hub.ask("get_images/image", [KEY]).json()[0]["url"] == row["url"]
        clock.now += LINK_LIFE - 3600
        assert requests.get(row["url"], timeout=10).status_code == 200
        clock.now += 3601
        assert requests.get(row["url"], timeout=10).status_code == 403


def test_the_hub_says_what_it_is_and_whether_it_is_well_to_anybody(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        greeting = requests.get(f"{hub.url}/", timeout=10)
        assert (greeting.status_code, "Log in to this hub" in greeting.text) == (200, True)
        assert requests.get(f"{hub.url}/health", timeout=10).text == "ok\n"
        assert requests.post(f"{hub.url}/health", timeout=10).status_code == 405
        with patch("trapsync.files.space.free_bytes", return_value=-1):
            full = requests.get(f"{hub.url}/health", timeout=10)
    assert (full.status_code, "is to leave" in full.text) == (507, True)


@pytest.mark.parametrize("end", ["another password", "removed"])
def test_an_address_ends_with_the_account_that_asked_for_it(tmp_path: Path, end: str) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        hub.upload(NAME, GOOD)
        (row,) = hub.ask("get_images/image", [KEY], user="reader").json()
        assert requests.get(row["url"], timeout=10).status_code == 200
        if end == "removed":
            hub.hub.accounts.remove("reader")
        else:
            hub.hub.accounts.add("reader", "another", "viewer")
        assert requests.get(row["url"], timeout=10).status_code == 403


def test_a_changed_address_is_403_and_one_of_a_deleted_image_404(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    url = hub.ask("get_images/image", [KEY]).json()[0]["url"]
    hub.ask("delete_images", [KEY], user="owner")

    assert requests.get(url, timeout=10).status_code == 404
    assert requests.get(url[:-1], timeout=10).status_code == 403
    assert requests.get(url.partition("?")[0], timeout=10).status_code == 403


# --- Deleting and annotating --------------------------------------------------------------------------------


def annotation(**about: str) -> dict[str, Any]:
    metadata = {"algo_name": "detector", "algo_version": "1-a", "md5": md5_of(GOOD), **KEY, **about}
    contour = [[[2194, 1597]], [[2189, 1602]], [[2189, 1617]]]
    insect = {
        "contour": contour,
        "name": "insect",
        "fill_colour": "#f00",
        "stroke_colour": "#00f",
        "value": 0,
    }
    return {"annotations": [insect], "metadata": metadata}


def test_deleting_removes_rows_files_and_annotations_and_answers_with_the_rows(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    hub.upload(LIBRARY[1], GOOD)
    hub.ask("put_uid_annotations", [annotation()])
    requests.get(hub.ask("get_images/thumbnail", [KEY]).json()[0]["url"], timeout=10)

    deleted = hub.ask("delete_images", [KEY, {**KEY, "device": "unknown'"}], user="owner").json()

    assert [row["datetime"] for row in deleted] == [KEY["datetime"]]
    assert [path.name for path in hub.folder.rglob("*.jpg")] == [LIBRARY[1]]
    assert list(hub.stored()) == [LIBRARY[1]]
    with hub.hub.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM uid_annotations").fetchone()[0] == 0


def test_a_deleted_image_can_be_stored_again(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)
    hub.ask("delete_images", [KEY], user="owner")

    assert hub.upload(NAME, OTHER).status_code == 200
    assert hub.stored() == {NAME: md5_of(OTHER)}


def test_deleting_nothing_is_no_error(empty_hub: RunningHub) -> None:
    assert empty_hub.ask("delete_images", [], user="owner").json() == []
    assert empty_hub.ask("delete_images", [KEY], user="owner").json() == []


def test_annotations_come_back_with_their_json_only_as_data(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)

    (stored,) = hub.ask("put_uid_annotations", [annotation()]).json()
    (metadata,) = hub.ask("get_uid_annotations/metadata", [KEY]).json()
    (data,) = hub.ask("get_uid_annotations/data", [KEY], user="reader").json()

    assert (stored["json"], stored["n_objects"], "json" in metadata) == ("", 1, False)
    assert json.loads(data.pop("json")) == annotation()
    assert data == metadata


@pytest.mark.parametrize(
    "about",
    [
        {"device": "ffffffff"},
        {"md5": md5_of(OTHER)},
        {"algo_name": "x" * 65},
        {"algo_version": "x" * 47},
    ],
)
def test_an_annotation_that_fits_no_image_costs_the_whole_request(
    hub: RunningHub, about: dict[str, str]
) -> None:
    hub.upload(NAME, GOOD)

    assert hub.ask("put_uid_annotations", [annotation(), annotation(**about)]).status_code == 500
    assert hub.ask("get_uid_annotations/metadata", [KEY]).json() == []


def test_a_version_of_a_detector_speaks_once_on_an_image(hub: RunningHub) -> None:
    hub.upload(NAME, GOOD)

    assert hub.ask("put_uid_annotations", [annotation()]).status_code == 200
    assert hub.ask("put_uid_annotations", [annotation()]).status_code == 500
    assert hub.ask("put_uid_annotations", [annotation(algo_version="2-b")]).status_code == 200


# --- What makes no sense -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("get_images/metadata", b'[{"device": ' + b"[" * 5000 + b"]" * 5000 + b"}]", 400),
        ("get_images/metadata", b'[{"device": ' + b"[" * 40 + b"]" * 40 + b', "datetime": 1}]', 400),
        ("get_images/metadata", b'[{"device": "\\ud800", "datetime": "x"}]', 400),
        ("get_images/metadata", b'[{"device": NaN, "datetime": "x"}]', 400),
        ("get_images/metadata", b'[{"device": 1e999, "datetime": ' + b"9" * 5000 + b"}]", 400),
        ("get_images/metadata", b'[{"device": "x", "datetime": "%s"}]' % (b"1" * 60_000), 500),
        ("get_images/metadata", b"[" + b'{"device": "x", "datetime": "y"},' * 60_000 + b"{}]", 413),
        (
            "get_image_series/metadata",
            b'[{"device": "%s", "start_datetime": "", "end_datetime": "z"}]' % (b"%a" * 30_000),
            500,
        ),
        ("put_uid_annotations", b'[{"annotations": 5, "metadata": {}}]', 500),
        ("put_uid_annotations", b'[{"annotations": [], "metadata": 5}]', 500),
        ("put_uid_annotations", b'[{"annotations": [], "metadata": {"device": "a"}}]', 500),
        ("get_images/%0a%3C2%3Eforged%1b%5B2J", b"[%s]" % json.dumps(KEY).encode(), 500),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_one_line_without_a_traceback(
    library: RunningHub, caplog: pytest.LogCaptureFixture, path: str, body: bytes, status: int
) -> None:
    answer = requests.post(
        f"{library.url}/{path}",
        data=body,
        headers={"Content-Type": "application/json"},
        auth=library.auth(),
        timeout=10,
    )

    assert answer.status_code == status
    assert not [record for record in caplog.records if record.exc_info]
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)


def test_two_files_of_one_name_in_one_request_are_refused_and_none_is_stored(empty_hub: RunningHub) -> None:
    files = [(NAME, ("a.jpg", GOOD)), (NAME, ("b.jpg", OTHER))]

    answer = requests.post(f"{empty_hub.url}/_put_new_images", files=files, auth=empty_hub.auth(), timeout=10)

    assert answer.status_code == 500
    assert "two files in the request have the same name" in answer.text
    assert empty_hub.ask("get_images/metadata", [KEY]).json() == []


def test_the_name_of_a_part_makes_no_line_of_its_own_in_the_log(
    hub: RunningHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    part = f"x\x85<2>forged\x1b[2J/{NAME}"
    for _ in range(2):
        requests.post(
            f"{hub.url}/_put_new_images",
            data=(
                f'--b\r\nContent-Disposition: form-data; name="{part}"; filename=a.jpg\r\n\r\n'.encode()
                + GOOD
                + b"\r\n--b--\r\n"
            ),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
            auth=hub.auth(),
            timeout=10,
        )

    assert [record.getMessage().isprintable() for record in caplog.records].count(False) == 0
    assert "stored already, sent again by" in caplog.text


# --- Who may ------------------------------------------------------------------------------------------------


ENDPOINTS = (
    *("get_token", "get_images/metadata", "get_image_series/metadata", "_put_new_images", "delete_images"),
    *("put_uid_annotations", "get_uid_annotations/data", "get_uid_annotations_series/data"),
)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "auth", [None, ("trap", "wrong"), ("trap", ""), ("nobody", PASSWORD), ("eyJpZCI6MX0.AAAA.BBBB", "")]
)
def test_a_stranger_is_401_in_the_originals_words(
    empty_hub: RunningHub, path: str, auth: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guesses, "wait", lambda *_: 0)  # the delay after the case before
    answer = requests.post(f"{empty_hub.url}/{path}", auth=auth, timeout=10)

    assert (answer.status_code, answer.text) == (401, "Unauthorized Access")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Authentication Required"'
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_login_that_is_no_text_is_nobodys(empty_hub: RunningHub, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Authorization": b"Basic \xff"}
    assert requests.post(f"{empty_hub.url}/get_token", headers=headers, timeout=10).status_code == 401
    assert not any(record.exc_info for record in caplog.records)


def test_what_is_no_number_of_a_code_is_404(empty_hub: RunningHub, caplog: pytest.LogCaptureFixture) -> None:
    url = f"{empty_hub.url}/invitations/{10**30}"
    assert requests.delete(url, auth=empty_hub.auth("owner"), timeout=10).status_code == 404
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("reader", "_put_new_images"),
        ("reader", "put_uid_annotations"),
        ("reader", "delete_images"),
        ("trap", "delete_images"),
    ],
)
def test_who_may_not_is_403_in_the_same_words(empty_hub: RunningHub, user: str, path: str) -> None:
    answer = empty_hub.ask(path, [KEY], user=user)

    assert (answer.status_code, answer.text) == (403, "Unauthorized Access")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Authentication Required"'


def test_a_reader_may_not_upload(empty_hub: RunningHub) -> None:
    assert empty_hub.upload(NAME, GOOD, user="reader").status_code == 403


@pytest.mark.parametrize("path", ENDPOINTS)
def test_only_post_is_known(empty_hub: RunningHub, path: str) -> None:
    assert requests.get(f"{empty_hub.url}/{path}", auth=empty_hub.auth(), timeout=10).status_code == 405


@pytest.mark.parametrize("path", ["nowhere", "get_images", "get_images/", "get_image_series", "images/x"])
def test_an_unknown_path_is_404(empty_hub: RunningHub, path: str) -> None:
    assert empty_hub.ask(path, [KEY]).status_code == 404


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"[]", 415),
        (None, None, 415),
        ("application/json", b"[{", 400),
        ("application/json", gzip.compress(b"[]", mtime=0), 400),
    ],
)
def test_what_is_no_json_is_refused_as_such(
    empty_hub: RunningHub, content_type: str | None, body: bytes | None, status: int
) -> None:
    url = f"{empty_hub.url}/get_images/metadata"
    headers = {"Content-Type": content_type} if content_type else {}

    answer = requests.post(url, data=body, headers=headers, auth=empty_hub.auth(), timeout=10)

    assert answer.status_code == status


def test_a_password_works_on_every_endpoint(empty_hub: RunningHub) -> None:
    empty_hub.auth("reader")
    url = f"{empty_hub.url}/get_images/metadata"

    assert requests.post(url, json=[KEY], auth=("reader", PASSWORD), timeout=10).json() == []


def test_a_token_lives_for_a_day_and_can_fetch_the_next(tmp_path: Path) -> None:
    clock = HandClock()
    with hub_server.running(tmp_path / "hub", clock=clock) as hub:
        url = f"{hub.url}/get_token"
        first = requests.post(url, auth=("trap", PASSWORD), timeout=10).json()
        assert first["expiration"] == int(clock.now) + 86400
        clock.now += 86400
        second = requests.post(url, auth=(first["token"], ""), timeout=10).json()
        clock.now += 1
        assert requests.post(url, auth=(first["token"], ""), timeout=10).status_code == 401
        assert requests.post(url, auth=(second["token"], ""), timeout=10).status_code == 200


def test_a_token_outlives_a_restart_but_not_a_new_password(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        token = requests.post(f"{hub.url}/get_token", auth=("trap", PASSWORD), timeout=10).json()["token"]
    with hub_server.running(tmp_path / "hub") as hub:
        url = f"{hub.url}/get_token"
        assert requests.post(url, auth=(token, ""), timeout=10).status_code == 200
        hub.hub.accounts.add("trap", "another", "manager")
        assert requests.post(url, auth=(token, ""), timeout=10).status_code == 401


def test_another_hub_does_not_know_the_token(empty_hub: RunningHub, hub: RunningHub) -> None:
    url = f"{hub.url}/get_token"

    assert requests.post(url, auth=empty_hub.auth(), timeout=10).status_code == 401


def test_no_password_is_kept_and_none_but_the_owner_of_the_file_reads_it(hub: RunningHub) -> None:
    database = hub.folder / "hub.sqlite"

    kept = b"".join(path.read_bytes() for path in hub.folder.glob("hub.sqlite*"))

    assert PASSWORD.encode() not in kept
    assert database.stat().st_mode & 0o077 == 0


def test_the_log_has_a_line_per_image_and_no_secret(
    hub: RunningHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = hub.auth()[0]
    hub.upload(NAME, GOOD)
    hub.upload(NAME, OTHER)
    url = hub.ask("get_images/image", [KEY]).json()[0]["url"]
    requests.get(url, timeout=10)
    requests.post(f"{hub.url}/get_token", auth=("trap", "a wrong guess"), timeout=10)

    lines = [record.getMessage() for record in caplog.records if record.name.startswith("trapsync")]

    assert f"stored {NAME}: {len(GOOD)} bytes from trap" in lines
    for secret in (PASSWORD, "a wrong guess", token, url.partition("=")[2]):
        assert not any(secret in line for line in lines)


@pytest.mark.parametrize(
    ("name", "password", "role"),
    [("", "x", "admin"), ("a:b", "x", "admin"), ("a", "", "admin"), ("a", "x", "boss")],
)
def test_an_account_that_makes_no_sense_is_refused(
    tmp_path: Path, name: str, password: str, role: Any
) -> None:
    with pytest.raises(SettingsError):
        Hub.open(tmp_path).accounts.add(name, password, role)


# --- Starting and stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("trap.local", False), ("", False)),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours


def test_the_first_start_on_loopback_makes_a_user_and_says_so(tmp_path: Path) -> None:
    hub, said = Hub.open(tmp_path), list[str]()

    prepare_accounts(hub, "127.0.0.1", say=said.append)
    prepare_accounts(hub, "127.0.0.1", say=said.append)

    assert hub.accounts.recognise("trapsync", DEFAULT_PASSWORD) is not None
    assert len(said) == 1
    assert DEFAULT_PASSWORD in said[0]


def test_on_an_open_address_there_is_no_default_user(tmp_path: Path) -> None:
    hub = Hub.open(tmp_path)

    with pytest.raises(SettingsError, match="trapsync hub users add NAME --role admin"):
        prepare_accounts(hub, "0.0.0.0")
    with pytest.raises(SettingsError, match="by the proxy, and nobody can log in"):
        prepare_accounts(hub, "127.0.0.1", behind_proxy=True)

    assert hub.accounts.names() == []


@pytest.mark.parametrize(("name", "password"), [("trapsync", DEFAULT_PASSWORD), ("moth", "moth")])
def test_an_open_address_is_refused_while_a_password_can_be_guessed(
    tmp_path: Path, name: str, password: str
) -> None:
    hub = Hub.open(tmp_path)
    hub.accounts.add(name, password, "viewer")
    hub.accounts.add("safe", "a long and secret one", "admin")

    with pytest.raises(SettingsError, match=repr(name)) as refusal:
        prepare_accounts(hub, "0.0.0.0")

    assert "\n" not in str(refusal.value)


def test_a_password_file_opens_the_hub_to_others(tmp_path: Path) -> None:
    hub = Hub.open(tmp_path / "hub")
    hub.accounts.add("trapsync", DEFAULT_PASSWORD, "admin")
    secret = tmp_path / "password"
    secret.write_text("a long and secret one\n")
    secret.chmod(0o600)

    prepare_accounts(hub, "0.0.0.0", secret)

    user = hub.accounts.recognise("trapsync", "a long and secret one")
    assert user is not None
    assert user.role == "admin"


@pytest.mark.parametrize(
    ("content", "mode"), [("", 0o600), ("\n", 0o600), ("trapsync\n", 0o600), ("good", 0o644)]
)
def test_an_empty_default_or_readable_password_file_is_refused(
    tmp_path: Path, content: str, mode: int
) -> None:
    secret = tmp_path / "password"
    secret.write_text(content)
    secret.chmod(mode)

    with pytest.raises(SettingsError):
        prepare_accounts(Hub.open(tmp_path / "hub"), "0.0.0.0", secret)


def test_a_taken_port_is_one_clear_line(empty_hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        serve(Settings(folder=tmp_path / "hub", port=empty_hub.port))

    assert str(refusal.value) == f"port {empty_hub.port} is in use; choose another with --port"


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "300.1.1.1"])
def test_an_address_that_is_not_ours_is_one_clear_line(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="cannot listen on"):
        listen(make_app(Hub.open(tmp_path)), host, 0)


def test_a_folder_belongs_to_one_hub(tmp_path: Path) -> None:
    with running_program(tmp_path), pytest.raises(StorageError, match="another hub"):
        serve(Settings(folder=tmp_path, port=0))


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError):
        serve(Settings(folder=tmp_path / "file" / "hub", port=0))


def test_a_database_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite").write_bytes(b"no database" * 1000)

    with pytest.raises(StorageError, match="cannot be opened"):
        Hub.open(tmp_path)


def test_the_schema_is_made_once_and_numbered(tmp_path: Path) -> None:
    Hub.open(tmp_path).accounts.add("moth", "x")

    assert Hub.open(tmp_path).accounts.names() == ["moth"]
    with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(database_module._MIGRATIONS),)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_stop_lets_the_request_under_way_finish(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(hub_server.InThisProcess):
        def examine(self, folder: Path, name: str) -> Image:
            begun.set()
            assert go_on.wait(10)
            return super().examine(folder, name)

    with hub_server.running(tmp_path / "hub", examiner=Slow()) as hub, ThreadPoolExecutor(1) as pool:
        hub.auth()
        uploading = pool.submit(hub.upload, NAME, GOOD)
        assert begun.wait(10)
        hub.stop()
        go_on.set()
        assert uploading.result().status_code == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_cleanly_at_a_signal(tmp_path: Path, how: signal.Signals) -> None:
    with running_program(tmp_path) as program:
        program.send_signal(how)
        program.send_signal(how)  # in a hurry
        said, complaint = program.communicate(timeout=5)

    assert (program.returncode, complaint) == (0, "")
    assert said.endswith("the hub has stopped\n")


@contextmanager
def running_program(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`serve` in a process of its own, on a free port; it listens when the block begins."""
    code = (
        "import sys, functools, pathlib\n"
        "from trapsync.hub.server import serve\n"
        "from trapsync.settings.hub import Hub\n"
        "serve(Hub(folder=pathlib.Path(sys.argv[1]), port=0), say=functools.partial(print, flush=True))\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert program.stdout is not None
        said = program.stdout.readline() + program.stdout.readline()
        assert "listens on http://127.0.0.1:" in said
        yield program
    finally:
        program.kill()
        program.communicate()
