"""Traps that join a hub, as their operator sees it: codes, who has joined, who is locked out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec

from trapsync.errors import SettingsError, TrapsyncError, one_line
from trapsync.fleet.connection import HubConnection
from trapsync.net.http_answer import Answer
from trapsync.net.invitation import Code, Terms

_LARGEST_LIST = 4 * 2**20


class _Listed(msgspec.Struct, frozen=True):
    """An entry of a hub's list."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class Joined(_Listed, frozen=True):
    """A trap that the hub knows. `state`: joined, revoked, or shared for one without an account of its own."""

    device: str
    name: str
    state: str
    groups: list[str]
    joined: str | None = None
    ended: str | None = None

    @property
    def called(self) -> str:
        """What people call it, as a clean text."""
        return one_line(self.name, 60) or self.device


class OpenCode(_Listed, frozen=True):
    """A code that can still be used."""

    id: int
    groups: list[str]
    uses: int
    used: int
    until: str

    def __str__(self) -> str:
        """`code 3, group valley: 12 of 30 used, until 2026-12-07T04:00:00Z`."""
        groups = f", {group_names(self.groups)}" if self.groups else ""
        return f"code {self.id}{groups}: {self.used} of {self.uses} used, until {one_line(self.until, 30)}"


@dataclass(frozen=True, slots=True)
class Registry:
    """The traps and codes of one hub."""

    hub: HubConnection

    def invite(self, terms: Terms, *, uses: int, until: datetime) -> tuple[int, Code]:
        """Make a code and give the hub its terms and the hash of its secret; its number there, and the code."""
        code = Code.new(self.hub.name, terms)
        asked = {
            "secret_hash": code.secret_hash,
            "until": until.timestamp(),
            "keys": terms.keys,
            "groups": terms.groups,
            "images": terms.images,
            "uses": uses,
        }
        answer = self._ask("POST", "/invitations", msgspec.json.encode(asked))
        number = answer.json(dict).get("id")
        if not isinstance(number, int):
            raise TrapsyncError(f"{self.hub.name}: it did not confirm the code; is it a hub of this version?")
        return number, code

    def codes(self) -> list[OpenCode]:
        """The codes that can still be used."""
        return self._listed("/invitations", "invitations", OpenCode)

    def withdraw(self, number: int) -> None:
        """Have nobody join with a code from now on."""
        self._ask("DELETE", f"/invitations/{number}")

    def traps(self) -> list[Joined]:
        """The traps that are not forgotten."""
        return self._listed("/traps", "traps", Joined)

    def find(self, text: str) -> Joined:
        """The trap that was meant: by its device or, if only one has it, by its name. Raises SettingsError."""
        known = self.traps()
        found = [trap for trap in known if text == trap.device] or [
            trap for trap in known if text == trap.called
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise SettingsError(
                f"{self.hub.name} knows no trap {one_line(text, 60)}; see: trapsync hub devices"
            )
        which = ", ".join(trap.device for trap in found)
        raise SettingsError(f"{len(found)} traps are called {one_line(text, 60)}: write the device ({which})")

    def end(self, device: str, how: str) -> None:
        """Lock a trap out: `revoke`, or `forget` to show it no more, too."""
        self._ask("POST", f"/traps/{device}/{how}")

    def regroup(self, device: str, groups: Sequence[str]) -> None:
        """Give a trap other groups."""
        self._ask("PUT", f"/traps/{device}/groups", msgspec.json.encode({"groups": groups}))

    def _listed(self, path: str, name: str, kind: type[Any]) -> list[Any]:
        answer = self._ask("GET", path).json(dict)
        try:
            return msgspec.convert(answer.get(name), list[kind])  # type: ignore[valid-type]
        except msgspec.ValidationError as error:
            raise TrapsyncError(
                f"{self.hub.name}: its answer makes no sense: {one_line(error, 100)}"
            ) from None

    def _ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        answer = self.hub.ask(method, path, body, largest=_LARGEST_LIST)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise TrapsyncError(f"{self.hub.name}: {answer.line}")
        if answer.status != HTTPStatus.OK:
            raise TrapsyncError(str(answer))
        return answer


def group_names(groups: Iterable[str]) -> str:
    """`group valley`, `groups hill and valley`; empty for none."""
    names = [one_line(group, 64) for group in groups]
    if not names:
        return ""
    return f"group {names[0]}" if len(names) == 1 else f"groups {', '.join(names[:-1])} and {names[-1]}"
