"""The hub installed by its own script on a Debian that boots systemd: as `systemd/hub.md` has it, told in order."""

import os
import re
import sys
from collections.abc import Iterator

import pytest
import requests

import container
import drawings
import hub_server
from container import Container

DISTRIBUTION = os.environ.get("TRAPSYNC_SYSTEM", "bookworm")
UNIT = "trapsync-hub.service"
URL = "http://127.0.0.1:8080"
HUB = "/var/lib/trapsync-hub"
PROGRAM = "/opt/trapsync-hub/current/bin/trapsync"
CONFIG = '[hub]\nmin_free = "1 MB"\n'

ALL = pytest.mark.skipif(
    "TRAPSYNC_SYSTEM" not in os.environ, reason="takes longer; scripts/test-system runs it"
)

why_not = container.missing()
pytestmark = [
    pytest.mark.skipif(why_not is not None, reason=f"the installed hub is not tested here: {why_not}"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A machine with a hub, whose settings its owner has written beforehand."""
    with container.booted(DISTRIBUTION, tmp_path_factory.mktemp("hub")) as box:
        (box.root / "etc/trapsync-hub").mkdir()
        (box.root / "etc/trapsync-hub/hub.toml").write_text(CONFIG)
        (box.root / "root/password").write_text(hub_server.PASSWORD)
        (box.root / "root/password").chmod(0o600)
        done = install(box)
        assert "── Done" in done
        for user, role in (("station", "manager"), ("mia", "admin")):
            secret = ("--password-file", "/root/password", "--folder", HUB)
            box.run("trapsync", "hub", "users", "add", user, "--role", role, *secret)
        yield box


def install(box: Container, *options: str, code: int = 0) -> str:
    done = box.run("/src/scripts/install-hub", "--wheels", "/wheels", *options, check=False, seconds=800)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def upload(box: Container, second: int) -> int:
    """Deliver a picture over the loopback of the machine; the status of the answer."""
    name = f"{drawings.DEVICE}.2026-06-21_21-00-{second:02}.jpg"
    with box.network():
        return requests.post(
            f"{URL}/_put_new_images",
            files={name: (name, drawings.trap(seed=second + 1), "application/jpeg")},
            auth=("station", hub_server.PASSWORD),
            timeout=60,
        ).status_code


def held(box: Container) -> list[str]:
    """The moments of the images that the hub has."""
    span = {
        "device": drawings.DEVICE,
        "start_datetime": "2026-01-01_00-00-00",
        "end_datetime": "2027-01-01_00-00-00",
    }
    with box.network():
        rows = requests.post(
            f"{URL}/get_image_series/metadata", json=[span], auth=("station", hub_server.PASSWORD), timeout=60
        ).json()
    return [row["datetime"][-3:-1] for row in rows]


def test_the_hub_runs_as_an_account_of_its_own_without_powers_and_takes_a_picture(box: Container) -> None:
    assert (box.shown("ActiveState", UNIT), box.shown("UnitFileState", UNIT)) == ("active", "enabled")
    status = box.says("cat", f"/proc/{box.shown('MainPID', UNIT)}/status")
    assert re.search(r"CapBnd:\s+0{16}\n", status)
    assert box.says("ps", "-o", "user=", "-p", box.shown("MainPID", UNIT)).startswith("trapsync")
    assert upload(box, 1) == 200
    assert held(box) == ["01"]
    for path in ("hub.toml", "hub.sqlite"):
        folder = "/etc/trapsync-hub" if path == "hub.toml" else HUB
        assert box.run("setpriv", "--reuid", "nobody", "cat", f"{folder}/{path}", check=False).returncode != 0


def test_systemd_finds_little_to_blame(box: Container) -> None:
    said = box.says("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1]
    sys.stdout.write(f"{said}\n")
    assert float(re.findall(r"[0-9]\.[0-9]", said)[0]) <= 1.5
    done = box.run("systemd-analyze", "verify", UNIT)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_hub_is_backed_up_while_it_runs_and_restored(box: Container) -> None:
    box.run("install", "-d", "-o", "trapsync-hub", "-m", "700", "/mnt/hub")
    said = box.run("trapsync", "hub", "backup", "--folder", HUB, "/mnt/hub").stdout
    assert said.startswith("/mnt/hub: 1 images, 1 of them new")
    assert upload(box, 2) == 200
    box.run("systemctl", "stop", UNIT)
    box.run("mv", HUB, f"{HUB}-broken")
    box.run("install", "-d", "-o", "trapsync-hub", "-m", "700", HUB)
    box.run("trapsync", "hub", "backup", "--folder", "/mnt/hub", HUB)
    box.run("systemctl", "start", UNIT)
    assert held(box) == ["01"]
    assert upload(box, 2) == 200  # as a trap does that still has it
    assert held(box) == ["01", "02"]
    assert box.says("find", HUB, "/mnt/hub", "!", "-user", "trapsync-hub") == ""


@ALL
def test_settings_that_are_wrong_keep_no_running_hub_from_running(box: Container) -> None:
    file = box.root / "etc/trapsync-hub/hub.toml"
    file.write_text("[hub]\nprot = 1\n")
    before = box.shown("MainPID", UNIT)
    assert "hub.prot: there is no such setting; did you mean 'port'?" in install(box, code=1)
    assert box.shown("MainPID", UNIT) == before
    assert box.says("readlink", "/opt/trapsync-hub/current") == "1"
    file.write_text(CONFIG)


@ALL
def test_a_version_that_does_not_start_goes_and_the_old_one_comes_back_with_its_database(
    box: Container,
) -> None:
    before = held(box)
    program = box.source / "daemon/trapsync/hub/server.py"
    good = program.read_text()
    program.write_text(good.replace("        server = listen(", "        1 / 0\n        server = listen("))
    assert program.read_text() != good
    assert "not upgraded" in install(box, code=1)
    program.write_text(good)
    assert box.says("readlink", "/opt/trapsync-hub/current") == "1"
    assert held(box) == before
    assert "number 2 takes over from number 1" in install(box).lower()
    assert held(box) == before


def test_removed_its_pictures_stay(box: Container) -> None:
    before = len(held(box))
    assert f"kept: /etc/trapsync-hub, {HUB}" in install(box, "--remove")
    assert len(list((box.root / HUB[1:] / "images").rglob("*.jpg"))) == before
    assert box.shown("LoadState", UNIT) == "not-found"
    assert box.says("find", "/opt", "/usr/local", "-name", "*trapsync*") == ""
