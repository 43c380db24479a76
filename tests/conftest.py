"""What several test files share."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import s3_store
from conformance import Card
from leftover_processes import LeftOver
from s3_store import Store
from trap_bench import Trap

# What is there to be copied has tests of its own, which `test_kinds.py` runs in such a copy.
collect_ignore = ["destination_template"]

# Many a machine that tests is root, and so would be the daemons of the tests.
os.environ["TRAPSYNC_AS_ROOT"] = "1"

# A trap's time zone is the machine's by default; what the tests expect is in this one.
os.environ["TZ"] = "UTC"

# Some machines keep Python from writing bytecode: each of a thousand daemons would compile the whole program anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long one generated case takes says more of the machine than of the program; each test has its own limit.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """A test that fails ends its processes."""
    config.pluginmanager.register(LeftOver())


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A trap on the bench, with nothing on its card."""
    one = Trap(tmp_path)
    yield one
    one.catalog.close()


@pytest.fixture
def folder_in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where a flush takes no time, if there is room for it: what is only killed does not need them."""
    memory = Path("/dev/shm")
    if not (os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**29):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="trapsync-", dir=memory) as name:
        yield Path(name)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """A spool without images."""
    return Card(tmp_path / "spool")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A SeaweedFS that serves all tests; each has a folder of its own in it."""
    with s3_store.seaweed(tmp_path_factory.mktemp("seaweed")) as store:
        yield store


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An `rclone serve s3` for all of them."""
    with s3_store.rclone(tmp_path_factory.mktemp("rclone") / "served") as store:
        yield store


# A container or a network namespace keeps every filesystem that is mounted when it begins; a card whose power is
# cut meanwhile would come back as it was at the cut. So these take turns. (xdist's own groups do nothing with
# pytest 9: they go by a suffix of the test's name, which is lost.)
ONE_AFTER_ANOTHER = (
    *("test_system.py", "test_hub_system.py", "test_power_cut.py", "test_one_way.py", "test_stick.py"),
    "test_bench.py::test_every_measurement_gives_its_rows[deliver]",
    "test_bench.py::test_a_backlog_goes_to_a_bucket",
    "test_documents.py::test_every_command_of_a_document",
)
_TURNS = "one after another"

# The files whose tests take longest come first, so that nobody waits for one of them at the end.
LONGEST = (
    *("test_kills.py", "test_hostile_world.py", "test_single_run.py", "test_watchdog.py", "test_long_run.py"),
    *(
        "test_lost_catalog.py",
        "test_failpoints.py",
        "test_model.py",
        "test_trial.py",
        "test_remote_settings_kills.py",
        "test_bench.py",
    ),
    *("test_full_card.py", "test_together.py", "test_clock.py", "test_daemon.py", "test_burst.py"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest first where several workers share the tests."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give those that take turns to one worker, and every other test to whoever is free."""
    from xdist.scheduler import LoadScopeScheduling

    class TakingTurns(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
        # The scope with the most tests is begun first: that of those that take turns, all others have one.
        def _split_scope(self, nodeid: str) -> str:
            return _TURNS if nodeid.rpartition("/")[2].startswith(ONE_AFTER_ANOTHER) else nodeid

    return TakingTurns(config, log)
