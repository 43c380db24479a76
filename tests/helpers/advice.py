"""The advice that the program gives: every text of it that tells somebody what to do, drawn from the code.

All advice has one form: a clause that begins, at the start of a text or after `;`, `:`, `,`, `(`, `?`, `and` or `else`, with
a verb of `_FORM`. So it can be drawn, and `tests/unit/test_advice.py` knows of each line what becomes of it.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import trapsync
from trapsync.doctor import examine_trap
from trapsync.doctor.machine import Machine
from trapsync.errors import TrapsyncError
from trapsync.remote.in_force import load
from trapsync.status import snapshot
from trapsync.trap import system_clock

ROOT = Path(trapsync.__file__).parent
_FORM = re.compile(
    r"(?:^|[;:,(?] ?|\band |\belse |\bthen )"
    r"(run|set(?! aside)|write(?! latency)|add|give|remove|stop|start it|install|try|look at|check|free|copy|move|replace|"
    r"enable|make|close(?! to)|name|reboot|power off|see|end it|choose|use|let|take|put|wait|restart|mount|raise|"
    r"lower|delete|correct|ask|charge|change|deliver|shorten|leave out|to begin one)\b(?!=)"
)
_NOT_SAID = re.compile(r"\b(SELECT|INSERT|UPDATE|CREATE|iif|coalesce)\b|Content-Disposition")
# No words to a person who has to do something: the help of commands, and what the log says of the program itself.
_KEYWORDS = {"help", "short_help", "metavar", "prog"}


def drawn() -> dict[str, str]:
    """Each text with advice in it, and where it stands: values that are put in are `{}`."""
    return {text: where for path in sorted(ROOT.rglob("*.py")) for text, where in _in(path)}


def _in(path: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    passed = {id(inner) for node in ast.walk(tree) for part in _passed_over(node) for inner in ast.walk(part)}
    for node in ast.walk(tree):
        text = _text(node)
        if id(node) in passed or len(text.split()) < 3:
            continue
        if _FORM.search(text) and not _NOT_SAID.search(text):
            yield text, f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]


def _passed_over(node: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, the help of options, and the parts of a text that is seen as a whole."""
    match node:
        case ast.Expr(value=ast.Constant()):
            yield node.value
        case ast.keyword(arg=name) if name in _KEYWORDS:
            yield node.value
        case ast.JoinedStr(values=values):
            yield from values


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in values)
    return ""


# ── Taking it ────────────────────────────────────────────────────────────────────────────────────────

ACCOUNT = 4242  # the daemon's, on this machine; its group has the same number


def needs_root() -> None:
    """Skip the rest of a test that gives files to other accounts, or mounts."""
    if os.geteuid() != 0:
        pytest.skip("only root can do that")


class Site:
    """A trap, what its doctor and its status say, and its owner at a shell with sudo.

    With `to_account` it is that of an account of its own, as scripts/install makes it: what is said is asked as the
    account then. Only root can have it so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "etc" / "trapsync.toml"
        self.trap, self.spool, self.state = (folder / name for name in ("trap", "trap/spool", "trap/state"))
        self._is_accounts = False
        folder.chmod(0o755)
        for made in (self.config.parent, self.trap, self.spool, self.state):
            made.mkdir()
        self.write(CONFIG.format(trap=self.trap))
        tools = folder / "bin"
        tools.mkdir()
        program = f"{shlex.quote(sys.executable)} -m trapsync -c {shlex.quote(str(self.config))}"
        for name, does in (("sudo", ""), ("trapsync", program)):
            (tools / name).write_text(f'#!/bin/sh\nexec {does} "$@"\n')
            (tools / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """In which `trapsync` and `sudo` are found."""
        return os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def to_account(self) -> None:
        """Make it the account's, and its settings root's and the account's to read."""
        needs_root()
        self.said()  # whatever is imported with that: the interpreter may lie where only root can read it
        self._is_accounts = True
        for path in (self.trap, self.spool, self.state):
            os.chown(path, ACCOUNT, ACCOUNT)
        self.config.parent.chmod(0o750)
        os.chown(self.config.parent, 0, ACCOUNT)
        self.write(self.config.read_text())

    def write(self, text: str) -> None:
        """Write the config file."""
        self.config.write_text(text)
        if self._is_accounts:
            os.chown(self.config, 0, ACCOUNT)

    def change(self, old: str, new: str) -> None:
        """Change a line of it."""
        text = self.config.read_text()
        assert old in text
        self.write(text.replace(old, new))

    def said(self) -> list[str]:
        """What the doctor finds and the status says that is not ok, one line each; or the error that is in the way."""
        with self.at_work():
            try:
                found = load(self.config)
                clock = system_clock(found.settings)
                doctor = examine_trap(found, clock, lambda _: None, Machine(self.folder, lambda _: None))
                status = snapshot(found.settings, clock, "0a1b2c3d")
            except TrapsyncError as error:
                return [str(error)]
        return [one.text for one in doctor if one.verdict != "ok"] + status.reasons

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be who the daemon is."""
        if not self._is_accounts:
            yield
            return
        groups = os.getgroups()
        os.setgroups([ACCOUNT])
        os.setresgid(ACCOUNT, ACCOUNT, 0)
        os.setresuid(ACCOUNT, ACCOUNT, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(groups)

    def line(self, words: str) -> str:
        """The one line with these words in it; there must be one."""
        found = [line for line in self.said() if words in line]
        assert found, (words, self.said())
        return found[0]

    def is_gone(self, words: str) -> bool:
        """Whether no line has these words any more."""
        return not any(words in line for line in self.said())

    def type(self, command: str) -> str:
        """Type a command as it is written, as somebody who may use sudo."""
        done = subprocess.run(
            ["sh", "-c", command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


CONFIG = """\
[trap]
device = "0a1b2c3d"
clock = "trusted"
[storage]
spool = "{trap}/spool"
state = "{trap}/state"
min_free = "1 MB"
[camera]
kind = "simulated"
"""
