"""seccomp: a process gives up system calls for good, for itself and for what it starts. No root is needed.

What is taken away is a list, and not what is left: what a C library or libvips calls differs from version to version, and a
picture must not fail for that. A call that is newer than the list is answered as by an older kernel, for which everybody is
prepared. The numbers are those of <asm/unistd.h>; `tests/unit/test_seccomp.py` compares them with libseccomp's.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

# prctl(2)
_NO_NEW_PRIVS, _SET_SECCOMP, _BY_FILTER = 38, 22, 2

# Classic BPF, <linux/bpf_common.h>: load a word of `struct seccomp_data`; jump if equal, greater, or any bit is set; return.
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = (
    0,
    4,
    16,
)  # where they stand in it; each argument has 8 bytes, the lower half first
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO

_NEWEST = 462  # mseal(2), of Linux 6.10: what comes later is not known here
_ARMS_OWN = 0xF0000  # from here on those of 32-bit ARM alone (cacheflush, set_tls), which every program needs
_NEW_THREAD = 0x10000  # CLONE_THREAD, clone(2)
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET
_NETLINK = 16  # AF_NETLINK
_FAKE_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the terminal


class Machine(NamedTuple):
    """An architecture: its column in the table, and AUDIT_ARCH_… of <linux/audit.h>."""

    column: int
    audit: int


X86_64, AARCH64, ARM = Machine(0, 0xC000003E), Machine(1, 0xC00000B7), Machine(2, 0x40000028)

# On x86_64, 64-bit ARM and 32-bit ARM; -1 where there is no such call.
CALLS = {
    # Sockets, and the other way to make one.
    "socket": (41, 198, 281),
    "io_uring_setup": (425, 425, 425),
    "io_uring_enter": (426, 426, 426),
    "io_uring_register": (427, 427, 427),
    # Other processes: signals, memory, descriptors, limits.
    "kill": (62, 129, 37),
    "tkill": (200, 130, 238),
    "tgkill": (234, 131, 268),
    "rt_sigqueueinfo": (129, 138, 178),
    "rt_tgsigqueueinfo": (297, 240, 363),
    "pidfd_send_signal": (424, 424, 424),
    "pidfd_getfd": (438, 438, 438),
    "ptrace": (101, 117, 26),
    "process_vm_readv": (310, 270, 376),
    "process_vm_writev": (311, 271, 377),
    "process_madvise": (440, 440, 440),
    "process_mrelease": (448, 448, 448),
    "kcmp": (312, 272, 378),
    "prlimit64": (302, 261, 369),
    # Programs and processes of its own.
    "execve": (59, 221, 11),
    "execveat": (322, 281, 387),
    "fork": (57, -1, 2),
    "vfork": (58, -1, 190),
    "clone": (56, 220, 120),
    "clone3": (435, 435, 435),
    # Modes of files, which Landlock leaves alone, and a way past folders.
    "chmod": (90, -1, 15),
    "fchmodat": (268, 53, 333),
    "fchmodat2": (452, 452, 452),
    "open_by_handle_at": (304, 265, 371),
    # What no picture needs, and where kernels had their holes.
    "unshare": (272, 97, 337),
    "setns": (308, 268, 375),
    "bpf": (321, 280, 386),
    "perf_event_open": (298, 241, 364),
    "userfaultfd": (323, 282, 388),
    "add_key": (248, 217, 309),
    "request_key": (249, 218, 310),
    "keyctl": (250, 219, 311),
    # The terminal.
    "ioctl": (16, 29, 54),
}
_ON_ITSELF = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")  # the first argument says on whom
_OF_PROGRAMS = ("execve", "execveat", "fork", "vfork")

Step = tuple[int, int, int, int]  # struct sock_filter: code, jump if true, jump if false, operand


def restrict(*, programs: bool, netlink: bool) -> None:
    """Keep from this process what stands in `CALLS`.

    Not its own threads and signals; nor other programs with `programs`, nor what udev needs with `netlink`. Raises
    OSError, in words, and then nothing has changed.
    """
    _install(program(_machine(), os.getpid(), programs=programs, netlink=netlink))


def keep_from_typing() -> None:
    """Keep this process, and what it starts, from typing into its terminal. Raises OSError, as `restrict` does."""
    machine = _machine()
    ioctl = CALLS["ioctl"][machine.column]
    _install([*_by_machine(machine), *_if(_EQUAL, ioctl, _no_typing()), *_ALLOWED])


def _install(filter_: list[Step]) -> None:
    steps = b"".join(struct.pack("=HBBI", *step) for step in filter_)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_SET_SECCOMP, _BY_FILTER, ctypes.byref(_Program(len(steps) // 8, steps)), 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the kernel takes no filter of system calls ({os.strerror(code)})")


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _machine() -> Machine:
    machine = this_machine()
    if machine is None:
        raise OSError(errno.ENOSYS, f"there is no filter of system calls for {os.uname().machine}")
    return machine


def this_machine() -> Machine | None:
    """The architecture of this program, which may be 32-bit ARM on a 64-bit kernel; None for any other."""
    wide = ctypes.sizeof(ctypes.c_void_p) == 8
    name = os.uname().machine
    if name.startswith(("aarch64", "armv")):
        return AARCH64 if wide else ARM
    return X86_64 if name == "x86_64" and wide else None


def program(machine: Machine, process: int, *, programs: bool, netlink: bool) -> list[Step]:
    """The filter, as the kernel runs it at each system call of this process."""
    steps: list[Step] = [
        *_by_machine(machine),
        *(_if(_GREATER, _ARMS_OWN - 1, _ALLOWED) if machine is ARM else []),
        *_if(_GREATER, _NEWEST, [_fail(errno.ENOSYS)]),
    ]
    for name, numbers in CALLS.items():
        if (number := numbers[machine.column]) >= 0:
            steps += _if(_EQUAL, number, _decision(name, process, programs=programs, netlink=netlink))
    return [*steps, *_ALLOWED]


def _by_machine(machine: Machine) -> list[Step]:
    """Refuse a call by another architecture's table, and load the number of any other."""
    wrong = _unless(_EQUAL, machine.audit, _fail(errno.EPERM))
    return [(_LOAD, 0, 0, _MACHINE), *wrong, (_LOAD, 0, 0, _NUMBER)]


def _no_typing() -> list[Step]:
    refused = _fail(errno.EPERM)
    return [_argument(1), *(step for code in _FAKE_INPUT for step in _if(_EQUAL, code, [refused])), *_ALLOWED]


def _decision(name: str, process: int, *, programs: bool, netlink: bool) -> list[Step]:
    """What becomes of one of these calls: the end of the filter in any case."""
    refused = _fail(errno.EPERM)
    if name in _ON_ITSELF:
        return [_argument(0), *_unless(_EQUAL, process, refused), *_ALLOWED]
    if name == "prlimit64":
        return [_argument(0), *_if(_EQUAL, 0, _ALLOWED), *_unless(_EQUAL, process, refused), *_ALLOWED]
    if name == "clone" and programs:
        return [_argument(0), *_if(_ANY_BIT, _NEW_NAMESPACES, [refused]), *_ALLOWED]
    if name == "clone":
        return [_argument(0), *_unless(_ANY_BIT, _NEW_THREAD, refused), *_ALLOWED]
    if name == "clone3":  # whose arguments no filter can see: without it, C libraries take clone
        return [_fail(errno.ENOSYS)]
    if name in _OF_PROGRAMS and programs:
        return _ALLOWED
    if name == "socket" and netlink:
        return [_argument(0), *_unless(_EQUAL, _NETLINK, refused), *_ALLOWED]
    if name == "ioctl":
        return _no_typing()
    return [refused]


def _if(jump: int, operand: int, then: list[Step]) -> list[Step]:
    return [(jump, 0, len(then), operand), *then]


def _unless(jump: int, operand: int, then: Step) -> list[Step]:
    return [(jump, 1, 0, operand), then]


def _argument(number: int) -> Step:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * number)


def _fail(code: int) -> Step:
    return (_RETURN, 0, 0, _FAIL | code)


_ALLOWED: list[Step] = [(_RETURN, 0, 0, _ALLOW)]
