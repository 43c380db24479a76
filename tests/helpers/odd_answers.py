"""Odd words of a server, drawn from a `random.Random`: legal JSON that nobody expects, documents and heartbeats.

`Between` stands before a real hub and hands out such answers. They are about nothing that is stored: what an answer says of
another image, or of the bytes of an image, is a lie and not odd.
"""

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import signed
from fault_server import Forwarding, Reply
from trapsync.remote import document

OCTETS = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}

# Values as they stand in JSON, or in what Python takes for it.
VALUES = (
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"a\\ud83d"',
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1e-400",
        "-0.0",
    ),
    *(
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "1" * 21,
        "1" * 4000,
        "1" * 5000,
        "0.1e1",
    ),
    *(
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[null]",
        '""',
        '"null"',
        '"\\u0000"',
        '"\\u001b[31mred"',
        '"\\u202egpj"',
    ),
    *(
        '"line\\nline"',
        '"\\r\\n12:00:00 ERROR   x"',
        '"\\ufeff"',
        '"\\u2028"',
        '"' + "x" * 9000 + '"',
        '"\\ufffe"',
        '"\\u0085"',
    ),
    *(
        "[" * 20 + "]" * 20,
        "[" * 40 + "]" * 40,
        *("[" * 5000 + "]" * 5000,) * 3,
        '{"a":' * 20 + "1" + "}" * 20,
    ),
    *(
        '{"id": 1, "id": 2}',
        '[1, "2", {"3": null}]',
        '"0x10"',
        '"2026-02-30T25:61:61Z"',
        '"' + "9" * 32 + '"',
        '"\u2603"',
    ),
)
# Values of what a row says of the image's bytes or name that say nothing, and so contradict nothing.
NOTHING = ("null", "5", "[]", "{}", '""', "true", '"\\ud800"', "NaN", "1e400", '"none"', '"not computed"')
_UNSENDABLE = (
    '""',
    '"\\u2603"',
    '"a\\r\\nX-Injected: 1"',
    '"\\u00e9"',
    '"\\u0000"',
    '"\\u001b[31m"',
    '"' + "x" * 60_000 + '"',
)
# Headers that stand beside a right answer.
HEADERS: tuple[dict[str, str], ...] = (
    {"Set-Cookie": "a=b; Expires=Mon, 01 Jan 0000 00:00:00 GMT"},
    {"Set-Cookie": "=;;;\x1b[31m"},
    {"Date": "Sun, 99 Nov 99999 08:49:37 +9999999"},
    {"Date": ""},
    {"Retry-After": "1e400"},
    {"ETag": "\x1b[31m" + "x" * 3000},
    {"Location": "http://[::1"},
    {"X-Odd": "\xff" * 5000},
    {"Content-Encoding": "identity"},
)
_KEYS = (
    "id",
    "url",
    "device_version",
    "lat",
    "alt",
    "api_user_id",
    "but",
    "bat",
    "datetime_created",
    "nobody's",
    "\ud800",
    "",
)


def heartbeat(chance: random.Random, device: str) -> bytes:
    """A heartbeat as no trap sends it; its device is right more often than not."""
    keys = [
        "name",
        "version",
        "at",
        "every_s",
        "verdict",
        "reasons",
        "newest_image",
        "ledger",
        "disk",
        "clock",
        "remote",
        "battery",
        "refused",
        "capture_failures",
        "not_taken_in",
        "newest_delivery_age_s",
        "schema",
        "odd",
        "x",
    ]
    pairs = [f'"device": "{device}"'] if chance.random() < 0.9 else []
    pairs += [f'"{chance.choice(keys)}": {_short(chance)}' for _ in range(chance.choice((0, 1, 1, 2, 6)))]
    inner = chance.choice(("disk", "newest_image", "ledger", "clock", "remote"))
    of = {
        "disk": "free_bytes days_left",
        "newest_image": "name age_s",
        "ledger": "pending lost",
        "clock": "trusted held",
    }
    for key in of.get(inner, "state version key refused code reason damaged floor groups values").split():
        pairs += [f'"{inner}": {{"{key}": {_short(chance)}}}'] if chance.random() < 0.4 else []
    chance.shuffle(pairs)
    text = "{" + ", ".join(pairs) + "}"
    return chance.choice((b"", b"", b"", b"\xef\xbb\xbf")) + text.encode(errors="surrogatepass")


def _short(chance: random.Random) -> str:
    return chance.choice([value for value in VALUES if len(value) < 3500])


_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "version", "at", "verdict"), str),
    **dict.fromkeys(("every_s", "battery", "refused", "capture_failures", "not_taken_in"), (int, float)),
    **dict.fromkeys(("ledger", "disk", "clock", "remote", "newest_image"), dict),
    "reasons": list,
}


def is_sensible(beat: dict[str, Any]) -> bool:
    """Whether what a hub took for a heartbeat holds what one may hold; not all of it is looked at."""
    known = {key: beat[key] for key in _KINDS if beat.get(key) is not None}
    texts = [value for value in (*known.values(), *known.get("reasons", ())) if isinstance(value, str)]
    return (
        all(isinstance(value, _KINDS[key]) and not isinstance(value, bool) for key, value in known.items())
        and beat.get("verdict") in {None, "ok", "warning", "failing"}
        and all(len(text) <= 1000 for text in texts)
        and "odd" not in known
    )


# ── Documents ────────────────────────────────────────────────────────────────────────────────────────

_BODIES = (
    *(
        "",
        "schema = 1",
        "schema = 1\nkind = 'settings'",
        "kind = 5",
        "\ufeffschema = 1",
        "schema = 1\nkind = 'none'",
    ),
    *(
        "schema = 99\nkind = 'settings'",
        "schema = nan",
        "schema = 1e400",
        "schema = 9223372036854775808",
        "a." * 3000 + "b = 1",
    ),
    *(
        "x = " + "[" * 3000 + "]" * 3000,
        "x = " + "{a = " * 500 + "1" + "}" * 500,
        "x = 9999-12-31T23:59:59Z",
        "x = 0001-01-01",
    ),
)
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"capture": {"every": "0 s"}},
    {"capture": {"every": "\x1b[31m1 min"}},
    {"capture": {"every": float("nan")}},
    {"capture": {"every": 2**62}},
    {"capture": {"\u202eevery": "1 min"}},
    {"capture": [1, 2]},
    {"capture": {"schedule": ["25:00 - 26:00"]}},
    {"destinations": {"\n": {"every": "1 min"}}},
    {"destinations": {"hub": {"url": "http://other.example"}}},
    {"storage": {"min_free": "1 GB"}},
    {"x" * 5000: 1},
    {"camera": {"quality": -(2**63)}},
)


def odd_document(chance: random.Random) -> bytes:
    """A document that no trap accepts: not signed, or signed by its owner and odd."""
    version = chance.choice((1, 2, 0, -1, 2**53, 2**63 - 1))
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: document.sign(chance.choice(_BODIES).encode(), signed.OWNER),
        lambda: document.sign(chance.randbytes(200), signed.OWNER),
        lambda: signed.settings(version, chance.choice(_SETTINGS)),
        lambda: signed.settings(1, {"capture": {"every": "5 min"}}, signed.STRANGER),
        lambda: signed.settings(1, {"capture": {"every": "5 min"}})[:-1] + b"x",
        lambda: b"trapsync-signed-1 " + b"0" * 16 + b" " + b"0" * 128 + b"\n" + chance.randbytes(300),
        lambda: b"trapsync-signed-1 \xff\n\0\x1b[31m",
        lambda: b"trapsync-signed-99999999999999999999 x\n",
        lambda: b"trapsync-signed-1 " + b"x" * 70_000,
    )
    try:
        return chance.choice(makers)()
    except Exception:  # what cannot even be put together
        return b"trapsync-signed-1 "


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────

Change = Callable[[Reply], Reply]


def _objects(body: bytes) -> tuple[list[dict[str, Any]], bool] | None:
    """The objects of an answer, and whether it is a list; None for another shape."""
    content = json.loads(body)
    if isinstance(content, dict):
        return [content], False
    return (content, True) if isinstance(content, list) else None


def _written(pairs: Iterator[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"


def _plain(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, json.dumps(value)) for key, value in one.items()]


Pairs = list[tuple[str, str]]


def _more(_chance: random.Random, one: Pairs, key: str, value: str) -> Pairs:
    """One more key, or another value of one that nobody needs."""
    return [*(pair for pair in one if pair[0] != key), (key, value)]


def _twice(_chance: random.Random, one: Pairs, _key: str, value: str) -> Pairs:
    """Each key twice: the last one counts, for every reader that is known."""
    return [(name, value) for name, _ in one] + one


def _of_nothing(chance: random.Random, one: Pairs, _key: str, _value: str) -> Pairs:
    """What names the image or its bytes says nothing."""
    name = chance.choice(("md5", "datetime", "device", "hash"))
    return [(found, chance.choice(NOTHING) if found == name else value) for found, value in one]


def _in_another_order(_chance: random.Random, one: Pairs, _key: str, _value: str) -> Pairs:
    return one[::-1]


_OF_OBJECTS = {"more": _more, "twice": _twice, "of nothing": _of_nothing, "order": _in_another_order}


def _other(chance: random.Random, what: str, reply: Reply, value: str) -> Reply:
    """Another answer as a whole, or the same one packed oddly."""
    status, headers, body = reply
    text = value.encode(errors="surrogatepass")
    charsets = ("charset=utf-16", "charset=latin-1", 'charset="nobody\'s"', "boundary=x", "")
    answers: dict[str, Callable[[], Reply]] = {
        "instead": lambda: (status, headers, text),
        "headers": lambda: (status, {**headers, **chance.choice(HEADERS)}, body),
        "error": lambda: (chance.choice((500, 502, 418, 204, 201, 400)), headers, text),
        "mark": lambda: (status, headers, b"\xef\xbb\xbf" + body),
        "space": lambda: (status, headers, b" \r\n\t" * 9000 + body + b"\n" * 9000),
        "charset": lambda: (
            status,
            {**headers, "Content-Type": f"Application/JSON; {chance.choice(charsets)}"},
            body,
        ),
    }
    return answers[what]()


def change(chance: random.Random) -> tuple[str, Change]:
    """What it does, and a change of an answer with JSON in it: the same said oddly, or no sense at all."""
    value, key = chance.choice(VALUES), chance.choice(_KEYS)
    what = chance.choice((*_OF_OBJECTS, "beside", "instead", "error", "mark", "space", "charset", "headers"))
    own = random.Random(
        chance.getrandbits(64)
    )  # for it is drawn from when the request comes, in another thread

    def changed(reply: Reply) -> Reply:
        status, headers, body = reply
        is_json = headers.get("Content-Type", "").partition(";")[0] == "application/json"
        found = _objects(body) if status == 200 and is_json else None
        if found is None:
            return reply
        if what not in _OF_OBJECTS and what != "beside":
            return _other(own, what, reply, value)
        objects, is_list = found
        rows = [_plain(one) for one in objects]
        if what in _OF_OBJECTS:
            rows = [_OF_OBJECTS[what](own, one, key, value) for one in rows]
        texts = [_written(iter(one)) for one in rows] + ([value] if is_list and what == "beside" else [])
        text = f"[{', '.join(texts)}]" if is_list else texts[0]
        return status, headers, text.encode(errors="surrogatepass")

    return f"an answer: {what} {key!r}: {value[:60]!r}", changed


class Between(Forwarding):
    """A real hub behind odd answers: each planned one is given to the next request to that path.

    An image whose name is in `refuses` is answered with 413, whatever it is.
    """

    methods = ("POST", "GET")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.refuses: set[str] = set()
        self.given = Counter[str]()
        self._plans: dict[str, deque[Change]] = {}

    def plan(self, path: str, one: Change) -> None:
        """Let one of the next answers to this path be changed so."""
        self._plans.setdefault(path, deque()).append(one)

    def is_planned(self, path: str) -> bool:
        """Whether one of the next answers to this path is to be changed."""
        return bool(self._plans.get(path))

    def clear(self) -> None:
        """Forget what was planned and not given."""
        self._plans = {}

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request as the hub does, and then oddly."""
        method, _, address = path.rpartition(" ")
        if any(name.encode() in body for name in self.refuses):
            return 413, {"Content-Type": "text/html"}, b"<p>no</p>"
        reply = self._ask(method or "POST", address, headers, body)
        # `/pushed/…` and `/heartbeats/…` by what they begin with.
        plan = next((one for begin, one in self._plans.items() if one and address.startswith(begin)), None)
        if plan is None:
            return reply
        self.given[address.split("/")[1]] += 1
        return plan.popleft()(reply)

    def _ask(self, method: str, address: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if method == "POST":
            return super().__call__(address, headers, body)
        import http.client

        connection = http.client.HTTPConnection(self._address, timeout=30)
        passed = {name: headers[name] for name in ("Authorization", "If-None-Match") if name in headers}
        connection.request(method, address, headers=passed)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {name: value for name in ("Content-Type", "ETag") if (value := answer.headers.get(name))}
        return answer.status, kept, content


def document_instead(data: bytes) -> Change:
    """This document, whatever is in the slot."""
    return lambda _reply: (200, OCTETS, data)


def token(chance: random.Random) -> tuple[str, Change]:
    """A token that is none, or that cannot be sent; after an answer that the one before is no longer good."""
    value = chance.choice((*(value for value in VALUES if value[0] != '"'), *_UNSENDABLE))
    text = f'{{"token": {value}, "expiration": {chance.choice(VALUES)}}}'
    return f"a token: {text[:60]!r}", lambda _reply: (200, JSON, text.encode(errors="surrogatepass"))


def no_longer(_reply: Reply) -> Reply:
    """The token is not good any more."""
    return 401, {"Content-Type": "text/html", "WWW-Authenticate": 'Basic realm="x"'}, b"Unauthorized Access"
