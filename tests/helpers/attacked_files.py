"""Attacks by names of files: a trap takes them in, delivers them and shows them by its own commands."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import drawings
from trapsync.destinations.directory import MARK

# Each a name that a terminal, a log, a shell, a page, a table of sums or a spreadsheet takes for more than a name.
NAMES = (
    *(
        b"\x1b]0;title\x07.jpg",
        b"\x1b[31mred.jpg",
        b"\x1b]52;c;aGk=\x07.jpg",
        b"a\nb.jpg",
        b"a\r<2>forged.jpg",
        b"a\tb.jpg",
    ),
    *(
        "\u202egpj.exe.jpg".encode(),
        "\u2066x\u2069.jpg".encode(),
        "\u2028x.jpg".encode(),
        "\x85x.jpg".encode(),
    ),
    *(b"\xff\xfe.jpg", b"\xed\xa0\x80.jpg", b"\x7f.jpg", b"\x9b2J.jpg", b"a\\nb.jpg", b"\\.jpg"),
    *(
        b"0" * 64 + b"  x.jpg",
        b"0" * 64 + b" *x.jpg",
        b"-rf.jpg",
        b"--help.jpg",
        b"<script>alert(1)<.jpg",
        b"=cmd|' C'!A0.jpg",
    ),
    *(b"$(reboot).jpg", b"`id`;true.jpg", b"[red]x[-red].jpg", b"%s%d%n{0}.jpg"),
)
_COMMANDS = (("deliver",), ("images", "-n", "50"), ("quarantine",), ("status",))


def names(folder: Path) -> str:
    """Pictures of 26 odd names: what is logged and shown is clean, and the table of sums on the stick is right."""
    source = folder / "trapsync.toml"
    for place in ("spool", "stick"):
        (folder / place).mkdir(parents=True)
    (folder / "stick" / MARK).touch()
    source.write_text(
        f'[trap]\ndevice = "{drawings.DEVICE}"\nclock = "trusted"\n[storage]\nspool = "spool"\n'
        'state = "state"\nmin_free = "0 B"\n'
        '[camera]\nkind = "none"\n[ingest]\nstable_after = "0 s"\nthumbnails = false\n'
        '[destinations.stick]\nkind = "directory"\npath = "stick"\n'
    )
    for number, name in enumerate(NAMES):
        (folder / "spool" / os.fsdecode(name)).write_bytes(drawings.plain(seed=number))
    said = {command: _said(source, *command) for command in _COMMANDS}
    for command, text in said.items():
        for line in text.splitlines():
            assert not any(unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"} for one in line), (
                command,
                line,
            )
            assert not any(one in line for one in "\u202e\u2066\u2069"), (command, line)
            assert not line.startswith(("<2>", "forged")), (command, line)
    copies = [one for one in (folder / "stick").rglob("*.jpg") if one.is_file()]
    sums = list((folder / "stick").rglob("SHA256SUMS"))
    checked = [
        subprocess.run(
            ["sha256sum", "--strict", "-c", one.name], cwd=one.parent, capture_output=True, check=False
        )
        for one in sums
    ]
    assert [one.returncode for one in checked] == [0] * len(sums), [one.stderr for one in checked]
    assert sum(one.stdout.count(b": OK\n") for one in checked) == len(copies) > 0
    kept = [one for one in (folder / "spool" / ".quarantine").rglob("*") if one.name.endswith(".reason")]
    assert len(copies) + len(kept) == len(NAMES)
    return f"{len(copies)} delivered, {len(kept)} in quarantine, {len(said)} commands clean"


def _said(source: Path, *command: str) -> str:
    arguments = [sys.executable, "-m", "trapsync", "--config", str(source), *command]
    done = subprocess.run(
        arguments, capture_output=True, check=False, timeout=120, env={**os.environ, "COLUMNS": "80"}
    )
    return (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
