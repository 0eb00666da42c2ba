"""The addresses of the image: one ASGI app over one model, and the doors that lead to it."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard_serving.manifest import Manifest
from modelyard_serving.runtime import golden
from modelyard_serving.runtime.audit import AuditLog
from modelyard_serving.runtime.doors import invocations, native, oip
from modelyard_serving.runtime.doors.door import Door, Reply
from modelyard_serving.runtime.metrics import CONTENT_TYPE_LATEST, Metrics
from modelyard_serving.runtime.model import Model
from modelyard_serving.runtime.plane import Plane, Receive, Scope, Send
from modelyard_serving.runtime.rows import BadRequest
from modelyard_serving.runtime.shipper import Keeper

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How this replica is wired; read once from the environment when the image starts."""

    audit_folder: Path | None = None  # None: nothing is recorded (the build's checks ask a model nobody uses yet)
    console_url: str | None = None
    gateway_secret: str | None = None  # set: only the gateway is answered
    bento_sha256: str | None = None  # what was deployed; a bento cannot know its own digest
    image: str | None = None  # name@sha256:..., where it is one that answers
    checked: bool = True  # it starts only if it answers the golden rows; a build's checks ask these themselves

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        secret_file = env.get("YARD_GATEWAY_SECRET_FILE")
        return cls(
            audit_folder=Path(env["YARD_AUDIT_DIR"]) if "YARD_AUDIT_DIR" in env else None,
            console_url=env.get("YARD_CONSOLE_URL"),
            gateway_secret=Path(secret_file).read_text().strip() if secret_file else None,
            bento_sha256=env.get("YARD_BENTO_SHA256"),
            image=env.get("YARD_IMAGE"),
            checked=env.get("YARD_START_CHECK") != "off",
        )


class App:
    """The doors to the model, each by one look into a dictionary, since they are most of what is ever asked; all else,
    and what is wrong with a request to a door, is Starlette's."""

    def __init__(self, pages: Starlette) -> None:
        self._pages, self.state = pages, pages.state
        self.doors: dict[str, tuple[Door, dict[str, str]]] = {}  # address -> door, and what the address says

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (found := self.doors.get(scope["path"])):
            door, scope["path_params"] = found
            await self.state.plane.answer(door, scope, receive, send)
        else:
            await self._pages(scope, receive, send)


def create_app(folder: Path) -> App:
    """The app for the bento in `folder`. Nothing is loaded before `start` is called on it."""
    model = "/v2/models/{name}"
    exact = f"{model}/versions/{{version}}"
    app = Starlette(
        routes=[
            _asked("/predict", native),
            _asked("/invocations", invocations),
            _asked(f"{model}/infer", oip),
            _asked(f"{exact}/infer", oip),
            Route("/v2", _always(Reply.of(oip.describe_server()))),
            Route("/v2/health/live", _always(Reply.of({"live": True}))),  # who answers at all has loaded its model
            Route("/v2/health/ready", _readiness(lambda ready: Reply.of({"ready": ready}))),
            *(Route(address, _says(oip.describe)) for address in (model, exact)),
            *(Route(f"{address}/ready", _says(oip.describe_readiness)) for address in (model, exact)),
            Route("/v2/{rest:path}", _nothing_here, methods=["GET", "POST"]),  # BentoML's own 404 has another shape
            *(Route(address, _always(Reply(b"\n"))) for address in ("/ping", "/health", "/livez", "/healthz")),
            Route("/readyz", _readiness(lambda ready: Reply(b"ready\n" if ready else b"draining\n", "text/plain"))),
            Route("/version", _always(Reply(version("modelyard-serving").encode(), "text/plain"))),
            Route("/metrics", _metrics),
            Route("/provenance", _provenance),
        ],
        exception_handlers={HTTPException: _refused, BadRequest: _refused},
    )
    app.state.folder = folder
    return App(app)


def start(app: App) -> None:
    """Verify and load the model, ask it the golden rows, open the audit log, start the shipper. Called once per worker.

    Raises:
        Refused: a digest differs, or an answer to a golden row; nothing is served then.
    """
    settings = RuntimeSettings.from_env(os.environ)
    folder = app.state.folder
    model, metrics = golden.checked(Model.load(folder), folder / "model", settings.checked), Metrics()
    audit = AuditLog(settings.audit_folder, model.manifest.audit.flush) if settings.audit_folder else None
    app.state.plane = Plane(model, metrics, audit, settings.gateway_secret, settings.bento_sha256, settings.image)
    name, number = model.manifest.model, str(model.manifest.version)
    app.doors = {
        "/predict": (native, {}),
        "/invocations": (invocations, {}),
        f"/v2/models/{name}/infer": (oip, {"name": name}),
        f"/v2/models/{name}/versions/{number}/infer": (oip, {"name": name, "version": number}),
    }
    if settings.audit_folder and settings.console_url:
        app.state.shipper = Keeper(settings.audit_folder)


def stop(app: App) -> None:
    """Close what `start` has opened; what is in the audit log is shipped, if the console takes it soon."""
    plane: Plane = app.state.plane
    if plane.audit is not None:
        plane.audit.close()
    if shipper := getattr(app.state, "shipper", None):
        shipper.stop()


class _Asks:
    """A door at an address that is not among `App.doors`: of another model, which the plane refuses and records."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["app"].state.plane.answer(self._door, scope, receive, send)


def _asked(path: str, door: Door) -> Route:
    return Route(path, _Asks(door), methods=["POST"])


def _readiness(reply: Callable[[bool], Reply]) -> Handler:
    async def say(request: Request) -> Response:
        ready = not request.app.state.plane.draining
        return _response(reply(ready), 200 if ready else 503)

    return say


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
