"""Requests to one bucket of an S3-compatible store, and what its answers mean.

What an answer says of the store as a whole (let in, bucket, region, clock, room) is raised here, with one line; what it
says of one object comes back. An answer to HEAD has no body and so gives no reason: that is asked for with a listing.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus, urlsplit

from trapsync import clock as clocks
from trapsync.destinations import DestinationContext, http_service
from trapsync.destinations.object_storage import in_base64
from trapsync.destinations.s3.settings import Settings
from trapsync.destinations.s3.signing import EMPTY, Signer, encoded, query_of
from trapsync.errors import Failed, Unauthorised, Unreachable, one_line
from trapsync.image import Image
from trapsync.net import foreign_xml
from trapsync.net.http import LARGEST_ANSWER
from trapsync.net.http_answer import Answer, quoted
from trapsync.net.http_body import Body

_LARGEST_ERROR = 64 * 1024
_MOST_ROWS = 1000  # what one listing gives
_LARGEST_LIST = 4 * 2**20  # of keys of 1,024 bytes, which take up to three times as many
_CLOCK_TOLERANCE = 240.0  # seconds: some stores bear five minutes, most a quarter of an hour
_DIGITS = re.compile(r"[0-9]{1,18}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_NO_ROOM = re.compile(r"Quota|StorageFull|NotEnoughSpace|InsufficientStorage|cap exceeded", re.IGNORECASE)
# Headers that not every store takes. Of those that the answer to an image says are unknown none is sent again.
UNLESS_THERE, SHA256 = "If-None-Match", "x-amz-checksum-sha256"

_NO_MD5 = "no md5"  # the note that an ETag of the store was none
# What errors of the whole store mean, by their codes: whose they are, and what to do.
_AWAY, _OWNERS = Unreachable, Unauthorised
_MEANINGS: dict[str, tuple[type[Unreachable], str]] = {
    "InvalidAccessKeyId": (_OWNERS, "does not know this access_key; look at it, and at endpoint"),
    "SignatureDoesNotMatch": (_OWNERS, "rejects the signature; look at secret_file, access_key and region"),
    "AccessDenied": (_OWNERS, "does not permit this; let the key list the bucket, read and write objects"),
    "NoSuchBucket": (_OWNERS, "has no such bucket; look at bucket and endpoint, or create it"),
    "InvalidBucketName": (_OWNERS, "has no bucket of such a name; look at bucket"),
    "InvalidStorageClass": (_OWNERS, "has no such storage class; look at storage_class"),
    "AuthorizationHeaderMalformed": (_OWNERS, "wants another region; look at region"),
    "RequestTimeout": (_AWAY, "got the bytes too slowly"),
    "OperationAborted": (_AWAY, "is busy with the bucket"),
}
_OTHER_REGION = {"PermanentRedirect", "TemporaryRedirect", "Redirect"}


class _Adopted(Unreachable):
    """The store said which region or time it goes by: ask again."""


class NoList(Unreachable):
    """What came is no list: a name in it may be one that XML cannot hold."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says of one object. `etag` is in lower case and without its quotes.

    By a listing no more than these two are known. `is_whole`: by its own headers, which may hold the SHA-256 that the
    store computed, and the one that we told it (both hex); `is_encrypted`: then its ETag is no MD5.
    """

    size: int
    etag: str
    is_whole: bool = False
    sha256: str = ""
    told: str = ""
    is_encrypted: bool = False

    @property
    def has_md5(self) -> bool:
        """Whether its ETag is the MD5 of its bytes: it came in one part, and is not encrypted with a key of KMS."""
        return bool(_MD5.fullmatch(self.etag)) and not self.is_encrypted


def etag_of(text: str) -> str:
    """An ETag without its quotes; some stores write it in capitals."""
    return text.removeprefix("W/").strip('"').lower()


class Bucket:
    """One bucket. May be used from several threads. Raises Unreachable, and Unauthorised where its owner is to act."""

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self._settings = settings
        self._secret = f"destinations.{name}.secret_file"
        self._context = context
        self._clock = context.clock
        self._base, self._path = settings.base
        self._host = urlsplit(self._base).netloc
        self._region = settings.region
        self._ahead = 0.0  # of the store's clock before ours, where it said that they differ too much
        self._dropped: set[str] = set()
        self._client = http_service.client(
            self._base,
            settings,
            context,
            timeout=settings.timeout,
            authorities=settings.ca_file,
            judge=self._judge,
        )

    @property
    def host(self) -> str:
        """The server, for texts."""
        return self._client.host

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    # --- Questions --------------------------------------------------------------------------------------

    def head(self, key: str) -> Stored | None:
        """What lies under a key; None: nothing. Failed where that cannot be read."""
        answer = self._of_object(lambda: self._ask("HEAD", key, headers=self._asking()))
        if answer.status == 404:
            return None
        return self._stored(answer, answer.headers.get("Content-Length", ""))

    def first_byte(self, key: str) -> Stored | None:
        """The same by the stored bytes, of which the first is read: what is told of an object could outlive it."""
        answer = self._of_object(lambda: self._fetched(key))
        if answer.status == 404:
            return None
        if answer.status == 416:  # what lies there has no first byte
            return Stored(0, "")
        kind, _, size = answer.headers.get("Content-Range", "").rpartition("/")
        return self._stored(answer, size if kind else answer.headers.get("Content-Length", ""))

    def _fetched(self, key: str) -> Answer:
        path, headers = self._signed("GET", key, {}, {"Range": "bytes=0-0"}, EMPTY)
        with self._client.fetch(path, headers=headers, deadline=60.0, largest=2**20) as (answer, pieces):
            if answer.status != 200:  # after which the whole image would come
                sum(map(len, pieces))
            return answer

    def _of_object(self, ask: Callable[[], Answer]) -> Answer:
        """An answer about one object that is exact: it is there, or it is not."""
        answer = ask()
        if answer.status in {400, 403}:
            before = self._region, self._ahead
            self.list_some()  # raises why, or learns it
            is_wiser = before != (self._region, self._ahead)
            if not is_wiser and answer.status == 400 and self._asking():
                is_wiser = True
                self._dropped.add(SHA256)
            answer = ask() if is_wiser else answer
        is_there = answer.status in {200, 206} and "ETag" in answer.headers
        if is_there or (answer.status in {404, 416} and answer.kind != "text/html"):
            return answer
        if answer.status == 400:  # and a list it gives
            raise Failed(f"{self.host} declines to be asked for it by its name ({answer.status})")
        http_service.admitted(answer, "let the key read objects (s3:GetObject)")
        raise Unreachable(f"{answer}{answer.portal}")

    def _stored(self, answer: Answer, size: str) -> Stored:
        get = answer.headers.get
        if not _DIGITS.fullmatch(size):
            raise Failed(f"{self.host} does not tell the size of what lies under its name")
        encryption = get("x-amz-server-side-encryption", "")
        by_customer = get("x-amz-server-side-encryption-customer-algorithm", "")
        return Stored(
            int(size),
            etag_of(get("ETag", "")),
            True,
            _hex_of(get("x-amz-checksum-sha256", "")),
            get("x-amz-meta-sha256", ""),
            encryption.startswith("aws:kms") or bool(by_customer),
        )

    def list(self, prefix: str, after: str, most: int) -> tuple[dict[str, Stored], bool]:
        """The objects whose keys begin so and come after this one, and whether there are more of them."""
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(min(most, _MOST_ROWS))}
        query |= {"prefix": prefix} if prefix else {}
        query |= {"start-after": after} if after else {}
        answer = self._admitted_list(query)
        try:
            facts, rows = foreign_xml.read(answer.body, "ListBucketResult", "Contents")
        except ValueError as error:
            raise NoList(f"{self.host} answered with a list that is {error}") from None
        is_encoded = facts.get("EncodingType") == "url"
        objects: dict[str, Stored] = {}
        for row in rows:
            key, size = row.get("Key", ""), row.get("Size", "")
            if _DIGITS.fullmatch(size):
                objects[unquote_plus(key) if is_encoded else key] = Stored(
                    int(size), etag_of(row.get("ETag", ""))
                )
        return objects, facts.get("IsTruncated") == "true"

    def list_some(self) -> Answer:
        """The least of the questions for a list, for what the answer says besides."""
        prefix = self._settings.prefix_of_keys
        query = {"list-type": "2", "max-keys": "1"} | ({"prefix": prefix} if prefix else {})
        return self._admitted_list(query)

    def _admitted_list(self, query: Mapping[str, str]) -> Answer:
        answer = self._ask("GET", "", query)
        if answer.status != 200 or answer.kind == "text/html":
            http_service.admitted(answer, "let the key list the bucket (s3:ListBucket)")
            raise Unreachable(f"{answer}{reason(answer)}{answer.portal}")
        return answer

    def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A question that changes nothing, asked again where the store said how it wants to be asked."""

        def send(_failed: int) -> Answer:
            return self._send(method, key, query=query, headers=headers)

        try:
            return self._client.insist(send)
        except _Adopted:
            return self._client.insist(send)

    # --- Sending ----------------------------------------------------------------------------------------

    def put(self, key: str, body: Body, image: Image) -> Answer:
        """Send an image's bytes in one part, unless something is there, and give what the store answered."""
        headers = {
            "Content-Type": "image/jpeg",
            "Content-MD5": in_base64(image.md5),
            "x-amz-meta-sha256": image.sha256,
        }
        if self._settings.storage_class:
            headers["x-amz-storage-class"] = self._settings.storage_class
        return self._send("PUT", key, body, headers=headers | self._optional(image), digest=image.sha256)

    def _optional(self, image: Image) -> dict[str, str]:
        some = {UNLESS_THERE: "*"} if UNLESS_THERE not in self._dropped else {}
        if self._wants_sha256:
            some[SHA256] = base64.b64encode(bytes.fromhex(image.sha256)).decode()
        return some

    def _asking(self) -> dict[str, str]:
        """What asks for an object's SHA-256. B2 declines it (diced/zipline#746), so it is only sent where it is of use."""
        return {"x-amz-checksum-mode": "ENABLED"} if self._wants_sha256 else {}

    @property
    def _wants_sha256(self) -> bool:
        if SHA256 in self._dropped or self._settings.checksum == "md5":
            return False
        return self._settings.checksum == "sha256" or bool(self._context.note(_NO_MD5))

    def note_without_md5(self) -> None:
        """Remember that this store's ETags are no MD5s: of the images from then on it is told the SHA-256 too."""
        if not self._context.note(_NO_MD5):
            self._context.put_note(_NO_MD5, 1)

    def drop_header(self, answer: Answer, image: Image) -> bool:
        """Whether the store declined an image for a header that it does not know, which is not sent again then."""
        error = _error(answer)
        code, text = error.get("Code", ""), error.get("Message", "").lower()
        sent = self._optional(image)
        is_unknown = answer.status == 501 or code == "NotImplemented"
        if SHA256 in sent and (
            is_unknown or code in {"InvalidArgument", "InvalidRequest"} or "checksum" in text
        ):
            self._dropped.add(SHA256)
        elif UNLESS_THERE in sent and (is_unknown or "none-match" in text):
            self._dropped.add(UNLESS_THERE)
        else:
            return False
        return True

    def send_probe(self, method: str, key: str, content: bytes = b"", **headers: str) -> Answer:
        """Write or remove a small object of the doctor's."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._send(
            method, key, content, headers=named, digest=EMPTY if not content else "UNSIGNED-PAYLOAD"
        )

    def _send(
        self,
        method: str,
        key: str,
        body: Body | bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        digest: str = EMPTY,
    ) -> Answer:
        path, signed = self._signed(method, key, query or {}, headers or {}, digest)
        more = {"Accept-Encoding": "identity"} if method == "HEAD" else {}  # not signed: proxies change it
        largest = _LARGEST_LIST if query else LARGEST_ANSWER
        return self._client.send(method, path, body, headers=signed | more, largest=largest)

    def _signed(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], digest: str
    ) -> tuple[str, dict[str, str]]:
        """The path with its query, and the headers."""
        path = self._path_of(key)
        named = {**headers, "Host": self._host, "x-amz-content-sha256": digest}
        signed = self._signer().headers(method, path, query, named, self._now())
        return f"{path}?{query_of(query)}" if query else path, signed

    def _path_of(self, key: str) -> str:
        return encoded(f"{self._path}/{key}" if key else self._path or "/")

    def _signer(self) -> Signer:
        secret = http_service.secret(self._settings.secret_file, self._secret)
        return Signer(self._settings.access_key, secret, self._region)

    def _now(self) -> datetime:
        return clocks.utc(self._clock.wall() + self._ahead)

    def address(self, key: str, seconds: int) -> str:
        """Where an object can be fetched by whoever has the address, for so many seconds."""
        path = self._path_of(key)
        return f"{self._base}{path}?{self._signer().query('GET', self._host, path, self._now(), seconds)}"

    # --- What answers mean ------------------------------------------------------------------------------

    def _judge(self, answer: Answer) -> None:
        """Raise what an answer says of the store as a whole, before it is taken for a portal's redirect, say."""
        if answer.status < 300:
            return
        error = _error(answer)
        code = error.get("Code", "")
        region = error.get("Region", "") or answer.headers.get("x-amz-bucket-region", "")
        told = f"({answer.status}{_told(error)})"
        if answer.status in {400, 403}:
            self._adopt_time(answer)
        if code == "RequestTimeTooSkewed":
            says = clocks.iso(clocks.utc(self._clock.wall()))
            text = f"the trap's clock says {says}, and the store's another time: set it (timedatectl)"
            raise Unreachable(f"{self.host} does not take requests of this time {told}: {text}")
        if answer.status in {301, 307} and (code in _OTHER_REGION or region):
            raise Unauthorised(self._elsewhere(error, region, told))
        if answer.status in {400, 403} and region and _REGION.fullmatch(region) and region != self._region:
            self._region = region
            raise _Adopted(f"{self.host}: the bucket's region is {region}; set region")
        is_later = answer.status in {429, 503}  # which may speak of a quota of requests
        if answer.status == 507 or (not is_later and _NO_ROOM.search(f"{code} {error.get('Message', '')}")):
            raise Unreachable(
                f"{self.host} has no room left {told}: free some space there, or raise its quota"
            )
        if code in _MEANINGS:
            kind, text = _MEANINGS[code]
            raise kind(f"{self.host} {text} {told}")

    def _adopt_time(self, answer: Answer) -> None:
        """Go by the store's clock in signatures, where it declines one and differs by more than stores bear.

        Most say that this is why; some say that access is denied. To sign by its clock gives no right that its own
        key has not, for a quarter of an hour.
        """
        if answer.date is None:
            return
        ahead = answer.date - self._clock.wall()
        if abs(ahead - self._ahead) > _CLOCK_TOLERANCE:
            self._ahead = ahead
            raise _Adopted(f"{self.host}: its clock and the trap's differ; set the trap's (timedatectl)")

    def _elsewhere(self, error: Mapping[str, str], region: str, told: str) -> str:
        there = quoted(error.get("Endpoint", ""))
        where = f"the region {one_line(region, 64)}" if region else "another region"
        at = f", at {there}" if there else ""
        return (
            f"{self.host} says the bucket is in {where}{at} {told}: set region, and endpoint to that region's"
        )


def reason(answer: Answer) -> str:
    """What a store says was wrong, as the end of a line; empty if it says nothing."""
    return _told(_error(answer))


def code_of(answer: Answer) -> str:
    """The code of the error that a store tells; empty if it tells none."""
    return _error(answer).get("Code", "")


def _error(answer: Answer) -> dict[str, str]:
    if answer.status < 300 or not 0 < len(answer.body) <= _LARGEST_ERROR:
        return {}
    try:
        return foreign_xml.read(answer.body, "Error")[0]
    except ValueError:
        return {}


def _told(error: Mapping[str, str]) -> str:
    """A store's own words: its code and what it says to it."""
    code, text = one_line(error.get("Code", ""), 60), quoted(error.get("Message", ""))
    return f" {code}{text and f': {text}'}" if code else ""


def _hex_of(text: str) -> str:
    """A SHA-256 in base64 as hex; empty if it is none, or one of several parts."""
    try:
        digest = base64.b64decode(text, validate=True)
    except ValueError:
        return ""
    return digest.hex() if len(digest) == 32 else ""
