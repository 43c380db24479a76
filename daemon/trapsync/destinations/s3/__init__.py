"""S3: a bucket in any store that speaks S3's protocol.

What shapes this module: of an object that came in one part the ETag is the MD5 of what the store has, and a store refuses
a body that is not what Content-MD5 says; but a PUT overwrites, and not every store minds If-None-Match. So: one part,
Content-MD5, a question right before each send, and a receipt only by a digest that the store computed. Where it tells
none, the receipt is an echo, by which no image leaves the card. Between question and send another writer may still take
the key: a store that minds If-None-Match refuses ours then, and one that does not cannot be told to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path
from typing import Any

from trapsync.destinations import (
    DestinationContext,
    Finding,
    Receipt,
    SimpleDestination,
    http_service,
)
from trapsync.destinations.layouts import Keys
from trapsync.destinations.s3 import api, doctor
from trapsync.destinations.s3.api import Bucket, NoList, Stored
from trapsync.destinations.s3.settings import Settings
from trapsync.errors import (
    DeliveryError,
    Failed,
    Refused,
    Unauthorised,
    Unreachable,
    Unresolved,
    one_line,
)
from trapsync.files import failpoint
from trapsync.image import Image
from trapsync.net.http_answer import Answer
from trapsync.net.http_body import FilePiece, opened

__all__ = ["S3", "Settings", "connect"]

# Up to so many keys are asked for one by one: their answers are shorter than a list, and exact.
_FEW = 2
_ROOM_FOR_OTHERS = 16  # keys of others between them that a listing may give besides
# A page of a listing that tells of so few of the keys that were asked for is mostly about others.
_LEAST_SHARE = 1 / 16
_LONGEST_KEY = 1024  # bytes
_ABSENCE_LIFE = 60.0  # seconds for which "it is not there" is believed before an image is sent
_PAUSE = 0.5  # seconds until the next image is sent to a store that failed at one
# Codes that say that what arrived is not what was sent.
_BROKEN = {
    *("BadDigest", "InvalidDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),
    *("XAmzContentChecksumMismatch", "ContentSHA256Mismatch"),
}
# Codes that say that it will never take this image.
_NEVER = {"EntityTooLarge", "KeyTooLongError"}


def connect(name: str, settings: Settings, context: DestinationContext) -> "S3":
    """Make the destination; nothing is sent yet."""
    return S3(name, settings, context)


class S3(SimpleDestination):
    """One bucket, and one folder in it."""

    # One listing gives up to 1,000 keys.
    batch = 512

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self.identity = settings.identity
        self._context = context
        self._bucket = Bucket(name, settings, context)
        self._keys = Keys(settings, context)
        self._absences = http_service.Absences(context.clock, _ABSENCE_LIFE)

    def close(self) -> None:
        """Close connections."""
        self._bucket.close()

    def key_of(self, image: Image) -> str:
        """The key under which a new image belongs."""
        return self.settings.prefix_of_keys + self._keys.of(image)

    # --- Asking -----------------------------------------------------------------------------------------

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask by listings for all of them, unless they are few; what those do not show is asked for before it is sent."""
        found: dict[int, Receipt | Exception] = {}
        keys: dict[int, list[str]] = {}
        for image in images:
            some = [self.settings.prefix_of_keys + path for path in self._keys.all_of(image)]
            keys[image.id] = [key for key in some if not _is_too_long(key)]
            if _is_too_long(some[0]):
                found[image.id] = _too_long()
        asked = {key for some in keys.values() for key in some}
        # Before it is sent, an image is asked for once more under its present key, and not under earlier ones: to lie there
        # unknown it was sent before its layout was changed, with an answer that was lost.
        stored = self._stored(asked, ()) if len(images) > _FEW else self._stored((), asked)
        for image in images:
            if (outcome := self._outcome(image, keys[image.id], stored)) and image.id not in found:
                found[image.id] = outcome
        return found

    def _outcome(
        self, image: Image, keys: Sequence[str], stored: Mapping[str, Stored]
    ) -> Receipt | Refused | Failed | None:
        """What is there of an image under any of these keys; what others have under its earlier ones is no matter."""
        outcomes = [self._judged(image, key, stored[key]) for key in keys if key in stored]
        receipts = [one for one in outcomes if isinstance(one, Receipt)]
        return next(iter(receipts), None) or (outcomes[0] if keys and keys[0] in stored else None)

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """Ask for each where it was put; with `by_bytes` one by one, for the first of its bytes.

        An ETag is computed from the bytes as they are stored. A Failed says that nothing is known of its image.
        """
        keys = {image.id: at.get(image.id) or self.key_of(image) for image in images}
        asked = {key for key in keys.values() if not _is_too_long(key)}
        stored = {} if by_bytes else self._stored(asked if len(asked) > _FEW else (), asked)
        found: dict[int, Receipt | Exception] = {}
        for image in images:
            key = keys[image.id]
            if by_bytes and key in asked:
                answer = self._by_first_byte(image, key)
            else:
                answer = self._judged(image, key, stored[key]) if key in stored else None
            if answer is not None:
                found[image.id] = answer
        return found

    def _by_first_byte(self, image: Image, key: str) -> Receipt | Refused | Failed | None:
        try:
            stored = self._bucket.first_byte(key)
        except (Failed, Unauthorised) as error:  # it is in an archive, say
            return Failed(f"its stored bytes cannot be asked for: {error}")
        # With the first byte come no digests but the ETag.
        return self._judged(image, key, replace(stored, is_whole=False)) if stored else None

    def _stored(self, listed: Iterable[str], surely: Iterable[str]) -> dict[str, Stored]:
        """What lies under these keys: what listings show, and of `surely` also what they do not, one by one."""
        stored = self._listed(sorted(listed, key=str.encode))
        for key in set(surely) - stored.keys():
            try:
                if (one := self._bucket.head(key)) is not None:
                    stored[key] = one
                else:
                    self._absences.note([key])
            except Failed:  # what it is is asked once more before its image is sent
                pass
        return stored

    def _listed(self, rest: list[str]) -> dict[str, Stored]:
        """What listings show of these keys, which are in order: as long as those tell of them, and not mostly of others."""
        stored: dict[str, Stored] = {}
        while rest:
            prefix = commonprefix([rest[0], rest[-1]])  # noqa: RUF071 - of characters is meant
            try:
                page, is_cut = self._bucket.list(prefix, rest[0][:-1], len(rest) + _ROOM_FOR_OTHERS)
            except NoList:
                break  # they are asked for one by one
            stored |= {key: page[key] for key in rest if key in page}
            last = max(page, key=str.encode, default="").encode()
            left = [key for key in rest if is_cut and key.encode() > last]
            if len(rest) - len(left) < max(1, len(page) * _LEAST_SHARE):
                break
            rest = left
        return stored

    def _compared(self, image: Image, key: str, stored: Stored) -> Receipt | Refused | None:
        """Whether an object is this image, by what the store computed; None: it is gone by now."""
        detail = {"key": key}
        if stored.size == image.size:
            if stored.etag == image.md5:
                return Receipt(f"md5:{image.md5}", detail, at=key)
            if not stored.is_whole:
                return self._looked_up(image, key)
            if self._is_computed(stored) and stored.sha256 == image.sha256:
                return Receipt(f"sha256:{image.sha256}", detail, at=key)
            if stored.told == image.sha256 and not stored.has_md5 and stored.sha256 in {"", image.sha256}:
                return Receipt(f"echo:{image.sha256}", detail, at=key)
        return Refused(
            f"another file is there under this name ({stored.size} bytes, ETag {one_line(stored.etag, 40)}; ours has "
            f"{image.size}, MD5 {image.md5}): both are kept; delete or rename that one in the bucket, then retry"
        )

    def _judged(self, image: Image, key: str, stored: Stored) -> Receipt | Refused | Failed | None:
        """The same; a Failed where an object's own answer cannot be read."""
        try:
            return self._compared(image, key, stored)
        except Failed as error:
            return error

    def _looked_up(self, image: Image, key: str) -> Receipt | Refused | None:
        stored = self._bucket.head(key)
        return self._compared(image, key, stored) if stored else None

    def _is_computed(self, stored: Stored) -> bool:
        """Whether its SHA-256 is the store's own: some give back what they were told, and have MD5s besides."""
        return self.settings.checksum == "sha256" or (
            self.settings.checksum == "auto" and stored.is_encrypted
        )

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image in one part; anything but its MD5 in the answer is resolved by asking."""
        key = self.key_of(image)
        if _is_too_long(key):
            raise _too_long()
        if not self._absences.take(key) and (there := self._looked_up(image, key)):
            if isinstance(there, Refused):
                raise there
            return there
        self._keys.remember()
        try:
            with opened(image, path) as file:
                answer = self._bucket.put(key, FilePiece(file, image.size, image.md5), image)
            failpoint.hit("s3: uploaded")
        except Unauthorised:
            raise
        except Unreachable as lost:
            return self.resolve(image, lost)
        if answer.status == 200 and api.etag_of(answer.headers.get("ETag", "")) == image.md5:
            return Receipt(f"md5:{image.md5}", {"key": key}, at=key)
        if answer.status != 200 and self._bucket.drop_header(answer, image):
            return self.deliver(image, path)
        return self.resolve(image, self._meaning(answer, image))

    def resolve(self, image: Image, failure: DeliveryError) -> Receipt:
        """After a failure, ask what became of the image under its key; what cannot be resolved is raised."""
        if isinstance(failure, Refused | Unauthorised):
            raise failure
        receipt = super().resolve(image, failure)
        if not receipt.digest.startswith("md5:"):
            self._bucket.note_without_md5()
        return receipt

    def _meaning(self, answer: Answer, image: Image) -> DeliveryError:
        """What an answer to an image means if that is not there then."""
        told = f"({answer.status}{api.reason(answer)})"
        code = api.code_of(answer)
        match answer.status:
            case 401 | 402 | 403:
                return Unauthorised(
                    f"{answer.host} does not let the key write {told}; allow s3:PutObject, or look at the account"
                )
            case _ if answer.status == 413 or code in _NEVER:
                return Refused(f"{answer.host} takes no image of this size, or of this name {told}")
            case 304 | 409 | 412:  # MinIO has answered 304 to what is there (minio#19442)
                return Unresolved(f"{answer.host} was sent another file of this name just now {told}")
            case _ if code in _BROKEN:
                return Unresolved(f"{answer.host} got other bytes than were sent {told}")
            case 500:
                self._context.sleep(_PAUSE)
                return Unresolved(f"{answer.host} did not take it {told}")
            case 400:
                return Failed(f"{answer.host} did not take it {told}")
        return Unreachable(f"{answer}{api.reason(answer)}{answer.portal}")

    # --- Addresses --------------------------------------------------------------------------------------

    def address(self, image: Image, detail: Mapping[str, Any]) -> str | None:
        """Where the image can be fetched, for `url_lifetime`. Asks nobody."""
        if not self._context.clock.trusted():
            raise Unreachable("the clock is not set, so it cannot be said when an address of today ends")
        key = str(detail.get("key") or self.key_of(image))
        return self._bucket.address(key, int(self.settings.url_lifetime))

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the bucket is there and lets us in, and with `probe` what it promises."""
        return doctor.findings(self.name, self.settings, self._bucket, self._context)


def _is_too_long(key: str) -> bool:
    return len(key.encode(errors="surrogatepass")) > _LONGEST_KEY


def _too_long() -> Refused:
    return Refused(
        f"its key would have more than the {_LONGEST_KEY} bytes that S3 takes; move or rename it on the card"
    )
