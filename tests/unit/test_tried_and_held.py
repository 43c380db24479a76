"""What was tried and held: attacks on documents, keys, the hub, files and pictures, at a tenth of their numbers.

At full: `scripts/torture --attacks`. What has tests of its own is named in `tests/README.md`.
"""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import attacks
import external_programs
from fake_time import FakeTime
from fault_server import JSON, FaultServer, Reply
from trapsync.errors import Unreachable
from trapsync.net.http import HttpClient

SEED = 20261130


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_an_attack_has_no_success(name: str, folder_in_memory: Path) -> None:
    seen = attacks.attack(name, folder_in_memory / "attack", SEED, fully=False)
    print(f"{name}: {seen}")  # noqa: T201 - the figure


# ── Servers ──────────────────────────────────────────────────────────────────────────────────────────


class Backend:
    """A server that leads to another, hands out a cookie, and notes what it is sent."""

    methods = ("POST", "GET")

    def __init__(self) -> None:
        self.leads_to = ""

    def __call__(self, _path: str, _headers: object, _body: bytes) -> Reply:
        """Answer."""
        more = {"Set-Cookie": "evil=1; Path=/", "Location": self.leads_to}
        return (302 if self.leads_to else 200, {**JSON, **more}, b"{}")


@pytest.fixture
def servers() -> Iterator[tuple[FaultServer, FaultServer]]:
    """The one that is asked, and another."""
    with FaultServer(Backend()) as asked, FaultServer(Backend()) as other:
        yield asked, other


def test_a_redirect_gets_no_password_to_another_server_and_nobody_hears_of_the_environment(
    servers: tuple[FaultServer, FaultServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = servers
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client = HttpClient(asked.url, "test", FakeTime(), FakeTime().sleep)
    for method in ("POST", "GET"):
        assert client.send(method, "/", auth=("trap", "horse")).status == 200
        assert client.send(method, "/").status == 200
    asked.backend.leads_to = f"{other.url}/evil"  # type: ignore[attr-defined]
    for method in ("POST", "GET"):
        with pytest.raises(Unreachable, match="redirected to"):
            client.send(method, "/", auth=("trap", "horse"))
    assert other.requests == []
    assert len(asked.requests) == 6
    assert not any("Cookie" in headers for headers in asked.headers)
    assert sum("Authorization" in headers for headers in asked.headers) == 4


def _certificate(folder: Path, name: str) -> Path:
    """A key with its certificate, which it signed itself, for a server of this name."""
    external_programs.require("openssl", shows="servers with a certificate of their own")
    file = folder / f"{name}.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=x", "-addext", f"subjectAltName={name}"]
    command = [
        external_programs.find("openssl") or "",
        "req",
        *kind,
        *names,
        "-keyout",
        str(file),
        "-out",
        "-",
    ]
    answer = subprocess.run(command, check=True, capture_output=True).stdout
    file.write_bytes(file.read_bytes() + answer)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("name", "trusted", "refused"),
    [
        ("IP:127.0.0.1", "by nobody", "cannot be trusted: self-signed"),
        ("IP:127.0.0.1", "by the environment", "cannot be trusted: self-signed"),
        ("IP:127.0.0.1", "by ca_file", ""),
        ("DNS:other.example", "by ca_file", "that of another server"),
        ("none", "by nobody", "TLS fails"),
    ],
)
def test_only_who_is_trusted_by_the_settings_gets_a_password(
    servers: tuple[FaultServer, FaultServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    trusted: str,
    refused: str,
) -> None:
    front = servers[0]
    authority = tmp_path / "none"
    if name != "none":
        authority = _certificate(tmp_path, name)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(authority)
        front._server.socket = tls.wrap_socket(front._server.socket, server_side=True)
    for variable in (
        ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE") if "environment" in trusted else ()
    ):
        monkeypatch.setenv(variable, str(authority))
    client = HttpClient(
        front.url.replace("http:", "https:"),
        "test",
        FakeTime(),
        FakeTime().sleep,
        authorities=authority if trusted == "by ca_file" else None,
    )
    if not refused:
        assert client.send("POST", "/", auth=("trap", "horse")).status == 200
        return
    with pytest.raises(Unreachable, match=refused):
        client.send("POST", "/", auth=("trap", "horse"))
    assert not any("Authorization" in headers for headers in front.headers)
