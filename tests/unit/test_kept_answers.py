"""What of a service's answer is kept in the catalog: ids and addresses, bounded, whatever the answer holds."""

from typing import Any

import pytest

from trapsync.destinations.http_service import identifier, location
from trapsync.destinations.scale.wire import is_task
from trapsync.destinations.stickypi import _compare
from trapsync.image import Image, parse_name

NAME = "0a5bb6f4.2026-06-21_20-19-15.jpg"
IMAGE = Image(NAME, 9, "a" * 32, "b" * 64, 1, 1)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *((7, 7), (-1, -1), ("a-1_Z", "a-1_Z"), ("é", "é"), ("x" * 200, "x" * 200)),
        *((None, None), (True, None), (1.5, None), ([1], None), ({}, None)),
        *(("x" * 201, None), ("a\nb", None), ("a\x1b[2Jb", None), ("\u202ea", None), ("a\0", None)),
    ],
)
def test_an_id_is_a_number_or_a_short_plain_text(value: object, kept: object) -> None:
    assert identifier(value) == kept
    assert is_task({"task_id": value}) is isinstance(kept, str)


@pytest.mark.parametrize("value", [None, 5, "x", "https://a/\n", "https://a/" + "b" * 8000, ["https://a"]])
def test_what_is_no_address_is_not_kept(value: object) -> None:
    assert location(value) is None
    assert location("https://a.example/b?c=d") == "https://a.example/b?c=d"


@pytest.mark.parametrize("number", ["x" * 10**5, [1], {"a": 1}, None, "\x1b", True])
def test_a_row_with_an_odd_id_confirms_the_image_without_it(number: Any) -> None:
    name = parse_name(NAME)
    assert name is not None
    receipt = _compare(IMAGE, (name.device, name.taken), {"md5": "a" * 32, "id": number})
    assert getattr(receipt, "digest", None) == "md5:" + "a" * 32
    assert getattr(receipt, "detail", None) == {}
