"""What several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import Trap


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A trap on the bench, with nothing on its card."""
    one = Trap(tmp_path)
    yield one
    one.catalog.close()
