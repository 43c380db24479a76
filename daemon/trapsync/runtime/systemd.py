"""Messages to systemd (sd_notify(3)): READY, WATCHDOG, STOPPING; and the request for a reboot."""

import os
import socket
from contextlib import suppress
from pathlib import Path


def notify(message: str) -> None:
    """Send one sd_notify message, `READY=1` say. Without systemd nothing happens.

    Nor when it cannot be reached: that must not end a daemon that works, and if it lasts, systemd starts the
    daemon again anyway.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(address)
        sock.sendall(message.encode())


def watchdog_seconds() -> float | None:
    """Return how long systemd waits for WATCHDOG before it kills us, or None when it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if microseconds.isdigit() and meant_for_us else None


def ask_for_reboot(reason: str) -> bool:
    """Leave a request for root's guard (systemd/reboot-guard), which may reboot the Pi; return whether that could be.

    That place is RuntimeDirectory= of the unit: where the daemon is no service, nothing happens.
    """
    folder = os.environ.get("RUNTIME_DIRECTORY")
    if not folder:
        return False
    try:
        with Path(folder, "reboot-wanted").open("w", encoding="utf-8") as file:
            file.write(reason[:300])
    except OSError:
        return False
    return True
