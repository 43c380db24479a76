"""One line for a person out of whatever requests, urllib3, ssl and the system raise.

Their own texts are not used: they show objects' addresses, and some hold the whole request.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3

from trapsync import clock as clocks
from trapsync.errors import Unreachable
from trapsync.net.connecting import OnlyIPv6
from trapsync.net.http_answer import PORTAL
from trapsync.net.proxy import Proxy

_CUT = "the connection was cut"
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")  # http.client, of a proxy that says no
# X509_V_ERR_* of OpenSSL
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME = {62, 64}
_UNKNOWN_AUTHORITY = {18, 19, 20, 21}

# In the order of how much they tell.
_REASONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (
        OnlyIPv6,
        "it has addresses of IPv6 only, which this network does not carry: use another network or server",
    ),
    (ConnectionRefusedError, "connection refused: nothing listens there"),
    ((TimeoutError, urllib3.exceptions.TimeoutError), "no answer in time"),
    (ssl.SSLError, "TLS fails: is it an https server, and nothing in between?"),
    ((ConnectionError, urllib3.exceptions.ProtocolError), _CUT),
    (requests.exceptions.InvalidURL, "this is not the address of a server"),
)


def unreachable(error: BaseException, host: str, proxy: Proxy | None, now: float) -> Unreachable:
    """What to raise for an error on the way to a host; `now` is the trap's wall clock."""
    causes = list(_causes(error))
    if proxy and any(isinstance(cause, urllib3.exceptions.ProxyError) for cause in causes):
        return _of_the_proxy(causes, host, proxy, now)
    reason = _reason(causes, now)
    return Unreachable(f"{host}: {reason}", was_cut=reason == _CUT)


def _of_the_proxy(causes: list[BaseException], host: str, proxy: Proxy, now: float) -> Unreachable:
    refused = next(filter(None, (_TUNNEL.match(str(cause)) for cause in causes)), None)
    if refused is None:
        return Unreachable(f"the proxy {proxy.host}, on the way to {host}: {_reason(causes, now)}")
    if refused[1] == "407":
        return proxy.denial()
    return Unreachable(f"the proxy {proxy.host} gives no way to {host}: it answered {refused[1]}")


def _reason(causes: list[BaseException], now: float) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, now)
        if isinstance(cause, socket.gaierror):
            return no_address(cause)
    for kinds, text in _REASONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return text
    system = [cause for cause in causes if isinstance(cause, OSError) and cause.strerror]
    if any(cause.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH} for cause in system):
        return "no way leads there: is the network up?"
    return f"the connection failed: {system[0].strerror if system else type(causes[-1]).__name__}"


def no_address(error: socket.gaierror) -> str:
    """Whether nobody answered what the address is, or there is none."""
    if error.errno == socket.EAI_AGAIN:
        return "its address cannot be looked up, as no DNS server answers: is the network up?"
    return "its name cannot be resolved: there is no such server; check how the name is written"


def _certificate(error: ssl.SSLCertVerificationError, now: float) -> str:
    says = clocks.iso(clocks.utc(now))
    if error.verify_code == _NOT_YET_VALID:
        return f"its certificate is not valid yet: the trap's clock is probably wrong, it says {says}"
    if error.verify_code == _EXPIRED:
        return f"its certificate has expired, or the trap's clock is wrong: it says {says}"
    if error.verify_code in _OTHER_NAME:
        return f"its certificate is that of another server: {PORTAL}"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        text = f"its certificate cannot be trusted: {error.verify_message}"
        return f"{text}; set ca_file, if the server is yours; else {PORTAL}"
    return f"its certificate cannot be trusted: {error.verify_message}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was made of, wherever requests and urllib3 hide it."""
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo:
        cause = todo.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [getattr(cause, "reason", None), cause.__cause__, cause.__context__, *cause.args]
