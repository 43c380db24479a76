"""ImageKit's own SDK as a witness: it does its work against our stub, reads back what we stored, and signs as we do."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagekitio import APIStatusError, AuthenticationError, BadRequestError, ImageKit, NotFoundError

import drawings
from conformance import Card
from fault_server import FaultServer
from imagekit_site import Account
from imagekit_stub import ImageKit as Stub
from trapsync.destinations.imagekit.urls import SMALL, UNTOUCHED, address, signed

NOW = 1_782_073_155


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Account]:
    """It listens."""
    stub = Stub()
    with FaultServer(stub) as front:
        yield Account(front, stub, tmp_path)


@pytest.fixture
def sdk(site: Account) -> Iterator[ImageKit]:
    """The vendor's client, that retries nothing."""
    with ImageKit(private_key=site.stub.key, base_url=site.front.url, max_retries=0) as sdk:
        yield sdk


def test_the_sdk_reads_back_what_we_stored(site: Account, sdk: ImageKit, card: Card) -> None:
    gallery = site.connect()
    image = card.image()
    receipt = gallery.deliver(image, card.path(image))
    (listed,) = sdk.assets.list(
        path=f"/traps/{drawings.DEVICE}/2026-06-21", search_query=f'name="{image.name}"'
    )
    details = sdk.files.get(receipt.detail["id"])
    for file in (listed, details):
        assert file.name == image.name
        assert getattr(file, "file_path", None) == receipt.detail["path"]
        assert getattr(file, "size", None) == image.size
        assert getattr(file, "tags", None) == ["north meadow", drawings.DEVICE, f"sha256-{image.sha256}"]
    assert details.custom_metadata
    assert details.custom_metadata["temp"] == image.metadata["temp"]
    assert {field.name for field in sdk.custom_metadata_fields.list()} == set(site.stub.fields)
    usage = sdk.accounts.usage.get(start_date="2026-06-01", end_date="2026-06-21")
    assert usage.media_library_storage_bytes == image.size


def test_we_know_what_the_sdk_stored_as_we_would_have(site: Account, sdk: ImageKit, card: Card) -> None:
    gallery = site.connect(create_fields=False)
    ours, theirs = card.image(0), card.image(1)
    gallery.deliver(ours, card.path(ours))
    with card.path(theirs).open("rb") as file:
        said = sdk.files.upload(
            file=file,
            file_name=theirs.name,
            folder=str(gallery.path_of(theirs).parent),
            use_unique_file_name=False,
            overwrite_file=False,
            is_private_file=False,
            tags=["north meadow", drawings.DEVICE, f"sha256-{theirs.sha256}"],
        )
    assert (said.file_path, said.size) == (str(gallery.path_of(theirs)), theirs.size)
    assert gallery.find_existing([theirs])[theirs.id] == gallery.deliver(theirs, card.path(theirs))
    stored = [(file.tags[:2], file.folder, file.is_private) for file in site.stub.files.values()]
    assert stored[0] == stored[1]
    assert site.stub.forms[0] == site.stub.forms[1]


def test_what_the_sdk_does_by_default_is_what_we_must_not_do(
    site: Account, sdk: ImageKit, card: Card
) -> None:
    content = card.bytes(card.image())
    names = {sdk.files.upload(file=content, file_name="a b.jpg").name for _ in range(2)}
    assert len(names) == 2
    assert all(name and name.startswith("a_b_") for name in names)
    for _ in range(2):
        sdk.files.upload(file=content, file_name="c.jpg", use_unique_file_name=False)
    assert len(site.stub.files["/c.jpg"].versions) == 1
    with pytest.raises(BadRequestError, match="already exists"):
        sdk.files.upload(file=content, file_name="c.jpg", use_unique_file_name=False, overwrite_file=False)


def test_the_stub_says_no_in_the_sdks_words(site: Account, sdk: ImageKit, card: Card) -> None:
    content = card.bytes(card.image())
    with pytest.raises(BadRequestError, match="custom metadata"):
        sdk.files.upload(file=content, file_name="a.jpg", custom_metadata={"temp": 1.5})
    sdk.custom_metadata_fields.create(name="temp", label="Temperature", schema={"type": "Number"})
    said = sdk.files.upload(
        file=content, file_name="a.jpg", custom_metadata={"temp": 1.5}, response_fields=["customMetadata"]
    )
    assert said.custom_metadata == {"temp": 1.5}
    with pytest.raises(BadRequestError):
        sdk.custom_metadata_fields.create(name="temp", label="Temperature", schema={"type": "Number"})
    with pytest.raises(AuthenticationError):
        ImageKit(private_key="private_wrong", base_url=site.front.url).assets.list()
    site.front.plan("GET /v1/files", "429 in milliseconds", "502")
    for status in (429, 502):
        with pytest.raises(APIStatusError) as caught:
            sdk.assets.list()
        assert caught.value.status_code == status
    assert said.file_id
    sdk.files.delete(said.file_id)
    with pytest.raises(NotFoundError):
        sdk.files.get(said.file_id)


# --- Signatures ---------------------------------------------------------------------------------------------


def test_the_published_signature_is_ours() -> None:
    endpoint = "https://ik.imagekit.io/demo/"
    url = signed(address(endpoint, "sdk-testing-files/future-search.png"), endpoint, "dummy-key")
    assert url.endswith("?ik-s=32dbbbfc5f945c0403c71b54c38e76896ef2d6b0")


def test_we_sign_as_the_sdk_does_whatever_the_path(sdk: ImageKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagekitio.lib.helper.time.time", lambda: NOW)
    chance = random.Random(4)
    alphabet = "abcXYZ0129._-~ /+&=,;:@!$'()*%?#\"<>[]{}|\\^`äöüßéñ漢字🦋\u200b\t"
    transformations = [
        "",
        UNTOUCHED,
        SMALL,
        "w-400,h-300:rt-90",
        "q-60,f-auto",
        "di-a@@b.jpg",
        "l-text,i-a%20b,l-end",
    ]
    endpoints = ["https://ik.imagekit.io/demo", "https://ik.imagekit.io/demo/", "https://images.example.org",
                 "https://images.example.org/a/b/", "http://127.0.0.1:8080/demo"]  # fmt: skip
    seen = set()
    for number in range(600):
        key = "".join(chance.choices("abcXYZ019+/=é_", k=chance.randint(1, 40)))
        path = "".join(chance.choices(alphabet, k=chance.randint(1, 60))).strip("/") or "a"
        if path.startswith(("http:", "https:")):
            continue
        endpoint, transformation = chance.choice(endpoints), chance.choice(transformations)
        life = chance.choice([0, 1, 3600, 30 * 86400])
        sdk.private_key = key
        theirs = sdk.helper.build_url(
            src=path,
            url_endpoint=endpoint,
            transformation=[{"raw": transformation}] if transformation else [],
            signed=True,
            expires_in=life,
        )
        ours = signed(address(endpoint, path, transformation), endpoint, key, NOW + life if life else None)
        assert ours == theirs, (number, path)
        seen.add(ours)
    assert len(seen) > 590
