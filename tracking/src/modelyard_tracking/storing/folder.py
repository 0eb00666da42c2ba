"""Objects in a folder that machines share, such as NFS."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from modelyard_tracking.digests import file_sha256
from modelyard_tracking.errors import NotFound, Refused, TrackingError, Unavailable
from modelyard_tracking.storing.disk import INCOMING, move_in, scratch
from modelyard_tracking.storing.objects import Stored

_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class FolderObjects:
    """See `Objects`. The folder must be there: what is not mounted is not replaced by an empty folder."""

    root: Path

    def put(self, name: str, source: Path) -> None:
        with self._answers(), scratch(self.root) as made:
            shutil.copyfile(source, made)
            if file_sha256(made) != file_sha256(source):
                raise Unavailable(f"{self.root} does not keep what is written to it: {name} came back changed.")
            move_in(made, self._place(name))

    def holds(self, name: str, source: Path) -> bool:
        with self._answers():
            place = self._place(name)
            return (
                place.is_file()
                and place.stat().st_size == source.stat().st_size
                and file_sha256(place) == file_sha256(source)
            )

    def get(self, name: str, target: Path, limit: int) -> str:
        digest, left = hashlib.sha256(), limit
        with self._answers():
            place = self._place(name)
            if not place.is_file():
                raise NotFound(f"There is no {name} in {self.root}.")
            with place.open("rb") as file, target.open("wb") as out:
                while block := file.read(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise Refused(f"{place} is larger than the {limit} bytes it may have. It was not used.")
                    digest.update(block)
                    out.write(block)
        return digest.hexdigest()

    def find(self, name: str) -> Stored | None:
        with self._answers():
            place = self._place(name)
            return _stored(name, place) if place.is_file() else None

    def list(self, prefix: str) -> Iterator[Stored]:
        with self._answers():
            below = self.root / prefix.rpartition("/")[0]
            for path in sorted(below.rglob("*")) if below.is_dir() else ():
                name = path.relative_to(self.root).as_posix()
                if name.startswith(prefix) and not name.startswith(f"{INCOMING}/") and not path.is_dir():
                    yield _stored(name, path)

    def remove(self, name: str) -> None:
        with self._answers():
            place = self.root / name
            place.unlink(missing_ok=True)
            for folder in place.parents:
                if folder == self.root or any(folder.iterdir()):
                    break
                folder.rmdir()

    def unfinished(self) -> Iterator[Stored]:
        with self._answers():
            for path in sorted((self.root / INCOMING).glob("*")):
                if path.is_file():
                    yield _stored(f"{INCOMING}/{path.name}", path, upload=path.name)

    def abort(self, upload: Stored) -> None:
        with self._answers():
            (self.root / INCOMING / upload.upload).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        place = self.root / name
        if any(path.is_symlink() for path in (place, *place.parents)[: len(PurePosixPath(name).parts)]):
            raise Refused(f"{place} is, or lies behind, a link; the store holds plain files. It was not used.")
        return place

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            if not self.root.is_dir():
                raise Unavailable(
                    f"The shared store {self.root} is not there.\n"
                    f"Mount it, or make the folder once:  mkdir -p {self.root}"
                )
            yield
        except TrackingError:
            raise
        except OSError as error:
            raise Unavailable(
                f"The shared store {self.root} does not answer: {error.strerror or error}.\nLook closer:  yard doctor"
            ) from error


def _stored(name: str, path: Path, upload: str = "") -> Stored:
    status = path.lstat()
    return Stored(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), upload)
