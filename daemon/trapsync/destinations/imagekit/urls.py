"""Addresses at ImageKit: where a file can be fetched, made smaller on the way if wanted, and signed.

Pure functions. The signature is an HMAC-SHA1 with the private key over the address as it is sent, without the
endpoint in front and with the moment of its end behind (ImageKit, "URL signing"); it tells nothing of the key.
"""

import hmac
from urllib.parse import quote

# What stands in a path as it is (RFC 3986, 3.3: pchar, and the slash). Other spellings have other signatures.
_SAFE = "/:@!$&'()*+,;=-._~"
# Signed in the place of a moment for an address without end; it is not in the address then.
_NEVER = 9999999999

UNTOUCHED = "orig-true"  # the stored bytes; without it the delivery network encodes anew
SMALL = "w-512,h-512,c-at_max"


def address(endpoint: str, path: str, transformation: str = "") -> str:
    """The address of a file by its path in the media library, and what is to be done to it on the way."""
    plain = f"{endpoint.rstrip('/')}/{quote(path.strip('/'), safe=_SAFE)}"
    return f"{plain}?tr={transformation}" if transformation else plain


def signed(plain: str, endpoint: str, key: str, ends: int | None = None) -> str:
    """The same address with a signature, good until `ends` (unix seconds); None: for ever."""
    content = plain.removeprefix(endpoint.rstrip("/") + "/") + str(ends or _NEVER)
    signature = hmac.new(key.encode(), content.encode(), "sha1").hexdigest()
    until = f"ik-t={ends}&" if ends else ""
    return f"{plain}{'&' if '?' in plain else '?'}{until}ik-s={signature}"
