"""The commands about settings from afar: brought by hand, shown with who set them, checked, and looked after."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import signed
from fake_time import FakeTime
from trapsync.cli import cli
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings.layers import Files

TIME = FakeTime(signed.ISSUED.timestamp())


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("trapsync.trap.system_clock", lambda _settings: TIME)
    return signed.prepare(tmp_path / "trap")


def call(source: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(source), *words], standalone_mode=False)


def take(source: Path, data: bytes) -> Result:
    document = source.with_name("document")
    document.write_bytes(data)
    return call(source, "settings", "take", str(document))


def test_a_document_that_is_brought_by_hand_meets_the_same_checks(source: Path) -> None:
    good = signed.settings(1, {"capture": {"every": "5 min"}})
    first, again = take(source, good), take(source, good)
    assert first.output == "accepted: settings 1 (1 keys) are to be tried\n"
    assert (first.return_value, again.return_value, again.output) == (0, 0, "known: it was accepted before\n")
    bad = take(source, signed.settings(2, {}, signed.STRANGER))
    assert (bad.return_value, bad.output.partition(":")[0]) == (1, "key")
    assert take(source, b"x" * 10**6).output.startswith("too_large: ")


def test_settings_are_shown_with_who_set_them(source: Path) -> None:
    take(source, signed.settings(1, {"capture": {"every": "5 min"}, "camera": {"quality": 80}}))
    RemoteSettings(Files(source), TIME).begin()
    shown = call(source, "settings", "show").output
    assert shown.startswith("# camera.quality: remote 1\n# capture.every: remote 1\n[trap]")
    assert 'every = "5 min"' in shown
    source.with_name("override.toml").write_text('[capture]\nevery = "2 min"\n')
    shown = call(source, "settings", "show").output
    assert "# remote settings: override.toml goes before them\n" in shown
    assert "# capture.every: override.toml\n" in shown
    assert 'every = "2 min"' in shown


def test_the_override_file_and_the_keys_are_checked_too(source: Path) -> None:
    (source.parent / "stick").mkdir()
    assert call(source, "settings", "check").output == f"{source}: valid\n"
    source.with_name("override.toml").write_text("[camera]\nqualty = 2\n")
    assert "override.toml: camera.qualty" in str(call(source, "settings", "check").exception)
    source.with_name("override.toml").unlink()
    source.write_text(source.read_text().replace("ed25519:", "ed25519:x"))
    assert "remote.keys: must be a key" in str(call(source, "settings", "check").exception)


def findings(source: Path) -> str:
    return "\n".join(
        line for line in call(source, "doctor").output.splitlines() if " remote settings " in line
    )


def test_the_doctor_says_whose_word_the_trap_takes_and_what_is_missing(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"none; trusted keys: {signed.OWNER.public.id}" in findings(source)
    take(source, signed.settings(1, {"capture": {"every": "1 s"}}))
    assert "none, limits: capture.every" in findings(source)
    monkeypatch.setitem(sys.modules, "nacl", None)
    monkeypatch.delitem(sys.modules, "nacl.signing", raising=False)
    assert "pipx inject trapsync pynacl" in findings(source)
    source.write_text(source.read_text().replace("enabled = true", "enabled = false"))
    assert "trusted keys" not in findings(source)


def test_status_says_how_it_stands_with_pushed_settings(source: Path) -> None:
    def said() -> str:
        return call(source, "status").output

    take(source, signed.settings(1, {"capture": {"every": "5 min"}}))
    assert "remote settings 1 are pending a restart of the daemon" in said()
    trap = RemoteSettings(Files(source), TIME)
    trap.begin()
    assert "remote settings 1 are on trial" in said()
    trap.roll_back("camera", "dark")
    assert "remote settings 1 were rolled back: dark" in said()
    take(source, signed.settings(2, {"capture": {"every": "5 min"}}))
    trap.begin()
    trap.commit()
    assert "remote settings" not in said()
    take(source, signed.settings(3, {"trap": {"name": "x"}}))
    assert "of the operator was refused, forbidden: trap.name: can never be set remotely" in said()
    source.with_name("override.toml").write_text("[camera]\nquality = 70\n")
    assert "remote settings 2 are overridden locally: override.toml goes before them" in said()
