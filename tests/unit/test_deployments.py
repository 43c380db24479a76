"""Deployments in the catalog: one after another, never two at once, with times that are corrected."""

import importlib
import multiprocessing
import os
import signal
from contextlib import closing
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import drawings
from fake_time import FakeTime
from trap_bench import Trap
from trapsync.catalog import Catalog
from trapsync.catalog.deployments import Deployment, Deployments
from trapsync.clock import evidence, iso, utc
from trapsync.errors import CatalogError
from trapsync.files import failpoint
from trapsync.runtime import clock_correction
from trapsync.settings.schema import Trap as TrapSettings

DEVICE = drawings.DEVICE
CREEK: dict[str, Any] = {"latitude": 46.2, "longitude": 6.1, "location_name": "Creek", "every": 1200.0}
CREEK |= {"schedule": ["21:00 - 05:00"]}
DAY = 86400.0


@pytest.fixture
def deployments(trap: Trap) -> Deployments:
    """Those of a trap that has none yet."""
    return trap.catalog.deployments


def spans(deployments: Deployments) -> list[tuple[str, str | None]]:
    """From when until when each was."""
    return [(moment(one.began), one.ended and moment(one.ended)) for one in deployments.all()]  # type: ignore[misc]


def moment(at: float) -> str:
    """Unix seconds as UTC text."""
    return iso(utc(at))


def unix(text: str) -> float:
    """UTC text as unix seconds."""
    return datetime.fromisoformat(text).timestamp()


def test_the_first_deployment_begins_now_where_there_is_no_image(
    trap: Trap, deployments: Deployments
) -> None:
    assert deployments.keep(DEVICE, CREEK) is None  # whether there are images is not known yet
    one = deployments.settle(DEVICE, CREEK)
    assert one == Deployment(f"{DEVICE}-20260621T201915Z", unix("2026-06-21T20:19:15Z"), None, CREEK)
    assert deployments.all() == [one]
    assert deployments.current() == one


def test_the_first_deployment_begins_with_the_first_image(trap: Trap, deployments: Deployments) -> None:
    trap.put(-3600)
    trap.put(-7200, seed=2)
    trap.put(-9000, path="0a1b2c3f/0a1b2c3f.2026-06-21_17-00-00.jpg")  # another trap's
    trap.ingest()
    deployments.settle(DEVICE, CREEK)
    assert spans(deployments) == [("2026-06-21T18:19:15Z", None)]


@pytest.mark.parametrize(
    "change",
    [
        {"latitude": 46.3},
        {"longitude": 6.2},
        {"location_name": "Meadow"},
        {"location_name": None},
        {"location_id": "B7"},
        {"every": 600.0},
        {"schedule": ["sunset - sunrise"]},
        {"schedule": None},
    ],
)
def test_another_place_or_plan_is_another_deployment(
    trap: Trap, deployments: Deployments, change: dict[str, Any]
) -> None:
    first = CREEK | {"location_id": "A1"}
    deployments.settle(DEVICE, first)
    trap.time.sleep(DAY)
    terms = {key: value for key, value in (first | change).items() if value is not None}
    for _ in range(2):  # once, however often it is looked at
        deployments.keep(DEVICE, terms)
    assert spans(deployments) == [
        ("2026-06-21T20:19:15Z", "2026-06-22T20:19:15Z"),
        ("2026-06-22T20:19:15Z", None),
    ]
    assert [one.terms for one in deployments.all()] == [first, terms]


@pytest.mark.parametrize("change", [{"comments": "fog"}, {"location_id": "A1"}, {"camera_height": 1.5}])
def test_a_correction_of_texts_is_the_same_deployment(
    trap: Trap, deployments: Deployments, change: dict[str, Any]
) -> None:
    one = deployments.settle(DEVICE, CREEK)
    trap.time.sleep(DAY)
    deployments.keep(DEVICE, CREEK | change)
    (now,) = deployments.all()
    assert one
    assert (now.id, now.began, now.terms) == (one.id, one.began, CREEK | change)


def test_what_the_owner_ended_stays_ended_until_it_is_begun_again(
    trap: Trap, deployments: Deployments
) -> None:
    deployments.settle(DEVICE, CREEK)
    trap.time.sleep(DAY)
    deployments.end(DEVICE)
    trap.time.sleep(DAY)
    assert deployments.settle(DEVICE, CREEK | {"latitude": 1.0}) is None
    with pytest.raises(CatalogError, match="no deployment is under way"):
        deployments.end(DEVICE)
    deployments.start(DEVICE, CREEK)
    assert spans(deployments) == [
        ("2026-06-21T20:19:15Z", "2026-06-22T20:19:15Z"),
        ("2026-06-23T20:19:15Z", None),
    ]


def test_two_that_begin_in_one_second_have_two_ids(deployments: Deployments) -> None:
    deployments.settle(DEVICE, CREEK)
    deployments.start(DEVICE, CREEK)
    deployments.start(DEVICE, CREEK)
    assert [one.id for one in deployments.all()] == [
        f"{DEVICE}-20260621T201915Z",
        f"{DEVICE}-20260621T201915Z-2",
        f"{DEVICE}-20260621T201915Z-3",
    ]


# ── A catalog that is new ────────────────────────────────────────────────────────────────────────────


def put(trap: Trap, second: int, deployment: str, **facts: Any) -> None:
    """A picture of a deployment lies on the card."""
    taken = drawings.TAKEN + timedelta(seconds=second)
    content = drawings.trap(taken=taken, deployment=deployment, **facts)
    drawings.put(trap.storage.spool, content, f"{DEVICE}/{DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg")


def test_the_deployments_of_a_lost_catalog_are_found_again_by_the_pictures(
    trap: Trap, deployments: Deployments
) -> None:
    place = {"latitude": 46.2, "longitude": 6.1}
    put(trap, 60, f"{DEVICE}-20260621T201955Z", **place)
    put(trap, 120, f"{DEVICE}-boot-5b0c0d5e-2000", latitude=1.0, longitude=2.0)
    put(trap, 90, f"{DEVICE}-boot-5b0c0d5e-2000", latitude=1.0, longitude=2.0)
    put(trap, 240, f"{DEVICE}-20260621T202300Z", **place)
    put(trap, 200, f"{DEVICE}-20260621T202300Z", **place)
    put(trap, 230, "0a1b2c3f-20260621T202300Z")  # another trap's
    trap.ingest()
    trap.time.sleep(300)
    assert deployments.all() == []
    deployments.settle(DEVICE, CREEK)
    assert [(one.id, moment(one.began), one.is_whole) for one in deployments.all()] == [
        (f"{DEVICE}-20260621T201955Z", "2026-06-21T20:19:55Z", False),
        (f"{DEVICE}-boot-5b0c0d5e-2000", "2026-06-21T20:20:45Z", False),
        (f"{DEVICE}-20260621T202300Z", "2026-06-21T20:23:00Z", True),
    ]
    assert [one.terms.get("latitude") for one in deployments.all()] == [46.2, 1.0, 46.2]
    assert deployments.all()[-1].terms == CREEK


def test_at_another_place_another_deployment_follows_those_of_the_pictures(
    trap: Trap, deployments: Deployments
) -> None:
    put(trap, 0, f"{DEVICE}-20260620T000000Z", latitude=46.2, longitude=6.1)
    trap.ingest()
    trap.time.sleep(60)
    deployments.settle(DEVICE, CREEK | {"latitude": 46.3})
    assert spans(deployments) == [
        ("2026-06-20T00:00:00Z", "2026-06-21T20:20:15Z"),
        ("2026-06-21T20:20:15Z", None),
    ]


def test_an_id_of_the_future_does_not_keep_later_deployments_there(
    trap: Trap, deployments: Deployments
) -> None:
    put(trap, 0, f"{DEVICE}-99981231T000000Z")
    trap.ingest()
    trap.time.sleep(60)
    deployments.settle(DEVICE, CREEK)
    trap.time.sleep(60)
    deployments.start(DEVICE, CREEK)
    assert moment(deployments.all()[-1].began) == "2026-06-21T20:21:15Z"


# ── Killed ───────────────────────────────────────────────────────────────────────────────────────────


def live(folder: Path, number: int, when: str) -> None:
    """A start at the n-th place, and a text that comes later; killed before, or after, the first commit about it."""
    os.environ[failpoint.VARIABLE] = f"catalog: {when} deployments#1"
    importlib.reload(failpoint)
    catalog = Catalog.open(folder / "catalog.sqlite", FakeTime(1_782_073_155.0 + 60 * number))
    terms = CREEK | {"latitude": float(number)}
    catalog.deployments.settle(DEVICE, terms)
    catalog.deployments.keep(DEVICE, terms | {"comments": "fog"})


def test_after_a_hundred_kills_no_deployment_is_lost_and_none_is_there_twice(folder_in_memory: Path) -> None:
    forks = multiprocessing.get_context("fork")
    for number, when in product(range(26), ("before", "after", "before", "after")):
        process = forks.Process(target=live, args=(folder_in_memory, number, when))
        process.start()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    with closing(Catalog.open(folder_in_memory / "catalog.sqlite", FakeTime(1_782_080_000.0))) as catalog:
        known = catalog.deployments.all()
    assert [one.terms["latitude"] for one in known] == [float(number) for number in range(26)]
    assert {one.terms["comments"] for one in known} == {"fog"}
    assert [one.ended for one in known] == [*(one.began for one in known[1:]), None]


# ── Moments that a person names ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def busy(trap: Trap) -> Deployments:
    """Those of a trap that has taken a picture an hour ago."""
    trap.catalog.deployments.settle(DEVICE, CREEK)
    trap.put(3600)
    trap.ingest()
    trap.time.sleep(7200)
    return trap.catalog.deployments


def test_a_deployment_can_begin_and_end_at_a_moment_that_is_over(busy: Deployments) -> None:
    busy.start(DEVICE, CREEK, unix("2026-06-21T21:30:00Z"))
    busy.end(DEVICE, unix("2026-06-21T22:00:00.5Z"))
    assert spans(busy) == [
        ("2026-06-21T20:19:15Z", "2026-06-21T21:30:00Z"),
        ("2026-06-21T21:30:00Z", "2026-06-21T22:00:00Z"),
    ]


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("2026-06-21T22:20:00Z", "is in the future"),
        ("2026-06-21T20:19:14Z", "is before 2026-06-21T20:19:15Z, when the last change was"),
        ("2026-06-21T21:19:15Z", "is before the newest picture, of 2026-06-21T21:19:15Z"),
    ],
)
def test_a_moment_that_cannot_be_changes_nothing(busy: Deployments, at: str, reason: str) -> None:
    known = busy.all()
    with pytest.raises(CatalogError, match=reason):
        busy.start(DEVICE, CREEK, unix(at))
    with pytest.raises(CatalogError, match=reason):
        busy.end(DEVICE, unix(at))
    assert busy.all() == known


def test_no_moment_of_the_past_is_known_before_the_clock_is_set(trap: Trap, busy: Deployments) -> None:
    trap.time.is_trusted = False
    trap.time.reboot()
    with pytest.raises(CatalogError, match="the clock is not set"):
        busy.start(DEVICE, CREEK, unix("2026-06-21T21:30:00Z"))


# ── Clocks that are not set ──────────────────────────────────────────────────────────────────────────


def test_what_began_before_the_clock_was_set_is_corrected_and_keeps_its_id(tmp_path: Path) -> None:
    trap = Trap(tmp_path, FakeTime(0.0, is_trusted=False))
    trap.catalog.times.note_boot()
    trap.catalog.deployments.settle(DEVICE, CREEK)
    trap.time.sleep(60)
    trap.catalog.deployments.keep(DEVICE, CREEK | {"latitude": 1.0})
    trap.time.sleep(60)
    ids = [one.id for one in trap.catalog.deployments.all()]
    assert ids == [f"{DEVICE}-boot-5b0c0d5e-1000", f"{DEVICE}-boot-5b0c0d5e-1060"]
    assert not any(one.is_sure for one in trap.catalog.deployments.all())

    trap.time.step_wall(unix("2026-07-01T12:02:00Z") - trap.time.wall())
    trap.time.is_trusted = True
    clock_correction.correct_times(
        *(trap.catalog, trap.storage, TrapSettings(), lambda _: iter(())),
        clock_correction.Failures(trap.time),
    )
    assert spans(trap.catalog.deployments) == [
        ("2026-07-01T12:00:00Z", "2026-07-01T12:01:00Z"),
        ("2026-07-01T12:01:00Z", None),
    ]
    assert [(one.id, one.is_sure) for one in trap.catalog.deployments.all()] == [(one, True) for one in ids]
    trap.catalog.close()


@pytest.mark.parametrize("wrong_by", [-9000 * DAY, 9000 * DAY])
def test_no_deployment_ever_begins_before_the_one_before_it(
    trap: Trap, deployments: Deployments, wrong_by: float
) -> None:
    deployments.settle(DEVICE, CREEK)
    trap.time.reboot()
    trap.time.is_trusted = False
    trap.time.step_wall(wrong_by)
    deployments.start(DEVICE, CREEK)
    trap.time.reboot()  # its clock was never set
    trap.time.step_wall(DAY - wrong_by)
    trap.time.is_trusted = True
    deployments.start(DEVICE, CREEK)
    ends = [("2026-06-21T20:19:15Z", "2026-06-22T20:19:15Z")[wrong_by > 0], "2026-06-22T20:19:15Z"]
    assert spans(deployments) == [
        ("2026-06-21T20:19:15Z", ends[0]),
        (ends[0], ends[1]),
        (ends[1], None),
    ]


def test_a_clock_that_lost_years_takes_no_deployment_back(trap: Trap, deployments: Deployments) -> None:
    deployments.settle(DEVICE, CREEK)
    trap.time.step_wall(-9000 * DAY)
    deployments.start(DEVICE, CREEK)
    assert spans(deployments) == [
        ("2026-06-21T20:19:15Z", "2026-06-21T20:19:15Z"),
        ("2026-06-21T20:19:15Z", None),
    ]


def test_once_the_clock_was_set_in_a_boot_the_time_is_known(trap: Trap, deployments: Deployments) -> None:
    trap.catalog.times.note_boot()
    trap.time.is_trusted = False
    trap.time.step_wall(-1000 * DAY)
    assert deployments.settle(DEVICE, CREEK)
    assert spans(deployments) == [("2026-06-21T20:19:15Z", None)]


def test_a_first_image_that_is_held_takes_the_first_deployment_along(tmp_path: Path) -> None:
    trap = Trap(tmp_path, FakeTime(unix("2026-01-01T00:00:10Z"), is_trusted=False))
    trap.catalog.times.note_boot()
    seen = evidence(trap.time)
    name = f"{DEVICE}/2026-01-01/{DEVICE}.2026-01-01_00-00-10.jpg"
    drawings.put(trap.storage.spool, drawings.trap(taken=utc(seen.wall), evidence=seen), name)
    trap.ingest()
    trap.time.sleep(30)
    trap.catalog.deployments.settle(DEVICE, CREEK)
    trap.time.step_wall(unix("2026-07-01T12:00:30Z") - trap.time.wall())
    trap.time.is_trusted = True
    trap.catalog.times.note_boot()
    trap.catalog.deployments.correct_times()
    assert spans(trap.catalog.deployments) == [("2026-07-01T12:00:00Z", None)]
    trap.catalog.close()
