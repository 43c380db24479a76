"""The settings of the hub's alerts: what people are told, where, and when not."""

import re
from datetime import time
from pathlib import Path
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from trapsync.settings.table import Table, within
from trapsync.settings.time_zone import named_zone
from trapsync.settings.units import Duration

Rule = Literal["failing", "silent", "undelivered", "battery", "card", "settings", "recovered"]
RULES: tuple[Rule, ...] = get_args(Rule)

_TIME = r"([01]\d|2[0-3]):([0-5]\d)"
_MOMENT = re.compile(_TIME)
_SPAN = re.compile(rf"({_TIME})\s*-\s*({_TIME})")
_KEY = "alerts.timezone"


class Alerts(Table, frozen=True):
    """[alerts]: messages from the hub. Without `addresses_file` nobody gets one; without `ping_file` nothing is pinged."""

    addresses_file: Path | None = None
    rules: tuple[Rule, ...] = RULES
    undelivered: Duration = Duration(86400)
    battery: float = 20.0
    card: Duration = Duration(7 * 86400)
    settled: Duration = Duration(3600)
    quiet: str = ""
    timezone: str = "system"
    digest: str = ""
    most_an_hour: int = 6
    ping_file: Path | None = None
    ping_every: Duration = Duration(300)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if self.quiet and not _SPAN.fullmatch(self.quiet):
            raise ValueError(f'quiet: {self.quiet!r} is no span of the day such as "22:00 - 07:00"')
        if self.digest and not _MOMENT.fullmatch(self.digest):
            raise ValueError(f'digest: {self.digest!r} is no time of day such as "08:00"')
        within(
            self,
            undelivered=(Duration(600), Duration(366 * 86400)),
            battery=(0, 100),
            card=(Duration(3600), Duration(366 * 86400)),
            settled=(Duration(0), Duration(7 * 86400)),
            most_an_hour=(1, 60),
            ping_every=(Duration(60), Duration(86400)),
        )

    @property
    def are_on(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.addresses_file or self.ping_file)

    def zone(self) -> ZoneInfo:
        """The time zone of `quiet`, `digest`, and the times in messages; SettingsError for one that there is not."""
        return named_zone(self.timezone, _KEY)

    def is_quiet(self, at: time) -> bool:
        """Whether messages wait at this local time of day. A span that ends where it begins is the whole day."""
        match = _SPAN.fullmatch(self.quiet)
        if match is None:
            return False
        begin, end = time.fromisoformat(match[1]), time.fromisoformat(match[4])
        return begin <= at < end if begin < end else at >= begin or at < end

    def digest_time(self) -> time | None:
        """The local time of the daily message, if there is one."""
        return time.fromisoformat(self.digest) if self.digest else None
