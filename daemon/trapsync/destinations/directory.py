"""A verified copy in a folder: a USB stick, a NAS, a second disk.

Two things go wrong with sticks. They are pulled out, and the folder that is left belongs to the card: so
nothing is written before the stick has proved that it is there, and everything is then done relative to
the folder that was proved, not to its path. And they lie: so a copy is read back before it gets its name.
"""

import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from trapsync import durable, failpoint
from trapsync.body import FilePiece, opened
from trapsync.destinations import Alone, Finding, Receipt, Tools, manifest
from trapsync.errors import DeliveryError, Failed, Refused, StorageError, Unreachable
from trapsync.image import Image
from trapsync.settings import Destination
from trapsync.throttle import Throttle

MARK = ".trapsync-destination"

_CHUNK = 256 * 1024
# What FAT and exFAT do not take in a name; the slash never gets here.
_NOT_FAT = re.compile(r'[\x00-\x1f"*:<>?\\|]|[. ](/|$)')
_ALMOST_FULL = 10**9


class Settings(Destination, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "directory"."""

    path: Path
    proof: Literal["mark", "mount"] = "mark"
    hotplug: bool = False


def connect(name: str, settings: Settings, tools: Tools) -> "Directory":
    """Make the destination; the folder is not touched yet."""
    return Directory(name, settings, tools)


class Directory(Alone):
    """One folder that copies are kept in, below it as `<device>/<date>/<name>`."""

    # Only manifests are read for it, one per day of images.
    batch = 512
    identity = None
    while_away = "nothing"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        self.settings = settings
        self._throttle = Throttle(settings.bandwidth, tools.clock.monotonic, tools.sleep)
        # One copy at a time: a stick gains nothing from two, and a manifest has one writer.
        self._lock = threading.Lock()

    def close(self) -> None:
        """Nothing is held open between calls."""

    def place(self) -> str:
        """The folder, by its path: TODO by the id in its mark."""
        return f"directory {self.settings.path}"

    def known(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """What the manifests say, as long as the copies have the size recorded there."""
        by_folder: dict[PurePosixPath, list[Image]] = {}
        for image in images:
            by_folder.setdefault(PurePosixPath(image.place).parent, []).append(image)
        found: dict[int, Receipt | Exception] = {}
        with self._proven() as root:
            for folder, some in by_folder.items():
                entries = manifest.read(root / folder)
                for image in some:
                    entry = entries.get(PurePosixPath(image.place).name)
                    if entry and _size(root / image.place) == entry.size:
                        found[image.id] = self._verdict(image, entry.digest)
        return found

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Copy one image, read the copy back, give it its name, and write it into the manifest."""
        with self._lock, opened(image, path) as file, self._proven(image) as root:
            copy = root / image.place
            size = _size(copy)
            if size is None:
                self._copy(image, file, copy)
            elif size != image.size or (digest := _digest(copy)) != image.sha256:
                raise self._conflict(image, f"{size} bytes" if size != image.size else f"sha256 {digest}")
            manifest.add(copy.parent, copy.name, manifest.Entry(image.sha256, image.size))
            return Receipt(f"sha256:{image.sha256}")

    def _copy(self, image: Image, file: BinaryIO, copy: Path) -> None:
        sent = hashlib.sha256()

        def content() -> Iterator[bytes]:
            source = FilePiece(file, image.size)
            while chunk := source.read(self._throttle.portion(_CHUNK)):
                self._throttle.take(len(chunk))
                sent.update(chunk)
                yield chunk

        def verify(temporary: Path) -> None:
            if sent.hexdigest() != image.sha256:
                raise Failed("the file on the card is not the one that was examined: its digest differs")
            if _digest(temporary) != image.sha256:
                raise Failed(
                    f"read back from {self.settings.path} it differs: the stick is failing, replace it"
                )
            failpoint.hit("copy: verified")

        durable.write(copy, content(), verify=verify)
        failpoint.hit("copy: made")

    def _verdict(self, image: Image, digest: str) -> Receipt | Refused:
        if digest == image.sha256:
            return Receipt(f"sha256:{digest}")
        return self._conflict(image, f"sha256 {digest}")

    def _conflict(self, image: Image, found: str) -> Refused:
        return Refused(
            f"another file is at {self.settings.path / image.place} ({found}): both are kept; "
            f"move that one away, then retry"
        )

    # --- The proof --------------------------------------------------------------------------------------

    @contextmanager
    def _proven(self, image: Image | None = None) -> Iterator[Path]:
        """The destination's own folder, proved to be the right one, under a path that stays with it.

        `/proc/self/fd/N` is the folder that was opened and checked. If the stick is pulled out in
        between, what is done there fails; done by the path it would succeed, on the card.
        """
        if image and not _is_below(image.place):
            raise Refused(f"{image.place!r} is not a place below the folder")
        descriptor = self._open()
        try:
            self._prove(descriptor)
            yield Path(f"/proc/self/fd/{descriptor}")
        except OSError as error:
            raise self._explained(error, image) from error
        except StorageError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise self._explained(error.__cause__, image) from error
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self.settings.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Unreachable(f"the stick is not there: {self.settings.path}: {error.strerror}") from None

    def _prove(self, descriptor: int) -> None:
        path = self.settings.path
        if self.settings.proof == "mark" and not self.settings.hotplug:
            try:
                os.stat(MARK, dir_fd=descriptor)
            except FileNotFoundError:
                raise Unreachable(
                    f"the stick is not there: {path} has no mark; "
                    f"if it is the right folder, run: touch {path / MARK}"
                ) from None
            return
        # On a mounted filesystem, ".." leads out of it.
        others = {Path("/").stat().st_dev, os.stat("..", dir_fd=descriptor).st_dev}
        if os.fstat(descriptor).st_dev in others:
            raise Unreachable(f"the stick is not there: nothing is mounted at {path}")

    def _explained(self, error: OSError, image: Image | None) -> DeliveryError:
        """Which of ours an error of the folder's filesystem is."""
        path = self.settings.path
        place = image.place if image else ""
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return Unreachable(f"{path} is full: put in an empty stick, or free some space")
            case errno.EROFS:
                return Unreachable(f"{path} is read-only: the stick is locked, or it is failing")
            case errno.ENAMETOOLONG | errno.EILSEQ | errno.EFBIG:
                return Refused(f"the filesystem of {path} does not take it: {error.strerror}")
            case errno.EINVAL if _NOT_FAT.search(place):
                return Refused(
                    f'the filesystem of {path} takes no such name; FAT has no : ? * " < > | in names'
                )
            case errno.EACCES | errno.EPERM | errno.ENOTDIR:
                return Unreachable(durable.explain(OSError(error.errno, error.strerror), path / place))
            case _:
                return Unreachable(
                    f"{path}: the stick was pulled out or is failing: {error.strerror or error}"
                )

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the stick is there, takes files, and has room."""
        path = self.settings.path
        try:
            with self._proven() as root:
                space = os.statvfs(root)
                is_card = root.stat().st_dev == Path("/").stat().st_dev
                is_writable = os.access(root, os.W_OK) and not space.f_flag & os.ST_RDONLY
        except DeliveryError as error:
            if self.settings.hotplug:
                return [
                    Finding("ok", self.name, "comes by now and then: no stick is in, or it is safe to pull")
                ]
            return [Finding("failing", self.name, str(error))]
        free = space.f_bavail * space.f_frsize
        if not is_writable:
            return [Finding("failing", self.name, f"{path} cannot be written to")]
        if is_card:
            return [Finding("warning", self.name, f"{path} is on the system's own disk: no second copy")]
        verdict = "ok" if free > _ALMOST_FULL else "warning"
        return [Finding(verdict, self.name, f"{path} is there and has {free / 1e9:.1f} GB free")]


def _is_below(place: str) -> bool:
    parts = PurePosixPath(place)
    return not parts.is_absolute() and ".." not in parts.parts


def _size(path: Path) -> int | None:
    """The size of a file, None when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _digest(path: Path) -> str:
    """The SHA-256 of what is on the stick, not of what the kernel still remembers having written."""
    with path.open("rb", buffering=0) as file:
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()
