"""The owner's desk: keys, push, resend and fleet, against a folder, a real hub and a real broker."""

import json
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mosquitto
from fake_time import FakeTime
from hub_server import RunningHub
from operator_desk import Say, hub_of, typing
from statuses import destination, status
from trapsync.clock import SystemClock
from trapsync.errors import StorageError, TrapsyncError
from trapsync.fleet import push as pushes
from trapsync.fleet.audience import Audience, find
from trapsync.fleet.connection import FolderConnection, Overtaken
from trapsync.fleet.mqtt import BrokerConnection
from trapsync.fleet.operator_key import OperatorKey, keep_secret
from trapsync.fleet.table import cells, complaints
from trapsync.net.heartbeat import read
from trapsync.net.judgement import Trap, ago, summary, traps
from trapsync.remote import document as envelope
from trapsync.remote import heartbeat
from trapsync.settings.schema import HubMqtt

DEVICE = "0a5bb6f4"
ONE = '[capture]\nevery = "5 min"\n[destinations.home]\nbandwidth = "20 kB"\n'
TWO = '[capture]\nevery = "10 min"\nschedule = ["21:00 - 05:00"]\n'


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A laptop: a key, settings to push, and no owner.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAPSYNC_OWNER", str(tmp_path / "owner.toml"))
    keep_secret(tmp_path / "key", f"{envelope.new_key()}\n")
    (tmp_path / "one.toml").write_text(ONE)
    (tmp_path / "two.toml").write_text(TWO)
    (tmp_path / "www").mkdir()
    return tmp_path


@pytest.fixture
def say(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    return typing(monkeypatch, capfd)


@pytest.fixture
def hub(desk: Path) -> Iterator[RunningHub]:
    with hub_of(desk) as running:
        yield running


class HearingFolder(FolderConnection):
    """A folder in which heartbeats are put by a test."""

    hears = True


def opened(data: bytes, desk: Path) -> envelope.Document:
    """What a trap that trusts the key makes of it."""
    return envelope.parse(envelope.verify(data, [OperatorKey.read(desk / "key").private.public]))


REPORTED = ("state", "last_received_hash", "effective_hash", "version", "key", "code", "reason", "refused")


def report_of(**known: Any) -> dict[str, Any]:
    """What a trap reports of its remote settings."""
    return dict.fromkeys(REPORTED) | known


def beat(device: str = DEVICE, **more: Any) -> bytes:
    plain: dict[str, Any] = {
        "device": device,
        "name": "north",
        "destinations": {"far": destination("2026-06-21T19:00:00Z", 4755)},
    }
    return heartbeat.compose(status(**plain | more), 900.0)


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_key_is_a_secret_file_and_lines_for_the_traps_config(say: Say, desk: Path) -> None:
    code, out, err = say("keys", "new", "--out", "mine.key")

    table = tomllib.loads(out)["remote"]
    assert (code, table["enabled"]) == (0, True)
    assert envelope.public_from_text(table["keys"][0]) == OperatorKey.read(desk / "mine.key").private.public
    assert stat.S_IMODE((desk / "mine.key").stat().st_mode) == 0o600
    assert "never put it on a trap" in err
    assert say("keys", "new", "--out", "mine.key")[0] == 1


# ── Push ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_push_to_a_folder_is_signed_numbered_and_shows_what_changes(say: Say, desk: Path) -> None:
    where = ("--key", "key", "--folder", "www", "--yes")
    code, out, _ = say("push", "one.toml", "--to", "group:valley", "--note", "spring", *where)
    assert (code, out.splitlines()[:2]) == (
        0,
        ["  capture.every: the trap's own → 5 min", "  destinations.home.bandwidth: the trap's own → 20 kB"],
    )
    code, out, _ = say("push", "two.toml", "--to", "group:valley", *where)
    assert out.splitlines()[:3] == [
        "  capture.every: 5 min → 10 min",
        "  capture.schedule: the trap's own → ['21:00 - 05:00']",
        "  destinations.home.bandwidth: 20 kB → the trap's own",
    ]

    document = opened((desk / "www/pushed/group-valley.settings").read_bytes(), desk)
    assert (document.to, document.version) == ("group:valley", 2)
    assert document.settings == tomllib.loads(TWO)


def test_numbers_count_across_all_addressees_for_a_trap_hears_more_than_one(say: Say, desk: Path) -> None:
    where = ("--key", "key", "--folder", "www", "--yes")
    for to in ("all", "group:valley", f"device:{DEVICE}"):
        assert say("push", "one.toml", "--to", to, *where)[0] == 0
    assert say("resend", "--from", "2026-06-01", "--until", "2026-06-02", "--to", "all", *where)[0] == 0

    documents = FolderConnection(desk / "www").documents()
    numbers = {slot: opened(data, desk).version for slot, data in documents.items()}
    assert numbers == {
        "all.settings": 1,
        "group-valley.settings": 2,
        f"device-{DEVICE}.settings": 3,
        "all.resend": 4,
    }


def test_a_trap_can_be_called_by_its_name(say: Say, desk: Path, hub: RunningHub) -> None:
    hub.hub.fleet.take(DEVICE, beat())
    hub.hub.fleet.take("00000001", beat("00000001", name="south"))
    code, _, err = say("push", "one.toml", "--to", "north", "--yes")
    assert (code, f"north' is the name of trap {DEVICE} for" in err, f"--to device:{DEVICE}" in err) == (
        1,
        True,
        True,
    )
    with hub.hub.database.writing() as connection:
        connection.execute("UPDATE traps SET named = named - 3 * 86400")
    assert say("push", "one.toml", "--to", "north", "--yes")[0] == 0
    held = hub.hub.fleet.held(f"device-{DEVICE}.settings")
    assert held is not None
    assert opened(held.data, desk).to == f"device:{DEVICE}"
    hub.hub.fleet.take("00000001", beat("00000001"))
    assert "2 traps are called 'north'" in say("push", "one.toml", "--to", "north", "--yes")[2]


def test_a_resend_asks_for_a_range(say: Say, desk: Path) -> None:
    where = ("--key", "key", "--folder", "www", "--yes", "--to", "all")
    asked = ("--from", "2026-06-01T20:00:00", "--until", "2026-06-02", "--destination", "home")
    assert say("resend", *asked, *where)[0] == 0
    document = opened((desk / "www/pushed/all.resend").read_bytes(), desk)
    assert document.resend is not None
    assert document.resend.since.isoformat() == "2026-06-01T20:00:00+00:00"
    assert (document.resend.until.day, document.resend.destination) == (2, "home")


def test_without_a_yes_nothing_is_sent(say: Say, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.confirm", lambda _question: False)
    code, out, _ = say("push", "one.toml", "--to", "all", "--key", "key", "--folder", "www")
    assert code == 1
    assert out.endswith("nothing was published\n")
    assert list((desk / "www").iterdir()) == []


def test_of_two_owners_who_push_at_once_the_later_is_told(desk: Path) -> None:
    (desk / "copy").write_text((desk / "key").read_text())
    (desk / "copy").chmod(0o600)
    place, clock = FolderConnection(desk / "www"), FakeTime()
    keys = [OperatorKey.read(desk / name) for name in ("key", "copy")]
    ready = [
        pushes.prepare(place, Audience("all", ()), key, clock, settings=tomllib.loads(ONE)) for key in keys
    ]
    pushes.publish(place, ready[0], keys[0], clock)
    with pytest.raises(Overtaken):
        pushes.publish(place, ready[1], keys[1], clock)
    with pytest.raises(StorageError, match="number 1 was used in between"):
        pushes.publish(place, ready[0], keys[0], clock)


def test_of_two_owners_at_a_hub_the_later_is_told(say: Say, desk: Path, hub: RunningHub) -> None:
    def meanwhile(_question: str) -> bool:
        hub.hub.fleet.put(
            "all.settings", b"trapsync-signed-1 " + b"0" * 16 + b" " + b"0" * 128 + b"\n", "other"
        )
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("click.confirm", meanwhile)
        code, _, err = say("push", "one.toml", "--to", "all")
    assert (code, err.count("\n")) == (1, 1)
    assert "somebody else pushed in between" in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[capture]\nevry = "5 min"\n', "capture.evry: there is no such setting; did you mean 'every'?"),
        ('[capture]\nevery = "0 s"\n', "capture.every: 0 s is not between 1 s and 1 day"),
        ('[trap]\nname = "x"\n', "trap.name: can never be set remotely"),
        ('[hub]\nurl = "https://evil.example"\n', "hub.url: can never be set remotely"),
        ('[hub.mqtt]\nhost = "evil"\n', "hub.mqtt.host: can never be set remotely"),
        (
            '[destinations.home]\nurl = "https://evil.example"\n',
            "destinations.home.url: can never be set remotely",
        ),
        ("[destinations.home]\ntransfers = 99\n", "transfers: 99 is not between 1 and 16"),
        ("", "there is no setting in it"),
        ("[capture", "is not TOML"),
    ],
)
def test_what_no_trap_would_take_is_refused_on_the_laptop(
    say: Say, desk: Path, text: str, complaint: str
) -> None:
    (desk / "bad.toml").write_text(text)
    code, out, err = say("push", "bad.toml", "--to", "all", "--key", "key", "--folder", "www", "--yes")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert complaint in err
    assert list((desk / "www").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--to", "all", "--key", "key"), "give --hub URL"),
        (("--to", "all", "--key", "key", "--folder", "nowhere"), "there is no such folder"),
        (("--to", "all", "--folder", "www"), "give the key that signs"),
        (("--to", "all", "--folder", "www", "--key", "none"), "cannot be read"),
        (("--to", "nobody", "--folder", "www", "--key", "key"), "no trap is called 'nobody'"),
        (("--to", "group:Ä", "--folder", "www", "--key", "key"), "write device:ID, group:NAME or all"),
        (("--to", "all", "--key", "key", "--hub", "x"), "is not an address"),
        (("--to", "all", "--key", "key", "--hub", "http://127.0.0.1:9"), "connection refused"),
        (("--to", "all", "--key", "key", "--broker", "127.0.0.1:9"), "Connection refused"),
        (("--to", "all", "--key", "key", "--folder", "www", "--broker", "x"), "one of --hub"),
    ],
)
def test_what_a_person_forgets_is_one_line(
    say: Say, desk: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    code, out, err = say("push", "one.toml", "--yes", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert complaint in err


def test_a_traps_account_cannot_push(say: Say, desk: Path, hub: RunningHub) -> None:
    hub.auth("trap")
    code, _, err = say("push", "one.toml", "--to", "all", "--user", "trap", "--yes")
    assert (code, err) == (
        1,
        f"trapsync: {hub.url}: this account may not do that (403); it takes an admin's\n",
    )


# ── Fleet ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_fleet_is_a_table_with_the_worst_first_and_its_exit_code(
    say: Say, desk: Path, hub: RunningHub
) -> None:
    assert say("fleet") == (0, "no trap has sent a heartbeat yet\n", "")
    hub.hub.fleet.take("00000001", beat("00000001", name="south", battery=81))
    assert say("fleet")[0] == 0
    hub.hub.fleet.take("00000002", beat("00000002", name="west", verdict="warning", reasons=["few days"]))
    assert say("fleet")[0] == 1
    report = report_of(state="rolled_back", version=7, code="link_lost", reason="no way home")
    hub.hub.fleet.take(DEVICE, beat(verdict="failing", reasons=["the card is full"], remote=report))
    code, out, _ = say("fleet")

    header, first, second, third, *rest = out.splitlines()
    assert code == 2
    assert header.split() == [
        "trap",
        "verdict",
        "heard",
        "image",
        "sent",
        "pending",
        "disk",
        "settings",
        "bat",
        "clock",
    ]
    assert first.split()[:2] == ["north", "failing"]
    assert "7 rolled back" in first
    assert "12 d" in first
    assert second.split()[:2] == ["west", "warning"]
    assert "81%" in third
    assert rest == [
        "north: the card is full",
        "west: few days",
        "3 traps: 1 failing, 1 warning, 1 ok",
    ]


def test_the_fleet_for_programs_keeps_the_two_hashes_apart(say: Say, desk: Path, hub: RunningHub) -> None:
    report = report_of(state="trial", last_received_hash="a" * 64, effective_hash="b" * 64)
    hub.hub.fleet.take(DEVICE, beat(remote=report))
    code, out, _ = say("fleet", "--json")
    (trap,) = json.loads(out)["traps"]
    assert (code, json.loads(out)["verdict"], trap["device"]) == (0, "ok", DEVICE)
    assert trap["heartbeat"]["remote"].items() >= report.items()


def test_a_trap_that_is_silent_for_more_than_three_heartbeats_is_failing() -> None:
    said, daily = (read(json.loads(beat()) | more) for more in ({}, {"every_s": 86400}))
    assert Trap(DEVICE, said, 2699).verdict == "ok"
    assert Trap(DEVICE, said, 2701).verdict == "failing"
    assert Trap(DEVICE, said, 86400 * 3).reasons == ["silent for 3 d"]
    assert Trap(DEVICE, daily, 86400 * 2).verdict == "ok"
    assert Trap(DEVICE, said, None, online=False).reasons == ["not connected to the broker"]
    assert Trap(DEVICE, said, None, online=True).verdict == "ok"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"verdict": "fine", "reasons": "x", "disk": 7, "remote": [], "ledger": None, "clock": 1, "name": 5},
        {
            "verdict": "ok",
            "newest_image": {"age_s": "x"},
            "battery": "full",
            "every_s": True,
            "disk": {"days_left": "x"},
        },
    ],
)
def test_a_heartbeat_of_another_program_makes_a_row_all_the_same(facts: dict[str, Any]) -> None:
    (trap,) = traps({"traps": [{"device": DEVICE, "age_s": 3, "heartbeat": facts}, 7]})
    assert len(cells(trap)) == 10
    assert all(isinstance(cell, str) for cell in cells(trap))
    assert trap.verdict == "failing"
    assert summary([trap]) == "1 trap: 1 failing"


def test_what_a_trap_composes_is_read_whole() -> None:
    report = report_of(state="trial", version=7) | {"resend": {"hash": "a", "again": 1, "gone": 0}}
    for data in (beat(), beat(remote=report, battery=81, reasons=["x"] * 9), beat(newest_image=None)):
        said = json.loads(data)
        assert _without(said, read(said).plain()) == {}


def _without(said: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What is said and not known."""
    lost = {
        key: _without(value, known.get(key) or {}) if isinstance(value, dict) else value
        for key, value in said.items()
        if isinstance(value, dict) or known.get(key) != value
    }
    return {key: value for key, value in lost.items() if value != {}}


ODD = [
    {"battery": 10**400},
    {"battery": float("inf")},
    {"newest_image": {"age_s": 10**400}},
    {"disk": {"days_left": "x"}},
    {"name": "9" * 60_000},
    {"name": ["north"]},
    {"reasons": ["x"] * 1000},
    {"reasons": "x"},
    {"remote": [1]},
    {"remote": {"version": 2**70}},
    {"ledger": {"pending": -1}},
    {"verdict": "fine"},
    {"clock": {"trusted": 10**30}},
    {"every_s": True},
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:30])
def test_an_odd_heartbeat_costs_the_row_of_its_trap_only(
    say: Say, desk: Path, odd: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    south = json.loads(beat("00000001", name="south"))
    answer = {
        "traps": [
            {"device": DEVICE, "age_s": 3, "heartbeat": {"device": DEVICE, "verdict": "ok"} | odd},
            {"device": "00000001", "age_s": 3, "heartbeat": south},
        ],
        "slots": {},
    }
    monkeypatch.setattr(FolderConnection, "fleet", lambda _: answer)

    code, out, err = say("fleet", "--folder", desk / "www")

    rows = out.splitlines()
    assert (code, err) == (2, "")
    assert rows[1].split()[:3] == [DEVICE, "failing", "3"]
    assert rows[2].split()[:3] == ["south", "ok", "3"]
    assert rows[3].startswith(f"{DEVICE}: its heartbeat makes no sense: ")
    assert f"$.{next(iter(odd))}" in rows[3]
    assert rows[4] == "2 traps: 1 failing, 1 ok"
    assert json.loads(say("fleet", "--folder", desk / "www", "--json")[1])["verdict"] == "failing"
    # Nor does it keep the operator from publishing for another.
    assert find("south", HearingFolder(desk / "www")).to == "device:00000001"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "cut off or broken"),
        (b"[" * 4000, "too deep"),
        (b'{"a": ' + b"[" * 20 + b"]" * 20 + b"}", "too deep"),
        (b'{"battery": NaN}', "cut off or broken"),
        (b'{"name": "\\ud800"}', "cut off or broken"),
        (b'{"name": "' + b"x" * 5000 + b'"}', "longer than 4096 bytes"),
        (b"7", "no object"),
        (b'{"battery": ' + b"9" * 4000 + b"}", "cut off or broken"),
        (b'{"battery": []}', "$.battery"),
        (b'{"clock": {"trusted": true}, "at": "0001-01-01T00:00:00"}', ""),
        (b'{"clock": {"trusted": true}, "at": "9999-12-31T23:59:59+00:00"}', ""),
        (b'{"clock": {"trusted": true}, "at": "' + b"9" * 900 + b'"}', ""),
    ],
)
def test_what_lies_on_a_broker_for_a_heartbeat_is_one_row(
    monkeypatch: pytest.MonkeyPatch, data: bytes, says: str
) -> None:
    connection = BrokerConnection(HubMqtt(host="127.0.0.1", port=9, tls=False), FakeTime())
    lying = {f"traps/{DEVICE}/heartbeat": data, "traps/00000001/heartbeat": beat("00000001")}
    monkeypatch.setattr(connection, "_retained", lambda topics: lying if topics == "traps/#" else {})

    rows = {trap.device: trap for trap in traps(connection.fleet())}

    assert rows["00000001"].verdict == "ok"
    assert rows[DEVICE].verdict == "failing"
    assert says in "".join(rows[DEVICE].reasons)
    assert len(cells(rows[DEVICE])) == 10


@pytest.mark.parametrize("age", ["x", True, [], 2**70, 10**400, float("nan")])
def test_an_odd_age_is_unknown_and_an_odd_device_a_name(age: object) -> None:
    said = json.loads(beat(name=""))
    (trap,) = traps({"traps": [{"device": ["\x1b]0;x\x07"], "age_s": age, "heartbeat": said}]})
    assert cells(trap)[2] == "?"
    assert trap.name.isprintable()


def test_no_control_character_of_a_heartbeat_reaches_the_terminal(
    say: Say, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b]52;c;aGk=\x07\x9b2J\u202e\nnorth: all is ok" + "x" * 900
    said = {"device": DEVICE, "verdict": "warning", "name": evil[:50], "reasons": [evil, evil]}
    answer = {"traps": [{"device": DEVICE, "age_s": 3, "heartbeat": said}], "slots": {}}
    monkeypatch.setattr(FolderConnection, "fleet", lambda _: answer)

    out = say("fleet", "--folder", desk / "www")[1]

    assert all(line.isprintable() and len(line) < 300 for line in out.splitlines())
    assert len(out.splitlines()) == 1 + 1 + 2 + 1
    assert all("\x1b" not in reason for _, _, reason in complaints(traps(answer)))


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (0, "0 s"), (119, "119 s"), (7199, "120 min"), (10**6, "12 d")]
)
def test_an_age_fits_its_column(seconds: float | None, text: str) -> None:
    assert ago(seconds) == text


def test_an_error_is_the_worst_verdict(say: Say, desk: Path) -> None:
    code, _, err = say("fleet", "--hub", "http://127.0.0.1:9")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (
            ("--hub", "http://hub.invalid", "--password-file", "key"),
            "its password; write https:// for the hub",
        ),
        (("--hub", "http://hub.invalid"), "answer in its place; write https:// for the hub"),
        (("--hub", "https://hub.invalid", "--password-file", "key"), ""),
        (("--hub", "http://127.0.0.1:9", "--password-file", "key"), ""),
        (("--broker", "broker.invalid:1", "--no-tls"), "in its place; leave --no-tls away"),
        (
            ("--broker", "broker.invalid:1", "--no-tls", "--password-file", "key"),
            "its password; leave --no-tls",
        ),
        (("--broker", "broker.invalid:1"), ""),
        (("--folder", "www"), ""),
    ],
)
def test_what_goes_without_tls_is_told(say: Say, desk: Path, where: tuple[str, ...], told: str) -> None:
    (desk / "owner.toml").write_text('[broker]\nhost = "broker.invalid"\n')  # which is not asked
    err = say("fleet", *where)[2]
    assert told in err
    assert ("warning: everybody on the way to " in err) is bool(told)


@pytest.mark.parametrize("what", ["its folder", "a folder above"])
def test_a_key_that_somebody_else_could_replace_signs_nothing(say: Say, desk: Path, what: str) -> None:
    """Finding S22: as OpenSSH's StrictModes has it."""
    folder = desk / "keys" / "mine"
    folder.mkdir(parents=True)
    (desk / "key").rename(folder / "key")
    open_one = folder if what == "its folder" else folder.parent
    open_one.chmod(0o777)
    to = ("--to", "all", "--yes", "--folder", "www", "--key", "keys/mine/key")
    code, _, err = say("push", "one.toml", *to)
    fix = f"everybody can change keys/mine/key; run: sudo chmod go-w {open_one}"
    assert (code, err) == (1, f"trapsync: the private key: {open_one} is open, and {fix}\n")
    assert not list((desk / "www").iterdir())
    open_one.chmod(0o755)
    assert say("push", "one.toml", *to)[0] == 0


# ── By a broker ──────────────────────────────────────────────────────────────────────────────────────


def test_a_broker_is_a_place_too(say: Say, desk: Path) -> None:
    with mosquitto.running(desk / "broker") as broker:
        files = ("--password-file", str(broker.secret), "--ca-file", str(broker.authority))
        signing = ("--key", "key", "--yes")
        where = ("--broker", f"{broker.host}:{broker.port}", "--user", "owner", *files)
        assert say("push", "one.toml", "--to", f"device:{DEVICE}", "--anyway", *signing, *where)[0] == 0
        code, out, _ = say("push", "two.toml", "--to", f"device:{DEVICE}", "--anyway", *signing, *where)
        assert (code, out.splitlines()[0]) == (0, "  capture.every: 5 min → 10 min")
        assert "published number 2 for" in out
        as_trap = BrokerConnection(_mqtt(broker, "trap"), SystemClock())
        assert opened(as_trap.documents()[f"device-{DEVICE}.settings"], desk).version == 2
        with pytest.raises(TrapsyncError, match="it refuses trapsync/pushed/all/settings: Not authorized"):
            as_trap.put("all.settings", b"x", None)
        assert "no trap has sent a heartbeat" in say("fleet", *where)[1]
        code, _, err = say("fleet", *where[:2], "--user", "owner", "--password-file", "key", *where[-2:])
        assert (code, err.count("\n")) == (2, 1)
        assert "it refuses us: Not authorized" in err


def _mqtt(broker: mosquitto.Broker, user: str) -> Any:
    from trapsync.settings.schema import HubMqtt

    return HubMqtt(
        host=broker.host,
        port=broker.port,
        username=user,
        password_file=broker.secret,
        ca_file=broker.authority,
    )
