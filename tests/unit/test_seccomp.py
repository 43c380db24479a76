"""The filter of system calls: its numbers, and what it decides on each architecture."""

import ctypes
import ctypes.util
import errno
import os
from collections.abc import Sequence

import pytest

from trapsync.runtime import seccomp

MACHINES = {"x86_64": seccomp.X86_64, "aarch64": seccomp.AARCH64, "arm": seccomp.ARM}
OWN = 4321  # the process id that the filter is made for
ALLOWED = 0
# fchmodat2 came after libseccomp 2.5.
NEWER = {"fchmodat2"}

each_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="there is no libseccomp here")
@each_machine
def test_the_numbers_are_those_of_libseccomp(machine: seccomp.Machine) -> None:
    ask = ctypes.CDLL(ctypes.util.find_library("seccomp")).seccomp_syscall_resolve_name_arch
    ask.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    theirs = {name: max(-1, ask(machine.audit, name.encode())) for name in seccomp.CALLS}
    ours = {name: numbers[machine.column] for name, numbers in seccomp.CALLS.items()}
    known = {name for name, number in theirs.items() if number >= 0} | (set(theirs) - NEWER)
    assert {name: ours[name] for name in known} == {name: theirs[name] for name in known}


def decide(
    steps: list[seccomp.Step], machine: seccomp.Machine, number: int, arguments: Sequence[int] = ()
) -> int:
    """Run the filter as the kernel does; the errno that a call ends with, 0 for one that is allowed."""
    words = {0: number, 4: machine.audit} | {16 + 8 * place: word for place, word in enumerate(arguments)}
    at = loaded = 0
    while True:
        code, then, otherwise, operand = steps[at]
        at += 1
        if code == seccomp._RETURN:
            assert operand == seccomp._ALLOW or operand >> 16 == seccomp._FAIL >> 16
            return ALLOWED if operand == seccomp._ALLOW else operand & 0xFFFF
        if code == seccomp._LOAD:
            loaded = words.get(operand, 0)
        else:
            holds = {
                seccomp._EQUAL: loaded == operand,
                seccomp._GREATER: loaded > operand,
                seccomp._ANY_BIT: bool(loaded & operand),
            }
            at += then if holds[code] else otherwise


def decided(machine: seccomp.Machine, call: str, *arguments: int, camera: bool = False) -> int:
    steps = seccomp.program(machine, OWN, programs=camera, netlink=camera)
    return decide(steps, machine, seccomp.CALLS[call][machine.column], arguments)


@each_machine
def test_of_other_processes_nothing_is_allowed_and_of_its_own_what_a_program_needs(
    machine: seccomp.Machine,
) -> None:
    for call in ("kill", "tgkill", "rt_sigqueueinfo", "prlimit64"):
        assert decided(machine, call, OWN) == ALLOWED
        assert decided(machine, call, OWN + 1) == decided(machine, call, 2**32 - 1) == errno.EPERM
    assert decided(machine, "prlimit64", 0) == ALLOWED
    assert decided(machine, "kill", 0) == errno.EPERM  # its process group
    for call in ("ptrace", "process_vm_writev", "pidfd_getfd", "unshare", "io_uring_setup"):
        assert decided(machine, call, OWN) == decided(machine, call, OWN, camera=True) == errno.EPERM


@each_machine
def test_an_examiner_has_threads_and_no_sockets_or_programs(machine: seccomp.Machine) -> None:
    assert decided(machine, "clone", 0x3D0F00) == ALLOWED  # of pthread_create
    assert decided(machine, "clone", 17) == errno.EPERM  # of fork
    assert decided(machine, "clone3") == errno.ENOSYS
    assert decided(machine, "execve") == errno.EPERM
    for family in (1, 2, 10, 16):
        assert decided(machine, "socket", family) == errno.EPERM


@each_machine
def test_the_camera_has_programs_and_udev_and_no_network(machine: seccomp.Machine) -> None:
    assert decided(machine, "clone", 17, camera=True) == decided(machine, "execve", camera=True) == ALLOWED
    assert decided(machine, "clone", 17 | 0x10000000, camera=True) == errno.EPERM  # with a user namespace
    assert decided(machine, "socket", 16, camera=True) == ALLOWED
    for family in (1, 2, 10, 17):
        assert decided(machine, "socket", family, camera=True) == errno.EPERM


@each_machine
def test_nobody_types_into_the_terminal(machine: seccomp.Machine) -> None:
    assert decided(machine, "ioctl", 0, 0x5412) == decided(machine, "ioctl", 0, 0x541C) == errno.EPERM
    assert decided(machine, "ioctl", 0, 0x5413) == ALLOWED  # the window's size


@each_machine
def test_a_call_that_is_not_known_is_answered_as_by_an_older_kernel(machine: seccomp.Machine) -> None:
    steps = seccomp.program(machine, OWN, programs=False, netlink=False)
    assert decide(steps, machine, seccomp._NEWEST) == ALLOWED
    assert decide(steps, machine, seccomp._NEWEST + 1) == errno.ENOSYS
    # 32-bit ARM has some of its own far above: flushing its cache, without which no generated code runs.
    cache_flush = decide(steps, machine, 0xF0002)
    assert cache_flush == (ALLOWED if machine is seccomp.ARM else errno.ENOSYS)


@each_machine
def test_the_calls_of_another_architecture_are_no_way_out(machine: seccomp.Machine) -> None:
    steps = seccomp.program(machine, OWN, programs=False, netlink=False)
    others = [other for other in MACHINES.values() if other is not machine]
    assert {decide(steps, other, 0) for other in others} == {errno.EPERM}


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("x86_64", 8, seccomp.X86_64),
        ("aarch64", 8, seccomp.AARCH64),
        ("aarch64", 4, seccomp.ARM),  # Raspberry Pi OS of 32 bits on a Pi 4
        ("armv6l", 4, seccomp.ARM),
        ("x86_64", 4, None),
        ("riscv64", 8, None),
    ],
)
def test_the_architecture_is_that_of_the_program(
    monkeypatch: pytest.MonkeyPatch, name: str, width: int, expected: seccomp.Machine | None
) -> None:
    monkeypatch.setattr(ctypes, "sizeof", lambda _type: width)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "trap", "6.12", "#1", name)))
    assert seccomp.this_machine() is expected
