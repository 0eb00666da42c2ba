"""Hand the rendered configuration to Envoy: each file takes the old one's place by rename."""

import json
import time
from pathlib import Path
from typing import Any

import httpx

from modelyard_serving.errors import Unavailable
from modelyard_serving.gateway.config import Gateway, admin_socket, bootstrap, resources

WATCHED = ("cds.json", "lds.json", "rds.json")


def publish(gateway: Gateway, folder: Path) -> None:
    """Write what Envoy watches. Files that would not change are left alone."""
    for needed in (folder, admin_socket(folder).parent):
        needed.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, document in {"bootstrap.json": bootstrap(folder), **resources(gateway, folder)}.items():
        text = json.dumps(document, indent=1, sort_keys=True)
        target = folder / name
        if target.exists() and target.read_text() == text:
            continue
        temporary = folder / f".{name}"
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        temporary.rename(target)


def wait_until_applied(folder: Path, timeout_s: float = 15) -> None:
    """Wait until Envoy runs with what lies in `folder`.

    Raises:
        Unavailable: it does not answer, or it refuses the configuration and goes on with the old one.
    """
    wanted = {json.loads((folder / name).read_text())["version_info"] for name in WATCHED}
    deadline = time.monotonic() + timeout_s
    socket = admin_socket(folder)
    transport = httpx.HTTPTransport(uds=str(socket))
    why = "it does not answer"
    with httpx.Client(transport=transport, base_url="http://envoy", timeout=5) as admin:
        while time.monotonic() < deadline:
            if not socket.exists():
                time.sleep(0.02)
                continue
            try:
                missing = wanted - _versions(admin.get("/config_dump").json())
                if not missing:
                    return
                why = "it goes on with the one before"
            except httpx.HTTPError as error:
                why = str(error)
            time.sleep(0.02)
    raise Unavailable(
        f"Envoy has not taken over the new configuration after {timeout_s:.0f} s: {why}. See:  yard status"
    )


def _versions(dump: dict[str, Any]) -> set[str]:
    """The versions in force: of clusters and listeners as a whole, and of each route configuration."""
    found: set[str] = set()
    for part in dump.get("configs", ()):
        found.add(part.get("version_info", ""))
        found |= {routes.get("version_info", "") for routes in part.get("dynamic_route_configs", ())}
    return found
