"""config/trapsync.toml, and config/hub.toml for a hub, is the defaults, the documentation and the list of valid keys."""

import importlib
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

import trapsync
from config_examples import EXAMPLES, FILE, HUB_FILE, HUB_LINES, LINES, uncommented
from trapsync import destinations
from trapsync.destinations import kinds
from trapsync.runtime import config_check
from trapsync.settings import config_file, open_links
from trapsync.settings.hub import HubSettings
from trapsync.settings.layers import Files
from trapsync.settings.schema import Destination, Settings
from trapsync.settings.table import Table

KEY = re.compile(r"#?([a-z_]+) = ")
HEADING = re.compile(r"#?\[(.+)\]")
PROSE = re.compile("# +[^ ]")


def tables_of(table: Table, name: str = "") -> dict[str, Table]:
    """The table and all in it, by dotted name; the whole file is ''."""
    found = {name: table}
    for key in table.__struct_fields__:
        inner = getattr(table, key)
        if isinstance(inner, Table):
            found |= tables_of(inner, f"{name}.{key}".lstrip("."))
    return found


TABLES = tables_of(Settings())


def test_the_file_is_the_defaults() -> None:
    assert config_file.parse("\n".join(LINES), FILE) == Settings()


def test_the_hubs_file_is_its_defaults_and_has_every_key() -> None:
    assert config_file.decode(tomllib.loads("\n".join(HUB_LINES)), HubSettings, HUB_FILE) == HubSettings()
    shown = tomllib.loads(uncommented(HUB_LINES))
    for name, table in tables_of(HubSettings()).items():
        here: Any = shown
        for part in name.split(".") if name else ():
            here = here[part]
        assert set(here) == set(table.__struct_fields__), name


@pytest.mark.parametrize("name", TABLES)
def test_every_key_of_a_table_stands_in_the_file(name: str) -> None:
    here: Any = tomllib.loads(uncommented())
    for part in name.split(".") if name else ():
        here = here[part]
    assert set(here) == set(TABLES[name].__struct_fields__)


def test_there_is_an_example_of_every_kind_of_destination() -> None:
    assert sorted(table["kind"] for table in EXAMPLES.values()) == sorted(kinds.BUILT_IN)


def test_each_file_that_holds_a_secret_is_known_as_one_to_the_doctor() -> None:
    keys = {key for table in EXAMPLES.values() for key in table if key.endswith("_file")}
    assert keys - {"ca_file"} == set(open_links.SECRETS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_destination_example_is_well_once_its_number_signs_are_taken_away(name: str) -> None:
    decoded = destinations.check(name, EXAMPLES[name], FILE).settings
    assert decoded.kind == EXAMPLES[name]["kind"]
    for field in msgspec.structs.fields(type(decoded)):
        if field.name in EXAMPLES[name] and field.default not in (msgspec.NODEFAULT, None):
            assert getattr(decoded, field.name) == field.default, f"not the default of {field.name}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_key_of_a_destination_stands_in_its_example_or_among_the_common_ones(name: str) -> None:
    own = set(importlib.import_module(kinds.BUILT_IN[EXAMPLES[name]["kind"]]).Settings.__struct_fields__)
    common = set(Destination.__struct_fields__)
    first = next(iter(EXAMPLES.values()))
    assert set(EXAMPLES[name]) - common == own - common
    assert common <= set(first)


@pytest.mark.parametrize("lines", [LINES, HUB_LINES])
def test_every_key_has_a_comment_above_it_or_above_its_group(lines: list[str]) -> None:
    for before, line in pairwise(lines):
        if KEY.match(line) or HEADING.match(line):
            assert KEY.match(before) or HEADING.match(before) or PROSE.match(before), (
                f"no comment above: {line}"
            )
    groups = re.split(r"\n\s*\n", "\n".join(lines))
    for group in groups:
        assert not HEADING.match(group.splitlines()[0]), f"a table without a word about it: {group}"


@pytest.mark.parametrize("lines", [LINES, HUB_LINES])
def test_every_comment_is_prose_or_an_example_and_nothing_is_neither(lines: list[str]) -> None:
    for line in lines:
        assert not line or PROSE.match(line) or line == "#" or KEY.match(line) or HEADING.match(line), line


@pytest.mark.parametrize("lines", [LINES, HUB_LINES])
def test_the_file_fits_a_terminal(lines: list[str]) -> None:
    assert max(map(len, lines)) <= 110
    assert all(line == line.rstrip() and "\t" not in line for line in lines)


def test_the_defaults_can_be_looked_up_in_the_file_as_they_are_shown() -> None:
    shown = tomllib.loads(config_file.to_text(Settings()))
    written = tomllib.loads("\n".join(LINES))
    assert shown.pop("destinations") == {}
    assert shown == written


def test_the_file_as_it_is_installed_sets_nothing_and_its_examples_are_valid(tmp_path: Path) -> None:
    text = config_file.example(complete=False)
    assert tomllib.loads(text) == {}
    assert max(map(len, text.splitlines())) <= 120
    file = tmp_path / "trapsync.toml"
    file.write_text(re.sub("^#(?=[^ \n])", "", text, flags=re.MULTILINE))
    assert len(tomllib.loads(file.read_text())) == 3
    config_check.check(Files(file))


def test_a_wheel_holds_the_files_in_the_place_where_they_are_looked_for() -> None:
    project = tomllib.loads((FILE.parents[1] / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    beside = Path(config_file.__file__).parent.relative_to(Path(trapsync.__file__).parents[1])
    assert included == {
        f"config/{name}": str(beside / name) for name in ("hub.toml", "minimal.toml", "trapsync.toml")
    }
