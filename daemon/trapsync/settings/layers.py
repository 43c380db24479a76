"""Which settings are laid over which: the config file, what was pushed, and the override file, key by key.

`override.toml` beside the config file belongs to the person who stands at the trap: it is TOML with the same keys,
and goes before whatever was pushed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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


def value_at(tables: Any, key: Key) -> Any:
    """The value at the path of a key; None where there is none."""
    for part in key:
        tables = tables.get(part) if isinstance(tables, dict) else None
    return tables


@dataclass(frozen=True, slots=True)
class Texts:
    """The text of a config file, and of the override file beside it if there is one."""

    config: str
    override: str | None = None

    @classmethod
    def read(cls, source: Path) -> "Texts":
        """Read both. Raises SettingsError."""
        path = source.with_name(OVERRIDE)
        return cls(config_file.read_text(source), config_file.read_text(path) if path.exists() else None)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Why a config file is not in force, and since when (unix seconds) the one ran that is in force in its place.

    `unused`: the tables of that one that are left out, because the config file names other accounts there. `since` is None
    where no other config is in force.
    """

    problem: str
    since: float | None = None
    unused: tuple[str, ...] = ()


class Files:
    """The config file and the override file beside it, read once. Raises SettingsError.

    `local` are the settings of the person at the trap alone, nothing pushed.
    """

    def __init__(
        self,
        source: Path,
        texts: Texts | None = None,
        fallback: Fallback | None = None,
        instead: dict[str, Any] | None = None,
    ) -> None:
        """Without texts, they are those of the files; a fallback says why they are others.

        `instead` are whole tables that stand in the place of those in the texts.
        """
        self.source = source
        self.texts = texts or Texts.read(source)
        self.fallback = fallback
        self.tables = config_file.tables(self.texts.config, source)
        path = source.with_name(OVERRIDE)
        self.override = {} if self.texts.override is None else config_file.tables(self.texts.override, path)
        if instead is not None:
            self.tables = {name: one for name, one in self.tables.items() if name not in instead} | instead
            self.override = {name: one for name, one in self.override.items() if name not in instead}
        self.local = config_file.from_tables(self.tables, source)
        if self.override:
            self.local = config_file.from_tables(merge(self.tables, self.override), path)

    @property
    def has_override(self) -> bool:
        """Whether a person wrote something over what may have been pushed."""
        return bool(self.override)

    def with_remote(self, tables: dict[str, Any], name: str) -> Settings:
        """All of it, with these tables between the two files; errors call them by the name."""
        merged = merge(merge(self.tables, tables), self.override)
        return config_file.rooted(config_file.decode(merged, Settings, name), self.source.absolute().parent)

    def origins(self, pushed: dict[str, Any], name: str) -> dict[Key, str]:
        """Where each key comes from that is not from the config file."""
        return dict.fromkeys(keys(pushed), name) | dict.fromkeys(keys(self.override), OVERRIDE)
