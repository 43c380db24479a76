"""Running the hub: its port, the accounts of a first start, and a stop that lets requests finish."""

import fcntl
import ipaddress
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask

from trapsync.errors import SettingsError, StorageError
from trapsync.hub.accounts import DEFAULT_NAME, DEFAULT_PASSWORD
from trapsync.hub.app import LARGEST_BODY, Hub, make_app
from trapsync.hub.fleet import Verify
from trapsync.settings import config_file
from trapsync.spool import overlap

log = logging.getLogger(__name__)
# That requests queue while a fleet comes back is no news, and it says so for each.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)

_THREADS = 4
# Each trap of a fleet that comes back holds a connection for a moment, and one whose link is lost for two
# minutes; with waitress's own hundred the next would not be heard.
_CONNECTIONS = 2000
_GRACE = 4.0  # seconds for requests under way; with the threads' last second it is five


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    password_file: Path | None = None,
    trap_password_file: Path | None = None,
    verify: Verify | None = None,
    say: Callable[[str], None] = log.info,
) -> None:
    """Run the hub in this folder until SIGTERM or SIGINT; to be called in the main thread.

    `password_file` holds the password of the user `trapsync`, an admin, and is needed on any address but
    loopback unless there are users already. `trap_password_file` holds that of the user `trap`, who may upload,
    ask and tell, but neither push nor delete. `verify` refuses pushed documents at the door. `say` is told what
    a person should know. Raises SettingsError or StorageError, one line, when it cannot start.
    """
    with _only_one(folder):
        _allow_files(_CONNECTIONS + 200)
        hub = Hub.open(folder, verify=verify)
        prepare_accounts(hub, host, password_file, say)
        if trap_password_file:
            secret = config_file.read_secret(trap_password_file, "--trap-password-file")
            hub.accounts.add("trap", secret, "read-write")
        server = Server(make_app(hub), host, port)
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        signal.signal(signal.SIGINT, lambda *_: server.stop())
        say(f"the hub listens on {server.address} and keeps images in {hub.store.images}")
        server.run()
        hub.database.close()
        say("the hub has stopped")


def prepare_accounts(
    hub: Hub, host: str, password_file: Path | None = None, say: Callable[[str], None] = log.info
) -> None:
    """See to it that there is somebody to log in, and that a stranger on the network cannot guess how.

    Raises SettingsError on an address that others can reach, when nobody has set a password.
    """
    if password_file is not None:
        password = config_file.read_secret(password_file.absolute(), "--password-file")
        hub.accounts.add(DEFAULT_NAME, password, "admin")
    elif not hub.accounts.names() and is_loopback(host):
        hub.accounts.add(DEFAULT_NAME, DEFAULT_PASSWORD, "admin")
        say(f"made a user for this machine only: {DEFAULT_NAME}, with the password {DEFAULT_PASSWORD}")
    if is_loopback(host):
        return
    if not hub.accounts.names():
        raise SettingsError(
            f"others can reach {host}: write a password into a file and name it with --password-file"
        )
    weak = hub.accounts.with_default_password()
    if weak:
        raise SettingsError(
            f"others can reach {host}, and {weak[0]!r} has a password that anybody would guess: "
            "give another with --password-file"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address. A name other than localhost is taken for open."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """waitress with a stop: it takes no new connections and lets the requests under way finish."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        import waitress

        self._sockets: dict[int, Any] = {}
        self._stopping = False
        # No wake-up for a loop that has closed its pipe. Reentrant, for a signal may come at any moment.
        self._closing = threading.RLock()
        try:
            self._waitress = waitress.create_server(
                app,
                map=self._sockets,
                host=host,
                port=port,
                threads=_THREADS,
                connection_limit=_CONNECTIONS,
                ident="trapsync-hub",
                # Room for the parts' headers; the app itself holds the body to the exact limit.
                max_request_body_size=LARGEST_BODY + 64 * 1024,
                clear_untrusted_proxy_headers=True,
            )
        except (OSError, ValueError) as error:
            self._close()
            raise SettingsError(_why_not(error, host, port)) from error

    @property
    def port(self) -> int:
        """The port; with port 0 the system chose it."""
        listeners = getattr(self._waitress, "effective_listen", None)
        return int(listeners[0][1] if listeners else self._waitress.effective_port)

    @property
    def address(self) -> str:
        """Where it can be reached."""
        listeners = getattr(self._waitress, "effective_listen", None)
        host = listeners[0][0] if listeners else self._waitress.effective_host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def run(self) -> None:
        """Serve until `stop`, then give the requests under way a few seconds."""
        while not self._stopping:
            self._turn(1.0)
        for listener in self._listeners():
            listener.accepting = False
        deadline = time.monotonic() + _GRACE
        while self._is_busy() and time.monotonic() < deadline:
            self._turn(0.1)
        self._waitress.task_dispatcher.shutdown(timeout=1)
        self._close()

    def stop(self) -> None:
        """End `run`. May be called from a signal handler or from another thread, more than once."""
        with self._closing:
            if self._stopping:
                return
            self._stopping = True
            for listener in self._listeners():
                listener.pull_trigger()  # wakes the loop

    def _close(self) -> None:
        with self._closing:
            for one in list(self._sockets.values()):
                one.close()

    def _turn(self, seconds: float) -> None:
        from waitress import wasyncore

        # poll(2), for select(2) knows no file descriptor beyond 1023.
        wasyncore.loop(timeout=seconds, map=self._sockets, count=1, use_poll=True)

    def _listeners(self) -> list[Any]:
        from waitress.server import BaseWSGIServer

        return [one for one in list(self._sockets.values()) if isinstance(one, BaseWSGIServer)]

    def _is_busy(self) -> bool:
        """Whether a request is still coming in, being worked on, or being answered."""
        from waitress.channel import HTTPChannel

        channels = [one for one in list(self._sockets.values()) if isinstance(one, HTTPChannel)]
        return any(one.request or one.requests or one.total_outbufs_len for one in channels)


def _why_not(error: Exception, host: str, port: int) -> str:
    text = str(error).lower()
    if "in use" in text:
        return f"port {port} is in use; choose another with --port"
    if "permission" in text:
        return f"port {port} is for root only; choose one from 1024 on with --port"
    return f"cannot listen on {host}, port {port}: {error}"


def _allow_files(count: int) -> None:
    """Raise the limit of open files, as far as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder: two hubs on one would move each other's files, and a trap must not find them."""
    overlap.require_own_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; choose another folder for the hub") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StorageError(f"{folder}: another hub is running there") from None
    try:
        yield
    finally:
        os.close(descriptor)
