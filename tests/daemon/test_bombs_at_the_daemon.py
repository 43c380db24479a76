"""The whole daemon under bombs of 32 MiB from its server, its broker and its stick at once."""

import re
from pathlib import Path

import bombs
import drawings
from daemon_process import STICK, deliver_to, running

MOST = 96 * 10**6

HUB = """
[hub]
url = "{url}"
every = "1 min"
[hub.mqtt]
host = "127.0.0.1"
port = {port}
tls = false
"""


def test_the_daemons_peak_stays_below_96_mb_and_the_stick_gets_its_pictures(tmp_path: Path) -> None:
    with bombs.sending(*bombs.HTTP.values()) as server, bombs.sending(*bombs.MQTT.values()) as broker:
        more = deliver_to(tmp_path, server.url, "trap", "secret") + STICK
        more += HUB.format(url=server.url, port=broker.port)
        names = [f"{drawings.DEVICE}.2026-06-21_20-19-{second:02}.jpg" for second in range(10, 16)]
        (tmp_path / "spool").mkdir(parents=True)
        for name in names:
            (tmp_path / "spool" / name).write_bytes(drawings.trap(names.index(name) + 1))
        stick = tmp_path / "stick"
        day = stick / drawings.DEVICE / "2026-06-21"
        day.mkdir(parents=True)
        (stick / ".trapsync-destination").touch()
        (day / "SHA256SUMS").write_bytes(b"x" * bombs.SIZE)
        with running(tmp_path, more) as daemon:
            facts = daemon.until(
                lambda facts: (
                    facts["destinations"]["stick"]["delivered"] == len(names)
                    and server.sent > len(bombs.HTTP) + 1
                    and broker.sent > 0
                ),
                60,
            )
            peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{daemon.pid}/status").read_text())[1]) * 1024  # type: ignore[index]
            print(f"peak {peak / 1e6:.1f} MB; {server.sent} answers, {broker.sent} brokers")  # noqa: T201 - the figure
            assert facts["destinations"]["hub"]["delivered"] == 0
            assert daemon.poll() is None
            assert "Traceback" not in daemon.text()
            assert all(line.isprintable() for line in daemon.text().splitlines())
    assert peak <= MOST
