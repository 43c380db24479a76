"""Skylab Studio: the protocol, jobs by the night, results, against a stub that refuses what the real one refuses."""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

import drawings
import killed_trap
import leak_check
from conformance import Card, OverHttp
from fake_time import FakeTime
from fault_server import FaultServer
from memory_context import SOURCE, connected, context
from skylab_stub import BASE, KEY, PROFILE, STORAGE, Skylab
from trap_bench import Trap
from trapsync import destinations
from trapsync.destinations import Receipt, skylab
from trapsync.destinations.skylab import Settings, jobs
from trapsync.destinations.skylab.rules import (
    is_callback_authentic,
    is_rival,
    photo_name,
    problem,
    result_place,
)
from trapsync.errors import Failed, Refused, SettingsError, Unauthorised, Unreachable
from trapsync.image import Image
from trapsync.pipeline import deliver as deliver_turn
from trapsync.settings.units import Duration

FIND, JOBS = f"GET {BASE}/jobs/find_by_name", f"{BASE}/jobs"
LIST, PHOTOS = f"GET {BASE}/photos/list_for_job", f"{BASE}/photos"
URL, PUT = f"GET {BASE}/photos/upload_url", f"PUT {STORAGE}"
NIGHT = "trapsync-0a1b2c3d-2026-06-21"


class Studio:
    """A site: a fault server in front of the stub. Notes outlive a connection, unless the catalog is lost."""

    def __init__(self, front: FaultServer, stub: Skylab, folder: Path) -> None:
        self.front = front
        self.stub = stub
        self.time = FakeTime()
        self.results = folder / "results"
        self.context: Any = context(self.time, results=self.results)
        self._key = folder / "key"
        self.change_key(stub.key)

    def change_key(self, key: str) -> None:
        """Let the trap's key file say this."""
        self._key.write_text(key + "\n")
        self._key.chmod(0o600)

    def table(self, **more: Any) -> dict[str, Any]:
        """As an owner would write it."""
        table = {"kind": "skylab", "url": self.front.url + BASE, "key_file": str(self._key)}
        return {**table, "profile": PROFILE, **more}

    def tables(self) -> dict[str, dict[str, Any]]:
        """The whole of it: jobs are submitted and their results fetched."""
        return {"studio": self.table(download=True)}

    def connect(self, **more: Any) -> skylab.Skylab:
        """A destination that delivers there."""
        settings = Settings(**{**self.table(timeout=Duration(20), **more), "key_file": self._key})
        return skylab.connect("studio", settings, self.context)

    def deliver(self, card: Card, *images: Image, **more: Any) -> skylab.Skylab:
        """Connect, deliver these, and be pending none."""
        destination = self.connect(**more)
        for image in images:
            destination.deliver(image, card.path(image))
        return destination

    def noon(self, seconds: float = 3600.0) -> None:
        """Let time pass until so long after the noon that ends the night of the first image."""
        self.time.sleep(datetime(2026, 6, 22, 12, tzinfo=UTC).timestamp() + seconds - self.time.wall())

    def stored(self) -> dict[str, bytes]:
        """What the service holds; nothing was ever replaced, and no job submitted twice."""
        assert len(set(self.stub.queued)) == len(self.stub.queued)
        return self.stub.stored()

    def broken(self) -> AbstractContextManager[None]:
        """Nobody listens."""
        return self.front.down()


class LostCatalog(Studio):
    """The same, with the notes of each connection lost when the next one begins."""

    def connect(self, **more: Any) -> skylab.Skylab:
        """With no notes."""
        self.context.notes.clear()
        return super().connect(**more)


@pytest.fixture
def stub() -> Skylab:
    """The service."""
    return Skylab()


@pytest.fixture
def front(stub: Skylab) -> Iterator[FaultServer]:
    """It listens."""
    with FaultServer(stub) as front:
        stub.url = front.url
        yield front


@pytest.fixture
def site(front: FaultServer, stub: Skylab, tmp_path: Path) -> Studio:
    """An account there."""
    return Studio(front, stub, tmp_path)


class TestSkylab(OverHttp):
    """The promises that all destinations make."""

    kind = "skylab"
    steps = (JOBS, LIST, PHOTOS, URL, PUT)
    upload = PUT

    @pytest.fixture
    def stub(self) -> Skylab:
        """One that is quick, so that the program meets all that there is when it is killed."""
        stub = Skylab()
        stub.is_quick = True
        return stub


class TestLostCatalog(OverHttp):
    """The same, where nothing is remembered from one connection to the next."""

    kind = "skylab"
    steps = (FIND, LIST, PHOTOS, URL, PUT)
    upload = PUT

    @pytest.fixture
    def site(self, front: FaultServer, stub: Skylab, tmp_path: Path) -> Studio:
        """Without a memory."""
        return LostCatalog(front, stub, tmp_path)

    def test_killed_at_each_failpoint_every_image_is_there_once(self, *_: object) -> None:
        """Above: the program has a real catalog there."""


# --- The stand-in -------------------------------------------------------------------------------------------


def _ask(site: Studio, method: str, path: str, **more: Any) -> requests.Response:
    headers = {"X-SLT-API-KEY": KEY, "Content-Type": "application/json"}
    return requests.request(method, f"{site.front.url}{BASE}/{path}", headers=headers, timeout=10, **more)


def _upload_url(site: Studio, photo: int, md5: str) -> str:
    query = {"photo_id": photo, "content_md5": md5, "use_cache_upload": "false"}
    return str(_ask(site, "GET", "photos/upload_url", params=query).json()["url"])


def _tags(md5: str, tags: str = "job=photo&api=true") -> dict[str, str]:
    return {"Content-MD5": md5, "X-Amz-Tagging": tags} if tags else {"Content-MD5": md5}


def test_the_stand_in_takes_an_upload_only_as_it_was_signed(site: Studio) -> None:
    job = _ask(site, "POST", "jobs", json={"name": "one", "profile_id": PROFILE}).json()
    photo = _ask(site, "POST", "photos", json={"job_id": job["id"], "name": "a.jpg"}).json()["id"]
    md5, other = (base64.b64encode(hashlib.md5(text).digest()).decode() for text in (b"bytes", b"other"))

    def put(headers: dict[str, str], body: bytes = b"bytes") -> int:
        url = _upload_url(site, photo, md5)
        return requests.put(url, data=body, headers=headers, timeout=10).status_code

    assert put({"X-Amz-Tagging": "job=photo&api=true"}) == 403
    assert put(_tags(other), b"other") == 403
    assert put(_tags(md5, tags="")) == 403
    assert put(_tags(md5), b"other") == 400
    assert site.stub.objects == {}
    assert put(_tags(md5)) == 200
    url = _upload_url(site, photo, md5)
    site.stub.clock += 10_000
    assert requests.put(url, data=b"bytes", headers=_tags(md5), timeout=10).status_code == 403


def test_the_stand_in_knows_names_errors_and_both_ways_of_asking(site: Studio) -> None:
    for expected in (201, 422):
        answer = _ask(site, "POST", "jobs", json={"name": "one", "profile_id": PROFILE})
        assert answer.status_code == expected
    job = site.stub.job("one")["id"]
    for expected in (201, 422):
        assert _ask(site, "POST", "photos", json={"job_id": job, "name": "a.jpg"}).status_code == expected
    for more in ({"params": {"name": "one"}}, {"data": json.dumps({"name": "one"})}):
        assert _ask(site, "GET", "jobs/find_by_name", **more).json()["id"] == job
    unknown = _ask(site, "GET", "jobs/find_by_name", params={"name": "two"})
    assert (unknown.status_code, list(unknown.json())) == (404, ["message"])
    assert _ask(site, "POST", f"jobs/{job}/queue", json={}).status_code == 422  # a photo without bytes


# --- The protocol -------------------------------------------------------------------------------------------


def test_an_image_costs_three_requests_and_the_first_of_a_night_two_more(site: Studio, card: Card) -> None:
    images = [card.image(second) for second in range(3)]
    destination = site.connect()
    assert destination.find_existing(images) == {}
    for image in images:
        destination.deliver(image, card.path(image))
    assert site.front.requests == [FIND, JOBS, *[PHOTOS, URL, PUT] * 3]
    site.front.requests.clear()
    later = [card.image(second) for second in range(3, 6)]
    assert destination.find_existing(later) == {}
    assert site.front.requests == []


def test_the_storage_is_told_the_digest_and_the_tags_and_never_the_key(site: Studio, card: Card) -> None:
    image = card.image()
    site.deliver(card, image)
    headers = site.front.headers[site.front.requests.index(PUT)]
    assert base64.b64decode(headers["Content-MD5"]).hex() == image.md5
    assert headers["X-Amz-Tagging"] == "job=photo&api=true"
    assert int(headers["Content-Length"]) == image.size == site.front.received[PUT]
    assert KEY not in str(headers)
    asked = site.front.headers[site.front.requests.index(PHOTOS)]
    assert (asked["X-SLT-API-KEY"], asked["Content-Type"]) == (KEY, "application/json")


def test_only_regular_jobs_are_tagged(site: Studio, card: Card) -> None:
    image = card.image()
    site.stub.type = "extraction"
    site.deliver(card, image)
    assert "X-Amz-Tagging" not in site.front.headers[site.front.requests.index(PUT)]
    assert site.stored() == {image.name: card.bytes(image)}


def test_an_address_that_has_expired_is_replaced_once(
    site: Studio, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, lives = card.image(), iter([-1.0, 900.0])
    sign = site.stub._sign

    def sign_for_a_moment(*given: str) -> str:
        site.stub.life = next(lives)
        return sign(*given)

    with monkeypatch.context() as patch:
        patch.setattr(site.stub, "_sign", sign_for_a_moment)
        site.deliver(card, image)
    assert site.front.requests[-4:] == [URL, PUT, URL, PUT]
    site.stub.life = -1.0
    other = card.image(1)
    with pytest.raises(Failed, match=r"even a new address \(403\)"):
        site.deliver(card, other)
    assert site.stored() == {image.name: card.bytes(image)}


def test_a_storage_that_tells_no_digest_delivers_but_lets_no_image_leave_the_card(
    site: Studio, card: Card
) -> None:
    site.stub.encrypts = True
    image = card.image()
    receipt = site.connect().deliver(image, card.path(image))
    assert receipt.digest == f"echo:{image.sha256}"
    assert site.stored() == {image.name: card.bytes(image)}


def test_where_it_does_not_tell_what_is_there_the_bytes_go_to_the_same_place_again(
    site: Studio, card: Card
) -> None:
    site.stub.shows_originals = False
    image = card.image()
    site.front.plan(PUT, "answer lost")
    destination = site.connect()
    with pytest.raises(Unreachable):
        destination.deliver(image, card.path(image))
    assert destination.find_existing([image]) == {}
    destination.deliver(image, card.path(image))
    site.front.assert_injected()
    assert site.stub.replaced == 1
    assert site.stored() == {image.name: card.bytes(image)}


def test_an_address_without_tls_is_not_followed(site: Studio, card: Card) -> None:
    from trapsync.destinations.object_storage import Storage

    def never(url: str) -> Any:
        raise AssertionError(url)

    storage = Storage(never, must_be_safe=True)
    for url in ("http://bucket.example/a?X-Amz-Signature=s3cret", "ftp://a/b", "nothing", "https://u:p@a/b"):
        with pytest.raises(Failed) as caught:
            storage.digest(url)
        with pytest.raises(Unreachable):
            storage.look(url)
        assert "s3cret" not in str(caught.value)


def test_what_was_made_though_the_answer_was_lost_is_found_by_the_same_connection(
    site: Studio, card: Card
) -> None:
    image = card.image()
    destination = site.connect()
    for request in (JOBS, PHOTOS):
        site.front.plan(request, "answer lost")
        with pytest.raises(Unreachable):
            destination.deliver(image, card.path(image))
    destination.deliver(image, card.path(image))
    site.front.assert_injected()
    assert [site.front.requests.count(request) for request in (JOBS, PHOTOS)] == [1, 1]
    assert site.stored() == {image.name: card.bytes(image)}


def test_a_portal_in_front_of_the_storage_is_no_answer(site: Studio, card: Card) -> None:
    image = card.image()
    destination = site.deliver(card, image)
    site.front.plan(f"GET {STORAGE}", "portal")
    with pytest.raises(Unreachable, match="portal"):
        destination.find_existing([image])
    site.front.assert_injected()


def test_a_photo_that_was_removed_there_is_made_again(site: Studio, card: Card) -> None:
    image = card.image()
    site.front.plan(URL, "503")
    destination = site.connect()
    with pytest.raises(Unreachable):
        destination.deliver(image, card.path(image))
    site.stub.photos.clear()
    with pytest.raises(Failed, match="says no"):
        destination.deliver(image, card.path(image))
    destination.deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 27 * 2**20 + 1}, "27.0 MiB"),
        ({"width": 6401, "height": 100}, "6400 pixels"),
        ({"width": 100, "height": 6401}, "6400 pixels"),
        ({"width": 6000, "height": 4501}, "27.0 megapixels"),
    ],
)
def test_what_it_never_takes_is_refused_with_the_reason_before_anything_is_asked(
    site: Studio, card: Card, changes: dict[str, Any], reason: str
) -> None:
    image = replace(card.image(), **changes)
    with pytest.raises(Refused, match=reason):
        site.connect().deliver(image, card.path(image))
    assert site.front.requests == []


def test_what_the_cameras_give_is_no_problem(card: Card) -> None:
    for width, height in ((4056, 3040), (4608, 2592), (6000, 4500)):
        assert problem(replace(card.image(), size=27 * 2**20, width=width, height=height)) is None


def test_names_there_tell_image_and_bytes(card: Card) -> None:
    image, other, next_one = card.image(), card.image(seed=2), card.image(1)
    assert photo_name(image) == f"0a1b2c3d.2026-06-21_20-19-15.{image.md5[:12]}.jpg"
    assert is_rival(photo_name(other), image)
    assert not is_rival(photo_name(image), image)
    assert not is_rival(photo_name(next_one), image)
    foreign = card.put(drawings.plain(), "DCIM/Bild 1 (é).JPG")
    assert photo_name(foreign) == f"Bild_1_.{foreign.md5[:12]}.jpg"
    assert not is_rival(f"Bild_1_.{image.md5[:12]}.jpg", foreign)
    assert result_place(photo_name(image)) == "0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-15"
    assert result_place("../../etc/passwd.jpg") == "foreign/_.._etc_passwd"
    assert result_place("....jpg") == "foreign/image"
    assert len(result_place("x" * 10**6)) < 255


def test_images_of_other_programs_go_to_the_night_of_their_file_and_keep_apart(
    site: Studio, card: Card
) -> None:
    images = [card.put(drawings.plain(seed=n), f"{n}/IMG_1.JPG", n) for n in (1, 2)]
    for image in images:
        os.utime(card.path(image), (drawings.TAKEN.timestamp(),) * 2)
    destination = site.deliver(card, *images)
    assert site.stub.named(NIGHT) == [photo_name(image) for image in images]
    again = site.connect()  # which has no file at hand when it is asked
    assert set(again.find_existing(images)) == {1, 2}
    destination.close()


# --- Nights -------------------------------------------------------------------------------------------------


def test_each_night_has_a_job_and_its_noon_is_the_traps(site: Studio, card: Card) -> None:
    from zoneinfo import ZoneInfo

    images = [card.image(second) for second in (0, 14 * 3600, 15 * 3600, 16 * 3600)]
    site.context.zone = ZoneInfo("Europe/Zurich")
    site.deliver(card, *images)
    assert [job["name"] for job in site.stub.jobs.values()] == [NIGHT, NIGHT.replace("21", "22")]
    # 20:19 UTC and 12:19 in Zurich the day after; 13:19 and 14:19 there are the next night's.
    assert len(site.stub.named(NIGHT)) == 1


def test_a_night_is_handed_in_once_it_is_over_and_nothing_of_it_is_pending(site: Studio, card: Card) -> None:
    destination = site.deliver(card, card.image(0), card.image(1))
    asked = len(site.front.requests)
    assert destination.follow_up() is False
    site.noon(1799)
    assert destination.follow_up() is False
    site.noon(1801)
    site.context.pending.append(drawings.TAKEN.timestamp())
    assert destination.follow_up() is False
    site.context.pending.clear()
    site.time.is_trusted = False
    assert destination.follow_up() is False
    assert len(site.front.requests) == asked
    site.time.is_trusted = True
    assert destination.follow_up() is True
    assert site.stub.queued == [NIGHT]
    site.time.sleep(86400)
    asked = len(site.front.requests)
    assert destination.follow_up() is False
    assert len(site.front.requests) == asked, "it is done, and nobody wants the results"


def test_what_comes_late_goes_into_another_job(site: Studio, card: Card) -> None:
    first, late, later = card.image(0), card.image(1), card.image(2)
    destination = site.deliver(card, first)
    site.noon()
    destination.follow_up()
    destination = site.deliver(card, late)
    assert site.stub.named(f"{NIGHT}-2") == [photo_name(late)]
    site.time.sleep(1000)
    destination.follow_up()
    assert site.stub.queued == [NIGHT, f"{NIGHT}-2"]
    site.deliver(card, later, first)
    assert site.stub.named(f"{NIGHT}-3") == [photo_name(later)]
    assert set(site.stored()) == {first.name, late.name, later.name}


def test_photos_whose_images_never_arrived_are_removed_before_the_job_is_handed_in(
    site: Studio, card: Card
) -> None:
    good, damaged = card.image(0), card.image(1)
    card.path(damaged).write_bytes(bytes(reversed(card.bytes(damaged))))
    destination = site.deliver(card, good)
    with pytest.raises(Failed, match="other bytes"):
        destination.deliver(damaged, card.path(damaged))
    assert len(site.stub.named(NIGHT)) == 2
    site.noon()
    destination.follow_up()
    assert site.stub.named(NIGHT) == [photo_name(good)]
    assert site.stub.queued == [NIGHT]
    assert site.context.note_keys("photo:") == []


def test_a_night_of_which_nothing_arrived_is_not_handed_in(site: Studio, card: Card) -> None:
    image, late = card.image(0), card.image(1)
    card.path(image).write_bytes(bytes(reversed(card.bytes(image))))
    destination = site.connect()
    with pytest.raises(Failed):
        destination.deliver(image, card.path(image))
    site.noon()
    destination.follow_up()
    site.time.sleep(1000)
    asked = len(site.front.requests)
    assert destination.follow_up() is False
    assert len(site.front.requests) == asked
    destination.deliver(late, card.path(late))
    destination.follow_up()
    assert site.stub.queued == [NIGHT]


QUEUE = f"{BASE}/jobs/100/queue"


@pytest.mark.parametrize("state", ["open", "brand new", None])
@pytest.mark.parametrize(
    "fault", ["answer lost", "500 though stored", "no echo", "half JSON", "cut after body"]
)
def test_a_lost_answer_hands_nothing_in_twice(
    site: Studio, card: Card, fault: str, state: str | None
) -> None:
    site.stub.fresh = state
    destination = site.deliver(card, card.image())
    site.noon()
    site.front.plan(QUEUE, fault)
    with pytest.raises(Unreachable):
        destination.follow_up()
    site.front.assert_injected()
    site.connect().follow_up()
    assert site.stub.queued == [NIGHT]
    assert site.context.note(f"job:{NIGHT}")["stage"] == "done"


@pytest.mark.parametrize("state", ["open", None])
def test_a_job_that_cannot_be_handed_in_keeps_no_image_back_and_is_tried_again(
    site: Studio, card: Card, caplog: pytest.LogCaptureFixture, state: str | None
) -> None:
    site.stub.fresh = state
    destination = site.deliver(card, card.image())
    site.noon()
    site.front.plan(QUEUE, "400", "400")
    for _ in range(2):
        assert destination.follow_up() is True
        site.time.sleep(60)
        assert destination.follow_up() is False
        site.time.sleep(1000)
    assert "cannot be submitted" in caplog.text
    late = card.image(1)
    destination.deliver(late, card.path(late))
    assert site.stub.queued == []
    destination.follow_up()
    site.front.assert_injected()
    assert site.stub.queued == [NIGHT]
    assert len(site.stub.named(NIGHT)) == 2


def test_want_of_credits_is_for_the_owner_to_mend(site: Studio, card: Card) -> None:
    destination = site.deliver(card, card.image())
    site.noon()
    site.front.plan(QUEUE, "402")
    with pytest.raises(Unauthorised, match="credits") as caught:
        destination.follow_up()
    assert caught.value.wait == 900


def test_a_deployment_is_one_job_and_is_handed_in_by_its_owner(site: Studio, card: Card) -> None:
    first, second, late = card.image(0), card.image(86400 * 3), card.image(86400 * 9)
    destination = site.deliver(card, first, second, job="deployment", deployment="meadow")
    site.noon(86400 * 30)
    assert destination.follow_up() is False
    job = site.stub.job("trapsync-0a1b2c3d-meadow")
    assert _ask(site, "POST", f"jobs/{job['id']}/queue", json={}).status_code == 200
    with pytest.raises(Failed, match="not be queued"):
        destination.deliver(late, card.path(late))
    destination.deliver(late, card.path(late))
    assert site.stub.named("trapsync-0a1b2c3d-meadow-2") == [photo_name(late)]


def test_a_job_that_is_full_is_followed_by_another_and_both_are_handed_in(
    site: Studio, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_MOST_PHOTOS", 2)
    destination = site.deliver(card, *(card.image(second) for second in range(5)))
    assert [len(site.stub.named(NIGHT + end)) for end in ("", "-2", "-3")] == [2, 2, 1]
    site.noon()
    destination.follow_up()
    assert site.stub.queued == [NIGHT, f"{NIGHT}-2", f"{NIGHT}-3"]


# --- A lost catalog -----------------------------------------------------------------------------------------


def test_after_a_lost_catalog_it_asks_once_for_each_job_and_once_for_each_image(
    site: Studio, card: Card
) -> None:
    images = [card.image(second) for second in range(5)]
    site.deliver(card, *images).close()
    site.context.notes.clear()
    site.front.requests.clear()
    destination = site.connect()
    known = destination.find_existing(images)
    assert all(isinstance(known[image.id], Receipt) for image in images)
    assert site.front.requests == [FIND, LIST, *[f"GET {STORAGE}"] * 5]
    assert site.front.connections <= 4


def test_after_a_lost_catalog_a_night_that_is_over_takes_nothing_more_and_is_not_handed_in_twice(
    site: Studio, card: Card
) -> None:
    first, late = card.image(0), card.image(1)
    destination = site.deliver(card, first)
    site.noon()
    destination.follow_up()
    site.context.notes.clear()
    destination = site.deliver(card, late)
    assert site.stub.named(f"{NIGHT}-2") == [photo_name(late)]
    destination.follow_up()
    assert site.stub.queued == [NIGHT, f"{NIGHT}-2"]
    assert {site.context.note(key)["stage"] for key in site.context.note_keys("job:")} == {"done"}


def test_after_a_lost_catalog_a_night_that_was_not_handed_in_is(site: Studio, card: Card) -> None:
    first = card.image(0)
    site.deliver(card, first).close()
    site.context.notes.clear()
    site.noon()
    destination = site.connect()
    assert isinstance(destination.find_existing([first])[first.id], Receipt)
    destination.follow_up()
    assert site.stub.queued == [NIGHT]


def test_bytes_that_are_gone_or_others_there_are_not_taken_for_delivered(site: Studio, card: Card) -> None:
    image = card.image()
    destination = site.deliver(card, image)
    site.stub.encrypts = True  # and so tells no digest
    assert destination.find_existing([image]) == {}
    site.stub.encrypts = False
    site.stub.objects["original/1"] = b"others"
    assert destination.find_existing([image]) == {}
    site.stub.objects.clear()
    assert destination.find_existing([image]) == {}
    site.stub.photos.clear()
    assert destination.find_existing([image]) == {}


@pytest.mark.parametrize("address", ["http", "https://[", "http://user:pw@a/b", "http://a:99999/"])
def test_an_address_that_is_none_costs_one_image(site: Studio, card: Card, address: str) -> None:
    odd, good = card.image(0), card.image(1)
    site.deliver(card, odd, good)
    sign, key = site.stub._sign, f"original/{next(iter(site.stub.photos))}"

    def strange(method: str, of: str, *more: str) -> str:
        return address if (method, of) == ("GET", key) else sign(method, of, *more)

    site.stub._sign = strange  # type: ignore[assignment]
    known = site.connect().find_existing([odd, good])
    assert isinstance(known[odd.id], Failed)
    assert isinstance(known[good.id], Receipt)


def test_a_file_of_a_year_that_no_date_has_belongs_to_a_night(site: Studio, card: Card) -> None:
    image = card.put(drawings.trap(), "IMG_0001.JPG")
    for moment in (2**33, 2**38, -(2**33)):
        assert site.connect()._jobs.span(image, float(moment))


# --- Results ------------------------------------------------------------------------------------------------


def _handed_in(site: Studio, card: Card, count: int = 2) -> skylab.Skylab:
    destination = site.deliver(card, *(card.image(second) for second in range(count)), download=True)
    site.noon()
    destination.follow_up()
    return destination


def _files(site: Studio) -> dict[str, bytes]:
    paths = (path for path in site.results.rglob("*") if path.is_file())
    return {str(path.relative_to(site.results)): path.read_bytes() for path in paths}


RESULT = "0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-1"


def test_results_are_fetched_when_the_job_is_done_and_asked_for_now_and_then(
    site: Studio, card: Card
) -> None:
    destination = _handed_in(site, card)
    asked = len(site.front.requests)
    for _ in range(30):
        site.time.sleep(60)
        destination.follow_up()
    assert site.front.requests[asked:] == [f"GET {BASE}/jobs/100"] * 2
    site.stub.finish(site.stub.job(NIGHT))
    site.time.sleep(900)
    assert destination.follow_up() is True
    assert set(_files(site)) == {f"{RESULT}5.png", f"{RESULT}6.png"}
    assert _files(site)[f"{RESULT}5.png"].endswith(card.bytes(card.image()))
    asked = len(site.front.requests)
    site.time.sleep(9000)
    assert destination.follow_up() is False
    assert len(site.front.requests) == asked


@pytest.mark.parametrize("fault", ["cut before body", "truncated", "503", "redirect"])
def test_a_result_that_does_not_come_whole_is_fetched_again(site: Studio, card: Card, fault: str) -> None:
    destination = _handed_in(site, card)
    site.stub.finish(site.stub.job(NIGHT))
    site.time.sleep(1000)
    site.front.plan(f"GET {STORAGE}", fault)
    with pytest.raises(Unreachable):
        destination.follow_up()
    assert _files(site) == {}
    site.front.assert_injected()
    site.connect(download=True).follow_up()
    assert set(_files(site)) == {f"{RESULT}5.png", f"{RESULT}6.png"}


@pytest.mark.parametrize("fault", ["portal", "404", "403", "500", "damaged"])
def test_a_result_that_is_none_is_left_out_and_given_up_in_the_end(
    site: Studio, card: Card, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = _handed_in(site, card)
    site.stub.finish(site.stub.job(NIGHT))
    if fault == "damaged":
        etag = site.stub._etag
        bad = site.stub.objects["retouched/1"]
        monkeypatch.setattr(site.stub, "_etag", lambda one: etag(b"other" if one == bad else one))
    else:
        site.front.plan(f"GET {STORAGE}", *[fault] * 5)
        site.stub.objects.pop("retouched/2")
    for _ in range(5):
        site.time.sleep(1000)
        destination.follow_up()
    assert len(_files(site)) == (fault == "damaged")
    assert "were not to be had" in caplog.text
    site.time.sleep(1000)
    assert destination.follow_up() is False


def test_no_result_takes_the_room_that_capture_needs(site: Studio, card: Card) -> None:
    destination = _handed_in(site, card)
    site.stub.finish(site.stub.job(NIGHT))
    site.context.free = 99_000_000
    for _ in range(9):
        site.time.sleep(1000)
        destination.follow_up()
    assert _files(site) == {}
    site.context.free = 10**9
    site.time.sleep(1000)
    destination.follow_up()
    assert len(_files(site)) == 2


def test_a_service_that_tells_no_states_gives_its_results_all_the_same(site: Studio, card: Card) -> None:
    site.stub.fresh = None
    destination = _handed_in(site, card)
    for _ in range(9):
        site.time.sleep(1000)
        destination.follow_up()
    site.stub.finish(site.stub.job(NIGHT))
    site.time.sleep(1000)
    destination.follow_up()
    assert len(_files(site)) == 2
    site.time.sleep(1000)
    assert destination.follow_up() is False


def test_a_job_that_was_removed_there_is_asked_for_no_more(site: Studio, card: Card) -> None:
    destination = _handed_in(site, card)
    site.stub.jobs.clear()
    site.time.sleep(1000)
    assert destination.follow_up() is True
    site.time.sleep(1000)
    assert destination.follow_up() is False


# --- With a real catalog ------------------------------------------------------------------------------------


def test_a_night_is_complete_when_none_of_it_is_pending_in_the_catalog(site: Studio, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "trap", site.time)
    site.context = trap.context("studio")
    destination: Any = site.connect()
    trap.catalog.places.register([("studio", "skylab", True)])
    trap.put(0)
    bad = trap.put(1, seed=2)
    trap.ingest()

    def turn() -> None:
        from trap_bench import OneByOne

        deliver_turn(trap.catalog, destination, trap.storage.spool, site.time, OneByOne())

    site.noon()
    (trap.storage.spool / bad).rename(tmp_path / "away.jpg")
    turn()
    assert site.stub.queued == []  # the other is still pending
    (tmp_path / "away.jpg").rename(trap.storage.spool / bad)
    site.time.sleep(4000)
    turn()
    assert site.stub.queued == [NIGHT]
    assert len(site.stub.named(NIGHT)) == 2
    assert trap.ledger() == (2, 2, 0, 0, 0)
    assert trap.prune() == 2  # it was proven


# --- Callbacks ----------------------------------------------------------------------------------------------

NOW = datetime(2026, 6, 22, 13, tzinfo=UTC)
BODY = b'{"id": 100,  "state": "completed"}'


def _signed(timestamp: str, body: bytes = BODY, secret: str = "shared") -> str:
    digest = hmac.new(secret.encode(), timestamp.encode() + b":" + body, hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "ISO", "ISO without a zone"])
def test_a_callback_that_is_signed_and_fresh_is_true(form: str) -> None:
    seconds = int(NOW.timestamp())
    timestamp = {
        "seconds": str(seconds),
        "milliseconds": str(seconds * 1000),
        "ISO": NOW.isoformat().replace("+00:00", "Z"),
        "ISO without a zone": NOW.replace(tzinfo=None).isoformat(),
    }[form]
    assert is_callback_authentic("shared", timestamp, _signed(timestamp), BODY, NOW + timedelta(minutes=4))
    assert not is_callback_authentic(
        "shared", timestamp, _signed(timestamp), BODY, NOW + timedelta(minutes=6)
    )
    assert not is_callback_authentic(
        "shared", timestamp, _signed(timestamp), BODY, NOW - timedelta(minutes=6)
    )


def test_a_callback_that_is_forged_is_not_true() -> None:
    stamp = str(int(NOW.timestamp()))
    assert not is_callback_authentic("shared", stamp, _signed(stamp, secret="guessed"), BODY, NOW)
    assert not is_callback_authentic(
        "shared", stamp, _signed(stamp), json.dumps(json.loads(BODY)).encode(), NOW
    )
    assert not is_callback_authentic("shared", "1" + stamp, _signed(stamp), BODY, NOW)
    assert not is_callback_authentic("shared", stamp, "", BODY, NOW)
    assert not is_callback_authentic("shared", stamp, "é", BODY, NOW)
    for strange in ("soon", "nan", "inf", ""):
        assert not is_callback_authentic("shared", strange, _signed(strange), BODY, NOW)


# --- Keys, the doctor, settings -----------------------------------------------------------------------------


def test_a_wrong_key_says_where_to_look_and_can_be_mended_while_it_runs(site: Studio, card: Card) -> None:
    image = card.image()
    destination = site.connect()
    for key, reason in (("another-key-altogether", "look at key_file"), ("schlüssel", "is no key")):
        site.change_key(key)
        with pytest.raises(Unauthorised, match=reason) as caught:
            destination.deliver(image, card.path(image))
        assert key not in str(caught.value)
    site.change_key(KEY)
    destination.deliver(image, card.path(image))


def test_no_command_log_or_file_tells_the_key_or_a_signature(
    site: Studio, card: Card, tmp_path: Path
) -> None:
    site.stub.is_quick = True
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    plans = [
        [(FIND, "503")],
        [(JOBS, "403")],
        [(PHOTOS, "500")],
        [(URL, "half JSON")],
        [(PUT, "400"), (PUT, "portal")],
    ]
    texts = leak_check.overheard(program, site.front, plans)
    leak_check.assert_silent(KEY, texts)
    assert len(site.stub.signatures) > 6
    for signature in site.stub.signatures:
        assert not [where for where, text in texts.items() if signature.encode() in text]


def test_the_doctor_looks_at_key_and_profile_and_leaves_nothing_there(site: Studio) -> None:
    (finding,) = site.connect().check()
    assert finding.verdict == "ok"
    assert "'cut out insects'" in finding.text
    assert site.front.requests == [f"GET {BASE}/profiles/{PROFILE}"]
    (finding,) = site.connect(profile=8).check()
    assert (finding.verdict, "Profile not found" in finding.text) == ("failing", True)
    site.change_key("another-key-altogether")
    (finding,) = site.connect().check()
    assert (finding.verdict, "look at key_file" in finding.text) == ("failing", True)
    site.change_key(KEY)
    verdicts = [finding.verdict for finding in site.connect(required=True).check()]
    assert verdicts == ["ok", "warning"]


TABLE = {"kind": "skylab", "key_file": "key", "profile": 7}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("url", "studio.example.org", "is not an address"),
        ("url", "https://key@studio.example.org", "is not an address"),
        ("profile", 0, "profile"),
        ("profile", "seven", "profile"),
        ("job", "week", "job"),
        ("job", "deployment", "deployment: is the name"),
        ("deployment", "meadow", "deployment: is the name"),
        ("poll", "1 s", "poll"),
        ("patience", "10 days", "patience"),
    ],
)
def test_a_wrong_setting_is_one_line(key: str, value: object, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        destinations.check("studio", TABLE | {key: value}, SOURCE)
    assert "\n" not in str(caught.value)


def test_the_right_settings_connect_and_count_for_no_pruning() -> None:
    destination = connected("studio", TABLE)
    assert destination.settings.required is False
    assert isinstance(destination.settings, Settings)
    assert destination.settings.url == "https://studio.skylabtech.ai/api/public/v1"
    destination.close()
