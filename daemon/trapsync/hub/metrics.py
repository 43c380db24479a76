"""What the traps' newest heartbeats say, as Prometheus reads it (https://prometheus.io/docs/instrumenting/exposition_formats).

::

    GET /metrics    for every account but those of traps
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Response

from trapsync.errors import one_line
from trapsync.hub.fleet import Fleet
from trapsync.net import heartbeat
from trapsync.net.heartbeat import Heartbeat
from trapsync.net.judgement import VERDICTS

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

_LONGEST_NAME = 60  # characters
_WORD = re.compile("[a-z_]{1,30}")


def _clock_trusted(beat: Heartbeat) -> float | None:
    """None where nothing is known of the trap: its heartbeat makes no sense."""
    return None if beat.verdict is None else float(beat.clock.trusted)


# Of each trap: the metric's name, what it is, and its value; None is left out.
_VALUES: tuple[tuple[str, str, Callable[[Heartbeat], float | None]], ...] = (
    ("card_free_bytes", "Free bytes of the card.", lambda beat: beat.disk.free_bytes),
    ("card_days_left", "Days until the card is full.", lambda beat: beat.disk.days_left),
    ("battery_percent", "Charge of the battery.", lambda beat: beat.battery),
    ("battery_days_left", "Days until the battery is empty.", lambda beat: beat.battery_days),
    ("refused_deliveries", "Deliveries that a destination refused.", lambda beat: beat.refused),
    ("capture_failures", "Captures that failed in a row.", lambda beat: beat.capture_failures),
    ("clock_trusted", "1 where the trap's clock is synchronised.", _clock_trusted),
    (
        "last_night_expected",
        "Pictures that were due in the last whole night.",
        lambda beat: beat.last_night.expected if beat.last_night else None,
    ),
    (
        "last_night_taken",
        "Pictures of these that were taken.",
        lambda beat: beat.last_night.taken if beat.last_night else None,
    ),
)


class _Family:
    """The metrics of one name, a value for each trap."""

    def __init__(self, name: str, text: str, *more: str) -> None:
        from prometheus_client.core import GaugeMetricFamily

        self.family: GaugeMetricFamily = GaugeMetricFamily(
            f"trapsync_{name}", text, labels=("device", "name", *more)
        )

    def add(self, trap: tuple[str, str], value: float | None, *more: str) -> None:
        """Add a value; None is left out."""
        if value is not None:
            self.family.add_metric((*trap, *more), value)


class _Collector:
    """What `prometheus_client` asks for metrics."""

    def __init__(self, traps: Iterable[dict[str, Any]]) -> None:
        self._traps = traps

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        """The families, each whole, as the format wants it."""
        age = _Family("heartbeat_age_seconds", "Seconds since the newest heartbeat came.")
        image = _Family("newest_image_age_seconds", "Seconds since the newest image was taken.")
        verdict = _Family("verdict", "1 for the verdict that the trap gives of itself.", "verdict")
        images = _Family("images", "Images that the trap counts, by state.", "state")
        missed = _Family("last_night_missed", "Pictures of the last night that were not taken.", "reason")
        values = {name: _Family(name, text) for name, text, _ in _VALUES}
        for entry in self._traps:
            beat = _read(entry["heartbeat"])
            trap = (entry["device"], one_line(beat.name or "", _LONGEST_NAME))
            age.add(trap, entry["age_s"])
            if beat.newest_image and beat.newest_image.age_s is not None:
                image.add(trap, beat.newest_image.age_s + (entry["age_s"] or 0))
            for one in VERDICTS:
                verdict.add(trap, None if beat.verdict is None else float(beat.verdict == one), one)
            for state in heartbeat.Ledger.__struct_fields__:
                images.add(trap, getattr(beat.ledger, state), state)
            for reason, number in (beat.last_night.missed if beat.last_night else {}).items():
                missed.add(trap, number if _WORD.fullmatch(reason) else None, reason)
            for name, _, value in _VALUES:
                values[name].add(trap, value(beat))
        yield from (one.family for one in (age, image, verdict, images, missed, *values.values()))


class Metrics:
    """The endpoint. The caller is logged in and has the role."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def get_metrics(self) -> Response:
        """The metrics of all traps."""
        from prometheus_client import exposition

        text = exposition.generate_latest(_Collector(self._fleet.snapshot()["traps"]))
        return Response(text, content_type=exposition.CONTENT_TYPE_PLAIN_0_0_4)


def _read(content: Any) -> Heartbeat:
    """The heartbeat; an empty one for what is none, of which there is an age all the same."""
    try:
        return heartbeat.read(content)
    except ValueError:
        return Heartbeat()
