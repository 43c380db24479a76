"""The faults that are put into the program on purpose: each can be put there, and it is told what becomes of it."""

from pathlib import Path

import pytest

import mutants
from mutants import MUTANTS, Mutant


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program of one line, and two tests of it."""
    root = tmp_path / "project"
    (root / mutants.PROGRAM).mkdir(parents=True)
    (root / mutants.PROGRAM / "__init__.py").write_text("one = 1\ntwo = 2\n")
    (root / "tests").mkdir()
    (root / "tests" / "test_one.py").write_text("import trapsync\ndef test_it(): assert trapsync.one == 1\n")
    (root / "tests" / "test_bad.py").write_text("def test_it(): assert False\n")
    return root


def fault(before: str, *tests: str) -> Mutant:
    return Mutant("another number", "__init__.py", before, "three = 3", tests)


def say_nothing(_line: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_each_fault_has_its_place_in_the_program_and_its_tests(mutant: Mutant) -> None:
    content = (mutants.ROOT / mutants.PROGRAM / mutant.file).read_text()
    assert content.count(mutant.before) == 1, "the code changed: write the pattern anew"
    assert mutant.tests
    for name in mutant.tests:
        file, _, test = mutants.file_of(name).partition("::")
        assert f"def {test}" in (mutants.ROOT / file).read_text()


def test_a_fault_that_a_test_notices_is_killed_and_one_that_none_notices_survives(tree: Path) -> None:
    told: list[str] = []
    seen, unseen = fault("one = 1", "test_one.py"), fault("two = 2", "test_one.py")
    assert mutants.run([seen, unseen], told.append, tree) == [unseen]
    assert told[0].startswith("killed    another number (__init__.py; tests/test_one.py::test_it)")
    assert told[1].startswith("SURVIVED  another number (__init__.py; test_one.py)")
    assert told[-1] == "2 mutants: 1 killed, 1 survived"
    assert (tree / mutants.PROGRAM / "__init__.py").read_text() == "one = 1\ntwo = 2\n"


@pytest.mark.parametrize("before", ["four = 4", " = "])
def test_a_text_that_is_not_in_the_program_or_not_once_is_an_error_of_the_table(
    tree: Path, before: str
) -> None:
    with pytest.raises(mutants.Stale, match="write the pattern anew"):
        mutants.run([fault(before, "test_one.py")], say_nothing, tree)


def test_tests_that_fail_without_a_fault_kill_nothing(tree: Path) -> None:
    with pytest.raises(RuntimeError, match="without any fault"):
        mutants.run([fault("one = 1", "test_bad.py")], say_nothing, tree)
