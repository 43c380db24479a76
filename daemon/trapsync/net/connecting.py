"""Connect to a server that may have several addresses, some of which lead nowhere.

Many networks announce IPv6 and do not carry it: whoever tries such an address waits until the end of the patience, at each
connection. So an address that is not the last one is given up early, and the one that was reached goes first from then on.
"""

import errno
import socket
from collections.abc import Iterable

# Seconds for an address that is not the last: a lost SYN is sent again after 1, 3 and 7 of them.
_NOT_THE_LAST = 8.0
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}

# By server, the address that answered last. There are few servers.
_reached: dict[tuple[str, int], object] = {}


class OnlyIPv6(OSError):
    """The server has addresses of IPv6 only, and the network carries none."""


def connect(
    host: str, port: int, timeout: float, options: Iterable[tuple[int, int, int | bytes]]
) -> socket.socket:
    """A connection to the first address that answers. OSError of the one that tells most, if none does."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    found.sort(key=lambda one: one[4] != _reached.get((host, port)))
    early = min(_NOT_THE_LAST, timeout / len(found))
    errors: list[OSError] = []
    for number, (family, kind, protocol, _, address) in enumerate(found, start=1):
        connection = socket.socket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            connection.settimeout(timeout if number == len(found) else early)
            connection.connect(address)
        except OSError as error:
            connection.close()
            errors.append(error)
        else:
            connection.settimeout(timeout)
            _reached[host, port] = address
            return connection
    told = [error for error in errors if error.errno not in _NO_WAY]
    if not told and all(one[0] == socket.AF_INET6 for one in found):
        raise OnlyIPv6(errors[-1].errno, errors[-1].strerror)
    raise (told or errors)[-1]
