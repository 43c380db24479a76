"""The client to requests: what goes out, what may come back, and how failures read."""

import hashlib
import io
import json
import logging
import os
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from fake_time import FakeTime
from fault_server import HTML, JSON, FaultServer, Reply
from trapsync.errors import Failed, Unauthorised, Unreachable
from trapsync.image import Image
from trapsync.net.http import HttpClient
from trapsync.net.http_body import FilePiece, Pieces, multipart, opened
from trapsync.net.throttle import Throttle


class Echo:
    """A backend that answers with what it got, or with what it is told to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answer: Reply | None = None
        self.methods: tuple[str, ...] = ("POST",)

    def __call__(self, path: str, headers: Any, body: bytes) -> Reply:
        """Answer one POST."""
        self.bodies.append(body)
        return self.answer or (200, JSON, json.dumps({"path": path, "size": len(body)}).encode())


@pytest.fixture
def echo() -> Echo:
    """The backend."""
    return Echo()


@pytest.fixture
def front(echo: Echo) -> Iterator[FaultServer]:
    """The server."""
    with FaultServer(echo) as front:
        yield front


@pytest.fixture
def time() -> FakeTime:
    """Time that stands still."""
    return FakeTime()


@pytest.fixture
def client(front: FaultServer, time: FakeTime) -> Iterator[HttpClient]:
    """A client to the server."""
    client = HttpClient(front.url, "trapsync/test", time, time.sleep)
    yield client
    client.close()


# --- What goes out ------------------------------------------------------------------------------------------


def test_a_body_arrives_whole_with_its_length_known_beforehand(
    front: FaultServer, echo: Echo, client: HttpClient
) -> None:
    content = bytes(range(256)) * 1000
    answer = client.send("POST", "/here", content, kind="text/plain", auth=("me", "sécret"))
    assert answer.json(dict) == {"path": "/here", "size": 256_000}
    assert echo.bodies == [content]
    assert front.headers[0]["Content-Length"] == "256000"
    assert front.headers[0]["Content-Type"] == "text/plain"
    assert "Transfer-Encoding" not in front.headers[0]


def test_a_post_without_a_body_has_length_nought(front: FaultServer, client: HttpClient) -> None:
    client.send("POST", "/")
    assert front.headers[0]["Content-Length"] == "0"


def test_neither_netrc_nor_proxies_of_the_environment_count(
    front: FaultServer, client: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert client.send("POST", "/").status == 200
    assert "Authorization" not in front.headers[0]


def test_cookies_are_not_kept(front: FaultServer, echo: Echo, client: HttpClient) -> None:
    echo.answer = (200, {**JSON, "Set-Cookie": "portal=1; Path=/"}, b"{}")
    for _ in range(2):
        client.send("POST", "/")
    assert "Cookie" not in front.headers[1]


@pytest.mark.parametrize(
    "cookie",
    ["a=b; Expires=Mon, 01 Jan 0000 00:00:00 GMT", "a=b; Max-Age=1e400", "=;;;", "a=b; Version=x", '"'],
)
def test_an_odd_cookie_is_no_bug_of_anybodys(
    echo: Echo, client: HttpClient, cookie: str, recwarn: pytest.WarningsRecorder
) -> None:
    echo.answer = (200, {**JSON, "Set-Cookie": cookie, "Set-Cookie2": f"{cookie}; Version=x"}, b"{}")
    assert client.send("POST", "/").json(dict) == {}
    assert [str(one.message) for one in recwarn] == []


def test_connections_are_kept_but_not_after_a_long_silence(
    front: FaultServer, client: HttpClient, time: FakeTime
) -> None:
    for _ in range(3):
        client.send("POST", "/")
    assert front.connections == 1
    time.sleep(60)
    client.send("POST", "/")
    assert front.connections == 2


def test_a_form_has_the_parts_that_a_parser_finds_in_it(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"\xff\xd8 picture \r\n--x\r\n")
    with path.open("rb") as file:
        size = path.stat().st_size
        body, kind = multipart(
            ("a.jpg", "a.jpg", "image/jpeg", FilePiece(file, size)), ('q"\r\nx', "", "", b"0123")
        )
        sent = b"".join(iter(lambda: body.read(7), b""))
    assert len(body) == len(sent)
    fields = _parsed(kind, sent)
    assert fields["a.jpg"] == ("a.jpg", "image/jpeg", b"\xff\xd8 picture \r\n--x\r\n")
    assert fields['q"%0D%0Ax'] == ("", "", b"0123")


def _parsed(kind: str, sent: bytes) -> dict[str, tuple[str, str, bytes]]:
    """What werkzeug, the parser of the Sticky Pi server, finds in a form."""
    from werkzeug.formparser import parse_form_data

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(sent)),
        "wsgi.input": io.BytesIO(sent),
    }
    _, form, files = parse_form_data(environ)
    found = {
        name: (file.filename or "", file.content_type or "", file.read()) for name, file in files.items()
    }
    return found | {name: ("", "", text.encode()) for name, text in form.items()}


def test_a_file_that_shrinks_while_it_is_sent_fails_and_the_client_works_on(
    front: FaultServer, echo: Echo, client: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 100_000)
    with path.open("r+b") as file:
        body = Pieces(b"head", FilePiece(file, 100_000))
        file.truncate(50_000)
        with pytest.raises(Failed, match="shrank while it was sent: 50000 of 100000 bytes"):
            client.send("POST", "/", body)
    assert client.send("POST", "/").status == 200


def test_a_file_that_grows_is_sent_as_it_was_announced(
    echo: Echo, client: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 1000)
    with path.open("rb") as file:
        body = Pieces(FilePiece(file, 500))
        client.send("POST", "/", body)
    assert echo.bodies == [b"x" * 500]


def test_a_file_that_is_removed_while_it_is_sent_arrives_all_the_same(
    echo: Echo, client: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 1000)
    with opened(_image(1000), path) as file:
        path.unlink()
        client.send("POST", "/", Pieces(FilePiece(file, 1000)))
    assert echo.bodies == [b"x" * 1000]


def test_a_file_with_other_bytes_than_were_examined_never_arrives_whole(
    echo: Echo, client: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 50_000)
    with path.open("rb") as file:
        with pytest.raises(Failed, match="the card may be failing"):
            client.send("POST", "/", Pieces(FilePiece(file, 50_000, "0" * 32)))
        assert echo.bodies == []
        client.send("POST", "/", Pieces(FilePiece(file, 50_000, hashlib.md5(b"x" * 50_000).hexdigest())))
    assert echo.bodies == [b"x" * 50_000]


def test_a_card_that_fails_while_it_is_read_is_this_images_failure(client: HttpClient) -> None:
    class Broken(io.BytesIO):
        name = "image.jpg"

        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(Failed, match=r"image\.jpg: input/output error"):
        client.send("POST", "/", Pieces(FilePiece(Broken(), 10)))


def test_a_card_that_fails_in_the_middle_of_a_sending_is_told_with_the_files_name(
    client: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"four")
    with opened(_image(4), path) as file:
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, file.fileno())  # of which nothing can be read
        os.close(folder)
        with pytest.raises(Failed, match=rf"^reading it failed: {path}: "):
            client.send("POST", "/", Pieces(FilePiece(file, 4)))


def test_opening_tells_a_missing_file_from_one_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with pytest.raises(FileNotFoundError), opened(_image(3), path):
        pass
    path.write_bytes(b"four")
    with pytest.raises(Failed, match="has 4 bytes now; it had 3"), opened(_image(3), path):
        pass
    with pytest.raises(Failed, match="reading it failed"), opened(_image(3), tmp_path / ("x" * 300)):
        pass


@pytest.mark.timeout(20)
def test_what_took_the_place_of_a_file_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for name in ("folder", "link", "pipe", "socket", "elsewhere/below"):
        with pytest.raises(FileNotFoundError), opened(_image(3), tmp_path / name):
            pass
    with opened(_image(3), tmp_path / "elsewhere") as file:
        assert file.read() == b"abc"


def _image(size: int) -> Image:
    return Image("a.jpg", size, "", "", 1, 1)


# --- Bandwidth and deadlines --------------------------------------------------------------------------------


def test_all_uploads_of_a_client_share_its_bandwidth(front: FaultServer, time: FakeTime) -> None:
    client = HttpClient(front.url, "x", time, time.sleep, bandwidth=10_000, transfers=2)
    sends = [("POST", "/", b"x" * 50_000)] * 2
    threads = [threading.Thread(target=client.send, args=send) for send in sends]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # With a clock that each sleeper advances, two of them sleep twice as long as they would together.
    assert time.monotonic() - started >= 9.5
    assert front.received["/"] == 100_000


def test_a_throttle_keeps_its_rate_and_does_not_save_up_for_bursts(time: FakeTime) -> None:
    throttle = Throttle(1000, time.monotonic, time.sleep)
    time.sleep(1000)
    time.slept.clear()
    for _ in range(100):
        throttle.take(throttle.portion(10_000))
    assert sum(time.slept) == pytest.approx(50, abs=1)
    assert max(time.slept) <= 0.5


def test_a_slow_limit_is_not_mistaken_for_a_slow_link(front: FaultServer, time: FakeTime) -> None:
    client = HttpClient(front.url, "x", time, time.sleep, bandwidth=500, min_rate=2000)
    assert client.send("POST", "/", b"x" * 200_000).status == 200
    assert time.monotonic() > 1000 + 390


def test_a_transfer_that_takes_too_long_is_given_up(front: FaultServer, time: FakeTime) -> None:
    class Crawl(Pieces):
        def read(self, count: int) -> bytes:
            time.sleep(5)
            return super().read(1000)

    client = HttpClient(front.url, "x", time, time.sleep, min_rate=1000, timeout=10)
    with pytest.raises(Unreachable, match="too slow"):
        client.send("POST", "/", Crawl(b"x" * 1_000_000))
    assert time.monotonic() - 1000 == pytest.approx(1070, abs=10)


def test_an_answer_that_trickles_is_given_up(time: FakeTime) -> None:
    with _Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", drip=time) as raw:
        client = HttpClient(raw.url, "x", time, time.sleep, timeout=10)
        with pytest.raises(Unreachable, match="too slow"):
            client.send("POST", "/", deadline=60)


@pytest.mark.parametrize(
    "begins",
    [b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 O"],
)
def test_a_head_that_trickles_is_given_up(time: FakeTime, begins: bytes) -> None:
    with _Raw(begins, drip=time) as raw:
        client = HttpClient(raw.url, "x", time, time.sleep, timeout=10)
        with pytest.raises(Unreachable, match="too slow"):
            client.send("POST", "/", deadline=60)


class _Raw:
    """A server that sends these bytes whatever it is asked, then one byte at a time if it drips."""

    def __init__(self, answer: bytes, drip: FakeTime | None = None) -> None:
        self._answer = answer
        self._drip = drip
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            peer.recv(65536)
            try:
                peer.sendall(self._answer)
                while self._drip:
                    self._drip.sleep(0.5)
                    peer.sendall(b"x")
            except OSError:
                return

    def __enter__(self) -> "_Raw":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(10)


# --- What may come back -------------------------------------------------------------------------------------


def test_json_is_json_only_with_its_status_its_type_and_its_shape(echo: Echo, client: HttpClient) -> None:
    for answer, reason in [
        (
            (200, HTML, b"{}"),
            "answered 200 with text/html: a sign-in page (captive portal) may be in between",
        ),
        ((201, JSON, b"{}"), "answered 201 with application/json"),
        (
            (400, JSON, b'{"message": "no such\\ncolumn, see https://x/y?s=1"}'),
            "json: no such column, see ...",
        ),
        ((404, HTML, b"no"), "answered 404 with text/html"),
        ((200, {}, b"{}"), "answered 200 with no content type"),
        ((200, JSON, b'{"a'), "cut off or broken"),
        ((200, JSON, b"[" * 90_000), "too deep"),
        ((200, JSON, b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}"), "too deep"),
        ((200, JSON, b"[" + b"{}," * 60_000 + b"{}]"), "of more than 100000 values"),
        ((200, JSON, b"\xff\xfe"), "cut off or broken"),
        ((200, JSON, b"[]"), "of another shape: a list"),
        ((200, JSON, b"null"), "of another shape: a NoneType"),
    ]:
        echo.answer = answer
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1") as caught:
            client.send("POST", "/").json(dict)
        assert reason in str(caught.value)
    echo.answer = (200, {"Content-Type": "Application/JSON; charset=utf-8"}, b'{"a": 1}')
    assert client.send("POST", "/").json(dict) == {"a": 1}


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        (b'{"md5": "\\ud800", "id": 1}', {"md5": "?", "id": 1}),
        (b'{"\\uDFFF": 1}', {"?": 1}),
        (b'{"name": "\\ud83e\\udd8b \\u00fc"}', {"name": "\U0001f98b ü"}),
        (b'{"name": "\xed\xa0\x80x"}', {"name": "\ufffd\ufffd\ufffdx"}),
        (b'{"id": NaN, "a": -Infinity, "b": 1e999, "c": 1.5}', {"id": None, "a": None, "b": None, "c": 1.5}),
        (b'{"id": 9223372036854775807}', {"id": 9223372036854775807}),
        (b'{"id": 9223372036854775808}', {"id": None}),
        (b'{"id": ' + b"9" * 5000 + b"}", {"id": None}),
        (b'\xef\xbb\xbf{"a": -7}', {"a": -7}),
    ],
)
def test_what_cannot_be_stored_is_taken_out_of_an_answer_and_costs_the_rest_nothing(
    echo: Echo, client: HttpClient, told: bytes, taken: dict[str, Any]
) -> None:
    echo.answer = (200, JSON, told)
    content = client.send("POST", "/").json(dict)
    assert content == taken
    with sqlite3.connect(":memory:") as db:
        stored = json.dumps(content, allow_nan=False)
        assert db.execute("SELECT json_valid(?)", [stored]).fetchone() == (1,)
        db.execute("SELECT ?", [stored])


def test_no_control_character_of_a_server_is_in_a_reason(echo: Echo, client: HttpClient) -> None:
    echo.answer = (200, {"Content-Type": "text/\x1b]0;owned\x07" + "x" * 300}, b"{}")
    with pytest.raises(Unreachable) as caught:
        client.send("POST", "/").json(dict)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
    echo.answer = (302, {"Location": "http://a\x1b[2J" + "b" * 300 + "/"}, b"")
    with pytest.raises(Unreachable) as caught:
        client.send("POST", "/")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("place", ["http://[", "//[::1", "http://]/"])
def test_a_redirect_to_what_is_no_address_is_unreachable(echo: Echo, client: HttpClient, place: str) -> None:
    echo.answer = (302, {"Location": place}, b"")
    with pytest.raises(Unreachable, match="another page"):
        client.send("POST", "/")


@pytest.mark.parametrize("port", ["", ":443", ":8443"])
def test_a_server_that_wants_tls_is_told_as_what_to_write(
    echo: Echo, front: FaultServer, client: HttpClient, port: str
) -> None:
    echo.answer = (301, {"Location": f"https://127.0.0.1{port}/get_token"}, b"")
    with pytest.raises(Unreachable, match=rf"^127\.0\.0\.1:{front.port} takes no .* write https:// instead"):
        client.send("POST", "/get_token")
    echo.answer = (301, {"Location": "https://127.0.0.1.example/get_token"}, b"")
    with pytest.raises(Unreachable, match="captive portal"):
        client.send("POST", "/get_token")


def test_a_redirect_is_never_followed_and_names_where_it_leads(
    front: FaultServer, client: HttpClient
) -> None:
    front.plan("/", "redirect", "redirect here")
    with pytest.raises(
        Unreachable, match=r"redirected to portal\.example: a sign-in page \(captive portal\)"
    ):
        client.send("POST", "/")
    with pytest.raises(Unreachable, match="redirected to another page"):
        client.send("POST", "/")
    assert front.requests == ["/", "/"]
    front.assert_injected()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("endless", "longer than 1048576 bytes"),
        ("endless redirect", "longer than 1048576 bytes"),
        ("gzip bomb", "longer than 1048576 bytes"),
    ],
)
def test_no_answer_fills_the_memory(front: FaultServer, client: HttpClient, fault: str, reason: str) -> None:
    front.plan("/", fault)
    with pytest.raises(Unreachable, match=reason):
        client.send("POST", "/", largest=2**20)
    front.assert_injected()


def test_a_compressed_answer_is_unpacked_and_a_broken_one_is_no_answer(
    front: FaultServer, echo: Echo, client: HttpClient
) -> None:
    import gzip

    packed = gzip.compress(b'{"a": 1}')
    echo.answer = (200, {**JSON, "Content-Encoding": "gzip"}, packed)
    assert client.send("POST", "/").json(dict) == {"a": 1}
    echo.answer = (200, {**JSON, "Content-Encoding": "gzip"}, packed[:-9])
    with pytest.raises(Unreachable):
        client.send("POST", "/")
    front.plan("/", "broken gzip")
    with pytest.raises(Unreachable):
        client.send("POST", "/")


@pytest.mark.parametrize(
    ("fault", "wait"), [("429", 7), ("503 until", 90), ("503", 0), ("429 for a century", 86400)]
)
def test_a_server_may_ask_us_to_come_later(
    front: FaultServer, client: HttpClient, fault: str, wait: float
) -> None:
    front.plan("/", fault)
    with pytest.raises(Unreachable, match="come later") as caught:
        client.send("POST", "/")
    assert caught.value.wait == wait
    front.assert_injected()


@pytest.mark.parametrize("text", ["-5", "soon", "1e9", "Tue, 99 Foo 2013", "\N{SUPERSCRIPT TWO}", ""])
def test_a_strange_retry_after_is_no_wait(echo: Echo, client: HttpClient, text: str) -> None:
    echo.answer = (429, {**HTML, "Retry-After": text.encode("utf-8").decode("latin-1")}, b"")
    with pytest.raises(Unreachable) as caught:
        client.send("POST", "/")
    assert caught.value.wait == 0


# --- How failures read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut before body", "cut in body", "cut after body", "truncated"])
def test_a_cut_connection_is_no_answer(front: FaultServer, client: HttpClient, fault: str) -> None:
    front.plan("/", fault)
    with pytest.raises(Unreachable, match="the connection was cut"):
        client.send("POST", "/", b"x" * 5_000_000 if fault == "cut in body" else b"x" * 5000)
    front.assert_injected()
    assert client.send("POST", "/").status == 200


def test_what_is_large_is_read_as_it_comes(front: FaultServer, echo: Echo, client: HttpClient) -> None:
    content = bytes(range(256)) * 4000
    echo.answer = (200, {"Content-Type": "image/png", "ETag": "x"}, content)
    echo.methods = ("GET",)
    with client.fetch("/big?signature=1", deadline=60, largest=2_000_000) as (answer, pieces):
        assert (answer.status, answer.kind, answer.body, answer.headers["etag"]) == (
            200,
            "image/png",
            b"",
            "x",
        )
        assert b"".join(pieces) == content
    assert front.headers[0]["Accept-Encoding"] == "identity"
    with (
        pytest.raises(Unreachable, match="longer than"),
        client.fetch("/big", deadline=60, largest=1000) as (_, pieces),
    ):
        b"".join(pieces)


@pytest.mark.parametrize(
    ("fault", "reason"), [("truncated", "cut"), ("redirect", "captive portal"), ("503", "come later")]
)
def test_what_does_not_come_whole_is_no_answer(
    front: FaultServer, echo: Echo, client: HttpClient, fault: str, reason: str
) -> None:
    echo.answer = (200, {"Content-Type": "image/png"}, b"x" * 100_000)
    echo.methods = ("GET",)
    front.plan("GET /big", fault)
    with (
        pytest.raises(Unreachable, match=reason),
        client.fetch("/big", deadline=60, largest=1_000_000) as (_, pieces),
    ):
        b"".join(pieces)
    front.assert_injected()


def test_the_query_of_an_address_is_in_no_log(client: HttpClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.send("POST", "/upload?signature=very-secret")
    assert "/upload" in caplog.text
    assert "very-secret" not in caplog.text


def test_silence_is_no_answer_in_time(front: FaultServer, time: FakeTime) -> None:
    client = HttpClient(front.url, "x", time, time.sleep, timeout=0.2)
    front.plan("/", "stall")
    with pytest.raises(Unreachable, match="no answer in time"):
        client.send("POST", "/")
    front.assert_injected()


def test_nobody_there_is_refused(front: FaultServer, client: HttpClient) -> None:
    with front.down(), pytest.raises(Unreachable, match="connection refused"):
        client.send("POST", "/")
    assert client.send("POST", "/").status == 200


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100])
def test_something_that_speaks_no_http_is_no_answer(time: FakeTime, answer: bytes) -> None:
    with _Raw(answer) as raw:
        client = HttpClient(raw.url, "x", time, time.sleep)
        with pytest.raises(Unreachable) as caught:
            client.send("POST", "/")
        assert "\n" not in str(caught.value)


def test_https_to_a_server_without_tls_says_so(front: FaultServer, time: FakeTime) -> None:
    client = HttpClient(front.url.replace("http:", "https:"), "x", time, time.sleep)
    with pytest.raises(Unreachable, match="TLS fails"):
        client.send("POST", "/")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (9, "not valid yet: the trap's clock is probably wrong, it says 2026-06-21T"),
        (10, "expired, or the trap's clock is wrong"),
        (
            18,
            "cannot be trusted: self-signed certificate; set ca_file, if the server is yours; else a sign-in",
        ),
        (
            62,
            "that of another server: a sign-in page (captive portal) may be in between: sign in, or use another",
        ),
    ],
)
def test_a_certificate_that_fails_says_whether_the_clock_may_be_to_blame(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.verify_code, inner.verify_message = code, "self-signed certificate"
    outer = requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", inner))  # type: ignore[arg-type]

    def fail(*_: object, **__: object) -> None:
        raise outer

    monkeypatch.setattr(requests.Session, "send", fail)
    with pytest.raises(Unreachable, match="its certificate") as caught:
        client.send("POST", "/", auth=("user", "hunter2"))
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_whom_to_trust_is_not_asked_of_a_file_that_others_can_change(
    front: FaultServer, echo: Echo, time: FakeTime, tmp_path: Path
) -> None:
    """Finding S22, a sibling. It is asked anew for each request: it is put right while the trap runs."""
    authorities = tmp_path / "ca.pem"
    client = HttpClient(front.url, "test", time, time.sleep, authorities=authorities)
    with pytest.raises(Unauthorised, match="ca_file: there is no file"):
        client.send("POST", "/")
    authorities.write_text("")
    authorities.chmod(0o666)
    with pytest.raises(Unauthorised, match="everybody can change"):
        client.send("POST", "/")
    assert not echo.bodies
    authorities.chmod(0o644)
    assert client.send("POST", "/").status == 200
