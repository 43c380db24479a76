"""What people read and write: numbers with nouns, spans, moments in the trap's zone, quantities in their own words."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import pytest

from trapsync.cli.common import Moment
from trapsync.settings.units import Duration, Size
from trapsync.settings.words import age, count, days_of, full, when

ZURICH = ZoneInfo("Europe/Zurich")


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [(0, "trap", "0 traps"), (1, "trap", "1 trap"), (2, "trap", "2 traps"), (3, "delivery", "3 deliveries")],
)
def test_a_number_has_its_noun_in_the_plural_unless_it_is_one(n: int, noun: str, text: str) -> None:
    assert count(n, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4, "4 s"),
        (119, "119 s"),
        (3 * 3600, "3 h"),
        (9 * 86400, "9 days"),
        (415794 * 86400, "more than a year"),
    ],
)
def test_a_span_is_in_its_largest_unit_up_to_a_year(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_days_have_a_fraction_while_it_counts_and_end_at_a_year() -> None:
    assert [days_of(days) for days in (0.5, 1, 2.5, 61.3, 17368.8)] == [
        *("0.5 days", "1 day", "2.5 days", "61 days", "more than a year"),
    ]


NOW = "2026-11-28T11:13:14Z"


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("2026-11-28T11:13:10Z", "12:13 (4 s ago)"),
        ("2026-11-28T14:13:14Z", "15:13 (in 3 h)"),
        ("2026-11-26T11:13:14Z", "Thu 26 Nov 12:13 (2 days ago)"),
        ("2026-07-01T10:00:00Z", "Wed 01 Jul 12:00 (150 days ago)"),  # in summer time
        ("2024-07-01T10:00:00Z", "01 Jul 2024 12:00 (more than a year ago)"),
    ],
)
def test_a_moment_is_in_the_traps_zone_with_how_far_it_is(at: str, text: str) -> None:
    assert when(at, NOW, ZURICH) == text


def test_a_moment_in_full_has_its_day_and_second() -> None:
    assert full(NOW, ZURICH) == "2026-11-28 12:13:14"
    assert full(None, ZURICH, "never") == "never"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1 minute", 60),
        ("30 seconds", 30),
        ("2 hours", 7200),
        ("1 hour", 3600),
        ("2 weeks", 14 * 86400),
        ("1 week", 7 * 86400),
    ],
)
def test_a_duration_may_be_written_in_full(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


def test_a_size_may_be_written_in_binary_units() -> None:
    assert (Size.parse("2 GiB"), Size.parse("512 MiB")) == (2 * 2**30, 512 * 2**20)


@pytest.fixture
def _in_lima(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/Lima")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-28", datetime(2026, 11, 28, 5, tzinfo=UTC)),
        ("2026-11-28 10:57", datetime(2026, 11, 28, 15, 57, tzinfo=UTC)),
        ("2026-11-28T10:57:30Z", datetime(2026, 11, 28, 10, 57, 30, tzinfo=UTC)),
    ],
)
@pytest.mark.usefixtures("_in_lima")
def test_a_day_and_a_time_are_read_in_the_machines_zone(text: str, moment: datetime) -> None:
    assert Moment().convert(text, None, None) == moment


def test_a_moment_may_be_so_long_ago() -> None:
    found = datetime.now(UTC) - Moment().convert("3 days ago", None, None)
    assert abs(found - timedelta(days=3)) < timedelta(minutes=5)


def test_a_moment_may_be_so_far_ahead() -> None:
    found = Moment().convert("in 3 days", None, None) - datetime.now(UTC)
    assert abs(found - timedelta(days=3)) < timedelta(minutes=5)


@pytest.mark.parametrize("text", ["soon", "3 ago", "28.11.2026", "999999999 days ago", "in"])
def test_what_is_no_moment_says_how_one_is_written(text: str) -> None:
    says = "write 2026-11-28, '2026-11-28 21:00', '3 days ago' or 'in 3 days'"
    with pytest.raises(click.BadParameter, match=says):
        Moment().convert(text, None, None)
