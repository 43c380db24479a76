"""What the daemon's child processes have in common: how they are started, and that they end with it.

Whatever may hang, leak or crash (libcamera, libvips, a hostile JPEG) runs in them, under a deadline that the daemon keeps. A
child that does not answer is killed and another takes its place. Children die with the daemon: the kernel sees to it.
What they may do is in `restricted`, what they answer in `answers`.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from trapsync.files.parent import end_with
from trapsync.files.private_memory import keep_memory_private
from trapsync.runtime.answers import Spawn

_AT_REST = 0.2  # seconds in which one that has nothing to do ends
spawn = Spawn()  # libvips and libcamera do not survive a fork


def start(
    work: Callable[..., object], *arguments: object, name: str
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """Start a child that does `work` with its end of a pipe and these arguments; the process, and our end of the pipe.

    Raises OSError where no process, memory or descriptor is left.
    """
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=work, args=(theirs, *arguments), name=name, daemon=True)
    try:
        process.start()
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def end(process: multiprocessing.process.BaseProcess, pipe: Connection | None, patience: float) -> int | None:
    """Close the pipe, at which a child at rest ends, and kill it; its exit code where it had ended by itself.

    A process that is stuck in the kernel stays: it is waited for so many seconds at most.
    """
    if pipe:
        pipe.close()
    process.join(_AT_REST)
    code = process.exitcode
    process.kill()
    process.join(patience)
    return code


def become_child() -> None:
    """Leave the keyboard's signals to the parent, unblock all others, end when it ends, and keep the memory private."""
    keep_memory_private()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(
        signal.SIG_SETMASK, ()
    )  # the daemon's threads block what its main thread waits for
    parent = multiprocessing.parent_process()
    end_with((parent and parent.pid) or os.getppid())
