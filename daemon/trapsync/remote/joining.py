"""Joining a hub: what is asked there with a code, and what its answer makes of the config file.

::

    POST <hub>/join                              an account for this trap, and the code's terms
    GET  <hub>/pushed/device-<device>.settings   with the account: it works

The trap makes the account's password, and keeps it before it asks, in a file that is called after the code: the same code
once more is the same request, which has the same answer. What is written, and in whose name, is `cli.join`'s to say.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

from trapsync import __version__
from trapsync.clock import Clock
from trapsync.destinations import http_service
from trapsync.errors import SettingsError, Unreachable, one_line
from trapsync.files import failpoint
from trapsync.net import foreign_json
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer
from trapsync.net.invitation import Code, Terms, hash_of
from trapsync.net.proxy import proxy_for
from trapsync.remote import document
from trapsync.remote.uplink.http import HttpLink
from trapsync.settings import config_file, editing
from trapsync.settings.config_file import read_secret
from trapsync.settings.layers import OVERRIDE, Files, Key, Texts
from trapsync.settings.schema import Hub

_PATIENCE = 60.0  # seconds of silence
_LARGEST_ANSWER = 64 * 1024  # bytes; a document in a slot is no larger
_LONGEST = 4000  # characters of what a hub answered
_NAMES = ("archive", "hub", *(f"hub-{number}" for number in range(2, 100)))

TOKENS = f"hub-{'[0-9a-f]' * 8}.token"

Change = tuple[Key, Any]
"""A key and its new value; None: a line that is to go."""


class Refusal(SettingsError):
    """The hub does not let this trap join with this code, or what it names is not what the code promises."""


def token_file(source: Path, code: Code) -> Path:
    """Where the password lies that goes with this code: beside the config file."""
    return source.with_name(f"hub-{hashlib.sha256(str(code).encode()).hexdigest()[:8]}.token")


def new_password() -> str:
    """A password that nobody can guess: 256 bits."""
    return secrets.token_urlsafe(32)


def connection(before: Hub, code: Code, device: str, token: Path, authorities: Path | None) -> Hub:
    """The settings of the hub with this account; of those before, the network's stay, and the CA if it is the same hub."""
    if authorities is None and _is_same(before.url, code.hub):
        authorities = before.ca_file
    try:
        return config_file.changed(
            before, url=code.hub, heartbeat_url="", username=device, password_file=token, ca_file=authorities
        )
    except ValueError as error:
        raise SettingsError(f"the code: {error}") from None


def _is_same(url: object, other: str) -> bool:
    return isinstance(url, str) and http_service.identity("", url) == http_service.identity("", other)


# ── The request ──────────────────────────────────────────────────────────────────────────────────────


def ask(hub: Hub, code: Code, name: str, clock: Clock, sleep: Callable[[float], None]) -> str:
    """Have the hub make the account, and see that it works. What it answered, as JSON for `read`.

    Raises Unreachable where it is unknown what the hub did, and SettingsError where the password cannot be read.
    """
    assert hub.password_file
    token = read_secret(hub.password_file, "hub.password_file")
    asked = {"secret": code.secret, "fingerprint": code.fingerprint, "device": hub.username, "name": name}
    asked["token_sha256"] = hash_of(token)
    agent, proxy = f"trapsync/{__version__}", proxy_for(hub.url, hub, "hub")
    client = HttpClient(hub.url, agent, clock, sleep, timeout=_PATIENCE, authorities=hub.ca_file, proxy=proxy)
    with closing(client):
        body = json.dumps(asked).encode()
        answer = client.send("POST", "/join", body, kind="application/json", largest=_LARGEST_ANSWER)
    failpoint.hit("join: asked")
    if answer.status // 100 == 4:
        return json.dumps({"refused": _why(answer)})
    terms = answer.json(dict)
    said = json.dumps({key: terms.get(key) for key in ("keys", "groups", "images")})
    try:
        read(said, code)  # before the password goes there
    except Refusal as error:
        return json.dumps({"refused": str(error)})
    with closing(HttpLink(hub, hub.username, [f"device-{hub.username}.settings"], clock, sleep)) as link:
        link.pull(lambda _document: None)
    return said


def _why(answer: Answer) -> str:
    """The hub's own line; of a server that is none, that it is none."""
    if answer.kind == "text/plain" and answer.status != HTTPStatus.NOT_FOUND:
        return f"{answer.host}: {one_line(answer.body.decode('utf-8', 'replace'), 500)}"
    return f"{answer}, as no hub does; check the address in the code{answer.portal}"


def read(text: str, code: Code) -> Terms:
    """The terms in what `ask` returned. Refusal where there are none, or others than the code promises."""
    try:
        found = foreign_json.decode(text.encode(), _LONGEST, strict=True)
        if why := found.get("refused"):
            raise Refusal(one_line(why, 700))
        terms = Terms(tuple(map(_text, found["keys"])), tuple(map(_text, found["groups"])), found["images"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unreachable(f"{code.hub} answers to a code as no hub does") from None
    if terms.fingerprint() != code.fingerprint:
        raise Refusal(
            f"{code.hub} names other keys or groups than the code: it does not speak for the operator; tell them"
        )
    return terms


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


# ── The config file ──────────────────────────────────────────────────────────────────────────────────


def with_terms(files: Files, hub: Hub, terms: Terms, name: str, *, replace: bool) -> tuple[Texts, str]:
    """The texts of the config with this account and these terms, and the destination that the images go to, "" for none.

    Raises SettingsError where another operator's keys are there, unless `replace`, and where override.toml says otherwise.
    """
    before = set(files.local.remote.keys)
    if before and before != set(terms.keys) and not replace:
        raise SettingsError(
            f"{files.source}: the trap trusts the keys of another operator ({document.key_ids(before)}); "
            "to trust those of this code instead: --replace"
        )
    destination = _destination(files, hub.url) if terms.images else ""
    text = files.texts.config
    for key, value in _changes(files, hub, terms, name, destination):
        above, where = editing.value_at(files.override, key), ".".join(key)
        if above is not None and above != value:
            path = files.source.with_name(OVERRIDE)
            raise SettingsError(f"{path} sets {where} too, and takes precedence; remove it there first")
        if value is not None:
            text = editing.with_value(text, key, value, files.source)
        elif editing.value_at(files.tables, key) is not None:
            text = editing.without_value(text, key, files.source)
    return Texts(text, files.texts.override), destination


def _changes(files: Files, hub: Hub, terms: Terms, name: str, destination: str) -> Iterator[Change]:
    assert hub.password_file
    account: dict[str, Any] = {"username": hub.username, "password_file": hub.password_file.name}
    authorities = str(hub.ca_file) if hub.ca_file else None
    if name:
        yield ("trap", "name"), name
    for key, value in {"url": hub.url, **account, "ca_file": authorities, "heartbeat_url": None}.items():
        yield ("hub", key), value
    yield ("remote", "enabled"), bool(terms.keys)
    yield ("remote", "keys"), list(terms.keys)
    yield ("remote", "groups"), list(terms.groups)
    if destination:
        for key, value in {"kind": "stickypi", "url": hub.url, **account, "ca_file": authorities}.items():
            yield ("destinations", destination, key), value


def _destination(files: Files, url: str) -> str:
    """The destination that is this hub already, else a name that is free."""
    there = files.local.destinations
    for name, table in there.items():
        if isinstance(table, dict) and table.get("kind") == "stickypi" and _is_same(table.get("url"), url):
            return name
    return next(name for name in _NAMES if name not in there)
