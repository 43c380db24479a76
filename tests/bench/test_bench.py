"""The bench measures what it says: every row comes, with small sizes, and `--check` tells what falls short."""

import math
import os
import sys
from pathlib import Path

import pytest

import s3_backlog
from bench import slow_link
from bench.__main__ import MEASURED, measured
from bench.table import Row, plain, text


@pytest.fixture(autouse=True)
def as_scripts_bench_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures in processes of their own finds the bench there."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.mark.parametrize("name", MEASURED)
def test_every_measurement_gives_its_rows(tmp_path: Path, name: str) -> None:
    rows = list(measured([name], tmp_path, rounds=1, tiny=True))
    assert rows
    for row in rows:
        assert row.name == name
        assert math.isfinite(row.figure)
        assert row.ratio >= 0


def test_a_backlog_goes_to_a_bucket_over_a_slow_link(tmp_path: Path) -> None:
    if reason := slow_link.missing():
        pytest.skip(f"NOT SHOWN HERE: deliveries to a bucket over a slow link; {reason}")
    assert s3_backlog.stores_s3(tmp_path, images=4, rate=200e6, delay=0.005) > 0


def test_a_ratio_is_held_to_its_target_from_its_own_side() -> None:
    def row(ratio: float, *, at_least: bool) -> Row:
        return Row("a", "b", 1.0, "ms", "c", ratio, 0.9, at_least=at_least)

    assert row(0.89, at_least=True).falls_short
    assert not row(0.9, at_least=True).falls_short
    assert row(0.91, at_least=False).falls_short
    assert not row(0.9, at_least=False).falls_short
    assert not Row("a", "b", 1.0, "ms", "c", 5.0).falls_short


def test_the_table_shows_what_falls_short() -> None:
    rows = [Row("a", "b", 1234.5, "ms", "c", 1.5, 1.0), Row("d", "e", 0.1234, "MB", "f", 0.5, 1.0)]
    assert text(rows).splitlines()[2:] == [
        "| a | b | 1,234 ms | c | 1.5 | ≤ 1 ✗ |",
        "| d | e | 0.123 MB | f | 0.5 | ≤ 1 |",
    ]
    assert '"falls_short": true' in plain(rows)
