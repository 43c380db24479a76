"""From the service account to root: whatever an admin or a stick starts, with something odd in each folder of the account's.

Looked at from outside: nothing of root's is touched, nobody gets a signal, nothing hangs. `scripts/torture --account` types
every case of the table, the suite one of thirty.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import processes
import taken_over

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down: not tested here")

ROOT = Path(__file__).parents[2]
SHARE = 30
NOBODY = 65534
HARD = "hard link"  # to a file of root's, which only root could read: where fs.protected_hardlinks is off
PLACES = ("catalog.sqlite", "catalog.sqlite-wal", "before-upgrade.sqlite", "before-upgrade.sqlite-wal")


# ── Every command of the program ─────────────────────────────────────────────────────────────────────


def test_every_command_stands_in_the_table() -> None:
    assert set(taken_over.commands()) == taken_over.TYPED.keys() | taken_over.OTHERS
    assert not taken_over.TYPED.keys() & taken_over.OTHERS


@pytest.mark.timeout(600)
def test_no_command_of_roots_does_more_than_the_account_may() -> None:
    seed = int(os.environ.get("ACCOUNT_SEED", "16"))
    helper = Path(taken_over.__file__)
    running = [
        subprocess.Popen(
            [sys.executable, str(helper), *map(str, (seed, SHARE, part, 2))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(2)
    ]
    said = [process.communicate(timeout=560)[0] for process in running]
    count: Counter[str] = Counter()
    failures: list[str] = []
    for counted, failed in map(json.loads, said):
        count += Counter(counted)
        failures += failed
    sys.stdout.write(f"{dict(count)}\n")
    assert failures == []
    assert count["cases"] >= 300


# ── The scripts ──────────────────────────────────────────────────────────────────────────────────────


class Ground:
    """Folders of root's, and one of an account's, where it may do as it likes."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.roots, self.own, self.bin = folder / "roots", folder / "own", folder / "bin"
        for made in (self.roots, self.roots / "folder", self.own, self.bin):
            made.mkdir()
        (self.roots / "secret").write_text("of root's")
        (self.roots / "secret").chmod(0o600)
        (self.roots / "folder" / "file").write_text("of root's")
        os.chown(self.own, NOBODY, NOBODY)
        self.before = self.seen()

    def put(self, name: str, oddity: str, folder: Path | None = None) -> Path:
        """What the account has laid there."""
        place = (folder or self.own) / name
        if oddity == HARD:
            os.link(self.roots / "secret", place)
            return place
        taken_over.ODDITIES[oddity](place, self.roots)
        for made in (place, *(place.iterdir() if place.is_dir() and not place.is_symlink() else ())):
            os.chown(made, NOBODY, NOBODY, follow_symlinks=False)
        return place

    def script(self, name: str, text: str) -> None:
        """A program that stands in for one of the system's, or ours."""
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def run(self, command: list[Any], **more: str) -> "subprocess.CompletedProcess[str]":
        """Run something as root; it must end."""
        environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "ACCOUNT": "nobody"} | more
        return subprocess.run(
            command, env=environment, text=True, capture_output=True, timeout=taken_over.LIMIT, check=False
        )

    def seen(self) -> dict[str, Any]:
        """All that is root's."""
        return {str(path): taken_over.look(path) for path in [self.roots, *self.roots.rglob("*")]}

    def check(self) -> None:
        """Nothing of root's was touched, and nothing of root's lies in the account's folder."""
        assert self.seen() == self.before
        secret = self.roots / "secret"
        there = [path for path in self.own.rglob("*") if path.is_symlink() or not path.samefile(secret)]
        owners = {str(path): path.lstat().st_uid for path in there}
        assert {path for path, user in owners.items() if user != NOBODY} == set()


@pytest.fixture
def ground() -> Iterator[Ground]:
    folder = Path(tempfile.mkdtemp(prefix="trapsync-test-"))
    yield Ground(folder)
    shutil.rmtree(folder)


def test_the_reboot_guard_takes_any_word_away_and_reboots_once(ground: Ground) -> None:
    ground.script("systemctl", f'echo "$*" >>{ground.folder}/rebooted')
    asked = ground.own / "reboot-wanted"
    for number, oddity in enumerate([*taken_over.ODDITIES, "control characters", "a deep folder", HARD]):
        stamps = ground.folder / f"stamps-{number}"
        stamps.mkdir()
        for again in (False, True):
            if oddity == "control characters":
                asked.write_text("the \033]0;camera\nhangs\a\\n<0>a line of its own\\a\\033")
                os.chown(asked, NOBODY, NOBODY)
            elif oddity == "a deep folder":
                as_nobody("mkdir -p $(printf 'd/%.0s' $(seq 1500))", asked)
            else:
                ground.put(asked.name, oddity)
            with processes.started(["sleep", "1d"], user=NOBODY) as victim:
                done = ground.run(
                    [ROOT / "systemd" / "reboot-guard"], RUNTIME=str(ground.own), STATE_DIRECTORY=str(stamps)
                )
                assert victim.poll() is None
                victim.kill()
            assert done.returncode == 0, (oddity, done)
            assert not os.path.lexists(asked), oddity
            assert ("no reboot" in done.stdout) == again or float(
                Path("/proc/uptime").read_text().split()[0]
            ) > 21600
            assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout) is None
            assert done.stdout.count("\n") == 1
            assert "of root's" not in done.stdout
            ground.check()
    assert set((ground.folder / "rebooted").read_text().splitlines()) == {"--no-block reboot"}


def as_nobody(script: str, folder: Path) -> None:
    """The account does something in a folder of its own."""
    folder.mkdir(exist_ok=True)
    os.chown(folder, NOBODY, NOBODY)
    subprocess.run(["sh", "-c", script], cwd=folder, user=NOBODY, group=NOBODY, check=True, extra_groups=[])


def install(ground: Ground, *steps: str) -> "subprocess.CompletedProcess[str]":
    """Some functions of scripts/install, one after the other, as in an upgrade."""
    text = (ROOT / "scripts" / "install").read_text().rpartition('main "$@"')[0]
    ours = f"program={ground.folder}/program account=nobody previous=1 state={ground.own}"
    program = ground.folder / "program" / "1" / "bin" / "trapsync"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\necho '[storage]'; echo 'state = \"{ground.own}\"'\n")
    program.chmod(0o755)
    return ground.run(["bash", "-c", "\n".join([text, ours, "cd /", *steps])])


MAKE = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript('CREATE TABLE one (a); CREATE TABLE two (a)')"


def test_an_upgrade_keeps_the_catalog_and_brings_it_back_where_the_new_version_changed_it(
    ground: Ground,
) -> None:
    catalog = ground.own / "catalog.sqlite"
    subprocess.run([sys.executable, "-c", MAKE, catalog], check=True)
    os.chown(catalog, NOBODY, NOBODY)
    before = catalog.read_bytes()
    change = f"""python3 -c 'import sqlite3; sqlite3.connect("{catalog}").execute("DROP TABLE two")'"""
    done = install(ground, "save_catalog", change, "restore_catalog")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the copy from before comes back" in done.stdout
    assert catalog.read_bytes() == before
    assert [path.name for path in ground.own.iterdir()] == ["catalog.sqlite"]
    done = install(ground, "save_catalog", "restore_catalog")
    assert "comes back" not in done.stdout
    ground.check()


@pytest.mark.parametrize("name", PLACES)
def test_an_upgrade_copies_and_moves_nothing_of_roots(ground: Ground, name: str) -> None:
    """Finding S18: links, FIFOs and folders in the place of the catalog or of its copy."""
    for oddity in (*taken_over.ODDITIES, HARD):
        shutil.rmtree(ground.own)
        ground.own.mkdir()
        os.chown(ground.own, NOBODY, NOBODY)
        if name != "catalog.sqlite":
            subprocess.run([sys.executable, "-c", MAKE, ground.own / "catalog.sqlite"], check=True)
            os.chown(ground.own / "catalog.sqlite", NOBODY, NOBODY)
        if oddity != "a GB of nothing":  # which is copied, as a catalog of that size would be
            ground.put(name, oddity)
        done = install(
            ground, "make_account() { :; }", "save_catalog", "echo saved", "restore_catalog", "echo restored"
        )
        assert (done.returncode, "restored" in done.stdout) == (0, True), (oddity, done)
        assert "of root's" not in done.stdout + done.stderr
        ground.check()


def uninstall(ground: Ground) -> "subprocess.CompletedProcess[str]":
    """scripts/uninstall, all of it, on folders of this test's."""
    text = (ROOT / "scripts" / "uninstall").read_text()
    text = text.replace(
        "units=/etc/systemd/system account=trapsync", f"units={ground.folder}/units account=nobody"
    )
    text = text.replace("state=/var/lib/trapsync ", f"state={ground.own} ")
    text = re.sub(
        r"(?<![\w.}])/(etc|usr|run|var|opt)/[\w./-]*trapsync", rf"{ground.folder}/system\g<0>", text
    )
    text = text.replace("set -euo pipefail", "set -euo pipefail\nsystemctl() { :; }\nuserdel() { :; }")
    script = ground.folder / "uninstall"
    script.write_text(text)
    return ground.run(["bash", script, "--purge", "--yes-delete-images"])


def test_uninstalling_removes_what_is_the_accounts_and_nothing_else(ground: Ground) -> None:
    for oddity in taken_over.ODDITIES:
        ground.put(re.sub(r"\W", "-", oddity), oddity)
    as_nobody(
        "mkdir -p $(printf 'd/%.0s' $(seq 1500)); mkdir shut; touch shut/file; chmod 0 shut",
        ground.own / "more",
    )
    # Meanwhile a folder becomes a link to one of root's, again and again.
    swap = f'mkdir d; while :; do mv -T d x; ln -s "{ground.roots}/folder" d; touch x/file; rm d; mv -T x d; done'
    (ground.own / "swapped").mkdir()
    os.chown(ground.own / "swapped", NOBODY, NOBODY)
    command = ["sh", "-c", swap]
    with processes.started(
        command, cwd=ground.own / "swapped", user=NOBODY, group=NOBODY, extra_groups=[], stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as swapper:  # fmt: skip
        done = uninstall(ground)
        os.killpg(swapper.pid, signal.SIGKILL)
    if done.returncode:  # it may have made something anew at the last moment
        done = uninstall(ground)
    assert done.returncode == 0, done
    assert not ground.own.exists()
    assert ground.seen() == ground.before


def test_uninstalling_leaves_what_is_not_the_accounts_and_says_so(ground: Ground) -> None:
    (ground.own / "spool" / "of root's").mkdir(parents=True)
    (ground.own / "spool" / "of root's" / "file").touch()
    done = uninstall(ground)
    assert done.returncode == 1
    assert f"{ground.own} holds something that is not the account's" in done.stderr
    assert (ground.own / "spool" / "of root's" / "file").exists()


# ── The stick ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def stick(ground: Ground) -> Iterator[Path]:
    """Where a stick is mounted: a filesystem in memory, for it is not about what is on it."""
    folder = ground.folder / "media"
    ground.script("blkid", "echo ext4")
    ground.script("systemd-mount", f"mkdir -p {folder}; exec mount -t tmpfs -o mode=755 /dev/odd {folder}")
    ground.script("systemd-umount", f"exec umount -l {folder}")
    ground.script("systemd-run", 'while :; do case $1 in -*) shift ;; *) exec "$@" ;; esac; done')
    ground.script("sleep", "exec /bin/sleep 0.1")
    (ground.folder / "run").mkdir()
    yield folder
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def keep(ground: Ground, folder: Path, what: str, program: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the stick's helper; the program of the account's does something in between."""
    ground.script(
        "trapsync", f'[ "$(id -u)" = {NOBODY} ] || exit 9\ncase $* in *--check*) exit 0 ;; esac\n{program}'
    )
    own = {
        "FOLDER": str(folder),
        "RUNTIME_DIRECTORY": str(ground.folder / "run"),
        "TRAPSYNC": str(ground.bin / "trapsync"),
    }
    return ground.run([ROOT / "systemd" / "stick-keeper", what, "odd"], **own)


def test_whatever_the_account_does_on_a_stick_its_helper_touches_nothing_of_roots(
    ground: Ground, stick: Path
) -> None:
    files = f"ln -s {ground.roots}/secret a; ln -s {ground.roots}/folder b; ln -s {ground.roots}/new c; mkfifo d; chmod 0 ."
    done = keep(ground, stick, "take", f"cd {stick} && {files}")
    assert done.returncode == 0, done
    assert (ground.folder / "run" / "word").read_text() in {"done\n", "failed\n"}
    assert not stick.exists()
    assert keep(ground, stick, "leave").returncode == 0
    assert not (ground.folder / "run" / "word").exists()
    ground.check()


def test_a_stick_that_the_account_keeps_in_use_is_told_and_goes_when_it_is_pulled(
    ground: Ground, stick: Path
) -> None:
    stay = f"cd {stick}; setsid /bin/sleep 60 >/dev/null 2>&1 </dev/null & echo $! >{ground.own}/stays"
    began = time.monotonic()
    done = keep(ground, stick, "take", stay)
    assert (done.returncode, "is in use by somebody" in done.stdout) == (1, True), done
    assert keep(ground, stick, "leave").returncode == 0
    assert not os.path.ismount(stick)
    assert time.monotonic() - began < taken_over.LIMIT
    os.kill(int((ground.own / "stays").read_text()), signal.SIGKILL)
    ground.check()


def test_a_link_in_the_place_of_the_stick_is_roots_own_to_remove(ground: Ground, stick: Path) -> None:
    """The folder lies in one of root's: the account cannot put anything there, nor over it."""
    made = subprocess.run(
        ["ln", "-s", "/etc", stick], user=NOBODY, group=NOBODY, check=False, capture_output=True
    )
    assert made.returncode != 0
