"""Real S3 stores on the loopback: SeaweedFS, which minds If-None-Match, and `rclone serve s3`, which does not.

::

    with s3_store.seaweed(folder) as store:
        store.client().put_object(Bucket=store.bucket, ...)       # boto3's
        site = s3_store.Site(front, store, folder)                # of the conformance tests
"""

import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import boto3
from botocore.config import Config

import processes
from fault_server import FaultServer, ForwardingSigned, Reply
from memory_context import SOURCE, MemoryContext
from trapsync import destinations
from trapsync.clock import Clock, SystemClock
from trapsync.destinations import s3
from trapsync.destinations.s3 import S3, Settings

ACCESS_KEY, SECRET = "TRAPKEY0123456789", "a+secret/for=tests+0123456789"
_START = 60.0  # seconds that a store may take to come up on a busy machine


@dataclass
class Store:
    """A store that listens, with one bucket."""

    port: int
    host: str = "127.0.0.1"
    bucket: str = "pictures"
    access_key: str = ACCESS_KEY
    secret: str = SECRET
    _client: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    def client(self) -> Any:
        """boto3's client: what somebody else sees."""
        if not self._client:
            config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
            made = boto3.client(
                "s3",
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret,
                config=config,
            )
            self._client.append(made)
        return self._client[0]

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Key to bytes of all below a prefix."""
        found = {}
        for page in (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        ):
            for one in page.get("Contents", ()):
                body = self.client().get_object(Bucket=self.bucket, Key=one["Key"])["Body"]
                found[one["Key"]] = body.read()
        return found

    def put(self, key: str, content: bytes, **more: Any) -> None:
        """Somebody else puts something there."""
        self.client().put_object(Bucket=self.bucket, Key=key, Body=content, **more)


def _program(name: str) -> str:
    """A program of the tests' own environment, which need not be activated."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is missing: the extra dev has it"
    return found


def _free_ports(count: int) -> list[int]:
    """Of this machine's; in another network all are free."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def seaweed(folder: Path, host: str = "127.0.0.1", where: Sequence[str] = ()) -> Iterator[Store]:
    """A SeaweedFS, which is one process: master, volumes, filer and its S3. `where` puts it into another network."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "s3.json"
    key = {"accessKey": ACCESS_KEY, "secretKey": SECRET}
    reader = {"accessKey": "READER0123456789", "secretKey": SECRET}
    lister = {"accessKey": "LISTER0123456789", "secretKey": SECRET}
    identities = [
        {"name": "trap", "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]},
        {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
        {"name": "lister", "credentials": [lister], "actions": ["List"]},
    ]
    config.write_text(json.dumps({"identities": identities}))
    services = ("master", "master", "volume", "volume", "filer", "filer", "s3", "s3")
    ports = _free_ports(len(services))
    named = [
        f"-{service}.port{'.grpc' if number % 2 else ''}={port}"
        for number, (service, port) in enumerate(zip(services, ports, strict=True))
    ]
    sockets = [f"-{service}.localSocket={folder / service}.sock" for service in ("filer", "s3")]
    command = [
        *(*where, _program("weed"), "server", f"-dir={folder}", f"-ip={host}", f"-ip.bind={host}"),
        *("-filer", "-s3", f"-s3.config={config}", "-s3.autoCreateBucket=false", *named, *sockets),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.max=32"),
        *("-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=0"),
    ]
    store = Store(ports[6], host)
    with processes.started(command, stdout=DEVNULL, stderr=DEVNULL, cwd=folder) as process:
        if where:  # it can only be reached from there
            code = f"import s3_store; s3_store.until_up(s3_store.Store({store.port}, {host!r}))"
            subprocess.run([*where, sys.executable, "-c", code], check=True)
        else:
            until_up(store)
        yield store
        process.kill()  # it would take seconds to say goodbye to itself


@contextmanager
def rclone(folder: Path) -> Iterator[Store]:
    """rclone's server over a folder. It overwrites whatever If-None-Match says."""
    folder.mkdir(parents=True)
    (port,) = _free_ports(1)
    command = [
        *(
            _program("rclone"),
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{port}",
            "--config",
            str(folder / "none.conf"),
        ),
        *("--auth-key", f"{ACCESS_KEY},{SECRET}", "--vfs-cache-mode", "off", str(folder)),
    ]
    store = Store(port)
    with processes.started(command, stdout=DEVNULL, stderr=DEVNULL) as process:
        until_up(store)
        yield store
        process.kill()


def until_up(store: Store) -> None:
    """Wait until it takes and gives an object: SeaweedFS listens before it can."""
    ends = time.monotonic() + _START
    while True:
        with suppress(OSError), socket.create_connection((store.host, store.port), 1):
            break
        assert time.monotonic() < ends, "the store does not come up"
        time.sleep(0.05)
    while True:
        try:
            with suppress(store.client().exceptions.BucketAlreadyOwnedByYou):
                store.client().create_bucket(Bucket=store.bucket)
            store.put("ready", b"ready")
            store.client().delete_object(Bucket=store.bucket, Key="ready")
            return
        except Exception:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


class Site:
    """A folder of a bucket of its own, with a fault server in front of the store."""

    def __init__(self, front: FaultServer, store: Store, folder: Path) -> None:
        self.front = front
        self.store = store
        self.folder = folder
        self.prefix = f"of-{secrets.token_hex(6)}"
        self.time: Clock = SystemClock(always_trusted=True)
        self.sleep = lambda _seconds: None
        self._secret = folder / "s3.secret"
        self.change_secret(store.secret)

    def change_secret(self, secret: str) -> None:
        """Let the trap's file say this."""
        self._secret.write_text(secret + "\n")
        self._secret.chmod(0o600)

    def tables(self) -> dict[str, dict[str, Any]]:
        """As an owner would write it."""
        return {"bucket": self.table()}

    def table(self, **more: Any) -> dict[str, Any]:
        """The one table, with more keys."""
        return {
            "kind": "s3",
            "endpoint": self.front.url,
            "bucket": self.store.bucket,
            "prefix": self.prefix,
            "access_key": self.store.access_key,
            "secret_file": str(self._secret),
            "timeout": "20 s",
            **more,
        }

    def connect(self, given: MemoryContext | None = None, **more: Any) -> S3:
        """A destination that delivers there."""
        settings = destinations.check("bucket", self.table(**more), SOURCE).settings
        assert isinstance(settings, Settings)
        return s3.connect("bucket", settings, given or MemoryContext(self.time, self.sleep))

    def stored(self) -> dict[str, bytes]:
        """What lies in its folder; no two of it have one name."""
        objects = self.store.objects(f"{self.prefix}/")
        names = {key.rpartition("/")[2]: content for key, content in objects.items()}
        assert len(names) == len(objects)
        return names

    def broken(self) -> AbstractContextManager[None]:
        """Nobody listens."""
        return self.front.down()


# What a field of an object's row in a listing may hold, as XML, where somebody else is in it; and what a header may.
STRANGE_TEXTS = ("", "x", "-1", "5", "1e999", "9" * 400, "&#8238;", "<a>b</a>", "&lt;", "a/b", "%2")
BROKEN_XML = ("\x01", "&x;", "<a>")
STRANGE_HEADERS = ("", "x", "-1", "5", "9" * 400, '"', '"00"', "W/", "=?utf-8?q?x?=")
_FIELDS = ("Key", "ETag", "Size", "StorageClass", "LastModified")
_HEADERS = ("Etag", "Content-Length", "Last-Modified", "X-Amz-Meta-sha256", "X-Amz-Checksum-Sha256")


class Mangled(ForwardingSigned):
    """A store that has what it tells of one key in disorder: `field` of its rows, or that header, is `value`."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url)
        self.name = name
        self.field, self.value = "", ""
        self.times = 0

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        status, shown, content = super().__call__(path, headers, body)
        if status == 200 and path.startswith("HEAD ") and self.name in path and self.field in _HEADERS:
            self.times += 1
            shown = {**shown, self.field: self.value}
        if status == 200 and path.startswith("GET ") and "list-type" in path:
            content = re.sub(rb"<Contents>.*?</Contents>", self._row, content, flags=re.DOTALL)
        return status, shown, content

    def _row(self, row: "re.Match[bytes]") -> bytes:
        if self.name.encode() not in row[0] or self.field not in _FIELDS:
            return row[0]
        self.times += 1
        mark = f"<{self.field}>".encode(), f"</{self.field}>".encode()
        before, _, rest = row[0].partition(mark[0])
        return before + mark[0] + self.value.encode() + mark[1] + rest.partition(mark[1])[2]

    def oddities(self) -> Iterator[str]:
        """One strange value after another, in each field and header."""
        for fields, values in ((_FIELDS, STRANGE_TEXTS + BROKEN_XML), (_HEADERS, STRANGE_HEADERS)):
            for self.field in fields:
                for self.value in values:
                    yield f"{self.field}={self.value[:20]!r}"
        self.field = ""


@contextmanager
def site(store: Store, folder: Path) -> Iterator[Site]:
    """A site of its own in a store."""
    with FaultServer(ForwardingSigned(store.url)) as front:
        yield Site(front, store, folder)


def error(
    status: int, code: str, message: str = "no", *, headers: Mapping[str, str] | None = None, **more: str
) -> Reply:
    """An error as S3 tells it."""
    fields = {"Code": code, "Message": message, **more}
    text = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    told = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}</Error>'
    return status, {"Content-Type": "application/xml", **(headers or {})}, told.encode()


class Saying(ForwardingSigned):
    """A store that answers some requests otherwise: `says` gives an answer, or None for its own."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.says: Callable[[str, Mapping[str, str], bytes], Reply | None] = lambda *_: None
        self.changes: Callable[[str, Reply], Reply] = lambda _path, reply: reply
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        self.asked.append((path.partition("?")[0], {name.lower(): value for name, value in headers.items()}))
        answer = self.says(path, self.asked[-1][1], body)
        return answer or self.changes(path, super().__call__(path, headers, body))
