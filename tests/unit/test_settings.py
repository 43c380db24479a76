"""The settings: units, defaults, secrets, and one clear line for whatever is wrong."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import without_root
from trap_bench import Trap as BenchTrap
from trapsync import destinations
from trapsync.destinations import http_service
from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings.schema import Camera, Capture, Ingest, Prune, Settings, Storage, Trap
from trapsync.settings.table import Table
from trapsync.settings.units import Duration, Exposure, Size


def complaint(text: str) -> str:
    """The error that a config file of this text ends in, without the file's name; it is one line."""
    with pytest.raises(SettingsError) as caught:
        config_file.parse(text, "trap.toml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("trap.toml: ")
    return line.removeprefix("trap.toml: ")


# ── Units ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500 ms", 0.5), ("20 s", 20), ("1.5 min", 90), ("2h", 7200), ("1 day", 86400), (" 7 days ", 604800)],
)
def test_a_duration_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("0 B", 0), ("200 kB", 200_000), ("50 MB", 50_000_000), ("2.5GB", 2_500_000_000)]
)
def test_a_size_is_written_with_its_decimal_unit(text: str, count: int) -> None:
    assert Size.parse(text) == count


def test_an_exposure_is_auto_or_a_duration() -> None:
    assert Exposure.parse("auto") == Exposure(0)
    assert Exposure.parse("10 ms") == Exposure(0.01)


@pytest.mark.parametrize(
    "value", [20, 20.5, "20", "s", "-3 s", "1e3 s", "3 years", "2 GB", "20 S", "9" * 400 + " s", True, [], ""]
)
def test_a_duration_without_its_unit_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match="20 min"):
        Duration.parse(value)


@pytest.mark.parametrize("value", [200, "200", "200 mb", "2 TiB", "-1 B", "9" * 400 + " GB", "20 s"])
def test_a_size_without_its_unit_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match="500 MB"):
        Size.parse(value)


# ── What is wrong, in one line ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[capure]\n", "capure: there is no such setting; did you mean 'capture'?"),
        ("camera.qualty = 9", "camera.qualty: there is no such setting; did you mean 'quality'?"),
        ("camera.simulated.sed = 9", "camera.simulated.sed: there is no such setting; did you mean 'seed'?"),
        ("prune.zz = 9", "prune.zz: there is no such setting; known here: enabled, min_age, keep_free"),
        ('prune."a.\\nb" = 9', 'prune."a.\\nb": there is no such setting; known here'),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(text: str, says: str) -> None:
    assert complaint(text).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("camera.kind = 'usb'", "camera.kind = 'usb': must be one of: picamera, simulated, none"),
        ("camera.rotation = 90", "camera.rotation = 90: must be one of: 0, 180"),
        ("camera.quality = 'x'", "camera.quality = 'x': must be a whole number"),
        ("camera.quality = true", "camera.quality = true: must be a whole number"),
        ("camera.quality = 9.5", "camera.quality = 9.5: must be a whole number"),
        ("camera.gain = 'high'", "camera.gain = 'high': must be \"auto\" or a number"),
        ("camera.resolution = [1, 2, 3]", "[1, 2, 3]: must be a list of 2 whole numbers"),
        ("camera.zoom = [0, 0, 'a', 1]", "[0, 0, 'a', 1]: must be a list of 4 numbers"),
        ("camera.white_balance = [1.0]", '[1.0]: must be "auto" or a list of 2 numbers'),
        ("camera = 3", "camera = 3: must be a table"),
        ("[[trap]]", "trap = [{}]: must be a table"),
        ("trap.name = 3", "trap.name = 3: must be text in quotes"),
        ("trap.latitude = '47 N'", "trap.latitude = '47 N': must be a number"),
        ("prune.enabled = 'yes'", "prune.enabled = 'yes': must be true or false"),
        ("storage.spool = 3", "storage.spool = 3: must be a path in quotes"),
        ("storage.spool = ''", "storage.spool = '': must not be empty"),
        ("storage.spool = '~no-such-user/x'", "there is no such user"),
        ('storage.spool = "a\\u0000b"', "hold no zero byte"),
        ("camera.simulated.replay = 3", "camera.simulated.replay = 3: must be a path in quotes"),
        ("capture.schedule = '21:00 - 05:00'", "must be a list of texts in quotes"),
        ("capture.schedule = [3]", "capture.schedule = [3]: must be a list of texts in quotes"),
        ("capture.every = 20", "capture.every = 20: must be a quantity with a unit"),
        ("capture.every = 2026-06-21", "capture.every: must be a quantity with a unit"),
        (
            "storage.min_free = 200",
            'must be a quantity with a unit (B, kB, MB, GB, MiB, GiB), such as "500 MB"',
        ),
        (
            "destinations = 3",
            "destinations = 3: must be tables with names of your choice: [destinations.NAME]",
        ),
        ("destinations.home = 3", "destinations: must be tables with names of your choice"),
    ],
)
def test_a_wrong_type_is_said_in_words_for_an_ecologist(text: str, says: str) -> None:
    assert says in complaint(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("camera.quality = 101", "camera.quality: 101 is not between 1 and 100"),
        ("camera.gain = nan", "camera.gain: nan is not between 0 and 100"),
        ("camera.gain = -1.0", "camera.gain: -1 is not between"),
        ("camera.lens_position = inf", "camera.lens_position: inf is not between"),
        ("camera.white_balance = [2.1, 0.0]", "camera.white_balance: must be two gains above 0"),
        ("camera.exposure = '1 h'", "camera.exposure: 1 h is not between 0 s and 4 min"),
        ("camera.resolution = [0, 3040]", "camera.resolution: [0, 3040] is not between [64, 64]"),
        ("camera.zoom = [0.5, 0, 1, 1]", "camera.zoom: must be [x, y, width, height], fractions"),
        ("camera.zoom = [nan, 0, 1, 1]", "camera.zoom: must be [x, y, width, height], fractions"),
        ("capture.every = '0 s'", "capture.every: 0 s is not between 1 s and 1 day"),
        ("capture.schedule = ['noon']", "capture.schedule: 'noon' is not a window; write"),
        ("ingest.workers = 9", "ingest.workers: 9 is not between 1 and 8"),
        ("hub.every = '1 ms'", "hub.every: 1 ms is not between"),
        ("prune.min_age = '4000 days'", "prune.min_age: 4000 days is not between 0 s and 3650 days"),
        ("trap.latitude = 91", "trap.latitude: 91 is not between -90 and 90"),
        ("trap.longitude = nan", "trap.longitude: nan is not between -180 and 180"),
        ("trap.altitude = 9001", "trap.altitude: 9001 is not between -500 and 9000"),
        ("trap.device = 'ABCDEF12'", "trap.device: 'ABCDEF12' is not 8 hexadecimal digits in lower case"),
        ('trap.device = "abc\\ndef"', "trap.device: 'abc\\ndef' is not 8 hexadecimal digits"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(text: str, says: str) -> None:
    assert complaint(text).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "sampling_design = 'simple random'",
            "sampling_design: there is no 'simple random'; did you mean 'simpleRandom'?",
        ),
        ("data_license = 'CC BY 4.0'", "data_license: there is no 'CC BY 4.0'; did you mean 'CC-BY-4.0'?"),
        ("media_license = 'mine'", "media_license: there is no 'mine'; there are CC0-1.0, CC-BY-4.0"),
        ("website = 'moths'", "website: 'moths' is not an address such as"),
        ("taxa = { moth = 3 }", "taxa: must be a table of texts in quotes"),
        ("taxa = { moth = ' ' }", "taxa: 'moth' has no name"),
        ("contributors = 'Ada'", "contributors = 'Ada': must be a list of tables"),
        ("contributors = ['Ada']", "contributors = ['Ada']: must be a list of tables"),
        ("contributors = [{ role = 'contact' }]", "contributors[0].title: is missing, and has no default"),
        ("contributors = [{ title = '' }]", "contributors[0].title: is empty"),
        (
            "contributors = [{ title = 'A', emial = 'x' }]",
            "contributors.emial: there is no such setting; did",
        ),
        ("contributors = [{ title = 'A' }, { title = 3 }]", "contributors[1].title = 3: must be text in"),
        (
            "contributors = [{ title = 'A', role = 'boss' }]",
            "contributors[0].role: there is no 'boss'; there",
        ),
    ],
)
def test_a_wrong_word_about_the_project_is_named_with_those_that_there_are(text: str, says: str) -> None:
    assert complaint(f"project.{text}").startswith(f"project.{says}")


@pytest.mark.parametrize(
    "text", ["[trap", 'a = "b', "a = 1\na = 2", "a = " + "[" * 5000, "a = " + "9" * 5000]
)
def test_what_is_not_toml_is_said_to_be_not_toml(text: str) -> None:
    assert complaint(text).startswith("is not TOML: ")


def test_a_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"none.toml: there is no such config file; to begin one: trapsync settings example",
    ):
        config_file.load(tmp_path / "none.toml")


def test_a_folder_is_not_a_config_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{tmp_path}: is a folder"):
        config_file.load(tmp_path)


def test_a_file_that_is_not_utf_8_says_so(tmp_path: Path) -> None:
    (tmp_path / "trap.toml").write_bytes("trap.name = 'Zürich'".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"trap.toml: cannot be read: it is not UTF-8 text"):
        config_file.load(tmp_path / "trap.toml")


def test_the_mark_that_windows_editors_put_in_front_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "trap.toml").write_text("trap.name = 'Zürich'\r\n", encoding="utf-8-sig")
    assert config_file.load(tmp_path / "trap.toml").trap.name == "Zürich"


def test_a_file_without_permission_says_who_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "trap.toml"
    path.touch(mode=0o000)
    code = "import sys, pathlib; from trapsync.settings import config_file; config_file.load(pathlib.Path(sys.argv[1]))"
    done = without_root.run(["-c", code, str(path)])
    assert f"SettingsError: {path}: no permission to read it" in done.stderr


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "destinations.home.kind = None: must be one of: directory, "),
        ({"kind": "ftp"}, "destinations.home.kind = 'ftp': must be one of: directory, "),
        ({"kind": ["directory"]}, "destinations.home.kind = ['directory']: must be one of"),
        ({"kind": "directory"}, "destinations.home.path: is missing, and has no default"),
        ({"kind": "directory", "pth": "x"}, "destinations.home.pth: there is no such setting; did you mean 'path'?"),
        ({"kind": "directory", "path": 3}, "destinations.home.path = 3: must be a path in quotes"),
        ({"kind": "directory", "path": "x", "every": "0 s"}, "destinations.home.every: 0 s is not between 1 s"),
        ({"kind": "directory", "path": "x", "order": "a"}, "destinations.home.order = 'a': must be one of: newest"),
    ],
)  # fmt: skip
def test_a_destination_table_is_checked_by_its_own_kind(table: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        destinations.check("home", table, Path("trap.toml"))
    assert str(caught.value).startswith(f"trap.toml: {says}")


# ── Paths ────────────────────────────────────────────────────────────────────────────────────────────


def test_relative_paths_are_taken_from_the_config_files_own_folder(tmp_path: Path) -> None:
    (tmp_path / "trap.toml").write_text("storage.spool = 'spool'\ncamera.simulated.replay = '../pictures'\n")
    loaded = config_file.load(tmp_path / "trap.toml")
    assert loaded.storage.spool == tmp_path / "spool"
    assert loaded.camera.simulated.replay == tmp_path / "../pictures"
    assert loaded.storage.state == Path("/var/lib/trapsync/state")


def test_a_relative_config_file_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.toml").write_text("storage.spool = 'spool'\n")
    monkeypatch.chdir(tmp_path)
    assert config_file.load(Path("trap.toml")).storage.spool == tmp_path / "spool"


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pi")
    assert config_file.parse("storage.spool = '~/spool'", "").storage.spool == Path("/home/pi/spool")


def test_a_destinations_paths_are_rooted_too(tmp_path: Path) -> None:
    checked = destinations.check("stick", {"kind": "directory", "path": "copies"}, tmp_path / "trap.toml")
    assert vars_of(checked.settings)["path"] == tmp_path / "copies"


def vars_of(table: Table) -> dict[str, object]:
    """The keys of a table with their values."""
    return {key: getattr(table, key) for key in table.__struct_fields__}


def test_the_config_file_is_the_one_named_else_the_environments_else_the_systems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(config_file.ENVIRONMENT_KEY, "/from/environment.toml")
    assert config_file.find(Path("named.toml")) == Path("named.toml")
    assert config_file.find() == Path("/from/environment.toml")
    monkeypatch.setenv(config_file.ENVIRONMENT_KEY, "")
    assert config_file.find() == Path("/etc/trapsync/trapsync.toml")


def test_zero_zero_is_no_place() -> None:
    assert not Trap().has_place
    assert Trap(latitude=0.0, longitude=9.45).has_place  # Libreville lies on the equator


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that only its owner can read, and no systemd around."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = tmp_path / "password"
    path.touch(mode=0o600)
    return path


@pytest.mark.parametrize("content", [b" pass word \n", b" pass word \r\n", b"\xef\xbb\xbf pass word \n"])
def test_a_secret_is_the_files_text_without_what_an_editor_adds(secret: Path, content: bytes) -> None:
    secret.write_bytes(content)
    assert config_file.read_secret(secret, "key") == " pass word "


def test_a_missing_secret_names_key_and_file(secret: Path) -> None:
    secret.unlink()
    with pytest.raises(SettingsError, match=f"a.key: the secret {secret} cannot be read: No such file"):
        config_file.read_secret(secret, "a.key")


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_secret_is_refused(secret: Path, content: bytes) -> None:
    secret.write_bytes(content)
    with pytest.raises(SettingsError, match="is empty"):
        config_file.read_secret(secret, "a.key")


def test_a_secret_that_is_no_text_is_refused(secret: Path) -> None:
    secret.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        config_file.read_secret(secret, "a.key")


def test_a_secret_that_everybody_can_read_is_refused_with_the_cure(secret: Path) -> None:
    secret.write_text("hush")
    secret.chmod(0o644)
    with pytest.raises(SettingsError, match=f"everybody can read it; run: sudo chmod 600 {secret}") as caught:
        config_file.read_secret(secret, "a.key")
    assert "hush" not in str(caught.value)
    secret.chmod(0o602)  # the key of somebody else could be put there
    with pytest.raises(SettingsError, match=f"everybody can change it; run: sudo chmod 600 {secret}"):
        config_file.read_secret(secret, "a.key")
    secret.chmod(0o640)  # as the service has it
    assert config_file.read_secret(secret, "a.key") == "hush"


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (0o660, "its group can change"),
        (0o620, "its group can change"),
        (0o606, "everybody can read"),
        (0o666, "everybody can read"),
        (0o622, "everybody can change"),
    ],
)
def test_a_secret_that_others_can_change_is_refused_and_the_command_that_is_told_fixes_it(
    secret: Path, mode: int, says: str
) -> None:
    secret.write_text("hush")
    secret.chmod(mode)
    with pytest.raises(SettingsError, match=f"a.key: .* is open, and {says} it; run: .*") as caught:
        config_file.read_secret(secret, "a.key")
    command = str(caught.value).partition("; run: ")[2].removeprefix("sudo ")
    subprocess.run(["sh", "-c", command], check=True)
    assert config_file.read_secret(secret, "a.key") == "hush"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, and become another user")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "says"),
    [
        (0, 4300, 0o640, "hush"),  # as scripts/install leaves what root wrote
        (4242, 4300, 0o400, "hush"),
        (4242, 4300, 0o660, "its group can change"),
        (4242, 4301, 0o600, "hush"),
        (4242, 4301, 0o640, "a group that is not ours can read it; run: chmod 600 "),
        (4243, 4300, 0o640, "belongs to another user, who can change it; run: sudo chown root:4300 "),
        (0, 0, 0o644, "everybody can read it; run: sudo chown root:4300 "),  # `sudo tee`
        (0, 0, 0o600, "cannot be read: Permission denied; run: sudo chown root:4300 "),
    ],
)
def test_a_secret_is_ours_or_roots_and_only_a_group_of_ours_reads_it(
    tmp_path_factory: pytest.TempPathFactory, owner: int, group: int, mode: int, says: str
) -> None:
    read = """if True:
        import os, sys
        from pathlib import Path
        from trapsync.errors import SettingsError
        from trapsync.settings.config_file import read_secret
        os.setgroups([]), os.setgid(4300), os.setuid(4242)
        try:
            print(read_secret(Path(sys.argv[1]), "a.key"))
        except SettingsError as error:
            print(error)
        """
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder, "password")
        secret.write_text("hush")
        secret.chmod(mode)
        os.chown(secret, owner, group)
        said = subprocess.run(
            [sys.executable, "-c", read, secret], capture_output=True, text=True, check=True
        )
    assert re.search(says, said.stdout), said.stdout
    assert said.stdout.count("\n") == 1


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("by_link", [False, True])
def test_a_secret_that_could_be_replaced_is_refused(
    tmp_path: Path, mode: int, depth: int, by_link: bool
) -> None:
    """Finding S22, a sibling: as OpenSSH's StrictModes has it, links included."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    secret = folder / "password"
    secret.write_text("hush")
    secret.chmod(0o600)
    if by_link:
        (tmp_path / "elsewhere").mkdir()
        secret = secret.rename(tmp_path / "elsewhere" / "password")
        (folder / "password").symlink_to(secret)
    place = (folder, folder.parent)[depth]
    place.chmod(mode)
    if mode == 0o775:
        os.chown(place, -1, os.getegid() + 1) if os.geteuid() == 0 else pytest.skip("needs another group")
    with pytest.raises(SettingsError, match=f"a.key: {place} is open, and .* can change .*; run: ") as caught:
        config_file.read_secret(folder / "password", "a.key")
    command = str(caught.value).partition("; run: ")[2].removeprefix("sudo ")
    subprocess.run(["sh", "-c", command], check=True)
    assert config_file.read_secret(folder / "password", "a.key") == "hush"


def test_a_folder_of_our_own_group_and_one_like_tmp_may_hold_a_secret(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    secret = folder / "password"
    secret.write_text("hush")
    secret.chmod(0o600)
    os.chown(folder, -1, os.getegid())
    for mode in (0o775, 0o1777):
        folder.chmod(mode)
        assert config_file.read_secret(secret, "a.key") == "hush"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, and become another user")
@pytest.mark.parametrize("what", ["folder", "authorities"])
def test_what_another_user_owns_is_not_believed(tmp_path_factory: pytest.TempPathFactory, what: str) -> None:
    ask = """if True:
        import os, sys
        from pathlib import Path
        from trapsync.errors import SettingsError
        from trapsync.settings import config_file
        os.setgroups([]), os.setgid(4300), os.setuid(4242)
        folder = Path(sys.argv[1])
        for ask in (config_file.read_secret, config_file.require_authorities):
            try:
                print(ask(folder / ask.__name__, "a.key"))
            except SettingsError as error:
                print(error)
        """
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        for name, mode, owner in (("read_secret", 0o640, 0), ("require_authorities", 0o644, 0)):
            file = Path(folder, name)
            file.write_text("hush")
            file.chmod(mode)
            os.chown(file, 4243 if (what, name) == ("authorities", "require_authorities") else owner, 4300)
        if what == "folder":
            os.chown(folder, 4243, 4243)
        said = subprocess.run(
            [sys.executable, "-c", ask, folder], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    others = "belongs to another user, who can change"
    if what == "folder":
        assert [others in line and "move it into a folder of your own" in line for line in said] == [
            True,
            True,
        ]
    else:
        assert (said[0], others in said[1], "run: sudo chown root " in said[1]) == ("hush", True, True)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("what", ["folder", "FIFO", "device", "large", "dangling"])
def test_what_is_no_file_with_a_secret_is_one_line_and_is_not_waited_for(secret: Path, what: str) -> None:
    secret.unlink(missing_ok=True)
    if what == "folder":
        secret.mkdir()
    elif what == "FIFO":
        os.mkfifo(secret)
    elif what == "large":
        secret.write_text("x" * 100_000)
        secret.chmod(0o600)
    else:
        secret.symlink_to("/dev/zero" if what == "device" else "nowhere")
    with pytest.raises(SettingsError, match=r"^a.key: "):
        config_file.read_secret(secret, "a.key")


def test_a_secret_may_be_a_link(secret: Path) -> None:
    secret.with_name("kept").write_text("hush")
    secret.with_name("kept").chmod(0o600)
    secret.unlink(missing_ok=True)
    secret.symlink_to("kept")
    assert config_file.read_secret(secret, "a.key") == "hush"


def test_a_systemd_credential_with_the_name_of_the_setting_goes_first(
    secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret.write_text("from the file")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert config_file.read_secret(secret, "a.key") == "from the file"
    (credentials / "a.key").write_text("from systemd\n")
    (credentials / "a.key").chmod(0o440)  # as systemd makes it: root's, with an access list for the account
    assert config_file.read_secret(secret, "a.key") == "from systemd"
    assert config_file.read_secret(secret, "another.key") == "from the file"


def test_two_destinations_whose_files_have_one_name_do_not_share_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding S22: one got the other's secret, and sent it to the other's server."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    asked: list[tuple[Path, str]] = []

    def read(path: Path, key: str) -> str:
        asked.append((path, key))
        return "hush"

    monkeypatch.setattr(http_service, "read_secret", read)
    nowhere = 'url = "http://127.0.0.1:9"'
    kinds = {
        "stickypi": f'{nowhere}\nusername = "trap"\npassword_file',
        "imagekit": f'api_{nowhere}\nurl_endpoint = "https://example.org/moths"\nprivate_key_file',
        "skylab": f"{nowhere}\nprofile = 1\nkey_file",
        "s3": 'endpoint = "http://127.0.0.1:9"\nbucket = "moths"\naccess_key = "x"\nsecret_file',
        "scale": f'{nowhere}\nproject = "moths"\napi_key_file',
    }
    tables = "".join(
        f'[destinations.{kind}-{number}]\nkind = "{kind}"\n{keys} = "{number}/key"\n'
        for kind, keys in kinds.items()
        for number in (1, 2)
    )
    trap = BenchTrap(tmp_path / "trap")
    config = tmp_path / "trapsync.toml"
    config.write_text(tables)
    settings = config_file.load(config)
    for one in destinations.check_all(settings, config):
        connected = one.connect(trap.context(one.name))
        connected.check()
        connected.close()
        assert {path.parent.name for path, _ in asked} == {one.name[-1]}
        assert {key.rpartition(".")[0] for _, key in asked} == {f"destinations.{one.name}"}, asked
        asked.clear()
    trap.catalog.close()


# ── Written and read back ────────────────────────────────────────────────────────────────────────────


def test_the_defaults_written_and_read_back_are_the_defaults() -> None:
    assert config_file.parse(config_file.to_text(Settings()), "") == Settings()


def test_an_empty_file_is_all_defaults() -> None:
    assert config_file.parse("", "") == Settings()


def test_durations_and_sizes_are_written_with_the_unit_a_person_would_take() -> None:
    text = config_file.to_text(Settings(prune=Prune(min_age=Duration(5400), keep_free=Size(1_500_000_000))))
    assert 'min_age = "1.5 h"' in text
    assert 'keep_free = "1.5 GB"' in text
    assert 'min_age = "7 days"' in config_file.to_text(Settings())
    assert 'rescan_every = "10 min"' in config_file.to_text(Settings())
    assert 'exposure = "auto"' in config_file.to_text(Settings())


def test_destinations_are_written_as_they_stand() -> None:
    text = "[destinations.stick]\nkind = 'directory'\npath = '/media/stick'\ntransfers = 1\n"
    parsed = config_file.parse(text, "")
    assert config_file.parse(config_file.to_text(parsed), "") == parsed


def durations(least: float, most: float) -> st.SearchStrategy[Duration]:
    """Whole and broken seconds in that range."""
    whole = st.integers(int(least) + 1, int(most)).map(Duration)
    return whole | st.floats(least, most).map(Duration)


names = st.text(st.characters(codec="utf-8"), max_size=12)
paths = names.filter(lambda name: bool(name) and "\0" not in name).map(lambda name: Path("/var", f"_{name}"))

some_settings = st.builds(
    Settings,
    trap=st.builds(
        Trap,
        device=st.sampled_from(["", "0a1b2c3d"]),
        name=names,
        latitude=st.floats(-90, 90),
        longitude=st.floats(-180, 180),
    ),
    storage=st.builds(Storage, spool=paths, state=paths, min_free=st.integers(0, 10**15).map(Size)),
    camera=st.builds(
        Camera,
        quality=st.integers(1, 100),
        exposure=st.floats(0, 240).map(Exposure),
        gain=st.just("auto") | st.floats(0, 100),
        white_balance=st.just("auto") | st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)),
        timeout=durations(1, 300),
    ),
    capture=st.builds(
        Capture,
        every=durations(1, 86400),
        schedule=st.lists(st.sampled_from(["21:00 - 05:30", "sunset-30min - sunrise+1h"])).map(tuple),
    ),
    ingest=st.builds(
        Ingest, rescan_every=durations(1, 86400), stable_after=durations(0, 86400), thumbnails=st.booleans()
    ),
    prune=st.builds(Prune, min_age=durations(0, 3650 * 86400), keep_free=st.integers(0, 10**13).map(Size)),
)


@given(some_settings)
def test_any_settings_written_and_read_back_are_the_same(some: Settings) -> None:
    assert config_file.parse(config_file.to_text(some), "") == some


@given(st.text(max_size=40))
def test_no_text_makes_the_parser_fail_other_than_by_one_line(text: str) -> None:
    assert "\n" not in trouble(lambda: config_file.parse(text, "trap.toml"))


def trouble(act: Callable[[], object]) -> str:
    """The text of the SettingsError that this ends in, '' if it ends well."""
    try:
        act()
    except SettingsError as error:
        return str(error)
    return ""


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    (table, key)
    for table, kind in vars_of(Settings()).items()
    if isinstance(kind, Table)
    for key in kind.__struct_fields__
]


@given(st.sampled_from(KEYS), json_like)
def test_no_value_makes_the_decoder_fail_other_than_by_one_line_with_its_key(
    where: tuple[str, str], value: object
) -> None:
    table, key = where
    said = trouble(lambda: config_file.decode({table: {key: value}}, Settings, "pushed"))
    assert "\n" not in said
    # Of two that go together the other one may be named first: a hub's username and its password_file.
    assert said == "" or (said.startswith(f"pushed: {table}.") and key in said)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Settings().trap.name = "x"  # type: ignore[misc]
    assert msgspec.structs.replace(Settings().trap, name="x").name == "x"
