"""The small copies, and the drawing: both through libvips."""

import subprocess
import sys
from pathlib import Path

import piexif
import pytest

import drawings
from trapsync.errors import DamagedImage, StorageError, TrapsyncError
from trapsync.jpeg import exif, structure, thumbnail


def made(tmp_path: Path, content: bytes) -> tuple[structure.Header, structure.Header]:
    source, small, mini = tmp_path / "a.jpg", tmp_path / "new" / "small.jpg", tmp_path / "new" / "mini.jpg"
    source.write_bytes(content)
    thumbnail.make(source, small, mini)
    return structure.header(small.read_bytes()), structure.header(mini.read_bytes())


@pytest.mark.parametrize(
    ("size", "small", "mini"),
    [
        ((4056, 3040), (512, 384), (128, 96)),
        ((2592, 1944), (512, 384), (128, 96)),
        ((1920, 1080), (512, 288), (128, 72)),
        ((600, 1600), (144, 384), (36, 96)),
        ((513, 385), (512, 384), (128, 96)),
        ((160, 120), (160, 120), (128, 96)),
        ((90, 64), (90, 64), (90, 64)),
        ((2000, 64), (512, 16), (128, 4)),
    ],
)
def test_copies_fit_their_boxes_keep_the_aspect_and_are_never_enlarged(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int], mini: tuple[int, int]
) -> None:
    headers = made(tmp_path, drawings.plain(*size))

    assert [(header.width, header.height) for header in headers] == [small, mini]


def test_a_picture_on_its_side_is_turned_upright_and_still_fills_the_box(tmp_path: Path) -> None:
    lying = drawings.plain(1200, 1600)
    block = piexif.dump({"0th": {piexif.ImageIFD.Orientation: 6}})
    content = lying[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + lying[2:]

    small, mini = made(tmp_path, content)

    assert (small.width, small.height) == (512, 384)
    assert (mini.width, mini.height) == (128, 96)


def test_copies_carry_no_metadata_that_could_tell_where_the_trap_hangs(tmp_path: Path) -> None:
    headers = made(tmp_path, drawings.trap())

    assert [header.exif for header in headers] == [None, None]


def test_nothing_temporary_is_left(tmp_path: Path) -> None:
    made(tmp_path, drawings.plain())

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mini.jpg", "small.jpg"]


def test_a_picture_that_cannot_be_decoded_is_damaged_and_leaves_no_copy(tmp_path: Path) -> None:
    content = drawings.plain()
    tables = content.index(b"\xff\xdb")

    with pytest.raises(DamagedImage, match="cannot be decoded"):
        made(
            tmp_path,
            content[:tables] + content[tables + 2 + int.from_bytes(content[tables + 2 : tables + 4]) :],
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("marker", "side", "reason"),
    [(b"\xff\xc0", 8100, "a picture of 66 megapixels"), (b"\xff\xc2", 5600, "a progressive picture of 31")],
)
def test_bombs_are_refused_by_their_header(tmp_path: Path, marker: bytes, side: int, reason: str) -> None:
    content = drawings.plain()
    frame = content.index(b"\xff\xc0")
    bomb = (
        content[:frame]
        + marker
        + content[frame + 2 : frame + 5]
        + side.to_bytes(2) * 2
        + content[frame + 9 :]
    )

    with pytest.raises(DamagedImage, match=reason):
        made(tmp_path, bomb)


def test_the_largest_sensor_that_can_be_set_gets_its_thumbnails(tmp_path: Path) -> None:
    small, _ = made(tmp_path, drawings.plain(9152, 6944, quality=20))

    assert (small.width, small.height) == (506, 384)


def test_a_folder_that_cannot_be_written_is_the_storages_fault(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("in the way")

    with pytest.raises(StorageError, match="new: "):
        made(tmp_path, drawings.plain())


def test_a_source_that_is_gone_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        thumbnail.make(tmp_path / "gone.jpg", tmp_path / "a.jpg", tmp_path / "b.jpg")


def test_without_libvips_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)

    assert "pipx inject trapsync pyvips" in str(thumbnail.missing())
    with pytest.raises(TrapsyncError, match="pyvips is missing"):
        thumbnail.draw("<svg/>", width=8, height=8, noise=0, seed=1, quality=80)


def test_to_ask_what_is_missing_loads_nothing() -> None:
    code = (
        "import sys; from trapsync.jpeg import thumbnail; print(thumbnail.missing(), 'pyvips' in sys.modules)"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["None", "False"]


def test_with_libvips_nothing_is_missing() -> None:
    assert thumbnail.missing() is None


def test_the_daemons_process_can_import_all_this_without_loading_the_libraries() -> None:
    code = (
        "import sys; from trapsync.jpeg import examination, exif, structure, thumbnail; "
        "from trapsync.cameras import simulated, picamera; "
        "print(sorted({'pyvips', 'piexif', 'picamera2', 'libcamera', 'numpy'} & set(sys.modules)))"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_drawing_twice_gives_the_same_bytes_and_another_seed_others() -> None:
    once = drawings.plain.__wrapped__(160, 120, 1)

    assert drawings.plain.__wrapped__(160, 120, 1) == once
    assert drawings.plain.__wrapped__(160, 120, 2) != once


def test_the_grain_leaves_the_brightness_as_it_is(tmp_path: Path) -> None:
    import pyvips

    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40"><rect width="60" height="40"/></svg>'
    )
    grey = svg.replace("<rect", '<rect fill="#646464"')
    content = thumbnail.draw(grey, width=120, height=80, noise=4, seed=1, quality=90)

    assert pyvips.Image.new_from_buffer(content, "").avg() == pytest.approx(100, abs=1.5)


def test_what_is_no_svg_is_refused() -> None:
    with pytest.raises(DamagedImage, match="cannot be drawn"):
        thumbnail.draw("hello", width=8, height=8, noise=0, seed=1, quality=80)


def test_a_drawn_picture_takes_our_metadata() -> None:
    assert exif.read(drawings.block_of(drawings.trap()))[0]["Make"] == "StickyPi"
