"""The moments at which a schedule wants pictures, and which of them have one.

A slot begins when a picture is due and ends when the next one is: an interval later, or when the window closes. Slots are
counted from the opening of a window, as the daemon counts (`runtime.capture_thread`); where it is open for days, from the
unix epoch. The daemon counts anew from each start, so its pictures may lie anywhere in their slots. All moments are unix
seconds.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, pairwise
from typing import NamedTuple

from trapsync.settings import schedule
from trapsync.settings.schedule import Place, Window

_LONG = 2 * 86400.0  # seconds: a window that is open for longer, or always
_HARDLY = 1.5  # intervals between two pictures; one that is missed leaves two
_END = Window(math.inf, math.inf)


class Span(NamedTuple):
    """A slot as the schedule has it. `every` is the interval: the slot may be shorter."""

    begin: float
    end: float
    every: float


class Filled(NamedTuple):
    """A slot with the picture that is in it, if there is one."""

    begin: float
    end: float
    is_taken: bool


def wanted(
    windows: Sequence[str], place: Place, every: float, valid: tuple[float, float], asked: tuple[float, float]
) -> Iterator[Span]:
    """The slots of a schedule that begin in the span `asked`, in order; `valid` is from when until when it is in force.

    A window that was open already when the schedule came into force opens with that.
    """
    since, until = max(valid[0], asked[0]), min(valid[1], asked[1])
    open_until = -math.inf
    spans = schedule.openings(windows, place, since - _LONG, until) if since < until else []
    for one, later in pairwise(chain(spans, [_END])):
        open_until = max(open_until, one.end)
        end = min(open_until, later.begin, valid[1])
        first, opened = _first(one, every, valid[0]), max(one.begin, valid[0])
        for number in count(max(0, math.floor((since - first) / every))):
            begin = max(opened, first + number * every)
            if begin >= min(end, until):
                break
            if begin >= since:
                yield Span(begin, min(first + (number + 1) * every, end), every)


def _first(one: Window, every: float, valid_from: float) -> float:
    """Where the slots of a window are counted from, at or before its opening."""
    if one.end - one.begin > _LONG:
        return math.floor(max(one.begin, valid_from) / every) * every
    return max(one.begin, valid_from)


class _Bin:
    """A slot with the pictures in it, while its neighbours are looked at."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.pictures: list[float] = []


def filled(spans: Iterable[Span], pictures: Iterable[float], now: float) -> Iterator[Filled]:
    """The slots, with those marked that have a picture. Both come in order; a slot that is not over by `now` is not missed.

    Of two pictures in one slot the other counts for an empty neighbour, if it lies within half an interval of that: the
    daemon's own interval wanders a little against these borders. So it is no slot between two pictures that are hardly an
    interval apart, nor at the end of a window in which the next picture was not due any more.
    """
    before: _Bin | None = None
    here: _Bin | None = None
    last = -math.inf  # the newest picture before the slot that is decided
    for after in chain(_binned(spans, pictures), [None]):
        if here:
            if _is_taken(here, before, after):
                yield Filled(here.span.begin, here.span.end, is_taken=True)
            elif here.span.end <= now and _was_due(here.span, last, after):
                yield Filled(here.span.begin, here.span.end, is_taken=False)
            last = max([last, *here.pictures])
        before, here = here, after


def _was_due(span: Span, last: float, after: _Bin | None) -> bool:
    """Whether a picture was due in an empty slot, by the pictures before and after it."""
    coming = after.pictures[0] if after and after.pictures else math.inf
    return last + span.every < span.end and coming - last > _HARDLY * span.every


def _binned(spans: Iterable[Span], pictures: Iterable[float]) -> Iterator[_Bin]:
    """Each slot with the pictures in it. A window's last slot takes none that were taken after its end."""
    coming = iter(pictures)
    at = next(coming, math.inf)
    for span in spans:
        one = _Bin(span)
        while at < span.end:
            if at >= span.begin:
                one.pictures.append(at)
            at = next(coming, math.inf)
        yield one


def _is_taken(here: _Bin, before: _Bin | None, after: _Bin | None) -> bool:
    if here.pictures:
        return True
    reach = here.span.every / 2
    if before and len(before.pictures) > 1 and before.pictures[-1] >= here.span.begin - reach:
        here.pictures.append(before.pictures.pop())
    elif after and len(after.pictures) > 1 and after.pictures[0] < here.span.end + reach:
        here.pictures.append(after.pictures.pop(0))
    return bool(here.pictures)
