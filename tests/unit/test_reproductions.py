"""Each number in the table of reproductions names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def rows() -> dict[str, list[tuple[str, str]]]:
    """For each number of the table the files, each with the words of its tests."""
    text = (TESTS / "README.md").read_text().partition("# Reproductions by number")[2].partition("\n# ")[0]
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.match(r"[RSFV]\d|suspicion|users", cells[0]):
            found[cells[0]] = re.findall(r"`(\w+\.py)` ([\w, ]+)", cells[2])
    return found


def test_each_reproduction_names_a_test_by_a_word_of_its_name() -> None:
    missing = []
    for number, files in rows().items():
        assert files, number
        for file, words in files:
            names = re.findall(r"def (test_\w+)", next(TESTS.rglob(file)).read_text())
            missing += [
                f"{number}: {file} {word}"
                for word in words.split(", ")
                if word.strip() and not any(word.split()[0] in name for name in names)
            ]
    assert missing == []


def test_the_table_has_every_number_that_the_issue_names() -> None:
    numbers = " ".join(rows())
    wanted = [
        *(f"R{n}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 21, 22, 24, 25, 26, 29))
    ]
    wanted += [f"F{n}" for n in (3, 4, 5, 6, 7, 8, 12, 13, 15, 25, 27)]
    wanted += ["S1", "S3", "S8", "S17", "S18", "S19", "V2.1", "V2.3"]
    assert [one for one in wanted if not re.search(rf"{re.escape(one)}\b", numbers)] == []
