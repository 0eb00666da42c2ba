"""The Open Inference Protocol, version 2: a tensor [n] or [n, 1] for each column, or one table of numbers [n, columns].

Datatypes are those of the model's inputs; nothing is converted. Triton's binary tensors are taken and given, too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from math import prod
from typing import Any, Self

import orjson

from modelyard_serving.manifest import METHODS, Column, Manifest
from modelyard_serving.runtime.doors import tensors
from modelyard_serving.runtime.doors.door import Answer, Asked, Reply, in_one_line
from modelyard_serving.runtime.doors.tensors import DATATYPES
from modelyard_serving.runtime.rows import MAX_FAULTS, BadRequest, check_count, parse_json

NAME = "v2"
_NUMBERS = ("float64", "float32", "int64")
_OF_TYPE = {bool: "BOOL", int: "INT64", str: "BYTES"}
_HEADER_LENGTH = "inference-header-content-length"
_CONTENT_TYPES = {"pd", "np", "str"}  # what MLServer's clients say of tensors that are what ours are
_CHANGES_THE_ANSWER = {"classification", "sequence_id", "shared_memory_region"}  # Triton's; others say how to schedule


def describe_server() -> dict[str, Any]:
    return {"name": "modelyard", "version": version("modelyard-serving"), "extensions": ["binary_tensor_data"]}


def describe(manifest: Manifest, path: Mapping[str, str]) -> dict[str, Any]:
    """The model's metadata; raises BadRequest, a 404, for any other model."""
    _check_address(manifest, path)
    return {
        "name": manifest.model,
        "versions": [str(manifest.version)],
        "platform": f"{manifest.kind}_mlflow",
        "inputs": [{"name": c.name, "datatype": DATATYPES[c.dtype], "shape": [-1]} for c in manifest.inputs],
        "outputs": [_described(METHODS[method], manifest) for method in manifest.methods],
    }


def describe_readiness(manifest: Manifest, path: Mapping[str, str]) -> dict[str, Any]:
    """Who answers at all has loaded its model."""
    _check_address(manifest, path)
    return {"name": manifest.model, "ready": True}


@dataclass(frozen=True, slots=True)
class Inference:
    """Rows, and which outputs are wanted, each with whether its values come as bytes."""

    rows: list[Any]
    id: str | None
    outputs: Mapping[str, bool]

    def methods(self, manifest: Manifest) -> tuple[str, ...]:
        return tuple(method for method in manifest.methods if METHODS[method] in self.outputs)

    def reply(self, answer: Answer) -> Reply:
        manifest, outputs, raw = answer.manifest, [], b""
        for name, binary in self.outputs.items():
            output, values = _output(name, answer.values[name], manifest)
            if binary:
                content = tensors.to_bytes(values, output["datatype"])
                outputs.append({**output, "parameters": {"binary_data_size": len(content)}})
                raw += content
            else:
                outputs.append({**output, "data": values})
        header = orjson.dumps(
            {
                "model_name": manifest.model,
                "model_version": str(manifest.version),
                "id": answer.prediction_id if self.id is None else self.id,
                "parameters": {"prediction_id": answer.prediction_id},
                "outputs": outputs,
            }
        )
        if not any(self.outputs.values()):
            return Reply(header)
        return Reply(header + raw, "application/octet-stream", {_HEADER_LENGTH: str(len(header))})


def parse(asked: Asked, manifest: Manifest) -> Inference:
    _check_address(manifest, asked.path)
    document, raw = _split(asked)
    with _at("the body"):
        _check_keys(document, {"id", "parameters", "inputs", "outputs"})
        if not isinstance(identifier := document.get("id", ""), str):
            raise BadRequest("the id must be a text")
        binary = _parameters(document).get("binary_data_output") is True
        inputs = _list_of_objects(document, "inputs")
    if not inputs:
        raise BadRequest('send {"inputs": [{"name": ..., "shape": [n], "datatype": ..., "data": [...]}, ...]}')
    if len(inputs) > len(manifest.inputs) + MAX_FAULTS:
        raise BadRequest(f"{len(inputs)} tensors are too many, the model takes {len(manifest.inputs)}")
    outputs = _outputs(document, binary, manifest)
    rows = _rows(_read(inputs, raw), manifest.inputs)
    return Inference(rows, identifier if "id" in document else None, outputs)


def refuse(status: int, message: str, faults: Sequence[str] = ()) -> Reply:  # noqa: ARG001 - other doors want it
    return Reply.of({"error": in_one_line(message, faults)})


def _check_address(manifest: Manifest, path: Mapping[str, str]) -> None:
    if (name := path.get("name")) != manifest.model:
        raise BadRequest(f"there is no model {str(name)[:40]!r} here, only {manifest.model!r}", status=404)
    if (wanted := path.get("version", str(manifest.version))) != str(manifest.version):
        raise BadRequest(
            f"there is no version {wanted[:40]!r} of {manifest.model!r} here, only {manifest.version}", status=404
        )


# The question


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input: `values` are flat, `shape` has one or two dimensions."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    values: list[Any]

    @classmethod
    def read(cls, said: Mapping[str, Any], raw: bytes | None) -> Self:
        _check_keys(said, {"name", "shape", "datatype", "parameters", "data"})
        shape, datatype = said.get("shape"), said.get("datatype")
        if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(type(size) is int for size in shape):
            raise BadRequest(f"the shape must be [n], [n, 1], or [n, columns] of one table, not {str(shape)[:40]}")
        if not isinstance(datatype, str) or datatype not in DATATYPES.values():
            raise BadRequest(f"the datatype must be one of {', '.join(DATATYPES.values())}, not {str(datatype)[:40]}")
        check_count(shape[0])
        if raw is None:
            return cls(said["name"], tuple(shape), datatype, tensors.flat(said.get("data"), shape))
        if "data" in said:
            raise BadRequest("it has both data and a binary_data_size; send one of them")
        return cls(said["name"], tuple(shape), datatype, tensors.from_bytes(raw, datatype, prod(shape)))


def _split(asked: Asked) -> tuple[dict[str, Any], bytes]:
    """The JSON, and the bytes behind it."""
    length = asked.headers.get(_HEADER_LENGTH)
    if not length:
        body, raw = asked.body, b""
    elif length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= len(asked.body):
        body, raw = asked.body[: int(length)], asked.body[int(length) :]
    else:
        raise BadRequest(f"Inference-Header-Content-Length is {length[:20]!r}; the body has {len(asked.body)} bytes")
    document = parse_json(body)
    if not isinstance(document, dict):
        raise BadRequest('the body is no object; send {"inputs": [...]}')
    return document, raw


def _read(inputs: Sequence[Mapping[str, Any]], raw: bytes) -> list[_Tensor]:
    given, faults, at = [], [], 0
    for number, said in enumerate(inputs):
        try:
            with _at(f"inputs[{number}]"):
                if not isinstance(said.get("name"), str):
                    raise BadRequest("the name must be a text")
                part, size = None, _parameters(said).get("binary_data_size")
                if size is not None:
                    if type(size) is not int or not 0 <= size <= len(raw) - at:
                        raise BadRequest(f"binary_data_size is {size!r}, and {len(raw) - at} bytes are left")
                    part, at = raw[at : at + size], at + size
                given.append(_Tensor.read(said, part))
        except BadRequest as fault:
            faults.append(str(fault))
    if not faults and at != len(raw):
        faults.append(f"{len(raw) - at} bytes behind the JSON belong to no tensor")
    _raise(faults)
    return given


def _rows(given: Sequence[_Tensor], columns: Sequence[Column]) -> list[Any]:
    names = [column.name for column in columns]
    dtypes = {column.dtype for column in columns}
    if len(given) == 1 and len(given[0].shape) == 2 and given[0].name not in names:
        [table] = given
        if len(names) > 1 and len(dtypes) == 1 and dtypes <= set(_NUMBERS):
            return _rows_of_table(table, columns)
    wanted = {column.name: DATATYPES[column.dtype] for column in columns}
    seen = Counter(tensor.name for tensor in given)
    faults = [f"tensor {name!r} is missing" for name in names if name not in seen]
    faults += [f"tensor {name[:40]!r} is there {count} times" for name, count in seen.items() if count > 1]
    for tensor in given:
        if tensor.name not in wanted:
            faults.append(f"tensor {tensor.name[:40]!r} is unknown")
        elif tensor.datatype != wanted[tensor.name]:
            faults.append(f"tensor {tensor.name!r} is {tensor.datatype}, expected {wanted[tensor.name]}")
        elif tensor.shape[1:] not in ((), (1,)):
            faults.append(f"tensor {tensor.name!r} has the shape {list(tensor.shape)}, expected [n] or [n, 1]")
    counts = {tensor.shape[0] for tensor in given}
    if len(counts) > 1:
        faults.append(f"the tensors have from {min(counts)} to {max(counts)} rows; give each as many")
    _raise(faults)
    values = {tensor.name: tensor.values for tensor in given}
    return list(zip(*(values[name] for name in names), strict=True))


def _rows_of_table(table: _Tensor, columns: Sequence[Column]) -> list[Any]:
    width, datatype = len(columns), DATATYPES[columns[0].dtype]
    if table.shape[1] != width or table.datatype != datatype:
        raise BadRequest(
            "the tensors do not fit the model's inputs",
            [f"tensor {table.name[:40]!r} is {table.datatype} {list(table.shape)}, expected {datatype} [n, {width}]"],
        )
    return list(zip(*[iter(table.values)] * width, strict=True))


def _outputs(document: Mapping[str, Any], binary: bool, manifest: Manifest) -> dict[str, bool]:
    names = [METHODS[method] for method in manifest.methods]
    wanted = {}
    with _at("outputs"):
        for output in _list_of_objects(document, "outputs"):
            _check_keys(output, {"name", "parameters"})
            if (name := output.get("name")) not in names:
                raise BadRequest(f"there is no output {str(name)[:40]!r}, only {' and '.join(names)}")
            wanted[str(name)] = _parameters(output).get("binary_data", binary) is True
    return wanted or dict.fromkeys(names, binary)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say of a fault where it is."""
    try:
        yield
    except BadRequest as fault:
        raise BadRequest(f"{where}: {fault}") from fault


def _parameters(of: Mapping[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters", {})
    if not isinstance(parameters, dict) or any(isinstance(v, dict | list | None) for v in parameters.values()):
        raise BadRequest("parameters must be an object of texts, numbers and bools")
    if refused := sorted(_CHANGES_THE_ANSWER & parameters.keys()):
        raise BadRequest(f"this model knows no parameter {refused[0]!r}; leave it out")
    if (content := parameters.get("content_type", "pd")) not in _CONTENT_TYPES:
        raise BadRequest(
            f"the content_type must be one of {', '.join(sorted(_CONTENT_TYPES))}, not {str(content)[:40]}"
        )
    return parameters


def _list_of_objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadRequest(f"{key} must be a list of objects")
    return found


def _check_keys(of: Mapping[str, Any], known: set[str]) -> None:
    if unknown := of.keys() - known:
        raise BadRequest(f"the key {min(unknown)[:40]!r} is unknown; known are {', '.join(sorted(known))}")


def _raise(faults: list[str]) -> None:
    if faults:
        raise BadRequest("the tensors do not fit the model's inputs", faults[:MAX_FAULTS])


# The answer


def _described(name: str, manifest: Manifest) -> dict[str, Any]:
    if name == METHODS["predict"]:
        return {"name": name, "datatype": _datatype(manifest.classes), "shape": [-1]}
    shape = [-1, len(manifest.classes) or -1]
    return {"name": name, "datatype": "FP64", "shape": shape, "parameters": {"classes": manifest.classes}}


def _output(name: str, values: list[Any], manifest: Manifest) -> tuple[dict[str, Any], list[Any]]:
    """What is said of an output, and its values, flat. Without classes, answers are numbers, and these are FP64."""
    shape = [len(values)]
    while values and isinstance(values[0], list):
        shape.append(len(values[0]))
        values = list(chain.from_iterable(values))
    datatype = _datatype(values)
    if datatype == "INT64" and not manifest.classes:
        datatype = "FP64"
    if datatype == "FP64":
        values = [float(value) for value in values]
    return {"name": name, "shape": shape, "datatype": datatype}, values


def _datatype(values: Sequence[Any]) -> str:
    return _OF_TYPE.get(type(values[0]), "FP64") if values else "FP64"
