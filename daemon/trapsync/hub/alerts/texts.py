"""The words of a message: a subject, and a line for each trap and rule, in the order in which things happened."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from trapsync.clock import utc
from trapsync.errors import one_line
from trapsync.hub.alerts.changes import DIGEST, Change
from trapsync.settings.words import count

_MOST_LINES = 20
_MOST_BYTES = 3500  # of a body: ntfy takes 4096, Telegram as many characters
_LONGEST_SUBJECT = 120
_MAYBE_TOLD = "{} may have reached you already: the hub does not know whether its last message was taken."
# In a subject, of changes of more than one trap.
_SHORT = {
    "room": "hub without room",
    "settings": "settings refused",
    "undelivered": "not delivering",
    "card": "card filling",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to one address. `picture` is a JPEG. `is_bad`: something went wrong, rather than right again."""

    subject: str
    body: str
    picture: bytes | None = None
    is_bad: bool = False


def compose(
    changes: Sequence[Change], zone: ZoneInfo, url: str = "", *, tried: int = 0, picture: bytes | None = None
) -> Message:
    """The message about these changes, one at least. `tried`: the number of the last that may have been told before."""
    told = [change for change in changes if change.rule != DIGEST]
    summaries = [change for change in changes if change.rule == DIGEST]
    groups = _grouped(told)
    parts = []
    if changes[0].number <= tried:
        parts.append(_MAYBE_TOLD.format("This" if changes[-1].number <= tried else "The first part of this"))
    if groups:
        parts.append(_lines([_line(group, zone) for group in groups], url))
    if url:
        parts.append(_link([change.device for change in told], url))
    if summaries:
        parts.append(summaries[-1].text)
    subject = _subject(groups) if groups else one_line(summaries[-1].text.partition("\n")[0])
    is_bad = any(group[-1].is_on for group in groups)
    return Message(one_line(subject, _LONGEST_SUBJECT), _cut("\n\n".join(parts)), picture, is_bad)


def _grouped(changes: Sequence[Change]) -> list[list[Change]]:
    """The changes of each trap and rule together."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        groups.setdefault((change.device, change.rule), []).append(change)
    return list(groups.values())


def _subject(groups: list[list[Change]]) -> str:
    if len(groups) == 1:
        return f"{groups[0][-1].name}: {_happened(groups[0])}"
    counts = Counter(_SHORT.get(group[-1].rule, group[-1].rule) for group in groups if group[-1].is_on)
    recovered = sum(not group[-1].is_on for group in groups)
    traps = len({group[0].device for group in groups} - {""})
    found = [f"{number} {rule}" for rule, number in counts.items()]
    return f"{count(traps, 'trap')}: " + ", ".join(found + [f"{recovered} recovered"] * bool(recovered))


def _line(group: list[Change], zone: ZoneInfo) -> str:
    first, last = group[0], group[-1]
    since = f"{_moment(first, zone)}-{_moment(last, zone)}" if len(group) > 1 else _moment(last, zone)
    device = f" ({last.device})" if last.device else ""
    return f"{since} {last.name}{device}: {_happened(group)}"


def _happened(group: list[Change]) -> str:
    """What became of a rule: what went back before anybody was told is told as that."""
    first, last = group[0], group[-1]
    if len(group) == 1 or (first.is_on and last.is_on):
        return last.text
    return f"{last.text}; before: {first.text}" if first.is_on else f"{first.text}, and then: {last.text}"


def _lines(lines: list[str], url: str) -> str:
    shown, size = list[str](), 0
    for line in lines[:_MOST_LINES]:
        size += len(line.encode()) + 1
        if size > _MOST_BYTES - 500:
            break
        shown.append(line)
    left = len(lines) - len(shown)
    return "\n".join(shown + ([f"and {left} more" + (", on the hub's page" if url else "")] if left else []))


def _link(devices: list[str], url: str) -> str:
    own = set(devices) - {""}
    return f"{url.rstrip('/')}/trap/{own.pop()}" if len(own) == 1 else f"{url.rstrip('/')}/"


def _moment(change: Change, zone: ZoneInfo) -> str:
    """The local time of a change, with its day: a message may have waited for the end of a night."""
    return f"{local(change.at, zone):%a %H:%M}"


def local(at: float, zone: ZoneInfo) -> datetime:
    """Unix seconds as a local time."""
    return utc(at).astimezone(zone)


def _cut(text: str) -> str:
    """As many bytes as every service takes."""
    data = text.encode(errors="replace")
    return text if len(data) <= _MOST_BYTES else f"{data[: _MOST_BYTES - 3].decode(errors='ignore')}…"
