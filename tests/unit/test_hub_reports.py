"""The hub's part in reports: what it stores, from whom, within which bounds, and what is read from it."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

import hub_server
import reported
from drawings import DEVICE
from fake_time import FakeTime
from hub_server import RunningHub
from reported import deployment, line, lines, night
from trapsync.hub import reports as hub_reports
from trapsync.hub.app import Hub
from trapsync.hub.fleet import NotTaken
from trapsync.net import reports

OTHER = "00000001"
TOMORROW = date(2026, 6, 22)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub.open(tmp_path, FakeTime())
    reported.heard(hub)
    return hub


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path_factory.mktemp("hub")) as running:
        running.join(DEVICE, "mine")
        reported.heard(running.hub)
        reported.heard(running.hub, OTHER)
        yield running


def post(
    hub: RunningHub, data: bytes, *, device: str = DEVICE, since: Any = 0, auth: tuple[str, str] | None = None
) -> requests.Response:
    url = f"{hub.url}/reports/{device}?since={since}"
    return requests.post(url, data, auth=auth or (DEVICE, "mine"), timeout=30)


# ── Stored and answered ──────────────────────────────────────────────────────────────────────────────


def test_the_answer_names_each_report_that_is_stored_by_the_digest_of_its_line(running: RunningHub) -> None:
    first = line(night())

    answer = post(running, lines(night(), deployment())).json()
    later = post(running, b"", since=answer["newest"]).json()

    assert answer["held"][0] == ["night", "2026-06-21", first.sha256, 1]
    assert [kind for kind, *_ in answer["held"]] == ["night", "deployment"]
    assert (answer["newest"], answer["refused"]) == (2, [])
    assert (later["hub"], later["newest"], later["held"]) == (answer["hub"], 2, [])
    assert reports.answer(answer, DEVICE).hub == running.hub.reports.id


def test_a_report_that_comes_again_changes_nothing_and_a_changed_one_takes_its_place(hub: Hub) -> None:
    first = hub.reports.take(DEVICE, lines(night(), night(1)), 0)
    again = hub.reports.take(DEVICE, lines(night()), first["newest"])
    changed = hub.reports.take(DEVICE, lines(night(taken=4)), first["newest"])

    assert (first["newest"], again["newest"], again["held"]) == (2, 2, [])
    assert changed["held"] == [["night", "2026-06-21", line(night(taken=4)).sha256, 3]]
    assert reported.held(hub.reports) == {"2026-06-21": (20, 20), "2026-06-22": (20, 10)}


def test_each_hub_has_an_id_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    first, second = (Hub.open(tmp_path / name).reports.id for name in ("one", "two"))
    assert first == Hub.open(tmp_path / "one").reports.id != second


def test_what_is_held_comes_in_bounded_answers_oldest_first(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_HELD", 2)
    hub.reports.take(DEVICE, lines(*map(night, range(5))), 0)

    pages = [[row[3] for row in hub.reports.take(DEVICE, b"", since)["held"]] for since in (0, 2, 4, 5)]

    assert pages == [[1, 2], [3, 4], [5], []]


# ── What is taken ────────────────────────────────────────────────────────────────────────────────────

ODD_NIGHTS: dict[str, dict[str, Any]] = {
    "no day": {"night": "2026-06-31"},
    "more taken than expected": {"hours": [["2026-06-21T20:00:00Z", 1, 2, 2]]},
    "less than nothing": {"hours": [["2026-06-21T20:00:00Z", -1, -2, 0]]},
    "too many hours": {"hours": night()["hours"] * 20},
    "too many gaps": {"gaps": night()["gaps"] * 501},
    "an hour without a time zone": {"hours": [["2026-06-21T20:00:00", 1, 1, 1]]},
    "an hour of another year": {"hours": [["2027-06-21T20:00:00Z", 1, 1, 1]]},
    "a reason that is markup": {"gaps": [["2026-06-21T20:00:00Z", "2026-06-21T20:00:00Z", 1, "<b>"]]},
    "a gap backwards": {"gaps": [["2026-06-21T21:00:00Z", "2026-06-21T20:00:00Z", 1, "card"]]},
}
ODD_DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "beyond the pole": {"terms": {"latitude": 91}},
    "coordinates that are text": {"terms": {"longitude": "=1+1"}},
    "objects as terms": {"terms": {"a": {"b": 1}}},
    "a deployment backwards": {"ended": "2026-06-20T20:00:00Z"},
}
ODD: dict[str, bytes] = {
    "no JSON": b"<html>Welcome</html>",
    "no report": b"[1,2,3]",
    "cut off": lines(night())[:-9],
    "another kind": b'["weather","2026-06-21",{}]',
    "another key": json.dumps(["night", "2026-06-20", night()]).encode(),
    "too deep": b'["night","2026-06-21",{"a":' + b"[" * 20 + b"]" * 20 + b"}]",
    "too long": b'["night","2026-06-21",{"a":"' + b"x" * reports.LARGEST + b'"}]',
    "of another trap": json.dumps(
        ["deployment", f"{OTHER}-1", {**deployment(), "id": f"{OTHER}-1"}]
    ).encode(),
}
for what, more in ODD_NIGHTS.items():
    ODD[what] = json.dumps(["night", "2026-06-21", {**night(), **more}]).encode()
for what, more in ODD_DEPLOYMENTS.items():
    ODD[what] = json.dumps(["deployment", deployment()["id"], {**deployment(), **more}]).encode()


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_a_report_that_makes_no_sense_costs_itself_and_says_why(hub: Hub, odd: bytes) -> None:
    answer = hub.reports.take(DEVICE, odd + b"\n" + lines(night(1)), 0)

    ((digest, reason),) = answer["refused"]
    assert (digest, reason.count("\n")) == (reports.digest(odd), 0)
    assert reason
    assert [key for _, key, *_ in answer["held"]] == ["2026-06-22"]


def test_what_a_later_program_adds_is_kept(hub: Hub) -> None:
    assert hub.reports.take(DEVICE, lines({**night(), "moon": 0.4}), 0)["refused"] == []
    with hub.database.reading() as connection:
        assert json.loads(connection.execute("SELECT body FROM reports").fetchone()[0])["moon"] == 0.4


def test_a_trap_has_a_bounded_number_of_reports_and_those_can_still_change(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_reports, "MOST_KEPT", 2)
    answer = hub.reports.take(DEVICE, lines(*map(night, range(3)), deployment()), 0)
    changed = hub.reports.take(DEVICE, lines(night(taken=4)), 0)

    assert [reason for _, reason in answer["refused"]] == ["this hub keeps 2 reports of a kind for each trap"]
    assert len(answer["held"]) == 3
    assert changed["refused"] == []


@pytest.mark.parametrize(
    ("data", "device"),
    [(b"[]\n" * 201, DEVICE), (b"x" * (reports.LARGEST_BATCH + 1), DEVICE), (lines(night()), "0000000f")],
    ids=["too many", "too long", "never heard"],
)
def test_a_request_beyond_its_bounds_is_refused_as_a_whole(hub: Hub, data: bytes, device: str) -> None:
    with pytest.raises(NotTaken):
        hub.reports.take(device, data, 0)


@pytest.mark.parametrize("since", ["x", "-1", "1" * 17, "٣"])
def test_a_number_that_is_none_is_one_clear_line(running: RunningHub, since: str) -> None:
    answer = post(running, b"", since=since)
    assert (answer.status_code, answer.text.count("\n")) == (400, 1)


# ── From whom ────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_but_a_trap_itself_sends_its_reports(running: RunningHub) -> None:
    mine, shared, reader = (DEVICE, "mine"), running.auth("trap"), running.auth("reader")
    before = reported.held(running.hub.reports, DEVICE)
    asked = [(OTHER, mine), (DEVICE, shared), (DEVICE, reader), (OTHER, reader), (DEVICE, (DEVICE, "x"))]

    codes = [post(running, lines(night(9)), device=device, auth=auth).status_code for device, auth in asked]

    assert codes == [403, 403, 403, 403, 401]
    assert reported.held(running.hub.reports, DEVICE) == before
    assert post(running, lines(night(9)), device=OTHER, auth=shared).status_code == 200  # it has no account


def test_people_see_what_was_watched_and_a_trap_does_not(running: RunningHub) -> None:
    post(running, lines(night(5), night(6), night(7)))
    url = f"{running.url}/effort?from=2026-06-26&until=2026-06-28"

    seen = requests.get(url, auth=running.auth("reader"), timeout=30).json()

    mine = [row for row in seen["nights"] if row["device"] == DEVICE]
    assert [row["night"] for row in mine] == ["2026-06-26", "2026-06-27"]
    assert (mine[0]["expected"], mine[0]["taken"], mine[0]["missed"]) == (20, 10, {"camera": 10})
    assert requests.get(url, auth=(DEVICE, "mine"), timeout=30).status_code == 403
    assert (
        requests.get(f"{running.url}/effort?from=x", auth=running.auth("reader"), timeout=30).status_code
        == 400
    )


# ── Read ─────────────────────────────────────────────────────────────────────────────────────────────


def test_nights_and_deployments_are_read_by_trap_and_span(hub: Hub) -> None:
    reported.heard(hub, OTHER)
    hub.reports.take(DEVICE, lines(night(1), night(), deployment(), deployment(30)), 0)
    ended = {**deployment(0, OTHER), "ended": "2026-06-25T00:00:00Z"}
    hub.reports.take(OTHER, lines(night(), ended), 0)
    july = datetime(2026, 7, 1, tzinfo=UTC)

    assert [(d, str(n.night)) for d, n in hub.reports.nights()] == [
        (OTHER, "2026-06-21"),
        (DEVICE, "2026-06-21"),
        (DEVICE, "2026-06-22"),
    ]
    assert [str(n.night) for _, n in hub.reports.nights([DEVICE], until=TOMORROW)] == ["2026-06-21"]
    assert [n.night for _, n in hub.reports.nights(since=TOMORROW)] == [TOMORROW]
    assert [d for d, _ in hub.reports.deployments()] == [OTHER, DEVICE, DEVICE]
    assert [d.id for _, d in hub.reports.deployments(since=july)] == [
        f"{DEVICE}-20260621T200000Z",
        f"{DEVICE}-20260721T200000Z",
    ]
    assert [d.began.day for _, d in hub.reports.deployments([DEVICE], until=july)] == [21]


def test_what_was_missed_without_a_gap_is_of_unknown_reason(hub: Hub) -> None:
    hub.reports.take(
        DEVICE, lines({**night(), "gaps": [[f"{TOMORROW}T00:00:00Z", f"{TOMORROW}T01:00:00Z", 3, "card"]]}), 0
    )
    (one,) = hub.reports.effort()
    assert (one.expected - one.taken, one.missed) == (10, {"card": 3, "unknown": 7})


def test_texts_of_a_deployment_are_read_as_one_printable_line_each(hub: Hub) -> None:
    hub.reports.take(DEVICE, lines(deployment(comments="a\n\x1b[2Jb", tags=["x\u202ey"])), 0)
    ((_, found),) = hub.reports.deployments()
    assert (found.terms["comments"], found.terms["tags"]) == ("a ?[2Jb", ["x?y"])


def test_a_deployment_of_which_terms_were_lost_with_a_catalog_keeps_those_that_the_hub_knows(
    hub: Hub,
) -> None:
    lost = {"is_whole": False, "terms": {"latitude": 46.5}}
    hub.reports.take(DEVICE, lines(deployment(habitat="meadow"), deployment(1) | lost), 0)
    hub.reports.take(DEVICE, lines(deployment() | lost | {"ended": "2026-06-23T00:00:00Z"}), 0)

    first, second = (found for _, found in hub.reports.deployments())

    assert first.ended == datetime(2026, 6, 23, tzinfo=UTC)
    assert (first.terms["habitat"], first.is_whole) == ("meadow", True)
    assert (second.terms, second.is_whole) == ({"latitude": 46.5}, False)


def test_a_stored_report_that_cannot_be_used_is_passed_over_and_told(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.reports.take(DEVICE, lines(*map(night, range(4))), 0)
    with hub.database.writing() as connection:
        for number, body in enumerate(("{", "[1]", '{"night": 7}'), start=1):
            connection.execute("UPDATE reports SET body = ? WHERE number = ?", (body, number))

    with caplog.at_level(logging.WARNING):
        assert list(reported.held(hub.reports)) == ["2026-06-24"]
    assert len(caplog.records) == 3


def test_images_of_a_trap_that_is_forgotten_keep_their_nights(hub: Hub) -> None:
    hub.reports.take(DEVICE, lines(night()), 0)
    hub.enrolment.forget(DEVICE)
    assert list(reported.held(hub.reports)) == ["2026-06-21"]
