"""What child processes answer, read so that nothing runs here that one of them has put into it.

`multiprocessing` unpickles what arrives, and a pickle may call anything. A child that a picture has taken over has no file
and no network (`restricted`); the daemon has both. So only plain data, errors, and the records that are expected are
made of an answer.
"""

import io
import os
import pickle
import sys
from enum import EnumMeta
from multiprocessing import connection, reduction
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import PosixPath
from typing import Any

from trapsync.image import Evidence, Image

_LARGEST = 32 << 20  # bytes of an answer; a picture's header, with all of its texts, has 16 MB at most
_WITH_ERRORS = {"builtins", "sqlite3", "trapsync.errors"}
_records: dict[tuple[str, str], Any] = {}


def expect(*records: Any) -> None:
    """Have answers hold these as well: classes and functions that do no harm, whatever they are called with."""
    _records.update({(one.__module__, one.__qualname__): one for one in records})


expect(Image, Evidence, PosixPath)


class UnknownError(Exception):
    """An error of a kind that no answer has, or something else that belongs into none."""


def _member(kind: Any, name: Any) -> Any:
    """What stands for getattr in an answer: Python 3.11.2, of Debian Bookworm, pickles the members of an enum by it."""
    return kind[name] if isinstance(kind, EnumMeta) else UnknownError


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the class of that name, or one that does nothing. Nothing is imported for it."""
        if record := _records.get((module, name)):
            return record
        if (module, name) == ("builtins", "getattr"):
            return _member
        found = vars(sys.modules[module]).get(name) if module in _WITH_ERRORS else None
        return found if isinstance(found, type) and issubclass(found, Exception) else UnknownError


class Answers(Connection):
    """This process's end of a pipe to a child."""

    def recv(self) -> Any:
        """Read one answer. Raises EOFError when the child has ended, OSError for what is no answer."""
        content = self.recv_bytes(_LARGEST)
        try:
            return _Reader(io.BytesIO(content)).load()
        except Exception as error:
            raise OSError(f"a child process answers nonsense ({error})") from error


# What is handed to a child is an ordinary end there: it takes work from us, functions among it.
reduction.register(Answers, connection.reduce_connection)  # type: ignore[attr-defined] # typeshed lacks it


class Spawn(SpawnContext):
    """Starts children, of which each answer is read as above."""

    def Pipe(self, duplex: bool = True) -> tuple["Connection[Any, Any]", "Connection[Any, Any]"]:  # noqa: N802 - of the standard library
        """Make a pipe: our end, from which answers are read, and the child's."""
        ours, theirs = super().Pipe(duplex)
        with ours:
            return Answers(os.dup(ours.fileno()), readable=ours.readable, writable=ours.writable), theirs
