"""Quantities: durations and sizes, written with their units and read as seconds and bytes."""

import math
import re
from decimal import Decimal
from typing import Any

_UNITS_OF_TIME = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400, "weeks": 604800}
_UNITS_OF_SIZE = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
# As people write them too; an error names those above.
_SPELLINGS = {
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "minute": "min",
    "minutes": "min",
    "hour": "h",
    "hours": "h",
    "week": "weeks",
}
_FOR_EVER = "for ever"
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]+)")


class Duration(float):
    """Seconds, written with a unit: `"500 ms"`, `"20 s"`, `"20 min"`, `"2 h"`, `"7 days"`, `"2 weeks"`."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Read the written form; ValueError says how it is written."""
        return cls(_quantity(text, _UNITS_OF_TIME, '"20 min" or "30 s"'))


class Exposure(Duration):
    """The exposure time in seconds, or `"auto"`, which is zero."""

    @classmethod
    def parse(cls, text: object) -> "Exposure":
        """Read the written form; ValueError says how it is written."""
        return cls(0 if text == "auto" else _quantity(text, _UNITS_OF_TIME, '"auto" or "20 ms"'))


class Keeping(Duration):
    """How long something is kept, in seconds, or `"for ever"`, which is infinity."""

    @classmethod
    def parse(cls, text: object) -> "Keeping":
        """Read the written form; ValueError says how it is written."""
        return cls(
            math.inf if text == _FOR_EVER else _quantity(text, _UNITS_OF_TIME, f'"{_FOR_EVER}" or "400 days"')
        )


class Size(int):
    """Bytes, written with a unit: `"200 kB"`, `"50 MB"`, `"2 GB"`, or `"2 GiB"`; `"0 B"` is nothing."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Read the written form; ValueError says how it is written."""
        return cls(_quantity(text, _UNITS_OF_SIZE, '"500 MB" or "2 GB"'))


def _quantity(text: object, units: dict[str, Any], example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    unit = _SPELLINGS.get(match[2], match[2]) if match else ""
    if match is None or unit not in units:
        raise ValueError(f"must be a quantity with a unit ({', '.join(units)}), such as {example}")
    return float(match[1]) * float(units[unit])


def shown(number: float, like: object = None) -> str:
    """Write a bound in the unit of the value that it bounds."""
    kind = number if like is None else like
    if isinstance(kind, Keeping) and number == math.inf:
        return _FOR_EVER
    if isinstance(kind, Duration):
        unit = next((u for u in ("day", "h", "min", "s") if number >= _UNITS_OF_TIME[u]), "ms")
        return _with_unit(number, unit if number else "s", _UNITS_OF_TIME)
    if isinstance(kind, Size):
        unit = next((u for u in ("GB", "MB", "kB") if number >= _UNITS_OF_SIZE[u]), "B")
        return _with_unit(number, unit, _UNITS_OF_SIZE)
    return f"{number:g}"


def _with_unit(number: float, unit: str, units: dict[str, Any]) -> str:
    count = f"{number / units[unit]:g}"
    return f"{count} days" if unit == "day" and count != "1" else f"{count} {unit}"


def exactly(value: Duration | Size) -> str:
    """The short form where it says all of it, else every digit of seconds or bytes."""
    short = shown(value)
    try:
        if type(value).parse(short) == value:
            return short
    except ValueError:  # 1e+06 days
        pass
    return f"{value} B" if isinstance(value, Size) else f"{Decimal(repr(float(value))):f} s"
