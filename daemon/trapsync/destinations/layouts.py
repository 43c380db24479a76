"""Under which names images lie at a destination: layouts, and what of them is remembered.

A layout is a word or a template of named fields. It is for people and for what reads the names afterwards; what an
image is, and that it is there only once, depends on no name. Names on the card never change.

::

    {trap}       the trap's name (trap.name) in letters, digits, - and _; its id where it has none
    {device}     the trap's id of 8 hexadecimal digits, as the image's own name has it; {device:undated} is the
                 same, but one of digits only is 1234-5678, which no program takes for a date
    {name}       the name on the card without its end: 0a5bb6f4.2026-06-01_22-00-00 (UTC)
    {night}      the date of its evening, in the trap's local time: from noon to noon
    {local:…}    the trap's local time: %Y %m %d %H %M %S
    {utc:…}      UTC, in the same way

Local time has one fixed offset (`trap.utc_offset`): with summer time an hour of the autumn would come twice, and with
it two images would have one name.
"""

import errno
import json
import logging
import re
import threading
import unicodedata
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, Protocol

from trapsync.destinations import DestinationContext
from trapsync.errors import Held, SettingsError, StorageError
from trapsync.files import durable, failpoint
from trapsync.hardware.device_id import device_id
from trapsync.image import Image, TrapName, is_others_folder
from trapsync.net import foreign_json
from trapsync.settings.schema import Destination, Settings
from trapsync.settings.time_zone import fixed_offset

log = logging.getLogger(__name__)

# What reads them, and where that was seen (stored copies of 2026; the tests say the same again):
# Antenna, ami/utils/dates.py: the last part of a key, as local time. The first of 14 digits in a row; 8, anything
# but digits, 6; YYYY?MM?DD…HH?MM?SS; 12 in a row. A key has 255 characters at most.
# ami-data-companion, filemanagement.py: the first 14 digits in a row; else EXIF.
# AMBER, object-store-scripts, utils/aws_scripts.py: what is between the last - and "-snapshot.jpg", in the folder
# snapshot_images of a deployment.
# camtrapR: a folder for each station, in it one for each camera; names as its imageRename makes them; times from EXIF.
PRESETS = {
    "standard": "{device}/{utc:%Y-%m-%d}/{name}.jpg",
    "flat": "{name}.jpg",
    "antenna": "{trap}/{local:%Y%m%d%H%M%S}-{device}.jpg",
    "amber": "{trap}/snapshot_images/{device:undated}-{local:%Y%m%d%H%M%S}-snapshot.jpg",
    "camtrapr": "{trap}/{device}/{trap}__{device}__{local:%Y-%m-%d}__{local:%H-%M-%S}.jpg",
}
_FIELDS = ("trap", "device", "name", "night", "local", "utc")
_OF_TIME = set("YmdHMS")
_UNDATED = "undated"
# Where images lie that are none of a trap's own: in a folder of their trap's, under their own path.
_OTHERS = "other"

LONGEST = 255  # characters of a key: what Antenna's table takes
_MOST_EARLIER = 32
_LARGEST_RECORD = 256 * 1024
_NOT_OURS = {errno.EFBIG, errno.ELOOP, errno.ENXIO, errno.EISDIR}  # too large, a link, a pipe, a folder
# No file system of Windows has them in names, nor has a stick.
_NOT_IN_NAMES = re.compile(r'[\0-\x1f\x7f\\:?*"<>|]')
_OF_WINDOWS = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
# What a reader takes for a time: see above.
_TIME_IN_NAME = re.compile(r"\d{14}|\d{8}\D+\d{6}|\d{4}(?:\D\d\d){2}\D+\d\d(?:\D\d\d){2}|(?<!\d)\d{12}(?!\d)")
# With these, what a template makes of times is told apart: no two of their numbers are alike.
_EXAMPLE = datetime(2026, 9, 18, 22, 41, 53, tzinfo=UTC)


class WithLayout(Destination, frozen=True, kw_only=True):
    """The settings of a destination that keeps images under names of its owner's choice."""

    layout: str = "standard"

    @property
    def prefix_of_keys(self) -> str:
        """What stands before each name at the destination."""
        return ""

    def require(self, settings: Settings) -> None:
        """Raise ValueError for a layout that could lose or mix up images, or that would be misread."""
        super().require(settings)
        require(self.layout, settings, self.prefix_of_keys)


class _Device(str):
    """A trap's id, as a field of a template."""

    def __format__(self, form: str) -> str:
        is_like_a_date = form == _UNDATED and self.isdigit()
        return f"{self[:4]}-{self[4:]}" if is_like_a_date else str(self)


@dataclass(frozen=True, slots=True)
class Layout:
    """A template, and what its fields stand for at one trap: a name follows from these and from the image alone.

    `trap` is its name as names have it, "" where it has none; `offset` is of local time, in minutes east of UTC.
    """

    template: str
    trap: str
    offset: int

    def name_of(self, name: TrapName) -> str:
        """The path under which an image of this name lies: relative, with forward slashes."""
        local = name.taken.astimezone(timezone(timedelta(minutes=self.offset)))
        fields = {
            "trap": self.trap or name.device,
            "device": _Device(name.device),
            "name": str(name).removesuffix(".jpg"),
            "night": f"{local - timedelta(hours=12):%Y-%m-%d}",
            "local": local,
            "utc": name.taken,
        }
        return self.template.format_map(fields)


def layout_of(text: str, trap_name: str, offset: timezone) -> Layout:
    """The layout that a setting names at a trap of this name and offset; what the names do not show is left out."""
    template = PRESETS.get(text, text)
    has_trap, is_local = "{trap}" in template, "{local:" in template or "{night}" in template
    minutes = round((offset.utcoffset(None) or timedelta()).total_seconds() / 60)
    return Layout(template, _in_names(trap_name) if has_trap else "", minutes if is_local else 0)


def of_trap(text: str, settings: Settings) -> Layout:
    """The layout that a setting names at this trap. SettingsError for a time zone that there is not."""
    return layout_of(text, settings.trap.name, fixed_offset(settings))


def _in_names(trap_name: str) -> str:
    """A trap's name in letters and digits that every file system and store takes: "Bäume 3" is "Baume-3"."""
    plain = unicodedata.normalize("NFKD", trap_name).encode("ascii", "ignore").decode()
    return re.sub("_+", "_", re.sub("[^A-Za-z0-9_]+", "-", plain)).strip("-_")[:60]


# ── What a layout must not do ────────────────────────────────────────────────────────────────────────


def require(text: str, settings: Settings, prefix: str = "") -> None:
    """Raise ValueError for what is no layout, or would give two images one name, leave the folder, or be misread."""
    problem = _problem(text) or _problem_here(text, settings, prefix)
    if problem:
        raise ValueError(f"layout: {text!r} {problem}")


def _problem(text: str) -> str | None:
    """What is wrong with a layout at whatever trap."""
    if text in PRESETS:
        return None
    if "{" not in text:
        return f"is no layout; there are {', '.join(PRESETS)}, or a template such as {PRESETS['antenna']!r}"
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        return f"is no template: {error}; a field is written as {{device}} or {{local:%Y-%m-%d}}"
    for literal, field, form, conversion in parts:
        if found := _NOT_IN_NAMES.search(literal):
            return f"holds {found[0]!r}, which not every file system takes"
        if field is not None and (field not in _FIELDS or conversion):
            known = ", ".join(f"{{{one}}}" for one in _FIELDS)
            return f"has a field that there is not, {{{field}}}; there are {known}"
        if field is not None and (odd := _odd_form(field, form or "")):
            return odd
    return _not_unique([(field, form or "") for _, field, form, _ in parts if field])


def _odd_form(field: str, form: str) -> str | None:
    if field == "device" and form == _UNDATED:
        return None
    if field not in {"local", "utc"}:
        return f"has {form!r} in {{{field}}}, which takes no format" if form else None
    if not form:
        return f"has no format in {{{field}}}, such as {{{field}:%Y-%m-%d}}"
    codes = re.findall("%(.?)", form)
    if wrong := [code for code in codes if code not in _OF_TIME]:
        return f"has %{wrong[0]} in {{{field}:…}}; there are %Y %m %d %H %M %S"
    if found := _NOT_IN_NAMES.search(form):
        return f"holds {found[0]!r}, which not every file system takes"
    return None


def _not_unique(fields: list[tuple[str, str]]) -> str | None:
    """Whether two images could have one name: of two traps, or of two moments."""
    names = {field for field, _ in fields}
    if "name" in names:
        return None
    if "device" not in names:
        return "lacks {device} (or {name}): images of two traps could have one name"
    for kind in ("local", "utc"):
        codes = {code for field, form in fields if field == kind for code in re.findall("%(.)", form)}
        date = {"Y", "m", "d"} if kind == "local" and "night" in names else set()
        if codes | date >= _OF_TIME:
            return None
    return (
        "does not tell all seconds apart: it needs %Y %m %d %H %M %S of {local:…}, or of {utc:…} (or {name})"
    )


def _problem_here(text: str, settings: Settings, prefix: str) -> str | None:
    """What is wrong with the names that it would make at this trap."""
    try:
        device = device_id(settings.trap)
    except SettingsError:  # said where it is needed
        device = "0" * 8
    layout = of_trap(text, settings)
    name = layout.name_of(TrapName(device, _EXAMPLE))
    path, whole = PurePosixPath(name), f"{prefix}{name}"
    if len(whole) > LONGEST:
        return f"makes names of {len(whole)} characters; {LONGEST} are the most"
    if not name.endswith(".jpg"):
        return "must end in .jpg, by which other programs know an image"
    if odd := [part for part in name.split("/") if _is_odd(part)]:
        return f"makes {name!r}, which is no path below a folder: {odd[0]!r} cannot be a part of it"
    if path.parts[0].lower() == _OTHERS:
        return f"begins with the folder {_OTHERS!r}, which is for images of other cameras"
    return _misread(layout, path.stem, text)


def _is_odd(part: str) -> bool:
    """Whether it is no name of a file or folder, or one that is left alone as somebody else's."""
    is_plain = bool(part) and part == part.strip() and not part.endswith(".")
    is_taken = part.upper() == "SHA256SUMS" or part.partition(".")[0].upper() in _OF_WINDOWS
    return not is_plain or is_taken or is_others_folder(part)


def _misread(layout: Layout, stem: str, text: str) -> str | None:
    """Whether a program that looks for a time in names would find another one there: an id of digits before it, say."""
    found = _TIME_IN_NAME.search(stem)
    if found is None or text in PRESETS:  # the readers of those are known
        return None
    local = _EXAMPLE.astimezone(timezone(timedelta(minutes=layout.offset)))
    digits = re.sub(r"\D", "", found[0])
    if any(digits in {f"{one:%Y%m%d%H%M%S}", f"{one:%y%m%d%H%M%S}"} for one in (local, _EXAMPLE)):
        return None
    return (
        f"makes names in which programs would take {found[0]!r} for the time: write the time as "
        f"%Y%m%d%H%M%S, and the id as {{device:undated}}"
    )


# ── Names of a destination's images ──────────────────────────────────────────────────────────────────


class HasLayout(Protocol):
    """Settings with a layout: of a destination that is a server too, which cannot have two kinds of base."""

    @property
    def layout(self) -> str:
        """A word or a template."""


class Keys:
    """The names of images at one destination, now and by its earlier layouts. May be used from several threads.

    A layout is for new images. What was delivered lies where its receipt says; of what may have been sent under an
    earlier layout, with an answer that was lost, the destination is asked under that too. So each layout is
    remembered before the first image is sent by it, in a file beside the catalog, which may be lost without this.
    `is_shared`: images of other cameras lie in a folder of their trap's own, for several traps have an IMG_0001.JPG.
    """

    def __init__(self, settings: HasLayout, context: DestinationContext, *, is_shared: bool = True) -> None:
        self._name = context.name
        self._file = context.state / "layouts.json"
        self._device = context.device
        self._current = layout_of(settings.layout, context.trap_name, context.offset)
        self._standard = layout_of("standard", "", UTC)
        self._is_shared = is_shared
        try:
            known = _read(self._file)
        except OSError as error:  # then nothing is sent either, see `remember`
            log.warning("%s cannot be read, so earlier layouts are not known: %s", self._file, error.strerror)
            known = {}
        # One of a name that is new may be one that there was under another name. A folder may hold images from before
        # there were layouts.
        others = [] if is_shared else [self._standard]
        others += [layout for some in known.values() for layout in some]
        self._earlier = known.get(self._name, list(dict.fromkeys(others)))
        is_as_it_was = self._earlier[-1:] == [self._current]
        self._is_remembered = is_as_it_was and (self._name in known or self._earlier == [self._standard])

    def of(self, image: Image) -> str:
        """Where a new image belongs: a relative path with forward slashes."""
        return self._by(self._current, image)

    def all_of(self, image: Image) -> list[str]:
        """Where it may lie: where it belongs now, then where earlier layouts would have put it, the newest first."""
        layouts = [self._current, *self._earlier[::-1]]
        return list(dict.fromkeys(self._by(layout, image) for layout in layouts))

    def _by(self, layout: Layout, image: Image) -> str:
        if image.trap_name:
            return layout.name_of(image.trap_name)
        if self._is_shared or layout.template != self._standard.template:
            return f"{_OTHERS}/{self._device}/{image.place}"
        return image.place

    def remember(self) -> None:
        """Write down that images are sent by this layout; to be called before one is. Raises Held where that fails."""
        if self._is_remembered:
            return
        with _writing:
            try:
                record = _read(self._file)
                others = [one for one in self._earlier if one != self._current]
                record[self._name] = [*others, self._current][-_MOST_EARLIER:]
                plain = {name: [asdict(one) for one in some] for name, some in record.items()}
                durable.write(self._file, [json.dumps(plain, indent=1).encode()])
            except (OSError, StorageError) as error:
                raise Held(f"it cannot be written down under which names images are sent: {error}") from error
        failpoint.hit("layouts: remembered")
        self._is_remembered = True


_writing = threading.Lock()  # several destinations, and several uploads, have one file


def _read(file: Path) -> dict[str, list[Layout]]:
    """The layouts by which images were sent, by destination, the oldest first; of what is no such file, none.

    Raises OSError where the card does not let it be read: what it holds must not be written over then.
    """
    try:
        content = foreign_json.decode(durable.read_plain(file, _LARGEST_RECORD), _LARGEST_RECORD)
        return {str(name): [_layout(one) for one in some] for name, some in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_OURS:
            raise
        log.warning("%s is not what it was, so earlier layouts are not known: %s", file, type(error).__name__)
        return {}


def _layout(plain: dict[str, Any]) -> Layout:
    layout = Layout(str(plain["template"]), str(plain["trap"]), int(plain["offset"]))
    layout.name_of(TrapName("0" * 8, _EXAMPLE))  # one that makes no names raises here, and not later
    return layout
