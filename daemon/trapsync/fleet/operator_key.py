"""The operator's key file: what signs, the number of the last document that it signed, and the history beside it.

::

    ed25519-private:…             the secret key
    last-number:12                every document takes the next one; nobody else can raise it

Beside `moths.key` lies `moths.key.history`: a line of JSON for each document that was published with it.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trapsync.clock import iso
from trapsync.errors import SettingsError, StorageError, one_line
from trapsync.files import durable
from trapsync.net import foreign_json
from trapsync.remote import document
from trapsync.remote.document import Document, PrivateKey
from trapsync.remote.record import LARGEST_NUMBER
from trapsync.settings.config_file import read_secret

_LAST = re.compile(r"last-number:(\d{1,16})")
_LARGEST_HISTORY = 4 * 2**20  # bytes; ten thousand documents
_LARGEST_LINE = 2 * document.LARGEST
_SHOWN = ("at", "version", "to", "kind", "place", "note")


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """A key, its file, and the number of the last document that it signed on this computer."""

    path: Path
    private: PrivateKey
    last: int = 0

    @property
    def id(self) -> str:
        """The id of its public half, by which documents name it."""
        return self.private.public.id

    @classmethod
    def read(cls, path: Path) -> "OperatorKey":
        """Read the file; SettingsError if there is none, or others could read it."""
        text, *more = read_secret(path, "the private key").splitlines()
        found = _LAST.fullmatch(more[0].strip()) if more else None
        if more and not (found and int(found[1]) <= LARGEST_NUMBER):
            raise SettingsError(
                f'{path}: its second line must be "last-number:" and the number of the last document'
            )
        return cls(path, document.private_from_text(text.strip(), path), int(found[1]) if found else 0)

    def keep(self, last: int) -> None:
        """Write down that this number is used. Raises StorageError: then nothing may be signed with it."""
        now = OperatorKey.read(self.path)
        if now.last >= last:
            raise StorageError(f"{self.path}: number {last} was used in between; push again")
        path = Path(os.path.realpath(self.path))
        try:
            replace_secret(path, f"{self.private}\nlast-number:{last}\n")
        except OSError as error:
            raise StorageError(
                f"the number of the last document is kept in the key's file: {durable.explain(error, path)}"
            ) from error

    def note(self, signed: Document, data: bytes, place: str, at: str) -> None:
        """Add a document to the history. It is lost where that cannot be written: the document is published."""
        line: dict[str, Any] = {"version": signed.version, "at": at, "to": signed.to, "kind": signed.kind}
        line |= {"note": signed.note, "place": place, "hash": document.document_hash(data)}
        if signed.kind == "settings":
            line["settings"] = signed.settings
        if signed.resend:
            line |= {"from": iso(signed.resend.since), "until": iso(signed.resend.until)}
        if signed.revoke:
            line["revoke"] = list(signed.revoke)
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with os.fdopen(os.open(self._history, flags, 0o600), "a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    def history(self) -> list[tuple[str, ...]]:
        """What was published with this key from this computer, the newest first.

        When, its number, for whom, its kind, where, and its note: as clean texts.
        """
        try:
            lines = durable.read_plain(self._history, _LARGEST_HISTORY).splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with suppress(ValueError, AttributeError):  # a line that a power cut broke
                plain = foreign_json.decode(line, _LARGEST_LINE)
                found.append(tuple(one_line(plain.get(name, "")) for name in _SHOWN))
        return found[::-1]

    @property
    def _history(self) -> Path:
        return self.path.with_name(f"{self.path.name}.history")


def replace_secret(path: Path, text: str) -> None:
    """Write a file that nobody else may read, durably, instead of the one before. Raises OSError or StorageError."""
    temporary = path.with_name(durable.temporary_name(path.name))
    temporary.unlink(missing_ok=True)  # of an attempt that was cut short
    keep_secret(temporary, text)
    temporary.replace(path)
    durable.flush_folder(path.parent)


def keep_secret(path: Path, text: str) -> None:
    """Write a new file that nobody else may read, durably; one that is there is never overwritten. Raises StorageError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise StorageError(
            f"{path}: is there already, and is not overwritten; name another with --out"
        ) from None
    except OSError as error:
        raise StorageError(durable.explain(error, path)) from None
