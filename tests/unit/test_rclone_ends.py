"""rclone of Debian and of today at real other ends: OpenSSH, WebDAV, FTP with TLS, SeaweedFS."""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

import drawings
import rclone_ends
from conformance import HTTP_FAULTS, Card
from fault_server import JSON, FaultServer, Reply
from memory_context import connected, context
from rclone_ends import DEBIANS, TODAYS, End, Link
from s3_store import Store
from trap_bench import Trap
from trapsync.destinations import Destination, Receipt
from trapsync.errors import DeliveryError, Refused, Unauthorised, Unreachable
from trapsync.image import Image

# `scripts/torture --stores` has all pairs of version and other end, and all faults, in every test.
EVERY = bool(os.environ.get("TRAPSYNC_EVERY_STORE"))
VERSIONS = {"debian": DEBIANS, "today": TODAYS}
# The others take rclone seconds each, which it waits by itself.
QUICK_FAULTS = (
    "cut in body",
    "answer lost",
    "401",
    "404",
    "500 though stored",
    "portal",
    "no echo",
    "truncated",
)
FAULTS = tuple(HTTP_FAULTS) if EVERY else QUICK_FAULTS


def pairs(*some: tuple[str, str]) -> list[tuple[str, str]]:
    """These pairs of other end and version; in the long runs all."""
    return [(name, version) for name in PROVES for version in VERSIONS] if EVERY else list(some)


# The digests that a receipt has there.
PROVES = {"sftp": "md5", "s3": "md5", "webdav": "echo", "ftp": "echo"}


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """What runs until the last test of this file."""
    with ExitStack() as one:
        yield one


@pytest.fixture(scope="module")
def ends(stack: ExitStack, seaweed: Store, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], End]:
    """The other ends by name, each started when it is first asked for."""
    started: dict[str, End] = {}
    makers = {"sftp": rclone_ends.sftp, "webdav": rclone_ends.webdav, "ftp": rclone_ends.ftp}

    def end(name: str) -> End:
        if name == "s3":
            return rclone_ends.s3(seaweed, "by-rclone")
        if name not in started:
            folder = tmp_path_factory.mktemp("ends") / name
            started[name] = stack.enter_context(makers[name](folder))
        return started[name]

    return end


class Lab:
    """A trap's side of one other end: a config file, and destinations by it."""

    def __init__(self, end: End, binary: str, card: Card, folder: Path) -> None:
        self.end, self.card = end, card
        self.part = "today" if binary == TODAYS else "debian"
        self.config = folder / f"{self.part}.conf"
        self.table = {
            "kind": "rclone",
            "remote": "lab",
            "path": f"{end.path}/{self.part}",
            "config_file": str(self.config),
            "binary": binary,
        }

    def connect(self, port: int = 0, **changes: str) -> Destination:
        """With the port of a link in front, and other keys in the remote's section."""
        self.config.write_text(self.end.section("lab", port, **changes))
        self.config.chmod(0o600)
        return connected("far", self.table, context(spool=self.card.folder))

    def stored(self) -> dict[str, bytes]:
        begin = f"{self.part}/"
        return {k.removeprefix(begin): v for k, v in self.end.stored().items() if k.startswith(begin)}

    def send(self, lab: Destination, *images: Image) -> list[Receipt | Exception]:
        answers = lab.deliver_all([(image, self.card.path(image)) for image in images])
        return [answers[image.id] for image in images]


@pytest.mark.parametrize("binary", [DEBIANS, TODAYS], ids=["debian", "today"])
@pytest.mark.parametrize("name", PROVES)
def test_a_batch_arrives_is_known_again_and_other_bytes_are_never_overwritten(
    ends: Callable[[str], End], card: Card, tmp_path: Path, name: str, binary: str
) -> None:
    rclone_ends.versions()
    site = Lab(ends(name), binary, card, tmp_path)
    lab = site.connect()
    images = [card.image(second, seed=second + 1) for second in range(3)]
    assert lab.find_existing(images) == {}
    receipts = site.send(lab, *images)
    digests = {"md5": [f"md5:{i.md5}" for i in images], "echo": [f"echo:{i.sha256}" for i in images]}
    assert [getattr(one, "digest", one) for one in receipts] == digests[PROVES[name]]
    stored = {image.place: card.bytes(image) for image in images}
    assert site.stored() == stored

    # Somebody puts other bytes in the place of two; those of the same size are told by a checksum only.
    same, longer = images[:2]
    others = {same.place: card.bytes(same)[::-1], longer.place: card.bytes(longer) + b"x"}
    for place, content in others.items():
        site.end.put(f"{site.part}/{place}", content)
    answers = site.send(site.connect(), *images)
    assert isinstance(answers[1], Refused)
    assert isinstance(answers[0], Receipt if PROVES[name] == "echo" else Refused)
    assert isinstance(answers[2], Receipt)
    assert site.stored() == stored | others


WRONG = {
    "sftp": {"user": "nobody-of-this-name"},
    "webdav": {"pass": "wrong"},
    "ftp": {"pass": "wrong"},
    "s3": {"secret_access_key": "wrong"},
}


@pytest.mark.parametrize("binary", [DEBIANS, TODAYS], ids=["debian", "today"])
@pytest.mark.parametrize("name", PROVES)
def test_a_wrong_login_and_a_port_where_nobody_listens_are_each_one_line(
    ends: Callable[[str], End], card: Card, tmp_path: Path, name: str, binary: str
) -> None:
    rclone_ends.versions()
    site = Lab(ends(name), binary, card, tmp_path)
    changes = {k: rclone_ends.obscured(v) if k == "pass" else v for k, v in WRONG[name].items()}
    told = {
        "login": (Unauthorised, "lab: rejects the login"),
        "port": (Unreachable, "lab: cannot be reached"),
    }
    for what, (error, reason) in told.items():
        if (what, name) == ("port", "s3"):  # the library for S3 of today's version tries it for seconds
            continue
        lab = site.connect(0, **changes) if what == "login" else site.connect(rclone_ends.free_port())
        with pytest.raises(error, match=reason) as caught:
            lab.find_existing([card.image()])
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 500


def large(card: Card) -> Image:
    """An image that takes more than a packet."""
    return card.put(drawings.plain(1200, 900, quality=95), "IMG_0001.JPG", 9)


@pytest.mark.parametrize(("name", "version"), pairs(("sftp", "debian"), ("webdav", "today")))
def test_where_the_link_is_cut_in_the_middle_the_image_is_there_once_and_whole_in_the_end(
    ends: Callable[[str], End], card: Card, tmp_path: Path, name: str, version: str
) -> None:
    if name == "ftp":
        pytest.skip("its bytes take another connection")
    site = Lab(ends(name), VERSIONS[version], card, tmp_path)
    image = large(card)
    with Link(site.end.port) as link:
        lab = site.connect(link.port)
        link.cut_after, link.times = image.size // 2, 10
        outcome = attempt(site, lab, image)
        assert link.cuts
        assert isinstance(outcome, DeliveryError), outcome
        link.times = 0
        for _ in range(3):  # a beginning that lies there is found, removed, and sent anew
            outcome = lab.find_existing([image]).get(image.id) or attempt(site, lab, image)
        assert isinstance(outcome, Receipt), outcome
    assert {k: v for k, v in site.stored().items() if "IMG_0001" in k} == {
        f"other/{drawings.DEVICE}/IMG_0001.JPG": card.bytes(image)
    }


def attempt(site: Lab, lab: Destination, image: Image) -> Receipt | Exception:
    """What comes of sending one image."""
    try:
        return site.send(lab, image)[0]
    except DeliveryError as error:
        return error


# ── Logins ───────────────────────────────────────────────────────────────────────────────────────────


def test_another_host_key_than_the_known_one_is_told(
    ends: Callable[[str], End], card: Card, tmp_path: Path
) -> None:
    site = Lab(ends("sftp"), DEBIANS, card, tmp_path)
    known = site.end.folder / "known_hosts"
    lab = site.connect(0, known_hosts_file=str(known))
    new = card.image(500)
    assert lab.find_existing([new]) == {}
    kind = known.read_text().split()[:2]
    (tmp_path / "known_hosts").write_text(f"{' '.join(kind)} AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}\n")
    lab = site.connect(0, known_hosts_file=str(tmp_path / "known_hosts"))
    with pytest.raises(Unauthorised, match="another host key"):
        lab.find_existing([new])


class Google:
    """Google's storage as far as it says that nothing is there, and who gives out its logins.

    `refresh` is the answer to a login that is to be renewed.
    """

    def __init__(self) -> None:
        self.refresh = (200, {"access_token": "new", "token_type": "Bearer", "expires_in": 3600})
        self.renewals = 0
        self.methods = ("POST", "GET")

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if path == "/token":
            self.renewals += 1
            status, answer = self.refresh
            return status, JSON, json.dumps(answer).encode()
        if headers.get("Authorization") != "Bearer new":
            return 401, JSON, b'{"error": {"code": 401, "message": "Invalid Credentials"}}'
        return 404, JSON, b'{"error": {"code": 404, "message": "not found"}}'

    def section(self, url: str) -> str:
        """The remote, with a login that ended years ago."""
        token = {
            "access_token": "old",
            "token_type": "Bearer",
            "refresh_token": "r-secret",
            "expiry": "2020-01-01T00:00:00Z",
        }
        keys = {
            "type": "google cloud storage",
            "client_id": "moths",
            "client_secret": "s-secret",
            "token_url": f"{url}/token",
            "auth_url": f"{url}/auth",
            "endpoint": f"{url}/storage/v1/",
            "token": json.dumps(token),
        }
        return "[lab]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


@pytest.fixture
def google() -> Iterator[tuple[Google, FaultServer]]:
    one = Google()
    with FaultServer(one) as server:
        yield one, server


def by_google(server: FaultServer, binary: str, folder: Path, card: Card) -> tuple[Destination, Path]:
    """A destination at that Google, and its config file."""
    config = folder / "rclone.conf"
    if not config.exists():
        config.write_text(Google().section(server.url))
        config.chmod(0o600)
    table = {"kind": "rclone", "remote": "lab", "path": "moths", "config_file": str(config), "binary": binary}
    return connected("far", table, context(spool=card.folder)), config


@pytest.mark.parametrize("binary", [DEBIANS, TODAYS], ids=["debian", "today"])
def test_a_login_that_was_renewed_is_kept_for_the_next_child_and_is_no_other_place(
    google: tuple[Google, FaultServer], binary: str, tmp_path: Path, card: Card
) -> None:
    lab, config = by_google(google[1], binary, tmp_path, card)
    place = lab.place()
    assert lab.find_existing([card.image()]) == {}
    assert '"access_token":"new"' in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    again, _ = by_google(google[1], binary, tmp_path, card)
    assert again.find_existing([card.image()]) == {}
    assert (google[0].renewals, again.place()) == (1, place)


@pytest.mark.parametrize("binary", [DEBIANS, TODAYS], ids=["debian", "today"])
def test_a_login_that_cannot_be_renewed_is_one_line_that_says_what_to_do(
    google: tuple[Google, FaultServer], binary: str, tmp_path: Path, card: Card
) -> None:
    google[0].refresh = (
        400,
        {"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
    )
    lab, _ = by_google(google[1], binary, tmp_path, card)
    with pytest.raises(Unauthorised, match="rclone config reconnect lab:") as caught:
        lab.find_existing([card.image()])
    assert len(str(caught.value).splitlines()) == 1
    assert "secret" not in str(caught.value)


# ── Faults and kills ─────────────────────────────────────────────────────────────────────────────────


class ToWebdav:
    """Hands requests on to a WebDAV server."""

    methods = ("POST", "GET", "HEAD", "PUT", "DELETE", "PROPFIND", "MKCOL", "MOVE", "OPTIONS")

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        method, _, where = path.rpartition(" ")
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        passed_on = {
            name: value for name, value in headers.items() if name.lower() not in {"host", "connection"}
        }
        connection.request(method or "POST", where, body, passed_on)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {"Content-Type", "WWW-Authenticate", "DAV", "ETag"}
        return answer.status, {k: v for k, v in answer.getheaders() if k in kept}, content


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "version"), pairs(("webdav", "debian")))
def test_after_each_fault_of_a_server_every_image_is_there_once(
    ends: Callable[[str], End], trap: Trap, tmp_path: Path, name: str, version: str
) -> None:
    """A backlog; each PUT meets the next fault until there is none left."""
    if name != "webdav":
        pytest.skip("requests of S3 are signed for their host, and the others' are none of HTTP")
    site = Lab(ends("webdav"), VERSIONS[version], Card(trap.storage.spool), tmp_path)
    site.part += "-faults"
    with FaultServer(ToWebdav(site.end.port)) as front:
        site.connect(int(front.port))
        lab = connected("lab", site.table | {"path": f"pictures/{site.part}"}, trap.context("lab"))
        trap.register(lab)
        for second in range(len(FAULTS)):
            trap.put(second, seed=second + 1)
        trap.ingest()
        front.plan("PUT *", *FAULTS)
        for _ in range(3 * len(FAULTS)):
            trap.deliver(lab)
            if not trap.catalog.counts.destinations()[0]["pending"]:
                break
            trap.time.sleep(4000)
        front.assert_injected()
    delivered = trap.catalog.proofs.delivered_to("lab", 0, 99)
    assert len(delivered) == len(FAULTS)
    spool = Card(trap.storage.spool)
    assert site.stored() == {image.place: spool.bytes(image) for image in delivered}


@pytest.mark.skipif(not EVERY, reason="in scripts/torture --stores only")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "version"), pairs())
def test_over_a_link_that_breaks_again_and_again_a_backlog_is_there_once(
    ends: Callable[[str], End], trap: Trap, tmp_path: Path, name: str, version: str
) -> None:
    if name == "ftp":
        pytest.skip("its bytes take another connection")
    site = Lab(ends(name), VERSIONS[version], Card(trap.storage.spool), tmp_path)
    site.part += "-broken"
    chance = random.Random(7)
    with Link(site.end.port) as link:
        site.connect(link.port)
        path = f"{site.end.path}/{site.part}"
        lab = connected("lab", site.table | {"path": path}, trap.context("lab"))
        trap.register(lab)
        for number in range(40):
            content = drawings.plain(800, 600, seed=number, quality=95)
            (trap.storage.spool / f"IMG_{number:04}.JPG").write_bytes(content)
        trap.ingest()
        for _ in range(100):
            link.cut_after, link.times = chance.randrange(20_000, 400_000), 10
            trap.deliver(lab)
            if not trap.catalog.counts.destinations()[0]["pending"]:
                break
            trap.time.sleep(4000)
        assert link.cuts >= 5
    spool = trap.storage.spool
    assert site.stored() == {
        f"other/{drawings.DEVICE}/{path.name}": path.read_bytes() for path in spool.glob("*.JPG")
    }
