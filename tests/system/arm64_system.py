"""The program on the userland of a Raspberry Pi, 64 bit, emulated: installed by its own script, it works.

Not part of the test suite, for it takes a quarter of an hour: `scripts/test-system arm64`.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import container
import hub_server
from container import Userland

CONFIG = """\
[trap]
device = "0a5bb6f4"
clock = "trusted"
[storage]
min_free = "1 MB"
[camera]
kind = "simulated"
resolution = [1640, 1232]
warm_up = "0 s"
timeout = "5 min"
[capture]
every = "1 s"
[ingest]
timeout = "10 min"
[destinations.hub]
kind = "stickypi"
url = "{url}"
username = "trap"
password_file = "hub.password"
every = "1 s"
"""

why_not = container.missing() or (
    None
    if shutil.which("qemu-aarch64-static")
    else "there is no qemu-aarch64-static (apt install qemu-user-static)"
)
pytestmark = [
    pytest.mark.skipif(why_not is not None, reason=f"arm64 is not tested here: {why_not}"),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Userland]:
    """The program, installed on an arm64."""
    pi = Userland(tmp_path_factory.mktemp("arm64"), "bookworm", "arm64")
    try:
        began = time.monotonic()
        done = pi.run("/src/scripts/install", "--no-start", "--wheels", "/wheels")
        assert "── Done" in done.stdout, done.stdout + done.stderr
        sys.stdout.write(f"{done.stdout}\ninstalled in {time.monotonic() - began:.0f} s\n")
        yield pi
    finally:
        pi.close()


def test_it_is_another_machine_on_which_the_service_would_start_at_the_next_boot(pi: Userland) -> None:
    assert pi.run("uname", "-m").stdout == "aarch64\n"
    assert (pi.root / "etc/systemd/system/multi-user.target.wants/trapsync.service").is_symlink()


def test_libvips_is_there(pi: Userland) -> None:
    began = time.monotonic()
    done = pi.run(
        "/opt/trapsync/current/bin/python", "-c", "import pyvips; print(pyvips.version(0), pyvips.API_mode)"
    )
    sys.stdout.write(f"libvips {done.stdout.strip()}, imported in {time.monotonic() - began:.1f} s\n")
    assert done.stdout.startswith("8 ")


def test_pictures_are_taken_thumbnailed_and_delivered_byte_for_byte(pi: Userland, tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        config = pi.root / "etc/trapsync"
        (config / "trapsync.toml").write_text(CONFIG.format(url=hub.url))
        (config / "hub.password").write_text(hub_server.PASSWORD)
        for command in ("chgrp -R trapsync /etc/trapsync", "chmod -R g+rX,o= /etc/trapsync"):
            assert pi.run(*command.split()).returncode == 0
        began = time.monotonic()
        daemon = subprocess.Popen([*pi.entered, "/usr/local/bin/trapsync", "run", "--captures", "3"])
        thumbnails = pi.root / "var/lib/trapsync/state/thumbnails"
        try:
            while len(hub.rows()) < 3 or len(list(thumbnails.rglob("*.thumbnail.jpg"))) < 3:
                assert daemon.poll() is None
                assert time.monotonic() - began < 1200
                time.sleep(1)  # another process is to come so far
        finally:
            daemon.terminate()
            daemon.wait(60)
        sys.stdout.write(f"three pictures delivered after {time.monotonic() - began:.0f} s\n")
        sent = {
            path.name: hashlib.md5(path.read_bytes()).hexdigest()
            for path in pi.root.glob("var/lib/trapsync/spool/**/*.jpg")
        }
        assert hub.stored() == sent
        facts = json.loads(pi.run("trapsync", "status", "--json").stdout)
        assert facts["ledger"]["delivered"] == 3
