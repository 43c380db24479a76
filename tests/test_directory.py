"""The folder as a destination: proofs, verified copies, manifests."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import drawn
from conformance import Card, Conformance, tools
from fake_time import FakeTime
from trapsync import durable
from trapsync.destinations import Receipt, directory, manifest
from trapsync.destinations.directory import MARK, Directory, Settings
from trapsync.errors import Failed, Refused, Unreachable
from trapsync.image import Image
from trapsync.quantities import Size


class Stick:
    """A folder that stands for a mounted stick; pulled out, its mount point is an empty folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / MARK).touch()

    def connect(self, **more: Any) -> Directory:
        """A destination that copies there."""
        return directory.connect("stick", Settings(kind="directory", path=self.path, **more), tools())

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


def test_copies_are_laid_out_by_device_and_day_and_coreutils_confirm_them(site: Stick, card: Card) -> None:
    stick = site.connect()
    images = [card.image(0), card.image(5), card.image(86400)]
    for image in images:
        stick.deliver(image, card.path(image))
    assert set(site.files()) == {
        f"{drawn.DEVICE}/2026-06-21/{images[0].name}",
        f"{drawn.DEVICE}/2026-06-21/{images[1].name}",
        f"{drawn.DEVICE}/2026-06-21/SHA256SUMS",
        f"{drawn.DEVICE}/2026-06-22/{images[2].name}",
        f"{drawn.DEVICE}/2026-06-22/SHA256SUMS",
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
    image = card.put(drawn.plain(), odd)
    stick = site.connect()
    stick.deliver(image, card.path(image))
    assert (site.path / odd).read_bytes() == drawn.plain()
    assert isinstance(stick.known([image])[image.id], Receipt)
    line = (site.path / "from phone" / manifest.NAME).read_bytes().split(b"\n")[1]
    assert line == b"\\" + image.sha256.encode() + "  a\\\\b\\nc\\rd é.jpg".encode()


def test_coreutils_understand_escaped_names(site: Stick, card: Card) -> None:
    image = card.put(drawn.plain(), "a\\b\nc.jpg")
    site.connect().deliver(image, card.path(image))
    site.check_sums()


def test_a_folder_without_a_mark_is_not_the_stick_and_gets_nothing(site: Stick, card: Card) -> None:
    image = card.image()
    (site.path / MARK).unlink()
    with pytest.raises(Unreachable, match=r"not there.*run: touch"):
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
        site.connect(proof="mount").deliver(image, card.path(image))
    assert site.stored() == {}


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a mounted /dev/shm")
def test_a_mounted_filesystem_is_its_own_proof() -> None:
    settings = Settings(kind="directory", path=Path("/dev/shm"), proof="mount")
    assert directory.connect("stick", settings, tools()).known([]) == {}


def test_a_stick_pulled_out_in_the_middle_never_leaves_the_copy_on_the_card(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = card.image()
    make_folder = durable.make_folder
    outage = site.broken()

    def pull_out_first(folder: Path) -> None:
        outage.__enter__()
        make_folder(folder)

    monkeypatch.setattr(durable, "make_folder", pull_out_first)
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

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{call}" if call == "fsync" else "pathlib.Path.rename", fail)
        with pytest.raises(Unreachable, match=advice):
            site.connect().deliver(image, card.path(image))
    assert failures
    assert site.files() == {}
    site.connect().deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}


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
    stick = mounted.connect(proof="mount")
    images = [card.image(second) for second in range(60)]
    with pytest.raises(Unreachable, match="is full"):
        _deliver_all(stick, images, card)
    assert 0 < len(mounted.stored()) < 60
    assert not [name for name in mounted.files() if name.endswith(".part")]
    mounted.check_sums()


def test_a_filesystem_that_is_really_gone_gets_nothing(mounted: Stick, card: Card) -> None:
    image = card.image()
    stick = mounted.connect(proof="mount")
    stick.deliver(image, card.path(image))
    subprocess.run(["umount", str(mounted.path)], check=True)
    with pytest.raises(Unreachable, match="nothing is mounted"):
        stick.deliver(image, card.path(image))
    assert mounted.stored() == {}  # the folder below the mount, which is on the card


def test_a_name_that_fat_does_not_take_is_refused_with_the_reason(
    site: Stick, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = card.put(drawn.plain(), "12:30.jpg")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(durable, "write", refuse)
    with pytest.raises(Refused, match="takes no such name"):
        site.connect().deliver(image, card.path(image))
    ordinary = replace(image, path="plain.jpg")
    with pytest.raises(Unreachable):
        site.connect().deliver(ordinary, card.path(image))


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

    def spy(path: Path) -> str:
        seen.append(path.name)
        assert not (site.path / image.place).exists()
        return digest(path)

    monkeypatch.setattr(directory, "_digest", spy)
    site.connect().deliver(image, card.path(image))
    assert seen == [f".{image.name}.part"]


def test_a_left_over_part_is_overwritten(site: Stick, card: Card) -> None:
    image = card.image()
    copy = site.path / image.place
    copy.parent.mkdir(parents=True)
    copy.with_name(f".{image.name}.part").write_bytes(b"half of something" * 100_000)
    site.connect().deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}
    site.check_sums()


def test_a_copy_without_its_manifest_line_gets_one(site: Stick, card: Card) -> None:
    image = card.image()
    stick = site.connect()
    stick.deliver(image, card.path(image))
    (site.path / image.place).with_name(manifest.NAME).unlink()
    assert stick.known([image]) == {}
    stick.deliver(image, card.path(image))
    assert isinstance(stick.known([image])[image.id], Receipt)
    site.check_sums()


def test_a_torn_last_line_is_repaired(site: Stick, card: Card) -> None:
    first, second = card.image(0), card.image(1)
    stick = site.connect()
    stick.deliver(first, card.path(first))
    sums = (site.path / first.place).with_name(manifest.NAME)
    whole = sums.read_bytes()
    sums.write_bytes(whole + f"# {second.size} bytes\n{second.sha256[:20]}".encode())
    stick.deliver(second, card.path(second))
    assert set(stick.known([first, second])) == {first.id, second.id}
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
    assert isinstance(stick.known([other])[other.id], Receipt)


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
    assert stick.known([image]) == {}


def test_a_place_outside_the_folder_is_refused(site: Stick, card: Card) -> None:
    image = replace(card.put(drawn.plain(), "a.jpg"), path="../a.jpg")
    with pytest.raises(Refused, match="not a place"):
        site.connect().deliver(image, card.folder / "a.jpg")


def test_the_bandwidth_limit_holds_for_sticks_too(site: Stick, card: Card) -> None:
    time = FakeTime()
    settings = Settings(kind="directory", path=site.path, bandwidth=Size(1000))
    image: Image = card.image()
    directory.connect("stick", settings, tools(time)).deliver(image, card.path(image))
    assert sum(time.slept) == pytest.approx(image.size / 1000, abs=1.0)
