"""The small copies of the hub's images, made when somebody first asks for them, and who looks at pictures at all.

::

    thumbnails/<device>/<YYYY-MM-DD>/…   the copies
    thumbnails/.making/                  where they are made; emptied at every start
"""

import logging
import os
import secrets
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from trapsync.errors import DamagedImage, ExaminerKilled, StorageError, TrapsyncError
from trapsync.files import durable, failpoint
from trapsync.hub.store import Store
from trapsync.image import Image
from trapsync.jpeg import examination

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds until it is one's turn
_MOST_WITHOUT = 10_000
_COARSE = 2.0  # seconds to which FAT keeps times
MAKING = Path("thumbnails", ".making")  # below the hub's folder


class Examiner(Protocol):
    """Looks at pictures that anybody may have sent; in the program in a process of its own, with limits.

    Raises TrapsyncError, and TimeoutError where it is busy for long.
    """

    def examine(self, folder: Path, name: str) -> Image:
        """Look at a file that a trap has delivered."""

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        """Make both small copies of a file, at `examination.thumbnail_paths`."""


class _Nobody:
    def examine(self, folder: Path, name: str) -> Image:
        """Refuse."""
        raise StorageError("nobody here looks at pictures")

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        """Refuse."""
        raise StorageError("nobody here looks at pictures")


NO_EXAMINER = _Nobody()


class Thumbnails:
    """The small copies of one hub's images."""

    def __init__(self, folder: Path, store: Store, examiner: Examiner) -> None:
        self._folder = folder / "thumbnails"
        self._making = folder / MAKING
        self._store = store
        self._examiner = examiner
        self._one_at_a_time = threading.Lock()  # or two would make the same
        self._without: set[Path] = set()  # of which none can be made, so far as this process knows
        try:
            durable.make_folder(self._making)
            for left_over in self._making.iterdir():
                durable.remove(left_over)
                failpoint.hit("hub: small copy emptied")
        except OSError as error:
            raise StorageError(durable.explain(error, self._making)) from error

    def get(self, image: Path, what: Literal["thumbnail", "thumbnail-mini"]) -> Path:
        """The path of a small copy, which is made if there is none; the image's own if none can be made."""
        copies = self._paths(image)
        wanted = copies[what == "thumbnail-mini"]
        if _is_newer(wanted, image):
            return wanted
        if image in self._without or not self._one_at_a_time.acquire(timeout=_PATIENCE):
            return image
        try:
            if not _is_newer(wanted, image):  # somebody else may have made it meanwhile
                self._make(image, copies)
        except FileNotFoundError:  # there is no image any more
            raise
        except (TrapsyncError, OSError) as error:  # late, full, read-only
            log.warning("no thumbnail of %s: %s", image.name, error)
            if isinstance(error, DamagedImage) and not isinstance(
                error, ExaminerKilled
            ):  # which is so tomorrow, too, and may have taken a minute
                self._without = {image, *list(self._without)[: _MOST_WITHOUT - 1]}
            return image
        finally:
            self._one_at_a_time.release()
        return wanted

    def delete(self, image: Path) -> None:
        """Delete both copies of an image, as far as there are any. What cannot be removed stays, and is told."""
        self._without.discard(image)
        for copy in self._paths(image):
            try:
                copy.unlink(missing_ok=True)
            except OSError as error:
                log.error("a small copy of a deleted image stays: %s", durable.explain(error, copy))
            failpoint.hit("hub: small copy deleted")

    def _make(self, image: Path, copies: tuple[Path, Path]) -> None:
        """Have them made of a link to the image: who makes them may read `.incoming`, and no image of others."""
        name = f"{secrets.token_hex(8)}.jpg"
        source = self._store.incoming / name
        made = examination.thumbnail_paths(self._making, name)
        came = image.stat().st_mtime
        try:
            _link(image, source)
            self._examiner.make_thumbnails(self._store.incoming, name, self._making)
            durable.make_folder(copies[0].parent)
            for one, place in zip(made, copies, strict=True):
                _make_newer(one, came)
                one.rename(place)
                failpoint.hit("hub: small copy in place")
        finally:
            for one in (source, *made):
                one.unlink(missing_ok=True)
                failpoint.hit("hub: small copy made")

    def _paths(self, image: Path) -> tuple[Path, Path]:
        return examination.thumbnail_paths(self._folder, str(image.relative_to(self._store.images)))


def _is_newer(copy: Path, image: Path) -> bool:
    """Whether there is a copy, made since the image came. Raises FileNotFoundError where there is no image."""
    return copy.exists() and copy.stat().st_mtime >= image.stat().st_mtime


def _make_newer(copy: Path, came: float) -> None:
    """Have a copy be newer than its image where the clock went back since that came: it would be made each time."""
    if copy.stat().st_mtime < came:
        with suppress(OSError):  # of a file of somebody else, on a stick say
            os.utime(copy, (came + _COARSE, came + _COARSE))


def _link(image: Path, name: Path) -> None:
    """Give a file a second name; a copy where the disk knows no links (exFAT)."""
    try:
        os.link(image, name)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(image, name)
    failpoint.hit("hub: small copy begun")
