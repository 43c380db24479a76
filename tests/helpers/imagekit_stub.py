"""ImageKit in memory, for a `FaultServer`: upload, listing, fields, usage, and the delivery host, as they are told of.

Followed are the vendor's documents and what its SDK sends and reads (see `test_imagekit_sdk.py`, where that SDK
does its work against this). The texts of errors are our own. `lags` keeps new files out of the listing, as a
search index may. Uploads and questions share one address here.
"""

import base64
import hmac
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fault_server import JSON, Reply, _parts
from trapsync.jpeg import structure

_DEFAULTS = {"useUniqueFileName": "true", "overwriteFile": "true", "isPrivateFile": "false", "folder": "/"}
_LIMIT = 25 << 20


@dataclass
class File:
    """One file of the media library; `versions` are the older contents."""

    id: str
    path: str
    content: bytes
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    is_private: bool = False
    is_listed: bool = True
    versions: list[bytes] = field(default_factory=list)

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0] + "/"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class _Error(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply: Reply = (status, JSON, json.dumps({"message": message, "help": "ask support"}).encode())


class ImageKit:
    """One account."""

    methods = ("GET", "POST", "PATCH", "DELETE")

    def __init__(self, key: str = "private_canary/Zm9v+YmFy0123=") -> None:
        self.key = key
        self.files: dict[str, File] = {}
        self.fields: dict[str, str] = {}
        self.deleted_fields: set[str] = set()
        self.lags = False
        self.needs_signature = False
        self.now = 1_782_073_155
        self.is_over_its_plan = False
        self.forms: list[set[str]] = []  # the names of the parts of each upload
        self._count = 0
        self._lock = threading.Lock()

    def catch_up(self) -> None:
        """The search index knows every file from now on."""
        self.lags = False
        for file in self.files.values():
            file.is_listed = True

    def __call__(self, named: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        method, _, target = named.partition(" ") if not named.startswith("/") else ("POST", "", named)
        parts = urlsplit(target)
        query = {name: some[0] for name, some in parse_qs(parts.query, keep_blank_values=True).items()}
        with self._lock:
            try:
                if parts.path.startswith("/demo/"):
                    return self._fetch(target, query)
                self._admit(headers)
                return self._route(method, parts.path, query, headers, body)
            except _Error as error:
                return error.reply

    def _admit(self, headers: Mapping[str, str]) -> None:
        scheme, _, encoded = headers.get("Authorization", "").partition(" ")
        user = base64.b64decode(encoded).decode().partition(":")[0] if scheme == "Basic" else ""
        if user != self.key:
            raise _Error(401, f"Your account cannot be authenticated with {user}.")
        if self.is_over_its_plan:
            raise _Error(403, "Your account is beyond the limits of its plan.")

    def _route(
        self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        match method, *path.strip("/").split("/"):
            case "POST", "api", "v1", "files", "upload":
                return self._upload(_parts(headers["Content-Type"], body))
            case "GET", "v1", "files":
                return _answer(self._list(query))
            case "GET", "v1", "files", file_id, "details":
                return _answer(self._shown(self._file(file_id)))
            case "DELETE", "v1", "files", file_id:
                del self.files[self._file(file_id).path]
                return 204, {}, b""
            case "POST", "v1", "files", "batch", "deleteByFileIds":
                return self._delete_many(json.loads(body)["fileIds"])
            case "POST", "v1", "files", "purge":
                return _answer({"requestId": "1"}, 201)
            case "GET", "v1", "customMetadataFields":
                shown = self.fields.items()
                return _answer([{"id": n, "name": n, "label": n, "schema": {"type": t}} for n, t in shown])
            case "POST", "v1", "customMetadataFields":
                return self._make_field(json.loads(body))
            case "GET", "v1", "accounts", "usage":
                stored = sum(len(file.content) for file in self.files.values())
                return _answer({"mediaLibraryStorageBytes": stored, "bandwidthBytes": 3 * stored})
        raise _Error(404, f"there is no {method} {path}")

    # --- Upload -------------------------------------------------------------------------------------------

    def _upload(self, parts: dict[str, bytes]) -> Reply:
        self.forms.append(set(parts))
        content = parts.pop("file", b"")
        given = _DEFAULTS | {name: value.decode() for name, value in parts.items()}
        if not content or not given.get("fileName"):
            raise _Error(400, "Missing file or fileName parameter for upload.")
        if {"signature", "token"} & given.keys():
            raise _Error(400, "Use either Basic authentication or a signature.")
        if len(content) > _LIMIT:
            raise _Error(400, "The file is larger than the limit of your plan.")
        tags = [tag for tag in given.get("tags", "").split(",") if tag]
        if len(given.get("tags", "")) > 500 or "%" in given.get("tags", ""):
            raise _Error(400, "Invalid tags.")
        file = File(self._new_id(), self._path(given), content, tags, self._metadata(given))
        file.is_private, file.is_listed = given["isPrivateFile"] == "true", not self.lags
        if taken := self.files.get(file.path):
            if given["overwriteFile"] != "true":
                raise _Error(400, "A file of that name already exists at this location.")
            file.id, file.versions = taken.id, [*taken.versions, taken.content]
            if len(file.versions) >= 100:
                raise _Error(400, "Too many versions.")
        self.files[file.path] = file
        wanted = given.get("responseFields", "").split(",")
        extras = {"customMetadata": file.metadata, "isPrivateFile": file.is_private}
        shown = self._shown(file) | {"AITags": None, "versionInfo": {"id": "1", "name": "Version 1"}}
        return _answer({k: v for k, v in shown.items() if k not in extras or k in wanted})

    def _path(self, given: dict[str, str]) -> str:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", given["fileName"])
        if given["useUniqueFileName"] == "true":
            stem, dot, suffix = name.rpartition(".")
            name = f"{stem}_{self._new_id()[-9:]}{dot}{suffix}"
        folder = re.sub(r"[^A-Za-z0-9/_-]", "_", given["folder"]).strip("/")
        return f"/{folder}/{name}" if folder else f"/{name}"

    def _metadata(self, given: dict[str, str]) -> dict[str, Any]:
        try:
            metadata = json.loads(given.get("customMetadata", "{}"))
        except ValueError:
            raise _Error(400, "customMetadata is no JSON.") from None
        for name, value in metadata.items():
            kinds = {"Number": (int, float), "Boolean": bool, "Text": str, "Date": str}
            if name not in self.fields or not isinstance(value, kinds[self.fields[name]]):  # type: ignore[arg-type]
                raise _Error(400, f"Invalid custom metadata: {name}.")
        return dict(metadata)

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._count:024x}"

    # --- Listing ------------------------------------------------------------------------------------------

    def _list(self, query: dict[str, str]) -> list[dict[str, Any]]:
        limit, skip = int(query.get("limit", 1000)), int(query.get("skip", 0))
        if not 1 <= limit <= 1000 or skip < 0:
            raise _Error(400, "Invalid limit or skip.")
        found = [file for file in self.files.values() if file.is_listed]
        if "path" in query:
            found = [file for file in found if file.folder.strip("/") == query["path"].strip("/")]
        if "searchQuery" in query:
            found = [file for file in found if _matches(file, query["searchQuery"])]
        elif "name" in query:
            found = [file for file in found if file.name == query["name"]]
        if query.get("sort") == "ASC_NAME":
            found.sort(key=lambda file: file.name)
        return [self._shown(file) for file in found[skip : skip + limit]]

    def _shown(self, file: File) -> dict[str, Any]:
        header = structure.header(file.content)
        return {
            "type": "file",
            "fileId": file.id,
            "name": file.name,
            "filePath": file.path,
            "size": len(file.content),
            "width": header.width,
            "height": header.height,
            "fileType": "image",
            "tags": file.tags or None,
            "url": f"https://ik.imagekit.io/demo{file.path}",
            "thumbnailUrl": f"https://ik.imagekit.io/demo/tr:n-ik_ml_thumbnail{file.path}",
            "customMetadata": file.metadata,
            "isPrivateFile": file.is_private,
        }

    def _file(self, file_id: str) -> File:
        for file in self.files.values():
            if file.id == file_id:
                return file
        raise _Error(404, "The requested file does not exist.")

    def _delete_many(self, ids: list[str]) -> Reply:
        gone = [file for file in self.files.values() if file.id in ids]
        for file in gone:
            del self.files[file.path]
        answer = {"successfullyDeletedFileIds": [file.id for file in gone]}
        return _answer(answer, 200 if len(gone) == len(ids) else 207)

    def _make_field(self, asked: dict[str, Any]) -> Reply:
        name, kind = asked["name"], asked["schema"]["type"]
        if name in self.fields or name in self.deleted_fields:
            raise _Error(400, "A custom metadata field of this name exists or existed.")
        self.fields[name] = kind
        return _answer({"id": name, "name": name, "label": asked["label"], "schema": {"type": kind}}, 201)

    # --- Delivery -----------------------------------------------------------------------------------------

    def _fetch(self, target: str, query: dict[str, str]) -> Reply:
        """Fetch a file at https://ik.imagekit.io/demo/…; transformations are not done."""
        file = self.files.get(unquote(urlsplit(target).path).removeprefix("/demo"))
        if file is None:
            raise _Error(404, "Not found.")
        if (file.is_private or self.needs_signature) and not self._is_signed(target, query):
            raise _Error(401, "The signature is wrong or has expired.")
        return 200, {"Content-Type": "image/jpeg"}, file.content

    def _is_signed(self, target: str, query: dict[str, str]) -> bool:
        ends = query.get("ik-t", "9999999999")
        signed = re.sub(r"[?&]ik-[ts]=[^&]*", "", target).removeprefix("/demo/")
        right = hmac.digest(self.key.encode(), (signed + ends).encode(), "sha1").hex()
        return hmac.compare_digest(query.get("ik-s", ""), right) and int(ends) > self.now


def _matches(file: File, query: str) -> bool:
    """The part of the query language that names are asked for with: `=` is exact, `:` the beginning."""
    for term in query.split(" AND "):
        match = re.fullmatch(r'name ?([=:]) ?"([^"]*)"', term)
        if not match:
            raise _Error(400, "Invalid searchQuery.")
        if not (file.name == match[2] if match[1] == "=" else file.name.startswith(match[2])):
            return False
    return True


def _answer(content: object, status: int = 200) -> Reply:
    return status, JSON, json.dumps(content).encode()
