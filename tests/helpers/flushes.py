"""What was flushed to the storage, seen at `os.fsync` and `os.fdatasync`, whoever calls them; and flushes that fail."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

_CALLS = ("fsync", "fdatasync")


class Flushes:
    """Every flush from here on: a file as it was then, a folder with the names that it had then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._files: set[tuple[int, int, int]] = set()
        self._names: set[tuple[int, int, str]] = set()
        for call in _CALLS:
            monkeypatch.setattr(os, call, self._noting(getattr(os, call)))

    def _noting(self, flush: Callable[[int], None]) -> Callable[[int], None]:
        def noting(descriptor: int) -> None:
            flush(descriptor)
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                self._names |= {(status.st_dev, status.st_ino, name) for name in os.listdir(descriptor)}
            else:
                self._files.add((status.st_dev, status.st_ino, status.st_size))

        return noting

    def has_content(self, path: Path) -> bool:
        """Whether the file was flushed when it was as long as it is now."""
        status = path.stat()
        return (status.st_dev, status.st_ino, status.st_size) in self._files

    def has_name(self, path: Path) -> bool:
        """Whether its folder was flushed when this name stood in it."""
        status = path.parent.stat()
        return (status.st_dev, status.st_ino, path.name) in self._names


def fail(monkeypatch: pytest.MonkeyPatch, number: int, *, of_folders: bool) -> None:
    """Let every flush of a folder fail with this error, or every flush of a file; the others go well."""

    def failing(flush: Callable[[int], None]) -> Callable[[int], None]:
        def perhaps(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
                raise OSError(number, os.strerror(number))
            flush(descriptor)

        return perhaps

    for call in _CALLS:
        monkeypatch.setattr(os, call, failing(getattr(os, call)))
