"""What comes after single images at Scale AI: batches for nights, and labels that come back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

import drawings
import killed_trap
from coco import check_coco
from conformance import Card
from fault_server import FaultServer
from scale_site import BATCHES, BOX, LIST, NIGHT, TASK, UPLOAD, Server, Watched, deliver
from scale_stub import PROJECT, Scale
from trapsync.destinations import Receipt, scale
from trapsync.errors import Unauthorised, Unreachable
from trapsync.image import Label


@pytest.fixture
def service() -> Scale:
    """Scale AI."""
    return Scale()


@pytest.fixture
def site(service: Scale, tmp_path: Path) -> Iterator[Server]:
    """It listens."""
    with FaultServer(service) as front:
        yield Server(front, service, tmp_path)


@pytest.fixture
def labels(site: Server) -> Iterator[scale.Scale]:
    """Connected to it."""
    destination = site.connect()
    yield destination
    destination.close()


# ── Nights and batches ───────────────────────────────────────────────────────────────────────────────


def batches(site: Server) -> dict[str, str]:
    return {name: batch["status"] for name, batch in site.service.mode.batches.items()}


def test_a_night_is_one_batch_from_noon_to_noon_at_the_traps_place(site: Server, card: Card) -> None:
    zone = ZoneInfo("Pacific/Auckland")  # where the first image, 20:19 UTC, is of the morning after
    settings = scale.Settings(kind="scale", **site.settings())
    destination = scale.connect("labels", settings, site.given(zone=zone))
    images = [card.image(hours * 3600, seed=1 + hours) for hours in (0, 3, 4)]
    for image in images:
        destination.deliver(image, card.path(image))
    prefix = f"{PROJECT} {drawings.DEVICE}"
    assert [task["batch"] for task in site.service.mode.tasks.values()] == [
        f"{prefix} 2026-06-21",
        f"{prefix} 2026-06-21",
        f"{prefix} 2026-06-22",
    ]
    assert site.front.requests.count(BATCHES) == 2


def test_a_batch_is_handed_in_when_its_noon_is_past_its_images_are_there_and_the_clock_is_right(
    site: Server, card: Card
) -> None:
    labels, image = site.connect(), card.image()
    labels.deliver(image, card.path(image))
    assert labels.follow_up() is False  # it is the evening of the same day
    site.time.sleep(86400)
    site.time.is_trusted = False
    assert labels.follow_up() is False
    site.time.is_trusted = True
    site.context.pending.append(drawings.TAKEN.timestamp() + 3600)
    assert labels.follow_up() is False
    assert batches(site) == {NIGHT: "staging"}
    site.context.pending.clear()
    assert labels.follow_up() is True
    assert batches(site) == {NIGHT: "in_progress"}
    assert labels.follow_up() is False
    assert site.front.requests.count(f"/v1/batches/{quote(NIGHT)}/finalize") == 1


def test_an_image_that_comes_when_its_night_is_handed_in_goes_to_a_second_batch(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    for number in range(3):
        image = card.image(number)
        labels.deliver(image, card.path(image))
        site.time.sleep(86400)
        labels.follow_up()
    assert batches(site) == dict.fromkeys([NIGHT, f"{NIGHT}-2", f"{NIGHT}-3"], "in_progress")


def test_a_batch_whose_note_was_lost_is_found_by_its_name(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    first, second = card.image(0), card.image(1)
    labels.deliver(first, card.path(first))
    site.context.notes.clear()
    site.connect().deliver(second, card.path(second))
    assert batches(site) == {NIGHT: "staging"}
    assert site.front.requests.count(BATCHES) == 1


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_batch_that_somebody_else_handed_in_or_removed_loses_no_image(
    site: Server, labels: scale.Scale, card: Card, is_removed: bool
) -> None:
    first, second = card.image(0), card.image(1)
    labels.deliver(first, card.path(first))
    if is_removed:
        del site.service.mode.batches[NIGHT]
    else:
        site.service.mode.batches[NIGHT]["status"] = "completed"
    labels.deliver(second, card.path(second))
    batch = site.service.task_of(f"{PROJECT}:{second.name[:-4]}")["batch"]
    assert batch == (NIGHT if is_removed else f"{NIGHT}-2")
    assert batches(site)[batch] == "staging"


def test_a_batch_that_was_handed_in_though_nobody_said_so_is_done_with(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    labels.deliver(image, card.path(image))
    site.time.sleep(86400)
    site.front.plan("/v1/batches/*/finalize", "answer lost")
    with pytest.raises(Unreachable):
        labels.follow_up()
    assert site.connect().follow_up() is True
    assert site.context.note_keys("batch:") == []
    site.front.assert_injected()


def test_a_batch_that_is_not_taken_is_left_alone_for_some_hours(
    site: Server, labels: scale.Scale, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    image = card.image()
    labels.deliver(image, card.path(image))
    site.time.sleep(86400)
    site.front.plan("/v1/batches/*/finalize", "400")
    assert labels.follow_up() is True
    assert "does not take the batch" in caplog.text
    assert labels.follow_up() is False
    site.time.sleep(7 * 3600)
    assert labels.follow_up() is True
    assert batches(site) == {NIGHT: "in_progress"}


def test_a_batch_of_this_name_in_another_project_is_the_owners_to_sort_out(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.service.add_project("flies")
    site.connect(project="flies", prefix=PROJECT)._batches.of(drawings.TAKEN)
    site.context.notes.clear()
    with pytest.raises(Unauthorised, match=r"of another project \('flies'\); .*`prefix` of its own"):
        site.connect().deliver(image, card.path(image))


def test_another_project_has_batches_of_its_own_and_the_old_one_is_handed_in(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    first, second = card.image(0), card.image(1)
    labels.deliver(first, card.path(first))
    site.service.add_project("flies")
    other = site.connect(project="flies")
    other.deliver(second, card.path(second))
    site.time.sleep(86400)
    assert other.follow_up() is True
    assert batches(site) == dict.fromkeys([NIGHT, f"flies {drawings.DEVICE} 2026-06-21"], "in_progress")


# ── Labels ───────────────────────────────────────────────────────────────────────────────────────────


def lists(site: Server) -> int:
    return site.front.requests.count(LIST)


def test_labels_are_fetched_in_their_own_time_and_only_as_long_as_some_are_awaited(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    assert labels.follow_up() is False
    task, other = deliver(site, card, labels, 0, 1)
    asked = lists(site)
    site.service.complete(task, BOX)
    assert labels.follow_up() is False  # not yet: it has just been found that none was awaited
    site.time.sleep(6 * 3600)
    assert labels.follow_up() is True
    assert site.context.answers == {1: Label(task["task_id"], "done", [BOX])}
    assert lists(site) == asked + 1
    site.service.complete(other)
    site.time.sleep(6 * 3600)
    labels.follow_up()
    assert site.context.answers[2] == Label(other["task_id"], "done", [])
    asked = lists(site)
    site.time.sleep(86400)
    labels.follow_up()
    assert lists(site) == asked


def test_only_what_has_changed_is_asked_for(site: Server, labels: scale.Scale, card: Card) -> None:
    tasks = deliver(site, card, labels, *range(4))
    for task in tasks[:3]:
        site.service.complete(task, *[BOX] * 300)
    labels.follow_up()
    site.service.pass_time(hours=1)
    site.connect().follow_up()  # once more, lest one of that moment was listed late
    site.front.backend = watched = Watched(site.service)
    site.service.complete(tasks[3], BOX)
    site.connect().follow_up()
    assert len(site.context.answers) == 4
    assert len(watched.sizes) == 1
    assert watched.sizes[0] < 3000  # and not the labels of the others once more


def test_many_answers_come_page_by_page(
    site: Server, labels: scale.Scale, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trapsync.destinations.scale.wire._PAGE", 2)
    for task in deliver(site, card, labels, *range(5)):
        site.service.complete(task, BOX)
    asked = lists(site)
    labels.follow_up()
    assert len(site.context.answers) == 5
    assert lists(site) == asked + 3


def test_a_list_that_breaks_off_is_asked_for_again(
    site: Server, labels: scale.Scale, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trapsync.destinations.scale.wire._PAGE", 2)
    for task in deliver(site, card, labels, *range(5)):
        site.service.complete(task, BOX)
    site.front.backend = Watched(site.service, broken=2)
    with pytest.raises(Unreachable):
        labels.follow_up()
    assert len(site.context.answers) == 2
    assert labels.follow_up() is True
    assert len(site.context.answers) == 5


def test_a_task_that_failed_or_was_cancelled_says_so_without_an_address(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    failed, cancelled, silent = deliver(site, card, labels, 0, 1, 2)
    site.service.fail(failed, "cannot\nfetch https://bucket.example/x?X-Amz-Signature=secret")
    site.service.fail(silent, "")
    cancelled |= {"status": "canceled", "updated_at": site.service._moment()}
    labels.follow_up()
    reasons = {number: label.reason for number, label in site.context.answers.items()}
    assert reasons == {1: "cannot fetch ...", 2: "the task was cancelled at Scale", 3: "no reason given"}
    assert {label.state for label in site.context.answers.values()} == {"error"}


def test_a_task_that_was_answered_before_we_knew_of_it_is_labelled_all_the_same(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    lost = card.image(9)
    labels.deliver(lost, card.path(lost))  # and a crash before that is written down
    task = site.service.task_of(f"{PROJECT}:{lost.name[:-4]}")
    site.service.complete(task, BOX)
    site.service.pass_time(days=30)
    (other,) = deliver(site, card, labels, 0)
    site.service.complete(other)
    labels.follow_up()
    receipt = site.connect().find_existing([lost])[lost.id]
    assert isinstance(receipt, Receipt)
    site.context.tasks[receipt.detail["task"]] = lost.id
    site.connect().follow_up()
    assert site.context.answers[lost.id].annotations == [BOX]


def test_a_task_that_another_made_for_us_gets_our_tag(site: Server, labels: scale.Scale, card: Card) -> None:
    image = card.image()
    (task,) = deliver(site, card, labels, 0)
    task["tags"], task["metadata"] = ["theirs"], {}
    site.context.tasks.clear()
    assert isinstance(labels.find_existing([image])[image.id], Receipt)
    assert task["tags"] == ["theirs", f"trapsync:{drawings.DEVICE}"]
    site.context.tasks[task["task_id"]] = image.id
    asked = len(site.front.requests)
    labels.find_existing([image])
    assert len(site.front.requests) == asked + 1


def test_the_tasks_of_other_traps_are_not_asked_for(site: Server, labels: scale.Scale, card: Card) -> None:
    (task,) = deliver(site, card, labels, 0)
    site.service.complete(task, BOX)
    other = scale.connect(
        "labels", scale.Settings(kind="scale", **site.settings()), site.given(device="ffffffff")
    )
    other.follow_up()
    assert site.context.answers == {}
    labels.follow_up()
    assert len(site.context.answers) == 1


def test_after_a_lost_catalog_the_tasks_are_found_again_and_their_labels_too(
    site: Server, card: Card, tmp_path: Path
) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    assert program.deliver() == 0
    for task in site.service.mode.tasks.values():
        site.service.complete(task, BOX)
    assert program.deliver() == 0
    before, sent = labelled(program), site.front.requests.count(TASK)
    assert [one["annotations"] for one in before] == [[BOX]] * 3
    for path in (program.spool.parent / "state").glob("catalog.sqlite*"):
        path.unlink()
    assert program.deliver() == 0
    assert labelled(program) == before
    assert len(site.stored()) == 3
    assert site.front.requests.count(TASK) == sent == 3
    assert site.front.requests.count(UPLOAD) == 3


def run(program: killed_trap.Program, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of the program."""
    line = [sys.executable, "-m", "trapsync", "-c", str(program.config), *command]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def labelled(program: killed_trap.Program) -> list[dict[str, Any]]:
    """What is exported plainly."""
    said = run(program, "labels", "export", "--format", "plain")
    assert said.returncode == 0, said.stderr
    rows: list[dict[str, Any]] = json.loads(said.stdout)
    return rows


def test_labels_are_shown_and_exported_as_coco(site: Server, card: Card, tmp_path: Path) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    program.deliver()
    done, failed, _ = site.service.mode.tasks.values()
    site.service.complete(done, BOX, {"type": "point", "label": "insect", "x": 1, "y": 2})
    site.service.fail(failed, "too dark")
    program.deliver()

    counts = {"destination": "labels", "open": 1, "done": 1, "error": 1}
    shown = json.loads(run(program, "labels", "--json").stdout)
    assert shown["destinations"] == [counts]
    assert [error["reason"] for error in shown["errors"]] == ["too dark"]
    lines = run(program, "labels").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["destination", "awaited", "done", "in", "error"],
        ["labels", "1", "1", "1"],
    ]
    assert lines[2].endswith(": labels: too dark")

    out = tmp_path / "labels.json"
    said = run(program, "labels", "export", "--out", str(out))
    assert said.stderr.splitlines() == [
        "1 image with labels",
        "left out: 1 shape without an area; --format plain has them",
    ]
    dataset = json.loads(out.read_text())
    check_coco(dataset)
    assert [row["file_name"] for row in dataset["images"]] == [done["metadata"]["image"]]
    assert [row["bbox"] for row in dataset["annotations"]] == [[1, 2, 30, 40]]
    assert dataset["categories"] == [{"id": 1, "name": "insect", "supercategory": ""}]
    complaint = run(program, "labels", "export", "--destination", "elsewhere")
    assert complaint.returncode == 1
    assert "there is no destination 'elsewhere'" in complaint.stderr
