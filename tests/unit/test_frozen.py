"""A process that is stopped for a while goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import processes

_WAITING = """
from trapsync.runtime import signals
signals.block()
print("waiting", flush=True)
print([signals.wait(0.2) for _ in range(5)], flush=True)
"""


def test_a_wait_that_is_over_while_the_process_is_stopped_brings_no_signal() -> None:
    for _ in range(3):
        with processes.started(
            [sys.executable, "-c", _WAITING], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "waiting\n"
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.4)  # the kernel's own clock is what is tested
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.read() == f"{[None] * 5}\n"
