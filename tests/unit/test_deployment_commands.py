"""`trapsync deployment start`, `end`, `show`, and what status and heartbeat say of the deployment."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

import drawings
import operator_desk
import signed
import trap_bench as bench
from trapsync.clock import iso, utc
from trapsync.net import heartbeat
from trapsync.remote import heartbeat as remote_heartbeat
from trapsync.remote.in_force import load
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings.layers import Files
from trapsync.status import snapshot

DEVICE = drawings.DEVICE
FIRST = f"{drawings.DEVICE}-20260621T201915Z"
PLACE = '[deployment]\nlocation_name = "Creek"\n'


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def source(trap: bench.Trap) -> Path:
    """The config file of the trap, which takes the owner's settings."""
    signed.prepare(trap.folder, PLACE)
    path = trap.folder / "trapsync.toml"
    text = path.read_text().replace(
        "[storage]", 'latitude = 46.2\nlongitude = 6.1\ntimezone = "UTC"\n[storage]'
    )
    path.write_text(text.replace('"none"', '"simulated"'))
    return path


@pytest.fixture
def call(
    source: Path, trap: bench.Trap, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Call:
    """Run `trapsync deployment` at the trap's own time."""
    monkeypatch.setattr("trapsync.trap.system_clock", lambda _settings: trap.time)

    say = operator_desk.typing(monkeypatch, capfd)

    def run(*words: str) -> Said:
        said = Said(*say("-c", source, "deployment", *words))
        assert "Traceback" not in said.err
        return said

    return run


def test_a_deployment_is_begun_shown_and_ended(trap: bench.Trap, call: Call) -> None:
    assert call("show").out == "there is no deployment yet\n"
    assert call("start").out == f"the deployment {FIRST} began at 2026-06-21 20:19:15\n"
    trap.time.sleep(60)
    assert call("end").out == f"the deployment {FIRST} ended at 2026-06-21 20:20:15\n"
    lines = [line.split("  ") for line in call("show").out.splitlines()]
    assert [cell for cell in lines[1] if cell.strip()] == [
        *(FIRST, "2026-06-21 20:19:15", "2026-06-21 20:20:15", "Creek, 46.20000, 6.10000")
    ]
    (shown,) = json.loads(call("show", "--json").out)
    assert (shown["id"], shown["ended"], shown["terms"]["every"]) == (FIRST, "2026-06-21T20:20:15Z", 1200.0)


def test_where_there_is_none_to_end_the_advice_begins_one(call: Call) -> None:
    said = call("end")
    assert (said.code, said.err) == (
        *(1, "trapsync: no deployment is under way; to begin one: trapsync deployment start\n"),
    )
    assert call(*said.err.split()[-1:]).code == 0
    assert call("end").code == 0


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("2026-06-21T22:00:00Z", "is in the future; name a moment that is over"),
        ("2026-06-21T19:00:00Z", "when the last change was"),
        ("tomorrow", "is no moment; write"),
    ],
)
def test_a_moment_that_cannot_be_is_one_line(trap: bench.Trap, call: Call, at: str, says: str) -> None:
    call("start")
    trap.time.sleep(60)
    said = call("start", "--at", at)
    assert said.code in {1, 2}
    assert says in said.err
    assert len(trap.catalog.deployments.all()) == 1


def test_a_later_moment_than_the_newest_picture_is_taken(trap: bench.Trap, call: Call) -> None:
    call("start")
    trap.put(60)
    trap.ingest()
    trap.time.sleep(120)
    said = call("start", "--at", iso(drawings.TAKEN + timedelta(seconds=60)))
    assert "name a later moment" in said.err
    assert call("start", "--at", iso(drawings.TAKEN + timedelta(seconds=61))).code == 0


def test_before_the_clock_is_set_one_begins_now_and_is_told_to_be_corrected(
    trap: bench.Trap, call: Call
) -> None:
    trap.time.is_trusted = False
    assert "leave out --at" in call("start", "--at", "2026-06-01").err
    assert call("start").out.endswith("; the clock is not set, so that is corrected once it is\n")
    assert "not sure" in call("show").out


def test_a_start_by_hand_takes_pictures_of_before_for_a_deployment_of_their_own(
    trap: bench.Trap, call: Call
) -> None:
    trap.put()
    trap.ingest()
    trap.time.sleep(60)
    call("start")
    assert [iso(utc(one.began)) for one in trap.catalog.deployments.all()] == [
        "2026-06-21T20:19:15Z",
        "2026-06-21T20:20:15Z",
    ]


def test_settings_on_trial_are_no_terms_of_a_deployment_that_begins(
    trap: bench.Trap, source: Path, call: Call
) -> None:
    remote = RemoteSettings(Files(source), trap.time)
    assert remote.accept(signed.settings(1, {"capture": {"every": "5 min"}})).is_accepted
    assert remote.begin().is_trial
    call("start")
    (one,) = trap.catalog.deployments.all()
    assert one.terms["every"] == 1200.0


def test_status_and_heartbeat_name_the_deployment_in_few_bytes(
    trap: bench.Trap, source: Path, call: Call
) -> None:
    call("start")
    status = snapshot(load(source).settings, trap.time, drawings.DEVICE)
    beat = heartbeat.decode(remote_heartbeat.compose(status, 900))
    assert beat["deployment"] == {"id": FIRST, "since": "2026-06-21T20:19:15Z"}
    assert len(json.dumps({"deployment": beat["deployment"]})) <= 120
    call("end")
    status = snapshot(load(source).settings, trap.time, drawings.DEVICE)
    assert "deployment" not in heartbeat.decode(remote_heartbeat.compose(status, 900))


def test_pictures_after_its_end_are_a_warning_until_one_is_begun(
    trap: bench.Trap, source: Path, call: Call
) -> None:
    def reasons() -> list[str]:
        return [
            text
            for text in snapshot(load(source).settings, trap.time, DEVICE).reasons
            if "deployment" in text
        ]

    call("start")
    trap.put(10)
    trap.ingest()
    trap.time.sleep(20)
    call("end")
    assert reasons() == []
    trap.put(30)
    trap.ingest()
    trap.time.sleep(20)
    (text,) = reasons()
    assert text == (
        "pictures belong to no deployment, as it was ended on 2026-06-21; to begin one: trapsync deployment start"
    )
    assert call(text.split()[-1]).code == 0
    assert reasons() == []
