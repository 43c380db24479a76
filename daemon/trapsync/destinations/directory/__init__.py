"""A verified copy in a folder: a USB stick, a NAS, a second disk.

Two things go wrong with sticks. They are pulled out, and the folder that is left belongs to the card: so nothing is
written before the stick has proved that it is there, and everything is then done relative to the folder that was
proved, not to its path. And they lie: so a copy is read back before it gets its name, and again before an image may
leave the card. A third goes wrong with folders: a link or a mount in them leads back to the spool, and the copy is
the source. So no link is followed, and a copy that is the source itself is no copy.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from trapsync.destinations import DestinationContext, Finding, Receipt, SimpleDestination, WhileAway, finding
from trapsync.destinations.directory import disk_errors, manifest, medium, names
from trapsync.destinations.layouts import Keys, WithLayout
from trapsync.errors import DeliveryError, Failed, NotThere, Refused, StorageError, Unreachable
from trapsync.files import destination_mark, failpoint
from trapsync.files.folder import Folder, NotRegular
from trapsync.image import Image
from trapsync.net.http_body import FilePiece, opened
from trapsync.net.throttle import Throttle

log = logging.getLogger(__name__)

MARK = destination_mark.NAME

_CHUNK = 256 * 1024
_ALMOST_FULL = 10**9
_TOLD = 100


class Settings(WithLayout, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "directory"."""

    path: Path
    mount_check: Literal["mark", "mount"] = "mark"
    hotplug: bool = False


def connect(name: str, settings: Settings, context: DestinationContext) -> "Directory":
    """Make the destination; the folder is not touched yet."""
    return Directory(name, settings, context)


class Directory(SimpleDestination):
    """One folder that copies are kept in, below it under the names of its layout.

    Other bytes under a taken name lie beside it, under a name that their digest gives (see `names.of`).
    """

    # Only manifests are read for it, one per day of images.
    batch = 512
    # The folder itself says which place it is, by the id in its mark.
    identity = None

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self.while_away: WhileAway = "last re-reading" if settings.hotplug else "nothing"
        self._spool = context.spool
        self._device = context.device
        self._keys = Keys(settings, context, is_shared=False)  # other bytes under a name are told apart here
        self._throttle = Throttle(settings.bandwidth, context.clock.monotonic, context.sleep)
        # One copy at a time: a stick gains nothing from two, and a manifest has one writer.
        self._lock = threading.Lock()
        self._id: str | None = None
        self._told: set[str] = set()

    def close(self) -> None:
        """Nothing is held open between calls."""

    @property
    def confirm_batch(self) -> int:
        """Few: every byte of the copies is read."""
        return 16

    def place(self) -> str:
        """The folder's own id, which is written into its mark if there is none yet.

        From then on a medium with another id is unreachable, until it is asked again which place this is.
        """
        with self._lock, self._in_place() as (root, found):
            disk_errors.clear(root)
            self._id = found or destination_mark.write(root)
        return f"directory {self._id}"

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """What the manifests say, as long as the copies have the size recorded there: a note, no proof."""
        found: dict[int, Receipt | Exception] = {}
        with self._proven() as root:
            for number, places in enumerate(self._by_layout(images)):
                by_folder: dict[PurePosixPath, list[tuple[Image, str]]] = {}
                for image, place in places:
                    for path in names.of(place, image) if image.id not in found else ():
                        by_folder.setdefault(path.parent, []).append((image, path.name))
                for folder, asked in by_folder.items():
                    found |= self._found(root, folder, asked, is_earlier=number > 0)
        return found

    def _by_layout(self, images: Sequence[Image]) -> list[list[tuple[Image, str]]]:
        """The paths of images below the folder: where they belong, then where earlier layouts would have put them."""
        paths = [(image, self._keys.all_of(image)) for image in images]
        most = max((len(some) for _, some in paths), default=0)
        return [
            [(image, some[n]) for image, some in paths if n < len(some) and names.is_below(some[n])]
            for n in range(most)
        ]

    def _found(
        self, root: Folder, place: PurePosixPath, asked: list[tuple[Image, str]], *, is_earlier: bool
    ) -> dict[int, Receipt | Exception]:
        """What the manifest of one folder says of these. What an earlier layout's folder hides costs nothing."""
        try:
            with root.below(place.parts) as folder:
                return self._noted(root, folder, place, asked)
        except FileNotFoundError:
            return {}
        except OSError as error:
            reason = self._of_entry(error, root, str(place))
            return {} if is_earlier else dict.fromkeys((image.id for image, _ in asked), reason)

    def _noted(
        self, root: Folder, folder: Folder, place: PurePosixPath, asked: list[tuple[Image, str]]
    ) -> dict[int, Receipt | Exception]:
        try:
            entries = manifest.read(folder, {name for _, name in asked})
        except manifest.NotOurs as error:
            self._tell_once(folder, error)
            return {}
        except OSError as error:
            self._tell_once(folder, self._of_entry(error, root, str(place / manifest.NAME)))
            return {}
        found: dict[int, Receipt | Exception] = {}
        for image, name in asked:
            entry = entries.get(name)
            if image.id in found or entry is None or entry.digest != image.sha256:
                continue
            try:
                status = folder.status(name)
            except (FileNotFoundError, NotRegular):
                continue
            except OSError as error:
                found[image.id] = self._of_entry(error, root, str(place / name))
                continue
            if status.st_size == entry.size and not self._is_source(image, status):
                found[image.id] = Receipt(f"sha256:{image.sha256}", at=str(place / name), noted=True)
        return found

    @staticmethod
    def _of_entry(error: OSError, root: Folder, place: str) -> DeliveryError:
        """What cannot be read there costs what belongs there, and nothing else. Raises Unreachable if nothing can be."""
        reason = disk_errors.explained(error, root, place, is_reading=True)
        if isinstance(reason, Unreachable):
            raise reason from error
        return reason

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """Read each copy again, from the medium. What is not the image is NotThere: it can be copied beside that."""
        found: dict[int, Receipt | Exception] = {}
        with self._proven() as root:
            for image in images:
                try:
                    answer = self._read_again(root, image, at.get(image.id, ""))
                except OSError as error:
                    answer = self._of_entry(error, root, at.get(image.id) or image.place)
                if isinstance(answer, Refused):
                    answer = NotThere(str(answer))
                if answer:
                    found[image.id] = answer
        return found

    def _read_again(self, root: Folder, image: Image, at: str) -> Receipt | DeliveryError | None:
        """The first copy with the right bytes; else what is in its place; None if nothing is."""
        wrong: DeliveryError | None = None
        for place in [PurePosixPath(at)] if at else self._places(image):
            if not names.is_below(str(place)):
                return Failed(f"{str(place)!r} is not a place below the folder")
            try:
                with root.below(place.parent.parts) as below, below.file(place.name) as copy:
                    answer = self._check_copy(image, copy, place)
                    if isinstance(answer, Refused):
                        self._strike(below, place.name)
            except FileNotFoundError:
                continue
            except NotRegular:
                answer = Refused(f"what lies at {self.settings.path / place} is no file")
            if isinstance(answer, Receipt):
                return answer
            wrong = wrong or answer
        return wrong

    def _places(self, image: Image) -> list[PurePosixPath]:
        """Every path at which its copy may lie, by this layout and the earlier ones."""
        return [path for place in self._keys.all_of(image) for path in names.of(place, image)]

    def _strike(self, folder: Folder, name: str) -> None:
        """Take a copy that is not the image out of the manifest, which would vouch for it when asked next."""
        with self._lock, suppress(OSError, manifest.NotOurs):
            manifest.remove(folder, name)

    def _check_copy(self, image: Image, copy: FileIO, place: PurePosixPath) -> Receipt | DeliveryError:
        """What a copy that lies there proves of this image."""
        shown = self.settings.path / place
        status = os.fstat(copy.fileno())
        if self._is_source(image, status):
            return _no_copy(shown)
        if status.st_size != image.size:
            return Refused(
                f"other bytes are at {shown} ({status.st_size} bytes): they are kept, and are not this image"
            )
        if (digest := _digest(copy)) != image.sha256:
            return Refused(
                f"other bytes are at {shown} (sha256 {digest}): they are kept, and are not this image"
            )
        return Receipt(f"sha256:{digest}", at=str(place))

    def _is_source(self, image: Image, copy: os.stat_result) -> bool:
        """Whether this is the very file on the card, as far as that is there."""
        try:
            return self._spool is not None and os.path.samestat((self._spool / image.path).stat(), copy)
        except OSError:
            return False

    # --- Bring an image there ---------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Copy one image, read the copy back, give it its name, and write it into the manifest."""
        place = self._keys.of(image)
        if not names.is_below(place):
            raise Refused(f"{place!r} is not a place below the folder")
        self._keys.remember()
        with self._lock, opened(image, path) as source, self._proven() as root:
            try:
                return self._bring(root, image, source)
            except OSError as error:
                raise disk_errors.explained(error, root, place, size=image.size) from error

    def _bring(self, root: Folder, image: Image, source: BinaryIO) -> Receipt:
        own, *earlier = (names.of(place, image) for place in self._keys.all_of(image))
        place = self._brought_before(root, earlier, image, source) or self._copied(root, own, image, source)
        return Receipt(f"sha256:{image.sha256}", at=str(place))

    def _brought_before(
        self, root: Folder, earlier: Sequence[list[PurePosixPath]], image: Image, source: BinaryIO
    ) -> PurePosixPath | None:
        """Where an earlier layout put it: a power cut may have come before that was noted."""
        for path in (path for paths in earlier for path in paths):
            # What cannot be read there is no copy, and the stick's own trouble is told by what follows.
            with suppress(OSError), root.below(path.parent.parts) as folder:
                if self._is_there(root, folder, path, image, source, may_copy=False):
                    self._note(root, folder, path, image)
                    return path
        return None

    def _copied(
        self, root: Folder, own: list[PurePosixPath], image: Image, source: BinaryIO
    ) -> PurePosixPath:
        """Where it lies now, after it was copied if it was not there."""
        with root.below(own[0].parent.parts, make=True) as folder:
            for path in own:
                if self._is_there(root, folder, path, image, source):
                    self._note(root, folder, path, image)
                    return path
            raise Refused(f"other files have all names for it in {folder.path}: move them away, then retry")

    def _note(self, root: Folder, folder: Folder, place: PurePosixPath, image: Image) -> None:
        """Write a copy into the manifest. It is there without that too: what is odd about a manifest costs a note."""
        try:
            manifest.add(folder, place.name, manifest.Entry(image.sha256, image.size))
        except manifest.NotOurs as error:
            self._tell_once(folder, error)
        except FileNotFoundError:  # the folder was removed, or another trap writes there too
            raise
        except OSError as error:
            reason = disk_errors.explained(error, root, str(place.with_name(manifest.NAME)))
            if isinstance(reason, Unreachable):
                raise reason from error
            self._tell_once(folder, reason)

    def _is_there(
        self,
        root: Folder,
        folder: Folder,
        place: PurePosixPath,
        image: Image,
        source: BinaryIO,
        *,
        may_copy: bool = True,
    ) -> bool:
        """Whether the image lies under this name, after it was copied if the name was free; False: it is taken."""
        temporary = names.temporary(place.name, self._device)
        folder.remove(temporary)  # what a crash left may be a finished copy's other name
        try:
            copy = folder.file(place.name)
        except FileNotFoundError:
            if not may_copy:
                return False
            self._copy(image, source, folder, place.name, temporary)
            return True
        except NotRegular:
            return False
        with copy:
            status = os.fstat(copy.fileno())
            if os.path.samestat(status, os.fstat(source.fileno())):
                raise _no_copy(self.settings.path / place)
            if status.st_size != image.size:
                return False
            os.fsync(copy.fileno())  # whoever wrote it may not have
            failpoint.hit("copy: found")
            if _digest(copy) != image.sha256:
                return False
        for depth in range(len(place.parts)):
            with root.below(place.parts[:depth]) as above:
                above.flush()
        return True

    def _copy(self, image: Image, source: BinaryIO, folder: Folder, name: str, temporary: str) -> None:
        sent = hashlib.sha256()
        piece = FilePiece(source, image.size)
        try:
            with folder.new(temporary) as file:
                while chunk := piece.read(self._throttle.portion(_CHUNK)):
                    self._throttle.take(len(chunk))
                    sent.update(chunk)
                    file.write(chunk)
                file.flush()
                failpoint.hit("copy: written")
                os.fsync(file.fileno())
            failpoint.hit("copy: flushed")
            if sent.hexdigest() != image.sha256:
                raise Failed("the file on the card is not the one that was examined: its digest differs")
            with folder.file(temporary) as copy:
                if _digest(copy) != image.sha256:
                    raise Failed(f"read back from {folder.path} it differs: the stick is failing, replace it")
            failpoint.hit("copy: verified")
            folder.claim(temporary, name)
            folder.flush()
            failpoint.hit("copy: made")
        except BaseException:
            with suppress(OSError):
                folder.remove(temporary)
            raise

    def _tell_once(self, folder: Folder, error: Exception) -> None:
        path = str(folder.path / manifest.NAME)
        if path not in self._told and len(self._told) < _TOLD:
            self._told.add(path)
            log.warning("%s is left alone: %s; the copies there are told by their bytes", path, error)

    # --- The proof --------------------------------------------------------------------------------------

    @contextmanager
    def _in_place(self) -> Iterator[tuple[Folder, str]]:
        """The destination's own folder, proved to be the right one, and the id in its mark.

        The folder stays open. If the stick is pulled out in between, what is done there fails; done by the path
        it would succeed, on the card.
        """
        needs_mark = self.settings.mount_check == "mark" and not self.settings.hotplug
        with medium.opened(self.settings.path) as root:
            try:
                yield root, medium.prove(root, by_mark=needs_mark)
            except OSError as error:
                raise disk_errors.of_medium(error, root.path) from error
            except StorageError as error:
                raise Unreachable(str(error)) from error

    @contextmanager
    def _proven(self) -> Iterator[Folder]:
        """The same, and it is the one that `place` named last."""
        with self._in_place() as (root, found):
            if self._id not in (None, found):
                raise Unreachable(
                    f"another stick than before is at {root.path}: asked again at the next turn"
                )
            yield root

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the stick is there, takes files, and has room."""
        path = self.settings.path
        try:
            with self._in_place() as (root, _):
                space = os.fstatvfs(root.descriptor)
                is_card = root.device == Path("/").stat().st_dev
                is_writable = os.access(".", os.W_OK, dir_fd=root.descriptor)
        except DeliveryError as error:
            if self.settings.hotplug and isinstance(error, medium.Away):
                return [
                    Finding("ok", self.name, "comes by now and then: no stick is in, or it is safe to pull")
                ]
            return [finding(self.name, error)]
        free = space.f_bavail * space.f_frsize
        if not is_writable or space.f_flag & os.ST_RDONLY:
            return [Finding("warning", self.name, f"{path} cannot be written to")]
        if is_card:
            return [Finding("warning", self.name, f"{path} is on the system's own disk: no second copy")]
        verdict = "ok" if free > _ALMOST_FULL else "warning"
        return [Finding(verdict, self.name, f"{path} is there and has {free / 1e9:.1f} GB free")]


def _no_copy(shown: Path) -> Failed:
    return Failed(
        f"{shown} is the file on the card itself, by a link or a mount: it is no copy; let the destination's folder "
        f"lie outside of the spool"
    )


def _digest(copy: FileIO) -> str:
    """The SHA-256 of what is on the stick, not of what the kernel still remembers having written."""
    with suppress(OSError):
        os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return hashlib.file_digest(copy, "sha256").hexdigest()
