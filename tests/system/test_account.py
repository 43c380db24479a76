"""Root does what it is asked to in the name of the trap's account, or not at all."""

import fcntl
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import drawings
import processes
from daemon_process import CONFIG

SOMEBODY = 54321  # a number without a name will do

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down: not tested here")


# Whatever is imported while it runs is imported before: the interpreter may lie where only root can read it.
PROGRAM = """\
import importlib, os, pkgutil, sys, encodings.idna, encodings.utf_8_sig, sqlite_utils, sqlite3, requests, trapsync
for module in pkgutil.walk_packages(trapsync.__path__, "trapsync."):
    if not module.name.endswith(("__main__", "picamera")):
        importlib.import_module(module.name)
trapsync.cli.main()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of somebody's that he can get to, with the config of a trap without a camera."""
    folder = Path(tempfile.mkdtemp(prefix="trapsync-test-"))
    (folder / "trapsync.toml").write_text(CONFIG.format(device=drawings.DEVICE, camera="none"))
    os.chown(folder, SOMEBODY, SOMEBODY)
    yield folder
    shutil.rmtree(folder)


def call(folder: Path, *words: str) -> "subprocess.Popen[str]":
    environment = {key: value for key, value in os.environ.items() if key != "TRAPSYNC_AS_ROOT"}
    command = [sys.executable, "-c", PROGRAM, "-c", str(folder / "trapsync.toml"), *words]
    return subprocess.Popen(
        command, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_what_root_does_before_the_first_start_leaves_nothing_that_is_roots(folder: Path) -> None:
    for words in ("retry", "verify", "status", "images"):
        done = call(folder, words)
        assert "Traceback" not in done.communicate()[1]
    made = list((folder / "state").rglob("*"))
    assert folder / "state" / "catalog.sqlite" in made
    assert {path.stat().st_uid for path in [folder / "state", *made]} == {SOMEBODY}


def test_the_daemon_started_by_root_runs_as_the_owner_of_its_state(folder: Path) -> None:
    process = call(folder, "run")
    try:
        deadline = time.monotonic() + 30
        while not (folder / "state" / "catalog.sqlite").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)  # another process is to come so far
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"\nUid:\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}\n" in status
        assert "\nCapPrm:\t0000000000000000\n" in status
    finally:
        process.terminate()
        process.communicate(timeout=15)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_daemon_refuses_to_be_root_and_says_what_to_do(folder: Path, is_there: bool) -> None:
    os.chown(folder, 0, 0)
    if is_there:
        (folder / "state").mkdir()
    done = call(folder, "run")
    _, said = done.communicate(timeout=30)
    assert done.returncode == 1
    assert said.count("\n") == 1
    assert "the daemon does not run as root; give it an account of its own" in said
    assert not (folder / "spool").exists()


def test_the_files_that_the_daemon_makes_are_as_closed_as_its_mask_says(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        call(folder, "retry").communicate()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder / "state").rglob("*")}
    assert modes == {0}


# ── An account that was taken over, against root ─────────────────────────────────────────────────────

TAKEN_OVER = 4242
CHOICE = (
    CONFIG.format(device=drawings.DEVICE, camera="none")
    + """
[destinations.stick]
kind = "directory"
path = "{trap}/media"
hotplug = true
"""
).replace('= "s', '= "{trap}/s')
SAY_WHO = PROGRAM.replace(
    "trapsync.cli.main()",
    """import os, resource
resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9, 2 * 10**9))
try:
    trapsync.cli.main()
finally:
    print("done by", os.geteuid(), file=sys.stderr)""",
)


class Machine:
    """A config that is root's, and the account's folder, where it may do as it likes."""

    def __init__(self, folder: Path) -> None:
        self.roots = folder / "roots"
        self.trap = folder / "trap"
        self.state, self.spool = self.trap / "state", self.trap / "spool"
        self.config = folder / "etc" / "trapsync.toml"
        for made in (folder / "etc", self.roots, self.trap):
            made.mkdir()
        self.config.write_text(CHOICE.format(trap=self.trap))
        os.chown(self.trap, TAKEN_OVER, TAKEN_OVER)

    def own(self, *paths: Path) -> None:
        """Give the account what it could have made itself."""
        for path in paths:
            os.chown(path, TAKEN_OVER, TAKEN_OVER, follow_symlinks=False)

    def call(self, *words: str) -> "tuple[int, int | None, str]":
        """What root's command ends with: its code, as whom, and what it said on standard error."""
        command = [sys.executable, "-c", SAY_WHO, "-c", str(self.config), *words]
        done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
        said, _, user = done.stderr.rpartition("done by ")
        return done.returncode, int(user) if user else None, said


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="trapsync-test-"))
    folder.chmod(0o755)
    yield Machine(folder)
    shutil.rmtree(folder)


def lead_away(machine: Machine, how: str) -> None:
    """Make of the state folder a link that leads to root, or nowhere."""
    (machine.trap / "file").touch()
    target = {"root": machine.roots, "itself": machine.state, "file": machine.trap / "file" / "x"}[how]
    machine.state.symlink_to(target)
    machine.own(machine.state, machine.trap / "file")


@pytest.mark.parametrize("words", ["status", "settings show"])
@pytest.mark.parametrize("how", ["root", "itself", "file"])
def test_no_link_of_the_accounts_keeps_root_from_stepping_down(
    machine: Machine, how: str, words: str
) -> None:
    lead_away(machine, how)
    _, user, said = machine.call(*words.split())
    assert user == TAKEN_OVER
    assert "Traceback" not in said
    assert list(machine.roots.iterdir()) == []


def test_a_link_of_the_accounts_in_a_folder_of_roots_is_the_accounts(machine: Machine) -> None:
    (machine.roots / "shm").mkdir()
    (machine.roots / "shm").chmod(0o1777)
    link = machine.roots / "shm" / "trap"
    link.symlink_to(machine.roots)
    machine.own(link)
    machine.config.write_text(CHOICE.format(trap=link))
    assert machine.call("settings", "check")[:2] == (0, TAKEN_OVER)


def test_what_a_link_of_roots_leads_to_belongs_to_who_owns_that(machine: Machine) -> None:
    (machine.roots / "link").symlink_to("../etc/../trap")
    machine.config.write_text(CHOICE.format(trap=machine.roots / "link"))
    assert machine.call("settings", "check")[:2] == (0, TAKEN_OVER)


def test_where_all_is_roots_root_stays_root(machine: Machine) -> None:
    machine.config.write_text(CHOICE.format(trap=machine.roots))
    assert machine.call("settings", "check")[:2] == (0, 0)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("circle", "too many nested links"),
        ("file", "Not a directory"),
        ("open", "others may write there"),
        ("moved", "others may write there"),
        ("leaf", "others may write there"),
    ],
)
def test_where_the_account_cannot_be_told_root_does_nothing_and_says_so(
    machine: Machine, how: str, says: str
) -> None:
    (machine.roots / "circle").symlink_to("circle")
    (machine.roots / "file").touch()
    for name, mode in (("open", 0o1777), ("moved", 0o775), ("leaf", 0o755)):
        (machine.roots / name).mkdir()
        (machine.roots / name).chmod(mode)
    for name in ("moved", "leaf"):
        (machine.roots / name / "state").mkdir()
    (machine.roots / "leaf" / "state").chmod(0o1777)
    machine.config.write_text(CHOICE.format(trap=machine.roots / how))
    code, user, said = machine.call("retry")
    assert (code, user, said.count("\n")) == (1, 0, 1)
    assert says in said
    assert not list(machine.roots.rglob("catalog*"))


@pytest.mark.parametrize("name", ["trapsync.toml", "override.toml"])
def test_whose_config_it_is_decides_before_it_is_read(machine: Machine, name: str) -> None:
    file = machine.config.with_name(name)
    file.write_text(CHOICE.format(trap=machine.roots))
    machine.config.chmod(0o644)
    machine.own(file)
    assert machine.call("retry")[1] == TAKEN_OVER
    assert list(machine.roots.iterdir()) == []


def test_a_file_in_quarantine_cannot_be_put_where_only_root_may_write(machine: Machine) -> None:
    lead_away(machine, "root")
    machine.config.write_text(machine.config.read_text().replace("hotplug = true", 'every = "1 s"'))
    kept = machine.spool / ".quarantine"
    kept.mkdir(parents=True)
    (kept / "x.jpg").write_text("touch /owned\n")
    (kept / "x.jpg.reason").write_text(f"{machine.roots}/profile.d/evil.sh\ncut off")
    machine.own(machine.spool, kept, *kept.iterdir())
    machine.call("deliver")
    machine.call("quarantine", "--release", "1")
    assert list(machine.roots.iterdir()) == []


@pytest.mark.parametrize("words", ["deliver", "retry", "stick --patience 1s --folder {trap}/media"])
@pytest.mark.parametrize("victims", [0, TAKEN_OVER])
def test_the_lock_makes_root_signal_no_process_but_the_traps_own_daemon(
    machine: Machine, victims: int, words: str
) -> None:
    elsewhere = machine.trap / "state" if victims else machine.roots / "shm"
    elsewhere.mkdir()
    elsewhere.chmod(0o1777)
    if not victims:
        machine.state.symlink_to(elsewhere)
    machine.own(machine.state)
    assert machine.call("retry")[:2] == (0, TAKEN_OVER)
    lock = elsewhere / "daemon.lock"
    with processes.started(["sleep", "60"], user=victims) as victim, lock.open("w") as file:
        machine.own(lock)
        file.write(f"{victim.pid}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        code, user, said = machine.call(*words.format(trap=machine.trap).split())
        assert (code, user) == (1, TAKEN_OVER)
        assert f"process {victim.pid}" in said
        assert victim.poll() is None
        victim.terminate()


@pytest.mark.parametrize("words", ["status", "settings check", "settings show", "stick --check"])
@pytest.mark.parametrize("what", ["fifo", "zeros", "large"])
def test_nothing_of_the_accounts_is_read_by_root_and_only_plain_small_files_by_anybody(
    machine: Machine, what: str, words: str
) -> None:
    machine.state.mkdir()
    pushed = machine.state / "remote_settings.json"
    if what == "fifo":
        os.mkfifo(pushed)
    elif what == "zeros":
        pushed.symlink_to("/dev/zero")
    else:
        pushed.write_text(f'{{"state": "{"x" * 2 * 10**6}"}}')
    machine.own(machine.state, pushed)
    _, user, said = machine.call(*words.split())
    assert user == TAKEN_OVER
    assert f"{pushed}: cannot be read" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("words", ["status", "retry", "settings show"])
@pytest.mark.parametrize("mistake", ["moths = \n", "[camra]\n"])
def test_what_the_account_kept_as_the_last_config_is_used_in_its_own_name(
    machine: Machine, mistake: str, words: str
) -> None:
    config = CHOICE.format(trap=machine.trap)
    machine.state.mkdir()
    kept = machine.state / "last_good_config.json"
    evil = config.replace(str(machine.state), str(machine.roots)).replace(
        str(machine.spool), str(machine.roots / "s")
    )
    kept.write_text(
        json.dumps({"source": str(machine.config), "since": 0.0, "config": evil, "override": None})
    )
    machine.own(machine.state, kept)
    machine.config.write_text(config + mistake)
    _, user, said = machine.call(*words.split())
    assert user == TAKEN_OVER
    assert "Traceback" not in said
    assert list(machine.roots.iterdir()) == []
    kept.unlink()
    os.mkfifo(kept)
    machine.own(kept)
    code, user, said = machine.call(*words.split())
    assert (code, user, said.count("\n")) == (2 if words == "status" else 1, TAKEN_OVER, 1)


def test_root_sets_a_value_in_its_own_file_and_has_it_checked_in_the_accounts_name(machine: Machine) -> None:
    machine.config.chmod(0o640)
    os.chown(machine.config, 0, TAKEN_OVER)
    machine.state.mkdir()
    os.mkfifo(machine.state / "remote_settings.json")
    machine.own(machine.state, machine.state / "remote_settings.json")
    assert machine.call("settings", "set", "trap.name", "Meadow")[:2] == (0, 0)
    text, now = machine.config.read_text(), machine.config.stat()
    assert 'name = "Meadow"' in text
    assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (0, TAKEN_OVER, 0o640)
    code, user, said = machine.call("settings", "set", "destinations.stick.path", str(machine.spool / "x"))
    assert (code, user, said.count("\n")) == (1, 0, 1)
    assert machine.config.read_text() == text
    machine.own(machine.config)
    machine.config.parent.chmod(0o777)
    assert machine.call("settings", "set", "trap.name", "Hill")[:2] == (0, TAKEN_OVER)


TYPE = """\
import errno, fcntl, sys, termios
from pathlib import Path
from trapsync.cli.drop_root import step_down
fcntl.ioctl(0, termios.TIOCSCTTY)
if sys.argv[1:]:
    step_down(Path(sys.argv[1]))
try:
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
    print("typed")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_whoever_root_stepped_down_to_types_nothing_into_roots_terminal(machine: Machine) -> None:
    said = []
    for place in ([], [str(machine.trap)]):
        ours, theirs = os.openpty()
        command = [sys.executable, "-c", TYPE, *place]
        done = subprocess.run(
            command, stdin=theirs, capture_output=True, text=True, start_new_session=True, timeout=60
        )
        said.append(done.stdout.strip() or done.stderr)
        os.close(ours)
        os.close(theirs)
    assert said[0] in {"typed", "EIO"}  # EIO: this kernel lets nobody
    assert said[1] == "EPERM"


def test_the_helper_for_sticks_runs_the_program_in_the_accounts_name(machine: Machine) -> None:
    program, said = machine.roots / "trapsync", machine.trap / "said"
    program.write_text(f'#!/bin/sh\n(id -u; id -g; id -G; grep CapEff /proc/self/status) >"{said}"\nexit 3\n')
    program.chmod(0o755)
    machine.trap.chmod(0o777)
    account = pwd.getpwnam("nobody")
    environment = os.environ | {"TRAPSYNC": str(program), "ACCOUNT": account.pw_name}
    keeper = Path(__file__).parents[2] / "systemd" / "stick-keeper"
    done = subprocess.run([keeper, "take", "none"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "<5>no destination wants a stick: it is left alone\n")
    user, group, groups, capabilities = said.read_text().splitlines()
    assert (int(user), int(group)) == (account.pw_uid, account.pw_gid)
    assert "0" not in groups.split()
    assert set(capabilities.split()[1]) == {"0"}


def test_roots_command_still_wakes_the_accounts_daemon(folder: Path) -> None:
    with (folder / "trapsync.toml").open("a") as config:
        config.write('[destinations.stick]\nkind = "directory"\npath = "stick"\n')
    (folder / "stick").mkdir()
    (folder / "stick" / ".trapsync-destination").touch()
    for made in (folder / "stick", folder / "stick" / ".trapsync-destination"):
        os.chown(made, SOMEBODY, SOMEBODY)
    daemon = call(folder, "run")
    try:
        assert daemon.stderr
        assert any("watching over" in line for line in iter(daemon.stderr.readline, ""))
        deliver = call(folder, "deliver")
        said = deliver.communicate(timeout=30)
        assert (deliver.returncode, *said) == (0, "everything is delivered or refused\n", "")
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        daemon.communicate(timeout=15)
