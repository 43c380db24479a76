"""`trapsync hub export camtrap-dp`: what all traps delivered, what detectors found, and what the traps reported."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import camtrap_packages as packages
import drawings
import hub_server
import operator_desk
import reported
from camtrap_packages import PROJECT
from hub_server import RunningHub

OTHER = "00000001"
HOUR = drawings.TAKEN.replace(minute=0, second=0)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub that runs, which two traps know."""
    with hub_server.running(tmp_path / "hub") as running:
        for device in (drawings.DEVICE, OTHER):
            reported.heard(running.hub, device)
        yield running


Export = Callable[..., tuple[int, str]]


@pytest.fixture
def export(hub: RunningHub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Export:
    """Run `trapsync hub export camtrap-dp package` beside the hub: the exit code, and what it says."""
    monkeypatch.chdir(hub.folder.parent)

    say = operator_desk.typing(monkeypatch, capfd)

    def run(*words: str, config: str = PROJECT) -> tuple[int, str]:
        Path("project.toml").write_text(config)
        folder = () if "--folder" in words else ("--folder", "hub")
        code, out, err = say("-c", "project.toml", "hub", "export", "camtrap-dp", "package", *words, *folder)
        assert (out, "Traceback" in err) == ("", False)
        return code, err

    return run


def upload(hub: RunningHub, minute: int, device: str = drawings.DEVICE, **facts: Any) -> tuple[str, str]:
    """An image of that minute arrives; its name and MD5."""
    taken = HOUR + timedelta(minutes=minute)
    name, content = f"{device}.{taken:%Y-%m-%d_%H-%M-%S}.jpg", drawings.trap(taken=taken, **facts)
    md5 = hashlib.md5(content).hexdigest()
    assert hub.upload(name, content, md5).status_code == 200
    return name, md5


def annotate(hub: RunningHub, name: str, md5: str, shapes: list[Any], version: str = "1") -> None:
    device, stamp, _ = name.split(".")
    about = {
        "algo_name": "detector",
        "algo_version": version,
        "device": device,
        "datetime": stamp,
        "md5": md5,
    }
    answer = hub.ask("put_uid_annotations", [{"annotations": shapes, "metadata": about}])
    assert answer.status_code == 200


def report(hub: RunningHub, *bodies: dict[str, Any], device: str = drawings.DEVICE) -> None:
    assert hub.hub.reports.take(device, reported.lines(*bodies), 0, device)["refused"] == []


def test_all_traps_are_in_one_package_with_what_they_reported(hub: RunningHub, export: Export) -> None:
    report(hub, reported.deployment(camera_height=1.5), reported.night())
    early, _ = upload(hub, -10)
    name, _ = upload(hub, 10)
    others, _ = upload(hub, 5, OTHER, latitude=-33.5, longitude=18.4)
    code, said = export("--copy")
    assert (code, said.splitlines()[0]) == (0, "3 deployments, 3 pictures, 0 observations, 1 gap")
    rows = {row["deploymentID"]: row for row in packages.rows(Path("package"), "deployments")}
    identity = f"{drawings.DEVICE}-20260621T200000Z"
    assert set(rows) == {identity, f"{drawings.DEVICE}-undeclared", f"{OTHER}-undeclared"}
    assert (rows[identity]["locationName"], rows[identity]["cameraHeight"]) == ("the upper meadow", "1.5")
    assert rows[f"{OTHER}-undeclared"]["latitude"] == "-33.5"
    media = {row["mediaID"]: row for row in packages.rows(Path("package"), "media")}
    assert {key: row["deploymentID"].partition("-")[2] for key, row in media.items()} == {
        early: "undeclared",
        name: "20260621T200000Z",
        others: "undeclared",
    }
    # The zone of the nights has +01:00 in winter; the other trap reported none.
    assert media[name]["timestamp"] == "2026-06-21T21:10:00+01:00"
    assert media[others]["timestamp"] == "2026-06-21T20:05:00+00:00"
    assert all(Path("package", row["filePath"]).is_file() for row in media.values())
    (gap,) = packages.rows(Path("package"), "sampling-gaps")
    assert (gap["deploymentID"], gap["reason"]) == (identity, "camera")
    assert (gap["gapStart"], gap["gapEnd"]) == ("2026-06-21T21:20:00+01:00", "2026-06-22T00:40:00+01:00")
    assert packages.problems(Path("package")) == []


def test_what_detectors_found_are_observations(hub: RunningHub, export: Export) -> None:
    name, md5 = upload(hub, 0)
    contour = [[[16, 12]], [[47, 12]], [[47, 35]]]
    annotate(hub, name, md5, [{"contour": contour, "name": "insect"}, {"contour": 3, "name": "insect"}])
    annotate(hub, name, md5, [], version="2")
    code, said = export(config=f'{PROJECT}taxa = {{ insect = "Insecta" }}\n')
    assert code == 0
    found, blank = packages.rows(Path("package"), "observations")
    assert (found["observationType"], found["scientificName"]) == ("animal", "Insecta")
    assert (found["classificationMethod"], found["classifiedBy"]) == ("machine", "detector 1")
    box = [float(found[f"bbox{key}"]) for key in ("X", "Y", "Width", "Height")]
    assert box == [0.1, 0.1, 0.2, 0.2]
    assert (blank["observationType"], blank["classifiedBy"]) == ("blank", "detector 2")
    assert "left out: 1 shape of an unknown form\n" in said
    assert packages.problems(Path("package")) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"annotations": 3}', "[" * 10**5, '{"annotations": [NaN]}']
)
def test_an_annotation_that_is_none_costs_itself(hub: RunningHub, export: Export, text: str) -> None:
    name, md5 = upload(hub, 0)
    annotate(hub, name, md5, [])
    with hub.hub.database.writing() as connection:
        connection.execute("UPDATE uid_annotations SET json = ?", (text,))
    code, said = export()
    assert (code, packages.rows(Path("package"), "observations")) == (0, [])
    assert "left out: 1 shape of an unknown form\n" in said


def test_a_trap_whose_place_nobody_knows_is_left_out_and_named(hub: RunningHub, export: Export) -> None:
    upload(hub, 0)
    upload(hub, 5, OTHER, latitude=None, longitude=None)
    code, said = export()
    assert (code, said.splitlines()[0]) == (0, "1 deployment, 1 picture, 0 observations, 0 gaps")
    assert f"left out, for their place is not known: {OTHER}-undeclared\n" in said
    assert "left out: 1 picture of unknown place\n" in said


def test_what_no_hub_has_is_one_line(hub: RunningHub, export: Export) -> None:
    upload(hub, 0)
    cases = {
        ("--folder", "nowhere"): "nowhere: there is no hub in this folder; name its folder with --folder",
        ("--url", "archive"): "--url: 'archive' is no address such as https://pictures.example.org",
        ("--deployment", "x"): "there is no deployment 'x'; there are: none",
    }
    for words, says in cases.items():
        assert export(*words) == (1, f"trapsync: {says}\n")
    code, said = export(config="")
    assert (code, said.count("\n")) == (1, 1)
    assert "needs project.title, project.sampling_design, project.contributors" in said


def test_the_hub_is_as_it_was_and_nothing_is_left_beside_the_package(hub: RunningHub, export: Export) -> None:
    upload(hub, 0)
    before = json.dumps(hub.rows())
    assert export()[0] == 0
    assert json.dumps(hub.rows()) == before
    assert sorted(path.name for path in Path().iterdir()) == ["hub", "package", "project.toml"]
