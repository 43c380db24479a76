"""What is installed and how: the lock file, the extras, Python as root, the lines of the documents."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import documents

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


# ── The lines of the documents ───────────────────────────────────────────────────────────────────────


def lines(beginning: str) -> list[str]:
    """The commands of the documents that begin so, each once."""
    blocks = [block for document in documents.WITH_COMMANDS for block in documents.blocks(document)]
    return sorted({one for block in blocks for one in block.commands if one.startswith(beginning)})


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody who has installed nothing yet; pip's own cache serves again."""
    home = tmp_path_factory.mktemp("fresh")
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True)
    yield {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "HOME": str(home),
        "PIP_CACHE_DIR": cache.stdout.strip(),
        "PIP_NO_COMPILE": "1",  # less to do, and the same lines
        "PIPX_HOME": str(home / "pipx"),
        "PIPX_BIN_DIR": str(home / "bin"),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
    }
    shutil.rmtree(home)


def typed(line: str, environment: dict[str, str], folder: Path = ROOT) -> str:
    """What somebody sees who types that line."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    said = done.stdout + done.stderr
    if "connection broken by" in said:
        pytest.skip("NOT SHOWN HERE: that the documents' install lines work; there is no network")
    assert done.returncode == 0, f"{line}\n{said}"
    return said


NEEDS = {
    "remote": "nacl",
    "operator": "nacl, segno",
    "mqtt": "paho.mqtt",
    "hub": "flask, segno, waitress",
    "libvips": "pyvips",
}


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("pipx") is None, reason="pipx is not installed here (apt install pipx)")
def test_the_lines_for_operator_and_hub_install_commands_that_work(
    fresh: dict[str, str], tmp_path: Path
) -> None:
    found = lines("pipx install ")
    assert len(found) == 2  # the operator's and the hub's
    for line in found:
        extras = re.findall(r"[a-z]+", line.split("[")[1].split("]")[0])
        typed(line.replace("install ", "install --force "), fresh)  # as for an upgrade
        modules = ", ".join(NEEDS[extra] for extra in extras)
        typed(f"$PIPX_HOME/venvs/trapsync/bin/python -I -c 'import {modules}'", fresh)
        assert "ed25519:" in typed(f"trapsync keys new --out {tmp_path}/{len(extras)}.key", fresh)


def test_no_text_asks_an_index_for_a_project_of_this_name() -> None:
    suffixes = {".py", ".md", ".toml", ".yml", ".service", ""}
    files = [
        path
        for folder in ("daemon", "config", "scripts", "systemd", ".github")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in suffixes
    ]
    asks = re.compile(r"(pip|pipx|uv tool) install [^\n]*(?<!/)\btrapsync\b(?!/)")
    assert [str(path) for path in [ROOT / "README.md", *files] if asks.search(path.read_text())] == []


if "TRAPSYNC_SYSTEM" in os.environ:  # what takes longer: scripts/test-system

    @pytest.mark.timeout(300)
    def test_the_line_for_a_locked_hub_installs_what_the_lock_says(fresh: dict[str, str]) -> None:
        (line,) = lines("python3 -m venv ")
        typed(line, fresh)
        freeze = typed("~/hub/bin/pip freeze --all", fresh)
        installed = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", freeze, re.MULTILINE))
        here: dict[str, str] = {canonicalize_name(name): version for name, version in installed.items()}
        assert {name: here.get(name) for name in locked("hub")} == locked("hub")
        typed("~/hub/bin/trapsync hub --help", fresh)
