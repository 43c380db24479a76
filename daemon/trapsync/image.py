"""The image: the record that travels from the spool to the servers, its name and its digests."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

# Sticky Pi's own convention, and the identity of an image: device and UTC second. The year 9999 is none: its last day has
# no local time.
_NAME = re.compile(
    r"([0-9a-fA-F]{8})\.((?!9999)[1-9]\d{3}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})\.(?i:jpe?g)", re.ASCII
)
_STAMP = "%Y-%m-%d_%H-%M-%S"

# Files that may be images. Everything else in the spool (notes, temporary files) is left alone.
SUFFIXES = frozenset({".jpg", ".jpeg"})

# What cannot be written down: control characters, those among them that turn the direction of what follows (a name would
# show as another one), and bytes that are no UTF-8 (Python reads them as halves of surrogates). Not `isprintable`:
# that is about display, and depends on which characters this Python has heard of.
UNWRITABLE = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Folders in which systems keep deleted files, small copies and what a check found; upper and lower case are the same.
OTHERS_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP; its other folders are hidden
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),  # Windows
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),  # macOS
        *("lost+found", "lost.dir"),  # Linux, Android
    }
)


@dataclass(frozen=True, slots=True)
class TrapName:
    """A trap's file name, parsed: the device (8 lower-case hex digits) and the UTC second."""

    device: str
    taken: datetime

    def __str__(self) -> str:
        return f"{self.device}.{self.taken.strftime(_STAMP)}.jpg"

    @property
    def folder(self) -> str:
        """The folder of such an image below the spool: `<device>/<YYYY-MM-DD>`."""
        return f"{self.device}/{self.taken:%Y-%m-%d}"


def parse_name(name: str) -> TrapName | None:
    """Read a trap's file name; None for a name that somebody else gave (`IMG_0001.JPG`)."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        taken = datetime.strptime(match[2], _STAMP).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    return TrapName(match[1].lower(), taken)


def is_image_name(name: str) -> bool:
    """Whether a file of this name may be an image: a visible `.jpg` or `.jpeg`."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


def is_others_folder(name: str) -> bool:
    """Whether a folder of this name is no folder of images: hidden, or where a system keeps things of its own."""
    return name.startswith(".") or name.lower() in OTHERS_FOLDERS


def place_of(path: str) -> str:
    """The path at which copies of a spool's file are kept: `<device>/<date>/<name>`, or its own if it is foreign."""
    trap_name = parse_name(PurePosixPath(path).name)
    return f"{trap_name.folder}/{trap_name}" if trap_name else path


# What the Sticky Pi firmware writes for what it does not know.
_UNKNOWN = (("temp", -300.0), ("hum", -1.0), ("bat", -1.0))


def without_unknown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without the numbers that only stand for *unknown*: of sensors, and of a place at 0, 0 in the Atlantic.

    Sticky Pi files hold such numbers, and catalogs that were written before they were left out.
    """
    known = {name: value for name, value in metadata.items() if (name, value) not in _UNKNOWN}
    if known.get("lat") == known.get("lng") == 0:
        del known["lat"], known["lng"]
        if known.get("alt") == 0:
            del known["alt"]
    return known


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the spool as it was when it was examined: path relative to the spool, size, mtime."""

    path: str
    size: int
    mtime_ns: int

    @property
    def folder(self) -> str:
        """The folder part of the path, '' for the spool itself."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The clocks at the moment of capture, so that a wrong time can be corrected later.

    `boot_id` is the kernel's random id of that boot, `monotonic` the seconds since it,
    `wall` the unix seconds that the clock showed, `trusted` whether it was synchronised then. `offset`
    is there once the image's time was corrected: the true time is `monotonic + offset`.
    """

    boot_id: str
    monotonic: float
    wall: float
    trusted: bool
    offset: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sensors measured at a capture: degrees Celsius, and per cent; None is unknown.

    `button` is whether the button was held down: a picture taken manually, or to mark a visit.
    """

    temperature: float | None = None
    humidity: float | None = None
    battery: float | None = None
    button: bool = False


UNKNOWN = Reading()


@dataclass(frozen=True, slots=True)
class Image:
    """One image as examined. It is never changed: a file with other bytes is another image.

    `path` is relative to the spool, with forward slashes. `device` and `taken` (UTC) come from the
    file name and are None for a foreign one. `metadata` has the keys of the Sticky Pi `images` table
    (`device_version temp hum bat lum lat lng alt but`) as far as the file holds them, and standard
    tags under their EXIF names. Digests are lower-case hex of the whole file; `picture` is the SHA-256 of the
    file without its EXIF, of an image whose time was, or is to be, corrected.
    """

    path: str
    size: int
    md5: str
    sha256: str
    width: int
    height: int
    metadata: dict[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None
    id: int = 0
    picture: str = ""

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return PurePosixPath(self.path).name

    @property
    def trap_name(self) -> TrapName | None:
        """The name, parsed, if it is a trap's."""
        return parse_name(self.name)

    @property
    def key(self) -> str:
        """The identity: the name for a trap's image, wherever it lies; the path for a foreign one."""
        trap_name = self.trap_name
        return str(trap_name) if trap_name else self.path

    @property
    def place(self) -> str:
        """The path at which copies of it are kept; see `place_of`."""
        return place_of(self.path)

    @property
    def timing(self) -> str | None:
        """The state of its time when it is found: as in the catalog's column."""
        if self.evidence is None or self.evidence.trusted or self.trap_name is None:
            return None
        return "held" if self.evidence.offset is None else "corrected"


@dataclass(frozen=True, slots=True)
class Correction:
    """An image that is to be rewritten with the time at which it was taken, under the name for that.

    The true time is its monotonic time plus `offset`; `last_sync` is when the clock was set (unix seconds).
    """

    image: Image
    name: TrapName
    offset: float
    last_sync: float

    @property
    def path(self) -> str:
        """Where the new file is to lie, relative to the spool."""
        return f"{self.name.folder}/{self.name}"


@dataclass(frozen=True, slots=True)
class Label:
    """The answer of a service about one image, under the id of its task there.

    "done" has the annotations; "error" has the reason why there will be none.
    """

    task: str
    state: Literal["done", "error"]
    annotations: Sequence[Mapping[str, Any]] = field(default=())
    reason: str = ""
