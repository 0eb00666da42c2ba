"""The model: verified, loaded once, asked in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from modelyard_serving import model_files
from modelyard_serving.errors import Refused
from modelyard_serving.manifest import Manifest
from modelyard_serving.runtime.kinds import estimator, graph, pickled
from modelyard_serving.runtime.kinds.ask import Ask, Loader
from modelyard_serving.runtime.kinds.estimator import TRUSTED_TYPES
from modelyard_serving.runtime.rows import Schema, Values

__all__ = ["TRUSTED_TYPES", "BadAnswer", "Model", "load"]

_LOADERS: dict[str, Loader] = {
    "sklearn": estimator,
    "onnx": graph,
    "pickle": pickled,
}  # the keys are the manifest's KINDS
_BESIDE = {"schema.json", "golden.json"} | {
    f"mlflow/{name}" for name in ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt")
}  # what lies beside the model's own file; nothing here reads it


class BadAnswer(Exception):
    """The model answered something that must not leave the image, such as NaN."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model, its manifest, and the columns that it takes."""

    manifest: Manifest
    ask: Ask
    schema: Schema
    takes_arrays: bool = False  # its answers do not depend on the names of columns, see `golden`

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load `folder/model` if it is byte for byte what the manifest says; raises as `load` does."""
        manifest = Manifest.read(folder)
        ask = load(folder / "model", manifest.kind, manifest.model_sha256)
        return cls(manifest, ask, Schema(manifest.inputs))

    def answer(self, rows: Sequence[Values], methods: Sequence[str]) -> dict[str, list[Any]]:
        """One list per method, each as long as `rows`, which the schema has checked.

        Raises:
            BadAnswer: the model's answers are too many, too few, or no finite numbers.
        """
        answers: dict[str, list[Any]] = {}
        table = self.schema.array(rows) if self.takes_arrays else self.schema.table(rows)
        for method, given in zip(methods, self.ask(table, methods), strict=True):
            values = np.asarray(given)
            if len(values) != len(rows):
                raise BadAnswer(f"{method} gave {len(values)} answers for {len(rows)} rows")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise BadAnswer(f"{method} gave an answer that is not a finite number")
            answers[method] = values.tolist()
        return answers


def load(folder: Path, kind: str, digest: str) -> Ask:
    """What answers in a model folder: digests first, then names and sizes, and only then what is in the one file.

    Args:
        kind: how the file is loaded; what the manifest says, never what the model says.

    Raises:
        Refused: a file differs, is too many or too large, or holds what is not loaded.
    """
    files = model_files.verify(folder, digest)
    loader = _LOADERS[kind]
    name = f"mlflow/{loader.FILE}"
    others = sorted(files.keys() - _BESIDE - {name})
    if others or name not in files:
        what = f"holds {others[0]!r}" if others else f"has no {name!r}"
        raise Refused(f"{folder} {what}, so it is no model of the kind {kind}, and nothing here is loaded.")
    content = model_files.read_verified(folder, name, files[name], loader.MAX_BYTES)
    try:
        return loader.load(content)
    except Refused as error:
        raise Refused(f"{folder / name} is not loaded: {error}.") from error
    except Exception as error:  # bytes that a parser stumbles over in a way of its own
        raise Refused(f"{folder / name} is not loaded: {type(error).__name__}: {str(error)[:500]}") from error
