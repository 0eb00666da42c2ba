"""A run inside a bundle: read, and checked before anything of it is used. The bundle may be anybody's."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from modelyard_tracking.digests import INDEX, frame_sha256
from modelyard_tracking.errors import Refused
from modelyard_tracking.moving.archive import Archive
from modelyard_tracking.moving.bundle import UUID, Document, from_json, uuid_of

_SHA256 = re.compile(r"[0-9a-f]{64}")
_METRIC_FIELDS = {"name", "steps", "values", "timestamps", "part_of", "part"}


class BundledRun:
    """One run of a bundle."""

    def __init__(self, uuid: str, file: Path, members: Mapping[str, Path]) -> None:
        self.uuid = uuid
        self._file = file
        self._members = members
        read = self._json(f"runs/{uuid}.json")
        try:
            self.run: Document = read["run"]
            self.resources: list[Document] = read["resources"]
            self.needs: list[Document] = read["store"]
            self.artifacts: list[Document] = self.run["artifacts"]
            self.sources: list[list[Any]] = self.run["experiment"]["sources"]
            self.info: Document = self.run["info"]
            self.run_id = self.run["_id"]
            self.status: str = self.run["status"]
        except (KeyError, TypeError) as error:
            raise self.wrong(f"the run {uuid} lacks {error}") from error

    def wrong(self, why: str) -> Refused:
        return Refused(f"{self._file} cannot be imported: {why}. Nothing was imported.")

    def blob(self, digest: str) -> Path:
        try:
            return self._members[f"blobs/{digest}"]
        except KeyError as error:
            raise self.wrong(f"the file {str(digest)[:12]} of the run {self.uuid} is not in it") from error

    def metrics(self) -> Iterator[Document]:
        with self._members[f"metrics/{self.uuid}.jsonl"].open("rb") as lines:
            for line in lines:
                document = self._parsed(line, "metrics")
                if not isinstance(document, dict) or not {"name", "steps"} <= document.keys() <= _METRIC_FIELDS:
                    raise self.wrong(f"a metric of the run {self.uuid} is none")
                yield document

    def model_files(self, digest: str) -> Iterator[tuple[str, Path]]:
        """The files of a model by name; names that lead anywhere else are refused."""
        seen = {"", INDEX}
        for line in self.blob(digest).read_text(errors="replace").splitlines():
            sha256, _, name = line.partition("  ")
            path = PurePosixPath(name)
            if name in seen or path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name:
                raise self.wrong(f"a model of the run {self.uuid} has a file named {name!r}")
            seen.add(name)
            yield name, self.blob(sha256)

    def check(self) -> None:
        """Stop unless the run is whole and everything in it is what it is called."""
        try:
            self._check()
        except (KeyError, TypeError, AttributeError) as error:
            raise self.wrong(f"the run {self.uuid} has a form that nobody knows ({error!r})") from error

    def _check(self) -> None:
        if f"metrics/{self.uuid}.jsonl" not in self._members:
            raise self.wrong(f"the metrics of the run {self.uuid} are not in it")
        if uuid_of(self.run) != self.uuid:
            raise self.wrong(f"the run {self.uuid} is another one than it is called")
        if self.status == "RUNNING":
            raise self.wrong(f"the run {self.uuid} had not ended")
        for _ in self.metrics():
            pass
        for file in (*self.artifacts, *(source for _, source in self.sources), *self.resources):
            self.blob(file["sha256"])
        for need in self.needs:
            kind, digest = need["kind"], need["sha256"]
            if not _SHA256.fullmatch(digest):
                raise self.wrong(f"{digest!r} is no digest")
            if kind == "model":
                for _ in self.model_files(digest):
                    pass
            elif kind == "frame":
                _frame(self, need)
            elif kind not in ("file", "lock") or need["blob"] != digest:
                raise self.wrong(f"the {kind} {digest[:12]} of the run {self.uuid} is another one than it is called")

    def _json(self, name: str) -> Any:
        return self._parsed(self._members[name].read_bytes(), name)

    def _parsed(self, text: bytes, name: str) -> Any:
        try:
            return from_json(text)
        except (ValueError, TypeError, KeyError) as error:
            raise self.wrong(f"{name} cannot be read") from error


def read_bundle(archive: Archive, file: Path) -> Iterator[BundledRun]:
    """The runs of an unpacked bundle, not yet checked."""
    for name in archive.members:
        folder, _, rest = name.partition("/")
        uuid = rest.removesuffix(".json")
        if folder == "runs" and name == f"runs/{uuid}.json" and UUID.fullmatch(uuid):
            yield BundledRun(uuid, file, archive.members)
        elif folder not in ("metrics", "blobs") or (folder == "blobs" and archive.sha256[name] != rest):
            raise Refused(f"{file} cannot be imported: nobody knows what {name!r} is. Nothing was imported.")


def _frame(entry: BundledRun, need: Mapping[str, Any]) -> None:
    import pandas as pd

    try:
        frame = pd.read_parquet(entry.blob(need["blob"]))
    except (OSError, ValueError) as error:
        raise entry.wrong(f"the data {need['sha256'][:12]} of the run {entry.uuid} is no parquet") from error
    if frame_sha256(frame) != need["sha256"]:
        raise entry.wrong(f"the data {need['sha256'][:12]} of the run {entry.uuid} is other data than it is called")
