"""What every destination must do: one class of tests, and a subclass of it for each kind.

A new destination passes these with a module of its own, and a `Site` that can set its other end up, read
back what is stored there, and break and mend it. One that is spoken to over HTTP passes `OverHttp` as well: there
its site has a `FaultServer` in front.

Where the other end holds something else than the bytes (a link, a small copy), a subclass says in `held` what
it must hold; where it confirms no digest, the subclass sets `echoes`.
"""

import gzip
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

import drawings
import killed_trap
import odd_entries
import side_effects
import trap_bench as bench
from fault_server import Backend, FaultServer, Reply
from trapsync.destinations import Destination, Receipt
from trapsync.destinations.outcomes import Outcome, Send
from trapsync.errors import DeliveryError, Failed, Held, Refused, Unauthorised, Unreachable
from trapsync.image import Image
from trapsync.jpeg.examination import examine


class Card:
    """A spool with images in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image(self, second: int = 0, *, seed: int = 1) -> Image:
        """An examined image, taken that many seconds after the first; another seed is other bytes."""
        taken = drawings.TAKEN + timedelta(seconds=second)
        name = f"{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        return self.put(
            drawings.trap(seed=seed, taken=taken), f"{drawings.DEVICE}/{taken:%Y-%m-%d}/{name}", second + 1
        )

    def put(self, content: bytes, path: str, number: int = 1) -> Image:
        """An examined image of this content and path."""
        drawings.put(self.folder, content, path)
        return replace(examine(self.folder, path), id=number)

    def path(self, image: Image) -> Path:
        """Where its file is."""
        return self.folder / image.path

    def bytes(self, image: Image) -> bytes:
        """What its file holds."""
        return self.path(image).read_bytes()


class AllAtOnce(bench.OneByOne):
    """As many uploads at a time as there are images, which all begin at one moment."""

    @property
    def has_room(self) -> bool:
        return True

    def finished(self, within: float) -> tuple[Image, Outcome] | None:
        count = len(self._started)
        begin = threading.Barrier(max(1, count))

        def one(images: Sequence[Image], send: Send) -> list[tuple[Image, Outcome]]:
            begin.wait(10)
            return self.make(images, send)

        with ThreadPoolExecutor(max(1, count)) as pool:
            for ended in pool.map(one, *zip(*self._started, strict=True)) if count else ():
                self._ended += ended
        self._started.clear()
        return self._ended.pop() if self._ended else None


class Site(Protocol):
    """The other end, as the tests handle it."""

    def connect(self) -> Destination:
        """A new destination that delivers there."""

    def stored(self) -> dict[str, bytes]:
        """File name to bytes of all that is stored there."""

    def broken(self) -> AbstractContextManager[None]:
        """Out of reach, as long as the block lasts."""


# Paths of images as a card may hold them: a year at the end of time, and foreign ones that are long or odd.
STRANGE_PATHS = (
    f"{drawings.DEVICE}/9999-12-31/{drawings.DEVICE}.9999-12-31_23-59-59.jpg",
    f"{drawings.DEVICE}/1000-01-01/{drawings.DEVICE}.1000-01-01_00-00-00.jpg",
    "/".join([*["f" * 250] * 16, "g" * 60, "IMG_0001.JPG"]),
    f"{'x' * 250}.jpg",
    "Flügel/\U0001f98b night\u202e.jpg",
    'a "quoted" & <b>%00#?\\\n.jpg',
)


# And such as a file system does hold, and the catalog takes.
STRANGE_ON_A_CARD = (
    *STRANGE_PATHS[:2],
    f"{'x' * 250}.jpg",
    "/".join(["f" * 200] * 10 + ["IMG_0001.JPG"]),
    "Flügel/\U0001f98b night.jpg",
    "Flu\u0308gel/\U0001f98b night.jpg",
    'a "quoted" & <b>%00#?\\.jpg',
    " leading and trailing .jpg",
    "-rf.jpg",
    "COM1.jpg",
)


# What can become of a file between its examination and its delivery.
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "cut": lambda content: content[:10],
    "another": lambda content: content[::-1],
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
}


def entries_in_the_way(place: Path) -> Iterator[str]:
    """One strange thing after another at this path of a folder; in the end what lay there before."""
    before = place.read_bytes()
    elsewhere = place.with_name("elsewhere")
    elsewhere.write_bytes(before)
    makers = odd_entries.in_the_way(place, before, elsewhere)
    makers["a device"] = lambda: (
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5)) if os.geteuid() == 0 else place.mkdir()
    )
    for what, make in makers.items():
        place.unlink()
        make()
        yield what
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
        else:
            place.unlink()
        place.write_bytes(before)
    elsewhere.unlink()


def attempt(destination: Destination, card: Card, image: Image) -> Receipt | Exception:
    """What comes of one delivery, whatever it is."""
    try:
        return destination.deliver(image, card.path(image))
    except Exception as error:
        return error


# What a line of code looks like at which tests can kill the program.
_FAILPOINT = 'failpoint.hit("{}: what happened")'


class Conformance:
    """The tests. A subclass brings the fixture `site`."""

    # Whether receipts say `echo:`, because the other end confirms no digest.
    echoes: ClassVar[bool] = False
    # Whether other bytes under a taken name are stored beside the first. Otherwise they are refused.
    stores_beside: ClassVar[bool] = False

    def held(self, card: Card, *images: Image) -> dict[str, bytes]:
        """What `site.stored()` must be when exactly these were delivered."""
        return {image.name: card.bytes(image) for image in images}

    def proofs(self, image: Image) -> set[str]:
        """The digests that a receipt may give."""
        if self.echoes:
            return {f"echo:{image.sha256}"}
        return {f"md5:{image.md5}", f"sha256:{image.sha256}"}

    @pytest.fixture
    def card(self, tmp_path: Path) -> Card:
        """A spool without images."""
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
        assert receipt.digest in self.proofs(image)
        assert site.stored() == self.held(card, image)

    def test_delivering_twice_is_one_copy_and_a_receipt_both_times(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        receipts = [destination.deliver(image, card.path(image)) for _ in range(2)]
        assert receipts[0].digest == receipts[1].digest
        first, second = (receipt.detail for receipt in receipts)
        assert all(first[key] == second[key] for key in first.keys() & second.keys())  # ids, above all
        assert site.stored() == self.held(card, image)

    def test_what_is_there_is_known_without_reading_a_byte(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        there, absent = card.image(0), card.image(1)
        destination.deliver(there, card.path(there))
        card.path(there).unlink()
        card.path(absent).unlink()
        known = destination.find_existing([absent, there])
        assert isinstance(known[there.id], Receipt)
        assert absent.id not in known

    def test_another_connection_knows_it_too(self, destination: Destination, site: Site, card: Card) -> None:
        image = card.image()
        destination.deliver(image, card.path(image))
        other = site.connect()
        assert isinstance(other.find_existing([image])[image.id], Receipt)
        other.close()

    def test_asking_about_nothing_answers_nothing(self, destination: Destination) -> None:
        assert destination.find_existing([]) == {}

    def test_a_full_batch_is_answered(self, destination: Destination, card: Card) -> None:
        image = card.image()
        destination.deliver(image, card.path(image))
        copies = [replace(image, id=number) for number in range(destination.batch)]
        assert len(destination.find_existing(copies)) == destination.batch

    def test_other_bytes_under_a_taken_name_are_refused_or_lie_beside_and_nothing_is_overwritten(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        first = card.image()
        destination.deliver(first, card.path(first))
        held = self.held(card, first)
        other = card.image(seed=2)
        assert other.key == first.key
        answer = destination.find_existing([other]).get(other.id)
        if self.stores_beside:
            assert answer is None
            self.lies_beside(destination, site, card, other, held)
        else:
            assert isinstance(answer, Refused)
            with pytest.raises(Refused, match="both are kept"):
                destination.deliver(other, card.path(other))
            assert site.stored() == held

    def test_other_bytes_overwrite_nothing_in_a_delivery_that_did_not_ask(
        self, site: Site, card: Card
    ) -> None:
        first = card.image()
        site.connect().deliver(first, card.path(first))
        held = self.held(card, first)
        other = card.image(seed=2)
        if self.stores_beside:
            self.lies_beside(site.connect(), site, card, other, held)
        else:
            with pytest.raises(Refused):
                site.connect().deliver(other, card.path(other))
            assert site.stored() == held

    def lies_beside(
        self, destination: Destination, site: Site, card: Card, other: Image, held: dict[str, bytes]
    ) -> None:
        """Deliver the second image of a name: it has a name of its own, that is found again each time."""
        receipt = destination.deliver(other, card.path(other))
        assert site.stored() == held | {Path(receipt.at).name: card.bytes(other)}
        assert len(site.stored()) == len(held) + 1
        known = site.connect().find_existing([other])[other.id]
        assert isinstance(known, Receipt)
        assert (known.digest, known.at) == (receipt.digest, receipt.at)
        assert destination.deliver(other, card.path(other)).at == receipt.at
        assert len(site.stored()) == len(held) + 1

    def test_a_strange_image_in_the_batch_costs_the_others_nothing(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        there, absent = card.image(0), card.image(1)
        destination.deliver(there, card.path(there))
        strange = [replace(absent, id=100 + number, path=path) for number, path in enumerate(STRANGE_PATHS)]
        for batch in ([*strange, absent, there], *([one, absent, there] for one in strange)):
            known = destination.find_existing(batch)
            assert isinstance(known[there.id], Receipt)
            assert absent.id not in known
        for name in (
            f"{drawings.DEVICE}.9999-12-31_23-59-59.jpg",
            f"{drawings.DEVICE}.1000-01-01_00-00-00.jpg",
        ):
            odd = card.put(drawings.trap(), name, 200)
            outcome = attempt(destination, card, odd)
            assert isinstance(outcome, Receipt | DeliveryError), repr(outcome)
        destination.follow_up()
        destination.deliver(absent, card.path(absent))

    def test_strange_images_on_a_card_are_delivered_or_cost_themselves(
        self, destination: Destination, site: Site, tmp_path: Path
    ) -> None:
        if destination.settings.depends_on:
            pytest.skip("it is given what another destination has confirmed")
        trap = bench.Trap(tmp_path / "trap-with-strange-images")
        trap.register(destination)
        good = [trap.put(second, seed=second + 1) for second in range(2)]
        for number, path in enumerate(STRANGE_ON_A_CARD):
            trap.put(1000 + number, seed=10 + number, path=path)
        count = len(good) + len(STRANGE_ON_A_CARD)
        while trap.ingest().new:
            pass
        assert trap.ledger() == (count, 0, count, 0, 0)
        turn = trap.deliver(destination)
        assert (turn.trouble, turn.bugs) == (None, 0)
        assert turn.delivered + turn.refused + turn.postponed == count
        delivered = {image.path for image in trap.catalog.proofs.delivered_to(destination.name, 0, 99)}
        assert set(good) <= delivered

    def strange_entries(self, site: Any, card: Card, image: Image) -> Iterator[str]:
        """Put one strange thing after another where this image lies at the other end, and say what it is."""
        raise NotImplementedError

    @pytest.mark.timeout(300)
    def test_a_strange_entry_at_the_other_end_costs_its_own_image_only(
        self, destination: Destination, site: Site, tmp_path: Path
    ) -> None:
        """Three images are there, and one is new: what lies in the place of one is in nobody else's way."""
        if destination.settings.depends_on:
            pytest.skip("it is given what another destination has confirmed")
        trap = bench.Trap(tmp_path / "trap-with-oddity")
        trap.register(destination)
        for second in range(3):
            trap.put(second, seed=second + 1)
        trap.ingest()
        assert trap.deliver(destination).delivered == 3
        odd = trap.catalog.images.on_card(0, 9)[1]
        seen = 0
        for seen, what in enumerate(self.strange_entries(site, Card(trap.storage.spool), odd), 1):
            again = site.connect()
            again.name = f"again-{seen}"  # of which the catalog knows nothing
            trap.register(again)
            trap.put(100 + seen, seed=100 + seen)
            trap.ingest()
            turn = trap.deliver(again)
            assert (turn.trouble, turn.bugs) == (None, 0), what
            delivered = {image.key for image in trap.catalog.proofs.delivered_to(again.name, 0, 99)}
            assert {image.key for image in trap.catalog.images.on_card(0, 99)} - delivered <= {odd.key}, what
            assert len(delivered) >= 3
            again.close()
        assert seen >= 3

    def test_two_images_of_one_name_in_one_turn_overwrite_nothing_however_many_are_sent_at_once(
        self, destination: Destination, site: Site, tmp_path: Path
    ) -> None:
        if destination.settings.depends_on:
            pytest.skip("it is given what another destination has confirmed, and so told apart")
        trap = bench.Trap(tmp_path / "trap-with-twins")
        trap.register(destination)
        name = trap.put(seed=1).rpartition("/")[2]
        for seed in (2, 3):
            trap.put(seed=seed, path=f"copies/{seed}/{name}")
        trap.ingest()
        assert trap.ledger()[:2] == (3, 0)
        trap.deliver(destination, AllAtOnce())
        copies = Card(trap.storage.spool)
        delivered = trap.catalog.proofs.delivered_to(destination.name, 0, 10)
        assert len(delivered) == (3 if self.stores_beside else 1)
        held = [content for image in delivered for content in self.held(copies, image).values()]
        assert sorted(site.stored().values()) == sorted(held)

    def test_a_vanished_file_is_said_to_be_gone(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        card.path(image).unlink()
        with pytest.raises(FileNotFoundError):
            destination.deliver(image, card.path(image))
        assert site.stored() == {}

    @pytest.mark.parametrize("change", CHANGES)
    def test_a_file_that_changed_since_it_was_examined_is_not_stored(
        self, destination: Destination, site: Site, card: Card, change: str
    ) -> None:
        image = card.image()
        card.path(image).write_bytes(CHANGES[change](card.bytes(image)))
        with pytest.raises(Failed):
            destination.deliver(image, card.path(image))
        assert site.stored() == {}

    def test_out_of_reach_is_unreachable_and_mended_it_delivers(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        with site.broken():
            with pytest.raises(Unreachable):
                destination.find_existing([image])
            with pytest.raises(Unreachable):
                destination.deliver(image, card.path(image))
        assert site.stored() == {}
        assert destination.find_existing([image]) == {}
        destination.deliver(image, card.path(image))
        assert site.stored() == self.held(card, image)

    def test_what_was_there_is_there_after_an_outage(
        self, destination: Destination, site: Site, card: Card
    ) -> None:
        image = card.image()
        destination.deliver(image, card.path(image))
        with site.broken(), pytest.raises(Unreachable):
            destination.find_existing([image])
        assert isinstance(destination.find_existing([image])[image.id], Receipt)

    def test_several_threads_deliver_at_once(self, destination: Destination, site: Site, card: Card) -> None:
        images = [card.image(second) for second in range(8)]
        destination.find_existing(images)
        with ThreadPoolExecutor(4) as pool:
            receipts = list(pool.map(lambda image: destination.deliver(image, card.path(image)), images))
        assert len(receipts) == 8
        assert site.stored() == self.held(card, *images)

    def test_a_failpoint_stands_beside_whatever_changes_something_that_lasts(
        self, destination: Destination
    ) -> None:
        kind = destination.settings.kind
        for file, tree in side_effects.modules_of(kind).items():
            for function in side_effects.unnamed(tree):
                pytest.fail(
                    f"{file.name}: {function}() writes or removes something: put {_FAILPOINT.format(kind)} behind that, "
                    "so that tests can kill the program there (from trapsync.files import failpoint)"
                )

    def test_the_doctor_is_told_how_it_is(self, destination: Destination, site: Site) -> None:
        assert all(finding.verdict != "failing" for finding in destination.check())
        with site.broken():
            assert any(finding.verdict != "ok" for finding in destination.check())
        assert site.stored() == {}


class TableSite(Site, Protocol):
    """The other end of a trap that is a process of its own."""

    def tables(self) -> dict[str, dict[str, Any]]:
        """The [destinations] of a config file that delivers there; its secrets are in files that it names."""


class Killed(Conformance):
    """The same, and what a destination must do that is killed."""

    @pytest.mark.timeout(300)
    def test_killed_at_each_failpoint_every_image_is_there_once(
        self, site: TableSite, card: Card, tmp_path: Path
    ) -> None:
        program = killed_trap.Program(tmp_path / "trap", site.tables())
        kind = next(iter(site.tables().values()))["kind"]
        failpoints = sorted(side_effects.failpoints_of(kind))
        assert failpoints, f"put {_FAILPOINT.format(kind)} behind whatever changes something at the other end"
        images: list[Image] = []
        for failpoint in failpoints:
            for nth in (1, 2):
                new = [card.image(len(images)), card.image(len(images) + 1, seed=len(images))]
                images += new
                program.lay_in(card.path(image) for image in new)
                assert program.killed_at(failpoint, nth) or nth > 1, f"never came to {failpoint!r}"
                assert program.deliver() == 0
                assert site.stored() == self.held(card, *images), (failpoint, nth)


class HttpSite(TableSite, Protocol):
    """The other end with a fault server in front."""

    front: FaultServer


# How an upload can fail, and what may come of it besides a receipt. A receipt is right where the destination found
# out by asking that the image arrived all the same.
HTTP_FAULTS: dict[str, type[DeliveryError]] = {
    "cut before body": Unreachable,
    "cut in body": Unreachable,
    "cut after body": Unreachable,
    "answer lost": Unreachable,
    "400": DeliveryError,
    "401": Unauthorised,
    "402": DeliveryError,
    "403": DeliveryError,
    "404": DeliveryError,
    "413": DeliveryError,
    "429": Unreachable,
    "500": DeliveryError,
    "500 though stored": DeliveryError,
    "502": DeliveryError,
    "503": Unreachable,
    "portal": Unreachable,
    "redirect": Unreachable,
    "redirect here": Unreachable,
    "no echo": Unreachable,
    "an object": Unreachable,
    "truncated": Unreachable,
    "half JSON": Unreachable,
    "JSON as HTML": Unreachable,
}

# What a field of a row may hold where somebody else is in it: legal JSON all of it, or nearly.
STRANGE_VALUES = (
    "null",
    "true",
    "5",
    "-0.5",
    '""',
    '"x"',
    '"\\ud800"',
    "[]",
    "[5]",
    "{}",
    '{"a": 1}',
    "NaN",
    "1e999",
)
ARRIVED = {"answer lost", "500 though stored", "no echo", "truncated", "half JSON", "JSON as HTML"}


class Mangled:
    """A server that has one image's row in disorder: one `field` of it holds this `value`, written as JSON."""

    def __init__(self, backend: Backend, image: Image) -> None:
        self._backend = backend
        self._signs = (image.md5[:12], image.sha256)
        self.methods = getattr(backend, "methods", ("POST",))
        self.field, self.value = "", "null"
        self.fields: set[str] = set()  # that its rows have

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request; uploads are answered as they are."""
        status, shown, content = self._backend(path, headers, body)
        if shown.get("Content-Type") != "application/json" or status != 200 or self._sends(headers):
            return status, shown, content
        plain = {name: value for name, value in shown.items() if name != "Content-Encoding"}
        told = json.loads(gzip.decompress(content) if plain != shown else content)
        rows = told if isinstance(told, list) else [*told.get("docs", ()), told]
        for row in rows:
            if (
                isinstance(row, dict)
                and any(sign in json.dumps(row) for sign in self._signs)
                and "docs" not in row
            ):
                self.fields |= row.keys()
                for field in row if self.field == EVERY_FIELD else {self.field} & row.keys():
                    row[field] = _MARK
        return status, plain, json.dumps(told).replace(f'"{_MARK}"', self.value).encode()

    def _sends(self, headers: Mapping[str, str]) -> bool:
        return headers.get("Content-Type", "").startswith("multipart/")


def strange_rows(front: FaultServer, image: Image) -> Iterator[str]:
    """Let the row of this image hold one strange value after another, in every field."""
    front.backend = mangled = Mangled(front.backend, image)
    mangled.field = EVERY_FIELD
    for mangled.value in STRANGE_VALUES:
        yield mangled.value
    assert mangled.fields, "no answer has a row of it"


_MARK = "the value that is mangled"
ATTEMPTS = 36  # until a question that a server fails to answer is given up
EVERY_FIELD = "*"


class OverHttp(Killed):
    """What a destination must do besides, whose other end is a server."""

    kind: ClassVar[str]
    # The requests that a delivery makes, as `FaultServer.plan` names them, and the one of them that carries the
    # image. A service that cannot tell whether it has the bytes may be sent them again: `resends`.
    steps: ClassVar[tuple[str, ...]]
    upload: ClassVar[str]
    resends: ClassVar[bool] = False
    # The answer by which it declines one image without a reason that is final.
    poison: ClassVar[str] = "400"
    # Whether it asks again within seconds where the server fails to answer a question that is no GET.
    asks_again: ClassVar[bool] = False

    def turn(self, destination: Destination, card: Card, *images: Image) -> None:
        """Deliver as the pipeline does: ask, then send what is not there; whatever fails waits for the next turn."""
        known = destination.find_existing(images)
        for image in images:
            if image.id not in known:
                destination.deliver(image, card.path(image))
        assert all(isinstance(receipt, Receipt) for receipt in known.values())
        destination.follow_up()

    def outcome(self, destination: Destination, card: Card, image: Image) -> Receipt | DeliveryError:
        """What comes of one delivery."""
        try:
            return destination.deliver(image, card.path(image))
        except DeliveryError as error:
            return error

    @pytest.mark.parametrize("fault", HTTP_FAULTS)
    def test_after_a_fault_at_any_step_every_image_is_there_once(
        self, site: HttpSite, card: Card, fault: str
    ) -> None:
        images = []
        for number, step in enumerate(self.steps):
            image = card.image(number)
            images.append(image)
            destination = site.connect()
            site.front.plan(step, fault)
            before = site.front.count(self.upload)
            outcome = self.outcome(destination, card, image)
            if isinstance(outcome, Receipt):
                assert outcome.digest in self.proofs(image)
            else:
                assert isinstance(outcome, HTTP_FAULTS[fault]), (step, outcome)
                assert not isinstance(outcome, Refused) or fault in {"400", "402", "413"}, (step, outcome)
                assert len(str(outcome).splitlines()) == 1
            assert site.front.left(step) == 0, f"{step} was never asked"
            destination.close()
            again = site.connect()
            self.turn(again, card, image)
            again.close()
            if step == self.upload and fault in ARRIVED and not self.resends:
                assert site.front.count(self.upload) == before + 1, "sent again though it was there"
        site.front.assert_injected()
        assert site.stored() == self.held(card, *images)

    @pytest.mark.parametrize("fault", ["cut before body", "403", "429", "502", "503", "portal", "half JSON"])
    def test_a_question_without_an_answer_is_unreachable(
        self, site: HttpSite, destination: Destination, card: Card, fault: str
    ) -> None:
        image = card.image()
        self.turn(destination, card, image)
        asked = len(site.front.requests)
        destination.find_existing([image])
        asking = site.front.requests[asked:]
        if not asking:
            pytest.skip("it asks its own notes")
        is_question = self.asks_again or asking[0].startswith(("GET ", "HEAD "))
        is_asked_again = is_question and fault in {"cut before body", "502"}
        site.front.plan(asking[0], *[fault] * (ATTEMPTS if is_asked_again else 1))
        with pytest.raises(Unreachable):
            destination.find_existing([image])
        site.front.assert_injected()
        assert isinstance(destination.find_existing([image])[image.id], Receipt)

    def test_an_image_that_it_does_not_take_costs_only_itself(
        self, site: HttpSite, destination: Destination, card: Card
    ) -> None:
        bad, good = card.image(0), card.image(1)
        site.front.plan(self.upload, *[self.poison] * 3)
        for _ in range(3):
            with pytest.raises((Failed, Refused)):
                destination.deliver(bad, card.path(bad))
        site.front.assert_injected()
        destination.deliver(good, card.path(good))
        assert site.stored() == self.held(card, good)

    def test_what_is_there_is_not_sent_a_second_time(
        self, site: HttpSite, destination: Destination, card: Card
    ) -> None:
        images = [card.image(second) for second in range(3)]
        self.turn(destination, card, *images)
        sent = site.front.count(self.upload)
        self.turn(destination, card, *images)
        assert site.front.count(self.upload) == sent

    def test_a_receipt_says_where_the_image_lies_and_so_does_the_answer_to_a_question(
        self, site: HttpSite, destination: Destination, card: Card
    ) -> None:
        image = card.image()
        receipt = destination.deliver(image, card.path(image))
        known = destination.find_existing([image])[image.id]
        assert isinstance(known, Receipt)
        assert receipt.at
        assert known.at == receipt.at

    def test_what_was_confirmed_once_is_confirmed_again_and_what_is_not_there_is_not(
        self, site: HttpSite, destination: Destination, card: Card
    ) -> None:
        if not destination.keeps:
            pytest.skip("it is never asked again")
        there, gone = card.image(0), card.image(1)
        at = {there.id: destination.deliver(there, card.path(there)).at}
        other = replace(card.image(0, seed=2), id=77)
        for by_bytes in (False, True):
            confirmed = destination.confirm([there, gone, other], at, by_bytes=by_bytes)
            receipt = confirmed[there.id]
            assert isinstance(receipt, Receipt)
            assert receipt.digest in self.proofs(there)
            assert not receipt.noted
            assert gone.id not in confirmed
            assert isinstance(confirmed[other.id], Refused)

    def strange_entries(self, site: HttpSite, card: Card, image: Image) -> Iterator[str]:
        """Its row holds the same strange value in every field."""
        yield from strange_rows(site.front, image)

    @pytest.mark.timeout(300)
    def test_a_strange_row_in_an_answer_costs_its_own_image_only(self, site: HttpSite, card: Card) -> None:
        odd, there, absent = card.image(0), card.image(1), card.image(2)
        first = site.connect()
        first.deliver(odd, card.path(odd))
        first.deliver(there, card.path(there))
        held = self.held(card, odd, there)
        mangled = Mangled(site.front.backend, odd)
        site.front.backend = mangled
        site.connect().find_existing([odd, there, absent])
        assert mangled.fields, "no answer has a row of it"
        for field in sorted(mangled.fields):
            for value in STRANGE_VALUES:
                mangled.field, mangled.value = field, value
                destination = site.connect()
                known = destination.find_existing([odd, there, absent])
                assert isinstance(known[there.id], Receipt), (field, value)
                assert absent.id not in known, (field, value)
                if odd.id not in known:
                    outcome = attempt(destination, card, odd)
                    assert isinstance(outcome, Receipt | Failed | Refused | Held), (field, value, outcome)
                destination.follow_up()
                destination.close()
        mangled.field = ""
        assert site.stored() == held
