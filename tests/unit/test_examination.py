"""What the worker pool says of a file: whole ones, damaged ones, and things that are no files."""

import hashlib
import itertools
import os
import pickle
import random
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

import drawings
from trapsync.errors import DamagedImage, IncompleteImage, StorageError
from trapsync.image import Image
from trapsync.jpeg import examination, scan, structure, thumbnail

TRAP = drawings.trap()


def examined(
    spool: Path, content: bytes, path: str = f"{drawings.DEVICE}/2026-06-21/{drawings.NAME}"
) -> Image:
    return examination.examine(spool, drawings.put(spool, content, path))


def test_a_whole_image_is_described_with_digests_size_metadata_and_evidence(tmp_path: Path) -> None:
    image = examined(tmp_path, TRAP)

    assert image.path == f"{drawings.DEVICE}/2026-06-21/{drawings.NAME}"
    assert image.md5 == hashlib.md5(TRAP).hexdigest()
    assert image.sha256 == hashlib.sha256(TRAP).hexdigest()
    assert (image.size, image.width, image.height, image.id) == (len(TRAP), 160, 120, 0)
    assert image.evidence == drawings.EVIDENCE
    assert (image.metadata["format"], image.metadata["bat"]) == ("2022", 72)


def test_a_worker_prints_no_warning_about_the_literals_in_somebodys_exif(tmp_path: Path) -> None:
    path = drawings.put(tmp_path, drawings.sticky_pi_2020("{'lat': '\\d', 'lng': 0, 'alt': 0}"))
    code = (
        "import sys; from pathlib import Path; from trapsync.jpeg import examination; examination.prepare(10**9);"
        "examination.examine(Path(sys.argv[1]), sys.argv[2])"
    )
    command = [
        sys.executable,
        "-W",
        "always",
        "-c",
        code,
        str(tmp_path),
        path,
    ]  # as Python 3.12 does by itself
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


def test_an_image_without_metadata_is_as_good_as_any(tmp_path: Path) -> None:
    image = examined(tmp_path, drawings.plain(), "stick/IMG_0001.JPG")

    assert (image.width, image.metadata, image.evidence) == (160, {"exif": False}, None)


def test_a_damaged_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    at = TRAP.index(b"Exif\0\0MM") + 10
    image = examined(tmp_path, TRAP[:at] + b"\xff\xff\xff\xff" + TRAP[at + 4 :])

    assert image.width == 160
    assert "exif_error" in image.metadata


@given(cut=st.integers(0, 10**6))
@settings(max_examples=150)
def test_a_file_cut_anywhere_is_incomplete(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    spool = tmp_path_factory.mktemp("spool")

    with pytest.raises(IncompleteImage, match=r"^cut off"):
        examined(spool, TRAP[: cut % len(TRAP)])


@given(whole=st.integers(0, 10**6))
@settings(max_examples=60)
def test_a_tail_of_zeros_as_a_power_cut_leaves_it_is_caught(
    tmp_path_factory: pytest.TempPathFactory, whole: int
) -> None:
    spool = tmp_path_factory.mktemp("spool")
    start = whole % (len(TRAP) - 2)

    with pytest.raises(DamagedImage):
        examined(spool, TRAP[:start].ljust(len(TRAP), b"\0"))


@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(max_examples=300)
def test_one_damaged_byte_anywhere_gives_an_image_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    content = bytearray(TRAP)
    content[at % len(content)] = value

    try:
        outcome = examined(tmp_path_factory.mktemp("spool"), bytes(content)).md5
    except DamagedImage as reason:
        outcome = type(reason)(*reason.args).args[0]

    assert outcome == hashlib.md5(content).hexdigest() or re.match("cut off|damaged|not a|too large", outcome)


def test_a_thumbnails_end_inside_the_metadata_is_not_the_images_end(tmp_path: Path) -> None:
    picture = drawings.plain()
    inner = b"\xff\xec" + (2 + len(picture)).to_bytes(2, "big") + picture
    content = picture[:2] + inner + picture[2:-2]

    with pytest.raises(IncompleteImage, match="no end-of-image marker"):
        examined(tmp_path, content)


@pytest.mark.parametrize("length", [1, 70_000, 3 << 20])
def test_bytes_behind_the_end_are_allowed_and_hashed(tmp_path: Path, length: int) -> None:
    content = TRAP + b"\x01" * length

    assert examined(tmp_path, content).md5 == hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("end", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_end_is_found_where_two_reads_meet(tmp_path: Path, end: int) -> None:
    body = drawings.plain()[:-2]
    content = body + b"\x11" * (end - len(body)) + b"\xff\xd9" + b"\x11" * 99

    assert examined(tmp_path, content).size == len(content)


def test_a_header_of_megabytes_is_read_through(tmp_path: Path) -> None:
    picture = drawings.plain()
    depth_map = (b"\xff\xe2\xff\xff" + b"\x55" * 65533) * 40
    content = picture[:2] + depth_map + picture[2:]

    assert examined(tmp_path, content).width == 160


def test_a_header_without_end_is_given_up_before_it_fills_the_memory(tmp_path: Path) -> None:
    with pytest.raises(DamagedImage, match="16 MB"):
        examined(tmp_path, b"\xff\xd8" + (b"\xff\xe2\xff\xff" + b"\x55" * 65533) * 300)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "cut off"),
        (b"\0" * 5000, "not a JPEG"),
        (b"<!DOCTYPE html><title>Welcome</title>", "not a JPEG"),
        (b"\xff\xd8\xff\xd9", "no picture data"),
        (b"\xff\xd8\xff\xe1\x00\x01", "impossible length"),
        (b"\xff\xd8\xff\xe0\x00\x04ab\x00\x00", "zeros from byte 8 on"),
        (b"\xff\xd8\xff\xe0\x00\x04ab\x01\x00", "cut off: it ends inside its header"),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd8\xff\xd9", "begins once more at byte 8"),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xe1\x00\x00", "zeros from byte 10 on"),
        (b"\xff\xd8\xff\xda\x00\x02\x11\xff\xd9", "0 x 0"),
    ],
)
def test_what_is_no_whole_jpeg_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DamagedImage, match=reason):
        examined(tmp_path, content)


def resized(width: int, height: int) -> bytes:
    """A picture whose header lies about its size."""
    frame = drawings.plain().index(b"\xff\xc0")
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return drawings.plain()[: frame + 5] + size + drawings.plain()[frame + 9 :]


@pytest.mark.parametrize(("width", "height", "reason"), [(160, 0, "160 x 0"), (60000, 60000, "3600 mega")])
def test_impossible_dimensions_are_refused(tmp_path: Path, width: int, height: int, reason: str) -> None:
    with pytest.raises(DamagedImage, match=reason):
        examined(tmp_path, resized(width, height))


def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.touch()
    os.truncate(path, 5 * 10**9)

    with pytest.raises(DamagedImage, match="5000 MB"):
        examination.examine(tmp_path, "large.jpg")


def test_things_that_are_no_files_are_as_good_as_gone_and_none_hangs(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    drawings.put(tmp_path, TRAP, "real.jpg")
    (tmp_path / "link.jpg").symlink_to("real.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))

        for name in ("folder.jpg", "link.jpg", "pipe.jpg", "socket.jpg"):
            with pytest.raises(FileNotFoundError, match="no regular file"):
                examination.examine(tmp_path, name)


def test_a_file_that_is_gone_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        examination.examine(tmp_path, "gone.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_not_called_damaged(tmp_path: Path) -> None:
    path = drawings.put(tmp_path, TRAP)
    (tmp_path / path).chmod(0)

    with pytest.raises(StorageError, match="no permission to read"):
        examination.examine(tmp_path, path)


def test_a_file_that_grows_while_it_is_read_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drawings.put(tmp_path, TRAP)
    read_header = structure.header

    def slow_header(head: bytes | bytearray) -> structure.Header:
        with (tmp_path / path).open("ab") as writer:
            writer.write(b"more")
        return read_header(head)

    monkeypatch.setattr(structure, "header", slow_header)
    with pytest.raises(IncompleteImage, match="still being written"):
        examination.examine(tmp_path, path)


def saved(**options: object) -> bytes:
    """A picture of 640 x 480, as libvips saves it with these options."""
    picture = pyvips.Image.new_from_buffer(drawings.plain(640, 480), "")
    content: bytes = picture.jpegsave_buffer(Q=90, **options)
    return content


KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "progressive": {"interlace": True},
    "restarts": {"restart_interval": 1},
    "some restarts": {"restart_interval": 7},
    "progressive with restarts": {"interlace": True, "restart_interval": 5},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@given(sizes=st.lists(st.integers(1, 5000), min_size=1), fill=st.integers(0, 3))
@settings(max_examples=20)
def test_the_walk_through_picture_data_may_be_taken_in_steps_of_any_length(
    options: dict[str, object], sizes: list[int], fill: int
) -> None:
    content = saved(**options)[:-2] + b"\xff" * fill + structure.END_OF_IMAGE
    header = structure.header(content)
    walk, at = scan.PictureData(header), header.scan
    for size in itertools.cycle(sizes):
        walk.feed(content[at : at + size])
        at += size
        if at >= len(content):
            break

    assert (walk.has_end, walk.ends_twice) == (True, False)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_four_random_kilobytes_in_the_middle_are_seen(tmp_path: Path, options: dict[str, object]) -> None:
    content = saved(**options)
    start, dice = structure.header(content).scan, random.Random(1)
    for _ in range(200):
        at = dice.randrange(start, len(content) - 4100)
        with pytest.raises(DamagedImage, match=r"^(damaged|cut off): "):
            examined(tmp_path, content[:at] + dice.randbytes(4096) + content[at + 4096 :])


def test_a_restart_marker_out_of_turn_is_seen(tmp_path: Path) -> None:
    content = saved(restart_interval=7)
    third = content.index(b"\xff\xd2", structure.header(content).scan)
    with pytest.raises(IncompleteImage, match=f"what stands at byte {third} is no picture data"):
        examined(tmp_path, content[:third] + b"\xff\xd3" + content[third + 2 :])


def test_an_end_in_the_middle_of_a_picture_is_not_its_end(tmp_path: Path) -> None:
    content = saved()
    middle = len(content) // 2
    with pytest.raises(DamagedImage, match="breaks off"):
        examined(tmp_path, content[:middle] + structure.END_OF_IMAGE + content[middle + 2 :])


@pytest.mark.parametrize(
    "behind", [drawings.plain(), drawings.plain()[-500:], structure.END_OF_IMAGE, b"SEFT"]
)
def test_a_second_picture_or_the_rest_of_an_older_one_behind_the_end_is_no_damage(
    tmp_path: Path, behind: bytes
) -> None:
    assert examined(tmp_path, saved() + behind).width == 640


def header_cuts(content: bytes) -> list[int]:
    """Where the segments of a header begin."""
    return [segment.start for segment in structure.segments(content)]


STRAYS = {
    "text": b"?>",
    "one byte": b"x",
    "one zero": b"\0",
    "zeros": b"\0" * 37,
    "stuffed": b"\xff\x00\xff\x00",
    "others and fill bytes": b"ab\xff\xff\xff",
    "a page of text": b"<x:xmpmeta/>" * 400,
}


@pytest.mark.parametrize("strays", STRAYS.values(), ids=STRAYS)
def test_stray_bytes_between_the_segments_of_a_header_are_passed_over(tmp_path: Path, strays: bytes) -> None:
    """Field case 25: a camera writes a wrong length, and every decoder reads the picture."""
    for kind, options in KINDS.items():
        content = saved(**options)
        for at in header_cuts(content)[1:]:
            odd = content[:at] + strays + content[at:]
            image = examined(tmp_path, odd)
            assert (image.width, image.sha256) == (640, hashlib.sha256(odd).hexdigest()), (kind, at)


def test_metadata_and_evidence_behind_stray_bytes_are_read(tmp_path: Path) -> None:
    content = TRAP[:2] + b"\xff\xe1\x00\x04ab?>" + TRAP[2:]
    image = examined(tmp_path, content)
    assert image.evidence == drawings.EVIDENCE
    assert image.metadata == examined(tmp_path, TRAP).metadata


def test_stray_bytes_where_a_table_should_be_are_damage(tmp_path: Path) -> None:
    content = saved(optimize_coding=True)  # a decoder knows the usual tables by heart
    for segment in list(structure.segments(content))[:-1]:
        if segment.marker in (0xC0, 0xC4, 0xDB):
            at = segment.start
            with pytest.raises(DamagedImage, match=r"belong to nothing|0 x 0"):
                examined(tmp_path, content[:at] + b"ab" + content[at + 2 :])


def test_stray_bytes_are_damage_where_no_decoder_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnail, "missing", lambda: "libvips is missing: run this")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    at = header_cuts(TRAP)[1]
    with pytest.raises(
        DamagedImage, match="nothing here can tell whether that matters: libvips is missing: run this"
    ):
        examined(tmp_path, TRAP[:at] + b"?>" + TRAP[at:])


@pytest.mark.parametrize("note", [100, 3000, 4080])
def test_a_hole_over_the_tables_is_waited_for(tmp_path: Path, note: int) -> None:
    """A file that is written out of order: zeros where a part of the header belongs, and the rest is there."""
    content = saved(optimize_coding=True)
    content = content[:2] + b"\xff\xfe" + (note + 2).to_bytes(2, "big") + b"n" * note + content[2:]
    for segment in list(structure.segments(content))[2:]:
        begin, end = segment.start // 512 * 512, segment.end // 512 * 512 + 512
        odd = content[:begin] + b"\0" * (end - begin) + content[end:]
        with pytest.raises(IncompleteImage):
            examined(tmp_path, odd)


@pytest.mark.parametrize("seed", range(3))
def test_a_header_with_random_bytes_over_it_gives_the_picture_or_a_reason(tmp_path: Path, seed: int) -> None:
    content, dice = saved(), random.Random(seed)
    end, reasons = structure.header(content).scan, list[str]()
    for _ in range(60):
        at = dice.randrange(end)
        odd = content[:at] + dice.randbytes(dice.choice((1, 4, 40))) + content[at + 40 :]
        try:
            examined(tmp_path, odd)
        except DamagedImage as reason:
            reasons.append(str(reason))
    assert all(re.match("cut off|damaged|not a|too large", reason) for reason in reasons)
    assert reasons


@pytest.mark.parametrize("kind", [DamagedImage, IncompleteImage])
def test_the_reasons_travel_between_processes(kind: type[DamagedImage]) -> None:
    assert pickle.loads(pickle.dumps(kind("cut off"))).args == ("cut off",)


def test_the_image_travels_between_processes(tmp_path: Path) -> None:
    image = examined(tmp_path, TRAP)

    assert pickle.loads(pickle.dumps(image)) == image


def test_small_copies_lie_under_device_and_date(tmp_path: Path) -> None:
    path = drawings.put(tmp_path / "spool", TRAP, f"elsewhere/{drawings.NAME}")

    examination.thumbnails(tmp_path / "spool", path, tmp_path / "small")

    folder = tmp_path / "small" / drawings.DEVICE / "2026-06-21"
    expected = (folder / f"{drawings.NAME}.thumbnail.jpg", folder / f"{drawings.NAME}.thumbnail-mini.jpg")
    assert (
        examination.thumbnail_paths(tmp_path / "small", f"{drawings.DEVICE}/2026-06-21/{drawings.NAME}")
        == expected
    )
    assert sorted(folder.iterdir()) == sorted(expected)


@pytest.mark.parametrize("length", [235, 236, 237, 241, 242, 255])
def test_small_copies_of_names_of_any_length_can_be_made(tmp_path: Path, length: int) -> None:
    paths = ["a/" + letter * (length - 4) + ".jpg" for letter in "xy"]
    for path in paths:
        drawings.put(tmp_path / "spool", TRAP, path)
        examination.thumbnails(tmp_path / "spool", path, tmp_path / "small")
    made = [examination.thumbnail_paths(tmp_path / "small", path) for path in paths]
    assert {path for pair in made for path in pair} == set((tmp_path / "small" / "a").iterdir())
    assert len(set((tmp_path / "small" / "a").iterdir())) == 4


def test_a_worker_is_limited_nice_and_deaf_to_the_keyboard() -> None:
    code = (
        "import os, resource as r, signal; from trapsync.jpeg import examination; examination.prepare(512_000_000); "
        "print(r.getrlimit(r.RLIMIT_AS)[0], r.getrlimit(r.RLIMIT_CORE)[0], signal.getsignal(2).name, os.nice(0))"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["512000000", "0", "SIG_IGN", str(min(19, os.nice(0) + 5))]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(1 << 20).replace(b"\xff", b"\xfe")
    path = drawings.put(tmp_path, drawings.plain()[:-2] + noise * 60 + b"\xff\xd9")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    examination.examine(tmp_path, path)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 12_000  # kB; the file has 60 MB
