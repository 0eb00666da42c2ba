"""The console's addresses. It listens on loopback only; callers reach it through the gateway."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Annotated, Any

import bson
import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard_serving.console.results import results

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 2**20
_DUPLICATE_KEY = 11000
_BSON_BYTES = 15 * 2**20  # MongoDB takes documents up to 16 MB

Scalar = str | int | float | bool


class Feedback(BaseModel):
    """What a caller says of a prediction, minutes or weeks later: a reward, or the truth."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prediction_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    reward: Annotated[float, Field(allow_inf_nan=False)] | None = None
    truth: Scalar | Annotated[list[Scalar], Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Feedback":
        if (self.reward is None) == (self.truth is None):
            raise ValueError("send either reward or truth")
        return self


def create_app(db: "Database[dict[str, Any]]", secret: str) -> Starlette:
    """The console over one database. Every address but /healthz wants the gateway's secret."""
    app = Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/internal/audit", _guarded(_audit), methods=["POST"]),
            Route("/v1/feedback", _guarded(_feedback), methods=["POST"]),
            Route("/v1/endpoints/{endpoint}/results", _guarded(_results)),
        ],
        exception_handlers={HTTPException: _refused},
    )
    app.state.db = db
    app.state.secret = secret
    return app


Handler = Callable[[Request], Awaitable[Response]]


def _guarded(handler: Handler) -> Handler:
    """Only the gateway and the runtimes know the secret; and a database that is away is a 503, not a 500."""

    async def guarded(request: Request) -> Response:
        secret = request.headers.get("x-gateway-secret", "")
        if not compare_digest(secret.encode(), request.app.state.secret.encode()):
            return _json(403, {"error": "the console answers only through its gateway"})
        try:
            return await handler(request)
        except PyMongoError as error:
            log.error("database: %s", error)
            return _json(503, {"error": "the database does not answer; try again shortly"}, {"retry-after": "5"})

    return guarded


async def _healthz(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
    return _json(200, {"status": "ok"})


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette passes it
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json(status, {"error": str(getattr(error, "detail", error))})


async def _audit(request: Request) -> Response:
    """Records as JSON lines. Each is kept once, by its prediction id, however often it is sent."""
    lines = (await _body(request)).splitlines()
    records = [_storable(orjson.loads(line)) for line in lines]
    new = await asyncio.to_thread(_insert, request.app.state.db, records)
    return _json(200, {"received": len(records), "new": new})


async def _feedback(request: Request) -> Response:
    try:
        feedback = Feedback.model_validate_json(await _body(request))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()]
        return _json(400, {"error": "this is not feedback", "faults": faults})
    caller = request.headers.get("x-caller", "")
    said = {"caller": caller, "reward": feedback.reward, "truth": feedback.truth}
    document = {"_id": feedback.prediction_id, **said, "at": datetime.now(UTC)}
    collection = request.app.state.db.feedback
    try:
        await asyncio.to_thread(collection.insert_one, document)
    except DuplicateKeyError:
        before = await asyncio.to_thread(collection.find_one, {"_id": feedback.prediction_id})
        if {key: before[key] for key in said} != said:
            return _json(409, {"error": f"other feedback for {feedback.prediction_id} was given before; it is kept"})
    except OverflowError:
        return _json(400, {"error": "this is not feedback", "faults": ["truth: a number is larger than 64 bits"]})
    return _json(200, {"prediction_id": feedback.prediction_id, "accepted": True})


async def _results(request: Request) -> Response:
    rows = await asyncio.to_thread(results, request.app.state.db, request.path_params["endpoint"])
    return _json(200, {"endpoint": request.path_params["endpoint"], "variants": [asdict(row) for row in rows]})


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return body


def _storable(record: dict[str, Any]) -> dict[str, Any]:
    """The record as MongoDB can hold it. Rows of a refused request may be anything; then they are kept as text."""
    record["at"] = datetime.fromisoformat(record["at"])
    try:
        if len(bson.encode(record)) < _BSON_BYTES:
            return record
    except (OverflowError, bson.errors.BSONError):
        pass
    return {**record, "inputs": orjson.dumps(record["inputs"]).decode()[: _BSON_BYTES // 2]}


def _insert(db: "Database[dict[str, Any]]", records: list[dict[str, Any]]) -> int:
    if not records:
        return 0
    try:
        return len(db.predictions.insert_many(records, ordered=False).inserted_ids)
    except BulkWriteError as error:
        faults = error.details["writeErrors"]
        if any(fault["code"] != _DUPLICATE_KEY for fault in faults):
            raise
        return len(records) - len(faults)


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
