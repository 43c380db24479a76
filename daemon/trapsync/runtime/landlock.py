"""Landlock: a process gives up files, TCP ports and signals for good, for itself and for what it starts. No root is needed.

The numbers are those of <linux/landlock.h>, and the system calls' of every architecture alike; what each version can do
stands in the kernel's Documentation/userspace-api/landlock.rst. It is about opening: what is open stays so, and asking for a
file's size, its existence or its mode is not covered.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # landlock_create_ruleset(2) and so on
_ASK_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_NO_NEW_PRIVS = 38  # PR_SET_NO_NEW_PRIVS, prctl(2): the kernel asks for it first

# LANDLOCK_ACCESS_FS_…: bits 0 to 12 are of version 1.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE, _MAKE_FIFO = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 10
_MOVE, _TRUNCATE, _CONTROL_DEVICE = 1 << 13, 1 << 14, 1 << 15  # REFER, TRUNCATE, IOCTL_DEV
_OF_FILES = (
    _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _CONTROL_DEVICE
)  # what a rule about a file may hold
_BITS = (0, 13, 14, 15, 15)  # how many of them version 1, 2, … has; 16 from 5 on
_TCP, _TCP_SINCE = 0b11, 4  # LANDLOCK_ACCESS_NET_BIND_TCP, _CONNECT_TCP
_SCOPES, _SCOPES_SINCE = 0b11, 6  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL

READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
USE = READ | _WRITE_FILE | _CONTROL_DEVICE  # devices
MAKE_PIPES = READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_FIFO
CHANGE = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _MOVE

SWITCHED_OFF = "Landlock is switched off: see systemd/README.md, lsm="
_WHY_NOT = {
    errno.ENOSYS: "this kernel has no Landlock",
    errno.EOPNOTSUPP: SWITCHED_OFF,
    errno.EPERM: "Landlock is refused, by the service's SystemCallFilter say",
}


def restrict(rules: Iterable[tuple[Path, int]], *, keeps_tcp: bool = False) -> None:
    """Keep from this process every file but these, each with what may be done to it, or below it; all of TCP; and signals.

    `keeps_tcp`: TCP stays. Files that are not there are left out. Raises OSError, in words, and then nothing has changed.
    """
    version = _call(_CREATE, None, 0, _ASK_VERSION)
    files = (1 << (_BITS[version] if version < len(_BITS) else 16)) - 1
    attributes = [
        files,
        _TCP if version >= _TCP_SINCE and not keeps_tcp else 0,
        _SCOPES if version >= _SCOPES_SINCE else 0,
    ]
    # An older kernel takes a longer record too, as long as what it does not know is 0.
    ruleset = _call(_CREATE, (ctypes.c_uint64 * 3)(*attributes), 24, 0)
    try:
        for path, access in rules:
            with suppress(OSError):
                _add(ruleset, path, access & files)
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


class _Beneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def _add(ruleset: int, path: Path, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            access &= _OF_FILES
        _call(_ADD_RULE, ruleset, _BENEATH, ctypes.byref(_Beneath(access, descriptor)), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    answer = int(libc.syscall(ctypes.c_long(number), *arguments))
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, _WHY_NOT.get(code) or f"Landlock fails ({os.strerror(code)})")
    return answer
