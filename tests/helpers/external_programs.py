"""Programs that some tests need beyond Python: found, or installed once where that may be done (root, apt)."""

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

_PACKAGES = {
    "mosquitto": "mosquitto",
    "openssl": "openssl",
    "curl": "curl",
    "nft": "nftables",
    "ip": "iproute2",
    "exiftool": "libimage-exiftool-perl",
    "rclone": "rclone",
    "sshd": "openssh-server",
}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@functools.cache
def require(*programs: str, shows: str) -> None:
    """Skip the test if one of them is missing and cannot be installed; `shows` is what is then not shown."""
    missing = _missing(programs)
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        with (Path(tempfile.gettempdir()) / "trapsync-tests.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two workers of pytest-xdist would fight for apt's own
            _install(sorted({_PACKAGES[program] for program in _missing(programs)}))
    missing = _missing(programs)
    if missing:
        pytest.skip(f"NOT SHOWN HERE: {shows}; {', '.join(missing)} is missing: apt install it")


def _missing(programs: Iterable[str]) -> list[str]:
    return [program for program in programs if find(program) is None]


def find(program: str) -> str | None:
    """Where it is; the folders of the system's programs are not in everybody's path."""
    return shutil.which(program, path=_PATH)


def _install(packages: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # start no service
    if not packages:  # another worker has done it
        return
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", *packages],
    ):
        subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
