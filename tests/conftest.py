"""What several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trap_bench import Trap

# Many a machine that tests is root, and so would be the daemons of the tests.
os.environ["TRAPSYNC_AS_ROOT"] = "1"


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A trap on the bench, with nothing on its card."""
    one = Trap(tmp_path)
    yield one
    one.catalog.close()
