"""The outcome of a run, read from the database and the store: what a second run of the same program is held to."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gridfs
import numpy as np
from bson import ObjectId

from modelyard_tracking.digests import check_folder
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.kinds import graph
from modelyard_tracking.origin import PATCH_ARTIFACT
from modelyard_tracking.recording.upload import OUTPUT_ARTIFACT
from modelyard_tracking.reproducing.deviation import Evaluated, Outcome
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.saving import Golden
from modelyard_tracking.store import ArtifactStore

# What was printed holds times and numbers of runs. The patch is the code's, and looked at as such.
_NOT_COMPARED = (PATCH_ARTIFACT, OUTPUT_ARTIFACT)


def read_outcome(store: RunStore, files: ArtifactStore, run: Run, *, model: bool = True) -> Outcome:
    """The outcome of a run that has ended.

    Args:
        model: look into its model, too.

    Raises:
        NotFound: a file of the run is gone from the database.
        Refused: the model's files are not those that the run saved.
    """
    recorded, raw = run.recorded, run.raw
    fs = gridfs.GridFS(store.db)
    host = raw.get("host") or {}
    folder = files.model(run.model_sha256) if model and run.model_sha256 else None
    if folder and run.model_sha256:
        check_folder(folder, run.model_sha256)
    return Outcome(
        id=run.id,
        status=run.status,
        failure=(run.fail_trace.strip().splitlines() or [""])[-1],
        data=recorded.get("datasets") or {},
        result=raw.get("result"),
        curves={name: (curve.steps, curve.values) for name, curve in sorted(store.curves(run.id).items())},
        golden=_golden(folder) if folder else {},
        weights=_weights(folder) if folder else None,
        evaluations={name: _evaluation(files, facts) for name, facts in (recorded.get("evaluations") or {}).items()},
        artifacts=tuple(
            (entry["name"], _sha256(fs, entry["file_id"]))
            for entry in raw.get("artifacts") or ()
            if entry["name"] not in _NOT_COMPARED
        ),
        sources={name: _sha256(fs, file_id) for name, file_id in raw["experiment"].get("sources") or ()},
        left_out=tuple(recorded.get("left_out") or ()),
        software=_software(run),
        machine={"CPU": str(host.get("cpu")), "OS": str((host.get("os") or ["?"])[-1]), "GPUs": _gpus(host)},
    )


def read_weights(file: Path) -> Any:
    """What a skops file says of a model, with its arrays, and without what changes at every saving.

    skops names arrays, and tells objects apart, by their address in memory.
    """
    with zipfile.ZipFile(file) as archive:
        schema = json.loads(archive.read("schema.json"))
        schema.pop("_skops_version", None)
        return _settled(schema, archive)


def _settled(node: Any, archive: zipfile.ZipFile) -> Any:
    if isinstance(node, list):
        return [_settled(item, archive) for item in node]
    if not isinstance(node, dict):
        return node
    settled = {}
    for key, value in node.items():
        if key == "__id__":
            continue
        if key == "file" and isinstance(value, str):
            settled[key] = _member(archive, value)
        elif key == "content" and node.get("is_json"):
            settled[key] = json.loads(value)
        else:
            settled[key] = _settled(value, archive)
    return settled


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    content = archive.read(name)
    if name.endswith(".npy"):
        return np.load(io.BytesIO(content), allow_pickle=False)
    if name.endswith(".npz"):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    return content


def _evaluation(files: ArtifactStore, facts: Mapping[str, Any]) -> Evaluated:
    """An evaluation's digest and columns; without the columns where the store has lost them."""
    try:
        frame = files.frame(facts["sha256"])
    except NotFound:
        return Evaluated(facts["sha256"])
    columns = {str(name): col.to_numpy() if col.dtype.kind in "fiub" else col.tolist() for name, col in frame.items()}
    return Evaluated(facts["sha256"], columns)


def _weights(model: Path) -> Any:
    folder = model / "mlflow"
    if (folder / "model.onnx").is_file():
        return graph.read_weights(folder / "model.onnx")
    return read_weights(folder / "model.skops") if (folder / "model.skops").is_file() else None


def _golden(model: Path) -> dict[str, Any]:
    golden = Golden.read(model)
    return {"rows": golden.rows, **{f"answers of {method}": answers for method, answers in golden.answers.items()}}


def _software(run: Run) -> dict[str, str]:
    packages = (str(line).partition("==") for line in run.raw["experiment"].get("dependencies") or ())
    return {
        "the lock": str(run.recorded.get("lock_sha256"))[:12],
        "Python": str((run.raw.get("host") or {}).get("python_version")),
        **{name: version for name, _, version in packages if name != "modelyard"},
    }


def _gpus(host: Mapping[str, Any]) -> str:
    return ", ".join(gpu.get("model", "") for gpu in (host.get("gpus") or {}).get("gpus", ())) or "none"


def _sha256(fs: gridfs.GridFS, file_id: ObjectId) -> str:
    try:
        file = fs.get(file_id)
    except gridfs.NoFile as error:
        raise NotFound(
            f"The file {file_id} of the run is gone from the database, so nothing can be compared to it."
        ) from error
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(2**20), b""):
        digest.update(block)
    found = digest.hexdigest()
    if (file._file or {}).get("sha256", found) != found:
        raise Refused(
            f"{file.filename} in the database is not the file that the run stored; its digest is {found[:12]}."
        )
    return found
