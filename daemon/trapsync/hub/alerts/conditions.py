"""What a trap's newest heartbeat says about each rule of the alerts."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from trapsync.errors import one_line
from trapsync.net.judgement import Trap
from trapsync.settings.alerts import Alerts, Rule
from trapsync.settings.words import age, count

_LONGEST = 300  # characters of a text
_MOST_REASONS = 3
# By how much it has to be better before it counts as over: a value that lies at its limit moves a little all the time.
_BATTERY_ABOVE, _CARD_ABOVE = 5.0, 1.25  # percent of charge; times the limit
_DAY = 86400.0


class Condition(NamedTuple):
    """Why a rule holds, in words. Another `detail` is worth telling again."""

    text: str
    detail: str = ""


# A rule that is not there: nothing is known of it now. None: it does not hold.
Known = dict[Rule, Condition | None]
_UNKNOWN = Condition("")


def known(trap: Trap, limits: Alerts, before: Collection[str], listening: float) -> Known:
    """What is known of a trap, when these rules held before. `listening`: seconds for which it could have been heard.

    A trap that is silent, or whose heartbeat makes no sense, says nothing else: whatever held goes on.
    """
    if trap.silent is not None or trap.joined is not None:
        is_silent = trap.verdict == "failing"
        if is_silent and listening < trap.patience:
            return {}
        return {"silent": Condition(trap.reasons[0]) if is_silent else None}
    if trap.odd:
        return {"silent": None, "failing": _failing(trap, limits, False)}
    found: Known = {"silent": None}
    for rule, judge in _JUDGES.items():
        if (condition := judge(trap, limits, rule in before)) is not _UNKNOWN:
            found[rule] = condition
    return found


def over(trap: Trap, rule: str, detail: str) -> str:
    """That a rule holds no longer, in words. `detail`: of a trap that was silent, when it had been heard last."""
    beat = trap.beat
    if rule == "silent" and not detail:
        return "heard for the first time"
    if rule == "battery" and beat.battery is not None:
        return f"battery at {beat.battery:.0f} % again"
    if rule == "settings":
        return "no settings are refused any more" if trap.settings == "-" else f"settings: {trap.settings}"
    return _OVER[rule]


_OVER = {
    "failing": "no longer failing",
    "silent": "heard again",
    "undelivered": "it delivers again",
    "battery": "battery charged again",
    "card": "the card has room again",
    "room": "it has room again",
}


def _failing(trap: Trap, _limits: Alerts, _was: bool) -> Condition | None:
    if trap.verdict != "failing":
        return None
    reasons = trap.reasons
    more = f" (and {len(reasons) - _MOST_REASONS} more)" if len(reasons) > _MOST_REASONS else ""
    return Condition(
        one_line(f"failing: {'; '.join(reasons[:_MOST_REASONS]) or 'it does not say why'}", _LONGEST) + more
    )


def _undelivered(trap: Trap, limits: Alerts, was: bool) -> Condition | None:
    pending, sent = trap.beat.ledger.pending, trap.beat.newest_delivery_age_s
    if pending is None:
        return _UNKNOWN
    if sent is None:  # it has delivered nothing yet: known is for how long it has been heard
        is_long, what = was or (trap.named or 0.0) >= limits.undelivered, "yet"
    else:
        is_long, what = trap.since(sent) >= limits.undelivered, f"for {age(trap.since(sent))}"
    if not pending or not is_long:
        return None
    return Condition(f"nothing delivered {what}, {count(pending, 'image')} pending")


def _battery(trap: Trap, limits: Alerts, was: bool) -> Condition | None:
    charge = trap.beat.battery
    if charge is None:
        return _UNKNOWN
    if charge >= limits.battery + (_BATTERY_ABOVE if was else 0):
        return None
    return Condition(f"battery at {charge:.0f} %")


def _card(trap: Trap, limits: Alerts, was: bool) -> Condition | None:
    days = trap.beat.disk.days_left
    if days is None:
        return _UNKNOWN
    if days * _DAY >= limits.card * (_CARD_ABOVE if was else 1):
        return None
    return Condition(f"the card is full in {age(max(0.0, days * _DAY))}")


def _settings(trap: Trap, _limits: Alerts, _was: bool) -> Condition | None:
    report = trap.beat.remote
    if report.state != "rolled_back" and report.refused is None:
        return None
    reason = f" ({one_line(report.reason)})" if report.reason else ""
    return Condition(one_line(f"settings: {trap.settings}{reason}", _LONGEST), trap.settings)


_JUDGES: dict[Rule, Callable[[Trap, Alerts, bool], Condition | None]] = {
    "failing": _failing,
    "undelivered": _undelivered,
    "battery": _battery,
    "card": _card,
    "settings": _settings,
}
