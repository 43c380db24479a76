"""Operator commands work on Windows and macOS: on Linux, with all hidden that Windows lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

# Windows has none of these modules, constants and functions; macOS lacks the last two only. What modules of Python need on
# Linux while they are imported stays. `python -c` runs this, and then the command in its arguments.
HIDE = """
import os, signal, subprocess, sys
for name in ("fcntl", "grp", "pwd", "resource", "syslog", "termios"):
    sys.modules[name] = None
for name in (
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fchown", "geteuid", "getgid", "getuid",
    "initgroups", "killpg", "mkfifo", "setgid", "setgroups", "setuid", "statvfs", "posix_fadvise",
):
    delattr(os, name)
for name in (
    "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIG_BLOCK", "pthread_kill", "pthread_sigmask",
    "setitimer", "sigtimedwait", "sigwaitinfo",
):
    delattr(signal, name)
from trapsync.cli import main
sys.argv[0] = "trapsync"
sys.exit(main())
"""
SETTINGS = '[capture]\nevery = "5 min"\nschedule = ["sunset - sunrise"]\n'


def typed(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """Type a command there; a traceback is a failure whatever the command is."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE, *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "command",
    [
        "",
        "fleet",
        "fleet watch",
        "push",
        "resend",
        "keys",
        "keys new",
        "hub",
        "hub login",
        "hub invite",
        "hub devices",
        "settings",
        "settings check",
    ],
)
def test_each_operator_command_shows_its_help(tmp_path: Path, command: str) -> None:
    done = typed(tmp_path, f"{command} --help")
    assert (done.returncode, done.stdout[:15]) == (0, "Usage: trapsync")


def test_a_key_is_made_and_settings_and_requests_are_signed_and_published(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text(SETTINGS)
    (tmp_path / "site").mkdir()
    key = typed(tmp_path, "keys new --out moths.key")
    assert key.returncode == 0, key.stderr
    for command in (
        "push night.toml --to all --folder site --key moths.key --yes",
        "resend --from 2026-06-01 --until 2026-06-08 --to all --folder site --key moths.key --yes",
    ):
        done = typed(tmp_path, command)
        assert done.returncode == 0, done.stderr
    assert len([path for path in (tmp_path / "site").rglob("*") if path.is_file()]) == 2


def test_a_new_key_signs_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAPSYNC_OWNER", str(tmp_path / "config" / "owner.toml"))
    done = typed(tmp_path, "keys new")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "config" / "owner.toml").read_text() == 'key = "trapsync.key"\n'


def test_the_fleet_asks_its_hub(tmp_path: Path) -> None:
    (tmp_path / "mine.password").write_text("a password")
    (tmp_path / "mine.password").chmod(0o600)
    done = typed(tmp_path, "fleet --hub http://127.0.0.1:9 --password-file mine.password")
    assert "127.0.0.1:9: connection refused" in done.stderr


def test_a_traps_config_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "trapsync.toml").write_text(
        f'[trap]\nlatitude = 47.4\nlongitude = 8.1\n[storage]\nspool = "spool"\nstate = "state"\n{SETTINGS}'
    )
    done = typed(tmp_path, "--config trapsync.toml settings check")
    assert done.returncode == 0, done.stderr


def test_the_hub_says_where_it_runs(tmp_path: Path) -> None:
    assert typed(tmp_path, "hub").stderr == "trapsync: the hub runs on Linux and macOS only\n"
