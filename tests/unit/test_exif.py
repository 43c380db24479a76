"""What is written into a JPEG's metadata, and what is read from anybody's."""

import ast
import json
import math
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import piexif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drawings
import tiff_blocks
from tiff_blocks import ASCII, BYTE, LONG, SHORT, UNDEFINED, Block, Tag, numbers, rationals, text
from trapsync.errors import DamagedImage, IncompleteImage
from trapsync.image import Evidence
from trapsync.jpeg import exif, structure
from trapsync.jpeg.exif import blocks
from trapsync.net.stickypi_rules import metadata_problem


def metadata_of(picture: bytes) -> dict[str, Any]:
    return exif.read(structure.header(picture).exif)[0]


# --- Written ------------------------------------------------------------------------------------------------


def test_the_comment_is_what_the_firmware_writes_to_the_byte() -> None:
    assert exif.user_comment(drawings.facts()) == (
        b"v,T,H,B,L,lat,lng,a,l,b\n0.1.0,20.6,42.6,72,1.18,46.20100,6.12300,412.5,1652813182,1"
    )


def test_a_trap_without_sensors_leaves_out_what_it_does_not_know() -> None:
    facts = exif.Facts(
        taken=drawings.TAKEN, model="x", software="trapsync", version="0.1.0", width=160, height=120
    )

    assert exif.user_comment(facts) == (b"v,b\n0.1.0,0")


def test_what_the_firmware_writes_for_unknown_is_read_as_that() -> None:
    comment = b"v,T,H,B,L,lat,lng,a,l,b\n3.1.0,-300.0,-1.0,-1,0.00,0.00000,0.00000,0.0,2000-01-01 00:00:00,0"

    metadata, _ = exif.read(drawings.block_of(drawings.sticky_pi_2022(comment=comment)))

    assert not {"temp", "hum", "bat", "lat", "lng", "alt"} & metadata.keys()
    assert (metadata["format"], metadata["device_version"], metadata["but"]) == ("2022", "3.1.0", False)


@pytest.mark.parametrize("is_known", [True, False])
def test_the_format_of_2020_is_what_a_server_of_branch_main_needs(is_known: bool) -> None:
    unknown = dict.fromkeys(
        ("exposure", "gain", "latitude", "longitude", "altitude", "temperature", "humidity")
    )
    changes: dict[str, Any] = {"last_sync": None} | ({} if is_known else unknown)

    block = drawings.block_of(drawings.trap(format="2020", **changes))
    metadata, _ = exif.read(block)

    # image_parser.py of that branch indexes all of these, and its table has columns for the last that hold no null.
    fields = ast.literal_eval(piexif.load(block[6:])["0th"][piexif.ImageIFD.Make].decode("ascii"))
    assert fields.keys() - {"temp", "hum"} == {
        *("lat", "lng", "alt", "datetime"),
        *("no_flash_exposure_time", "no_flash_bv", "no_flash_shutter_speed", "no_flash_iso"),
    }
    assert all(fields[name][1] for name in fields if isinstance(fields[name], tuple))
    assert metadata["format"] == "2020"
    assert metadata_problem(metadata) is None
    if is_known:
        assert (metadata["lat"], metadata["lng"], metadata["alt"]) == (46.201, 6.123, 412.5)
        assert (metadata["temp"], metadata["hum"], fields["no_flash_iso"]) == (20.6, 42.6, 250)
    else:
        assert (metadata["lat"], metadata["lng"], metadata["alt"]) == (None, None, None)
        assert not {"temp", "hum"} & metadata.keys()


def test_a_corrected_time_stands_in_the_format_of_2020_too() -> None:
    evidence = Evidence("boot", 10.0, drawings.TAKEN.timestamp(), trusted=False)
    jpeg = drawings.trap(format="2020", evidence=evidence)

    after = drawings.block_of(exif.correct(jpeg, drawings.TAKEN + timedelta(days=3), 1.0, 1_800_000_000.0))

    make = piexif.load(after[6:])["0th"][piexif.ImageIFD.Make]
    assert ast.literal_eval(make.decode())["datetime"] == "2027-01-15 08:00:00"
    assert exif.read(after)[0]["format"] == "2020"


@pytest.mark.parametrize("exposure", [0.066642, 1 / 500, 1.0, 4.0])
def test_luminosity_is_the_firmwares_logarithm_of_microseconds(exposure: float) -> None:
    value = exif.user_comment(drawings.facts(exposure=exposure)).split(b",")[-6]

    assert float(value) == pytest.approx(math.log10(1e6 / (exposure * 1e6)), abs=0.005)


NUMBERS = st.none() | st.floats()


@given(temperature=NUMBERS, humidity=NUMBERS, exposure=NUMBERS, altitude=st.floats(), version=st.text())
def test_no_reading_of_any_sensor_breaks_the_comment(
    temperature: float | None, humidity: float | None, exposure: float | None, altitude: float, version: str
) -> None:
    comment = exif.user_comment(
        drawings.facts(
            temperature=temperature,
            humidity=humidity,
            exposure=exposure,
            altitude=altitude,
            version=version,
            latitude=-89.99999,
            longitude=-179.99999,
            last_sync=None,
        )
    )

    head, values = comment.decode("ascii").split("\n")
    assert len(head.split(",")) == len(values.split(",")) <= 10
    assert len(b"EXIF.UserComment=" + comment) < 128
    assert all(math.isfinite(float(value)) for value in values.split(",")[1:])


def test_the_standard_tags_are_those_that_a_viewer_shows() -> None:
    tags = piexif.load(drawings.block_of(drawings.trap())[6:], key_is_name=True)

    assert tags["0th"]["Make"] == b"StickyPi"
    assert tags["0th"]["Model"] == b"imx477"
    assert tags["0th"]["Software"] == b"trapsync 0.1.0"
    assert tags["0th"]["DateTime"] == tags["Exif"]["DateTimeOriginal"] == b"2026:06:21 20:19:15"
    assert tags["Exif"]["OffsetTimeOriginal"] == tags["Exif"]["OffsetTime"] == b"+00:00"
    assert tags["Exif"]["ExposureTime"] == (66642, 1000000)
    assert tags["Exif"]["ISOSpeedRatings"] == 250
    assert (tags["Exif"]["PixelXDimension"], tags["Exif"]["PixelYDimension"]) == (160, 120)
    assert tags["GPS"]["GPSLatitude"] == ((46, 1), (12, 1), (36000, 10000))
    assert tags["GPS"]["GPSMapDatum"] == b"WGS-84"
    assert tags["GPS"]["GPSDateStamp"] == b"2026:06:21"


def test_the_block_is_big_endian_without_a_thumbnail_and_the_comment_of_type_undefined() -> None:
    block = drawings.block_of(drawings.trap())

    assert block[6:8] == b"MM"
    assert piexif.load(block[6:])["1st"] == {}
    assert b"\x92\x86\x00\x07" in block


def test_an_unknown_place_writes_no_gps_block() -> None:
    block = drawings.block_of(drawings.trap(latitude=None, longitude=None))

    assert piexif.load(block[6:])["GPS"] == {}


def test_dressing_replaces_the_exif_of_the_camera_and_leaves_the_picture_alone() -> None:
    before = drawings.sticky_pi_2022(make=b"Raspberry Pi")

    after = exif.embed_metadata(before, drawings.facts())

    assert after.count(b"Exif\0\0") == 1
    assert after[structure.header(after).scan :] == before[structure.header(before).scan :]
    assert after[2:4] == b"\xff\xe1"


def test_dressing_what_is_no_jpeg_is_refused() -> None:
    with pytest.raises(DamagedImage, match="not a JPEG"):
        exif.embed_metadata(b"GIF89a", drawings.facts())


def test_a_models_name_in_any_alphabet_can_be_written() -> None:
    assert metadata_of(drawings.trap(model="Камера\0 é"))["Model"] == "Камера  é"


@given(
    taken=st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)),
    exposure=st.floats(1e-6, 240),
    gain=st.floats(0.01, 500),
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    monotonic=st.floats(0, 1e9),
    trusted=st.booleans(),
)
@settings(max_examples=60)
def test_what_is_written_can_be_read_back(
    taken: datetime,
    exposure: float,
    gain: float,
    latitude: float,
    longitude: float,
    monotonic: float,
    trusted: bool,
) -> None:
    evidence = Evidence("boot-1", monotonic, taken.replace(tzinfo=UTC).timestamp(), trusted)
    facts = drawings.facts(
        taken=taken.replace(tzinfo=UTC),
        exposure=exposure,
        gain=gain,
        latitude=latitude,
        longitude=longitude,
        evidence=evidence,
    )

    metadata, found = exif.read(drawings.block_of(exif.embed_metadata(drawings.plain(), facts)))

    assert metadata["format"] == "2022"
    assert metadata["DateTimeOriginal"] == f"{taken:%Y:%m:%d %H:%M:%S}".zfill(19)
    assert metadata["ExposureTime"] == pytest.approx(exposure, abs=5.1e-7)
    assert metadata["lat"] == pytest.approx(latitude, abs=5.1e-6)
    assert metadata["lng"] == pytest.approx(longitude, abs=5.1e-6)
    assert found is not None
    assert found.monotonic == pytest.approx(monotonic, abs=5.1e-4)
    assert (found.boot_id, found.trusted) == ("boot-1", trusted)
    assert timedelta(seconds=abs(found.wall - evidence.wall)) < timedelta(milliseconds=1)


# --- Read ---------------------------------------------------------------------------------------------------


def test_the_format_of_2022_is_read_into_the_servers_columns_and_types() -> None:
    metadata = metadata_of(drawings.sticky_pi_2022())

    assert metadata == {
        "exif": True,
        "format": "2022",
        "Make": "StickyPi",
        "device_version": "3.1.0",
        "temp": 20.6,
        "hum": 42.6,
        "bat": 72,
        "lum": 1.2,
        "lat": 46.201,
        "lng": 6.123,
        "alt": 412.5,
        "but": True,
    }


def test_the_format_of_2020_is_read_as_the_vendor_does() -> None:
    metadata = metadata_of(drawings.sticky_pi_2020())

    assert metadata.pop("Make") == drawings.MAKE_2020
    assert metadata == {
        "exif": True,
        "format": "2020",
        "Model": "RP_ov5647",
        "lat": 46.201,
        "lng": 6.123,
        "alt": 412.5,
        "temp": 21.899999618530273,
        "hum": 76.80000305175781,
        "no_flash_exposure_time": 23646 / 1000000,
        "no_flash_analog_gain": 100,
        "no_flash_digital_gain": 236 / 100,
    }


def test_a_place_of_all_zeros_in_2020_is_no_place() -> None:
    metadata = metadata_of(drawings.sticky_pi_2020("{'lat': 0.0, 'lng': 0.0, 'alt': 0.0}"))

    assert (metadata["lat"], metadata["lng"], metadata["alt"]) == (None, None, None)


@pytest.mark.parametrize(
    "make",
    [
        "{'lat': __import__('os').getpid(), 'lng': 1.0, 'alt': 1.0}",
        "{'lat': 1.0, 'lng': 1.0}",
        "{'lat': 1e999, 'lng': 1.0, 'alt': 1.0}",
        "{'lat': 1.0, 'lng': 1.0, 'alt': 1.0, 'no_flash_bv': (1, 0)}",
        "{" * 3000,
        "{" + "-" * 3000 + "1}",
        "{'lat': 1.0, 'lng': 1.0, 'alt': 1.0, 'x': '" + "y" * 5000 + "'}",
    ],
)
def test_a_make_that_is_no_harmless_dict_is_not_evaluated_and_costs_no_image(make: str) -> None:
    metadata = metadata_of(drawings.sticky_pi_2020(make))

    assert "format" not in metadata
    assert metadata["format_error"].startswith("the dict in Make")


@pytest.mark.parametrize(
    "comment",
    [
        "v,T,H\n3.1.0,20.6,42.6\n",
        "v,T,H",
        "v,T,H\n3.1.0,,42.6",
        "v,T,H\n3.1.0,nan,42.6",
        "v,T,H\n3.1.0,inf,42.6",
        "v,T,H,b\n3.1.0,20.6,42.6,true",
        "v,T,H,b\n3.1.0,20.6,42.6,1\0",
    ],
)
def test_a_comment_on_which_the_server_fails_has_no_format_and_a_reason(comment: str) -> None:
    metadata = metadata_of(drawings.sticky_pi_2022(comment))

    assert "format" not in metadata
    assert metadata["format_error"].startswith("UserComment")
    json.dumps(metadata, allow_nan=False)


def test_one_bad_value_does_not_cost_the_others() -> None:
    metadata = metadata_of(drawings.sticky_pi_2022("v,T,H\n3.1.0,nan,42.6"))

    assert (metadata["device_version"], metadata["hum"], metadata.get("temp")) == ("3.1.0", 42.6, None)


def test_a_comment_with_a_character_code_is_read_all_the_same() -> None:
    metadata = metadata_of(drawings.sticky_pi_2022(b"ASCII\0\0\0" + drawings.COMMENT_2022.encode()))

    assert (metadata["device_version"], metadata["format"]) == ("3.1.0", "2022")


def test_somebodys_prose_in_the_comment_is_kept_as_such() -> None:
    metadata = metadata_of(drawings.sticky_pi_2022(b"ASCII\0\0\0seen at the pond", make=b"Canon"))

    assert metadata == {"exif": True, "Make": "Canon", "UserComment": "seen at the pond"}


def test_a_foreign_cameras_tags_are_read_under_their_own_names() -> None:
    picture = drawings.with_exif(
        {
            "0th": {piexif.ImageIFD.Make: b"Canon\0\0", piexif.ImageIFD.Orientation: 6},
            "Exif": {
                piexif.ExifIFD.ExposureTime: (1, 250),
                piexif.ExifIFD.FNumber: (28, 10),
                piexif.ExifIFD.ISOSpeedRatings: 400,
                piexif.ExifIFD.FocalLength: (50, 0),
            },
            "GPS": {
                piexif.GPSIFD.GPSLatitudeRef: b"S",
                piexif.GPSIFD.GPSLatitude: ((33, 1), (30, 1), (36, 1)),
                piexif.GPSIFD.GPSLongitudeRef: b"E",
                piexif.GPSIFD.GPSLongitude: ((151, 1), (0, 1), (0, 1)),
                piexif.GPSIFD.GPSAltitude: (585, 10),
                piexif.GPSIFD.GPSAltitudeRef: 1,
            },
        }
    )

    assert metadata_of(picture) == {
        "exif": True,
        "Make": "Canon",
        "Orientation": 6,
        "ExposureTime": 0.004,
        "FNumber": 2.8,
        "ISOSpeedRatings": 400,
        "lat": -33.51,
        "lng": 151.0,
        "alt": -58.5,
        "exif_skipped": "FocalLength",
    }


def test_a_file_without_exif_says_so() -> None:
    assert exif.read(None) == ({"exif": False}, None)


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0/etc/passwd", b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"]
)
def test_a_block_that_is_no_tiff_is_an_error_in_words_and_opens_no_file(block: bytes) -> None:
    metadata, evidence = exif.read(block)

    assert metadata.keys() == {"exif", "exif_error"}
    assert evidence is None


# --- As cameras write it ------------------------------------------------------------------------------------

ORDERS = pytest.mark.parametrize("order", ["<", ">"])
DATE = text(0x9003, b"2026:01:15 05:47:23\0")
NORTH_EAST = ((23, 1), (15, 1), (36, 1)), ((47, 1), (15, 1), (0, 1))


def read(block: Block) -> dict[str, Any]:
    metadata = exif.read(block.app1())[0]
    assert metadata.pop("exif") is True
    return metadata


def position(order: str, north: bytes | None, east: bytes | None) -> Block:
    angles = [rationals(order, number, NORTH_EAST[number // 4]) for number in (2, 4)]
    references = [text(number, raw) for number, raw in ((1, north), (3, east)) if raw is not None]
    return Block(order, gps=[*references, *angles])


@ORDERS
@pytest.mark.parametrize("kind", [ASCII, BYTE, UNDEFINED])
@pytest.mark.parametrize("end", [b"", b"\0", b"\0\0\0", b"\0 3ghx7y", b"\0\xff\xfe", b"  "])
def test_a_text_ends_at_its_first_nul_or_with_its_bytes(order: str, kind: int, end: bytes) -> None:
    block = Block(
        order,
        zeroth=[text(0x010F, b"BUSHNELL" + end, kind), text(0x0110, b"x1" + end, kind)],
        exif=[text(0x9003, b"2026:01:15 05:47:23" + end, kind)],
    )
    assert read(block) == {"Make": "BUSHNELL", "Model": "x1", "DateTimeOriginal": "2026:01:15 05:47:23"}


@ORDERS
@pytest.mark.parametrize(
    ("south", "west"),
    [(b"S", b"W"), (b"S\0", b"W\0"), (b"South\0", b"West\0"), (b"s", b"w"), (b" SOUTH", b"WEST ")],
)
def test_a_hemisphere_is_read_with_or_without_nul_and_written_out(
    order: str, south: bytes, west: bytes
) -> None:
    assert read(position(order, south, west)) == {"lat": -23.26, "lng": -47.25}


@ORDERS
@pytest.mark.parametrize("unknown", [None, b"", b"\0", b"?", b"0", b"X\0", b"\xd0\xa1\0", b" "])
def test_an_unknown_hemisphere_is_neither_north_nor_east(order: str, unknown: bytes | None) -> None:
    assert "lat" not in read(position(order, unknown, b"E")), "nor does it cost the other angle"
    assert read(position(order, unknown, b"E"))["lng"] == 47.25
    assert read(position(order, b"N", unknown)).get("lng") is None
    assert read(position(order, b"N", unknown))["lat"] == 23.26


def test_a_reference_of_numbers_is_no_hemisphere() -> None:
    block = position(">", None, b"E")
    block.gps.append(numbers(">", 1, SHORT, [ord("N")]))
    assert read(block) == {"lng": 47.25, "exif_skipped": "GPSLatitudeRef"}


@pytest.mark.parametrize(
    ("reference", "height"),
    [(0, 12.5), (1, -12.5), (2, 12.5), (3, -12.5), (None, 12.5), (4, None), (255, None)],
)
def test_a_height_is_above_or_below_the_sea_or_unknown(reference: int | None, height: float | None) -> None:
    gps = [rationals("<", 6, [(125, 10)])]
    if reference is not None:
        gps.append(numbers("<", 5, BYTE, [reference]))
    assert read(Block("<", gps=gps)).get("alt") == height


def test_an_angle_that_contradicts_its_hemisphere_or_is_none_is_left_out() -> None:
    def latitude(north: bytes, *pairs: tuple[int, int]) -> float | None:
        block = Block(">", gps=[text(1, north), rationals(">", 2, pairs, tiff_blocks.SRATIONAL)])
        return read(block).get("lat")

    assert latitude(b"S", (-23, 1), (30, 1), (0, 1)) == -23.5
    assert latitude(b"N", (-23, 1), (30, 1), (0, 1)) is None
    assert latitude(b"N", (90, 1), (0, 1), (1, 10)) is None
    assert latitude(b"N", (23, 1), (30, 0), (0, 1)) is None
    assert latitude(b"N", (2325, 100)) == 23.25


BROKEN = {
    "a note of an odd type": Tag(0x927C, 14, 4, b"abcd"),
    "a value beyond the block": Tag(0xA434, ASCII, 20, b"x" * 20, at=60_000),
    "a value on a directory": Tag(0xA434, ASCII, 20, b"x" * 20, at=12),
    "a value on the header": Tag(0xA434, ASCII, 20, b"x" * 20, at=2),
    "a count of four billion": Tag(0x8827, SHORT, 2**32 - 1, b"\0\1"),
    "no type": Tag(0x8827, 0, 1, b"\0\1"),
    "a number where a text belongs": numbers(">", 0xA434, SHORT, [7]),
    "a pointer to nowhere": numbers(">", 0xA005, LONG, [60_000]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_tag_costs_itself_and_not_the_date(what: str) -> None:
    block = Block(
        ">", zeroth=[text(0x010F, b"Reconyx\0")], exif=[BROKEN[what], DATE], gps=position(">", b"S", b"W").gps
    )
    metadata = read(block)
    skipped = metadata.pop("exif_skipped", None)
    assert metadata == {
        "Make": "Reconyx", "DateTimeOriginal": "2026:01:15 05:47:23", "lat": -23.26, "lng": -47.25
    }  # fmt: skip
    assert skipped == {0xA434: "LensModel", 0x8827: "ISOSpeedRatings"}.get(BROKEN[what].number)


@ORDERS
@pytest.mark.parametrize("at", [0, 8, 60_000])
def test_a_directory_that_cannot_be_found_costs_itself_and_is_named(order: str, at: int) -> None:
    def block() -> Block:
        return Block(
            order, zeroth=[text(0x010F, b"Reconyx\0")], exif=[DATE], gps=position(order, b"S", b"W").gps
        )

    without_exif, without_gps = block(), block()
    without_exif.exif_at = without_gps.gps_at = at
    place = {"lat": -23.26, "lng": -47.25}
    assert read(without_exif) == {"Make": "Reconyx", **place, "exif_skipped": "Exif directory"}
    date = {"DateTimeOriginal": "2026:01:15 05:47:23"}
    assert read(without_gps) == {"Make": "Reconyx", **date, "exif_skipped": "GPS directory"}


def test_what_a_broken_pointer_leads_to_is_not_taken_for_a_directory() -> None:
    junk = bytes(range(1, 250)) * 2
    block = Block(">", zeroth=[text(0x010F, junk)], exif=[DATE])
    start = block.app1().index(junk) - 6
    block.exif_at = start + 199 - 1  # where two bytes say that there are 0x00c7 entries, or thereabouts
    for step in range(240):
        block.exif_at = start + step
        assert read(block).keys() <= {"Make", "exif_skipped"}


@ORDERS
@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"ASCII\0\0\0seen at the pond\0junk", "seen at the pond"),
        (b"ASCII   seen at the pond", "seen at the pond"),
        (b"\0\0\0\0\0\0\0\0seen at the pond  ", "seen at the pond"),
        (b"UNICODE\0" + "пруд, 池".encode("utf-16"), "пруд, 池"),
        (b"UNICODE\0" + "seen at the pond\0x".encode("utf-16-le"), "seen at the pond"),
        (b"UNICODE\0" + "seen at the pond".encode("utf-16-be"), "seen at the pond"),
        ("пруд".encode(), "пруд"),
        (b"ASCII\0\0\0" + b"\0" * 200, None),
        (b" " * 64, None),
    ],
)
def test_a_comment_is_read_in_the_code_that_it_names(order: str, raw: bytes, shown: str | None) -> None:
    assert read(Block(order, exif=[text(0x9286, raw, UNDEFINED)])).get("UserComment") == shown


def test_half_a_surrogate_in_a_comment_does_not_get_into_the_metadata() -> None:
    metadata = read(Block(">", exif=[text(0x9286, b"UNICODE\0\xd8\x00\x00a\x00b", UNDEFINED)]))
    assert metadata == {"UserComment": "\N{REPLACEMENT CHARACTER}ab"}


@pytest.mark.parametrize(
    "name", ["\u06cc\u200c\u062e", "site\u00a01", "\U0001f468\u200d\U0001f469", "\U0001fae9"]
)
def test_a_text_keeps_every_character_but_control_characters(name: str) -> None:
    block = Block("<", zeroth=[text(0x013B, f"{name}\x07\x1b[2J\x85{name}".encode())])
    assert read(block) == {"Artist": f"{name}  [2J {name}"}


def test_a_tag_that_stands_in_the_other_directory_is_read_there_and_yields_to_the_one_in_its_own() -> None:
    there = text(0x010F, b"there")
    assert read(Block("<", exif=[there], zeroth=[DATE])) == {
        "Make": "there", "DateTimeOriginal": "2026:01:15 05:47:23"
    }  # fmt: skip
    assert read(Block("<", exif=[there], zeroth=[text(0x010F, b"here")])) == {"Make": "here"}


@given(block=st.binary(max_size=400), order=st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
@settings(max_examples=300)
def test_any_bytes_at_all_behind_a_header_are_read_or_refused(block: bytes, order: bytes) -> None:
    metadata, _ = exif.read(b"Exif\0\0" + order + block)
    json.dumps(metadata, allow_nan=False)
    assert metadata["exif"] is True


@given(seed=st.integers(0, 10**6), at=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(max_examples=300)
def test_a_made_up_block_with_one_more_damaged_byte_is_read(seed: int, at: int, value: int) -> None:
    block = bytearray(tiff_blocks.made_up(seed).app1)
    block[6 + at % (len(block) - 6)] = value
    json.dumps(exif.read(bytes(block))[0], allow_nan=False)


def test_thousands_of_tags_with_the_same_bytes_are_not_copied() -> None:
    note = text(0xA434, b"x" * 50_000)
    count = 1200
    app1 = bytearray(Block(">", zeroth=[note]).app1()[:14])
    place = 8 + 2 + 12 * count + 4
    app1 += count.to_bytes(2, "big")
    for number in range(count):
        app1 += (
            (0xA434 + number).to_bytes(2, "big")
            + b"\0\2"
            + (40_000).to_bytes(4, "big")
            + place.to_bytes(4, "big")
        )
    app1 += b"\0" * 4 + note.raw
    tracemalloc.start()
    metadata, _ = exif.read(bytes(app1))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(metadata["LensModel"]) == 4096
    assert most < 2 * 10**6


def test_a_time_is_corrected_in_a_block_with_a_broken_tag() -> None:
    evidence = Evidence("boot", 12.5, 1000.25, trusted=False)
    before = bytearray(exif.embed_metadata(drawings.plain(), drawings.facts(evidence=evidence)))
    at = before.index(b"\x88\x27\0\3")  # ISOSpeedRatings
    before[at + 2 : at + 4] = b"\0\x63"
    after, found = exif.read(
        drawings.block_of(exif.correct(bytes(before), datetime(2026, 1, 2, tzinfo=UTC), 5.0, 6.0))
    )
    assert found == Evidence("boot", 12.5, 1000.25, False, 5.0)
    assert after["DateTimeOriginal"] == "2026:01:02 00:00:00"
    assert after["ExposureTime"] == pytest.approx(0.066642)
    assert "ISOSpeedRatings" not in after


BLOCKS = {
    "ours": drawings.block_of(drawings.trap()),
    "2020": drawings.block_of(drawings.sticky_pi_2020()),
    "2022": drawings.block_of(drawings.sticky_pi_2022()),
}


@given(which=st.sampled_from(sorted(BLOCKS)), at=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(max_examples=1500, deadline=400)
def test_one_damaged_byte_never_raises_never_hangs_and_stays_json(which: str, at: int, value: int) -> None:
    block = bytearray(BLOCKS[which])
    block[at % len(block)] = value

    metadata, _ = exif.read(bytes(block))

    json.dumps(metadata, allow_nan=False)
    assert isinstance(metadata["exif"], bool)


@given(which=st.sampled_from(sorted(BLOCKS)), length=st.integers(0, 600))
def test_a_block_cut_anywhere_never_raises(which: str, length: int) -> None:
    metadata, _ = exif.read(BLOCKS[which][:length])

    json.dumps(metadata, allow_nan=False)
    assert metadata["exif"] is True


def test_a_count_of_four_billion_costs_its_tag_and_is_not_believed() -> None:
    block = bytearray(BLOCKS["2022"])
    at = block.index(b"\x92\x86\x00\x07") + 4
    block[at : at + 4] = b"\xff\xff\xff\xff"

    metadata, _ = exif.read(bytes(block))

    assert metadata == {"exif": True, "Make": "StickyPi", "exif_skipped": "UserComment"}


@given(cut=st.integers(0, 10**6))
def test_a_header_cut_anywhere_is_incomplete(cut: int) -> None:
    picture = drawings.trap()
    end = structure.header(picture).scan

    with pytest.raises(IncompleteImage, match="cut off"):
        structure.header(picture[: cut % end])


@pytest.mark.parametrize(
    "times",
    [
        {"monotonic": 1e14, "wall": 1.7e9},
        {"monotonic": 5.0, "wall": 9e14},
        {"monotonic": 5.0, "wall": -9e14},
        {"monotonic": 5.0, "wall": 1.7e9, "offset": 9e14},
    ],
)
def test_evidence_of_a_moment_beyond_the_calendar_is_none(times: dict[str, float]) -> None:
    note = blocks.evidence_text(Evidence("boot-1", trusted=False, **times))
    assert blocks.evidence_in(note) is None
    well = Evidence("boot-1", 3e8, 4.1e9, trusted=False, offset=1.7e9)
    assert blocks.evidence_in(blocks.evidence_text(well)) == well
