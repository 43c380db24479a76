"""The mark in a folder that images are delivered to, `.trapsync-destination`, which holds the folder's own id::

    trapsync destination
    id = 0123456789abcdef0123456789abcdef

An operator makes it, empty; the program writes the id. The folder is the same place wherever it is mounted, and a
folder with another id is another place.
"""

import os
import re
import secrets

from trapsync.errors import StorageError
from trapsync.files import failpoint
from trapsync.files.folder import Folder, NotRegular

NAME = ".trapsync-destination"

_TEMPORARY = [f"{NAME}{number}.part" for number in ("", "-2", "-3", "-4")]  # another where one is taken
_LARGEST = 4096  # bytes
_TEXT = re.compile(rb"trapsync destination\s+id\s*=\s*([0-9a-f]{32})\s*")


def read(folder: Folder) -> str:
    """Read the id in a folder's mark, '' if it has none yet. Raises FileNotFoundError without a mark, else StorageError."""
    mark = folder.path / NAME
    try:
        with folder.file(NAME) as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise
    except NotRegular:
        raise StorageError(f"{mark} is no regular file; remove it, then run: sudo touch {mark}") from None
    except OSError as error:
        raise StorageError(f"{mark} cannot be read: {error.strerror}") from error
    if not content.strip(b"\0 \t\r\n"):  # made manually, or cut off by a loss of power
        return ""
    if match := _TEXT.fullmatch(content):
        return match[1].decode()
    raise StorageError(
        f"{mark} was not written by trapsync; if it is the right folder, run: sudo truncate -s 0 {mark}"
    )


def write(folder: Folder) -> str:
    """Write an id into a folder's mark, durably, and return the one that it holds then."""
    temporary, file = folder.new_of(_TEMPORARY)
    try:
        with file:
            file.write(f"trapsync destination\nid = {secrets.token_hex(16)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        failpoint.hit("mark: flushed")
        folder.replace(temporary, NAME)
        failpoint.hit("mark: renamed")
        folder.flush()
    except BaseException:
        folder.discard(temporary)
        raise
    return read(folder)  # another trap may have written one at the same moment
