"""A real hub on a free port of the loopback, in a thread: the other end for tests.

::

    with hub_server.running(tmp_path / "hub") as hub:
        destination = ... hub.url, hub.user, hub.password ...
        assert hub.stored() == {"0a5bb6f4.2026-06-20_20-19-15.jpg": md5_of_what_was_sent}
"""

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import requests
import werkzeug.security
from waitress import wasyncore

from trapsync.clock import Clock, SystemClock
from trapsync.hub import accounts
from trapsync.hub.accounts import Role
from trapsync.hub.app import LARGEST_BODY, Hub, make_app
from trapsync.hub.server import address, listen
from trapsync.hub.store import Row, Store, by_ranges
from trapsync.hub.thumbnails import Examiner
from trapsync.image import Image
from trapsync.jpeg import examination
from trapsync.net.invitation import Terms, hash_of
from trapsync.settings.project import Project

PASSWORD = "a password for tests"
USERS: dict[str, Role] = {"owner": "admin", "trap": "manager", "reader": "viewer"}


@dataclass(frozen=True)
class RunningHub:
    """A hub that listens. `user` and `password` are those of the trap, who may upload but not delete."""

    hub: Hub
    url: str
    port: int
    stop: Callable[[], object]
    user: str = "trap"
    password: str = PASSWORD

    @property
    def folder(self) -> Path:
        """The hub's folder, with `images/` and `hub.sqlite` in it."""
        return self.hub.folder

    @property
    def store(self) -> Store:
        """What the hub keeps."""
        return self.hub.store

    def rows(self) -> list[Row]:
        """All images that the hub has a row for."""
        return list(self.store.find(by_ranges([("%", "0000", "9999")])))

    def stored(self) -> dict[str, str]:
        """File name to md5, from the rows; each row's file is known to stand there."""
        paths = {self.store.path(row): row["md5"] for row in self.rows()}
        assert all(path.is_file() for path in paths)
        return {path.name: md5 for path, md5 in paths.items()}

    def auth(self, user: str = "trap") -> tuple[str, str]:
        """How a client that has a token shows it. One of USERS is made when it is first wanted."""
        accounts = self.hub.accounts
        if user not in accounts.names():  # not all of them at once: hashing passwords is slow by design
            accounts.add(user, PASSWORD, USERS[user])
        known = accounts.named(user)
        assert known is not None
        return accounts.token(known)[0], ""

    def join(self, device: str, password: str, groups: tuple[str, ...] = ()) -> None:
        """Make the account of a trap, as `trapsync join` does."""
        secret, wall = secrets.token_hex(8), SystemClock().wall()
        code = {"secret_hash": hash_of(secret), "until": wall + 60, "groups": groups}
        self.hub.enrolment.invite(json.dumps(code).encode(), "owner")
        asked = {"secret": secret, "device": device, "token_sha256": hash_of(password)}
        asked["fingerprint"] = Terms(groups=groups).fingerprint()
        self.hub.enrolment.join(json.dumps(asked).encode())

    def ask(self, path: str, body: Any, user: str = "trap") -> requests.Response:
        """POST a JSON body as that user."""
        return requests.post(f"{self.url}/{path}", json=body, auth=self.auth(user), timeout=30)

    def upload(
        self, name: str, content: bytes, md5: str | None = None, user: str = "trap"
    ) -> requests.Response:
        """POST an image as the Sticky Pi client does; without the md5 part when `md5` is None."""
        return requests.post(
            f"{self.url}/_put_new_images",
            files={name: (name, content, "application/jpeg")},
            data={} if md5 is None else {f"{name}.md5": md5},
            auth=self.auth(user),
            timeout=30,
        )


class InThisProcess:
    """Looks at pictures without a process of its own, which would cost each test a second."""

    def examine(self, folder: Path, name: str) -> Image:
        """Look at a file."""
        return examination.examine_delivered(folder, name)

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        """Make both small copies."""
        examination.thumbnails(folder, name, into)


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Passwords that are set meanwhile are checked in no time, not in the third of a second that is right."""
    cheap = partial(werkzeug.security.generate_password_hash, method="pbkdf2:sha256:1")
    with mock.patch.object(accounts, "generate_password_hash", cheap):
        yield


class _Stop(wasyncore.dispatcher):  # type: ignore[misc]
    """Raises SystemExit in the server's loop, as a signal does in the program."""

    def writable(self) -> bool:
        """Never: the loop would turn without a pause to say that it could write."""
        return False

    def handle_read(self) -> None:
        raise SystemExit


@contextmanager
def running(
    folder: Path,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    clock: Clock | None = None,
    examiner: Examiner | None = None,
    largest_body: int = LARGEST_BODY,
    min_free: int = 0,
    project: Project | None = None,
    **outside: str,
) -> Iterator[RunningHub]:
    """A hub that listens until the block ends. `outside`: `behind_proxy` and `url`.

    A hub that comes back after an outage is the same folder and the same port once more.
    """
    hub = Hub.open(folder, clock, examiner or InThisProcess(), min_free=min_free, project=project)
    if "trap" not in hub.accounts.names():
        hub.accounts.add("trap", PASSWORD, "manager")
    sockets: dict[int, Any] = {}
    server = listen(make_app(hub, largest_body=largest_body), host, port, sockets, **outside)
    ours, its = socket.socketpair()
    _Stop(its, sockets)
    thread = threading.Thread(target=server.run, name="hub", daemon=True)
    thread.start()
    try:
        url = address(server)
        yield RunningHub(hub, url, urlsplit(url).port or 0, partial(ours.send, b"stop"))
    finally:
        ours.close()  # which stops it too
        thread.join(10)
        assert not thread.is_alive()
        wasyncore.close_all(sockets)
        hub.database.close()
