"""A real hub on a free port of the loopback, in a thread: the other end for tests.

::

    with hub_server.running(tmp_path / "hub") as hub:
        destination = ... hub.url, hub.user, hub.password ...
        assert hub.stored() == {"0a5bb6f4.2026-06-20_20-19-15.jpg": md5_of_what_was_sent}
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from trapsync import examine
from trapsync.clock import Clock
from trapsync.hub.accounts import Role
from trapsync.hub.app import LARGEST_BODY, Hub, make_app
from trapsync.hub.intake import Examine
from trapsync.hub.server import Server
from trapsync.hub.store import Row, Store

PASSWORD = "a password for tests"
USERS: dict[str, Role] = {"owner": "admin", "trap": "read-write", "reader": "read-only"}


@dataclass(frozen=True)
class RunningHub:
    """A hub that listens. `user` and `password` are those of the trap, who may upload but not delete."""

    hub: Hub
    url: str
    port: int
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
        return self.store.series("%", "0000", "9999")

    def stored(self) -> dict[str, str]:
        """File name to md5, from the rows; each row's file is known to stand there."""
        paths = {self.store.path(row): row["md5"] for row in self.rows()}
        assert all(path.is_file() for path in paths)
        return {path.name: md5 for path, md5 in paths.items()}

    def token(self, user: str = "trap") -> str:
        """A fresh token, got over HTTP."""
        answer = requests.post(f"{self.url}/get_token", auth=(user, self.password), timeout=10)
        answer.raise_for_status()
        return str(answer.json()["token"])

    def ask(self, path: str, body: Any, user: str = "trap") -> requests.Response:
        """POST a JSON body with that user's password."""
        return requests.post(f"{self.url}/{path}", json=body, auth=(user, self.password), timeout=30)

    def upload(
        self, name: str, content: bytes, md5: str | None = None, user: str = "trap"
    ) -> requests.Response:
        """POST an image as the Sticky Pi client does; without the md5 part when `md5` is None."""
        return requests.post(
            f"{self.url}/_put_new_images",
            files={name: (name, content, "application/jpeg")},
            data={} if md5 is None else {f"{name}.md5": md5},
            auth=(user, self.password),
            timeout=30,
        )


@contextmanager
def running(
    folder: Path,
    *,
    port: int = 0,
    clock: Clock | None = None,
    examiner: Examine = examine.examine,
    largest_body: int = LARGEST_BODY,
) -> Iterator[RunningHub]:
    """A hub with the three USERS, listening until the block ends.

    A hub that comes back after an outage is the same folder and the same port once more.
    """
    hub = Hub.open(folder, clock, examiner)
    for name in USERS.keys() - set(hub.accounts.names()):  # hashing passwords is slow by design
        hub.accounts.add(name, PASSWORD, USERS[name])
    server = Server(make_app(hub, largest_body=largest_body), "127.0.0.1", port)
    thread = threading.Thread(target=server.run, name="hub", daemon=True)
    thread.start()
    try:
        yield RunningHub(hub, server.address, server.port)
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()
        hub.database.close()
