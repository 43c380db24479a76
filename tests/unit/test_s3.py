"""A bucket in an S3 store as a destination, by real stores: one copy of each image, and receipts that prove something."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import minio
import pytest
import requests

import drawings
import killed_trap
import leak_check
import s3_store
from conformance import Card, OverHttp, attempt
from fake_time import FakeTime
from memory_context import SOURCE, MemoryContext
from proxy_server import ProxyServer
from s3_store import BROKEN_XML, Mangled, Site, Store
from trapsync import destinations
from trapsync.destinations import Receipt, s3
from trapsync.errors import Failed, Refused, SettingsError, Unreachable
from trapsync.image import Image, TrapName
from trapsync.settings.schema import Settings


@pytest.fixture
def site(seaweed: Store, tmp_path: Path) -> Iterator[Site]:
    """In a SeaweedFS."""
    with s3_store.site(seaweed, tmp_path) as one:
        yield one


def s3_key(site: Site, image: Image) -> str:
    """Where an image lies by the standard layout."""
    return f"{site.prefix}/{image.place}"


class TestS3(OverHttp):
    """The promises that all destinations make."""

    kind = "s3"
    steps = ("HEAD /pictures/*", "PUT /pictures/*")
    upload = "PUT /pictures/*"

    def strange_entries(self, site: Any, card: Card, image: Image) -> Iterator[str]:
        """Objects of others under its key; then its own, of which strange things are told."""
        key = s3_key(site, image)
        for what, content, more in (
            ("nothing in it", b"", {}),
            ("other bytes of the same size", card.bytes(image)[::-1], {}),
            ("a page", b"<html>", {"ContentType": "text/html"}),
            ("a digest that is not its own", b"x" * image.size, {"Metadata": {"sha256": image.sha256}}),
        ):
            site.store.put(key, content, **more)
            yield what
        site.store.client().delete_object(Bucket=site.store.bucket, Key=key)
        site.store.put(f"{key}/inside.jpg", b"a folder of this name")
        yield "a folder"
        site.store.client().delete_object(Bucket=site.store.bucket, Key=f"{key}/inside.jpg")
        site.store.put(key, card.bytes(image))
        site.front.backend = mangled = Mangled(site.store.url, image.name)
        for mangled.field, mangled.value in (
            ("Size", "x"),
            ("ETag", ""),
            ("Key", "\x01"),
            ("Content-Length", "x"),
        ):
            yield f"{mangled.field} = {mangled.value!r}"
        mangled.field = ""

    @pytest.mark.timeout(300)
    def test_a_strange_row_in_an_answer_costs_its_own_image_only(self, site: Any, card: Card) -> None:
        odd, there, absent = card.image(0), card.image(1), card.image(2)
        first = site.connect()
        for image in (odd, there):
            first.deliver(image, card.path(image))
        held = self.held(card, odd, there)
        site.front.backend = mangled = Mangled(site.store.url, odd.name)
        for what in mangled.oddities():
            mangled.times = 0
            destination = site.connect()
            known = destination.find_existing([odd, there, absent])
            if (
                mangled.value not in BROKEN_XML
            ):  # or the list cannot be read, and each is asked for before it is sent
                assert isinstance(known[there.id], Receipt), what
            assert absent.id not in known, what
            for image in (odd, there):
                outcome = attempt(destination, card, image)
                assert isinstance(outcome, Receipt | Failed | Refused), (what, outcome)
                assert image is odd or isinstance(outcome, Receipt), (what, outcome)
            assert mangled.times, what
            destination.close()
        assert site.stored() == held


# --- Asking -------------------------------------------------------------------------------------------------


def many(card: Card, count: int) -> list[Image]:
    """Images of a trap, one every ten minutes, all of the same bytes."""
    first, images = card.image(), []
    for number in range(count):
        name = TrapName(drawings.DEVICE, drawings.TAKEN + timedelta(minutes=10 * number))
        images.append(replace(first, id=number + 1, path=f"{name.folder}/{name}"))
    return images


def put_all(site: Site, card: Card, images: Iterable[Image]) -> None:
    """Let somebody else have put them there."""
    content = card.bytes(card.image())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: site.store.put(s3_key(site, image), content), images))


def test_512_images_are_asked_for_with_one_listing_whether_they_are_there_or_not(
    seaweed: Store, tmp_path: Path, card: Card
) -> None:
    with s3_store.site(seaweed, tmp_path) as site:
        bucket, images = site.connect(), many(card, 1024)
        pending, there = images[512:], images[:512]
        put_all(site, card, there)
        assert bucket.batch == len(there)
        assert len(bucket.find_existing(there)) == 512
        assert bucket.find_existing(pending) == {}
        at = {image.id: s3_key(site, image) for image in there}
        assert len(bucket.confirm(there, at)) == 512
        assert site.front.requests == ["GET /pictures"] * 3
        site.front.requests.clear()
        # Every second one is missing, and somebody else's things lie between them.
        kept = there[::2]
        gone = [{"Key": s3_key(site, image)} for image in there[1::2]]
        site.store.client().delete_objects(Bucket=seaweed.bucket, Delete={"Objects": gone})
        for image in kept[::16]:
            site.store.put(f"{s3_key(site, image)}.txt", b"a note")
        assert bucket.find_existing(there).keys() == {image.id for image in kept}
        assert site.front.requests == ["GET /pictures"]
        # What a listing does not show is not said to be gone before it was asked for by itself.
        confirmed = bucket.confirm(there[:9], at)
        assert confirmed.keys() == {image.id for image in there[:9:2]}
        assert site.front.requests[1:].count("GET /pictures") == 1
        assert site.front.count("HEAD /pictures/*") == 4


def test_where_a_listing_tells_mostly_of_others_it_is_not_read_on(site: Site, card: Card) -> None:
    images, bucket = many(card, 300)[::60], site.connect()
    put_all(site, card, images)
    crowd = [f"{s3_key(site, images[0])}.{number}" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: site.store.put(key, b"x"), crowd))
    assert images[0].id in bucket.find_existing(images)
    assert site.front.requests == ["GET /pictures"]
    for image in images:
        bucket.deliver(image, card.path(image))
    assert site.front.count("PUT /pictures/*") == 0


def test_an_image_is_found_where_an_earlier_layout_put_it_and_is_not_sent_again(
    site: Site, card: Card, tmp_path: Path
) -> None:
    given = MemoryContext(site.time, site.sleep, trap_name="Valley 3")
    images = [card.image(second) for second in range(4)]
    first = site.connect(given)
    at = {image.id: first.deliver(image, card.path(image)).at for image in images[:3]}
    assert set(at.values()) == {s3_key(site, image) for image in images[:3]}
    second = site.connect(given, layout="antenna")
    for some, questions in (([images[0]], {"HEAD": 2}), (images, {"GET": 1})):  # where a list serves, no more
        site.front.requests.clear()
        known = second.find_existing(some)
        assert Counter(one.split()[0] for one in site.front.requests) == questions
        assert {number: one.at for number, one in known.items() if isinstance(one, Receipt)} == {
            image.id: at[image.id] for image in some if image.id in at
        }
    assert second.confirm(images[:3], at).keys() == set(at)
    taken = f"{drawings.TAKEN + timedelta(seconds=3):%Y%m%d%H%M%S}"
    receipt = second.deliver(images[3], card.path(images[3]))
    assert receipt.at == f"{site.prefix}/Valley-3/{taken}-{drawings.DEVICE}.jpg"


def test_by_bytes_the_first_byte_of_each_is_read(site: Site, card: Card) -> None:
    images = [card.image(second) for second in range(5)]
    bucket = site.connect(checksum="sha256")
    at = {image.id: bucket.deliver(image, card.path(image)).at for image in images}
    site.store.client().delete_object(Bucket=site.store.bucket, Key=at[images[1].id])
    site.store.put(at[images[2].id], card.bytes(images[2])[::-1])
    site.store.put(at[images[4].id], b"")  # which has no first byte
    saying = site.front.backend = s3_store.Saying(site.store.url)
    archived = s3_store.error(403, "InvalidObjectState", "not valid for the object's storage class")
    saying.says = lambda path, *_: archived if images[3].name in path else None
    found = bucket.confirm(images, at, by_bytes=True)
    assert isinstance(found[images[0].id], Receipt)
    assert images[1].id not in found
    assert isinstance(found[images[2].id], Refused)
    assert isinstance(found[images[3].id], Failed)
    assert "0 bytes" in str(found[images[4].id])
    assert [headers.get("range") for path, headers in saying.asked if path.startswith("GET /pictures/")] == [
        "bytes=0-0"
    ] * 5
    more = card.image(9)
    bucket.deliver(more, card.path(more))  # that one could not be read says nothing of checksums
    assert "x-amz-checksum-sha256" in saying.asked[-1][1]


def test_a_key_that_is_too_long_for_a_store_is_refused_and_costs_the_others_nothing(
    site: Site, card: Card
) -> None:
    image = card.image()
    far = replace(image, id=9, path="/".join(["f" * 200] * 6) + "/IMG_0001.JPG")
    bucket = site.connect()
    bucket.deliver(image, card.path(image))
    known = bucket.find_existing([far, image])
    assert isinstance(known[far.id], Refused)
    assert isinstance(known[image.id], Receipt)
    with pytest.raises(Refused, match="1024 bytes"):
        bucket.deliver(far, card.path(image))


# --- What others see ----------------------------------------------------------------------------------------


def test_boto3_and_minio_py_read_back_what_we_wrote(site: Site, card: Card) -> None:
    odd = card.put(drawings.trap(seed=9), "from phone/ä b +%26~'(1)!.JPG", 77)
    images = [*(card.image(second, seed=second) for second in range(3)), odd]
    bucket = site.connect()
    receipts = [(image, bucket.deliver(image, card.path(image))) for image in images]
    client = minio.Minio(
        f"127.0.0.1:{site.store.port}", site.store.access_key, site.store.secret, secure=False
    )
    listed = {
        one.object_name: one
        for one in client.list_objects(site.store.bucket, f"{site.prefix}/", recursive=True)
    }
    assert listed.keys() == {receipt.at for _, receipt in receipts}
    for image, receipt in receipts:
        for read in (
            site.store.client().get_object(Bucket=site.store.bucket, Key=receipt.at)["Body"].read(),
            client.get_object(site.store.bucket, receipt.at).data,
        ):
            assert read == card.bytes(image)
        assert str(listed[receipt.at].etag).strip('"') == image.md5
        told = client.stat_object(site.store.bucket, receipt.at)
        assert (told.content_type, told.size) == ("image/jpeg", image.size)


def test_a_listing_as_antenna_makes_it_finds_every_image(site: Site, card: Card) -> None:
    """By a prefix for the station and a pattern (ami/utils/s3.py); its table takes keys of up to 255 characters."""
    images = [card.image(second * 3600) for second in range(5)]
    for trap in ("Valley 3", "Forest"):
        bucket = site.connect(MemoryContext(site.time, site.sleep, trap_name=trap), layout="antenna")
        for image in images:
            bucket.deliver(image, card.path(image))
    pages = site.store.client().get_paginator("list_objects_v2")
    listed = [
        one
        for page in pages.paginate(Bucket=site.store.bucket, Prefix=f"{site.prefix}/Valley-3/")
        for one in page["Contents"]
        if re.search(r"\.jpg$", one["Key"]) and one["Size"] > 0
    ]
    taken = [re.search(r"\d{14}", one["Key"].rpartition("/")[2]) for one in listed]
    assert [match and match[0] for match in taken] == [
        f"{image.trap_name.taken:%Y%m%d%H%M%S}" for image in images if image.trap_name
    ]
    assert max(len(one["Key"]) for one in listed) <= 255


def test_whoever_has_an_address_can_fetch_the_image_for_as_long_as_it_is_good(site: Site, card: Card) -> None:
    image = card.image()
    bucket = site.connect(url_lifetime="1 h")
    receipt = bucket.deliver(image, card.path(image))
    url = bucket.address(image, receipt.detail)
    assert url
    assert f"/pictures/{receipt.at}?" in url
    assert "&X-Amz-Expires=3600&" in url
    assert requests.get(url, timeout=10).content == card.bytes(image)
    assert bucket.addresses(image, {}) == {"image": bucket.address(image, {})}
    assert requests.get(url.replace("Expires=3600", "Expires=7200"), timeout=10).status_code == 403
    hours_ago = FakeTime(site.time.wall() - 2 * 3600)
    site.time = hours_ago
    old = site.connect(url_lifetime="1 h").address(image, receipt.detail)
    assert requests.get(str(old), timeout=10).status_code == 403
    hours_ago.is_trusted = False
    with pytest.raises(Unreachable, match="clock is not set"):
        site.connect().address(image, receipt.detail)


def test_no_command_log_or_file_tells_the_secret_nor_an_address(
    site: Site, card: Card, tmp_path: Path
) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    plans = [[("PUT /pictures/*", "403")] * 2, [("HEAD /pictures/*", "502"), ("PUT /pictures/*", "portal")]]
    texts = leak_check.overheard(program, site.front, plans, ("images", "--url", "bucket", "--json"))
    leak_check.assert_silent(site.store.secret, texts)
    shown = {where for where, text in texts.items() if b"X-Amz-Signature" in text}
    assert "images --url bucket --json, plan 2" in shown
    assert {where.partition(",")[0] for where in shown} == {"images --url bucket --json"}


def test_through_a_proxy_a_request_is_signed_for_the_stores_own_name(site: Site, card: Card) -> None:
    images = [card.image(second) for second in range(3)]
    with ProxyServer({"s3.test": site.front.port}) as proxy:
        bucket = site.connect(endpoint="http://S3.test:80/", proxy=proxy.url)
        for image in images:
            bucket.deliver(image, card.path(image))
        assert len(bucket.find_existing(images)) == 3
    assert site.stored() == {image.name: card.bytes(image) for image in images}
    assert all(" http://s3.test/pictures" in request for request in proxy.asked)
    assert len(proxy.asked) == len(site.front.requests) == 7


# --- Settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"endpoint": "s3.example.org"}, "endpoint: 's3.example.org' is not an address"),
        ({"endpoint": "https://key:secret@s3.example.org"}, "use access_key and secret_file"),
        ({"bucket": ""}, "bucket: '' is not the name of a bucket"),
        ({"bucket": "moths/2026"}, "what lies in it goes into prefix"),
        ({"prefix": "../other"}, "prefix: '../other' is not a path"),
        ({"prefix": "a//b"}, "is not a path"),
        ({"prefix": "a b"}, "is not a path"),
        ({"prefix": "x" * 240}, "255 are the most"),
        ({"region": "eu central"}, "is not a region"),
        ({"access_key": ""}, "is not an access key"),
        ({"access_key": "a/b"}, "is not an access key"),
        ({"storage_class": "standard"}, "is not a storage class"),
        ({"checksum": "crc32"}, "must be one of"),
        ({"url_lifetime": "8 days"}, "is not between"),
        ({"layout": "{local:%Y}.jpg"}, "layout: "),
        ({"layout": "nightly"}, "is no layout"),
        ({"ca_file": "/nowhere/ca.pem"}, "there is no file /nowhere/ca.pem"),
        ({"secret": "hush"}, "secret: there is no such setting"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    table = {
        "kind": "s3",
        "endpoint": "https://s3.example.org",
        "bucket": "moths",
        "access_key": "AKIA",
        "secret_file": "secret",
        **keys,
    }
    with pytest.raises(SettingsError) as caught:
        destinations.check("bucket", table, SOURCE).require(Settings(), SOURCE)
    assert str(caught.value).startswith("trapsync.toml: destinations.bucket.")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "base"),
    [
        ({}, ("https://s3.example.org", "/moths")),
        ({"endpoint": "https://S3.example.org:443/"}, ("https://s3.example.org", "/moths")),
        ({"endpoint": "http://10.0.0.7:9000/store/s3"}, ("http://10.0.0.7:9000", "/store/s3/moths")),
        ({"addressing": "host"}, ("https://moths.s3.example.org", "")),
        ({"endpoint": "https://[::1]:9000"}, ("https://[::1]:9000", "/moths")),
    ],
)
def test_a_bucket_is_addressed_by_path_or_by_host(keys: dict[str, str], base: tuple[str, str]) -> None:
    table = {"kind": "s3", "endpoint": "https://s3.example.org", "bucket": "moths", "access_key": "A", **keys}
    settings = destinations.check("bucket", {**table, "secret_file": "secret"}, SOURCE).settings
    assert isinstance(settings, s3.Settings)
    assert settings.base == base


# --- The doctor ---------------------------------------------------------------------------------------------


def test_without_probe_the_doctor_only_lists(site: Site) -> None:
    findings = site.connect().check()
    assert {one.verdict for one in findings} == {"ok"}
    assert "shows only with an image, or with probe = true" in findings[0].text
    assert set(site.front.requests) == {"GET /pictures"}


@pytest.mark.parametrize("name", ["seaweed", "rclone_s3"])
def test_with_probe_the_doctor_says_what_the_store_promises_and_leaves_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    store: Store = request.getfixturevalue(name)
    with s3_store.site(store, tmp_path) as site:
        saying = site.front.backend = s3_store.Saying(store.url)
        texts = [(one.verdict, one.text) for one in site.connect(probe=True).check()]
        minds = "minds" if name == "seaweed" else "does not mind"
        assert texts[2:] == [("ok", f"a probe was written and read; the store {minds} If-None-Match")]
        assert site.stored() == {}
        saying.says = lambda path, *_: (
            s3_store.error(403, "AccessDenied") if path.startswith("DELETE") else None
        )
        assert "may not be removed: delete" in site.connect(probe=True).check()[-1].text
        saying.says = lambda path, *_: s3_store.error(405, "No") if path.startswith("PUT") else None
        (finding,) = site.connect(probe=True).check()
        assert finding.verdict == "failing"
        assert "let the key write objects (s3:PutObject)" in finding.text
        saying.says = lambda path, *_: (200, {"ETag": '"x-1"'}, b"") if path.startswith("PUT") else None
        verdicts = {one.text: one.verdict for one in site.connect(probe=True).check()}
        assert [verdicts[text] for text in verdicts if "does not have it" in text] == ["failing"]
        assert [verdicts[text] for text in verdicts if 'set checksum = "sha256"' in text] == ["warning"]
        assert [verdicts[text] for text in verdicts if "takes what is not what" in text] == ["failing"]
