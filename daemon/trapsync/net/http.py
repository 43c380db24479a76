"""HTTP requests to one server: timeouts, deadlines, streaming, one error. The only module that uses requests.

Whatever goes wrong on the way to a server ends as `Unreachable` with one line for a person; only a
whole answer comes back, and it is for the destination to judge. Nothing here ever follows a redirect:
a POST that is redirected becomes a GET, and a captive portal's page then looks like success.
"""

import http.client
import io
import logging
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from trapsync.clock import Clock
from trapsync.errors import SettingsError, Unauthorised, Unreachable
from trapsync.net.connecting import connect
from trapsync.net.http_answer import Answer, require_final, retry_after, unpacked
from trapsync.net.http_body import Body, Pieces
from trapsync.net.http_errors import unreachable
from trapsync.net.proxy import Proxy
from trapsync.net.throttle import Throttle
from trapsync.settings.config_file import require_authorities

# urllib3 spends the *connect* timeout on sending as well, per chunk when the body is file-like: a chunk
# of 16 kB over a link of 1 kB/s needs 16 s (urllib3 issue 857). Less than this breaks slow links.
_CONNECT_TIMEOUT = 30.0
_CHUNK = 16 * 1024
# Sessions idle for longer are dropped rather than used again: carriers forget a silent connection
# without telling either end, and the next request would then wait out its whole timeout.
_IDLE = 45.0
# Bytes of an answer, unpacked. Of JSON it takes up to thirty times as much memory: see `foreign_json`.
LARGEST_ANSWER = 2**20
# Seconds to wait before a question is asked again that a server failed to answer: one of many processes behind it may
# fail by itself (uWSGI: each of 32 once after a restart of the database), and the end of a turn costs minutes. One that
# failed at the last question, too, is asked less often.
_ASK_AGAIN = (0.2, *[0.5] * 34)
_ASK_LESS = (0.2, 0.5, 1.0, 2.0, 4.0)
_FAILED = {500, 502, 504}  # 503 says by itself when to come again


class _WithoutQueries(logging.Filter):
    """What urllib3 logs of a request, without its query: that of a signed address is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, shortened."""
        if isinstance(record.args, tuple):
            record.args = tuple(one.partition("?")[0] if isinstance(one, str) else one for one in record.args)
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_WithoutQueries())


class _Deadline(threading.local):
    """Until when the request of this thread may take; called at each read of its connection."""

    def __init__(self) -> None:
        self.check: Callable[[], None] = lambda: None

    @contextmanager
    def during(self, check: Callable[[], None]) -> Iterator[None]:
        """Check this at each read, until the block ends."""
        before, self.check = self.check, check
        try:
            yield
        finally:
            self.check = before


_deadline = _Deadline()


class _Watched(io.RawIOBase):
    """What a connection sends, with the deadline checked at each read.

    http.client reads a status line and headers in one go, and a socket's timeout limits each silence only: a server that
    sends a byte of a header now and then would hold a turn for hours.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read once, if there is time left."""
        _deadline.check()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Close it, and what it reads."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_Watched(self.fp.detach()))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port, self.timeout or _CONNECT_TIMEOUT, self.socket_options or ())


class _SecureConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response
    _new_conn = _Connection._new_conn


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class _BasicAuth(requests.auth.AuthBase):
    """Basic authentication, or none at all; never what a .netrc says."""

    def __init__(self, pair: tuple[str, str] | None) -> None:
        self._pair = pair

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._pair:
            # In UTF-8: requests' own would raise on a password that is not Latin-1.
            user, password = (text.encode() for text in self._pair)
            requests.auth.HTTPBasicAuth(user, password)(request)
        return request


class _Adapter(HTTPAdapter):
    """One that logs in at its proxy, and verifies that too; it never shows a password in an address.

    It knows no cookies: Python's reader of them takes an odd one for a bug of its own, and prints a traceback.
    """

    def __init__(self, proxy: Proxy | None, transfers: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=transfers, max_retries=0)
        self._proxy = proxy
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def drop_connections(self) -> None:
        """Close what is open; the next request reads the proxy's password anew."""
        self.close()
        self.proxy_manager.clear()

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """The connections by way of a proxy, of our kind."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def proxy_headers(self, _proxy: str) -> dict[str, str]:
        """What logs in at the proxy."""
        login = self._proxy.login() if self._proxy else None
        text = ":".join(login).encode() if login else b""
        return {"Proxy-Authorization": f"Basic {b64encode(text).decode()}"} if login else {}

    def cert_verify(self, conn: Any, _url: str, verify: Any, cert: Any) -> None:
        """Verify a certificate, if there is one, whatever the address begins with: a proxy may have one."""
        super().cert_verify(conn, "https:", verify, cert)  # type: ignore[no-untyped-call]

    def build_response(
        self, req: requests.PreparedRequest, resp: urllib3.BaseHTTPResponse
    ) -> requests.Response:
        """The answer, without those that came with it."""
        if original := getattr(resp, "_original_response", None):
            del original.msg["Set-Cookie"], original.msg["Set-Cookie2"]
        return super().build_response(req, resp)


class _Session(requests.Session):
    """A session for which there are no redirects, so that not even their bodies are read ahead."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, always."""


class HttpClient:
    """A client of one server: a pool of kept-alive connections, a bandwidth limit, and timeouts.

    `base_url` is `https://host[:port][/path]`; `bandwidth` is the limit of all uploads together and
    `min_rate` the rate below which a transfer is given up, both in bytes per second; `timeout` the
    longest silence of the server, in seconds. May be used from `transfers` threads at once.

    What the environment says about proxies, certificates and .netrc does not count: what a trap does
    depends on its settings. All goes through the `proxy`, if there is one. `authorities` names a file of
    certificate authorities to trust instead of the usual ones. `asked_to_wait` reads from a 429 or 503 how
    many seconds to stay away, for a server that says it otherwise than by Retry-After. `judge` sees every answer first,
    and raises what it means, for a service that tells redirects and the like in words of its own.
    """

    def __init__(
        self,
        base_url: str,
        agent: str,
        clock: Clock,
        sleep: Callable[[float], None],
        *,
        bandwidth: int = 0,
        transfers: int = 1,
        min_rate: int = 2000,
        timeout: float = 120.0,
        authorities: Path | None = None,
        proxy: Proxy | None = None,
        asked_to_wait: "Callable[[Answer], float] | None" = None,
        judge: "Callable[[Answer], None] | None" = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.host = urlsplit(self.base_url).netloc
        self._is_plain = self.base_url.lower().startswith("http:")
        self._clock = clock
        self._sleep = sleep
        self._throttle = Throttle(bandwidth, clock.monotonic, sleep)
        self._slowest = min(min_rate, bandwidth / transfers / 2) if bandwidth else min_rate
        self._timeout = timeout
        self._asked_to_wait = asked_to_wait or retry_after
        self._judge = judge
        self._proxy = proxy
        self._authorities = authorities
        self._adapter = _Adapter(proxy, transfers)
        self._session = _session(self._adapter, agent, authorities)
        if proxy:
            self._session.proxies = {"http": proxy.url, "https": proxy.url}
        self._lock = threading.Lock()
        self._busy = 0
        self._last_used = clock.monotonic()
        self._is_failing = False  # the last question, to which no answer came that counts

    def close(self) -> None:
        """Close connections."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        body: "Body | bytes" = b"",
        *,
        kind: str = "",
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        largest: int = LARGEST_ANSWER,
    ) -> Answer:
        """Send a body of content type `kind` and read the whole answer, of at most `largest` bytes.

        `path` begins with a slash, and may hold a query. `auth` is user and password for Basic
        authentication. `deadline` is in seconds from now; without one it follows from the size of the
        body. Raises Unreachable when no whole answer came in time, when it is a redirect, and when the
        server asks to come later (429, 503; `wait` is how long) or is full (507). What the body raises goes through.
        """
        more = dict(headers or {}) | ({"Content-Type": kind} if kind else {})
        limit = deadline or 60 + self._timeout + len(body) / self._slowest
        ends = self._clock.monotonic() + limit
        source = Pieces(body) if isinstance(body, bytes) else body
        paced = _Paced(source, self._throttle, lambda: self._within(ends)) if len(body) else None
        with (
            self._connections(),
            self._explained(),
            _deadline.during(lambda: self._within(ends)),
            self._request(method, path, paced, more, auth) as response,
        ):
            raw = b"".join(self._chunks(response.raw, ends, largest))
            content = unpacked(raw, response.headers.get("Content-Encoding", ""), largest)
            self._require_short(len(content), largest)
            answer = Answer(self.host, response.status_code, response.headers, content)
        return self._final(answer)

    def request(self, method: str, path: str, body: "Body | bytes" = b"", **more: Any) -> Answer:
        """Send as `send` does, and a GET as `insist` does: of a service that keeps to what the methods mean."""
        if method == "GET":
            return self.insist(lambda _: self.send(method, path, body, **more))
        return self.send(method, path, body, **more)

    def insist(self, ask: Callable[[int], Answer]) -> Answer:
        """Ask a question that changes nothing at the server, and again within seconds where it fails to answer.

        `ask` sends it, and is given how often it failed before.
        """
        pauses = _ASK_LESS if self._is_failing else _ASK_AGAIN
        for number, pause in enumerate((*pauses, None)):
            try:
                answer = ask(number)
                is_answered = answer.status not in _FAILED
                if is_answered or pause is None:
                    self._is_failing = not is_answered
                    return answer
            except Unreachable as error:
                if not error.was_cut or pause is None:
                    self._is_failing = error.was_cut
                    error.was_cut = False  # a question of which this one was a part need not be asked again
                    raise
            self._sleep(pause)
        raise AssertionError("the last one ends it")

    @contextmanager
    def fetch(
        self, path: str, *, headers: Mapping[str, str] | None = None, deadline: float, largest: int
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """GET what may be large: the answer without its body, and the body as it comes, never whole in memory.

        `deadline` is in seconds from now, for all of it. Raises Unreachable as `send` does; the pieces do so
        too, when the body is cut, too slow, or longer than `largest` bytes. Leave early, and the rest is not read.
        """
        ends = self._clock.monotonic() + deadline
        more = {**(headers or {}), "Accept-Encoding": "identity"}
        with (
            self._connections(),
            self._explained(),
            _deadline.during(lambda: self._within(ends)),
            self._request("GET", path, None, more, None) as response,
        ):
            answer = Answer(self.host, response.status_code, response.headers, b"")
            yield self._final(answer), self._pieces(response.raw, ends, largest)

    def _final(self, answer: Answer) -> Answer:
        if answer.status == 407 and self._proxy:
            raise self._proxy.denial()
        if self._judge:
            self._judge(answer)
        return require_final(answer, self._asked_to_wait, is_plain=self._is_plain)

    def _pieces(self, raw: Any, ends: float, largest: int) -> Iterator[bytes]:
        # Explained here as well: the caller in between may catch an OSError.
        with self._explained():
            yield from self._chunks(raw, ends, largest)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever fails on the way to the server is Unreachable, with a line for a person."""
        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(error, self.host, self._proxy, self._clock.wall()) from None

    def _request(
        self,
        method: str,
        path: str,
        body: "_Paced | None",
        headers: Mapping[str, str],
        auth: tuple[str, str] | None,
    ) -> requests.Response:
        return self._session.request(
            method,
            self.base_url + path,
            data=body,
            headers=headers,
            auth=_BasicAuth(auth),
            timeout=(_CONNECT_TIMEOUT, self._timeout),
            allow_redirects=False,
            stream=True,
        )

    def _chunks(self, raw: Any, ends: float, largest: int) -> Iterator[bytes]:
        """What arrives, as it arrives.

        `read1` returns after one read of the socket, so a server that sends a byte now and then
        stretches the deadline by one silence at most.
        """
        received = 0
        while chunk := raw.read1(_CHUNK, decode_content=False):
            received += len(chunk)
            self._require_short(received, largest)
            self._within(ends)
            yield chunk

    def _require_short(self, received: int, largest: int) -> None:
        if received > largest:
            raise Unreachable(f"{self.host}: the answer is longer than {largest} bytes")

    def _within(self, ends: float) -> None:
        if self._clock.monotonic() > ends:
            raise Unreachable(f"{self.host}: the transfer was too slow and was given up")

    def _require_authorities(self) -> None:
        """Unauthorised where another user could say whom to trust."""
        try:
            if self._authorities:
                require_authorities(self._authorities, "ca_file")
        except SettingsError as error:
            raise Unauthorised(str(error)) from None

    @contextmanager
    def _connections(self) -> Iterator[None]:
        """Count a request in and out; the first after a pause finds old connections dropped."""
        self._require_authorities()
        with self._lock:
            if not self._busy and self._clock.monotonic() - self._last_used > _IDLE:
                self._adapter.drop_connections()
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._last_used = self._clock.monotonic()


class _Paced:
    """A body on its way out: each read waits for its share of the bandwidth and minds the deadline."""

    def __init__(self, body: Body, throttle: Throttle, within: Callable[[], None]) -> None:
        self._body = body
        self._throttle = throttle
        self._within = within

    def __len__(self) -> int:
        return len(self._body)

    def read(self, count: int = _CHUNK) -> bytes:
        """Up to `count` bytes of the body; fewer does not mean the end."""
        chunk = self._body.read(self._throttle.portion(min(count, _CHUNK)))
        self._throttle.take(len(chunk))
        self._within()
        return chunk


def _session(adapter: HTTPAdapter, agent: str, authorities: Path | None) -> requests.Session:
    session = _Session()
    session.trust_env = False
    session.headers.update({"User-Agent": agent, "Accept-Encoding": "gzip"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if authorities:
        session.verify = str(authorities)
    return session
