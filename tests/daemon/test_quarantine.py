"""Damaged files by the hundred, of every kind, through the real examiners: each with its reason, none in the way."""

import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import daemon_process
import drawings
import flushes
from trap_bench import Memory, Trap
from trapsync import pipeline
from trapsync.errors import StorageError
from trapsync.jpeg import structure
from trapsync.runtime.examiners import Examiners
from trapsync.settings.schema import Ingest
from trapsync.spool import quarantine
from trapsync.spool.undecided import UndecidedFiles

EACH = int(os.environ.get("TRAPSYNC_EACH", "100"))
EXIFS = 10 * EACH


class Pile(Trap):
    """A trap whose files go through the real worker pool, and that waits for no file to grow."""

    settle = 0.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, settle=0.0)
        self.home = Memory()
        self.register(self.home)
        self.examiners = Examiners(Ingest(workers=2), self.storage)
        self.good: dict[str, str] = {}

    def add_good(self, number: int) -> None:
        """Among the damaged ones lies a good one."""
        path = self.put(number, seed=number % 7, path=f"pile/good-{number:04}.jpg")
        self.good[path] = hashlib.sha256((self.storage.spool / path).read_bytes()).hexdigest()

    def add(self, name: str, content: bytes) -> str:
        return drawings.put(self.storage.spool, content, f"pile/{name}")

    def work_through(self) -> dict[str, str]:
        """Sweep, examine all, deliver; the reasons by path."""
        found: list[str] = []
        pipeline.sweep(self.catalog, self.storage, found.append)
        for at in range(0, len(found), 32):
            pipeline.ingest(
                self.catalog,
                self.storage,
                found[at : at + 32],
                self.examiners.examine,
                UndecidedFiles(0),
                self.time,
            )
        self.deliver(self.home)
        # The good ones arrived, and what was put away is there, with its reason beside it.
        assert self.home.stored.items() >= self.good.items()
        rows = self.catalog.quarantine.listing()
        for row in rows:
            kept = self.storage.quarantine / row["kept_as"]
            assert os.path.lexists(kept)
            assert row["reason"] in kept.with_name(f"{kept.name}.reason").read_text()
        captured, delivered, pending, quarantined, dropped = self.ledger()
        assert (captured, quarantined, pending, dropped) == (len(found), len(rows), 0, 0)
        assert delivered == len(self.home.stored)
        return {row["path"]: row["reason"] for row in rows}


def test_a_file_is_in_quarantine_and_on_the_storage_when_that_is_said(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings.put(trap.storage.spool, b"no picture", "a.jpg")
    flushed = flushes.Flushes(monkeypatch)
    assert trap.ingest().damaged == 1
    (row,) = trap.catalog.quarantine.listing()
    assert flushed.has_name(trap.storage.quarantine / row["kept_as"])


@pytest.fixture
def pile(tmp_path: Path) -> Iterator[Pile]:
    one = Pile(tmp_path / "trap")
    yield one
    one.examiners.close()
    one.catalog.close()


WHOLE = drawings.trap()
LARGE = drawings.plain(640, 480)


def dice(number: int) -> random.Random:
    return random.Random(number)


def random_middle(number: int) -> bytes:
    """Four random kilobytes somewhere in the picture data, as a card's wrong block leaves them."""
    start = structure.header(LARGE).scan
    at = dice(number).randrange(start, len(LARGE) - 4096)
    return LARGE[:at] + dice(number).randbytes(4096) + LARGE[at + 4096 :]


def resized(width: int, height: int, start_of_frame: bytes = b"\xff\xc0") -> bytes:
    """A picture whose header lies about its size, and perhaps about its kind."""
    frame = WHOLE.index(b"\xff\xc0")
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return WHOLE[:frame] + start_of_frame + WHOLE[frame + 2 : frame + 5] + size + WHOLE[frame + 9 :]


DAMAGED: dict[str, tuple[Callable[[int], bytes], str]] = {
    "empty": (lambda _: b"", "empty"),
    "cut at a tenth": (lambda n: WHOLE[: len(WHOLE) // 10 + n], "cut off"),
    "cut in the middle": (lambda n: WHOLE[: len(WHOLE) // 2 + n], "cut off"),
    "cut near the end": (lambda n: WHOLE[: len(WHOLE) * 999 // 1000 - n], "cut off"),
    "a tail of zeros": (lambda n: WHOLE[: -100 - n].ljust(len(WHOLE), b"\0"), "cut off"),
    "random in the middle": (random_middle, "damaged|cut off"),
    "no JPEG": (lambda n: dice(n).randbytes(3000), "not a JPEG"),
    "a page": (lambda n: b"<!DOCTYPE html><title>Welcome %d</title>" % n, "not a JPEG"),
    "of 144 megapixels": (lambda n: resized(12000, 12000 + n), "too large: 14[4-9] megapixels"),
    "progressive, of 144 megapixels": (lambda n: resized(12000, 12000 + n, b"\xff\xc2"), "megapixels"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_put_away_with_their_reason_and_the_good_among_them_arrive(
    pile: Pile, kind: str
) -> None:
    make, reason = DAMAGED[kind]
    for number in range(EACH):
        pile.add(f"{number:04}.jpg", make(number))
        if number % 10 == 0:
            pile.add_good(number)
    reasons = pile.work_through()
    assert len(reasons) == EACH
    for text in reasons.values():
        assert re.search(reason, text), text
    assert set(pile.home.stored) == set(pile.good)


def test_a_byte_turned_over_in_the_metadata_costs_no_image(pile: Pile) -> None:
    block = drawings.block_of(WHOLE)
    start = WHOLE.index(block)
    sent = {}
    for number in range(EXIFS):
        content = bytearray(WHOLE)
        at = start + dice(number).randrange(len(block))
        content[at] = (content[at] + dice(number + 1).randrange(1, 256)) % 256
        path = pile.add(f"{number:04}.jpg", bytes(content))
        sent[path] = hashlib.sha256(content).hexdigest()
    assert pile.work_through() == {}
    assert pile.home.stored == sent


def test_a_byte_turned_over_in_the_header_costs_at_most_that_image(pile: Pile) -> None:
    whole = {}
    for number in range(EXIFS):
        content = bytearray(WHOLE)
        at = dice(number).randrange(structure.header(WHOLE).scan)
        content[at] ^= 1 << dice(number).randrange(8)
        whole[pile.add(f"{number:04}.jpg", bytes(content))] = hashlib.sha256(content).hexdigest()
        if number % 50 == 0:
            pile.add_good(number)
    reasons = pile.work_through()
    assert not reasons.keys() & pile.home.stored.keys()
    for path, digest in whole.items():
        assert path in reasons or pile.home.stored[path] == digest
    assert not [reason for reason in reasons.values() if "examiner" in reason or "took" in reason]


def test_what_has_no_name_or_is_of_gigabytes_is_put_away_unread_and_what_is_no_file_left_alone(
    pile: Pile, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(drawings.trap(seed=3))
    folder = pile.storage.spool / "pile"
    folder.mkdir()
    for number in range(EACH):
        (folder / f"link-{number}.jpg").symlink_to(secret)
        (folder / f"nowhere-{number}.jpg").symlink_to("/nowhere/at all.jpg")
        os.mkfifo(folder / f"pipe-{number}.jpg")
        (folder / f"night\n{number}.jpg").write_bytes(WHOLE)
        (folder / os.fsdecode(b"caf\xe9-%d.jpg" % number)).write_bytes(WHOLE)
        with (folder / f"sparse-{number}.jpg").open("wb") as file:
            file.truncate(2 * 10**9)
        if number % 10 == 0:
            pile.add_good(number)
    reasons = pile.work_through().values()
    kinds = Counter(reason.split(":")[0] for reason in reasons)
    assert kinds == {
        "its name holds characters that are no text": 2 * EACH,
        "too large": EACH,
    }
    assert sum(path.is_symlink() or path.is_fifo() for path in folder.iterdir()) == 3 * EACH
    assert secret.read_bytes() == drawings.trap(seed=3)
    assert set(pile.home.stored) == set(pile.good)


def test_a_bomb_within_the_limits_costs_its_small_copies_and_nothing_else(pile: Pile) -> None:
    bombs = {"plain.jpg": resized(9900, 9900), "progressive.jpg": resized(9000, 9000, b"\xff\xc2")}
    for name, content in bombs.items():
        pile.add(name, content)
    pile.add_good(1)
    pile.work_through()
    made = {
        image.name: pile.examiners.make_thumbnails(image, image.path)
        for image in pile.catalog.images.on_card(0, 9)
    }
    assert made == {"plain.jpg": False, "progressive.jpg": False, "good-0001.jpg": True}


def test_the_daemon_goes_on_through_a_card_full_of_them(tmp_path: Path) -> None:
    stick, spool = tmp_path / "stick", tmp_path / "trap" / "spool"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = f'[destinations.stick]\nkind = "directory"\npath = "{stick}"\nevery = "1 s"\n'
    good, bad = {}, 0
    for number in range(10):
        for kind, (make, _) in DAMAGED.items():
            drawings.put(spool, make(number), f"pile/{kind}-{number}.jpg")
            bad += 1
        path = drawings.put(spool, drawings.trap(seed=number), f"pile/good-{number}.jpg")
        good[path] = hashlib.sha256((spool / path).read_bytes()).hexdigest()
        os.mkfifo(spool / f"pile/pipe-{number}.jpg")
        (spool / f"pile/link-{number}.jpg").symlink_to("/etc/hostname")
        (spool / f"pile/line\nbreak-{number}.jpg").write_bytes(WHOLE)
        bad += 1
    with daemon_process.running(tmp_path / "trap", more) as trap:
        facts = trap.until(
            lambda f: f["ledger"]["quarantined"] == bad and f["ledger"]["delivered"] == len(good)
        )
        assert facts["ledger"]["captured"] == bad + len(good)
        assert trap.stop() == 0
        assert "Traceback" not in trap.text()
        assert trap.text().count("watching over") == 1
    copies = {
        str(p.relative_to(stick)): hashlib.sha256(p.read_bytes()).hexdigest() for p in stick.rglob("*.jpg")
    }
    assert copies == good


# ── What the catalog and the texts beside the files say is not believed ──────────────────────────────

ELSEWHERE = (
    "/etc/cron.d/x.jpg",
    "../x.jpg",
    "a/../../x.jpg",
    "evil.sh",
    ".hidden/x.jpg",
    "a//x.jpg",
    "a/.x.jpg",
)


@pytest.mark.parametrize("path", [*ELSEWHERE, "line\nbreak.jpg", ""])
def test_a_file_is_put_back_as_an_image_in_the_spool_or_not_at_all(trap: Trap, path: str) -> None:
    kept = drawings.put(trap.storage.quarantine, b"no jpeg", "mark.x.jpg")
    trap.catalog.quarantine.add(path, kept, "cut off", 7)
    before = sorted(trap.folder.rglob("*"))
    with pytest.raises(StorageError, match="is no path of an image in the spool"):
        quarantine.release(trap.catalog, trap.storage, trap.catalog.quarantine.listing()[0]["id"])
    assert sorted(trap.folder.rglob("*")) == before
    assert len(trap.catalog.quarantine.listing()) == 1


@pytest.mark.parametrize("kept_as", ["../a.jpg", "/etc/a.jpg", "a/b.jpg", "shadow", ".."])
def test_only_a_file_that_is_in_quarantine_is_put_back(trap: Trap, kept_as: str) -> None:
    good = trap.put()
    drawings.put(trap.storage.spool, b"another's", "a.jpg")
    trap.storage.quarantine.mkdir(exist_ok=True)
    trap.catalog.quarantine.add("x.jpg", kept_as, "cut off", 7)
    with pytest.raises(StorageError, match="is no path of an image in the spool"):
        quarantine.release(trap.catalog, trap.storage, trap.catalog.quarantine.listing()[0]["id"])
    assert trap.on_card() == {good, "a.jpg"}


def test_nothing_is_put_back_through_a_link(trap: Trap, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = drawings.put(trap.storage.quarantine, b"no jpeg", "mark.x.jpg")
    (trap.storage.spool / "folder").symlink_to(elsewhere)
    trap.catalog.quarantine.add("folder/x.jpg", kept, "cut off", 7)
    with pytest.raises(StorageError, match="is not a folder of the spool"):
        quarantine.release(trap.catalog, trap.storage, trap.catalog.quarantine.listing()[0]["id"])
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("path", ELSEWHERE)
def test_what_stands_beside_a_file_leads_nowhere_else(trap: Trap, path: str) -> None:
    drawings.put(trap.storage.quarantine, b"no jpeg", "mark.x.jpg")
    (trap.storage.quarantine / "mark.x.jpg.reason").write_text(f"{path}\ncut \033[31moff\n")
    quarantine.reconcile(trap.catalog, trap.storage)
    (row,) = trap.catalog.quarantine.listing()
    assert (row["path"], row["kept_as"], row["reason"]) == ("mark.x.jpg", "mark.x.jpg", "cut \\x1b[31moff")
    assert quarantine.release(trap.catalog, trap.storage, row["id"]) == "mark.x.jpg"


@pytest.mark.parametrize("what", ["fifo", "link", "large"])
def test_a_reason_that_is_no_small_plain_file_is_lost_and_holds_nothing_up(trap: Trap, what: str) -> None:
    drawings.put(trap.storage.quarantine, b"no jpeg", "mark.x.jpg")
    beside = trap.storage.quarantine / "mark.x.jpg.reason"
    if what == "fifo":
        os.mkfifo(beside)
    elif what == "link":
        beside.symlink_to("/dev/zero")
    else:
        beside.write_text("a.jpg\n" + "x" * 10**6)
    quarantine.reconcile(trap.catalog, trap.storage)
    (row,) = trap.catalog.quarantine.listing()
    assert (row["path"], row["reason"]) == ("mark.x.jpg", "its reason was lost")
