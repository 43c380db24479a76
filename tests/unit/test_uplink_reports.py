"""Reports on their way to the hub: each arrives once, in order, whatever happens to trap, answer and hub."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import hub_server
import reported
from drawings import DEVICE
from fake_time import FakeTime
from fault_server import PORTAL
from reported import Trap, deployment, line, night
from statuses import status
from trapsync.catalog import reports as catalog_reports
from trapsync.catalog.reports import HeldReport, Known
from trapsync.errors import Unauthorised, Unreachable
from trapsync.files import failpoint
from trapsync.hub.app import Hub
from trapsync.net import reports
from trapsync.net.http_answer import Answer
from trapsync.net.slots import slots_of_trap
from trapsync.remote.uplink.calls import Callbacks, Uplink
from trapsync.remote.uplink.reports import IsHeld, Report
from trapsync.settings.schema import Hub as HubSettings
from trapsync.settings.units import Duration

DAYS = [f"2026-06-{day}" for day in range(21, 31)]


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    trap = Trap(tmp_path, Hub.open(tmp_path / "hub", FakeTime()))
    yield trap
    trap.catalog.close()


def lost(_answer: Answer) -> Answer:
    raise Unreachable("the connection was cut")


# ── Each once, in order ──────────────────────────────────────────────────────────────────────────────


def test_each_report_goes_once_and_while_there_is_none_no_request_is_made(trap: Trap) -> None:
    trap.turns(3)
    assert trap.posted == []

    trap.bodies = [night(), deployment()]
    trap.turns(3)
    trap.bodies.append(night(1))
    trap.turns(3)

    assert trap.sent() == ["2026-06-21", deployment()["id"], "2026-06-22"]
    assert list(reported.held(trap.hub.reports)) == ["2026-06-21", "2026-06-22"]
    assert len(trap.posted) == 3  # a new hub is asked before it is sent anything


def test_the_nights_of_weeks_without_a_network_arrive_in_order_in_batches(trap: Trap) -> None:
    trap.bodies = [night(number, gaps=40) for number in range(90)]

    trap.turns(1)

    keys = [key for _, key, *_ in trap.hub.reports.take(DEVICE, b"", 0)["held"]]
    assert keys == trap.sent() == [body["night"] for body in trap.bodies][: len(keys)]
    assert len(keys) > 50
    assert len(trap.posted) == 4
    assert max(map(len, trap.posted)) <= reports.LARGEST_BATCH
    trap.turns(2)
    assert len(reported.held(trap.hub.reports)) == 90
    assert len(trap.sent()) == 90


def test_a_night_that_changes_goes_again_and_takes_the_place_of_the_older_one(trap: Trap) -> None:
    trap.bodies = [night(), night(1)]
    trap.turns()
    trap.bodies[0] = night(taken=4)
    trap.turns(2)

    assert trap.sent() == ["2026-06-21", "2026-06-22", "2026-06-21"]
    assert reported.held(trap.hub.reports) == {"2026-06-21": (20, 20), "2026-06-22": (20, 10)}


def test_a_start_goes_on_where_the_one_before_ended(trap: Trap) -> None:
    trap.bodies = [night(), night(1)]
    trap.turns()
    trap.catalog.close()
    trap.start()
    trap.bodies.append(night(2))
    trap.turns()
    assert trap.sent() == ["2026-06-21", "2026-06-22", "2026-06-23"]


def test_an_exchange_costs_one_commit_and_one_without_news_none(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[str] = []
    monkeypatch.setattr(failpoint, "hit", commits.append)
    trap.bodies = [night(number) for number in range(30)]
    trap.turns(4)
    noted = [name for name in commits if name.startswith("catalog: after")]
    assert noted == ["catalog: after note_reports"] * len(trap.posted) == ["catalog: after note_reports"] * 2


def test_news_waits_for_the_next_look_within_the_hour_but_not_for_somebody_on_site(trap: Trap) -> None:
    trap.bodies = [night()]
    trap.turns(1, wait=900)
    trap.bodies.append(night(1))
    trap.turns(1, wait=900)
    assert trap.sent() == ["2026-06-21"]
    trap.reporter.look_now()
    trap.turns()
    assert trap.sent() == ["2026-06-21", "2026-06-22"]


def test_a_night_with_forty_gaps_is_less_than_three_kilobytes(trap: Trap) -> None:
    one = line(night(gaps=40))
    assert len(one.data) < 3000


# ── What goes wrong on the way ───────────────────────────────────────────────────────────────────────


def test_an_answer_that_is_lost_costs_neither_a_report_nor_a_second_one(trap: Trap) -> None:
    trap.bodies = [night()]
    trap.turns()
    trap.bodies += [night(1), night(2)]
    trap.misdeed = lost
    trap.turns(1, wait=86400)
    trap.misdeed = None
    trap.bodies.append(night(3))
    trap.turns(2, wait=86400)

    held = trap.hub.reports.take(DEVICE, b"", 0)["held"]
    assert [(key, number) for _, key, _, number in held] == list(zip(DAYS[:4], range(1, 5), strict=True))
    assert {key: digest for (_, key), digest in trap.catalog.reports.held().items()} == {
        key: digest for _, key, digest, _ in held
    }


def test_a_request_that_comes_late_and_puts_an_older_content_back_is_noticed(trap: Trap) -> None:
    trap.bodies = [night(taken=1), night(1)]
    trap.turns()
    trap.bodies[0] = night(taken=2)
    trap.turns()
    trap.hub.reports.take(DEVICE, reported.lines(night(taken=1)), 0)

    trap.bodies.append(night(2))
    trap.turns(2)

    assert reported.held(trap.hub.reports)["2026-06-21"] == (20, 10)


HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json"}
GOOD: dict[str, Any] = {"device": DEVICE, "hub": "0123456789abcdef", "newest": 0, "held": [], "refused": []}


ODD: list[dict[str, Any]] = [
    {"device": "00000001"},
    {"hub": "x"},
    {"newest": -1},
    {"newest": 2**60},
    {"held": [["night", "2026-06-21", "a" * 64, 1]] * 1001},
    {"held": [["night", "2026-06-21", "A" * 64, 1]]},
    {"held": [["night", "x" * 101, "a" * 64, 1]]},
    {"held": {}},
]


@pytest.mark.parametrize(
    "answer",
    [
        *((404, HTML, b"not here"), (405, {}, b""), (501, {}, b"")),
        *((200, HTML, PORTAL), (200, {}, b""), (204, {}, b""), (200, JSON, b"{"), (200, JSON, b"[]")),
        *(
            (500, HTML, b"oh"),
            (403, HTML, b"who?"),
            (400, {"Content-Type": "text/plain"}, b"no heartbeat yet"),
        ),
        *((200, JSON, json.dumps(GOOD | odd).encode()) for odd in ODD),
    ],
)
def test_whatever_else_is_answered_stores_nothing_is_no_error_and_is_tried_less_and_less(
    trap: Trap, answer: tuple[int, dict[str, str], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trap.bodies = [night()]
    trap.misdeed = lambda _: Answer("hub.example.org", *answer)

    trap.turns(96, wait=900)

    assert (trap.catalog.reports.known(), trap.catalog.reports.held()) == (None, {})
    assert trap.sent() == []  # who does not answer as a hub is not sent any
    assert len(trap.posted) <= 12
    assert [record.levelname for record in caplog.records] == ["INFO"]
    trap.misdeed = None
    trap.turns(1, wait=86400)
    trap.turns()
    assert list(reported.held(trap.hub.reports)) == ["2026-06-21"]


def test_a_hub_without_the_address_is_asked_again_a_day_later(trap: Trap) -> None:
    trap.bodies = [night()]
    trap.misdeed = lambda _: Answer("hub.example.org", 404, {}, b"")
    trap.turns(4 * 24 * 3, wait=900)
    assert len(trap.posted) == 3


def test_an_account_that_is_not_let_in_costs_the_reports_only(trap: Trap) -> None:
    def deny(_: Answer) -> Answer:
        raise Unauthorised("no")

    trap.bodies, trap.misdeed = [night()], deny
    trap.turns(2)
    assert trap.catalog.reports.known() is None


def test_what_a_hub_refuses_is_told_once_tried_a_day_later_and_keeps_nothing_back(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"schema": 9, "what": "of a later program"}
    trap.sources.append(lambda _is_held: [Report("deployment", f"{DEVICE}-x", deployment() | odd)])
    trap.sources.insert(0, lambda _is_held: [Report("night", "2026-06-20", night())])
    trap.bodies = [night(), deployment()]

    trap.turns(6)

    assert list(reported.held(trap.hub.reports)) == ["2026-06-21"]
    texts = [record.getMessage() for record in caplog.records if record.name.endswith("uplink.reports")]
    assert [text.split(" cannot be")[0] for text in texts] == [
        "the night 2026-06-20",
        f"the deployment {DEVICE}-x",
    ]


def test_a_report_that_the_hub_does_not_take_rests_for_a_day(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(answer: Answer) -> Answer:
        content = answer.json(dict)
        digests = [line(body).sha256 for body in trap.bodies]
        return Answer(
            *("hub.example.org", 200, JSON),
            json.dumps(
                {**content, "held": [], "newest": 0, "refused": [[d, "too new"] for d in digests]}
            ).encode(),
        )

    trap.bodies, trap.misdeed = [night()], refuse
    trap.turns(3 * 24, wait=3600)
    assert trap.sent() == ["2026-06-21"] * 3
    assert [record.getMessage() for record in caplog.records if "too new" in record.getMessage()] == [
        "the hub does not take the night 2026-06-21: too new"
    ]


def test_a_bug_in_one_source_is_loud_and_costs_what_it_would_have_made(
    trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_is_held: IsHeld) -> Iterator[Report]:
        yield Report("night", "2026-06-25", night(4))
        raise ZeroDivisionError

    trap.sources.insert(0, broken)
    trap.bodies = [night()]
    trap.turns()
    assert list(reported.held(trap.hub.reports)) == ["2026-06-21", "2026-06-25"]
    assert "ZeroDivisionError" in caplog.text


# ── Another hub, an older copy, a lost catalog ───────────────────────────────────────────────────────


def test_a_hub_that_lost_its_database_gets_everything_again(trap: Trap, tmp_path: Path) -> None:
    trap.bodies = [night(number) for number in range(5)]
    trap.turns()
    trap.put_back(tmp_path / "new")
    trap.bodies.append(night(5))

    trap.turns(2)

    assert list(reported.held(trap.hub.reports)) == DAYS[:6]


def test_another_hub_that_knows_the_trap_is_asked_what_it_holds(trap: Trap, tmp_path: Path) -> None:
    trap.bodies = [night(number) for number in range(5)]
    trap.turns()
    trap.put_back(tmp_path / "busy")
    trap.hub.reports.take(DEVICE, reported.lines(*map(night, (0, 1, 2, 3, 4, 100, 101))), 0)
    trap.posted.clear()

    trap.bodies.append(night(5))
    trap.turns(2)

    assert trap.sent() == [DAYS[5]]
    assert list(reported.held(trap.hub.reports))[:6] == DAYS[:6]


def test_a_hub_that_was_put_back_to_an_older_copy_gets_what_it_lacks_and_no_more(
    trap: Trap, tmp_path: Path
) -> None:
    trap.bodies = [night(), night(1)]
    trap.turns()
    trap.hub.database.close()
    copy = tmp_path / "hub" / "hub.sqlite"
    older = tmp_path / "older.sqlite"
    older.write_bytes(copy.read_bytes())
    trap.hub = Hub.open(tmp_path / "hub", trap.time)
    trap.bodies[0] = night(taken=4)
    trap.bodies.append(night(2))
    trap.turns()
    trap.put_back(tmp_path / "back", older)
    trap.bodies.append(night(3))
    trap.posted.clear()

    trap.turns(2)

    assert reported.held(trap.hub.reports) == dict.fromkeys(DAYS[1:4], (20, 10)) | {DAYS[0]: (20, 20)}
    assert sorted(set(trap.sent())) == [DAYS[0], DAYS[2], DAYS[3]]


def test_a_trap_that_lost_its_catalog_asks_what_the_hub_has_and_sends_the_rest(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_HELD", 2)  # so that it takes more than one answer
    trap.bodies = [night(number) for number in range(5)]
    trap.turns(3)
    trap.lose_catalog()
    trap.bodies.append(night(5))
    trap.posted.clear()

    trap.turns(3)

    assert trap.sent() == [DAYS[5]]
    assert len(reported.held(trap.hub.reports)) == 6


def test_a_hub_that_names_more_than_it_may_fills_no_card(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_reports, "MOST", 3)
    for number in range(1, 9):
        trap.catalog.reports.note(Known("0" * 16, number), [HeldReport("night", str(number), "a" * 64)])
    assert len(trap.catalog.reports.held()) == 3


# ── With the heartbeat, over HTTP ────────────────────────────────────────────────────────────────────


def test_reports_follow_a_heartbeat_that_was_taken_and_no_other(trap: Trap, tmp_path: Path) -> None:
    trap.bodies = [night()]
    with hub_server.running(tmp_path / "other") as hub:
        reported.heard(hub.hub)
        secret = tmp_path / "password"
        secret.write_text(hub_server.PASSWORD)
        secret.chmod(0o600)
        account: dict[str, Any] = {"username": "trap", "password_file": secret}
        settings = HubSettings(url=hub.url, every=Duration(900), **account)
        slots = slots_of_trap(DEVICE, [], [])
        beat = msgspec.structs.replace(status(), device="ffffffff")
        calls = Callbacks(lambda _: None, lambda: beat, lambda *_: None)
        uplink = Uplink(settings, DEVICE, slots, calls, trap.time, trap.time.sleep)
        uplink.recall(trap.catalog.facts.read(), trap.reporter)

        uplink.call_now()
        uplink.tick()  # with a heartbeat that is not of this trap
        assert trap.catalog.reports.known() is None
        beat = msgspec.structs.replace(beat, device=DEVICE)
        uplink.call_now()
        uplink.tick()

        assert list(reported.held(hub.hub.reports)) == ["2026-06-21"]
        assert len(hub.hub.fleet.history(DEVICE)) == 2
    trap.hub.database.close()
