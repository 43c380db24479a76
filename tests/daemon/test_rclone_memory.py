"""rclone beside the daemon, its camera and an examiner in the memory of a 512 MB Pi: nothing is killed."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import rclone_ends
from daemon_process import Daemon
from processes import children
from s3_store import Store

PICTURES = 12
_LIMIT = 512 * 2**20
_ROOT = Path("/sys/fs/cgroup")
# Files of a cgroup of the kernel's second and first version: its limit, its peak, and where it counts kills.
_FILES = {
    _ROOT: ("memory.max", "memory.peak", "memory.events"),
    _ROOT / "memory": ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
}


@contextmanager
def limited() -> Iterator[tuple[Path, str, str]]:
    """A cgroup with so much memory: its folder, and the files of its peak and of its kills. Skips where it cannot be."""
    for root, (limit, peak, kills) in _FILES.items():
        group = root / f"trapsync-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / peak).stat()
            (group / limit).write_text(str(_LIMIT))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        try:
            yield group, peak, kills
        finally:
            for _ in range(100):
                with suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.1)
        return
    pytest.skip("NOT SHOWN HERE: rclone in 512 MB; a cgroup cannot be made")


@pytest.mark.skipif("TRAPSYNC_EVERY_STORE" not in os.environ, reason="in scripts/torture --stores only")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("binary", [rclone_ends.DEBIANS, rclone_ends.TODAYS], ids=["debian", "today"])
def test_in_512_mb_with_capture_going_on_nothing_is_killed(
    seaweed: Store, tmp_path: Path, binary: str
) -> None:
    rclone_ends.versions()
    end = rclone_ends.s3(seaweed, f"memory-{Path(binary).parent.name}-{os.getpid()}")
    config = tmp_path / "rclone.conf"
    config.write_text(end.section("lab"))
    config.chmod(0o600)
    table = f'[destinations.lab]\nkind = "rclone"\nremote = "lab"\npath = "{end.path}"\nevery = "1 s"\n'
    daemon = Daemon(
        tmp_path / "trap", f'{table}config_file = "{config}"\nbinary = "{binary}"\n', camera="simulated"
    )
    text = (
        daemon.config.read_text()
        .replace("[320, 240]", "[4056, 3040]")
        .replace('every = "1 s"', 'every = "3 s"', 1)
    )
    daemon.config.write_text(text)
    with limited() as (group, peak, kills):
        daemon.start()
        (group / "cgroup.procs").write_text(str(daemon.pid))
        largest = 0
        try:
            deadline = time.monotonic() + 240
            while daemon.status()["destinations"].get("lab", {}).get("delivered", 0) < PICTURES:
                assert time.monotonic() < deadline, daemon.text()[-2000:]
                for pid, command in children(daemon.pid).items():
                    if binary in command:
                        with suppress(OSError, IndexError):
                            status = Path(f"/proc/{pid}/status").read_text()
                            largest = max(largest, int(status.partition("VmHWM:")[2].split()[0]))
                time.sleep(0.02)
            most = int((group / peak).read_text()) / 2**20
            told = dict(line.split() for line in (group / kills).read_text().splitlines())
        finally:
            daemon.stop()
    sys.stdout.write(
        f"{binary}: at most {most:.0f} MB of 512 with files' pages; rclone itself {largest / 1024:.0f} MB\n"
    )
    assert told["oom_kill"] == "0"
    assert "killed" not in daemon.text()
    assert largest
    assert len(end.stored()) >= PICTURES
