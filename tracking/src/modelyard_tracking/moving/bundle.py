"""Bundle: runs in one file, with everything they refer to, on their way to another database.

    index.json              see `archive`; its sha256 is the bundle's digest
    runs/UUID.json          the run's document in Extended JSON, its files named by sha256; what it needs of the store
    metrics/UUID.jsonl      its metrics, one document a line
    blobs/SHA256            artifacts, sources, resources; data, locks and models of the store

Nothing in it depends on the database that it was made from: a run that was imported is exported as it was at home, with
its first number and its sweep. So the same runs are the same bytes, from wherever they are exported.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gridfs
from bson import ObjectId, json_util
from pymongo.database import Database

from modelyard_tracking.digests import INDEX, check_folder, file_sha256, text_sha256
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.moving.archive import write_archive
from modelyard_tracking.store import ArtifactStore, Home

FORMAT = "modelyard runs 1"
PLAIN = "plain-"  # the uuid of a plain Sacred run begins with this: it has none at home, and gets one from its content
UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")

Document = dict[str, Any]
Say = Callable[[str], object]

_CANONICAL = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, tz_aware=True)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    file: Path
    digest: str
    runs: tuple[int, ...]
    bytes: int
    missing: tuple[str, ...]  # what the runs refer to and the store does not have


def export_runs(home: Home, run_ids: Sequence[int], file: Path, say: Say = lambda _: None) -> Exported:
    """Write runs to a bundle.

    Raises:
        NotFound: there is no such run, or a file of it is gone from the database.
        Refused: a run has not ended, or a file in the store is not what it is named for.
    """
    ids = tuple(dict.fromkeys(run_ids))
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside the bundle, since it is as large.
    with home.connected() as db, tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as scratch:
        packing = _Packing(db, home.files, Path(scratch))
        documents = [_ended(db, run_id) for run_id in ids]
        for number, document in enumerate(documents, 1):
            say(f"reading run {document['_id']} ({number} of {len(ids)})")
            packing.add(document)
        digest = write_archive(
            file, FORMAT, packing.members, lambda done, total: say(f"writing file {done} of {total}")
        )
    return Exported(file, digest, ids, file.stat().st_size, tuple(packing.missing))


def uuid_of(document: Mapping[str, Any]) -> str:
    """A run's own name in every database; that of a plain Sacred run follows from what makes it this run."""
    uuid = ((document.get("info") or {}).get("modelyard") or {}).get("uuid")
    if uuid:
        return str(uuid)
    experiment = document.get("experiment") or {}
    identity = {
        "experiment": [experiment.get(key) for key in ("name", "base_dir", "mainfile")],
        **{key: document.get(key) for key in ("command", "config", "host", "start_time")},
    }
    return PLAIN + text_sha256(to_json(identity, sort_keys=True).encode())[:32]


def metric_id(uuid: str, name: str) -> ObjectId:
    """The `_id` of a metric's document, the same one that `upload` gives it."""
    return ObjectId(text_sha256(f"{uuid}\0{name}".encode())[:24])


def to_json(document: Any, *, sort_keys: bool = False) -> str:
    """Extended JSON that keeps every type."""
    return json_util.dumps(document, json_options=_CANONICAL, sort_keys=sort_keys)


def from_json(text: str | bytes) -> Any:
    return json_util.loads(text, json_options=_CANONICAL)


def _ended(db: "Database[Document]", run_id: int) -> Document:
    document = db.runs.find_one({"_id": run_id})
    if document is None:
        raise NotFound(f"There is no run {run_id}. See which there are:  yard runs")
    if document.get("status") == "RUNNING":
        raise Refused(f"Run {run_id} still runs. Export it when it has ended:  yard show {run_id} --follow")
    return document


class _Packing:
    """Collects the members of a bundle; what lies in the database is copied to `scratch`."""

    def __init__(self, db: "Database[Document]", files: ArtifactStore, scratch: Path) -> None:
        self.members: dict[str, Path] = {}
        self.missing: list[str] = []
        self._db = db
        self._fs = gridfs.GridFS(db)
        self._files = files
        self._scratch = scratch
        self._copied: dict[Any, str] = {}  # id of a file in GridFS -> sha256

    def add(self, document: Document) -> None:
        uuid, run_id = uuid_of(document), document["_id"]
        if not UUID.fullmatch(uuid):
            raise Refused(f"Run {run_id} has the name {uuid!r}, which cannot be the name of a file.")
        needs = list(self._needs(document, run_id))
        resources = list(self._resources(document))
        run = self._at_home(document, uuid)
        self._write(f"runs/{uuid}.json", [to_json({"run": run, "resources": resources, "store": needs})])
        self._write(f"metrics/{uuid}.jsonl", self._metrics(run_id))

    def _at_home(self, document: Document, uuid: str) -> Document:
        """The document as it was before any import, its files named by sha256."""
        info = dict(document.get("info") or {})
        ours = dict(info.get("modelyard") or {})
        imported = ours.pop("imported", None) or {"id": document["_id"], "sweep": info.get("sweep")}
        info |= {"modelyard": dict(sorted(ours.items())), "sweep": imported["sweep"]}
        if uuid.startswith(PLAIN):
            del info["modelyard"]
        if imported["sweep"] is None:
            del info["sweep"]
        if "metrics" in info:
            names = [entry["name"] for entry in info["metrics"]]
            info["metrics"] = [{"name": name, "id": str(metric_id(uuid, name))} for name in names]
        experiment = document.get("experiment") or {}
        sources = [[name, self._source(file_id)] for name, file_id in experiment.get("sources") or ()]
        return {
            **document,
            "_id": imported["id"],
            "experiment": {**experiment, "sources": sources},
            "artifacts": [self._artifact(entry) for entry in document.get("artifacts") or ()],
            "info": dict(sorted(info.items())),
        }

    def _artifact(self, entry: Mapping[str, Any]) -> Document:
        file = self._open(entry["file_id"])
        facts = file._file or {}
        return {
            "name": entry["name"],
            "sha256": self._copy(file),
            "metadata": facts.get("metadata"),
            "content_type": facts.get("contentType"),
        }

    def _source(self, file_id: Any) -> Document:
        file = self._open(file_id)
        return {"filename": file.filename, "sha256": self._copy(file)}

    def _resources(self, document: Document) -> Iterator[Document]:
        """The content of resources, which the document names by path and md5 only."""
        for name, md5 in document.get("resources") or ():
            for found in self._db.fs.files.find({"filename": name, "sha256": {"$exists": True}}).sort("_id", 1):
                digest = self._copy(self._open(found["_id"]))
                if _md5(self.members[f"blobs/{digest}"]) == md5:
                    yield {"filename": name, "sha256": digest}
                    break

    def _needs(self, document: Document, run_id: int) -> Iterator[Document]:
        """What the run needs of the store, each added to the bundle."""
        ours = (document.get("info") or {}).get("modelyard") or {}
        for name, facts in (ours.get("datasets") or {}).items():
            digest = facts["sha256"]
            frame = "rows" in facts
            path = self._files.frame_file(digest) if frame else self._files.data_file(digest)
            if not path.is_file():
                self.missing.append(f"the data {name} ({digest[:12]}) of run {run_id}")
            elif frame:
                yield {"kind": "frame", "sha256": digest, "blob": self._blob(path)}
            else:
                yield {"kind": "file", "sha256": digest, "blob": self._blob(path, digest)}
        for name, facts in (ours.get("evaluations") or {}).items():
            if (path := self._files.frame_file(facts["sha256"])).is_file():
                yield {"kind": "frame", "sha256": facts["sha256"], "blob": self._blob(path)}
            else:
                self.missing.append(f"the evaluation {name} ({facts['sha256'][:12]}) of run {run_id}")
        if digest := ours.get("lock_sha256"):
            if (path := self._files.lock(digest)).is_file():
                yield {"kind": "lock", "sha256": digest, "blob": self._blob(path, digest)}
            else:
                self.missing.append(f"the lock ({digest[:12]}) of run {run_id}")
        if digest := (ours.get("model") or {}).get("sha256"):
            if (folder := self._files.model(digest)).is_dir():
                check_folder(folder, digest)
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        self._blob(path)
                yield {"kind": "model", "sha256": digest, "blob": self._blob(folder / INDEX, digest)}
            else:
                self.missing.append(f"the model ({digest[:12]}) of run {run_id}")

    def _metrics(self, run_id: int) -> Iterator[str]:
        # Sorted here and read one by one: MongoDB sorts no more than 100 MB in memory.
        found = self._db.metrics.find({"run_id": run_id}, {"name": 1})
        for _, metric in sorted((document["name"], document["_id"]) for document in found):
            document = self._db.metrics.find_one({"_id": metric}, {"_id": 0, "run_id": 0}) or {}
            yield to_json(dict(sorted(document.items())))

    def _write(self, name: str, lines: Iterator[str] | list[str]) -> None:
        path = self.members[name] = self._scratch / f"document-{len(self.members)}"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _blob(self, path: Path, expected: str | None = None) -> str:
        digest = file_sha256(path)
        if expected is not None and digest != expected:
            raise Refused(
                f"{path} does not hold what it is named for; its sha256 is {digest[:12]}. Nothing was exported."
            )
        self.members.setdefault(f"blobs/{digest}", path)
        return digest

    def _copy(self, file: gridfs.GridOut) -> str:
        if file._id in self._copied:
            return self._copied[file._id]
        path = self._scratch / f"file-{file._id}"
        with path.open("wb") as out:
            while block := file.read(2**20):
                out.write(block)
        digest = self._copied[file._id] = self._blob(path, (file._file or {}).get("sha256"))
        if self.members[f"blobs/{digest}"] != path:
            path.unlink()  # the same content is there already
        return digest

    def _open(self, file_id: Any) -> gridfs.GridOut:
        try:
            return self._fs.get(file_id)
        except gridfs.NoFile as error:
            raise NotFound(
                f"The file {file_id} of the run is gone from the database, so it cannot be exported."
            ) from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
