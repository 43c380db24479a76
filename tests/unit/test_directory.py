"""The folder as a destination: proofs, verified copies, manifests."""

import errno
import hashlib
import os
import re
import stat
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any, cast

import pytest

import drawings
import trap_bench as bench
from conformance import Card, Conformance, entries_in_the_way
from fake_time import FakeTime
from flushes import Flushes
from memory_context import context
from trapsync import pipeline
from trapsync.destinations import Destination, Receipt, directory
from trapsync.destinations.directory import MARK, Directory, Settings, disk_errors, manifest
from trapsync.destinations.layouts import Keys
from trapsync.destinations.outcomes import Turn
from trapsync.errors import Failed, NotThere, Refused, Unreachable
from trapsync.files.folder import Folder
from trapsync.image import Image
from trapsync.settings.units import Size


class Stick:
    """A folder that stands for a mounted stick; pulled out, its mount point is an empty folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / MARK).touch()

    def connect(self, **more: Any) -> Directory:
        """A destination that copies there."""
        return directory.connect("stick", Settings(kind="directory", path=self.path, **more), context())

    def files(self) -> dict[str, bytes]:
        """All visible or half-written files, by path, but not the mark."""
        paths = (path for path in self.path.rglob("*") if path.is_file() and path.name != MARK)
        return {str(path.relative_to(self.path)): path.read_bytes() for path in paths}

    def stored(self) -> dict[str, bytes]:
        """The images, by name."""
        return {Path(path).name: content for path, content in self.files().items() if path.endswith(".jpg")}

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Pull it out; nothing may be written into the folder that is left."""
        away = self.path.with_name("pulled-out")
        self.path.rename(away)
        self.path.mkdir()
        yield
        assert list(self.path.iterdir()) == []
        self.path.rmdir()
        away.rename(self.path)

    def check_sums(self) -> None:
        """Let coreutils check every manifest."""
        manifests = list(self.path.rglob(manifest.NAME))
        assert manifests
        for found in manifests:
            command = ["sha256sum", "--check", "--strict", "--quiet", manifest.NAME]
            done = subprocess.run(command, cwd=found.parent, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def site(tmp_path: Path) -> Stick:
    """A stick in its place."""
    return Stick(tmp_path / "stick")


class TestDirectory(Conformance):
    """The promises that all destinations make."""

    stores_beside = True

    def strange_entries(self, site: Stick, card: Card, image: Image) -> Iterator[str]:
        """Where its copy lies, and where the manifest does."""
        yield from entries_in_the_way(site.path / image.place)
        for what in entries_in_the_way((site.path / image.place).with_name(manifest.NAME)):
            yield f"manifest: {what}"


class LaidOutStick(Stick):
    """One whose owner wants other names."""

    def connect(self, **more: Any) -> Directory:
        given = context(name="stick", trap_name="Valley")
        settings = Settings(kind="directory", path=self.path, layout="camtrapr", **more)
        return directory.connect("stick", settings, given)

    def stored(self) -> dict[str, bytes]:
        """The images, by the names that they have on the card."""
        found = {}
        for path, content in self.files().items():
            if path.endswith(".jpg"):
                _, device, date, time = Path(path).stem.split("__")
                is_beside = "." in time  # under a name with its digest
                found[Path(path).name if is_beside else f"{device}.{date}_{time}.jpg"] = content
        return found


class TestDirectoryByLayout(Conformance):
    """The same promises under the names of a layout."""

    stores_beside = True

    @pytest.fixture
    def site(self, tmp_path: Path) -> Stick:
        """Such a stick in its place."""
        return LaidOutStick(tmp_path / "stick")

    def strange_entries(self, site: Stick, card: Card, image: Image) -> Iterator[str]:
        """Where its copy lies, and where the manifest does."""
        keys = Keys(
            Settings(kind="directory", path=site.path, layout="camtrapr"), context(trap_name="Valley")
        )
        place = site.path / keys.of(image)
        yield from entries_in_the_way(place)
        for what in entries_in_the_way(place.with_name(manifest.NAME)):
            yield f"manifest: {what}"


def test_copies_are_laid_out_by_device_and_day_and_coreutils_confirm_them(site: Stick, card: Card) -> None:
    stick = site.connect()
    images = [card.image(0), card.image(5), card.image(86400)]
    for image in images:
        stick.deliver(image, card.path(image))
    assert set(site.files()) == {
        f"{drawings.DEVICE}/2026-06-21/{images[0].name}",
        f"{drawings.DEVICE}/2026-06-21/{images[1].name}",
        f"{drawings.DEVICE}/2026-06-21/SHA256SUMS",
        f"{drawings.DEVICE}/2026-06-22/{images[2].name}",
        f"{drawings.DEVICE}/2026-06-22/SHA256SUMS",
    }
    site.check_sums()


def test_the_manifest_holds_name_size_and_digest_once(site: Stick, card: Card) -> None:
    image = card.image()
    for _ in range(3):
        site.connect().deliver(image, card.path(image))
    text = (site.path / image.place).with_name(manifest.NAME).read_text()
    assert text == f"# {image.size} bytes\n{image.sha256}  {image.name}\n"


def test_a_foreign_image_keeps_its_path_and_its_odd_name(site: Stick, card: Card) -> None:
    odd = "from phone/a\\b\nc\rd é.jpg"
    image = card.put(drawings.plain(), odd)
    stick = site.connect()
    stick.deliver(image, card.path(image))
    assert (site.path / odd).read_bytes() == drawings.plain()
    assert isinstance(stick.find_existing([image])[image.id], Receipt)
    line = (site.path / "from phone" / manifest.NAME).read_bytes().split(b"\n")[1]
    assert line == b"\\" + image.sha256.encode() + "  a\\\\b\\nc\\rd é.jpg".encode()


def test_coreutils_understand_escaped_names(site: Stick, card: Card) -> None:
    image = card.put(drawings.plain(), "a\\b\nc.jpg")
    site.connect().deliver(image, card.path(image))
    site.check_sums()


def test_a_folder_without_a_mark_is_not_the_stick_and_gets_nothing(site: Stick, card: Card) -> None:
    image = card.image()
    (site.path / MARK).unlink()
    with pytest.raises(Unreachable, match=r"has no mark.*run: sudo touch"):
        site.connect().deliver(image, card.path(image))
    assert list(site.path.iterdir()) == []


def test_the_destination_folder_itself_is_never_made(site: Stick, card: Card) -> None:
    image = card.image()
    (site.path / MARK).unlink()
    site.path.rmdir()
    with pytest.raises(Unreachable, match="not there"):
        site.connect().deliver(image, card.path(image))
    assert not site.path.exists()


def test_a_plain_folder_is_no_mount(site: Stick, card: Card) -> None:
    image = card.image()
    with pytest.raises(Unreachable, match="nothing is mounted"):
        site.connect(mount_check="mount").deliver(image, card.path(image))
    assert site.stored() == {}


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a mounted /dev/shm")
def test_a_mounted_filesystem_is_its_own_proof() -> None:
    settings = Settings(kind="directory", path=Path("/dev/shm"), mount_check="mount")
    assert directory.connect("stick", settings, context()).find_existing([]) == {}


def test_a_stick_pulled_out_in_the_middle_never_leaves_the_copy_on_the_card(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = card.image()
    below = Folder.below
    outage = site.broken()

    def pull_out_first(folder: Folder, parts: Sequence[str], *, make: bool = False) -> Folder:
        outage.__enter__()
        monkeypatch.undo()
        return below(folder, parts, make=make)

    monkeypatch.setattr(Folder, "below", pull_out_first)
    site.connect().deliver(image, card.path(image))
    outage.__exit__(None, None, None)  # nothing is in the folder that was left behind
    assert site.stored() == {image.name: card.bytes(image)}  # but on the stick, which was only moved


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EIO, "pulled out or is failing"),
        (errno.ENOENT, "pulled out or is failing"),
        (errno.ENOSPC, "is full"),
        (errno.EROFS, "is read-only"),
        (errno.EACCES, "no permission"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failing_filesystem_is_unreachable_and_leaves_nothing_under_the_name(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch, number: int, advice: str, call: str
) -> None:
    image = card.image()
    failures = []

    def fail(*_: object) -> None:
        failures.append(call)
        raise OSError(number, os.strerror(number))

    def fail_with_words(*_: object, **__: object) -> None:
        fail()

    with monkeypatch.context() as patch:
        for name in {"rename": ("rename", "link")}.get(call, (call,)):
            patch.setattr(os, name, fail_with_words if name != "fsync" else fail)
        with pytest.raises(Unreachable, match=advice):
            site.connect().deliver(image, card.path(image))
    assert failures
    assert site.files() == {}
    site.connect().deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}


def turn_to(stick: Directory, trap: bench.Trap) -> Turn:
    """Deliver all that is pending."""
    destination = cast("Destination", stick)
    return pipeline.deliver(trap.catalog, destination, trap.storage.spool, trap.time, bench.OneByOne())


def name_of(descriptor: int) -> str:
    """The name of an open file."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def _deliver_all(stick: Directory, images: list[Image], card: Card) -> None:
    for image in images:
        stick.deliver(image, card.path(image))


@pytest.fixture
def mounted(site: Stick) -> Iterator[Stick]:
    """A real filesystem of 128 kB on the stick's path; needs root."""
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "trapsync-test", str(site.path)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a filesystem")
    try:
        (site.path / MARK).touch()
        yield site
    finally:
        subprocess.run(["umount", "--lazy", str(site.path)], check=False, capture_output=True)


def test_a_stick_that_is_really_full_says_so_and_stays_whole(mounted: Stick, card: Card) -> None:
    stick = mounted.connect(mount_check="mount")
    images = [card.image(second) for second in range(60)]
    with pytest.raises(Unreachable, match="is full"):
        _deliver_all(stick, images, card)
    assert 0 < len(mounted.stored()) < 60
    assert not [name for name in mounted.files() if name.endswith(".part")]
    mounted.check_sums()


def test_a_filesystem_that_is_really_gone_gets_nothing(mounted: Stick, card: Card) -> None:
    image = card.image()
    stick = mounted.connect(mount_check="mount")
    stick.deliver(image, card.path(image))
    subprocess.run(["umount", str(mounted.path)], check=True)
    with pytest.raises(Unreachable, match="nothing is mounted"):
        stick.deliver(image, card.path(image))
    assert mounted.stored() == {}  # the folder below the mount, which is on the card


@pytest.fixture
def fat(site: Stick, monkeypatch: pytest.MonkeyPatch) -> Stick:
    """A stick with FAT that was mounted without utf8: it takes no names but plain ones."""

    def choosy(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **words: Any) -> Any:
            names = [str(one) for one in arguments if isinstance(one, str)]
            makes = name != "open" or arguments[1] & os.O_CREAT
            below = {"dir_fd", "src_dir_fd"} & words.keys()
            if below and makes and any(not one.isascii() or ":" in one for one in names):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if name == "link":  # it has none
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            return real(*arguments, **words)

        return call

    for name in ("open", "mkdir", "rename", "link"):
        monkeypatch.setattr(os, name, choosy(name))
    return site


@pytest.mark.parametrize("path", ["12:30.jpg", "\u00c4pfel.jpg", "Gel\u00e4nde/IMG_0009.JPG"])
def test_a_name_that_fat_does_not_take_is_refused_and_named(fat: Stick, card: Card, path: str) -> None:
    image = card.put(drawings.plain(), path)
    with pytest.raises(Refused, match=f"{path}: the file system takes no such name"):
        fat.connect().deliver(image, card.path(image))
    assert fat.files() == {}


def test_names_that_fat_does_not_take_cost_themselves_only(fat: Stick, tmp_path: Path) -> None:
    trap, stick = bench.Trap(tmp_path / "trap"), fat.connect()
    trap.catalog.places.register([("stick", "directory", True)])
    for path in [*(f"IMG_{n}.JPG" for n in range(5)), "Gel\u00e4nde/IMG_0009.JPG", "\u00c4pfel.jpg"]:
        drawings.put(trap.storage.spool, drawings.plain(seed=len(path)), path)
    trap.ingest()
    turn = turn_to(stick, trap)
    assert (turn.delivered, turn.refused, turn.trouble) == (5, 2, None)
    fat.check_sums()


def test_a_stick_that_returns_other_bytes_gets_no_image(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = card.image()
    monkeypatch.setattr(directory, "_digest", lambda path: "0" * 64)
    with pytest.raises(Failed, match="read back"):
        site.connect().deliver(image, card.path(image))
    assert site.files() == {}


def test_the_copy_is_read_back_before_it_has_its_name(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = card.image()
    seen: list[str] = []
    digest = directory._digest

    def spy(copy: FileIO) -> str:
        seen.append(name_of(copy.fileno()))
        assert not (site.path / image.place).exists()
        return digest(copy)

    monkeypatch.setattr(directory, "_digest", spy)
    site.connect().deliver(image, card.path(image))
    assert seen == [f".{image.name}.{drawings.DEVICE}.part"]


@pytest.fixture
def medium(site: Stick) -> Iterator[Path]:
    """The stick is a filesystem of its own; this is what it is stored on, as one file. Needs root."""
    stored = site.path.with_suffix(".img")
    with stored.open("wb") as file:
        file.truncate(16 * 2**20)
    commands: list[list[str | Path]] = [
        ["mkfs.ext4", "-q", stored],
        ["mount", "-o", "loop", stored, site.path],
    ]
    if os.geteuid() != 0 or any(run(command).returncode for command in commands):
        pytest.skip("needs to make and mount a filesystem")
    try:
        (site.path / MARK).touch()
        yield stored
    finally:
        run(["umount", "--lazy", site.path])


def run(command: Sequence[str | Path]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, check=False, capture_output=True)


def test_a_copy_that_the_medium_keeps_otherwise_than_it_was_written_gets_no_name(
    site: Stick, card: Card, medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = card.image()
    middle = card.bytes(image)[2048:4096]
    flush, spoilt = os.fsync, []

    def spoil(descriptor: int) -> None:
        """The bytes are on the medium now, and the kernel remembers them too: one of them turns over."""
        flush(descriptor)
        if (at := medium.read_bytes().find(middle)) >= 0:
            with medium.open("r+b") as file:
                file.seek(at)
                file.write(bytes([middle[0] ^ 1]))
            spoilt.append(at)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", spoil)
        with pytest.raises(Failed, match="read back"):
            site.connect().deliver(image, card.path(image))
    assert len(spoilt) == 1
    assert site.stored() == {}


def test_the_manifest_is_flushed_with_every_line(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = Flushes(monkeypatch)
    for second in range(2):
        image = card.image(second)
        site.connect().deliver(image, card.path(image))
        sums = (site.path / image.place).with_name(manifest.NAME)
        assert flushed.has_content(sums)
        assert flushed.has_name(sums)


def test_a_left_over_part_is_overwritten(site: Stick, card: Card) -> None:
    image = card.image()
    copy = site.path / image.place
    copy.parent.mkdir(parents=True)
    copy.with_name(f".{image.name}.{drawings.DEVICE}.part").write_bytes(b"half of something" * 100_000)
    site.connect().deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}
    site.check_sums()


def test_a_copy_without_its_manifest_line_gets_one(site: Stick, card: Card) -> None:
    image = card.image()
    stick = site.connect()
    stick.deliver(image, card.path(image))
    (site.path / image.place).with_name(manifest.NAME).unlink()
    assert stick.find_existing([image]) == {}
    stick.deliver(image, card.path(image))
    assert isinstance(stick.find_existing([image])[image.id], Receipt)
    site.check_sums()


def test_a_torn_last_line_is_repaired(site: Stick, card: Card) -> None:
    first, second = card.image(0), card.image(1)
    stick = site.connect()
    stick.deliver(first, card.path(first))
    sums = (site.path / first.place).with_name(manifest.NAME)
    whole = sums.read_bytes()
    sums.write_bytes(whole + f"# {second.size} bytes\n{second.sha256[:20]}".encode())
    stick.deliver(second, card.path(second))
    assert set(stick.find_existing([first, second])) == {first.id, second.id}
    assert sums.read_bytes().count(second.sha256[:20].encode()) == 1
    site.check_sums()


def test_the_line_of_a_copy_that_was_taken_away_is_replaced(site: Stick, card: Card) -> None:
    first = card.image()
    stick = site.connect()
    stick.deliver(first, card.path(first))
    (site.path / first.place).unlink()
    other = card.image(seed=2)
    stick.deliver(other, card.path(other))
    site.check_sums()
    assert isinstance(stick.find_existing([other])[other.id], Receipt)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8 cut"])
def test_a_manifest_line_is_no_proof_without_a_copy_of_that_size(
    site: Stick, card: Card, content: bytes | None
) -> None:
    image = card.image()
    stick = site.connect()
    stick.deliver(image, card.path(image))
    copy = site.path / image.place
    copy.unlink()
    if content is not None:
        copy.write_bytes(content)
    assert stick.find_existing([image]) == {}


def test_a_place_outside_the_folder_is_refused(site: Stick, card: Card) -> None:
    image = replace(card.put(drawings.plain(), "a.jpg"), path="../a.jpg")
    with pytest.raises(Refused, match="not a place"):
        site.connect().deliver(image, card.folder / "a.jpg")


def test_the_bandwidth_limit_holds_for_sticks_too(site: Stick, card: Card) -> None:
    time = FakeTime()
    settings = Settings(kind="directory", path=site.path, bandwidth=Size(1000))
    image: Image = card.image()
    directory.connect("stick", settings, context(time)).deliver(image, card.path(image))
    assert sum(time.slept) == pytest.approx(image.size / 1000, abs=1.0)


# ── Which place it is ────────────────────────────────────────────────────────────────────────────────


def test_an_empty_mark_gets_an_id_and_keeps_it(site: Stick) -> None:
    place = site.connect().place()
    assert re.fullmatch("directory [0-9a-f]{32}", place)
    assert (site.path / MARK).read_text() == f"trapsync destination\nid = {place.split()[1]}\n"
    assert site.connect().place() == place
    assert [path.name for path in site.path.iterdir()] == [MARK]


def test_a_folder_is_the_same_place_wherever_it_is_mounted(site: Stick) -> None:
    place = site.connect().place()
    elsewhere = site.path.rename(site.path.with_name("elsewhere"))
    settings = Settings(kind="directory", path=elsewhere)
    assert directory.connect("nas", settings, context()).place() == place


def test_two_folders_are_two_places(site: Stick, tmp_path: Path) -> None:
    assert Stick(tmp_path / "other").connect().place() != site.connect().place()


def test_a_folder_that_cannot_be_told_is_no_place(site: Stick) -> None:
    with site.broken(), pytest.raises(Unreachable, match="has no mark"):
        site.connect().place()


def test_a_mount_without_a_mark_gets_one(mounted: Stick) -> None:
    (mounted.path / MARK).unlink()
    place = mounted.connect(mount_check="mount").place()
    assert mounted.connect(hotplug=True).place() == place


def test_a_stick_that_took_the_place_of_another_is_out_of_reach_until_its_place_was_asked(
    site: Stick, card: Card
) -> None:
    image, stick = card.image(), site.connect()
    first = stick.place()
    site.path.rename(site.path.with_name("first"))
    Stick(site.path)
    questions: list[Callable[[], object]] = [
        lambda: stick.find_existing([image]),
        lambda: stick.confirm([image], {}),
    ]
    for question in questions:
        with pytest.raises(Unreachable, match="another stick than before"):
            question()
    with pytest.raises(Unreachable, match="another stick than before"):
        stick.deliver(image, card.path(image))
    assert site.stored() == {}
    assert stick.place() != first
    stick.deliver(image, card.path(image))


def _a_link(mark: Path) -> None:
    mark.symlink_to("/etc/passwd")


ODD: dict[str, Callable[[Path], object]] = {
    "foreign": lambda mark: mark.write_text("root:x:0:0:root:/root:/bin/bash\n"),
    "huge": lambda mark: mark.write_bytes(b"trapsync destination\n" * 10_000),
    "of another kind of text": lambda mark: mark.write_bytes(b"\xff\xfe\x00\x80"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link": _a_link,
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_mark_is_out_of_reach_in_one_line(site: Stick, card: Card, odd: str) -> None:
    image = card.image()
    (site.path / MARK).unlink()
    ODD[odd](site.path / MARK)
    for call in (lambda: site.connect().place(), lambda: site.connect().deliver(image, card.path(image))):
        with pytest.raises(Unreachable, match=re.escape(f"{site.path / MARK} ")) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert site.stored() == {}
    (finding,) = site.connect().check()
    assert finding.verdict == "warning"


def test_an_id_is_written_durably(site: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = flushes(monkeypatch)
    site.connect().place()
    assert flushed == [f"{MARK}.part", site.path.name]


def flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is flushed from here on, in this order."""
    names: list[str] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        names.append(name_of(descriptor))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return names


# ── A copy is not the source ─────────────────────────────────────────────────────────────────────────


def is_no_copy(stick: Directory, image: Image, path: Path) -> None:
    """Nothing says that this image is there, and nothing happened to it."""
    before = path.read_bytes()
    with pytest.raises(Failed):
        stick.deliver(image, path)
    assert not isinstance(stick.find_existing([image]).get(image.id), Receipt)
    assert not isinstance(stick.confirm([image], {}).get(image.id), Receipt)
    assert not isinstance(stick.confirm([image], {image.id: image.place}).get(image.id), Receipt)
    assert path.read_bytes() == before


def in_spool(site: Stick, card: Card, **more: Any) -> Directory:
    """A destination that knows where the images are."""
    settings = Settings(kind="directory", path=site.path, **more)
    return directory.connect("stick", settings, context(spool=card.folder))


def write_manifest(folder: Path, *images: Image) -> None:
    """As if they had been delivered there."""
    lines = [f"# {image.size} bytes\n{image.sha256}  {image.name}\n" for image in images]
    (folder / manifest.NAME).write_text("".join(lines))


def test_the_spool_itself_holds_no_copies(card: Card) -> None:
    image = card.image()
    (card.folder / MARK).touch()
    write_manifest(card.path(image).parent, image)
    settings = Settings(kind="directory", path=card.folder)
    stick = directory.connect("stick", settings, context(spool=card.folder))
    with pytest.raises(Failed, match="is the file on the card itself"):
        stick.deliver(image, card.path(image))
    is_no_copy(stick, image, card.path(image))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_link_that_leads_back_to_the_spool_is_not_followed(site: Stick, card: Card, depth: int) -> None:
    image = card.image()
    write_manifest(card.path(image).parent, image)
    link = site.path.joinpath(*Path(image.place).parts[:depth])
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(card.folder.joinpath(*Path(image.place).parts[:depth]))
    is_no_copy(in_spool(site, card), image, card.path(image))


def test_a_hard_link_to_the_source_is_no_copy(site: Stick, card: Card) -> None:
    image = card.image()
    copy = site.path / image.place
    copy.parent.mkdir(parents=True)
    copy.hardlink_to(card.path(image))
    write_manifest(copy.parent, image)
    is_no_copy(in_spool(site, card), image, card.path(image))


def test_a_link_in_the_place_of_a_copy_is_left_alone_and_the_copy_lies_beside(
    site: Stick, card: Card
) -> None:
    image, stick = card.image(), in_spool(site, card)
    copy = site.path / image.place
    copy.parent.mkdir(parents=True)
    copy.symlink_to(card.path(image))
    assert isinstance(stick.confirm([image], {image.id: image.place})[image.id], NotThere)
    receipt = stick.deliver(image, card.path(image))
    assert receipt.at != image.place
    assert not (site.path / receipt.at).samefile(card.path(image))
    assert (site.path / receipt.at).read_bytes() == card.bytes(image)


def test_prune_removes_nothing_whose_only_copy_is_itself_by_a_link(site: Stick, tmp_path: Path) -> None:
    trap = bench.Trap(tmp_path / "trap")
    settings = Settings(kind="directory", path=site.path)
    stick = directory.connect("stick", settings, context(spool=trap.storage.spool))
    trap.register(cast("Destination", stick))
    for second in range(4):
        trap.put(second, seed=second)
    trap.ingest()
    (site.path / drawings.DEVICE).symlink_to(trap.storage.spool / drawings.DEVICE)
    turn = turn_to(stick, trap)
    trap.time.sleep(4000)
    assert (turn.delivered, trap.prune(), len(trap.on_card())) == (0, 0, 4)


def _linked(folder: Path, to: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(to)


def _mounted(folder: Path, source: Path) -> None:
    folder.mkdir(parents=True)
    command = ["mount", "--bind", str(source), str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a filesystem")


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("lead", [_linked, _mounted])
def test_nothing_is_written_or_believed_where_a_link_or_a_mount_leads_out_of_the_folder(
    site: Stick, card: Card, tmp_path: Path, depth: int, lead: Callable[[Path, Path], None]
) -> None:
    image = card.image()
    parts = Path(image.place).parts
    elsewhere = tmp_path / "elsewhere"
    twin = elsewhere.joinpath(*parts[depth:])
    twin.parent.mkdir(parents=True)
    twin.write_bytes(card.bytes(image))  # the same bytes, and another file
    write_manifest(twin.parent, image)
    before = {path: path.lstat().st_mtime_ns for path in elsewhere.rglob("*")}
    way = site.path.joinpath(*parts[:depth])
    lead(way, elsewhere)
    try:
        is_no_copy(in_spool(site, card), image, card.path(image))
        assert {path: path.lstat().st_mtime_ns for path in elsewhere.rglob("*")} == before
    finally:
        if lead is _mounted:
            subprocess.run(["umount", "--lazy", str(way)], check=True)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_mount_that_leads_back_to_the_spool_holds_no_copies(site: Stick, card: Card, depth: int) -> None:
    image = card.image()
    (card.folder / MARK).touch()
    write_manifest(card.path(image).parent, image)
    parts = Path(image.place).parts[:depth]
    mount = site.path.joinpath(*parts)
    mount.mkdir(exist_ok=True)
    command = ["mount", "--bind", str(card.folder.joinpath(*parts)), str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a filesystem")
    try:
        is_no_copy(in_spool(site, card), image, card.path(image))
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


# ── Odd entries ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(30)
@pytest.mark.parametrize("odd", ["a pipe", "a folder", "a link"])
def test_what_is_no_manifest_is_left_alone_and_copies_are_told_by_their_bytes(
    site: Stick, card: Card, odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, stick = card.image(0), card.image(1), site.connect()
    kept = card.folder / "not-delivered.jpg"
    kept.write_bytes(b"bytes without an end of line")
    sums = (site.path / first.place).with_name(manifest.NAME)
    sums.parent.mkdir(parents=True)
    if odd == "a link":
        sums.symlink_to(kept)
    else:
        ODD[odd](sums)
    before = sums.lstat()
    for image in (first, second, first):
        assert stick.find_existing([image]) == {}
        assert isinstance(stick.deliver(image, card.path(image)), Receipt)
    assert set(stick.confirm([first, second], {})) == {first.id, second.id}
    assert kept.read_bytes() == b"bytes without an end of line"
    assert (sums.lstat().st_ino, sums.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is left alone" in caplog.text


def test_a_huge_manifest_costs_no_memory_and_is_left_alone(site: Stick, card: Card) -> None:
    image, stick = card.image(), site.connect()
    sums = (site.path / image.place).with_name(manifest.NAME)
    sums.parent.mkdir(parents=True)
    with sums.open("wb") as file:
        file.truncate(700 * 10**6)
    tracemalloc.start()
    try:
        assert stick.find_existing([image]) == {}
        stick.deliver(image, card.path(image))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 10**6
    assert sums.stat().st_size == 700 * 10**6
    assert isinstance(stick.confirm([image], {})[image.id], Receipt)


@pytest.mark.parametrize("content", [b"x" * 5 * 10**6, b"\n" * 300_000, b"\0" * 9 * 10**6])
def test_a_manifest_without_ends_of_lines_or_with_too_many_is_left_alone(
    site: Stick, card: Card, content: bytes
) -> None:
    image, stick = card.image(), site.connect()
    sums = (site.path / image.place).with_name(manifest.NAME)
    sums.parent.mkdir(parents=True)
    sums.write_bytes(content)
    assert stick.find_existing([image]) == {}
    assert isinstance(stick.deliver(image, card.path(image)), Receipt)
    assert isinstance(stick.confirm([image], {})[image.id], Receipt)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("odd", ["foreign", "a pipe", "a link", "closed"])
def test_a_day_that_is_in_the_way_costs_the_images_of_that_day(
    site: Stick, tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap, stick = bench.Trap(tmp_path / "trap"), site.connect()
    trap.catalog.places.register([("stick", "directory", True)])
    seconds = [0, 1, *(86400 + second for second in range(9))]  # of the day in the way come first, and many
    paths = [trap.put(second, seed=second) for second in seconds]
    trap.ingest()
    day = (site.path / paths[-1]).parent
    day.parent.mkdir()
    if odd == "closed":
        day.mkdir()
        closed(monkeypatch, day.name)
    else:
        ODD[odd](day)
    turn = turn_to(stick, trap)
    assert (turn.delivered, turn.postponed, turn.trouble) == (2, 9, None)
    image = trap.catalog.images.on_card(0, 99)[-1]
    with pytest.raises(Failed, match=day.name):
        stick.deliver(image, trap.storage.spool / image.path)


def closed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if this folder belonged to another user: root, as whom these tests may run, is let in everywhere."""
    real = os.open

    def deny(path: Any, *arguments: Any, **words: Any) -> int:
        if path == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return real(path, *arguments, **words)

    monkeypatch.setattr(os, "open", deny)


@pytest.mark.parametrize("name", [".trapsync-trial.part", ".trapsync-trial-done.part"])
def test_what_has_the_name_of_a_trial_keeps_no_image_away(site: Stick, card: Card, name: str) -> None:
    (site.path / name).mkdir()
    stick, image = site.connect(), card.image()
    stick.place()
    stick.deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}
    assert (site.path / name).is_dir()


def locked(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *calls: str) -> None:
    """Let these calls fail for this name: as if a file were immutable, say, which root can make on few file systems."""

    def failing(call: str) -> Callable[..., Any]:
        real = getattr(os, call)

        def fail(*arguments: Any, **words: Any) -> Any:
            if name in arguments:
                raise OSError(number, os.strerror(number), name)
            return real(*arguments, **words)

        return fail

    for call in calls:
        monkeypatch.setattr(os, call, failing(call))


def _immutable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"mine")
    locked(monkeypatch, path.name, errno.EPERM, "unlink", "rename")


_CALLS = ("stat", "open", "unlink", "link", "rename")
IN_THE_WAY: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "a folder": lambda path, _: path.mkdir(),
    "a full folder": lambda path, _: (path / "x").mkdir(parents=True),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a pipe": lambda path, _: os.mkfifo(path),
    "immutable": _immutable,
    "without a status": lambda path, patch: locked(patch, path.name, errno.EIO, *_CALLS),
}
NAMES_IN_THE_ROOT = [f"{MARK}.part", ".trapsync-trial.part", ".trapsync-trial-done.part"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("odd", IN_THE_WAY)
@pytest.mark.parametrize("name", NAMES_IN_THE_ROOT)
def test_an_odd_entry_in_the_way_costs_one_image_whatever_has_the_names_that_the_stick_needs_itself(
    site: Stick, card: Card, name: str, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial that tells one entry's error from the stick's fails by nothing that is in its own way."""
    IN_THE_WAY[odd](site.path / name, monkeypatch)
    good, stick = card.image(), site.connect()
    stick.place()
    for second, number in enumerate([errno.EISDIR, errno.EPERM, errno.EEXIST, errno.ELOOP], 1):
        bad = card.image(second)
        with monkeypatch.context() as patch:
            locked(patch, f".{bad.name}.{drawings.DEVICE}.part", number, "unlink")
            with pytest.raises(Failed):
                stick.deliver(bad, card.path(bad))
    stick.deliver(good, card.path(good))
    stick.place()
    assert site.stored() == {good.name: card.bytes(good)}
    left = {path.name for path in site.path.iterdir()} - {MARK, drawings.DEVICE}
    assert left <= {name}, "a trial leaves nothing"


@pytest.mark.parametrize("odd", ["a folder", "a link to itself", "a pipe", "immutable"])
def test_what_has_all_names_of_a_trial_is_no_fault_of_the_stick(
    site: Stick, card: Card, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in disk_errors.TRIALS:
        IN_THE_WAY[odd](site.path / name, monkeypatch)
    bad, good, stick = card.image(0), card.image(1), site.connect()
    locked(monkeypatch, f".{bad.name}.{drawings.DEVICE}.part", errno.EEXIST, "unlink")
    stick.place()
    with pytest.raises(Failed):
        stick.deliver(bad, card.path(bad))
    stick.deliver(good, card.path(good))


def expect_that_only_one_fails(stick: Directory, bad: Image, good: Image) -> None:
    """Asked for both, the stick has the good one, and knows nothing of the bad one."""
    for answers in (stick.find_existing([bad, good]), stick.confirm([bad, good], {})):
        assert isinstance(answers[bad.id], Failed)
        assert isinstance(answers[good.id], Receipt)


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EUCLEAN, errno.EBADMSG, errno.EBUSY, errno.EOVERFLOW])
def test_whatever_is_wrong_with_one_folder_costs_its_images_as_long_as_the_stick_takes_others(
    site: Stick, card: Card, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, stick = card.image(0), card.image(86400), site.connect()
    locked(monkeypatch, Path(bad.place).parent.name, number, "open", "mkdir")
    with pytest.raises(Failed, match=os.strerror(number)):
        stick.deliver(bad, card.path(bad))
    stick.deliver(good, card.path(good))
    expect_that_only_one_fails(stick, bad, good)


def test_a_folder_that_takes_no_more_entries_is_not_a_full_stick(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with FAT: some 16,000 images in one folder, however large the stick is."""
    bad, good, stick = card.image(0), card.image(86400), site.connect()
    locked(monkeypatch, f".{bad.name}.{drawings.DEVICE}.part", errno.ENOSPC, "open")
    with pytest.raises(Failed, match="takes no more entries"):
        stick.deliver(bad, card.path(bad))
    stick.deliver(good, card.path(good))
    assert site.stored() == {good.name: card.bytes(good)}


def test_a_stick_is_full_where_small_files_still_go_and_one_as_large_as_the_image_does_not(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network folder with a quota, say, which tells of more room than there is."""
    image = card.image()
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size >= image.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unreachable, match="is full"):
        site.connect().deliver(image, card.path(image))
    assert site.files() == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_odd_entry_keeps_no_other_copy_from_being_confirmed_where_nothing_can_be_written(
    site: Stick, card: Card, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full stick, above all: what is on it may leave the card."""
    bad, good, stick = card.image(0), card.image(86400), site.connect()
    _deliver_all(stick, [bad, good], card)
    locked(monkeypatch, Path(bad.place).parent.name, errno.EACCES, "open")
    for name in disk_errors.TRIALS:
        locked(monkeypatch, name, number, "open")
    expect_that_only_one_fails(stick, bad, good)


def test_one_copy_whose_status_cannot_be_read_costs_itself_only(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, stick = card.image(0), card.image(1), site.connect()
    _deliver_all(stick, [bad, good], card)
    locked(monkeypatch, bad.name, errno.EIO, "stat")
    answers = stick.find_existing([bad, good])
    assert isinstance(answers[bad.id], Failed)
    assert isinstance(answers[good.id], Receipt)


@pytest.mark.parametrize("name", [manifest.NAME, f".{manifest.NAME}.part"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM, errno.EUCLEAN])
def test_a_manifest_that_cannot_be_read_or_written_keeps_no_image_away(
    site: Stick, card: Card, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [card.image(second) for second in range(2)]
    odd = (site.path / images[0].place).with_name(name)
    odd.parent.mkdir(parents=True)
    odd.write_bytes(b"")
    locked(monkeypatch, name, number, "open", "unlink", "rename")
    stick = site.connect()
    for image in images:
        assert stick.find_existing([image]) == {}
        assert isinstance(stick.deliver(image, card.path(image)), Receipt)
    assert set(stick.confirm(images, {})) == {image.id for image in images}
    assert odd.read_bytes() == b""


def test_a_torn_manifest_to_which_lines_can_only_be_added_keeps_no_image_away(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, stick = card.image(), site.connect()
    sums = (site.path / image.place).with_name(manifest.NAME)
    sums.parent.mkdir(parents=True)
    sums.write_bytes(b"# 12 by")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(manifest, "_append", refuse)
    assert isinstance(stick.deliver(image, card.path(image)), Receipt)


def test_what_has_the_temporary_name_of_a_manifest_keeps_no_image_away(
    site: Stick, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    images = [card.image(second) for second in range(2)]
    day = (site.path / images[0].place).parent
    (day / f".{manifest.NAME}.part").mkdir(parents=True)
    stick = site.connect()
    for image in images:
        assert isinstance(stick.deliver(image, card.path(image)), Receipt)
    assert set(site.stored()) == {image.name for image in images}
    assert "is no file; the copies there are told by their bytes" in caplog.text


def test_a_path_beyond_what_the_file_system_takes_costs_itself_only(site: Stick, card: Card) -> None:
    stick, good = site.connect(), card.image()
    long = replace(good, path=f"{'d' * 300}/IMG_1.JPG", id=99)
    stick.deliver(good, card.path(good))
    for answers, said in (
        (stick.find_existing([long, good]), Refused),
        (stick.confirm([long, good], {}), NotThere),
    ):
        assert isinstance(answers[long.id], said)
        assert isinstance(answers[good.id], Receipt)
    with pytest.raises(Refused, match="takes no such name"):
        stick.deliver(long, card.path(good))


def test_a_name_as_long_as_the_file_system_takes_is_delivered(site: Stick, card: Card) -> None:
    stick = site.connect()
    for content in (drawings.plain(seed=1), drawings.plain(seed=2)):
        image = card.put(content, "\u00e9" * 125 + ".jpg")
        receipt = stick.deliver(image, card.path(image))
        assert (site.path / receipt.at).read_bytes() == content
    assert len(site.stored()) == 2
    site.check_sums()


def test_one_copy_that_cannot_be_read_costs_itself_only(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, stick = card.image(0), card.image(1), site.connect()
    _deliver_all(stick, [bad, good], card)
    digest = directory._digest

    def fail_for_one(copy: FileIO) -> str:
        if name_of(copy.fileno()) == bad.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(copy)

    monkeypatch.setattr(directory, "_digest", fail_for_one)
    answers = stick.confirm([bad, good], {})
    assert isinstance(answers[good.id], Receipt)
    assert isinstance(answers[bad.id], Failed)
    with pytest.raises(Failed, match="other files can: the stick is failing"):
        stick.deliver(bad, card.path(bad))
    assert sorted(site.stored()) == [bad.name, good.name]


def test_a_stick_that_can_read_nothing_any_more_is_out_of_reach(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, stick = card.image(), site.connect()
    stick.deliver(image, card.path(image))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(directory, "_digest", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unreachable, match="pulled out or is failing"):
        stick.confirm([image], {})


# ── A note is not the thing ──────────────────────────────────────────────────────────────────────────


def test_the_manifest_is_a_note_and_a_copy_that_was_read_is_a_proof(site: Stick, card: Card) -> None:
    image, stick = card.image(), site.connect()
    receipts = [
        stick.deliver(image, card.path(image)),
        stick.find_existing([image])[image.id],
        stick.confirm([image], {})[image.id],
        stick.confirm([image], {image.id: image.place})[image.id],
    ]
    proof = Receipt(f"sha256:{image.sha256}", at=image.place)
    assert receipts == [proof, replace(proof, noted=True), proof, proof]


@pytest.mark.parametrize("keeps_size", [True, False])
def test_a_copy_that_rotted_is_not_confirmed_and_the_image_can_be_brought_again(
    site: Stick, card: Card, keeps_size: bool
) -> None:
    image, stick = card.image(), site.connect()
    stick.deliver(image, card.path(image))
    copy = site.path / image.place
    rotted = copy.read_bytes()[: image.size // 2] + b"\0" * (image.size - image.size // 2) * keeps_size
    copy.write_bytes(rotted)
    for at in ({}, {image.id: image.place}):
        answer = stick.confirm([image], at)[image.id]
        assert isinstance(answer, NotThere)
        assert image.id not in stick.find_existing([image])  # no note vouches for it any more
        assert str(hashlib.sha256(rotted).hexdigest() if keeps_size else len(rotted)) in str(answer)
    receipt = stick.deliver(image, card.path(image))
    assert copy.read_bytes() == rotted
    assert (site.path / receipt.at).read_bytes() == card.bytes(image)
    assert stick.confirm([image], {image.id: receipt.at}) == {image.id: receipt}
    assert stick.confirm([image], {}) == {image.id: receipt}


def test_what_was_taken_away_is_not_confirmed(site: Stick, card: Card) -> None:
    image, other, stick = card.image(0), card.image(1), site.connect()
    _deliver_all(stick, [image, other], card)
    (site.path / image.place).unlink()
    assert set(stick.confirm([image, other], {image.id: image.place})) == {other.id}


def test_a_copy_is_asked_for_where_it_lies(site: Stick, card: Card) -> None:
    image, stick = card.image(), site.connect()
    stick.deliver(image, card.path(image))
    (site.path / "old").mkdir()
    (site.path / image.place).rename(site.path / "old" / "copy.jpg")
    assert stick.confirm([image], {}) == {}
    receipt = stick.confirm([image], {image.id: "old/copy.jpg"})[image.id]
    assert receipt == Receipt(f"sha256:{image.sha256}", at="old/copy.jpg")
    assert isinstance(stick.confirm([image], {image.id: "../x.jpg"})[image.id], Failed)


def test_a_copy_is_read_from_the_medium(site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    advise = os.posix_fadvise

    def spy(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0, "it was read before"
        forgotten.append(name_of(descriptor))
        advise(descriptor, offset, length, advice)

    image, stick = card.image(), site.connect()
    monkeypatch.setattr(os, "posix_fadvise", spy)
    stick.deliver(image, card.path(image))
    stick.deliver(image, card.path(image))
    stick.confirm([image], {})
    assert forgotten == [f".{image.name}.{drawings.DEVICE}.part", image.name, image.name]


def test_everything_is_flushed_before_it_is_proof(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = card.image(0), card.image(1)
    device, day, _ = first.place.split("/")
    stick, flushed = site.connect(), flushes(monkeypatch)
    stick.deliver(first, card.path(first))
    part = f".{first.name}.{drawings.DEVICE}.part"
    # The folder above each new one, the copy and its name, the manifest and its name.
    assert flushed == [site.path.name, device, part, day, f".{manifest.NAME}.part", day]
    flushed.clear()
    stick.deliver(second, card.path(second))
    assert flushed[-1] == manifest.NAME


def test_a_copy_that_was_there_already_is_flushed_before_it_is_proof(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, stick = card.image(), site.connect()
    stick.deliver(image, card.path(image))
    flushed = flushes(monkeypatch)
    stick.deliver(image, card.path(image))
    device, day, name = image.place.split("/")
    assert flushed == [name, site.path.name, device, day]


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_flush_that_fails_is_no_proof(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    image, stick = card.image(), site.connect()
    fsync = os.fsync

    def fail_for_one_kind(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (of == "folder"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    (site.path / image.place).parent.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_for_one_kind)
        with pytest.raises((Failed, Unreachable)):
            stick.deliver(image, card.path(image))
    stick.deliver(image, card.path(image))
    site.check_sums()


# ── Names that come again ────────────────────────────────────────────────────────────────────────────


def test_a_cameras_names_that_come_again_lie_beside_the_first(site: Stick, tmp_path: Path) -> None:
    trap, stick = bench.Trap(tmp_path / "trap"), site.connect()
    trap.catalog.places.register([("stick", "directory", True)])
    pictures = [drawings.plain(seed=seed) for seed in range(3)]
    for picture in pictures:  # the card of the camera is formatted in between
        drawings.put(trap.storage.spool, picture, "DCIM/100MEDIA/IMG_0001.JPG")
        trap.ingest()
        turn = turn_to(stick, trap)
        assert (turn.delivered, turn.refused) == (1, 0)
    folder = site.path / "DCIM" / "100MEDIA"
    digests = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    named = ["IMG_0001.JPG", *(f"IMG_0001.{digest[:8]}.JPG" for digest in digests[1:])]
    assert {path.name: path.read_bytes() for path in folder.glob("*.JPG")} == dict(
        zip(named, pictures, strict=True)
    )
    site.check_sums()


def test_names_that_differ_in_case_only_are_both_there_on_a_stick_that_takes_them_for_one(
    site: Stick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stick with FAT or exFAT; a kernel that could mount one, or fold the case of ext4, is not everywhere."""

    def folding(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Folder, *arguments: Any, **more: Any) -> Any:
            there = {name.casefold(): name for name in os.listdir(self.descriptor)}  # noqa: PTH208 - of a descriptor
            known = [there.get(a.casefold(), a) if isinstance(a, str) else a for a in arguments]
            return method(self, *known, **more)

        return call

    for name in ("file", "new", "remove", "replace", "claim", "has", "is_file", "status"):
        monkeypatch.setattr(Folder, name, folding(getattr(Folder, name)))
    trap, stick = bench.Trap(tmp_path / "trap"), site.connect()
    trap.catalog.places.register([("stick", "directory", True)])
    pictures = {"DCIM/IMG_0001.JPG": drawings.plain(seed=1), "DCIM/img_0001.jpg": drawings.plain(seed=2)}
    for path, content in pictures.items():
        drawings.put(trap.storage.spool, content, path)
    trap.ingest()
    turn = turn_to(stick, trap)
    turn_to(stick, trap)
    assert turn.refused == 0
    assert trap.ledger() == (2, 2, 0, 0, 0)
    copies = [path for path in (site.path / "DCIM").iterdir() if path.suffix.casefold() == ".jpg"]
    assert sorted(path.read_bytes() for path in copies) == sorted(pictures.values())
    assert len({path.name.casefold() for path in copies}) == 2
    trap.catalog.close()


def test_two_traps_that_share_the_manifest_of_a_folder_lose_no_copy(site: Stick, tmp_path: Path) -> None:
    """Foreign files of two traps lie in one folder. A line that one of them lost costs one more reading."""
    traps = [bench.Trap(tmp_path / f"trap{number}") for number in range(2)]
    sticks = [site.connect() for _ in traps]
    for number, trap in enumerate(traps):
        trap.catalog.places.register([("stick", "directory", True)])
        for picture in range(12):
            name = f"DCIM/{number}-{picture}.jpg"
            drawings.put(trap.storage.spool, drawings.plain(seed=picture), name)
        trap.ingest()
    threads = [threading.Thread(target=turn_to, args=pair) for pair in zip(sticks, traps, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (site.path / "DCIM" / manifest.NAME).write_text("torn")
    for trap, stick in zip(traps, sticks, strict=True):
        trap.time.sleep(2000)  # one may have removed what the other was writing: then its turn was over
        turn_to(stick, trap)
        assert trap.ledger() == (12, 12, 0, 0, 0)
        images = trap.catalog.images.on_card(0, 99)
        assert all(isinstance(one, Receipt) for one in stick.confirm(images, {}).values())
        trap.catalog.close()


def test_two_images_of_one_name_at_once_are_both_there(site: Stick, card: Card) -> None:
    first, second, stick = card.image(), replace(card.image(seed=2), id=2), site.connect()
    paths = [card.folder / f"{number}.jpg" for number in range(2)]
    paths[0].write_bytes(drawings.trap(seed=1, taken=drawings.TAKEN))
    paths[1].write_bytes(card.bytes(second))
    begin = threading.Barrier(2)

    def bring(image: Image, path: Path) -> Receipt:
        begin.wait(10)
        return stick.deliver(image, path)

    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(bring, (first, second), paths))
    assert len({receipt.at for receipt in receipts}) == 2
    for receipt, path in zip(receipts, paths, strict=True):
        assert (site.path / receipt.at).read_bytes() == path.read_bytes()


def test_a_name_that_another_trap_took_in_this_moment_is_not_overwritten(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, stick = card.image(), site.connect()
    copy = site.path / image.place
    claim = Folder.claim

    def too_late(folder: Folder, old: str, new: str) -> None:
        copy.write_bytes(b"of another trap")
        claim(folder, old, new)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "claim", too_late)
        with pytest.raises(Failed):
            stick.deliver(image, card.path(image))
    assert copy.read_bytes() == b"of another trap"
    assert (site.path / stick.deliver(image, card.path(image)).at).read_bytes() == card.bytes(image)
