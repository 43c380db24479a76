"""The time zone of the trap's place, and the one offset by which its local time is written."""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trapsync.errors import SettingsError
from trapsync.settings.schema import Settings

_ZONE_FILE = re.compile(r"^.*/zoneinfo/((posix|right)/)?")
_UTC = ZoneInfo("UTC")
# Beyond the last change of law that any time zone data knows, so that the offset follows from the zone alone, and not
# from the clock, which may be wrong.
_YEAR = 2037
# Months of that year. An offset of fewer is no standard time: Morocco goes back for the weeks of Ramadan.
_FEWEST = 3


def zone(settings: Settings) -> ZoneInfo:
    """The time zone of its place; SettingsError for one that there is not."""
    return named_zone(settings.trap.timezone, "trap.timezone")


def named_zone(name: str, key: str) -> ZoneInfo:
    """The time zone of that name, "system" for the machine's; SettingsError, which names the key, where there is none."""
    if name == "system":
        return system_zone()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f'{key} = {name!r}: there is no such time zone; write "Europe/Zurich", "UTC" or "system"'
        ) from None


def system_zone(root: Path = Path("/etc")) -> ZoneInfo:
    """The time zone of the machine: what the variable TZ says, else /etc/localtime; UTC where nothing does."""
    names = [os.environ.get("TZ", "").removeprefix(":")]
    with suppress(OSError):
        names.append(str((root / "localtime").readlink()))
    with suppress(OSError, UnicodeError):  # where localtime is a copy
        names.append((root / "timezone").read_text(encoding="utf-8").strip())
    for name in names:
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo(_ZONE_FILE.sub("", name))
    with suppress(OSError, ValueError):  # of a zone that has no name here
        return _zone_of_file(root / "localtime", (root / "localtime").stat().st_mtime_ns)
    return _UTC


@lru_cache(maxsize=1)
def _zone_of_file(path: Path, _mtime_ns: int) -> ZoneInfo:
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key="localtime")


def fixed_offset(settings: Settings) -> timezone:
    """The offset by which local time is written: `trap.utc_offset`, else the standard time of the trap's zone.

    Never its summer time, whatever its law calls it (Ireland's calls the winter's the exception): of the offsets that hold
    for some months of a year, the one that is most behind. SettingsError for a zone that there is not.
    """
    text = settings.trap.utc_offset
    if text:
        return datetime.strptime(text, "%z").tzinfo  # type: ignore[return-value]
    return standard_offset(zone(settings))


def standard_offset(place: ZoneInfo) -> timezone:
    """The offset of a zone's standard time."""
    offsets = [
        datetime(_YEAR, month, 15, 12, tzinfo=place).utcoffset() or timedelta() for month in range(1, 13)
    ]
    return timezone(min(one for one in offsets if offsets.count(one) >= _FEWEST))


def exif_offset(settings: Settings) -> timezone:
    """The offset of the times in a picture's EXIF, by `trap.exif_time`; SettingsError as from `fixed_offset`."""
    return UTC if settings.trap.exif_time == "utc" else fixed_offset(settings)
