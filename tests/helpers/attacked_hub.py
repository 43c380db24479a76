"""Attacks on the hub: tokens and addresses that were changed or are used for each other, and ways out of its folder.

Each function attacks so often as it is told, from a `random.Random`, and returns what was seen in a few words. An
attack that succeeds is an AssertionError.
"""

import base64
import http.client
import random
import string
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

import requests

import drawings
import hub_server
from fake_time import FakeTime
from trapsync.hub.accounts import TOKEN_LIFE, Accounts
from trapsync.hub.database import Database
from trapsync.hub.links import Links

_URL_SAFE = f"{string.ascii_letters}{string.digits}-_."
_DAY = 86400.0


class _Desk:
    """The accounts and addresses of a hub without its server, and a clock that is moved."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.clock = FakeTime()
        self.database = Database(folder / "hub.sqlite")
        self.accounts = Accounts(self.database, self.clock)
        self.links = Links(self.database, self.clock)
        self.accounts.add("trap", hub_server.PASSWORD, "manager")
        user = self.accounts.named("trap")
        assert user
        self.user = user
        self.token = self.accounts.token(user)[0]
        self.link = self.links.sign(1, "image", user)

    def knows(self, token: str) -> bool:
        """Whether it lets this token in."""
        return self.accounts.recognise(token, "") is not None


def altered_tokens(count: int, chance: random.Random, folder: Path) -> str:
    """Tokens, and addresses of images, with something changed: none is taken, but for the same bytes in another spelling."""
    desk, spellings = _Desk(folder / "altered"), 0
    doors = (desk.token, desk.knows), (desk.link, lambda link: desk.links.read(link) is not None)
    # Where a token is none it may be a name with a password, and to look at that takes a tenth of a second each.
    with patch("trapsync.hub.accounts.check_password_hash", return_value=False):
        for number in range(count):
            genuine, is_taken = doors[number % 4 == 0]
            other = _altered(chance, genuine)
            if other != genuine and is_taken(other):
                assert _bytes(other) == _bytes(genuine), other
                spellings += 1
    desk.database.close()
    return f"0 taken ({spellings} were the same bytes in another spelling)"


def _altered(chance: random.Random, text: str) -> str:
    at, letters = chance.randrange(len(text)), list(text)
    match chance.randrange(7):
        case 0:
            letters[at] = chance.choice(_URL_SAFE)
        case 1:
            letters[-1] = chance.choice(_URL_SAFE)
        case 2:
            del letters[at : at + chance.choice((1, 1, 9))]
        case 3:
            letters[at:at] = chance.choices(_URL_SAFE, k=chance.choice((1, 2, 40)))
        case 4:
            letters[at] = chance.choice(("\0", " ", "\n", "=", "%", "é", "\U0001f98b", "\u0660"))
        case 5:
            parts = text.split(".")
            chance.shuffle(parts)
            return ".".join(parts)
        case _:
            payload, _, rest = text.partition(".")
            return f"{base64.urlsafe_b64encode(chance.randbytes(40)).decode().rstrip('=')}.{rest or payload}"
    return "".join(letters)


def _bytes(signed: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in signed.split(".")]


def tokens_out_of_place(folder: Path) -> str:
    """A token as an address, an address as a token, a token a day later, from the future, and after a new password."""
    desk = _Desk(folder / "out-of-place")
    assert desk.knows(desk.token)
    assert desk.links.read(desk.link) == (1, "image")
    assert not desk.knows(desk.link)
    assert desk.links.read(desk.token) is None
    desk.clock.sleep(TOKEN_LIFE + 1)
    assert not desk.knows(desk.token)
    assert desk.knows(desk.accounts.token(desk.user)[0])
    ahead = FakeTime(desk.clock.wall() + 30 * _DAY)
    assert not desk.knows(Accounts(desk.database, ahead).token(desk.user)[0])
    before = desk.accounts.token(desk.user)[0]
    desk.accounts.add("trap", "a new password", "manager")
    assert not desk.knows(before)
    assert desk.links.read(desk.link) is None
    desk.database.close()
    return "6 refused"


# ── Out of its folder ────────────────────────────────────────────────────────────────────────────────

_UP = (
    "../../../x",
    "..%2f..%2fx",
    "%2e%2e/%2e%2e/x",
    "..\\..\\x",
    "/etc/passwd",
    "//etc/passwd",
    "....//....//x",
    ".%00./x",
    "\0",
)
_NAME = f"{drawings.DEVICE}.2026-06-20_20-19-15.jpg"


def out_of_the_folder(folder: Path) -> str:
    """Names of parts, files, slots, devices and images that lead elsewhere: nothing is read or written there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x").write_text("the secret of somebody else")
    tried = Counter[int]()
    with hub_server.running(folder / "a" / "hub") as hub:
        assert hub.upload(_NAME, drawings.trap()).status_code == 200
        user = hub.hub.accounts.named("trap")
        assert user
        for up in _UP:
            for path, method in (
                (f"/pushed/{up}", "GET"),
                (f"/pushed/{up}.settings", "PUT"),
                (f"/pushed/device-{up}.settings", "PUT"),
                (f"/heartbeats/{up}", "POST"),
                (f"/heartbeats/{up}", "GET"),
                (f"/image/{up}", "GET"),
                (f"/image/{up}?signed={hub.hub.links.sign(1, 'image', user)}", "GET"),
            ):
                status, body = _raw(hub, method, path)
                assert b"secret of somebody" not in body, path
                assert b"root:" not in body, path
                assert status in {200, 308, 400, 403, 404, 405, 413, 500}, (path, status)
                # The image that was signed, whatever its name; or no heartbeats of a device that there is not.
                assert status != 200 or body in (drawings.trap(), b"[]\n"), (path, body[:200])
                tried[status] += 1
            name = f"{up}/{_NAME}".replace("\0", "")
            for part, file in (
                (name, _NAME),
                (_NAME, name),
                (f"{up}.2026-06-20_20-19-15.jpg".replace("\0", ""), _NAME),
            ):
                answer = requests.post(
                    f"{hub.url}/_put_new_images",
                    files={part: (file, drawings.trap(seed=2), "image/jpeg")},
                    auth=hub.auth(),
                    timeout=30,
                )
                tried[answer.status_code] += 1
            question = [{"device": up, "datetime": "2026-06-20T20:19:15Z"}]
            tried[hub.ask("get_images/image", question).status_code] += 1
        _require_inside(folder, hub.folder)
        assert set(hub.stored()) <= {_NAME}
    codes = ", ".join(f"{number} × {status}" for status, number in sorted(tried.items()))
    return f"{tried.total()} tried ({codes})"


def _raw(hub: hub_server.RunningHub, method: str, path: str) -> tuple[int, bytes]:
    """Ask for a path as it is written, which libraries tidy up first."""
    token = base64.b64encode(":".join(hub.auth("owner")).encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
    try:
        target = path.replace("\\", "%5c").replace("\0", "%00")
        connection.request(method, target, body=b"{}", headers={"Authorization": f"Basic {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _require_inside(folder: Path, hub: Path) -> None:
    outside = [one for one in folder.rglob("*") if hub not in (one, *one.parents) and one != hub.parent]
    assert outside == [folder / "x"], outside
    images = [one for one in (hub / "images").rglob("*") if one.is_file()]
    assert [one.relative_to(hub / "images").parts[0] for one in images] == [drawings.DEVICE] * len(images)


# ── Uploads ──────────────────────────────────────────────────────────────────────────────────────────


def overwriting(folder: Path) -> str:
    """Twelve different images at once for one second: one is stored, ten of the others lie aside."""
    with hub_server.running(folder / "overwriting") as hub, ThreadPoolExecutor(12) as pool:
        hub.auth()
        contents = [drawings.trap(seed=number) for number in range(12)]
        statuses = list(pool.map(lambda content: hub.upload(_NAME, content).status_code, contents))
        assert sorted(statuses) == [200, *[500] * 11]
        (row,) = hub.rows()
        assert hub.store.path(row).read_bytes() == contents[statuses.index(200)]
        aside = list(hub.store.conflicts.rglob("*.jpg"))
        others = {one for one in contents if one != contents[statuses.index(200)]}
        assert {one.read_bytes() for one in aside} < others
        assert len(aside) == 10
    return f"1 stored, {len(aside)} aside"


def odd_bodies(size: int, folder: Path) -> str:
    """1,500 parts, a field of 3 MB, a large file that is no JPEG, another MD5, the end of a line in a slot: none stays."""
    with hub_server.running(folder / "bodies") as hub:
        many = {f"{n}.2026-06-20_20-19-15.jpg": ("x", b"x", "image/jpeg") for n in range(1500)}
        large = {_NAME: (_NAME, b"no JPEG at all" * (size // 14), "image/jpeg")}
        good = {_NAME: (_NAME, drawings.trap(), "image/jpeg")}
        asked: list[tuple[dict[str, tuple[str, bytes, str]], dict[str, str]]] = [
            (many, {}),
            (good, {"note": "x" * 3 * 10**6}),
            (large, {}),
            (good, {f"{_NAME}.md5": "0" * 32}),
        ]
        statuses = []
        for files, fields in asked:
            with suppress(requests.ConnectionError):  # it may hang up before all has come
                answer = requests.post(
                    f"{hub.url}/_put_new_images", files=files, data=fields, auth=hub.auth(), timeout=60
                )
                statuses.append(answer.status_code)
        slot = quote("all.settings\r\nX-Evil: 1", safe="")
        statuses.append(_raw(hub, "PUT", f"/pushed/{slot}")[0])
        assert not {200} & set(statuses), statuses
        assert hub.rows() == []
        assert [one for one in (hub.folder / "images").rglob("*") if one.is_file()] == []
    return f"answered {statuses}"
