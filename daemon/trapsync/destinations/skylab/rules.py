"""What Skylab Studio accepts, what things are called there, and the check of a callback's signature.

There, a *photo* is what we call an image, and a *job* is a set of photos that are processed together by
the recipe of a *profile*. The facts come from the vendor's own clients in five languages; there is no
published reference that says more.
"""

import base64
import hashlib
import hmac
import math
import re
from datetime import UTC, datetime, tzinfo
from pathlib import PurePosixPath

from trapsync.clock import utc
from trapsync.destinations.nights import Night, night_of
from trapsync.image import Image, parse_name

LARGEST = 27 * 2**20  # bytes
LONGEST_SIDE = 6400  # pixels; this and the next are checked by the vendor's JavaScript client only
MOST_PIXELS = 27_000_000

_LATEST = 253402300799.0  # the last second of 9999; a file may say that it was changed later
_DIGEST = 12  # hex digits of the MD5 in a photo's name
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def problem(image: Image) -> str | None:
    """Why the service would never take this image; None if it should."""
    if image.size > LARGEST:
        return f"it has {image.size / 2**20:.1f} MiB and Skylab takes 27 at the most"
    if max(image.width, image.height) > LONGEST_SIDE:
        return (
            f"it is {image.width} x {image.height} and Skylab takes {LONGEST_SIDE} pixels a side at the most"
        )
    if image.width * image.height > MOST_PIXELS:
        millions = image.width * image.height / 1e6
        return f"it has {millions:.1f} megapixels and Skylab takes {MOST_PIXELS / 1e6:.0f} at the most"
    return None


def photo_name(image: Image) -> str:
    """What the image is called there: its own name, with the beginning of its MD5 before the suffix.

    A photo's name is unique in its job. With the digest in it, a list of names says which bytes are meant,
    and bytes of another image can never be put in their place.
    """
    return f"{_stem(image)}.{image.md5[:_DIGEST]}.jpg"


def is_rival(name: str, image: Image) -> bool:
    """Whether this photo has the name of the image, and other bytes. Names of foreign images are not unique."""
    own = photo_name(image)
    if image.trap_name is None or name == own:
        return False
    return len(name) == len(own) and name.startswith(f"{_stem(image)}.") and name.endswith(".jpg")


def result_place(photo: str) -> str:
    """Where the result of a photo belongs, without its suffix: as its image, where that is a trap's."""
    stem = PurePosixPath(_NO_NAME.sub("_", photo[:200])).stem
    name = parse_name(f"{stem.rpartition('.')[0]}.jpg")
    return (
        f"{name.folder}/{str(name).removesuffix('.jpg')}" if name else f"foreign/{stem.strip('.') or 'image'}"
    )


def _stem(image: Image) -> str:
    name = image.trap_name
    stem = str(name).removesuffix(".jpg") if name else PurePosixPath(image.name).stem
    return _NO_NAME.sub("_", stem)[:100].strip(".") or "image"


def night(image: Image, modified: float | None, zone: tzinfo) -> Night | None:
    """The night of an image, by its name; of a foreign one by its file (unix seconds), as the catalog does.

    None for a foreign one of which the file is not at hand.
    """
    if name := image.trap_name:
        return night_of(name.taken, zone)
    return None if modified is None else night_of(utc(min(max(modified, 0.0), _LATEST)), zone)


def job_name(device: str, what: str, number: int) -> str:
    """What the n-th job of a night or a deployment is called."""
    return f"trapsync-{device}-{what}" + (f"-{number}" if number > 1 else "")


def is_callback_authentic(
    secret: str, timestamp: str, signature: str, body: bytes, now: datetime, most: float = 300.0
) -> bool:
    """Whether a callback (a PATCH) came from the service, and less than `most` seconds ago.

    For a receiver of the operator's: the trap itself asks, and is never called. `timestamp` and `signature` are the
    headers X-Skylab-Timestamp and X-Skylab-Signature; `body` must be the raw bytes, not JSON written anew;
    `secret` is what Skylab gave you for it; `now` is the time, with a time zone. The signature is the base64
    of HMAC-SHA256 over timestamp, colon and body.
    """
    message = timestamp.encode() + b":" + body
    expected = base64.b64encode(hmac.digest(secret.encode(), message, hashlib.sha256))
    is_signed = hmac.compare_digest(expected, signature.encode())
    return is_signed and abs(now.timestamp() - _moment(timestamp)) <= most


def _moment(text: str) -> float:
    """Unix seconds of a timestamp: seconds, milliseconds or ISO 8601, since it is not documented which; else infinity."""
    try:
        number = float(text)
        return number / 1000 if number > 1e11 else number
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.inf
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
