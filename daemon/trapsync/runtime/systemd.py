"""READY, WATCHDOG, STOPPING: the three words that systemd wants to hear (sd_notify(3)); and a request to root's guard."""

import os
import socket
from contextlib import suppress
from pathlib import Path


def notify(message: str) -> None:
    """Send one sd_notify message, `READY=1` say. Without systemd nothing happens.

    Nor when it does not listen: a daemon that works must not end over a word that nobody heard, and one
    that is not heard for too long is started again anyway.
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
    """How long systemd waits for a sign of life before it kills us, or None when it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if microseconds.isdigit() and meant_for_us else None


def ask_for_reboot(reason: str) -> bool:
    """Leave word for root's guard (systemd/reboot-guard), who may reboot the Pi; whether there was a place for it.

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
