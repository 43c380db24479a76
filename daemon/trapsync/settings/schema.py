"""Every table and key of the settings, with its type, its default and its limits.

TOML, with msgspec for the types. Durations and sizes are written with their unit ("20 min", "2 GB") and read as seconds
and bytes. `config/trapsync.toml` shows every key with its default; a test holds the two equal.
"""

import re
from pathlib import Path
from typing import Any, Literal

from trapsync.settings.deployment import Deployment
from trapsync.settings.project import Project
from trapsync.settings.schedule import parse_window
from trapsync.settings.table import Table, require_address, within
from trapsync.settings.units import Duration, Exposure, Size

DEVICE = re.compile("[0-9a-f]{8}")
GROUP = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
UTC_OFFSET = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d")
MOST_KEYS = 2  # that a trap trusts at once
ENVIRONMENT = "environment"


def require_proxy(table: Any) -> None:
    """Refuse what is no proxy in a table that has one; for `__post_init__`. Without one, its account does not matter."""
    if table.proxy == ENVIRONMENT and table.proxy_username:
        raise ValueError('proxy_username: goes with the address of a proxy, such as "http://proxy:3128"')
    if table.proxy in {"", ENVIRONMENT}:
        return
    if table.proxy.startswith("socks"):
        raise ValueError('proxy: cannot be one for SOCKS; one for HTTP is written "http://HOST:PORT"')
    instead = "proxy_username and proxy_password_file"
    require_address("proxy", table.proxy, "http://proxy.example.org:3128", instead=instead)
    _require_both(table.proxy_username, table.proxy_password_file, "proxy_")


class Trap(Table, frozen=True):
    """[trap]: which trap this is, and where it hangs."""

    device: str = ""
    name: str = ""
    owner: str = ""
    copyright: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float | None = None
    timezone: str = "system"
    utc_offset: str = ""
    exif_time: Literal["local", "utc"] = "local"
    clock: Literal["auto", "trusted"] = "auto"
    uncertain_times: Literal["hold", "deliver"] = "hold"

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if self.device and not DEVICE.fullmatch(self.device):
            raise ValueError(f"device: {self.device!r} is not 8 hexadecimal digits in lower case")
        if self.utc_offset and not UTC_OFFSET.fullmatch(self.utc_offset):
            raise ValueError(f'utc_offset: {self.utc_offset!r} is no offset such as "+01:00" or "-03:30"')
        within(self, latitude=(-90, 90), longitude=(-180, 180), altitude=(-500, 9000))

    @property
    def has_place(self) -> bool:
        """Whether somebody said where the trap hangs; 0, 0 is in the Atlantic and means unknown."""
        return (self.latitude, self.longitude) != (0.0, 0.0)


class Storage(Table, frozen=True):
    """[storage]: where images wait and what is remembered of them."""

    spool: Path = Path("/var/lib/trapsync/spool")
    state: Path = Path("/var/lib/trapsync/state")
    min_free: Size = Size(200 * 10**6)

    @property
    def catalog(self) -> Path:
        """The SQLite catalog's file."""
        return self.state / "catalog.sqlite"

    @property
    def thumbnails(self) -> Path:
        """The folder of the small copies."""
        return self.state / "thumbnails"

    @property
    def results(self) -> Path:
        """The folder of what services made of images: not in the spool, where it would be taken for images."""
        return self.state / "results"

    @property
    def quarantine(self) -> Path:
        """Beside the images, so that a move there is a rename on one filesystem."""
        return self.spool / ".quarantine"


class SimulatedCamera(Table, frozen=True):
    """[camera.simulated]: the camera without hardware."""

    seed: int = 1
    replay: Path | None = None


class Flash(Table, frozen=True):
    """[camera.flash]: a lamp that burns while a picture is taken."""

    pin: int | None = None
    active_high: bool = True
    warm_up: Duration = Duration(1)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, warm_up=(0, 60))
        if self.pin is not None:
            within(self, pin=(0, 27))


class Camera(Table, frozen=True):
    """[camera]: which camera, and how it takes pictures. The same keys for each kind."""

    kind: Literal["picamera", "simulated", "none"] = "picamera"
    resolution: tuple[int, int] = (4056, 3040)
    quality: int = 90
    exposure: Exposure = Exposure(0)
    gain: Literal["auto"] | float = "auto"
    white_balance: Literal["auto"] | tuple[float, float] = "auto"
    lens_position: Literal["auto"] | float = "auto"
    zoom: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    rotation: Literal[0, 180] = 0
    warm_up: Duration = Duration(2)
    timeout: Duration = Duration(10)
    reboot: bool = True
    flash: Flash = Flash()
    simulated: SimulatedCamera = SimulatedCamera()

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(
            self,
            quality=(1, 100),
            exposure=(0, 240),
            warm_up=(0, 60),
            timeout=(1, 300),
        )
        for key, most in (("gain", 100.0), ("lens_position", 100.0)):
            if getattr(self, key) != "auto":
                within(self, **{key: (0, most)})
        if self.white_balance != "auto" and not all(0 < gain <= 100 for gain in self.white_balance):
            raise ValueError("white_balance: must be two gains above 0 and up to 100")
        width, height = self.resolution
        if not (64 <= width <= 9152 and 64 <= height <= 6944):
            raise ValueError(f"resolution: [{width}, {height}] is not between [64, 64] and [9152, 6944]")
        x, y, w, h = self.zoom
        if not (0 <= x < 1 and 0 <= y < 1 and 0.01 <= w <= 1 - x and 0.01 <= h <= 1 - y):
            raise ValueError(
                "zoom: must be [x, y, width, height], fractions inside the sensor (0 to 1), "
                "width and height 0.01 at least"
            )


class Sensors(Table, frozen=True):
    """[sensors]: what is measured for each picture. A path is a file in thousandths; "" is no sensor."""

    temperature: str = "auto"
    humidity: str = "auto"
    battery: Path | None = None
    battery_command: tuple[str, ...] = ()
    button: int | None = None
    read_before: Duration = Duration(5)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, read_before=(0.1, 60))
        for key in ("temperature", "humidity"):
            if getattr(self, key) not in {"", "auto"} and not getattr(self, key).startswith("/"):
                raise ValueError(f'{key}: must be "auto", "" or the path of a file below /sys')
        if self.button is not None:
            within(self, button=(0, 27))
        if self.battery and self.battery_command:
            raise ValueError("battery_command: there is battery as well; only one of them can be")


class Warnings(Table, frozen=True):
    """[warnings]: from when on to warn of what would end a deployment."""

    battery: float = 20.0
    battery_days: float = 3.0
    card_days: float = 3.0
    temperature: float = 75.0
    under_voltage: bool = True

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, battery=(0, 100), battery_days=(0, 100), card_days=(0, 1000), temperature=(0, 150))


class Led(Table, frozen=True):
    """[led]: a light that tells whoever stands before the trap how it is."""

    pin: int | None = None
    active_high: bool = True
    off_after: Duration = Duration(600)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, off_after=(0, 86400))
        if self.pin is not None:
            within(self, pin=(0, 27))


class Capture(Table, frozen=True):
    """[capture]: when pictures are taken."""

    every: Duration = Duration(1200)
    schedule: tuple[str, ...] = ()
    format: Literal["2020", "2022"] = "2022"

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, every=(1, 86400))
        for window in self.schedule:
            try:
                parse_window(window)
            except ValueError as error:
                raise ValueError(f"schedule: {error}") from None


class Ingest(Table, frozen=True):
    """[ingest]: how new files are found and examined."""

    rescan_every: Duration = Duration(600)
    stable_after: Duration = Duration(120)
    workers: int = 1
    timeout: Duration = Duration(60)
    thumbnails: bool = True

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, rescan_every=(1, 86400), stable_after=(0, 86400), workers=(1, 8), timeout=(1, 600))


class Prune(Table, frozen=True):
    """[prune]: whether delivered images may leave the card."""

    enabled: bool = False
    min_age: Duration = Duration(7 * 86400)
    keep_free: Size = Size(2 * 10**9)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, min_age=(0, 3650 * 86400), keep_free=(0, 10**13))


def _require_both(username: str, password_file: Path | None, which: str = "") -> None:
    if ":" in username:
        raise ValueError(f"{which}username: {username!r} must not hold a colon")
    if bool(username) != bool(password_file):
        raise ValueError(f"{which}username: goes with a {which}password_file, and that with a username")


class HubMqtt(Table, frozen=True):
    """[hub.mqtt]: the same by way of a broker."""

    host: str = ""
    port: int = 8883
    tls: bool = True
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    topic_prefix: str = "trapsync"

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, port=(1, 65535))
        if not re.fullmatch(r"[^\s/:@]*", self.host):
            raise ValueError(f'host: {self.host!r} is no name of a host, such as "broker.example.org"')
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", self.topic_prefix, re.ASCII):
            raise ValueError(
                f'topic_prefix: {self.topic_prefix!r} is no beginning of a topic, such as "trapsync"'
            )
        _require_both(self.username, self.password_file)


class Hub(Table, frozen=True):
    """[hub]: where the trap asks for settings, and tells how it is."""

    url: str = ""
    heartbeat_url: str = ""
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    proxy: str = ""
    proxy_username: str = ""
    proxy_password_file: Path | None = None
    every: Duration = Duration(900)
    mqtt: HubMqtt = HubMqtt()

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, every=(1, 7 * 86400))
        for key in ("url", "heartbeat_url"):
            url = getattr(self, key)
            if url and (key, url) != ("heartbeat_url", "none"):
                require_address(key, url, "https://hub.example.org", instead="username and password_file")
        _require_both(self.username, self.password_file)
        require_proxy(self)
        if self.proxy and self.mqtt.host:
            raise ValueError("proxy: MQTT does not go through one; remove hub.mqtt.host, or this")

    @property
    def is_set(self) -> bool:
        """Whether there is any way home."""
        return bool(self.url or self.tell_url or self.mqtt.host)

    @property
    def tell_url(self) -> str:
        """Where heartbeats are posted; empty if nowhere."""
        return "" if self.heartbeat_url == "none" else self.heartbeat_url or self.url


class Destination(Table, frozen=True):
    """The keys that every [destinations.NAME] has; each kind adds its own."""

    kind: str
    required: bool = True
    depends_on: str = ""
    every: Duration = Duration(300)
    order: Literal["newest", "oldest"] = "newest"
    transfers: int = 2
    bandwidth: Size = Size(0)
    retry_initial: Duration = Duration(30)
    retry_max: Duration = Duration(3600)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, every=(1, 7 * 86400), transfers=(1, 16), retry_initial=(0.1, 86400))
        within(self, retry_max=(0.1, 7 * 86400))

    @property
    def identity(self) -> str | None:
        """Which place this is, as far as its settings say it; None where only the place itself can tell."""
        return None

    def require(self, settings: "Settings") -> None:
        """Raise ValueError for what the rest of the settings, or the card, does not allow."""

    @property
    def tasks(self) -> int:
        """How many threads and processes its uploads take at the most."""
        return self.transfers

    def slowest(self) -> float:
        """Bytes per second: one that sends more slowly has given up by itself, or hangs."""
        return 2000.0


class RemoteLimits(Table, frozen=True):
    """[remote.limits]: how far pushed settings may go, and how a trap on trial must be."""

    min_interval: Duration = Duration(10)
    max_interval: Duration = Duration(6 * 3600)
    min_days: float = 2.0
    min_picture: float = 0.25

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, min_interval=(1, 86400), max_interval=(1, 86400), min_days=(0, 1000), min_picture=(0, 1))


class Remote(Table, frozen=True):
    """[remote]: settings that the owner sends from afar, signed. Never pushable itself."""

    enabled: bool = False
    keys: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    allow: tuple[str, ...] = (
        *("capture", "camera", "ingest", "prune", "warnings", "destinations"),
        "deployment",
    )
    trial: Duration = Duration(3600)
    limits: RemoteLimits = RemoteLimits()

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, trial=(1, 7 * 86400))
        if len(self.keys) > MOST_KEYS:
            raise ValueError("keys: at most two are trusted at once, the old one and the new one")
        if self.enabled and not self.keys:
            raise ValueError(
                'keys: is empty, so nothing could be taken; put in what "trapsync keys new" shows'
            )
        if bad := [group for group in self.groups if not GROUP.fullmatch(group)]:
            raise ValueError(f"groups: {bad[0]!r} is not a name of a-z, 0-9, - and _")


class Settings(Table, frozen=True):
    """The whole config file. `destinations` stays raw here: each kind decodes its own table."""

    trap: Trap = Trap()
    deployment: Deployment = Deployment()
    storage: Storage = Storage()
    camera: Camera = Camera()
    sensors: Sensors = Sensors()
    led: Led = Led()
    capture: Capture = Capture()
    ingest: Ingest = Ingest()
    prune: Prune = Prune()
    warnings: Warnings = Warnings()
    remote: Remote = Remote()
    hub: Hub = Hub()
    project: Project = Project()
    destinations: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - msgspec makes a new one each time

    def __post_init__(self) -> None:
        """Check what one table alone cannot say."""
        others = {"camera.flash": self.camera.flash.pin, "sensors.button": self.sensors.button}
        for other, pin in others.items():
            if pin is not None and pin == self.led.pin:
                raise ValueError(f"led.pin: {pin} is that of {other} already")
