"""Send messages by Apprise, each from a process of its own under a limit of time: whatever the service does, it ends.

Apprise takes some 60 MB, and a second and a half of a desktop's core to load a hundred services: so it is in memory only
while a message is sent.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from trapsync.errors import NotSent, SettingsError
from trapsync.net import foreign_json
from trapsync.settings.alerts import Alerts

_WITHIN = 45.0  # seconds; a Pi takes ten of them to load Apprise
_LONGEST_ANSWER = 4096  # bytes
# What the environment says about proxies, certificates and a home folder does not count.
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")


class Messenger:
    """Sends one message after another."""

    def __init__(self, within: float = _WITHIN) -> None:
        """`within`: seconds that one message may take."""
        self._within = within

    def send(self, url: str, subject: str, body: str, *, picture: bytes | None, is_bad: bool) -> None:
        """Send a message to an address of Apprise, with a picture, a JPEG, if there is one. Raises NotSent."""
        shown = base64.b64encode(picture).decode() if picture else None
        order = {"url": url, "subject": subject, "body": body, "picture": shown, "is_bad": is_bad}
        try:
            answer = self._answer(json.dumps(order).encode())
        except OSError as error:  # no room for its answer, or no memory for a process
            raise NotSent(f"no process can send it: {error.strerror or error}") from None
        if answer.get("why"):
            raise NotSent(str(answer["why"]), is_unknown=bool(answer.get("is_unknown")))

    def _answer(self, order: bytes) -> dict[str, Any]:
        with tempfile.TemporaryFile() as answer:
            code = self._run(order, answer)
            answer.seek(0)
            said = answer.read(_LONGEST_ANSWER)
        try:
            content = foreign_json.decode(said, _LONGEST_ANSWER)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise NotSent(f"its process ended with {code}: too little memory?", is_unknown=True)
        return content

    def _run(self, order: bytes, answer: Any) -> int:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        command = [sys.executable, "-P", "-m", "trapsync.runtime.message_process", str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603 - this program
            command,
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        try:
            process.communicate(order, timeout=self._within)
        except subprocess.TimeoutExpired:
            raise NotSent(
                f"nothing came of it within {self._within:.0f} s: it was stopped", is_unknown=True
            ) from None
        finally:
            _end(process)
        return process.returncode


def _end(process: "subprocess.Popen[bytes]") -> None:
    """See to it that it is gone, with whatever it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def prepared(alerts: Alerts) -> Messenger | None:
    """Who sends the messages; None where nobody is to be told. SettingsError where there is no Apprise.

    Apprise is not loaded for that.
    """
    if alerts.addresses_file is None:
        return None
    if find_spec("apprise") is None:
        raise SettingsError("alerts need apprise: run `pipx inject trapsync apprise`")
    return Messenger()
