"""The connection to where documents are published and heartbeats are read: a hub, or a folder of any web server."""

import hashlib
import math
import stat
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from trapsync import __version__
from trapsync.clock import Clock
from trapsync.errors import SettingsError, StorageError, TrapsyncError
from trapsync.files import durable
from trapsync.fleet.operator_settings import Operator
from trapsync.net.http import LARGEST_ANSWER, HttpClient
from trapsync.net.http_answer import Answer
from trapsync.net.proxy import proxy_for
from trapsync.net.slots import SLOT
from trapsync.remote.document import LARGEST
from trapsync.settings.config_file import read_secret

# Of an answer about all traps: two thousand of them, each with a heartbeat of 4 kB.
_LARGEST_FLEET, _MOST_VALUES = 8 * 2**20, 500_000


class Overtaken(TrapsyncError):
    """Somebody else pushed since the slot was read; nothing was changed."""


class Connection(Protocol):
    """Holds documents in slots (`device-0123abcd.settings`), and perhaps heartbeats. Raises TrapsyncError."""

    name: str
    hears: bool
    """Whether traps leave their heartbeats there."""

    def documents(self) -> Mapping[str, bytes]:
        """What all slots hold."""

    def put(self, slot: str, data: bytes, before: bytes | None) -> None:
        """Put a document into a slot that held `before`; Overtaken if it holds something else by now."""

    def fleet(self) -> dict[str, Any]:
        """The newest heartbeat of every trap with its age, and the hashes in the slots: as a hub's GET /fleet."""


class HubConnection:
    """A hub."""

    hears = True

    def __init__(
        self, operator: Operator, clock: Clock, sleep: Callable[[float], None], *, password: str = ""
    ) -> None:
        """`password` is used instead of what stands in the operator's file."""
        self.name = operator.hub
        agent = f"trapsync/{__version__}"
        proxy = proxy_for(operator.hub, operator, "owner.toml")
        self._door = HttpClient(
            operator.hub, agent, clock, sleep, timeout=30.0, authorities=operator.ca_file, proxy=proxy
        )
        if not password and operator.password_file:
            password = read_secret(operator.password_file, "the hub's password")
        self._auth = (operator.username, password) if password else None

    def documents(self) -> dict[str, bytes]:
        """Each slot that the hub names."""
        names = [name for name in self.fleet()["slots"] if SLOT.fullmatch(name)]
        answers = {name: self.ask("GET", f"/pushed/{name}") for name in names}
        return {name: answer.body for name, answer in answers.items() if answer.status == HTTPStatus.OK}

    def put(self, slot: str, data: bytes, before: bytes | None) -> None:
        """Publish with If-Match, so that of two operators one is told."""
        guard = {"If-None-Match": "*"} if before is None else {"If-Match": f'"{_hash(before)}"'}
        answer = self.ask("PUT", f"/pushed/{slot}", data, guard)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            raise Overtaken(f"{self.name}: {answer.line}")
        if answer.json(dict).get("hash") != _hash(data):
            raise TrapsyncError(f"{self.name}: it did not confirm what was pushed")

    def fleet(self) -> dict[str, Any]:
        """As the hub says."""
        fleet = self.ask("GET", "/fleet", largest=_LARGEST_FLEET).json(dict, most_values=_MOST_VALUES)
        if not isinstance(fleet.get("traps"), list) or not isinstance(fleet.get("slots"), dict):
            raise TrapsyncError(f"{self.name}: this is no hub")
        return fleet

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        largest: int = LARGEST_ANSWER,
    ) -> Answer:
        """Send a request with the operator's account. Raises SettingsError where that is rejected, or may not do this."""
        answer = self._door.send(method, path, body, auth=self._auth, headers=headers, largest=largest)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise SettingsError(
                f"{self.name}: login rejected (401); check the user and the password file, or type: trapsync hub login"
            )
        if answer.status == HTTPStatus.FORBIDDEN:
            raise SettingsError(f"{self.name}: this account may not do that (403); it takes an admin's")
        if answer.status == HTTPStatus.BAD_REQUEST:
            raise TrapsyncError(f"{self.name}: {answer.line}")
        return answer


class FolderConnection:
    """A folder that a web server shows, or that is copied to one."""

    hears = False

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._slots = folder / "pushed"
        if not folder.is_dir():
            raise StorageError(f"{folder}: there is no such folder")

    def documents(self) -> dict[str, bytes]:
        """Each file that has the name of a slot."""
        files = self._slots.iterdir() if self._slots.is_dir() else ()
        found = [file for file in files if SLOT.fullmatch(file.name) and _size(file) <= LARGEST]
        return {file.name: file.read_bytes() for file in found}

    def put(self, slot: str, data: bytes, before: bytes | None) -> None:
        """Replace the file as a whole."""
        file = self._slots / slot
        if (file.read_bytes() if file.exists() else None) != before:
            raise Overtaken(f"{file}: somebody else pushed in between; look at it, and push again")
        durable.write(file, [data])

    def fleet(self) -> dict[str, Any]:
        """Nobody leaves a heartbeat in a folder."""
        return {
            "traps": [],
            "slots": {name: {"hash": _hash(data)} for name, data in self.documents().items()},
        }


def _size(file: Path) -> float:
    """Its size; endless for what is no file, such as a pipe."""
    status = file.stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else math.inf


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
