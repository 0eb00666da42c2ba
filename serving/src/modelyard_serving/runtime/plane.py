"""The data plane, one behind all doors: the gateway's word, the rows, the table, the model, the audit, the answer."""

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from modelyard_serving.runtime.audit import AuditLog
from modelyard_serving.runtime.doors.door import Answer, Asked, Door, Reply
from modelyard_serving.runtime.metrics import Metrics
from modelyard_serving.runtime.model import BadAnswer, Model
from modelyard_serving.runtime.rows import BadRequest, to_table

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True)
class Plane:
    """One model, asked by every door in the same way."""

    model: Model
    metrics: Metrics
    audit: AuditLog | None = None
    gateway_secret: str | None = None
    bento_sha256: str | None = None

    async def answer(self, door: Door, request: Request) -> Response:
        """Answer one request in the door's form. What is answered is in the audit before."""
        started = time.perf_counter()
        if not self._is_from_gateway(request.headers):
            reply = door.refuse(403, "this model answers only through its gateway")
            return self._response(door, started, 403, reply, {})
        manifest = self.model.manifest
        prediction_id = uuid.uuid4().hex
        rows: list[Any] | None = None
        answers: dict[str, list[Any]] = {}
        status, error = 200, None
        faults: Sequence[str] = ()
        reply = Reply(b"")
        try:
            question = door.parse(Asked(await _body(request), request.headers, request.path_params), manifest)
            rows = question.rows
            given = self.model.answer(to_table(rows, manifest.inputs))
            reply = question.reply(Answer(prediction_id, manifest, given))
            answers = given
        except BadRequest as fault:
            status, error, faults = fault.status, str(fault), fault.faults
        except BadAnswer as fault:
            log.error("bad answer: %s", fault)
            status, error = 500, f"the model's answer was refused: {fault}"
        except Exception:  # the model is the scientist's code: whatever it raises is recorded and answered
            log.exception("the model raised")
            status, error = 500, "the model failed on these rows; the failure is in the log and the audit"
        if self.audit is not None:
            seconds = time.perf_counter() - started
            about = {"_id": prediction_id, "door": door.NAME, "status": status, "latency_ms": round(seconds * 1000, 3)}
            said = {"inputs": rows, "outputs": answers or None, "error": error}
            try:
                self.audit.append({**about, **self._provenance(request.headers), **said})
            except (OSError, TypeError) as fault:
                log.error("an answer was withheld: its audit record could not be written: %s", fault)
                status, error = 503, "the audit record could not be written, so the answer is withheld"
        if error is not None:
            reply = door.refuse(status, error, faults)
        headers = {
            "x-prediction-id": prediction_id,
            "x-model-version": str(manifest.version),
            "x-model-digest": f"sha256:{manifest.model_sha256}",
        }
        return self._response(door, started, status, reply, headers)

    def _is_from_gateway(self, headers: Mapping[str, str]) -> bool:
        said, secret = headers.get("x-gateway-secret", ""), self.gateway_secret
        return secret is None or compare_digest(said.encode(), secret.encode())

    def _provenance(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """Who asked, what the gateway decided, and what answered."""
        manifest = self.model.manifest
        return {
            "at": datetime.now(UTC).isoformat(),
            "caller": headers.get("x-caller"),
            "key": headers.get("x-key-id"),
            "unit": headers.get("x-unit-id"),
            "assigned_by": headers.get("x-assigned-by"),
            "bucket": int(headers["x-bucket"]) if headers.get("x-bucket", "").isdecimal() else None,
            "endpoint": headers.get("x-endpoint"),
            "variant": headers.get("x-variant"),
            "model": manifest.model,
            "version": manifest.version,
            "model_sha256": manifest.model_sha256,
            "bento_sha256": self.bento_sha256,
        }

    def _response(self, door: Door, started: float, status: int, reply: Reply, headers: Mapping[str, str]) -> Response:
        self.metrics.answered(door.NAME, status, time.perf_counter() - started)
        return Response(reply.content, status, {**headers, **reply.headers}, media_type=reply.media_type)


async def _body(request: Request) -> bytes:
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise BadRequest(f"the body is encoded as {encoding[:40]!r}; send it uncompressed")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                text = f"the body is larger than {MAX_BODY_BYTES} bytes: send fewer rows per request"
                raise BadRequest(text, status=413)
    except ClientDisconnect as error:
        raise BadRequest("the connection ended before the body did") from error
    return body
