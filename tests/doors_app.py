"""A served model as small as can be: every door over real HTTP, around any function from a table to answers.

The checks are tested on it, since it can be made to answer wrongly.
"""

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import pandas as pd
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from modelyard_serving.manifest import METHODS, Manifest
from modelyard_serving.runtime.rows import MAX_ROWS, BadRequest, Schema, parse_rows

Answer = Callable[[pd.DataFrame], dict[str, list[Any]]]  # by method


class DoorsApp:
    """The app, and how it was made to misbehave."""

    def __init__(self, manifest: Manifest, answer: Answer, *, counts: bool = True, lax: bool = False) -> None:
        self.manifest, self.answer, self.counts, self.lax = manifest, answer, counts, lax
        self.calls, self.takes_s, self.ready = 0, 0.0, True
        self.closed, self.skewed = "", ""  # paths of doors: one that is not there, one that answers in reverse
        self.asgi = Starlette(
            routes=[
                Route("/readyz", self._readyz),
                Route("/provenance", self._provenance),
                Route("/metrics", self._metrics),
                Route("/predict", self._door(self._native), methods=["POST"]),
                Route("/v2/models/{name}/infer", self._door(self._infer), methods=["POST"]),
                Route("/invocations", self._door(self._invocations), methods=["POST"]),
            ],
            exception_handlers={HTTPException: _refused},
        )

    async def _readyz(self, _: Request) -> Response:
        return PlainTextResponse("", 200 if self.ready else 503)

    async def _provenance(self, _: Request) -> Response:
        return Response(self.manifest.to_json(), media_type="application/json")

    async def _metrics(self, _: Request) -> Response:
        said = f"# TYPE modelyard_model_calls_total counter\nmodelyard_model_calls_total {self.calls}\n"
        return PlainTextResponse(said if self.counts else "")

    def _ask(self, rows: Sequence[Any]) -> dict[str, list[Any]]:
        if not 1 <= len(rows) <= MAX_ROWS:
            raise BadRequest(f"{len(rows)} rows")
        if self.lax:  # what a door would do that trusts its callers
            self.calls += 1
        schema = Schema(self.manifest.inputs)
        table = schema.table(schema.read(rows))
        self.calls += 1
        time.sleep(self.takes_s)
        return self.answer(table)

    def _door(self, answer: Callable[[Any, Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def door(request: Request) -> Response:
            path = request.url.path
            if path == self.closed:
                return _json(404, {"error": "no such door"})
            try:
                said = answer(await request.body(), request)
            except BadRequest as error:
                return _json(400, {"error": str(error), "faults": error.faults})
            return _json(200, _reversed(said) if path == self.skewed else said)

        return door

    def _native(self, body: bytes, _: Request) -> dict[str, Any]:
        return {METHODS[method]: given for method, given in self._ask(parse_rows(body, self.manifest.inputs)).items()}

    def _infer(self, body: bytes, request: Request) -> dict[str, Any]:
        if request.path_params["name"] != self.manifest.model:
            raise BadRequest("no such model")
        tensors = _object(body).get("inputs")
        if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
            raise BadRequest("no tensors")
        given: dict[str, list[Any]] = {}
        for tensor in tensors:
            name, data = tensor.get("name"), tensor.get("data")
            if not isinstance(name, str) or name in given or not isinstance(data, list):
                raise BadRequest("no name, or no data")
            if tensor.get("datatype") not in ("FP64", "FP32", "INT64", "BOOL", "BYTES"):
                raise BadRequest("no such datatype")
            if tensor.get("shape") != [len(data), 1] or isinstance(tensor["shape"][1], float):
                raise BadRequest("the data has another shape")
            given[name] = data
        if len({len(data) for data in given.values()}) != 1:
            raise BadRequest("as many rows in each tensor")
        answers = self._ask([dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)])
        return {"model_name": self.manifest.model, "outputs": [_tensor(m, given) for m, given in answers.items()]}

    def _invocations(self, body: bytes, _: Request) -> dict[str, Any]:
        document = _object(body)
        if list(document) == ["dataframe_records"] and isinstance(document["dataframe_records"], list):
            return {"predictions": self._ask(document["dataframe_records"])["predict"]}
        table = document.get("dataframe_split")
        if list(document) != ["dataframe_split"] or not isinstance(table, dict) or set(table) != {"columns", "data"}:
            raise BadRequest("send dataframe_split or dataframe_records")
        columns, data = table["columns"], table["data"]
        if not isinstance(columns, list) or not isinstance(data, list):
            raise BadRequest("columns and data are lists")
        if len(set(map(str, columns))) < len(columns):
            raise BadRequest("a column stands there twice")
        if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
            raise BadRequest("a row is as long as there are columns")
        return {"predictions": self._ask([dict(zip(map(str, columns), row, strict=True)) for row in data])["predict"]}


def _reversed(said: Any) -> Any:
    """The same answer with its lists turned round."""
    if isinstance(said, dict):
        return {key: value if key == "shape" else _reversed(value) for key, value in said.items()}
    return (
        [_reversed(value) if isinstance(value, dict) else value for value in said[::-1]]
        if isinstance(said, list)
        else said
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("no JSON") from error
    if not isinstance(document, dict):
        raise BadRequest("send an object")
    return document


def _tensor(method: str, given: list[Any]) -> dict[str, Any]:
    shape = [len(given), len(given[0])] if isinstance(given[0], list) else [len(given)]
    flat = [value for row in given for value in row] if len(shape) == 2 else given
    datatype = {str: "BYTES", bool: "BOOL", int: "INT64"}.get(type(flat[0]), "FP64")
    return {"name": METHODS[method], "datatype": datatype, "shape": shape, "data": flat}


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(error.status_code, {"error": error.detail})


def _json(status: int, content: Any) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")  # NaN leaves as NaN
