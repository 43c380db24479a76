"""What all traps watched, as the operator sees it: `trapsync hub effort` at a real hub."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import hub_server
import reported
from drawings import DEVICE
from hub_server import RunningHub
from reported import lines, night
from trapsync.cli import cli
from trapsync.errors import TrapsyncError
from trapsync.fleet.effort import csv_text, summary
from trapsync.net import reports
from trapsync.net.reports import Watched

OTHER, SILENT = "00000001", "00000002"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path_factory.mktemp("hub")) as hub:
        hub.hub.fleet.take(DEVICE, b'{"device": "%s", "name": "valley-3"}' % DEVICE.encode())
        for device in (OTHER, SILENT):
            reported.heard(hub.hub, device)
        hub.auth("reader")
        hub.hub.reports.take(DEVICE, lines(night(0, taken=4), night(1, taken=3), night(-30)), 0)
        hub.hub.reports.take(OTHER, lines(night(0, taken=0, gaps=5, reason="no_power")), 0)
        yield hub


def effort(hub: RunningHub, folder: Path, *options: str) -> Result:
    secret = folder / "password"
    secret.write_text(hub_server.PASSWORD)
    secret.chmod(0o600)
    account = ["--hub", hub.url, "--user", "reader", "--password-file", str(secret)]
    command = ["hub", "effort", "--from", "2026-06-20", "--until", "2026-06-23", *account, *options]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


def test_the_nights_of_all_traps_are_shown_the_worst_first_with_their_reasons(
    hub: RunningHub, tmp_path: Path
) -> None:
    shown = effort(hub, tmp_path)

    assert [line.split() for line in shown.output.splitlines()] == [
        ["trap", "night", "expected", "taken", "missed", "why"],
        [OTHER, "2026-06-21", "20", "0", "20", "no", "power", "20"],
        ["valley-3", "2026-06-22", "20", "15", "5", "camera", "5"],
        ["valley-3", "2026-06-21", "20", "20", "0", "-"],
        ["all:", "35", "of", "60", "expected", "pictures", "were", "taken,", "58.3", "%"],
        ["no", "night", "yet", "from:", SILENT],
    ]


def test_programs_and_spreadsheets_get_the_same(hub: RunningHub, tmp_path: Path) -> None:
    plain = json.loads(effort(hub, tmp_path, "--json").output)
    rows = list(csv.DictReader(io.StringIO(effort(hub, tmp_path, "--csv").output)))

    assert [(one["device"], one["night"], one["missed"]) for one in plain["nights"]] == [
        (OTHER, "2026-06-21", {"no_power": 20}),
        (DEVICE, "2026-06-22", {"camera": 5}),
        (DEVICE, "2026-06-21", {}),
    ]
    assert plain["without"] == [SILENT]
    assert [(row["trap"], row["missed"], row["no_power"], row["camera"]) for row in rows] == [
        (OTHER, "20", "20", "0"),
        ("valley-3", "5", "0", "5"),
        ("valley-3", "0", "0", "0"),
    ]


def test_a_time_without_a_night_says_so(hub: RunningHub, tmp_path: Path) -> None:
    shown = effort(hub, tmp_path, "--from", "2025-01-01", "--until", "2025-01-02")
    assert shown.output.splitlines() == [
        "no night of this time has come yet",
        f"no night yet from: {OTHER}, {SILENT}, valley-3",
    ]


def test_neither_two_forms_nor_a_folder(hub: RunningHub, tmp_path: Path) -> None:
    assert "only one of --json and --csv" in effort(hub, tmp_path, "--json", "--csv").output
    with pytest.raises(TrapsyncError, match="neither to a folder nor to a broker"):
        CliRunner().invoke(cli, ["hub", "effort", "--folder", str(tmp_path)], catch_exceptions=False)


def test_a_name_that_is_a_formula_is_none_in_a_spreadsheet_and_a_later_reason_has_its_column() -> None:
    odd = Watched(DEVICE, "=1+1", reported.NIGHT, 4, 1, {"camera": 1, "moonlight": 2})
    (row,) = csv.DictReader(io.StringIO(csv_text([odd])))
    assert (row["trap"], row["camera"], row["moonlight"], row["off"]) == ("'=1+1", "1", "2", "0")
    assert summary([odd]) == "all: 1 of 4 expected pictures were taken, 25.0 %"


@pytest.mark.parametrize(
    "odd", [None, {}, [1], [{"device": DEVICE}], [{"night": "x", "expected": -1, "taken": [], "missed": 0}]]
)
def test_an_answer_that_makes_no_sense_is_one_line(odd: Any) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        reports.watched(odd)
