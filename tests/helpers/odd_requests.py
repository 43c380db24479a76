"""Whatever an account can send to a hub, made up by chance: any JSON, forms, headers, paths, questions and lengths.

Each request is sent as it is written, by a socket. Looked at from outside: a status that is documented, JSON or one line
of text, no traceback in the log, and a hub that goes on.
"""

import base64
import hashlib
import http.client
import json
import logging
import random
import re
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote_plus

import drawings
import hub_server
from trapsync.hub.app import Hub, make_app
from trapsync.hub.links import What
from trapsync.hub.sessions import COOKIE, Session
from trapsync.net.invitation import Code, Terms

# What hub/README.md, the Sticky Pi protocol and HTTP itself know.
_STATUSES = {
    200,
    206,
    303,
    304,
    308,
    400,
    401,
    403,
    404,
    405,
    409,
    411,
    412,
    413,
    415,
    416,
    417,
    429,
    431,
    500,
    501,
    503,
}
_DEVICE, _NAME, _MOMENT = drawings.DEVICE, drawings.NAME, "2026-06-21T20:19:15Z"
_KEY = "ed25519:yG0BrYsvtpSyL/YOPJ2eftkNtWBHcrdEUNQJE7mpy68="
_RANGE = [{"device": "%", "start_datetime": "2026-06-21", "end_datetime": "2026-06-22"}]
_IMAGE = [{"device": _DEVICE, "datetime": _MOMENT}]
_ABOUT = {"algo_name": "a", "algo_version": "1", "device": _DEVICE, "datetime": _MOMENT, "md5": "0" * 32}

_IN_FORM = b"form=?"  # in the place of a token
# Method, path and a body that fits, of every endpoint.
ENDPOINTS: list[tuple[str, str, object]] = [
    ("POST", "/get_token", None),
    ("POST", "/get_images/metadata", _IMAGE),
    ("POST", "/get_images/thumbnail", _IMAGE),
    ("POST", "/get_image_series/image", _RANGE),
    ("POST", "/_put_new_images", b""),
    ("POST", "/delete_images", _IMAGE),
    ("POST", "/put_uid_annotations", [{"annotations": [{"contour": [[1, 2]]}], "metadata": _ABOUT}]),
    ("POST", "/get_uid_annotations/data", _IMAGE),
    ("POST", "/get_uid_annotations_series/metadata", _RANGE),
    ("GET", "/pushed/all.settings", None),
    ("PUT", "/pushed/all.settings", b"trapsync-signed-1 0123456789abcdef " + b"0" * 128 + b"\nx"),
    (
        "POST",
        f"/heartbeats/{_DEVICE}",
        {"device": _DEVICE, "battery": 5, "remote": {"groups": ["a"]}, "name": "x"},
    ),
    ("GET", f"/heartbeats/{_DEVICE}", None),
    ("GET", "/fleet", None),
    ("GET", "/metrics", None),
    ("GET", "/effort?from=2026-06-01&until=2026-07-01", None),
    ("POST", f"/reports/{_DEVICE}?since=0", b'["night","2026-06-21",{"schema":1,"night":"2026-06-21"}]\n'),
    ("GET", "/traps", None),
    ("POST", f"/traps/{_DEVICE}/revoke", None),
    ("POST", f"/traps/{_DEVICE}/forget", None),
    ("PUT", f"/traps/{_DEVICE}/groups", {"groups": ["valley"]}),
    ("GET", "/invitations", None),
    (
        "POST",
        "/invitations",
        {"secret_hash": "0" * 64, "until": 1.8e9, "keys": [_KEY], "groups": ["valley"], "uses": 3},
    ),
    ("DELETE", "/invitations/1", None),
    (
        "POST",
        "/join",
        {"secret": "x", "device": "0a5bb6f4", "token_sha256": "0" * 64, "name": "x", "fingerprint": "x"},
    ),
    ("GET", "/image/x?signed=x", None),
    ("GET", "/health", None),
    ("GET", "/", None),
    ("GET", "/login?next=/", None),
    ("POST", "/login", _IN_FORM + b"&name=owner&password=wrong&next=/"),
    ("POST", "/logout", _IN_FORM),
    ("GET", f"/picture/small/{_NAME}", None),
    ("GET", "/assets/style.css", None),
    ("GET", "/map", None),
    ("GET", "/devices", None),
    ("POST", "/devices/invite", _IN_FORM + f"&uses=2&days=7&groups=valley&keys={quote_plus(_KEY)}".encode()),
    ("POST", "/devices/codes/1/withdraw", _IN_FORM),
    ("GET", f"/devices/{_DEVICE}", None),
    ("POST", f"/devices/{_DEVICE}/groups", _IN_FORM + b"&groups=valley"),
    ("GET", f"/devices/{_DEVICE}/forget", None),
    ("POST", f"/devices/{_DEVICE}/revoke", _IN_FORM),
    ("GET", f"/trap/{_DEVICE}?before=2026-06-21&span=all", None),
    ("GET", f"/trap/{_DEVICE}/settings.toml", None),
    ("GET", f"/trap/{_DEVICE}/2026-06-21?after=2026-06-21T20:19:15Z", None),
    ("GET", f"/trap/{_DEVICE}/2026-06-21?image=2026-06-21T20:19:15Z", None),
    ("GET", f"/trap/{_DEVICE}/2026-06-21/images.zip", None),
    ("GET", f"/trap/{_DEVICE}/2026-06-21/camtrap-dp.zip", None),
]
_VALUES = (
    *("null", "true", "-0.0", "1e999", "-1e999", "NaN", "Infinity", "9" * 20, "9" * 5000, "-9223372036854775809"),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u202e\\u001b[2J"', '"%"', '"' + "%_" * 400 + '"'),
    *('"' + "x" * 2000 + '"', "true"),
    *("[]", "{}", "[" * 40 + "]" * 40, '{"a": {"a": [{}]}}', '"2026-06-21T20:19:15Z"', '"9999-99-99T99:99:99Z"', "5"),
    *('"0a1b2c3d"', '"\\""', '"🦋"', "[[1, 2], [3]]", '""', '"2026-06-21_20-19-15"', '["a", 1, null]', "1.8e9", "0"),
)  # fmt: skip
_KINDS = (
    *(
        "application/json",
        "application/json; charset=utf-16",
        "application/json; charset=nothing",
        "text/plain",
        "",
    ),
    *(
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="b',
        "application/\xff",
    ),
    *(
        "multipart/form-data; boundary=b",
        "multipart/mixed; boundary=b",
        "application/x-www-form-urlencoded",
        "/",
        ";" * 99,
    ),
)
_PATHS = (
    *("..", "%2e%2e", "%00", "%ff", "\xff", "x" * 3000, "%0d%0aX:%201", "0a1b2c3d.settings", "9" * 30, "-1"),
    *("?", "//", " "),
)
_QUERIES = ("?signed=%ff", "?signed=", "?" + "a=b&" * 500, "?%00=%ff", "?signed=W10.x", "?signed[]=1", "?;")
_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "X" * 50)
_HEADERS = (
    *(
        "If-Match: \xff",
        "If-None-Match: *",
        'If-Match: "',
        "Range: bytes=5-1",
        "Range: bytes=0-0,2-9",
        "Range: \xff",
    ),
    *(
        "Accept-Encoding: gzip;q=x",
        "Accept-Encoding: \xff",
        "Expect: 200-ok",
        "Content-Encoding: gzip",
        "Cookie: \xff=;",
    ),
    *(
        "X-Forwarded-For: \xff",
        "X-Forwarded-Proto: x",
        "If-Modified-Since: yesterday",
        "Accept: \xff",
        "Content-MD5: x",
    ),
    *(
        "X-HTTP-Method-Override: DELETE",
        "Upgrade: h2c",
        "Transfer-Encoding: gzip",
        "If-Range: x",
        "Host: \xff",
    ),
)


class _Records(logging.Handler):
    """What the log says that it must not."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.bad: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.exc_info or "Traceback" in text or "\n" in record.getMessage():
            self.bad.append(text)


def made_up(count: int, chance: random.Random, folder: Path) -> str:
    """Requests of every role to every endpoint: none is a bare 500, none a traceback, and the hub goes on."""
    logging.disable(logging.NOTSET)
    records, statuses = _Records(), Counter[int | str]()
    logging.getLogger().addHandler(records)
    try:
        with hub_server.running(folder / "made-up") as hub:
            _require_all(hub.hub)
            logins, sessions = _logins(hub), _sessions(hub)
            for number in range(count):
                if number % 100 == 0:
                    _restock(hub)
                    sessions = _sessions(hub)  # some of those before have logged out
                request, is_honest = _request(chance, logins, chance.choice(sessions), hub)
                records.bad.clear()
                status, body, kind = _answer(hub.port, request, 60 if is_honest else 0.3)
                statuses[status or "none"] += 1
                shown = request[:3000]
                assert records.bad == [], (shown, records.bad)
                assert status in _STATUSES or (status == 0 and not is_honest), (status, shown)
                assert status != 500 or b"a bug in the hub" not in body, (body, shown)
                _require_words(status, body, kind, shown)
            _restock(hub)
            assert hub.ask("get_images/metadata", _IMAGE).status_code == 200
    finally:
        logging.getLogger().removeHandler(records)
    return ", ".join(f"{number} × {status}" for status, number in sorted(statuses.items(), key=str))


def _require_all(hub: Hub) -> None:
    """Each endpoint is among those that are tried."""
    app = make_app(hub)
    find = app.url_map.bind("hub").match
    tried = {find(path.partition("?")[0], method)[0] for method, path, _ in ENDPOINTS}
    assert {rule.endpoint for rule in app.url_map.iter_rules()} == tried


def _logins(hub: hub_server.RunningHub) -> list[str]:
    """Of every role, of a trap of its own, and of nobody."""
    code = Code.new(hub.url, Terms(keys=(_KEY,), groups=("valley",), images=True))
    asked = {
        "secret_hash": code.secret_hash,
        "until": hub.hub.enrolment._clock.wall() + 9e4,
        "groups": ["valley"],
    }
    hub.hub.enrolment.invite(json.dumps(asked | {"keys": [_KEY]}).encode(), "owner")
    token = hashlib.sha256(b"token").hexdigest()
    joining = {
        "secret": code.secret,
        "device": "0a5bb6f4",
        "token_sha256": token,
        "fingerprint": code.fingerprint,
    }
    hub.hub.enrolment.join(json.dumps(joining).encode())
    pairs = [":".join(hub.auth(user)) for user in hub_server.USERS] + ["0a5bb6f4:token"]
    logins = [f"Basic {base64.b64encode(pair.encode()).decode()}" for pair in pairs]
    return [
        *logins * 4,
        "",
        "Basic",
        "Basic \xff",
        "Bearer x",
        "Basic /zoA",
    ]


def _sessions(hub: hub_server.RunningHub) -> list[Session]:
    """Of people who are logged in by a browser."""
    users = [hub.hub.accounts.named(name) for name in hub_server.USERS]
    secrets = [hub.hub.sessions.begin(user, "x") for user in users if user]
    return [found for secret in secrets if (found := hub.hub.sessions.find(secret))]


def _restock(hub: hub_server.RunningHub) -> None:
    """Store an image again, which an admin may have deleted."""
    assert hub.upload(_NAME, drawings.trap()).status_code in {200, 500}


def _request(
    chance: random.Random, logins: list[str], session: Session, hub: hub_server.RunningHub
) -> tuple[bytes, bool]:
    """A request as it is sent, and whether its length is true."""
    method, path, fits = chance.choice(ENDPOINTS)
    body, kind = _form(chance) if path == "/_put_new_images" else (_body(chance, fits), "application/json")
    if isinstance(fits, bytes) and _IN_FORM in fits:
        body = body.replace(_IN_FORM, f"form={session.form_token()}".encode())
        kind = "application/x-www-form-urlencoded"
    if chance.random() < 0.1:
        odd = [body[: len(body) // 2], chance.randbytes(300), b"", body * 50, b"\xef\xbb\xbf" + body]
        body = chance.choice(odd)
    if chance.random() < 0.15:
        kind = chance.choice(_KINDS)
    if chance.random() < 0.15:
        method = chance.choice(_METHODS)
    lines = [f"{method} {_path(chance, path, hub)} HTTP/1.{chance.choice('1111110')}"]
    lines += ["Host: hub", "Connection: close"]
    login = chance.choice(logins)
    lines += [f"Cookie: {COOKIE}={session.secret}"] * (chance.random() < 0.7)
    lines += [f"Authorization: {login}"] * bool(login) + [f"Content-Type: {kind}"] * bool(kind)
    lines += chance.sample(_HEADERS, chance.choice([0, 0, 0, 1, 2]))
    length, is_honest = str(len(body)), not {"Transfer-Encoding: gzip", "Expect: 200-ok"} & {*lines}
    if chance.random() < 0.05:
        lengths = [str(len(body) + 9), "0", "-1", "x", "9" * 30, "1e3", "+5", "\xb2"]
        length, is_honest = chance.choice(lengths), False
    lines += [f"Content-Length: {length}"]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body, is_honest


def _body(chance: random.Random, fits: object) -> bytes:
    if fits is None or isinstance(fits, bytes):
        return chance.choice([b"", b"{}", chance.randbytes(99), fits or b""])
    return _json(chance, fits).encode("utf-8", "surrogatepass")


def _path(chance: random.Random, path: str, hub: hub_server.RunningHub) -> str:
    if path.startswith("/image/") and chance.random() < 0.6:
        owner = hub.hub.accounts.named("owner")
        assert owner
        what: What = chance.choice(["image", "thumbnail", "thumbnail-mini"])
        path = f"/image/x?signed={hub.hub.links.sign(chance.choice([1, 2, 9]), what, owner)}"
    if chance.random() < 0.2:
        parts = path.split("/")
        parts[chance.randrange(1, len(parts))] = chance.choice(_PATHS)
        path = "/".join(parts)
    return path + (chance.choice(_QUERIES) if chance.random() < 0.1 else "")


def _json(chance: random.Random, value: object) -> str:
    """JSON like this value, with odd ones in it; surrogates and numbers as nobody's encoder writes them."""
    if chance.random() < 0.08:
        return chance.choice(_VALUES)
    if isinstance(value, dict):
        items = [(json.dumps(key), _json(chance, one)) for key, one in value.items()]
        if chance.random() < 0.1:
            items = items[1:] if chance.random() < 0.5 else [*items, *items]
        return "{" + ", ".join(f"{key}: {one}" for key, one in items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_json(chance, one) for one in value * chance.choice([1, 1, 1, 0, 3, 30])) + "]"
    return json.dumps(value)


def _form(chance: random.Random) -> tuple[bytes, str]:
    """An upload, of which names, heads and ends are odd."""
    content = chance.choice(
        [drawings.trap(), drawings.trap()[:-200], b"", b"\xff\xd8\xff", chance.randbytes(500)]
    )
    names = [
        _NAME,
        f"{_DEVICE}.2026-06-21_20-{chance.randrange(60):02}-15.jpg",
        f"../{_NAME}",
        "x",
        "",
        "\xff.\xfe",
        "\0",
    ]
    names += [
        f"{_DEVICE}.9999-12-31_23-59-59.jpg",
        f"{_DEVICE}.2026-02-31_00-00-00.jpg",
        "a" * 3000,
        f"{_NAME}\u202e",
        '"',
    ]
    name = chance.choice([names[0], names[1], *names])
    file = chance.choice(
        [f'; filename="{name}"', '; filename=""', "", '; filename="\xff', "; filename*=utf-8''%ff"]
    )
    parts = [(f'form-data; name="{name}"{file}', content)]
    if chance.random() < 0.6:
        md5 = chance.choice([hashlib.md5(content).hexdigest().encode(), b"x", b"\xff\x00", b"", b"0" * 3000])
        parts.append((f'form-data; name="{name}.md5"', md5))
    parts += [parts[0]] * chance.choice([0, 0, 0, 1, 120])
    end = chance.choice([b"--b--\r\n", b"--b--\r\n", b"--b--\r\n", b"--b\r\n", b""])
    body = b"".join(
        b"--b\r\nContent-Disposition: " + head.encode("latin-1", "replace") + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + end, "multipart/form-data; boundary=b"


def _answer(port: int, request: bytes, seconds: float) -> tuple[int, bytes, str]:
    """Status, body and kind of an answer; status 0 where none comes so soon."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with suppress(OSError):
            connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=request.partition(b" ")[0].decode())
        try:
            answer.begin()
            return answer.status, answer.read(), answer.headers.get("Content-Type", "")
        except (OSError, http.client.HTTPException):
            return 0, b"", ""


def _require_words(status: int, body: bytes, kind: str, shown: bytes) -> None:
    """What says why is JSON, one line, or a page with one."""
    if status < 400 or not body:
        return
    if status == 412 and not kind.startswith("text/"):
        return  # the document itself, which is another one than the asked for
    assert kind.startswith(("application/json", "text/plain", "text/html")), (kind, shown)
    assert len(body) < 4000, (body, shown)
    text = body.decode()
    if kind.startswith("text/html") and "<p" in text:
        reason = text[max(0, text.find("<main")) :].partition("<p")[2].partition("</p>")[0]
        text = re.sub(r"<[^>]*>", "", f"<p{reason}")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1 or (len(lines) == 3 and "trapsync-hub" in lines[2]), (
        text,
        shown,
    )  # waitress's own
