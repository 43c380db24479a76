"""The Sticky Pi API: where sticky-card traps have always sent their images.

The protocol is what the Sticky Pi server does (branch develop of 2023, and main where it differs). What
shapes this module: every failure is a bare 500 that gives no reason; a second upload under a taken name
answers 500 *and overwrites the stored file*; the name of the multipart part, not its file name, says
which image it is. So: look at the image before it is sent, ask before sending, send one at a time, and
after anything but an exact echo of name and digest ask again: about a 500 in the turn's next question,
which is one for all of them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trapsync.clock import iso
from trapsync.destinations import (
    DestinationContext,
    Finding,
    Receipt,
    SimpleDestination,
    finding,
    http_service,
)
from trapsync.destinations.object_storage import Storage, confirmed_md5
from trapsync.destinations.stickypi.api import Api, Key, Row, Rows, Settings, md5_of, open_client
from trapsync.errors import (
    Failed,
    Held,
    NotThere,
    Refused,
    TrapsyncError,
    Unauthorised,
    Unreachable,
    Unresolved,
    one_line,
)
from trapsync.files import failpoint
from trapsync.image import Image, TrapName, parse_name
from trapsync.net.http_answer import Answer
from trapsync.net.http_body import FilePiece, Pieces, multipart, opened
from trapsync.net.stickypi_rules import FIRST_DAY, problem

__all__ = ["Settings", "StickyPi", "connect"]

_PAUSE = 0.5  # seconds until the next image is sent to a server that failed at one

# Notes: the images whose stored bytes were found not to be what the server's row says. Their rows are no proof.
_DOUBT = "doubt:"


def connect(name: str, settings: Settings, context: DestinationContext) -> "StickyPi":
    """Make the destination; nothing is sent yet."""
    return StickyPi(name, settings, context)


class StickyPi(SimpleDestination):
    """One Sticky Pi server and one account on it."""

    # Hundreds of keys cost the server some 20 ms and a slow link 30 kB.
    batch = 512

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self._clock = context.clock
        self._context = context
        self.identity = settings.identity
        self._api = Api(name, settings, context)
        self._storage = Storage(
            partial(open_client, settings=settings, context=context),
            must_be_safe=settings.url.lower().startswith("https:"),
        )
        # Good for one upload each; no other device sends under this trap's name.
        self._absences = http_service.Absences(context.clock)
        # Found at the first image, which is sent: a server may have been changed and its tokens not.
        self._fails_at_2022 = False

    def close(self) -> None:
        """Close connections."""
        self._api.close()
        self._storage.close()

    # --- Asking -----------------------------------------------------------------------------------------

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask for all of them in one request; those that the server could never hold are not asked for."""
        by_key = _by_key(images, {})
        there = self._api.rows(list(by_key))
        found: dict[int, Receipt | Exception] = {}
        for key, some in by_key.items():
            if key in there.by_key:
                found |= {image.id: _compare(image, key, there.row(key, image.md5)) for image in some}
            elif there.is_all:
                self._absences.note([key])
            elif len(by_key) == 1:
                # Whose row it is that cannot be read shows when an image is asked for alone, before it is sent.
                found |= {image.id: self._unreadable() for image in some}
        found.update(self._looked_at([one for one in images if isinstance(found.get(one.id), Receipt)]))
        return found

    def _looked_at(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Of those whose stored bytes once were not what their rows say, what is stored now."""
        doubtful = set(self._context.note_keys(_DOUBT)) if images else set()
        some = [image for image in images if f"{_DOUBT}{image.trap_name}" in doubtful]
        return self.confirm(some, {}, by_bytes=True) if some else {}

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """The server's rows; with `by_bytes` also one byte of each stored object, for rows can outlive objects.

        A Failed says that nothing is known of its image.
        """
        by_key = _by_key(images, at)
        what = "image" if by_bytes else "metadata"
        there = self._api.rows(list(by_key), what)
        found: dict[int, Receipt | Exception] = {}
        for key, some in by_key.items():
            for image in some:
                try:
                    answer = self._confirmed(image, key, there, what)
                except Failed as error:
                    answer = error
                if answer is not None:
                    found[image.id] = answer
        return found

    def _confirmed(self, image: Image, key: Key, there: Rows, what: str) -> Receipt | Exception | None:
        if key not in there.by_key and not there.is_all:
            there = self._api.rows([key], what)  # the row that cannot be read may be this one's
            if key not in there.by_key and not there.is_all:
                raise self._unreadable()
        if key not in there.by_key:
            return None
        row = there.row(key, image.md5)
        answer = _compare(image, key, row)
        if what == "image" and isinstance(answer, Receipt):
            return self._stored(image, answer, self._address_in(row))
        return answer

    def _address_in(self, row: Row) -> object:
        """The address in a row. A hub behind a proxy that ends TLS names itself without it: it is asked as ever."""
        url, own = row.get("url"), self.settings.url.rstrip("/")
        without = own.replace("https://", "http://", 1)
        return (
            f"{own}{url.removeprefix(without)}"
            if isinstance(url, str) and url.startswith(f"{without}/")
            else url
        )

    def _stored(self, image: Image, by_row: Receipt, url: object) -> Receipt | Refused:
        """What the storage says of the object itself. Raises Failed where it cannot be asked about this one.

        S3 tells the MD5 of an object that came in one part and is not encrypted with a key of KMS. Where it
        tells none, that the object is there and what the row says is all that can be had. An object that is
        gone is refused too: as long as its row is there, the server takes no other.
        """
        if fault := self._storage.fault(url):
            raise Failed(f"its stored bytes cannot be asked for: {fault}")
        answer = self._storage.look(str(url))
        if answer.status not in {200, 206, 404}:  # 403: nothing is there, or the address is not taken
            raise Failed(f"its stored bytes cannot be asked for: {answer}")
        stored, doubt = confirmed_md5(answer) or image.md5, f"{_DOUBT}{image.trap_name}"
        if answer.status != 404 and stored == image.md5:
            if self._context.note(doubt):
                self._context.forget_note(doubt)
            return by_row
        self._context.put_note(doubt, 1)
        if answer.status != 404:
            return _refused(image, stored)
        return Refused(
            f"{self._api.host} has a row of it, and its stored bytes are gone (404): an admin of the server can "
            f"delete the row, then retry"
        )

    def address(self, image: Image, _detail: Mapping[str, Any]) -> str | None:
        """The presigned address of its bytes, asked for anew each time: it is good for seven days."""
        key = _key(image)
        if key is None:
            return None
        there = self._api.rows([key], "image")
        if key not in there.by_key:
            if there.is_all:
                raise NotThere(f"{self._api.host} does not hold {image.name}")
            return None
        row = there.row(key, image.md5)
        answer = _compare(image, key, row)
        if isinstance(answer, Refused):
            raise NotThere(str(answer))
        url = self._address_in(row)
        return str(url) if isinstance(answer, Receipt) and not self._storage.fault(url) else None

    def _unreadable(self) -> Failed:
        return Failed(f"{self._api.host} has a row of it that cannot be read")

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image in one request; anything but its exact echo is resolved by asking, a 500 by the next question."""
        if reason := problem(image):
            raise Refused(reason)
        key = _key(image)
        if key is None or key[1] < FIRST_DAY:
            raise Held(
                f"the clock was not set when it was taken: it says {iso(key[1]) if key else 'nothing'}"
            )
        self._require_readable(image)
        # A second upload would overwrite what is stored: so never without having asked.
        if not self._absences.take(key) and (there := self.ask_about(image)):
            return there
        try:
            answer = self._upload(image, path)
            failpoint.hit("stickypi: answered")
        except Unauthorised:
            raise
        except Unreachable as lost:
            return self.resolve(image, lost)
        return self._read_answer(image, answer)

    def _upload(self, image: Image, path: Path) -> Answer:
        with opened(image, path) as file:

            def form() -> tuple[Pieces, str]:
                name = str(image.trap_name)
                content = FilePiece(file, image.size, image.md5)
                digest = image.md5.encode()
                return multipart((name, name, "image/jpeg", content), (f"{name}.md5", "", "", digest))

            return self._api.post("/_put_new_images", form)

    def _is_too_new(self, image: Image) -> bool:
        return self._api.reads_2020_only and image.metadata.get("format") == "2022"

    def _require_readable(self, image: Image) -> None:
        """Refused for an image at which this server is known to fail, each time and without a reason."""
        if self._fails_at_2022 and self._is_too_new(image):
            raise Refused(
                f"{self._api.host} failed at an image of the format of 2022, and its tokens are of branch main, which "
                f'reads that of 2020 only: set capture.format = "2020", or let its operator upgrade it, then retry'
            )

    def _read_answer(self, image: Image, answer: Answer) -> Receipt:
        if answer.status == 413:
            raise Refused(
                f"{self._api.host} takes no image of {image.size} bytes (413); "
                f"let its operator raise the limit (nginx: client_max_body_size), then retry"
            )
        if answer.status == 500:
            self._fails_at_2022 |= self._is_too_new(image)
            self._require_readable(image)
            self._context.sleep(_PAUSE)
            raise Unresolved(f"{self._api.host} did not take it (500, no reason given)")
        try:
            rows = answer.json(list)
            if len(rows) == 1 and self._api.key_of(rows[0]) == _key(image):
                if rows[0].get("md5") == image.md5:
                    return Receipt(f"md5:{image.md5}", at=str(image.trap_name))
                told = one_line(rows[0].get("md5"), 40)
                raise Unreachable(f"{self._api.host} confirmed another digest: {told}")
            raise Unreachable(f"{self._api.host} answered 200 without confirming the image")
        except Unreachable as unconfirmed:
            return self.resolve(image, unconfirmed)

    def ask_about(self, image: Image) -> Receipt | None:
        """The receipt if the server holds it, None if it does not. Raises Refused on a conflict.

        What it says is good for the caller's next step only: a request that we have given up may still
        be at work on the server.
        """
        there = super().ask_about(image)
        if key := _key(image):
            self._absences.take(key)
        return there

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the account is let in and may read, and whether our clock agrees with the server's."""
        nobody: Key = ("00000000", FIRST_DAY)
        try:
            answer = self._api.log_in()
            self._api.rows([nobody])
        except TrapsyncError as error:
            return [finding(self.name, error)]
        text = (
            f"{self.settings.url} lets {self.settings.username!r} in and answers; "
            f"whether it may write shows only with an image (403 if not)"
        )
        findings = [
            Finding("ok", self.name, text),
            http_service.clock_finding(self.name, answer, self._clock),
        ]
        if self._api.reads_2020_only and self._context.format != "2020":
            text = 'is of branch main, which reads images of the format of 2020 only; set capture.format = "2020"'
            findings.append(Finding("warning", self.name, f"{self.settings.url} {text}"))
        return findings


def _key(image: Image) -> Key | None:
    name = image.trap_name
    return (name.device, name.taken) if name else None


def _by_key(images: Sequence[Image], at: Mapping[int, str]) -> dict[Key, list[Image]]:
    """The images by the key that each has there, without those that the server could never hold."""
    by_key: dict[Key, list[Image]] = {}
    for image in images:
        name = parse_name(at.get(image.id, "")) or image.trap_name
        if name and name.taken >= FIRST_DAY:
            by_key.setdefault((name.device, name.taken), []).append(image)
    return by_key


def _compare(image: Image, key: Key, row: Row) -> Receipt | Failed | Refused:
    """What a row says of this image. Without a digest in it, nothing: then the image is asked about again."""
    if not (md5 := md5_of(row)):
        return Failed("the server's row of it has no digest that can be read")
    if md5 != image.md5:
        return _refused(image, md5)
    number = http_service.identifier(row.get("id"))
    return Receipt(f"md5:{image.md5}", {} if number is None else {"id": number}, at=str(TrapName(*key)))


def _refused(image: Image, md5: object) -> Refused:
    return Refused(
        f"another image is there under this name (md5 {one_line(md5, 40)}, ours {image.md5}): both are kept; "
        f"an admin of the server can delete its one, then retry"
    )
