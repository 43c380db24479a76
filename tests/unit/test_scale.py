"""Annotation tasks at Scale AI, against a stub that its own SDK takes for the service."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import drawings
import hub_server
import imagekit_stub
import killed_trap
import leak_check
from conformance import Card, OverHttp
from fault_server import JSON, FaultServer
from imagekit_site import Account
from scale_site import BATCHES, IMPORT, LIST, NIGHT, TASK, UNIQUE_ID, UPLOAD, WEB, Server
from scale_stub import LIVE_KEY, PROJECT, TEST_KEY, Scale
from trapsync import destinations
from trapsync.destinations import Receipt, scale
from trapsync.errors import Failed, Held, NotThere, Refused, SettingsError, Unauthorised, Unreachable
from trapsync.image import Image


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


class TestByUpload(OverHttp):
    """The promises that all destinations make, with files sent to Scale itself."""

    kind = "scale"
    echoes = True
    steps = (BATCHES, LIST, UPLOAD, TASK)
    upload = UPLOAD
    resends = True  # it has the file, but cannot be asked where


class TestByAddress(OverHttp):
    """The same where another destination has the images: Scale fetches them there."""

    kind = "scale"
    echoes = True
    steps = (BATCHES, LIST, IMPORT, TASK)
    upload = IMPORT
    resends = True  # the question, not the image: Scale says that it has it (409)
    poison = "500"

    @pytest.fixture
    def site(self, site: Server) -> Server:
        site.is_addressed = True
        return site

    def test_a_vanished_file_is_said_to_be_gone(self, *_: object) -> None:
        """It need not be there any more: see below."""

    def test_a_file_that_changed_since_it_was_examined_is_not_stored(self, *_: object) -> None:
        """Nor is it read."""

    def test_killed_at_each_failpoint_every_image_is_there_once(self, *_: object) -> None:
        """In one life with the Sticky Pi server, below."""


# ── The file ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def by_address(site: Server) -> Iterator[scale.Scale]:
    """Connected to it, after a destination that gives addresses."""
    site.is_addressed = True
    destination = site.connect()
    yield destination
    destination.close()


def test_where_another_destination_has_it_no_byte_of_an_image_is_sent(
    site: Server, by_address: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.address(image)
    content = card.bytes(image)
    card.path(image).unlink()
    site.address = lambda one: WEB + one.name
    destination = site.connect()
    destination.deliver(image, card.path(image))
    assert site.stored() == {image.name: content}
    assert sum(site.front.received.values()) < 2000
    assert UPLOAD not in site.front.requests
    assert site.service.task_of(UNIQUE_ID)["params"]["attachment"].startswith("scaledata://")


def test_an_import_whose_answer_was_lost_leaves_one_file_and_one_task(
    site: Server, by_address: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.front.plan(IMPORT, "answer lost")
    with pytest.raises(Unreachable):
        by_address.deliver(image, card.path(image))
    site.connect().deliver(image, card.path(image))
    site.front.assert_injected()
    assert len(site.service.mode.files) == 1
    assert site.service.task_of(UNIQUE_ID)["params"]["attachment"] == WEB + image.name
    assert UPLOAD not in site.front.requests


def test_an_upload_whose_answer_was_lost_is_made_once_more_and_the_task_is_one(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.front.plan(UPLOAD, "answer lost")
    with pytest.raises(Unreachable):
        labels.deliver(image, card.path(image))
    site.connect().deliver(image, card.path(image))
    references = [file["reference_id"] for file in site.service.mode.files.values()]
    assert references == [UNIQUE_ID, f"{UNIQUE_ID}~2"]
    assert site.stored() == {image.name: card.bytes(image)}


def test_a_file_that_is_at_scale_is_not_sent_again_for_want_of_a_task(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.front.plan(TASK, "503")
    with pytest.raises(Unreachable):
        labels.deliver(image, card.path(image))
    site.connect().deliver(image, card.path(image))
    assert site.front.requests.count(UPLOAD) == 1
    assert site.context.note_keys("file:") == []


def test_an_address_that_scale_cannot_fetch_is_made_up_for_by_sending_the_file(
    site: Server, by_address: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.address = lambda _image: "http://127.0.0.1:9/hut.jpg"
    site.connect().deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}
    other = card.image(1)
    with pytest.raises(Failed, match=r"does not take the file \(400\): could not fetch \.\.\.$"):
        site.connect(allow_upload=False).deliver(other, card.path(other))


def test_an_address_at_which_there_is_something_else_is_made_up_for_by_sending_the_file(
    site: Server, by_address: scale.Scale, card: Card
) -> None:
    first, second = card.image(0), card.image(1)
    site.service.web[WEB + "small"] = b"a small copy, or a portal's page"
    site.address = lambda _image: WEB + "small"
    with pytest.raises(Failed, match="a file of 32 bytes; the image has"):
        site.connect(allow_upload=False).deliver(first, card.path(first))
    assert site.stored() == {}
    for image in (first, second):
        site.connect().deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image) for image in (first, second)}


def test_a_file_that_arrived_short_is_not_put_into_a_task(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.service.is_careless = True
    with pytest.raises(Failed, match="Scale has a file of"):
        labels.deliver(image, card.path(image))
    assert site.stored() == {}
    site.service.is_careless = False
    labels.deliver(image, card.path(image))
    assert site.stored() == {image.name: card.bytes(image)}


def test_without_an_address_and_without_leave_to_send_it_an_image_is_held(site: Server, card: Card) -> None:
    image = card.image()
    destination = site.connect(depends_on="gallery", allow_upload=False)
    with pytest.raises(Held, match="gallery gives no address"):
        destination.deliver(image, card.path(image))
    assert site.front.requests == [LIST]


# ── The task ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_says_what_is_to_be_done_and_for_which_image(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    receipt = labels.deliver(image, card.path(image))
    task = site.service.task_of(UNIQUE_ID)
    assert receipt.detail == {"task": task["task_id"], "batch": NIGHT}
    assert task["params"]["geometries"] == {"box": {"objects_to_annotate": ["insect"]}}
    assert "instruction" not in task["params"]
    assert task["tags"] == [f"trapsync:{drawings.DEVICE}"]
    assert task["metadata"] == {"image": image.name, "sha256": image.sha256, "size": [160, 120]}
    other = card.image(1)
    more = {
        "geometries": ("polygon", "point"),
        "labels": ("moth", "fly"),
        "instruction": "Draw.",
        "prefix": "x",
    }
    site.connect(**more).deliver(other, card.path(other))
    task = site.service.task_of(f"x:{other.name[:-4]}")
    assert task["params"]["geometries"]["point"] == {"objects_to_annotate": ["moth", "fly"]}
    assert (task["params"]["instruction"], task["batch"]) == ("Draw.", f"x {drawings.DEVICE} 2026-06-21")


def test_a_project_may_say_what_is_to_be_done(site: Server, card: Card) -> None:
    image = card.image()
    destination = site.connect(geometries=(), labels=())
    with pytest.raises(Failed, match="geometries is required"):
        destination.deliver(image, card.path(image))
    site.service.add_project(PROJECT, geometries={"box": {"objects_to_annotate": ["beetle"]}})
    destination.deliver(image, card.path(image))
    assert "geometries" not in site.service.task_of(UNIQUE_ID)["params"]


def test_a_task_of_another_project_is_not_ours(site: Server, labels: scale.Scale, card: Card) -> None:
    image = card.image()
    site.service.add_project("flies")
    site.connect(project="flies", prefix=PROJECT).deliver(image, card.path(image))
    with pytest.raises(Refused, match=r"a task in another project \('flies'\).*`prefix` of its own"):
        labels.deliver(image, card.path(image))
    assert len(site.service.mode.tasks) == 1


def test_a_cancelled_task_is_there(site: Server, labels: scale.Scale, card: Card) -> None:
    image = card.image()
    labels.deliver(image, card.path(image))
    site.service.task_of(UNIQUE_ID)["status"] = "canceled"
    assert isinstance(labels.find_existing([image])[image.id], Receipt)


@pytest.mark.parametrize(
    ("path", "size", "reason"),
    [("IMG_0001.JPG", 0, "neither the trap nor the time"), (drawings.NAME, 10**8, "no file above 80 MB")],
)
def test_what_can_be_no_task_is_refused_without_a_request(
    site: Server, labels: scale.Scale, card: Card, path: str, size: int, reason: str
) -> None:
    image = card.put(drawings.trap(), path)
    image = replace(image, size=size or image.size)
    with pytest.raises(Refused, match=reason):
        labels.deliver(image, card.path(image))
    assert site.front.requests == []


@pytest.mark.parametrize("fault", ["answer lost", "500 though stored", "half JSON"])
def test_a_task_that_was_made_although_nobody_said_so_is_found(
    site: Server, labels: scale.Scale, card: Card, fault: str
) -> None:
    image = card.image()
    site.front.plan(TASK, fault)
    receipt = labels.deliver(image, card.path(image))
    assert receipt.detail["task"] == site.service.task_of(UNIQUE_ID)["task_id"]
    site.front.assert_injected()
    assert site.front.requests.count(TASK) == 1


def test_a_doubt_that_cannot_be_settled_is_unreachable(site: Server, labels: scale.Scale, card: Card) -> None:
    image = card.image()
    labels.find_existing([image])
    site.front.plan(TASK, "answer lost")
    site.front.plan(LIST, "503")
    with pytest.raises(Unreachable, match="and then"):
        labels.deliver(image, card.path(image))
    assert isinstance(labels.find_existing([image])[image.id], Receipt)


def test_a_409_is_settled_by_asking_for_the_task(site: Server, labels: scale.Scale, card: Card) -> None:
    image = card.image()
    labels.find_existing([image])
    there = site.connect().deliver(image, card.path(image))
    assert labels.deliver(image, card.path(image)) == there
    assert len(site.service.mode.tasks) == 1


def test_a_409_about_a_task_that_is_not_shown_costs_one_image_and_not_the_turn(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image, other = card.image(0), card.image(1)
    labels.find_existing([image, other])
    site.connect().deliver(image, card.path(image))
    backend = site.front.backend

    def hidden(path: str, headers: Any, body: bytes) -> Any:
        if path.startswith("GET /v1/tasks"):
            return 200, JSON, b'{"docs": [], "total": 0}'
        return backend(path, headers, body)

    hidden.methods = Scale.methods  # type: ignore[attr-defined]
    site.front.backend = hidden
    with pytest.raises(Failed, match="does not show it"):
        labels.deliver(image, card.path(image))
    labels.deliver(other, card.path(other))


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": "x"},
        {"metadata": [5]},
        {"tags": "trapsync:0a1b2c3d"},
        {"updated_at": "9999-12-31T23:59:59-05:00"},
        {"updated_at": "0001-01-01T00:00:00+05:00"},
        {"updated_at": "0001-01-01T00:00:00"},
        {"batch": {"a": 1}},
    ],
)
def test_a_task_with_an_odd_field_is_the_images_task_all_the_same(
    site: Server, labels: scale.Scale, card: Card, odd: dict[str, Any]
) -> None:
    image = card.image()
    labels.deliver(image, card.path(image))
    task = site.service.task_of(UNIQUE_ID)
    task |= odd
    receipt = labels.find_existing([image])[image.id]
    assert isinstance(receipt, Receipt)
    assert receipt.at == UNIQUE_ID
    assert receipt.detail["task"] == task["task_id"]
    task["tags"] = [f"trapsync:{drawings.DEVICE}"]
    site.context.tasks[task["task_id"]] = image.id
    labels.follow_up()


def test_a_task_that_cannot_be_tagged_costs_one_image(site: Server, labels: scale.Scale, card: Card) -> None:
    odd, good = card.image(0), card.image(1)
    for image in (odd, good):
        labels.deliver(image, card.path(image))
    site.service.task_of(UNIQUE_ID)["tags"] = []
    site.front.plan("PUT /v1/task/*", "400")
    known = labels.find_existing([odd, good])
    site.front.assert_injected()
    assert isinstance(known[odd.id], Failed)
    assert isinstance(known[good.id], Receipt)


def test_an_image_that_is_lost_where_scale_would_fetch_it_waits_until_it_is_there_again(
    site: Server, by_address: scale.Scale, card: Card
) -> None:
    image = card.image()

    def lost(_image: Image) -> str:
        raise NotThere("hub.example does not hold it")

    site.address = lost
    with pytest.raises(Held, match="does not hold it"):
        site.connect().deliver(image, card.path(image))
    assert site.stored() == {}


# ── Beside the Sticky Pi server ──────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(300)
def test_images_at_a_hub_are_fetched_there_and_a_kill_doubles_neither_file_nor_task(
    site: Server, card: Card, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(hub_server.PASSWORD)
    password.chmod(0o600)
    with hub_server.running(tmp_path / "hub") as hub:
        home = {"kind": "stickypi", "url": hub.url, "username": hub.user, "password_file": str(password)}
        tables = {"home": home, "labels": {**site.tables()["labels"], "depends_on": "home"}}
        program = killed_trap.Program(tmp_path / "trap", tables)
        images = []
        for number, failpoint in enumerate(("scale: file made", "scale: task made")):
            images.append(card.image(number))
            program.lay_in([card.path(images[-1])])
            assert program.killed_at(failpoint, 1), failpoint
            assert program.deliver() == 0
        tasks = site.service.mode.tasks.values()
        assert sorted(task["metadata"]["image"] for task in tasks) == [image.name for image in images]
        assert len(site.service.mode.files) == len(images)
        assert UPLOAD not in site.front.requests
        assert {file["size"] for file in site.service.mode.files.values()} <= {image.size for image in images}


def test_images_in_a_gallery_are_fetched_there_and_small_copies_are_not_taken_for_them(
    site: Server, card: Card, tmp_path: Path
) -> None:
    stub = imagekit_stub.ImageKit()
    with FaultServer(stub) as front:
        account = Account(front, stub, tmp_path)
        first, second = card.image(0), card.image(1)
        for image, what in ((first, "original"), (second, "thumbnail")):
            gallery = account.connect(content=what)
            if what == "original":
                receipt = gallery.deliver(image, card.path(image))
                url = gallery.address(image, receipt.detail)
                assert url
                site.service.web[url] = account.fetched(url)[1]
            site.is_addressed, site.address = True, partial(gallery.address, detail={})
            site.connect().deliver(image, card.path(image))
            gallery.close()
    assert site.stored() == {image.name: card.bytes(image) for image in (first, second)}
    assert (site.front.requests.count(IMPORT), site.front.requests.count(UPLOAD)) == (1, 1)


# ── What the owner is told ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"required": True}, "required: must be false: a task at Scale is no copy of an image"),
        ({"project": ""}, "project: must not be empty"),
        ({"geometries": ["box", "blob"]}, "geometries: 'blob' is none of box, polygon"),
        ({"labels": []}, "labels: and geometries must both be given, or both be"),
        ({"allow_upload": False}, "allow_upload: is false, and no `after` gives addresses"),
        ({"url": "ftp://api.scale.com"}, "url: 'ftp://api.scale.com' is not an address"),
        ({"poll_every": "1 s"}, "poll_every: 1 s is not between 1 min and 30 days"),
        ({"label": ["x"]}, "did you mean 'labels'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(more: dict[str, Any], complaint: str) -> None:
    table = {"kind": "scale", "api_key_file": "key", "project": "moths", **more}
    with pytest.raises(SettingsError, match=complaint) as caught:
        destinations.check("labels", table, Path("trap.toml"))
    assert str(caught.value).startswith("trap.toml: destinations.labels.")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", r"rejects the login \(401\); look at .*scale\.key"),
        ("402", r"asks for payment \(402: pay\); .* enabled image annotation for the account"),
        ("403", r"does not permit this \(403\); .* may create tasks"),
        ("429", r"answered 429: it asks to come later, in 7 s"),
    ],
)
def test_what_stands_in_the_way_is_said_in_words_that_tell_what_to_do(
    site: Server, labels: scale.Scale, card: Card, fault: str, words: str
) -> None:
    image = card.image()
    site.front.plan(TASK, fault)
    with pytest.raises(Unreachable, match=words) as caught:
        labels.deliver(image, card.path(image))
    assert caught.value.wait == (7 if fault == "429" else 900)
    site.front.assert_injected()


def test_a_project_that_there_is_not_is_said_by_its_name(site: Server, card: Card) -> None:
    image, destination = card.image(), site.connect(project="mohts")
    site.is_addressed = True
    with pytest.raises((Unauthorised, Failed), match="mohts"):
        destination.deliver(image, card.path(image))
    (finding,) = destination.check()
    assert finding.verdict == "failing"
    assert finding.text.startswith(
        "there is no project 'mohts' for this key (404); make it in Scale, or correct"
    )


def test_an_account_without_annotation_and_a_key_of_the_wrong_mode(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.service.is_enabled = False
    with pytest.raises(Unauthorised, match="402"):
        labels.deliver(image, card.path(image))
    site.change_key(LIVE_KEY)
    (finding,) = labels.check()
    assert finding.text.endswith("correct `project`: those of a live key and of a test key are separate")


def test_the_doctor_says_what_a_key_will_cost(site: Server, labels: scale.Scale) -> None:
    project, mode, way = labels.check()
    assert (project.verdict, mode.verdict, way.verdict) == ("ok", "ok", "ok")
    assert "a test key: tasks cost nothing" in mode.text
    assert "each image is sent to Scale from here" in way.text
    site.service.add_project(PROJECT, key=LIVE_KEY)
    site.change_key(LIVE_KEY)
    site.is_addressed = True
    project, mode = site.connect().check()
    assert mode.verdict == "warning"
    assert "each task costs money" in mode.text
    assert site.front.requests == ["GET /v1/projects/" + quote(PROJECT)] * 2


def test_the_doctor_sees_a_wrong_key_file_or_project(
    site: Server, labels: scale.Scale, tmp_path: Path
) -> None:
    site.service.add_project(PROJECT, "lidarannotation")
    assert "is for lidarannotation; it must be for image annotation" in labels.check()[0].text
    site.change_key("something else")
    assert "rejects the login (401: " in labels.check()[0].text
    (tmp_path / "scale.key").chmod(0o604)
    assert "everybody can read it" in labels.check()[0].text
    (tmp_path / "scale.key").unlink()
    assert "api_key_file: the secret" in labels.check()[0].text


def test_no_command_log_or_file_tells_the_key_or_an_address(site: Server, card: Card, tmp_path: Path) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    plans = [[(LIST, "401")], [(BATCHES, "502")], [(UPLOAD, "403")], [(TASK, "500")]]
    texts = leak_check.overheard(program, site.front, plans, ("labels", "--json"), ("labels", "export"))
    leak_check.assert_silent(TEST_KEY, texts)


def test_a_key_that_the_server_repeats_is_not_passed_on(
    site: Server, labels: scale.Scale, card: Card
) -> None:
    image = card.image()
    site.front.backend = lambda *_: (500, JSON, json.dumps({"error": f"no task for {TEST_KEY}"}).encode())
    site.front.backend.methods = Scale.methods  # type: ignore[attr-defined]
    with pytest.raises(Unreachable) as caught:
        labels.deliver(image, card.path(image))
    assert str(caught.value).endswith("answered 500 with application/json: no task for ...")


def test_what_is_not_configured_is_not_loaded() -> None:
    code = "import sys, trapsync.runtime.service, trapsync.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "trapsync.destinations" in loaded
    assert not [name for name in loaded if name.startswith(("trapsync.destinations.scale", "scaleapi"))]
    code = "import sys, trapsync.destinations.scale; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scaleapi", "pydantic"} & set(done.stdout.split())
