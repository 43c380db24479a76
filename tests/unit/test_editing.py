"""Changing one key of a config file: the change and nothing else, or an error."""

import tomllib

import pytest

from config_examples import FILE, LINES
from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings.editing import key_of, with_value, without_value

FULL = "\n".join(LINES) + "\n"

CHANGES = {
    "a value": ("[a]\nx = 1\ny = 2\n", "a.x", 3, "[a]\nx = 3\ny = 2\n"),
    "a table that is not there": ("# first\n[a]\nx = 1", "b.c.d", "é", '# first\n[a]\nx = 1\n\n[b.c]\nd = "é"\n'),
    "an empty file": ("", "a.x", True, "\n[a]\nx = true\n"),
    "behind the last key": ("[a]\nx = 1\n\n# of b\n[b]\n", "a.y", 2, "[a]\nx = 1\ny = 2\n\n# of b\n[b]\n"),
    "an empty table": ("[a] # here\n\n[b]\n", "a.y", [1, 2], "[a] # here\ny = [1, 2]\n\n[b]\n"),
    "the line that shows it": ("[a]\n# what x is\n#x = 1\ny = 2\n", "a.x", 3, "[a]\n# what x is\nx = 3\ny = 2\n"),
    "a value of several lines": ('[a]\nx = [\n  "p", # q\n]\ny = 2\n', "a.x", ["r"], '[a]\nx = ["r"]\ny = 2\n'),
    "not one of a table below": ("[a]\n#[b]\n#x = 1\n[c]\nx = 2\n", "a.x", 3, "[a]\nx = 3\n#[b]\n#x = 1\n[c]\nx = 2\n"),
    "a name in quotes": ('["a b"]\n"x y" = 1\n', '"a b"."x y"', 2, '["a b"]\n"x y" = 2\n'),
    "a key that ends alike": ("[a]\nxx = 1\n", "a.x", 3, "[a]\nxx = 1\nx = 3\n"),
}  # fmt: skip


@pytest.mark.parametrize("how", CHANGES)
def test_a_value_is_changed_and_everything_else_stays(how: str) -> None:
    text, key, value, expected = CHANGES[how]
    assert with_value(text, key_of(key), value, "x.toml") == expected


LEFT_ALONE = {
    "an inline table": "a = {x = 1}\n",
    "dotted": "a.x = 1\n",
    "a text with lines like keys": '[a]\ny = """\nx = 1\n"""\n[b]\n',
    "no TOML": "[a\n",
}


@pytest.mark.parametrize("how", ["an inline table", "dotted", "no TOML"])
def test_what_is_written_otherwise_is_left_to_an_editor(how: str) -> None:
    with pytest.raises(SettingsError, match=r"^x.toml: "):
        with_value(LEFT_ALONE[how], ("a", "x"), 3, "x.toml")


def test_lines_of_a_text_are_no_keys() -> None:
    text = with_value(LEFT_ALONE["a text with lines like keys"], ("a", "x"), 3, "x.toml")
    assert tomllib.loads(text) == {"a": {"y": "x = 1\n", "x": 3}, "b": {}}


def test_a_key_that_is_unset_becomes_a_comment_and_is_set_there_again() -> None:
    text = "[a]\nx = [\n 1,\n]\ny = 2\n"
    unset = without_value(text, ("a", "x"), "x.toml")
    assert unset == "[a]\n#x = [\n# 1,\n#]\ny = 2\n"
    once = without_value("[a]\nx = 1\ny = 2\n", ("a", "x"), "x.toml")
    assert with_value(once, ("a", "x"), 5, "x.toml") == "[a]\nx = 5\ny = 2\n"
    with pytest.raises(SettingsError, match="x is not set there"):
        without_value(unset, ("a", "x"), "x.toml")


@pytest.mark.parametrize("text", ["every", "", "a.b = 1\nc", "a..b", "a.b.", "[a]"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is no key of a setting"):
        key_of(text)


def test_every_key_of_the_complete_file_can_be_set_and_unset_with_no_other_line_changed() -> None:
    shown = config_file.tables(FULL, FILE)
    keys = [
        (table, key) for table in shown for key, value in shown[table].items() if not isinstance(value, dict)
    ]
    assert len(keys) > 50
    for key in keys:
        for text in (with_value(FULL, key, "new", FILE), without_value(FULL, key, FILE)):
            lines = text.splitlines()
            assert len(lines) == len(LINES)
            assert sum(one != other for one, other in zip(lines, LINES, strict=True)) == 1
