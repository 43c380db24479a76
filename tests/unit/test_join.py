"""`trapsync join`: an account at the hub, and a config file that has it; or one line, and nothing is changed."""

import errno
import json
import os
import stat
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hub_server
from fault_server import HTML, JSON, FaultServer, Forwarding, Reply
from hub_server import RunningHub
from trapsync import cli
from trapsync.clock import SystemClock
from trapsync.doctor import network
from trapsync.errors import SettingsError, Unauthorised
from trapsync.files import failpoint
from trapsync.hardware import prepared_card
from trapsync.hub.enrolment import NoSuchTrap
from trapsync.net.invitation import NOT_KNOWN, Code, Terms
from trapsync.remote.document import new_key
from trapsync.remote.uplink.http import HttpLink
from trapsync.settings import config_file
from trapsync.settings.layers import Files

DEVICE = "0a5bb6f4"
NOBODY = 65534
KEY, OTHER = new_key().public, new_key().public
TERMS = Terms((str(KEY),), ("valley", "moths"))
BEFORE = f"""\
# my trap
[trap]
device = "{DEVICE}"   # as on its lid
[storage]
spool = "spool"
state = "state"
[camera]
kind = "none"
#[hub]
#url = "https://"
"""


class Between(Forwarding):
    """The hub, or somebody who has taken it over."""

    methods = ("POST", "GET")

    def __init__(self, hub: RunningHub) -> None:
        super().__init__(hub.url)
        self.says: dict[str, Any] = {}  # other terms than were promised
        self.lets_in = True

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if path.startswith("GET ") and not self.lets_in:
            return 401, HTML, b""
        status, more, content = super().__call__(path, headers, body)
        if self.says and path == "/join":
            return status, JSON, json.dumps(json.loads(content) | self.says).encode()
        return status, more, content


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Trap:
    """A trap whose owner types `join`, and the hub."""

    def __init__(self, folder: Path, real: RunningHub, hub: FaultServer, between: Between) -> None:
        self.real, self.hub, self.between = real, hub, between
        self.config = folder / "trapsync.toml"
        self.config.write_text(BEFORE)
        self.config.chmod(0o644)
        self.before = self.files()
        self.forget()

    def forget(self) -> None:
        """The hub's operator has the hub forget this trap."""
        with suppress(NoSuchTrap):
            self.real.hub.enrolment.forget(DEVICE)

    def code(self, terms: Terms = TERMS, *, until: float = 3600.0) -> str:
        """A new code of this hub's operator, for two traps."""
        code = Code.new(self.hub.url, terms)
        asked = {"keys": terms.keys, "groups": terms.groups, "images": terms.images, "uses": 2}
        asked |= {"secret_hash": code.secret_hash, "until": time.time() + until}
        self.number = self.real.hub.enrolment.invite(json.dumps(asked).encode(), "owner")["id"]
        return str(code)

    @property
    def used(self) -> int:
        """How many traps the newest code has let in."""
        (code,) = (one for one in self.real.hub.enrolment.invitations() if one["id"] == self.number)
        return int(code["used"])

    def is_account(self, token: Path) -> bool:
        """Whether the hub knows this trap by the password in this file."""
        user = self.real.hub.accounts.recognise(DEVICE, token.read_text().strip())
        return user is not None and user.device == DEVICE

    def files(self) -> dict[str, str]:
        """All files beside the config file, and what is in them."""
        return {path.name: path.read_text() for path in self.config.parent.iterdir() if path.is_file()}

    @property
    def tables(self) -> dict[str, Any]:
        return tomllib.loads(self.config.read_text())

    @property
    def tokens(self) -> list[Path]:
        return sorted(self.config.parent.glob("hub-*.token"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def trap(tmp_path: Path, real: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    monkeypatch.setenv("TRAPSYNC_CONFIG", str(tmp_path / "trapsync.toml"))
    between = Between(real)
    with FaultServer(between) as server:
        yield Trap(tmp_path, real, server, between)


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def join(*words: str, code: int = 0, after: float = 0.0) -> Said:
        time.sleep(after)
        monkeypatch.setattr(sys, "argv", ["trapsync", "join", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = Said(int(exit_.value.code or 0), *capfd.readouterr())
        assert said.code == code, said
        assert "Traceback" not in said.err
        if code:
            assert (said.out, said.err.count("\n")) == ("", 1), said
        return said

    return join


Join = Callable[..., Said]


# ── Joined ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_trap_joins_and_its_config_has_all_of_it_and_what_was_there(trap: Trap, join: Join) -> None:
    said = join(trap.code(), "--name", "valley-3")
    (token,) = trap.tokens
    account = {"url": trap.hub.url, "username": DEVICE, "password_file": token.name}
    assert trap.tables == tomllib.loads(BEFORE) | {
        "trap": {"device": DEVICE, "name": "valley-3"},
        "hub": account,
        "remote": {"enabled": True, "keys": [str(KEY)], "groups": ["valley", "moths"]},
        "destinations": {"archive": {"kind": "stickypi", **account}},
    }
    text = trap.config.read_text()
    assert [line for line in BEFORE.splitlines() if line not in text] == []
    assert stat.S_IMODE(trap.config.stat().st_mode) == 0o644
    assert trap.files()["trapsync.toml.before-join"] == BEFORE
    assert stat.S_IMODE(token.stat().st_mode) in {0o600, 0o640}
    assert len(token.read_text().strip()) == 43
    assert trap.is_account(token)
    assert trap.hub.requests == ["/join", f"GET /pushed/device-{DEVICE}.settings"]
    assert said.err == ""
    assert said.out.splitlines() == [
        f"hub     {trap.hub.url}",
        f"device  {DEVICE}, named valley-3",
        "groups  valley, moths",
        f"keys    {KEY.id}",
        "images  delivered there: [destinations.archive]",
        "next    this applies from the next start on; now: sudo systemctl reload-or-restart trapsync",
    ]


def test_the_same_code_again_is_the_same_request_and_changes_nothing(trap: Trap, join: Join) -> None:
    code = trap.code()
    join(code)
    before = trap.files()
    join(code.lower().replace("-", " ").replace(" http", "http"))
    assert (trap.files(), trap.used) == (before, 1)


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_password(trap: Trap, join: Join) -> None:
    code = trap.code()
    trap.hub.plan("/join", "answer lost")
    said = join(code, code=1).err
    assert "the connection was cut; nothing was changed, and it can be tried again" in said
    (token,) = trap.tokens
    assert trap.files() == trap.before | {token.name: token.read_text()}
    join(code)
    assert (trap.tokens, trap.used) == ([token], 1)
    trap.hub.assert_injected()


def test_another_code_has_another_password(trap: Trap, join: Join) -> None:
    join(trap.code())
    trap.forget()
    join(trap.code())
    first, second = trap.tokens
    assert first.read_text() != second.read_text()


def test_where_there_is_no_config_file_there_is_one_afterwards(trap: Trap, join: Join) -> None:
    trap.config.unlink()
    join(trap.code())
    assert config_file.example(complete=False) in trap.config.read_text()
    assert stat.S_IMODE(trap.config.stat().st_mode) in {0o600, 0o640}
    assert trap.tables["remote"]["groups"] == ["valley", "moths"]


def test_a_destination_that_is_this_hub_gets_the_account_and_another_hubs_ca_and_heartbeats_go(
    trap: Trap, join: Join
) -> None:
    authorities = trap.config.with_name("ca.pem")
    authorities.touch(0o600)
    old = f"""
[hub]
url = "https://old.example.org"
heartbeat_url = "https://beats.example.org"
ca_file = "ca.pem"
every = "10 min"
[destinations.home]
kind = "stickypi"
url = "{trap.hub.url}/"
username = "trap"
password_file = "x"
every = "1 min"
[destinations.archive]
kind = "directory"
path = "away"
"""
    trap.config.write_text(BEFORE + old)
    join(trap.code())
    (token,) = trap.tokens
    account = {"url": trap.hub.url, "username": DEVICE, "password_file": token.name}
    assert trap.tables["hub"] == {"every": "10 min", **account}
    assert trap.tables["destinations"]["home"] == {"kind": "stickypi", "every": "1 min", **account}
    assert trap.tables["destinations"].keys() == {"home", "archive"}


def test_a_code_without_images_adds_no_destination_and_the_name_archive_may_be_taken(
    trap: Trap, join: Join
) -> None:
    trap.config.write_text(BEFORE + '[destinations.archive]\nkind = "directory"\npath = "away"\n')
    assert "not delivered there" in join(trap.code(Terms((str(KEY),), (), images=False))).out
    assert trap.tables["destinations"].keys() == {"archive"}
    trap.forget()
    assert "[destinations.hub]" in join(trap.code()).out


def test_the_running_daemon_restarts_with_it(trap: Trap, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trapsync.trap.holder", lambda _state: 4711)
    note = trap.config.with_name("told")
    monkeypatch.setattr(
        "trapsync.trap.tell_daemon", lambda process, number: note.write_text(f"{process} {number:d}")
    )
    join(trap.code(), "--no-restart")
    assert not note.exists()
    trap.forget()
    assert "the daemon restarts" in join(trap.code()).out
    assert note.read_text() == "4711 1"


def test_the_doctor_says_what_the_trap_has_joined_and_that_the_card_is_another_traps(
    trap: Trap, join: Join
) -> None:
    assert network.joined(config_file.load(trap.config)) == []
    join(trap.code())
    (said,) = network.joined(config_file.load(trap.config))
    assert (said.verdict, said.text) == (
        "ok",
        f"127.0.0.1:{trap.hub.port}, as {DEVICE}, in valley and moths",
    )
    trap.config.write_text(trap.config.read_text().replace(f'device = "{DEVICE}"', 'device = "00000001"'))
    (said,) = network.joined(config_file.load(trap.config))
    assert said.verdict == "failing"
    assert f"joined as {DEVICE}, and this trap is 00000001" in said.text
    assert f'set trap.device = "{DEVICE}"' in said.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down")
@pytest.mark.parametrize("what", ["remote.joining.ask", "runtime.config_check.check"])
def test_root_asks_the_hub_and_checks_the_settings_in_the_accounts_name(
    trap: Trap, join: Join, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    state = trap.config.with_name("state")
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)

    def say_who(*_: object) -> None:
        raise SettingsError(f"done by {os.geteuid()}")

    if "check" in what:  # the folders of a test are closed to others, and so the password is
        terms = {"keys": TERMS.keys, "groups": TERMS.groups, "images": True}
        monkeypatch.setattr("trapsync.remote.joining.ask", lambda *_: json.dumps(terms))
    monkeypatch.setattr(f"trapsync.{what}", say_who)
    assert f"done by {NOBODY}" in join(trap.code(), code=1).err
    (token,) = trap.tokens
    found = token.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, NOBODY, 0o640)


def test_a_trap_that_was_revoked_is_told_what_to_do(trap: Trap, join: Join) -> None:
    join(trap.code())
    trap.real.hub.enrolment.revoke(DEVICE)
    settings = config_file.load(trap.config)
    found = network.destinations(settings, SystemClock(), time.sleep, trap.config)
    assert [one.verdict for one in found if NOT_KNOWN in one.text] == ["failing"]
    link = HttpLink(settings.hub, DEVICE, [], SystemClock(), time.sleep)
    with pytest.raises(Unauthorised, match=f"401 .*{NOT_KNOWN}"):
        link.tell(b"{}")


def test_a_hub_with_a_certificate_of_its_own(trap: Trap, join: Join) -> None:
    authorities = trap.config.with_name("hub.pem")
    authorities.touch(0o600)
    join(trap.code(), "--ca-file", str(authorities))
    for table in (trap.tables["hub"], trap.tables["destinations"]["archive"]):
        assert table["ca_file"] == str(authorities)
    if os.geteuid() == 0:
        said = join(trap.code(), "--ca-file", "/home/pi/hub.pem", code=1).err
        assert "the service sees no homes; copy it to /etc/trapsync" in said
    assert "ca_file" in join(trap.code(), "--ca-file", "/nowhere.pem", code=1).err
    join("x", "--ca-file", "/", code=1)


# ── Refused ──────────────────────────────────────────────────────────────────────────────────────────

ANSWERS: dict[str, dict[str, Any]] = {
    "another key": {"keys": [str(OTHER)]},
    "one key more": {"keys": [str(KEY), str(OTHER)]},
    "another group": {"groups": ["valley"]},
    "no images": {"images": False},
    "no terms": {"keys": None},
    "numbers": {"keys": [1]},
    "a text": {"groups": "valley"},
}


@pytest.mark.parametrize("how", ANSWERS)
def test_a_hub_that_names_other_terms_than_the_code_is_refused_and_nothing_is_changed(
    trap: Trap, join: Join, how: str
) -> None:
    trap.between.says = ANSWERS[how]
    said = join(trap.code(), code=1).err
    assert trap.hub.requests == ["/join"]
    assert "names other keys or groups than the code" in said or "as no hub does" in said
    assert {
        name: text for name, text in trap.files().items() if name not in {p.name for p in trap.tokens}
    } == trap.before
    assert trap.tokens == [] or "as no hub" in said


def test_what_the_hub_says_against_it_is_one_line_and_nothing_is_left(trap: Trap, join: Join) -> None:
    unknown = trap.code()
    trap.real.hub.enrolment.withdraw(trap.number)
    assert "does not know the code" in join(unknown, code=1).err
    assert "the code ended at" in join(trap.code(until=0.05), code=1, after=0.1).err
    assert trap.files() == trap.before
    code = trap.code()
    join(code)
    before = trap.files()
    assert f"trap {DEVICE} has joined already" in join(trap.code(), code=1).err
    trap.real.hub.enrolment.revoke(DEVICE)
    assert f"trap {DEVICE} was revoked after this code was made" in join(code, code=1).err
    assert trap.files() == before


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("portal", "captive portal"),
        ("404", "answered 404 with text/html, as no hub does; check the address in the code"),
        ("500", "answered 500"),
        ("503", "asks to come later"),
        ("redirect", "redirected to portal.example"),
        ("half JSON", "cut off or broken"),
        ("endless", "longer than 65536 bytes"),
    ],
)
def test_a_server_that_is_no_hub_is_one_line(trap: Trap, join: Join, fault: str, words: str) -> None:
    trap.hub.plan("/join", fault)
    assert words in join(trap.code(), code=1).err
    assert trap.config.read_text() == BEFORE


def test_a_hub_that_is_not_there_and_one_that_does_not_let_the_account_in(trap: Trap, join: Join) -> None:
    code = trap.code()
    with trap.hub.down():
        assert "connection refused" in join(code, code=1).err
        (token,) = trap.tokens
    trap.between.lets_in = False
    assert "answered 401 with text/html: the hub does not know this trap" in join(code, code=1).err
    assert trap.config.read_text() == BEFORE
    trap.between.lets_in = True
    trap.forget()
    join(trap.code())
    assert token not in trap.tokens, "the password of a code that led to nothing"


@pytest.mark.parametrize(
    "code", ["", "https://hub.example.org/join#ABC", "x", "http://a b/join#", "--card x"]
)
def test_what_is_no_code_is_one_line(trap: Trap, join: Join, code: str) -> None:
    if not code or " x" in code:
        assert "give the code, or --card" in cli_error(join, *code.split())
    else:
        assert "code" in join(code, code=1).err
    assert trap.files() == trap.before


def cli_error(join: Join, *words: str) -> str:
    """Wrong usage is more than one line."""
    with pytest.raises(AssertionError) as error:
        join(*words)
    return str(error.value)


def test_another_operators_keys_stay_unless_they_are_to_go(trap: Trap, join: Join) -> None:
    trap.config.write_text(f'{BEFORE}[remote]\nenabled = true\nkeys = ["{OTHER}"]\n')
    code = trap.code()
    said = join(code, code=1).err
    assert f"the trap trusts the keys of another operator ({OTHER.id})" in said
    assert trap.tables["remote"]["keys"] == [str(OTHER)]
    join(code, "--replace")
    assert trap.tables["remote"]["keys"] == [str(KEY)]
    assert trap.used == 1


def test_what_override_toml_sets_otherwise_is_told_and_nothing_is_changed(trap: Trap, join: Join) -> None:
    override = trap.config.with_name("override.toml")
    override.write_text('[hub]\nurl = "https://old.example.org"\n')
    assert "override.toml sets hub.url too, and takes precedence" in join(trap.code(), code=1).err
    assert trap.config.read_text() == BEFORE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[camra]\n", "camra: there is no such setting"),
        ("[destinations]\nhub = 3\n", "destinations: must be tables"),
        ('hub = {url = "https://old.example.org"}\n', "use an editor"),
    ],
)
def test_a_config_that_cannot_be_changed_stays_as_it_is(
    trap: Trap, join: Join, text: str, words: str
) -> None:
    text = text + BEFORE if text.startswith("hub") else BEFORE + text
    trap.config.write_text(text)
    assert words in join(trap.code(), code=1).err
    assert trap.config.read_text() == text


# ── Cut short ────────────────────────────────────────────────────────────────────────────────────────


def hits(trap: Trap, code: str) -> list[str]:
    """Join in a child that notes what durable it does."""
    _in_child(code, lambda _name: None, noted := trap.config.with_name("hits"))
    return noted.read_text().splitlines()


def _in_child(code: str, hit: Callable[[str], None], note: Path | None = None) -> int:
    child = os.fork()
    if child == 0:
        names: list[str] = []
        failpoint.hit = lambda name: (names.append(name), hit(name))[0]  # type: ignore[func-returns-value]
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.argv = ["trapsync", "join", code]
            cli.main()
        except SystemExit as exit_:
            if note:
                note.write_text("\n".join(names))
            os._exit(int(exit_.code or 0))
        finally:
            os._exit(9)
    return os.waitpid(child, 0)[1]


def test_killed_at_each_durable_act_the_same_command_ends_it_with_one_use(trap: Trap) -> None:
    names = hits(trap, trap.code())
    assert len(names) >= 12
    for number, name in enumerate(names):
        for path in trap.config.parent.iterdir():
            if path.is_file():
                path.unlink()
        trap.config.write_text(BEFORE)
        trap.forget()
        code = trap.code()
        status = _in_child(code, failpoint._Armed(f"{name}#{names[: number + 1].count(name)}"))
        assert os.WIFSIGNALED(status), name
        text = trap.config.read_text()
        assert text == BEFORE or Files(trap.config).local.hub.username == DEVICE
        assert _in_child(code, lambda _name: None) == 0, name
        (token,) = trap.tokens
        assert trap.is_account(token)
        assert trap.used == 1
        assert trap.files()["trapsync.toml.before-join"] == BEFORE
        assert trap.tables["hub"]["password_file"] == token.name


# ── A prepared card ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file on the boot partition."""
    folder = tmp_path / "boot"
    folder.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(prepared_card, "FOLDERS", (tmp_path / "none", folder))
    monkeypatch.setattr(prepared_card, "REASON", run / "reason")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(run))
    return folder / prepared_card.NAME


def test_a_prepared_card_joins_and_loses_its_file(trap: Trap, join: Join, boot: Path) -> None:
    boot.write_bytes(b"\xef\xbb\xbf\r\n  " + trap.code().encode() + b' \r\n\r\nname =  "valley-3" \r\n')
    assert prepared_card.waiting() == f"not joined yet: no attempt was made so far ({boot})"
    trap.hub.plan("/join", "503")
    join("--card", code=1)
    assert boot.exists()
    assert str(prepared_card.waiting()).startswith(f"not joined yet: 127.0.0.1:{trap.hub.port} answered 503")
    assert "named valley-3" in join("--card").out
    assert not boot.exists()
    assert prepared_card.waiting() is None
    assert trap.tables["trap"]["name"] == "valley-3"
    assert "there is no trapsync-join.txt" in join("--card").out


def test_where_the_boot_partition_takes_no_writes_the_trap_has_joined_and_says_that_the_code_is_there(
    trap: Trap, join: Join, boot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot.write_text(trap.code())

    unlink = Path.unlink

    def refuse(path: Path, **more: Any) -> None:
        if path == boot:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, **more)

    monkeypatch.setattr(Path, "unlink", refuse)
    said = join("--card")
    assert f"{boot} cannot be removed (Read-only file system); remove it" in said.err
    assert str(prepared_card.waiting()).startswith(f"joined, but {boot} cannot be removed")
    assert trap.tables["hub"]["username"] == DEVICE


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b"\xef\xbb\xbf \r\n"), "is empty; its first line is the code"),
    "a folder": (lambda path: path.mkdir(), "is no plain file"),
    "100 MB": (lambda path: path.write_bytes(bytes(10**8)), "is larger than 4096 bytes"),
    "UTF-16": (lambda path: path.write_text("https://", encoding="utf-16"), "is not UTF-8 text"),
    "a link": (lambda path: path.symlink_to("/etc/passwd"), "Too many levels of symbolic links"),
    "a FIFO": (lambda path: os.mkfifo(path), "is no plain file"),
    "no code": (lambda path: path.write_text("hello"), "this is no code"),
    "more lines": (lambda path: path.write_text("x\nname = a\nname = b"), "one line at most"),
    "another line": (lambda path: path.write_text("x\ngroup = a"), "one line at most"),
}  # fmt: skip


@pytest.mark.parametrize("how", ODD)
def test_an_odd_file_on_the_boot_partition_is_one_line_and_stays(
    trap: Trap, join: Join, boot: Path, how: str
) -> None:
    make, words = ODD[how]
    make(boot)
    assert words in join("--card", code=1).err
    assert words in str(prepared_card.waiting())
    assert trap.files() == trap.before
    assert os.path.lexists(boot)
