"""How much room a file system has left."""

import shutil
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """The bytes that an ordinary user may still write into a folder, or where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
