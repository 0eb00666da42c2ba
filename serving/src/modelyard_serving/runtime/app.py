"""The doors of the image: one ASGI app over one model. Each door parses, asks the model, records, answers."""

import logging
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any, Self

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard_serving.runtime.audit import AuditLog, Shipper
from modelyard_serving.runtime.model import BadAnswer, Model
from modelyard_serving.runtime.rows import BadRequest, parse_rows, to_table

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How this replica is wired; read once from the environment when the image starts."""

    audit_folder: Path | None = None  # None: nothing is recorded (the build's checks ask a model nobody uses yet)
    console_url: str | None = None
    gateway_secret: str | None = None  # set: only the gateway is answered
    bento_sha256: str | None = None  # what was deployed; the image cannot know its own digest

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        secret_file = env.get("YARD_GATEWAY_SECRET_FILE")
        return cls(
            audit_folder=Path(env["YARD_AUDIT_DIR"]) if "YARD_AUDIT_DIR" in env else None,
            console_url=env.get("YARD_CONSOLE_URL"),
            gateway_secret=Path(secret_file).read_text().strip() if secret_file else None,
            bento_sha256=env.get("YARD_BENTO_SHA256"),
        )


def create_app(folder: Path) -> Starlette:
    """The app for the bento in `folder`. Nothing is loaded before `start` is called on it."""
    app = Starlette(
        routes=[Route("/predict", _predict, methods=["POST"]), Route("/provenance", _provenance)],
        exception_handlers={HTTPException: _refused},
    )
    app.state.folder = folder
    return app


def start(app: Starlette) -> None:
    """Verify and load the model, open the audit log, start the shipper. Called once per worker."""
    settings = RuntimeSettings.from_env(os.environ)
    app.state.model = Model.load(app.state.folder)
    app.state.settings = settings
    app.state.audit = AuditLog(settings.audit_folder) if settings.audit_folder else None
    if settings.audit_folder and settings.console_url:
        Shipper(settings.audit_folder, settings.console_url, settings.gateway_secret or "").start()


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette passes it
    """Starlette's own refusals (no such address, wrong method) in the shape of ours."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json(status, {"error": str(getattr(error, "detail", error))})


async def _provenance(request: Request) -> Response:
    return Response(request.app.state.model.manifest.to_json(), media_type="application/json")


async def _predict(request: Request) -> Response:
    started = time.perf_counter()
    state, headers = request.app.state, request.headers
    secret = state.settings.gateway_secret
    if secret is not None and not compare_digest(headers.get("x-gateway-secret", "").encode(), secret.encode()):
        return _json(403, {"error": "this model answers only through its gateway"})
    manifest = state.model.manifest
    prediction_id = uuid.uuid4().hex
    rows: list[Any] | None = None
    answers: dict[str, list[Any]] = {}
    status, fault = 200, {}
    try:
        rows = parse_rows(await _body(request))
        answers = state.model.answer(to_table(rows, manifest.inputs))
    except BadRequest as error:
        status, fault = 400, {"error": str(error), "faults": error.faults}
    except _TooLarge:
        status, fault = 413, {"error": f"the body is larger than {MAX_BODY_BYTES} bytes: send fewer rows per request"}
    except BadAnswer as error:
        log.error("bad answer: %s", error)
        status, fault = 500, {"error": f"the model's answer was refused: {error}"}
    except Exception:  # the model is the scientist's code: whatever it raises is recorded and answered
        log.exception("the model raised")
        status, fault = 500, {"error": "the model failed on these rows; the failure is in the log and the audit"}
    record = {
        "_id": prediction_id,
        "at": datetime.now(UTC).isoformat(),
        "caller": headers.get("x-caller"),
        "key": headers.get("x-key-id"),
        "unit": headers.get("x-unit-id"),
        "assigned_by": headers.get("x-assigned-by"),
        "bucket": int(headers["x-bucket"]) if headers.get("x-bucket", "").isdigit() else None,
        "endpoint": headers.get("x-endpoint"),
        "variant": headers.get("x-variant"),
        "model": manifest.model,
        "version": manifest.version,
        "model_sha256": manifest.model_sha256,
        "bento_sha256": state.settings.bento_sha256,
        "status": status,
        "latency_ms": round((time.perf_counter() - started) * 1000, 3),
        "inputs": rows,
        "outputs": answers or None,
        "error": fault.get("error"),
    }
    if state.audit is not None:
        try:
            state.audit.append(record)
        except (OSError, TypeError) as error:
            log.error("an answer was withheld: its audit record could not be written: %s", error)
            status, fault = 503, {"error": "the audit record could not be written, so the answer is withheld"}
    content = fault or {
        "prediction_id": prediction_id,
        "model": manifest.model,
        "version": manifest.version,
        **answers,
        **({"classes": manifest.classes} if manifest.classes else {}),
    }
    response = _json(status, content)
    response.headers["x-prediction-id"] = prediction_id
    response.headers["x-model-version"] = str(manifest.version)
    response.headers["x-model-digest"] = f"sha256:{manifest.model_sha256}"
    return response


class _TooLarge(Exception):
    pass


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge
    return body


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
