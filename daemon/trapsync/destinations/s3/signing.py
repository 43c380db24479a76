"""Signatures of requests to S3: AWS Signature Version 4, in headers or in an address.

Pure functions, after AWS's "Signature Version 4 signing process" and "Authenticating requests: using query
parameters". The path of a request is written once, by `encoded`, and signed as it is sent: S3 encodes no path twice.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote

EMPTY = sha256().hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"
_ANY_BODY = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Signer:
    """One key of an account, at a store in one region."""

    access_key: str
    secret: str
    region: str

    def headers(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], now: datetime
    ) -> dict[str, str]:
        """These headers (with Host and x-amz-content-sha256 among them), signed; `path` as `encoded` writes it."""
        stamp = f"{now:%Y%m%dT%H%M%SZ}"
        more = {**headers, "x-amz-date": stamp}
        signed = {name.lower(): " ".join(value.split()) for name, value in more.items()}
        names = ";".join(sorted(signed))
        digest = signed["x-amz-content-sha256"]
        signature = self._signature(stamp, [method, path, query_of(query), *_lines(signed), names, digest])
        scope = f"{self.access_key}/{self._scope(stamp)}"
        login = f"{_ALGORITHM} Credential={scope}, SignedHeaders={names}, Signature={signature}"
        return {**more, "Authorization": login}

    def query(self, method: str, host: str, path: str, now: datetime, seconds: int) -> str:
        """The query by which whoever has the address may do this for so many seconds."""
        stamp = f"{now:%Y%m%dT%H%M%SZ}"
        asked = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.access_key}/{self._scope(stamp)}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        request = [method, path, query_of(asked), *_lines({"host": host}), "host", _ANY_BODY]
        return f"{query_of(asked)}&X-Amz-Signature={self._signature(stamp, request)}"

    def _scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self.region}/s3/aws4_request"

    def _signature(self, stamp: str, request: list[str]) -> str:
        canonical = sha256("\n".join(request).encode()).hexdigest()
        text = "\n".join([_ALGORITHM, stamp, self._scope(stamp), canonical])
        key = f"AWS4{self.secret}".encode()
        for part in self._scope(stamp).split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


def encoded(path: str) -> str:
    """A path as it is sent and signed: every byte but unreserved ones and the slash written as %XX."""
    return quote(path, safe="/~")


def query_of(values: Mapping[str, str]) -> str:
    """A query as it is sent and signed: in the order of its names."""
    return "&".join(f"{quote(name, safe='~')}={quote(values[name], safe='~')}" for name in sorted(values))


def _lines(headers: Mapping[str, str]) -> list[str]:
    """The canonical headers, and the empty line behind them."""
    return [*(f"{name}:{headers[name]}" for name in sorted(headers)), ""]
