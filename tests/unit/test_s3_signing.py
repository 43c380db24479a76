"""Signatures of requests to S3, held against AWS's published examples and against botocore."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from trapsync.destinations.s3.signing import EMPTY, Signer, encoded, query_of

# "Signature calculations for the authorization header: single chunk" and "Authenticating requests: using query
# parameters", of the Amazon S3 API Reference.
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HOST = "examplebucket.s3.amazonaws.com"
MIDNIGHT = datetime(2013, 5, 24, tzinfo=UTC)
WELCOME = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"


@dataclass(frozen=True)
class Example:
    """A request and its signature, as AWS has published them."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    digest: str
    signature: str


EXAMPLES = (
    Example(
        "GET",
        "/test.txt",
        {},
        {"Range": "bytes=0-9"},
        EMPTY,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    Example(
        "PUT",
        "/test$file.text",
        {},
        {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        WELCOME,
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    Example(
        "GET",
        "/",
        {"lifecycle": ""},
        {},
        EMPTY,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    Example(
        "GET",
        "/",
        {"max-keys": "2", "prefix": "J"},
        {},
        EMPTY,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
)


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: f"{one.method} {one.path}")
def test_the_examples_that_aws_publishes_are_signed_so(one: Example) -> None:
    headers = {"Host": HOST, "x-amz-content-sha256": one.digest, **one.headers}
    signed = Signer(KEY, SECRET, "us-east-1").headers(
        one.method, encoded(one.path), one.query, headers, MIDNIGHT
    )
    names = ";".join(sorted(name.lower() for name in [*headers, "x-amz-date"]))
    assert signed["Authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={KEY}/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders={names}, Signature={one.signature}"
    )
    assert signed["x-amz-date"] == "20130524T000000Z"


def test_the_address_that_aws_publishes_is_signed_so() -> None:
    query = Signer(KEY, SECRET, "us-east-1").query("GET", HOST, "/test.txt", MIDNIGHT, 86400)
    assert query.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


LETTERS = "abcXYZ019-._~ /!$&'()*+,;=:@%\\\"<>äß\U0001f98b\u202e"


def requests(count: int) -> Iterator[tuple[str, str, dict[str, str], dict[str, str], datetime]]:
    """Made-up requests: method, key, query, headers, moment."""
    chance = random.Random(18)

    def text(most: int) -> str:
        return "".join(chance.choices(LETTERS, k=chance.randint(1, most)))

    for _ in range(count):
        query = {
            name: text(20)
            for name in ("list-type", "prefix", "start-after", "lifecycle")
            if chance.random() < 0.4
        }
        headers = {
            name: f"{text(3)}".encode("ascii", "ignore").decode().strip() + "x  y"
            for name in ("Content-MD5", "x-amz-meta-sha256", "If-None-Match", "x-amz-storage-class", "Range")
            if chance.random() < 0.5
        }
        yield (
            chance.choice(["GET", "HEAD", "PUT", "DELETE"]),
            text(40).lstrip("/"),
            query,
            headers,
            datetime.fromtimestamp(chance.randrange(2**31), UTC),
        )


def test_made_up_requests_are_signed_as_botocore_signs_them() -> None:
    signer, keys = Signer(KEY, SECRET, "eu-x-2"), Credentials(KEY, SECRET)
    for method, key, query, more, now in requests(200):
        path = encoded(f"/bucket/{key}")
        headers = {"Host": "s3.example.org:8443", "x-amz-content-sha256": WELCOME, **more}
        url = f"https://s3.example.org:8443{path}{'?' if query else ''}{query_of(query)}"
        theirs = AWSRequest(method, url, headers=dict(headers))
        theirs.context["payload_signing_enabled"] = True
        with (
            mock.patch("botocore.auth.get_current_datetime", return_value=now),
            mock.patch.object(S3SigV4Auth, "payload", return_value=WELCOME),
        ):
            S3SigV4Auth(keys, "s3", "eu-x-2").add_auth(theirs)
        ours = signer.headers(method, path, query, headers, now)
        assert ours["Authorization"] == theirs.headers["Authorization"], (key, query, more)


def test_made_up_addresses_are_signed_as_botocore_signs_them() -> None:
    signer, keys = Signer(KEY, SECRET, "eu-x-2"), Credentials(KEY, SECRET)
    for number, (_, key, _, _, now) in enumerate(requests(100), 1):
        path = encoded(f"/bucket/{key}")
        theirs = AWSRequest("GET", f"https://s3.example.org{path}")
        with mock.patch("botocore.auth.get_current_datetime", return_value=now):
            S3SigV4QueryAuth(keys, "s3", "eu-x-2", expires=number * 60).add_auth(theirs)
        ours = signer.query("GET", "s3.example.org", path, now, number * 60)
        assert parse_qs(ours) == parse_qs(urlsplit(theirs.url).query), key
