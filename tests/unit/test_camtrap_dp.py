"""`trapsync export camtrap-dp`: packages that are valid by the standard, whole or not there, and true."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timezone
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

import camtrap_packages as packages
import drawings
import operator_desk
import trap_bench as bench
from camtrap_packages import CONFIG, PROJECT
from trapsync.camtrap_dp import observations
from trapsync.camtrap_dp.deployments import Coverage
from trapsync.camtrap_dp.files import Files, Orders, Way
from trapsync.camtrap_dp.records import Deployment, Gap, Picture, Place, Span
from trapsync.catalog.runs import Schedule
from trapsync.clock import evidence, utc
from trapsync.image import Evidence
from trapsync.net.reports import Reason

TAKEN = drawings.TAKEN.timestamp()
FIRST, SECOND = f"{drawings.DEVICE}-20260621T201915Z", f"{drawings.DEVICE}-20260621T202000Z"
TERMS: dict[str, Any] = {"latitude": 46.2, "longitude": -6.1}


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    err: str


Export = Callable[..., Said]


@pytest.fixture
def export(trap: bench.Trap, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Export:
    """Run `trapsync export camtrap-dp package`, with a config."""
    monkeypatch.chdir(trap.folder)

    say = operator_desk.typing(monkeypatch, capfd)

    def run(*words: str, config: str = CONFIG + PROJECT) -> Said:
        Path("trap.toml").write_text(config)
        code, out, err = say("-c", "trap.toml", "export", "camtrap-dp", *(words or ("package",)))
        assert "Traceback" not in err
        assert out == ""
        return Said(code, err)

    return run


def put(trap: bench.Trap, second: int, **facts: Any) -> str:
    """An image of that second is ingested; its name."""
    taken = utc(TAKEN + second)
    name = f"{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
    drawings.put(trap.storage.spool, drawings.trap(seed=second % 9, taken=taken, **facts), name)
    trap.ingest(name)
    return name


def begin(trap: bench.Trap, second: int, **terms: Any) -> str:
    """A deployment begins at that second, and is the present; its id."""
    trap.time.sleep(TAKEN + second - trap.time.wall())
    return trap.catalog.deployments.start(drawings.DEVICE, TERMS | terms).id


@dataclass
class Made:
    """A trap that is made up."""

    known: Sequence[Deployment]
    images: Sequence[Picture]
    missed: Sequence[Gap]
    device: str = drawings.DEVICE
    name: str = "valley-1"
    offset: timezone = UTC
    place: Place | None = (46.2, -6.1)
    until: float | None = None

    def deployments(self) -> Sequence[Deployment]:
        return self.known

    def pictures(self) -> Iterator[Picture]:
        return iter(self.images)

    def gaps(self) -> Iterator[Gap]:
        return iter(self.missed)


def picture(at: float) -> Picture:
    return Picture(f"{at}", at, f"{at}.jpg", f"{at}.jpg")


def unsure(trap: bench.Trap, second: int) -> Evidence:
    return Evidence(trap.time.boot_id(), trap.time.monotonic(), TAKEN + second, trusted=False)


def media(folder: Path = Path("package")) -> list[dict[str, str]]:
    return packages.rows(folder, "media")


# ── What is valid ────────────────────────────────────────────────────────────────────────────────────


def test_a_package_of_no_picture_is_valid(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    done = export()
    assert done.err.startswith("1 deployment, 0 pictures, 0 observations, 0 gaps\n")
    assert packages.problems(Path("package")) == []
    assert packages.rows(Path("package"), "deployments")[0]["deploymentStart"] == "2026-06-22T02:04:15+05:45"


def test_a_package_of_many_pictures_is_valid_and_has_each_once(trap: bench.Trap, export: Export) -> None:
    packages.many(trap, 600)
    begin(trap, 3600)
    assert export().err.startswith("2 deployments, 600 pictures")
    assert packages.problems(Path("package")) == []
    assert len({row["mediaID"] for row in media()}) == 600
    assert sorted({row["deploymentID"] for row in media()}) == [
        f"{drawings.DEVICE}-20260621T201915Z",
        f"{drawings.DEVICE}-20260621T211915Z",
    ]


def test_everything_about_a_picture_and_its_deployment_has_its_field(
    trap: bench.Trap, export: Export
) -> None:
    terms = {"location_id": "v1", "location_name": "Meadow", "coordinate_uncertainty": 30, "setup_by": "Ada"}
    terms |= {"camera_height": 1.5, "camera_tilt": -10, "camera_heading": 180, "detection_distance": 2.0}
    terms |= {"bait_use": True, "feature_type": "burrow", "habitat": "dry", "comments": "windy"}
    identity = begin(trap, 0, **terms, groups=["season:2026", "grid:A"], tags=["bait:light"])
    name = put(trap, 5)
    export(config=f"{CONFIG}{PROJECT}media_public = true\n")
    (deployment,) = packages.rows(Path("package"), "deployments")
    assert {key: value for key, value in deployment.items() if value} == {
        "deploymentID": identity,
        "locationID": "v1",
        "locationName": "Meadow",
        "latitude": "46.2",
        "longitude": "-6.1",
        "coordinateUncertainty": "30",
        "deploymentStart": "2026-06-22T02:04:15+05:45",
        "deploymentEnd": deployment["deploymentEnd"],
        "setupBy": "Ada",
        "cameraID": drawings.DEVICE,
        "cameraModel": "imx477",
        "cameraHeight": "1.5",
        "cameraTilt": "-10",
        "cameraHeading": "180",
        "detectionDistance": "2.0",
        "timestampIssues": "false",
        "baitUse": "true",
        "featureType": "burrow",
        "habitat": "dry",
        "deploymentGroups": "season:2026 | grid:A",
        "deploymentTags": "bait:light",
        "deploymentComments": "windy",
    }
    (row,) = media()
    assert json.loads(row.pop("exifData"))["AmbientTemperature"] == 20.6
    assert {key: value for key, value in row.items() if value} == {
        "mediaID": name,
        "deploymentID": identity,
        "captureMethod": "timeLapse",
        "timestamp": "2026-06-22T02:04:20+05:45",
        "filePath": f"media/{drawings.DEVICE}/2026-06-21/{name}",
        "filePublic": "false",  # it is not there
        "fileName": name,
        "fileMediatype": "image/jpeg",
    }


def test_a_text_of_many_semicolons_does_not_mislead_who_guesses_what_stands_between_values(
    trap: bench.Trap, export: Export
) -> None:
    begin(trap, 0, comments='windy; "quoted"; wet; cold; dark; and so on')
    put(trap, 0)
    export()
    assert packages.problems(Path("package")) == []


def test_the_descriptor_says_what_only_people_know(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    export()
    described = json.loads(Path("package/datapackage.json").read_text())
    assert described["profile"].endswith("/tdwg/camtrap-dp/1.0.2/camtrap-dp-profile.json")
    assert described["contributors"] == [
        {"title": "Ada Moser", "role": "contact", "email": "ada@example.org"}
    ]
    assert described["licenses"] == [
        {"name": "CC0-1.0", "scope": "data"},
        {"path": "https://creativecommons.org/licenses/by/4.0/", "scope": "media"},
    ]
    assert described["project"]["samplingDesign"] == "opportunistic"
    assert described["spatial"]["coordinates"] == [-6.1, 46.2]
    assert set(described["temporal"]) == {"start", "end"}
    names = [resource["name"] for resource in described["resources"]]
    assert names == ["deployments", "media", "observations", "sampling-gaps"]


BREAKS = [
    ("media", "timestamp", "2026-06-22T02:04:20"),  # without its offset
    ("media", "deploymentID", "nobody"),
    ("media", "filePath", "../picture.jpg"),
    ("deployments", "latitude", "146"),
    ("sampling-gaps", "reason", "bored"),
]


@pytest.mark.parametrize(("table", "field", "value"), BREAKS)
def test_a_package_that_is_broken_is_seen_to_be(
    trap: bench.Trap, export: Export, table: str, field: str, value: str
) -> None:
    begin(trap, 0)
    put(trap, 5)
    export()
    packages.change(Path("package"), table, field, value)
    assert packages.problems(Path("package")) != []


# ── Which deployment, which time ─────────────────────────────────────────────────────────────────────


def test_a_picture_belongs_to_the_deployment_in_whose_time_it_lies(trap: bench.Trap, export: Export) -> None:
    first = begin(trap, 0)
    put(trap, 0)
    put(trap, 99)
    second = begin(trap, 100, location_name="Hill")
    put(trap, 100)
    trap.time.sleep(50)
    trap.catalog.deployments.end(drawings.DEVICE)
    put(trap, 160)
    assert export().code == 0
    nobody = f"{drawings.DEVICE}-undeclared"
    assert [row["deploymentID"] for row in media()] == [first, first, second, nobody]
    spans = {
        row["deploymentID"]: (row["deploymentStart"][11:19], row["deploymentEnd"][11:19])
        for row in packages.rows(Path("package"), "deployments")
    }
    assert spans[first] == ("02:04:15", "02:05:55")
    assert spans[nobody] == ("02:06:55", "02:06:56")


def test_a_span_cuts_the_deployments_to_it(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    for second in (0, 10, 20):
        put(trap, second)
    begin(trap, 30)
    export("package", "--from", "2026-06-21T20:19:20Z", "--until", "2026-06-21T20:19:35Z")
    assert [row["timestamp"][14:19] for row in media()] == ["04:25", "04:35"][:1]
    assert [row["deploymentStart"][14:19] for row in packages.rows(Path("package"), "deployments")] == [
        "04:20"
    ]
    assert [row["deploymentEnd"][14:19] for row in packages.rows(Path("package"), "deployments")] == ["04:35"]


def test_one_deployment_is_exported_alone(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    put(trap, 0)
    second = begin(trap, 30)
    put(trap, 40)
    export("package", "--deployment", second)
    assert [row["deploymentID"] for row in media()] == [second]
    assert [row["deploymentID"] for row in packages.rows(Path("package"), "deployments")] == [second]


def test_a_picture_of_unknown_time_has_no_row_and_its_deployment_says_so(
    trap: bench.Trap, export: Export
) -> None:
    begin(trap, 0)
    put(trap, 1)
    put(trap, 2, evidence=unsure(trap, 2))
    done = export()
    assert "left out: 1 picture held until the clock is set\n" in done.err
    trap.restart(reboot=True)
    trap.catalog.times.give_up()
    done = export("again")
    assert "left out: 1 picture of unknown time\n" in done.err
    issues = [packages.rows(Path(name), "deployments")[0]["timestampIssues"] for name in ("package", "again")]
    assert issues == ["false", "true"]
    assert [len(media(Path(name))) for name in ("package", "again")] == [1, 1]
    assert packages.problems(Path("again")) == []


def test_when_pictures_were_due_and_not_taken_is_a_table_of_its_own_cut_to_the_deployments(
    trap: bench.Trap, export: Export
) -> None:
    first = begin(trap, 0)
    trap.catalog.times.note_boot()
    trap.catalog.runs.begin(Schedule(60.0, (), 46.2, -6.1, "UTC"), is_single=False)
    for second in (0, 60):
        trap.time.sleep(TAKEN + second - trap.time.wall())
        put(trap, second, evidence=evidence(trap.time))
    trap.time.sleep(60)
    trap.catalog.runs.note_failure("camera", "no picture")
    hill = begin(trap, 150, location_name="Hill")
    trap.time.sleep(90)
    put(trap, 240, evidence=evidence(trap.time))
    export("package", "--until", "2026-06-21T20:22:00Z")
    rows = packages.rows(Path("package"), "sampling-gaps")
    assert [(row["deploymentID"], row["gapStart"][11:19], row["gapEnd"][11:19]) for row in rows] == [
        (first, "02:06:00", "02:06:45"),
        (hill, "02:06:45", "02:07:00"),
    ]
    assert {row["reason"] for row in rows} == {"camera"}
    assert packages.problems(Path("package")) == []


def test_the_reasons_are_those_of_the_effort(trap: bench.Trap, export: Export) -> None:
    put(trap, 0)
    export()
    described = json.loads(Path("package/datapackage.json").read_text())
    (gaps,) = (one for one in described["resources"] if one["name"] == "sampling-gaps")
    (reason,) = (one for one in gaps["schema"]["fields"] if one["name"] == "reason")
    assert tuple(reason["constraints"]["enum"]) == get_args(Reason)


def test_where_two_deployments_lie_over_each_other_a_gap_counts_once() -> None:
    one = Made(
        [Deployment("one", 100.0, 200.0, TERMS)], [picture(50), picture(250)], [Gap(120, 130, "camera")]
    )
    coverage = Coverage(one, Span())
    for taken in one.pictures():
        assert taken.taken
        assert coverage.of(taken.taken).take(taken, taken.taken)
    assert [(covered.id, gap.since) for covered, gap in coverage.gaps(one.gaps())] == [("one", 120)]
    assert [covered.id for covered in coverage.all()] == ["one", f"{drawings.DEVICE}-undeclared"]
    outside = list(coverage.gaps(iter([Gap(210, 220, "card")])))
    assert [covered.is_made_up for covered, _ in outside] == [True]


def test_a_deployment_whose_beginning_is_not_known_has_issues_with_times() -> None:
    one = Made([Deployment("one", 100.0, 200.0, TERMS, is_sure=False)], [], [])
    coverage = Coverage(one, Span())
    row = coverage.row(coverage.all()[0])
    assert row["timestampIssues"]
    assert "its beginning is not known" in row["deploymentComments"]


def test_another_cameras_picture_is_in_it_if_its_time_has_an_offset(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    for name, offset in (("a..b.jpg", "+02:00"), ("c.jpg", "")):
        content = packages.foreign("2026:06:21 22:19:20", offset)
        drawings.put(trap.storage.spool, content, name)
        trap.ingest(name)
    done = export("package", "--copy")
    (row,) = media()
    assert (row["timestamp"], row["fileName"], row["captureMethod"]) == (
        "2026-06-22T02:04:20+05:45",
        "a..b.jpg",
        "",
    )
    assert Path("package", row["filePath"]).is_file()
    assert "left out: 1 picture of unknown time" in done.err
    assert packages.problems(Path("package")) == []


# ── From a folder ────────────────────────────────────────────────────────────────────────────────────


def stick(trap: bench.Trap, *names: str) -> Path:
    """A folder with copies under these names, as they lie on a stick."""
    folder = trap.folder / "stick"
    for number, name in enumerate(names):
        taken = utc(TAKEN + 60 * number)
        drawings.put(folder, drawings.trap(taken=taken, device=drawings.DEVICE), name)
    return folder


def test_a_stick_has_the_same_pictures_as_the_trap_in_whatever_layout(
    trap: bench.Trap, export: Export
) -> None:
    names = [put(trap, second) for second in (0, 60)]
    export("of-trap")
    folder = stick(
        trap, f"{drawings.DEVICE}/2026-06-21/{names[0]}", f"valley/20260622020515-{drawings.DEVICE}.jpg"
    )
    assert export("package", "--source", str(folder), "--copy").code == 0
    assert [row["mediaID"] for row in media()] == [row["mediaID"] for row in media(Path("of-trap"))]
    assert [row["timestamp"] for row in media()] == [row["timestamp"] for row in media(Path("of-trap"))]
    assert all(Path("package", row["filePath"]).is_file() for row in media())
    assert packages.problems(Path("package")) == []


def test_what_is_odd_on_a_stick_costs_itself_and_is_counted(trap: bench.Trap, export: Export) -> None:
    name = put(trap, 0)
    folder = stick(trap, name, "..x.jpg", "b..c.jpg")
    (folder / "rubbish.jpg").write_bytes(b"GIF89a")
    (folder / "SHA256SUMS").write_text(f"# 7 bytes\n{'0' * 64}  {name}\n")  # it was cut off
    (folder / "link.jpg").symlink_to(folder / "b..c.jpg")
    os.mkfifo(folder / "pipe.jpg")
    done = export("package", "--source", str(folder), "--copy")
    assert [row["fileName"] for row in media()] == ["b..c.jpg"]
    assert "left out: 4 files that cannot be read, or are not whole\n" in done.err
    assert packages.problems(Path("package")) == []


def test_pictures_on_a_stick_say_in_which_deployment_they_were_taken(
    trap: bench.Trap, export: Export
) -> None:
    for minute, which in enumerate((FIRST, FIRST, SECOND)):
        content = drawings.trap(
            taken=utc(TAKEN + 60 * minute),
            device=drawings.DEVICE,
            description="valley-1, Meadow",
            deployment=which,
        )
        drawings.put(trap.folder / "stick", content, f"IMG_{minute}.JPG")
    export("package", "--source", "stick")
    assert [row["deploymentID"] for row in media()] == [FIRST, FIRST, SECOND]
    rows = packages.rows(Path("package"), "deployments")
    assert {row["locationName"] for row in rows} == {"valley-1, Meadow"}
    assert [row["deploymentEnd"][11:19] for row in rows] == ["02:05:16", "02:06:16"]


# ── What was seen ────────────────────────────────────────────────────────────────────────────────────

BOX = {"type": "box", "label": "moth", "left": 16, "top": 12, "width": 32, "height": 24}
SHAPES = [
    (BOX, (0.1, 0.1), (0.2, 0.2)),
    (BOX | {"left": -16, "top": -12, "width": 64}, (0.0, 0.0), (0.3, 0.1)),  # over the edge
    (
        {
            "type": "polygon",
            "label": "moth",
            "vertices": [{"x": 16, "y": 12}, {"x": 48, "y": 60}, {"x": 32, "y": 30}],
        },
        (0.1, 0.1),
        (0.2, 0.4),
    ),
    ({"type": "point", "label": "moth", "x": 80, "y": 60}, (0.5, 0.5), None),
    ({"type": "line", "label": "moth", "vertices": []}, None, None),
    (BOX | {"left": "far"}, None, None),
    (BOX | {"left": 1e999}, None, None),
    (BOX | {"left": 400}, None, None),  # beside the picture
    (BOX | {"width": 0}, None, None),
    ({"type": "polygon", "vertices": []}, None, None),
    ({"type": "polygon", "vertices": [{"x": -1e999, "y": 0}, {"x": 1e999, "y": 9}]}, None, None),
    ({"type": "polygon", "vertices": [3]}, None, None),
    ({"type": "point", "label": "moth", "x": -1, "y": 60}, None, None),
    ({}, None, None),
]


@pytest.mark.parametrize(("shape", "corner", "size"), SHAPES)
def test_a_shape_of_scale_is_a_box_in_shares_of_the_picture_or_left_out(
    shape: dict[str, Any], corner: tuple[float, float] | None, size: tuple[float, float] | None
) -> None:
    found, odd = observations.of_scale([shape], 160, 120)
    assert ([(one.corner, one.size) for one in found], odd) == (
        [(corner, size)] * bool(corner),
        int(not corner),
    )


CONTOURS = [
    ([[[16, 12]], [[47, 12]], [[47, 35]]], True),
    ([[16, 12], [47, 35]], False),  # not N × 1 × 2
    ([], False),
    ("far", False),
    (None, False),
    ([[[16, "x"]]], False),
]


@pytest.mark.parametrize(("contour", "is_known"), CONTOURS)
def test_a_contour_of_an_annotation_is_the_box_around_it_or_left_out(contour: Any, is_known: bool) -> None:
    found, odd = observations.of_sticky_pi([{"contour": contour, "name": "insect"}, 7], 160, 120)
    expected = [("insect", (0.1, 0.1), (0.2, 0.2))] * is_known
    assert ([tuple(one) for one in found], odd) == (expected, 2 - is_known)


def test_what_people_at_scale_drew_are_observations(trap: bench.Trap, export: Export) -> None:
    identity = begin(trap, 0)
    trap.register(bench.Memory("labels"))
    names = [put(trap, second) for second in range(4)]
    packages.label(
        trap, "labels", [BOX, BOX | {"label": "be|e"}, {"type": "line"}], [], None, [{"type": "cuboid"}]
    )
    done = export(config=f'{CONFIG}{PROJECT}taxa = {{ moth = "Lepidoptera" }}\n')
    rows = packages.rows(Path("package"), "observations")
    assert [(row["mediaID"], row["observationType"]) for row in rows] == [
        (names[0], "animal"),
        (names[0], "unclassified"),
        (names[1], "blank"),
    ]
    moth = {key: value for key, value in rows[0].items() if value}
    assert moth.pop("observationID").startswith(names[0])
    assert moth == {
        "deploymentID": identity,
        "mediaID": names[0],
        "eventStart": "2026-06-22T02:04:15+05:45",
        "eventEnd": "2026-06-22T02:04:15+05:45",
        "observationLevel": "media",
        "observationType": "animal",
        "scientificName": "Lepidoptera",
        "count": "1",
        "bboxX": "0.1",
        "bboxY": "0.1",
        "bboxWidth": "0.2",
        "bboxHeight": "0.2",
        "classificationMethod": "human",
        "classifiedBy": "Scale AI",
        "classificationTimestamp": "2026-06-22T02:04:15+05:45",
        "observationTags": "label:moth",
    }
    assert rows[1]["observationTags"] == "label:be e"
    assert "left out: 2 shapes of an unknown form\n" in done.err
    assert "project.taxa: be|e\n" in done.err
    described = json.loads(Path("package/datapackage.json").read_text())
    assert described["taxonomic"] == [{"scientificName": "Lepidoptera"}]
    assert packages.problems(Path("package")) == []


def test_a_person_is_a_human_and_no_animal(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    trap.register(bench.Memory("labels"))
    put(trap, 0)
    packages.label(trap, "labels", [BOX | {"label": "person"}])
    export(config=f'{CONFIG}{PROJECT}taxa = {{ person = "Homo sapiens" }}\n')
    (row,) = packages.rows(Path("package"), "observations")
    assert (row["observationType"], row["scientificName"]) == ("human", "Homo sapiens")


# ── The pictures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["--copy", "--link"])
def test_the_pictures_come_along_as_they_are(trap: bench.Trap, export: Export, way: str) -> None:
    begin(trap, 0)
    names = [put(trap, second) for second in range(3)]
    (trap.storage.spool / names[1]).unlink()  # it has left the card
    done = export("package", way, config=f"{CONFIG}{PROJECT}media_public = true\n")
    there = [Path("package", row["filePath"]) for row in media()]
    assert [path.is_file() for path in there] == [True, False, True]
    assert [row["filePublic"] for row in media()] == ["true", "false", "true"]
    original = trap.storage.spool / names[0]
    assert there[0].read_bytes() == original.read_bytes()
    assert there[0].samefile(original) == (way == "--link")
    assert "in the tables without file: 1 picture\n" in done.err


def test_two_pictures_of_one_name_are_two_rows_and_two_files(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    name = put(trap, 0)
    drawings.put(trap.storage.spool, drawings.trap(seed=5), f"again/{name}")
    trap.ingest(f"again/{name}")
    export("package", "--copy")
    assert len({row["mediaID"] for row in media()}) == 2
    assert len({Path("package", row["filePath"]).read_bytes() for row in media()}) == 2
    assert packages.problems(Path("package")) == []


def test_a_copy_that_is_not_what_was_recorded_is_left_out(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    name = put(trap, 0)
    (trap.storage.spool / name).write_bytes(b"other")
    assert export("package", "--copy").err.endswith("in the tables without file: 1 picture\n")
    assert list(Path("package").rglob("*.jpg")) == []


@pytest.mark.parametrize("way", ["--copy", "--link"])
def test_a_link_in_the_place_of_a_picture_is_not_followed(trap: bench.Trap, export: Export, way: str) -> None:
    begin(trap, 0)
    there = trap.storage.spool / put(trap, 0)
    there.rename(trap.folder / "elsewhere.jpg")
    there.symlink_to(trap.folder / "elsewhere.jpg")
    assert export("package", way).err.endswith("in the tables without file: 1 picture\n")
    assert list(Path("package").rglob("*.jpg")) == []


@pytest.mark.parametrize("way", ["copy", "link"])
def test_a_second_picture_for_one_place_costs_itself(tmp_path: Path, way: Way) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)
    files, orders = Files(way), Orders(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        orders.add(tmp_path / name, "one.jpg", "")
    files.bring(orders, tmp_path)
    orders.close()
    assert files.missing == 1
    assert (tmp_path / "media" / "one.jpg").read_text() == "a.jpg"


def test_an_address_stands_in_place_of_the_path(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    name = put(trap, 0)
    export("package", "--url", "https://example.org/moths/")
    (row,) = media()
    assert row["filePath"] == f"https://example.org/moths/{drawings.DEVICE}/2026-06-21/{name}"
    assert packages.problems(Path("package")) == []


# ── What is asked for, and what is refused ───────────────────────────────────────────────────────────

REFUSED = [
    ((), CONFIG, "needs project.title, project.sampling_design, project.contributors"),
    (
        (),
        f'{CONFIG}{PROJECT.partition("data_license")[0]}data_license = "CC0-1.0"',
        "needs project.media_license",
    ),
    (
        (),
        f"{CONFIG}{PROJECT}".replace("CC0-1.0", "CC0"),
        "data_license: there is no 'CC0'; did you mean 'CC0-1.0'?",
    ),
    ((), f"{CONFIG}{PROJECT}".replace("46.2", "0").replace("-6.1", "0"), "the place of "),
    (("--until", "2026-01-01", "--from", "2026-01-02"), CONFIG + PROJECT, "--until: is not after --from"),
    (("--from", "2027-01-01"), CONFIG + PROJECT, "there is nothing to export"),
    (("--deployment", "nobody"), CONFIG + PROJECT, "there is no deployment 'nobody'; there are: 0a1b2c3d-"),
    (("--url", "attic"), CONFIG + PROJECT, "there is no destination 'attic'"),
    (("--url", "https://a.org/../b"), CONFIG + PROJECT, "'https://a.org/../b' holds two dots in a row"),
    (("--url", "attic", "--copy"), CONFIG + PROJECT, "--url says where the pictures are"),
]


@pytest.mark.parametrize(("words", "config", "says"), REFUSED)
def test_what_is_missing_or_wrong_is_one_line_and_nothing_is_written(
    trap: bench.Trap, export: Export, words: tuple[str, ...], config: str, says: str
) -> None:
    trap.catalog.deployments.start(drawings.DEVICE, {})
    put(trap, 1, latitude=None, longitude=None)
    before = set(Path().iterdir()) | {Path("trap.toml")}
    done = export("package", *words, config=config)
    assert done.code != 0
    assert says in done.err.splitlines()[-1]
    assert set(Path().iterdir()) == before


def test_who_does_what_is_asked_for_gets_the_package(trap: bench.Trap, export: Export) -> None:
    trap.catalog.deployments.start(drawings.DEVICE, {})
    put(trap, 1, latitude=None, longitude=None)
    somewhere = CONFIG.replace("latitude = 46.2", "latitude = 0").replace("longitude = -6.1", "longitude = 0")
    assert "; set what is missing" in export("package", config=somewhere).err
    assert "set trap.latitude and trap.longitude" in export("package", config=somewhere + PROJECT).err
    assert export("package", config=CONFIG + PROJECT).code == 0
    assert "name a folder that is not" in export("package").err
    assert export("another").code == 0


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_already_is_not_touched(trap: bench.Trap, export: Export, kind: str) -> None:
    begin(trap, 0)
    there = Path("package")
    if kind == "folder":
        there.mkdir()
    elif kind == "file":
        there.touch()
    else:
        there.symlink_to("nowhere")
    done = export()
    assert (done.code, done.err) == (
        1,
        f"trapsync: {there.absolute()} is there already: name a folder that is not\n",
    )


def test_no_text_in_a_table_is_a_formula_or_moves_a_terminal(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0, comments='=HYPERLINK("x")', habitat="a\x1b[2Jb", location_name="+1")
    export()
    (row,) = packages.rows(Path("package"), "deployments")
    assert row["deploymentComments"] == '\'=HYPERLINK("x")'
    assert row["habitat"] == "a?[2Jb"
    assert row["locationName"] == "'+1"


# ── However many there are ───────────────────────────────────────────────────────────────────────────


def test_the_memory_that_it_takes_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    few, many = (packages.weigh(tmp_path / str(count), count)[1] for count in (1500, 5000))
    assert many < few + 3000  # kB; the rows of the others are 1.5 MB of text, and many times that as objects


# ── Killed ───────────────────────────────────────────────────────────────────────────────────────────

STEPS = {*packages.failpoints()} - {"camtrap-dp: left-over removed"}
OF_ONE_WAY = {"--copy": "camtrap-dp: copied", "--link": "camtrap-dp: linked"}


@pytest.mark.parametrize("way", OF_ONE_WAY)
def test_killed_at_any_step_it_is_whole_or_not_there_and_the_next_clears_what_is_left(
    trap: bench.Trap, export: Export, way: str
) -> None:
    begin(trap, 0)
    put(trap, 1)
    assert export("whole", way).code == 0
    whole = packages.contents(Path("whole"))
    for number, name in enumerate(sorted(STEPS - {*OF_ONE_WAY.values()} | {OF_ONE_WAY[way]})):
        package = Path(f"package-{number}")
        assert packages.kill(package, way, name), f"never came to {name}"
        is_there = package.exists()
        assert is_there == (name == "camtrap-dp: renamed")
        if not is_there:
            assert packages.kill(package, way, "camtrap-dp: left-over removed")
            assert export(str(package), way).code == 0
        assert packages.contents(package) == whole
    assert not list(Path().glob(".package*"))


def test_two_exports_of_one_name_do_not_get_into_each_others_way(trap: bench.Trap, export: Export) -> None:
    begin(trap, 0)
    there = Path(".package.part")
    there.mkdir()
    descriptor = os.open(there, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert export().err == f"trapsync: {Path('package').absolute()} is being written by another process\n"
    os.close(descriptor)
    assert export().code == 0
