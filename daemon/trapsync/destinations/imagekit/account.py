"""An account at ImageKit: its settings, its two servers and how it lets us in, and what it says of itself."""

import re
from pathlib import Path
from typing import Any, Literal

from trapsync.clock import utc
from trapsync.destinations import DestinationContext, Finding, http_service
from trapsync.errors import TrapsyncError, Unreachable, one_line
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer, retry_after
from trapsync.net.http_body import Pieces
from trapsync.settings.schema import Settings as AllSettings
from trapsync.settings.table import require_address, within
from trapsync.settings.units import Duration

_UPLOAD = "/api/v1/files/upload"
_FILES = "/v1/files"
_USAGE = "/v1/accounts/usage"
# The largest image by plan. The service does not say whether its megabytes are binary; this is the larger one.
LARGEST = {"free": 25 << 20, "lite": 40 << 20, "pro": 50 << 20}
# What all tags of a file may have together, and what of it we need for our own.
_MOST_BYTES = 1e18  # of an account's figures; what is more is none
_LONGEST_TAGS, _OUR_TAGS = 500, 100


class Settings(http_service.Settings, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "imagekit"."""

    required: bool = False
    private_key_file: Path
    url_endpoint: str
    content: Literal["original", "thumbnail"] = "original"
    folder: str = "/traps"
    tags: tuple[str, ...] = ()
    create_fields: bool = False
    plan: Literal["free", "lite", "pro"] = "free"
    private: bool = False
    sign: bool = True
    url_lifetime: Duration = Duration(30 * 86400)
    upload_url: str = "https://upload.imagekit.io"
    api_url: str = "https://api.imagekit.io"
    timeout: Duration = Duration(120)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        if self.required:
            raise ValueError(
                "required: must be false, for ImageKit confirms no digest: an image must not leave the card for its receipt"
            )
        for key in ("url_endpoint", "upload_url", "api_url"):
            require_address(key, getattr(self, key), "https://ik.imagekit.io/your_id")
        if not re.fullmatch(r"(/[A-Za-z0-9_-]+)*/?", self.folder):
            raise ValueError(
                f'folder: {self.folder!r} is not a path of letters, digits, - and _, such as "/traps"'
            )
        if bad := [tag for tag in self.tags if not tag.strip() or "," in tag or "%" in tag]:
            raise ValueError(f"tags: {bad[0]!r} is empty, or holds a comma or a percent sign")
        if sum(len(tag) + 1 for tag in self.tags) > _LONGEST_TAGS - _OUR_TAGS:
            raise ValueError("tags: are longer than 400 characters together")
        if self.private and not self.sign:
            raise ValueError("sign: must be true, for private files are fetched by signed addresses only")
        within(self, url_lifetime=(0, 3650 * 86400), timeout=(0.1, 3600))

    @property
    def identity(self) -> str:
        """The account, which the endpoint names. Where an image lies within it, each receipt says."""
        account = http_service.identity("account", self.url_endpoint)
        return http_service.identity("imagekit", self.api_url, account)

    def require(self, settings: AllSettings) -> None:
        """Small copies must be made."""
        if self.content == "thumbnail" and not settings.ingest.thumbnails:
            raise ValueError('content = "thumbnail": needs ingest.thumbnails = true')


class Account:
    """One account, by its private key. The service takes uploads at one server and questions at another."""

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self._key_name = f"destinations.{name}.private_key_file"
        self._name = name
        self._settings = settings
        self._clock = context.clock
        self._uploads = _client(settings.upload_url, settings, context, bandwidth=settings.bandwidth)
        self._api = _client(settings.api_url, settings, context)

    def close(self) -> None:
        """Close connections."""
        self._uploads.close()
        self._api.close()

    def key(self) -> str:
        """The private key."""
        return http_service.secret(self._settings.private_key_file, self._key_name)

    def upload(self, form: Pieces, kind: str) -> Answer:
        """Send an upload's form. Raises as `ask` does."""
        return self._ask(self._uploads, "POST", _UPLOAD, form, kind)

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """One question, or a small change. Raises Unauthorised if we are not let in, Unreachable."""
        return self._ask(self._api, method, path, body, "application/json" if body else "")

    def _ask(self, client: HttpClient, method: str, path: str, body: Pieces | bytes, kind: str) -> Answer:
        key = self.key()
        answer = client.request(method, path, body, kind=kind, auth=(key, ""))
        advice = f"look at {self._settings.private_key_file}, and at the account and its plan"
        return http_service.admitted(answer, advice, hide=key)

    def files(self, query: str) -> list[dict[str, Any]]:
        """What the listing shows: each with a `name` at least. A row whose name is no text is none of ours."""
        rows: list[Any] = self.ask("GET", f"{_FILES}?{query}").json(list)
        if rows and not any(isinstance(row, dict) and "name" in row for row in rows):
            raise Unreachable(f"{self._api.host} answered with a list that is not ImageKit's")
        return [row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]

    # --- The doctor -------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """Whether the key is good, what the account holds, whether addresses begin as its files' do."""
        some = self.files("limit=1&type=file")
        largest = LARGEST[self._settings.plan] >> 20
        text = (
            f"the key is good{self._usage()}; images of up to {largest} MB (plan = {self._settings.plan!r})"
        )
        return [Finding("ok", self._name, text), *self._endpoint(some)]

    def _usage(self) -> str:
        """This month's figures, if the account tells them."""
        today = utc(self._clock.wall())
        query = f"startDate={today:%Y-%m}-01&endDate={today:%Y-%m-%d}"
        try:
            usage = self.ask("GET", f"{_USAGE}?{query}").json(dict)
            stored, sent = (float(usage[key]) for key in ("mediaLibraryStorageBytes", "bandwidthBytes"))
        except (TrapsyncError, KeyError, ValueError, TypeError):
            return ""
        if not max(stored, sent) < _MOST_BYTES:
            return ""
        return f"; it holds {stored / 1e9:.1f} GB, and sent {sent / 1e9:.1f} GB this month"

    def _endpoint(self, files: list[dict[str, Any]]) -> list[Finding]:
        endpoint = self._settings.url_endpoint.rstrip("/")
        url = str(files[0].get("url", "")) if files else ""
        if not url or url.startswith(f"{endpoint}/"):
            return []
        begins = one_line("/".join(url.split("/")[:4]), 100)
        return [
            Finding(
                "warning", self._name, f"url_endpoint is {endpoint}, but the account's files are at {begins}"
            )
        ]


def _client(url: str, settings: Settings, context: DestinationContext, bandwidth: int = 0) -> HttpClient:
    limits = {"bandwidth": bandwidth, "timeout": settings.timeout}
    return http_service.client(url, settings, context, asked_to_wait=_asked_to_wait, **limits)


def _asked_to_wait(answer: Answer) -> float:
    """Seconds: ImageKit says in milliseconds when its limit ends; a proxy before it says it as others do."""
    text = answer.headers.get("X-RateLimit-Reset", "").strip()
    return int(text) / 1000 if re.fullmatch(r"[0-9]{1,12}", text) else retry_after(answer)
