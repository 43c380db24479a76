"""JSON from outside: answers, requests, heartbeats. The one place where it is decoded, within bounds.

What is too long, too deep or of too many values is none: a few bytes of text can take thirty times as much memory once
they are decoded. What neither SQLite nor a log nor a strict reader of JSON takes is taken out of the rest.
"""

import json
import math
import re
from typing import Any

DEEPEST = 32  # lists and objects in one another; what services answer has fewer than ten
# Values of one text. The longest answer that is asked for, 512 rows of a Sticky Pi server, has some 10,000.
MOST_VALUES = 100_000

_LONGEST_NUMBER = 20  # digits with a sign
_MOST = 2**63
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(
    text: bytes, largest: int, *, deepest: int = DEEPEST, most_values: int = MOST_VALUES, strict: bool = False
) -> Any:
    """JSON of at most `largest` bytes; ValueError, with the reason, if it is none or beyond a bound.

    A number that is none (NaN, 1e999) or has no room in 64 bits becomes null, half of a surrogate a question mark: of a
    list of images, one odd value must not cost all the others. With `strict` such a text is no JSON.
    """
    if len(text) > largest:
        raise ValueError(f"longer than {largest} bytes")
    # Commas and brackets within texts count too, so this is never less than the number of values.
    if text.count(b",") + text.count(b"[") + text.count(b"{") > most_values:
        raise ValueError(f"of more than {most_values} values")
    try:
        content = _decoded(text.decode("utf-8-sig", "strict" if strict else "replace"), strict=strict)
        # Perhaps of a surrogate that lacks its other half: two halves are joined by now.
        if _HALF.search(text):
            whole = json.dumps(content, ensure_ascii=False).encode(errors="strict" if strict else "replace")
            content = json.loads(whole)
    except RecursionError:
        raise ValueError("too deep") from None
    except ValueError:
        raise ValueError("cut off or broken") from None
    if _is_deeper(content, deepest):
        raise ValueError("too deep")
    return content


def _decoded(text: str, *, strict: bool) -> Any:
    def odd(_: str) -> Any:
        if strict:
            raise ValueError
        return None

    def fraction(digits: str) -> float | None:
        return number if math.isfinite(number := float(digits)) else odd(digits)

    def whole(digits: str) -> int | None:
        # Python itself refuses a number of thousands of digits.
        number = int(digits) if len(digits) <= _LONGEST_NUMBER else _MOST
        return number if -_MOST <= number < _MOST else odd(digits)

    return json.loads(text, parse_constant=odd, parse_float=fraction, parse_int=whole)


def _is_deeper(content: Any, deepest: int) -> bool:
    """Whether more than `deepest` lists and objects lie in one another. Level by level, without recursion."""
    level = [content] if isinstance(content, list | dict) else []
    for _ in range(deepest):
        inner = (value for one in level for value in (one.values() if isinstance(one, dict) else one))
        level = [value for value in inner if isinstance(value, list | dict)]
    return bool(level)
