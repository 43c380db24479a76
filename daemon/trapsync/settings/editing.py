"""Change single keys in the text of a config file; comments, order and everything else stay as they are.

The text is changed line by line, and the result is read again: it must say what it said before and the change, nothing
else. What is written otherwise than one key a line is left to an editor.
"""

import json
import re
import tomllib
from typing import Any

from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings.layers import Key, merge

_HEADING = re.compile(r"\s*#?(\[[^\[\]=]+\])\s*(#.*)?")
_BARE = re.compile("[A-Za-z0-9_-]+")
_LONGEST = 200  # lines of one value


def key_of(text: str) -> Key:
    """The path of a key as people write it: `capture.every`. SettingsError if it is none."""
    path = _path(f"{text} = 0")
    if len(path) < 2:
        raise SettingsError(f"{text!r} is no key of a setting, such as capture.every")
    return path


def value_at(tables: dict[str, Any], key: Key) -> Any:
    """The value in these tables; None where there is none."""
    found: Any = tables
    for name in key:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def without(tables: dict[str, Any], key: Key) -> dict[str, Any]:
    """The same tables without that key; a table that is left empty stays."""
    name, *rest = key
    inner = {name: without(tables[name], tuple(rest))} if rest else {}
    return {other: value for other, value in tables.items() if other != name} | inner


def with_value(text: str, key: Key, value: Any, source: object) -> str:
    """The text with this value. SettingsError where it cannot be changed line by line."""
    new = f"{_written(key[-1])} = {json.dumps(value, ensure_ascii=False)}"
    lines = text.splitlines()
    first, last = _table(lines, key)
    if first is None:
        lines += ["", f"[{'.'.join(map(_written, key[:-1]))}]", new]
    else:
        at, end = _assignment(lines, first, last, key[-1])
        lines[at:end] = [new]
    nested: Any = value
    for name in reversed(key):
        nested = {name: nested}
    return _checked(lines, merge(config_file.tables(text, source), nested), key, source)


def without_value(text: str, key: Key, source: object) -> str:
    """The text with this key as a comment. SettingsError where it cannot be changed line by line, or is not there."""
    tables = config_file.tables(text, source)
    if value_at(tables, key) is None:
        raise SettingsError(f"{source}: {'.'.join(key)} is not set there")
    lines = text.splitlines()
    first, last = _table(lines, key)
    at, end = _assignment(lines, first or 0, last, key[-1])
    lines[at:end] = [f"#{line}" for line in lines[at:end]]
    return _checked(lines, without(tables, key), key, source)


def _checked(lines: list[str], expected: dict[str, Any], key: Key, source: object) -> str:
    text = "\n".join(lines) + "\n"
    try:
        if tomllib.loads(text) == expected:
            return text
    except ValueError:
        pass
    raise SettingsError(
        f"{source}: {'.'.join(key)} is written there in another way than one key a line; use an editor"
    )


def _written(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _table(lines: list[str], key: Key) -> tuple[int | None, int]:
    """The lines of the key's table, from the one behind its heading to the next heading; None where it is not there.

    A key of no table stands before the first heading.
    """
    first, last = None if key[1:] else 0, len(lines)
    for number, line in enumerate(lines):
        if heading := _HEADING.fullmatch(line):
            if first is not None:
                return first, number
            if not line.lstrip().startswith("#") and _path(heading[1]) == key[:-1]:
                first = number + 1
    return first, last


def _path(line: str) -> Key:
    """The path of the one table or key that a line holds; empty where it holds no such thing."""
    try:
        found: Any = tomllib.loads(line)
    except ValueError:
        return ()
    path: list[str] = []
    while isinstance(found, dict) and len(found) == 1:
        ((name, found),) = found.items()
        path.append(name)
    return tuple(path)


def _assignment(lines: list[str], first: int, last: int, name: str) -> tuple[int, int]:
    """The lines in which the key stands, in use or else as a comment; else the place behind the last key in use."""
    behind, comment = first, None
    number = first
    while number < last:
        line = lines[number]
        end = _end(lines, number, last)
        if _is_of(line, name):
            return number, end
        if comment is None and line.startswith("#") and _is_of(line[1:], name):
            comment = number
        if line.strip() and not line.lstrip().startswith("#"):
            behind = end
        number = end
    return (comment, comment + 1) if comment is not None else (behind, behind)


def _is_of(line: str, name: str) -> bool:
    key, is_set, _ = line.partition("=")
    return bool(is_set) and key.strip() in {name, json.dumps(name)}


def _end(lines: list[str], number: int, last: int) -> int:
    """The line behind the value that begins in this one."""
    for end in range(number + 1, min(last, number + _LONGEST) + 1):
        try:
            tomllib.loads("\n".join(lines[number:end]))
        except ValueError:
            continue
        return end
    return number + 1
