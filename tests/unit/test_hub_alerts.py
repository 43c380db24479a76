"""The alerts of the hub: what is told, once, when, and to whom; by a clock that stands still."""

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import drawings
from alerted import MINUTE, NOON, TRAP, Bench
from hub_server import InThisProcess
from trapsync.errors import NotSent, Unreachable
from trapsync.hub.alerts.pings import Pings
from trapsync.hub.app import Hub
from trapsync.hub.database import Database
from trapsync.hub.fleet import NotTaken
from trapsync.hub.store import Store
from trapsync.settings.alerts import RULES
from trapsync.settings.units import Duration

HOUR = 60  # minutes
MANY = [f"{number:08x}" for number in range(500)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def settled(tmp_path: Path, **settings: Any) -> Bench:
    """A bench with one trap that is well, and known to be."""
    bench = Bench(tmp_path, **settings)
    bench.live(60, TRAP)
    assert bench.phone.told == []
    return bench


# ── What is told ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bad", "good", "says", "over"),
    [
        (
            {"verdict": "failing", "reasons": ["the card is full"]},
            {},
            "failing: the card is full",
            "no longer failing",
        ),
        ({"battery": 12.0}, {"battery": 60.0}, "battery at 12 %", "battery at 60 % again"),
        (
            {"disk": {"days_left": 2.0}},
            {"disk": {"days_left": 90.0}},
            "the card is full in 2 days",
            "the card has room again",
        ),
        (
            {"newest_delivery_age_s": 2 * 86400.0, "ledger": {"pending": 140}},
            {"newest_delivery_age_s": 60.0, "ledger": {"pending": 0}},
            "nothing delivered for 2 days, 140 images pending",
            "it delivers again",
        ),
        (
            {"remote": {"version": 7, "state": "rolled_back", "reason": "no picture came"}},
            {"remote": {"version": 8, "state": "committed"}},
            "settings: 7 rolled back (no picture came)",
            "settings: 8",
        ),
    ],
)
def test_a_change_is_told_once_and_so_is_its_end(
    bench: Bench, bad: dict[str, Any], good: dict[str, Any], says: str, over: str
) -> None:
    bench.live(30, TRAP, **bad)
    assert bench.phone.subjects == [f"{TRAP}: {says}"]
    bench.live(30, TRAP, **good)
    assert bench.phone.subjects[1:] == [f"{TRAP}: {over}"]
    assert f"https://hub.example.org/trap/{TRAP}" in bench.phone.told[0].body


def test_a_trap_that_is_silent_is_told_and_that_it_is_heard_again(bench: Bench) -> None:
    bench.live(60, TRAP)
    bench.live(60)
    assert bench.phone.subjects == [f"{TRAP}: silent for 46 min"]
    bench.live(20, TRAP)
    assert bench.phone.subjects[1:] == [f"{TRAP}: heard again"]


def test_a_silent_trap_says_nothing_else_of_what_it_said_last(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.live(10, TRAP, verdict="failing")
    bench.live(3 * HOUR)
    assert [text.partition(":")[2][:8] for text in bench.phone.subjects] == [" failing", " silent "]


def test_settings_that_are_refused_one_after_the_other_are_told_each(bench: Bench) -> None:
    for version in (7, 8):
        bench.live(30, TRAP, remote={"version": version, "state": "rolled_back"})
    assert bench.phone.subjects == [f"{TRAP}: settings: {version} rolled back" for version in (7, 8)]


@pytest.mark.parametrize("is_odd", [False, True])
def test_what_a_trap_says_nothing_of_any_more_is_not_over(bench: Bench, is_odd: bool) -> None:
    late: dict[str, Any] = {"newest_delivery_age_s": 2 * 86400.0, "ledger": {"pending": 140}}
    bench.live(
        30, TRAP, battery=3.0, disk={"days_left": 2.0}, remote={"version": 7, "state": "rolled_back"}, **late
    )
    bench.beat(remote={"version": 7, "state": "rolled_back"})
    if is_odd:
        with pytest.raises(NotTaken):
            bench.beat(battery="high")
    bench.live(30)
    assert (
        bench.phone.subjects[0] == "1 trap: 1 not delivering, 1 battery, 1 card filling, 1 settings refused"
    )
    assert not [told for told in bench.phone.told if "recovered" in told.subject or "again" in told.body]


def test_a_trap_that_never_delivered_anything_is_told_after_that_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, undelivered=Duration(7200))
    for _ in range(3):
        bench.beat(ledger={"pending": 140})
        bench.live(40)
    assert bench.phone.told == []
    bench.beat(ledger={"pending": 140})
    bench.live(10)
    bench.beat(ledger={"pending": 140}, name="another")
    bench.live(10)
    bench.beat(ledger={"pending": 0}, newest_delivery_age_s=60.0)
    bench.live(10)
    assert bench.phone.subjects == [
        f"{TRAP}: nothing delivered yet, 140 images pending",
        f"{TRAP}: it delivers again",
    ]


def test_rules_that_are_left_out_are_not_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rules=("silent",))
    bench.live(30, TRAP, verdict="failing", battery=3.0)
    bench.live(60)
    bench.live(60, TRAP)
    assert bench.phone.subjects == [f"{TRAP}: silent for 46 min"]


def test_a_rule_that_is_put_in_later_tells_what_holds_then(tmp_path: Path) -> None:
    bench = Bench(tmp_path, rules=("silent",))
    bench.live(30, TRAP, battery=3.0)
    bench.start(rules=RULES)
    bench.live(30, TRAP, battery=3.0)
    assert bench.phone.subjects == [f"{TRAP}: battery at 3 %"]


def test_a_trap_that_joined_and_does_not_call_is_silent(bench: Bench) -> None:
    with bench.hub.database.writing() as connection:
        connection.execute(
            "INSERT INTO traps (device, name, joined) VALUES (?, 'Meadow', ?)", (TRAP, bench.clock.wall())
        )
    bench.live(60)
    assert bench.phone.subjects == ["Meadow: joined 46 min ago, and has not been heard yet"]
    bench.live(10, TRAP)
    assert bench.phone.subjects[1:] == [f"{TRAP}: heard for the first time"]


def test_a_trap_that_was_forgotten_is_told_no_more(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.live(60)
    with bench.hub.database.writing() as connection:
        connection.execute("DELETE FROM heartbeats")
    bench.live(60)
    assert len(bench.phone.told) == 1
    with bench.hub.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM alert_states").fetchone()[0] == 0


def test_texts_of_a_trap_are_one_clean_line_each(bench: Bench) -> None:
    evil = "\x1b]0;x\x07\nfrom: the boss\u202e"
    bench.live(30, TRAP, name=evil, verdict="failing", reasons=[evil * 5, "<script>alert(1)</script>"])
    (told,) = bench.phone.told
    assert told.subject.isprintable()
    assert all(line.isprintable() for line in told.body.splitlines())
    assert len(told.body.splitlines()) == 3


# ── Never too often ──────────────────────────────────────────────────────────────────────────────────


def test_a_trap_that_comes_and_goes_fills_no_phone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settled=Duration(3600))
    for _ in range(24):
        bench.beat(every_s=300.0)  # silent after 15 minutes
        bench.live(20, step=4)
    assert bench.phone.subjects == [f"{TRAP}: silent for 16 min"]


def test_five_hundred_traps_that_go_silent_at_once_are_one_message(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(15):  # their heartbeats are spread over a quarter of an hour
        bench.beat_all(MANY[number::15])
        bench.clock.sleep(MINUTE)
    bench.live(100, step=4)
    assert bench.phone.subjects == ["500 traps: 500 silent"]
    (told,) = bench.phone.told
    assert "and 480 more, on the hub's page" in told.body
    assert len(told.body.encode()) <= 4000
    assert told.body.endswith("https://hub.example.org/")


def test_traps_that_call_once_an_hour_and_go_silent_at_once_are_one_message_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for device in MANY[:60]:
        bench.beat_all([device], every_s=3600.0)
        bench.clock.sleep(MINUTE)
    bench.live(5 * HOUR, step=4)
    assert bench.phone.subjects == ["60 traps: 60 silent"]


def test_where_half_of_the_fleet_is_always_late_a_message_does_not_wait_for_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    late, well = MANY[:5], MANY[5:10]
    for number in range(12):
        bench.beat_all(late if number % 4 == 0 else ())  # every forty minutes
        bench.live(10, *well, verdict="failing" if number > 6 else "ok", step=2)
    assert bench.phone.subjects == ["5 traps: 5 failing"]
    assert bench.phone.told[0].at == NOON + 72 * MINUTE


def test_after_the_hub_was_off_for_long_the_traps_have_the_time_to_call(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.off(600)
    bench.live(40)
    assert bench.phone.told == []
    bench.live(60, TRAP)
    assert bench.phone.told == []


def test_a_trap_that_does_not_call_after_the_hub_was_off_is_told_all_the_same(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.off(600)
    bench.live(60)
    assert bench.phone.subjects == [f"{TRAP}: silent for 11 h"]


def test_after_the_hub_stood_still_the_traps_have_the_time_to_call(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.clock.sleep(10 * 3600.0)
    bench.live(40)
    bench.live(60, TRAP)
    assert bench.phone.told == []


def test_a_hub_that_was_off_for_a_moment_goes_on_counting(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.live(30)
    bench.off(2)
    bench.live(10)
    assert bench.phone.subjects == [f"{TRAP}: silent for 46 min"]


@pytest.mark.parametrize("step", [86400.0, -86400.0, 400 * 86400.0, -400 * 86400.0])
def test_a_clock_that_steps_alarms_nobody(tmp_path: Path, step: float) -> None:
    bench = settled(tmp_path)
    bench.clock.step_wall(step)
    bench.live(8)
    bench.live(120, TRAP)
    assert bench.phone.told == []


def test_a_silent_trap_is_not_heard_because_the_clock_went_back(tmp_path: Path) -> None:
    bench = settled(tmp_path)
    bench.live(60)
    bench.clock.step_wall(-86400.0)
    bench.live(120)
    assert bench.phone.subjects == [f"{TRAP}: silent for 46 min"]


@pytest.mark.parametrize("starts_anew", [False, True])
def test_a_trap_that_goes_silent_after_the_clock_went_back_is_told(tmp_path: Path, starts_anew: bool) -> None:
    bench = settled(tmp_path)
    bench.clock.step_wall(400 * 86400.0)
    bench.turn()
    bench.beat()
    bench.clock.step_wall(-400 * 86400.0)
    if starts_anew:
        bench.hub = Hub.open(tmp_path / "hub", bench.clock, InThisProcess())
        bench.start()
    bench.live(2 * HOUR)
    assert bench.phone.subjects == [f"{TRAP}: silent for 46 min"]


def test_no_more_than_so_many_an_hour_and_the_rest_in_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, most_an_hour=3)
    for number in range(20):
        bench.beat(MANY[number], verdict="failing")
        bench.live(5, *MANY[: number + 1], verdict="failing")
    bench.live(HOUR, *MANY[:20], verdict="failing")
    times = [told.at for told in bench.phone.told]
    assert all(sum(at - 3600 < other <= at for other in times) <= 3 for at in times)
    assert bench.phone.subjects[3] == "10 traps: 10 failing"
    assert sum(told.body.count(": failing") for told in bench.phone.told) == 20


def test_a_quiet_night_is_told_in_the_morning_as_what_it_was(tmp_path: Path) -> None:
    bench = settled(tmp_path, quiet="22:00 - 07:00")
    bench.live(9 * HOUR, TRAP, step=5)  # 22:00
    bench.live(HOUR, TRAP, step=5, verdict="failing", reasons=["the camera hangs"])
    bench.live(7 * HOUR, TRAP, step=5)
    assert bench.phone.told == []
    bench.live(3 * HOUR, TRAP, step=5)
    (told,) = bench.phone.told
    assert told.subject == f"{TRAP}: no longer failing; before: failing: the camera hangs"
    assert told.at == NOON + 19 * HOUR * MINUTE
    assert told.body.startswith("Sun 22:00-Sun 23:00")


# ── To whom ──────────────────────────────────────────────────────────────────────────────────────────


def test_one_address_that_fails_does_not_have_the_others_told_twice(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("ntfy://works", "json://fails"))
    bench.phone.fails = lambda url: NotSent("no") if "fails" in url else None
    bench.live(120, TRAP, verdict="failing")
    assert len(bench.phone.told) == 1
    bench.phone.fails = lambda _: None
    bench.live(120, TRAP, verdict="failing")
    assert len(bench.phone.told) == 2
    assert bench.phone.told[0] == bench.phone.told[1].__class__(
        bench.phone.told[0].at, *vars_of(bench.phone.told[1])
    )


def vars_of(told: Any) -> tuple[Any, ...]:
    """All of a message but its time."""
    return told.subject, told.body, told.picture


def test_an_address_that_fails_is_asked_less_and_less(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.phone.fails = lambda _: NotSent("no")
    bench.live(24 * HOUR, TRAP, step=5, verdict="failing")
    assert 24 <= bench.phone.asked < 24 * 12


def test_what_may_have_come_says_so_when_it_is_told_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.phone.fails = lambda _: NotSent("it hangs", is_unknown=True)
    bench.live(10, TRAP, verdict="failing")
    bench.phone.fails = lambda _: None
    bench.live(30, TRAP, verdict="failing")
    assert bench.phone.told[0].body.startswith("This may have reached you already")


def test_what_was_refused_for_certain_does_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.phone.fails = lambda _: NotSent("error=500")
    bench.live(10, TRAP, verdict="failing")
    bench.phone.fails = lambda _: None
    bench.live(30, TRAP, verdict="failing")
    assert "already" not in bench.phone.told[0].body


def test_a_service_that_takes_no_pictures_gets_the_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, digest="08:00")
    _keep(bench.hub.store, TRAP, "2026-06-21T20:00:00Z")
    take = bench.phone.send

    def send(*words: str, picture: bytes | None, is_bad: bool) -> None:
        if picture:
            raise NotSent("the service did not take it: error=400")
        take(*words, picture=picture, is_bad=is_bad)

    monkeypatch.setattr(bench.phone, "send", send)
    bench.live(21 * HOUR, TRAP, step=10)
    assert bench.phone.subjects == ["1 trap: 1 ok"]


def test_an_address_that_is_new_is_told_what_happens_from_then_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.live(30, TRAP, verdict="failing")
    bench.addresses += (type(bench.addresses[0])("json://new", 2),)
    bench.start()
    bench.live(30, TRAP, verdict="failing")
    assert len(bench.phone.told) == 1
    bench.live(30, TRAP)
    assert len(bench.phone.told) == 3


def test_a_messenger_with_a_bug_costs_the_address_its_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, ("json://broken", "ntfy://works"))

    def fail(url: str) -> None:
        if "broken" in url:
            raise RuntimeError("a bug")

    bench.phone.fails = fail
    bench.live(30, TRAP, verdict="failing")
    assert len(bench.phone.told) == 1
    assert "line 1 (json) cannot be told" in caplog.text


def test_an_address_shows_nowhere_but_to_its_messenger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bench = Bench(tmp_path, ("mailtos://me:sesame@example.org",))
    bench.phone.fails = lambda _: NotSent("the service did not take it")
    bench.live(30, TRAP, verdict="failing")
    assert "alerts: line 1 (mailtos) took no message: the service did not take it" in caplog.text
    assert "sesame" not in caplog.text + repr(bench.addresses)
    assert b"sesame" not in (tmp_path / "hub" / "hub.sqlite").read_bytes()


def test_nothing_is_left_of_what_all_know(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.live(30, TRAP, verdict="failing")
    with bench.hub.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM alert_changes").fetchone()[0] == 0


def test_a_hub_without_room_says_so_and_calls_no_trap_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = settled(tmp_path)
    monkeypatch.setattr(bench.hub.room, "_min_free", 10**18)
    bench.live(2 * HOUR)
    (told,) = bench.phone.told
    assert told.subject == "the hub: no room left, it stores no picture and no heartbeat"
    assert told.body.splitlines()[0] == f"Sun 13:00 {told.subject}"
    assert told.body.endswith("https://hub.example.org/")
    monkeypatch.undo()
    bench.live(30, TRAP)
    assert bench.phone.subjects[1:] == ["the hub: it has room again"]


# ── The daily summary ────────────────────────────────────────────────────────────────────────────────

NIGHT = {"night": "2026-06-20", "expected": 120, "taken": 118}  # the last one that is over in the morning


def test_each_morning_brings_a_summary_with_the_newest_picture(tmp_path: Path) -> None:
    bench = Bench(tmp_path, digest="08:00")
    for taken in ("2026-06-21T11:59:59Z", "2026-06-21T20:00:00Z", "2026-06-22T01:00:00Z"):
        _keep(bench.hub.store, TRAP, taken)
    bench.live(20 * HOUR, TRAP, step=5)
    bench.live(2 * HOUR, TRAP, last_night=NIGHT)
    (told,) = bench.phone.told
    assert told.subject == "1 trap: 1 ok"
    assert told.body.split("\n\n")[-2:] == [
        f"Pictures of last night that are here:\n{TRAP}: 2",
        f"Reports of the night of 2026-06-20:\n{TRAP}: 118 of 120 expected pictures",
    ]
    assert 0 <= told.at - (NOON + 20 * HOUR * MINUTE) <= 4 * MINUTE
    bench.live(24 * HOUR, TRAP, step=5)
    assert len(bench.phone.told) == 2
    assert "No picture of last night is here." in bench.phone.told[1].body
    assert "No report of these nights from 1 trap." in bench.phone.told[1].body


def test_a_summary_has_the_small_copy_of_the_newest_picture_of_the_night(tmp_path: Path) -> None:
    bench = Bench(tmp_path, digest="08:00")
    store = bench.hub.store
    for device, taken in ((TRAP, "2026-06-21T20:00:00Z"), (MANY[1], "2026-06-22T01:00:00Z"), (MANY[2], OLD)):
        _keep(store, device, taken)
    bench.live(20 * HOUR, TRAP, *MANY[:3], step=10)
    bench.live(10, TRAP, *MANY[:3])
    (told,) = bench.phone.told
    assert (
        told.picture
        == bench.hub.thumbnails.get(
            store.images / MANY[1] / "2026-06-22" / f"{MANY[1]}.2026-06-22_01-00-00.jpg", "thumbnail"
        ).read_bytes()
    )
    assert store.newest(MANY[:1], OLD, "2027") is None
    assert store.newest([TRAP], OLD, "2026-06-21T20:00:00Z") is None


def test_a_picture_of_which_no_small_copy_can_be_made_is_not_sent_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, digest="08:00")
    _keep(bench.hub.store, TRAP, "2026-06-21T20:00:00Z", b"no picture")
    bench.live(21 * HOUR, TRAP, step=10)
    (told,) = bench.phone.told
    assert told.picture is None


OLD = "2026-06-20T23:00:00Z"


def _keep(store: Store, device: str, taken: str, content: bytes | None = None) -> None:
    """Have the hub hold a picture, another one for each device."""
    arrival = store.incoming / "arrived"
    arrival.write_bytes(content or drawings.trap(int(device, 16) % 9))
    facts = dict.fromkeys(("device_version", "lat", "lng", "alt", "temp", "hum", "lum", "bat", "but"))
    row = {"device": device, "datetime": taken, "md5": "0" * 32, "width": 160, "height": 120, **facts}
    store.keep(row | {"datetime_created": taken, "api_version": "1", "api_user_id": None}, arrival)


def test_a_summary_of_a_day_that_had_begun_is_not_made_up_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, digest="08:00")  # it is noon
    bench.live(8 * HOUR, TRAP, step=5)
    assert bench.phone.told == []


def test_a_hub_that_was_off_in_the_morning_sends_the_summary_later(tmp_path: Path) -> None:
    bench = settled(tmp_path, digest="08:00")
    bench.off(22 * HOUR)
    bench.live(5, TRAP)
    assert bench.phone.subjects == ["1 trap: 1 ok"]


def test_a_summary_of_500_traps_fits_into_a_message(tmp_path: Path) -> None:
    bench = Bench(tmp_path, digest="08:00")
    bench.clock.sleep(19.5 * 3600)
    bench.turn()
    bench.live(40, *MANY, step=5, verdict="warning", reasons=["x" * 200], last_night=NIGHT)
    (told,) = bench.phone.told
    assert told.subject == "500 traps: 500 warning"
    assert len(told.body.encode()) <= 3500


# ── The ping ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_hub_pings_while_it_has_room_and_says_once_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench, asked, fails = Bench(tmp_path), list[str](), [False]

    def ask(url: str) -> None:
        asked.append(url)
        if fails[0]:
            raise Unreachable("example.org answered with status 500")

    bench.pings = Pings("https://example.org/sesame", 300, bench.clock, ask)
    bench.start()
    bench.live(30)
    assert asked == ["https://example.org/sesame"] * 6
    fails[0] = True
    bench.live(30)
    fails[0] = False
    bench.live(30)
    assert [record.message for record in caplog.records if "ping" in record.message] == [
        "the ping of the hub did not get through: example.org answered with status 500",
        "the ping of the hub gets through again",
    ]
    assert "sesame" not in caplog.text
    monkeypatch.setattr(bench.hub.room, "_min_free", 10**18)
    del asked[:]
    bench.live(30)
    assert asked == []


def test_a_hub_whose_database_takes_nothing_does_not_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, asked = Bench(tmp_path, ()), list[str]()
    bench.pings = Pings("https://example.org/sesame", 300, bench.clock, asked.append)
    bench.start()

    def refuse(_database: Database) -> None:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(Database, "writing", refuse)
    bench.watch.step()
    assert asked == []
    monkeypatch.undo()
    bench.watch.step()
    assert len(asked) == 1
