"""[deployment]: the terms of Camtrap DP, checked; remote ones are in force without a trial."""

from pathlib import Path
from typing import Any

import pytest

import signed
from fake_time import FakeTime
from trapsync.errors import SettingsError
from trapsync.remote.in_force import lay, load, report
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings import config_file
from trapsync.settings.deployment import terms
from trapsync.settings.layers import Files

CREEK = {"deployment": {"location_name": "Creek", "comments": "fog"}}
FASTER = {"capture": {"every": "5 min"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("camera_heading = 361", "camera_heading: 361 is not between 0 and 360"),
        ("camera_heading = 90.5", "camera_heading = 90.5: must be a whole number"),
        ("camera_tilt = -91", "camera_tilt: -91 is not between -90 and 90"),
        ("camera_height = 150", "camera_height: 150 is not between 0 and 50 metres"),
        ("detection_distance = -1.0", "detection_distance: -1 is not between 0 and 500 metres"),
        ("coordinate_uncertainty = 0", "coordinate_uncertainty: 0 is not between 1 and 100000 metres"),
        ("bait_use = 'light'", "bait_use = 'light': must be true or false"),
        ("feature_type = 'culverts'", "feature_type = 'culverts': must be one of: roadPaved, "),
        ('habitat = "a\\u0007b"', "habitat: must be one line of at most 300 characters"),
        ('comments = """two\nlines"""', "comments: must be one line of at most 1000 characters"),
        (f"location_name = '{'x' * 201}'", "location_name: must be one line of at most 200 characters"),
        ("tags = ['a|b']", "tags: 'a|b' must not be empty, nor hold \"|\""),
        ("groups = [' ']", "groups: ' ' must not be empty"),
        (f"tags = {['x'] * 21}", "tags: has 21 entries; 20 are the most"),
    ],
)
def test_a_wrong_term_is_one_line_with_its_key(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        config_file.parse(f"[deployment]\n{text}", "trapsync.toml")
    assert f"deployment.{says}" in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_the_terms_of_a_deployment_are_what_is_known() -> None:
    text = """
        trap = {name = "valley-1", latitude = 46.2, longitude = 6.1}
        camera.kind = "simulated"
        capture = {every = "5 min", schedule = ["sunset - sunrise"]}
        [deployment]
        location_name = "Creek"
        camera_height = 1.5
        camera_heading = 0
        bait_use = false
        tags = ["bait:light"]
    """
    assert terms(config_file.parse(text, "trapsync.toml")) == {
        "name": "valley-1",
        "latitude": 46.2,
        "longitude": 6.1,
        "camera": "simulated",
        "every": 300.0,
        "schedule": ["sunset - sunrise"],
        "location_name": "Creek",
        "camera_height": 1.5,
        "camera_heading": 0,
        "bait_use": False,
        "tags": ["bait:light"],
    }


# ── Sent remotely ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return signed.prepare(tmp_path / "trap")


@pytest.fixture
def trap(source: Path) -> RemoteSettings:
    return RemoteSettings(Files(source), FakeTime(signed.ISSUED.timestamp() + 3600))


def accepted(trap: RemoteSettings, version: int, tables: dict[str, Any]) -> str:
    """Have settings accepted; what is reported of them."""
    outcome = trap.accept(signed.settings(version, tables))
    assert outcome.is_accepted
    return f"{report(lay(trap._files))['state']}: {outcome.text}"


def test_texts_about_a_deployment_are_in_force_without_a_trial(trap: RemoteSettings, source: Path) -> None:
    assert accepted(trap, 1, CREEK) == "committed: settings 1 need no trial"
    assert (load(source).settings.deployment.location_name, trap.begin().is_trial) == ("Creek", False)


def test_texts_beside_something_else_are_tried_with_it(trap: RemoteSettings) -> None:
    assert accepted(trap, 1, CREEK | FASTER).startswith("validated")


def test_texts_beside_what_was_tried_before_are_not_tried_again(trap: RemoteSettings, source: Path) -> None:
    accepted(trap, 1, FASTER)
    assert trap.begin().is_trial
    trap.commit()
    assert accepted(trap, 2, FASTER | CREEK).startswith("committed")
    now = load(source).settings
    assert (float(now.capture.every), now.deployment.comments) == (300.0, "fog")


def test_without_what_was_in_force_before_they_are_tried(trap: RemoteSettings) -> None:
    accepted(trap, 1, FASTER)
    trap.begin()
    trap.commit()
    assert accepted(trap, 2, CREEK).startswith("validated")


def test_texts_that_come_during_a_trial_end_it(trap: RemoteSettings, source: Path) -> None:
    accepted(trap, 1, FASTER)
    assert trap.begin().is_trial
    assert accepted(trap, 2, CREEK).startswith("committed")
    trap.commit()  # of the trial that has ended
    now = load(source).settings
    assert (float(now.capture.every), now.deployment.comments) == (1200.0, "fog")


def test_what_an_override_hides_is_tried_all_the_same(tmp_path: Path) -> None:
    source = signed.prepare(tmp_path / "trap")
    source.with_name("override.toml").write_text('[capture]\nevery = "5 min"\n')
    trap = RemoteSettings(Files(source), FakeTime(signed.ISSUED.timestamp() + 3600))
    assert trap.accept(signed.settings(1, CREEK | FASTER)).is_accepted
    assert report(lay(trap._files))["effective_hash"] is None


def test_texts_take_no_room_in_the_heartbeat(trap: RemoteSettings, source: Path) -> None:
    accepted(trap, 1, {"deployment": {"comments": "x" * 1000}})
    assert report(load(source))["values"] == {}


def test_a_trap_may_take_them_from_nobody(tmp_path: Path) -> None:
    strict = signed.TRUSTING + 'allow = ["capture"]\n'
    trap = RemoteSettings(
        Files(signed.prepare(tmp_path / "trap", pushed=strict)), FakeTime(signed.ISSUED.timestamp() + 3600)
    )
    assert trap.accept(signed.settings(1, CREEK)).code == "forbidden"
