"""What every destination must do: one class of tests, and a subclass of it for each kind.

A new destination passes these with a module of its own, and a `Site` that can set its other end up, read
back what is stored there, and break and mend it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

import drawn
from fake_time import FakeTime
from trapsync.destinations import Destination, Receipt, Tools
from trapsync.errors import Failed, Refused, Unreachable
from trapsync.examine import examine
from trapsync.image import Image


def tools(time: FakeTime | None = None) -> Tools:
    """What a destination is given, with time that stands still."""
    time = time or FakeTime()
    return Tools(time, time.sleep, drawn.DEVICE)


class Card:
    """A spool with images in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image(self, second: int = 0, *, seed: int = 1) -> Image:
        """An examined image, taken that many seconds after the first; another seed is other bytes."""
        taken = drawn.TAKEN + timedelta(seconds=second)
        name = f"{drawn.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        return self.put(
            drawn.trap(seed=seed, taken=taken), f"{drawn.DEVICE}/{taken:%Y-%m-%d}/{name}", second + 1
        )

    def put(self, content: bytes, path: str, number: int = 1) -> Image:
        """An examined image of this content and path."""
        drawn.put(self.folder, content, path)
        return replace(examine(self.folder, path), id=number)

    def path(self, image: Image) -> Path:
        """Where its file is."""
        return self.folder / image.path

    def bytes(self, image: Image) -> bytes:
        """What its file holds."""
        return self.path(image).read_bytes()


class Site(Protocol):
    """The other end, as the tests handle it."""

    def connect(self) -> Destination:
        """A new destination that delivers there."""

    def stored(self) -> dict[str, bytes]:
        """File name to bytes of all that is stored there."""

    def broken(self) -> AbstractContextManager[None]:
        """Out of reach, as long as the block lasts."""


class Conformance:
    """The tests. A subclass brings the fixture `site`."""

    @pytest.fixture
    def card(self, tmp_path: Path) -> Card:
        """An empty spool."""
        return Card(tmp_path / "spool")

    @pytest.fixture
    def destination(self, site: Site) -> Iterator[Destination]:
        """Connected to the site."""
        destination = site.connect()
        yield destination
        destination.close()

    def test_a_delivered_image_is_stored_byte_for_byte(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        receipt = destination.deliver(image, card.path(image))
        assert receipt.digest in {f"md5:{image.md5}", f"sha256:{image.sha256}"}
        assert site.stored() == {image.name: card.bytes(image)}

    def test_delivering_twice_is_one_copy_and_a_receipt_both_times(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        receipts = [destination.deliver(image, card.path(image)) for _ in range(2)]
        assert receipts[0].digest == receipts[1].digest
        assert site.stored() == {image.name: card.bytes(image)}

    def test_what_is_there_is_known_without_reading_a_byte(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        there, absent = card.image(0), card.image(1)
        destination.deliver(there, card.path(there))
        card.path(there).unlink()
        card.path(absent).unlink()
        known = destination.known([absent, there])
        assert isinstance(known[there.id], Receipt)
        assert absent.id not in known

    def test_another_connection_knows_it_too(self, destination: Destination, site: Site, card: Card) -> None:
        image = card.image()
        destination.deliver(image, card.path(image))
        other = site.connect()
        assert isinstance(other.known([image])[image.id], Receipt)
        other.close()

    def test_asking_about_nothing_answers_nothing(self, destination: Destination) -> None:
        assert destination.known([]) == {}

    def test_a_full_batch_is_answered(self, destination: Destination, card: Card) -> None:
        image = card.image()
        destination.deliver(image, card.path(image))
        copies = [replace(image, id=number) for number in range(destination.batch)]
        assert len(destination.known(copies)) == destination.batch

    def test_other_bytes_under_a_taken_name_are_refused_and_nothing_is_overwritten(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        first = card.image()
        destination.deliver(first, card.path(first))
        content = card.bytes(first)
        other = card.image(seed=2)
        assert other.key == first.key
        assert isinstance(destination.known([other])[other.id], Refused)
        with pytest.raises(Refused, match="both are kept"):
            destination.deliver(other, card.path(other))
        assert site.stored() == {first.name: content}

    def test_other_bytes_are_refused_by_a_delivery_that_did_not_ask(self, site: Site, card: Card) -> None:
        first = card.image()
        site.connect().deliver(first, card.path(first))
        content = card.bytes(first)
        other = card.image(seed=2)
        with pytest.raises(Refused):
            site.connect().deliver(other, card.path(other))
        assert site.stored() == {first.name: content}

    def test_a_vanished_file_is_said_to_be_gone(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        card.path(image).unlink()
        with pytest.raises(FileNotFoundError):
            destination.deliver(image, card.path(image))
        assert site.stored() == {}

    @pytest.mark.parametrize("content", [b"", b"\xff\xd8 shorter", None])
    def test_a_file_that_changed_since_it_was_examined_is_not_stored(
        self, destination: Destination, site: Site, card: Card, content: bytes | None
    ) -> None:
        image = card.image()
        changed = bytes(reversed(card.bytes(image))) if content is None else content
        card.path(image).write_bytes(changed)
        with pytest.raises(Failed):
            destination.deliver(image, card.path(image))
        assert site.stored() == {}

    def test_out_of_reach_is_unreachable_and_mended_it_delivers(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        with site.broken():
            with pytest.raises(Unreachable):
                destination.known([image])
            with pytest.raises(Unreachable):
                destination.deliver(image, card.path(image))
        assert site.stored() == {}
        assert destination.known([image]) == {}
        destination.deliver(image, card.path(image))
        assert site.stored() == {image.name: card.bytes(image)}

    def test_what_was_there_is_there_after_an_outage(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        destination.deliver(image, card.path(image))
        with site.broken(), pytest.raises(Unreachable):
            destination.known([image])
        assert isinstance(destination.known([image])[image.id], Receipt)

    def test_several_threads_deliver_at_once(self, destination: Destination, site: Site, card: Card) -> None:
        images = [card.image(second) for second in range(8)]
        destination.known(images)
        with ThreadPoolExecutor(4) as pool:
            receipts = list(pool.map(lambda image: destination.deliver(image, card.path(image)), images))
        assert len(receipts) == 8
        assert site.stored() == {image.name: card.bytes(image) for image in images}

    def test_the_doctor_is_told_how_it_is(self, destination: Destination, site: Site) -> None:
        assert all(finding.verdict != "failing" for finding in destination.check())
        with site.broken():
            assert any(finding.verdict == "failing" for finding in destination.check())
        assert site.stored() == {}
