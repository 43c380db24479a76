"""The documents: their commands run as they are written, their links lead somewhere, the names in them exist."""

import itertools
import json
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
import requests

import documents
import private_machine
import processes
import trapsync
from documents import NOT_RUN, ROOT, RUN_ELSEWHERE, WITH_COMMANDS, Block, without_comment
from private_machine import CONFIG, Machine
from trapsync import cli
from trapsync.errors import SettingsError
from trapsync.runtime import config_check
from trapsync.settings.layers import Files
from trapsync.settings.schema import Destination

BLOCKS = [block for document in WITH_COMMANDS for block in documents.blocks(document)]
COMMANDS = {without_comment(command): block for block in BLOCKS for command in block.commands}
PAGES = [*WITH_COMMANDS, "tests/README.md", "CHANGELOG.md", "SECURITY.md"]
NOWHERE = set(documents.listed(NOT_RUN)) | set(documents.listed(RUN_ELSEWHERE))

VERDICTS = {"ok", "warning", "failing"}
# The exit code is the verdict, or how the single run went; a mistake in the command is told on standard error.
VERDICT = re.compile(r"(sudo )?trapsync (status|doctor|fleet|once|spool)\b")
# Commands that do not end by themselves, and what they say when they are ready.
ENDLESS = {"trapsync hub --": "the hub listens", "trapsync run": "watching over"}
# For people; the other pages are for developers, who know what a line of Python is.
FOR_DEVELOPERS = {"config/heartbeat.md", "daemon/README.md", "daemon/trapsync/destinations/README.md"}
FOR_DEVELOPERS |= {".github/CONTRIBUTING.md"}
FOR_USERS = [name for name in WITH_COMMANDS if name not in FOR_DEVELOPERS]


def name(document: str) -> str:
    """The document in the name of a test, where a slash would look like that of a file."""
    return document.replace("/", " ")


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which a trap is installed, and has run once."""
    with private_machine.running(tmp_path) as machine:
        yield machine


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name)
def test_every_command_of_a_document_works_as_it_is_written(document: str, machine: Machine) -> None:
    blocks = documents.blocks(document)
    commands = {without_comment(command) for block in blocks for command in block.commands} - NOWHERE
    if any(command.startswith("sudo trapsync") for command in commands):
        once = machine.run("trapsync once")
        assert once.returncode == 1, once.stderr  # there is no destination yet
    for block in blocks:
        if block.language == "toml":
            write(block, machine)
        if block.language == "console":  # it shows a trap that has met its destinations and its hub
            machine.run("trapsync once")
        for command in block.commands:
            if without_comment(command) not in NOWHERE:
                obey(block, command, machine)


def write(block: Block, machine: Machine) -> None:
    """Do with a file what its document says: the trap's settings are edited and must be valid, another file is written."""
    first, *_ = block.lines
    assert first.startswith("# "), (
        f"{block}: say in the first line of the block, after '# ', which file this is"
    )
    file = first.removeprefix("# ")
    if file != CONFIG:
        machine.write(file, "\n".join(block.lines) + "\n")
    else:
        machine.settle(tomllib.loads("\n".join(block.lines)))
    if file.startswith("/etc/trapsync/"):
        checked = machine.run("trapsync settings check")
        assert checked.returncode == 0, f"{block}: {checked.stderr}"


def obey(block: Block, command: str, machine: Machine) -> None:
    """Run a command; where a document relies on something that its reader does beside it, do that too."""
    plain = without_comment(command)
    for beginning, says in ENDLESS.items():
        if plain.removeprefix("sudo ").startswith(beginning):
            machine.start(plain, says)
            machine.serve_tls()
            return
    if plain.startswith("sudo trapsync join"):  # with the code that was printed, as whoever reads it would
        command = re.sub(r"https://\S+", machine.code, command)
    done = machine.run(command)
    said = f"{block}: {command}\nended with {done.returncode}\n{done.stdout}{done.stderr}\n{ADVICE}"
    assert "Traceback" not in done.stderr, said
    if VERDICT.match(plain):
        assert done.returncode in {0, 1, 2}, said
        assert "trapsync: " not in done.stderr, said
        assert "Usage:" not in done.stderr, said
    else:
        assert done.returncode == 0, said
    if plain.startswith("trapsync keys new"):  # its lines go onto the traps
        machine.settle(tomllib.loads(done.stdout))
    if found := re.search(r"https://\S+/join#\S+", done.stdout):
        machine.code = found[0]
    if plain == "trapsync fleet":
        assert block.lines[1].split() == done.stdout.splitlines()[0].split(), (
            f"{block}: is no longer what is printed"
        )
    elif block.language == "console":
        compare(block, done.stdout)


ADVICE = (
    "Correct the document or the program. A command that cannot run on a test machine is listed in tests/README.md, under "
    f"'{NOT_RUN}' with its reason, or under '{RUN_ELSEWHERE}' with its test."
)


def compare(block: Block, said: str) -> None:
    """What a document shows under a command has the words that the command prints; numbers are others each time."""
    printed, shown = rows(said.splitlines()), rows(block.lines[1:])
    assert set(shown) <= set(printed), f"{block}: shows rows that are not printed\n{said}"
    counted = [label for label in shown if re.match("N (captured|delivered)", shown[label])]
    assert len(counted) >= 2
    for label in counted:
        assert printed[label] == shown[label], f"{block}: is no longer what is printed\n{said}"


def rows(lines: Iterable[str]) -> dict[str, str]:
    """The rows of a status by their label; of each, what comes before the first semicolon, with N for every number."""
    pairs = (re.split(r"  +", line, maxsplit=1) for line in lines)
    found = {label: re.sub(r"\d+", "N", text.partition(";")[0]) for label, text in pairs}
    return {label: text for label, text in found.items() if label not in VERDICTS}


ADDED = [block for block in BLOCKS if block.language == "toml" and block.lines[0] == f"# {CONFIG}"]


def test_each_block_of_settings_can_be_added_to_the_file_as_it_is_installed(tmp_path: Path) -> None:
    file, installed = tmp_path / "trapsync.toml", documents.text_of("config/minimal.toml")
    assert len(ADDED) >= 8
    for block in ADDED:
        file.write_text("\n".join([installed, *block.lines]))
        try:
            config_check.check(Files(file))
        except SettingsError as error:
            pytest.fail(f"{block}: added to config/minimal.toml it is not valid: {error}")


def test_every_command_that_is_not_run_is_in_a_document() -> None:
    gone = [command for command in sorted(NOWHERE) if command not in COMMANDS]
    assert gone == [], f"take them out of the lists in {documents.LISTS}, or correct them there"


def test_every_command_with_a_test_of_its_own_has_that_test() -> None:
    tests = {
        f"{path.name}::{test}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for test in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for command, test in documents.listed(RUN_ELSEWHERE).items():
        assert test.strip("`") in tests, f"{documents.LISTS}: {command}: there is no test {test}"


def test_every_code_block_says_what_it_is() -> None:
    for block in BLOCKS:
        assert block.language in documents.LANGUAGES, (
            f"{block}: '{block.language}' is none of {sorted(documents.LANGUAGES)}; commands are 'sh', one a line, what a "
            "command prints is 'console' or 'text', a file is 'toml' or 'ini'"
        )


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name)
def test_no_code_is_only_indented(document: str) -> None:
    before = ""
    for number, line in enumerate(documents.prose(document).splitlines(), 1):
        is_code = line.startswith("    ") and not before.strip() and not re.match(r"\s*([-*]|\d+\.) ", line)
        assert not is_code, f"{document}:{number}: put ```sh before it, so that a test can run it"
        before = line


# ── The demonstration ────────────────────────────────────────────────────────────────────────────────


def demonstrate() -> list[str]:
    """Run scripts/demo, with the environment of the tests in place of its own; what it says.

    At its end it is looked at in a browser, in which the trap's picture is shown, and told to end.
    """
    command = [sys.executable, "-u", "scripts/demo.py", "--keep"]
    with processes.started(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        said = [demo.stdout.readline()]
        while said[-1] and "runs on until Ctrl-C" not in said[-1]:
            said.append(demo.stdout.readline())
        address = re.search(r"http://127\.0\.0\.1:\d+", demo.stdout.readline())
        assert address, said
        login = {"name": "trapsync", "password": "trapsync"}
        with requests.Session() as browser:
            origin = {"Origin": address[0]}
            shown = browser.post(f"{address[0]}/login", data=login, headers=origin, timeout=60)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 128 + signal.SIGINT
    assert "demonstration" in shown.text
    text = "".join(said).partition("\npictures:")[0]
    return [line for line in text.splitlines() if not line.startswith("look at the trap")]


@pytest.mark.timeout(300)
def test_the_demonstration_ends_by_itself_and_is_what_its_picture_shows() -> None:
    said = [re.sub(r"\d+", "N", line).strip() for line in demonstrate() if not line.startswith("   ")]
    assert len(said) > 5
    picture = ElementTree.parse(ROOT / ".github" / "images" / "demo.svg")
    words = "".join("".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text"))
    shown = re.sub(r"\d+", "N", words.replace("\xa0", " "))
    for line in said:
        assert line in shown, f"the README's picture of the demonstration is old: run scripts/images ({line})"


def test_the_pictures_are_small_and_fetch_nothing() -> None:
    folder = ROOT / ".github" / "images"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000
    addresses = set(re.findall(r"\w+://[^\"')\s]+", (folder / "demo.svg").read_text(encoding="utf-8")))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched


# ── Links, names, lengths ────────────────────────────────────────────────────────────────────────────


def test_the_readme_can_be_read_in_one_go() -> None:
    lines = len(documents.text_of("README.md").splitlines())
    assert lines <= 180, (
        f"README.md has {lines} lines, more than 180: move what is not for a first look to another page"
    )


@pytest.mark.parametrize("document", PAGES, ids=name)
def test_every_link_leads_to_something(document: str) -> None:
    for target in documents.links(document):
        page, _, anchor = target.partition("#")
        path = (ROOT / document).parent / page if page else ROOT / document
        assert path.exists(), f"{document}: {target}: there is no such file"
        if anchor:
            there = documents.anchors(str(path.resolve().relative_to(ROOT)))
            assert anchor in there, (
                f"{document}: {target}: there is no such heading; there are: {sorted(there)}"
            )


def inline(document: str) -> list[str]:
    """What stands between backquotes in its prose."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", documents.prose(document))]


def test_what_is_said_of_attacks_names_tests_that_there_are_and_is_installed() -> None:
    text = documents.text_of("SECURITY.md")
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+\.py)`", text))
    assert len(named) > 20
    assert named - files == set()
    assert "(SECURITY.md)" in documents.text_of("README.md")
    assert "cp --parents README.md SECURITY.md " in documents.text_of("scripts/install")
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert [row for row in rows if not re.search(r"`test_\w+\.py` \|$", row)] == [], "say which test shows it"


@pytest.mark.parametrize("document", FOR_USERS, ids=name)
def test_every_command_that_is_named_exists_with_its_options(document: str) -> None:
    for code in inline(document):
        words = code.removeprefix("sudo ").split()
        if words[0] != "trapsync" or len(words) == 1 or not re.fullmatch("[a-z]+", words[1]):
            continue
        command: click.Command = cli.cli
        for word in words[1:]:
            if not isinstance(command, click.Group) or word.startswith("-"):
                break
            assert word in command.commands, f"{document}: `{code}`: there is no command '{word}'"
            command = command.commands[word]
        options = {name for option in command.params for name in option.opts}
        for word in words:
            assert not word.startswith("-") or word in options, (
                f"{document}: `{code}`: there is no option {word}"
            )


KEYS = {
    line.lstrip("#").partition(" = ")[0]
    for line in documents.text_of("config/trapsync.toml").splitlines()
    if re.match(r"#?[a-z_]+ = ", line)
}
TABLES = set(re.findall(r"^#?\[([a-z_.]+)\]", documents.text_of("config/trapsync.toml"), re.MULTILINE))


@pytest.mark.parametrize("document", FOR_USERS, ids=name)
def test_every_setting_that_is_named_exists(document: str) -> None:
    ends = "py|toml|md|jpg|JPG|json|key|conf|rules|service|path|password|txt|sqlite|pem|com|org"
    for code in inline(document):
        key, is_set, _ = code.partition(" = ")
        if table := re.fullmatch(r"\[([a-z_.]+)\]", code):
            assert table[1] in TABLES | {"broker"}, f"{document}: `{code}`: there is no such table"
        elif is_set and re.fullmatch("[a-z_]+", key):
            assert key in KEYS, f"{document}: `{code}`: there is no such setting"
        elif re.fullmatch(r"(?!trapsync)[a-z_]+(\.[a-z_]+)+", key) and not re.search(rf"\.({ends})$", key):
            table_name, _, last = key.rpartition(".")
            assert table_name in TABLES, f"{document}: `{code}`: there is no table [{table_name}]"
            assert last in KEYS, f"{document}: `{code}`: there is no such setting"


def table_of(document: str, heading: str) -> set[str]:
    """What stands between backquotes in the first column of the table with that heading."""
    lines = iter(documents.text_of(document).splitlines())
    assert any(line.startswith(f"| {heading} |") for line in lines), f"{document} has no table '{heading}'"
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_table_of_keys_has_every_key_that_all_destinations_share() -> None:
    assert table_of("config/README.md", "key") == set(Destination.__struct_fields__) - {"kind"}


def test_the_tables_of_remote_settings_have_the_programs_own_words() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in Path(trapsync.__file__).parent.rglob("*.py")
    )
    refused = set(re.findall(r"RefusedDocument\(\s*\"(\w+)\"", sources))
    assert table_of("config/README.md", "why a trap refused settings") == refused
    for code in table_of("config/README.md", "why a trap rolled back"):
        assert f'"{code}"' in sources, f"config/README.md: `{code}`: the program knows no such reason"


CONFIG_OF_A_TRAP = """
[trap]
device = "0a5bb6f4"
[storage]
spool = "spool"
state = "state"
[camera]
kind = "simulated"
resolution = [640, 480]
[destinations.folder]
kind = "directory"
path = "folder"
"""


def test_the_table_of_the_status_has_the_keys_that_the_status_has(tmp_path: Path) -> None:
    config = tmp_path / "trapsync.toml"
    config.write_text(CONFIG_OF_A_TRAP)
    call = [sys.executable, "-m", "trapsync", "-c", str(config)]
    subprocess.run([*call, "once"], capture_output=True, check=False)
    facts = json.loads(subprocess.run([*call, "status", "--json"], capture_output=True, check=False).stdout)
    page = documents.text_of("scripts/README.md")
    for key in table_of("scripts/README.md", "key of `status --json`"):
        assert key in facts, f"scripts/README.md: the status has no key `{key}`; it has: {sorted(facts)}"
        inner = facts[key]["folder"] if key == "destinations" else facts[key]
        (row,) = re.findall(rf"^\| `{key}` \|(.*)\|$", page, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", row) if isinstance(inner, dict) and inner else ():
            assert code in inner, f"scripts/README.md: `{key}` has no key `{code}`; it has: {sorted(inner)}"
