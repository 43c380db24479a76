"""Skylab Studio in memory, with the storage that it keeps photos in: a backend for `FaultServer`.

What it refuses, the real one refuses, as far as the vendor's clients show: a photo's name twice in a job, an
upload without the MD5 that was signed or with other bytes, a tagging header that does not fit the job's type,
an address that has expired, a second hand-in. Parameters of a GET may come in the query or in a JSON body.
"""

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fault_server import JSON, Reply

KEY = "canary-of-the-skylab-account"
BASE = "/api/public/v1"
STORAGE = "/storage"
PROFILE = 7
XML = {"Content-Type": "application/xml"}


class Skylab:
    """The service. `url` must be set to where it is reached before the first upload."""

    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    def __init__(self) -> None:
        self.url = ""
        self.key = KEY
        self.type = "regular"  # of new jobs
        self.fresh: str | None = "open"  # how it calls the state of a new job; None: it does not tell states
        self.shows_originals = True
        self.encrypts = False  # with a key of KMS: the ETag is no MD5 then
        self.is_quick = False  # a job is completed as soon as it is submitted
        self.life = 900.0  # seconds that an address is good for
        self.clock = 0.0
        self.jobs: dict[int, dict[str, Any]] = {}
        self.photos: dict[int, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}  # the storage
        self.replaced = 0  # uploads onto what was there
        self.signatures: list[str] = []  # of all addresses that were given
        self.queued: list[str] = []  # names of jobs, in the order in which they were submitted
        self._lock = threading.Lock()
        self._secret = b"of the storage"

    def stored(self) -> dict[str, bytes]:
        """The bytes of all photos by the names of their images; each image is there once."""
        found: dict[str, bytes] = {}
        for photo in self.photos.values():
            stem, digest, suffix = photo["name"].rsplit(".", 2)
            if (content := self.objects.get(f"original/{photo['id']}")) is not None:
                assert f"{stem}.{suffix}" not in found, photo["name"]
                assert hashlib.md5(content).hexdigest().startswith(digest)
                found[f"{stem}.{suffix}"] = content
        return found

    def finish(self, job: dict[str, Any], *without: str) -> None:
        """Process a job: every photo has a result, but those of these names."""
        job["state"] = "completed"
        for photo in self._of(job["id"]):
            if photo["name"] not in without:
                original = self.objects[f"original/{photo['id']}"]
                self.objects[f"retouched/{photo['id']}"] = b"\x89PNG\r\n\x1a\n made of " + original
        if self.fresh is None:
            del job["state"]

    def job(self, name: str) -> dict[str, Any]:
        """The job of this name."""
        return next(job for job in self.jobs.values() if job["name"] == name)

    def named(self, job: str) -> list[str]:
        """The names of the photos in a job."""
        return [photo["name"] for photo in self._of(self.job(job)["id"])]

    def __call__(self, named: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        method, _, path = named.rpartition(" ")
        headers = {name.lower(): value for name, value in headers.items()}
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        with self._lock:
            if parts.path == STORAGE:
                return self._storage(method, query, headers, body)
            if headers.get("x-slt-api-key") != self.key:
                return _no(403, "Invalid API key")
            assert headers.get("content-type", "").lower() == "application/json" or not body
            fields = query | (json.loads(body) if body else {})
            return self._api(method or "POST", parts.path.removeprefix(BASE).strip("/"), fields)

    # --- The API ----------------------------------------------------------------------------------------

    def _api(self, method: str, path: str, fields: dict[str, Any]) -> Reply:
        match = re.fullmatch(r"(\w+)/(\d+)(?:/(\w+))?", path)
        what = f"{method} {match[1]}/{match[3] or ''}" if match else f"{method} {path}"
        number = int(match[2]) if match else 0
        calls = {
            "GET profiles": lambda: _ok([_profile()]),
            "GET profiles/": lambda: _ok(_profile()) if number == PROFILE else _no(404, "Profile not found"),
            "POST jobs": lambda: self._create_job(fields),
            "GET jobs": lambda: _ok([self._show_job(job) for job in self.jobs.values()]),
            "GET jobs/find_by_name": lambda: self._one(
                [job for job in self.jobs.values() if job["name"] == fields.get("name")]
            ),
            "GET jobs/": lambda: self._one([self.jobs[number]] if number in self.jobs else []),
            "POST jobs/queue": lambda: self._queue(number),
            "GET jobs/jobs_in_front": lambda: _ok({"count": 0}),
            "POST photos": lambda: self._create_photo(fields),
            "GET photos/upload_url": lambda: self._upload_url(fields),
            "GET photos/list_for_job": lambda: self._list(fields),
            "GET photos/": lambda: self._photo(number),
            "DELETE photos/": lambda: self._remove(number),
        }
        return calls[what]() if what in calls else _no(404, f"no such call: {what}")

    def _create_job(self, fields: dict[str, Any]) -> Reply:
        name = fields.get("name")
        if not name or any(job["name"] == name for job in self.jobs.values()):
            return _no(422, "Name is missing or has already been taken")
        if fields.get("profile_id") != PROFILE:
            return _no(422, "Profile must exist")
        job = {"id": 100 + len(self.jobs), "name": name, "type": self.type, "state": self.fresh}
        if self.fresh is None:
            del job["state"]
        self.jobs[job["id"]] = job
        return _ok(self._show_job(job), 201)

    def _show_job(self, job: dict[str, Any]) -> dict[str, Any]:
        return {**job, "profile": _profile(), "photos": [{"id": one["id"]} for one in self._of(job["id"])]}

    def _one(self, jobs: list[dict[str, Any]]) -> Reply:
        return _ok(self._show_job(jobs[0])) if jobs else _no(404, "Job not found")

    def _queue(self, number: int) -> Reply:
        if number not in self.jobs:
            return _no(404, "Job not found")
        job = self.jobs[number]
        if job["name"] in self.queued:
            return _no(422, "Job has been queued already")
        photos = self._of(number)
        if not photos or any(f"original/{photo['id']}" not in self.objects for photo in photos):
            return _no(422, "Job has no photos, or photos without an upload")
        self.queued.append(job["name"])
        if self.fresh is not None:
            job["state"] = "queued"
        if self.is_quick:
            self.finish(job)
        return _ok(self._show_job(job))

    def _of(self, job: int) -> list[dict[str, Any]]:
        return [photo for photo in self.photos.values() if photo["job_id"] == job]

    def _create_photo(self, fields: dict[str, Any]) -> Reply:
        job, name = fields.get("job_id"), str(fields.get("name"))
        if job not in self.jobs or self.jobs[job]["name"] in self.queued:
            return _no(422, "Job must exist, and not be queued")
        if not re.search(r"\.(jpe?g|png|webp)$", name) or any(p["name"] == name for p in self._of(job)):
            return _no(422, "Name is not a picture's, or has already been taken")
        photo = {"id": 1 + max(self.photos, default=0), "name": name, "job_id": job}
        self.photos[photo["id"]] = photo
        return _ok({"id": photo["id"], "name": name}, 201)

    def _show(self, photo: dict[str, Any]) -> dict[str, Any]:
        shown = {
            "id": photo["id"],
            "name": photo["name"],
            "job": {"id": photo["job_id"], "profileId": PROFILE},
        }
        if self.shows_originals:
            shown["originalUrl"] = self._sign("GET", f"original/{photo['id']}")
        is_ready = f"retouched/{photo['id']}" in self.objects
        shown["retouchedUrl"] = self._sign("GET", f"retouched/{photo['id']}") if is_ready else "not yet"
        return shown

    def _list(self, fields: dict[str, Any]) -> Reply:
        wanted = {job["name"]: job["id"] for job in self.jobs.values()}.get(fields.get("job_name", ""))
        photos = self._of(wanted or int(fields.get("job_id", 0)))
        return _ok([self._show(photo) for photo in photos])

    def _photo(self, number: int) -> Reply:
        photo = self.photos.get(number)
        return _ok(self._show(photo)) if photo else _no(404, "Photo not found")

    def _remove(self, number: int) -> Reply:
        if self.photos.pop(number, None) is None:
            return _no(404, "Photo not found")
        self.objects.pop(f"original/{number}", None)
        return _ok({"id": number})

    def _upload_url(self, fields: dict[str, Any]) -> Reply:
        photo = self.photos.get(int(fields.get("photo_id", 0)))
        md5 = str(fields.get("content_md5", ""))
        if photo is None or len(base64.b64decode(md5)) != 16:
            return _no(422, "Photo must exist, and content_md5 be an MD5")
        is_regular = self.jobs[photo["job_id"]]["type"] == "regular"
        tags = "job=photo&api=true" if is_regular else ""
        key = f"original/{photo['id']}"
        return _ok({"url": self._sign("PUT", key, md5, tags), "key": key})

    # --- The storage ------------------------------------------------------------------------------------

    def _sign(self, method: str, key: str, md5: str = "", tags: str = "") -> str:
        """An address that is good for this method, this object, and a while; the headers are signed with it."""
        ends = self.clock + self.life
        signature = self._signature(method, key, str(ends), md5, tags)
        self.signatures.append(signature)
        query = {"key": key, "X-Amz-Expires": str(ends), "X-Amz-Signature": signature}
        return f"{self.url}{STORAGE}?{urlencode(query)}"

    def _signature(self, *parts: str) -> str:
        return hmac.digest(self._secret, "\n".join(parts).encode(), "sha256").hex()

    def _storage(self, method: str, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Reply:
        assert "x-slt-api-key" not in headers, "the key was told to the storage"
        key, ends = query["key"], query["X-Amz-Expires"]
        signed = (headers.get("content-md5", ""), headers.get("x-amz-tagging", ""))
        if float(ends) < self.clock:
            return 403, XML, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        if self._signature(method, key, ends, *signed) != query["X-Amz-Signature"]:
            return 403, XML, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        if method == "PUT":
            return self._put(key, signed[0], body)
        if key not in self.objects:
            return 404, XML, b"<Error><Code>NoSuchKey</Code></Error>"
        content = self.objects[key]
        ranged = headers.get("range") == "bytes=0-0"
        status, shown = (206, content[:1]) if ranged else (200, content)
        return status, {"Content-Type": "binary/octet-stream", **self._etag(content)}, shown

    def _put(self, key: str, md5: str, body: bytes) -> Reply:
        if base64.b64encode(hashlib.md5(body).digest()).decode() != md5:
            return 400, XML, b"<Error><Code>BadDigest</Code></Error>"
        self.replaced += key in self.objects
        self.objects[key] = body
        return 200, self._etag(body), b""

    def _etag(self, content: bytes) -> dict[str, str]:
        if self.encrypts:
            return {
                "ETag": f'"{hashlib.md5(b"sealed" + content).hexdigest()}"',
                "x-amz-server-side-encryption": "aws:kms",
            }
        return {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}


def _profile() -> dict[str, Any]:
    return {"id": PROFILE, "name": "cut out insects", "enableExtract": True, "outputFileType": "png"}


def _ok(content: Any, status: int = 200) -> Reply:
    return status, JSON, json.dumps(content).encode()


def _no(status: int, message: str) -> Reply:
    return status, JSON, json.dumps({"message": message}).encode()
