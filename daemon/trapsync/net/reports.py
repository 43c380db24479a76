"""Reports: what a trap has its hub know once and keep, a line of JSON each: a night's effort, a deployment.

::

    POST /reports/<device>?since=16
    ["night","2026-06-21",{"schema":1,"night":"2026-06-21",…}]

    {"device":"0a5bb6f4","hub":"93e1…","newest":17,"held":[["night","2026-06-21","<SHA-256>",17]],"refused":[]}

The answer has whatever the hub holds of this trap with a higher `number` than `since`, by the SHA-256 of its line: a hub
counts what it stores. So a trap learns what became of a report whose answer was lost, what another program put in its
place, and by a `newest` below its own that a hub was put back to an older copy.

Whatever sends a report, or answers, may be old, new, broken or hostile: both are decoded into types with bounds. Keys that
are not known here are passed over.
"""

import hashlib
import json
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta

from trapsync.errors import one_line
from trapsync.net import foreign_json

LARGEST = 32 * 1024  # bytes of one report
LARGEST_BATCH = 64 * 1024  # bytes of a request; a report and its end of line fit in always
MOST_AT_ONCE = 200  # reports of a request
MOST_HELD = 1000  # entries of `held` in one answer; the next one goes on
MOST_GAPS = 500  # of one night

# Why a picture that was due was not taken; what each stands for is in `effort.reasons`. A later program may have more.
Reason = Literal["off", "no_power", "battery", "card", "camera", "clock", "paused", "settings", "unknown"]
REASONS: tuple[Reason, ...] = get_args(Reason)

_DEEPEST, _MOST_VALUES = 6, 5000
_MOST = 2**53  # what every reader of JSON holds exactly
_YEARS = range(1970, 2200)
_FARTHEST = timedelta(days=3)  # from a night's date to its hours, in any time zone
_TEXT, _WORDS = 2000, 200  # characters

_Count = Annotated[int, Meta(ge=0, le=10**6)]  # of slots or pictures
_Number = Annotated[int, Meta(ge=0, le=_MOST)]
_Moment = Annotated[datetime, Meta(tz=True)]
_Reason = Annotated[str, Meta(pattern="^[a-z_]{1,30}$")]
_Term = (
    Annotated[str, Meta(max_length=_TEXT)]
    | bool
    | Annotated[int, Meta(ge=-_MOST, le=_MOST)]
    | Annotated[float, Meta(ge=-_MOST, le=_MOST)]
    | Annotated[list[Annotated[str, Meta(max_length=_WORDS)]], Meta(max_length=50)]
    | None
)
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Kind = Annotated[str, Meta(max_length=20)]
_Key = Annotated[str, Meta(max_length=100)]


class Hour(NamedTuple):
    """An hour of a night: when it begins, slots, slots with a picture, and pictures, those out of turn too."""

    begin: _Moment
    expected: _Count
    taken: _Count
    pictures: _Count


class Gap(NamedTuple):
    """Slots in a row that were missed for one reason; `until` is the end of the last one's interval."""

    since: _Moment
    until: _Moment
    missed: _Count
    reason: _Reason


class Night(msgspec.Struct, frozen=True):
    """What was expected and taken in one night, local noon to local noon, named by the date of its evening."""

    night: date
    timezone: Annotated[str, Meta(max_length=64)] = ""
    hours: Annotated[list[Hour], Meta(max_length=50)] = []
    gaps: Annotated[list[Gap], Meta(max_length=MOST_GAPS)] = []

    def __post_init__(self) -> None:
        """Raise ValueError for what no night has."""
        _require(self.night.year in _YEARS, f"the year {self.night.year}")
        moments = [hour.begin for hour in self.hours] + [moment for gap in self.gaps for moment in gap[:2]]
        _require(all(self._is_near(moment) for moment in moments), "a moment of another night")
        _require(all(hour.taken <= hour.expected for hour in self.hours), "more taken than expected")
        _require(all(gap.since <= gap.until for gap in self.gaps), "a gap that ends before it begins")

    def sums(self) -> tuple[int, int]:
        """How many pictures were expected, and how many of those were taken."""
        return sum(hour.expected for hour in self.hours), sum(hour.taken for hour in self.hours)

    def missed(self) -> dict[str, int]:
        """How many were missed for each reason; `unknown` for those of which the gaps say nothing."""
        found = Counter[str]()
        for gap in self.gaps:
            found[gap.reason] += gap.missed
        expected, taken = self.sums()
        found["unknown"] += max(0, expected - taken - found.total())
        return {reason: number for reason, number in found.items() if number}

    def _is_near(self, moment: datetime) -> bool:
        return moment.year in _YEARS and abs(moment.date() - self.night) <= _FARTHEST


class Deployment(msgspec.Struct, frozen=True):
    """A deployment as Camtrap DP has it: where and how the trap stood, from when until when. `terms`: by its own words.

    `is_sure`: it is known when it began, for the trap's clock was set; `is_whole`: with all its terms.
    """

    id: _Key
    began: _Moment
    ended: _Moment | None = None
    is_sure: bool = True
    is_whole: bool = True
    terms: Annotated[dict[Annotated[str, Meta(max_length=64)], _Term], Meta(max_length=100)] = {}

    def __post_init__(self) -> None:
        """Raise ValueError for what no deployment has."""
        _require(all(one.year in _YEARS for one in (self.began, self.ended or self.began)), "an odd year")
        _require(self.ended is None or self.began <= self.ended, "it ends before it begins")
        for name, most in (("latitude", 90), ("longitude", 180)):
            value = self.terms.get(name)
            is_degrees = isinstance(value, int | float) and not isinstance(value, bool)
            _require(value is None or (is_degrees and abs(value) <= most), f"an odd {name}")  # type: ignore[arg-type]

    def cleaned(self) -> "Deployment":
        """The same with each text as one printable line, fit for exports and pages."""
        return msgspec.structs.replace(self, id=one_line(self.id), terms=_cleaned(self.terms))


KINDS: dict[str, type[Night | Deployment]] = {"night": Night, "deployment": Deployment}


class Watched(msgspec.Struct, frozen=True):
    """What one trap watched in one night, as a hub adds it up: slots, those with a picture, and the others by reason.

    `name` is what people call the trap; it may be empty.
    """

    device: str
    name: Annotated[str, Meta(max_length=1000)]
    night: date
    expected: _Number
    taken: _Number
    missed: dict[_Reason, _Number]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class Line(NamedTuple):
    """A report as it is sent."""

    kind: str
    key: str
    body: dict[str, Any]
    data: bytes

    @property
    def sha256(self) -> str:
        """Its digest."""
        return digest(self.data)


class Held(NamedTuple):
    """A report that a hub holds, and the number that it has there."""

    kind: _Kind
    key: _Key
    sha256: _Digest
    number: _Number


class Answer(msgspec.Struct, frozen=True):
    """A hub's answer. `hub` is its id; `newest` the highest number of this trap's reports, 0 for none."""

    device: str
    hub: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    newest: _Number
    held: Annotated[list[Held], Meta(max_length=MOST_HELD)] = []
    refused: Annotated[list[tuple[_Digest, str]], Meta(max_length=MOST_AT_ONCE)] = []


def digest(data: bytes) -> str:
    """The SHA-256 of a line, in hex, without its end."""
    return hashlib.sha256(data).hexdigest()


def line(kind: str, key: str, body: dict[str, Any]) -> Line:
    """A report as a line. ValueError if no hub would take it: then it was not made as it should be."""
    text = json.dumps([kind, key, body], ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    made = read(text.encode("utf-8", "replace"))
    decode(made)
    return made


def read(data: bytes) -> Line:
    """The report in a line; ValueError with the reason if it is none. What is in it is not looked at yet."""
    content = foreign_json.decode(data, LARGEST, deepest=_DEEPEST, most_values=_MOST_VALUES, strict=True)
    match content:
        case [str(kind), str(key), dict(body)]:
            return Line(kind, key, body, data)
    raise ValueError("not a kind, a key and an object")


def decode(report: Line, device: str | None = None) -> Night | Deployment:
    """What a report says; ValueError with one line if it makes no sense, or is not about this trap."""
    found = understood(report.kind, report.body)
    own = str(found.night) if isinstance(found, Night) else found.id
    _require(own == report.key, "a key that is not that of the report")
    is_ours = isinstance(found, Night) or device is None or own.startswith(f"{device}-")
    _require(is_ours, f"the deployments of {device} begin with {device}-")
    return found


def body(text: str) -> Any:
    """The body of a report that was stored; ValueError if it is none."""
    return foreign_json.decode(text.encode(errors="replace"), 2 * LARGEST, deepest=_DEEPEST)


def understood(kind: str, body: object) -> Night | Deployment:
    """The content of a report of that kind; ValueError with one line that names the key if it is none."""
    if kind not in KINDS:
        raise ValueError(f"{one_line(kind, 20)} is no kind of report here")
    return _converted(body, KINDS[kind])  # type: ignore[no-any-return]


def answer(content: object, device: str) -> Answer:
    """The answer in decoded JSON; ValueError with one line if it is none, or is about another trap."""
    found: Answer = _converted(content, Answer)
    _require(found.device == device, "it is about another trap")
    return found


def watched(content: object) -> list[Watched]:
    """What a hub answers about the nights of its traps; ValueError with one line if it makes no sense."""
    return _converted(content, list[Watched])  # type: ignore[no-any-return]


def _converted(content: object, kind: Any) -> Any:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(one_line(error, 150)) from None


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {one_line(key): _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value]
    return one_line(value, _TEXT) if isinstance(value, str) else value


def _require(is_true: bool, otherwise: str) -> None:
    if not is_true:
        raise ValueError(otherwise)
