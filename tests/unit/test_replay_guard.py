"""What keeps an old document from being accepted again: numbers per key, time's floor, two places, and keys that revoke."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import drawings
import signed
from fake_time import FakeTime
from replays import ReplayedTrap
from signed import ISSUED, OWNER, STRANGER
from trapsync.clock import WRITTEN
from trapsync.remote import document, record
from trapsync.remote.document import PrivateKey
from trapsync.remote.in_force import load, report
from trapsync.remote.record import FARTHEST, LARGEST_NUMBER
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings.layers import Files

NOW = ISSUED.timestamp() + 3600
DAY, YEAR = 86400.0, 365.25 * 86400
BOTH = signed.TRUSTING.replace("]\ngroups", f', "{STRANGER.public}"]\ngroups')
FAR = LARGEST_NUMBER


def replaced(file: Path) -> Path:
    """The name of a file that is there no more."""
    file.unlink()
    return file


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-20]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "another": lambda file: file.write_text('{"floor": 1}'),
    "no numbers": lambda file: file.write_text('{"guard": {"numbers": 7}, "numbers": 7, "state": "trial"}'),
    "a line": lambda file: file.write_text("[" * 300_000),
    "gone": lambda file: file.unlink(),
    "a folder": lambda file: replaced(file).mkdir(),
    "a FIFO": lambda file: os.mkfifo(replaced(file)),
}


@pytest.fixture
def time() -> FakeTime:
    return FakeTime(NOW)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A trap that trusts two keys."""
    return signed.prepare(tmp_path / "trap", pushed=BOTH)


@pytest.fixture
def trap(source: Path, time: FakeTime) -> RemoteSettings:
    return RemoteSettings(Files(source), time)


def again(source: Path, time: FakeTime, *, trusting: str = BOTH) -> RemoteSettings:
    """The same trap after a start, perhaps with other keys."""
    return RemoteSettings(Files(signed.prepare(source.parent, pushed=trusting)), time)


def push(version: int, key: PrivateKey = OWNER, *, minutes: int = 5, **changes: Any) -> bytes:
    return signed.settings(version, {"capture": {"every": f"{minutes} min"}}, key, **changes)


def commit(trap: RemoteSettings, data: bytes) -> None:
    assert trap.accept(data).code == "accepted", trap.accept(data)
    trap.begin()
    trap.commit()


def every(source: Path) -> float:
    return float(load(source).settings.capture.every)


# ── S2: numbers that nobody else can raise ───────────────────────────────────────────────────────────


def test_the_highest_number_of_one_key_says_nothing_of_another(trap: RemoteSettings, source: Path) -> None:
    assert trap.accept(signed.keys(FAR - 1, key=STRANGER)).is_accepted
    commit(trap, push(FAR, STRANGER))
    commit(trap, push(1, OWNER, minutes=7))
    assert every(source) == 420
    assert trap.accept(push(1, OWNER, minutes=8)).code == "replay"


def test_a_key_that_goes_takes_its_numbers_along(trap: RemoteSettings, source: Path, time: FakeTime) -> None:
    assert trap.accept(signed.keys(FAR - 1)).is_accepted
    commit(trap, push(FAR))
    alone = signed.TRUSTING.replace(str(OWNER.public), str(STRANGER.public))
    commit(again(source, time, trusting=alone), push(1, STRANGER, minutes=6))
    back = again(source, time)
    commit(back, push(2, OWNER, minutes=7, issued=ISSUED + timedelta(minutes=1)))
    assert every(source) == 420
    # What it had signed before is older than what the other key sent since.
    assert back.accept(push(3, OWNER, issued=ISSUED - timedelta(days=1))).code == "accepted"


def test_what_a_key_signed_before_it_was_away_is_no_newer_than_what_came_since(
    trap: RemoteSettings, source: Path, time: FakeTime
) -> None:
    commit(trap, push(7))
    alone = signed.TRUSTING.replace(str(OWNER.public), str(STRANGER.public))
    later = ISSUED + timedelta(minutes=5)
    commit(again(source, time, trusting=alone), push(1, STRANGER, minutes=6, issued=later))
    assert again(source, time).accept(push(6)).code == "replay"
    assert every(source) == 360


@pytest.mark.parametrize(("beyond", "code"), [(0, "accepted"), (1, "number")])
def test_a_number_that_is_too_far_above_the_last_one_is_refused(
    trap: RemoteSettings, beyond: int, code: str
) -> None:
    commit(trap, push(40))
    assert trap.accept(push(40 + FARTHEST + beyond)).code == code


def test_a_document_about_keys_may_jump_and_the_numbers_go_on_from_there(trap: RemoteSettings) -> None:
    commit(trap, push(40))
    assert trap.accept(push(2**40 + 1)).code == "number"
    jump = signed.keys(2**40)
    assert [trap.accept(jump).code, trap.accept(jump).code] == ["accepted", "known"]
    commit(trap, push(2**40 + 1))
    assert trap.accept(signed.keys(2**40 - 1)).code == "replay"


def test_settings_and_requests_may_come_in_any_order_for_each_kind_is_compared_by_itself(
    trap: RemoteSettings,
) -> None:
    """The operator counts all documents with one number; one slot is asked after another."""
    assert trap.accept(signed.resend(8, ISSUED, ISSUED + timedelta(days=1))).is_accepted
    assert trap.accept(signed.keys(9)).is_accepted
    commit(trap, push(7))
    assert trap.accept(signed.resend(8, ISSUED, ISSUED + timedelta(days=2))).code == "replay"


# ── A stolen key ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("good", "stolen"), [(OWNER, STRANGER), (STRANGER, OWNER)])
def test_either_key_revokes_the_other_and_the_next_push_steers_again(
    trap: RemoteSettings, source: Path, time: FakeTime, good: PrivateKey, stolen: PrivateKey
) -> None:
    assert trap.accept(signed.keys(FAR - 2, key=stolen)).is_accepted
    commit(trap, push(FAR - 1, stolen, minutes=50))
    assert trap.accept(signed.keys(1, stolen, key=good)).is_accepted
    for data in (
        push(FAR, stolen),
        signed.keys(FAR, good, key=stolen),
        signed.resend(FAR, ISSUED, ISSUED + timedelta(days=1), key=stolen),
    ):
        refused = again(source, time).accept(data)
        assert (refused.code, stolen.public.id in refused.text) == ("key", True)
    commit(again(source, time), push(2, good, minutes=7))
    assert every(source) == 420
    alone = f'[remote]\nenabled = true\nkeys = ["{stolen.public}"]\ngroups = ["valley"]\n'
    assert again(source, time, trusting=alone).accept(push(FAR, stolen)).code == "key"


def test_what_a_revoked_key_has_on_trial_or_asked_for_goes(trap: RemoteSettings, source: Path) -> None:
    commit(trap, push(1, OWNER, minutes=6))
    assert trap.accept(push(1, STRANGER, issued=ISSUED + timedelta(minutes=1))).is_accepted
    assert trap.accept(signed.resend(2, ISSUED, ISSUED + timedelta(days=1), key=STRANGER)).is_accepted
    assert trap.begin().is_trial
    assert trap.accept(signed.keys(2, STRANGER)).is_accepted
    trap.commit()  # the daemon's judge was not told yet
    assert (every(source), trap.begin().is_trial, trap.request()) == (360, False, None)
    facts = report(load(source))
    assert (facts["state"], facts["code"]) == ("rolled_back", "key")


def test_no_key_revokes_itself_and_a_document_about_keys_is_for_all(trap: RemoteSettings) -> None:
    assert trap.accept(signed.keys(1, OWNER)).code == "keys"
    body = document.compose(replace(signed.DOCUMENT, kind="keys", to="all"))
    here = document.sign(body.replace(b'"all"', f'"device:{drawings.DEVICE}"'.encode()), OWNER)
    assert trap.accept(here).code == "schema"
    assert trap.accept(push(1)).is_accepted


# ── S7: time that was once wrong ─────────────────────────────────────────────────────────────────────

IN_2099 = datetime(2099, 1, 1, tzinfo=UTC)


def test_a_trusted_clock_that_lied_once_makes_no_trap_deaf(trap: RemoteSettings, time: FakeTime) -> None:
    """As with a time server of a rogue access point: README's hostile network."""
    time.step_wall(IN_2099.timestamp() - NOW)
    trap.note_time()
    assert trap.accept(push(1)).code == "expired"
    time.step_wall(NOW - IN_2099.timestamp())
    time.is_trusted = False
    assert trap.accept(push(1)).code == "accepted"
    assert trap.accept(push(2)).code == "accepted"


@pytest.mark.parametrize("years", [0.1, 1, 2.9])
def test_a_lie_within_bounds_is_taken_back_by_the_next_trusted_look(
    trap: RemoteSettings, source: Path, time: FakeTime, years: float
) -> None:
    time.step_wall(years * YEAR)
    trap.note_time()
    time.step_wall(-years * YEAR)
    trap.note_time()
    assert record.read(source.parent / "state").guard.floor == pytest.approx(NOW, abs=DAY)
    time.is_trusted = False
    assert trap.accept(push(1)).code == "accepted"


def test_a_laptop_in_2099_is_refused_with_any_clock_and_its_lie_within_bounds_is_taken_back(
    trap: RemoteSettings, time: FakeTime
) -> None:
    time.is_trusted = False
    far: dict[str, Any] = {"issued": IN_2099, "expires": IN_2099 + timedelta(days=90)}
    assert trap.accept(push(1, **far)).code == "expired"
    near: dict[str, Any] = {"issued": ISSUED + timedelta(days=800), "expires": ISSUED + timedelta(days=890)}
    assert trap.accept(push(2, **near)).code == "accepted"
    assert trap.accept(push(3)).code == "expired"
    time.is_trusted = True
    assert trap.accept(push(3)).code == "accepted"
    time.is_trusted = False
    assert trap.accept(push(4)).code == "accepted"


def test_a_clock_before_this_program_was_written_is_not_believed(
    trap: RemoteSettings, time: FakeTime
) -> None:
    time.step_wall(-NOW)  # an RTC with a dead battery, and trap.clock = "trusted"
    trap.note_time()
    assert trap.accept(push(1)).code == "accepted"
    old: dict[str, Any] = {"issued": ISSUED - timedelta(days=900), "expires": ISSUED - timedelta(days=800)}
    assert trap.accept(push(2, **old)).code == "expired"


def test_the_heartbeat_says_the_floor(trap: RemoteSettings, source: Path) -> None:
    assert report(load(source))["floor"] == "2026-06-01T00:00:00Z"
    trap.note_time()
    assert report(load(source))["floor"] == "2026-06-21T21:00:00Z"


# ── S13: a record that is lost is not forgotten ──────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["remote_settings.json", "replay_guard.json"])
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("is_trusted", [True, False])
def test_of_one_damaged_file_the_other_remembers_numbers_floor_and_revoked_keys(
    trap: RemoteSettings, source: Path, time: FakeTime, name: str, how: str, is_trusted: bool
) -> None:
    old: dict[str, Any] = {"issued": ISSUED - timedelta(days=19), "expires": ISSUED - timedelta(hours=1)}
    first = push(4)
    commit(trap, first)
    commit(trap, push(5, minutes=6))
    assert trap.accept(signed.keys(6, STRANGER)).is_accepted
    trap.note_time()
    DAMAGE[how](source.parent / "state" / name)
    time.is_trusted = is_trusted

    assert report(load(source))["damaged"]
    for _ in range(2):  # before it is written anew, and after it
        trap = again(source, time)
        assert trap.accept(first).code == "replay"
        assert trap.accept(push(3)).code == "replay"
        assert trap.accept(push(9, STRANGER)).code == "key"
        assert trap.accept(push(7, **old)).code == "expired"
        trap.begin()
    if name == "replay_guard.json":
        assert (every(source), bool(report(load(source))["damaged"])) == (360, False)
        return
    # The settings are lost, which is said, until the document that lies at the hub comes again.
    assert (every(source), bool(report(load(source))["damaged"])) == (1200, True)
    commit(again(source, time), push(5, minutes=6))
    assert (every(source), bool(report(load(source))["damaged"])) == (360, False)


@pytest.mark.parametrize("first", ["remote_settings.json", "replay_guard.json"])
@pytest.mark.parametrize("how", DAMAGE)
def test_of_two_files_that_are_damaged_one_after_the_other_each_remembers(
    trap: RemoteSettings, source: Path, time: FakeTime, first: str, how: str
) -> None:
    """A start in between writes the first one anew."""
    commit(trap, push(5))
    assert trap.accept(signed.keys(6, STRANGER)).is_accepted
    for name in (first, "replay_guard.json", "remote_settings.json"):
        DAMAGE[how](source.parent / "state" / name)
        again(source, time).begin()
        assert again(source, time).accept(push(4)).code == "replay"
        assert again(source, time).accept(push(9, STRANGER)).code == "key"


@pytest.mark.parametrize("how", ["empty", "cut", "zeros"])
def test_of_two_damaged_files_no_document_from_before_is_accepted(
    trap: RemoteSettings, source: Path, time: FakeTime, how: str
) -> None:
    commit(trap, push(5))
    for name in ("remote_settings.json", "replay_guard.json"):
        file = source.parent / "state" / name
        DAMAGE[how](file)
        os.utime(file, (NOW, NOW))
    time.is_trusted = False
    for _ in range(2):
        trap = again(source, time)
        assert trap.accept(push(4)).code == "replay"
        assert trap.accept(push(5)).code == "replay"
        trap.begin()
    commit(again(source, time), push(6, issued=ISSUED + timedelta(hours=2)))


@pytest.mark.parametrize("is_nested", [True, False])
def test_keys_that_a_newer_version_wrote_are_ignored_and_kept(
    trap: RemoteSettings, source: Path, time: FakeTime, is_nested: bool
) -> None:
    commit(trap, push(5))
    file = record.path(source.parent / "state")
    plain = json.loads(file.read_text())
    if is_nested:
        plain["committed"]["surprise"] = plain["guard"]["surprise"] = [1]
    else:
        plain["surprise"] = {"a": 1}
    file.write_text(json.dumps(plain))
    assert (every(source), again(source, time).accept(push(5, minutes=9)).code) == (300, "replay")
    commit(again(source, time), push(6))
    if not is_nested:
        assert json.loads(file.read_text())["surprise"] == {"a": 1}


# ── An older version's record ────────────────────────────────────────────────────────────────────────

OLDER: dict[str, dict[str, Any]] = json.loads(
    (Path(drawings.__file__).parent / "older" / "remote-settings-13fe5f4.json").read_text()
)


def older(source: Path, **changes: Any) -> Path:
    """What 13fe5f4 left, with these values; its file."""
    file = source.parent / "state" / "pushed.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(OLDER["committed"] | changes))
    return file


def test_the_numbers_of_an_older_version_hold_for_every_key(source: Path, time: FakeTime) -> None:
    older(source)
    trap = again(source, time)
    for key in (OWNER, STRANGER):
        assert trap.accept(push(2, key, minutes=9)).code == "replay"
    commit(trap, push(3, OWNER))
    assert again(source, time).accept(push(2, STRANGER, issued=ISSUED + timedelta(hours=1))).code == "replay"
    assert again(source, time).accept(push(3, STRANGER, issued=ISSUED + timedelta(hours=1))).is_accepted


def test_what_a_forged_heartbeat_did_to_an_older_version_ends_with_the_next_push(
    source: Path, time: FakeTime
) -> None:
    """S2: the operator was led to sign an epoch and a number beyond all bounds; nothing was new after it."""
    older(source, highest=[FAR, FAR])
    trap = again(source, time)
    for version in (1, 2, 99):
        assert trap.accept(push(version, minutes=9)).code == "replay", "from before"
    commit(trap, push(3, issued=datetime.fromtimestamp(OLDER["committed"]["floor"] + 60, UTC)))


@pytest.mark.parametrize("floor", [IN_2099.timestamp(), -5.0, 1e300])
def test_a_floor_of_an_older_version_that_cannot_be_right_makes_no_trap_deaf(
    source: Path, time: FakeTime, floor: float
) -> None:
    older(source, floor=floor)
    time.is_trusted = False
    commit(again(source, time), push(3))
    assert record.read(source.parent / "state").guard.floor == ISSUED.timestamp() > WRITTEN


def test_an_upgrade_that_is_undone_and_made_again_forgets_nothing_of_either_version(
    source: Path, time: FakeTime
) -> None:
    file = older(source)
    before = file.read_bytes()
    commit(again(source, time), push(7, minutes=7))
    assert file.read_bytes() == before, "the older version finds its own again"
    assert every(source) == 420
    older(source, highest=[0, 9], committed=OLDER["committed"]["committed"] | {"version": 9})
    assert every(source) == 300, "what the older version accepted in between"
    trap = again(source, time)
    assert trap.accept(push(9)).code == "replay"
    commit(trap, push(10, minutes=8))
    assert every(source) == 480


@pytest.mark.parametrize("files", [["remote_settings.json"], ["remote_settings.json", "replay_guard.json"]])
def test_a_record_that_is_damaged_long_after_an_upgrade_brings_nothing_back_from_before_it(
    source: Path, time: FakeTime, files: list[str]
) -> None:
    older(source)
    commit(again(source, time), push(7, minutes=7))
    for name in files:
        DAMAGE["cut"](source.parent / "state" / name)
        os.utime(source.parent / "state" / name, (NOW, NOW))
    for _ in range(2):  # before it is written anew, and after it
        assert (every(source), bool(report(load(source))["damaged"])) == (1200, True)
        assert again(source, time).accept(push(6)).code == "replay"
        again(source, time).begin()


@pytest.mark.parametrize("how", ["empty", "cut", "zeros"])
def test_a_damaged_record_of_an_older_version_is_told_and_nothing_from_before_comes_back(
    source: Path, time: FakeTime, how: str
) -> None:
    file = older(source)
    DAMAGE[how](file)
    os.utime(file, (NOW, NOW))
    assert "push them again" in report(load(source))["damaged"]
    trap = again(source, time)
    trap.begin()
    assert trap.accept(push(9)).code == "replay"
    commit(trap, push(3, issued=ISSUED + timedelta(hours=2)))


# ── In any order ─────────────────────────────────────────────────────────────────────────────────────


def test_in_any_order_of_documents_clocks_keys_and_damage_nothing_old_is_accepted_and_the_operator_is_heard() -> (
    None
):
    how = settings(
        max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(ReplayedTrap, settings=how)
