"""Where tracking keeps things: a MongoDB database and a folder of files named by their digest."""

import functools
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from modelyard_tracking.digests import check_folder, file_sha256, frame_sha256, text_sha256, write_index
from modelyard_tracking.errors import NotFound, Refused, Unavailable
from modelyard_tracking.recording.redaction import masked

if TYPE_CHECKING:
    import pandas as pd

MAX_KEPT_BYTES = 2**30  # of one file of data; a larger one is recorded by its digest and its path


@dataclass(frozen=True, slots=True)
class Home:
    """The addresses a run needs; small and picklable, so that it travels to Ray's workers."""

    mongo_url: str = field(repr=False)  # may hold a password
    database: str
    artifacts: Path
    spool_root: Path  # on this machine; runs are written here first

    @property
    def spool(self) -> Path:
        """Where runs wait that go to this database: each has a place of its own, so that none goes to another."""
        address = self.mongo_url.rpartition("@")[2]  # a new password is no new database
        return self.spool_root / f"{self.database}-{text_sha256(address.encode())[:8]}"

    def connect(self) -> "Database[dict[str, Any]]":
        """The database.

        Raises:
            Unavailable: it does not answer within three seconds.
        """
        client: MongoClient[dict[str, Any]] = MongoClient(
            self.mongo_url, serverSelectionTimeoutMS=3000, connectTimeoutMS=3000, socketTimeoutMS=60_000, tz_aware=True
        )
        try:
            client.admin.command("ping")
        except OperationFailure as error:
            client.close()
            why = (error.details or {}).get("errmsg", error)
            raise Unavailable(
                f"MongoDB at {masked(self.mongo_url)} refuses the login: {why}\n"
                f"Which address is used, and where it comes from:  yard config"
            ) from error
        except PyMongoError as error:
            client.close()
            raise Unavailable(
                f"MongoDB at {masked(self.mongo_url)} does not answer.\n"
                f"Start it:  yard up      Look closer:  yard doctor"
            ) from error
        return client[self.database]

    @contextmanager
    def connected(self) -> Iterator["Database[dict[str, Any]]"]:
        """The database for the length of a block; raises as `connect` does."""
        db = self.connect()
        try:
            yield db
        finally:
            db.client.close()

    def lasting(self) -> "LastingHome":
        """The same home for a process that records one run after the other: it connects once, and stays connected."""
        return LastingHome(self.mongo_url, self.database, self.artifacts, self.spool_root)

    @property
    def files(self) -> "ArtifactStore":
        return ArtifactStore(self.artifacts)


@dataclass(frozen=True, slots=True)
class LastingHome(Home):
    """A home whose database stays connected until the process ends."""

    @contextmanager
    def connected(self) -> Iterator["Database[dict[str, Any]]"]:
        yield _lasting_database(self)


@functools.cache
def _lasting_database(home: LastingHome) -> "Database[dict[str, Any]]":
    return home.connect()


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Files by digest. What is in the store never changes and is complete."""

    root: Path

    @contextmanager
    def new_model(self) -> Iterator[Path]:
        """A scratch folder on the store's own disk; gone afterwards unless it was moved in by `keep_model`."""
        scratch = self.root / "incoming" / secrets.token_hex(8)
        scratch.mkdir(parents=True)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def keep_model(self, scratch: Path) -> str:
        """Index the folder and move it to its digest; gives the digest."""
        digest = write_index(scratch)
        target = self.model(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            check_folder(target, digest)  # the same model was kept before
        return digest

    def model(self, digest: str) -> Path:
        return self.root / "models" / digest

    def keep_frame(self, frame: "pd.DataFrame") -> str:
        """Store a data frame as parquet under its digest; gives the digest."""
        digest = frame_sha256(frame)
        target = self.frame_file(digest)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_suffix(f".{secrets.token_hex(4)}")
            frame.reset_index(drop=True).to_parquet(temporary)
            temporary.replace(target)
        return digest

    def frame(self, digest: str) -> "pd.DataFrame":
        """The data frame with this digest, checked.

        Raises:
            NotFound: it was not stored, or is gone.
            Refused: the file holds other data.
        """
        import pandas as pd

        path = self.frame_file(digest)
        if not path.is_file():
            raise NotFound(f"The data set {digest[:12]} is not in {path.parent}.")
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise Refused(f"{path} cannot be read as parquet: {error}") from error
        if frame_sha256(frame) != digest:
            raise Refused(f"{path} does not hold the data it is named for; its own digest is {file_sha256(path)[:12]}.")
        return frame

    def keep_lock(self, lock: Path) -> str:
        """Store a copy of a lock under its sha256; gives the sha256."""
        digest = file_sha256(lock)
        _copy_in(lock, self.lock(digest))
        return digest

    def lock(self, digest: str) -> Path:
        return self.root / "locks" / f"{digest}.lock"

    def keep_file(self, path: Path) -> str:
        """The sha256 of a file of data; a copy is stored under it, unless the file is very large."""
        digest = file_sha256(path)
        if path.stat().st_size <= MAX_KEPT_BYTES:
            _copy_in(path, self.data_file(digest))
        return digest

    def check_data(self, digest: str) -> str:
        """How much there is of a data set, a frame or a file, once its digest was checked.

        Raises:
            NotFound: it was not stored, or is gone.
            Refused: what is stored is something else.
        """
        file = self.data_file(digest)
        if not file.is_file():
            frame = self.frame(digest)
            return f"{len(frame)} rows, {len(frame.columns)} columns"
        if file_sha256(file) != digest:
            raise Refused(f"{file} does not hold the data it is named for; its own digest is {file_sha256(file)[:12]}.")
        return f"{file.stat().st_size} bytes"

    def data_file(self, digest: str) -> Path:
        return self.root / "data" / f"{digest}.file"

    def frame_file(self, digest: str) -> Path:
        return self.root / "data" / f"{digest}.parquet"


def _copy_in(source: Path, target: Path) -> None:
    """Copy a file to its place in the store, in one step; nothing is done if it is there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{secrets.token_hex(4)}")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
