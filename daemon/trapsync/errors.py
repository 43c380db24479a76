"""The errors that the program raises on purpose.

::

    TrapsyncError                 one line for a person, never a traceback
    ├── SettingsError             the operator must change a setting
    ├── CatalogError              the catalog cannot be opened or written
    │   ├── CatalogDamaged        … because its file is damaged: keep it aside, make a new one
    │   │   └── CatalogOfNewer    … for this program: a newer one wrote it
    │   └── Unstorable            … because it cannot hold this value: only the item with the value fails
    ├── StorageError              the card or a folder cannot be used: full, read-only, no permission
    ├── CameraError               no picture: the camera failed, hung or is missing
    ├── RefusedDocument           a signed document that the trap does not accept, with the code of the reason
    ├── GpioError                 a pin of the Pi's header cannot be used
    ├── NotSent                   a message to people was not sent, or nobody knows
    ├── DamagedImage              this file is damaged: quarantine it with the reason
    │   ├── IncompleteImage       … or it is still being written: look again first
    │   └── ExaminerKilled        … or that is unknown, as its examiner was killed: look again later
    └── DeliveryError             an image did not reach a destination
        ├── Unreachable           try again later; not the fault of the image
        │   └── Unauthorised      … but rarely: the operator has to fix the credentials
        ├── Failed                the destination works and did not take this image; try it again
        │   └── Unresolved        … or has it all the same: ask, and send it again, in the same turn
        ├── Held                  not yet: the image waits for something on the trap
        ├── NotThere              the destination lost what it had confirmed: its proof is withdrawn
        └── Refused               never again, until somebody runs: trapsync retry

The destination decides which of the last seven it is. Any other exception is a bug, and is reported loudly.
"""

import re

_LONGEST_REASON = 1000
_LONGEST_REFUSAL = 500  # of a document
_MOST_SPACES = 4  # how many times as long as its line a text from outside is looked at

# What a terminal obeys and what turns the order of letters round: C0, DEL, C1 (ANSI sequences begin with one of these),
# separators of lines, marks of direction, and what is invisible; halves of surrogates, which SQLite does not take. It is a
# list, and not what Python calls printable: that depends on the Unicode version of Python.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The same text without what a terminal obeys and a log takes for another line: a question mark for each."""
    return _CONTROL.sub("?", text)


def one_line(text: object, most: int = 200) -> str:
    """Make a text from outside fit for a log, a terminal, a page and the catalog: one printable line of `most` characters.

    The one cleaner of such texts: wherever a word of a server, a document or a heartbeat is shown or kept, it went
    through here. A longer one is cut.
    """
    line = printable(" ".join(str(text)[: _MOST_SPACES * most].split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def is_refusal(error: Exception) -> bool:
    """Whether the card, the catalog or the other side refuses, which is about no item in particular."""
    return isinstance(error, TrapsyncError | OSError) and not isinstance(error, Unstorable)


def unexpected(error: Exception) -> str:
    """An error at which our own program failed, as a reason for people."""
    return str(error) if isinstance(error, TrapsyncError) else f"failed unexpectedly ({error!r}): see the log"


class TrapsyncError(Exception):
    """An error meant for a person: its text is one line that says what is wrong and what to do."""

    def __str__(self) -> str:
        """The line, printable whatever went into it: a path, say, or a word of another program."""
        return printable(" ".join(super().__str__().splitlines()))


class SettingsError(TrapsyncError):
    """A setting is wrong; the text names the file, the key and the reason."""


class CatalogError(TrapsyncError):
    """The catalog cannot be opened, read or written."""


class CatalogDamaged(CatalogError):
    """The catalog's file is damaged, or written by a newer program."""


class CatalogOfNewer(CatalogDamaged):
    """A newer program wrote the catalog; that one can still read it."""


class Unstorable(CatalogError):
    """A value that SQLite cannot hold: an invalid text, a number beyond 64 bits, one that breaks a constraint."""


class StorageError(TrapsyncError):
    """A read or a write on the card or in a folder failed."""


class CameraError(TrapsyncError):
    """The camera gave no picture."""


class RefusedDocument(TrapsyncError):
    """A signed document is not accepted, and nothing was changed.

    `code` is the reason in one word, for reports: size, shape, key, signature, schema, addressee, replay, expired,
    settings, forbidden, limits, rejected_before.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(one_line(text, _LONGEST_REFUSAL))
        self.code = code


class GpioError(TrapsyncError):
    """A pin of the Pi's header cannot be used."""


class NotSent(TrapsyncError):
    """A message to people was not sent; the text is one line without secrets. `is_unknown`: it may have been."""

    def __init__(self, message: str, *, is_unknown: bool = False) -> None:
        super().__init__(one_line(message))
        self.is_unknown = is_unknown


class DamagedImage(TrapsyncError):
    """The file is not a whole JPEG; the text is the reason kept with it in quarantine."""


class IncompleteImage(DamagedImage):
    """The file has no end: it is cut off, or still being written. Only a later look can tell."""


class ExaminerKilled(DamagedImage):
    """The examiner was killed from outside, by the kernel for want of memory, say. This says nothing of the file."""


class DeliveryError(TrapsyncError):
    """An image did not reach a destination. Text of the other side becomes one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, _LONGEST_REASON))


class Unreachable(DeliveryError):
    """No answer that counts; whether the image arrived is unknown, so ask before sending again.

    `wait` is the least number of seconds until the next attempt that the destination asked for
    (a Retry-After, say), or zero. `was_cut`: the server was there, and the connection ended before its answer.
    """

    def __init__(self, message: str, *, wait: float = 0.0, was_cut: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.was_cut = was_cut


class Unauthorised(Unreachable):
    """Login rejected (401), or not allowed (403). At most one attempt in fifteen minutes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, wait=900.0)


class Failed(DeliveryError):
    """The destination works but did not take this one image, and gave no final reason."""


class Unresolved(Failed):
    """The destination failed at this image and gave no reason: it may have it, and may take it at the next attempt."""


class Held(DeliveryError):
    """The image is valid but cannot be delivered yet; the text says what it waits for.

    `wait` is in how many seconds it is worth looking again; zero if that is unknown: `retry_max` then.
    """

    def __init__(self, message: str, *, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(DeliveryError):
    """The destination will never take this image as it is; the text says why."""


class NotThere(DeliveryError):
    """The destination reports that it lost an image which it had confirmed, or holds other bytes."""
