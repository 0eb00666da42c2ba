"""Hand the rendered configuration to Envoy: each file takes the old one's place by rename."""

import json
import socket as sockets
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import httpx

from modelyard_serving.errors import Unavailable
from modelyard_serving.gateway.config import Gateway, admin_socket, bootstrap, resources


def publish(gateway: Gateway, folder: Path, leaving: Sequence[dict[str, Any]] = ()) -> None:
    """Write what Envoy watches. Files that would not change are left alone.

    Args:
        leaving: clusters that no route leads to any more, but that Envoy should still know.
    """
    for needed in (folder, admin_socket(folder).parent):
        needed.mkdir(parents=True, exist_ok=True, mode=0o700)
    documents = {"bootstrap.json": bootstrap(folder, gateway.limits), **resources(gateway, folder)}
    if leaving:
        clusters = [*documents["cds.json"]["resources"], *leaving]
        if _by_name(clusters) == _by_name(_clusters(folder)):
            del documents["cds.json"]  # Envoy takes no note of the version of a file that changes nothing
        else:
            version = f"{documents['cds.json']['version_info']}+{len(leaving)}"
            documents["cds.json"] = {"version_info": version, "resources": clusters}
    if gateway.certificate is None:
        (folder / "tls.json").unlink(missing_ok=True)
    for name, document in documents.items():
        text = json.dumps(document, indent=1, sort_keys=True)
        target = folder / name
        if target.exists() and target.read_text() == text:
            continue
        temporary = folder / f".{name}"
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        temporary.rename(target)


def bring(gateway: Gateway, folder: Path) -> None:
    """Publish, and wait until it is in force. A cluster goes only once no route leads to it.

    Raises:
        Unavailable: as `wait_until_applied` does.
    """
    stay = {cluster["name"] for cluster in resources(gateway, folder)["cds.json"]["resources"]}
    leaving = [cluster for cluster in _clusters(folder) if cluster["name"] not in stay]
    publish(gateway, folder, leaving)
    wait_until_applied(folder)
    if leaving:
        publish(gateway, folder)
        wait_until_applied(folder)


def _clusters(folder: Path) -> list[dict[str, Any]]:
    file = folder / "cds.json"
    found: list[dict[str, Any]] = json.loads(file.read_text())["resources"] if file.exists() else []
    return found


def wait_until_applied(folder: Path, timeout_s: float = 15) -> None:
    """Wait until Envoy runs with what lies in `folder`.

    Raises:
        Unavailable: it does not answer, or it refuses the configuration and goes on with the old one.
    """
    wanted = {
        json.loads(file.read_text())["version_info"] for file in folder.glob("[!.]*.json") if file.stem != "bootstrap"
    }
    deadline = time.monotonic() + timeout_s
    socket = admin_socket(folder)
    why = "it does not answer"
    with admin_of(folder) as admin:
        while time.monotonic() < deadline:
            if not _listens(socket):
                time.sleep(0.02)
                continue
            try:
                dump = admin.get("/config_dump").json()
                if not wanted - _versions(dump) and not _warming(dump):
                    return
                why = "it goes on with the one before"
            except httpx.HTTPError as error:
                why = str(error)
            time.sleep(0.02)
    raise Unavailable(
        f"Envoy has not taken over the new configuration after {timeout_s:.0f} s: {why}. See:  yard status"
    )


def admin_of(folder: Path) -> httpx.Client:
    """A client of the admin door of the Envoy that watches `folder`."""
    transport = httpx.HTTPTransport(uds=str(admin_socket(folder)), verify=False)  # a file: no certificates to read
    return httpx.Client(transport=transport, base_url="http://envoy", timeout=5)


def wait_until_found(folder: Path, clusters: Collection[str], timeout_s: float = 15) -> None:
    """Wait until Envoy knows a replica that is well of each of these clusters: those that it finds by name, later
    than the rest.

    Raises:
        Unavailable: of one of them it finds none.
    """
    deadline = time.monotonic() + timeout_s
    with admin_of(folder) as admin:
        while missing := set(clusters) - _well(admin.get("/clusters", params={"format": "json"}).json()):
            if time.monotonic() > deadline:
                raise Unavailable(f"Envoy finds no replica of {', '.join(sorted(missing))} that is ready.")
            time.sleep(0.05)


def _well(said: dict[str, Any]) -> set[str]:
    """The clusters of which a replica passes its health checks."""
    return {
        cluster["name"]
        for cluster in said.get("cluster_statuses", ())
        for host in cluster.get("host_statuses", ())
        if not host.get("health_status", {}).get("failed_active_health_check")
        and not host.get("health_status", {}).get("pending_active_hc")
    }


def _warming(dump: dict[str, Any]) -> bool:
    """Is there a cluster that Envoy knows, but does not use before its replicas were asked whether they are ready?"""
    return any(part.get("dynamic_warming_clusters") for part in dump.get("configs", ()))


def _by_name(clusters: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in clusters}


def _listens(socket: Path) -> bool:
    """Does anybody listen there? httpx would leave a socket open where nobody does."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(str(socket))
        except OSError:
            return False
    return True


def _versions(dump: dict[str, Any]) -> set[str]:
    """The versions in force: of clusters and listeners as a whole, and of each of the rest."""
    found: set[str] = set()
    for part in dump.get("configs", ()):
        found.add(part.get("version_info", ""))
        for rest in ("dynamic_route_configs", "ecds_filters", "dynamic_active_secrets"):
            found |= {one.get("version_info", "") for one in part.get(rest, ())}
    return found
