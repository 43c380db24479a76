"""The examination of one file, in a worker process: digests and metadata, small copies, a corrected time.

A worker reads files that anybody may have written, with limits on time and memory from outside. What a
delivery needs (`examine`: a few milliseconds) is apart from what a gallery needs (`thumbnails`: a decoder,
and twenty times as long).
"""

import errno
import hashlib
import os
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from trapsync.errors import DamagedImage, IncompleteImage, StorageError, TrapsyncError
from trapsync.files import durable
from trapsync.image import Correction, Evidence, Image
from trapsync.jpeg import exif, scan, structure, thumbnail

MAX_FILE = 100 * 10**6  # bytes; also what the Sticky Pi server's nginx accepts
MAX_PIXELS = 100 * 10**6  # pixels
_CHUNK = 1 << 20
_SMALL, _MINI = ".thumbnail.jpg", ".thumbnail-mini.jpg"  # what is added to an image's name
_LONGEST_NAME = 255  # bytes
_MAX_HEADER = 16 << 20  # some phones keep megabytes of depth map before the picture data


def prepare(memory: int) -> None:
    """Limit what this worker process can do: the initialiser of the pool, called once in each.

    `memory` is the limit of its address space in bytes; beyond it an allocation fails as MemoryError.
    An interrupt from the keyboard is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter(
        "ignore"
    )  # Python has some about the literals in a picture's EXIF, and prints them as they are
    import resource  # Windows, where operators check settings, has none

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(OSError):  # politeness only, and the service may not do it
        os.nice(5)


def examine_delivered(folder: Path, name: str) -> Image:
    """Examine a file that a trap has delivered, as `examine`, but for its digests: who stores it has taken them.

    Without a decoder here the trap's word stands for one.

    The trap had one when it found the picture whole in spite of stray bytes in its header. To refuse it would keep it
    on the trap for ever.
    """
    return examine(folder, name, believes_sender=bool(thumbnail.missing()), with_digests=False)


def examine(spool: Path, path: str, *, believes_sender: bool = False, with_digests: bool = True) -> Image:
    """Read one file of the spool, once, and return the image: digests, size, metadata, evidence.

    The memory needed does not depend on the file. Raises IncompleteImage for a file that has no end
    (cut off, zero-filled, or still being written), DamagedImage for whatever else is no whole JPEG,
    FileNotFoundError when it is gone, StorageError when the card does not let it be read.
    """
    full = spool / path
    with _reading(full):
        # O_NONBLOCK: to open a fifo would wait for its writer, for ever.
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = _checked_size(os.fstat(descriptor), full)
            findings = _Findings(_digests if with_digests else _no_digests)
            while chunk := os.read(descriptor, _CHUNK):
                findings.feed(chunk)
        finally:
            os.close(descriptor)
    image = findings.image(path, size)
    if not believes_sender:
        _ask_a_decoder(full, findings)
    return replace(image, picture=_picture(full)) if image.timing and with_digests else image


def _ask_a_decoder(full: Path, findings: "_Findings") -> None:
    """Raise DamagedImage where the file's structure leaves open whether its picture is whole, and a decoder says it is not.

    Stray bytes in the header are a wrong length in somebody's metadata, or stand in the place of a table, which may
    still be written: without a decoder nobody knows.
    """
    if not (findings.has_second_end or findings.has_strays):
        return
    strays = "damaged: bytes that belong to nothing stand in its header"
    try:
        is_whole = thumbnail.is_whole(full, has_strays=findings.has_strays)
    except StorageError:
        raise
    except TrapsyncError as lacking:  # libvips, of which an examiner may not ask other programs where it is
        if findings.has_strays:
            raise IncompleteImage(
                f"{strays}, and nothing here can tell whether that matters: {lacking}"
            ) from None
        return
    if not is_whole:
        if findings.has_strays:
            raise IncompleteImage(strays)
        raise DamagedImage("damaged: the picture breaks off before its end")


def _picture(full: Path) -> str:
    """The SHA-256 of a file without its EXIF: the same before and after its time was corrected."""
    digest = hashlib.sha256()
    with _reading(full):
        for piece in structure.without_exif(full.read_bytes()):
            digest.update(piece)
    return digest.hexdigest()


def rewrite(spool: Path, correction: Correction) -> Image:
    """Write an image again, durably, with its corrected time and under the name for it; returns the new image.

    May be called twice for one image. Raises FileExistsError when another file has taken that name, and
    DamagedImage when the image is no longer what was examined.
    """
    old, new = spool / correction.image.path, spool / correction.path
    with _reading(old):
        content = old.read_bytes()
    if hashlib.sha256(content).hexdigest() != correction.image.sha256:
        raise DamagedImage("it is no longer the image that was examined")
    content = exif.correct(content, correction.name.taken, correction.offset, correction.last_sync)
    # Written already, and killed before that was recorded? It is flushed once more. Otherwise a picture
    # that is being taken just now may get the name at any moment: then this one does not.
    is_written = new.exists() and new.read_bytes() == content
    durable.write(new, [content], replace=is_written, writer=".corrected")
    return examine(spool, correction.path)


def thumbnails(spool: Path, path: str, folder: Path) -> None:
    """Make both small copies of an image, below `folder`. Raises like `thumbnail.make`."""
    small, mini = thumbnail_paths(folder, Image(path, 0, "", "", 0, 0).place)
    thumbnail.make(spool / path, small, mini)


def thumbnail_paths(folder: Path, place: str) -> tuple[Path, Path]:
    """Where the copies of 512 x 384 and of 128 x 96 belong; `place` is `Image.place`."""
    image = folder / place
    stem = image.name
    if len(os.fsencode(f"{stem}{_MINI}")) > _LONGEST_NAME:
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()[:32]
    return image.with_name(f"{stem}{_SMALL}"), image.with_name(f"{stem}{_MINI}")


@contextmanager
def _reading(full: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket, or a device without a driver
            raise _no_file(full) from None
        if error.errno == errno.EACCES:
            raise StorageError(f"{full}: no permission to read it") from None
        raise StorageError(durable.explain(error, full)) from error


def _no_file(full: Path) -> FileNotFoundError:
    """Something else took the file's place since it was found: that is left alone, as if there were nothing."""
    return FileNotFoundError(errno.ENOENT, "no regular file", str(full))


def _checked_size(status: os.stat_result, full: Path) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(full)
    if status.st_size == 0:
        raise IncompleteImage("cut off: the file is empty")
    if status.st_size > MAX_FILE:
        raise DamagedImage(f"too large: {status.st_size / 1e6:.0f} MB, and the limit is 100 MB")
    return status.st_size


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Untaken:
    """In the place of a digest that nobody needs."""

    def update(self, data: bytes, /) -> None:
        """Do nothing."""

    def hexdigest(self) -> str:
        """Nothing."""
        return ""


def _digests() -> tuple[_Digest, _Digest]:
    return hashlib.md5(usedforsecurity=False), hashlib.sha256()


def _no_digests() -> tuple[_Digest, _Digest]:
    return _Untaken(), _Untaken()


class _Findings:
    """What is known of a file after some of its chunks. Its head is kept until the header is complete."""

    def __init__(self, digests: Callable[[], tuple["_Digest", "_Digest"]]) -> None:
        self.size = 0
        self.md5, self.sha256 = digests()
        self.head = bytearray()
        self.header: structure.Header | None = None
        self.doubt = IncompleteImage("cut off: the file is empty")
        self.data: scan.PictureData | None = None

    def feed(self, chunk: bytes) -> None:
        """Add the next part of the file."""
        self.size += len(chunk)
        if self.size > MAX_FILE:
            raise IncompleteImage("still being written: it grows beyond 100 MB")
        self.md5.update(chunk)
        self.sha256.update(chunk)
        if self.data is None:
            self._feed_head(chunk)
        else:
            self.data.feed(chunk)

    def _feed_head(self, chunk: bytes) -> None:
        """Try to read the header with this much more of the file; what follows it is picture data."""
        self.head += chunk
        try:
            self.header = structure.header(self.head)
        except IncompleteImage as error:
            if len(self.head) > _MAX_HEADER:
                raise IncompleteImage("not a whole JPEG: its header does not end within 16 MB") from None
            self.doubt = error
            return
        _refuse_huge(self.header)
        self.data = scan.PictureData(self.header)
        self.data.feed(bytes(self.head[self.header.scan :]))
        self.head.clear()

    @property
    def has_strays(self) -> bool:
        """Whether bytes stand in its header that belong to nothing."""
        return self.header is not None and self.header.has_strays

    @property
    def has_second_end(self) -> bool:
        """Whether the end that was found may be none."""
        return self.data is not None and self.data.ends_twice

    def image(self, path: str, size: int) -> Image:
        """The image, when all chunks are in; `size` is what the file had when it was opened."""
        if self.size != size:
            raise IncompleteImage("still being written: its size changed while it was read")
        if self.header is None or self.data is None:
            raise self.doubt
        if not self.data.has_end:
            raise IncompleteImage("cut off: no end-of-image marker")
        metadata: dict[str, Any]
        evidence: Evidence | None
        metadata, evidence = exif.read(self.header.exif)
        return Image(
            path=path,
            size=size,
            md5=self.md5.hexdigest(),
            sha256=self.sha256.hexdigest(),
            width=self.header.width,
            height=self.header.height,
            metadata=metadata,
            evidence=evidence,
        )


def _refuse_huge(header: structure.Header) -> None:
    if header.width * header.height > MAX_PIXELS:
        megapixels = header.width * header.height / 1e6
        raise DamagedImage(f"too large: {megapixels:.0f} megapixels, and the limit is 100")
