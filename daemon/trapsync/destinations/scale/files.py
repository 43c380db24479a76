"""The file of an image at Scale: fetched by Scale where another destination has it, or sent from here.

An import copies it, so that an address may expire before somebody gets to the task: the Sticky Pi API's do
after seven days, and a task in which the address itself stands would then be lost.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trapsync.destinations import DestinationContext
from trapsync.destinations.http_service import location
from trapsync.destinations.scale.settings import Settings
from trapsync.destinations.scale.wire import Declined, Wire
from trapsync.errors import Held, NotThere, Unreachable, one_line
from trapsync.files import failpoint
from trapsync.image import Image
from trapsync.net.http_body import FilePiece, opened


class Files:
    """The files of one project. They can neither be asked for nor removed, so each is noted."""

    def __init__(self, wire: Wire, settings: Settings, context: DestinationContext) -> None:
        self._wire = wire
        self._settings = settings
        self._context = context

    def attachment(self, image: Image, path: Path, unique_id: str) -> str:
        """What a task names as its image; noted, until `forget`.

        A file whose answer was lost is there under its reference, and cannot be asked for: then the task
        is given the image's address itself, or, if there is none, the file is sent once more under another
        reference.
        """
        noted = self._noted(unique_id)
        if "url" in noted:
            return str(noted["url"])
        try:
            address = self._context.address_of(image)
        except NotThere as gone:  # it goes there first, once more
            raise Held(str(gone)) from None
        if address is not None:
            return self._imported(image, path, address, unique_id)
        if not self._settings.allow_upload:
            raise Held(f"{self._settings.depends_on} gives no address of it, and allow_upload is false")
        return self._uploaded(image, path, unique_id)

    def forget(self, unique_id: str) -> None:
        """The task has its file."""
        self._context.forget_note(_key(unique_id))

    def _imported(self, image: Image, path: Path, address: str, unique_id: str) -> str:
        number = int(self._noted(unique_id)["number"])
        try:
            file = self._wire.import_file(address, image, _reference(unique_id, number))
            return address if file is None else self._confirmed(file, image, unique_id, number)
        except Declined:  # an address in the hut's own network, or one of a small copy
            if not self._settings.allow_upload:
                raise
        return self._uploaded(image, path, unique_id)

    def _uploaded(self, image: Image, path: Path, unique_id: str) -> str:
        number = int(self._noted(unique_id)["number"])
        with opened(image, path) as content:
            file = self._upload(image, content, unique_id, number)
            if file is None:
                number += 1
                self._note(unique_id, number)
                file = self._upload(image, content, unique_id, number)
        return self._confirmed(file, image, unique_id, number)

    def _upload(self, image: Image, content: BinaryIO, unique_id: str, number: int) -> dict[str, Any] | None:
        piece = FilePiece(content, image.size, image.md5)
        return self._wire.upload_file(image, piece, _reference(unique_id, number))

    def _confirmed(self, file: Mapping[str, Any] | None, image: Image, unique_id: str, number: int) -> str:
        """Its address at Scale. It says no digest, but the size: a portal's page is not that long."""
        failpoint.hit("scale: file made")
        url = location((file or {}).get("attachment_url"))
        if file is None or url is None:
            raise Unreachable("Scale answered without confirming the file")
        if file.get("size") != image.size:
            self._note(unique_id, number + 1)
            raise Declined(
                f"Scale has a file of {one_line(file.get('size'), 20)} bytes; the image has {image.size}"
            )
        self._note(unique_id, number, url=url)
        return url

    def _noted(self, unique_id: str) -> dict[str, Any]:
        return self._context.note(_key(unique_id)) or {"number": 1}

    def _note(self, unique_id: str, number: int, **more: str) -> None:
        self._context.put_note(_key(unique_id), {"number": number, **more})


def _key(unique_id: str) -> str:
    return f"file:{unique_id}"


def _reference(unique_id: str, number: int) -> str:
    return unique_id if number == 1 else f"{unique_id}~{number}"
