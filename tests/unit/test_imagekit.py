"""ImageKit as a destination: one copy of each image under a path of its own, whatever happens on the way."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import camtrap_packages
import drawings
import killed_trap
import leak_check
import operator_desk
import trap_bench as bench
from camtrap_packages import PROJECT
from conformance import STRANGE_PATHS, Card, OverHttp
from fault_server import JSON, FaultServer, Reply
from imagekit_site import Account
from imagekit_stub import ImageKit as Stub
from memory_context import SOURCE
from trapsync import destinations, pipeline
from trapsync.destinations import Receipt
from trapsync.destinations.imagekit import ImageKit
from trapsync.destinations.imagekit.fields import FIELDS
from trapsync.destinations.outcomes import Turn
from trapsync.errors import Failed, Held, Refused, SettingsError, Unauthorised, Unreachable
from trapsync.jpeg.examination import thumbnail_paths, thumbnails
from trapsync.net.http_answer import Answer
from trapsync.runtime import destination_context
from trapsync.settings.config_file import from_tables
from trapsync.settings.schema import Ingest, Settings

UPLOAD, LIST, FIELD_LIST = "/api/v1/files/upload", "GET /v1/files", "GET /v1/customMetadataFields"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Account]:
    """It listens."""
    stub = Stub()
    with FaultServer(stub) as front:
        yield Account(front, stub, tmp_path)


@pytest.fixture
def gallery(site: Account) -> Iterator[ImageKit]:
    """Connected to it."""
    destination = site.connect()
    yield destination
    destination.close()


class TestImageKit(OverHttp):
    """The promises that all destinations make."""

    kind = "imagekit"
    echoes = True
    steps = (FIELD_LIST, UPLOAD)
    upload = UPLOAD


# --- Where images go, and what goes with them ---------------------------------------------------------------


def test_an_image_lies_under_its_device_and_day_with_its_digest_and_what_is_known_of_it(
    site: Account, gallery: ImageKit, card: Card
) -> None:
    image = card.image()
    receipt = gallery.deliver(image, card.path(image))
    (file,) = site.stub.files.values()
    assert file.path == f"/traps/{drawings.DEVICE}/2026-06-21/{image.name}"
    assert file.tags == ["north meadow", drawings.DEVICE, f"sha256-{image.sha256}"]
    assert file.metadata["device"] == drawings.DEVICE
    assert file.metadata["taken"] == "2026-06-21T20:19:15Z"
    assert file.metadata["temp"] == image.metadata["temp"]
    assert receipt.detail == {"id": file.id, "path": file.path}


def test_fields_are_made_once_and_only_where_the_owner_allows_it(site: Account, card: Card) -> None:
    first, second = card.image(0), card.image(1)
    site.connect(create_fields=False).deliver(first, card.path(first))
    assert site.stub.fields == {}
    site.stub.fields = {"temp": "Number", "hum": "Text"}  # the latter is the owner's own
    site.stub.deleted_fields = {"lum"}
    site.connect(create_fields=False).deliver(second, card.path(second))
    assert site.stub.files[site.connect().path_of(second).as_posix()].metadata.keys() == {"temp"}
    gallery = site.connect()
    for number in range(2, 5):
        gallery.deliver(card.image(number), card.path(card.image(number)))
    expected = {name: kind for name, (kind, _) in FIELDS.items() if name != "lum"}
    assert site.stub.fields == expected | {"hum": "Text"}
    assert site.front.requests.count("/v1/customMetadataFields") == len(FIELDS) - 2


def test_fields_that_went_meanwhile_are_noticed(site: Account, gallery: ImageKit, card: Card) -> None:
    first, second = card.image(0), card.image(1)
    gallery.deliver(first, card.path(first))
    site.stub.deleted_fields = set(site.stub.fields)
    site.stub.fields = {}
    with pytest.raises(Failed, match="custom metadata"):
        gallery.deliver(second, card.path(second))
    gallery.deliver(second, card.path(second))
    assert len(site.stored()) == 2


@pytest.mark.parametrize(
    ("metadata", "absent"),
    [
        ({"lum": float("nan")}, "lum"),
        ({"temp": None}, "temp"),
    ],
)
def test_what_is_not_known_is_not_said(metadata: dict[str, Any], absent: str) -> None:
    from trapsync.destinations.imagekit.fields import values
    from trapsync.image import Image

    said = values(Image(drawings.NAME, 1, "", "", 1, 1, {"alt": 0.0, "but": False, **metadata}))
    assert absent not in said
    assert (said["alt"], said["but"]) == (0.0, False)


def test_foreign_paths_stay_apart_although_the_service_makes_them_alike(
    site: Account, gallery: ImageKit, card: Card
) -> None:
    names = ["IMG_0001.JPG", "a b.jpg", "a_b.jpg", "ä b.jpg", "from phone/a_b.jpg", "from_phone/a_b.jpg"]
    images = [card.put(drawings.trap(seed=n), name, n + 1) for n, name in enumerate(names)]
    for image in images:
        gallery.deliver(image, card.path(image))
        assert site.stub.files[str(gallery.path_of(image))].content == card.bytes(image)
    assert len(site.stub.files) == len(names)
    assert f"/traps/{drawings.DEVICE}/IMG_0001.JPG" in site.stub.files
    assert len(gallery.find_existing(images)) == len(names)


def test_private_files_are_private(site: Account, card: Card) -> None:
    image = card.image()
    gallery = site.connect(private=True)
    receipt = gallery.deliver(image, card.path(image))
    url = gallery.address(image, receipt.detail)
    assert url
    assert site.fetched(url) == (200, card.bytes(image))
    assert site.fetched(url.partition("?")[0])[0] == 401


@pytest.mark.parametrize(("plan", "takes_it"), [("free", False), ("lite", True), ("pro", True)])
def test_what_is_too_large_for_the_plan_is_not_even_sent(
    site: Account, card: Card, plan: str, takes_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = drawings.trap()
    monkeypatch.setattr(
        "trapsync.destinations.imagekit.LARGEST", {"free": 1000, "lite": len(content), "pro": 10**6}
    )
    image = card.image()
    gallery = site.connect(plan=plan)
    if takes_it:
        gallery.deliver(image, card.path(image))
    else:
        with pytest.raises(Refused, match="plan 'free'"):
            gallery.deliver(image, card.path(image))
        assert site.front.requests == []


# --- Asking -------------------------------------------------------------------------------------------------


def test_a_night_costs_one_question_and_one_image_a_short_one(
    site: Account, gallery: ImageKit, card: Card
) -> None:
    night = [card.image(second) for second in range(5)]
    later = card.image(86400)
    for image in (*night, later):
        gallery.deliver(image, card.path(image))
    site.front.requests.clear()
    assert len(gallery.find_existing([*night, later])) == 6
    assert site.front.requests == [LIST] * 2


def test_a_folder_of_thousands_is_read_page_by_page(site: Account, gallery: ImageKit, card: Card) -> None:
    images = [card.image(second) for second in range(3)]
    for image in images:
        gallery.deliver(image, card.path(image))
    some = next(iter(site.stub.files.values()))
    for number in range(2000):
        site.stub.files[f"{some.folder}0{number}.jpg"] = type(some)(
            "x", f"{some.folder}0{number}.jpg", some.content
        )
    site.front.requests.clear()
    assert len(gallery.find_existing(images)) == 3
    assert site.front.requests == [LIST] * 9  # an answer of more rows might be longer than one may be


@pytest.mark.parametrize("fault", ["answer lost", "truncated", "500 though stored", "no echo"])
def test_an_image_whose_answer_was_lost_is_found_at_once(
    site: Account, gallery: ImageKit, card: Card, fault: str
) -> None:
    image = card.image()
    site.front.plan(UPLOAD, fault)
    receipt = gallery.deliver(image, card.path(image))
    assert receipt == gallery.find_existing([image])[image.id]
    site.front.assert_injected()


@pytest.mark.parametrize(("key", "other"), [("filePath", "/elsewhere.jpg"), ("size", 1)])
def test_an_answer_about_another_file_confirms_nothing(
    site: Account, gallery: ImageKit, card: Card, key: str, other: object
) -> None:
    image = card.image()

    def confused(named: str, headers: Mapping[str, str], body: bytes) -> Reply:
        status, kind, content = site.stub(named, headers, body)
        if named == UPLOAD:
            site.stub.files.clear()
            content = json.dumps(json.loads(content) | {key: other}).encode()
        return status, kind, content

    confused.methods = site.stub.methods  # type: ignore[attr-defined]
    site.front.backend = confused
    with pytest.raises(Unreachable, match="confirmed another file"):
        gallery.deliver(image, card.path(image))


def test_while_the_listing_lags_an_image_is_held_and_never_there_twice(site: Account, card: Card) -> None:
    image = card.image()
    site.stub.lags = True
    site.front.plan(UPLOAD, "answer lost")
    gallery = site.connect()
    with pytest.raises(Unreachable):
        gallery.deliver(image, card.path(image))
    assert gallery.find_existing([image]) == {}
    with pytest.raises(Held, match="does not show it yet"):
        gallery.deliver(image, card.path(image))
    site.stub.catch_up()
    assert isinstance(gallery.find_existing([image])[image.id], Receipt)
    assert len(site.stored()) == 1


def test_an_image_is_asked_for_where_it_was_put_whatever_the_settings_say_now(
    site: Account, card: Card
) -> None:
    images = [card.image(second) for second in range(3)]
    first = site.connect(folder="/2025")
    at = {image.id: first.deliver(image, card.path(image)).at for image in images}
    moved = site.connect(folder="/2026")
    assert moved.find_existing(images) == {}
    confirmed = moved.confirm(images, at)
    assert {
        image.id: answer.at
        for image, answer in zip(images, confirmed.values(), strict=True)
        if isinstance(answer, Receipt)
    } == at
    assert moved.confirm(images, {}) == {}


def test_a_small_copy_is_confirmed_after_it_left_the_card_and_after_what_changed(
    site: Account, card: Card
) -> None:
    image = card.image()
    for copy in thumbnail_paths(site.copies, image.place):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(drawings.plain(64, 48))
    at = {image.id: site.connect(content="thumbnail").deliver(image, card.path(image)).at}
    for copy in thumbnail_paths(site.copies, image.place):
        copy.unlink()
    for what in ("thumbnail", "original"):
        assert isinstance(site.connect(content=what).confirm([image], at)[image.id], Receipt)


def test_a_strange_image_without_a_small_copy_costs_the_others_nothing(site: Account, card: Card) -> None:
    image = card.image()
    for copy in thumbnail_paths(site.copies, image.place):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(drawings.plain(64, 48))
    gallery = site.connect(content="thumbnail")
    gallery.deliver(image, card.path(image))
    strange = [replace(image, id=100 + number, path=path) for number, path in enumerate(STRANGE_PATHS)]
    known = gallery.find_existing([*strange, image])
    assert isinstance(known[image.id], Receipt)
    assert all(isinstance(known[one.id], Refused | Held) for one in strange)


def test_a_path_that_is_too_long_to_be_asked_for_is_refused_and_sent_nowhere(
    site: Account, card: Card
) -> None:
    image = card.image()
    far = replace(image, path="/".join(["f" * 200] * 6) + "/IMG_0001.JPG")
    gallery = site.connect()
    assert isinstance(gallery.find_existing([far])[far.id], Refused)
    with pytest.raises(Refused, match="1000 can be asked for"):
        gallery.deliver(far, card.path(image))
    assert UPLOAD not in site.front.requests


@pytest.mark.parametrize("rows", [b"[{}]", b'["ok"]', b'[{"size": 1}]'])
def test_a_list_that_is_another_services_is_unreachable(
    site: Account, gallery: ImageKit, card: Card, rows: bytes
) -> None:
    site.front.backend = lambda *_: (200, JSON, rows)
    site.front.backend.methods = ("GET",)  # type: ignore[attr-defined]
    with pytest.raises(Unreachable, match="not ImageKit's"):
        gallery.find_existing([card.image()])


def test_what_the_service_says_is_one_printable_line(site: Account, gallery: ImageKit, card: Card) -> None:
    image = card.image()
    message = json.dumps({"message": "no\n<2>forged \x1b]0;x\x07" + "y" * 10**5}).encode()
    site.front.backend = lambda path, *_: (
        (200, JSON, b"[]") if path.startswith("GET") else (400, JSON, message)
    )
    site.front.backend.methods = ("GET", "POST")  # type: ignore[attr-defined]
    with pytest.raises(Failed) as caught:
        gallery.deliver(image, card.path(image))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_file_of_the_right_size_without_our_digest_is_no_proof(
    site: Account, gallery: ImageKit, card: Card
) -> None:
    image = card.image()
    gallery.deliver(image, card.path(image))
    (file,) = site.stub.files.values()
    file.tags = []
    assert "without our tag" in str(gallery.find_existing([image])[image.id])


def test_a_file_with_our_digest_and_another_size_is_a_conflict(
    site: Account, gallery: ImageKit, card: Card
) -> None:
    image = card.image()
    gallery.deliver(image, card.path(image))
    (file,) = site.stub.files.values()
    file.content += b"more"
    assert "both are kept" in str(gallery.find_existing([image])[image.id])


# --- Refusals and waits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [UPLOAD, LIST])
def test_the_milliseconds_of_its_limit_are_honoured(site: Account, card: Card, path: str) -> None:
    image, gallery = card.image(), site.connect(create_fields=False)
    site.front.plan(path, "429 in milliseconds")
    ask = (
        partial(gallery.deliver, image, card.path(image))
        if path == UPLOAD
        else partial(gallery.find_existing, [image])
    )
    with pytest.raises(Unreachable, match="in 7 s") as caught:
        ask()
    assert caught.value.wait == 7
    site.front.assert_injected()


def test_a_wrong_key_is_the_owners_to_mend_and_is_not_repeated(
    site: Account, gallery: ImageKit, card: Card
) -> None:
    image = card.image()
    site.change_key("private_wrong_but_secret")
    with pytest.raises(Unauthorised, match="private_key") as caught:
        gallery.deliver(image, card.path(image))
    assert "private_wrong" not in str(caught.value)  # though the service quotes it
    assert "authenticated with ..." in str(caught.value)
    site.change_key(site.stub.key)
    gallery.deliver(image, card.path(image))


def test_an_account_beyond_its_plan_waits_for_its_owner(site: Account, gallery: ImageKit, card: Card) -> None:
    image = card.image()
    site.stub.is_over_its_plan = True
    with pytest.raises(Unauthorised, match="limits of its plan") as caught:
        gallery.deliver(image, card.path(image))
    assert caught.value.wait == 900


def test_a_missing_key_stops_the_deliveries_and_not_the_trap(site: Account, card: Card) -> None:
    gallery, image = site.connect(private_key_file="/nowhere/key"), card.image()
    with pytest.raises(Unauthorised, match="nowhere/key cannot be read"):
        gallery.find_existing([image])
    with pytest.raises(Unauthorised, match="nowhere/key cannot be read"):
        gallery.deliver(image, card.path(image))


def test_no_command_log_or_file_tells_the_key(site: Account, card: Card, tmp_path: Path) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    program.lay_in(card.path(card.image(second)) for second in range(3))
    plans = [[(UPLOAD, "403")], [(FIELD_LIST, "503")], [(UPLOAD, "half JSON")]]
    texts = leak_check.overheard(program, site.front, plans, ("images", "--url", "gallery", "--json"))
    leak_check.assert_silent(site.stub.key, texts)
    assert b"ik-s=" in texts["images --url gallery --json, plan 3"]


# --- Small copies -------------------------------------------------------------------------------------------


def test_a_small_copy_waits_until_it_is_made_and_goes_under_a_name_of_its_own(
    site: Account, card: Card
) -> None:
    image = card.image()
    gallery = site.connect(content="thumbnail")
    assert isinstance(gallery.find_existing([image])[image.id], Held)
    with pytest.raises(Held, match="not made yet"):
        gallery.deliver(image, card.path(image))
    assert site.front.requests == []
    thumbnails(card.folder, image.path, site.copies)
    receipt = gallery.deliver(image, card.path(image))
    small, _ = thumbnail_paths(site.copies, image.place)
    assert site.stored() == {image.name.replace(".jpg", ".thumbnail.jpg"): small.read_bytes()}
    assert receipt.digest == f"echo:{image.sha256}"
    assert gallery.find_existing([image]) == {image.id: receipt}
    assert site.connect().find_existing([image]) == {}  # the image itself is not there


def test_a_small_copy_that_was_made_anew_is_the_same_image(site: Account, card: Card) -> None:
    image = card.image()
    gallery = site.connect(content="thumbnail")
    thumbnails(card.folder, image.path, site.copies)
    gallery.deliver(image, card.path(image))
    (file,) = site.stub.files.values()
    file.content += b" by another libvips"
    assert isinstance(gallery.deliver(image, card.path(image)), Receipt)


def test_a_small_copy_that_a_power_cut_broke_is_made_again(site: Account, card: Card) -> None:
    image = card.image()
    gallery = site.connect(content="thumbnail")
    thumbnails(card.folder, image.path, site.copies)
    small, _ = thumbnail_paths(site.copies, image.place)
    small.write_bytes(b"")
    with pytest.raises(Held, match="not made yet"):
        gallery.deliver(image, card.path(image))
    assert site.front.requests == []


def test_a_small_copy_that_can_never_be_made_is_refused_with_the_way_out(site: Account, card: Card) -> None:
    image = card.image()
    site.can_be_copied = False
    with pytest.raises(Refused, match='content = "original"'):
        site.connect(content="thumbnail").deliver(image, card.path(image))


def test_a_new_image_waits_a_minute_for_its_small_copy_and_an_old_one_longer(
    site: Account, card: Card
) -> None:
    gallery, waits = site.connect(content="thumbnail"), []
    for age in (0, 7200):
        image = card.image(-age)
        held = gallery.find_existing([image])[image.id]
        assert isinstance(held, Held)
        waits.append(held.wait)
    assert waits == [60, 3600]


def test_in_a_trap_a_small_copy_that_broke_is_made_again_and_arrives(trap: bench.Trap, site: Account) -> None:
    tables = {"gallery": site.table(content="thumbnail")}
    folders = {"spool": str(trap.storage.spool), "state": str(trap.storage.state)}
    source = trap.folder / "trapsync.toml"
    trap_table = {"device": drawings.DEVICE}
    settings = from_tables({"storage": folders, "destinations": tables, "trap": trap_table}, source)
    checked = destination_context.check_all(settings, source)
    (gallery,) = destination_context.connect_all(settings, checked, trap.catalog, trap.time, trap.time.sleep)
    trap.catalog.places.register([("gallery", "imagekit", False)])
    spool = trap.storage.spool
    drawings.put(spool, drawings.trap(), drawings.NAME)
    trap.ingest()
    (image,) = trap.catalog.images.without_thumbnails(9)
    trap.catalog.images.mark_thumbnails({image.id: True})  # as the catalog has it; a power cut left none

    def turn() -> Turn:
        return pipeline.deliver(trap.catalog, gallery, spool, trap.time, bench.OneByOne())

    assert turn().postponed == 1
    thumbnails(spool, trap.catalog.images.without_thumbnails(9)[0].path, trap.storage.thumbnails)
    trap.time.sleep(61)
    assert turn().delivered == 1
    assert len(site.stored()) == 1
    gallery.close()


def test_small_copies_that_are_switched_off_are_an_error_of_the_settings(site: Account) -> None:
    tables = {"gallery": site.table(content="thumbnail")}
    settings = Settings(ingest=Ingest(thumbnails=False), destinations=tables)
    with pytest.raises(SettingsError, match=r"ingest\.thumbnails = true"):
        destinations.check_all(settings, SOURCE)


# --- Addresses ----------------------------------------------------------------------------------------------


def test_an_address_gives_the_very_bytes_until_it_ends(site: Account, card: Card) -> None:
    site.stub.needs_signature = True
    image = card.image()
    gallery = site.connect(url_lifetime="1 h")
    receipt = gallery.deliver(image, card.path(image))
    site.front.requests.clear()
    url = gallery.address(image, receipt.detail)
    assert url
    assert "tr=orig-true" in url
    assert site.fetched(url) == (200, card.bytes(image))
    assert site.fetched(url.replace("orig-true", "w-1"))[0] == 401
    site.stub.now += 3700
    assert site.fetched(url)[0] == 401
    assert site.front.requests == []
    small = gallery.addresses(image, receipt.detail)["small"]
    assert "tr=w-512,h-512,c-at_max&ik-t=" in small


def test_of_small_copies_no_address_is_given_to_those_who_need_the_image(site: Account, card: Card) -> None:
    image, gallery = card.image(), site.connect(content="thumbnail")
    assert gallery.address(image, {}) is None
    assert gallery.addresses(image, {}).keys() == {"image", "small"}
    gallery.close()


def test_an_address_without_end_needs_no_clock(site: Account, card: Card) -> None:
    site.stub.needs_signature = True
    image = card.image()
    site.time.is_trusted = False
    with pytest.raises(Unreachable, match="clock is not set"):
        site.connect().address(image, {})
    gallery = site.connect(url_lifetime="0 s")
    gallery.deliver(image, card.path(image))
    url = gallery.address(image, {})
    assert url
    assert "ik-t" not in url
    site.stub.now += 10**9
    assert site.fetched(url)[0] == 200


def test_a_public_address_is_plain_where_the_owner_says_so(site: Account, card: Card) -> None:
    gallery, image = site.connect(sign=False), card.image()
    assert gallery.address(image, {}) == f"https://ik.imagekit.io/demo{gallery.path_of(image)}?tr=orig-true"


def test_the_command_shows_addresses_and_what_they_show(
    site: Account,
    card: Card,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = killed_trap.Program(tmp_path / "trap", site.tables())
    image = card.image()
    program.lay_in([card.path(image)])
    assert program.deliver() == 0
    site.stub.needs_signature = True

    say = operator_desk.typing(monkeypatch, capsys)

    def call(*arguments: str) -> str:
        _, out, err = say("-c", program.config, "images", *arguments)
        return out + err

    ((name, where, what, url), small) = (line.split("  ") for line in call("--url").splitlines())
    assert (name, where, what, small[2]) == (image.name, "gallery", "image", "small")
    assert site.fetched(url) == (200, card.bytes(image))
    (row,) = json.loads(call("--url", "gallery", "--json"))
    assert row["addresses"]["gallery"].keys() == {"image", "small"}
    site._key.unlink()
    assert "private_key cannot be read" in call("--url")
    assert "there is no destination 'stick'" in call("--url", "stick")


def test_a_package_has_the_address_of_each_picture(
    site: Account,
    card: Card,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stick = {"kind": "directory", "path": str(tmp_path / "stick"), "required": False}
    program = killed_trap.Program(tmp_path / "trap", {**site.tables(), "attic": stick})
    image = card.image()
    program.lay_in([card.path(image)])
    program.deliver()
    program.config.write_text(program.config.read_text() + PROJECT)

    say = operator_desk.typing(monkeypatch, capsys)

    def row(destination: str) -> tuple[dict[str, str], str]:
        package = tmp_path / f"of-{destination}"
        _, _, err = say("-c", program.config, "export", "camtrap-dp", package, "--url", destination)
        assert camtrap_packages.problems(package) == []
        return camtrap_packages.rows(package, "media")[0], err

    there, _ = row("gallery")
    assert site.fetched(there["filePath"]) == (200, card.bytes(image))
    missing, said = row("attic")
    assert missing["filePath"].startswith("media/")
    assert "in the tables without address: 1 picture\n" in said


# --- The doctor ---------------------------------------------------------------------------------------------


def test_the_doctor_tells_what_the_account_holds_and_lacks(site: Account, card: Card) -> None:
    image = card.image()
    site.connect(create_fields=False).deliver(image, card.path(image))
    texts = [finding.text for finding in site.connect(create_fields=False).check()]
    assert "it holds 0.0 GB" in texts[0]
    assert "create_fields = true makes them" in texts[1]
    texts = [f.text for f in site.connect(url_endpoint="https://ik.imagekit.io/other").check()]
    assert "files are at https://ik.imagekit.io/demo" in texts[1]


@pytest.mark.parametrize("stored", [10**300, "9" * 400, "inf", "nan", [], {"a": 1}, "x", None])
def test_odd_figures_of_an_account_are_left_out(
    site: Account, monkeypatch: pytest.MonkeyPatch, stored: object
) -> None:
    usage = json.dumps({"mediaLibraryStorageBytes": stored, "bandwidthBytes": 5}).encode()
    account = site.connect()._account
    monkeypatch.setattr(
        account, "ask", lambda *_: Answer("x", 200, {"Content-Type": "application/json"}, usage)
    )
    assert account._usage() == ""


def test_the_doctor_says_whose_fault_a_wrong_key_is(site: Account, gallery: ImageKit) -> None:
    site.change_key("private_wrong")
    (finding,) = gallery.check()
    assert finding.verdict == "failing"
    assert "look at" in finding.text


# --- Settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("required", True, "confirms no digest"),
        ("url_endpoint", "ik.imagekit.io/x", "is not an address"),
        ("folder", "/a b", "is not a path"),
        ("tags", ["a,b"], "comma"),
        ("tags", ["x" * 401], "400 characters"),
        ("plan", "gold", "plan"),
        ("what", "mini", "what"),
        ("url_lifetime", "-1 s", "url_lifetime"),
    ],
)
def test_a_wrong_setting_is_one_line(site: Account, key: str, value: object, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        site.connect(**{key: value})
    assert "\n" not in str(caught.value)


def test_private_files_without_signed_addresses_are_refused(site: Account) -> None:
    with pytest.raises(SettingsError, match="signed addresses only"):
        site.connect(private=True, sign=False)


def test_a_trap_without_it_does_not_even_load_it() -> None:
    code = "import trapsync.runtime.service, trapsync.doctor, sys; print([m for m in sys.modules if 'imagekit' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
