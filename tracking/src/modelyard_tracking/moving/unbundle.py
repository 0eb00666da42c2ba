"""Unbundle: bring the runs of a bundle into this database and store.

Everything is checked before anything is written. Each run's document is written last, so that an import that was cut
off is simply done again; ids of files and metrics follow from their content and run, so that nothing is there twice.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gridfs
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from modelyard_tracking.digests import text_sha256
from modelyard_tracking.errors import NotFound
from modelyard_tracking.moving.archive import unpack_archive
from modelyard_tracking.moving.bundle import FORMAT, PLAIN, Document, Say, metric_id, uuid_of
from modelyard_tracking.moving.bundled import BundledRun, read_bundle
from modelyard_tracking.recording.plain import plain_key
from modelyard_tracking.recording.upload import prepare, take_id
from modelyard_tracking.store import ArtifactStore, Home


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run of the bundle and what it is here."""

    uuid: str
    was: Any  # its number at home
    id: int  # its number here
    new: bool  # False: it was here already


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a bundle."""

    digest: str
    runs: tuple[ImportedRun, ...]


def import_runs(home: Home, file: Path, say: Say = lambda _: None) -> Imported:
    """Import the runs of a bundle, but for those that are here already.

    Raises:
        NotFound: there is no such file.
        Refused: the bundle is damaged or was changed; nothing was imported.
    """
    if not file.is_file():
        raise NotFound(f"There is no file {file}.")
    incoming = home.artifacts / "incoming"  # on the store's own disk
    incoming.mkdir(parents=True, exist_ok=True)
    with home.connected() as db, tempfile.TemporaryDirectory(dir=incoming) as scratch:
        archive = unpack_archive(
            file, FORMAT, Path(scratch), lambda done, total: say(f"checking file {done} of {total}")
        )
        entries = sorted(
            read_bundle(archive, file), key=lambda entry: (str(entry.run.get("start_time") or ""), entry.uuid)
        )
        for number, entry in enumerate(entries, 1):
            say(f"checking run {number} of {len(entries)}")
            entry.check()
        prepare(db)
        runs = []
        for number, entry in enumerate(entries, 1):
            say(f"importing run {number} of {len(entries)}")
            runs.append(_bring(db, home.files, entry, archive.digest))
    return Imported(archive.digest, tuple(sorted(runs, key=lambda run: run.id)))


def _bring(db: "Database[Document]", files: ArtifactStore, entry: BundledRun, bundle: str) -> ImportedRun:
    here = _here(db, entry)
    if here is not None:
        return ImportedRun(entry.uuid, entry.run_id, here, new=False)
    for need in entry.needs:
        _keep(files, entry, need)
    fs = gridfs.GridFS(db)
    for file in (*(source for _, source in entry.sources), *entry.resources):
        _once(db, fs, entry, file)
    while True:
        run_id = take_id(db)
        artifacts = [_artifact(db, fs, entry, number, run_id) for number in range(len(entry.artifacts))]
        summaries: dict[str, Document] = {}
        for metric in entry.metrics():
            key = metric_id(entry.uuid, metric["name"])
            db.metrics.replace_one({"_id": key}, {"_id": key, "run_id": run_id, **metric}, upsert=True)
            summaries[plain_key(metric["name"])] = _summary(metric)
        sources = [[name, _once(db, fs, entry, source)] for name, source in entry.sources]
        info = {**entry.info}
        ours = dict(info.get("modelyard") or {"uuid": entry.uuid, "metrics": summaries})
        info["modelyard"] = {
            **ours,
            "imported": {"id": entry.run_id, "bundle": bundle, "sweep": info.pop("sweep", None)},
        }
        experiment = {**entry.run["experiment"], "sources": sources}
        document = {**entry.run, "_id": run_id, "experiment": experiment, "artifacts": artifacts, "info": info}
        try:
            db.runs.insert_one(document)
        except DuplicateKeyError:  # plain Sacred took the number, or somebody else imports the same run
            if (here := _here(db, entry)) is not None:
                return ImportedRun(entry.uuid, entry.run_id, here, new=False)
            continue
        return ImportedRun(entry.uuid, entry.run_id, run_id, new=True)


def _here(db: "Database[Document]", entry: BundledRun) -> int | None:
    """The number that the run has in this database. A plain Sacred run knows no uuid at home, but can be recognised."""
    found = db.runs.find_one({"info.modelyard.uuid": entry.uuid}, {"_id": 1})
    if found is not None:
        return int(found["_id"])
    if entry.uuid.startswith(PLAIN):
        alike = {"start_time": entry.run.get("start_time"), "info.modelyard.uuid": {"$exists": False}}
        for document in db.runs.find(alike):
            if uuid_of(document) == entry.uuid:
                return int(document["_id"])
    return None


def _keep(files: ArtifactStore, entry: BundledRun, need: Mapping[str, Any]) -> None:
    """Put one thing into the store, unless it is there."""
    digest = need["sha256"]
    if need["kind"] != "model":
        files.keep_copy(need["kind"], entry.blob(need["blob"]), digest)
    elif not files.path("model", digest).is_dir():
        with files.new_model() as folder:
            for name, blob in entry.model_files(digest):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(blob, folder / name)  # several names of one content cost its bytes once
            if (found := files.keep_model(folder)) != digest:
                raise entry.wrong(f"the model {digest[:12]} of the run {entry.uuid} became {found[:12]}")


def _artifact(db: "Database[Document]", fs: gridfs.GridFS, entry: BundledRun, number: int, run_id: int) -> Document:
    artifact = entry.artifacts[number]
    key = f"{entry.uuid}\0{artifact['name']}\0{artifact['sha256']}\0{number}"
    file_id = ObjectId(text_sha256(key.encode())[:24])
    name = f"artifact://runs/{run_id}/{artifact['name']}"
    options = {"metadata": artifact.get("metadata"), "content_type": artifact.get("content_type")}
    _put(db, fs, entry, file_id, artifact["sha256"], filename=name, **options)
    db.fs.files.update_one(
        {"_id": file_id}, {"$set": {"filename": name}}
    )  # an import that was cut off had another number
    return {"name": artifact["name"], "file_id": file_id}


def _once(db: "Database[Document]", fs: gridfs.GridFS, entry: BundledRun, file: Mapping[str, Any]) -> ObjectId:
    """Store a source or resource, unless the same file with the same content is there."""
    name, digest = file["filename"], file["sha256"]
    found = fs.find_one({"filename": name, "sha256": digest})
    if found is not None:
        return ObjectId(found._id)
    file_id = ObjectId(text_sha256(f"{name}\0{digest}".encode())[:24])
    _put(db, fs, entry, file_id, digest, filename=name)
    return file_id


def _put(
    db: "Database[Document]", fs: gridfs.GridFS, entry: BundledRun, file_id: ObjectId, digest: str, **options: Any
) -> None:
    if not fs.exists(file_id):
        db.fs.chunks.delete_many({"files_id": file_id})  # of an import that was cut off
        with entry.blob(digest).open("rb") as content:
            fs.put(content, _id=file_id, sha256=digest, **options)


def _summary(metric: Document) -> Document:
    """What our own runs say of a metric, for a plain Sacred run."""
    values = metric.get("values") or []
    numbers = [value for value in values if isinstance(value, int | float) and value == value]
    return {
        "name": metric["name"],
        "last": values[-1] if values else None,
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
        "points": len(values),
    }
