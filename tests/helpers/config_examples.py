"""config/trapsync.toml with its examples: what stands there commented out, put in force."""

import re
import tomllib
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "config" / "trapsync.toml"
LINES = FILE.read_text(encoding="utf-8").splitlines()

# What is commented out has no space after its #; prose has one.
COMMENTED_OUT = re.compile(r"#(\[|[a-z_]+ = )")


def uncommented() -> str:
    """The whole file with every example in force."""
    return "\n".join(line[1:] if COMMENTED_OUT.match(line) else line for line in LINES)


EXAMPLES: dict[str, dict[str, Any]] = tomllib.loads(uncommented())["destinations"]
