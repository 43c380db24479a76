"""The schema of the heartbeat for other programs, and the table of its page: config/heartbeat.schema.json and .md.

Types and bounds are those of `net.heartbeat`, by which the hub and the operator's computer read heartbeats. What a field
means stands in the schema itself, in one place for people and programs. After a change of the type

    python tests/helpers/heartbeat_schema.py

writes schema and table anew, with each description as it was; test_heartbeat_schema says which one is missing.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from documents import ROOT
from trapsync.net.heartbeat import Heartbeat
from trapsync.settings.schema import DEVICE

FILE, PAGE = ROOT / "config" / "heartbeat.schema.json", ROOT / "config" / "heartbeat.md"
HEADING = "| field | type | meaning |"
_FOR_PEOPLE = ("description", "format")  # what stands in the file alone


def written() -> dict[str, Any]:
    """The schema as it stands in the file."""
    schema: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return schema


def made(before: dict[str, Any]) -> dict[str, Any]:
    """The schema of the type, with the descriptions of another one."""
    types = msgspec.json.schema(Heartbeat)["$defs"]
    device = {"type": "string", "pattern": f"^{DEVICE.pattern}$"}  # the hub takes none without it
    whole = {"$ref": "#/$defs/Heartbeat", "required": ["device"], "properties": {"device": device}}
    head = {key: before[key] for key in ("$schema", "$id", "title", "description")}
    return head | whole | {"$defs": {name: _part(types[name], before, name) for name in types}}


def _part(part: dict[str, Any], before: dict[str, Any], name: str) -> dict[str, Any]:
    there = before["$defs"].get(name, {}).get("properties", {})
    fields = {
        key: {word: there[key][word] for word in _FOR_PEOPLE if word in there.get(key, {})} | _kind(kind)
        for key, kind in part["properties"].items()
    }
    return {"type": "object", "properties": fields}


def _kind(kind: dict[str, Any]) -> dict[str, Any]:
    """What a field may hold. As msgspec has it, without its defaults, and shorter where it may be null."""
    kind = {word: value for word, value in kind.items() if word != "default"}
    some = kind.get("anyOf", [])
    if len(some) != 2 or some[1] != {"type": "null"} or "$ref" in some[0]:
        return kind
    may_be: dict[str, Any] = some[0]
    if "enum" in may_be:
        return {"enum": [*may_be["enum"], None]}
    return may_be | {"type": [may_be["type"], "null"]}


def require(beat: object) -> None:
    """Fail unless this is a heartbeat by the schema, and has no field that the schema does not describe."""
    _strict().validate(beat)


@cache
def _strict() -> Draft202012Validator:
    return Draft202012Validator(strict(written()))


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, by which a heartbeat has no other fields than those that it describes."""
    schema = deepcopy(schema)
    for part in schema["$defs"].values():
        part["additionalProperties"] = False
    return schema


def fields(
    schema: dict[str, Any], part: str = "Heartbeat", before: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field by its dotted name, with what the schema says of it."""
    for key, kind in schema["$defs"][part]["properties"].items():
        yield before + key, kind
        if inner := _reference(kind):
            yield from fields(schema, inner, f"{before}{key}.")


def _reference(kind: dict[str, Any]) -> str:
    one: dict[str, Any]
    (one, *_) = kind.get("anyOf", [kind])
    return str(one.get("$ref", "")).removeprefix("#/$defs/")


def table(schema: dict[str, Any]) -> list[str]:
    """The rows of the page's table."""
    return [f"| `{name}` | {_shown(kind)} | {kind['description']} |" for name, kind in fields(schema)]


def _shown(kind: dict[str, Any]) -> str:
    if _reference(kind):
        return "object"
    if "enum" in kind:
        return "text"
    (word, *_) = [kind["type"]] if isinstance(kind["type"], str) else kind["type"]
    names = {
        "string": "text",
        "integer": "whole number",
        "array": "list of texts",
        "boolean": "true or false",
    }
    return "time" if kind.get("format") == "date-time" else names.get(word, word)


def rows(page: str) -> list[str]:
    """The rows of the table on the page, as they stand there."""
    below = page.partition(f"{HEADING}\n")[2].splitlines()[1:]
    return below[: next(number for number, line in enumerate(below) if not line.startswith("|"))]


def main() -> None:
    """Write schema and table anew."""
    schema, page = made(written()), PAGE.read_text(encoding="utf-8")
    FILE.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page.replace("\n".join(rows(page)), "\n".join(table(schema))), encoding="utf-8")


if __name__ == "__main__":
    main()
