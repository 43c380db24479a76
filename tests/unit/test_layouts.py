"""Layouts: names by which people's programs find an image and its local time, and none of which two images share."""

import json
import random
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import drawings
from conformance import Card
from memory_context import MemoryContext, context
from trapsync.destinations import directory, layouts
from trapsync.destinations.directory import MARK, Directory, manifest
from trapsync.errors import Held
from trapsync.files import durable
from trapsync.image import Image, TrapName
from trapsync.settings.schema import Settings, Trap
from trapsync.settings.time_zone import fixed_offset

DEVICES = ("00000000", "12345678", "0a5bb6f4")
ZONES = ("Europe/Berlin", "America/Panama", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe")


def settings(device: str = "0a5bb6f4", zone: str = "Europe/Berlin", name: str = "Valley 3") -> Settings:
    return Settings(trap=Trap(device=device, name=name, timezone=zone))


def instants(number: int) -> list[datetime]:
    """Seconds of a year, among them those around both changes of summer time in Berlin, all different."""
    generator = random.Random(18)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    drawn = {start + timedelta(seconds=generator.randrange(365 * 86400)) for _ in range(number - 200)}
    for change in (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)):
        drawn |= {change + timedelta(minutes=2 * step) for step in range(-60, 60)}
    return sorted(drawn)


# --- What the receivers read, said again as facts (their own parsers were run by hand: see tests/README.md) ----------


def read_by_antenna(key: str) -> datetime | None:
    """Of the last part of a key the first that looks like a time; what is none, or none at all, is skipped."""
    forms = (r"\d{14}", r"\d{8}\D+\d{6}", r"\d{4}\D\d\d\D\d\d\D+\d\d\D\d\d\D\d\d", r"(?<!\d)\d{12}(?!\d)")
    found = re.search("|".join(forms), PurePosixPath(key).stem)
    digits = re.sub(r"\D", "", found[0]) if found else ""
    try:
        return datetime.strptime(digits, "%y%m%d%H%M%S" if len(digits) == 12 else "%Y%m%d%H%M%S")
    except ValueError:
        return None


def read_by_companion(path: str) -> datetime | None:
    """The first 14 digits in a row."""
    found = re.search(r"\d{14}", PurePosixPath(path).stem)
    return datetime.strptime(found[0], "%Y%m%d%H%M%S") if found else None


def read_by_amber(key: str) -> datetime | None:
    """What is between the last hyphen and the end, in the folder of a deployment's snapshots."""
    deployment, kind, name = key.split("/")
    assert deployment, kind == "snapshot_images"
    return datetime.strptime(name.removesuffix("-snapshot.jpg").split("-")[-1], "%Y%m%d%H%M%S")


def read_by_camtrapr(path: str) -> datetime | None:
    """Station and camera are folders, and stand in the name before date and time, with two underscores between."""
    station, camera, name = path.split("/")
    in_name, of_camera, date, time = name.removesuffix(".jpg").split("__")
    assert (in_name, of_camera) == (station, camera)
    return datetime.strptime(f"{date} {time}", "%Y-%m-%d %H-%M-%S")


READERS = {
    "antenna": [read_by_antenna, read_by_companion],
    "amber": [read_by_antenna, read_by_companion, read_by_amber],
    "camtrapr": [read_by_antenna, read_by_camtrapr],
}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("preset", READERS)
def test_a_preset_is_read_back_to_the_local_second_by_its_readers(preset: str, zone: str) -> None:
    taken, standard = instants(1000), min(ZoneInfo(zone).utcoffset(datetime(2026, m, 1)) for m in (1, 7))  # type: ignore[type-var]
    names: dict[str, tuple[str, datetime]] = {}
    for device in DEVICES:
        at = settings(device, zone)
        layouts.require(preset, at)
        layout = layouts.of_trap(preset, at)
        names |= {layout.name_of(TrapName(device, moment)): (device, moment) for moment in taken}
    assert len(names) == len(DEVICES) * len(taken)  # each its own
    for name, (_, moment) in names.items():
        assert len(name) <= layouts.LONGEST
        for read in READERS[preset]:
            assert read(name) == (moment + standard).replace(tzinfo=None), (read, name)  # type: ignore[operator]


def test_an_id_of_digits_only_is_written_so_that_nobody_takes_it_for_a_date() -> None:
    moment = datetime(2026, 6, 1, 22, tzinfo=UTC)
    for device, written in (("0a5bb6f4", "0a5bb6f4"), ("12345678", "1234-5678")):
        at_trap = settings(device, "America/Panama")
        layouts.require("{device:undated}_{utc:%Y%m%d_%H%M%S}.jpg", at_trap)
        name = layouts.of_trap("amber", at_trap).name_of(TrapName(device, moment))
        assert name == f"Valley-3/snapshot_images/{written}-20260601170000-snapshot.jpg"


def test_flat_and_standard_names_are_those_of_the_card() -> None:
    name = TrapName("0a5bb6f4", datetime(2026, 6, 1, 22, tzinfo=UTC))
    assert layouts.of_trap("flat", settings()).name_of(name) == "0a5bb6f4.2026-06-01_22-00-00.jpg"
    of_card = "0a5bb6f4/2026-06-01/0a5bb6f4.2026-06-01_22-00-00.jpg"
    assert layouts.of_trap("standard", settings()).name_of(name) == of_card


def test_a_night_is_from_noon_to_noon_of_local_time() -> None:
    layout = layouts.of_trap("{night}/{name}.jpg", settings(zone="America/Panama"))  # 5 hours behind
    for taken, night in (("16:59:59", "05-31"), ("17:00:00", "06-01"), ("23:00:00", "06-01")):
        name = TrapName("0a5bb6f4", datetime.fromisoformat(f"2026-06-01T{taken}+00:00"))
        assert layout.name_of(name).startswith(f"2026-{night}/")
    late = TrapName("0a5bb6f4", datetime(2026, 6, 2, 4, tzinfo=UTC))
    assert layout.name_of(late).startswith("2026-06-01/")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Bäume 3", "Baume-3"),
        ("a/../b", "a-b"),
        ("x__y", "x_y"),
        ("木", "0a5bb6f4"),
        ("", "0a5bb6f4"),
        ("-", "0a5bb6f4"),
    ],
)
def test_a_traps_name_is_written_in_letters_that_every_store_takes(name: str, written: str) -> None:
    layout = layouts.of_trap("{trap}/{name}.jpg", settings(name=name))
    made = layout.name_of(TrapName("0a5bb6f4", datetime(2026, 6, 1, tzinfo=UTC)))
    assert made.split("/")[0] == written


REFUSED = {
    "nothing": "is no layout",
    "{trap}/{local:%Y%m%d%H%M%S}.jpg": "lacks {device}",
    "{device}/{local:%Y%m%d%H%M}.jpg": "does not tell all seconds apart",
    "{device}/{local:%Y%m%d}{utc:%H%M%S}.jpg": "does not tell all seconds apart",
    "{device}-{night}.jpg": "does not tell all seconds apart",
    "../{name}.jpg": "no path below a folder",
    "/{name}.jpg": "no path below a folder",
    "a//{name}.jpg": "no path below a folder",
    "./{name}.jpg": "no path below a folder",
    ".hidden/{name}.jpg": "no path below a folder",
    "lost+found/{name}.jpg": "no path below a folder",
    "sha256sums/{name}.jpg": "no path below a folder",
    "nul/{name}.jpg": "no path below a folder",
    "a /{name}.jpg": "no path below a folder",
    "other/{name}.jpg": "for images of other cameras",
    "a\\{name}.jpg": "not every file system takes",
    "{device}/{utc:%H:%M:%S %Y-%m-%d}.jpg": "not every file system takes",
    "a\n{name}.jpg": "not every file system takes",
    "{name}": "must end in .jpg",
    "{name}.png": "must end in .jpg",
    "{name}" + "x" * 250 + ".jpg": "255 are the most",
    "{station}/{name}.jpg": "a field that there is not",
    "{name.__class__}.jpg": "a field that there is not",
    "{name!r}.jpg": "a field that there is not",
    "{0}{name}.jpg": "a field that there is not",
    "{name": "is no template",
    "{name:>99}.jpg": "takes no format",
    "{name}{utc}.jpg": "has no format",
    "{name}{utc:%c}.jpg": "has %c",
    "{name}{utc:%Y%}.jpg": "has %",
    "{device}_{utc:%Y%m%d_%H%M%S}.jpg": "for the time",
    "{device}-{local:%Y%m%d%H%M%S}.jpg": "for the time",
    "{local:%d%m%Y%H%M%S}-{device}.jpg": "for the time",
}


@pytest.mark.parametrize("layout", REFUSED)
def test_what_could_mix_up_images_or_be_misread_is_refused(layout: str) -> None:
    with pytest.raises(ValueError, match=re.escape(REFUSED[layout])) as refused:
        layouts.require(layout, settings(device="12345678"))
    assert str(refused.value).startswith("layout: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "layout",
    [
        *layouts.PRESETS,
        "{night}/{device}/{local:%H%M%S}.jpg",
        "{device}/{local:%Y}/{local:%m}/{local:%d_%H%M%S}.jpg",
        "{utc:%Y%m%d_%H%M%S}_{device}.jpg",
        "moths/{trap}/{name}.jpg",
    ],
)
@pytest.mark.parametrize("device", DEVICES)
def test_what_tells_images_apart_is_taken(layout: str, device: str) -> None:
    layouts.require(layout, settings(device))


def test_the_prefix_counts_as_a_part_of_the_name() -> None:
    layouts.require("flat", settings(), "p" * 200 + "/")
    with pytest.raises(ValueError, match="255 are the most"):
        layouts.require("flat", settings(), "p" * 230 + "/")


def test_a_wrong_layout_is_one_line_of_the_check(tmp_path: Path) -> None:
    from trapsync.destinations import check_all
    from trapsync.errors import SettingsError

    tables = {"nas": {"kind": "directory", "path": "/mnt/nas", "layout": "{trap}.jpg"}}
    given = Settings(trap=Trap(device="0a5bb6f4"), destinations=tables)
    with pytest.raises(SettingsError, match=r"^trap.toml: destinations.nas.layout: '{trap}.jpg' lacks"):
        check_all(given, Path("trap.toml"))


# --- The one offset of local time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("Europe/Berlin", 1), ("Europe/Dublin", 0), ("America/Panama", -5), ("America/St_Johns", -3.5),
     ("Asia/Kathmandu", 5.75), ("Africa/Casablanca", 1), ("Antarctica/Troll", 0), ("Australia/Lord_Howe", 10.5)],
)  # fmt: skip
def test_by_default_it_is_the_standard_time_of_the_zone(zone: str, hours: float) -> None:
    assert fixed_offset(settings(zone=zone)) == timezone(timedelta(hours=hours))


def test_an_offset_that_is_set_counts() -> None:
    for text, minutes in (("-03:30", -210), ("+05:45", 345), ("+00:00", 0)):
        given = Settings(trap=Trap(timezone="Europe/Berlin", utc_offset=text))
        assert fixed_offset(given) == timezone(timedelta(minutes=minutes))


@pytest.mark.parametrize(
    "text", ["+1", "01:00", "+15:00", "+01:60", "Europe/Berlin", "+01:00:00", "+0100", "Z"]
)
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"utc_offset: .* is no offset"):
        Trap(utc_offset=text)


# --- A layout that changes --------------------------------------------------------------------------------------------


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / MARK).touch()
    yield folder
    command = ["sh", "-c", f"find . -name {manifest.NAME} -execdir sha256sum -c --quiet {{}} \\;"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def at(stick: Path, given: MemoryContext, layout: str) -> Directory:
    """The destination as it starts anew with this layout."""
    return directory.connect("stick", directory.Settings(kind="directory", path=stick, layout=layout), given)


def jpegs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


def a_trap(tmp_path: Path, **more: Any) -> MemoryContext:
    fields = {"trap_name": "Valley", "offset": timezone(timedelta(hours=-5)), "name": "stick", **more}
    return context(state=tmp_path / "state", **fields)


def test_a_new_layout_is_for_new_images(stick: Path, card: Card, tmp_path: Path) -> None:
    given, old, new = a_trap(tmp_path), card.image(0), card.image(5)
    receipt = at(stick, given, "standard").deliver(old, card.path(old))
    later = at(stick, given, "antenna")
    later.deliver(new, card.path(new))
    local = f"{drawings.TAKEN + timedelta(seconds=5, hours=-5):%Y%m%d%H%M%S}"
    assert jpegs(stick) == sorted([old.place, f"Valley/{local}-{drawings.DEVICE}.jpg"])
    assert receipt.at == old.place
    assert later.confirm([old], {old.id: old.place}) == {old.id: receipt}


@pytest.mark.parametrize("is_noted", [True, False])
def test_an_answer_that_was_lost_before_a_change_of_layout_is_found(
    stick: Path, card: Card, tmp_path: Path, is_noted: bool
) -> None:
    given, image = a_trap(tmp_path), card.image()
    for layout in ("antenna", "flat", "camtrapr"):
        one = at(stick, given, layout)
        found = one.find_existing([image]) or {image.id: one.deliver(image, card.path(image))}
        assert found[image.id].at == jpegs(stick)[0]  # type: ignore[union-attr]
        if not is_noted:  # a power cut came before
            next(stick.rglob(manifest.NAME)).unlink()
    assert len(jpegs(stick)) == 1
    assert jpegs(stick)[0].startswith("Valley/2")


def test_a_stick_from_before_there_were_layouts_is_asked_by_its_names(
    stick: Path, card: Card, tmp_path: Path
) -> None:
    image = card.image()
    at(stick, a_trap(tmp_path), "standard").deliver(image, card.path(image))
    assert not (tmp_path / "state").exists()  # as it was then
    assert image.id in at(stick, a_trap(tmp_path), "antenna").find_existing([image])


def test_another_name_or_offset_of_the_trap_is_another_layout(
    stick: Path, card: Card, tmp_path: Path
) -> None:
    image, given = card.image(), a_trap(tmp_path)
    at(stick, given, "antenna").deliver(image, card.path(image))
    changes: list[dict[str, Any]] = [{"trap_name": "Hill"}, {"offset": UTC}]
    for change in changes:
        moved = a_trap(tmp_path, **change)
        assert image.id in at(stick, moved, "antenna").find_existing([image])
        assert at(stick, moved, "antenna").deliver(image, card.path(image)).at == jpegs(stick)[0]


def test_images_of_other_cameras_keep_their_own_path(stick: Path, card: Card, tmp_path: Path) -> None:
    foreign = card.put(drawings.trap(), "DCIM/100/IMG_0001.JPG")
    given = a_trap(tmp_path)
    shared = layouts.Keys(directory.Settings(kind="directory", path=stick), given)
    assert shared.of(foreign) == f"other/{drawings.DEVICE}/DCIM/100/IMG_0001.JPG"
    assert at(stick, given, "standard").deliver(foreign, card.path(foreign)).at == "DCIM/100/IMG_0001.JPG"
    assert foreign.id in at(stick, given, "antenna").find_existing([foreign])  # it is not brought twice


def test_a_record_that_is_damaged_costs_no_image(
    stick: Path, card: Card, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given, image = a_trap(tmp_path), card.image()
    (tmp_path / "state").mkdir()
    for content in (
        '{"stick": [{"template": "{x}", "trap": "", "offset": 0}]}',
        "[1]",
        "{",
        '{"stick": 3}',
        "\0" * 99,
    ):
        (tmp_path / "state" / "layouts.json").write_text(content)
        one = at(stick, given, "antenna")
        assert "so earlier layouts are not known" in caplog.text
        caplog.clear()
        one.deliver(image, card.path(image))
        assert json.loads((tmp_path / "state" / "layouts.json").read_text())["stick"][-1]["trap"] == "Valley"
    assert len(jpegs(stick)) == 1


def test_a_record_that_cannot_be_read_now_is_not_written_over(
    stick: Path, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_path: Path, _most: int) -> bytes:
        raise OSError(5, "Input/output error")

    first, second = card.image(0), card.image(5)
    at(stick, a_trap(tmp_path), "antenna").deliver(first, card.path(first))
    with monkeypatch.context() as broken:
        broken.setattr(durable, "read_plain", failing)
        one = at(stick, a_trap(tmp_path), "amber")
        with pytest.raises(Held, match="Input/output error"):
            one.deliver(second, card.path(second))
    assert first.id in at(stick, a_trap(tmp_path), "amber").find_existing([first])


def test_twenty_layouts_ago_is_not_forgotten(stick: Path, card: Card, tmp_path: Path) -> None:
    first = card.image()
    at(stick, a_trap(tmp_path), "antenna").deliver(first, card.path(first))
    for number in range(20):
        one, image = at(stick, a_trap(tmp_path), f"{number}/{{name}}.jpg"), card.image(number + 1)
        one.deliver(image, card.path(image))
    assert first.id in at(stick, a_trap(tmp_path), "flat").find_existing([first])


def test_several_destinations_remember_their_layouts_in_one_file(tmp_path: Path, card: Card) -> None:
    images: list[Image] = [card.image()]
    for name, layout in (("a", "antenna"), ("b", "flat"), ("a", "amber")):
        keys = layouts.Keys(
            directory.Settings(kind="directory", path=tmp_path, layout=layout), a_trap(tmp_path, name=name)
        )
        keys.remember()
    read = json.loads((tmp_path / "state" / "layouts.json").read_text())
    presets = {one: name for name, one in layouts.PRESETS.items()}
    written = {name: [presets[one["template"]] for one in some] for name, some in read.items()}
    assert written == {"a": ["antenna", "amber"], "b": ["antenna", "flat"]}
    assert len(keys.all_of(images[0])) == 2


def test_a_destination_under_another_name_is_asked_by_the_layouts_that_there_were(
    stick: Path, card: Card, tmp_path: Path
) -> None:
    image = card.image()
    for name, layout in (
        ("stick", "antenna"),
        ("stick", "flat"),
        ("drive", "camtrapr"),
        ("drive", "standard"),
    ):
        one = at(stick, a_trap(tmp_path, name=name), layout)
        if image.id not in one.find_existing([image]):
            one.deliver(image, card.path(image))
        other = card.image(len(jpegs(stick)))  # so that each layout is remembered
        one.deliver(other, card.path(other))
    assert len(jpegs(stick)) == 5
    assert (
        len(
            layouts.Keys(
                directory.Settings(kind="directory", path=stick), a_trap(tmp_path, name="new")
            ).all_of(image)
        )
        == 4
    )


def test_nothing_is_sent_by_a_layout_that_cannot_be_remembered(
    stick: Path, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_folder: Path) -> None:
        raise OSError(28, "No space left on device")

    image = card.image()
    one = at(stick, a_trap(tmp_path), "antenna")
    monkeypatch.setattr(durable, "flush_folder", failing)
    with pytest.raises(Held, match="cannot be written down"):
        one.deliver(image, card.path(image))
    assert jpegs(stick) == []
