"""The settings of a bucket in an S3-compatible store."""

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from trapsync.destinations import http_service, layouts
from trapsync.settings.schema import Settings as AllSettings
from trapsync.settings.table import require_address, within
from trapsync.settings.units import Duration, Size

# Names are checked by the store; here only what would not fit into an address or a signature, or is no name anywhere.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9._:@+=-]{1,128}")
_STORAGE_CLASS = re.compile(r"[A-Z0-9_]{0,64}")
_PREFIX = re.compile(r"([A-Za-z0-9!_'()-][A-Za-z0-9!_.'()-]*(/(?!$)|$))*")
_WEEK = 7 * 86400  # no presigned address is good for longer


class Settings(http_service.Settings, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "s3"."""

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    addressing: Literal["path", "host"] = "path"
    access_key: str
    secret_file: Path
    layout: str = "standard"
    storage_class: str = ""
    checksum: Literal["auto", "md5", "sha256"] = "auto"
    probe: bool = False
    url_lifetime: Duration = Duration(_WEEK)
    # Two uploads wait for their answers at the same moment: of what a link of 10 Mbit/s with 100 ms carries they fill 0.7,
    # four 0.93, eight all. More at once would take longer each, and a weak link breaks before one is through. Each at half
    # the slowest rate, so that such a link need carry no more than for two.
    transfers: int = 4
    min_rate: Size = Size(1000)
    ca_file: Path | None = None
    timeout: Duration = Duration(120)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        example = "https://s3.eu-central-1.amazonaws.com"
        require_address("endpoint", self.endpoint, example, instead="access_key and secret_file")
        if not _PREFIX.fullmatch(self.prefix.strip("/")):
            raise ValueError(
                f'prefix: {self.prefix!r} is not a path such as "moths/2026": letters, digits, !_.\'()-'
            )
        for key, pattern, is_meant in (
            ("bucket", _BUCKET, "the name of a bucket; what lies in it goes into prefix"),
            ("region", _REGION, 'a region, such as "eu-central-1"'),
            ("access_key", _ACCESS_KEY, "an access key"),
            ("storage_class", _STORAGE_CLASS, 'a storage class, such as "STANDARD_IA"'),
        ):
            if not pattern.fullmatch(getattr(self, key)):
                raise ValueError(f"{key}: {getattr(self, key)!r} is not {is_meant}")
        within(self, url_lifetime=(1, _WEEK), timeout=(0.1, 3600))

    @property
    def prefix_of_keys(self) -> str:
        """What stands before each name in the bucket: the prefix is a folder."""
        folder = self.prefix.strip("/")
        return f"{folder}/" if folder else ""

    @property
    def identity(self) -> str:
        """The bucket and the folder in it. A key that was exchanged opens the same bucket."""
        place = f"{self.bucket}/{self.prefix_of_keys}".rstrip("/")
        return http_service.identity("s3", self.endpoint, f"bucket {place}")

    @property
    def base(self) -> tuple[str, str]:
        """The address of the server, and the path at it under which the bucket lies."""
        parts = urlsplit(http_service.address(self.endpoint))
        if self.addressing == "host":
            return f"{parts.scheme}://{self.bucket}.{parts.netloc}", parts.path
        return f"{parts.scheme}://{parts.netloc}", f"{parts.path}/{self.bucket}"

    def require(self, settings: AllSettings) -> None:
        """The layout must be one; the file of authorities must be there."""
        layouts.require(self.layout, settings, self.prefix_of_keys)
        if self.ca_file and not self.ca_file.is_file():
            raise ValueError(f"ca_file: there is no file {self.ca_file}")
