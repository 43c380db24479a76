"""How long to wait before trying again."""

import random


def wait(attempts: int, *, first: float, longest: float, least: float = 0.0) -> float:
    """Seconds to wait after so many failed attempts in a row (1 or more): full jitter.

    The bound doubles from `first` to `longest` and the wait is uniform below it, so that traps that
    lost the same server do not come back together (Brooker, "Exponential Backoff And Jitter", 2015).
    Never shorter than `least`, nor than a tenth of the bound, lest a lucky draw hammer the server.
    """
    bound = min(longest, first * 2.0 ** min(max(attempts, 1) - 1, 60))
    return max(least, random.uniform(bound / 10, bound))  # noqa: S311 - spread, not secrecy
