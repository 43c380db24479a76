"""The ping of a dead-man's service: a plain GET within bounds."""

import socket

import pytest

import receivers
from trapsync.clock import SystemClock
from trapsync.errors import Unreachable
from trapsync.net import ping as module
from trapsync.net.ping import ping


def rest(_seconds: float) -> None:
    """No time passes."""


def test_a_ping_asks_for_the_whole_address() -> None:
    with receivers.receiving() as receiver:
        ping(f"http://127.0.0.1:{receiver.server_port}/sesame?rid=1", SystemClock(), rest)
    assert receiver.pings == ["/sesame?rid=1"]


def test_a_ping_logs_in_where_its_address_names_a_user() -> None:
    with receivers.receiving() as receiver:
        ping(f"http://me:sesame%20two@127.0.0.1:{receiver.server_port}/x", SystemClock(), rest)
    assert receiver.logins == ["me:sesame two"]


def test_a_ping_that_gets_nowhere_tells_no_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        ping(f"http://me:sesame@127.0.0.1:{port}/x", SystemClock(), rest)
    assert str(caught.value).startswith(f"127.0.0.1:{port}: ")


@pytest.mark.parametrize("path", ["refuses", "hangs", "floods"])
def test_an_answer_that_is_none_is_given_up_and_tells_no_secret(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WITHIN", 1.5)
    with receivers.receiving() as receiver, pytest.raises(Unreachable) as caught:
        ping(f"http://127.0.0.1:{receiver.server_port}/{path}?sesame", SystemClock(), rest)
    assert "sesame" not in str(caught.value)
    assert receiver.flooded < 20e6
