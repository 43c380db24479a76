"""rclone as a child process: one command, its bounded answer, and its end at the deadline or with the daemon.

A process for each question and each upload, as a sensor has one: rclone cannot be imported, and one that stays would keep
45 to 70 MB of a 512 MB Pi for the whole night. Nobody else in `destinations` starts a process.
"""

import os
import re
import selectors
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from trapsync.clock import Clock
from trapsync.errors import Unauthorised, Unreachable, one_line
from trapsync.files.parent import end_with
from trapsync.net import foreign_json

_LOOK = 0.5  # seconds between two looks at whether the daemon stops
_END = 5.0  # seconds for a process that was killed to be gone
_LONGEST_SAID = 64 * 1024  # bytes of its log
_LONGEST_LINE = 16 * 1024
_STAMP = re.compile(r"^[\d/]+ [\d:]+ (?:[A-Z]+ *: )?")  # before a line that is no JSON
_LOGIN, _QUERY = re.compile(r"//[^/@\s]*@"), re.compile(r"\?[^\s\"']+")
# What a child finds in its environment: no option of rclone's, which would come before ours, no proxy, no agent of ssh.
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "TZ")
# Go collects its garbage before it takes more; what it needs at the least is 45 to 70 MB, most of it the program. With two
# cores of four it leaves some to the camera, and has fewer threads.
_OF_GO = {"GOMEMLIMIT": "64MiB", "GOGC": "50", "GOMAXPROCS": "2"}


@dataclass(frozen=True, slots=True)
class Said:
    """One line of its log: about which file (of those in the question), and what."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit code (negative: the signal that killed it), what it answered, and what it said."""

    code: int
    output: bytes
    said: Sequence[Said]


def run(
    binary: str,
    arguments: Sequence[str],
    given: bytes,
    clock: Clock,
    pause: Callable[[float], object],
    *,
    within: float,
    most: int,
) -> Done:
    """Run one command, with `given` as its input, and return how it ended.

    It is killed, with whatever it started, when `within` seconds are over or it answers more than `most` bytes
    (Unreachable), and when `pause` raises; the kernel kills it when the daemon dies. Unauthorised if there is none.
    """
    program = shutil.which(binary)
    if program is None:
        raise Unauthorised(
            f"the program {binary} is not there; run: sudo apt install rclone (or correct the setting binary)"
        )
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _OF_GO
    with _input(given) as source:
        process = subprocess.Popen(  # noqa: S603 - the program that the config file names
            [program, *arguments],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            # It dies with the thread that started it, which waits for it here. setpriv could do it from outside, but not
            # within the limits of the service.
            preexec_fn=partial(end_with, os.getpid()),
        )
    try:
        output, log = _read(process, clock, pause, clock.monotonic() + within, within, most)
        return Done(process.wait(_END), output, _lines(log))
    except subprocess.TimeoutExpired:
        raise Unreachable("rclone has answered, and does not end: it was killed") from None
    finally:
        _end(process)


def _input(content: bytes) -> Any:
    """A file in memory that holds this, at its beginning."""
    file = os.fdopen(os.memfd_create("names"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file


def _read(
    process: "subprocess.Popen[bytes]",
    clock: Clock,
    pause: Callable[[float], object],
    deadline: float,
    within: float,
    most: int,
) -> tuple[bytes, bytes]:
    """All that it writes until it closes both of its outputs, within bounds; more of its log is passed over."""
    assert process.stdout
    assert process.stderr
    read: dict[Any, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in read:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_LOOK):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout or len(read[key.fileobj]) < _LONGEST_SAID:
                    read[key.fileobj] += chunk
            pause(0.0)
            if len(read[process.stdout]) > most:
                raise Unreachable(f"rclone answered more than {most} bytes: it was stopped")
            if clock.monotonic() >= deadline:
                raise Unreachable(
                    f"rclone did not end within {within:.0f} s: it was killed; is the link that slow?"
                )
    return bytes(read[process.stdout]), bytes(read[process.stderr])


def _end(process: "subprocess.Popen[bytes]") -> None:
    """See to it that it is gone, with what it started. One that is stuck in the kernel is not waited for."""
    if process.returncode is None:  # not waited for yet: the group is its own, even where it has ended itself
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END)
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def _lines(log: bytes) -> list[Said]:
    """Its log, cleaned. Of an older version the last line, by which it gives up, is no JSON."""
    said = []
    for line in log.splitlines():
        try:
            entry = foreign_json.decode(line, _LONGEST_LINE)
        except ValueError:
            entry = {"msg": _STAMP.sub("", line.decode("utf-8", "replace"))}
        if isinstance(entry, Mapping):
            said.append(Said(str(entry.get("object", "")), _without_secrets(str(entry.get("msg", "")))))
    return said


def _without_secrets(text: str) -> str:
    """What it said as one line; of an address neither a login nor what follows a question mark."""
    return one_line(_QUERY.sub("?…", _LOGIN.sub("//", text[:_LONGEST_LINE])), 300)
