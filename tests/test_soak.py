"""A trap that runs for long does not grow; at full length by `scripts/torture`."""

import sys
from pathlib import Path

import soak


def test_thousands_of_pictures_pass_through_and_nothing_grows(tmp_path: Path) -> None:
    report = soak.soak(tmp_path, 3000)
    sys.stdout.write("\n".join([*report.lines(), ""]))  # shown by -rP
    assert report.delivered == report.pruned == 3000
    assert report.quarantined > 3
    report.check()
