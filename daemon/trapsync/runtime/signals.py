"""The daemon's signals: its main thread waits for them, and none interrupts a thread.

They stay blocked from the start on, in every thread and across a reload's `execv`: what comes meanwhile is kept.
"""

import signal
import threading
from multiprocessing import resource_tracker

END = {signal.SIGTERM, signal.SIGINT}
_WAKE = signal.SIGURG  # has no effect by default: harmless wherever it is not waited for
_ALL = END | {signal.SIGHUP, signal.SIGUSR1, _WAKE}


def block() -> None:
    """Block them in this thread and in those that it starts; before it starts any."""
    resource_tracker.ensure_running()  # it would unblock SIGTERM and SIGINT later
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    for number in (signal.SIGHUP, signal.SIGUSR1):  # while they are waited for, only a handler shows in /proc
        signal.signal(number, lambda *_: None)  # that they end nothing: see `trap.tell_daemon`


def wait(seconds: float) -> int | None:
    """Wait for one of them at most so long; None when none came, or only `wake`."""
    found = signal.sigtimedwait(_ALL, max(0.0, seconds))
    # Python returns a siginfo that nobody has filled in when the wait was interrupted, by a SIGCONT say, and its time
    # was over by then: the number in it is none that was waited for.
    if found is None or found.si_signo not in _ALL - {_WAKE} or found.si_errno:
        return None
    return found.si_signo


def wake() -> None:
    """End the main thread's wait; from any thread."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, _WAKE)
