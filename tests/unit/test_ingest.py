"""From a file in the spool to a row in the catalog, or to quarantine."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import drawings
from trap_bench import Memory, Trap
from trapsync import pipeline
from trapsync.errors import CatalogError, ExaminerKilled, StorageError
from trapsync.image import Found, Image
from trapsync.spool import new_files, quarantine
from trapsync.spool.scan import stat_file


def test_a_good_file_becomes_an_image_pending_at_every_destination(trap: Trap) -> None:
    trap.register(Memory("home"), Memory("stick"))
    path = trap.put()
    assert trap.ingest().new == 1
    (image,) = trap.catalog.deliveries.due("home", "newest", 9)
    assert (image.path, image.evidence) == (path, drawings.EVIDENCE)
    assert trap.catalog.deliveries.due("stick", "newest", 9) == [image]
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_what_the_catalog_knows_is_not_examined_again(trap: Trap) -> None:
    trap.put()
    trap.ingest()
    trap.ingest()
    assert len(trap.examined) == 1


def test_files_there_before_moved_in_or_in_new_folders_are_found_by_the_sweep(trap: Trap) -> None:
    outside = trap.folder / "elsewhere"
    drawings.put(outside, drawings.trap(seed=2), "IMG_0001.JPG")
    trap.put()
    outside.rename(trap.storage.spool / "DCIM")
    trap.put(1, seed=3, path="a/b/c/new.jpeg")
    assert trap.ingest().new == 3
    assert {image.key for image in trap.catalog.images.on_card(0, 9)} == {
        drawings.NAME,
        "DCIM/IMG_0001.JPG",
        "a/b/c/new.jpeg",
    }


@pytest.mark.parametrize("name", [".hidden.jpg", "notes.txt", ".x/7a.jpg", "7a.jpg.part", "7a.jpg~"])
def test_what_is_no_image_by_its_name_is_left_alone(trap: Trap, name: str) -> None:
    drawings.put(trap.storage.spool, b"anything", name)
    assert trap.ingest() == pipeline.Ingested()
    assert (trap.storage.spool / name).read_bytes() == b"anything"


def test_a_copy_of_an_image_is_the_same_image(trap: Trap) -> None:
    trap.put()
    trap.put(path=f"copy/{drawings.NAME}")
    assert trap.ingest().new == 1
    assert trap.ledger() == (1, 0, 1, 0, 0)
    assert trap.ingest() == pipeline.Ingested()


def test_a_moved_image_is_the_same_image_at_its_new_place(trap: Trap) -> None:
    trap.register(Memory())
    trap.put()
    trap.ingest()
    (trap.storage.spool / drawings.DEVICE).rename(trap.storage.spool / "moved")
    assert trap.ingest().new == 0
    (image,) = trap.catalog.deliveries.due("home", "newest", 9)
    assert (trap.storage.spool / image.path).is_file()
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_another_picture_under_the_same_name_is_kept_as_a_conflict(trap: Trap) -> None:
    trap.put(seed=1)
    trap.put(seed=2, path=f"other/{drawings.NAME}")
    assert trap.ingest().new == 2
    assert trap.catalog.counts.conflicts() == 1
    assert trap.ledger() == (2, 0, 2, 0, 0)


def test_a_file_written_over_with_another_picture_is_a_new_image_and_the_old_one_is_reported(
    trap: Trap,
) -> None:
    trap.put(seed=1)
    trap.ingest()
    trap.put(seed=2)
    assert trap.ingest().new == 1
    assert trap.ledger() == (2, 0, 1, 0, 1)
    assert trap.catalog.counts.vanished() == 1


def test_an_image_taken_from_the_card_is_dropped_and_pending_again_when_it_comes_back(trap: Trap) -> None:
    home = Memory()
    trap.register(home)
    path = trap.storage.spool / trap.put()
    trap.ingest()
    content = path.read_bytes()
    path.unlink()
    trap.ingest()
    assert trap.ledger() == (1, 0, 1, 0, 0)  # its destination is asked first
    trap.deliver(home)
    assert trap.ledger() == (1, 0, 0, 0, 1)
    path.write_bytes(content)
    trap.ingest()
    assert trap.ledger() == (1, 0, 1, 0, 0)
    assert trap.deliver(home).delivered == 1


def test_an_image_taken_from_the_card_after_delivery_stays_delivered(trap: Trap) -> None:
    home = Memory()
    trap.register(home)
    path = trap.storage.spool / trap.put()
    trap.ingest()
    trap.deliver(home)
    path.unlink()
    trap.ingest()
    assert trap.ledger() == (1, 1, 0, 0, 0)


def test_a_folder_that_cannot_be_listed_for_a_moment_loses_nothing(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap.put(0, seed=1)
    trap.put(path="other/deep/in/it.jpg", seed=2)
    trap.ingest()
    scandir = os.scandir

    def failing(folder: Path) -> object:
        if folder.name in (drawings.DEVICE, "deep"):
            raise OSError(5, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    trap.ingest()
    assert trap.ledger() == (2, 0, 2, 0, 0)


def test_an_image_that_is_ingested_while_the_sweep_is_in_its_folder_is_not_forgotten(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap.put(0, seed=1)
    trap.ingest()
    known_in = trap.catalog.images.known_in

    overtaken = []

    def overtake(folder: str) -> dict[str, tuple[int, int]]:
        """Its files are listed already."""
        if folder.startswith(drawings.DEVICE) and folder != drawings.DEVICE:
            overtaken.append(trap.ingest(trap.put(1, seed=2)))
        return known_in(folder)

    monkeypatch.setattr(trap.catalog.images, "known_in", overtake)
    pipeline.sweep(trap.catalog, trap.storage, lambda _path: None)
    assert overtaken == [pipeline.Ingested(new=1)]
    assert trap.ledger() == (2, 0, 2, 0, 0)


def test_a_spool_that_is_not_there_is_not_an_empty_one(trap: Trap) -> None:
    trap.put()
    trap.ingest()
    trap.storage.spool.rename(trap.folder / "unplugged")
    with pytest.raises(StorageError, match="cannot be listed"):
        trap.ingest()
    assert trap.ledger() == (1, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a JPEG"),
        (drawings.trap()[:-300] + bytes(300), "no end-of-image marker"),
        (drawings.trap()[:2000], "no end-of-image marker"),
    ],
)
def test_a_damaged_file_ends_in_quarantine_with_its_reason(trap: Trap, content: bytes, reason: str) -> None:
    trap.settle = 0
    trap.restart()
    path = f"{drawings.DEVICE}/2026-06-21/{drawings.NAME}"
    drawings.put(trap.storage.spool, content, path)
    assert trap.ingest().damaged == 1
    (row,) = trap.catalog.quarantine.listing()
    assert (row["path"], row["size"]) == (path, len(content))
    assert reason in row["reason"]
    assert (trap.storage.quarantine / row["kept_as"]).read_bytes() == content
    assert trap.ledger() == (1, 0, 0, 1, 0)


def test_a_damaged_file_does_not_keep_the_good_ones_back(trap: Trap) -> None:
    trap.put(0, seed=1)
    drawings.put(
        trap.storage.spool,
        b"rubbish",
        f"{drawings.DEVICE}/2026-06-21/{drawings.DEVICE}.2026-06-21_20-00-00.jpg",
    )
    trap.put(1, seed=2)
    result = trap.ingest()
    assert (result.new, result.damaged) == (2, 1)


def test_a_damaged_file_that_cannot_be_moved_keeps_nobody_back(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings.put(trap.storage.spool, b"rubbish", "of-root/a.jpg")
    trap.put()
    rename = Path.rename

    def forbidden(self: Path, target: Path) -> Path:
        if "of-root" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", forbidden)
    for _ in range(2):
        trap.ingest()
        assert trap.ledger() == (2, 0, 1, 1, 0)


def test_while_a_link_is_in_the_place_of_the_quarantine_nothing_is_examined_again(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        drawings.put(trap.storage.spool, b"rubbish %d" % number, f"{number}.jpg")
    trap.put()
    trap.storage.quarantine.symlink_to(trap.storage.quarantine.name)
    assert trap.ingest().damaged == 3
    caplog.clear()
    for _ in range(2):
        assert trap.ingest().damaged == 0
        assert trap.ledger() == (4, 0, 1, 3, 0)
    assert len(caplog.records) == 2  # one for each sweep


def test_a_file_that_the_card_does_not_show_keeps_nobody_back(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [trap.put(0, seed=1), trap.put(1, seed=2)]
    lstat = Path.lstat

    def failing(self: Path) -> os.stat_result:
        if str(self).endswith(paths[0]):
            raise OSError(errno.EIO, "Input/output error", str(self))
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", failing)
    assert trap.ingest(*paths).new == 1


def test_an_unfinished_file_is_looked_at_again_until_it_has_its_end(trap: Trap) -> None:
    whole = drawings.trap()
    path = f"slow/{drawings.NAME}"
    drawings.put(trap.storage.spool, whole[:1500], path)
    assert trap.ingest().later == [path]
    trap.time.sleep(100)
    drawings.put(trap.storage.spool, whole[:2500], path)  # it grows: somebody is writing
    assert trap.ingest().later == [path]
    trap.time.sleep(100)
    drawings.put(trap.storage.spool, whole, path)
    assert trap.ingest().new == 1


@pytest.mark.parametrize("written", [0, 1, 2, 3, 4, 5, 19, 400, 2000])
def test_a_file_whose_room_was_made_before_it_is_written_is_waited_for(trap: Trap, written: int) -> None:
    whole = drawings.trap()
    path = drawings.put(trap.storage.spool, whole[:written].ljust(len(whole), b"\0"), drawings.NAME)
    assert trap.ingest().later == [path]
    drawings.put(trap.storage.spool, whole, path)
    assert trap.ingest().new == 1


def test_an_unfinished_file_that_never_grows_is_damaged_after_the_settling_time(trap: Trap) -> None:
    path = trap.storage.spool / drawings.NAME
    path.write_bytes(drawings.trap()[:1500])
    assert trap.ingest().later == [drawings.NAME]
    trap.time.sleep(121)
    assert trap.ingest().damaged == 1
    assert not path.exists()


def test_a_file_that_changes_while_it_is_examined_is_looked_at_again(trap: Trap) -> None:
    path = trap.put()

    def examiner_that_is_overtaken(files):  # type: ignore[no-untyped-def]
        for found, outcome in trap._examiner(files):
            with (trap.storage.spool / path).open("ab") as file:
                file.write(b"more")
            yield found, outcome

    result = pipeline.ingest(
        trap.catalog, trap.storage, [path], examiner_that_is_overtaken, trap.undecided, trap.time
    )
    assert (result.new, result.later) == (0, [path])


@pytest.mark.parametrize("name", [b"night\n7.jpg", b"caf\xe9.jpg", b"tab\t.jpg", "bad\u202eexe.jpg".encode()])
def test_a_file_whose_name_cannot_be_written_down_is_quarantined(trap: Trap, name: bytes) -> None:
    (trap.storage.spool / os.fsdecode(name)).write_bytes(drawings.trap())
    assert trap.ingest().damaged == 1
    (row,) = trap.catalog.quarantine.listing()
    assert "name" in row["reason"]
    assert row["path"].isprintable()


def test_a_link_out_of_the_spool_is_not_followed(trap: Trap, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(drawings.trap())
    (trap.storage.spool / "link.jpg").symlink_to(secret)
    (trap.storage.spool / "folder").symlink_to(tmp_path)
    assert trap.ingest() == trap.ingest("link.jpg") == pipeline.Ingested()
    assert secret.exists()
    assert trap.ledger() == (0, 0, 0, 0, 0)


def test_a_link_to_the_newest_picture_is_left_where_it_is_however_often_it_is_renewed(trap: Trap) -> None:
    """Field case 8: another program renews `lastsnap.jpg` with each picture."""
    link = trap.storage.spool / "lastsnap.jpg"
    for second in range(3):
        link.with_name("l.tmp").symlink_to(trap.put(second, seed=second))
        link.with_name("l.tmp").rename(link)
        assert trap.ingest().new == 1
    assert link.is_symlink()
    assert trap.ledger() == (3, 0, 3, 0, 0)


def test_an_image_whose_file_was_replaced_by_a_link_is_off_the_card(trap: Trap) -> None:
    path = trap.storage.spool / trap.put()
    trap.ingest()
    path.rename(trap.folder / "elsewhere.jpg")
    path.symlink_to(trap.folder / "elsewhere.jpg")
    trap.ingest()
    assert trap.ledger() == (1, 0, 0, 0, 1)


# Names that are text, whether or not this Python has heard of the characters: a screenshot of macOS, a site with a
# no-break space, Persian, a family, an ideographic space, a soft hyphen, an emoji and a letter of later years.
TEXTS = [
    *(
        "at 9.41.00\u202fPM.jpg",
        "site\u00a01/IMG_0001.JPG",
        "\u06cc\u200c\u062e.jpg",
        "\U0001f468\u200d\U0001f469.jpg",
    ),
    *(
        "a\u3000b.jpg",
        "so\u00adft.jpg",
        "\U0001fae9.jpg",
        "\U0001fadf\u00a0/\U000323af.jpeg",
        "\ue000.jpg",
        "\u2028.jpg",
    ),
]


def test_a_name_that_is_text_is_an_images_name_whatever_characters_are_in_it(trap: Trap) -> None:
    """Field case 6."""
    trap.register(home := Memory())
    for number, path in enumerate(TEXTS):
        trap.put(path=path, seed=number)
    assert trap.ingest() == pipeline.Ingested(new=len(TEXTS))
    assert trap.deliver(home).delivered == len(TEXTS)
    assert set(home.stored) == set(TEXTS)
    assert trap.ingest() == pipeline.Ingested(), "and they are known by that name"


def test_a_file_is_put_back_under_the_very_name_that_it_had(trap: Trap) -> None:
    for path in TEXTS:
        drawings.put(trap.storage.spool, b"GIF89a", path)
    assert trap.ingest() == pipeline.Ingested(damaged=len(TEXTS))
    rows = trap.catalog.quarantine.listing()
    assert {row["path"] for row in rows} == set(TEXTS)
    trap.catalog.quarantine.correct(add=[], remove=[row["id"] for row in rows])
    quarantine.reconcile(trap.catalog, trap.storage)  # from the reasons beside the files
    for row in trap.catalog.quarantine.listing():
        quarantine.release(trap.catalog, trap.storage, row["id"])
    spool = trap.storage.spool
    found = {
        str(path.relative_to(spool))
        for path in spool.rglob("*")
        if path.is_file() and ".quarantine" not in path.parts
    }
    assert found == set(TEXTS)


@pytest.mark.parametrize(
    "name", ["a\tb.jpg", "a\x7f.jpg", "a\x85.jpg", "a\x1b[2J.jpg", os.fsdecode(b"\xed\xa0\x80.jpg")]
)
def test_a_name_with_control_characters_or_of_other_bytes_is_no_text(trap: Trap, name: str) -> None:
    trap.put(path=name)
    assert trap.ingest() == pipeline.Ingested(damaged=1)
    (row,) = trap.catalog.quarantine.listing()
    assert "\\" in row["path"]
    assert row["path"].isprintable()


def test_what_a_nas_keeps_beside_the_pictures_is_left_alone(trap: Trap) -> None:
    """Field case 27."""
    trap.put(path="DCIM/a.jpg")
    for path in (
        "@eaDir/DCIM/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/old.jpg",
        "DCIM/$RECYCLE.BIN/S-1/b.jpg",
    ):
        trap.put(path=path, seed=2)
    assert trap.ingest() == pipeline.Ingested(new=1)
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_nothing_is_put_back_where_no_sweep_would_find_it(trap: Trap) -> None:
    drawings.put(trap.storage.spool, b"GIF89a", "@eaDir/a.jpg")
    found = stat_file(trap.storage.spool, "@eaDir/a.jpg")
    assert found
    quarantine.quarantine(trap.catalog, trap.storage, found, "of an earlier version")
    (row,) = trap.catalog.quarantine.listing()
    with pytest.raises(StorageError, match="no path of an image"):
        quarantine.release(trap.catalog, trap.storage, row["id"])


@pytest.mark.parametrize("year", [1601, 2300, 2400])
def test_a_file_of_an_impossible_date_is_an_image_like_others(trap: Trap, year: int) -> None:
    """Reliability 6, field case 1: SQLite holds nanoseconds of the years 1678 to 2262."""
    trap.register(home := Memory())
    path = trap.storage.spool / trap.put(path="odd.jpg")
    os.utime(path, (0, (year - 1970) * 31_556_952))
    trap.put(1, seed=2)
    assert trap.ingest().new == 2
    assert trap.ingest() == pipeline.Ingested()
    assert trap.deliver(home).delivered == 2


def test_a_file_of_an_impossible_date_is_pruned(trap: Trap) -> None:
    trap.register(home := Memory())
    os.utime(trap.storage.spool / trap.put(path="odd.jpg"), (0, -11_600_000_000))
    trap.ingest()
    trap.deliver(home)
    trap.time.sleep(4000)
    assert trap.prune() == 1
    assert trap.on_card() == set()


def test_a_folder_whose_name_is_no_text_costs_nobody_outside_of_it(trap: Trap) -> None:
    """Reliability 5: `Flügel` in Latin-1, from an old zip or a camera's card."""
    odd = trap.storage.spool / os.fsdecode(b"Fl\xfcgel")
    odd.mkdir()
    trap.put()
    assert trap.ingest() == pipeline.Ingested(new=1)
    (odd / "a.jpg").write_bytes(drawings.trap(seed=2))
    (odd / "deeper").mkdir()
    (odd / "deeper" / "b.jpg").write_bytes(drawings.trap(seed=3))
    assert trap.ingest() == pipeline.Ingested(damaged=2)
    assert sorted(row["path"] for row in trap.catalog.quarantine.listing()) == [
        "Fl\\xfcgel/a.jpg",
        "Fl\\xfcgel/deeper/b.jpg",
    ]
    assert trap.ledger() == (3, 0, 1, 2, 0)


def test_a_folder_on_which_our_own_program_fails_costs_itself(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trap.put()
    trap.put(1, seed=2, path="bad/b.jpg")
    known_in = trap.catalog.images.known_in

    def failing(folder: str) -> dict[str, tuple[int, int]]:
        if folder == "bad":
            raise ZeroDivisionError("a mistake of our own")
        return known_in(folder)

    monkeypatch.setattr(trap.catalog.images, "known_in", failing)
    assert trap.ingest().new == 1
    assert "a mistake of our own" in caplog.text


def unfit(found: Found) -> Image:
    """An image of which the catalog cannot hold a value."""
    return Image(found.path, found.size, "0" * 32, "0" * 64, 2**63, 1)


def wrong(found: Found) -> Image:
    """An image with which our own program cannot do anything."""
    return Image(found.path, found.size, "0" * 32, "0" * 64, 1, 1, metadata={"lat": object()})


@pytest.mark.parametrize("make", [unfit, wrong])
def test_an_image_that_cannot_be_recorded_costs_itself_and_not_its_handful(
    trap: Trap, caplog: pytest.LogCaptureFixture, make: object
) -> None:
    paths = [trap.put(0, seed=1), trap.put(1, seed=2, path="bad.jpg"), trap.put(2, seed=3)]

    def examiner(files: Iterable[Found]) -> Iterator[tuple[Found, Image | Exception]]:
        for found, outcome in trap._examiner(files):
            yield found, make(found) if found.path == "bad.jpg" else outcome  # type: ignore[operator]

    for new, failed in ((2, 1), (0, 0), (0, 1)):
        result = pipeline.ingest(trap.catalog, trap.storage, paths, examiner, trap.undecided, trap.time)
        assert result == pipeline.Ingested(new=new, failed=failed)
        trap.time.sleep(35)  # it is tried again after a minute, and not before
    assert trap.undecided.tallies()["failed"].example == "bad.jpg"
    assert "'bad.jpg' cannot be ingested" in caplog.text
    assert trap.on_card() == set(paths)
    assert trap.ledger() == (2, 0, 2, 0, 0)


def test_a_file_that_cannot_be_looked_up_costs_itself(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [trap.put(0, seed=1), trap.put(1, seed=2)]
    is_known = trap.catalog.images.is_known

    def failing(found: Found) -> bool:
        if found.path == paths[0]:
            raise OverflowError("too large")
        return is_known(found)

    monkeypatch.setattr(trap.catalog.images, "is_known", failing)
    assert trap.ingest(*paths) == pipeline.Ingested(new=1, failed=1)


def test_a_catalog_that_refuses_is_no_fault_of_any_file(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [trap.put(0, seed=1), trap.put(1, seed=2)]
    asked = []

    def failing(examined: Iterable[object], _moved: Iterable[str] = ()) -> int:
        asked.append(examined)
        raise CatalogError("no room")

    monkeypatch.setattr(trap.catalog.images, "add", failing)
    with pytest.raises(CatalogError, match="no room"):
        trap.ingest(*paths)
    assert len(asked) == 1


def test_a_file_that_the_card_does_not_show_costs_neither_its_folder_nor_its_image(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = trap.put(0, seed=1)
    trap.ingest()
    trap.put(1, seed=2)
    lstat = Path.lstat

    def failing(self: Path) -> os.stat_result:
        if str(self).endswith(known):
            raise OSError(errno.EIO, "Input/output error", str(self))
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", failing)
    assert trap.ingest().new == 1
    assert trap.ledger() == (2, 0, 2, 0, 0)


class Killer:
    """An examiner that is killed at one file as long as it is told; it remembers in which company."""

    def __init__(self, trap: Trap, path: str) -> None:
        self.trap, self.path, self.kills = trap, path, 0
        self.rounds: list[list[str]] = []

    def __call__(self, files: Iterable[Found]) -> Iterator[tuple[Found, Image | Exception]]:
        files = list(files)
        if files:
            self.rounds.append([found.path for found in files])
        for found, outcome in self.trap._examiner(files):
            if found.path == self.path and self.kills:
                self.kills -= 1
                yield found, ExaminerKilled("its examiner was killed")
            else:
                yield found, outcome

    def sweep(self) -> pipeline.Ingested:
        trap, found = self.trap, list[str]()
        pipeline.sweep(trap.catalog, trap.storage, found.append)
        return pipeline.ingest(trap.catalog, trap.storage, found, self, trap.undecided, trap.time)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_picture_whose_examiner_was_killed_from_outside_is_examined_again_alone_after_a_pause(
    trap: Trap, kills: int
) -> None:
    """Reliability 19: two kills are no word about the picture."""
    killer = Killer(trap, trap.put(0, seed=1))
    killer.kills = kills
    trap.put(1, seed=2)
    assert killer.sweep() == pipeline.Ingested(new=1)
    assert killer.sweep() == pipeline.Ingested()  # the pause is not over
    assert len(killer.rounds) == 1
    trap.time.sleep(61)
    trap.put(2, seed=3)
    result = killer.sweep()
    assert killer.rounds[-1] == [killer.path]
    if kills == 2:
        assert result.new == 1
        trap.time.sleep(61)
        assert killer.sweep() == pipeline.Ingested()  # this pause is longer
        trap.time.sleep(540)
        result = killer.sweep()
    assert result.damaged == 0
    assert trap.ledger() == (3, 0, 3, 0, 0)


def test_a_file_that_has_its_examiner_killed_alone_after_every_pause_is_damaged(trap: Trap) -> None:
    killer = Killer(trap, trap.put())
    killer.kills = 3
    for pause in (61, 601):
        assert killer.sweep() == pipeline.Ingested()
        trap.time.sleep(pause)
    assert killer.sweep() == pipeline.Ingested(damaged=1)
    assert trap.ledger() == (1, 0, 0, 1, 0)


def test_a_picture_that_was_written_anew_is_not_to_blame_for_what_befell_the_other(trap: Trap) -> None:
    killer = Killer(trap, trap.put(seed=1))
    killer.kills = 3
    for pause in (61, 601):
        killer.sweep()
        trap.time.sleep(pause)
    trap.put(seed=2)
    assert killer.sweep() == pipeline.Ingested()
    trap.time.sleep(61)
    assert killer.sweep() == pipeline.Ingested(new=1)


@pytest.mark.parametrize("fate", ["removed", "renamed", "finished", "damaged"])
def test_an_unfinished_file_is_forgotten_when_it_is_gone_or_judged(trap: Trap, fate: str) -> None:
    """Reliability 27."""
    for number in range(50):
        path = drawings.put(trap.storage.spool, drawings.trap(seed=number)[:1500], f"{number}.jpg")
        assert trap.ingest(path).later == [path]
        match fate:
            case "removed":
                (trap.storage.spool / path).unlink()
            case "renamed":
                (trap.storage.spool / path).rename(trap.storage.spool / f"{number}.done")
            case "finished":
                drawings.put(trap.storage.spool, drawings.trap(seed=number), path)
            case "damaged":
                trap.time.sleep(121)
        assert trap.ingest(path).later == []
    assert trap.undecided._files == {}


def finished_late(trap: Trap, path: str = "slow.jpg") -> Path:
    """A writer that rests for longer than `settle` finishes its picture in quarantine; where it lies there."""
    whole = drawings.trap()
    with (trap.storage.spool / path).open("wb", buffering=0) as file:
        file.write(whole[:1500])
        trap.ingest()
        trap.time.sleep(121)
        assert trap.ingest().damaged == 1
        file.write(whole[1500:])
    (row,) = trap.catalog.quarantine.listing()
    return trap.storage.quarantine / str(row["kept_as"])


def test_a_picture_that_is_finished_in_quarantine_is_examined_again_and_delivered(trap: Trap) -> None:
    """Field case 15."""
    trap.register(home := Memory())
    kept = finished_late(trap)
    assert trap.ingest().new == 1
    assert trap.deliver(home).delivered == 1
    assert trap.ledger() == (1, 1, 0, 0, 0)
    assert list(kept.parent.iterdir()) == []


def test_a_link_to_itself_in_the_way_of_a_finished_picture_costs_no_sweep(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    (trap.storage.spool / "slow").mkdir()
    finished_late(trap, "slow/slow.jpg")
    (trap.storage.spool / "slow").rename(trap.storage.spool / "other")
    (trap.storage.spool / "slow").symlink_to("slow")
    trap.put()
    assert trap.ingest().new == 1
    assert "slow/slow.jpg has changed in quarantine, and stays there" in caplog.text
    assert "a link is in the way; remove it" in caplog.text


def test_a_picture_that_is_finished_in_quarantine_while_the_daemon_is_stopped_is_found(trap: Trap) -> None:
    finished_late(trap)
    trap.restart()
    quarantine.reconcile(trap.catalog, trap.storage)
    assert trap.ingest().new == 1
    assert trap.ledger() == (1, 0, 1, 0, 0)


def test_a_file_that_only_grows_in_quarantine_is_back_there_when_it_has_settled(trap: Trap) -> None:
    path = trap.storage.spool / "slow.jpg"
    with path.open("wb", buffering=0) as file:
        for part in (drawings.trap()[:1500], drawings.trap()[1500:2000]):
            file.write(part)
            assert trap.ingest().later == ["slow.jpg"]
            trap.time.sleep(121)
            assert trap.ingest().damaged == 1
    assert trap.ingest() == pipeline.Ingested()
    assert trap.ledger() == (1, 0, 0, 1, 0)
    assert len(list(trap.storage.quarantine.iterdir())) == 2


def test_what_is_unchanged_in_quarantine_stays_there(trap: Trap) -> None:
    drawings.put(trap.storage.spool, b"rubbish", "a.jpg")
    (trap.storage.spool / os.fsdecode(b"caf\xe9.jpg")).write_bytes(drawings.trap())
    assert trap.ingest().damaged == 2
    assert trap.ingest() == pipeline.Ingested()
    # The catalog and the reasons are lost: how the files were when they were put aside nobody knows.
    for row in trap.catalog.quarantine.listing():
        (trap.storage.quarantine / f"{row['kept_as']}.reason").unlink()
        trap.catalog.quarantine.release(row["id"])
    quarantine.reconcile(trap.catalog, trap.storage)
    assert trap.ingest() == pipeline.Ingested()
    assert trap.ledger() == (2, 0, 0, 2, 0)


def test_a_finished_picture_whose_place_is_taken_stays_in_quarantine_until_it_is_free(trap: Trap) -> None:
    kept = finished_late(trap)
    link = trap.storage.spool / "slow.jpg"
    link.symlink_to("nowhere")
    assert trap.ingest() == pipeline.Ingested()
    assert kept.exists()
    assert link.is_symlink()
    link.unlink()
    assert trap.ingest().new == 1


def test_nothing_is_put_back_outside_of_the_spool(trap: Trap) -> None:
    """Where a folder was, a link is now; or the path beside the file in quarantine is not ours."""
    (trap.storage.spool / "card").mkdir()
    kept = finished_late(trap, "card/slow.jpg")
    outside = trap.folder / "outside"
    (trap.storage.spool / "card").rename(outside)
    (trap.storage.spool / "card").symlink_to(outside)
    (row,) = trap.catalog.quarantine.listing()
    assert trap.ingest() == pipeline.Ingested()
    with pytest.raises(StorageError, match="not a folder of the spool"):
        quarantine.release(trap.catalog, trap.storage, row["id"])
    kept.with_name(f"{kept.name}.reason").write_text("../stolen.jpg\ncut off\n")
    trap.catalog.quarantine.release(row["id"])
    quarantine.reconcile(trap.catalog, trap.storage)
    assert trap.ingest() == pipeline.Ingested()
    assert kept.exists()
    assert list(outside.iterdir()) == []
    assert not (trap.folder / "stolen.jpg").exists()


def test_one_sweep_puts_back_so_many_files_and_the_next_ones_the_others(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "_MAX_PER_SWEEP", 2)
    for number in range(3):
        drawings.put(trap.storage.spool, b"rubbish", f"{number}.jpg")
    trap.ingest()
    for number, row in enumerate(trap.catalog.quarantine.listing()):
        (trap.storage.quarantine / row["kept_as"]).write_bytes(drawings.trap(seed=number))
    assert [trap.ingest().new for _ in range(3)] == [2, 1, 0]


def test_what_kills_left_of_pictures_under_way_is_removed_and_nothing_of_anybody_elses(trap: Trap) -> None:
    good = trap.put()
    place = (trap.storage.spool / good).parent
    (place / f".{drawings.DEVICE}.2026-06-21_20-19-16.jpg.part").write_bytes(b"half")
    (place / ".somebody.jpg.part").write_bytes(b"half")
    assert new_files.remove_unfinished(trap.storage.spool, drawings.DEVICE) == 1
    assert new_files.remove_unfinished(trap.storage.spool, "ffffffff") == 0
    assert {path.name for path in place.iterdir()} == {Path(good).name, ".somebody.jpg.part"}


def test_killed_between_the_row_and_the_move_a_damaged_file_is_quarantined_once(trap: Trap) -> None:
    drawings.put(trap.storage.spool, b"rubbish", drawings.NAME)
    found: list[str] = []
    pipeline.sweep(trap.catalog, trap.storage, found.append)
    one = stat_file(trap.storage.spool, drawings.NAME)
    assert one
    trap.catalog.quarantine.add(one.path, quarantine._name_of(one), "not a JPEG", one.size)
    trap.restart()
    quarantine.reconcile(trap.catalog, trap.storage)
    assert trap.ingest().damaged == 1
    assert len(trap.catalog.quarantine.listing()) == 1
    assert trap.on_card() == set()
