"""What the daemon's child processes have in common: how they are started, and that they end with it.

Whatever may hang, leak or crash (libcamera, libvips, a hostile JPEG) runs in them, under a deadline that the daemon keeps. A
child that does not answer is killed and another takes its place. Children die with the daemon: the kernel sees to it.
What they may do is in `restricted`, what they answer in `answers`.
"""

import multiprocessing
import os
import signal

from trapsync.files.parent import end_with
from trapsync.files.private_memory import keep_memory_private
from trapsync.runtime.answers import Spawn

spawn = Spawn()  # libvips and libcamera do not survive a fork


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
