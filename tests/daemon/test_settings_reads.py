"""The config file is read once for a start of the daemon, and then not again until a reload."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import counted_reads
import daemon_process
import hub_server
import signed

HUB = '[hub]\nurl = "{}"\nevery = "1 s"\nusername = "trap"\npassword_file = "password"\n'


def reads(trap: daemon_process.Daemon) -> Counter[str]:
    """How often each file was read, by all processes of the daemon together."""
    return Counter(line.split()[1] for line in (trap.folder / "reads").read_text().splitlines())


def test_the_config_file_is_read_once_a_start_and_never_for_a_heartbeat(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        trap = daemon_process.Daemon(tmp_path / "trap", signed.TRUSTING + HUB.format(hub.url))
        daemon_process.deliver_to(trap.folder, hub.url, hub.user, hub.password)  # the password
        trap.config.with_name("override.toml").write_text("[camera]\nquality = 80\n")
        trap.program = (counted_reads.__file__,)
        trap.start()
        try:
            seen = set[Any]()

            def heard() -> int:
                seen.update(
                    facts["at"] for one in hub.hub.fleet.snapshot()["traps"] if (facts := one["heartbeat"])
                )
                return len(seen)

            trap.until(lambda _: heard() >= 3)
            once = {str(trap.config): 1, str(trap.folder / "override.toml"): 1}
            assert reads(trap) == once
            trap.signal(signal.SIGHUP)  # read to see whether it is valid; the new start is not counted
            trap.until_log("stopped")
            assert reads(trap) == dict.fromkeys(once, 2)
        finally:
            os.killpg(trap.pid, signal.SIGKILL)
            trap.wait()
