"""What is wrong with a value of the settings, in words for somebody who knows no types."""

import json
import re
import types
import typing
from typing import Any, Literal

# msgspec's words end with the place: "Expected `int`, got `str` - at `$.camera.quality`".
_COMPLAINT = re.compile(r"(?P<reason>.*?)(?: - at `\$(?P<place>[^`]*)`)?", re.DOTALL)
_FROM_WITHIN = re.compile(r"([a-z_]+): (.*)", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    dict: "a table",
}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts in quotes"}


def explain(message: str, table: dict[str, Any], kind: type, at: str) -> str:
    """Put msgspec's complaint into words for a person: `camera.quality = 'x': must be a whole number`."""
    complaint = _COMPLAINT.fullmatch(message)
    assert complaint is not None, message
    value: Any = table
    reason, where, wanted = complaint["reason"], at, kind
    for key, number in re.findall(r"\.(\w+)|\[(\d+)\]", complaint["place"] or ""):
        if key:
            where, value = dotted(where, key), value[key]
            wanted = typing.get_type_hints(wanted)[key]
        elif isinstance(value[int(number)], dict):  # one of a list of tables
            where, value, wanted = f"{where}[{number}]", value[int(number)], typing.get_args(wanted)[0]
    if own := _FROM_WITHIN.fullmatch(reason):  # the key leads, and the value is in the text
        return f"{dotted(where, own[1])}: {own[2]}"
    if missing := _MISSING.fullmatch(reason):
        return f"{dotted(where, missing[1])}: is missing, and has no default"
    if reason.startswith(("Expected", "Invalid enum")):
        reason = f"must be {_in_words(wanted)}"
    return f"{where}{_written(value)}: {reason}"


def dotted(at: str, key: str) -> str:
    """The path of a key, as it would be written in TOML."""
    bare = key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
    return f"{at}.{bare}" if at else bare


def _written(value: object) -> str:
    """` = value` for the text of an error, if it is short enough to help."""
    if isinstance(value, bool):
        return f" = {str(value).lower()}"
    is_short = isinstance(value, str | int | float | list) and len(repr(value)) <= 60
    return f" = {value!r}" if is_short else ""


def _in_words(wanted: Any) -> str:
    """What a value of this type is, for somebody who knows no types."""
    parts, origin = typing.get_args(wanted), typing.get_origin(wanted)
    if origin is Literal:
        words = [str(part) for part in parts if part != ""]  # which stands for none of them
        return f"one of: {', '.join(words)}" if len(words) > 1 else f'"{words[0]}"'
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(part) for part in parts if part is not types.NoneType)
    if origin is tuple:
        count = "" if parts[-1] is ... else f"{len(parts)} "
        return f"a list of {count}{_PLURALS.get(parts[0], 'tables')}"
    if origin is dict and parts[-1] is str:
        return "a table of texts in quotes"
    if origin is dict:
        return "a table" if parts[-1] is Any else "tables with names of your choice: [destinations.NAME]"
    return _WORDS.get(wanted, "a table")
