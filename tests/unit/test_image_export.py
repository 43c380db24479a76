"""`trapsync export csv`: a row for each image with all that was measured, as R and spreadsheets read it."""

import csv
import io
import sqlite3
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import piexif
import pytest

import drawings
import trap_bench as bench
from trapsync import cli
from trapsync.catalog import image_export
from trapsync.catalog.images import Images
from trapsync.clock import iso, utc
from trapsync.image import Evidence

CONFIG = f"""\
[trap]
device = "{drawings.DEVICE}"
name = "valley-1"
clock = "trusted"
utc_offset = "+05:45"
[storage]
spool = "spool"
state = "state"
[camera]
kind = "none"
"""


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: bytes
    err: str


Export = Callable[..., Said]


@pytest.fixture
def export(
    trap: bench.Trap, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Export:
    """Run `trapsync export csv`."""
    config = trap.folder / "trap.toml"
    config.write_text(CONFIG)
    monkeypatch.chdir(trap.folder)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["trapsync", "-c", str(config), "export", "csv", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return Said(int(ended.value.code or 0), out, err.decode())

    return run


def table(data: bytes) -> list[dict[str, str]]:
    """The rows, read as strictly as Python's csv can."""
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    assert all(None not in row and None not in row.values() for row in rows), "a row has another length"
    return rows


def put(
    trap: bench.Trap, second: int, content: bytes | None = None, path: str | None = None, **facts: Any
) -> str:
    """An image of that second is ingested; its name."""
    taken = utc(drawings.TAKEN.timestamp() + second)
    name = path or f"{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
    drawings.put(trap.storage.spool, content or drawings.trap(seed=second % 9, taken=taken, **facts), name)
    trap.ingest(name)
    return name


def foreign(model: str = "", **texts: str) -> bytes:
    """Another camera's picture."""
    details = {getattr(piexif.ExifIFD, name): text for name, text in texts.items()}
    return drawings.with_exif({"0th": {piexif.ImageIFD.Model: model.encode()}, "Exif": details})


# ── What is in it ────────────────────────────────────────────────────────────────────────────────────


def test_a_row_has_all_that_was_measured_and_both_times(trap: bench.Trap, export: Export) -> None:
    name = put(trap, 0, deployment=f"{drawings.DEVICE}-20260601T200000Z")
    image = trap.catalog.images.newest()
    assert image
    (row,) = table(export("-").out)
    expected = {"image": name, "trap": "valley-1", "device": drawings.DEVICE}
    expected["deployment"] = f"{drawings.DEVICE}-20260601T200000Z"
    expected |= {
        "time_utc": "2026-06-21T20:19:15Z",
        "time_local": "2026-06-22 02:04:15",
        "utc_offset_h": "5.75",
    }
    expected |= {"time_state": "sure", "not_before": "", "not_after": ""}
    expected |= {"size_bytes": str(image.size), "width_px": "160", "height_px": "120"}
    expected |= {"sha256": image.sha256, "md5": image.md5, "state": "pending"}
    expected |= {"latitude": "46.201", "longitude": "6.123", "altitude_m": "412.5"}
    expected |= {"temperature_c": "20.6", "humidity_percent": "42.6", "battery_percent": "72.0"}
    expected |= {"exposure_s": "0.066642", "iso": "250", "lum": "1.18", "button": "TRUE", "model": "imx477"}
    assert row == expected


def test_what_is_not_known_is_empty(trap: bench.Trap, export: Export) -> None:
    some = ("exposure", "gain", "latitude", "longitude", "altitude", "temperature", "humidity", "battery")
    put(trap, 0, **dict.fromkeys(some), button=False)
    (row,) = table(export("-").out)
    assert [row[key] for key in image_export.COLUMNS[16:-2]] == [""] * 9
    assert row["button"] == "FALSE"


def test_the_columns_are_in_the_page_with_their_units() -> None:
    page = (Path(__file__).parents[2] / "scripts" / "README.md").read_text(encoding="utf-8")
    rows = page.partition("| column | what it holds |\n")[2].partition("\n\n")[0].splitlines()[1:]
    shown = [name for row in rows for name in row.split("|")[1].replace("`", "").replace(" ", "").split(",")]
    assert shown == list(image_export.COLUMNS)


# ── Times ────────────────────────────────────────────────────────────────────────────────────────────


def untrusted(trap: bench.Trap, second: int, offset: float | None = None) -> Evidence:
    wall = drawings.TAKEN.timestamp() + second
    return Evidence(trap.time.boot_id(), trap.time.monotonic(), wall, trusted=False, offset=offset)


def test_a_time_is_there_when_it_is_known_and_its_state_says_how(trap: bench.Trap, export: Export) -> None:
    names = [put(trap, 0), put(trap, 1, evidence=untrusted(trap, 1, offset=1.0))]
    names += [put(trap, second, evidence=untrusted(trap, second)) for second in (2, 3)]
    trap.catalog.times.confirm_times([image.id for image in trap.catalog.images.on_card(0, 9)][2:3])
    names.append(put(trap, 4, drawings.sticky_pi_2022()))  # its clock is unknown

    rows = table(export("-").out)
    assert [row["image"] for row in rows] == names
    assert [row["time_state"] for row in rows] == ["sure", "corrected", "sure", "held", ""]
    assert [bool(row["time_utc"]) for row in rows] == [True, True, True, False, True]
    assert all(bool(row["time_utc"]) == bool(row["time_local"]) == bool(row["utc_offset_h"]) for row in rows)


@pytest.mark.parametrize("is_released", [False, True])
def test_an_unsure_time_is_empty_between_its_bounds(
    trap: bench.Trap, export: Export, is_released: bool
) -> None:
    trap.catalog.times.note_boot()
    put(trap, 0, evidence=Evidence(trap.time.boot_id(), 9.0, drawings.TAKEN.timestamp(), trusted=True))
    known = trap.time.wall() - trap.time.monotonic()
    trap.restart(reboot=True)
    trap.time.is_trusted = False
    trap.catalog.times.note_boot()
    put(trap, -9000, evidence=untrusted(trap, -9000))
    trap.restart(reboot=True)
    trap.catalog.times.note_boot()
    trap.catalog.times.give_up()
    if is_released:
        trap.catalog.times.release_unsure()

    row, _ = table(export("-").out)
    assert (row["time_state"], row["time_utc"], row["time_local"], row["not_after"]) == ("unsure", "", "", "")
    assert known < datetime.fromisoformat(row["not_before"]).timestamp() < trap.time.wall() + 86400


TIMES = [
    (
        {"DateTimeOriginal": "2026:06:21 22:19:15", "OffsetTimeOriginal": "+02:00"},
        "2026-06-21T20:19:15Z",
        "2",
    ),
    ({"DateTimeOriginal": "2026:06:21 22:19:15"}, "", ""),
    ({"DateTimeOriginal": "2026:06:21 22:19:15", "OffsetTimeOriginal": "summer"}, "", ""),
    ({"DateTimeOriginal": "2026:02:30 00:00:00", "OffsetTimeOriginal": "+02:00"}, "", ""),
    ({"DateTimeOriginal": "0001:01:01 22:19:15", "OffsetTimeOriginal": "+23:00"}, "", ""),
    ({"DateTimeOriginal": "9999:12:31 22:19:15", "OffsetTimeOriginal": "-02:00"}, "", ""),
    ({}, "", ""),
]


@pytest.mark.parametrize(("texts", "moment", "offset"), TIMES)
def test_another_cameras_time_is_as_its_exif_has_it(
    trap: bench.Trap, export: Export, texts: dict[str, str], moment: str, offset: str
) -> None:
    put(trap, 0, foreign("X100", **texts), "card/IMG_1.JPG")
    (row,) = table(export("-").out)
    local = texts.get("DateTimeOriginal", "").replace(":", "-", 2) if "22:19" in str(texts) else ""
    assert (row["time_utc"], row["time_local"], row["utc_offset_h"]) == (moment, local, offset)
    assert (row["image"], row["device"], row["time_state"], row["model"]) == (
        "card/IMG_1.JPG",
        "",
        "",
        "X100",
    )


def test_a_span_has_its_first_moment_and_not_its_last_and_says_what_is_of_unknown_time(
    trap: bench.Trap, export: Export
) -> None:
    names = [put(trap, second) for second in (0, 10, 20)]
    put(trap, 15, evidence=untrusted(trap, 15))
    first, last = (iso(utc(drawings.TAKEN.timestamp() + second)) for second in (10, 20))

    done = export("-", "--from", first, "--until", last)
    assert [row["image"] for row in table(done.out)] == names[1:2]
    assert done.err == "1 image\nleft out: 1 image of unknown time\n"
    assert [row["image"] for row in table(export("-", "--from", last).out)] == names[2:]
    assert len(table(export("-", "--until", last).out)) == 2
    assert export("-").err == "4 images\n"


# ── How it is written ────────────────────────────────────────────────────────────────────────────────

NAMES = [
    "a, b.jpg",
    'say "moth".jpg',
    "Größe 蛾.jpg",
    "=1+1.jpg",
    "+1.jpg",
    "-1/x.jpg",
    "@SUM(A1).jpg",
    "'x.jpg",
]


def test_any_name_comes_back_as_the_same_path_and_none_is_a_formula(trap: bench.Trap, export: Export) -> None:
    for number, name in enumerate(NAMES):
        put(trap, 0, foreign("=cmd", LensModel=str(number)), name)
    data = export("-").out
    rows = table(data)
    assert sorted(str(PurePosixPath(row["image"])) for row in rows) == sorted(NAMES)
    assert {row["model"] for row in rows} == {"'=cmd"}
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "+", "-", "@"))]
    assert data.count(b"\r\n") == data.count(b"\n") == len(NAMES) + 1


def test_a_number_below_zero_is_a_number(trap: bench.Trap, export: Export) -> None:
    put(trap, 0, latitude=-33.5, temperature=-4.0)
    (row,) = table(export("-").out)
    assert (float(row["latitude"]), float(row["temperature_c"])) == (-33.5, -4.0)


def test_of_two_images_of_one_name_and_of_one_that_left_the_card_each_has_a_row(
    trap: bench.Trap, export: Export
) -> None:
    name = put(trap, 0)
    put(trap, 0, drawings.trap(seed=5), f"again/{name}")
    (trap.storage.spool / name).unlink()
    trap.ingest()
    rows = table(export("-").out)
    assert [row["image"] for row in rows] == [name, name]
    assert len({row["sha256"] for row in rows}) == 2


def test_a_trap_without_images_has_a_table_without_rows(export: Export) -> None:
    assert export("-").out.decode() == ",".join(image_export.COLUMNS) + "\r\n"


def test_a_file_has_the_same_and_takes_the_place_of_the_one_before(trap: bench.Trap, export: Export) -> None:
    put(trap, 0)
    file = trap.folder / "out" / "images.csv"
    for _ in range(2):
        done = export(str(file))
        assert (done.code, done.out, done.err) == (0, b"", "1 image\n")
    assert file.read_bytes() == export("-").out
    assert [path.name for path in file.parent.iterdir()] == ["images.csv"]


@pytest.mark.parametrize("before", [b"of yesterday", None])
def test_ctrl_c_leaves_the_file_of_before_and_nothing_half(
    trap: bench.Trap, export: Export, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    put(trap, 0)
    file = trap.folder / "out" / "images.csv"
    file.parent.mkdir()
    if before:
        file.write_bytes(before)
    every = Images.oldest_first
    held: list[str] = []

    def interrupted(self: Images) -> Iterator[dict[str, Any]]:
        yield from every(self)
        held.extend(path.name for path in file.parent.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(Images, "oldest_first", interrupted)
    assert export(str(file)).code == 130
    assert ".images.csv.part" in held
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == (
        {"images.csv": before} if before else {}
    )


def test_a_folder_that_does_not_let_it_write_is_one_line(trap: bench.Trap, export: Export) -> None:
    (trap.folder / "file").touch()
    done = export(str(trap.folder / "file" / "images.csv"))
    assert (done.code, done.out, done.err.count("\n")) == (1, b"", 1)
    assert done.err.startswith("trapsync: ")


# ── However many there are ───────────────────────────────────────────────────────────────────────────


def many(trap: bench.Trap, count: int) -> None:
    """Rows like that of the only image, ten of them of one second."""
    put(trap, 0)
    (image,) = trap.catalog.images.on_card(0, 1)
    with closing(sqlite3.connect(trap.storage.catalog)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(images)") if row[1] != "id"]
        values = [{"key": "key || '.' || n", "rank": "rank - n / 10"}.get(one, one) for one in columns]
        db.execute(
            f"""WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
                INSERT INTO images ({", ".join(columns)}) SELECT {", ".join(values)} FROM images, numbers WHERE id = ?""",
            [count - 1, image.id],
        )


def test_each_image_is_there_once_in_its_order_however_the_pages_fall(trap: bench.Trap) -> None:
    many(trap, 61)
    for page in (1, 7, 60, 61, 100):
        rows = list(trap.catalog.images.oldest_first(page))
        assert len({row["key"] for row in rows}) == 61
        assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows)


def test_what_a_writer_does_meanwhile_is_not_in_it(
    trap: bench.Trap, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(trap, 20)
    every = Images.oldest_first

    def beside_a_writer(self: Images) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(every(self, 5)):
            yield row
            if number == 0:
                put(trap, 100)
                with closing(sqlite3.connect(trap.storage.catalog)) as db, db:
                    db.execute("UPDATE images SET rank = rank + 1000")  # as when times are corrected

    monkeypatch.setattr(Images, "oldest_first", beside_a_writer)
    rows = table(export("-").out)
    assert len(rows) == len({row["image"] for row in rows}) == 20
    monkeypatch.undo()
    assert trap.catalog.counts.ledger().captured == 21


def test_its_memory_does_not_grow_with_the_images(
    trap: bench.Trap, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Images.oldest_first, "__defaults__", (50,))  # a page
    many(trap, 800)
    export("out.csv")  # whatever is made once
    peaks = []
    for until, rows in (("2026-01-01", "0 images"), ("2027-01-01", "800 images")):
        tracemalloc.start()
        assert export("out.csv", "--until", until).err.startswith(rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000
