"""What destinations that are servers have in common: how slow they may be, and the door to them."""

from typing import Any

from trapsync import __version__
from trapsync.destinations import Tools
from trapsync.http import Door
from trapsync.quantities import Size
from trapsync.settings import Destination, within


class Settings(Destination, frozen=True, kw_only=True):
    """The keys of every destination that is a server, besides those of all destinations."""

    least_rate: Size = Size(2000)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        within(self, least_rate=(1, 10**9))

    def slowest(self) -> float:
        """As the owner says."""
        return float(self.least_rate)


def door(url: str, settings: Settings, tools: Tools, **more: Any) -> Door:
    """The door to a server, as the owner's settings have it; `more` goes to `Door` as it is."""
    limits = {
        "bandwidth": settings.bandwidth,
        "parallel": settings.parallel,
        "least_rate": settings.least_rate,
    }
    return Door(url, f"trapsync/{__version__}", tools.clock, tools.sleep, **{**limits, **more})
