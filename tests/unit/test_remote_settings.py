"""Settings from afar: what is taken and what refused, what is in force, and what a trial ends with."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import drawings
import signed
from fake_time import FakeTime
from trapsync.errors import SettingsError, StorageError
from trapsync.remote import document, record
from trapsync.remote.in_force import lay, load, report
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings import layers
from trapsync.settings.layers import Files
from trapsync.settings.schema import Settings

NOW = signed.ISSUED.timestamp() + 3600


@pytest.fixture
def time() -> FakeTime:
    return FakeTime(NOW)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return signed.prepare(tmp_path / "trap")


@pytest.fixture
def trap(source: Path, time: FakeTime) -> RemoteSettings:
    return RemoteSettings(Files(source), time)


def interval(settings: Settings) -> float:
    return float(settings.capture.every)


def every(source: Path) -> float:
    """The interval that is in force."""
    return interval(load(source).settings)


def state_of(trap: RemoteSettings) -> dict[str, Any]:
    """What is reported of the remote settings."""
    return report(lay(trap._files))


def push(minutes: int) -> dict[str, Any]:
    return {"capture": {"every": f"{minutes} min"}}


def live_through(trap: RemoteSettings, version: int, tables: dict[str, Any]) -> None:
    """Push settings, and let them prove themselves."""
    assert trap.accept(signed.settings(version, tables)).is_accepted
    assert trap.begin().is_trial
    trap.commit()


def test_of_changes_that_are_made_at_once_none_is_lost(tmp_path: Path) -> None:
    at_once = Barrier(4)

    def change(_: int) -> None:
        at_once.wait()
        for _ in range(10):
            record.change(tmp_path, lambda known: replace(known, starts=known.starts + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert record.read(tmp_path).starts == 40


# ── Taken or refused ─────────────────────────────────────────────────────────────────────────────────


def test_settings_take_effect_with_the_next_start_and_stay_once_they_have_proven_themselves(
    source: Path, trap: RemoteSettings
) -> None:
    data = signed.settings(3, push(5))
    outcome = trap.accept(data)
    assert (outcome.code, outcome.hash) == ("accepted", document.document_hash(data))
    assert (every(source), state_of(trap)["state"]) == (1200, "validated")
    found = trap.begin()
    assert (interval(found.settings), found.is_trial) == (300, True)
    assert (every(source), state_of(trap)["state"]) == (300, "trial")
    trap.commit()
    assert state_of(trap) == {
        "state": "committed",
        "last_received_hash": outcome.hash,
        "effective_hash": outcome.hash,
        "version": 3,
        "key": signed.OWNER.public.id,
        "code": None,
        "reason": None,
        "refused": None,
        "damaged": None,
        "floor": "2026-06-21T21:00:00Z",
        "groups": ["valley"],
        "values": {"capture.every": "5 min"},
    }
    assert (every(source), trap.begin().is_trial) == (300, False)


def test_a_trap_that_was_never_pushed_anything_says_so(trap: RemoteSettings) -> None:
    facts = state_of(trap)
    assert (facts["state"], facts["last_received_hash"], facts["version"]) == ("none", None, None)


def test_a_document_replaces_all_of_the_one_before(source: Path, trap: RemoteSettings) -> None:
    live_through(trap, 1, push(5) | {"camera": {"quality": 80}})
    live_through(trap, 2, {"camera": {"gain": 2.0}})
    now = load(source).settings
    assert (interval(now), now.camera.quality, now.camera.gain) == (1200, 90, 2.0)


@pytest.mark.parametrize("to", [f"device:{drawings.DEVICE}", "group:valley", "all"])
def test_what_is_for_the_device_its_groups_or_all_is_for_this_trap(trap: RemoteSettings, to: str) -> None:
    assert trap.accept(signed.settings(1, push(5), to=to)).is_accepted


def test_the_same_document_again_is_known_and_nothing_is_written(
    trap: RemoteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = signed.settings(1, push(5))
    trap.accept(data)
    trap.begin()
    trap.commit()
    monkeypatch.setattr("trapsync.files.durable.write", lambda *_: pytest.fail("it was written"))
    assert trap.accept(data).code == "known"


Refusal = tuple[str, Callable[[], bytes]]
YEAR = timedelta(days=366)
OF_EPOCH_1 = document.compose(replace(signed.DOCUMENT, version=2)).replace(b"epoch = 0", b"epoch = 1")
REFUSALS: dict[str, Refusal] = {
    "1 MB": ("too_large", lambda: signed.settings(2, push(5)) + b"#" * 10**6),
    "unsigned": ("malformed", lambda: document.compose(signed.DOCUMENT)),
    "of a stranger": ("key", lambda: signed.settings(2, push(5), signed.STRANGER)),
    "one bit": ("signature", lambda: signed.settings(2, push(5))[:-1] + b"\x0b"),
    "no TOML": ("schema", lambda: document.sign(b"a = [", signed.OWNER)),
    "for another": ("recipient", lambda: signed.settings(2, push(5), to="device:ffffffff")),
    "for another group": ("recipient", lambda: signed.settings(2, push(5), to="group:hill")),
    "older": ("replay", lambda: signed.settings(1, push(7))),
    "of another epoch": ("schema", lambda: document.sign(OF_EPOCH_1, signed.OWNER)),
    "far ahead": ("number", lambda: signed.settings(10**6 + 2, push(7))),
    "expired": ("expired", lambda: signed.settings(2, push(5), issued=signed.ISSUED - YEAR, expires=signed.ISSUED)),
    "of the future": ("expired", lambda: signed.settings(2, push(5), issued=signed.ISSUED + YEAR / 3)),
    "unknown key": ("settings", lambda: signed.settings(2, {"capture": {"evry": "5 min"}})),
    "wrong type": ("settings", lambda: signed.settings(2, {"capture": {"every": 5}})),
    "no table": ("settings", lambda: signed.settings(2, {"capture": 5})),
    "out of range": ("settings", lambda: signed.settings(2, {"camera": {"quality": 101}})),
    "window": ("settings", lambda: signed.settings(2, {"capture": {"schedule": ["noon"]}})),
    "the sun without a place": ("settings", lambda: signed.settings(2, {"capture": {"schedule": ["sunset - sunrise"]}})),
    "of a destination": ("settings", lambda: signed.settings(2, {"destinations": {"stick": {"evry": "1 h"}}})),
    "half a destination": ("forbidden", lambda: signed.settings(2, {"destinations": {"new": {"every": "1 h"}}})),
    "forbidden": ("forbidden", lambda: signed.settings(2, {"storage": {"min_free": "1 MB"}})),
    "no interval": ("limits", lambda: signed.settings(2, {"capture": {"every": "1 s"}})),
    "rare": ("limits", lambda: signed.settings(2, {"capture": {"every": "12 h"}})),
    "ends as it begins": ("settings", lambda: signed.settings(2, {"capture": {"schedule": ["21:00 - 21:00"]}})),
    "a minute": ("limits", lambda: signed.settings(2, {"capture": {"schedule": ["22:00 - 22:01"]}})),
    "never awake": ("limits", lambda: signed.settings(2, {"capture": {"schedule": ["12:01 - 12:02"]}})),
    "a few pixels": ("limits", lambda: signed.settings(2, {"camera": {"resolution": [64, 64]}})),
    "a speck": ("limits", lambda: signed.settings(2, {"camera": {"zoom": [0, 0, 0.01, 0.01]}})),
    "next to no detail": ("limits", lambda: signed.settings(2, {"camera": {"quality": 1}})),
    "deletes earlier": ("limits", lambda: signed.settings(2, {"prune": {"min_age": "1 h"}})),
    "deletes more": ("limits", lambda: signed.settings(2, {"prune": {"keep_free": "9 GB"}})),
    "too rarely sent": ("limits", lambda: signed.settings(2, {"destinations": {"stick": {"every": "3 days"}}})),
    "no bandwidth": ("limits", lambda: signed.settings(2, {"destinations": {"stick": {"bandwidth": "1 B"}}})),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_document_is_refused_by_its_own_code_and_the_settings_stay(
    source: Path, trap: RemoteSettings, case: str
) -> None:
    live_through(trap, 1, push(6))
    code, make = REFUSALS[case]
    outcome = trap.accept(make())
    assert (outcome.code, outcome.is_accepted) == (code, False), outcome.text
    assert (every(source), trap.begin().is_trial) == (360, False)
    facts = state_of(trap)
    assert (facts["state"], facts["version"]) == ("committed", 1)
    # What the owner signed for this trap is reported; a stranger's word is not worth a write.
    is_the_owners = code in {"expired", "settings", "forbidden", "limits", "number"}
    assert (facts["last_received_hash"] == outcome.hash) == is_the_owners
    assert (facts["code"] == code) == is_the_owners


NEVER: dict[str, dict[str, Any]] = {
    "trap": {"name": "x"},
    "storage": {"min_free": "1 MB"},
    "remote": {"enabled": False},
    "camera": {"kind": "none", "simulated": {"seed": 2}, "timeout": "5 s"},
    "ingest": {"timeout": "10 min", "workers": 2},
    "prune": {"enabled": True},
}
ENTRIES = [(table, key, value) for table, entries in NEVER.items() for key, value in entries.items()]


@pytest.mark.parametrize(("table", "key", "value"), ENTRIES)
def test_whatever_the_trap_allows_some_keys_can_never_be_pushed(
    tmp_path: Path, time: FakeTime, table: str, key: str, value: object
) -> None:
    generous = signed.TRUSTING + f'allow = ["{table}.{key}", "{table}", "capture", "destinations"]\n'
    trap = RemoteSettings(Files(signed.prepare(tmp_path / "trap", pushed=generous)), time)
    outcome = trap.accept(signed.settings(1, {table: {key: value}}))
    assert (outcome.code, outcome.text) == ("forbidden", outcome.text)


@pytest.mark.parametrize(
    "table",
    [
        {"stick": {"path": "/tmp"}},
        {"stick": {"required": False}},
        {"stick": {"kind": "directory"}},
        {"new": {"kind": "directory", "path": "/tmp"}},
    ],
)
def test_a_destination_cannot_be_bent_or_added_from_afar(trap: RemoteSettings, table: dict[str, Any]) -> None:
    assert trap.accept(signed.settings(1, {"destinations": table})).code == "forbidden"


def test_the_trap_itself_says_which_of_the_pushable_keys_it_lets_in(tmp_path: Path, time: FakeTime) -> None:
    strict = signed.TRUSTING + 'allow = ["capture.every", "destinations.stick"]\n'
    trap = RemoteSettings(Files(signed.prepare(tmp_path / "trap", pushed=strict)), time)
    assert trap.accept(signed.settings(1, {"capture": {"schedule": []}})).code == "forbidden"
    assert trap.accept(signed.settings(2, {"camera": {"quality": 80}})).code == "forbidden"
    good = push(5) | {"destinations": {"stick": {"every": "10 min"}}}
    assert trap.accept(signed.settings(3, good)).is_accepted


def test_every_pushable_key_is_a_setting_and_can_be_pushed(trap: RemoteSettings, source: Path) -> None:
    tables = {
        "capture": {"every": "5 min", "schedule": ["21:00 - 05:00"], "format": "2020"},
        "camera": {
            "exposure": "10 ms", "gain": 2.0, "white_balance": [1.5, 1.5], "lens_position": 10.0, "quality": 80,
            "zoom": [0.1, 0.1, 0.5, 0.5], "rotation": 180, "resolution": [2028, 1520],
        },
        "ingest": {"thumbnails": False},
        "prune": {"min_age": "8 days", "keep_free": "1 GB"},
        "warnings": {
            "battery": 30.0, "battery_days": 5.0, "card_days": 7.0, "temperature": 80.0, "under_voltage": False,
        },
        "deployment": {
            "location_id": "A1", "location_name": "Creek", "coordinate_uncertainty": 10, "setup_by": "Ana",
            "camera_height": 1.5, "camera_tilt": -90, "camera_heading": 360, "detection_distance": 0.4, "bait_use": True,
            "feature_type": "culvert", "habitat": "forest", "groups": ["grid:A"], "tags": ["bait:light"], "comments": "fog",
        },
        "destinations": {"stick": {
            "every": "10 min", "order": "oldest", "transfers": 1, "bandwidth": "1 MB", "retry_initial": "1 min",
            "retry_max": "2 h",
        }},
    }  # fmt: skip
    from trapsync.remote.policy import PUSHABLE

    pushing = {("destinations", "*", key[2]) if len(key) == 3 else key for key in layers.keys(tables)}
    assert pushing == PUSHABLE
    assert trap.accept(signed.settings(1, tables)).is_accepted
    trap.begin()
    now = load(source).settings
    assert (now.camera.resolution, now.destinations["stick"]["every"]) == ((2028, 1520), "10 min")


def test_a_trap_on_which_it_is_switched_off_takes_nothing(tmp_path: Path, time: FakeTime) -> None:
    off = RemoteSettings(Files(signed.prepare(tmp_path / "trap", pushed="")), time)
    assert not off.accept(signed.settings(1, push(5))).is_accepted
    assert not (tmp_path / "trap" / "state").exists()


def test_two_keys_are_trusted_at_once_and_one_that_was_taken_away_is_not(
    tmp_path: Path, time: FakeTime
) -> None:
    both = signed.TRUSTING.replace("]\ngroups", f', "{signed.STRANGER.public}"]\ngroups')
    trap = RemoteSettings(Files(signed.prepare(tmp_path / "trap", pushed=both)), time)
    assert trap.accept(signed.settings(1, push(5))).is_accepted
    assert trap.accept(signed.settings(2, push(6), signed.STRANGER)).is_accepted
    new = signed.TRUSTING.replace(str(signed.OWNER.public), str(signed.STRANGER.public))
    trap = RemoteSettings(Files(signed.prepare(tmp_path / "trap", pushed=new)), time)
    assert trap.accept(signed.settings(3, push(7))).code == "key"


# ── Time ─────────────────────────────────────────────────────────────────────────────────────────────

SOON: dict[str, Any] = {"issued": signed.ISSUED, "expires": signed.ISSUED + timedelta(days=1)}


def test_a_clock_that_starts_in_the_past_makes_no_expired_document_good(source: Path) -> None:
    time = FakeTime(NOW + 2 * 86400)
    trap = RemoteSettings(Files(source), time)
    trap.note_time()  # the clock was set, once
    time.step_wall(-300 * 86400)
    time.is_trusted = False
    assert trap.accept(signed.settings(1, push(5), **SOON)).code == "expired"


def test_a_clock_that_starts_anywhere_refuses_no_good_document(source: Path) -> None:
    for number, wall in enumerate((0.0, NOW - 10**8, NOW + 10**9), start=1):
        trap = RemoteSettings(Files(source), FakeTime(wall, is_trusted=False))
        assert trap.accept(signed.settings(number, push(5), **SOON)).is_accepted


def test_a_document_that_was_taken_says_how_late_it_is_at_least(source: Path) -> None:
    trap = RemoteSettings(Files(source), FakeTime(0.0, is_trusted=False))
    later: dict[str, Any] = {
        "issued": signed.ISSUED + timedelta(days=2),
        "expires": signed.ISSUED + timedelta(days=9),
    }
    assert trap.accept(signed.settings(1, push(5), **later)).is_accepted
    assert trap.accept(signed.settings(2, push(6), **SOON)).code == "expired"


def test_the_time_is_written_down_once_a_day_only(
    trap: RemoteSettings, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap.note_time()
    with monkeypatch.context() as patch:
        patch.setattr("trapsync.files.durable.write", lambda *_: pytest.fail("it was written"))
        time.sleep(86000)
        trap.note_time()
    time.sleep(1000)
    trap.note_time()
    assert trap.accept(signed.settings(1, push(5), **SOON)).code == "expired"


# ── A thousand documents that are not the owner's, or not for this trap, or no good ──────────────────


def forged(chance: random.Random) -> bytes:
    """One of every kind, as chance will have it."""
    good = signed.settings(chance.randrange(2, 10**6), push(chance.randrange(1, 60)))
    match chance.randrange(9):
        case 0:
            return chance.choice([make for _, make in REFUSALS.values()])()
        case 1:  # a bit
            data = bytearray(good)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return bytes(data)
        case 2:  # cut, or with something behind it
            return (
                good[: chance.randrange(len(good))] if chance.random() < 0.5 else good + chance.randbytes(9)
            )
        case 3:  # a signature for another body
            return good.partition(b"\n")[0] + b"\n" + document.compose(signed.DOCUMENT)
        case 4:
            return chance.randbytes(chance.randrange(2000))
        case 5:  # the line is well, the key is not
            return signed.settings(chance.randrange(2, 99), push(5), signed.STRANGER)
        case 6:  # signed, and no good as TOML
            return document.sign(mangled(chance, good.partition(b"\n")[2]), signed.OWNER)
        case 7:  # signed, and somebody else's
            return signed.settings(
                chance.randrange(2, 99), push(5), to=f"device:{chance.randrange(2**28):08x}"
            )
        case _:  # signed, and beyond
            return document.sign(chance.choice(MONSTERS).encode(), signed.OWNER)


def mangled(chance: random.Random, body: bytes) -> bytes:
    """A body with something in the way: it is no longer what any trap would take."""
    at = body.index(b'every = "')
    rubbish = [b"nan", b"[[]]", b'""', b'"0 s"', b"\xff", b"every = 1\n", b"\0", b'"' * 5, b"1979-05-27"]
    return body[:at] + b"every = " + chance.choice(rubbish) + b"\n" + chance.randbytes(chance.randrange(3))


BODY = document.compose(replace(signed.DOCUMENT, version=10**6, settings=push(5))).decode()
MONSTERS = [
    BODY.replace('"5 min"', "[" * 9000 + "]" * 9000),
    BODY.replace("every", ".".join("a" * 5000)),
    BODY + 'every = "6 min"\n',
    BODY.replace('"5 min"', "nan"),
    BODY.replace('"5 min"', "9" * 6000),
    BODY.replace('every = "5 min"', "every = {a = " * 400 + "1" + "}" * 400),
    BODY.replace("[settings.capture]", '[settings."\\u0000"]'),
    BODY.replace('"5 min"', '"5 min\\u0000"'),
    BODY.replace('"5 min"', '"' + "9" * 17 + ' days"'),
    BODY.replace("[settings.capture]", '[settings.destinations."a.b"]'),
    BODY.replace("capture", "camera").replace('every = "5 min"', f"resolution = [{2**52}, {2**52}]"),
    BODY.replace("capture", "camera").replace('every = "5 min"', "zoom = [0.0, 0.0, 1e300, 1.0]"),
]


def test_of_a_thousand_forged_or_fuzzed_documents_none_is_taken_and_none_does_any_harm(
    source: Path, trap: RemoteSettings
) -> None:
    chance = random.Random(5)
    live_through(trap, 1, push(6))
    codes: dict[str, int] = {}
    for _ in range(1000):
        data = forged(chance)
        outcome = trap.accept(data)
        assert outcome.code not in {"accepted", "known"}, data
        codes[outcome.code] = codes.get(outcome.code, 0) + 1
    # Every way of being refused was met, but the one for what was tried before.
    wanted = {
        "too_large",
        "malformed",
        "key",
        "signature",
        "schema",
        "recipient",
        "replay",
        "expired",
        "settings",
        "limits",
    }
    assert set(codes) >= wanted, codes
    assert (every(source), trap.begin().is_trial) == (360, False)
    assert trap.accept(signed.settings(2, push(9))).is_accepted


# ── The trial ────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_rolled_back_is_reported_and_not_taken_again(source: Path, trap: RemoteSettings) -> None:
    live_through(trap, 1, push(6))
    data = signed.settings(2, push(5))
    trap.accept(data)
    trap.begin()
    trap.roll_back("camera", "no pictures")
    assert every(source) == 360
    assert trap.accept(data).code == "rejected_before"
    facts = state_of(trap)
    assert (facts["state"], facts["code"], facts["reason"]) == ("rolled_back", "camera", "no pictures")
    assert (facts["version"], facts["effective_hash"] != facts["last_received_hash"]) == (2, True)
    live_through(trap, 3, push(5))
    assert (every(source), state_of(trap)["code"]) == (300, None)


def test_a_trial_that_was_started_twice_in_vain_is_rolled_back_by_the_third_start(
    source: Path, trap: RemoteSettings
) -> None:
    trap.accept(signed.settings(1, push(5)))
    assert [trap.begin().is_trial for _ in range(4)] == [True, True, False, False]
    assert (state_of(trap)["state"], state_of(trap)["code"], every(source)) == ("rolled_back", "starts", 1200)


def test_a_start_that_a_person_cut_short_does_not_count(trap: RemoteSettings) -> None:
    trap.accept(signed.settings(1, push(5)))
    for _ in range(5):
        assert trap.begin().is_trial
        trap.uncount_start()


def test_newer_settings_take_the_place_of_those_on_trial(source: Path, trap: RemoteSettings) -> None:
    trap.accept(signed.settings(1, push(5)), lambda: {"pictures": True})
    trap.begin()
    assert trap.accept(signed.settings(2, push(7)), lambda: {"pictures": False}).is_accepted
    found = trap.begin()
    assert (interval(found.settings), found.is_trial, found.record.starts) == (420, True, 1)
    assert found.record.before == {"pictures": True}  # not how it was with the first of them


def test_what_cannot_be_counted_is_not_tried(
    source: Path, trap: RemoteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_through(trap, 1, push(6))
    trap.accept(signed.settings(2, push(5)))

    def full(*_: object) -> None:
        raise StorageError("the card is full")

    with monkeypatch.context() as patch:
        patch.setattr("trapsync.files.durable.write", full)
        assert (interval(trap.begin().settings), trap.begin().is_trial) == (360, False)
    trap.begin()
    with monkeypatch.context() as patch:
        patch.setattr("trapsync.files.durable.write", full)
        assert (interval(trap.begin().settings), trap.begin().is_trial) == (360, False)


def test_the_settings_without_those_on_trial_are_known(trap: RemoteSettings) -> None:
    live_through(trap, 1, push(6))
    trap.accept(signed.settings(2, push(5)))
    assert interval(trap.begin().settings) == 300
    assert interval(trap.previous()) == 360


# ── The person at the trap ───────────────────────────────────────────────────────────────────────────


def test_what_a_person_writes_at_the_trap_goes_before_what_was_pushed(
    source: Path, trap: RemoteSettings
) -> None:
    live_through(trap, 1, push(5) | {"camera": {"quality": 80}})
    source.with_name("override.toml").write_text('[capture]\nevery = "2 min"\n')
    found = load(source)
    assert (interval(found.settings), found.settings.camera.quality) == (120, 80)
    assert found.origins == {("capture", "every"): "override.toml", ("camera", "quality"): "remote 1"}
    facts = report(load(source))
    assert (facts["state"], facts["code"]) == ("overridden", "override")
    assert "override.toml" in facts["reason"]


def test_an_override_counts_where_nothing_was_ever_pushed_too(source: Path) -> None:
    source.with_name("override.toml").write_text('[capture]\nevery = "2 min"\n')
    assert (every(source), report(load(source))["state"]) == (120, "none")


def test_no_trial_begins_or_goes_on_while_a_person_overrides(source: Path, time: FakeTime) -> None:
    override = source.with_name("override.toml")
    RemoteSettings(Files(source), time).accept(signed.settings(1, push(5)))
    RemoteSettings(Files(source), time).begin()
    override.write_text("[camera]\nquality = 70\n")
    for _ in range(5):
        found = RemoteSettings(Files(source), time).begin()
        assert (found.is_trial, interval(found.settings)) == (False, 1200)
    assert report(load(source))["state"] == "overridden"
    override.unlink()
    assert interval(RemoteSettings(Files(source), time).begin().settings) == 300


def test_switched_off_again_nothing_pushed_is_in_force_and_that_is_shown(
    source: Path, trap: RemoteSettings
) -> None:
    live_through(trap, 1, push(5))
    source.write_text(source.read_text().replace("enabled = true", "enabled = false"))
    assert every(source) == 1200
    facts = report(load(source))
    assert (facts["state"], facts["effective_hash"], facts["reason"]) == (
        "overridden", None, "remote.enabled is false",
    )  # fmt: skip


def test_pushed_settings_that_no_longer_fit_the_config_file_stand_in_nobodys_way(
    source: Path, trap: RemoteSettings, time: FakeTime
) -> None:
    live_through(trap, 1, {"destinations": {"stick": {"every": "10 min"}}})
    trap.accept(signed.settings(2, {"destinations": {"stick": {"every": "20 min"}}}))
    source.write_text(source.read_text().replace("[destinations.stick]", "[destinations.other]"))
    assert load(source).settings.destinations.keys() == {"other"}
    assert report(load(source))["state"] == "overridden"
    assert not RemoteSettings(Files(source), time).begin().is_trial
    assert "no longer" in report(load(source))["reason"] or "any more" in report(load(source))["reason"]


def test_a_mistake_in_the_override_file_is_an_error_that_names_it(source: Path) -> None:
    source.with_name("override.toml").write_text("[capture]\nevry = 2\n")
    with pytest.raises(SettingsError, match=r"override\.toml: capture\.evry"):
        load(source)


# ── Sending again ────────────────────────────────────────────────────────────────────────────────────


def test_a_request_to_send_again_is_remembered_until_it_was_done_and_is_counted_by_itself(
    trap: RemoteSettings,
) -> None:
    live_through(trap, 5, push(5))
    data = signed.resend(1, signed.ISSUED, signed.ISSUED + timedelta(days=1), "stick")
    assert trap.accept(data).is_accepted
    asked = trap.request()
    assert asked
    assert (asked.since, asked.until, asked.destination) == (
        signed.ISSUED.timestamp(), signed.ISSUED.timestamp() + 86400, "stick",
    )  # fmt: skip
    trap.note_request(replace(asked, progress={"stick": (7, 3, 1)}))
    waiting = trap.request()
    assert waiting
    assert waiting.progress == {"stick": (7, 3, 1)}
    trap.note_request(replace(asked, again=3, gone=1))
    assert trap.request() is None
    assert state_of(trap)["resend"] == {"hash": asked.hash, "again": 3, "gone": 1}
    assert state_of(trap)["version"] == 5
    assert trap.accept(data).code == "known"
    assert trap.accept(signed.resend(1, signed.ISSUED, signed.ISSUED + timedelta(days=2))).code == "replay"
    assert trap.accept(signed.resend(2, signed.ISSUED, signed.ISSUED + YEAR, "nowhere")).code == "settings"


# ── A record of an older version ─────────────────────────────────────────────────────────────────────

# Written by commit 13fe5f4: version 1 committed, then version 2 in each state, or a request after it.
OLDER: dict[str, dict[str, Any]] = json.loads(
    (Path(drawings.__file__).parent / "older" / "remote-settings-13fe5f4.json").read_text()
)
# What the document that was accepted last is judged as, and the interval after the next start.
AFTER = {
    "accepted": ("known", 300),
    "on_trial": ("known", 300),
    "on_trial_unnoted": ("known", 300),
    "committed": ("known", 300),
    "rolled_back": ("rejected_before", 360),
}


@pytest.mark.parametrize("state", AFTER)
def test_a_record_of_an_older_version_forgets_no_replay_and_goes_on(
    source: Path, time: FakeTime, state: str
) -> None:
    (source.parent / "state").mkdir()
    (source.parent / "state" / "pushed.json").write_text(json.dumps(OLDER[state]))
    trap = RemoteSettings(Files(source), time)
    code, seconds = AFTER[state]
    assert trap.accept(signed.settings(2, push(5))).code == code
    assert trap.accept(signed.settings(1, push(7))).code == "replay"
    assert trap.accept(signed.settings(2, push(8))).code == "replay"
    found = trap.begin()
    assert (interval(found.settings), found.is_trial) == (seconds, seconds == 300 and state != "committed")
    assert found.record.before == OLDER[state]["before"]
    if found.is_trial:
        trap.commit()
    assert every(source) == seconds
    assert trap.accept(signed.settings(3, push(9))).is_accepted


@pytest.mark.parametrize(("name", "is_open"), [("asked", True), ("asked_done", False)])
def test_a_request_in_a_record_of_an_older_version_is_gone_on_with_if_it_is_not_done(
    source: Path, time: FakeTime, name: str, is_open: bool
) -> None:
    (source.parent / "state").mkdir()
    (source.parent / "state" / "pushed.json").write_text(json.dumps(OLDER[name]))
    trap = RemoteSettings(Files(source), time)
    assert bool(trap.request()) is is_open
    assert trap.accept(signed.resend(4, signed.ISSUED, signed.ISSUED + timedelta(days=9))).code == "replay"
    assert trap.accept(signed.resend(5, signed.ISSUED, signed.ISSUED + timedelta(days=9))).is_accepted
