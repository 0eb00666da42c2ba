"""Saving a model: MLflow's format, a schema, and golden rows, under one digest.

The folder, also what goes into the image:

    mlflow/       the model in MLflow's format, weights in skops
    schema.json   input columns and dtypes, the methods that are served, classes
    golden.json   raw input rows and the model's own answers to them, taken at training time
    SHA256SUMS    the index; its sha256 is the model's digest
"""

import importlib.metadata
import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modelyard_tracking.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}
METHODS = ("predict", "predict_proba")


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows as a caller would send them, and what the model answered in training, per method."""

    rows: list[dict[str, Any]]
    answers: dict[str, list[Any]]

    @classmethod
    def read(cls, folder: Path) -> "Golden":
        return cls(**orjson.loads((folder / "golden.json").read_bytes()))


def write_model(folder: Path, model: Any, examples: "pd.DataFrame", trusted_types: Collection[str]) -> dict[str, Any]:
    """Write `model` into `folder` and give its schema.

    Args:
        examples: raw rows, columns named as callers will name them; they become the golden rows.
        trusted_types: types beyond skops' own that the runtime will load.

    Raises:
        Refused: the model or the examples cannot be served as they are; the text says what to change.
    """
    import numpy as np

    schema = _schema(model, examples)
    _write_mlflow(folder / "mlflow", model, examples, trusted_types)
    answers = {method: np.asarray(getattr(model, method)(examples)).tolist() for method in schema["methods"]}
    rows = orjson.loads(orjson.dumps(examples.to_dict("records"), option=orjson.OPT_SERIALIZE_NUMPY))
    (folder / "golden.json").write_bytes(orjson.dumps({"rows": rows, "answers": answers}))
    (folder / "schema.json").write_bytes(orjson.dumps(schema, option=orjson.OPT_INDENT_2))
    return schema


def read_schema(folder: Path) -> dict[str, Any]:
    schema: dict[str, Any] = orjson.loads((folder / "schema.json").read_bytes())
    return schema


def _schema(model: Any, examples: "pd.DataFrame") -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    if not isinstance(examples, pd.DataFrame) or examples.empty:
        raise Refused("save_model wants examples=, a DataFrame of at least one raw row with named columns.")
    inputs, faults = [], []
    for name, column in examples.items():
        if not isinstance(name, str):
            faults.append(f"  column {name!r}: callers send columns by name, so the name must be a text")
        elif column.isna().any() or (column.dtype.kind == "f" and not np.isfinite(column).all()):
            faults.append(f"  column {name!r}: holds a missing or infinite value; golden rows must be sendable as JSON")
        elif column.dtype.kind in DTYPES:
            inputs.append({"name": name, "dtype": DTYPES[column.dtype.kind]})
        elif pd.api.types.is_string_dtype(column):
            inputs.append({"name": name, "dtype": "str"})
        else:
            faults.append(
                f"  column {name!r}: dtype {column.dtype} cannot be sent as JSON; use numbers, bools or texts"
            )
    if faults:
        raise Refused("\n".join(["These examples cannot be served:", *faults]))
    methods = [method for method in METHODS if hasattr(model, method)]
    if "predict" not in methods:
        raise Refused(f"{type(model).__name__} has no predict(): only scikit-learn estimators are served so far.")
    classes = np.asarray(getattr(model, "classes_", [])).tolist()
    return {"inputs": inputs, "methods": methods, "classes": classes}


def _write_mlflow(folder: Path, model: Any, examples: "pd.DataFrame", trusted_types: Collection[str]) -> None:
    import skops.io

    untrusted = sorted(set(skops.io.get_untrusted_types(data=skops.io.dumps(model))) - set(trusted_types))
    if untrusted:
        raise Refused(
            f"The model holds types that the runtime does not load: {', '.join(untrusted)}.\n"
            "Use scikit-learn's own estimators, or propose the type for modelyard_serving.runtime.model.TRUSTED_TYPES."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of integer columns and of its own deprecations
        import mlflow.sklearn
        from mlflow.models import infer_signature

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.sklearn.save_model(
            model,
            str(folder),
            signature=infer_signature(examples, model.predict(examples)),
            serialization_format="skops",
            skops_trusted_types=list(trusted_types),
            # Given, so that MLflow does not start a process to find them out; the lock is what counts.
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("scikit-learn", "skops")],
        )
