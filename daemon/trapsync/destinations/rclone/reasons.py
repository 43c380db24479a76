"""What rclone says when something is wrong, and what follows of it: one line, with what to do.

Its words are those of its seventy backends and of Go's own libraries; whatever is not known here is told as it is.
"""

import re
from collections.abc import Callable, Sequence

from trapsync.destinations.rclone.child import Done, Said
from trapsync.errors import Failed, Unauthorised, Unreachable

_FULL_FOR = 900.0  # seconds until room is looked for again
_BUSY_FOR = 60.0

_AWAY = re.compile(
    r"no such host|connection refused|connection reset|network is unreachable|no route to host|timed? ?out"
    r"|deadline exceeded|broken pipe|use of closed|\beof\b|temporary failure|server misbehaving|connection lost"
    r"|bad gateway|service unavailable|not connected|connection attempt",
    re.IGNORECASE,
)
_HOST_KEY = re.compile(r"knownhosts|host key|key is unknown|key mismatch", re.IGNORECASE)
_CERTIFICATE = re.compile(r"x509|certificate", re.IGNORECASE)
_TOKEN = re.compile(
    r"invalid_grant|token expired|expired.*token|token.*(?:expired|revoked|empty)|couldn't fetch token|empty token|oauth"
    r"|config reconnect|invalid_client",
    re.IGNORECASE,
)
_SKEW = re.compile(r"TimeTooSkewed|request time", re.IGNORECASE)
_LOGIN = re.compile(
    r"unable to authenticate|\b401\b|unauthorized|not authorized|\b530\b|login (?:incorrect|failed)|authentication fail"
    r"|invalidaccesskeyid|signaturedoesnotmatch|invalid access|bad username|invalid credential|no supported methods"
    r"|couldn't decrypt|failed to (?:read|parse) private key|no such file.*key",
    re.IGNORECASE,
)
_FULL = re.compile(
    r"no space left|quota|insufficient.?storage|\b507\b|\b552\b|disk full|not enough (?:space|storage)|insufficient_space"
    r"|storage.?(?:limit|full)|entitytoolarge.*total",
    re.IGNORECASE,
)
_BUSY = re.compile(r"\b429\b|too many requests|rate.?limit|slow.?down|userratelimit", re.IGNORECASE)
_NO_BUCKET = re.compile(
    r"nosuchbucket|bucket does not exist|bucket.*not found|container.*not found", re.IGNORECASE
)
_COUNTS_ONLY = re.compile(r"Attempt \d|Can't retry|Failed to read hash|Failed to \w+ with \d+ errors")
_FORBIDDEN = re.compile(r"\b403\b|forbidden|access.?denied", re.IGNORECASE)


# What is wrong with the remote as a whole, in the order in which it is looked for: network first, for a login cannot be
# renewed without one either. For each its words, the error, and its text of a remote and of what rclone said.
_OF_ALL: tuple[tuple[re.Pattern[str], Callable[[str, str], Unreachable]], ...] = (
    (_AWAY, lambda name, said: Unreachable(f"{name}: cannot be reached: {said}")),
    (
        _TOKEN,
        lambda name, said: Unauthorised(
            f"the login of {name}: has ended; renew it on a computer with a browser: rclone config reconnect {name}: "
            f"and bring its file here ({said})"
        ),
    ),
    (
        _HOST_KEY,
        lambda name, said: Unauthorised(
            f"{name}: shows another host key than its known_hosts_file has; if the server is the right one, put its "
            f"new key there ({said})"
        ),
    ),
    (
        _CERTIFICATE,
        lambda name, said: Unreachable(
            f"{name}: shows a certificate that is not trusted: is this the right network, and the clock? ({said})"
        ),
    ),
    (_SKEW, lambda name, said: Unreachable(f"{name}: finds the trap's clock wrong ({said})", wait=_BUSY_FOR)),
    (
        _LOGIN,
        lambda name, said: Unauthorised(
            f"{name}: rejects the login; correct it with: rclone config ({said})"
        ),
    ),
    (
        _NO_BUCKET,
        lambda name, said: Unauthorised(
            f"{name}: has no such bucket; make it, or correct the setting path ({said})"
        ),
    ),
    (_FULL, lambda name, said: Unreachable(f"{name}: is full; make room there ({said})", wait=_FULL_FOR)),
    (
        _BUSY,
        lambda name, said: Unreachable(f"{name}: asks to be left alone for a while ({said})", wait=_BUSY_FOR),
    ),
)


def of_all(done: Done, name: str) -> Unreachable | None:
    """What is wrong with the remote as a whole, by what was said; None if it is at most a matter of single files."""
    if done.code < 0:
        return Unreachable(f"rclone was killed (signal {-done.code}); had the trap too little memory for it?")
    texts = _texts(done.said)
    for words, error in _OF_ALL:
        if matching := [text for text in texts if words.search(text)]:
            return error(name, matching[0])
    return None


def of_question(done: Done, name: str) -> Unreachable | None:
    """The same of a question. What may not be asked about is not sent, so a 403 is of the remote, and of no name."""
    forbidden = next((text for text in _texts(done.said) if _FORBIDDEN.search(text)), None)
    if forbidden and not _LOGIN.search(forbidden):
        return Unauthorised(f"{name}: rejects the login, or does not let it list and read ({forbidden})")
    return of_all(done, name)


def of_nothing_done(done: Done, name: str) -> Unreachable:
    """What is wrong where rclone could not begin, or not one file could be sent or asked about."""
    text = told(done.said)
    if done.code == 3:
        return Unauthorised(f"{name}: has no such folder; make it, or correct the setting path ({text})")
    return Unreachable(f"rclone ended with {done.code}: {text}")


def is_of_one(done: Done) -> bool:
    """Whether a question had begun, so that one of its names may be to blame for its end."""
    return any("ListJSON" in one.text or one.name for one in done.said)


def of_one(done: Done, file: str) -> Failed:
    """Why one file did not arrive, or cannot be asked about, where others may."""
    own = [one for one in done.said if one.name == file]
    return Failed(f"rclone: {told(own or done.said)}")


def told(said: Sequence[Said]) -> str:
    """The line that says most: rclone's last word only counts what went wrong before it."""
    return next(iter(_texts(said)), "it gave no reason")


def _texts(said: Sequence[Said]) -> list[str]:
    return [one.text for one in said if one.text and not _COUNTS_ONLY.match(one.text)]
