"""Which settings are laid over which: the config file, what was pushed, and the override file, key by key.

`override.toml` beside the config file belongs to the person who stands at the trap: it is TOML with the same keys,
and goes before whatever was pushed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trapsync.settings import config_file
from trapsync.settings.schema import Settings

OVERRIDE = "override.toml"
Key = tuple[str, ...]  # the path of a key: ("capture", "every")


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay tables over others, in every depth; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def keys(tables: dict[str, Any], at: Key = ()) -> Iterator[Key]:
    """The path of every key that is written in them, tables left out."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from keys(value, (*at, key))
        else:
            yield (*at, key)


class Files:
    """The config file and the override file beside it, read once. Raises SettingsError.

    `local` are the settings of the person at the trap alone, nothing pushed.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._tables = config_file.read(source)
        self.local = config_file.from_tables(self._tables, source)
        path = source.with_name(OVERRIDE)
        self._override = config_file.read(path) if path.exists() else {}
        if self._override:
            self.local = config_file.from_tables(merge(self._tables, self._override), path)

    @property
    def has_override(self) -> bool:
        """Whether a person wrote something over what may have been pushed."""
        return bool(self._override)

    def with_remote(self, tables: dict[str, Any], name: str) -> Settings:
        """All of it, with these tables between the two files; errors call them by the name."""
        merged = merge(merge(self._tables, tables), self._override)
        return config_file.rooted(config_file.decode(merged, Settings, name), self.source.absolute().parent)

    def origins(self, pushed: dict[str, Any], name: str) -> dict[Key, str]:
        """Where each key comes from that is not from the config file."""
        return dict.fromkeys(keys(pushed), name) | dict.fromkeys(keys(self._override), OVERRIDE)
