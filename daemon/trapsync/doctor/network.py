"""The hub, the destinations, and the secrets to log in there."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from trapsync.catalog import Catalog, facts
from trapsync.clock import Clock
from trapsync.destinations import Checked, Finding, check, kinds
from trapsync.errors import CatalogError, SettingsError, TrapsyncError
from trapsync.files import durable
from trapsync.hardware.device_id import device_id
from trapsync.net.connecting import connect
from trapsync.net.http_errors import unreachable
from trapsync.net.proxy import proxy_for
from trapsync.remote import document
from trapsync.remote.in_force import InForce, report
from trapsync.runtime.destination_context import connect_all
from trapsync.settings import config_file, open_links
from trapsync.settings.config_file import read_secret, replaceable
from trapsync.settings.layers import OVERRIDE
from trapsync.settings.schema import DEVICE, ENVIRONMENT, Hub, Settings
from trapsync.settings.table import Table
from trapsync.settings.words import age
from trapsync.spool import overlap
from trapsync.trap import open_to_read

_TIMEOUT = 10.0  # seconds for a name and a connection

_SUBJECTS = {"web": "hub (HTTPS)", "mqtt": "hub (MQTT)"}

Reach = Callable[[str, int], None]


def reach(host: str, port: int) -> None:
    """Connect to a host and hang up; OSError if that cannot be done within seconds."""
    connect(host, port, _TIMEOUT, ()).close()


def secrets(settings: Settings, source: Path) -> list[Finding]:
    """Check that nobody else on this machine can read a secret, or change the settings."""
    files = list(_files_of(settings, source, open_links.SECRETS))
    own = (("config", source), ("override", source.with_name(OVERRIDE)))
    for key, path in (*own, *_files_of(settings, source, ("ca_file",))):
        if problem := replaceable(path):
            return [Finding("failing", "secrets", f"{key}: {problem}")]
    found: list[Finding] = []
    for key, path in files:
        try:
            if (secret := read_secret(path, key)) != secret.strip():
                text = f"{key}: the secret in {path} begins or ends with a blank, which counts"
                found.append(Finding("warning", "secrets", f"{text}; if it is none of its own, remove it"))
        except SettingsError as error:
            hint = f"; if systemd hands it over (LoadCredential={key}:...), only the daemon can read it"
            text = f"{error}{'' if path.exists() else hint}"
            found.append(Finding("failing", "secrets", text))
    if files and not found:
        found.append(Finding("ok", "secrets", f"{len(files)}, which only the daemon can read"))
    return found


def named_files(settings: Settings, source: Path) -> list[Finding]:
    """Check that what the settings name is there, and that this account may read it; secrets are looked at elsewhere."""
    tables: dict[str, object] = {"hub": settings.hub, "camera": settings.camera, "sensors": settings.sensors}
    for name, table in settings.destinations.items():
        with suppress(SettingsError):
            tables[f"destinations.{name}"] = check(name, table, source).settings
    return [
        Finding("warning", "files", f"{key}: {problem}")
        for at, table in tables.items()
        for key, path in _paths(table, at)
        if (problem := _unreadable(path))
    ]


def _paths(table: object, at: str) -> Iterator[tuple[str, Path]]:
    """The paths in a table and those within it, by their keys."""
    # That a stick is away, which is brought now and then, is no problem.
    left_out = {*open_links.SECRETS, *(["path"] if getattr(table, "hotplug", False) else [])}
    for key in () if not isinstance(table, Table) else table.__struct_fields__:
        value = getattr(table, key)
        if isinstance(value, Path) and key not in left_out:
            yield f"{at}.{key}", value
        yield from _paths(value, f"{at}.{key}")


def _unreadable(path: Path) -> str | None:
    try:
        path.stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if os.access(path, os.R_OK):
        return None
    return f"{path}: the account {durable.user()} may not read it; run: sudo chmod a+rX {path}"


def _files_of(settings: Settings, source: Path, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Each file that one of these keys names, a password's for example, and the whole key."""
    for at, table in (("hub", settings.hub), ("hub.mqtt", settings.hub.mqtt)):
        for name in names:
            if path := getattr(table, name, None):
                yield f"{at}.{name}", path
    for at, content in settings.destinations.items():
        for name in names:
            if isinstance(value := content.get(name) if isinstance(content, dict) else None, str) and value:
                yield f"destinations.{at}.{name}", source.absolute().parent / Path(value).expanduser()


def joined(settings: Settings) -> list[Finding]:
    """Say which hub this trap has joined, and as which device: a card that was moved speaks for another trap."""
    hub = settings.hub
    try:
        device = device_id(settings.trap)
    except SettingsError:  # which has a finding of its own
        return []
    if not hub.url or not DEVICE.fullmatch(hub.username):
        return []
    if hub.username != device:
        text = f"joined as {hub.username}, and this trap is {device}: is the card another trap's?"
        fix = f'set trap.device = "{hub.username}", or ask the hub\'s operator for a new code'
        return [Finding("failing", "joined", f"{text} {fix}")]
    groups = f", in {' and '.join(settings.remote.groups)}" if settings.remote.groups else ""
    return [Finding("ok", "joined", f"{urlsplit(hub.url).netloc}, as {device}{groups}")]


def hub(settings: Settings, clock: Clock, reach: Reach = reach) -> list[Finding]:
    """Check whether the hub can be reached, and when it was last. Sends and asks for nothing."""
    return [_link(way, *place, settings, clock, reach) for way, place in _links(settings).items()]


def _links(settings: Settings) -> dict[str, tuple[str, int, str]]:
    """What to connect to on the way to the hub, and how to call that: its proxy, where there is one."""
    found = {}
    if url := settings.hub.url or settings.hub.tell_url:
        try:
            proxy = proxy_for(url, settings.hub, "hub")
        except SettingsError:  # which has a finding of its own
            proxy = None
        parts = urlsplit(proxy.url if proxy else url)
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
        called = f"the proxy {proxy.host}, on the way to {urlsplit(url).netloc}," if proxy else ""
        found["web"] = (parts.hostname or "", port, called or f"{parts.hostname}:{port}")
    if (mqtt := settings.hub.mqtt).host:
        found["mqtt"] = (mqtt.host, mqtt.port, f"{mqtt.host}:{mqtt.port}")
    return found


def _link(
    way: str, host: str, port: int, called: str, settings: Settings, clock: Clock, reach: Reach
) -> Finding:
    subject = _SUBJECTS[way]
    try:
        reach(host, port)
    except OSError as error:
        text = str(unreachable(error, called.rstrip(","), None, clock.wall()))
        return Finding("warning", subject, text)
    known = _remembered(settings, clock).get(way)
    if known and known.error:
        return Finding("warning", subject, f"{called} answers, but the last attempt failed: {known.error}")
    last = f"; last reached {age(clock.wall() - known.reached)} ago" if known and known.reached else ""
    return Finding("ok", subject, f"{called} answers{last}")


def proxies(settings: Settings) -> list[Finding]:
    """Say which proxies are used, and whether the environment names one that is not."""
    asked = (
        {"hub": (settings.hub.url or settings.hub.tell_url, settings.hub.proxy)}
        if settings.hub.is_set
        else {}
    )
    for name, table in settings.destinations.items():
        if isinstance(table, dict) and table.get("kind") != "directory":
            url = table.get("url", table.get("endpoint", "https://"))
            asked[name] = (str(url), str(table.get("proxy", "")))
    used = {name: _proxy(url, proxy) for name, (url, proxy) in asked.items() if proxy}
    variables = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if _variable(name)]
    if used:
        told = ", ".join(f"{name} through {proxy}" for name, proxy in used.items())
        return [Finding("ok", "proxy", told)]
    if asked and variables:
        advice = 'where only a proxy leads out, set proxy = "environment" or its address'
        tables = ", ".join("[hub]" if name == "hub" else f"[destinations.{name}]" for name in asked)
        return [
            Finding("warning", "proxy", f"{' and '.join(variables)} set, and not used: {advice} in {tables}")
        ]
    return []


def _variable(name: str) -> str | None:
    return os.environ.get(name) or os.environ.get(name.lower())


def _proxy(url: str, proxy: str) -> str:
    """The proxy in words; of the environment that of this very process, which need not be the daemon's."""
    if proxy != ENVIRONMENT:
        return urlsplit(proxy).netloc
    try:
        found = proxy_for(url, Hub(proxy=proxy), "proxy")
    except SettingsError as error:
        return str(error)
    here = f"here {found.host}" if found else "none here"
    return f"what the environment says ({here}; of the daemon see: systemctl show -p Environment trapsync)"


def without_tls(settings: Settings) -> list[Finding]:
    """Find what goes over the internet so that everybody on the way can read it, or answer in the other's place."""
    tables = {"hub": config_file.plain(settings.hub), "hub.mqtt": config_file.plain(settings.hub.mqtt)}
    tables |= {f"destinations.{name}": table for name, table in settings.destinations.items()}
    return [
        Finding("warning", "without TLS", f"{at}: {text}; {_with_tls(f'{at}.{key}')}")
        for at, table in tables.items()
        if isinstance(table, dict)
        for key, text in open_links.told(table)
    ]


def _with_tls(key: str) -> str:
    return f"set {key} = true" if key.endswith(".tls") else f"write https:// in {key}"


def _remembered(settings: Settings, clock: Clock) -> dict[str, facts.Link]:
    try:
        catalog = open_to_read(settings, clock)
        try:
            return catalog.facts.read().hub
        finally:
            catalog.close()
    except CatalogError:  # which has a finding of its own
        return {}


def remote(found: InForce) -> list[Finding]:
    """Check the remote settings, if they are enabled."""
    settings = found.settings
    if not settings.remote.enabled:
        return []
    try:
        document.require()
        facts = report(found)
        revoked = found.record.guard.revoked
        ids = [document.public_from_text(text).id for text in settings.remote.keys]
        known = ", ".join(f"{one} (revoked)" if one in revoked else one for one in ids)
    except TrapsyncError as error:
        return [Finding("failing", "remote settings", str(error))]
    if facts["code"]:
        return [
            Finding("warning", "remote settings", f"{facts['state']}, {facts['code']}: {facts['reason']}")
        ]
    if facts["damaged"]:
        return [Finding("warning", "remote settings", facts["damaged"])]
    return [Finding("ok", "remote settings", f"{facts['state']}; trusted keys: {known}")]


def destinations(
    settings: Settings, clock: Clock, sleep: Callable[[float], None], source: Path
) -> list[Finding]:
    """Check each destination by its own means."""
    findings = [
        Finding("warning", "destinations", f"{added} has the name of one that ships, which is used instead")
        for added in kinds.shadowed()
    ]
    if not settings.destinations:
        text = "there is none: images stay on the card; add a [destinations.NAME]"
        return [*findings, Finding("warning", "destinations", text), *_folders(settings, [], source)]
    catalog = _catalog(settings, clock)
    checked: list[Checked] = []
    for name, table in settings.destinations.items():
        try:
            one = check(name, table, source)
            one.require(settings, source)
            checked.append(one)
            (destination,) = connect_all(settings, [one], catalog, clock, sleep)
        except TrapsyncError as error:
            findings.append(Finding("failing", name, str(error)))
            continue
        findings += [Finding(found.verdict, name, found.text) for found in destination.check()]
        destination.close()
    if catalog:
        catalog.close()
    return [*findings, *_folders(settings, checked, source)]


def _catalog(settings: Settings, clock: Clock) -> Catalog | None:
    """Open the catalog to read; None where it cannot be read, which has a finding of its own."""
    try:
        return open_to_read(settings, clock)
    except CatalogError:
        return None


def _folders(settings: Settings, checked: list[Checked], source: Path) -> list[Finding]:
    """Check that no folder lies in another, which would keep the daemon from starting."""
    try:
        overlap.require(settings.storage, checked, source)
    except SettingsError as error:
        return [Finding("failing", "folders", str(error))]
    return []
