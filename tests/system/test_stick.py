"""A stick that is put in and pulled out: a real filesystem on a loop device, systemd/stick-keeper and the real daemon.

FAT32 where this kernel has it, exFAT by the kernel or by FUSE, ext4 everywhere; needs root.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import daemon_process
import drawings

KEEPER = Path(__file__).parents[2] / "systemd" / "stick-keeper"
CONFIG = """
[destinations.stick]
kind = "directory"
path = "{folder}"
hotplug = true
every = "1 day"
transfers = 1
"""
MADE_BY = {
    "vfat": ("mkfs.vfat", "-F", "32", "-n", "TRAPSYNC"),
    "exfat": ("mkfs.exfat", "-L", "TRAPSYNC"),
    "ext4": ("mkfs.ext4", "-q", "-L", "TRAPSYNC"),
}
# No systemd runs here: its programs do what it would do. The real ones: test_system.py.
SYSTEMD = {
    "systemd-mount": """#!/bin/sh
for word; do
  case $word in
    --type=*) type=${word#*=} ;;
    --options=*) options=${word#*=} ;;
    -*) ;;
    /dev/*) device=$word ;;
    *) folder=$word ;;
  esac
done
mkdir -p "$folder"
exec mount -t "$type" -o "$options" "$device" "$folder"
""",
    "systemd-umount": '#!/bin/sh\nexec umount -l "$2"\n',
    "systemd-run": '#!/bin/sh\nwhile :; do case $1 in -*) shift ;; *) exec "$@" ;; esac; done\n',
}
# Where the kernel has no exFAT, the helper for FUSE stands in for it.
MOUNT = """#!/bin/sh
case "$*" in *"$UNKNOWN_OPTION"*) [ -z "$UNKNOWN_OPTION" ] || exit 32 ;; esac
[ -z "$MOUNTS" ] || echo "$@" >>"$MOUNTS"
[ "$2" != exfat ] || grep -qw exfat /proc/filesystems || { shift 2; set -- -t exfat-fuse "$@"; }
exec /bin/mount "$@"
"""


def why_not(kind: str) -> str | None:
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which(MADE_BY[kind][0]) is None:
        return f"there is no {MADE_BY[kind][0]}"
    is_fuse = kind == "exfat" and shutil.which("mount.exfat-fuse") is not None
    if kind not in Path("/proc/filesystems").read_text().split() and not is_fuse:
        return f"this kernel has no {kind}"
    return None


class Stick:
    """A stick of 64 MB, in a slot that may be empty, and the unit that systemd would start for it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder / "media"
        self.word = folder / "run" / "word"
        self._image = folder / "stick.img"
        self._kind = kind
        self._device = ""
        self.said = folder / "keeper.log"
        (folder / "run").mkdir()
        (folder / "bin").mkdir()
        for name, text in (*SYSTEMD.items(), ("mount", MOUNT), ("trapsync", self._command(folder))):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.environment = os.environ | {
            "FOLDER": str(self.folder),
            "RUNTIME_DIRECTORY": str(folder / "run"),
            "TRAPSYNC": str(folder / "bin" / "trapsync"),
            "ACCOUNT": "root",
            "MORE": "--patience 3s",
            "MOUNTS": str(folder / "mounts"),
            "UNKNOWN_OPTION": "",
            "PATH": f"{folder / 'bin'}:/usr/sbin:/sbin:{os.environ['PATH']}",
        }
        with self._image.open("wb") as file:
            file.truncate(64 * 10**6)
        subprocess.run([*MADE_BY[kind], str(self._image)], check=True, capture_output=True)

    def _command(self, folder: Path) -> str:
        return f'#!/bin/sh\nexec {sys.executable} -m trapsync -c {folder / "trap" / "trapsync.toml"} "$@" $MORE\n'

    def put_in(self) -> "subprocess.Popen[bytes]":
        """Plug it in: udev starts the unit."""
        self._device = self._loop_device()
        with self.said.open("ab") as said:
            return subprocess.Popen(self._keeper("take"), stdout=said, stderr=said, env=self.environment)

    def taken(self) -> None:
        """Put it in, and wait until it is said to be safe to pull."""
        code = self.put_in().wait(120)
        assert code == 0, self.said.read_text()

    def pull(self, keeper: "subprocess.Popen[bytes] | None" = None) -> None:
        """Pull it out, in the middle of whatever is going on: the unit is stopped."""
        if keeper:
            keeper.kill()
            keeper.wait()
        for process in self._drivers():
            os.kill(process, signal.SIGKILL)
        subprocess.run(self._keeper("leave"), check=True, env=self.environment)
        subprocess.run(["losetup", "-d", self._device], check=True)
        self._device = ""

    def _drivers(self) -> list[int]:
        """The processes that are this stick's filesystem, where that is FUSE's: they end with it."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if {b"exfat-fuse" in word or word for word in path.read_bytes().split(b"\0")}
            >= {True, self._device.encode()}
        ]

    def _keeper(self, what: str) -> list[str]:
        return [str(KEEPER), what, self._device.removeprefix("/dev/")]

    @contextmanager
    def read_elsewhere(self) -> Iterator[Path]:
        """Look at it on another machine."""
        place = self._image.with_name("elsewhere")
        place.mkdir(exist_ok=True)
        mount = self.environment["PATH"].split(":")[0] + "/mount"
        # Not by `-o loop`, which takes a device that has this image already: the one that was pulled while the daemon
        # wrote may be held for a moment yet, with the filesystem whose driver is dead.
        device = self._loop_device()
        subprocess.run([mount, "-t", self._kind, device, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
            subprocess.run(["losetup", "-d", device], check=True)

    def _loop_device(self) -> str:
        """A device of its own with what the stick holds."""
        command = ["losetup", "-f", "--show", str(self._image)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def images(self) -> dict[str, bytes]:
        """What it holds, and that its sums are right; half-written files must not look like images."""
        with self.read_elsewhere() as place:
            for sums in place.rglob("SHA256SUMS"):
                subprocess.run(["sha256sum", "--quiet", "-c", sums.name], cwd=sums.parent, check=True)
            return {path.name: path.read_bytes() for path in place.rglob("*.jpg")}

    def clear(self) -> None:
        """Whatever a failed test left."""
        if self._device:
            with suppress(subprocess.CalledProcessError):
                self.pull()
        subprocess.run(["umount", "-l", self.folder], check=False, capture_output=True)


@pytest.fixture(params=list(MADE_BY))
def stick(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stick]:
    if reason := why_not(request.param):
        pytest.skip(reason)
    stick = Stick(tmp_path, request.param)
    yield stick
    stick.clear()


def put(trap: daemon_process.Daemon, count: int, first: int = 0) -> dict[str, bytes]:
    """Let so many images come to the spool, and wait until they are known."""
    images = {}
    for number in range(first, first + count):
        name = f"{drawings.DEVICE}.2026-06-21_{number // 60 % 24:02}-{number % 60:02}-00.jpg"
        images[name] = drawings.plain(seed=number)
        drawings.put(trap.spool, images[name], f"{drawings.DEVICE}/2026-06-21/{name}")
    trap.until(lambda facts: facts["ledger"]["captured"] >= first + count)
    return images


def config(stick: Stick, **more: str) -> str:
    return CONFIG.format(folder=stick.folder) + "".join(f'{key} = "{value}"\n' for key, value in more.items())


def test_what_was_pending_is_on_the_stick_when_it_is_said_to_be_safe_to_pull(
    stick: Stick, tmp_path: Path
) -> None:
    with daemon_process.running(tmp_path / "trap", config(stick)) as trap:
        images = put(trap, 5)
        facts = trap.status()
        assert facts["ledger"]["pending"] == 5
        assert not any("unreachable" in reason for reason in facts["reasons"])
        stick.taken()
        assert stick.word.read_text() == "done\n"
        assert not stick.folder.exists(), "it is still mounted"
        stick.pull()
        assert not stick.word.exists()
        assert stick.images() == images
        assert trap.status()["ledger"] | {"delivered": 5, "pending": 0} == trap.status()["ledger"]


def test_pulled_in_the_middle_of_a_copy_nothing_is_lost_and_nothing_is_there_twice(
    stick: Stick, tmp_path: Path
) -> None:
    size = len(drawings.plain())
    with daemon_process.running(tmp_path / "trap", config(stick, bandwidth=f"{size * 4} B")) as trap:
        images = put(trap, 12)
        keeper = stick.put_in()
        while len(list(stick.folder.rglob("*.jpg"))) < 2:
            assert keeper.poll() is None, stick.said.read_text()
            time.sleep(0.01)
        assert stick.word.read_text() == "writing\n"
        stick.pull(keeper)
        facts = trap.until(lambda facts: facts["ledger"]["delivered"] >= 1)
        assert facts["ledger"]["delivered"] < 12, "it was not pulled in the middle"
        assert facts["ledger"]["delivered"] + facts["ledger"]["pending"] == 12
        assert not list(stick.folder.parent.glob("media/*")), "something was written on the card instead"
        stick.taken()
        stick.pull()
        assert stick.images() == images
        ledger = trap.status()["ledger"]
        assert (ledger["delivered"], ledger["pending"]) == (12, 0)


@pytest.mark.parametrize("stick", ["ext4"], indirect=True)
def test_a_stick_that_is_full_is_said_to_be_so_and_unmounted_all_the_same(
    stick: Stick, tmp_path: Path
) -> None:
    with stick.read_elsewhere() as place, (place / "filling").open("wb", buffering=0) as file:
        for size in (10**6, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    with daemon_process.running(tmp_path / "trap", config(stick)) as trap:
        put(trap, 3)
        (keeper := stick.put_in()).wait(120)
        assert keeper.returncode == 0
        assert "is full: put in an empty stick" in stick.said.read_text()
        assert stick.word.read_text() == "failed\n"
        assert not stick.folder.exists()
        stick.pull()


@pytest.mark.parametrize("stick", ["ext4"], indirect=True)
@pytest.mark.parametrize("unknown", ["", "nosymfollow"])
def test_no_link_on_a_stick_is_followed_and_an_old_mount_takes_it_all_the_same(
    stick: Stick, tmp_path: Path, unknown: str
) -> None:
    stick.environment["UNKNOWN_OPTION"] = unknown
    with daemon_process.running(tmp_path / "trap", config(stick)) as trap:
        put(trap, 1)
        with stick.read_elsewhere() as place:
            (place / drawings.DEVICE).symlink_to(trap.spool / drawings.DEVICE)
        (keeper := stick.put_in()).wait(120)
        assert keeper.returncode == 0, stick.said.read_text()
        assert stick.word.read_text() == "failed\n"
        assert trap.status()["ledger"]["delivered"] == 0, "the picture on the card was taken for its copy"
        stick.pull()
    assert ("nosymfollow" in (tmp_path / "mounts").read_text()) == (unknown == "")


@pytest.mark.parametrize("stick", ["ext4"], indirect=True)
def test_a_stick_that_no_destination_wants_is_left_alone(stick: Stick, tmp_path: Path) -> None:
    with daemon_process.running(tmp_path / "trap"):
        stick.taken()
        assert "no destination wants a stick" in stick.said.read_text()
        assert not stick.folder.exists()
        assert not stick.word.exists()
        stick.pull()
