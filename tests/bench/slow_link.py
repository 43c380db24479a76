"""A slow link: two network namespaces, and between them every packet waits its time in a program.

Each side is a TUN device; what is read from one is written to the other after it had its turn on a line of so
many bits a second and then half a round trip has passed. The kernel's own netem would do, where it is built.
Run as a program: `python -m bench.slow_link NEAR FAR RATE ROUND_TRIP`; needs root.
"""

import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import external_programs
import processes

NEAR, FAR = "10.211.7.1", "10.211.7.2"
_TUNSETIFF = 0x400454CA
_TUN, _NO_PACKET_INFORMATION = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_QUEUE = 192 * 1024  # bytes that wait for their turn on the line; what comes then is dropped, as by a modem
_NAMESPACES = Path("/run/netns")


@dataclass
class _Line:
    """One direction: packets leave in their order, each when it had its turn and its delay."""

    out: int
    rate: float  # bytes per second
    delay: float  # seconds
    free_at: float = 0.0
    sent: int = 0
    packets: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self, packet: bytes, now: float) -> None:
        start = max(now, self.free_at)
        if (start - now) * self.rate + len(packet) > _QUEUE:
            return
        self.free_at = start + len(packet) / self.rate
        self.sent += len(packet)
        self.packets.append((self.free_at + self.delay, packet))

    def give(self, now: float) -> None:
        while self.packets and self.packets[0][0] <= now:
            try:
                os.write(self.out, self.packets.popleft()[1])
            except BlockingIOError:
                return

    def wait(self, now: float) -> float:
        return max(0.0, self.packets[0][0] - now) if self.packets else 1.0


class SlowLink:
    """A link that is up. `near` and `far` are what to put before a command that is to run there."""

    def __init__(self, process: "subprocess.Popen[str]", near: str, far: str) -> None:
        self._process = process
        self.near = [_ip(), "netns", "exec", near]
        self.far = [_ip(), "netns", "exec", far]

    def sent(self) -> int:
        """How many bytes went over the line from near to far so far, with all headers."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline()))


def missing() -> str | None:
    """Why there can be no such link here; None if there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if not Path("/dev/net/tun").exists() or not external_programs.find("ip"):
        return "there is no TUN device, or no `ip` (iproute2)"
    probe = f"trapsync-{os.getpid()}-probe"
    if subprocess.run([_ip(), "netns", "add", probe], capture_output=True).returncode:
        return "network namespaces cannot be made"
    subprocess.run([_ip(), "netns", "del", probe], check=True)
    return None


@contextmanager
def up(rate: float, round_trip: float) -> Iterator[SlowLink]:
    """A link of so many bits a second and so many seconds there and back, until the block ends."""
    near, far = (f"trapsync-{os.getpid()}-{side}" for side in ("near", "far"))
    made = []
    try:
        for name in (near, far):
            subprocess.run([_ip(), "netns", "add", name], check=True)
            made.append(name)
        command = [sys.executable, "-m", "bench.slow_link", near, far, str(rate), str(round_trip)]
        with processes.started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            yield SlowLink(process, near, far)
            process.kill()
    finally:
        for name in made:
            subprocess.run([_ip(), "netns", "del", name], check=False)


def _ip() -> str:
    found = external_programs.find("ip")
    assert found
    return found


def _device(namespace: str, address: str) -> int:
    """A TUN device in a namespace, up and with its address; this process stays where it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(_NAMESPACES / namespace, os.O_RDONLY)
    assert libc.setns(there, _CLONE_NEWNET) == 0
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"slow0", _TUN | _NO_PACKET_INFORMATION))
    for command in (
        ("addr", "add", f"{address}/30", "dev", "slow0"),
        ("link", "set", "slow0", "up"),
        ("link", "set", "lo", "up"),
    ):
        subprocess.run([_ip(), *command], check=True)
    assert libc.setns(home, _CLONE_NEWNET) == 0
    return device


def main() -> None:
    """Carry packets until killed; a line on stdin asks how many bytes went from near to far."""
    near, far, rate, round_trip = sys.argv[1:]
    devices = _device(near, NEAR), _device(far, FAR)
    rates = float(rate) / 8, float(round_trip) / 2
    lines = {devices[0]: _Line(devices[1], *rates), devices[1]: _Line(devices[0], *rates)}
    print("up", flush=True)
    while True:
        now = time.monotonic()
        wait = min(line.wait(now) for line in lines.values())
        ready, _, _ = select.select([*lines, 0], [], [], wait)
        for one in ready:
            if one in lines:
                _read(one, lines[one])
            elif not os.read(0, 100):
                return
            else:
                print(lines[devices[0]].sent, flush=True)
        for line in lines.values():
            line.give(time.monotonic())


def _read(device: int, line: _Line) -> None:
    """All that waits there."""
    try:
        while packet := os.read(device, 65536):
            line.take(packet, time.monotonic())
    except BlockingIOError:
        pass


if __name__ == "__main__":
    main()
