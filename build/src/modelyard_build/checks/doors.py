"""The doors of a served model: the same rows and the same answers, each in its own protocol's words."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from modelyard_serving.manifest import METHODS, Column, Manifest
from modelyard_serving.runtime.doors.tensors import DATATYPES

Rows = Sequence[Mapping[str, Any]]
Answers = dict[str, list[Any]]  # by method: predict, predict_proba

_METHOD_OF = {name: method for method, name in METHODS.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a door answered. `fault` says why there are no answers; empty where there are."""

    status: int
    answers: Answers
    text: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """One way to ask: where, with which document, and how its answer is read."""

    path: str
    methods: frozenset[str]  # what it can answer
    document: Callable[[Rows, Sequence[Column]], dict[str, Any]]
    read: Callable[[Any], Answers]

    def address(self, manifest: Manifest) -> str:
        return self.path.format(model=manifest.model)

    def ask(self, http: httpx.Client, manifest: Manifest, rows: Rows) -> Answer:
        """Ask for `rows`."""
        content = json.dumps(self.document(rows, manifest.inputs)).encode()
        response = http.post(self.address(manifest), content=content, headers={"content-type": "application/json"})
        status, text = response.status_code, response.text
        if status != 200:
            return Answer(status, {}, text, f"{status}: {text[:300]}")
        try:
            return Answer(status, self.read(json.loads(text)), text)
        except (ValueError, KeyError, TypeError, AttributeError):
            return Answer(status, {}, text, f"200 with what is no answer of this protocol: {text[:300]}")


def _native(rows: Rows, columns: Sequence[Column]) -> dict[str, Any]:  # noqa: ARG001 - a row names its columns
    return {"rows": list(rows)}


def _read_native(document: Any) -> Answers:
    return {method: list(document[name]) for name, method in _METHOD_OF.items() if name in document}


def _tensors(rows: Rows, columns: Sequence[Column]) -> dict[str, Any]:
    """One tensor per column, as tabular clients send them. What no row has is left out."""
    datatypes = {column.name: DATATYPES[column.dtype] for column in columns}
    names = dict.fromkeys(name for row in rows for name in row)
    shape = [len(rows), 1]
    return {
        "inputs": [
            {
                "name": name,
                "shape": shape,
                "datatype": datatypes.get(name, "FP64"),
                "data": [row[name] for row in rows if name in row],
            }
            for name in names
        ]
    }


def _read_tensors(document: Any) -> Answers:
    answers = {}
    for tensor in document["outputs"]:
        name = tensor["name"]
        answers[_METHOD_OF.get(name, name)] = np.array(tensor["data"], object).reshape(tensor["shape"]).tolist()
    return answers


def _split(rows: Rows, columns: Sequence[Column]) -> dict[str, Any]:
    """A table without an index, as MLflow's own clients send it. A row's values stand in the order of the first's."""
    names = list(rows[0]) if rows else [column.name for column in columns]
    return {"dataframe_split": {"columns": names, "data": [[row[name] for name in row] for row in rows]}}


def _read_mlflow(document: Any) -> Answers:
    return {"predict": list(document["predictions"])}


PREDICT = Door("/predict", frozenset(METHODS), _native, _read_native)
INFER = Door("/v2/models/{model}/infer", frozenset(METHODS), _tensors, _read_tensors)
INVOCATIONS = Door("/invocations", frozenset({"predict"}), _split, _read_mlflow)
DOORS = (PREDICT, INFER, INVOCATIONS)
