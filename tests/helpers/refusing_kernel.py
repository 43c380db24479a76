"""A kernel without Landlock, or one that refuses filters: `python refusing_kernel.py CODE COMMAND…`, or `python … filter …`.

CODE is the errno with which Landlock's first call fails; with `filter` no filter is taken after the one that does this.
"""

import ctypes
import errno
import os
import struct
import sys

from trapsync.runtime import seccomp

_CREATE_RULESET = 444
_PRCTL = (157, 167, 172)  # on x86_64, 64-bit ARM, 32-bit ARM


def refuse(code: int, *, filters: bool) -> None:
    """Be such a kernel from here on, to this process and what it starts."""
    machine = seccomp.this_machine()
    assert machine
    steps = [
        (seccomp._LOAD, 0, 0, seccomp._NUMBER),
        *(seccomp._if(seccomp._EQUAL, _CREATE_RULESET, [seccomp._fail(code)]) if code else []),
    ]
    if filters:
        asked = seccomp._if(seccomp._EQUAL, seccomp._SET_SECCOMP, [seccomp._fail(errno.EPERM)])
        asked = [seccomp._argument(0), *asked, *seccomp._ALLOWED]
        steps += seccomp._if(seccomp._EQUAL, _PRCTL[machine.column], asked)
    packed = b"".join(struct.pack("=HBBI", *step) for step in [*steps, *seccomp._ALLOWED])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(seccomp._NO_NEW_PRIVS, 1, 0, 0, 0)
    assert (
        libc.prctl(seccomp._SET_SECCOMP, 2, ctypes.byref(seccomp._Program(len(packed) // 8, packed)), 0, 0)
        == 0
    )


if __name__ == "__main__":
    how, command = sys.argv[1], sys.argv[2:]
    refuse(0 if how == "filter" else getattr(errno, how), filters=how == "filter")
    os.execv(command[0], command)
