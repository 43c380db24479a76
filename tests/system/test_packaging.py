"""What is installed and how: the lock file, the extras, Python as root, the lines of the documents."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LISTS = ROOT / "scripts" / "requirements"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
TRAP = ("libvips", "mqtt", "remote")  # as in scripts/lock
WANTED: dict[str, list[str]] = {
    "trap": PROJECT["project"]["dependencies"] + [one for extra in TRAP for one in EXTRAS[extra]],
    "hub": EXTRAS["hub"],
    "build": PROJECT["build-system"]["requires"],
}
NAMES = {"hub": ("trap", "hub"), "trap": ("trap",), "build": ("build",)}


def locked(name: str) -> dict[str, str]:
    """Package and version of each entry of a list, and of the lists that it includes."""
    text = "".join((LISTS / f"{one}.txt").read_text() for one in NAMES[name])
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ \\]+)", text, re.MULTILINE))


# ── The lock file ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", WANTED)
def test_every_dependency_is_locked_within_its_range(name: str) -> None:
    versions = locked(name)
    wanted = [Requirement(one) for one in WANTED[name]]
    wrong = [
        str(one) for one in wanted if versions.get(canonicalize_name(one.name), "none") not in one.specifier
    ]
    assert wrong == [], f"{name}.txt does not hold them so: run scripts/lock"


@pytest.mark.parametrize("name", WANTED)
def test_each_entry_of_the_lock_has_one_version_and_hashes_and_no_address(name: str) -> None:
    text = (LISTS / f"{name}.txt").read_text()
    entries = re.split(
        r"^(?=[a-z0-9])", re.sub(r"^(#|-r ).*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    )
    entries = [entry for entry in entries if entry.strip()]
    assert len(entries) >= 5
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[^ ]+ (; .*)?\\\n    --hash=sha256:[0-9a-f]{64}\b", entry), entry
    assert "//" not in text  # no address of an index
    assert "index" not in text


def test_the_lock_is_the_same_for_every_python() -> None:
    """scripts/wheels fetches for another Python than its own, and pip would judge such conditions by its own."""
    for name in ("trap", "build"):
        assert "python_" not in (LISTS / f"{name}.txt").read_text()


def test_installer_and_wheels_take_the_locks_and_check_every_hash() -> None:
    for script in ("install", "wheels"):
        text = (ROOT / "scripts" / script).read_text()
        assert text.count("--require-hashes") == 2
    assert "scripts/requirements -type f" in (ROOT / "scripts" / "install").read_text()  # its fingerprint


# ── Extras ───────────────────────────────────────────────────────────────────────────────────────────


def test_dev_has_every_extra_but_the_camera_which_comes_from_apt() -> None:
    (own,) = [Requirement(one) for one in EXTRAS["dev"] if one.startswith("trapsync[")]
    assert own.extras == set(EXTRAS) - {"dev", "camera"}


# ── Python as root ───────────────────────────────────────────────────────────────────────────────────

AS_ROOT = [ROOT / "scripts" / "install", ROOT / "scripts" / "uninstall", *(ROOT / "systemd").iterdir()]


def test_python_is_isolated_wherever_root_or_a_unit_starts_it() -> None:
    calls = [
        call
        for path in AS_ROOT
        for line in path.read_text().splitlines()
        if not line.lstrip().startswith("#")
        for call in re.findall(r"(?:\bpython3|bin/python\"?) [^|;)]*", line)
    ]
    started = [call for call in calls if not re.match(r"python3 (>/dev/null|--version|python3-venv)", call)]
    assert len(started) >= 10
    assert [
        call for call in started if not re.match(r"\S+ (-I|\"\$\{(install|wheel)\[@\]\}\") ?", call)
    ] == []


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="the installer is for Debian and its kin")
def test_nothing_of_the_current_folder_is_run_by_the_installer(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for module in ("venv", "ensurepip", "json", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')\n")
    for program in ("dirname", "python3", "systemctl"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch '{ran}'\n")
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts" / "install", "--dry-run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PATH": f".:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not ran.exists()
