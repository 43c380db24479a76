"""ImageKit: a media library with a gallery, and the network that delivers pictures from it.

What shapes this module: an answer never holds a digest, only the size; unless told otherwise the service adds
a random suffix to a name, or puts a new version over what is there; that a name is taken is a 400 like many
others; its listing may lag behind what was uploaded. So: a path that follows from the image, no suffix, no
overwriting, our own digest in a tag that comes back with the listing, and a 400 is resolved by asking. What
comes back is what we said, so receipts are echoes: no image leaves the card on ImageKit's word.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

from trapsync.destinations import (
    DestinationContext,
    Finding,
    Receipt,
    SimpleDestination,
    finding,
    http_service,
)
from trapsync.destinations.imagekit.account import LARGEST, Account, Settings
from trapsync.destinations.imagekit.fields import Fields
from trapsync.destinations.imagekit.urls import SMALL, UNTOUCHED, address, signed
from trapsync.errors import (
    DeliveryError,
    Failed,
    Held,
    Refused,
    TrapsyncError,
    Unauthorised,
    Unreachable,
    one_line,
)
from trapsync.files import failpoint
from trapsync.image import Image
from trapsync.jpeg import thumbnail
from trapsync.net.http_answer import Answer, reason
from trapsync.net.http_body import FilePiece, multipart, opened

__all__ = ["ImageKit", "Settings", "connect"]

_PAGE = 250  # of up to 4 kB each; one listing gives 1,000 at the most, and they would be more than an answer may have
# Up to so many images of a folder are asked for one by one: an answer of nothing is shorter than a list.
_FEW = 2
_TAG = "sha256-"
_SMALL_COPY = ".thumbnail"  # before the suffix
# It is asked for in a query, and servers take addresses of a few thousand characters.
_LONGEST_PATH = 1000
_SOON = 60.0


def connect(name: str, settings: Settings, context: DestinationContext) -> "ImageKit":
    """Make the destination; nothing is sent yet."""
    return ImageKit(name, settings, context)


class ImageKit(SimpleDestination):
    """One account, and one folder of its media library."""

    # Images of three weeks lie in 21 folders; each folder costs a request.
    batch = 256

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self.identity = settings.identity
        self._context = context
        self._account = Account(name, settings, context)
        self._fields = Fields(self._account.ask, may_create=settings.create_fields)

    def close(self) -> None:
        """Close connections."""
        self._account.close()

    # --- Where an image belongs -------------------------------------------------------------------------

    def path_of(self, image: Image) -> PurePosixPath:
        """The path of an image in the media library: `<folder>/<device>/<date>/<name>`.

        The service replaces most characters by an underscore. A foreign path that holds such gets a mark of
        its own, so that two of them never meet.
        """
        path = PurePosixPath(image.place if image.trap_name else f"{self._context.device}/{image.place}")
        folder = re.sub(r"[^A-Za-z0-9/_-]", "_", str(path.parent))
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)
        if (folder, stem) != (str(path.parent), path.stem):
            stem += f"-{sha256(image.place.encode()).hexdigest()[:10]}"
        small = _SMALL_COPY if self.settings.content == "thumbnail" else ""
        return PurePosixPath("/", self.settings.folder, folder, f"{stem}{small}{path.suffix}")

    # --- Asking -----------------------------------------------------------------------------------------

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask folder by folder: one request for all images of a night, unless they are few."""
        found: dict[int, Receipt | Exception] = {}
        asked: list[tuple[Image, PurePosixPath]] = []
        for image in images:
            path = self.path_of(image)
            if len(str(path)) > _LONGEST_PATH:
                found[image.id] = self._too_long(path)
            elif self.settings.content == "thumbnail" and not self._has_copy(image):
                found[image.id] = self._without_copy(image)  # no question is spent on it
            else:
                asked.append((image, path))
        return found | self._found(asked)

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """Ask for each where it was put, whatever the settings say now. That is all that ImageKit can tell."""
        return self._found(
            [(image, PurePosixPath(at.get(image.id) or self.path_of(image))) for image in images]
        )

    def _found(self, asked: Sequence[tuple[Image, PurePosixPath]]) -> dict[int, Receipt | Exception]:
        """What lies under these paths."""
        folders: dict[PurePosixPath, dict[str, list[Image]]] = {}
        for image, path in asked:
            folders.setdefault(path.parent, {}).setdefault(path.name, []).append(image)
        found: dict[int, Receipt | Exception] = {}
        for folder, wanted in folders.items():
            for row in self._rows(folder, list(wanted)):
                for image in wanted.get(row["name"], ()):
                    found[image.id] = self._compare(image, folder / row["name"], row)
        return found

    def _rows(self, folder: PurePosixPath, names: list[str]) -> Iterator[dict[str, Any]]:
        """The files of these names in a folder, as the listing shows them: it may lag behind."""
        if len(names) > _FEW:
            yield from self._pages(folder)
            return
        for name in names:
            yield from self._page(folder, searchQuery=f'name="{name}"')

    def _pages(self, folder: PurePosixPath) -> Iterator[dict[str, Any]]:
        skip = 0
        while True:
            page = self._page(folder, skip=skip, sort="ASC_NAME")
            yield from page
            skip += _PAGE
            if len(page) < _PAGE:
                return

    def _page(self, folder: PurePosixPath, **query: Any) -> list[dict[str, Any]]:
        asked = urlencode({"path": f"{folder}/".replace("//", "/"), "limit": _PAGE, **query})
        return self._account.files(asked)

    def _compare(self, image: Image, path: PurePosixPath, row: dict[str, Any]) -> Receipt | Refused:
        tags = row.get("tags")
        is_ours = isinstance(tags, list) and f"{_TAG}{image.sha256}" in tags
        if is_ours and (path.stem.endswith(_SMALL_COPY) or row.get("size") == image.size):
            return self._receipt(image, path, row)
        size = one_line(row.get("size"), 20)
        held = f"{size} bytes, {'its tag is ours' if is_ours else 'without our tag of its digest'}"
        return Refused(
            f"another file is there under this name ({held}; ours has {image.size} bytes): both are kept; "
            f"delete or rename that one at ImageKit, then retry"
        )

    def _receipt(self, image: Image, path: PurePosixPath, row: dict[str, Any]) -> Receipt:
        detail = {"id": http_service.identifier(row.get("fileId")), "path": str(path)}
        return Receipt(f"echo:{image.sha256}", detail, at=str(path))

    def _too_long(self, path: PurePosixPath) -> Refused:
        return Refused(
            f"its path at ImageKit would have {len(str(path))} characters, and no more than {_LONGEST_PATH} "
            f"can be asked for; move or rename it on the card"
        )

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image; anything but the exact echo of its place and size is resolved by asking."""
        with self._content(image, path) as content:
            self._require_room(content)
            place = self.path_of(image)
            if len(str(place)) > _LONGEST_PATH:
                raise self._too_long(place)
            form, kind = multipart(*self._form(image, place), ("file", place.name, "image/jpeg", content))
            try:
                answer = self._account.upload(form, kind)
                failpoint.hit("imagekit: uploaded")
            except Unreachable as lost:
                return self.resolve(image, lost)
        return self._read_answer(image, answer, len(content))

    @contextmanager
    def _content(self, image: Image, path: Path) -> Iterator[FilePiece | bytes]:
        """What is to be sent: the file, held against its digest on the way, or its small copy."""
        if self.settings.content == "thumbnail":
            yield self._small_copy(image)
        else:
            with opened(image, path) as file:
                yield FilePiece(file, image.size, image.md5)

    def _small_copy(self, image: Image) -> bytes:
        """The small copy. A power cut may leave a broken one: that is made again."""
        try:
            content = self._copy(image).read_bytes()
        except OSError:
            content = b""
        if content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9"):
            return content
        raise self._without_copy(image)

    def _has_copy(self, image: Image) -> bool:
        try:
            return self._copy(image).is_file()
        except OSError:  # its name is too long for any
            return False

    def _copy(self, image: Image) -> Path:
        return self._context.thumbnail_of(image)

    def _without_copy(self, image: Image) -> Held | Refused:
        """Copies are made when the trap has time: soon, for a new image; an old one has missed its turn."""
        if not self._context.make_thumbnail(image):
            return Refused(
                'no small copy of it can be made; content = "original" would send the image itself (then retry)'
            )
        name = image.trap_name
        age = self._context.clock.wall() - name.taken.timestamp() if name else 0.0
        return Held("its small copy is not made yet", wait=max(_SOON, age / 2))

    def _require_room(self, content: FilePiece | bytes) -> None:
        plan, most = self.settings.plan, LARGEST[self.settings.plan]
        if len(content) > most:
            raise Refused(
                f"it has {len(content) >> 20} MB; on the plan {plan!r} ImageKit takes images of up to "
                f"{most >> 20} MB; on another plan set it, then retry"
            )

    def _form(self, image: Image, place: PurePosixPath) -> list[tuple[str, str, str, bytes]]:
        device = image.trap_name.device if image.trap_name else self._context.device
        fields = {
            "fileName": place.name,
            "folder": str(place.parent),
            "useUniqueFileName": "false",
            "overwriteFile": "false",
            "isPrivateFile": "true" if self.settings.private else "false",
            "tags": ",".join([*self.settings.tags, device, f"{_TAG}{image.sha256}"]),
        }
        if values := self._fields.values(image):
            fields["customMetadata"] = json.dumps(values)
        return [(name, "", "", text.encode()) for name, text in fields.items()]

    def _read_answer(self, image: Image, answer: Answer, size: int) -> Receipt:
        match answer.status:
            case 400:
                return self.resolve(image, self._declined(answer))
            case 413:
                raise Refused(f"{answer.host} takes no image of {size} bytes (413)")
            case 500:
                return self.resolve(image, Failed(f"{answer} to an upload"))
        try:
            row = answer.json(dict)
            echo, sent = (row.get("filePath"), row.get("size")), (str(self.path_of(image)), size)
            if echo == sent:
                return self._receipt(image, self.path_of(image), row)
            raise Unreachable(f"{answer.host} confirmed another file: {one_line(echo)}, not {sent}")
        except Unreachable as unconfirmed:
            return self.resolve(image, unconfirmed)

    def _declined(self, answer: Answer) -> DeliveryError:
        """What a 400 means if the image is not to be found: only its text says whether the name is taken."""
        said = reason(answer, "message")
        if not said:
            return Unreachable(str(answer))
        if re.search(r"\b(already|name).*\bexists?\b", said, re.IGNORECASE):
            return Held("ImageKit has a file of this name, and its listing does not show it yet")
        return Failed(f"ImageKit did not take it: {said}")

    def resolve(self, image: Image, failure: DeliveryError) -> Receipt:
        """After a failure, ask what became of the image, and next time which fields there are."""
        if isinstance(failure, Unauthorised):
            raise failure
        self._fields.forget()
        return super().resolve(image, failure)

    # --- Addresses --------------------------------------------------------------------------------------

    def address(self, image: Image, detail: Mapping[str, Any]) -> str | None:
        """Where the image can be fetched, for `url_lifetime`. Asks nobody. A small copy is not the image."""
        if self.settings.content == "thumbnail":
            return None
        return self._signed(self._path(image, detail), UNTOUCHED)

    def addresses(self, image: Image, detail: Mapping[str, Any]) -> Mapping[str, str]:
        """The stored bytes, and a small picture for a gallery."""
        path = self._path(image, detail)
        return {"image": self._signed(path, UNTOUCHED), "small": self._signed(path, SMALL)}

    def _path(self, image: Image, detail: Mapping[str, Any]) -> str:
        return str(detail.get("path") or self.path_of(image))

    def _signed(self, path: str, transformation: str) -> str:
        settings = self.settings
        plain = address(settings.url_endpoint, path, transformation)
        if not settings.sign:
            return plain
        if settings.url_lifetime and not self._context.clock.trusted():
            raise Unreachable("the clock is not set, so it cannot be said when an address of today ends")
        ends = int(self._context.clock.wall() + settings.url_lifetime) if settings.url_lifetime else None
        return signed(plain, settings.url_endpoint, self._account.key(), ends)

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the account lets us in, what it holds, and what of the settings it does not go with."""
        reason = thumbnail.missing() if self.settings.content == "thumbnail" else None
        findings = [Finding("failing", self.name, f"no small copies: {reason}")] if reason else []
        try:
            return [*findings, *self._account.findings(), self._fields_finding()]
        except TrapsyncError as error:
            return [*findings, finding(self.name, error)]

    def _fields_finding(self) -> Finding:
        missing = self._fields.missing()
        if not missing:
            return Finding("ok", self.name, "all custom metadata fields are there")
        if self.settings.create_fields:
            text = "custom metadata fields to be made at the next upload"
        else:
            text = (
                "custom metadata fields that are not there, and are left out; create_fields = true makes them"
            )
        return Finding("ok", self.name, f"{text}: {', '.join(missing)}")
