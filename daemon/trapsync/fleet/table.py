"""All traps in one table: what each last said, the silent ones named."""

from collections.abc import Iterator

from trapsync.net.judgement import Trap, ago

HEADER = ("trap", "verdict", "heard", "image", "sent", "pending", "disk", "settings", "bat", "clock")


def cells(trap: Trap) -> tuple[str, ...]:
    """A trap's row: see HEADER."""
    beat = trap.beat
    return (
        trap.name,
        trap.verdict,
        "never" if trap.joined is not None else ago(trap.age),
        _image(trap),
        _since(trap, beat.newest_delivery_age_s),
        _or_dash(beat.ledger.pending, "{}"),
        trap.room or "-",
        trap.settings,
        _or_dash(beat.battery, "{:.0f}%") + _or_nothing(beat.battery_days, " {:.0f} d"),
        "-" if trap.joined is not None else "ok" if beat.clock.trusted else "unset",
    )


def complaints(found: list[Trap]) -> Iterator[tuple[str, str, str]]:
    """Trap, verdict and reason, for each reason."""
    for trap in found:
        for reason in trap.reasons:
            yield trap.name, trap.verdict, reason


def _image(trap: Trap) -> str:
    """The age of the newest image; while the schedule is closed also when the next one is due."""
    beat = trap.beat
    age = _since(trap, beat.newest_image.age_s if beat.newest_image else None)
    return age if trap.until_next is None else f"{age}, next in {ago(trap.until_next)}"


def _since(trap: Trap, age: float | None) -> str:
    """An age that was true when the heartbeat was sent, grown since."""
    return "-" if age is None else ago(trap.since(age))


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
