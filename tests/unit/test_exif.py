"""What is written into a JPEG's metadata, and what is read from anybody's."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import piexif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drawings
from trapsync.errors import DamagedImage, IncompleteImage
from trapsync.image import Evidence
from trapsync.jpeg import exif, structure
from trapsync.jpeg.exif import blocks


def metadata_of(picture: bytes) -> dict[str, Any]:
    return exif.read(structure.header(picture).exif)[0]


# --- Written ------------------------------------------------------------------------------------------------


def test_the_comment_is_what_the_firmware_writes_to_the_byte() -> None:
    assert exif.user_comment(drawings.facts()) == (
        b"v,T,H,B,L,lat,lng,a,l,b\n0.1.0,20.6,42.6,72,1.18,46.20100,6.12300,412.5,1652813182,1"
    )


def test_a_trap_without_sensors_writes_the_sentinels() -> None:
    facts = exif.Facts(
        taken=drawings.TAKEN, model="x", software="trapsync", version="0.1.0", width=160, height=120
    )

    assert exif.user_comment(facts) == (
        b"v,T,H,B,L,lat,lng,a,l,b\n0.1.0,-300.0,-1.0,-1,0.00,0.00000,0.00000,0.0,2000-01-01 00:00:00,0"
    )


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
    assert len(head.split(",")) == len(values.split(",")) == 10
    assert len(b"EXIF.UserComment=" + comment) < 128
    assert all(math.isfinite(float(value)) for value in values.split(",")[1:8])


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
    block = drawings.block_of(drawings.trap(latitude=0.0, longitude=0.0))

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
    assert metadata_of(drawings.trap(model="Камера\0 é"))["Model"] == "?????? ?"


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


def test_a_count_of_four_billion_is_refused_before_it_is_believed() -> None:
    block = bytearray(BLOCKS["2022"])
    at = block.index(b"\x92\x86\x00\x07") + 4
    block[at : at + 4] = b"\xff\xff\xff\xff"

    metadata, _ = exif.read(bytes(block))

    assert "larger than the block" in metadata["exif_error"]


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
