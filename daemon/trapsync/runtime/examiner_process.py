"""What an examiner is at its start. It imports this, and what it examines with: no settings, nothing of the daemon's."""

from trapsync.jpeg import examination
from trapsync.runtime.child_process import become_child


def become_examiner(memory: int) -> None:
    """Make this process an examiner, which may take so many bytes of address space for a file."""
    become_child()
    examination.prepare(memory)
