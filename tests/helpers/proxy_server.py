"""A proxy on the loopback that counts what goes through it: CONNECT for https, whole addresses for http.

`login` is the "user:password" that it wants. Where names lead it decides by itself, as proxies do: `leads_to` is the port on
the loopback that each host and port stands for. With `cert` it speaks TLS itself.
"""

import base64
import http.client
import selectors
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit


class ProxyServer:
    """The proxy, as a context manager."""

    def __init__(
        self, leads_to: Mapping[str, int], login: str = "", answer: int = 0, cert: Path | None = None
    ) -> None:
        self.leads_to = leads_to
        self.login = login
        self.answer = answer  # to every CONNECT, instead of a way
        self.asked: list[str] = []  # "CONNECT host:port", "POST http://host:port/path"
        self.heads: list[Mapping[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.owner = self  # type: ignore[attr-defined]
        if cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if cert else 'http'}://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _is_let_in(self) -> bool:
        owner: ProxyServer = self.server.owner  # type: ignore[attr-defined]
        owner.asked.append(f"{self.command} {self.path}")
        owner.heads.append(dict(self.headers))
        wanted = f"Basic {base64.b64encode(owner.login.encode()).decode()}"
        if owner.login and self.headers.get("Proxy-Authorization") != wanted:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.close_connection = True
            return False
        return True

    def _way(self, host: str) -> tuple[str, int]:
        return "127.0.0.1", self.server.owner.leads_to[host]  # type: ignore[attr-defined]

    def do_CONNECT(self) -> None:
        """Open a tunnel, and carry bytes both ways until an end closes."""
        if not self._is_let_in():
            return
        self.close_connection = True
        if answer := self.server.owner.answer:  # type: ignore[attr-defined]
            self.send_error(answer)
            return
        with socket.create_connection(self._way(self.path)) as far, selectors.DefaultSelector() as both:
            self.send_response(200)
            self.end_headers()
            for one, other in ((self.connection, far), (far, self.connection)):
                one.settimeout(20)
                both.register(one, selectors.EVENT_READ, other)
            while True:
                for key, _ in both.select():
                    with suppress(OSError):
                        if data := key.fileobj.recv(65536):  # type: ignore[union-attr]
                            key.data.sendall(data)
                            continue
                    return

    def do_POST(self) -> None:
        """Ask the server, and hand its answer on."""
        if not self._is_let_in():
            return
        parts = urlsplit(self.path)
        far = http.client.HTTPConnection(*self._way(parts.netloc))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        heads = {name: value for name, value in self.headers.items() if name != "Proxy-Authorization"}
        query = f"?{parts.query}" if parts.query else ""
        far.request(self.command, parts.path + query, body, heads)
        answer = far.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        far.close()

    do_GET = do_HEAD = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
