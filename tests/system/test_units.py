"""The units and the scripts that install them, as far as that can be seen without starting anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "systemd").glob("trapsync*.*"))
SCRIPTS = [
    *(path for path in (ROOT / "scripts").iterdir() if not path.suffix and path.is_file()),
    ROOT / "systemd" / "reboot-guard",
    ROOT / "systemd" / "stick-keeper",
]

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as they are on a trap, where what they start is there."""
    for unit in UNITS:
        text = re.sub(
            r"/opt/trapsync(?:-hub)?/current/(bin/trapsync|units/(?:reboot-guard|stick-keeper))",
            "/bin/true",
            unit.read_text(),
        )
        (tmp_path / unit.name).write_text(text)
    return [str(tmp_path / unit.name) for unit in UNITS]


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_units(installed: list[str]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *installed], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# In tenths. Seen by Bookworm's systemd (252) and by Trixie's (257): 1.5, 1.3, 1.7, and 2.4 of the one that joins.
EXPOSED = {"trapsync.service": 15, "trapsync-reboot.service": 15, "trapsync-stick@.service": 20}
EXPOSED |= {"trapsync-join.service": 25, "trapsync-hub.service": 15}


@needs_systemd
@pytest.mark.parametrize("name", EXPOSED)
def test_no_unit_is_exposed_to_more_than_it_needs(installed: list[str], name: str) -> None:
    unit = next(path for path in installed if path.endswith(f"/{name}"))
    judge = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSED[name]}", unit]
    done = subprocess.run(judge, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_every_service_has_its_measure() -> None:
    assert {unit.name for unit in UNITS if unit.suffix == ".service"} == EXPOSED.keys()


def test_every_unit_is_put_in_its_place_and_taken_away_again() -> None:
    for script in ("install", "uninstall", "install-hub"):
        text = (ROOT / "scripts" / script).read_text()
        of_the_hub = script == "install-hub"
        assert [
            unit.name for unit in UNITS if ("hub" in unit.name) == of_the_hub and unit.name not in text
        ] == []


_CUT = """
systemctl() { echo "systemctl $1"; }
as_account() { echo "no space"; return 1; }
previous=1 next=2
save_database
echo "it went on"
"""


def test_an_upgrade_that_ends_while_the_hub_is_stopped_starts_it_again(tmp_path: Path) -> None:
    script = (ROOT / "scripts" / "install-hub").read_text()
    assert script.endswith('\nmain "$@"\n')
    (tmp_path / "install-hub").write_text(script.replace('\nmain "$@"\n', _CUT))
    done = subprocess.run(["bash", tmp_path / "install-hub"], capture_output=True, text=True)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line and line[0].isalpha()]
    assert said == ["systemctl stop", "no space", "systemctl start"]


@pytest.mark.skipif(shutil.which("udevadm") is None, reason="udevadm is not installed here")
def test_udev_has_nothing_to_say_against_the_rule() -> None:
    if subprocess.run(["udevadm", "verify", "--help"], capture_output=True).returncode:
        pytest.skip("udevadm verify is not to be had here (systemd 254)")
    rule = ROOT / "systemd" / "99-trapsync-stick.rules"
    done = subprocess.run(["udevadm", "verify", rule], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed here")
def test_shellcheck_has_nothing_to_say_against_the_scripts() -> None:
    shell = [str(path) for path in SCRIPTS if path.read_text().startswith("#!")]
    assert len(shell) >= 6
    done = subprocess.run(["shellcheck", *shell], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="the installer is for Debian and its kin")
def test_the_installer_says_what_it_would_do_and_does_nothing() -> None:
    places = [Path("/opt"), Path("/etc"), Path("/etc/systemd/system"), Path("/var/lib")]
    before = [path.stat().st_mtime_ns for path in places]
    done = subprocess.run([ROOT / "scripts" / "install", "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing was done" in done.stdout
    assert [path.stat().st_mtime_ns for path in places] == before


def test_no_core_dump_of_the_daemon_is_written() -> None:
    assert "\nLimitCORE=0\n" in (ROOT / "systemd" / "trapsync.service").read_text()


def test_no_command_of_the_documents_leaves_a_secret_in_the_shells_history() -> None:
    """Finding S22: a secret comes by standard input, never as a word of a command."""
    documents = [
        *ROOT.glob("*.md"),
        *ROOT.glob("*/*.md"),
        *ROOT.glob("daemon/**/*.md"),
        *ROOT.glob("config/*"),
    ]
    words = re.compile(r"(echo|printf)\b.*(password|secret|\bkey\b)|<<<.*(password|secret)", re.IGNORECASE)
    from_a_file = re.compile(r'"\$\(cat [\w./-]+\)"')  # of which the history has the name
    told = [
        (path.name, line)
        for path in documents
        if path.is_file() and path != ROOT / "CHANGELOG.md"
        for line in path.read_text().splitlines()
        if words.search(from_a_file.sub("", line))
    ]
    assert told == []
