"""What the hub is to know once and for good, made from the catalog: see `remote.uplink.reports`."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from trapsync.catalog import Catalog
from trapsync.clock import Clock
from trapsync.effort import nights
from trapsync.effort.tables import evening_of
from trapsync.remote.uplink.reports import IsHeld, Report, Reporter
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import zone


def reporter(device: str, catalog: Catalog, settings: Settings, clock: Clock) -> Reporter:
    """What sends the reports of this trap."""

    def deployments(_is_held: IsHeld) -> Iterator[Report]:
        return (Report("deployment", one.id, one.plain()) for one in catalog.deployments.all())

    def watched(is_held: IsHeld) -> Iterator[Report]:
        newest = evening_of(clock.wall(), zone(settings)) - timedelta(days=1)
        if is_held("night", newest.isoformat()):
            return  # times that were corrected meanwhile are told with the next night: to look takes seconds on a small Pi
        for night, body in nights.reports(catalog, settings, partial(is_held, "night")):
            yield Report("night", night, body)

    return Reporter(device, catalog.reports, [deployments, watched], clock)
