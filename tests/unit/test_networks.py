"""Networks as they are: names that nobody knows, addresses that lead nowhere. Real sockets; names are in a table."""

import errno
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_time import FakeTime
from fault_server import FaultServer, Original
from trapsync.errors import Unreachable
from trapsync.net import connecting
from trapsync.net.http import HttpClient

Addresses = Callable[..., None]


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Addresses:
    """Give the addresses that the server's name stands for, or the error of looking it up."""

    def give(*found: str, error: int = 0) -> None:
        def look_up(_host: str, port: int, **_: object) -> list[object]:
            if error:
                raise socket.gaierror(error, "x")
            kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in found]
            return [
                (kind, socket.SOCK_STREAM, 0, "", (one, port)) for kind, one in zip(kinds, found, strict=True)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    monkeypatch.setattr(connecting, "_reached", {})
    return give


@pytest.fixture
def front() -> Iterator[FaultServer]:
    with FaultServer(Original()) as front:
        yield front


@pytest.fixture
def black_hole(front: FaultServer) -> Iterator[str]:
    """An address at which nothing ever answers, on the server's port: a queue that is full drops what else comes."""
    with socket.socket(socket.AF_INET6) as full, socket.socket(socket.AF_INET6) as first:
        try:
            full.bind(("::1", front.port))
        except OSError:
            pytest.skip("NOT SHOWN HERE: IPv6 that leads nowhere; this machine has no ::1")
        full.listen(0)
        first.connect(("::1", front.port))
        yield "::1"


def client(front: FaultServer) -> HttpClient:
    clock = FakeTime()
    return HttpClient(f"http://server.example:{front.port}", "x", clock, clock.sleep)


def reason(front: FaultServer) -> str:
    with pytest.raises(Unreachable) as caught:
        client(front).send("POST", "/")
    return str(caught.value).removeprefix(f"server.example:{front.port}: ")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (socket.EAI_AGAIN, "its address cannot be looked up, as no DNS server answers: is the network up?"),
        (
            socket.EAI_NONAME,
            "its name cannot be resolved: there is no such server; check how the name is written",
        ),
    ],
)
def test_a_silent_dns_server_is_told_from_a_name_that_is_wrong(
    front: FaultServer, addresses: Addresses, error: int, says: str
) -> None:
    addresses(error=error)
    assert reason(front) == says


def test_ipv6_that_leads_nowhere_costs_seconds_once(
    front: FaultServer, addresses: Addresses, black_hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses(black_hole, "127.0.0.1")
    monkeypatch.setattr(connecting, "_NOT_THE_LAST", 0.2)
    assert client(front).send("POST", "/get_token").status == 401
    monkeypatch.setattr(connecting, "_NOT_THE_LAST", 60.0)
    began = time.monotonic()
    assert client(front).send("POST", "/get_token").status == 401
    assert time.monotonic() - began < 10, "the address that leads nowhere was tried first again"


def test_the_last_address_has_all_the_patience_and_the_others_a_part_of_it(
    front: FaultServer, addresses: Addresses, black_hole: str
) -> None:
    addresses(black_hole, black_hole)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        connecting.connect("server.example", front.port, 0.4, ())
    assert 0.5 < time.monotonic() - began < 10
    assert connecting._NOT_THE_LAST < 10


def test_an_address_that_answered_and_does_no_more_is_not_waited_for_alone(
    front: FaultServer, addresses: Addresses, black_hole: str
) -> None:
    connecting._reached["server.example", front.port] = (black_hole, front.port)
    addresses("127.0.0.1", black_hole)
    connecting.connect("server.example", front.port, 0.5, ()).close()
    assert connecting._reached["server.example", front.port] == ("127.0.0.1", front.port)


class _NoWay(socket.socket):
    """A socket of a network that carries no IPv6, as its kernel answers."""

    def connect(self, address: Any) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        super().connect(address)


def test_a_network_without_ipv6_costs_nothing_and_a_server_that_has_no_other_address_is_told(
    front: FaultServer, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", _NoWay)
    addresses("2001:db8::1", "127.0.0.1")
    assert client(front).send("POST", "/get_token").status == 401
    addresses("2001:db8::1")
    only = "it has addresses of IPv6 only, which this network does not carry: use another network or server"
    assert reason(front) == only
    with front.down():
        addresses("127.0.0.1", "2001:db8::1")
        assert reason(front) == "connection refused: nothing listens there"
