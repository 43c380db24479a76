"""Signed documents: the exact bytes, the keys, and the refusal of whatever is not one."""

import base64
import random
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapsync.errors import RefusedDocument, SettingsError
from trapsync.fleet.operator_key import OperatorKey, keep_secret
from trapsync.remote import document
from trapsync.remote.document import Document, PrivateKey, Resend

OWNER, STRANGER = PrivateKey(b"o" * 32), PrivateKey(b"s" * 32)
NOW = datetime(2026, 6, 21, 20, 0, tzinfo=UTC)
DOCUMENT = Document(
    kind="settings",
    to="group:valley",
    version=7,
    issued=NOW,
    expires=NOW + timedelta(days=30),
    note="moths come at four",
    settings={"capture": {"every": "5 min", "schedule": ["03:00 - 05:00"]}},
)
BODY = document.compose(DOCUMENT)


def code_of(work: Callable[[], object]) -> str:
    """Why it was refused."""
    with pytest.raises(RefusedDocument) as caught:
        work()
    return caught.value.code


def body_code(text: str) -> str:
    """Why a body is refused."""
    return code_of(lambda: document.parse(text.encode()))


# ── What is signed is what is read ───────────────────────────────────────────────────────────────────


def test_what_was_composed_and_signed_is_verified_and_read_back_to_the_same() -> None:
    data = document.sign(BODY, OWNER)
    assert document.verify(data, [STRANGER.public, OWNER.public]) == BODY
    assert document.parse(BODY) == DOCUMENT


def test_a_request_to_send_again_is_read_back_to_the_same() -> None:
    for destination in (None, "home"):
        asked = Resend(NOW - timedelta(days=2), NOW, destination)
        one = replace(DOCUMENT, kind="resend", settings={}, resend=asked, note="")
        assert document.parse(document.compose(one)) == one


def test_the_first_line_is_the_format_that_other_programs_may_rely_on() -> None:
    line, _, body = document.sign(BODY, OWNER).partition(b"\n")
    word, key, signature = line.split(b" ")
    assert (word, key.decode(), body) == (b"trapsync-signed-1", OWNER.public.id, BODY)
    assert len(bytes.fromhex(signature.decode())) == 64


def test_another_implementation_of_ed25519_makes_the_same_signature() -> None:
    # By cryptography 50 (OpenSSL), over b"trapsync signed document 1\0" + b"schema = 1\n", with this seed.
    theirs = (
        "f5a88d68d9cd827163e901c3c6fe2e6424240d48ef70b49d73bd7782b1958c82"
        "8dbfbb650903d2f00bdff7e0787276b4bc531e2d853fcb42e3ada5ef995d9b04"
    )
    line = document.sign(b"schema = 1\n", OWNER).partition(b"\n")[0]
    assert line.decode().split(" ")[2] == theirs


def test_a_signature_without_the_domain_is_none() -> None:
    from nacl.signing import SigningKey

    bare = SigningKey(OWNER.seed).sign(BODY).signature.hex()
    data = f"trapsync-signed-1 {OWNER.public.id} {bare}\n".encode() + BODY
    assert code_of(lambda: document.verify(data, [OWNER.public])) == "signature"


def test_the_body_is_not_looked_at_before_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "parse", lambda _: pytest.fail("it was parsed"))
    rubbish = document.sign(b"a = [[[[", STRANGER)
    assert code_of(lambda: document.verify(rubbish, [OWNER.public])) == "key"


def test_too_large_a_document_is_refused_before_all_else_and_not_signed_either() -> None:
    assert code_of(lambda: document.verify(b"x" * 65537, [])) == "too_large"
    assert code_of(lambda: document.sign(b"x" * 65536, OWNER)) == "too_large"
    largest = document.sign(b"x" * (65536 - len(document.sign(b"", OWNER))), OWNER)
    assert len(largest) == 65536
    assert document.verify(largest, [OWNER.public])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        BODY,
        b"trapsync-signed-2" + document.sign(BODY, OWNER)[17:],
        document.sign(BODY, OWNER).replace(b"\n", b"\r\n", 1),
        b"\xef\xbb\xbf" + document.sign(BODY, OWNER),
        document.sign(BODY, OWNER).replace(b" ", b"  ", 1),
        re.sub(rb"[0-9a-f]{128}", lambda found: found[0].upper(), document.sign(BODY, OWNER)),
        document.sign(BODY, OWNER)[:100],
    ],
)
def test_what_does_not_begin_with_the_line_is_malformed(data: bytes) -> None:
    assert code_of(lambda: document.verify(data, [OWNER.public])) == "malformed"


@given(st.integers(0, 8 * len(document.sign(BODY, OWNER)) - 1))
def test_one_bit_anywhere_makes_it_another_document_and_none_of_the_owners(bit: int) -> None:
    data = bytearray(document.sign(BODY, OWNER))
    data[bit // 8] ^= 1 << bit % 8
    assert code_of(lambda: document.verify(bytes(data), [OWNER.public])) in {"malformed", "key", "signature"}


def test_a_key_that_names_itself_like_the_owners_signs_nothing() -> None:
    forged = document.sign(BODY, STRANGER).replace(STRANGER.public.id.encode(), OWNER.public.id.encode())
    assert code_of(lambda: document.verify(forged, [OWNER.public])) == "signature"


# ── The body ─────────────────────────────────────────────────────────────────────────────────────────

TEXT = BODY.decode()


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        TEXT + 'every = "1 s"',  # a key twice
        TEXT.replace("schema = 1", "schema = 2"),
        TEXT.replace("schema = 1", ""),
        TEXT.replace("schema = 1", "schema = 1\nsurprise = 1"),
        TEXT.replace('"settings"', '"commands"'),
        TEXT.replace('"settings"', '"resend"'),
        TEXT.replace("[settings", "[resend"),
        TEXT.replace("[settings.capture]", "[settings]\ncapture = nan\n[more]"),
        TEXT.replace('"5 min"', "nan"),
        TEXT.replace('"5 min"', "-inf"),
        TEXT.replace('"5 min"', "9" * 400),
        TEXT.replace('"5 min"', "9" * 5000),
        TEXT.replace('"5 min"', "1e300"),
        TEXT.replace('"5 min"', "[" * 20 + "]" * 20),
        TEXT.replace('"5 min"', "[" * 20000 + "]" * 20000),
        TEXT.replace("every", ".".join("a" * 1000)),
        TEXT.replace("group:valley", "group:../valley"),
        TEXT.replace("group:valley", "device:0A1B2C3D"),
        TEXT.replace("group:valley", "everybody"),
        TEXT.replace('"group:valley"', "7"),
        TEXT.replace("version = 7", "version = 0"),
        TEXT.replace("version = 7", "version = true"),
        TEXT.replace("version = 7", "version = 7.0"),
        TEXT.replace("epoch = 0", "epoch = -1"),
        TEXT.replace("2026-06-21 20:00:00+00:00", "2026-06-21 20:00:00"),
        TEXT.replace("2026-06-21 20:00:00+00:00", "2026-06-21 20:00:00+02:00"),
        TEXT.replace("2026-06-21 20:00:00+00:00", "2027-06-21 20:00:00+00:00"),
        TEXT.replace("2026-06-21 20:00:00+00:00", "2026-06-21"),
        TEXT.replace("moths", "moths" * 1000),
        TEXT.replace('kind = "settings"', 'kind = "settings"\nsettings = 3').partition("[settings")[0],
        TEXT.replace("[settings.capture]", "[settings]\n[[settings.capture]]\n[settings.capture.x]\n[settings]"),
    ],
    ids=range(32),
)  # fmt: skip
def test_a_body_that_is_not_exactly_one_is_refused(text: str) -> None:
    assert text != TEXT
    assert body_code(text) == "schema"


def test_a_body_that_is_not_text_is_refused() -> None:
    assert code_of(lambda: document.parse(b"\xff" + BODY)) == "schema"


def test_what_no_trap_would_read_is_not_composed() -> None:
    assert code_of(lambda: document.compose(replace(DOCUMENT, to="valley"))) == "schema"
    assert code_of(lambda: document.compose(replace(DOCUMENT, expires=NOW))) == "schema"


@given(st.binary(max_size=300), st.randoms())
def test_no_rubbish_after_a_good_signature_does_more_than_be_refused(
    rubbish: bytes, chance: random.Random
) -> None:
    at = chance.randrange(len(BODY))
    body = BODY[:at] + rubbish + BODY[at + chance.randrange(50) :]
    with suppress(RefusedDocument):
        assert document.parse(document.verify(document.sign(body, OWNER), [OWNER.public]))


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_pair_of_keys_fits_together_and_is_another_each_time(tmp_path: Path) -> None:
    key = document.new_key()
    keep_secret(tmp_path / "owner.key", f"{key}\n")
    private = OperatorKey.read(tmp_path / "owner.key").private
    assert private == key
    assert document.public_from_text(str(key.public)) == private.public
    assert document.verify(document.sign(b"", private), [private.public]) == b""
    assert document.new_key() != key
    assert str(key) not in repr(private)


def test_a_private_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    path.write_text(str(document.new_key()))
    path.chmod(stat.S_IRUSR | stat.S_IROTH)
    with pytest.raises(SettingsError, match="everybody can read"):
        OperatorKey.read(path)


@pytest.mark.parametrize(
    "text",
    ["", "ed25519:", "ed25519:é", base64.b64encode(b"o" * 32).decode(), f"ed25519:{base64.b64encode(b'o' * 31).decode()}"],
)  # fmt: skip
def test_what_is_no_public_key_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(SettingsError, match=r"remote\.keys: must be a key"):
        document.public_from_text(text)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl", None)
    monkeypatch.delitem(sys.modules, "nacl.signing", raising=False)
    with pytest.raises(SettingsError, match=r"pipx inject trapsync pynacl"):
        document.new_key()
