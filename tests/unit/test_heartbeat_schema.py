"""The heartbeat's schema for other programs says what the hub accepts and what a trap sends, in every version of it."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import documents
import heartbeat_schema
import signed
from heartbeat_schema import FILE, PAGE
from statuses import status
from trapsync.hub.app import Hub
from trapsync.net import heartbeat
from trapsync.net.judgement import traps
from trapsync.remote import heartbeat as remote_heartbeat
from trapsync.remote import in_force, record

OLDER = Path(__file__).parents[1] / "helpers" / "older"
SCHEMA = heartbeat_schema.written()
VALID = Draft202012Validator(SCHEMA)
DEVICE = "0a5bb6f4"
(EXAMPLE,) = [block for block in documents.blocks("config/heartbeat.md") if block.lines[0] == "{"]


def test_the_file_is_a_schema_and_has_the_types_and_bounds_by_which_heartbeats_are_read() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    advice = f"run: python tests/helpers/heartbeat_schema.py; then look at {FILE.name}, and at the promise on {PAGE.name}"
    assert heartbeat_schema.made(SCHEMA) == SCHEMA, advice


def test_each_field_has_a_description_and_says_what_null_means() -> None:
    for name, kind in heartbeat_schema.fields(SCHEMA):
        text = kind.get("description", "")
        assert text.endswith("."), f"{FILE.name}: {name}: write a description"
        may_be_null = "null" in str(kind.get("type", kind.get("anyOf"))) or None in kind.get("enum", [])
        if may_be_null and name != "device":
            assert "Null" in text, f"{FILE.name}: {name}: say what null means"


def test_the_page_has_every_field_with_its_description() -> None:
    shown = heartbeat_schema.rows(PAGE.read_text(encoding="utf-8"))
    assert shown == heartbeat_schema.table(SCHEMA), "run: python tests/helpers/heartbeat_schema.py"


def test_the_pages_example_has_every_field_that_a_trap_sends() -> None:
    beat = json.loads("\n".join(EXAMPLE.lines))
    heartbeat_schema.require(beat)
    assert set(beat) == set(SCHEMA["$defs"]["Heartbeat"]["properties"]) - {"odd"}
    assert beat["schema"] == 1


ODD: list[Any] = [None, True, -1, 0, 7, 1.5, 1e300, 2**53, 2**53 + 2, "x", "x" * 1001, "ok", [], ["x"], [1]]
ODD += [["x"] * 51, ["x"] * 101, {}, {"x": 1}, {str(n): n for n in range(101)}, [["x"]], {"trusted": None}]


@pytest.mark.parametrize("name", [name for name, _ in heartbeat_schema.fields(SCHEMA) if name != "device"])
def test_the_schema_accepts_in_each_field_what_the_hub_does(name: str) -> None:
    *parts, last = name.split(".")
    for value in ODD:
        beat: dict[str, Any] = {"device": DEVICE}
        inner = beat
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
        assert VALID.is_valid(beat) == is_read(beat), f"{name} = {value!r:.60}"


def is_read(beat: object) -> bool:
    """Whether hub and operator take it for a heartbeat."""
    try:
        heartbeat.read(beat)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "beat", [{}, {"device": None}, {"device": "0A5BB6F4"}, {"device": f"{DEVICE}0"}, [], None]
)
def test_without_a_device_it_is_no_heartbeat(beat: object) -> None:
    assert not VALID.is_valid(beat)


def test_all_that_a_trap_tells_of_remote_settings_is_described(tmp_path: Path) -> None:
    config = tmp_path / "trap.toml"
    config.write_text(f'[storage]\nstate = "state"\n[capture]\nevery = "5 min"\n{signed.TRUSTING}')
    record.change(
        tmp_path / "state",
        lambda before: replace(
            before,
            state="rolled_back",
            refused=record.Refusal("a" * 64, 9, "expired", "it expired"),
            asked=record.ResendRequest("b" * 64, 1.0, 2.0, again=3, gone=0),
        ),
    )
    report = in_force.report(in_force.load(config))
    beat = heartbeat.decode(remote_heartbeat.compose(status(remote=report), 900))

    heartbeat_schema.require(beat)
    described = SCHEMA["$defs"]["Remote"]["properties"].keys()
    assert beat["remote"].keys() == described
    assert datetime.fromisoformat(beat["remote"]["floor"]).tzinfo
    assert (beat["remote"]["groups"], beat["remote"]["values"]) == (["valley"], {"capture.every": "5 min"})
    assert beat["remote"]["resend"] == {"hash": "b" * 64, "again": 3, "gone": 0}


def test_a_heartbeat_of_an_older_trap_is_valid_and_the_hub_takes_and_shows_it(tmp_path: Path) -> None:
    older = (OLDER / "heartbeat-13fe5f4.json").read_bytes()  # as its daemon sent it
    hub = Hub.open(tmp_path)
    hub.fleet.take(DEVICE, older)
    (row,) = traps({**hub.fleet.snapshot(), "traps": list(hub.fleet.snapshot()["traps"])})
    hub.database.close()

    VALID.validate(json.loads(older))
    assert (row.name, row.verdict, row.odd) == ("valley-1", "ok", "")
    assert row.beat.ledger.captured == 10


def test_a_field_of_a_newer_trap_is_passed_over() -> None:
    beat = {
        "device": DEVICE,
        "schema": 1,
        "effort": {"expected": 3},
        "clock": {"trusted": True, "drift_s": 0.1},
    }
    assert VALID.is_valid(beat)
    assert is_read(beat)
