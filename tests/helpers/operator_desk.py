"""The operator's computer for tests: commands typed there, and a hub whose account it has."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hub_server
from hub_server import PASSWORD, RunningHub
from trapsync import cli

Say = Callable[..., tuple[int, str, str]]


def typing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """Return a function that calls a command, given its words; its exit code, and what it said."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["trapsync", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capfd.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


@contextmanager
def hub_of(desk: Path) -> Iterator[RunningHub]:
    """A hub that stands in the owner.toml of this folder, with the key `key`."""
    with hub_server.running(desk / "hub") as running:
        running.auth("owner")
        (desk / "password").write_text(PASSWORD)
        (desk / "password").chmod(0o600)
        (desk / "owner.toml").write_text(
            f'hub = "{running.url}"\nusername = "owner"\npassword_file = "password"\nkey = "key"\n'
        )
        yield running
