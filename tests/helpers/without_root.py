"""Commands without root's right to pass over permissions, so that those can be tested as root too."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what the next program may have (prctl(2)). It stays
# root, and reads its own interpreter, but a mode of 000 holds for it as for anybody else.
_PR_CAPBSET_DROP = 24
_DROP = f"""
import ctypes, os, sys
for capability in (1, 2):
    if ctypes.CDLL(None).prctl({_PR_CAPBSET_DROP}, capability, 0, 0, 0):
        sys.exit("prctl refuses")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

# What stands before the arguments of Python.
PREFIX = ("-S", "-c", _DROP) if os.geteuid() == 0 else ()


def run(
    arguments: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments as somebody for whom permissions count."""
    return subprocess.run(
        [sys.executable, *PREFIX, *arguments],
        env=None if environment is None else dict(environment),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
