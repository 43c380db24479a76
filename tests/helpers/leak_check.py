"""A secret that must never be seen: everything that the program says or keeps about a destination, searched for it.

::

    program = killed.Program(tmp_path / "trap", site.tables())      # the secret is in a file that they name
    texts = canary.overheard(program, site.front, [[("/api/v1/files/upload", "403")], ...])
    canary.assert_silent(SECRET, texts)

`overheard` runs the commands in this process, with the log of all packages at its most talkative, once for
each plan of faults, then with a bug in the middle of a request.
"""

import base64
import contextlib
import io
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from unittest import mock
from urllib.parse import quote, quote_plus

import killed_trap
from fault_server import FaultServer
from trapsync import cli

Plan = Sequence[tuple[str, str]]  # (request, fault) as for `FaultServer.plan`

_SHOWN = (
    ("images", "--json"),
    ("images",),
    ("status", "--json"),
    ("status",),
    ("doctor", "--json"),
    ("doctor",),
    ("settings", "show"),
    ("verify",),
)


def overheard(
    program: killed_trap.Program, front: FaultServer, plans: Sequence[Plan], *more: tuple[str, ...]
) -> dict[str, bytes]:
    """What the program said and kept, by where. `more` are commands besides the usual ones.

    Images are to be laid in before. All planned faults must happen.
    """
    texts: dict[str, bytes] = {}
    with _log() as log:
        for number, plan in enumerate([*plans, []]):
            for request, fault in plan:
                front.plan(request, fault)
            _run(program, "retry")
            texts[f"deliver, plan {number}"] = _run(program, "deliver")
            for command in (*_SHOWN, *more):
                texts[f"{' '.join(command)}, plan {number}"] = _run(program, *command)
        if any(plans):
            front.assert_injected()
        with mock.patch("trapsync.net.http.require_final", side_effect=RuntimeError("a bug")):
            for command in (("deliver",), ("verify",), ("doctor",)):
                texts[f"a bug in {command[0]}"] = _run(program, *command)
    assert any(b"a bug" in text and b"Traceback" in text for text in texts.values()), "the bug was not met"
    state = program.spool.parent / "state"
    texts |= {str(path.name): path.read_bytes() for path in state.rglob("*") if path.is_file()}
    return texts | {"the log": log.getvalue().encode()}


def assert_silent(secret: str, texts: Mapping[str, bytes]) -> None:
    """The secret is in none of these, in no form that it travels in; and there was something to search."""
    assert len(secret) >= 12
    assert {"the log", "catalog.sqlite"} <= set(texts)
    assert texts["the log"]
    told = [where for where, text in texts.items() if any(form in text for form in _forms(secret))]
    assert not told, f"the secret is told by: {', '.join(told)}"


def _forms(secret: str) -> set[bytes]:
    """As it is, in a URL, and in a Basic header: alone, as the user's name, and behind some name."""
    forms = {secret, quote(secret, safe=""), quote_plus(secret)}
    for before in range(3):  # base64 looks different at each offset; the ends depend on what is beside it
        encoded = base64.b64encode(b"x" * before + secret.encode()).decode().rstrip("=")
        forms.add(encoded[4 if before else 0 : -2])
    return {form.encode() for form in forms}


@contextlib.contextmanager
def _log() -> Iterator[io.StringIO]:
    """All that is logged by anybody, debugging included; commands cannot turn it down."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in ("trapsync", "urllib3")]
    before = [one.level for one in (root, *loggers)]
    for one in (root, *loggers):
        one.setLevel(logging.DEBUG)
    root.addHandler(handler)
    with mock.patch("logging.basicConfig"), mock.patch.object(logging.Logger, "setLevel"):
        yield text
    root.removeHandler(handler)
    for one, level in zip((root, *loggers), before, strict=True):
        one.setLevel(level)


def _run(program: killed_trap.Program, *command: str) -> bytes:
    """All that a command says, the traceback of a bug included."""
    said = io.StringIO()
    arguments = ["trapsync", "-c", str(program.config), *command]
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        mock.patch.object(sys, "argv", arguments),
    ):
        try:
            with contextlib.suppress(SystemExit):
                cli.main()
        except Exception:
            traceback.print_exc(file=said)
    return said.getvalue().encode()
