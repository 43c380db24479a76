"""The house: one door per package, imports that point down, and who may start threads or read the clock."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import trapsync

ROOT = Path(trapsync.__file__).parent

# From the top to the bottom, as in DESIGN and daemon/README.md. A room imports from its own layer and from those below it.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["doctor", "fleet", "runtime"],
    ["remote"],
    ["status"],
    ["effort", "pipeline"],
    ["trap"],
    ["cameras", "spool", "destinations", "hub", "camtrap_dp"],
    ["catalog", "jpeg", "net", "hardware"],
    ["settings"],
    ["image", "clock"],
    ["files"],
    ["errors", ""],
]
# Of its own layer the hub needs only what tells one folder from another.
HUB_STANDS_ON = {
    "spool.overlap",
    "camtrap_dp",
    "catalog",
    "jpeg",
    "net",
    "settings",
    "image",
    "clock",
    "files",
    "errors",
    "",
}

# A package is imported in its own files only, so that it can be replaced in one place.
DOORS = {
    "picamera2": {"cameras.picamera"},
    "libcamera": {"cameras.picamera"},
    "gpiozero": {"hardware.gpio"},
    "watchdog": {"spool.observer"},
    "pyvips": {"jpeg.thumbnail"},
    "piexif": {"jpeg.exif.writing"},
    "sqlite_utils": {"catalog.connection", "catalog.migrations"},
    "apscheduler": {"runtime.scheduler"},
    "requests": {"net.http", "net.http_errors", "net.proxy"},
    "urllib3": {"net.http", "net.http_errors"},
    "pebble": {"runtime.examiners"},
    "msgspec": {
        "settings.config_file",
        "settings.table",
        "net.heartbeat",
        "net.reports",
        "hub",
        "fleet.enrolment",
        "remote.record",
        "catalog.facts",
        "status",
        "status.model",
        "status.reasons",
    },
    "tomli_w": {"settings.config_file", "remote.document"},
    "nacl": {"remote.document"},
    "astral": {"settings.sun"},
    "paho": {"remote.uplink.mqtt"},
    "click": {"cli"},
    "rich": {"cli"},
    "segno": {"cli", "hub"},
    "flask": {"hub"},
    "jinja2": {"hub"},
    "markupsafe": {"hub"},
    "werkzeug": {"hub"},
    "itsdangerous": {"hub"},
    "prometheus_client": {"hub"},
    "waitress": {"hub"},
    "multipart": {"hub"},
    "apprise": {"runtime.message_process"},
}

# A folder that is one door as a whole.
WHOLE = {"cli", "hub"}

# These are imported where they are used: they are costly, or may be missing.
ONLY_IN_FUNCTIONS = {"picamera2", "libcamera", "pyvips", "piexif", "astral", "rich", "tomli_w"}
ONLY_IN_FUNCTIONS |= {"nacl", "paho", "gpiozero", "segno", "apprise"}  # extras


def name_of(path: Path) -> str:
    """`cameras.picamera`; the package itself is ''."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").removesuffix(".")


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def path_of(module: str) -> Path:
    """The file of a module."""
    file = ROOT.joinpath(*module.split("."))
    return file / "__init__.py" if file.is_dir() else file.with_suffix(".py")


# Lines of code, comments and docstrings of a file at most.
LONGEST = {"pipeline": 500, "runtime.service": 470}


def imports(tree: ast.AST) -> Iterator[str]:
    """What is imported anywhere in it, by its full dotted name; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_the_top(tree: ast.Module) -> set[str]:
    """The packages that are imported when the module is."""
    plain = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    return {name.split(".")[0] for node in plain for name in imports(node)}


def ours(tree: ast.AST) -> set[str]:
    """Which of our own modules it imports."""
    found = set()
    for name in imports(tree):
        package, _, inner = name.partition(".")
        while package == "trapsync" and inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        if package == "trapsync":
            found.add(inner)
    return found


def head(module: str) -> str:
    """The module of the house's list that it belongs to: the folder for one in a folder."""
    return module.split(".")[0]


def layer(module: str) -> int:
    """Its layer; 0 is the top."""
    return next(number for number, modules in enumerate(LAYERS) if head(module) in modules)


def offenders(modules: Iterable[str], found: Callable[[ast.Module], set[str]]) -> list[str]:
    """The modules in which something is found, each with what it is."""
    return [f"{module}: {what}" for module in sorted(modules) for what in sorted(found(MODULES[module]))]


PROGRAM = [module for module in MODULES if head(module) != "hub"]
HUB = [module for module in MODULES if head(module) == "hub"]


def test_every_room_has_its_place_in_the_house() -> None:
    placed = [room for rooms in LAYERS for room in rooms]
    unplaced = {head(module) for module in MODULES} - set(placed)
    assert not unplaced, (
        f"put {sorted(unplaced)} into one of the rooms of daemon/README.md, or into LAYERS here and there"
    )
    assert sorted(placed) == sorted({head(module) for module in MODULES})


def test_the_house_has_few_rooms() -> None:
    rooms = {head(module) for module in MODULES} - {"", "__main__"}
    assert len(rooms) <= 23, (
        f"{len(rooms)} names below daemon/trapsync: a new module belongs into a room that is there"
    )


def test_no_file_is_long() -> None:
    lengths = {module: len((path_of(module)).read_text(encoding="utf-8").splitlines()) for module in MODULES}
    long = [
        f"{module}: {lines} lines" for module, lines in lengths.items() if lines > LONGEST.get(module, 450)
    ]
    assert long == [], "a file that grows a second idea gives it a file of its own"


def test_every_package_is_imported_through_its_one_door() -> None:
    through: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        for package in (
            {name.split(".")[0] for name in imports(tree)} - sys.stdlib_module_names - {"trapsync"}
        ):
            through.setdefault(package, set()).add(head(module) if head(module) in WHOLE else module)
    assert through == DOORS


def test_a_costly_package_is_imported_only_where_it_is_used() -> None:
    assert offenders(MODULES, lambda tree: imported_at_the_top(tree) & ONLY_IN_FUNCTIONS) == []


def test_imports_point_down() -> None:
    above = {
        module: [other for other in ours(MODULES[module]) if layer(other) < layer(module)]
        for module in PROGRAM
    }
    upwards = [
        f"{module} imports {other}, which lies above it" for module in above for other in above[module]
    ]
    assert upwards == [], "move what both need into a room below them, or pass it in as an argument"


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {}
    for module, tree in MODULES.items():
        nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        graph[module] = {other for node in nodes for other in ours(node)} - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


def test_cameras_destinations_and_the_catalog_do_not_know_one_another() -> None:
    strangers = {"cameras", "destinations", "catalog"}
    known = [
        f"{module} imports {other}"
        for module in PROGRAM
        # These record what destinations answer: they stand between the two.
        if head(module) in strangers and module not in {"destinations.confirmation", "destinations.outcomes"}
        for other in ours(MODULES[module])
        if head(other) in strangers - {head(module)}
    ]
    assert known == [], "what one needs of another is passed in as an argument"


def test_the_hub_stands_beside_the_program() -> None:
    beside = {"hub", *HUB_STANDS_ON}
    strangers = offenders(HUB, lambda tree: {one for one in ours(tree) if not {one, head(one)} & beside})
    assert strangers == [], "the hub needs nothing of the daemon"


def test_only_its_command_leads_to_the_hub() -> None:
    leading = {m for m in PROGRAM if any(head(other) == "hub" for other in ours(MODULES[m]))}
    assert leading == {"cli.hub", "cli.hub_backup", "runtime.hub_service"}  # which serves nothing else


# Where JSON is decoded: what comes from outside in one place, and what the program, or its own child, wrote.
DECODERS = {"net.foreign_json", "remote.record", "settings.last_good", "doctor.camera", "hub.enrolment"}
DECODERS |= {"hub.packages"}
DECODERS |= {
    f"catalog.{part}" for part in ("deliveries", "deployments", "facts", "images", "labels", "notes", "rows")
}


def test_json_from_outside_is_decoded_in_one_place() -> None:
    decoding = {module for module, tree in MODULES.items() if mentions(tree) & {"json.loads", "json.load"}}
    assert decoding == DECODERS, "what comes from outside goes through net.foreign_json"


# ── Threads, sleep, the clock ────────────────────────────────────────────────────────────────────────


def mentions(tree: ast.AST) -> set[str]:
    """Every dotted name that is used, as it is written: `time.sleep`."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}


def test_nothing_but_service_and_its_kin_starts_a_thread_or_a_process() -> None:
    starting = {"threading.Thread", "threading.Timer", "ThreadPoolExecutor", "ProcessPoolExecutor"}
    starting |= {"SchedulerThreads", "BackgroundScheduler"}
    starting |= {"ProcessPool", "os.fork", "os.system", "os.posix_spawn", "Process"}

    def starts(tree: ast.AST) -> set[str]:
        packages = {name.split(".")[0] for name in imports(tree)}
        return mentions(tree) & starting | packages & {"subprocess", "multiprocessing"}

    may = {m for m in PROGRAM if head(m) == "runtime"} | {
        "hardware.sensors",
        "destinations.rclone.child",  # a program, not a library: see the first lines of that module
        "doctor.machine",
        "cli.drop_root",
    }
    assert offenders(set(PROGRAM) - may, starts) == []


# A camera's module runs in a process of its own, and takes this sleep only where it is given no other.
SLEEPERS = {"cli", "cameras.picamera"}


def test_nobody_sleeps_but_commands() -> None:
    others = [module for module in PROGRAM if not {module, head(module)} & SLEEPERS]
    assert offenders(others, lambda tree: mentions(tree) & {"time.sleep"}) == []


def test_nobody_reads_the_machines_clock_but_the_clock() -> None:
    reading = {"time.time", "time.monotonic", "time.time_ns", "time.perf_counter", "time.localtime"}
    reading |= {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    # The scheduler is told "now" in its own words: it has no other clock than the machine's.
    assert (
        offenders(set(PROGRAM) - {"clock", "runtime.scheduler"}, lambda tree: mentions(tree) & reading) == []
    )


def test_only_commands_print() -> None:
    printing = {module for module, tree in MODULES.items() if "print" in mentions(tree)}
    assert printing == set()
    echoing = {head(module) for module, tree in MODULES.items() if "click.echo" in mentions(tree)}
    assert echoing == {"cli"}


# ── What is loaded ───────────────────────────────────────────────────────────────────────────────────


def loaded_by(code: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after that."""
    code += "\nimport sys; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_daemons_own_process_loads_nothing_that_decodes_pictures_or_drives_a_camera() -> None:
    loaded = loaded_by("import trapsync.runtime.service")
    assert "apscheduler" in loaded
    assert not loaded & {"pyvips", "piexif", "picamera2", "libcamera", "flask", "waitress", "rich", "nacl"}


def test_every_module_can_be_imported_where_libvips_and_libcamera_are_missing() -> None:
    missing = "".join(f"sys.modules['{name}'] = None; " for name in ("pyvips", "picamera2", "libcamera"))
    wanted = ", ".join(f"trapsync.{module}".rstrip(".") for module in MODULES if module != "__main__")
    loaded_by(f"import sys; {missing}\nimport {wanted}")


def test_a_command_that_needs_little_starts_with_little() -> None:
    loaded = loaded_by("import sys; sys.argv = ['trapsync', '--help']\nfrom trapsync.cli import main\n"
                       "try: main()\nexcept SystemExit: pass")  # fmt: skip
    assert "click" in loaded
    costly = {"sqlite_utils", "sqlite3", "requests", "apscheduler", "watchdog", "pebble", "astral", "rich"}
    assert not loaded & costly


def test_status_loads_nothing_that_sends() -> None:
    loaded = loaded_by("import trapsync.cli, trapsync.remote.in_force, trapsync.status")
    assert "sqlite_utils" in loaded
    assert not loaded & {"requests", "urllib3", "apscheduler", "pebble", "paho"}
