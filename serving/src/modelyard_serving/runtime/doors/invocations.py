"""MLflow's scoring protocol: `/invocations` takes a frame in one of its forms, and answers what `predict` gives.

Stricter than MLflow where that guesses: columns are named, none is unknown, nothing is converted, and of a
CSV's texts only what reads as the column's type is one.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from modelyard_serving.errors import MLFLOW_CODES, MLFLOW_OTHERWISE
from modelyard_serving.manifest import METHODS, Column, Manifest
from modelyard_serving.runtime.doors.door import Answer, Asked, Reply, in_one_line
from modelyard_serving.runtime.rows import MAX_ROWS, BadRequest, check_count, in_order, parse_json, table_of

NAME = "invocations"
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INT = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_BOOLS = {"True": True, "true": True, "False": False, "false": False}


@dataclass(frozen=True, slots=True)
class Frame:
    """The rows of a frame, to be answered by what `predict` gives."""

    rows: list[Any]

    def methods(self, manifest: Manifest) -> tuple[str, ...]:  # noqa: ARG002 - other doors want it
        return ("predict",)

    def reply(self, answer: Answer) -> Reply:
        return Reply.of({"predictions": answer.values[METHODS["predict"]]})


def parse(asked: Asked, manifest: Manifest) -> Frame:
    media_type, *parameters = (part.strip() for part in asked.headers.get("content-type", "").lower().split(";"))
    if parameters not in ([], ["charset=utf-8"]):
        raise BadRequest(f"the content type's {parameters[0][:40]!r} is not taken; send UTF-8", status=415)
    if media_type == "text/csv":
        return Frame(_csv(asked.body, manifest.inputs))
    if media_type == "application/json":
        return Frame(_json(parse_json(asked.body), manifest.inputs))
    raise BadRequest(f"send application/json or text/csv, not the content type {media_type[:80]!r}", status=415)


def refuse(status: int, message: str, faults: Sequence[str] = ()) -> Reply:
    text = in_one_line(message, faults)
    if status == 415:
        return Reply(text.encode(), "text/plain")
    code = "INVALID_PARAMETER_VALUE" if faults else MLFLOW_CODES.get(status, MLFLOW_OTHERWISE)
    return Reply.of({"error_code": code, "message": text})


def _json(document: Any, columns: Sequence[Column]) -> list[Any]:
    asked = document if isinstance(document, dict) else {}
    forms = asked.keys() & _FORMS.keys()
    if len(forms) != 1:
        raise BadRequest(f"send an object with exactly one of the keys {', '.join(_FORMS)}")
    if asked.get("params"):
        raise BadRequest("this model takes no params; leave them out")
    if unknown := asked.keys() - _FORMS.keys() - {"params"}:
        raise BadRequest(f"the key {min(unknown)[:40]!r} is unknown; send one of {', '.join(_FORMS)}")
    [form] = forms
    rows = _FORMS[form](asked[form], columns)
    check_count(len(rows))
    return rows


def _split(frame: Any, wanted: Sequence[Column]) -> list[Any]:
    if not isinstance(frame, dict) or not frame.keys() <= {"columns", "data", "index"}:
        raise BadRequest("dataframe_split must be an object of columns and data, and perhaps an index")
    columns, data = frame.get("columns"), frame.get("data")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise BadRequest("dataframe_split wants columns, a list of names")
    if not isinstance(data, list):
        raise BadRequest("dataframe_split wants data, a list of rows")
    return table_of(columns, data, wanted, "dataframe_split.data[{}]")


def _list_of_records(rows: Any, wanted: Sequence[Column]) -> list[Any]:  # noqa: ARG001 - other forms want it
    if not isinstance(rows, list):
        raise BadRequest('dataframe_records must be a list of records: [{"column": value, ...}, ...]')
    return rows


def _instances(rows: Any, wanted: Sequence[Column]) -> list[Any]:
    if not isinstance(rows, list):
        raise BadRequest('instances must be a list of records: [{"column": value, ...}, ...]')
    if len(wanted) == 1 and not any(isinstance(row, dict) for row in rows):
        return [(value,) for value in rows]
    if any(isinstance(row, list) for row in rows):
        raise BadRequest("this model's columns have names: send records, or dataframe_split with its columns")
    return rows


def _inputs(frame: Any, wanted: Sequence[Column]) -> list[Any]:
    if not isinstance(frame, dict):
        if not isinstance(frame, list):
            raise BadRequest('inputs must be an object of columns, {"column": [value, ...], ...}, or a list of records')
        return _instances(frame, wanted)
    if not all(isinstance(values, list) for values in frame.values()):
        raise BadRequest('each column of inputs must be a list: {"column": [value, ...], ...}')
    counts = {len(values) for values in frame.values()}
    if len(counts) > 1:
        raise BadRequest(f"the columns of inputs have from {min(counts)} to {max(counts)} values; give each as many")
    return in_order(list(frame), list(zip(*frame.values(), strict=True)), wanted)


_FORMS: Mapping[str, Callable[[Any, Sequence[Column]], list[Any]]] = {
    "dataframe_split": _split,
    "dataframe_records": _list_of_records,
    "instances": _instances,
    "inputs": _inputs,
}


def _csv(body: bytes, columns: Sequence[Column]) -> list[Any]:
    try:
        reader = csv.reader(io.StringIO(body.decode(), newline=""), strict=True)
        lines = list(islice(filter(None, reader), MAX_ROWS + 2))  # a header, and one too many
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason}") from error
    except csv.Error as error:
        raise BadRequest(f"the body is not valid CSV: {error}") from error
    if not lines:
        raise BadRequest("the body is empty; send a line of column names, and the rows below it")
    header, *data = lines
    if len(data) > MAX_ROWS:
        raise BadRequest(f"send between 1 and {MAX_ROWS} rows, not more")
    check_count(len(data))
    dtypes = {column.name: column.dtype for column in columns}
    if header[0] == "" and "" not in dtypes:  # what pandas' to_csv writes in front: the index
        header, data = header[1:], [line[1:] for line in data]
    types = [dtypes.get(name, "str") for name in header]
    read = [list(map(_value, line, types)) if len(line) == len(types) else line for line in data]
    return table_of(header, read, columns, "line {}", 2)


def _value(text: str, dtype: str) -> Any:
    """What a text says as a value of that type; the text itself where it says none, which is then a fault."""
    if dtype == "bool":
        return _BOOLS.get(text, text)
    if dtype == "int64" and _INT.fullmatch(text):
        return int(text)
    return float(text) if dtype in ("float64", "float32") and _FLOAT.fullmatch(text) else text
