"""Objects: bytes under names in a place that several machines reach. Two adapters: a folder, and S3.

A URL as fsspec writes it says which: `file:///mnt/share/models`, `s3://bucket/prefix`. Names have slashes, and begin
with none.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from modelyard_tracking.errors import Refused


@dataclass(frozen=True, slots=True)
class Stored:
    """One object, or an upload that was never finished."""

    name: str
    bytes: int
    modified_at: datetime
    upload: str = ""  # of an unfinished upload: what the store calls it


class Objects(Protocol):
    """Bytes under names.

    Every method raises Unavailable where the store does not answer in time or refuses the login; the text says which
    store, why, and what to do.
    """

    def put(self, name: str, source: Path) -> None:
        """Store a file; comes back once the store holds exactly its bytes. Nothing is seen under `name` before."""

    def holds(self, name: str, source: Path) -> bool:
        """Are the bytes of this file what lies under `name`?"""

    def get(self, name: str, target: Path, limit: int) -> str:
        """Write an object to a file, in no more than `limit` bytes; gives their sha256.

        Raises:
            NotFound: there is no such object.
            Refused: it is larger.
        """

    def find(self, name: str) -> Stored | None:
        """What lies under `name`."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """Everything whose name begins with `prefix`."""

    def remove(self, name: str) -> None:
        """Remove an object; nothing is done if there is none."""

    def unfinished(self) -> Iterator[Stored]:
        """Uploads that were begun and not ended; they are no objects, but cost room."""

    def abort(self, upload: Stored) -> None:
        """Remove an unfinished upload."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shared store is and how to log in; travels with a run to its workers, and is never printed whole.

    What is left empty, boto3 looks for on each machine as it always does: AWS_* variables, ~/.aws, the machine's role.
    """

    url: str
    endpoint: str = ""  # of an S3 that is not Amazon's
    region: str = ""
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password:
            raise Refused(
                "The URL of the shared store holds a login. Give it by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        well = (parts.scheme == "s3" and parts.netloc) or (
            parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/")
        )
        if not well or parts.query or parts.fragment:
            raise Refused(
                f"{self.url!r} is no shared store. Write file:///a/folder or s3://BUCKET/PREFIX in artifacts_url."
            )

    def __str__(self) -> str:
        return f"{self.url} at {self.endpoint}" if self.endpoint else self.url

    def open(self) -> Objects:
        """The objects at this address. Nothing is asked of it yet.

        Raises:
            Unavailable: the library for it is not installed.
        """
        return _opened(self, os.getpid())  # a connection must not be shared with a forked child


@lru_cache(maxsize=8)
def _opened(address: Address, pid: int) -> Objects:  # noqa: ARG001 - part of the cache's key
    parts = urlsplit(address.url)
    if parts.scheme == "file":
        from modelyard_tracking.storing.folder import FolderObjects

        return FolderObjects(Path(unquote(parts.path)))
    from modelyard_tracking.storing.s3 import S3Objects

    return S3Objects(address, parts.netloc, parts.path.strip("/"))
