"""What a store answers, and what comes of it: errors, headers that it does not know, other bytes under a name, no MD5s."""

import random
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import s3_store
from conformance import Card, attempt
from fake_time import FakeTime
from fault_server import Reply
from memory_context import MemoryContext, context
from s3_store import Saying, Site, Store, error
from trapsync.clock import SystemClock
from trapsync.destinations import Receipt
from trapsync.destinations.s3 import S3
from trapsync.errors import DeliveryError, Failed, Refused, Unauthorised, Unreachable, Unresolved
from trapsync.image import Image


@dataclass
class Odd:
    """A real store that may say something else, and a site in it."""

    store: Saying
    site: Site

    def key(self, image: Image) -> str:
        """Where an image lies."""
        return f"{self.site.prefix}/{image.place}"

    def sent(self, header: str) -> list[str | None]:
        """What this header was of each image that was sent."""
        return [headers.get(header) for path, headers in self.store.asked if path.startswith("PUT ")]


@pytest.fixture(params=["seaweed", "rclone_s3"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Odd]:
    """One store that minds If-None-Match, and one that does not."""
    store: Store = request.getfixturevalue(request.param)
    with s3_store.site(store, tmp_path) as site:
        site.front.backend = saying = Saying(store.url)
        yield Odd(saying, site)


@pytest.fixture
def odd(seaweed: Store, tmp_path: Path) -> Iterator[Odd]:
    """A SeaweedFS."""
    with s3_store.site(seaweed, tmp_path) as site:
        site.front.backend = saying = Saying(seaweed.url)
        yield Odd(saying, site)


@pytest.fixture
def bucket(odd: Odd) -> Iterator[S3]:
    """Connected to it."""
    destination = odd.site.connect()
    yield destination
    destination.close()


# --- Errors -------------------------------------------------------------------------------------------------

ANY = ("GET", "HEAD", "PUT")
REDIRECTED = {"x-amz-bucket-region": "eu-west-1"}
MEANINGS: list[tuple[tuple[str, ...], Reply, type[DeliveryError], str]] = [
    (
        ANY,
        error(403, "AccessDenied", "Access Denied"),
        Unauthorised,
        "does not permit this; let the key list",
    ),
    (ANY, error(403, "InvalidAccessKeyId"), Unauthorised, "does not know this access_key"),
    (ANY, error(403, "SignatureDoesNotMatch"), Unauthorised, "look at secret_file, access_key and region"),
    (ANY, error(404, "NoSuchBucket"), Unauthorised, "has no such bucket; look at bucket and endpoint"),
    (ANY, error(400, "InvalidBucketName"), Unauthorised, "look at bucket"),
    (
        ANY,
        error(301, "PermanentRedirect", headers=REDIRECTED, Endpoint="s3.eu-west-1.example.org"),
        Unauthorised,
        "in the region eu-west-1",
    ),
    (ANY, error(307, "TemporaryRedirect", headers=REDIRECTED), Unauthorised, "set region, and endpoint"),
    (
        ("PUT",),
        error(307, "TemporaryRedirect", Endpoint="b.s3.example.org"),
        Unauthorised,
        "at b.s3.example.org",
    ),
    (ANY, (307, {"Location": "http://portal.example"}, b""), Unreachable, "captive portal"),
    (ANY, error(503, "SlowDown", headers={"Retry-After": "7"}), Unreachable, "come later, in 7 s"),
    (ANY, error(503, "ServiceUnavailable"), Unreachable, "it asks to come later"),
    (ANY, error(429, "TooManyRequests", "Quota exceeded"), Unreachable, "it asks to come later"),
    (ANY, error(403, "RequestTimeTooSkewed", headers={"Date": "x"}), Unreachable, "set it .timedatectl"),
    (("PUT",), error(403, "QuotaExceeded"), Unreachable, "no room left"),
    (("PUT",), error(507, "XMinioStorageFull"), Unreachable, "no room left"),
    (("PUT",), error(507, "InsufficientStorage"), Unreachable, "no room left"),
    (
        ("PUT",),
        error(403, "AccessDenied", "Cannot upload, storage cap exceeded"),
        Unreachable,
        "no room left",
    ),
    (("PUT",), error(403, "AccessDenied"), Unauthorised, "read and write"),
    (("PUT",), (403, {}, b""), Unauthorised, "s3:PutObject"),
    (("PUT",), error(400, "InvalidStorageClass"), Unauthorised, "look at storage_class"),
    (("PUT",), error(400, "RequestTimeout"), Unreachable, "too slowly"),
    (("PUT",), error(400, "BadDigest"), Unresolved, "got other bytes than were sent .400 BadDigest: no"),
    (("PUT",), error(400, "XAmzContentSHA256Mismatch"), Unresolved, "got other bytes"),
    (
        ("PUT",),
        error(500, "InternalError", "We encountered an internal error."),
        Unresolved,
        "InternalError: We",
    ),
    (("PUT",), error(409, "ConditionalRequestConflict"), Unresolved, "another file of this name just now"),
    (("PUT",), error(412, "PreconditionFailed"), Unresolved, "another file of this name just now"),
    (("PUT",), error(400, "EntityTooLarge"), Refused, "of this size"),
    (("PUT",), error(413, "EntityTooLarge"), Refused, "of this size"),
    (("PUT",), error(400, "KeyTooLongError"), Refused, "of this name"),
    (("PUT",), error(400, "OddlyNamed", "a\nlong &#8238;story"), Failed, "OddlyNamed: a long .story"),
    (("PUT",), error(405, "MethodNotAllowed"), Unreachable, "405"),
    (("PUT",), error(501, "NotImplemented"), Unreachable, "501"),
    (("PUT",), (200, {"Content-Type": "text/html"}, b"<p>Welcome"), Unreachable, "captive portal"),
    (("PUT",), (200, {"ETag": '"00000000000000000000000000000000"'}, b""), Unreachable, "answered 200"),
    (
        ("HEAD",),
        (200, {"Content-Type": "text/html", "Content-Length": "5"}, b""),
        Unreachable,
        "captive portal",
    ),
    (("HEAD",), (404, {"Content-Type": "text/html"}, b""), Unreachable, "404 with text/html"),
    (("HEAD",), (403, {}, b""), Unauthorised, "let the key read objects"),
    (("HEAD",), (400, {}, b""), Failed, "declines to be asked for it by its name .400"),
    (("HEAD",), (405, {}, b""), Unreachable, "answered 405"),
]


@pytest.mark.parametrize("case", MEANINGS, ids=lambda case: f"{case[3]}, to {case[0][0]}")
def test_an_answer_is_the_right_error_and_one_line_and_nothing_is_stored(
    odd: Odd, bucket: S3, card: Card, case: tuple[tuple[str, ...], Reply, type[DeliveryError], str]
) -> None:
    methods, reply, kind, says = case
    image = card.image()
    odd.store.says = lambda path, *_: reply if path.startswith(methods) else None
    with pytest.raises(DeliveryError, match=says) as caught:
        bucket.deliver(image, card.path(image))
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert odd.site.stored() == {}
    odd.store.says = lambda *_: None
    bucket.deliver(image, card.path(image))


@pytest.mark.parametrize(
    "answer",
    [
        b'<!DOCTYPE a [<!ENTITY x "x">]><Error><Code>AccessDenied</Code></Error>',
        b"<Error>" + b"<a>" * 100 + b"</a>" * 100 + b"</Error>",
        b"<Error><Code>AccessDenied</Code>" + b"<x/>" * 30_000 + b"</Error>",
        b"<Error><Code>AccessDenied</Code><!-- " + b"x" * 10**6 + b" --></Error>",
        b"\xff\xfe<\x00E\x00r\x00r\x00",
        b'<?xml version="1.0" encoding="x-odd"?><Error><Code>AccessDenied</Code></Error>',
    ],
    ids=["entities", "depth", "elements", "length", "UTF-16", "an encoding"],
)
def test_xml_that_is_hostile_is_no_answer_and_costs_nothing(
    odd: Odd, bucket: S3, card: Card, answer: bytes
) -> None:
    image, others = card.image(), [card.image(second) for second in range(1, 4)]
    odd.store.says = lambda path, *_: (400, {}, answer) if path.startswith("PUT") else None
    with pytest.raises(Failed, match="did not take it"):
        bucket.deliver(image, card.path(image))
    odd.store.says = lambda path, *_: (200, {}, answer.replace(b"Error", b"ListBucketResult"))
    assert bucket.find_existing(others) == {}


def test_a_region_that_the_store_names_is_taken(odd: Odd, bucket: S3, card: Card) -> None:
    image = card.image()

    def wants(_path: str, headers: Mapping[str, str], _body: bytes) -> Reply | None:
        if "/eu-x-7/s3/" in headers["authorization"]:
            return None
        return error(400, "AuthorizationHeaderMalformed", Region="eu-x-7")

    odd.store.says = wants
    assert isinstance(bucket.deliver(image, card.path(image)), Receipt)
    assert bucket.find_existing([image]).keys() == {image.id}
    odd.store.says = lambda *_: error(400, "AuthorizationHeaderMalformed", Region="eu-x-7")
    with pytest.raises(Unauthorised, match="look at region"):
        bucket.find_existing([image])


@pytest.mark.parametrize("hours", [-3, 3, 24 * 400])
def test_with_a_wrong_clock_the_stores_is_gone_by_and_the_doctor_says_so(
    either: Odd, card: Card, hours: int
) -> None:
    image, time = card.image(), FakeTime(SystemClock(always_trusted=True).wall() + hours * 3600)
    bucket = either.site.connect(context(time))
    assert isinstance(bucket.deliver(image, card.path(image)), Receipt)
    assert either.site.stored().keys() == {image.name}
    side = "ahead of" if hours > 0 else "behind"
    findings = [one.text for one in bucket.check() if one.verdict == "warning"]
    assert [side in text and "timedatectl" in text for text in findings] == [True]


def test_when_advice_is_taken_what_it_is_about_goes_away(odd: Odd, card: Card) -> None:
    site, image = odd.site, card.image()

    def says(words: str, **keys: Any) -> None:
        with pytest.raises(Unauthorised, match=words):
            site.connect(**keys).deliver(image, card.path(image))

    site.change_secret("wrong")
    says("rejects the signature; look at secret_file")
    site.change_secret(s3_store.SECRET)
    says("does not know this access_key; look at it", access_key="NOBODY")
    says(
        "does not permit this; let the key list the bucket, read and write objects",
        access_key="READER0123456789",
    )
    says("has no such bucket; look at bucket", bucket="nothing-here")
    site.connect().deliver(image, card.path(image))


def test_a_key_that_may_list_only_is_told_what_it_lacks(odd: Odd, card: Card) -> None:
    image = card.image()
    with pytest.raises(Unauthorised, match="let the key"):
        odd.site.connect(access_key="LISTER0123456789").deliver(image, card.path(image))


# --- Headers that a store does not know ------------------------------------------------------------------------


def declining(
    header: str, reply: Reply, *methods: str
) -> Callable[[str, Mapping[str, str], bytes], Reply | None]:
    """A store that does not know this header."""
    return lambda path, headers, _body: reply if path.startswith(methods) and header in headers else None


@pytest.mark.parametrize(
    "reply",
    [
        error(501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
        error(400, "InvalidRequest", "If-None-Match is not supported"),
        (501, {}, b""),
    ],
)
def test_a_store_that_declines_if_none_match_is_sent_none_from_then_on_and_nothing_is_overwritten(
    odd: Odd, bucket: S3, card: Card, reply: Reply
) -> None:
    odd.store.says = declining("if-none-match", reply, "PUT")
    images = [card.image(second) for second in range(3)]
    for image in images:
        assert bucket.deliver(image, card.path(image)).digest == f"md5:{image.md5}"
    assert odd.sent("if-none-match") == ["*", None, None, None]
    with pytest.raises(Refused, match="both are kept"):
        bucket.deliver(card.image(seed=2), card.path(images[0]))
    assert len(odd.site.stored()) == 3


@pytest.mark.parametrize("has_kms", [True, False])
def test_a_store_that_declines_checksums_is_sent_none_from_then_on(
    odd: Odd, card: Card, has_kms: bool
) -> None:
    """As B2 does, in what is sent and in questions."""
    reply = error(
        400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256' received for this API call."
    )

    def says(path: str, headers: Mapping[str, str], _body: bytes) -> Reply | None:
        is_odd = any(name.startswith("x-amz-checksum-") for name in headers)
        return reply if is_odd and not path.startswith("GET") else None

    odd.store.says = says
    bucket = odd.site.connect(checksum="sha256")
    for second in range(2):
        image = card.image(second)
        assert bucket.deliver(image, card.path(image)).digest == f"md5:{image.md5}"
    assert odd.sent("x-amz-checksum-sha256") == [None, None]
    assert odd.sent("if-none-match") == ["*", "*"]


def test_every_image_is_sent_in_one_part_with_both_digests_and_the_type_of_a_jpeg(
    either: Odd, card: Card
) -> None:
    image = card.image()
    either.site.connect(checksum="sha256", storage_class="STANDARD").deliver(image, card.path(image))
    ((path, sent),) = [one for one in either.store.asked if one[0].startswith("PUT")]
    assert path == f"PUT /pictures/{either.key(image)}"
    assert sent["content-type"] == "image/jpeg"
    assert int(sent["content-length"]) == image.size
    assert sent["x-amz-content-sha256"] == image.sha256
    assert b64decode(sent["content-md5"]).hex() == image.md5
    assert b64decode(sent["x-amz-checksum-sha256"]).hex() == image.sha256
    assert sent["x-amz-storage-class"] == "STANDARD"
    assert "transfer-encoding" not in sent


# --- What proves something --------------------------------------------------------------------------------------


def kms(path: str, reply: Reply) -> Reply:
    """A bucket that is encrypted with a key of KMS: its ETags are no MD5s, of an answer to PUT and of a listing."""
    status, headers, content = reply
    if status == 200 and path.startswith(("PUT", "HEAD")):
        shown = {name: value for name, value in headers.items() if name.lower() != "etag"}
        headers = {**shown, "ETag": f'"{"1" * 32}"', "x-amz-server-side-encryption": "aws:kms"}
    if path.startswith("GET"):
        headers = {name: value for name, value in headers.items() if name != "Content-Length"}
    return status, headers, content


def digests(bucket: S3, card: Card, seconds: range) -> list[str]:
    """What kinds of digests the receipts of some images have, and the same when they are asked for again."""
    kinds = []
    for second in seconds:
        image = card.image(second)
        receipt = bucket.deliver(image, card.path(image))
        assert bucket.find_existing([image])[image.id] == receipt
        assert bucket.confirm([image], {image.id: receipt.at})[image.id] == receipt
        kinds.append(receipt.digest.partition(":")[0])
        assert receipt.digest in {f"sha256:{image.sha256}", f"echo:{image.sha256}"}
    return kinds


def test_with_etags_that_are_no_md5s_a_receipt_is_the_stores_sha256_or_an_echo(odd: Odd, card: Card) -> None:
    odd.store.changes = kms
    assert digests(odd.site.connect(checksum="md5"), card, range(2)) == ["echo", "echo"]
    given = MemoryContext(odd.site.time, odd.site.sleep)
    assert digests(odd.site.connect(given), card, range(2, 5)) == ["echo", "sha256", "sha256"]
    assert digests(odd.site.connect(given), card, range(5, 6)) == ["sha256"]  # another start remembers it
    assert digests(odd.site.connect(checksum="sha256"), card, range(6, 7)) == ["sha256"]


def test_a_sha256_that_may_only_be_what_we_said_proves_nothing(odd: Odd, card: Card) -> None:
    """`rclone serve s3` shows what it was told: where ETags are none at all, that would be a proof of nothing."""

    def echoing(path: str, reply: Reply) -> Reply:
        status, headers, content = reply
        shown = {name: value for name, value in headers.items() if name.lower() != "etag"}
        return (
            status,
            {**shown, "ETag": '"an-etag-1"'} if status == 200 and path[0] in "PH" else headers,
            content,
        )

    odd.store.changes = echoing
    given = MemoryContext(odd.site.time, odd.site.sleep)
    assert digests(odd.site.connect(given), card, range(3)) == ["echo"] * 3
    assert odd.sent("x-amz-checksum-sha256")[1:] != [None, None]


@pytest.mark.parametrize("seed", range(2))
def test_a_byte_that_turned_over_in_flight_gives_no_receipt(either: Odd, card: Card, seed: int) -> None:
    image, chance = card.image(), random.Random(seed)
    bucket: Any = either.site.connect()
    forward = super(Saying, either.store).__call__

    def flipped(path: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        if not body:
            return None
        at = chance.randrange(len(body))
        return forward(path, either.store.asked[-1][1], body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])

    either.store.says = flipped
    outcomes = [attempt(bucket, card, image) for _ in range(50)]
    assert {type(one) for one in outcomes} == {Unresolved}
    assert len(either.sent("content-md5")) == 50
    assert either.site.stored() == {}
    either.store.says = lambda *_: None
    assert isinstance(bucket.deliver(image, card.path(image)), Receipt)


def test_an_object_that_says_our_digest_and_has_other_bytes_is_not_taken_for_the_image(
    odd: Odd, card: Card
) -> None:
    """As of a store that does not look at Content-MD5: its ETag is the MD5 of what it has."""
    image = card.image()
    odd.site.store.put(odd.key(image), card.bytes(image)[::-1], Metadata={"sha256": image.sha256})
    for checksum in ("auto", "md5", "sha256"):
        bucket = odd.site.connect(checksum=checksum)
        assert isinstance(bucket.find_existing([image])[image.id], Refused)
        with pytest.raises(Refused, match="both are kept"):
            bucket.deliver(image, card.path(image))


# --- What is there already --------------------------------------------------------------------------------------


def test_the_same_bytes_under_the_key_are_delivered_without_a_body(either: Odd, card: Card) -> None:
    image = card.image()
    either.site.store.put(either.key(image), card.bytes(image))
    assert either.site.connect().deliver(image, card.path(image)).digest == f"md5:{image.md5}"
    assert either.sent("content-md5") == []


def test_other_bytes_under_the_key_are_a_conflict_and_never_overwritten(either: Odd, card: Card) -> None:
    image = card.image()
    either.site.store.put(either.key(image), b"somebody else's")
    bucket = either.site.connect()
    for _ in range(2):
        with pytest.raises(Refused, match="both are kept"):
            bucket.deliver(image, card.path(image))
        assert isinstance(bucket.find_existing([image])[image.id], Refused)
    assert either.site.stored() == {image.name: b"somebody else's"}
    assert either.sent("content-md5") == []


@pytest.mark.parametrize("status", [412, 304])
@pytest.mark.parametrize("is_same", [True, False])
def test_what_comes_between_question_and_send_is_compared_and_not_overwritten(
    odd: Odd, bucket: Any, card: Card, is_same: bool, status: int
) -> None:
    image = card.image()
    content = card.bytes(image) if is_same else b"somebody else's"

    def meanwhile(path: str, _headers: Mapping[str, str], _body: bytes) -> Reply | None:
        if path.startswith("PUT"):
            odd.site.store.put(odd.key(image), content)
        return (304, {}, b"") if path.startswith("PUT") and status == 304 else None

    odd.store.says = meanwhile
    outcome = attempt(bucket, card, image)
    assert isinstance(outcome, Receipt if is_same else Refused), outcome
    assert odd.site.stored() == {image.name: content}


def test_an_absence_is_believed_for_a_minute_and_for_one_upload(odd: Odd, card: Card) -> None:
    first, second = card.image(0), card.image(1)
    time = FakeTime(SystemClock(always_trusted=True).wall())
    bucket = odd.site.connect(context(time))
    for image in (first, second):
        bucket.find_existing([image])
    bucket.deliver(first, card.path(first))
    time.sleep(61)
    bucket.deliver(second, card.path(second))
    assert [path[:4] for path, _ in odd.store.asked] == ["HEAD", "HEAD", "PUT ", "HEAD", "PUT "]
