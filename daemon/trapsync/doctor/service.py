"""systemd, the watchdogs, and the limits of the log."""

import re

from trapsync.destinations import Finding
from trapsync.doctor.machine import Machine
from trapsync.settings.schema import Settings
from trapsync.trap import holder

_MANY = 5  # starts by systemd since the boot that are too many for chance


def service(settings: Settings, machine: Machine) -> list[Finding]:
    """Check the running daemon and what supervises it."""
    return [*_daemon(settings), *_service(settings, machine), *_watchdog(machine), *_log(machine)]


def _daemon(settings: Settings) -> list[Finding]:
    """The running daemon; that it does not run is a reason of the status."""
    process = holder(settings.storage.state)
    return [Finding("ok", "daemon", f"running as process {process}")] if process else []


def _service(settings: Settings, machine: Machine) -> list[Finding]:
    """Check trapsync.service: enabled at boot, watched, and how often it was restarted."""
    unit = machine.properties("trapsync.service")
    if not unit:
        return []
    process = holder(settings.storage.state)
    if unit.get("LoadState") != "loaded":
        return [
            _unit(
                "warning",
                "not installed as a service: nothing starts the daemon after a reboot; run scripts/install",
            )
        ]
    if process is not None and unit.get("MainPID") != str(process):
        return [
            _unit("warning", "the daemon was started manually: end it, then: sudo systemctl start trapsync")
        ]
    if unit.get("UnitFileState") not in {"enabled", "enabled-runtime"}:
        return [_unit("warning", "not enabled at boot: sudo systemctl enable trapsync")]
    if unit.get("WatchdogUSec", "0") in {"0", "infinity"}:
        return [
            _unit("warning", "systemd does not watch it: WatchdogSec is off; see: systemctl cat trapsync")
        ]
    restarts = int(unit.get("NRestarts") or 0)
    if restarts >= _MANY:
        return [
            _unit(
                "warning",
                f"restarted {restarts} times: sudo journalctl -u trapsync -p warning",
            )
        ]
    again = f"; restarted {restarts} times" if restarts else ""
    return [
        _unit(
            "ok",
            f"enabled at boot; restarted after {unit['WatchdogUSec']} without a sign of life{again}",
        )
    ]


def _unit(verdict: str, text: str) -> Finding:
    return Finding(verdict, "service", text)


def _watchdog(machine: Machine) -> list[Finding]:
    """Check the hardware watchdog, which resets a Pi whose kernel hangs, if systemd feeds it."""
    devices = machine.some("/sys/class/watchdog/watchdog[0-9]*")
    fed = machine.properties().get("RuntimeWatchdogUSec", "")
    if not devices and not machine.is_pi:
        return []
    states = [machine.read(path / "state") for path in devices]
    if "active" in states or fed not in {"", "0", "infinity", "off"}:
        return [Finding("ok", "watchdog", f"armed{f': {fed}' if fed not in {'', '0'} else ''}")]
    advice = "a kernel that hangs stays so until somebody comes here; run scripts/install, or see systemd/watchdog.conf"
    return [Finding("warning" if machine.is_pi else "ok", "watchdog", f"not armed: {advice}")]


def _log(machine: Machine) -> list[Finding]:
    """Check that the log is kept and limited."""
    if not machine.has_systemd:
        return []
    if not machine.at("/var/log/journal").is_dir():
        return [Finding("ok", "log", "kept in memory: it is gone after a reboot")]
    files = [
        *machine.some("/etc/systemd/journald.conf"),
        *machine.some("/etc/systemd/journald.conf.d/*.conf"),
    ]
    limits = [found for path in files for found in re.findall(r"(?m)^SystemMaxUse=(\S+)", machine.read(path))]
    if limits:
        return [Finding("ok", "log", f"kept, up to {limits[-1]}")]
    return [
        Finding(
            "warning",
            "log",
            "kept, without a limit of its own: it may take a tenth of the card; run scripts/install, or set SystemMaxUse",
        )
    ]
