"""The door for JSON from outside: what it lets in, what it takes out, and how much memory it takes at the most."""

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from trapsync.net import foreign_json


def decode(text: bytes, **bounds: Any) -> Any:
    """Within the bounds of an answer."""
    return foreign_json.decode(text, 2**20, **bounds)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b" " * (2**20 + 1), "longer than 1048576 bytes"),
        (b"[" + b"0," * 100_000 + b"0]", "of more than 100000 values"),
        (b"[" * 33 + b"]" * 33, "too deep"),
        (b"[" * 50_000 + b"]" * 50_000, "too deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "too deep"),
        (b"", "cut off or broken"),
        (b"[1,", "cut off or broken"),
        (b"\x00", "cut off or broken"),
    ],
)
def test_what_is_beyond_a_bound_is_no_json(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(text)


def test_the_bounds_are_by_what_was_asked() -> None:
    assert decode(b"[" * 32 + b"]" * 32) == json.loads("[" * 32 + "]" * 32)
    assert decode(b"[[1]]", deepest=2) == [[1]]
    with pytest.raises(ValueError, match="too deep"):
        decode(b"[[1]]", deepest=1)
    with pytest.raises(ValueError, match="more than 2 values"):
        decode(b"[1,2,3]", most_values=2)


@pytest.mark.parametrize(
    "text",
    [
        *(b"[NaN]", b"[-Infinity]", b"[1e999]", b"[9223372036854775808]", b"[" + b"9" * 5000 + b"]"),
        *(b'["\\ud800"]', b'{"\\uDFFF": 1}', b'["\xed\xa0\x80"]', b'["\xff"]'),
    ],
)
def test_what_cannot_be_stored_is_taken_out_or_strictly_no_json(text: bytes) -> None:
    content = json.dumps(decode(text), allow_nan=False, ensure_ascii=False)
    assert content.encode()
    with pytest.raises(ValueError, match="cut off or broken"):
        decode(text, strict=True)


@pytest.mark.parametrize("strict", [False, True])
def test_all_other_json_comes_through_as_it_is(strict: bool) -> None:
    plain = {"a": [1, -1.5, True, None, "\u00fc\U0001f98b", {}], "": -(2**63), "big": 2**63 - 1}
    for ascii_only in (False, True):
        text = json.dumps(plain, ensure_ascii=ascii_only).encode()
        assert decode(text, strict=strict) == plain


# What makes much of few bytes: objects, objects of one key, numbers, short texts, wide characters, halves of surrogates.
BOMBS = {
    "objects": b"{},",
    "keys": b'{"a":1},',
    "numbers": b"1.5,",
    "texts": b'"ab",',
    "lists": b"[[]],",
    "surrogates": b'"\\ud800",',
}


@pytest.mark.parametrize("piece", BOMBS.values(), ids=BOMBS)
def test_no_answer_takes_more_than_its_share_of_memory(piece: bytes) -> None:
    text = b"[" + piece * (2**20 // len(piece) - 1) + b"0]"
    most = b"[" + piece * (
        foreign_json.MOST_VALUES // (piece.count(b",") + piece.count(b"[") + piece.count(b"{")) - 1
    )
    wide = b'["' + "\U0001f98b".encode() + b"x" * (2**20 - 10) + b'"]'
    tracemalloc.start()
    try:
        for one in (text, most + b"0]", wide):
            with suppress(ValueError):  # of too many values, most of them
                decode(one)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20
