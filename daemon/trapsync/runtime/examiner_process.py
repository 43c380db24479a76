"""What an examiner is at its start. It imports this, and what it examines with: no settings, nothing of the daemon's."""

from trapsync.jpeg import examination
from trapsync.runtime.child_process import become_child
from trapsync.runtime.restricted import Rights, restrict


def become_examiner(memory: int, rights: Rights) -> None:
    """Make this process an examiner, which may take so many bytes of address space for a file, and has these rights only."""
    become_child()
    examination.prepare(memory)
    restrict(rights)
