"""Services that take messages, or do not: a webhook and an ntfy on the loopback, and a mail server."""

import json
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = b"x" * 65536


class Receiver(ThreadingHTTPServer):
    """A server that keeps what it is told; the path says how it behaves: /ok, /refuses, /hangs, /floods.

    ntfy posts to `/`. GETs are pings.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.pings: list[str] = []
        self.logins: list[str] = []  # of these, user:password
        self.flooded = 0
        self.ended = threading.Event()

    def address(self, path: str, scheme: str = "json") -> str:
        """An address of Apprise, or for a ping."""
        return f"{scheme}://user:sesame@127.0.0.1:{self.server_port}/{path}"

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What came to one path."""
        return [body for where, body in self.told if where == f"/{path}"]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_GET(self) -> None:
        self.server.pings.append(self.path)
        if login := self.headers["Authorization"]:
            self.server.logins.append(b64decode(login.removeprefix("Basic ")).decode())
        self._behave()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, json.loads(body)))
        self._behave()

    def _behave(self) -> None:
        known = {"/refuses": self._refuse, "/hangs": self._hang, "/floods": self._flood}
        known.get(self.path.partition("?")[0], self._answer)()

    def _answer(self, text: bytes = b"{}", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _refuse(self) -> None:
        self._answer(b"\x1b]0;not for you\x07" * 100, 403)

    def _hang(self) -> None:
        try:  # a byte now and then keeps every timeout of a socket from coming
            while not self.server.ended.is_set():
                self.wfile.write(b"H")
                time.sleep(0.2)
        except OSError:
            return

    def _flood(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.ended.is_set():
                self.wfile.write(PIECE)
                self.server.flooded += len(PIECE)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens until the block ends."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        """Keep a mail."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 taken"


@contextmanager
def mailing() -> Iterator[tuple[Mailbox, str]]:
    """A mail server, and the address of somebody there."""
    from aiosmtpd.controller import Controller

    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, f"mailto://127.0.0.1:{port}?from=hub@example.org&to=owner@example.org"
    finally:
        controller.stop()
