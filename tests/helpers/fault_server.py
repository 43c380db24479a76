"""The server that misbehaves: one HTTP server on the loopback, a backend, and a plan of faults.

::

    with FaultServer(Original()) as server:
        server.plan("/_put_new_images", "answer lost", "500")
        ... deliver ...
        server.assert_injected()       # a fault test that injected nothing has failed

Each request to a path takes the next fault planned for it; without one the backend answers. A request that
is no POST is named with its method, and none is named with its query; a name may be a pattern: "GET /v1/files",
"PUT /bucket/*". `Original` is
a Sticky Pi server in memory that does what the real one does (branch develop of 2023, observed), its danger
included: a second upload under a taken name is answered with 500 and overwrites the stored file.
`Forwarding` puts the faults in front of a real server, the hub for instance.
"""

import base64
import gzip
import hashlib
import http.client
import json
import random
import re
import socket
import struct
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

Reply = tuple[int, dict[str, str], bytes]
# Takes the path with its query (and the method before it, unless it is a POST), the headers and the body. One
# that answers more than POST says so in an attribute `methods`.
Backend = Callable[[str, Mapping[str, str], bytes], Reply]

HTML = {"Content-Type": "text/html; charset=utf-8"}
JSON = {"Content-Type": "application/json"}
PORTAL = b"<html><body>Welcome to the field station's Wi-Fi. <a href='/agree'>I agree</a></body></html>"
BLANK_500 = (500, HTML, b"<!doctype html><title>500 Internal Server Error</title>")


_RATE = 50_000  # bytes per second: a link at the edge of the village's cell


class FaultServer:
    """The server. Faults are named; `_Handler.faults` says what each does."""

    def __init__(self, backend: Backend, port: int = 0) -> None:
        self.backend = backend
        self.latency = 2.0  # seconds, when "late": of a link by satellite, at its worst
        self.requests: list[str] = []  # their names, in the order of arrival
        self.received = Counter[str]()  # bytes of body by name
        self.headers: list[Mapping[str, str]] = []
        self.connections = 0
        self.injected = Counter[str]()
        self.released = threading.Event()  # lets stalled answers go
        self._plans: dict[str, deque[str]] = defaultdict(deque)
        self._planned = Counter[str]()
        self._lock = threading.Lock()
        self._server = self._listen(port)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def plan(self, path: str, *faults: str) -> None:
        """Let the next requests to this path meet these faults, one each."""
        unknown = [fault for fault in faults if fault not in _Handler.faults]
        assert not unknown, unknown
        self._plans[path].extend(faults)
        self._planned.update(faults)

    def count(self, path: str) -> int:
        """How many requests of this name there were."""
        return sum(fnmatchcase(request, path) for request in self.requests)

    def left(self, path: str) -> int:
        """How many planned faults of a path have not happened yet."""
        return len(self._plans[path])

    def next_fault(self, request: str) -> str | None:
        """Take the next fault planned for a request of this name, and count it as injected."""
        with self._lock:
            plan = next((p for name, p in self._plans.items() if p and fnmatchcase(request, name)), None)
            if not plan:
                return None
            fault = plan.popleft()
            self.injected[fault] += 1
            return fault

    def assert_injected(self) -> None:
        """All that was planned has happened."""
        assert self._planned
        assert self.injected == self._planned

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nobody listens: connections are refused. The same port comes back afterwards."""
        self._stop()
        yield
        self._server = self._listen(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._stop()

    def _listen(self, port: int) -> "_Server":
        server = _Server(("127.0.0.1", port), _Handler)
        server.owner = self
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    owner: FaultServer

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner.connections += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def cut_all(self) -> None:
        """Cut the kept-alive connections too; a server that is gone keeps none."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        """Meet the planned fault, or be answered by the backend."""
        owner = self.server.owner
        owner.requests.append(self.called)
        owner.headers.append(dict(self.headers))
        fault = owner.next_fault(self.called)
        if fault:
            self.faults[fault](self)
        elif self.command in getattr(owner.backend, "methods", ("POST",)):
            self.reply(*self.served())
        else:  # what a client that follows a redirect would get: success, as from a portal
            self.reply(200, HTML, PORTAL)

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815
    do_PROPFIND = do_MKCOL = do_MOVE = do_OPTIONS = do_POST  # noqa: N815 - of WebDAV

    @property
    def called(self) -> str:
        """The name of the request."""
        path = self.path.partition("?")[0]
        return path if self.command == "POST" else f"{self.command} {path}"

    def body(self, most: int | None = None) -> bytes:
        """Read the body, or its beginning. One that ends too early is nobody's: raises ConnectionError."""
        length = int(self.headers.get("Content-Length", 0))
        wanted = length if most is None else min(most, length)
        content = self.rfile.read(wanted)
        self.server.owner.received[self.called] += len(content)
        if len(content) < wanted:
            raise ConnectionAbortedError
        return content

    def served(self) -> Reply:
        """Let the backend do its work."""
        return self.backend(self.body())

    def backend(self, content: bytes) -> Reply:
        """Hand the request over, with this as its body."""
        named = self.path if self.command == "POST" else f"{self.command} {self.path}"
        return self.server.owner.backend(named, dict(self.headers), content)

    def reply(
        self, status: int, headers: Mapping[str, str], content: bytes, *, length: int | None = None
    ) -> None:
        """Answer; another `length` than the content's is a lie. To HEAD, with the length that the headers tell."""
        self.send_response_only(status)
        shown = {"Date": format_datetime(datetime.now(UTC), usegmt=True)}
        shown["Content-Length"] = str(len(content) if length is None else length)
        told = {
            name: value
            for name, value in headers.items()
            if self.command == "HEAD" or name != "Content-Length"
        }
        for name, value in (shown | told).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def cut(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    # --- The faults ---------------------------------------------------------------------------------------

    def _cut_in_body(self) -> None:
        self.body(most=1000)
        self.cut()

    def _cut_after_body(self) -> None:
        self.body()
        self.cut()

    def _lose_answer(self) -> None:
        self.served()
        self.cut()

    def _answer(self, status: int, headers: Mapping[str, str] = HTML, content: bytes = b"<p>no</p>") -> None:
        self.body()
        self.reply(status, headers, content)

    def _answer_500_though_stored(self) -> None:
        self.served()
        self.reply(*BLANK_500)

    def _unauthorised(self, status: int) -> None:
        self._answer(status, {**HTML, "WWW-Authenticate": 'Basic realm="x"'}, b"Unauthorized Access")

    def _stall(self) -> None:
        self.served()
        self.server.owner.released.wait(20)
        self.cut()

    def _late(self) -> None:
        self.server.owner.released.wait(self.server.owner.latency)
        self.reply(*self.served())

    def _slow(self) -> None:
        length, content = int(self.headers.get("Content-Length", 0)), b""
        while len(content) < length and (piece := self.body(most=min(_RATE // 20, length - len(content)))):
            content += piece
            self.server.owner.released.wait(0.05)
        self.reply(*self.backend(content))

    def _later_by_date(self) -> None:
        # On the server's clock, which is years away from ours.
        dates = {"Date": "Tue, 01 Jan 2013 00:00:00 GMT", "Retry-After": "Tue, 01 Jan 2013 00:01:30 GMT"}
        self._answer(503, {**HTML, **dates})

    def _no_echo(self) -> None:
        self.served()
        self.reply(200, JSON, b"[]")

    def _wrong_digest(self) -> None:
        status, headers, content = self.served()
        self.reply(status, headers, re.sub(rb'("md5": ?)"\w+"', rb'\1"' + b"0" * 32 + b'"', content))

    def _wrong_device(self) -> None:
        status, headers, content = self.served()
        self.reply(status, headers, re.sub(rb'("device": ?)"\w+"', rb'\1"ffffffff"', content))

    def _truncated(self) -> None:
        status, headers, content = self.served()
        self.reply(status, headers, content[: len(content) // 2], length=len(content))
        self.cut()

    def _half_json(self) -> None:
        status, headers, content = self.served()
        if self.command == "HEAD":  # an answer that is nothing but headers
            headers = {name: headers[name] for name in headers if name.lower() != "etag"}
        self.reply(status, headers, content[: len(content) // 2])

    def _json_as_html(self) -> None:
        status, _, content = self.served()
        self.reply(status, HTML, content)

    def _wrong_date(self) -> None:
        status, headers, content = self.served()
        self.reply(status, {**headers, "Date": "Tue, 01 Jan 2013 00:00:00 GMT"}, content)

    def _endless(self, **headers: str) -> None:
        self.body()
        self.reply(200, {**JSON, **headers}, b"[", length=10**12)
        with suppress(OSError):
            while True:
                self.wfile.write(b" " * 65536)

    def _bomb(self) -> None:
        packed = gzip.compress(b" " * 60 * 2**20, 1)
        self._answer(200, {**JSON, "Content-Encoding": "gzip"}, packed)

    faults: Mapping[str, Callable[["_Handler"], None]] = {
        "cut before body": cut,
        "cut in body": _cut_in_body,
        "cut after body": _cut_after_body,
        "answer lost": _lose_answer,
        "500": lambda self: self._answer(*BLANK_500),
        "500 though stored": _answer_500_though_stored,
        "502": lambda self: self._answer(502),
        "400": lambda self: self._answer(400, JSON, b'{"message": "no", "error": "no"}'),
        "401": lambda self: self._unauthorised(401),
        "402": lambda self: self._answer(402, JSON, b'{"message": "pay", "error": "pay"}'),
        "403": lambda self: self._unauthorised(403),
        "404": lambda self: self._answer(404),
        "413": lambda self: self._answer(413),
        "429": lambda self: self._answer(429, {**HTML, "Retry-After": "7"}),
        "429 in milliseconds": lambda self: self._answer(429, {**JSON, "X-RateLimit-Reset": "7000"}, b"{}"),
        "429 for a century": lambda self: self._answer(429, {**HTML, "Retry-After": "3155760000"}),
        "503": lambda self: self._answer(503),
        "503 until": _later_by_date,
        "507": lambda self: self._answer(507),
        "stall": _stall,
        "late": _late,
        "slow": _slow,
        "redirect": lambda self: self._answer(302, {"Location": "http://portal.example/login?key=1"}, PORTAL),
        "redirect here": lambda self: self._answer(302, {"Location": "/portal"}, PORTAL),
        "portal": lambda self: self._answer(200, HTML, PORTAL),
        "no echo": _no_echo,
        "an object": lambda self: self._answer(200, JSON, b'{"status": "ok"}'),
        "wrong digest": _wrong_digest,
        "wrong device": _wrong_device,
        "truncated": _truncated,
        "half JSON": _half_json,
        "JSON as HTML": _json_as_html,
        "wrong date": _wrong_date,
        "endless": _endless,
        "endless redirect": lambda self: self._answer(302, {"Location": "/"}, b" " * 2**26),
        "gzip bomb": _bomb,
        "broken gzip": lambda self: self._answer(200, {**JSON, "Content-Encoding": "gzip"}, b"no gzip"),
    }


class FailingOnce:
    """A server of 32 processes, each of which fails at its first request.

    So do uWSGI's that share a connection to the database from before their fork. `seed` draws which of them takes a
    request; without one they take turns.
    """

    def __init__(self, backend: Backend, seed: int | None = None) -> None:
        self.methods = getattr(backend, "methods", ("POST",))
        self.answered = 0
        self.failing = set(range(32))
        self._backend = backend
        self._random = random.Random(seed) if seed is not None else None
        self._lock = threading.Lock()

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        with self._lock:
            process = self._random.randrange(32) if self._random else self.answered % 32
            self.answered += 1
            if process in self.failing:
                self.failing.remove(process)
                return BLANK_500
        return self._backend(path, headers, body)


class Original:
    """A Sticky Pi server in memory. `is_old` makes it one of branch main, which reads the older form of dates only;
    `is_new` one that reads the newer form only, which no branch does yet. What is no date is answered with 500.

    `reads_2020_only`: it has tokens as branch main, and fails at images of the format of 2022.

    Its storage is an S3: addresses that need no password, one of them for each object, and its MD5 as ETag. `url`
    is where that is reached.

    NOTE: it does not look into the images, as the hub does; the rules for them are tested there.
    """

    methods = ("POST", "GET")

    def __init__(self, *, is_old: bool = False, is_new: bool = False, reads_2020_only: bool = False) -> None:
        self.is_old = is_old
        self.reads_2020_only = reads_2020_only
        self.is_new = is_new
        self.user, self.password = "trap", "correct horse: battery"
        self.is_read_only = False
        self.url = ""
        self.files: dict[str, bytes] = {}  # what its S3 holds
        self.addresses: dict[str, str] = {}  # that it gives instead of the right ones, by name
        self.etag: Callable[[bytes], str] = lambda content: hashlib.md5(content).hexdigest()
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.overwritten = 0
        self.logins = 0
        self._tokens: set[str] = set()
        self._lock = threading.Lock()

    def expire_tokens(self) -> None:
        """A day passes on the server."""
        self._tokens.clear()

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        with self._lock:
            if path.startswith("GET "):
                return self._fetch(path, headers)
            user, _, password = _basic(headers).partition(":")
            by_password = (user, password) == (self.user, self.password)
            if not by_password and not (user in self._tokens and password == ""):
                return 401, {**HTML, "WWW-Authenticate": 'Basic realm="x"'}, b"Unauthorized Access"
            if path == "/get_token":
                return self._token()
            if path in {"/get_images/metadata", "/get_images/image"}:
                return self._find(headers, body, shows_addresses=path.endswith("image"))
            if path == "/_put_new_images":
                return self._put(headers, body)
            return 404, HTML, b"<p>not found</p>"

    def _token(self) -> Reply:
        self.logins += 1
        token = f"token-{self.logins}"
        if self.reads_2020_only:
            header = base64.urlsafe_b64encode(b'{"alg":"HS512","iat":1600000000,"exp":1600086400}').decode()
            token = f"{header.rstrip('=')}.{token}.signature"
        self._tokens.add(token)
        return _json({"token": token, "expiration": 1_400_000_000})  # its clock is years behind

    def _fetch(self, path: str, headers: Mapping[str, str]) -> Reply:
        """One object of the storage. A password beside the signature is refused, as S3 does."""
        name = path.removeprefix("GET /bucket/").partition("?")[0]
        if "Authorization" in headers or "?X-Amz-Signature=" not in path:
            return 400, HTML, b"<p>Only one auth mechanism allowed</p>"
        if (content := self.files.get(name)) is None:
            return 404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>"
        shown = {"Content-Type": "image/jpeg", "ETag": f'"{self.etag(content)}"'}
        return (206, shown, content[:1]) if headers.get("Range") == "bytes=0-0" else (200, shown, content)

    def _address(self, row: dict[str, Any]) -> str:
        name = f"{row['device']}.{self._stamp(row['datetime'])}.jpg"
        return self.addresses.get(name, f"{self.url}/bucket/{name}?X-Amz-Signature=s3cret")

    def _find(self, headers: Mapping[str, str], body: bytes, *, shows_addresses: bool) -> Reply:
        if headers.get("Content-Type") != "application/json":
            return 415, HTML, b"<p>unsupported media type</p>"
        asked = json.loads(body)
        if not asked:
            return BLANK_500
        try:
            keys = {(key["device"].lower(), self._stamp(key["datetime"])) for key in asked}
        except ValueError:
            return BLANK_500
        rows = [
            dict(row, id=number, url=self._address(row) if shows_addresses else "")
            for number, (key, row) in enumerate(self.rows.items())
            if key in keys
        ]
        return _json(rows, headers)

    def _stamp(self, text: str) -> str:
        """The older form of a date; ValueError for what is no date here. One of branch main finds nothing by the newer."""
        if not self.is_new:
            with suppress(ValueError):
                return datetime.strptime(text, "%Y-%m-%d_%H-%M-%S").strftime("%Y-%m-%d_%H-%M-%S")
        taken = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
        return "" if self.is_old else taken.strftime("%Y-%m-%d_%H-%M-%S")

    def _put(self, headers: Mapping[str, str], body: bytes) -> Reply:
        if self.is_read_only:
            return 403, {**HTML, "WWW-Authenticate": 'Basic realm="x"'}, b"Unauthorized Access"
        parts = _parts(headers["Content-Type"], body)
        (name, content) = next((part for part in parts.items() if not part[0].endswith(".md5")), ("", b""))
        match = re.fullmatch(r"([0-9a-fA-F]{8})\.(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)\.\w+", name)
        digest = hashlib.md5(content).hexdigest()
        sent = parts.get(f"{name}.md5", digest.encode()).decode()
        if not match or not content.startswith(b"\xff\xd8") or (sent != digest and not self.is_old):
            return BLANK_500
        if self.reads_2020_only and b"StickyPi\0" in content[:400]:  # a Make that is no dict
            return BLANK_500
        key = (match[1].lower(), match[2])
        is_taken = key in self.rows
        self.files[name] = content  # before the database is asked: this is the danger
        if is_taken:
            self.overwritten += 1
            return BLANK_500
        taken = datetime.strptime(match[2], "%Y-%m-%d_%H-%M-%S")
        written = match[2] if self.is_old else taken.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.rows[key] = {"id": None, "device": match[1], "datetime": written, "md5": digest}
        return _json([self.rows[key]])


class Forwarding:
    """A real server behind the faults."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Pass one request on."""
        passed = {name: headers[name] for name in ("Authorization", "Content-Type") if name in headers}
        status, shown, content = self.passed_on(path, passed, body)
        return status, {"Content-Type": shown["Content-Type"]}, content

    def passed_on(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer to a request with these headers."""
        method, _, path = path.rpartition(" ")
        connection = http.client.HTTPConnection(self._address, timeout=30)
        connection.request(method or "POST", path, body, dict(headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.headers), content


class ForwardingSigned(Forwarding):
    """A real S3 store behind the faults: its requests are signed with their headers, and headers are its answers."""

    methods = ("GET", "HEAD", "PUT", "DELETE")

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Pass one request on, as it is."""
        status, shown, content = self.passed_on(path, headers, body)
        return status, {name: shown[name] for name in shown if name not in _OF_THE_CONNECTION}, content


_OF_THE_CONNECTION = {"Connection", "Transfer-Encoding", "Keep-Alive"}


def _json(content: object, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps(content).encode() + b"\n"
    if headers and "gzip" in headers.get("Accept-Encoding", "") and len(body) >= 1000:
        return 200, {**JSON, "Content-Encoding": "gzip"}, gzip.compress(body)
    return 200, JSON, body


def _basic(headers: Mapping[str, str]) -> str:
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    return base64.b64decode(encoded).decode() if scheme == "Basic" else ""


def _parts(kind: str, body: bytes) -> dict[str, bytes]:
    """The parts of a form by their *names*, which is what the server goes by."""
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    assert body.endswith(boundary + b"--\r\n")
    parts = {}
    for part in body.split(boundary + b"\r\n")[1:]:
        head, _, rest = part.partition(b"\r\n\r\n")
        name = re.search(rb'[ ;]name="([^"]*)"', head)
        assert name
        parts[name[1].decode()] = rest.partition(b"\r\n" + boundary)[0].removesuffix(b"\r\n")
    return parts
