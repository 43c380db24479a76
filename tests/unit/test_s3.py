"""A bucket in an S3 store as a destination, by real stores: one copy of each image, and receipts that prove something."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import s3_store
from conformance import Card, OverHttp, attempt
from s3_store import BROKEN_XML, Mangled, Site, Store
from trapsync.destinations import Receipt
from trapsync.errors import Failed, Refused
from trapsync.image import Image


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
