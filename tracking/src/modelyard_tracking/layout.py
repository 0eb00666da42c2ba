"""The layout of a model folder: what its kind has, and nothing that would be run by whoever loads it.

MLflow runs the module that an MLmodel names as its loader, and puts a `code` folder on the path. Nothing of ours loads
through MLflow; other people's programs may, so no such folder is put before an approver or into a bento.
"""

from pathlib import Path
from typing import Any

from modelyard_tracking.digests import INDEX
from modelyard_tracking.errors import Refused
from modelyard_tracking.saving import read_limited, read_schema

FILES = {"sklearn": "mlflow/model.skops", "onnx": "mlflow/model.onnx", "pickle": "mlflow/model.pkl"}
MAX_MLMODEL_BYTES = 16 * 2**20  # of a model with very many columns, whose signature it holds
_BESIDE = {INDEX, "schema.json", "golden.json"} | {
    f"mlflow/{name}" for name in ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt")
}
_FLAVOURS = {
    "sklearn": {"sklearn", "python_function"},
    "onnx": {"onnx", "python_function"},
    "pickle": {"modelyard"},
}


def check_layout(folder: Path, kind: str) -> None:
    """Stop unless the folder, whose digest was checked, holds what a model of this kind has, and nothing else.

    Args:
        kind: as the run or the evidence has it.

    Raises:
        Refused: names what does not belong there.
    """
    said = read_schema(folder)["kind"]
    if kind not in FILES or said != kind:
        raise Refused(f"{folder} says that it is of the kind {said!r}, and was put forward as {kind!r}. Train again.")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    wrong = sorted((found - _BESIDE) ^ {FILES[kind]})
    if wrong:
        word = "holds" if wrong[0] in found else "lacks"
        raise Refused(f"{folder} {word} {wrong[0]!r}, so it is no {kind} model as save_model writes it. Train again.")
    _check_mlmodel(folder / "mlflow" / "MLmodel", kind)


def _check_mlmodel(file: Path, kind: str) -> None:
    import yaml

    try:
        said = yaml.safe_load(read_limited(file, MAX_MLMODEL_BYTES))
        flavours: dict[str, Any] = said["flavors"]
        loader = (flavours.get("python_function") or {}).get("loader_module")
        code = [name for name, flavour in flavours.items() if flavour.get("code")]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused(f"{file} cannot be read as an MLmodel ({type(error).__name__}). Train again.") from error
    if set(flavours) - _FLAVOURS[kind] or loader not in (None, f"mlflow.{kind}") or code:
        raise Refused(
            f"{file} names a loader or code of its own, which MLflow would run. save_model writes no such file: "
            "find out who changed it, and train again."
        )
