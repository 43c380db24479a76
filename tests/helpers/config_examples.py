"""config/trapsync.toml and config/hub.toml with their examples: what stands there commented out, put in force."""

import re
import tomllib
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "config" / "trapsync.toml"
HUB_FILE = FILE.with_name("hub.toml")
LINES = FILE.read_text(encoding="utf-8").splitlines()
HUB_LINES = HUB_FILE.read_text(encoding="utf-8").splitlines()

# What is commented out has no space after its #; prose has one.
COMMENTED_OUT = re.compile(r"#(\[|[a-z_]+ = )")


def uncommented(lines: list[str] = LINES) -> str:
    """The whole file with every example in force."""
    return "\n".join(line[1:] if COMMENTED_OUT.match(line) else line for line in lines)


EXAMPLES: dict[str, dict[str, Any]] = tomllib.loads(uncommented())["destinations"]
