"""Attacks on signed documents: altered ones, signatures that only a lax reader takes, and bodies of every kind.

Each function attacks so often as it is told, from a `random.Random`, and returns what was seen in a few words. An
attack that succeeds is an AssertionError.
"""

import io
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawings
import signed
from fake_time import FakeTime
from signed import OWNER, STRANGER
from trapsync.errors import RefusedDocument, SettingsError
from trapsync.remote import document
from trapsync.remote.document import PrivateKey, PublicKey
from trapsync.remote.in_force import lay, report
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings.layers import Files
from trapsync.settings.schema import Settings

NOW = signed.ISSUED.timestamp() + 3600
OTHER = PrivateKey(b"p" * 32)  # the second key that a trap may trust
TABLES = {"capture": {"every": "5 min"}, "camera": {"gain": 2.0}}


def code_of(attempt: Callable[[], object]) -> str:
    """The code with which something is refused; "" where it is not."""
    try:
        attempt()
    except RefusedDocument as refused:
        return refused.code
    return ""


# ── Altered ──────────────────────────────────────────────────────────────────────────────────────────


def altered(count: int, chance: random.Random) -> str:
    """Documents with something changed, cut, put in or behind, or with the first line of another: none is verified."""
    genuine = [
        signed.settings(1, {}),
        signed.settings(2, TABLES),
        signed.settings(3, TABLES, OTHER),
        document.sign(document.compose(replace(signed.DOCUMENT, note="x" * 900)), OWNER),
    ]
    trusted = [OWNER.public, OTHER.public]
    seen = Counter[str]()
    while seen.total() < count:
        data = _altered(chance, genuine)
        if data not in genuine:
            seen[code_of(lambda data=data: document.verify(data, trusted))] += 1  # type: ignore[misc]
    assert not seen.pop("", 0), "an altered document was verified"
    return ", ".join(f"{number} {code}" for code, number in seen.most_common())


def _altered(chance: random.Random, genuine: Sequence[bytes]) -> bytes:
    data = bytearray(chance.choice(genuine))
    at, line = chance.randrange(len(data)), data.index(b"\n") + 1
    match chance.randrange(9):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2:
            del data[at : at + chance.choice((1, 1, 2, 64, len(data)))]
        case 3:
            data[at:at] = chance.randbytes(chance.choice((1, 1, 3, 700)))
        case 4:
            data += chance.choice((b"\n", b" ", b"\0", b"# x", chance.randbytes(8)))
        case 5:  # the first line of one, the body of another
            data[:line] = chance.choice(genuine).partition(b"\n")[0] + b"\n"
        case 6:  # the signature under another key, a stranger's too
            data[18:34] = chance.choice((OWNER, OTHER, STRANGER)).public.id.encode()
        case 7:  # in the signature alone
            data[35 + chance.randrange(128)] = ord(chance.choice("0123456789abcdefABCDEF"))
        case _:
            data[line:] = chance.choice((b"", bytes(data[line:]) * 2, bytes(reversed(data[line:]))))
    return bytes(data)


# ── What only a lax reader of Ed25519 takes ──────────────────────────────────────────────────────────

_ORDER = 2**252 + 27742317777372353535851937790883648493
_PRIME = 2**255 - 19
_EIGHTH = (
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
)
# The points of order 1, 2, 4 and 8 by their y, each with and without its sign; the last two are 0 and 1 written otherwise.
_SMALL = (1, _PRIME - 1, 0, *_EIGHTH, _PRIME, _PRIME + 1)
_SIGN = 1 << 255


def small_order() -> list[bytes]:
    """Keys to which a lax reader finds signatures without their private half, in every spelling."""
    return [(y | sign).to_bytes(32, "little") for y in _SMALL for sign in (0, _SIGN)]


def not_canonical() -> list[bytes]:
    """All other spellings of a y beyond the prime, which strict readers refuse as such."""
    return [(_PRIME + k | sign).to_bytes(32, "little") for k in range(2, 19) for sign in (0, _SIGN)]


def lax() -> str:
    """The same signature with S + kL; keys of small order, and such that are not canonical, with each such R."""
    body = document.compose(signed.DOCUMENT)
    genuine = document.sign(body, OWNER)
    line = genuine.partition(b"\n")[0]
    signature = bytes.fromhex(line.split(b" ")[2].decode())
    first, second = signature[:32], int.from_bytes(signature[32:], "little")
    assert document.verify(genuine, [OWNER.public]) == body
    more = [second + k * _ORDER for k in range(1, 9)]
    for other in more:
        forged = _with(OWNER.public, first + other.to_bytes(32, "little"), body)
        assert code_of(lambda forged=forged: document.verify(forged, [OWNER.public])) == "signature"  # type: ignore[misc]
    odd, tried = [*small_order(), *not_canonical()], 0
    for raw in odd:
        key = PublicKey(raw)
        for commitment in odd:
            for scalar in (0, 1, _ORDER):
                forged = _with(key, commitment + scalar.to_bytes(32, "little"), body)
                assert code_of(lambda forged=forged, key=key: document.verify(forged, [key])) == "signature"  # type: ignore[misc]
                tried += 1
    return f"{len(more)} S + kL, and {tried} signatures of {len(odd)} odd keys"


def _with(key: PublicKey, signature: bytes, body: bytes) -> bytes:
    return b"trapsync-signed-1 %s %s\n" % (key.id.encode(), signature.hex().encode()) + body


# ── Signed, and odd ──────────────────────────────────────────────────────────────────────────────────

# What may stand behind an equals sign, each between two of these: ~
_VALUES = (
    """1 ~ 0 ~ -1 ~ 1180591620717411303424 ~ -1180591620717411303424 ~ 9007199254740992 ~ 1e400 ~ -1e400 ~ nan ~ -inf
~ +inf ~ 0x7f ~ true ~ false ~ "" ~ "x" ~ '\u202egpj' ~ "\\u0000" ~ "\\uFFFF" ~ "\\U0010FFFF" ~ "\u2028\u2066" ~ []
~ [[[[[[[[[[1]]]]]]]]]] ~ {} ~ {a={a={a={a={a={a={a={a={a={a=1}}}}}}}}}} ~ [1, 'a', {}] ~ [nan] ~ 2026-06-21T20:00:00Z
~ 2026-06-21T20:00:00 ~ 2026-06-21 ~ 20:00:00 ~ 9999-12-31T23:59:59Z ~ 0001-01-01T00:00:00Z ~ 2026-06-21T20:00:00+23:59
~ 2026-06-22T20:00:00.999999Z ~ "5 min" ~ "1 s" ~ "0 s" ~ "10 ms" ~ "9999999 days" ~ "1e9 h" ~ "-5 min" ~ "5 MIN"
~ "٥ min" ~ "auto" ~ ["21:00 - 05:00"] ~ ["21:00 - 21:00"] ~ ["00:00-24:00"] ~ ["sunset - sunrise"]
~ ["sunset+900h - 1:00"] ~ ["25:61 - 99:99"] ~ ["sunrise-1h - sunrise+1h", "12:00 - 13:00"] ~ ["\u202e21:00 - 05:00"]
~ [0.0, 0.0, 1.0, 1.0] ~ [0.9, 0.9, 0.9, 0.9] ~ [4056, 3040] ~ [2028, 1520] ~ [1, 1] ~ [99999, 99999] ~ "/etc/passwd"
~ "../../x" ~ "http://evil.example" ~ "$(reboot)" ~ "1 GB" ~ "1 B" ~ "2 kB" ~ "1e300 GB" ~ "device:0a1b2c3d"
~ "group:valley" ~ "all" ~ "device:ffffffff" ~ "settings" ~ "resend" ~ "keys"
""".strip()
    .replace("\n~", " ~")
    .split(" ~ ")
)
_KEYS = (
    *("capture.every", "capture.schedule", "capture.format", "camera.exposure", "camera.gain", "camera.zoom"),
    *(
        "camera.resolution",
        "camera.quality",
        "camera.rotation",
        "camera.white_balance",
        "camera.lens_position",
    ),
    *("prune.min_age", "prune.keep_free", "prune.enabled", "ingest.thumbnails", "warnings.battery"),
    *("destinations.stick.every", "destinations.stick.bandwidth", "destinations.stick.retry_max"),
    *("destinations.stick.path", "destinations.stick.kind", "destinations.other.every", "destinations"),
    *(
        "hub.url",
        "remote.keys",
        "remote.enabled",
        "storage.spool",
        "camera.reboot",
        "sensors.battery_command",
    ),
    *("capture", "camera", "trap.clock", "x", '"a b"', '"\\u202e"', "__proto__", "destinations.stick"),
)
_GOOD = (
    *(
        'capture.every = "5 min"',
        'capture.schedule = ["21:00 - 05:00"]',
        "camera.gain = 2.0",
        "camera.quality = 80",
    ),
    *("camera.zoom = [0.1, 0.1, 0.6, 0.6]", 'camera.exposure = "10 ms"', 'prune.min_age = "90 days"'),
    *(
        'destinations.stick.every = "10 min"',
        'destinations.stick.bandwidth = "1 MB"',
        "ingest.thumbnails = false",
    ),
)
_HEAD = ("schema", "kind", "to", "epoch", "version", "issued", "expires", "note")


def _entry(chance: random.Random) -> str:
    """A line of the settings: as a trap takes it, or another value there, or another key."""
    good, odd = chance.choice(_GOOD), chance.choice(_VALUES)
    other = f"{good.partition(' = ')[0]} = {odd}"
    return f"settings.{chance.choice((good, good, other, f'{chance.choice(_KEYS)} = {odd}'))}"


class _Target:
    """A trap that takes remote settings, and the next number that is new to it."""

    def __init__(self, folder: Path) -> None:
        self.source = signed.prepare(folder)
        self.files = Files(self.source)
        self.remote = RemoteSettings(self.files, FakeTime(NOW))
        self.version = 0

    def body(self, chance: random.Random) -> bytes:
        """A body that is valid but for one thing or a few, or for some of its bytes."""
        self.version += 1
        lines = {
            "schema": "1",
            "kind": '"settings"',
            "to": f'"device:{drawings.DEVICE}"',
            "epoch": "0",
            "version": str(self.version),
            "issued": "2026-06-21T20:00:00Z",
            "expires": "2027-06-21T20:00:00Z",
        }
        for key in chance.choices(_HEAD, k=chance.choice((0, 0, 0, 0, 0, 1, 1, 2))):
            lines[key] = chance.choice(_VALUES)
        if chance.random() < 0.05:
            del lines[chance.choice(sorted(lines))]
        if chance.random() < 0.05:
            lines[chance.choice(("x", "settings", "resend", "keys", "key"))] = chance.choice(_VALUES)
        entries = [_entry(chance) for _ in range(chance.choice((1, 1, 1, 2, 9)))]
        other = chance.random()
        if other < 0.1:
            moments = ("2026-06-20T20:00:00Z", "2026-06-21T20:00:00Z", chance.choice(_VALUES))
            lines["kind"] = '"resend"'
            entries = [f"resend.{key} = {moments[chance.randrange(3)]}" for key in ("from", "until")]
        elif other < 0.2:
            ids = (
                f"['{STRANGER.public.id}']",
                f"['{OWNER.public.id}']",
                "[]",
                "['0']",
                chance.choice(_VALUES),
            )
            lines["kind"], lines["to"] = '"keys"', '"all"'
            entries = [f"keys.revoke = {chance.choice(ids)}"]
        text = (
            "\n".join([*(f"{key} = {value}" for key, value in lines.items()), *dict.fromkeys(entries)]) + "\n"
        )
        body = bytearray(text.encode())
        for _ in range(chance.choice((0,) * 12 + (1, 3))):
            body[chance.randrange(len(body))] = chance.choice(
                (chance.randrange(256), chance.randrange(32, 127))
            )
        return bytes(body)

    def own(self) -> list[object]:
        """What no document may change."""
        now = self._in_force()
        places = {name: (table.get("kind"), table.get("path")) for name, table in now.destinations.items()}
        prune = (now.prune.enabled, now.prune.min_age >= self.files.local.prune.min_age)
        return [
            now.trap,
            now.storage,
            now.sensors,
            now.hub,
            now.remote,
            now.camera.reboot,
            now.camera.kind,
            places,
            prune,
        ]

    def _in_force(self) -> Settings:
        return self.remote.begin().settings


def accepted(count: int, chance: random.Random, folder: Path) -> str:
    """Odd bodies that the owner's key signed: no exception, and what is accepted changes nothing that it may not."""
    seen, worst = Counter[str](), 0.0
    for number in range(count):
        if number % 250 == 0:  # what was accepted may have moved the numbers, or the time, as far as they go
            target = _Target(folder / str(number))
            own = target.own()
        data = document.sign(target.body(chance), OWNER)
        began = time.thread_time()
        try:
            outcome = target.remote.accept(data)
        except SettingsError as error:
            raise AssertionError(f"{data!r}: {error}") from error
        worst = max(worst, time.thread_time() - began)
        seen[outcome.code] += 1
        assert outcome.text.isprintable(), outcome.text
        if outcome.is_accepted and outcome.kind == "settings":
            assert target.own() == own, data
            target.remote.roll_back("settings", "the next one")
    assert seen["accepted"], "a reader that refuses everything shows nothing"
    codes = ", ".join(f"{number} {code}" for code, number in seen.most_common())
    return f"at most {worst:.2f} s of CPU for one; {codes}"


FORBIDDEN: dict[str, dict[str, Any]] = {
    "a new destination": {"destinations": {"mine": {"kind": "directory", "path": "/tmp"}}},
    "its path": {"destinations": {"stick": {"path": "/tmp"}}},
    "whether it is required": {"destinations": {"stick": {"required": False}}},
    "the hub": {"hub": {"url": "https://evil.example"}},
    "a reboot": {"camera": {"reboot": False}},
    "pruning": {"prune": {"enabled": True}},
    "pruning sooner": {"prune": {"min_age": "1 s"}},
}


def forbidden(folder: Path) -> str:
    """The seven keys that a taken-over key would want most: each is refused."""
    target = _Target(folder / "forbidden")
    for version, (what, tables) in enumerate(FORBIDDEN.items(), start=1):
        code = target.remote.accept(signed.settings(version, tables)).code
        assert code in {"forbidden", "limits"}, f"{what}: {code}"
    return f"{len(FORBIDDEN)} refused"


def record_that_is_a_link(folder: Path) -> str:
    """A link to a secret in the place of each record: nothing of it is told, and it stays as it is."""
    target = _Target(folder / "link")
    secret = folder / "secret"
    secret.write_text("correct horse battery staple\n")
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logging.getLogger("trapsync").addHandler(handler)
    logging.disable(logging.NOTSET)  # what is told is what this is about
    try:
        state = target.source.parent / "state"
        state.mkdir()
        for name in ("remote_settings.json", "replay_guard.json", "pushed.json"):
            (state / name).symlink_to(secret)
        told.write(json.dumps(report(lay(target.files))))
        told.write(target.remote.accept(signed.settings(1, TABLES)).text)
        told.write(json.dumps(report(lay(target.files))))
    finally:
        logging.getLogger("trapsync").removeHandler(handler)
    assert "horse" not in told.getvalue(), told.getvalue()
    assert secret.read_text() == "correct horse battery staple\n"
    return "nothing told, nothing changed"
