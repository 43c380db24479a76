"""A network that only a proxy leads out of: through a real one, and counted at both of its ends."""

import logging
import ssl
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import external_programs
import s3_store
from conformance import Card
from fake_time import FakeTime
from fault_server import FaultServer, Original
from memory_context import SOURCE, connected, context
from proxy_server import ProxyServer
from s3_store import Store
from trapsync import destinations
from trapsync.destinations import Finding, http_service, kinds
from trapsync.doctor import network
from trapsync.errors import SettingsError, Unauthorised, Unreachable
from trapsync.net.http import HttpClient
from trapsync.net.proxy import Proxy, proxy_for
from trapsync.remote.policy import can_be_remote
from trapsync.remote.uplink.http import HttpLink
from trapsync.settings.config_file import decode, from_tables
from trapsync.settings.schema import Hub, Settings

# A name that no DNS server knows: what reaches the server went through the proxy, which alone knows where it is.
NAME = "server.invalid"
SECRET = "hunter2 é"  # not Latin-1 in whole, nor fit for an address as it is
VARIABLES = [f"{name}_proxy" for name in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path / "spool")


@pytest.fixture
def original() -> Original:
    return Original()


@pytest.fixture
def front(original: Original) -> Iterator[FaultServer]:
    with FaultServer(original) as front:
        original.url = f"http://{NAME}"
        yield front


@pytest.fixture
def proxy(front: FaultServer) -> Iterator[ProxyServer]:
    with ProxyServer({NAME: front.port, f"{NAME}:443": front.port}) as proxy:
        yield proxy


def client(proxy: ProxyServer, *, scheme: str = "http", **more: Any) -> HttpClient:
    """A client of the server, by way of the proxy."""
    time, options = FakeTime(), {key: more.pop(key) for key in ("authorities",) if key in more}
    return HttpClient(f"{scheme}://{NAME}", "x", time, time.sleep, proxy=Proxy(proxy.url, **more), **options)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with its certificate, for the server and for the proxy."""
    external_programs.require("openssl", shows="a proxy in front of TLS")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=x", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    openssl = external_programs.find("openssl") or ""
    command = [openssl, "req", *kind, *names, "-keyout", str(file), "-out", "-"]
    answer = subprocess.run(command, check=True, capture_output=True).stdout
    file.write_bytes(file.read_bytes() + answer)
    return file


def with_tls(front: FaultServer, certificate: Path) -> None:
    """Let the server speak TLS from now on."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    front._server.socket = tls.wrap_socket(front._server.socket, server_side=True)


def secret(folder: Path) -> Path:
    file = folder / "proxy.password"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


# ── The way ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_reaches_its_destination_through_the_proxy_only(
    front: FaultServer, proxy: ProxyServer, original: Original, card: Card, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(original.password)
    (tmp_path / "password").chmod(0o600)
    table = {
        "kind": "stickypi",
        "url": f"http://{NAME}",
        "username": original.user,
        "password_file": str(tmp_path / "password"),
        "proxy": proxy.url,
    }
    image, far = card.image(), connected("far", table)
    assert far.deliver(image, card.path(image)).digest == f"md5:{image.md5}"
    far.close()
    assert len(original.rows) == 1
    # Both ends counted the same: nothing went by another way.
    assert [request.split(" ")[1] for request in proxy.asked] == [
        f"http://{NAME}{path}" for path in front.requests
    ]


def test_a_bucket_is_reached_through_a_tunnel_by_an_authority_of_its_own(
    seaweed: Store, certificate: Path, card: Card, tmp_path: Path
) -> None:
    image = card.image()
    with s3_store.site(seaweed, tmp_path) as site, ProxyServer({f"{NAME}:443": site.front.port}) as proxy:
        with_tls(site.front, certificate)
        keys: dict[str, Any] = {"endpoint": f"https://{NAME}", "proxy": proxy.url}
        site.connect(**keys, ca_file=str(certificate)).deliver(image, card.path(image))
        with pytest.raises(Unreachable, match="its certificate cannot be trusted"):
            site.connect(**keys).deliver(image, card.path(image))
        assert set(proxy.asked) == {f"CONNECT {NAME}:443"}
    assert site.stored() == {image.name: card.bytes(image)}


def test_https_goes_through_a_tunnel_and_the_server_is_verified(
    front: FaultServer, proxy: ProxyServer, certificate: Path
) -> None:
    with_tls(front, certificate)
    client(proxy, scheme="https", authorities=certificate).send("POST", "/get_token")
    assert proxy.asked == [f"CONNECT {NAME}:443"]
    with pytest.raises(Unreachable, match=rf"^{NAME}: its certificate cannot be trusted"):
        client(proxy, scheme="https").send("POST", "/get_token")
    assert front.requests == ["/get_token"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_speaks_tls_is_verified_too(front: FaultServer, certificate: Path, scheme: str) -> None:
    if scheme == "https":
        with_tls(front, certificate)
    with ProxyServer({NAME: front.port, f"{NAME}:443": front.port}, cert=certificate) as proxy:
        client(proxy, scheme=scheme, authorities=certificate).send("POST", "/get_token")
        assert len(proxy.asked) == len(front.requests) == 1
        with pytest.raises(Unreachable, match=f"^the proxy {proxy.host}, .* cannot be trusted"):
            client(proxy, scheme=scheme).send("POST", "/get_token")
        assert len(proxy.asked) == 1


def test_the_hub_is_asked_and_told_through_the_proxy(front: FaultServer, proxy: ProxyServer) -> None:
    time = FakeTime()
    hub = decode({"url": f"http://{NAME}", "proxy": proxy.url}, Hub, SOURCE)
    link = HttpLink(hub, "0a5bb6f4", ["all.settings"], time, time.sleep)
    for ask in (lambda: link.pull(print), lambda: link.tell(b"{}")):
        with pytest.raises(Unreachable):
            ask()  # type: ignore[no-untyped-call]
    link.close()
    assert [one.partition(" ")[2] for one in proxy.asked] == [
        f"http://{NAME}/pushed/all.settings",
        f"http://{NAME}/heartbeats/0a5bb6f4",
    ]
    assert front.requests == ["GET /pushed/all.settings", "/heartbeats/0a5bb6f4"]


# ── The account ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_account_comes_from_its_file_and_reaches_the_proxy_alone(
    front: FaultServer, tmp_path: Path, certificate: Path, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if scheme == "https":
        with_tls(front, certificate)
    with ProxyServer({NAME: front.port, f"{NAME}:443": front.port}, f"trap:{SECRET}") as proxy:
        login = {"username": "trap", "password_file": secret(tmp_path), "key": "hub.proxy_password_file"}
        client(proxy, scheme=scheme, authorities=certificate, **login).send("POST", "/get_token")
        assert len(front.requests) == 1
        assert "Proxy-Authorization" not in front.headers[0]
        (tmp_path / "proxy.password").write_text("wrong")
        with pytest.raises(Unauthorised) as caught:
            client(proxy, scheme=scheme, authorities=certificate, **login).send("POST", "/")
        assert str(caught.value) == f"the proxy {proxy.host} rejects the login (407); check user and password"
        with pytest.raises(Unauthorised, match=r"wants a login \(407\): set proxy_username and proxy_pass"):
            client(proxy, scheme=scheme).send("POST", "/")
        (tmp_path / "proxy.password").unlink()
        with pytest.raises(Unauthorised, match=r"^hub\.proxy_password_file: the secret .* cannot be read"):
            client(proxy, scheme=scheme, authorities=certificate, **login).send("POST", "/")
    assert len(front.requests) == 1
    assert SECRET not in caplog.text


def test_a_password_that_was_fixed_counts_without_a_restart(front: FaultServer, tmp_path: Path) -> None:
    time, file = FakeTime(), secret(tmp_path)
    file.write_text("old")
    with ProxyServer({NAME: front.port}, f"trap:{SECRET}") as proxy:
        far = HttpClient(f"http://{NAME}", "x", time, time.sleep, proxy=Proxy(proxy.url, "trap", file, "x"))
        with pytest.raises(Unauthorised):
            far.send("POST", "/get_token")
        file.write_text(SECRET)
        time.sleep(900)
        assert far.send("POST", "/get_token").status == 401  # the server's word
    far.close()


# ── What fails ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named_and_not_the_server(front: FaultServer, scheme: str) -> None:
    with ProxyServer({}) as gone:
        pass
    with pytest.raises(Unreachable) as caught:
        client(gone, scheme=scheme).send("POST", "/")
    reason = "connection refused: nothing listens there"
    assert str(caught.value) == f"the proxy {gone.host}, on the way to {NAME}: {reason}"
    assert front.requests == []


def test_a_proxy_that_gives_no_way_is_named_with_its_answer(front: FaultServer) -> None:
    with (
        ProxyServer({}, answer=403) as proxy,
        pytest.raises(Unreachable, match=f"^the proxy {proxy.host} gives no way to {NAME}: it answered 403$"),
    ):
        client(proxy, scheme="https").send("POST", "/")


# ── The settings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"proxy": "socks5h://proxy:1080"}, 'proxy: cannot be one for SOCKS; one for HTTP is written "http'),
        ({"proxy": "proxy:3128"}, "proxy: 'proxy:3128' is not an address such as"),
        ({"proxy": f"http://me:{SECRET}@proxy:3128"}, "use proxy_username and proxy_password_file"),
        ({"proxy": "http://proxy:3128", "proxy_username": "me"}, "goes with a proxy_password_file"),
        (
            {"proxy": "environment", "proxy_username": "me"},
            "proxy_username: goes with the address of a proxy",
        ),
    ],
)
def test_what_is_no_proxy_is_refused(more: dict[str, str], says: str) -> None:
    table = {"kind": "skylab", "key_file": "key", "profile": 1}
    for refused in (
        lambda: destinations.check("far", table | more, SOURCE),
        lambda: decode({"url": "https://hub.example.org"} | more, Hub, SOURCE),
    ):
        with pytest.raises(SettingsError) as caught:
            refused()
        assert says in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_broker_cannot_be_reached_through_one() -> None:
    with pytest.raises(SettingsError, match="MQTT does not go through one"):
        decode({"proxy": "http://proxy:3128", "mqtt": {"host": "broker"}}, Hub, SOURCE)


def test_every_destination_over_http_has_one_and_nobody_sends_one_from_afar() -> None:
    for kind in kinds.BUILT_IN:
        has_one = "proxy" in kinds.load(kind).Settings.__struct_fields__
        assert has_one == (kind not in {"directory", "rclone"})  # rclone has settings of its own for it
    for key in ("proxy", "proxy_username", "proxy_password_file"):
        assert not can_be_remote(("destinations", "far", key))
        assert not can_be_remote(("hub", key))


def test_the_environment_counts_where_a_setting_says_so(
    front: FaultServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://trap:{SECRET.replace(' ', '%20')}@{proxy.host}")
    assert proxy_for(f"http://{NAME}", Hub(), "hub") is None
    says = Hub(proxy="environment")
    found = proxy_for(f"http://{NAME}", says, "hub")
    assert found is not None
    assert (found.url, found.login()) == (proxy.url, ("trap", SECRET))
    assert proxy_for(f"https://{NAME}", says, "hub") is None, "HTTP_PROXY is for http"
    monkeypatch.setenv("no_proxy", "example.org,.invalid")
    assert proxy_for(f"http://{NAME}", says, "hub") is None
    monkeypatch.setenv("https_proxy", f"socks5://trap:{SECRET}@{proxy.host}")
    with pytest.raises(SettingsError, match="is not an address") as caught:
        proxy_for("https://example.com", says, "hub")
    assert SECRET not in str(caught.value)


def test_a_destination_takes_its_proxy_from_the_environment(
    front: FaultServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.host)
    given = context()
    for proxied, asked in (({}, 0), ({"proxy": "environment"}, 1)):
        table = {"kind": "skylab", "url": f"http://{NAME}", "key_file": "key", "profile": 1} | proxied
        settings = cast("http_service.Settings", destinations.check("far", table, SOURCE).settings)
        far = http_service.client(f"http://{NAME}", settings, given)
        try:
            far.send("POST", "/get_token")
        except Unreachable:
            assert not proxied
        assert len(proxy.asked) == asked


# ── The doctor ───────────────────────────────────────────────────────────────────────────────────────


def settings(text: str, folder: Path) -> Settings:
    return from_tables(tomllib.loads(text), folder / "trapsync.toml")


HUB = '[hub]\nurl = "http://server.invalid"\nusername = "u"\npassword_file = "x"\n'
STICK = '[destinations.stick]\nkind = "directory"\npath = "/media/x"\n'


def test_the_doctor_connects_to_the_proxy_and_says_which(tmp_path: Path, proxy: ProxyServer) -> None:
    asked = []
    found = settings(f'{HUB}proxy = "{proxy.url}"\n{STICK}', tmp_path)
    (one,) = network.hub(found, FakeTime(), lambda host, port: asked.append(f"{host}:{port}"))
    assert (one.verdict, asked) == ("ok", [proxy.host])
    assert one.text == f"the proxy {proxy.host}, on the way to server.invalid, answers"
    assert network.proxies(found) == [Finding("ok", "proxy", f"hub through {proxy.host}")]


def test_variables_that_do_not_count_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://me:{SECRET}@proxy:3128")
    (one,) = network.proxies(settings(HUB + STICK, tmp_path))
    assert one.verdict == "warning"
    assert one.text.startswith("HTTPS_PROXY set, and not used: ")
    assert one.text.endswith('set proxy = "environment" or its address in [hub]')
    assert network.proxies(settings(STICK, tmp_path)) == []
    (one,) = network.proxies(settings(f'{HUB}proxy = "environment"', tmp_path))
    assert one.text.startswith("hub through what the environment says (none here; ")
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@proxy:3128")
    (one,) = network.proxies(settings(f'{HUB}proxy = "environment"', tmp_path))
    assert (one.verdict, SECRET in one.text, "(here proxy:3128; " in one.text) == ("ok", False, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HUB, "hub: everybody on the way to server.invalid can read its password; write https:// in hub.url"),
        (HUB.replace("http:", "https:"), ""),
        (HUB.replace("server.invalid", "127.0.0.1:8080"), ""),
        (HUB.replace("server.invalid", "192.168.4.1:8080"), ""),
        (HUB.replace("server.invalid", "[fd00::7]"), ""),
        (HUB.replace("server.invalid", "hub.local"), ""),
        (HUB.replace("server.invalid", "hub"), ""),
        (
            '[hub]\nurl = "http://server.invalid"\n',
            (
                "hub: everybody on the way to server.invalid can read what is sent, and answer in its place; "
                "write https:// in hub.url"
            ),
        ),
        (
            f'{HUB.replace("http:", "https:")}heartbeat_url = "http://beats.invalid"\n',
            "hub: everybody on the way to beats.invalid can read its password; write https:// in hub.heartbeat_url",
        ),
        (
            (
                f'{HUB.replace("http:", "https:")}proxy = "http://proxy.invalid:3128"\nproxy_username = "u"\n'
                'proxy_password_file = "x"\n'
            ),
            "hub: everybody on the way to proxy.invalid can read its password; write https:// in hub.proxy",
        ),
        (f'{HUB.replace("http:", "https:")}proxy = "http://proxy.invalid:3128"\n', ""),
        (
            '[destinations.x]\nkind = "imagekit"\napi_url = "http://api.invalid"\nprivate_key_file = "x"\n',
            (
                "destinations.x: everybody on the way to api.invalid can read its password; "
                "write https:// in destinations.x.api_url"
            ),
        ),
        (
            '[hub.mqtt]\nhost = "broker.example"\ntls = false\nusername = "u"\npassword_file = "x"\n',
            "hub.mqtt: everybody on the way to broker.example can read its password; set hub.mqtt.tls = true",
        ),
        (
            '[hub.mqtt]\nhost = "broker.example"\ntls = false\n',
            (
                "hub.mqtt: everybody on the way to broker.example can read what is sent, and answer in its place; "
                "set hub.mqtt.tls = true"
            ),
        ),
        ('[hub.mqtt]\nhost = "10.0.0.7"\ntls = false\n', ""),
        (
            '[destinations.x]\nkind = "s3"\nendpoint = "http://8.8.8.8"\nsecret_file = "x"\n',
            (
                "destinations.x: everybody on the way to 8.8.8.8 can read what is sent, and answer in its place; "
                "write https:// in destinations.x.endpoint"
            ),
        ),
        (
            '[destinations.x]\nkind = "stickypi"\nurl = "http://8.8.8.8"\npassword_file = "x"\n',
            "destinations.x: everybody on the way to 8.8.8.8 can read its password; write https:// in destinations.x.url",
        ),
    ],
)
def test_what_goes_without_tls_is_told(tmp_path: Path, text: str, told: str) -> None:
    assert [one.text for one in network.without_tls(settings(text, tmp_path))] == ([told] if told else [])
