"""The data plane, one behind all doors: the gateway's word, the rows, the table, the model, the audit, the answer."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

from modelyard_serving.manifest import METHODS
from modelyard_serving.runtime.audit import AuditLog
from modelyard_serving.runtime.batching import Batcher, Overloaded
from modelyard_serving.runtime.doors.door import Answer, Asked, Door, Headers, Reply
from modelyard_serving.runtime.metrics import Metrics
from modelyard_serving.runtime.model import BadAnswer, Model
from modelyard_serving.runtime.rows import BadRequest

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 10 * 2**20
BODY_TIMEOUT_S = 30.0
REDACTED = "(redacted)"

# What the gateway says of a request: what it is called in the record, and in the headers.
_TEXTS = (
    ("caller", b"x-caller"), ("key", b"x-key-id"), ("unit", b"x-unit-id"), ("assigned_by", b"x-assigned-by"),
    ("endpoint", b"x-endpoint"), ("variant", b"x-variant"), ("request_id", b"x-request-id"),
)  # fmt: skip
_NUMBERS = (("bucket", b"x-bucket"), ("epoch", b"x-epoch"))

Scope = MutableMapping[str, Any]
Receive = Any  # ASGI's
Send = Any


@dataclass
class Said:
    """What is answered to a request, and what is recorded of it; filled on the way."""

    status: int = 200
    reply: Reply = field(default_factory=lambda: Reply(b""))
    inputs: Any = None
    outputs: dict[str, list[Any]] | None = None
    error: str | None = None
    faults: Sequence[str] = ()
    retry_after_s: int = 0

    def refuse(self, status: int, error: str, faults: Sequence[str] = ()) -> None:
        self.status, self.error, self.faults = status, error, faults


class Plane:
    """One model, asked by every door in the same way.

    Args:
        audit: None: nothing is recorded (the build's checks ask a model nobody uses yet).
        gateway_secret: set: only the gateway is answered.
        bento_sha256: what was deployed; a bento cannot know its own digest.
        image: name@sha256:..., where it is one that answers; recorded with each answer.
    """

    def __init__(
        self,
        model: Model,
        metrics: Metrics,
        audit: AuditLog | None = None,
        gateway_secret: str | None = None,
        bento_sha256: str | None = None,
        image: str | None = None,
    ) -> None:
        self.model, self.metrics, self.audit = model, metrics, audit
        self.draining = False  # what is asked is still answered, but who asks should go elsewhere
        self._secret = gateway_secret.encode() if gateway_secret is not None else None
        self._batcher = Batcher(model.answer, metrics.asked)
        manifest = model.manifest
        self._plan = manifest.audit
        self._columns = model.schema.names
        self._redacted = [number for number, name in enumerate(self._columns) if name in self._plan.redact]
        self._constant = {
            "model": manifest.model,
            "version": manifest.version,
            "model_sha256": manifest.model_sha256,
            "bento_sha256": bento_sha256,
        }
        if image is not None:
            self._constant["image"] = image
        if self._plan.retention_days is not None:
            self._constant["retention_days"] = self._plan.retention_days
        self._headers = [
            (b"x-model-version", str(manifest.version).encode()),
            (b"x-model-digest", f"sha256:{manifest.model_sha256}".encode()),
        ]
        self._identity = f"{manifest.model_sha256} {bento_sha256}".encode()
        self._in_flight = metrics.in_flight.track_inprogress()
        self._audit_fails = False

    async def answer(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request in the door's form. What is answered is in the audit before."""
        started = time.perf_counter()
        headers = Headers(scope["headers"])
        said = Said()
        if self._secret is not None and not compare_digest(headers.get("x-gateway-secret").encode(), self._secret):
            reply = door.refuse(403, "this model answers only through its gateway")
            await self._send(send, door, started, 403, reply, [])
            return
        prediction_id = ""
        with self._in_flight:
            try:
                body = await _body(headers, receive)
                prediction_id = self._prediction_id(headers, body)
                await self._ask(door, Asked(body, headers, scope.get("path_params", {})), prediction_id, said)
            except BadRequest as fault:
                said.refuse(fault.status, str(fault), fault.faults)
            except Overloaded:
                said.refuse(503, "this replica has more to answer than it can; try again shortly")
                said.retry_after_s = 1
            except BadAnswer as fault:
                log.error("bad answer: %s", fault)
                self.metrics.bad_answers.inc()
                said.refuse(500, f"the model's answer was refused: {fault}")
            except Exception:  # the model is the scientist's code: whatever it raises is recorded and answered
                log.exception("the model raised")
                said.refuse(500, "the model failed on these rows; the failure is in the log and the audit")
            prediction_id = prediction_id or _new_id()  # its body never came
            if self.audit is not None:
                await self._record(self.audit, door, headers, prediction_id, started, said)
        if said.error is not None:
            said.reply = door.refuse(said.status, said.error, said.faults)
        about = [(b"x-prediction-id", prediction_id.encode()), *self._headers]
        if said.retry_after_s:
            about.append((b"retry-after", str(said.retry_after_s).encode()))
        await self._send(send, door, started, said.status, said.reply, about)

    async def _ask(self, door: Door, asked: Asked, prediction_id: str, said: Said) -> None:
        manifest = self.model.manifest
        question = door.parse(asked, manifest)
        said.inputs = question.rows
        rows = self.model.schema.read(question.rows)
        said.inputs = {"columns": self._columns, "data": rows}
        given = await self._batcher.ask(rows, question.methods(manifest))
        outputs = {METHODS[method]: values for method, values in given.items()}
        said.reply = question.reply(Answer(prediction_id, manifest, outputs))
        said.outputs = outputs

    def _prediction_id(self, headers: Headers, body: bytes) -> str:
        """A new one; or, for a caller that sends an idempotency key, what follows from the request and this version:
        sent again it is the same prediction."""
        key = headers.get("idempotency-key")
        if not key:
            return _new_id()
        digest = blake2b(digest_size=16)
        asked = headers.get("x-caller"), headers.get("x-shadow"), key
        for part in (*(text.encode() for text in asked), self._identity, body):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    async def _record(
        self, audit: AuditLog, door: Door, headers: Headers, prediction_id: str, started: float, said: Said
    ) -> None:
        """Write the audit record; where that fails, do as the project declares."""
        told = headers.raw if self._secret is not None else {}  # only the gateway knows who asks
        record = {
            "_id": prediction_id,
            "at": datetime.now(UTC).isoformat(),
            "door": door.NAME,
            "status": said.status,
            "latency_ms": round((time.perf_counter() - started) * 1000, 3),
            **{name: told[header].decode("latin-1") if header in told else None for name, header in _TEXTS},
            **{name: int(told[header]) if header in told else None for name, header in _NUMBERS},
            "shadow": told.get(b"x-shadow") == b"1",
            **self._constant,
            "inputs": self._kept(said.inputs) if self._redacted else said.inputs,
            "outputs": said.outputs,
            "error": said.error,
        }
        try:
            try:
                audit.append(record)
            except TypeError:  # refused rows may be nested deeper than can be written
                audit.append(record | {"inputs": None})
            await audit.settled()
        except OSError as fault:
            if not self._audit_fails:
                log.error("audit records cannot be written: %s", fault)
            self._audit_fails = True
            if self._plan.when_full == "count":
                self.metrics.unaudited.inc()
                return
            said.refuse(503, "the audit record could not be written, so the answer is withheld")
            said.retry_after_s = 5
        else:
            if self._audit_fails:
                log.warning("audit records are written again")
            self._audit_fails = False

    def _kept(self, inputs: Any) -> Any:
        """What is recorded of inputs, some of whose columns are not to be. What cannot be told apart by columns is
        not kept at all."""
        if isinstance(inputs, dict):
            data = [list(row) for row in inputs["data"]]
            for row in data:
                for number in self._redacted:
                    row[number] = REDACTED
            return {**inputs, "data": data}
        hidden = dict.fromkeys(self._plan.redact, REDACTED)
        rows = inputs if isinstance(inputs, list) else []
        return [row | {k: v for k, v in hidden.items() if k in row} if isinstance(row, dict) else None for row in rows]

    async def _send(
        self, send: Send, door: Door, started: float, status: int, reply: Reply, about: list[tuple[bytes, bytes]]
    ) -> None:
        content = reply.content
        headers = [
            *about,
            (b"content-type", reply.media_type.encode()),
            (b"content-length", str(len(content)).encode()),
            *((name.encode(), value.encode()) for name, value in reply.headers.items()),
        ]
        if self.draining:
            headers.append((b"connection", b"close"))
        self.metrics.answered(door.NAME, status, time.perf_counter() - started)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _new_id() -> str:
    return os.urandom(16).hex()


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


async def _body(headers: Headers, receive: Receive) -> bytes:
    if (encoding := headers.get("content-encoding", "identity")) != "identity":
        raise BadRequest(f"the body is encoded as {encoding[:40]!r}; send it uncompressed")
    _check_size(_number(headers.get("content-length")) or 0)  # before any of it is read
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        _check_size(len(body))
        return body
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _rest_of_body(message, receive)
    except TimeoutError as error:
        raise BadRequest(f"the body did not arrive within {BODY_TIMEOUT_S:g} s", status=408) from error


async def _rest_of_body(message: Mapping[str, Any], receive: Receive) -> bytes:
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            raise BadRequest("the connection ended before the body did")
        body += message.get("body", b"")
        _check_size(len(body))
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes: send fewer rows per request", status=413)
