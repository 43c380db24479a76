"""What the doctor says of a bucket; with `probe`, after it wrote, read and removed a small object there."""

import secrets
from collections.abc import Iterator
from hashlib import md5, sha256

from trapsync.destinations import DestinationContext, Finding, finding, http_service
from trapsync.destinations.object_storage import in_base64
from trapsync.destinations.s3 import api
from trapsync.destinations.s3.api import Bucket
from trapsync.destinations.s3.settings import Settings
from trapsync.errors import TrapsyncError, Unauthorised
from trapsync.net.http_answer import Answer


def findings(name: str, settings: Settings, bucket: Bucket, context: DestinationContext) -> list[Finding]:
    """How it is. Never raises."""
    try:
        answer = bucket.list_some()
        text = f"{settings.endpoint} has the bucket {settings.bucket!r} and lets the key list it"
        if not settings.probe:
            text += "; whether it may write shows only with an image, or with probe = true"
        found = [Finding("ok", name, text), http_service.clock_finding(name, answer, context.clock)]
        return found + (list(_probed(name, settings, bucket)) if settings.probe else [])
    except TrapsyncError as error:
        return [finding(name, error)]


def _probed(name: str, settings: Settings, bucket: Bucket) -> Iterator[Finding]:
    """What it does with a small object of our own."""
    key = f"{settings.prefix_of_keys}trapsync-probe-{secrets.token_hex(8)}.txt"
    content = b"written and removed by trapsync doctor\n"
    digest = md5(content, usedforsecurity=False).hexdigest()
    right, wrong = in_base64(digest), in_base64(sha256(content).hexdigest()[:32])
    try:
        answer = _written(bucket.send_probe("PUT", key, content, Content_MD5=right))
        stored = bucket.head(key)
        again = bucket.send_probe("PUT", key, content, Content_MD5=right, If_None_Match="*")
        broken = bucket.send_probe("PUT", key, content, Content_MD5=wrong)
    finally:
        is_removed = _removed(bucket, key)
    if stored is None or stored.size != len(content):
        yield Finding("failing", name, f"{bucket.host} took a probe, and does not have it")
    if broken.status < 300:
        yield Finding("failing", name, f"{bucket.host} takes what is not what its Content-MD5 says")
    minds = "minds" if again.status in {304, 412} else "does not mind"
    yield Finding("ok", name, f"a probe was written and read; the store {minds} If-None-Match")
    if not is_removed:
        yield Finding("warning", name, f"the probe may not be removed: delete {key!r} in the bucket")
    if api.etag_of(answer.headers.get("ETag", "")) != digest and settings.checksum != "sha256":
        text = 'its ETags are no MD5s, so no image would leave the card; set checksum = "sha256"'
        yield Finding("warning", name, text)


def _removed(bucket: Bucket, key: str) -> bool:
    try:
        return bucket.send_probe("DELETE", key).status in {200, 204}
    except TrapsyncError:
        return False


def _written(answer: Answer) -> Answer:
    if answer.status != 200:
        raise Unauthorised(
            f"{answer} to a probe{api.reason(answer)}; let the key write objects (s3:PutObject)"
        )
    return answer
