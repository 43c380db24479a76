"""What a destination costs a daemon of which it is one: nothing if it is not configured, and little if it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from config_examples import EXAMPLES
from trapsync.destinations.kinds import BUILT_IN as KINDS

# What the daemon loads, each destination, and a question to each, at an address where nobody listens.
_CODE = """
import gc, json, sys, time
from pathlib import Path
import trapsync.runtime.service
from trapsync import trap
from trapsync.runtime import destination_context
from trapsync.settings import config_file

source = Path(sys.argv[1])
values = config_file.load(source)
clock = trap.system_clock(values)
catalog = trap.open_catalog(values, clock)
checked = destination_context.check_all(values, source)
connected = destination_context.connect_all(values, checked, catalog, clock, time.sleep)
findings = [finding for one in connected for finding in one.check()]
gc.collect()
kb = int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
print(json.dumps({"kb": kb, "modules": list(sys.modules), "findings": [f.text for f in findings]}))
"""


def table(kind: str, folder: Path) -> dict[str, Any]:
    """The example of a kind in the config file, with secrets that are there and a server that is not."""
    example = next(dict(table) for table in EXAMPLES.values() if table["kind"] == kind)
    for key in ("ca_file", "after"):
        example.pop(key, None)
    for key in example:
        if key.endswith("_file"):
            (folder / key).write_text("a secret for a test")
            (folder / key).chmod(0o600)
            example[key] = str(folder / key)
        elif key in {"url", "api_url", "upload_url", "endpoint"}:
            example[key] = "http://127.0.0.1:9"
        elif key == "path":
            example[key] = str(folder / "copies")
    return example


def loaded(folder: Path, kinds: list[str]) -> dict[str, Any]:
    """A process with the daemon's modules and these destinations."""
    folder.mkdir(exist_ok=True)
    config = folder / "trapsync.toml"
    tables = {kind: table(kind, folder) for kind in kinds}
    storage, trap = {"spool": "spool", "state": "state"}, {"device": "0a1b2c3d"}
    config.write_text(tomli_w.dumps({"trap": trap, "storage": storage, "destinations": tables}))
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert len(facts["findings"]) >= len(kinds)
    return facts


@pytest.mark.parametrize("configured", ["directory", "stickypi"])
def test_a_kind_that_is_not_configured_is_not_loaded(tmp_path: Path, configured: str) -> None:
    modules = loaded(tmp_path / "one", [configured])["modules"]
    assert KINDS[configured] in modules
    others = tuple(module for kind, module in KINDS.items() if kind != configured)
    assert not [name for name in modules if name.startswith(others)]


def test_all_services_together_cost_at_most_5_mb_over_one(tmp_path: Path) -> None:
    services = [kind for kind in KINDS if kind != "directory"]
    one = min(loaded(tmp_path / "one", ["stickypi"])["kb"] for _ in range(2))
    some = [loaded(tmp_path / "all", services) for _ in range(2)]
    assert {KINDS[kind] for kind in services} <= set(some[0]["modules"])
    more = min(facts["kb"] for facts in some) - one
    sys.stdout.write(f"{', '.join(services)}: {more} kB over {one} kB with one\n")
    assert more <= 5 * 1024


def test_a_bucket_costs_at_most_1_mb_over_a_sticky_pi_server(tmp_path: Path) -> None:
    both = [[loaded(tmp_path / kind, [kind])["kb"] for kind in ("stickypi", "s3")] for _ in range(2)]
    server, bucket = (min(some) for some in zip(*both, strict=True))
    sys.stdout.write(f"s3: {bucket - server} kB over {server} kB with stickypi\n")
    assert bucket - server <= 1024
