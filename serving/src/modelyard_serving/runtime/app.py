"""The addresses of the image: one ASGI app over one model, and the doors that lead to it."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard_serving.manifest import Manifest
from modelyard_serving.runtime.audit import AuditLog, Shipper
from modelyard_serving.runtime.doors import invocations, native, oip
from modelyard_serving.runtime.doors.door import Door, Reply
from modelyard_serving.runtime.metrics import CONTENT_TYPE_LATEST, Metrics
from modelyard_serving.runtime.model import Model
from modelyard_serving.runtime.plane import Plane
from modelyard_serving.runtime.rows import BadRequest

Handler = Callable[[Request], Awaitable[Response]]


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
    model = "/v2/models/{name}"
    exact = f"{model}/versions/{{version}}"
    app = Starlette(
        routes=[
            Route("/predict", _asks(native), methods=["POST"]),
            Route("/invocations", _asks(invocations), methods=["POST"]),
            Route(f"{model}/infer", _asks(oip), methods=["POST"]),
            Route(f"{exact}/infer", _asks(oip), methods=["POST"]),
            Route("/v2", _always(Reply.of(oip.describe_server()))),
            Route("/v2/health/live", _always(Reply.of({"live": True}))),  # who answers at all has loaded its model
            Route("/v2/health/ready", _always(Reply.of({"ready": True}))),
            *(Route(address, _says(oip.describe)) for address in (model, exact)),
            *(Route(f"{address}/ready", _says(oip.describe_readiness)) for address in (model, exact)),
            Route("/v2/{rest:path}", _nothing_here, methods=["GET", "POST"]),  # BentoML's own 404 has another shape
            *(Route(address, _always(Reply(b"\n"))) for address in ("/ping", "/health")),
            Route("/version", _always(Reply(version("modelyard-serving").encode(), "text/plain"))),
            Route("/metrics", _metrics),
            Route("/provenance", _provenance),
        ],
        exception_handlers={HTTPException: _refused, BadRequest: _refused},
    )
    app.state.folder = folder
    return app


def start(app: Starlette) -> None:
    """Verify and load the model, open the audit log, start the shipper. Called once per worker."""
    settings = RuntimeSettings.from_env(os.environ)
    model, metrics = Model.load(app.state.folder), Metrics()
    app.state.plane = Plane(
        replace(model, ask=metrics.counted(model.ask)),
        metrics,
        AuditLog(settings.audit_folder) if settings.audit_folder else None,
        settings.gateway_secret,
        settings.bento_sha256,
    )
    if settings.audit_folder and settings.console_url:
        Shipper(settings.audit_folder, settings.console_url, settings.gateway_secret or "").start()


def _asks(door: Door) -> Handler:
    async def ask(request: Request) -> Response:
        plane: Plane = request.app.state.plane
        return await plane.answer(door, request)

    return ask


def _always(reply: Reply) -> Handler:
    async def say(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        return _response(reply)

    return say


def _says(what: Callable[[Manifest, Mapping[str, str]], dict[str, Any]]) -> Handler:
    async def say(request: Request) -> Response:
        return _response(Reply.of(what(request.app.state.plane.model.manifest, request.path_params)))

    return say


async def _metrics(request: Request) -> Response:
    return _response(Reply(request.app.state.plane.metrics.page(), CONTENT_TYPE_LATEST))


async def _provenance(request: Request) -> Response:
    return _response(Reply(request.app.state.plane.model.manifest.to_json()))


async def _nothing_here(request: Request) -> Response:
    raise BadRequest(f"nothing answers a {request.method} of {request.url.path[:80]!r}", status=404)


async def _refused(request: Request, error: Exception) -> Response:
    """What is refused before the data plane (no such address, wrong method), in the shape of the door it was for."""
    status = error.status_code if isinstance(error, HTTPException) else getattr(error, "status", 500)
    path = request.url.path
    door: Door = invocations if path == "/invocations" else oip if path.startswith("/v2") else native
    return _response(door.refuse(status, str(getattr(error, "detail", error))), status)


def _response(reply: Reply, status: int = 200) -> Response:
    return Response(reply.content, status, media_type=reply.media_type)
