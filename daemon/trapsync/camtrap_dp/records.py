"""What a package is made of, whoever keeps it. Moments are unix seconds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Place = tuple[float, float]  # latitude and longitude in degrees, WGS84


class Deployment(NamedTuple):
    """A deployment, as a trap notes it; `until` is None while it goes on.

    `is_sure`: it is known when it began. `terms` are what the settings said then.
    """

    id: str
    since: float
    until: float | None
    terms: Mapping[str, Any]
    is_sure: bool = True


class Shape(NamedTuple):
    """Something that was seen: its label, and where, in shares of the picture's width and height from the top left.

    Of a point `size` is None.
    """

    label: str
    corner: tuple[float, float]
    size: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector, or one person, said of one picture; `odd` shapes are not of a form that is known here."""

    id: str
    method: Literal["human", "machine"]
    by: str
    at: float | None
    shapes: Sequence[Shape]
    odd: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture. `taken` is None where that is not known, which is then between two moments, or None.

    `is_held`: the time is to be put right yet. `path` is below the folder of the pictures in a package, and `source` the
    file, if it is here. `digest` is of that: `sha256:…` or `md5:…`. `address` is where others find it.
    """

    id: str
    taken: float | None
    path: str
    name: str
    source: Path | None = None
    digest: str = ""
    address: str | None = None
    between: tuple[float | None, float | None] = (None, None)
    is_held: bool = False
    is_ours: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()


class Gap(NamedTuple):
    """A time without the pictures that were due in it, and why."""

    since: float
    until: float
    reason: str


class Trap(Protocol):
    """One trap, to be read once. `place` is where it stands now, for deployments that do not say; None: unknown.

    `offset` is that of its local time. `until`: nothing is known of it after that moment; None: after its last picture.
    """

    device: str
    name: str
    offset: timezone
    place: Place | None
    until: float | None

    def deployments(self) -> Sequence[Deployment]:
        """Its deployments, oldest first; none overlap."""

    def pictures(self) -> Iterator[Picture]:
        """Its pictures, oldest first; of unknown time anywhere among them."""

    def gaps(self) -> Iterator[Gap]:
        """When pictures were due and were not taken."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which pictures are wanted: from a moment on, before another one, of one deployment."""

    since: float | None = None
    until: float | None = None
    deployment: str | None = None

    def holds(self, at: float) -> bool:
        """Whether a moment is in it."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)
