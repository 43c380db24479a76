"""The remote of rclone's config file: which place it is, and which of its checksums its server computed itself."""

import configparser
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trapsync.destinations import http_service
from trapsync.errors import Unauthorised, one_line

# The checksum to ask for, by kind of remote (`type`), and whether it proves that the bytes arrived: only where the
# other end computed it from the bytes that it holds. What rclone stores beside a file and reads back is no proof.
# Which there are: https://rclone.org/overview/#hash; who computes them:
HASHES: dict[str, tuple[str, bool]] = {
    "b2": ("sha1", True),  # an upload of another SHA-1 is refused: backblaze.com/apidocs/b2-upload-file
    "box": ("sha1", True),  # developer.box.com/reference/resources/file, "sha1"
    "drive": ("md5", True),  # developers.google.com/drive/api/reference/rest/v3/files, "md5Checksum"
    "dropbox": ("dropbox", True),  # dropbox.com/developers/reference/content-hash
    "google cloud storage": ("md5", True),  # cloud.google.com/storage/docs/data-validation
    "onedrive": ("quickxor", True),  # learn.microsoft.com/onedrive/developer/code-snippets/quickxorhash
    "pcloud": ("sha1", True),  # docs.pcloud.com/methods/file/checksumfile.html
    "s3": ("md5", True),  # the ETag of an upload in one part; not where it is encrypted by a key, see below
    "sftp": ("md5", True),  # md5sum, run in a shell at the other end: rclone.org/sftp/#checksum
    "swift": ("md5", True),  # the ETag of an object: docs.openstack.org/api-ref/object-store
    # The MD5 of blobs of several blocks, and of files at ownCloud and Nextcloud, is what the client said.
    "azureblob": ("md5", False),
    # "local" has none on purpose: such a folder could be the spool, whose own files would prove their copies, and a pipe in
    # it would be read for ever. The kind "directory" is for folders.
}
# With one of these keys rclone takes the MD5 from a note that it wrote itself: rclone.org/s3/#hashes
_NO_ETAG = {"server_side_encryption": "aws:kms", "sse_customer_algorithm": "", "directory_bucket": "true"}

# What says who may come in, and what rclone writes into the file by itself: another password, a new token or the shell
# that it found is no other place. Everything else is taken for one: that costs a question, the contrary could cost images.
_NOT_THE_PLACE = re.compile(
    r"pass|secret|token|credential|private|key|client_id|sas_url|expir|sum_command|shell_type|cookie|_2fa|session"
)
_NAMED = ("url", "endpoint", "provider", "account", "team_drive", "root_folder_id", "drive_id", "remote")
_ENCRYPTED = "RCLONE_ENCRYPT_V"
_LARGEST = 65536
_REFERENCE = re.compile(r"(?:^|[\s=\"])([\w.+@][\w .+@-]*):")


@dataclass(frozen=True, slots=True)
class Remote:
    """One section of the file: the kind of remote, the place that it is, and the checksum that counts there ("" is none)."""

    type: str
    place: str
    hash: str
    proves: bool


def read(file: Path, name: str, path: str, setting: str) -> Remote:
    """The remote of this name. Unauthorised, with what to do, where rclone could not use it, or others could read it."""
    text = http_service.secret(file, setting)
    if _ENCRYPTED in text:
        raise Unauthorised(
            f"{file} is encrypted, and nobody can type its password here: take the password off with: rclone config "
            f'("Set configuration password")'
        )
    parser = configparser.RawConfigParser(
        delimiters=("=",), strict=False, default_section="", allow_no_value=True, empty_lines_in_values=False
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise Unauthorised(f"{file} is no config file of rclone: {one_line(error.message)}") from None
    if not parser.has_section(name):
        known = ", ".join(one_line(one, 40) for one in parser.sections()[:8]) or "none"
        raise Unauthorised(f"{file} has no remote {name!r}; it has: {known}")
    keys = {key: value or "" for key, value in parser.items(name)}
    if "token" in keys:
        _require_writable(file)
    kind = keys.get("type", "")
    hash_name, proves = HASHES.get(kind, ("", False))
    if kind == "s3" and any(keys.get(key, "").startswith(value or "A") for key, value in _NO_ETAG.items()):
        proves = False
    digest = hashlib.sha256("\n".join(sorted(_telling(parser, name, set()))).encode()).hexdigest()[:12]
    words = [kind, _shown(keys), path, f"({digest})"]
    return Remote(kind, f"rclone {' '.join(word for word in words if word)}", hash_name, proves)


def _telling(parser: configparser.RawConfigParser, name: str, seen: set[str]) -> Iterator[str]:
    """The keys that say which place a remote is, and those of the remotes that it is made of."""
    seen.add(name)
    for key, value in parser.items(name):
        if not _NOT_THE_PLACE.search(key):
            yield f"{len(seen)} {key}={value}"
        for other in _REFERENCE.findall(value or ""):
            if parser.has_section(other) and other not in seen:
                yield from _telling(parser, other, seen)


def _shown(keys: dict[str, str]) -> str:
    """The server and the account, as a person knows them; without a login that stands in an address."""
    host = keys.get("host", "")
    whose = f"{keys['user']}@{host}" if host and keys.get("user") else host
    parts = [whose, *(keys.get(key, "") for key in _NAMED)]
    return one_line(" ".join(re.sub("//[^/@ ]*@", "//", part) for part in parts if part), 200)


def _require_writable(file: Path) -> None:
    """rclone writes a login that it renewed into its file: into a new one beside it, which takes its place."""
    if not (os.access(file, os.W_OK) and os.access(file.resolve().parent, os.W_OK)):
        raise Unauthorised(
            f"rclone renews its login in {file}, and may not write there: put it into a folder of the daemon's account, "
            f"such as /var/lib/trapsync/rclone"
        )
