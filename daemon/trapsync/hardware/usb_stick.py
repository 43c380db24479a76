"""The USB stick that a person brings to the trap: what root's helper reports of it.

systemd/stick-keeper mounts a stick with the label TRAPSYNC where `FOLDER` is, has the daemon deliver, and unmounts it when
`trapsync stick` says that nothing more can go there. Meanwhile its report is in the file `WORD`, for the status and the LED.
"""

from pathlib import Path

FOLDER = Path("/media/trapsync-stick")
WORD = Path("/run/trapsync-stick/word")

_TEXTS = {
    "writing": "is being written to: do not pull it",
    "done": "all is on it: it is safe to pull",
    "failed": "could not take everything; it is safe to pull, see: sudo journalctl -u 'trapsync-stick@*'",
}
_LONGEST = 32


def word(path: Path = WORD) -> str | None:
    """ "writing", "done" or "failed"; None where there is no stick."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            found = file.read(_LONGEST).strip()
    except OSError:
        return None
    return found if found in _TEXTS else None


def described(word: str) -> str:
    """Return the same as a text for a person."""
    return _TEXTS[word]
