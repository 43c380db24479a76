"""A trap that runs for long does not grow; at full length by `scripts/torture`."""

import subprocess
import sys
from pathlib import Path

import pytest

import long_run

# In a process of its own: what other tests left in this one's memory would be counted.
SOAK = """
import sys
from pathlib import Path
import pytest

import long_run
report = long_run.soak(Path(sys.argv[1]), 3000)
print(*report.lines(), sep="\\n")
assert report.delivered == report.pruned == 3000
assert report.quarantined > 3
report.check()
"""


@pytest.mark.timeout(300)
def test_thousands_of_pictures_pass_through_and_nothing_grows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SOAK, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(long_run.__file__).parent, capture_output=True, text=True, check=False
    )
    sys.stdout.write(done.stdout)  # shown by -rP
    assert done.returncode == 0, done.stderr[-2000:]
