"""Which place a destination is: the same however its address is written, and another one where anything tells it apart."""

from typing import Any

import pytest

from memory_context import connected
from trapsync.errors import SettingsError

HUB = {"kind": "stickypi", "url": "https://api.example.org/v1", "username": "trap", "password_file": "pw"}
GALLERY = {"kind": "imagekit", "private_key_file": "key", "url_endpoint": "https://ik.imagekit.io/meadow"}
STUDIO = {"kind": "skylab", "key_file": "key", "profile": 7}
BUCKET = {
    "kind": "s3",
    "endpoint": "https://s3.example.org",
    "bucket": "moths",
    "prefix": "valley",
    "access_key": "x",
    "secret_file": "secret",
}
LABELS = {"kind": "scale", "api_key_file": "key", "project": "moths"}


def place(table: dict[str, Any]) -> str:
    """What a destination of this table says that it is; nobody is asked."""
    destination = connected("one", table)
    destination.close()
    assert destination.place() == destination.identity
    return destination.place()


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.org/v1/",
        "https://api.example.org//v1",
        "https://api.example.org:443/v1",
        "HTTPS://API.Example.ORG/v1",
        "https://api.example.org./v1",
    ],
)
def test_an_address_that_is_written_otherwise_is_the_same_place(url: str) -> None:
    assert place(HUB | {"url": url}) == place(HUB)
    others = (
        (GALLERY, "url_endpoint"),
        (GALLERY, "api_url"),
        (STUDIO, "url"),
        (LABELS, "url"),
        (BUCKET, "endpoint"),
    )
    for table, key in others:
        assert place(table | {key: url}) == place(table | {key: HUB["url"]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example", "https://bücher.example"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ("http://10.0.0.7:80", "http://10.0.0.7"),
    ],
)
def test_a_host_that_is_written_otherwise_is_the_same_place(one: str, other: str) -> None:
    assert place(HUB | {"url": one}) == place(HUB | {"url": other})


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://other.example.org/v1"},
        {"url": "https://api.example.org/v2"},
        {"url": "https://api.example.org/V1"},
        {"url": "https://api.example.org:8443/v1"},
        {"url": "http://api.example.org/v1"},
        {"username": "trap-2"},
    ],
)
def test_another_host_port_path_or_account_is_another_place(change: dict[str, str]) -> None:
    assert place(HUB | change) != place(HUB)


def test_what_is_no_account_makes_no_other_place() -> None:
    assert place(HUB | {"password_file": "other", "bandwidth": "1 kB"}) == place(HUB)
    assert place(GALLERY | {"folder": "/elsewhere", "content": "original"}) == place(GALLERY)
    assert place(STUDIO | {"key_file": "changed", "profile": 8}) == place(STUDIO)
    keys = {
        "access_key": "new",
        "secret_file": "new",
        "region": "eu-2",
        "layout": "antenna",
        "prefix": "/valley/",
    }
    assert place(BUCKET | keys) == place(BUCKET)
    assert place(LABELS | {"prefix": "meadow", "api_key_file": "changed"}) == place(LABELS)


def test_another_account_of_each_kind_is_another_place() -> None:
    assert place(GALLERY | {"url_endpoint": "https://ik.imagekit.io/forest"}) != place(GALLERY)
    assert place(GALLERY | {"api_url": "https://other.example"}) != place(GALLERY)
    assert place(STUDIO | {"url": "https://other.example"}) != place(STUDIO)
    assert place(LABELS | {"project": "beetles"}) != place(LABELS)
    assert place(BUCKET | {"bucket": "beetles"}) != place(BUCKET)
    assert place(BUCKET | {"prefix": "forest"}) != place(BUCKET)


def test_the_same_address_is_another_place_under_another_kind() -> None:
    url = "https://one.example"
    tables = (
        HUB | {"url": url},
        GALLERY | {"url_endpoint": url},
        STUDIO | {"url": url},
        LABELS | {"url": url},
        BUCKET | {"endpoint": url},
    )
    assert len({place(table) for table in tables}) == len(tables)


def test_a_person_knows_the_place_again_and_no_secret_is_in_it() -> None:
    assert (
        place(HUB | {"url": "https://API.example.org:443/v1/"})
        == "stickypi https://api.example.org/v1, as trap"
    )
    assert place(GALLERY) == "imagekit https://api.imagekit.io, account https://ik.imagekit.io/meadow"
    assert place(STUDIO) == "skylab https://studio.skylabtech.ai/api/public/v1"
    assert place(BUCKET) == "s3 https://s3.example.org, bucket moths/valley"
    assert place(LABELS) == "scale https://api.scale.com/v1, project moths"


@pytest.mark.parametrize("url", ["https://api.example.org:0", "https://api.example.org:99999", "https://a:b"])
def test_a_port_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="is not an address"):
        place(HUB | {"url": url})
