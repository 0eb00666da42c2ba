"""Saving a model: MLflow's format, a schema, and golden rows, under one digest.

The folder, also what goes into the image:

    mlflow/       the model in MLflow's format; the weights in one file, model.skops, model.onnx or model.pkl
    schema.json   its kind, input columns and dtypes, the methods that are served, classes
    golden.json   raw input rows and the model's own answers to them, taken at training time
    SHA256SUMS    the index; its sha256 is the model's digest
"""

import logging
import os
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modelyard_tracking.errors import Refused
from modelyard_tracking.kinds import estimator, graph
from modelyard_tracking.kinds.pickled import Pickled
from modelyard_tracking.kinds.servable import Servable, methods_of

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}
MAX_SCHEMA_BYTES = 16 * 2**20
MAX_GOLDEN_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows as a caller would send them, and what the model answered in training, per method."""

    rows: list[dict[str, Any]]
    answers: dict[str, list[Any]]

    @classmethod
    def read(cls, folder: Path) -> "Golden":
        return cls(**_json(folder / "golden.json", MAX_GOLDEN_BYTES))


def write_model(
    folder: Path,
    model: Any,
    examples: "pd.DataFrame",
    trusted_types: Collection[str],
    *,
    trained: Any = None,
    pickled_for: Path | None = None,
) -> dict[str, Any]:
    """Write `model` into `folder` and give its schema.

    Args:
        examples: raw rows, columns named as callers will name them; they become the golden rows.
        trusted_types: types beyond skops' own that the runtime will load.
        trained: what an ONNX graph was made from; it gives the golden answers and names the classes.
        pickled_for: the folder of a project that allows pickles. None: none are made.

    Raises:
        Refused: the model or the examples cannot be served as they are; the text says what to change.
    """
    import numpy as np

    columns = _inputs(examples)
    kept = _servable(model, trusted_types, trained, pickled_for)
    inputs = kept.fitted(columns)
    schema = {"kind": kept.kind, "inputs": inputs, "methods": list(kept.methods), "classes": kept.classes}
    sent = examples.astype({column["name"]: "float32" for column in inputs if column["dtype"] == "float32"})
    answers = {method: np.asarray(kept.answer(sent, method)).tolist() for method in kept.methods}
    _check_answers(answers, len(examples))
    _write_mlflow(folder / "mlflow", kept, sent, answers["predict"])
    rows = orjson.loads(orjson.dumps(sent.to_dict("records"), option=orjson.OPT_SERIALIZE_NUMPY))
    (folder / "golden.json").write_bytes(orjson.dumps({"rows": rows, "answers": answers}))
    (folder / "schema.json").write_bytes(orjson.dumps(schema, option=orjson.OPT_INDENT_2))
    return schema


def read_schema(folder: Path) -> dict[str, Any]:
    """The schema of a saved model; one of before there were kinds is scikit-learn's."""
    return {"kind": "sklearn", **_json(folder / "schema.json", MAX_SCHEMA_BYTES)}


def read_limited(file: Path, limit: int) -> bytes:
    """The bytes of a file, unless there are more than `limit`.

    Raises:
        Refused: it is larger, or gone.
    """
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            content = opened.read(size) if size <= limit else b""  # Python takes the room it is asked for
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}. Train again.") from error
    if size > limit:
        raise Refused(
            f"{file} has more than {limit} bytes, which are not read. Save fewer examples, or a smaller model."
        )
    return content


def _json(file: Path, limit: int) -> dict[str, Any]:
    content = read_limited(file, limit)
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Refused(f"{file} is not JSON ({error}). Train again.") from error
    if not isinstance(document, dict):
        raise Refused(f"{file} does not hold what save_model writes. Train again.")
    return document


def _servable(model: Any, trusted_types: Collection[str], trained: Any, pickled_for: Path | None) -> Servable:
    """ONNX if it is ONNX, skops if that can hold it, a pickle only where that is allowed."""
    if graph.is_graph(model):
        return graph.read_graph(model, trained)
    if trained is not None:
        raise Refused(
            "trained= belongs to an ONNX graph, which was made from it; a model that is saved itself needs none."
        )
    if "predict" not in methods_of(model):
        raise Refused(
            f"{type(model).__name__} has no predict(). Served are scikit-learn estimators and ONNX graphs; "
            "of a PyTorch module give save_model what torch.onnx.export makes of it."
        )
    untrusted = estimator.untrusted_types(model, trusted_types)
    if not untrusted:
        return estimator.Estimator(model, trusted_types)
    if pickled_for is not None:
        return Pickled(model, pickled_for)
    raise Refused(
        f"The model holds types that the runtime does not load: {', '.join(untrusted)}.\n"
        "Use scikit-learn's own estimators, give save_model an ONNX graph of it, or propose the type for\n"
        "modelyard_serving.runtime.kinds.estimator.TRUSTED_TYPES. The last resort is a pickle, which runs code when\n"
        "it is loaded, and is shown as one to whoever approves it: [model] allow_pickle = true in project.toml."
    )


def _inputs(examples: "pd.DataFrame") -> list[dict[str, str]]:
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
        elif column.dtype.kind == "f" and np.dtype(column.to_numpy().dtype).itemsize <= 4:
            inputs.append({"name": name, "dtype": "float32"})
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
    return inputs


def _check_answers(answers: dict[str, list[Any]], rows: int) -> None:
    for method, given in answers.items():
        if len(given) != rows:
            raise Refused(f"{method} gives {len(given)} answers to {rows} examples; it must give one for each row.")


def _write_mlflow(folder: Path, model: Servable, examples: "pd.DataFrame", predictions: Sequence[Any]) -> None:
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of integer columns and of its own deprecations
        from mlflow.models import infer_signature

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        model.write(folder, infer_signature(examples, np.asarray(predictions)))
