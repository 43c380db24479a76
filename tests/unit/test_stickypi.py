"""The Sticky Pi protocol, against a faithful server in memory, the hub, and a server that misbehaves."""

import base64
import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest
import requests

import drawings
import hub_server
import killed_trap
import leak_check
import trap_bench as bench
from conformance import ATTEMPTS, Card, Conformance, OverHttp, strange_rows
from fake_time import FakeTime
from fault_server import JSON, FailingOnce, FaultServer, Forwarding, Original
from memory_context import SOURCE, connected, context
from trapsync import destinations, pipeline
from trapsync.destinations import Receipt, confirmation, stickypi
from trapsync.destinations.outcomes import Turn
from trapsync.destinations.stickypi import Settings, StickyPi
from trapsync.errors import (
    DeliveryError,
    Failed,
    Held,
    NotThere,
    Refused,
    SettingsError,
    Unauthorised,
    Unreachable,
    Unresolved,
)
from trapsync.image import Image
from trapsync.net.stickypi_rules import problem
from trapsync.runtime.upload_pool import UploadPool
from trapsync.settings.schema import Settings as AllSettings
from trapsync.settings.units import Duration, Size

PUT, ASK, TOKEN = "/_put_new_images", "/get_images/metadata", "/get_token"
ADDRESSES = "/get_images/image"


class Server:
    """A site: a fault server in front of the original in memory."""

    def __init__(self, front: FaultServer, original: Original, folder: Path) -> None:
        self.front = front
        self.original = original
        self.original.url = front.url
        self.time = FakeTime()
        self.context = context(self.time)
        self._password = folder / "password"
        self.change_password(original.password)

    def change_password(self, password: str) -> None:
        """Let the trap's password file say this."""
        self._password.write_text(password + "\n")
        self._password.chmod(0o600)

    def connect(self, **more: Any) -> StickyPi:
        """A destination that delivers there."""
        settings = Settings(
            kind="stickypi",
            username=self.original.user,
            **{"url": self.front.url, "password_file": self._password, "timeout": Duration(20), **more},
        )
        return stickypi.connect("server", settings, self.context)

    def tables(self) -> dict[str, dict[str, Any]]:
        """As an owner would write it."""
        user, password = self.original.user, str(self._password)
        table = {"kind": "stickypi", "url": self.front.url, "username": user, "password_file": password}
        return {"server": table}

    def stored(self) -> dict[str, bytes]:
        """What the server holds; files and rows must agree, and nothing was ever overwritten."""
        assert self.original.overwritten == 0
        assert len(self.original.files) == len(self.original.rows)
        return self.original.files

    def broken(self) -> AbstractContextManager[None]:
        """Nobody listens."""
        return self.front.down()


@pytest.fixture
def original() -> Original:
    """A Sticky Pi server of 2023."""
    return Original()


@pytest.fixture
def site(original: Original, tmp_path: Path) -> Iterator[Server]:
    """It listens."""
    with FaultServer(original) as front:
        yield Server(front, original, tmp_path)


@pytest.fixture
def server(site: Server) -> Iterator[StickyPi]:
    """Connected to it."""
    destination = site.connect()
    yield destination
    destination.close()


class TestOriginal(OverHttp):
    """The promises that all destinations make, with the server as it is."""

    kind = "stickypi"
    steps = (TOKEN, ASK, PUT)
    upload = PUT
    poison = "500"
    asks_again = True


class TestOldOriginal(Conformance):
    """The same with a server of branch main, which knows the older form of dates only, and compares no digests."""

    @pytest.fixture
    def original(self) -> Original:
        """An older one."""
        return Original(is_old=True)

    def strange_entries(self, site: Server, card: Card, image: Image) -> Iterator[str]:
        """In its row."""
        yield from strange_rows(site.front, image)


class Hub(Server):
    """A site: the real hub, behind the same front."""

    def __init__(self, front: FaultServer, hub: hub_server.RunningHub, folder: Path) -> None:
        original = Original()
        original.user, original.password = hub.user, hub.password
        super().__init__(front, original, folder)
        self._hub = hub

    def stored(self) -> dict[str, bytes]:
        """What the hub holds."""
        paths = [self._hub.store.path(row) for row in self._hub.rows()]
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub_server.RunningHub]:
    """One hub for all of these tests: hashing its users' passwords takes a second."""
    with hub_server.running(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


class TestHub(Conformance):
    """The same with the hub."""

    @pytest.fixture
    def site(self, hub: hub_server.RunningHub, tmp_path: Path) -> Iterator[Server]:
        """The hub, emptied."""
        keys = [{"device": row["device"], "datetime": row["datetime"]} for row in hub.rows()]
        if keys:
            assert hub.ask("delete_images", keys, "owner").status_code == 200
        with FaultServer(Forwarding(hub.url)) as front:
            yield Hub(front, hub, tmp_path)

    def strange_entries(self, site: Server, card: Card, image: Image) -> Iterator[str]:
        """In its row."""
        yield from strange_rows(site.front, image)


# --- Faults -------------------------------------------------------------------------------------------------

# fault, where, what a delivery that meets it ends with, whether the image is on the server then
FAULTS: list[tuple[str, str, type[DeliveryError] | None, bool]] = [
    ("cut before body", PUT, Unreachable, False),
    ("cut in body", PUT, Unreachable, False),
    ("cut after body", PUT, Unreachable, False),
    ("answer lost", PUT, None, True),
    ("500", PUT, Unresolved, False),
    ("500 though stored", PUT, Unresolved, True),
    ("502", PUT, Unreachable, False),
    ("404", PUT, Unreachable, False),
    ("401", PUT, None, True),
    ("403", PUT, Unauthorised, False),
    ("413", PUT, Refused, False),
    ("429", PUT, Unreachable, False),
    ("503", PUT, Unreachable, False),
    ("507", PUT, Unreachable, False),
    ("late", PUT, None, True),
    ("slow", PUT, None, True),
    ("503 until", PUT, Unreachable, False),
    ("stall", PUT, None, True),
    ("redirect", PUT, Unreachable, False),
    ("redirect here", PUT, Unreachable, False),
    ("portal", PUT, Unreachable, False),
    ("no echo", PUT, None, True),
    ("an object", PUT, Unreachable, False),
    ("wrong digest", PUT, None, True),
    ("wrong device", PUT, None, True),
    ("truncated", PUT, None, True),
    ("half JSON", PUT, None, True),
    ("JSON as HTML", PUT, None, True),
    ("wrong date", PUT, None, True),
    ("endless", PUT, Unreachable, False),
    ("gzip bomb", PUT, Unreachable, False),
    ("cut before body", ASK, None, True),  # asked again within seconds
    ("502", ASK, None, True),
    ("404", ASK, Unreachable, False),
    ("401", ASK, None, True),
    ("403", ASK, Unauthorised, False),
    ("429", ASK, Unreachable, False),
    ("503", ASK, Unreachable, False),
    ("stall", ASK, Unreachable, False),
    ("redirect", ASK, Unreachable, False),
    ("redirect here", ASK, Unreachable, False),
    ("portal", ASK, Unreachable, False),
    ("an object", ASK, Unreachable, False),
    ("half JSON", ASK, Unreachable, False),
    ("JSON as HTML", ASK, Unreachable, False),
    ("endless", ASK, Unreachable, False),
    ("cut after body", TOKEN, None, True),
    ("500", TOKEN, None, True),
    ("401", TOKEN, Unauthorised, False),
    ("403", TOKEN, Unauthorised, False),
    ("portal", TOKEN, Unreachable, False),
    ("redirect here", TOKEN, Unreachable, False),
    ("half JSON", TOKEN, Unreachable, False),
    ("wrong date", TOKEN, None, True),
]


@pytest.mark.parametrize(("fault", "path", "outcome", "is_stored"), FAULTS)
def test_after_each_fault_every_image_is_stored_exactly_once(
    site: Server, card: Card, fault: str, path: str, outcome: type[DeliveryError] | None, is_stored: bool
) -> None:
    server = site.connect(timeout=Duration(0.3 if fault == "stall" else 20))
    images = [card.image(second) for second in range(3)]
    site.front.latency = 0.3
    site.front.plan(path, fault)
    if outcome:
        with pytest.raises(outcome) as caught:
            server.deliver(images[0], card.path(images[0]))
        assert type(caught.value) is outcome
        assert "\n" not in str(caught.value)
    else:
        server.deliver(images[0], card.path(images[0]))
    site.front.assert_injected()
    assert len(site.stored()) == is_stored

    # The server behaves again, and all are delivered as a turn does it: ask, then send what is not there.
    site.front.released.set()
    known = server.find_existing(images)
    assert all(isinstance(receipt, Receipt) for receipt in known.values())
    for image in images:
        if image.id not in known:
            server.deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image) for image in images}
    assert "GET /portal" not in site.front.requests
    server.close()


@pytest.mark.parametrize("path", [TOKEN, ASK])
@pytest.mark.parametrize("fault", ["500", "502", "cut before body", "cut after body"])
def test_a_question_that_the_server_fails_to_answer_is_asked_again_within_seconds(
    site: Server, card: Card, path: str, fault: str
) -> None:
    server, image = site.connect(), card.image()
    site.front.plan(path, *[fault] * (ATTEMPTS - 1))
    server.deliver(image, card.path(image))
    site.front.assert_injected()
    assert site.front.requests.count(path) == ATTEMPTS  # and no more than that
    assert sum(site.time.slept) < 20


@pytest.mark.parametrize("seed", [None, *range(8)])
def test_a_server_whose_processes_each_fail_once_has_all_images_within_a_minute(
    site: Server, tmp_path: Path, seed: int | None
) -> None:
    trap, server = with_pending(tmp_path, 40), site.connect(transfers=2)
    site.front.backend = failing = FailingOnce(site.original, seed)
    began = trap.time.monotonic()
    while trap.ledger()[1] < 40:
        turn = send(trap, server)
        assert turn.trouble is None
        trap.time.sleep(trap.catalog.deliveries.next_attempt("server") or 0.0)
    assert trap.time.monotonic() - began + sum(site.time.slept) < 60
    failures, healthy = 32 - len(failing.failing), 42
    assert failures > 20
    assert failing.answered <= (healthy + failures) * 1.1
    assert len(site.stored()) == 40
    server.close()


def test_a_server_of_branch_main_is_sent_one_image_of_2022_and_says_what_to_set(
    site: Server, server: StickyPi, card: Card
) -> None:
    site.original.reads_2020_only = True
    newer = [card.image(second) for second in range(3)]
    taken = drawings.TAKEN + timedelta(seconds=9)
    path = f"{drawings.DEVICE}/{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
    older = card.put(drawings.trap(taken=taken, format="2020"), path, 9)
    for image in newer:
        with pytest.raises(Refused, match="reads that of 2020 only: set"):
            server.deliver(image, card.path(image))
    assert site.front.requests.count(PUT) == 1
    server.deliver(older, card.path(older))
    assert list(site.stored()) == [older.name]
    assert any(
        'set capture.format = "2020"' in one.text for one in server.check() if one.verdict == "warning"
    )
    site.context.format = "2020"
    assert not any("capture.format" in one.text for one in server.check())


@pytest.mark.parametrize("fault", ["answer lost", "half JSON", "wrong digest"])
def test_a_doubt_that_cannot_be_settled_is_unreachable(site: Server, card: Card, fault: str) -> None:
    server, image = site.connect(), card.image()
    server.find_existing([image])
    site.front.plan(PUT, fault)
    site.front.plan(ASK, "503", "portal")
    with pytest.raises(Unreachable, match="and then"):
        server.deliver(image, card.path(image))
    with pytest.raises(Unreachable):
        server.find_existing([image])
    site.front.assert_injected()
    assert isinstance(server.find_existing([image])[image.id], Receipt)
    assert site.stored() == {image.name: card.bytes(image)}


def test_a_server_that_stored_other_bytes_than_it_was_sent_is_a_conflict(
    site: Server, server: StickyPi, card: Card
) -> None:
    image = card.image()
    site.front.plan(PUT, "answer lost")
    backend = site.front.backend

    def damage(path: str, headers: Any, body: bytes) -> Any:
        reply = backend(path, headers, body)
        for row in site.original.rows.values():
            row["md5"] = "f" * 32
        return reply

    site.front.backend = damage
    with pytest.raises(Refused, match="another image is there"):
        server.deliver(image, card.path(image))
    site.front.assert_injected()


@pytest.mark.parametrize(
    "wrong",
    [{"device": "ffffffff"}, {"datetime": "2026-06-21T20:19:16Z"}, {"md5": "0" * 32}, {"device": None}],
)
def test_an_echo_that_is_not_of_this_image_confirms_nothing(
    site: Server, server: StickyPi, card: Card, wrong: dict[str, Any]
) -> None:
    image = card.image()
    row = {
        "id": None,
        "device": drawings.DEVICE,
        "datetime": "2026-06-21T20:19:15Z",
        "md5": image.md5,
        **wrong,
    }
    backend = site.front.backend
    site.front.backend = lambda path, *more: (
        (200, JSON, json.dumps([row]).encode()) if path == PUT else backend(path, *more)
    )
    with pytest.raises(Unreachable, match="confirm"):
        server.deliver(image, card.path(image))
    assert site.stored() == {}


def test_the_wait_that_a_server_asks_for_is_passed_on(site: Server, server: StickyPi, card: Card) -> None:
    image = card.image()
    server.find_existing([image])
    site.front.plan(PUT, "503 until")
    with pytest.raises(Unreachable) as caught:
        server.deliver(image, card.path(image))
    assert caught.value.wait == 90
    site.front.assert_injected()


def test_faults_in_a_row_in_front_of_the_hub_end_with_every_image_there_once(
    tmp_path: Path, card: Card
) -> None:
    images = [card.image(second) for second in range(6)]
    with hub_server.running(tmp_path / "hub") as hub, FaultServer(Forwarding(hub.url)) as front:
        site = Hub(front, hub, tmp_path)
        server = site.connect()
        front.plan(PUT, "answer lost", "500 though stored", "portal", "wrong digest", "truncated", "401")
        front.plan(ASK, "cut before body", "portal")
        front.plan(TOKEN, "half JSON")
        for _ in range(12):
            try:
                known = server.find_existing(images)
                for image in images:
                    if image.id not in known:
                        server.deliver(image, card.path(image))
            except (Unreachable, Unresolved):
                continue
        front.assert_injected()
        assert len(server.find_existing(images)) == 6
        assert site.stored() == {image.name: card.bytes(image) for image in images}
        assert list(hub.store.conflicts.rglob("*.jpg")) == []


# --- The protocol -------------------------------------------------------------------------------------------


def test_one_request_asks_for_a_batch_and_one_sends_an_image(
    site: Server, server: StickyPi, card: Card
) -> None:
    images = [card.image(second) for second in range(5)]
    for image in images:
        server.deliver(image, card.path(image))
    site.front.requests.clear()
    assert len(server.find_existing(images)) == 5
    assert site.front.requests == [ASK]
    new = [card.image(second) for second in range(10, 15)]
    site.front.requests.clear()
    assert server.find_existing(new) == {}
    for image in new:
        server.deliver(image, card.path(image))
    assert site.front.requests == [ASK, *[PUT] * 5]


def test_an_upload_is_a_form_of_known_length_and_little_more_than_the_image(
    site: Server, server: StickyPi, card: Card
) -> None:
    image = card.image()
    server.deliver(image, card.path(image))
    headers = site.front.headers[site.front.requests.index(PUT)]
    assert "Transfer-Encoding" not in headers
    assert "Cookie" not in headers
    assert headers["User-Agent"].startswith("trapsync/")
    assert image.size < int(headers["Content-Length"]) < image.size + 600
    assert site.front.received[PUT] == int(headers["Content-Length"])


def test_connections_are_kept(site: Server, server: StickyPi, card: Card) -> None:
    for second in range(5):
        image = card.image(second)
        server.deliver(image, card.path(image))
    assert site.front.connections == 1


def test_an_upper_case_device_on_the_server_is_the_same(site: Server, server: StickyPi, card: Card) -> None:
    image = card.image()
    server.deliver(image, card.path(image))
    for row in site.original.rows.values():
        row["device"] = row["device"].upper()
    assert isinstance(server.find_existing([image])[image.id], Receipt)


@pytest.mark.parametrize(("kind", "questions"), [({}, 1), ({"is_old": True}, 1), ({"is_new": True}, 2)])
def test_dates_are_asked_in_one_form_and_in_the_newer_one_after_a_500(
    card: Card, tmp_path: Path, kind: dict[str, bool], questions: int
) -> None:
    original = Original(**kind)
    with FaultServer(original) as front:
        site = Server(front, original, tmp_path)
        server, image = site.connect(), card.image()
        assert server.find_existing([image]) == {}
        server.deliver(image, card.path(image))
        front.requests.clear()
        assert isinstance(server.find_existing([image])[image.id], Receipt)
        assert front.requests == [ASK] * questions
        assert server.check()[0].verdict == "ok"


def test_an_absence_is_believed_for_one_upload_and_not_for_ever(
    site: Server, server: StickyPi, card: Card
) -> None:
    image, other = card.image(), card.image(1)
    server.deliver(other, card.path(other))
    server.find_existing([image])
    site.front.requests.clear()
    site.time.sleep(7200)
    server.deliver(image, card.path(image))
    assert site.front.requests == [ASK, PUT]


def test_images_that_the_server_could_never_hold_are_not_asked_for(
    site: Server, server: StickyPi, card: Card
) -> None:
    foreign = card.put(drawings.trap(), "IMG_0001.JPG")
    early = card.put(drawings.trap(), f"{drawings.DEVICE}.1970-01-01_00-00-07.jpg")
    assert server.find_existing([foreign, early]) == {}
    assert site.front.requests == []


def test_a_date_before_there_were_sticky_pis_is_held_not_refused(
    site: Server, server: StickyPi, card: Card
) -> None:
    image = card.put(drawings.trap(), f"{drawings.DEVICE}.2019-10-31_23-59-59.jpg")
    with pytest.raises(Held, match="clock was not set"):
        server.deliver(image, card.path(image))
    assert site.front.requests == []


def test_a_form_is_taken_in_whole_while_the_bandwidth_is_limited(site: Server, card: Card) -> None:
    server, image = site.connect(bandwidth=Size(1000)), card.image()
    server.deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}
    assert sum(site.time.slept) == pytest.approx(image.size / 1000, rel=0.2)


# --- What the server has ------------------------------------------------------------------------------------


def delivered(site: Server, card: Card, count: int) -> list[Image]:
    """So many images that the server holds."""
    images = [card.image(second) for second in range(count)]
    server = site.connect()
    for image in images:
        server.deliver(image, card.path(image))
    server.close()
    site.front.requests.clear()
    return images


def test_what_is_stored_is_confirmed_by_one_byte_of_it_and_no_password_goes_there(
    site: Server, server: StickyPi, card: Card
) -> None:
    images = delivered(site, card, 3)
    confirmed = server.confirm(images, {}, by_bytes=True)
    assert [confirmed[image.id] for image in images] == [
        Receipt(f"md5:{image.md5}", {"id": number}, at=image.name) for number, image in enumerate(images)
    ]
    assert site.front.requests == [TOKEN, ADDRESSES, *(f"GET /bucket/{image.name}" for image in images)]
    asked = [headers for headers in site.front.headers if "Range" in headers]
    assert len(asked) == 3
    assert all(headers["Range"] == "bytes=0-0" and "Authorization" not in headers for headers in asked)


def test_a_row_is_asked_for_by_the_name_under_which_the_image_lies_there(
    site: Server, server: StickyPi, card: Card
) -> None:
    (image,) = delivered(site, card, 1)
    moved = replace(image, path="copies/IMG_0001.JPG")
    assert server.confirm([moved], {}) == {}
    assert isinstance(server.confirm([moved], {moved.id: image.name})[moved.id], Receipt)


def test_other_bytes_than_the_row_says_are_found_out_and_the_rows_word_counts_no_more(
    site: Server, server: StickyPi, card: Card
) -> None:
    good, bad, gone = delivered(site, card, 3)
    site.original.files[bad.name] = b"\xff\xd8 of somebody else"
    del site.original.files[gone.name]
    assert all(isinstance(answer, Receipt) for answer in server.confirm([good, bad, gone], {}).values())
    confirmed = server.confirm([good, bad, gone], {}, by_bytes=True)
    assert isinstance(confirmed[good.id], Receipt)
    for image, reason in (
        (bad, f"{hashlib.md5(site.original.files[bad.name]).hexdigest()}, ours {bad.md5}"),
        (gone, "its stored bytes are gone"),
    ):
        assert isinstance(confirmed[image.id], Refused)
        assert reason in str(confirmed[image.id])
    # After a retry too, be it in another life: what the row says would be believed, and the image pruned.
    again = site.connect()
    assert {type(answer) for answer in again.find_existing([bad, gone]).values()} == {Refused}
    for image in (bad, gone):
        with pytest.raises(Refused):
            again.deliver(image, card.path(image))
    assert site.original.overwritten == 0


def test_an_image_whose_stored_bytes_are_others_never_leaves_the_card_not_even_after_a_retry(
    site: Server, tmp_path: Path
) -> None:
    trap, server = with_pending(tmp_path, 2), cast("Any", site.connect())
    trap.time.sleep(4000)
    assert send(trap, server).delivered == 2
    overwritten = next(iter(site.original.files))
    site.original.files[overwritten] = b"\xff\xd8 of somebody else"
    images = trap.catalog.proofs.delivered_to("server", 0, 9)
    asked = confirmation.ask_again(trap.catalog, server, images, by_bytes=True)
    assert (asked.confirmed, [image.name for image, _ in asked.refused]) == (1, [overwritten])
    for _ in range(2):
        trap.destinations = [server]
        trap.prune()
        assert {path.rsplit("/")[-1] for path in trap.on_card()} == {overwritten}
        assert trap.catalog.deliveries.retry() == 1
        assert send(trap, server).refused == 1
    del site.original.rows[drawings.DEVICE, overwritten.split(".")[1]]  # as its admin does
    trap.catalog.deliveries.retry()
    assert send(trap, server).delivered == 1
    assert site.original.overwritten == 0


def test_stored_bytes_that_were_put_right_are_believed_again(
    site: Server, server: StickyPi, card: Card
) -> None:
    (image,) = delivered(site, card, 1)
    content = site.original.files.pop(image.name)
    assert isinstance(server.confirm([image], {}, by_bytes=True)[image.id], Refused)
    site.original.files[image.name] = content
    assert isinstance(server.find_existing([image])[image.id], Receipt)
    site.front.requests.clear()
    assert isinstance(server.find_existing([image])[image.id], Receipt)
    assert site.front.requests == [ASK]


@pytest.mark.parametrize("etag", ["d41d8cd98f00b204e9800998ecf8427e-3", "", "no digest"])
def test_where_the_storage_tells_no_digest_the_row_has_the_last_word(
    site: Server, server: StickyPi, card: Card, etag: str
) -> None:
    (image,) = delivered(site, card, 1)
    site.original.etag = lambda _content: etag
    assert isinstance(server.confirm([image], {}, by_bytes=True)[image.id], Receipt)
    del site.original.files[image.name]
    assert isinstance(server.confirm([image], {}, by_bytes=True)[image.id], Refused)


@pytest.mark.parametrize("fault", ["403", "400", "500"])
def test_one_object_that_cannot_be_asked_for_says_nothing_of_its_image(
    site: Server, server: StickyPi, card: Card, fault: str
) -> None:
    first, second = delivered(site, card, 2)
    site.front.plan(f"GET /bucket/{first.name}", fault)
    confirmed = server.confirm([first, second], {}, by_bytes=True)
    site.front.assert_injected()
    assert isinstance(confirmed[first.id], Failed)
    assert isinstance(confirmed[second.id], Receipt)


@pytest.mark.parametrize("fault", ["cut before body", "portal", "503", "429", "redirect"])
def test_a_storage_out_of_reach_is_unreachable(
    site: Server, server: StickyPi, card: Card, fault: str
) -> None:
    (image,) = delivered(site, card, 1)
    site.front.plan("GET /bucket/*", fault)
    with pytest.raises(Unreachable):
        server.confirm([image], {}, by_bytes=True)
    site.front.assert_injected()


@pytest.mark.parametrize(
    "url", ["", "ftp://a/b", "https://user:pw@a/b", "http://[", "http://a:99999/", "http://a b/"]
)
def test_an_address_that_is_none_says_nothing_of_its_image(
    site: Server, server: StickyPi, card: Card, url: str
) -> None:
    first, second = delivered(site, card, 2)
    site.original.addresses[first.name] = url
    confirmed = server.confirm([first, second], {}, by_bytes=True)
    assert isinstance(confirmed[first.id], Failed)
    assert "pw" not in str(confirmed[first.id])
    assert isinstance(confirmed[second.id], Receipt)
    assert server.address(first, {}) is None


def test_a_server_with_tls_sends_nobody_to_a_storage_without_it(site: Server) -> None:
    for url, is_safe in (("HTTPS://api.example", True), ("http://10.0.0.7", False)):
        fault = site.connect(url=url)._storage.fault("http://bucket.example/a?X-Amz-Signature=s3cret")
        assert (fault is not None) == is_safe
        assert "s3cret" not in str(fault)


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("http://hub.example/image/a?signed=1", "https://hub.example/image/a?signed=1"),
        ("https://hub.example/image/a?signed=1", "https://hub.example/image/a?signed=1"),
        ("http://hub.example.org/image/a", "http://hub.example.org/image/a"),
        (5, 5),
    ],
)
def test_a_hub_behind_a_proxy_with_tls_is_asked_by_tls_whatever_it_calls_itself(
    site: Server, told: object, asked: object
) -> None:
    assert site.connect(url="https://hub.example/")._address_in({"url": told}) == asked


def test_the_hub_tells_the_digest_of_the_bytes_that_it_has(
    hub: hub_server.RunningHub, tmp_path: Path, card: Card
) -> None:
    with FaultServer(Forwarding(hub.url)) as front:
        server = Hub(front, hub, tmp_path).connect()
        rotten, gone, good = (card.image(7200 + second) for second in range(3))
        for image in (rotten, gone, good):
            server.deliver(image, card.path(image))
        paths = {path.name: path for path in map(hub.store.path, hub.rows())}
        content = paths[rotten.name].read_bytes()
        paths[rotten.name].write_bytes(content[:-9] + b"X" + content[-8:])
        paths[gone.name].unlink()
        confirmed = server.confirm([rotten, gone, good], {}, by_bytes=True)
        assert isinstance(confirmed[good.id], Receipt)
        assert isinstance(confirmed[rotten.id], Refused)
        assert isinstance(confirmed[gone.id], Refused)
        assert "gone" in str(confirmed[gone.id])
        server.close()


def test_what_a_hub_has_no_room_for_waits_and_is_sent_when_there_is_some(
    hub: hub_server.RunningHub, tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(Forwarding(hub.url)) as front:
        server = Hub(front, hub, tmp_path).connect()
        image = card.image(7300)
        monkeypatch.setattr(hub.hub.room, "_min_free", 10**18)
        with pytest.raises(Unreachable, match="has no room left \\(507\\): free some space there"):
            server.deliver(image, card.path(image))
        assert server.find_existing([image]) == {}
        monkeypatch.undo()
        assert isinstance(server.deliver(image, card.path(image)), Receipt)
        server.close()


# --- Rows that cannot be read -------------------------------------------------------------------------------


def with_pending(folder: Path, count: int) -> bench.Trap:
    """A trap with so many images that are pending at the server."""
    trap = bench.Trap(folder / "trap")
    trap.catalog.places.register([("server", "stickypi", True)])
    for second in range(count):
        trap.put(second, seed=second)
    trap.ingest()
    return trap


def send(trap: bench.Trap, server: Any) -> Turn:
    """One turn, as the daemon does it."""
    uploads = UploadPool(server.settings, trap.time)
    return pipeline.deliver(trap.catalog, server, trap.storage.spool, trap.time, uploads)


def test_one_row_with_half_a_surrogate_costs_its_image_and_no_turn(site: Server, tmp_path: Path) -> None:
    trap = with_pending(tmp_path, 5)
    key = trap.catalog.images.listing(None, 9)[2]["key"]
    device, stamp = key.removesuffix(".jpg").split(".")
    site.original.rows[device, stamp] = {"id": None, "device": device, "datetime": stamp, "md5": "\ud800"}
    turn = send(trap, site.connect())
    assert (turn.delivered, turn.refused, turn.postponed, turn.trouble) == (4, 0, 1, None)
    assert len(site.original.files) == 4
    assert site.original.overwritten == 0


@pytest.mark.parametrize("odd", [None, 5, "", "not computed", [], "\ud800", "9" * 31])
def test_a_row_without_a_digest_contradicts_nothing_and_is_asked_for_again(
    site: Server, server: StickyPi, card: Card, odd: Any
) -> None:
    (there,) = delivered(site, card, 1)
    (row,) = site.original.rows.values()
    row["md5"], md5 = odd, row["md5"]
    with pytest.raises(Failed, match="has no digest"):
        server.deliver(there, card.path(there))
    confirmed = server.confirm([there], {})
    assert isinstance(confirmed[there.id], Failed)
    assert server.address(there, {}) is None
    assert site.original.overwritten == 0
    row["md5"] = md5
    assert isinstance(server.deliver(there, card.path(there)), Receipt)


@pytest.mark.parametrize(
    "token", ["\u2603", "a\r\nX: 1", "\0", "a b", "a:b", "x" * 5000, "", None, 5, [], {}]
)
def test_a_token_that_cannot_be_sent_is_none_and_costs_no_quarter_of_an_hour(
    site: Server, server: StickyPi, card: Card, token: Any
) -> None:
    image = card.image()
    backend, text = site.front.backend, json.dumps({"token": token}).encode()
    site.front.backend = lambda path, *more: (200, JSON, text) if path == TOKEN else backend(path, *more)
    with pytest.raises(Unreachable, match="without a token") as caught:
        server.deliver(image, card.path(image))
    assert not isinstance(caught.value, Unauthorised)
    site.front.backend = backend
    server.deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}


def test_an_echo_with_half_a_surrogate_is_trouble_that_is_remembered(site: Server, tmp_path: Path) -> None:
    trap = with_pending(tmp_path, 1)
    backend = site.front.backend

    def odd(path: str, headers: Any, body: bytes) -> Any:
        if path == ASK and site.original.rows:
            return 502, {}, b""
        status, shown, content = backend(path, headers, body)
        is_echo = path == PUT and status == 200
        return status, shown, re.sub(rb'"md5": "\w+"', rb'"md5": "\\ud800"', content) if is_echo else content

    site.front.backend = odd
    turn = send(trap, site.connect())
    assert "confirmed another digest: ?" in str(turn.trouble)
    assert trap.catalog.deliveries.attempts("server") == 1


@pytest.mark.parametrize(
    "row",
    [
        {"device": 5, "datetime": 5, "md5": 5},
        {"device": None, "datetime": "2026-06-21T20:19:15Z", "md5": "0" * 32},
        {"device": drawings.DEVICE, "datetime": "yesterday", "md5": "0" * 32},
        {"device": "ffffffff", "datetime": "2026-06-21T20:19:15Z", "md5": "0" * 32},
    ],
)
def test_while_a_row_cannot_be_read_no_absence_is_believed_and_nothing_is_overwritten(
    site: Server, server: StickyPi, card: Card, row: dict[str, Any]
) -> None:
    (there,) = delivered(site, card, 1)
    new = card.image(1)
    backend, digest = site.front.backend, there.md5.encode()

    def odd(path: str, headers: Any, body: bytes) -> Any:
        status, shown, content = backend(path, headers, body)
        return (
            (status, JSON, json.dumps([row]).encode())
            if path == ASK and digest in content
            else (status, shown, content)
        )

    site.front.backend = odd
    assert server.find_existing([there, new]) == {}
    with pytest.raises(Failed, match="cannot be read"):
        server.deliver(there, card.path(there))
    server.deliver(new, card.path(new))
    confirmed = server.confirm([there, new], {})
    assert isinstance(confirmed[there.id], Failed)
    assert isinstance(confirmed[new.id], Receipt)
    assert site.stored() == {image.name: card.bytes(image) for image in (there, new)}


@pytest.mark.parametrize("rows", [b"[{}]", b'["ok"]', b"[1, 2]", b'[{"device": "0a1b2c3d"}]', b"[null]"])
def test_an_answer_that_is_another_services_is_unreachable(
    site: Server, server: StickyPi, card: Card, rows: bytes
) -> None:
    backend = site.front.backend
    site.front.backend = lambda path, *more: (200, JSON, rows) if path == ASK else backend(path, *more)
    with pytest.raises(Unreachable, match="not a Sticky Pi server's"):
        server.find_existing([card.image(0), card.image(1)])


# --- Two images of one name ---------------------------------------------------------------------------------


class Slow(Original):
    """A server on which the first upload is not over when the next question is answered, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self._questions = 0
        self._was_asked_again = threading.Event()

    def __call__(self, path: str, headers: Any, body: bytes) -> Any:
        if path == PUT:
            self._was_asked_again.wait(0.5)
        reply = super().__call__(path, headers, body)
        self._questions += path == ASK
        if self._questions == 2:
            self._was_asked_again.set()
        return reply


def test_two_images_of_one_name_are_never_on_their_way_at_once(tmp_path: Path) -> None:
    original, trap = Slow(), bench.Trap(tmp_path / "trap")
    path = trap.put(1, seed=1)
    trap.put(1, seed=2, path=f"copies/{PurePosixPath(path).name}")
    trap.ingest()
    trap.catalog.places.register([("server", "stickypi", True)])
    with FaultServer(original) as front:
        turn = send(trap, Server(front, original, tmp_path).connect(transfers=2))
    assert original.overwritten == 0
    assert (turn.delivered, turn.refused) == (1, 1)
    assert [row["md5"] for row in original.rows.values()] == [
        hashlib.md5(content).hexdigest() for content in original.files.values()
    ]


# --- Addresses ----------------------------------------------------------------------------------------------


def test_an_address_gives_the_very_bytes_and_of_what_is_not_there_it_says_so(
    hub: hub_server.RunningHub, tmp_path: Path, card: Card
) -> None:
    with FaultServer(Forwarding(hub.url)) as front:
        server = Hub(front, hub, tmp_path).connect()
        image = card.image(3600)
        with pytest.raises(NotThere, match="does not hold"):
            server.address(image, {})
        server.deliver(image, card.path(image))
        url = server.address(image, {})
        assert url
        assert requests.get(url.replace(front.url, hub.url), timeout=30).content == card.bytes(image)
        with pytest.raises(NotThere, match="another image is there"):
            server.address(replace(image, md5="0" * 32), {})
        assert server.address(card.put(drawings.trap(), "IMG_0001.JPG"), {}) is None
        with front.down(), pytest.raises(Unreachable):
            server.address(image, {})
        server.close()


# --- Tokens -------------------------------------------------------------------------------------------------


def test_one_token_serves_a_day_whatever_the_clocks_say(site: Server, server: StickyPi, card: Card) -> None:
    image = card.image()
    server.deliver(image, card.path(image))
    site.time.step_wall(10 * 365 * 86400)
    server.find_existing([image])
    site.time.sleep(80_000)
    server.find_existing([image])
    assert site.original.logins == 1
    site.time.sleep(6_000)
    server.find_existing([image])
    assert site.original.logins == 2


def test_an_expired_token_is_replaced_in_the_middle_of_an_upload(
    site: Server, server: StickyPi, card: Card
) -> None:
    image, other = card.image(0), card.image(1)
    server.find_existing([image, other])
    server.deliver(image, card.path(image))
    site.original.expire_tokens()
    server.deliver(other, card.path(other))
    assert site.original.logins == 2
    assert len(site.stored()) == 2


def test_parallel_uploads_fetch_one_token(site: Server, card: Card) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = site.connect(transfers=4)
    images = [card.image(second) for second in range(8)]
    server.find_existing(images)
    site.original.expire_tokens()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda image: server.deliver(image, card.path(image)), images))
    assert site.original.logins == 2
    assert len(site.stored()) == 8


def test_a_wrong_password_asks_once_and_says_what_to_look_at(
    site: Server, server: StickyPi, card: Card
) -> None:
    site.change_password("a-secret-that-is-wrong")
    image = card.image()
    with pytest.raises(Unauthorised, match="look at username") as caught:
        server.deliver(image, card.path(image))
    assert site.front.requests == [TOKEN]
    assert caught.value.wait == 900
    assert "a-secret" not in str(caught.value)
    site.change_password(site.original.password)
    server.deliver(image, card.path(image))  # mended while running


def test_a_missing_password_file_stops_the_deliveries_and_not_the_trap(
    site: Server, tmp_path: Path, card: Card
) -> None:
    server, image = site.connect(password_file=tmp_path / "nowhere"), card.image()
    with pytest.raises(Unauthorised, match="nowhere cannot be read"):
        server.find_existing([image])


def test_a_server_that_refuses_new_tokens_is_not_asked_for_ever(
    site: Server, server: StickyPi, card: Card
) -> None:
    image = card.image()
    site.front.plan(ASK, "401", "401")
    with pytest.raises(Unauthorised, match=r"rejects the login \(401\); look at the account"):
        server.find_existing([image])
    assert site.front.requests == [TOKEN, ASK, TOKEN, ASK]
    site.front.assert_injected()


def test_a_read_only_account_is_the_owners_to_mend(site: Server, server: StickyPi, card: Card) -> None:
    image = card.image()
    site.original.is_read_only = True
    with pytest.raises(Unauthorised, match="read-only"):
        server.deliver(image, card.path(image))
    assert site.front.requests.count(PUT) == 1
    assert site.stored() == {}


def test_no_command_log_or_file_tells_the_password(site: Server, card: Card, tmp_path: Path) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    plans = [[(TOKEN, "403")], [(TOKEN, "500"), (ASK, "502"), (PUT, "403")], [(PUT, "half JSON")]]
    leak_check.assert_silent(site.original.password, leak_check.overheard(program, site.front, plans))


def test_a_password_that_is_told_is_heard() -> None:
    for told in (b"canary in a mine", b"canary+in+a+mine", base64.b64encode(b"trap:canary in a mine")):
        with pytest.raises(AssertionError, match="told by: the log"):
            leak_check.assert_silent("canary in a mine", {"the log": b"x" + told, "catalog.sqlite": b""})


@pytest.mark.parametrize("path", [TOKEN, ASK, PUT])
@pytest.mark.parametrize("fault", ["403", "502", "portal", "cut after body", "redirect", "429"])
def test_no_secret_is_in_any_text(
    site: Server, server: StickyPi, card: Card, path: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    image = card.image()
    is_asked_again = path != PUT and fault in {"502", "cut after body"}
    site.front.plan(path, *[fault] * (ATTEMPTS if is_asked_again else 1))
    with pytest.raises(DeliveryError) as caught:
        server.deliver(image, card.path(image))
    texts = f"{caught.getrepr(style='long')} {caught.value!r} {caplog.text}"
    assert site.original.password not in texts
    assert "token-1" not in str(caught.value) + caplog.text
    site.front.assert_injected()


# --- The doctor ---------------------------------------------------------------------------------------------


def test_the_doctor_tells_a_clock_that_disagrees(site: Server, server: StickyPi) -> None:
    site.front.plan(TOKEN, "wrong date")
    findings = server.check()
    site.front.assert_injected()
    assert [finding.verdict for finding in findings] == ["ok", "warning"]
    assert "ahead of the server's" in findings[1].text
    assert "whether it may write" in findings[0].text


def test_the_doctor_asks_for_one_image_that_there_is_not(site: Server) -> None:
    bodies: list[Any] = []
    backend = site.front.backend

    def heard(path: str, headers: Any, body: bytes) -> Any:
        bodies.extend(json.loads(body) if path == ASK else [])
        return backend(path, headers, body)

    site.front.backend = heard
    server = site.connect()
    assert server.check()[0].verdict == "ok"
    assert bodies == [{"device": "00000000", "datetime": "2019-11-01_00-00-00"}]


# --- What is not even sent ----------------------------------------------------------------------------------


def _image(**metadata: Any) -> Image:
    good = {"exif": True, "format": "2022", "Make": "StickyPi", "device_version": "3.1.0", "temp": 20.6}
    known = {name: value for name, value in (good | metadata).items() if value != "absent"}
    return Image(drawings.NAME, 1000, "0" * 32, "0" * 64, 160, 120, known)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"Make": "sticky-pi"},
        {"Make": "RaspberryPi"},
        {"Make": drawings.MAKE_2020, "format": "2020"},
        {"device_version": "absent", "temp": None},
        {"lat": -121.76, "lng": 49.24},  # genuine images of 2020 have them swapped
        {"temp": -300.0, "hum": -1.0, "bat": -1.0, "but": True},
    ],
)
def test_what_the_server_takes_is_no_problem(metadata: dict[str, Any]) -> None:
    assert problem(_image(**metadata)) is None


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"exif": False}, "no EXIF"),
        ({"exif_error": "ValueError: no TIFF"}, "no TIFF"),
        ({"format": "absent"}, "UserComment"),
        ({"format": "absent", "format_error": "UserComment has 1 lines, not two"}, "1 lines"),
        ({"Make": "absent"}, "no Make"),
        ({"Make": "Raspberry Pi"}, "Raspberry Pi"),
        ({"Make": ""}, "one word"),
        ({"Make": "123"}, "one word"),
        ({"Make": "None"}, "one word"),
        ({"Make": "('a', 'b')"}, "one word"),
        ({"Make": "{[]: 1}"}, "one word"),
        ({"Make": "(" * 300}, "one word"),
        ({"Make": "x" * 5000}, "5000 characters"),
        ({"Make": drawings.MAKE_2020}, "Make"),
        ({"device_version": "2026.12.1"}, "longer than 8"),
        ({"lat": 1000.5}, "no room"),
        ({"lng": -1000.0}, "no room"),
        ({"alt": 40_000.0}, "no room"),
        ({"bat": 1e6}, "no room"),
        ({"temp": float("nan")}, "no number"),
        ({"hum": float("inf")}, "no number"),
        ({"lum": "bright"}, "no number"),
    ],
)
def test_what_the_server_fails_on_is_told_beforehand(metadata: dict[str, Any], reason: str) -> None:
    assert reason in str(problem(_image(**metadata)))


@pytest.mark.parametrize(
    "name", ["IMG_0001.JPG", "0a1b2c3.2026-06-21_20-19-15.jpg", "0a1b2c3d.2026-02-31_20-19-15.jpg"]
)
def test_foreign_names_stay_on_the_card(name: str) -> None:
    assert "only takes names" in str(problem(replace(_image(), path=name)))


@pytest.mark.parametrize("size", [0, 101 * 2**20])
def test_sizes_that_the_proxy_refuses_stay_on_the_card(size: int) -> None:
    assert "100 MB" in str(problem(replace(_image(), size=size)))


# --- Settings -----------------------------------------------------------------------------------------------

TABLE = {
    "kind": "stickypi",
    "url": "https://api.example.org",
    "username": "trap",
    "password_file": "password",
}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("url", "api.example.org", "is not an address"),
        ("url", "ftp://example.org", "is not an address"),
        ("url", "https://trap:secret@example.org", "do not belong there"),
        ("username", "", "username"),
        ("username", "a:b", "no colon"),
        ("min_rate", "0 B", "min_rate"),
        ("patience", "10 days", "patience"),
        ("ca_file", "/nowhere/ca.pem", "no file"),
    ],
)
def test_a_wrong_setting_is_one_line(key: str, value: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        destinations.check_all(AllSettings(destinations={"server": TABLE | {key: value}}), SOURCE)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_right_settings_connect_without_a_word_on_the_wire() -> None:
    connected("server", TABLE).close()
