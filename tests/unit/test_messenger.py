"""Messages by Apprise, each from a process of its own: real services, and some that hang, refuse or answer without end."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

import drawings
import receivers
from processes import children, peak
from receivers import Receiver
from trapsync.errors import NotSent, SettingsError
from trapsync.runtime import landlock, messenger
from trapsync.runtime.messenger import Messenger
from trapsync.settings.alerts import Alerts

SUBJECT, BODY = "Meadow: silent for 46 min", "Sun 22:40 Meadow (0a5bb6f4): silent for 46 min"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receivers.receiving() as one:
        yield one


def send(url: str, picture: bytes | None = None, within: float = 60) -> None:
    Messenger(within).send(url, SUBJECT, BODY, picture=picture, is_bad=True)


def reason(url: str, within: float = 60) -> NotSent:
    with pytest.raises(NotSent) as caught:
        send(url, within=within)
    assert "sesame" not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


def test_a_webhook_gets_subject_body_and_picture(receiver: Receiver) -> None:
    send(receiver.address("ok"), drawings.plain())
    (body,) = receiver.bodies("ok")
    assert (body["title"], body["message"], body["type"]) == (SUBJECT, BODY, "warning")
    assert [one["filename"] for one in body["attachments"]] == ["trap.jpg"]


def test_an_ntfy_gets_it(receiver: Receiver) -> None:
    send(receiver.address("my-traps", "ntfy"))
    (body,) = receiver.bodies("")
    assert (body["topic"], body["title"], body["message"]) == ("my-traps", SUBJECT, BODY)


def test_a_mail_comes_with_the_picture() -> None:
    with receivers.mailing() as (box, url):
        send(url, drawings.plain())
    (mail,) = box.mails
    assert mail["Subject"] == SUBJECT
    assert mail["To"] == "owner@example.org"
    parts = {part.get_content_type(): part for part in mail.walk()}
    assert BODY in parts["text/plain"].get_content()
    assert parts["image/jpeg"].get_content() == drawings.plain()


def test_what_refuses_is_told_by_its_status_and_nothing_of_its_answer(receiver: Receiver) -> None:
    error = reason(receiver.address("refuses"))
    assert "error=403" in str(error)
    assert "not for you" not in str(error)
    assert not error.is_unknown


def test_what_hangs_is_given_up_and_may_have_taken_it(receiver: Receiver) -> None:
    begun = time.monotonic()
    error = reason(receiver.address("hangs"), within=6)
    assert str(error) == "nothing came of it within 6 s: it was stopped"
    assert error.is_unknown
    assert time.monotonic() - begun < 20


def test_what_answers_without_end_fills_no_memory(receiver: Receiver) -> None:
    most = 0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(reason, receiver.address("floods"))
        while not asked.done():
            senders = [pid for pid, line in children(os.getpid()).items() if "message_process" in line]
            most = max([most, *map(peak, senders)])
    assert asked.result().is_unknown
    assert receiver.flooded < 100e6
    assert 20e6 < most < 200e6


def test_an_address_that_nobody_knows_is_told_at_once() -> None:
    assert str(reason("nothing://user:sesame@example.org")) == "Apprise knows no such address"


def test_without_apprise_it_says_what_to_install(tmp_path: Path) -> None:
    with standing_in_for_apprise(tmp_path, "raise ModuleNotFoundError('apprise')"):
        assert str(reason("json://example.org")).endswith("run: pipx inject trapsync apprise")
    settings = Alerts(addresses_file=tmp_path / "addresses")
    with mock.patch.object(messenger, "find_spec", return_value=None), pytest.raises(SettingsError) as caught:
        messenger.prepared(settings)
    assert str(caught.value) == "alerts need apprise: run `pipx inject trapsync apprise`"


def test_its_process_opens_no_secret_and_no_database(tmp_path: Path) -> None:
    secret = tmp_path / "hub.sqlite"
    secret.write_text("sesame")
    with standing_in_for_apprise(tmp_path / "code", TAKEN_OVER.format(str(secret))):
        says = str(reason("json://example.org"))
    assert "PermissionError" in says or (not has_landlock() and "it was read" in says)


def test_what_goes_wrong_is_told_without_any_part_of_the_address(tmp_path: Path) -> None:
    with standing_in_for_apprise(tmp_path, TELLS_ALL):
        says = str(reason("json://me:sesame@hush.example.org/sesame%20two?key=sesame-three"))
    assert says == "the service did not take it: RuntimeError: json://me:…@…/…?…=…, or …"


def test_whether_it_was_refused_for_certain_does_not_depend_on_the_words_of_the_address(
    receiver: Receiver,
) -> None:
    error = reason(receiver.address("refuses").replace("sesame", "error"))
    assert "…=403" in str(error)
    assert not error.is_unknown


def test_an_address_that_cannot_be_taken_apart_is_no_bug() -> None:
    assert str(reason("json://[sesame")) == "Apprise knows no such address"


def test_what_is_too_long_for_a_service_is_cut(receiver: Receiver) -> None:
    address = f"misskey://sesame@127.0.0.1:{receiver.server_port}"
    Messenger(60).send(address, SUBJECT, f"{BODY}\n{'x' * 3000}", picture=None, is_bad=True)
    (body,) = receiver.bodies("api/notes/create")
    assert len(body["text"]) <= 512
    assert BODY in body["text"]


def test_a_disk_that_is_full_costs_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert str(reason("json://example.org")) == "no process can send it: No space left on device"


def test_a_long_word_of_a_service_is_not_cut_in_the_middle_of_a_secret(tmp_path: Path) -> None:
    with standing_in_for_apprise(tmp_path, TELLS_MUCH):
        assert str(reason("json://me:sesame-and-more@hush.example.org")).endswith("… … …")


# As much of Apprise as our process calls; what it does with a message follows, on its one line.
STAND_IN = """
import logging
class NotifyBase: pass
class OverflowMode: TRUNCATE = 0
class NotifyType: INFO = WARNING = 0
class AppriseAsset:
    def __init__(self, **_): pass
class Apprise:
    def __init__(self, asset): pass
    def add(self, url): self.url = url; return True
    def notify(self, *_, **__): """
# One that shows what it was given, one that logs it behind much else, and what it would be if something had taken it over.
TELLS_ALL = STAND_IN + 'raise RuntimeError(self.url + ", or SESAME two")'
TELLS_MUCH = STAND_IN + 'logging.getLogger("apprise").warning("hush.example.org " * 11 + "sesame-and-more")'
TAKEN_OVER = STAND_IN + 'open({!r}).read(); raise RuntimeError("it was read")'


@contextmanager
def standing_in_for_apprise(folder: Path, code: str) -> Iterator[None]:
    """Have this code stand in the place of Apprise."""
    attachment = folder / "apprise" / "attachment"
    attachment.mkdir(parents=True)
    (folder / "apprise" / "__init__.py").write_text(code)
    (attachment / "__init__.py").touch()
    (attachment / "memory.py").write_text("class AttachMemory: pass\n")
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    with mock.patch.dict(os.environ, {"PYTHONPATH": paths}):
        yield


def has_landlock() -> bool:
    """Whether this kernel has it."""
    try:
        return landlock._call(landlock._CREATE, None, 0, landlock._ASK_VERSION) >= 1
    except OSError:
        return False
