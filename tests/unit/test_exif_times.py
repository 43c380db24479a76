"""The time in a picture's EXIF, and whose it is, as the programs read it with which people work."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import piexif
import PIL.ExifTags
import PIL.Image
import pytest

import drawings
import external_programs
from trapsync.image import Evidence, TrapName, parse_name
from trapsync.jpeg import exif, structure
from trapsync.settings.schema import Settings, Trap
from trapsync.settings.time_zone import exif_offset

# What people at these places write down all year round: standard time, in minutes from UTC.
ZONES = {
    "America/Panama": -5 * 60,
    "Asia/Kathmandu": 5 * 60 + 45,
    "Europe/Berlin": 60,
    "America/St_Johns": -(3 * 60 + 30),
    "Australia/Lord_Howe": 10 * 60 + 30,
}
# When the clocks change there in 2026, in UTC.
CHANGES = [
    datetime.fromisoformat(f"2026-{change}+00:00")
    for change in (
        *("03-29T01:00", "10-25T01:00"),  # Berlin
        *("03-08T05:30", "11-01T04:30"),  # St John's
        *("04-04T15:00", "10-03T15:30"),  # Lord Howe
    )
]
ABOUT_A_CHANGE = range(-7200, 7201, 900)  # seconds
OLDER = Path(__file__).parents[1] / "helpers" / "older" / "picture-13fe5f4.jpg"
BOOT = "3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11"


def instants() -> Iterator[datetime]:
    """A thousand of a year: about each change of the clocks, and spread evenly."""
    near = [change + timedelta(seconds=by) for change in CHANGES for by in ABOUT_A_CHANGE]
    yield from near
    step = timedelta(days=365) / (1000 - len(near))
    yield from (
        (datetime(2026, 1, 1, tzinfo=UTC) + number * step).replace(microsecond=0)
        for number in range(1000 - len(near))
    )


def small(**changes: Any) -> bytes:
    """A picture of a few pixels with our EXIF."""
    return exif.embed_metadata(drawings.plain(16, 12), drawings.facts(width=16, height=12, **changes))


def exiftool(folder: Path, *tags: str) -> dict[str, dict[str, Any]]:
    """The tags of all pictures in a folder, by file name, in one process."""
    external_programs.require("exiftool", shows="what other programs read in our EXIF")
    command = ["exiftool", "-config", "", "-e", "-json", "-n", *(f"-{tag}" for tag in tags), str(folder)]
    run = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return {Path(row["SourceFile"]).name: row for row in json.loads(run.stdout)}


def tags_of(picture: bytes) -> dict[str, Any]:
    """What stands in our EXIF, by name, as piexif reads it: strings without their NUL."""
    tables = piexif.load(drawings.block_of(picture)[6:], key_is_name=True)
    return {name: value for table in ("0th", "Exif", "GPS") for name, value in tables[table].items()}


def pillows(file: Path) -> datetime:
    """The moment as AddaxAI (backend/app/utils/media_dates.py, 2026-08) reads it: no offset is looked at."""
    with PIL.Image.open(file) as picture:
        text = picture.getexif().get_ifd(0x8769)[36867]
    return datetime.strptime(text, "%Y:%m:%d %H:%M:%S")


def test_a_thousand_pictures_of_a_year_tell_local_standard_time_and_the_moment_of_their_name(
    tmp_path: Path,
) -> None:
    expected = {}
    for number, taken in enumerate(instants()):
        zone, minutes = list(ZONES.items())[number % len(ZONES)]
        name = str(TrapName(f"{number:08x}", taken))
        offset = exif_offset(Settings(trap=Trap(timezone=zone)))
        # Without the tags that are not about time: exiftool needs as long as all else for them.
        facts = exif.Facts(taken=taken, offset=offset, model="", software="", version="", width=16, height=12)
        (tmp_path / name).write_bytes(exif.embed_metadata(drawings.plain(16, 12), facts))
        expected[name] = (taken + timedelta(minutes=minutes)).replace(tzinfo=None)
    assert len(expected) == 1000

    # As camtrapR's recordTable asks (2026-04); it reads the time with "%Y:%m:%d %H:%M:%S" and takes it as local.
    rows = exiftool(
        tmp_path, "EXIF:DateTimeOriginal", "EXIF:OffsetTimeOriginal", "EXIF:CreateDate", "EXIF:ModifyDate"
    )

    assert rows.keys() == expected.keys()
    for name, local in expected.items():
        row, trap_name = rows[name], parse_name(name)
        assert trap_name
        assert datetime.strptime(row["DateTimeOriginal"], "%Y:%m:%d %H:%M:%S") == local
        assert row["DateTimeOriginal"] == row["CreateDate"] == row["ModifyDate"]
        moment = f"{row['DateTimeOriginal']}{row['OffsetTimeOriginal']}"
        assert datetime.strptime(moment, "%Y:%m:%d %H:%M:%S%z") == trap_name.taken
        assert pillows(tmp_path / name) == local


def test_exif_in_utc_is_there_for_who_wants_it(tmp_path: Path) -> None:
    offset = exif_offset(Settings(trap=Trap(timezone="America/Panama", exif_time="utc")))

    tags = tags_of(small(offset=offset))

    assert tags["DateTimeOriginal"] == b"2026:06:21 20:19:15"
    assert tags["OffsetTimeOriginal"] == tags["OffsetTime"] == tags["OffsetTimeDigitized"] == b"+00:00"


def test_the_position_has_its_time_in_utc_whatever_the_offset() -> None:
    tags = tags_of(small(taken=datetime(2026, 6, 21, 20, 19, 15, tzinfo=UTC), offset=hours(5.75)))

    assert tags["DateTimeOriginal"] == b"2026:06:22 02:04:15"
    assert tags["GPSTimeStamp"] == ((20, 1), (19, 1), (15, 1))
    assert tags["GPSDateStamp"] == b"2026:06:21"


def hours(number: float) -> timezone:
    return timezone(timedelta(hours=number))


@pytest.mark.parametrize("form", ["2020", "2022"])
@pytest.mark.parametrize("number", [-11, -3.5, 0, 5.75, 14])
def test_a_corrected_time_is_in_the_offset_in_which_the_picture_was_written(number: float, form: Any) -> None:
    evidence = Evidence(BOOT, 10.0, drawings.TAKEN.timestamp(), trusted=False)
    facts: dict[str, Any] = {"offset": hours(number), "evidence": evidence, "format": form}
    right = drawings.TAKEN + timedelta(days=90)

    corrected = tags_of(exif.correct(small(**facts), right, 1.0, 2.0))

    taken_then = tags_of(small(taken=right, **facts))
    times = {name for name in taken_then if "Time" in name or "Date" in name} - {"ExposureTime"}
    assert len(times) == 8  # DateTime, of original and digitised; their offsets; two of the GPS's
    assert {name: corrected[name] for name in times} == {name: taken_then[name] for name in times}


def test_a_picture_from_before_there_was_an_offset_stays_right_when_it_is_corrected(tmp_path: Path) -> None:
    before = OLDER.read_bytes()  # written by commit 13fe5f4, in UTC
    seen = exif.read(structure.header(before).exif)
    assert (seen[0]["DateTimeOriginal"], seen[0]["OffsetTimeOriginal"]) == ("2026:03:23 20:19:15", "+00:00")

    (tmp_path / "after.jpg").write_bytes(exif.correct(before, drawings.TAKEN, 5000.0, 1_782_073_155.0))

    row = exiftool(tmp_path, "EXIF:all")["after.jpg"]
    assert row["DateTimeOriginal"] == row["CreateDate"] == row["ModifyDate"] == "2026:06:21 20:19:15"
    assert row["OffsetTimeOriginal"] == row["OffsetTime"] == row["OffsetTimeDigitized"] == "+00:00"
    assert (row["GPSDateStamp"], row["GPSTimeStamp"]) == ("2026:06:21", "20:19:15")
    assert "ImageUniqueID" not in row
    after = exif.read(structure.header((tmp_path / "after.jpg").read_bytes()).exif)
    assert after[0]["format"] == "2022"
    assert after[1] == Evidence(BOOT, 1234.567, seen[1].wall if seen[1] else 0.0, False, 5000.0)


@pytest.mark.parametrize("text", [b"", b"   :  ", b"nonsense", b"+25:00", b"+01:00\xff"])
def test_an_offset_that_somebody_broke_costs_no_correction(text: bytes) -> None:
    block = piexif.load(drawings.block_of(small(offset=hours(1)))[6:])
    block["Exif"][piexif.ExifIFD.OffsetTimeOriginal] = text
    broken = exif.correct(drawings.with_exif(block), drawings.TAKEN, 1.0, 2.0)

    tags = tags_of(broken)
    assert tags["DateTimeOriginal"] == b"2026:06:21 20:19:15"
    assert tags["OffsetTimeOriginal"] == b"+00:00"


# --- Whose it is, and from where -----------------------------------------------------------------------------


def test_trap_owner_and_weather_are_under_the_names_under_which_programs_look(tmp_path: Path) -> None:
    facts = {
        "device": "0a5bb6f4",
        "description": "Bäume 3",
        "artist": "Ökologie Übersee",
        "copyright": "CC BY 4.0",
    }
    (tmp_path / "warm.jpg").write_bytes(small(**facts))
    (tmp_path / "cold.jpg").write_bytes(small(temperature=-12.34, humidity=100.0, format="2020"))

    rows = exiftool(tmp_path, "G1", "EXIF:all")

    warm, cold = rows["warm.jpg"], rows["cold.jpg"]
    assert warm["ExifIFD:SerialNumber"] == "0a5bb6f4"  # BodySerialNumber
    assert warm["IFD0:ImageDescription"] == "Bäume 3"
    assert warm["IFD0:Artist"] == "Ökologie Übersee"
    assert warm["IFD0:Copyright"] == "CC BY 4.0"
    assert (warm["ExifIFD:AmbientTemperature"], warm["ExifIFD:Humidity"]) == (20.6, 42.6)
    assert (cold["ExifIFD:AmbientTemperature"], cold["ExifIFD:Humidity"]) == (-12.3, 100)
    assert warm["IFD0:Make"] == "StickyPi"
    assert (
        not {"IFD0:Artist", "IFD0:Copyright", "IFD0:ImageDescription", "ExifIFD:SerialNumber"} & cold.keys()
    )


def test_the_types_of_the_new_tags_are_those_of_the_standard() -> None:
    block = drawings.block_of(small(device="0a5bb6f4"))
    for number, kind, count in (
        (0x9400, 10, 1),  # AmbientTemperature, SRATIONAL
        (0x9401, 5, 1),  # Humidity, RATIONAL
        (0xA431, 2, 9),  # BodySerialNumber, ASCII
        (0xA420, 2, 33),  # ImageUniqueID, ASCII
    ):
        assert number.to_bytes(2, "big") + kind.to_bytes(2, "big") + count.to_bytes(4, "big") in block


@pytest.mark.parametrize("form", ["2020", "2022"])
@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf"), 1e30])
def test_what_is_not_known_is_left_out(unknown: float | None, form: Any) -> None:
    tags = tags_of(small(temperature=unknown, humidity=unknown, altitude=unknown, format=form, evidence=None))

    assert not {"Temperature", "Humidity", "GPSAltitude", "GPSAltitudeRef", "ImageUniqueID"} & tags.keys()
    assert "GPSLatitude" in tags


def test_a_humidity_that_cannot_be_is_left_out() -> None:
    assert "Humidity" not in tags_of(small(humidity=-1.0))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Bäume 3", "Bäume 3"),
        ("Камера 🦋", "Камера 🦋"),
        ("two\nlines\0and\x07more", "two lines and more"),
        ("\u202egnp.exe", "gnp.exe"),
        ("half \ud83e", "half"),
        ("é" * 300, "é" * 100),
        ("x" + "🦋" * 300, "x" + "🦋" * 49),
    ],
)
def test_a_name_in_any_alphabet_is_one_line_of_utf_8(name: str, shown: str) -> None:
    picture = small(description=name)

    assert tags_of(picture)["ImageDescription"].decode() == shown
    assert exif.read(drawings.block_of(picture))[0]["ImageDescription"] == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "deployment 0a1b2c3d-20260621T201915Z"),
        ("valley-1, Creek", "valley-1, Creek, deployment 0a1b2c3d-20260621T201915Z"),
        ("é" * 300, "é" * 81 + ", deployment 0a1b2c3d-20260621T201915Z"),
    ],
)
def test_the_description_ends_with_the_deployment_whole_and_it_is_read_back(name: str, shown: str) -> None:
    picture = small(description=name, deployment="0a1b2c3d-20260621T201915Z")
    for one in (picture, exif.correct(picture, drawings.TAKEN, 1000.0, 1000.0)):
        read, _ = exif.read(drawings.block_of(one))
        assert (read["ImageDescription"], read["deployment"]) == (shown, "0a1b2c3d-20260621T201915Z")


@pytest.mark.parametrize(
    "text", ["a deployment of mine", "deployment 0a1b2c3d", "deployment 0a1b2c3d-x, on a hill"]
)
def test_a_description_of_somebody_else_names_no_deployment(text: str) -> None:
    assert "deployment" not in exif.read(drawings.block_of(small(description=text)))[0]


def test_no_two_pictures_have_one_id_and_a_corrected_one_keeps_its_own() -> None:
    one = Evidence(BOOT, 10.0, 1000.25, trusted=False)
    others: list[dict[str, Any]] = [
        {"evidence": Evidence(BOOT, 10.001, 1000.25, trusted=False)},
        {"evidence": Evidence(BOOT, 10.0, 1000.251, trusted=False)},
        {"evidence": Evidence(BOOT.replace("3", "4"), 10.0, 1000.25, trusted=False)},
        {"evidence": one, "device": "0a5bb6f5"},
    ]
    first = small(evidence=one, device="0a5bb6f4")
    pictures = [first, *(small(**{"device": "0a5bb6f4"} | changes) for changes in others)]
    ids = [tags_of(picture)["ImageUniqueID"] for picture in pictures]

    assert len(set(ids)) == len(ids)
    assert all(len(one) == 32 and set(one) <= set(b"0123456789abcdef") for one in ids)
    tags = tags_of(first)
    assert ids[0].decode() == hashlib.sha256(b"0a5bb6f4 " + tags["MakerNote"]).hexdigest()[:32]
    assert tags_of(exif.correct(first, drawings.TAKEN, 1.0, 2.0))["ImageUniqueID"] == ids[0]


def test_a_correction_keeps_all_the_tags() -> None:
    facts = {
        "device": "0a5bb6f4",
        "description": "Bäume 3",
        "artist": "Ö",
        "copyright": "CC0",
        "offset": hours(1),
    }
    picture = small(**facts)
    before, after = tags_of(picture), tags_of(exif.correct(picture, drawings.TAKEN, 1.0, 2.0))
    changed = {
        "MakerNote",
        "UserComment",
        "GPSTag",
    }  # the evidence, when the clock was set, and a place in the file
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == changed


@pytest.mark.parametrize("form", ["2020", "2022"])
def test_a_sticky_pi_server_reads_what_it_read_before(tmp_path: Path, form: Any) -> None:
    """As its `ImageParser` does it: by Pillow, all tags in one table, and of them `Make` alone, or `UserComment` too."""
    (tmp_path / "picture.jpg").write_bytes(
        small(
            device="0a5bb6f4",
            description="Bäume 3",
            artist="Ö",
            copyright="CC0",
            offset=hours(-5),
            format=form,
        )
    )
    with PIL.Image.open(tmp_path / "picture.jpg") as picture:
        fields = {
            PIL.ExifTags.TAGS[number]: value
            for number, value in picture._getexif().items()  # type: ignore[attr-defined]
            if number in PIL.ExifTags.TAGS
        }
    facts = drawings.facts(width=16, height=12)
    if form == "2022":
        assert fields["Make"] == "StickyPi"
        assert fields["UserComment"] == exif.user_comment(facts)
    else:
        assert fields["Make"] == exif.make_of_2020(facts).decode()
        assert "UserComment" not in fields
