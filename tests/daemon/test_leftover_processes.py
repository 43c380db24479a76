"""A test that fails or takes too long ends its processes, and the suite runs in the background as in a terminal."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import leftover_processes

PLUGIN = """\
import leftover_processes

leftover_processes._CLEARING = 1.0

def pytest_configure(config):
    config.pluginmanager.register(leftover_processes.LeftOver())
"""

# Each starts a process that would live for a minute, and leaves its id in a file.
STARTS = """
import os, signal, subprocess, sys
from pathlib import Path
WAITS = [sys.executable, '-c', 'import time; time.sleep(60)']
"""
TESTS = {
    "takes too long": """
def test_it():
    with subprocess.Popen(WAITS) as process:
        Path('pid').write_text(str(process.pid))
""",
    "takes too long in a session of its own": """
def test_it():
    with subprocess.Popen(WAITS, start_new_session=True) as process:
        Path('pid').write_text(str(process.pid))
""",
    "fails": """
def test_it():
    Path('pid').write_text(str(subprocess.Popen(WAITS, start_new_session=True).pid))
    assert 1 == 2
""",
    "fails, and its process has lost its parent": """
def test_it():
    code = f"import subprocess; print(subprocess.Popen({WAITS!r}, start_new_session=True, stdout=-3).pid)"
    Path('pid').write_bytes(subprocess.run([sys.executable, '-c', code], stdout=-1, check=True).stdout)
    assert 1 == 2
""",
    "takes too long to clear up": """
import pytest

import leftover_processes
@pytest.fixture
def process():
    with subprocess.Popen(WAITS) as one:
        Path('pid').write_text(str(one.pid))
        yield one
def test_it(process):
    process.wait()
""",
}


def suite(folder: Path, text: str, *, ignored: bool = False) -> "subprocess.CompletedProcess[str]":
    """Run a suite of one file, with SIGINT ignored as in a job in the background."""
    (folder / "conftest.py").write_text(PLUGIN)
    (folder / "test_one.py").write_text(STARTS + text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=1"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(leftover_processes.__file__).parent)},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_IGN) if ignored else None,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_fails_or_takes_too_long_leaves_no_process(tmp_path: Path, name: str) -> None:
    done = suite(tmp_path, TESTS[name])
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_what_was_started_for_several_tests_survives_one_that_fails(tmp_path: Path) -> None:
    done = suite(
        tmp_path,
        """
import pytest

import leftover_processes
@pytest.fixture(scope='module')
def shared():
    with subprocess.Popen(WAITS) as process:
        yield process
        process.kill()
def test_one(shared):
    assert 1 == 2
def test_two(shared):
    assert shared.poll() is None
""",
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout


def test_a_child_of_a_suite_in_the_background_can_be_interrupted(tmp_path: Path) -> None:
    text = """
def test_it():
    code = 'import signal; print(signal.getsignal(signal.SIGINT).__name__)'
    assert subprocess.check_output([sys.executable, '-c', code]) == b'default_int_handler\\n'
def test_the_suite_itself_ignores_it_as_before():
    os.kill(os.getpid(), signal.SIGINT)
"""
    done = suite(tmp_path, text, ignored=True)
    assert "2 passed" in done.stdout, done.stdout


def test_no_test_waits_for_ever_for_a_process_that_it_started() -> None:
    """`with subprocess.Popen(...)` does, where the test fails in it: `processes.started` kills what is left."""
    tests = Path(__file__).parents[1]
    allowed = {Path(__file__).name, "processes.py", "leftover_processes.py"}
    found = [
        path.name
        for path in tests.rglob("*.py")
        if "with subprocess.Popen(" in path.read_text(encoding="utf-8")
    ]
    assert set(found) <= allowed
