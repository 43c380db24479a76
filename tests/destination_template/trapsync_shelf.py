"""The kind "shelf": images in one folder, each under its name."""

import errno
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from trapsync.destinations import DestinationContext, Finding, Receipt, SimpleDestination, finding
from trapsync.errors import Failed, Refused, StorageError, TrapsyncError, Unreachable
from trapsync.files import durable, failpoint
from trapsync.image import Image
from trapsync.net.http_body import FilePiece, opened
from trapsync.settings.schema import Destination

_CHUNK = 256 * 1024


class Settings(Destination, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "shelf"."""

    path: Path

    @property
    def identity(self) -> str:
        """The folder."""
        return f"shelf {self.path}"


def connect(name: str, settings: Settings, context: DestinationContext) -> "Shelf":
    """Make the destination; nothing is sent yet."""
    return Shelf(name, settings, context)


class Shelf(SimpleDestination):
    """One folder."""

    batch = 100

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self.identity = settings.identity
        self._device = context.device

    def close(self) -> None:
        """Nothing to close."""

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Hash what is there under these names."""
        self._require_folder()
        answers = {image.id: self._stored(image) for image in images}
        return {number: answer for number, answer in answers.items() if answer}

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Write the image under a temporary name, flush it, and give it its own: what is there is never replaced."""
        with opened(image, path) as file:
            if there := self.ask_about(image):
                return there
            piece = FilePiece(file, image.size, image.md5)  # Failed, should the file not be what was examined
            try:
                content = iter(lambda: piece.read(_CHUNK), b"")
                durable.write(self.settings.path / image.name, content, replace=False, writer=image.sha256)
            except FileExistsError:  # by another delivery at this moment
                pass
            except (
                StorageError
            ) as error:  # it may be about this name only; where no image goes, the others wait too
                raise Failed(str(error)) from error
            failpoint.hit("shelf: stored")
        return self.resolve(image, Unreachable(f"{image.name} is not there after it was written"))

    def _stored(self, image: Image) -> Receipt | Refused | Failed | None:
        """The proof that this image is there, by its bytes; Refused where another has its name, Failed where no file has."""
        try:
            content = durable.read_plain(self.settings.path / image.name, image.size)
        except FileNotFoundError:
            return None
        except OSError as error:  # it is larger; or a folder, a link, a pipe is in the way
            if error.errno != errno.EFBIG:
                return Failed(f"{image.name}: what is there cannot be read: {error.strerror}")
            content = b""
        digest = hashlib.sha256(content).hexdigest()
        if digest != image.sha256:
            return Refused(f"another image is there under the name {image.name}: both are kept")
        return Receipt(f"sha256:{digest}", at=image.name)

    def _require_folder(self) -> None:
        if not self.settings.path.is_dir():
            raise Unreachable(f"{self.settings.path}: there is no such folder")

    def check(self) -> list[Finding]:
        """Whether the folder is there."""
        try:
            self._require_folder()
        except TrapsyncError as error:
            return [finding(self.name, error)]
        return [Finding("ok", self.name, f"{self.settings.path} is there")]
