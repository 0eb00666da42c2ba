"""The console's addresses. Callers reach it through the gateway."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

import orjson
import pymongo
from pydantic import ValidationError
from pymongo.database import Database
from pymongo.errors import PyMongoError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard_serving.console import feedback
from modelyard_serving.console.intake import take
from modelyard_serving.console.report import report
from modelyard_serving.console.results import results
from modelyard_serving.gateway.desired import desired, digest_of, heard

log = logging.getLogger(__name__)

MAX_AUDIT_BYTES = 32 * 2**20  # a shipper's batch is 1 MiB, or one record that is larger
MAX_FEEDBACK_BYTES = 4 * 2**20
BATCHES_AT_ONCE = 4  # beyond that MongoDB lags behind, and the shippers wait with what they have on their disks
LONGEST_WAIT_S, LOOK_S = 30.0, 0.2  # for something new for a gateway, and how often is looked
DATABASE_TIMEOUT_S = 8  # below the shipper's own: it hears a 503, not silence


def create_app(db: "Database[dict[str, Any]]", secret: str) -> Starlette:
    """The console over one database. Every address but /healthz wants the gateway's secret."""
    app = Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/internal/audit", _guarded(_audit), methods=["POST"]),
            Route("/internal/gateway", _guarded(_desired), methods=["GET"]),
            Route("/internal/gateway", _guarded(_in_force), methods=["POST"]),
            Route("/v1/feedback", _guarded(_feedback), methods=["POST"]),
            Route("/v1/endpoints/{endpoint}/results", _guarded(_results)),
            Route("/v1/endpoints/{endpoint}/report", _guarded(_report)),
        ],
        exception_handlers={HTTPException: _refused},
    )
    app.state.db = db
    app.state.secret = secret
    app.state.intake = ThreadPoolExecutor(BATCHES_AT_ONCE, "intake")
    app.state.batches = 0
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
    state = request.app.state
    body = await _body(request, MAX_AUDIT_BYTES)
    if state.batches >= BATCHES_AT_ONCE:
        return _json(503, {"error": "MongoDB lags behind; send the same lines again shortly"}, {"retry-after": "1"})
    state.batches += 1
    try:
        taken = await asyncio.get_running_loop().run_in_executor(state.intake, _in_time, take, state.db, body)
    finally:
        state.batches -= 1
    if taken.bad:
        log.warning("audit: %d of %d lines are no records; they are kept in bad_records", taken.bad, taken.received)
    return _json(200, asdict(taken))


async def _desired(request: Request) -> Response:
    """What gateways should run with; if that is known already, wait for a while for something new."""
    asked = request.query_params
    known, wait_s = asked.get("known", ""), min(float(asked.get("wait_s", "0")), LONGEST_WAIT_S)
    deadline = time.monotonic() + wait_s
    while True:
        document = await asyncio.to_thread(_in_time, desired, request.app.state.db)
        if digest_of(document) != known:
            return _json(200, document)
        if time.monotonic() > deadline:
            return Response(status_code=304)
        await asyncio.sleep(LOOK_S)


async def _in_force(request: Request) -> Response:
    """What a gateway says that it runs with."""
    said = orjson.loads(await _body(request, MAX_FEEDBACK_BYTES))
    gateway, digest, fault = (str(said.get(name, ""))[:1000] for name in ("gateway", "digest", "fault"))
    await asyncio.to_thread(_in_time, heard, request.app.state.db, gateway, digest, fault)
    return _json(200, {})


async def _feedback(request: Request) -> Response:
    try:
        said, several = feedback.parse(await _body(request, MAX_FEEDBACK_BYTES))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:100]]
        return _json(400, {"error": "this is not feedback", "faults": faults})
    caller = request.headers.get("x-caller", "")
    scopes = [scope.strip() for scope in request.headers.get("x-scopes", "").split(",")]
    now = datetime.now(UTC)
    kept = await asyncio.to_thread(_in_time, feedback.keep, request.app.state.db, said, caller, scopes, now)
    if several:
        counts = {"accepted": len(kept.accepted), "duplicates": len(kept.duplicates)}
        return _json(200, {**counts, "contradicting": kept.contradicting, "not_yours": kept.foreign})
    prediction_id = said[0].prediction_id
    if kept.contradicting:
        return _json(409, {"error": f"other feedback for {prediction_id} was given before; it is kept"})
    if kept.foreign:
        return _json(403, {"error": f"{prediction_id} answered another caller, and this key may not judge for it"})
    return _json(200, {"prediction_id": prediction_id, "accepted": True})


async def _results(request: Request) -> Response:
    found = await asyncio.to_thread(results, request.app.state.db, request.path_params["endpoint"])
    return _json(200, asdict(found))


async def _report(request: Request) -> Response:
    """The same as a page, for a person."""
    found = await asyncio.to_thread(report, request.app.state.db, request.path_params["endpoint"])
    headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(found, headers=headers, media_type="text/html")


def _in_time(act: Callable[..., Any], *args: Any) -> Any:
    with pymongo.timeout(DATABASE_TIMEOUT_S):
        return act(*args)


async def _body(request: Request, limit: int) -> bytes:
    said = request.headers.get("content-length", "")
    size = int(said) if said.isdecimal() else 0
    chunks = []
    if size <= limit:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                break
            chunks.append(chunk)
    if size > limit:
        raise HTTPException(413, f"the body is larger than {limit} bytes; send it in parts")
    return b"".join(chunks)


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
