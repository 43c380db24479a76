"""The observer hints, the walk finds. Real inotify, real folders."""

import os
import queue
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import drawings
from trapsync.errors import StorageError
from trapsync.files import destination_mark
from trapsync.image import Found
from trapsync.spool import scan as scanning
from trapsync.spool import undecided as undecided_files
from trapsync.spool.observer import Watcher
from trapsync.spool.scan import found_as, scan, stat_file
from trapsync.spool.undecided import UndecidedFiles


class Hints:
    """Collects what the observer says, for a test to wait for."""

    def __init__(self, spool: Path) -> None:
        self.paths: queue.Queue[str] = queue.Queue()
        self.sweeps = threading.Semaphore(0)
        self.watcher = Watcher(spool, self.paths.put, self.sweeps.release)

    def wait_for(self, path: str) -> None:
        """The next hints up to this one; times out if it never comes."""
        while self.paths.get(timeout=10) != path:
            pass

    def wait_for_only(self, path: str, *others: str) -> None:
        """The same, and nothing else is named on the way but these."""
        while (seen := self.paths.get(timeout=10)) != path:
            assert seen in others


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def hints(spool: Path) -> Iterator[Hints]:
    some = Hints(spool)
    some.watcher.start()
    yield some
    some.watcher.stop()


def test_a_file_written_into_the_spool_is_noticed(spool: Path, hints: Hints) -> None:
    drawings.put(spool, b"anything", "a.jpg")
    hints.wait_for("a.jpg")


def test_a_file_renamed_into_place_is_noticed_under_its_final_name(spool: Path, hints: Hints) -> None:
    (spool / ".a.jpg.part").write_bytes(b"anything")
    (spool / ".a.jpg.part").rename(spool / "a.jpg")
    hints.wait_for("a.jpg")
    assert hints.paths.empty()  # and not under the temporary one


def test_a_file_moved_in_from_elsewhere_is_noticed(spool: Path, hints: Hints, tmp_path: Path) -> None:
    (tmp_path / "b.JPG").write_bytes(b"anything")
    (tmp_path / "b.JPG").rename(spool / "b.JPG")
    hints.wait_for("b.JPG")


def test_a_hard_link_into_the_spool_is_noticed(spool: Path, hints: Hints, tmp_path: Path) -> None:
    (tmp_path / "c.jpg").write_bytes(b"anything")
    (spool / "c.jpg").hardlink_to(tmp_path / "c.jpg")
    hints.wait_for("c.jpg")


def test_a_folder_moved_in_asks_for_a_sweep_and_is_watched(spool: Path, hints: Hints, tmp_path: Path) -> None:
    drawings.put(tmp_path / "new", b"anything", "d.jpg")
    (tmp_path / "new").rename(spool / "new")
    assert hints.sweeps.acquire(timeout=10)
    drawings.put(spool, b"anything", "new/e.jpg")
    hints.wait_for("new/e.jpg")


@pytest.mark.parametrize("name", ["notes.txt", ".hidden.jpg", "a.jpg.part"])
def test_other_files_are_no_news(spool: Path, hints: Hints, name: str) -> None:
    drawings.put(spool, b"anything", name)
    drawings.put(spool, b"anything", "last.jpg")
    assert hints.paths.get(timeout=10) == "last.jpg"


def _inotify_watches() -> list[str]:
    """What the kernel says of each inotify descriptor of this process."""
    found = []
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of this very listing
            if "inotify" in str(file.readlink()):
                found.append(Path("/proc/self/fdinfo", file.name).read_text())
    return found


def test_the_kernel_tells_nothing_of_a_file_that_is_read_or_written_on(spool: Path, hints: Hints) -> None:
    (spool / "later").mkdir()
    drawings.put(spool, b"anything", "later/a.jpg")
    hints.wait_for("later/a.jpg")
    of_spool = f"ino:{spool.stat().st_ino:x} "
    watched = next(text for text in _inotify_watches() if of_spool in text)
    masks = [int(found, 16) for found in re.findall(r"^inotify .* mask:(\w+)", watched, re.MULTILINE)]
    assert len(masks) == 2  # the folder that came later, too
    read_or_written_on = 0x2 | 0x4 | 0x10 | 0x20  # inotify(7): MODIFY, ATTRIB, CLOSE_NOWRITE, OPEN
    assert not any(mask & read_or_written_on for mask in masks)


def test_a_watcher_tells_whether_it_lives_and_can_start_again(spool: Path) -> None:
    hints = Hints(spool)
    assert not hints.watcher.is_alive()
    for _ in range(2):
        hints.watcher.start()
        assert hints.watcher.is_alive()
        hints.watcher.stop()
        assert not hints.watcher.is_alive()


def test_a_watcher_that_starts_again_leaves_no_observer_behind(hints: Hints) -> None:
    before = hints.watcher._observer
    assert before
    hints.watcher.start()
    before.join(10)
    assert not before.is_alive()


def test_an_observer_whose_handler_raised_is_known_to_be_dead(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: died.set())

    def bug(_path: str) -> None:
        raise ZeroDivisionError

    watcher = Watcher(spool, bug, lambda: None)
    watcher.start()
    drawings.put(spool, b"anything", "a.jpg")
    assert died.wait(10)
    for thread in threading.enumerate():
        if watcher._observer and thread is watcher._observer:
            thread.join(10)
    assert not watcher.is_alive()
    before = threading.active_count()
    watcher.start()
    assert watcher.is_alive()
    assert threading.active_count() <= before + 1  # those of the dead one are gone
    watcher.stop()


@pytest.mark.parametrize("way", ["moved", "removed"])
def test_a_spool_that_was_taken_away_and_made_again_is_watched_anew(spool: Path, way: str) -> None:
    hints = Hints(spool)
    hints.watcher.start()
    if way == "moved":
        spool.rename(spool.with_name("elsewhere"))
    else:
        spool.rmdir()
    assert not hints.watcher.is_alive() or way == "removed"  # which its thread takes a moment to notice
    spool.mkdir()
    while hints.watcher.is_alive():
        pass
    hints.watcher.start()
    drawings.put(spool, b"anything", "a.jpg")
    hints.wait_for("a.jpg")
    hints.watcher.stop()


def test_a_spool_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be watched"):
        Hints(tmp_path / "nowhere").watcher.start()


def test_the_walk_skips_hidden_folders_and_links_to_folders(spool: Path, tmp_path: Path) -> None:
    drawings.put(spool, b"x", "a/b/one.jpg")
    drawings.put(spool, b"x", ".quarantine/two.jpg")
    drawings.put(tmp_path / "outside", b"x", "three.jpg")
    (spool / "link").symlink_to(tmp_path / "outside")
    (spool / "loop").symlink_to(spool)
    assert [found.path for _, files in scan(spool) for found in files or ()] == ["a/b/one.jpg"]


OTHERS = [
    *(
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        ".Trashes",
        ".Trash-1000",
    ),
    *(
        "@Recycle",
        "RECYCLER",
        "__MACOSX",
        "$recycle.bin",
        "LOST.DIR",
        "#snapshot",
        ".stversions",
        "FOUND.000",
    ),
]


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_of_another_system_is_left_alone_wherever_it_lies(spool: Path, name: str) -> None:
    """Field case 27: a NAS keeps small copies there, and deleted pictures."""
    for path in (
        "one.jpg",
        f"{name}/two.jpg",
        f"a/{name}/b/three.jpg",
        f"a/{name}.jpg",
        f"a/my {name}/four.jpg",
    ):
        drawings.put(spool, b"x", path)
    names = {found.path for _, files in scan(spool) for found in files or ()}
    hidden = set() if name.startswith(".") else {f"a/{name}.jpg"}
    assert names == {"one.jpg", f"a/my {name}/four.jpg"} | hidden


def test_a_file_in_a_folder_of_another_system_is_no_news(spool: Path, hints: Hints) -> None:
    for name in OTHERS:
        drawings.put(spool, b"anything", f"{name}/a.jpg")
        drawings.put(spool, b"anything", f"a/{name}/b/c.jpg")
    drawings.put(spool, b"anything", "last.jpg")
    seen: list[str] = []
    while not seen or seen[-1] != "last.jpg":
        seen.append(hints.paths.get(timeout=10))
    # A folder that is new may be watched only after the file in it was closed: no news is no fault there.
    assert set(seen) == {"last.jpg"}
    for name in OTHERS:
        drawings.put(spool, b"anything", f"{name}/a.jpg")
        drawings.put(spool, b"anything", f"a/{name}/b/c.jpg")
    drawings.put(spool, b"anything", "last of all.jpg")
    hints.wait_for_only("last of all.jpg", "last.jpg")


def test_the_walk_leaves_a_folder_alone_that_images_are_delivered_to(
    spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("a/1.jpg", "copies/2.jpg", "copies/below/3.jpg"):
        drawings.put(spool, b"x", path)
    (spool / "copies" / destination_mark.NAME).touch()
    seen = dict(scan(spool))
    assert set(seen) == {"", "a", "copies"}
    assert [found.path for found in seen["a"] or []] == ["a/1.jpg"]
    assert seen["copies"] is None, "what is in it is not known, and not lost"
    assert "images are delivered to this folder" in caplog.text


def test_a_mark_in_the_spool_itself_hides_nothing(spool: Path) -> None:
    drawings.put(spool, b"x", "1.jpg")
    (spool / destination_mark.NAME).touch()
    ((_, files),) = scan(spool)
    assert [found.path for found in files or []] == ["1.jpg"]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of a daemon that has reported nothing yet, and names three files at most."""
    monkeypatch.setattr(scanning, "_reports", scanning._Reports(most=3))
    return caplog


def test_links_and_special_files_are_left_alone_and_reported_once(
    spool: Path, reports: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool / "card").symlink_to(spool)
    os.mkfifo(spool / "pipe.jpg")
    monkeypatch.chdir(spool)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
    for name in (".hidden.jpg", ".hidden"):
        (spool / name).symlink_to("card")
    for _ in range(3):
        assert [files for _, files in scan(spool)] == [[]]
        assert stat_file(spool, "pipe.jpg") is None
    lines = sorted(record.message for record in reports.records)
    assert [line.removeprefix(f"'{spool}/") for line in lines] == [
        "card' is a link: it is left alone",
        "pipe.jpg' is a named pipe: it is left alone",
        "socket.jpg' is a socket: it is left alone",
        "further entries of the spool that are not taken in are not named in the log",
    ]


def test_reports_of_what_is_left_alone_are_bounded_and_no_name_can_forge_one(
    spool: Path, reports: pytest.LogCaptureFixture
) -> None:
    for number in range(50):
        (spool / f"{number}\nforged.jpg").symlink_to("nowhere")
    assert [files for _, files in scan(spool)] == [[]]
    assert len(reports.records) == 4
    assert "\nforged" not in reports.text
    assert len(scanning._reports._paths) == 3


@pytest.mark.parametrize(
    ("ns", "bounded"), [(10**18, 10**18), (2**63, 2**63 - 1), (10**20, 2**63 - 1), (-(10**20), -(2**63))]
)
def test_a_date_is_bounded_to_what_the_catalog_can_hold(spool: Path, ns: int, bounded: int) -> None:
    path = spool / "a.jpg"
    path.touch()

    class Status:
        st_size, st_mtime_ns = 5, ns

    assert found_as("a.jpg", Status()) == Found("a.jpg", 5, bounded)  # type: ignore[arg-type]


def test_files_in_doubt_are_bounded_in_number_and_what_nobody_asks_about_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(undecided_files, "_MAX_FILES", 3)
    undecided = UndecidedFiles(settle=10.0)
    some = [Found(f"{number}.jpg", 1, 1) for number in range(4)]
    for now in (0.0, 9.0):
        assert [undecided.is_stable(found, now) for found in some] == [False] * 4
    # Those that are remembered are judged, and then there is room for the others.
    assert [undecided.is_stable(found, 10.0) for found in some] == [True] * 3 + [False]
    assert len(undecided._files) == 3
    assert not undecided.is_stable(some[3], 4000.0)
    assert undecided.is_stable(some[3], 4010.0)
    assert len(undecided._files) == 1


def test_a_file_that_was_written_anew_is_not_suspected_for_what_befell_the_other() -> None:
    undecided = UndecidedFiles(settle=10.0)
    assert not undecided.is_killed_too_often(Found("a.jpg", 1, 1), 0.0)
    assert undecided.is_suspect(Found("a.jpg", 1, 1))
    assert not undecided.is_suspect(Found("a.jpg", 1, 2))
