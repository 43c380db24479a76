"""The program installed by its own script on a Debian that boots systemd: the life of a service, told in order.

One distribution in the test suite (`TRAPSYNC_SYSTEM`, by default bookworm); `scripts/test-system` takes all of them, and
an emulated arm64.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import container
import hub_server
from container import Container
from fault_server import FaultServer, Forwarding
from trapsync.net.invitation import Code, Terms
from trapsync.remote.document import new_key

DISTRIBUTION = os.environ.get("TRAPSYNC_SYSTEM", "bookworm")
ALL = "TRAPSYNC_SYSTEM" in os.environ  # what takes longer
PORT = 8080
CONFIG = f"""\
[trap]
device = "0a5bb6f4"
clock = "trusted"
[storage]
min_free = "1 MB"
[camera]
kind = "simulated"
resolution = [320, 240]
warm_up = "0 s"
[capture]
every = "2 s"
[ingest]
rescan_every = "5 s"
[destinations.hub]
kind = "stickypi"
url = "http://127.0.0.1:{PORT}"
username = "trap"
password_file = "hub.password"
every = "1 s"
retry_initial = "100 ms"
retry_max = "500 ms"
"""
# A watchdog that waits for two minutes would take this test as long.
QUICK = "[Service]\nWatchdogSec=8\nRestartSec=500ms\n"
STATE = Path("var/lib/trapsync")
SECRETS = ["/etc/trapsync/trapsync.toml", "/etc/trapsync/hub.password"]

why_not = container.missing()
pytestmark = [
    pytest.mark.skipif(why_not is not None, reason=f"the installed service is not tested here: {why_not}"),
    pytest.mark.timeout(900),  # the first time the system itself is made
]


# What lies in the current folder and in PYTHONPATH when root types a command.
HOSTILE = ("click", "json", "pip", "sitecustomize", "setuptools", "tomllib", "trapsync", "venv")
IN_HOSTILE_FOLDER = ["env", "-C", "/hostile", "PYTHONPATH=/hostile"]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A trap, installed; its owner has written his config and his password beforehand, for all to read."""
    with container.booted(DISTRIBUTION, tmp_path_factory.mktemp("system")) as box:
        folder = box.root / "etc" / "trapsync"
        folder.mkdir()
        (folder / "trapsync.toml").write_text(CONFIG)
        (folder / "hub.password").write_text(hub_server.PASSWORD)
        dropin = box.root / "etc/systemd/system/trapsync.service.d/10-quick.conf"
        dropin.parent.mkdir(parents=True)
        dropin.write_text(QUICK)
        hostile = box.root / "hostile"
        hostile.mkdir()
        hostile.chmod(0o777)
        for module in HOSTILE:
            (hostile / f"{module}.py").write_text(f"open('/hostile/ran-{module}', 'w')\n")
        done = install(box)
        sys.stdout.write(done)
        assert "── Done" in done
        yield box


def install(box: Container, *options: str, code: int = 0) -> str:
    """Run the installer; all that it says."""
    command = ["/src/scripts/install", "--wheels", "/wheels"]
    done = box.run(*IN_HOSTILE_FOLDER, *command, *options, check=False, seconds=800)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def status(box: Container) -> dict[str, Any]:
    """What `trapsync status` says to root."""
    facts: dict[str, Any] = json.loads(box.says("trapsync", "status", "--json"))
    return facts


def captured(box: Container) -> int:
    """How many images it has taken."""
    return int(status(box)["ledger"]["captured"])


def processes(box: Container) -> dict[int, str]:
    """The daemon's own processes, main process first, with their command lines."""
    lines = box.says("ps", "-U", "trapsync", "-o", "pid=,args=").splitlines()
    return {int(line.split()[0]): line.split(None, 1)[1] for line in lines}


def main_process(box: Container) -> int:
    """The daemon's process id, as it is inside."""
    return int(box.shown("MainPID"))


@contextmanager
def hub(box: Container) -> Iterator[hub_server.RunningHub]:
    """The hub of the trap's owner, reachable from inside."""
    folder = box.root.parent / "hub"
    with box.network(), hub_server.running(folder, port=PORT) as running:
        yield running


def takes_pictures(box: Container) -> None:
    """It runs, and there are new pictures from now on."""
    box.until(lambda: box.shown("ActiveState") == "active")
    before = captured(box)
    box.until(
        lambda: captured(box) > before, seconds=240
    )  # the service is nicer than whatever else runs here


# ── Installed ────────────────────────────────────────────────────────────────────────────────────────


def test_the_service_is_ready_and_brings_its_pictures_to_the_hub(box: Container) -> None:
    assert (box.shown("ActiveState"), box.shown("SubState")) == ("active", "running")
    assert box.shown("UnitFileState") == "enabled"
    with hub(box) as there:
        box.until(lambda: status(box)["ledger"]["delivered"] >= 3)
        assert len(there.stored()) >= 3
    assert not re.search("password|Traceback", box.says("journalctl", "-q", "-u", "trapsync", "-o", "cat"))


def test_installed_once_more_nothing_changes(box: Container) -> None:
    process = main_process(box)
    said = install(box)
    assert "is this very one" in said
    assert [
        line for line in said.splitlines() if re.search(r"\$ (install -D|ln|chown|chmod|useradd|rm)", line)
    ] == []
    assert main_process(box) == process
    assert (box.root / "etc/trapsync/trapsync.toml").read_text() == CONFIG


def test_systemd_finds_little_to_blame(box: Container) -> None:
    units = {"trapsync": 1.5, "trapsync-reboot": 1.5, "trapsync-stick@sda1": 2.0, "trapsync-join": 2.5}
    for unit, most in units.items():
        said = box.says("systemd-analyze", "security", "--no-pager", f"{unit}.service").splitlines()[-1]
        sys.stdout.write(f"{said}\n")
        assert float(re.findall(r"[0-9]\.[0-9]", said)[0]) <= most


def test_systemd_has_nothing_to_say_against_the_units_as_they_are_installed(box: Container) -> None:
    units = [
        "trapsync.service",
        "trapsync-reboot.path",
        "trapsync-reboot.service",
        "trapsync-stick@sda1.service",
        "trapsync-join.service",
    ]
    done = box.run("systemd-analyze", "verify", *units)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_daemon_is_not_root_and_has_no_powers(box: Container) -> None:
    status = box.says("cat", f"/proc/{main_process(box)}/status")
    assert box.says("ps", "-o", "user=", "-p", str(main_process(box))) == "trapsync"
    assert re.search(r"CapBnd:\s+0{16}\n", status)
    assert re.search(r"NoNewPrivs:\s+1\n", status)


def test_its_examiners_give_up_their_rights_by_what_the_unit_lets_them_call(box: Container) -> None:
    takes_pictures(box)
    box.until(lambda: "examiners: " in box.says("journalctl", "-q", "-o", "cat", "-u", "trapsync"))
    told = re.findall("examiners: (.*)", box.says("journalctl", "-q", "-o", "cat", "-u", "trapsync"))
    kernel = box.says("trapsync", "doctor", "--json")
    if "no network, and no files but their own" in kernel:
        assert set(told) == {"they have the rights that they need, and no others"}


def test_another_user_reads_no_secret_no_settings_no_catalog_and_no_picture(box: Container) -> None:
    files = [f"/{path.relative_to(box.root)}" for path in (box.root / STATE).rglob("*") if path.is_file()]
    some = [*SECRETS, *[path for path in files if "catalog" in path], *files[:20]]
    assert len(some) > 10
    for path in some:
        done = box.run("runuser", "-u", "nobody", "--", "cat", path, check=False)
        assert (done.returncode, done.stdout) == (1, ""), path
    for folder in ("/etc/trapsync", "/var/lib/trapsync", "/run/trapsync"):
        assert box.run("runuser", "-u", "nobody", "--", "ls", folder, check=False).returncode != 0


def test_nothing_listens_on_the_network(box: Container) -> None:
    assert box.says("ss", "-lntuH") == ""


def test_no_module_of_the_current_folder_or_of_a_variable_is_loaded(box: Container) -> None:
    for command in ("--version", "settings check", "status", "doctor"):
        box.run(*IN_HOSTILE_FOLDER, "trapsync", *command.split(), check=False)
    assert list((box.root / "hostile").glob("ran-*")) == []
    assert "/bin/python -I " in processes(box)[main_process(box)]


def test_the_doctor_and_status_tell_root_how_it_is(box: Container) -> None:
    sys.stdout.write(box.says("trapsync", "doctor"))
    done = box.run("trapsync", "doctor", "--json", check=False)
    assert done.returncode in {0, 1, 2}
    findings = json.loads(done.stdout)
    assert {"verdict": "ok", "subject": "daemon"}.items() <= {f["subject"]: f for f in findings}[
        "daemon"
    ].items()
    mine = box.says("find", "/var/lib/trapsync", "!", "-user", "trapsync")
    assert mine == ""


# ── What befalls it ──────────────────────────────────────────────────────────────────────────────────


def test_killed_the_daemon_is_started_again(box: Container) -> None:
    old = main_process(box)
    box.run("kill", "-KILL", str(old))
    box.until(lambda: main_process(box) not in {0, old})
    takes_pictures(box)


def test_a_child_that_is_killed_is_replaced_and_the_daemon_lives_on(box: Container) -> None:
    takes_pictures(box)
    main = main_process(box)
    children = [pid for pid, command in processes(box).items() if pid != main]
    assert len(children) >= 2  # the camera, an examiner
    for child in children:
        box.run("kill", "-KILL", str(child), check=False)  # the helper of them all may end with them
        takes_pictures(box)
    assert main_process(box) == main


def test_frozen_it_is_killed_and_started_again_by_the_watchdog(box: Container) -> None:
    old = main_process(box)
    box.run("kill", "-STOP", str(old))
    box.until(lambda: main_process(box) not in {0, old})
    assert "watchdog timeout" in box.says("journalctl", "-q", "-o", "cat", "-u", "trapsync").lower()
    takes_pictures(box)


def test_told_to_end_it_ends_in_time_with_an_upload_in_flight(box: Container) -> None:
    with hub(box) as there:
        real = there.url
    with box.network(), hub_server.running(box.root.parent / "hub") as there:
        assert there.url != real
        with FaultServer(Forwarding(there.url), PORT) as front:
            front.plan("/_put_new_images", "stall")
            box.until(lambda: not front.left("/_put_new_images"))
            began = time.monotonic()
            box.run("systemctl", "stop", "trapsync")
            assert time.monotonic() - began < 12
            front.assert_injected()
    assert box.shown("Result") == "success"
    assert processes(box) == {}
    assert status(box)["ledger"]["pending"] > 0
    box.run("systemctl", "start", "trapsync")
    takes_pictures(box)


def test_what_root_did_before_the_first_start_does_not_keep_it_from_starting(box: Container) -> None:
    box.run("systemctl", "stop", "trapsync")
    box.run("mv", "/var/lib/trapsync", "/var/lib/trapsync.away")
    box.run("trapsync", "retry", check=False)
    box.run("systemctl", "start", "trapsync")
    takes_pictures(box)
    box.run("systemctl", "stop", "trapsync")
    box.run("rm", "-rf", "/var/lib/trapsync")
    box.run("mv", "/var/lib/trapsync.away", "/var/lib/trapsync")
    box.run("systemctl", "start", "trapsync")


def test_a_stick_can_be_written_whether_it_is_mounted_before_the_start_or_after(box: Container) -> None:
    box.run("mkdir", "-p", "/media/early", "/media/late")
    box.run("mount", "-t", "tmpfs", "tmpfs", "/media/early")
    box.run("systemctl", "restart", "trapsync")
    box.run("mount", "-t", "tmpfs", "tmpfs", "/media/late")
    inside = ["nsenter", "-t", str(main_process(box)), "-m", "--"]
    for stick in ("early", "late"):
        box.run(*inside, "touch", f"/media/{stick}/.written")
        assert (box.run("ls", "-A", f"/media/{stick}").stdout) == ".written\n"
    assert box.run(*inside, "touch", "/opt/trapsync/.written", check=False).returncode != 0
    box.run("umount", "/media/early", "/media/late")


class Stick:
    """A stick with ext4, whose device is there for the container's systemd as udev would have it, until it is pulled."""

    def __init__(self, box: Container, image: Path) -> None:
        with image.open("wb") as file:
            file.truncate(32 * 10**6)
        subprocess.run(["mkfs.ext4", "-q", "-L", "TRAPSYNC", image], check=True)
        found = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
        self.device = found.stdout.strip()
        self.unit = f"trapsync-stick@{Path(self.device).name}.service"
        self._box = box
        number = Path(self.device).stat().st_rdev
        block = (os.major(number), os.minor(number))
        self._known = [
            f"/run/udev/data/b{block[0]}:{block[1]}",
            f"/run/udev/tags/systemd/b{block[0]}:{block[1]}",
        ]
        box.run("mknod", self.device, "b", *map(str, block))
        box.run("mkdir", "-p", "/run/udev/data", "/run/udev/tags/systemd")
        box.run("mount", "-o", "remount,bind,rw", "/sys")  # else systemd knows of no devices in a container
        self.put_in()
        box.run("systemctl", "daemon-reexec")

    def put_in(self) -> None:
        """As udev tells it to systemd."""
        for path, text in zip(self._known, ("I:1\\nG:systemd\\nQ:systemd\\nV:1\\n", ""), strict=True):
            self._box.run("sh", "-c", f"printf '{text}' >{path}")
        self._box.run("systemctl", "daemon-reload")

    def pull(self) -> None:
        """The same: it is gone."""
        self._box.run("rm", "-f", *self._known)
        self._box.run("systemctl", "daemon-reload")

    def clear(self) -> None:
        """No stick any more, and a container as before."""
        self.pull()
        self._box.run("mount", "-o", "remount,bind,ro", "/sys")
        self._box.run("systemctl", "daemon-reexec")
        self._box.run("rm", self.device)
        subprocess.run(["losetup", "-d", self.device], check=True)


@pytest.fixture
def stick(box: Container, tmp_path: Path) -> Iterator[Stick]:
    stick = Stick(box, tmp_path / "stick.img")
    yield stick
    stick.clear()


def test_a_stick_is_mounted_written_and_unmounted_by_its_unit_within_its_limits(
    box: Container, stick: Stick, tmp_path: Path
) -> None:
    config, is_mounted = box.root / "etc/trapsync/trapsync.toml", ["findmnt", "/media/trapsync-stick"]
    more = '[destinations.stick]\nkind = "directory"\npath = "/media/trapsync-stick"\nhotplug = true\nevery = "1 day"\n'
    wanted = CONFIG.replace('"2 s"', '"1 h"') + more
    config.write_text(f'{wanted}bandwidth = "1 kB"\n')
    box.run("systemctl", "restart", "trapsync")
    box.run("systemctl", "start", "--no-block", stick.unit)
    box.until(lambda: box.says("cat", "/run/trapsync-stick/word") == "writing")
    box.run("systemd-run", "--working-directory=/media/trapsync-stick", "sleep", "1d")
    stick.pull()
    box.until(lambda: box.run(*is_mounted, check=False).returncode != 0)
    box.until(lambda: box.run("cat", "/run/trapsync-stick/word", check=False).returncode != 0)
    config.write_text(wanted)
    box.run("systemctl", "restart", "trapsync")
    stick.put_in()
    box.run("systemctl", "start", stick.unit)
    log = box.says("journalctl", "-q", "-o", "cat", "-u", stick.unit)
    assert "stick: all is on it" in log, log
    assert box.says("cat", "/run/trapsync-stick/word") == "done"
    assert box.run(*is_mounted, check=False).returncode != 0
    place = tmp_path / "elsewhere"
    place.mkdir()
    subprocess.run(["mount", "-o", "ro", stick.device, place], check=True)
    try:
        assert len(list(place.rglob("*.jpg"))) == captured(box)
    finally:
        subprocess.run(["umount", place], check=True)
    config.write_text(CONFIG)
    box.run("systemctl", "reload", "trapsync")


def test_rclone_runs_within_the_limits_of_the_service(box: Container, tmp_path: Path) -> None:
    rclone = shutil.which("rclone", path=sysconfig.get_path("scripts"))
    assert rclone
    shutil.copy2(rclone, box.root / "usr/local/bin/rclone")
    there, file = tmp_path / "there", box.root / STATE / "rclone/rclone.conf"
    there.mkdir()
    box.run("install", "-d", "-o", "trapsync", "-m", "700", f"/{STATE}/rclone")
    file.write_text(f"[lab]\ntype = webdav\nurl = http://127.0.0.1:{PORT + 1}\nvendor = other\n")
    box.run("chown", "trapsync:", f"/{STATE}/rclone/rclone.conf")
    box.run("chmod", "600", f"/{STATE}/rclone/rclone.conf")
    table = (
        f'[destinations.lab]\nkind = "rclone"\nremote = "lab"\nconfig_file = "/{STATE}/rclone/rclone.conf"\n'
    )
    config = box.root / "etc/trapsync/trapsync.toml"
    config.write_text(f'{CONFIG}{table}required = false\nevery = "1 s"\n')
    with box.network():
        command = [rclone, "serve", "webdav", str(there), "--addr", f"127.0.0.1:{PORT + 1}"]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        box.run("systemctl", "reload", "trapsync")
        box.until(lambda: len(list(there.rglob("*.jpg"))) >= 3)
        box.until(lambda: status(box)["destinations"]["lab"]["delivered"] >= 3)
    finally:
        server.kill()
        server.wait()
        config.write_text(CONFIG)
        box.run("systemctl", "reload", "trapsync")
    assert not box.says("journalctl", "-q", "-k", "-o", "cat", "--grep", "killed process|seccomp")


def test_a_mistake_in_the_config_is_told_by_reload_status_and_hub_and_costs_no_picture(
    box: Container,
) -> None:
    takes_pictures(box)
    config, old = box.root / "etc/trapsync/trapsync.toml", main_process(box)
    with hub(box) as there:
        account = 'username = "trap"\npassword_file = "hub.password"\n'
        report = f'[hub]\nurl = "http://127.0.0.1:{PORT}"\nevery = "1 s"\n{account}'
        config.write_text(CONFIG + report)
        box.run("systemctl", "reload", "trapsync")
        box.until(lambda: status(box)["hub"].get("web", {}).get("reached"))
        config.write_text(f"{CONFIG}{report}[camra]\n")
        said = "camra: there is no such setting; did you mean 'camera'?"
        assert box.run("systemctl", "reload", "trapsync", check=False).returncode != 0
        assert said in box.run("systemctl", "status", "--no-pager", "-l", "trapsync", check=False).stdout
        assert main_process(box) == old
        now = box.run("trapsync", "status", check=False)
        assert (now.returncode, now.stdout.startswith("failing")) == (2, True)
        assert said in now.stdout.splitlines()[1]
        box.run("systemctl", "restart", "trapsync")  # as after a power cut
        takes_pictures(box)
        assert f"{said}; running on the one of" in status(box)["config"]
        box.until(
            lambda: any(
                said in str(one["heartbeat"]["reasons"]) for one in there.hub.fleet.snapshot()["traps"]
            )
        )
        config.write_text(CONFIG)
        box.run("systemctl", "reload", "trapsync")
        box.until(lambda: status(box)["config"] is None)
    takes_pictures(box)


def test_a_prepared_card_joins_the_hub_as_soon_as_it_can_and_loses_its_file(box: Container) -> None:
    config, code = box.root / "etc/trapsync/trapsync.toml", box.root / "boot/firmware/trapsync-join.txt"
    config.write_text(f'{CONFIG}[hub]\nevery = "1 s"\n')
    terms = Terms((str(new_key().public),), ("valley",))
    invited = Code.new(f"http://127.0.0.1:{PORT}", terms)
    code.parent.mkdir(parents=True, exist_ok=True)
    code.write_text(f"{invited}\r\nname = valley-3\r\n")
    quick = "/run/systemd/system/trapsync-join.service.d"
    box.run("sh", "-c", f"mkdir -p {quick} && printf '[Service]\\nRestartSec=500ms\\n' >{quick}/quick.conf")
    box.run("systemctl", "daemon-reload")
    assert box.says("systemctl", "is-enabled", "trapsync-join") == "enabled"
    # As at a start: nothing waits for it, and it waits for nothing.
    box.run("systemctl", "start", "trapsync-join")
    box.until(lambda: "connection refused" in str(status(box)["joining"]))
    assert str(status(box)["joining"]).startswith("not joined yet: ")
    assert config.read_text().endswith('[hub]\nevery = "1 s"\n')
    old = main_process(box)
    with hub(box) as there:
        asked = {"keys": terms.keys, "groups": terms.groups, "until": time.time() + 600}
        asked["secret_hash"] = invited.secret_hash
        there.hub.enrolment.invite(json.dumps(asked).encode(), "owner")
        box.until(lambda: not code.exists())
        box.until(lambda: [one["name"] for one in there.hub.enrolment.traps()] == ["valley-3"])
        box.until(
            lambda: any(one["heartbeat"]["name"] == "valley-3" for one in there.hub.fleet.snapshot()["traps"])
        )
        box.until(lambda: status(box)["destinations"]["hub"]["delivered"] > 0)
    assert status(box)["joining"] is None
    assert main_process(box) == old
    secrets = box.says("sh", "-c", "stat -c '%U %G %a' /etc/trapsync/hub-*.token")
    assert secrets == "root trapsync 640"
    box.until(lambda: box.run("systemctl", "is-active", "trapsync-join", check=False).stdout == "inactive\n")
    box.run("rm", "-r", quick)
    config.write_text(CONFIG)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "reload", "trapsync")
    takes_pictures(box)


def test_asked_for_a_reboot_the_guard_grants_one_and_says_why_and_the_trap_goes_on(box: Container) -> None:
    before = captured(box)
    ask = "echo 'the camera hangs' > /run/trapsync/reboot-wanted"
    with box.rebooting():
        box.run("runuser", "-u", "trapsync", "--", "sh", "-c", ask)
    takes_pictures(box)
    assert captured(box) > before
    assert box.shown("NRestarts") == "0"
    # And not a second time.
    process = box.pid
    box.run("runuser", "-u", "trapsync", "--", "sh", "-c", ask)
    log = ["journalctl", "-q", "-o", "cat", "-u", "trapsync-reboot.service"]
    box.until(lambda: "no reboot: the last one was less than six hours ago" in box.says(*log))
    assert "asked for: the camera hangs" in box.says(*log)
    assert box.pid == process
    assert not (box.root / "run/trapsync/reboot-wanted").exists()


# ── Another version ──────────────────────────────────────────────────────────────────────────────────


def number(box: Container) -> int:
    """Which of the versions is the present one."""
    return int(box.says("readlink", "/opt/trapsync/current"))


def change(box: Container, module: str, old: str, new: str) -> None:
    """Make a new version of the program's source."""
    path = box.source / "daemon" / "trapsync" / module
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_new_version_takes_over_and_the_catalog_stays(box: Container) -> None:
    before, old = captured(box), number(box)
    change(box, "__init__.py", '__version__ = "', '__version__ = "9.9.')
    config = box.source / "config" / "trapsync.toml"
    config.write_text(config.read_text().replace("quality = 90", "quality = 90\nnew_here = 1"))
    said = install(box, "--upgrade", "--trial", "3")
    assert f"It did well: number {number(box)} stays" in said
    assert re.search(r"these are new, and have their defaults:\s+\[camera\] new_here\n", said)
    assert (box.root / "etc/trapsync/trapsync.toml").read_text() == CONFIG
    assert number(box) > old
    assert box.says("trapsync", "--version").startswith("trapsync 9.9.")
    assert status(box)["version"].startswith("9.9.")
    takes_pictures(box)
    assert captured(box) > before
    assert f"/opt/trapsync/{number(box)}/bin/" in processes(box)[main_process(box)]
    assert box.says("ls", "/opt/trapsync").split() == [str(old), str(number(box)), "current"]
    assert not (box.root / "run/systemd/system.control/trapsync.service").exists()


BROKEN: dict[str, tuple[str, str, str, str]] = {
    "it ends soon after it was ready": (
        "runtime/service.py",
        '        systemd.notify("READY=1")\n',
        """\
        systemd.notify("READY=1")
        threading.Timer(1.5, os._exit, (3,)).start()
        self._catalog.connection._db.execute("CREATE TABLE of_the_future (one)")
""",
        "it (ended|had to be started again) after",
    ),
}


if ALL:
    BROKEN |= {
        "it does not start at all": (
            "cli/__init__.py",
            "import ",
            "import no_such\nimport ",
            "does not start at all",
        ),
        "its doctor objects": (
            "doctor/__init__.py",
            'return Finding("ok", "schedule", ',
            'return Finding("failing", "schedule", ',
            "its doctor objects: schedule: day and night",
        ),
    }


@pytest.fixture
def broken(box: Container, request: pytest.FixtureRequest) -> Iterator[str]:
    """The source of a new version that is no good; how the installer says so."""
    module, old, new, says = BROKEN[request.param]
    good = box.source / "daemon" / "trapsync" / module
    kept = good.read_text()
    change(box, module, old, new)
    yield says
    good.write_text(kept)


@pytest.mark.parametrize("broken", BROKEN, indirect=True)
def test_a_new_version_that_is_no_good_goes_and_the_old_one_comes_back(box: Container, broken: str) -> None:
    before, old = captured(box), number(box)
    said = install(box, "--trial", "5", code=1)
    assert re.search(f"Number {old + 1} is no good: .*{broken}", said)
    assert "nothing was lost" in said
    assert number(box) == old
    takes_pictures(box)
    assert captured(box) > before
    assert status(box)["ledger"]["dropped"] == 0
    assert "catalog.damaged-1" not in box.says("ls", "/var/lib/trapsync/state")
    with closing(sqlite3.connect(box.root / STATE / "state" / "catalog.sqlite")) as catalog:
        assert not catalog.execute("SELECT * FROM sqlite_master WHERE name = 'of_the_future'").fetchall()
    assert f"/opt/trapsync/{old}/bin/" in processes(box)[main_process(box)]
    assert str(old + 1) not in box.says("ls", "/opt/trapsync").split()


# ── Gone ─────────────────────────────────────────────────────────────────────────────────────────────


def images(box: Container) -> int:
    """How many lie on the card."""
    return len(list((box.root / STATE / "spool").rglob("*.jpg")))


def test_uninstalled_the_images_stay_until_one_says_twice_that_they_shall_go(box: Container) -> None:
    box.run("systemctl", "stop", "trapsync")
    before = images(box)
    assert before > 10
    assert "Kept: /var/lib/trapsync" in box.run("/src/scripts/uninstall").stdout
    assert images(box) == before
    assert box.shown("LoadState") == "not-found"
    assert not shutil.which("trapsync", path=str(box.root / "usr/local/bin"))
    box.run("/src/scripts/uninstall", "--purge")
    assert images(box) == before
    assert not (box.root / "etc/trapsync").exists()
    assert box.run("/src/scripts/uninstall", "--yes-delete-images", check=False).returncode == 1
    assert images(box) == before
    box.run("/src/scripts/uninstall", "--purge", "--yes-delete-images")
    assert not (box.root / STATE).exists()
    assert box.run("id", "trapsync", check=False).returncode != 0
    left = box.says("find", "/etc", "/opt", "/usr/local", "/var/lib", "-name", "*trapsync*")
    assert left == ""
