"""Where tracking keeps things: a MongoDB database and a folder of files named by their digest."""

import functools
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from modelyard_tracking.digests import check_folder, file_sha256, frame_sha256, text_sha256, write_index
from modelyard_tracking.errors import NotFound, Refused, TrackingError, Unavailable
from modelyard_tracking.recording.redaction import masked
from modelyard_tracking.storing.disk import move_in, scratch
from modelyard_tracking.storing.frames import read_frame
from modelyard_tracking.storing.names import Kind, name_of
from modelyard_tracking.storing.objects import Address
from modelyard_tracking.storing.share import OWNERS, Share

if TYPE_CHECKING:
    import pandas as pd

MAX_KEPT_BYTES = 2**30  # of one file of data; a larger one is recorded by its digest and its path
PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Home:
    """The addresses a run needs; small and picklable, so that it travels to Ray's workers."""

    mongo_url: str = field(repr=False)  # may hold a password
    database: str
    artifacts: Path
    spool_root: Path  # on this machine; runs are written here first
    shared: Address | None = None  # of a store that several machines use; what is kept here is brought there

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
        return LastingHome(self.mongo_url, self.database, self.artifacts, self.spool_root, self.shared)

    @property
    def files(self) -> "ArtifactStore":
        return ArtifactStore(self.artifacts, Share(self.shared) if self.shared else None, self.spool.name)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with every secret: for a pipe or a pickle, never for a page or a log."""
        return {**asdict(self), "artifacts": str(self.artifacts), "spool_root": str(self.spool_root)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        shared = Address(**values["shared"]) if values.get("shared") else None
        places = {name: Path(values[name]) for name in ("artifacts", "spool_root")}
        return cls(values["mongo_url"], values["database"], **places, shared=shared)


@dataclass(frozen=True, slots=True)
class Pending:
    """Something that is kept here and not yet known to be in the shared store."""

    kind: Kind
    digest: str
    problem: str  # of the last try; empty before it


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
    """Files by digest, on this disk. What is in the store never changes and is complete.

    With a share, what is kept is marked in `pending/`, and the uploader brings it there; what is asked for and is not
    here is fetched from there, checked, and stays.
    """

    root: Path
    share: Share | None = None
    owner: str = ""  # the database whose runs refer to what is kept; see `yard gc`

    @contextmanager
    def new_model(self) -> Iterator[Path]:
        """A scratch folder on the store's own disk; gone afterwards unless it was moved in by `keep_model`."""
        with scratch(self.root) as folder:
            folder.mkdir()
            yield folder

    def keep_model(self, made: Path) -> str:
        """Index the folder and move it to its digest; gives the digest."""
        digest = write_index(made)
        place = self.path("model", digest)
        if not move_in(made, place):
            check_folder(place, digest)  # the same model was kept before
        self._kept("model", digest)
        return digest

    def keep_frame(self, frame: "pd.DataFrame") -> str:
        """Store a data frame as parquet under its digest; gives the digest."""
        digest = frame_sha256(frame)
        place = self.path("frame", digest)
        if not place.exists():
            with scratch(self.root) as made:
                frame.reset_index(drop=True).to_parquet(made)
                move_in(made, place)
        self._kept("frame", digest)
        return digest

    def keep_lock(self, lock: Path) -> str:
        """Store a copy of a lock under its sha256; gives the sha256."""
        return self.keep_copy("lock", lock)

    def keep_file(self, path: Path) -> str:
        """The sha256 of a file of data; a copy is stored under it, unless the file is very large."""
        return self.keep_copy("file", path) if path.stat().st_size <= MAX_KEPT_BYTES else file_sha256(path)

    def keep_copy(self, kind: Kind, source: Path, digest: str | None = None) -> str:
        """Store a copy of a file; gives the digest.

        Args:
            digest: of a frame's parquet file, whose sha256 it is not.

        Raises:
            Refused: the file is being written to.
        """
        sha256 = file_sha256(source)
        digest = digest or sha256
        place = self.path(kind, digest)
        if not place.exists():
            with scratch(self.root) as made:
                shutil.copyfile(source, made)
                if file_sha256(made) != sha256:
                    raise Refused(f"{source} changes while it is read. Wait until it is written, then train again.")
                move_in(made, place)
        self._kept(kind, digest)
        return digest

    def place_of(self, kind: Kind, digest: str) -> str:
        """Where others find it: its address in the shared store, if there is one, else its path here."""
        here = self.path(kind, digest)
        return f"{self.share.address.url.rstrip('/')}/{here.relative_to(self.root)}" if self.share else str(here)

    def path(self, kind: Kind, digest: str) -> Path:
        """The place of a thing on this disk, whether it is there or not.

        Raises:
            Refused: what should be a digest could lead to another place.
        """
        return self.root / name_of(kind, digest)

    def model(self, digest: str) -> Path:
        """The folder of a model, fetched from the shared store where it is not here; it may be nowhere.

        Raises:
            Refused: what the shared store has is something else.
            Unavailable: the model is not here, and the shared store does not answer.
        """
        return self._have("model", digest)

    def lock(self, digest: str) -> Path:
        """The place of a lock; see `model`."""
        return self._have("lock", digest)

    def data_file(self, digest: str) -> Path:
        """The place of a file of data; see `model`."""
        return self._have("file", digest)

    def frame_file(self, digest: str) -> Path:
        """The place of a data frame's parquet file; see `model`."""
        return self._have("frame", digest)

    def frame(self, digest: str) -> "pd.DataFrame":
        """The data frame with this digest, checked.

        Raises:
            NotFound: it was not stored, or is gone.
            Refused: the file holds other data.
        """
        path = self.frame_file(digest)
        if not path.is_file():
            raise NotFound(f"The data set {digest[:12]} is not in {path.parent}.")
        return read_frame(path, digest)

    def check_data(self, digest: str) -> str:
        """How much there is of a data set, a frame or a file, once its digest was checked.

        Raises:
            NotFound: it was not stored, or is gone.
            Refused: what is stored is something else.
        """
        kind = self._data_kind(digest)
        if kind is None:
            raise NotFound(f"The data set {digest[:12]} is not in {self.root / 'data'}.")
        if kind == "frame":
            frame = self.frame(digest)
            return f"{len(frame)} rows, {len(frame.columns)} columns"
        file = self.data_file(digest)
        _check_file(file, digest)
        return f"{file.stat().st_size} bytes"

    def ensure_kept(self, model: str, data: Iterable[str], lock: str) -> None:
        """Stop unless these files are here, whole, and, with a share, also there.

        Raises:
            NotFound: something is neither here nor there.
            Refused: something is not what its digest was taken of.
            Unavailable: the shared store does not answer.
        """
        things: list[tuple[Kind, str]] = [("model", model), ("lock", lock)]
        check_folder(self.model(model), model)
        place = self.lock(lock)
        if not place.is_file():
            raise NotFound(f"The lock {lock[:12]} is not in {place.parent}. {_ELSEWHERE}")
        _check_file(place, lock)
        for digest in data:
            kind = self._data_kind(digest)
            if kind is None:
                raise NotFound(f"The data set {digest[:12]} is not in {self.root / 'data'}. {_ELSEWHERE}")
            self.check_data(digest)
            things.append((kind, digest))
        if self.share is not None:
            self._own()
            for kind, digest in things:
                self.share.put(kind, digest, self.path(kind, digest))
                self._marker(kind, digest).unlink(missing_ok=True)

    def pending(self) -> list[Pending]:
        """What waits for the shared store; the oldest first."""
        found = []
        for marker in (self.root / PENDING).glob("*-*"):
            kind, _, digest = marker.name.partition("-")
            with suppress(OSError):
                if kind in get_args(Kind):
                    found.append((marker.stat().st_mtime, Pending(kind, digest, marker.read_text())))  # type: ignore[arg-type]
        return [waiting for _, waiting in sorted(found, key=lambda pair: pair[0])]

    def bring(self, waiting: Pending) -> None:
        """Bring something to the shared store. What went wrong is also written to its mark.

        Raises:
            Refused: it is not what it is named for.
            Unavailable: the shared store does not answer.
        """
        marker, place = self._marker(waiting.kind, waiting.digest), self.path(waiting.kind, waiting.digest)
        if self.share is None:
            return
        try:
            if place.exists():
                self._own()
                self.share.put(waiting.kind, waiting.digest, place)
        except TrackingError as error:
            with suppress(OSError):
                marker.write_text(str(error))
            raise
        marker.unlink(missing_ok=True)

    def wait_until_shared(self, digests: Iterable[str], patience_s: float) -> str:
        """Wait until none of these waits any more, as long as nothing goes wrong; gives what did, or nothing."""
        wanted, ends = set(digests), time.monotonic() + patience_s
        while waiting := [entry for entry in self.pending() if entry.digest in wanted]:
            problem = next((entry.problem for entry in waiting if entry.problem), "")
            if problem or time.monotonic() > ends:
                return problem or f"{len(waiting)} things are still on their way to the shared store."
            time.sleep(0.05)
        return ""

    def _have(self, kind: Kind, digest: str) -> Path:
        place = self.path(kind, digest)
        if self.share is not None and not place.exists():
            self.share.fetch(kind, digest, place, self.root)
        return place

    def _own(self) -> None:
        if self.share is not None and self.owner:
            self.share.own(self.owner, self.root)

    def _data_kind(self, digest: str) -> Kind | None:
        kinds: tuple[Kind, ...] = ("file", "frame")
        here = next((kind for kind in kinds if self.path(kind, digest).is_file()), None)
        return here or next((kind for kind in kinds if self._have(kind, digest).is_file()), None)

    def _kept(self, kind: Kind, digest: str) -> None:
        os.utime(self.path(kind, digest))  # what is kept again is young again; see `yard gc`
        if self.owner and not (owner := self.root / OWNERS / self.owner).exists():
            owner.parent.mkdir(exist_ok=True)
            owner.touch()
        if self.share is not None:
            marker = self._marker(kind, digest)
            marker.parent.mkdir(exist_ok=True)
            marker.write_text("")

    def _marker(self, kind: Kind, digest: str) -> Path:
        return self.root / PENDING / f"{kind}-{digest}"


_ELSEWHERE = "If it was made on another machine, bring it from there:  yard runs push"


def _check_file(file: Path, digest: str) -> None:
    if file_sha256(file) != digest:
        raise Refused(f"{file} does not hold the data it is named for; its own digest is {file_sha256(file)[:12]}.")
