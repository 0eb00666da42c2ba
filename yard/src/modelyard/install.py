"""Install: from an empty namespace to a working stack, by the files of `k8s/`.

Running it again changes what differs and nothing else; Secrets that are there are never changed.
"""

import base64
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.keys import write_secret
from modelyard_serving.kubernetes.objects import COMPONENT, OURS

if TYPE_CHECKING:
    from modelyard.yard import Yard

Json = dict[str, Any]
Say = Callable[[str], object]
# What others refer to comes first.
_ORDER = ("Namespace", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "NetworkPolicy")
_LOADS = ("Deployment", "StatefulSet", "Job")
# Of MongoDB, that lie in the cluster. No approver's: who may deploy there could read it, and say yes to himself.
LOGINS = ("console", "omniboard", "scientist", "engineer")
RENDER_S, READY_S = 60, 600
RESTARTS = 4


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation came to."""

    objects: int
    made_secrets: tuple[str, ...]
    waited_for: tuple[str, ...]


def install(yard: "Yard", overlay: Path, say: Say = lambda _: None) -> Installed:
    """Apply an overlay, and wait until all of it runs.

    Raises:
        Refused: a Secret that only you can make is missing, or Kubernetes does not allow it.
        Unavailable: a part does not come up.
    """
    settings = yard.settings
    if settings.local:
        raise Refused("The local stage needs no installation.\nStart it:  yard up      Or name one: --stage production")
    cluster, namespace = yard.cluster, settings.namespace
    say(f"Kubernetes {cluster.version()}")
    documents = render(overlay, namespace)
    for document in documents:
        if document["kind"] == "Namespace":
            cluster.apply(document)
    made = []
    for name, content in _own_secrets(yard).items():
        if cluster.get("v1", "Secret", namespace, name) is None:
            cluster.apply(_secret(namespace, name, content()))
            made.append(name)
    _adopt(yard)
    if missing := sorted(_missing_secrets(yard, documents)):
        raise Refused(
            f"These Secrets are missing in {namespace}: {', '.join(missing)}.\n"
            "k8s/README.md says what is in each and how it is made; then:  "
            f"yard install --stage {settings.stage}"
        )
    for document in documents:
        say(f"{document['kind']} {document['metadata']['name']}")
        if document["kind"] == "Job" and cluster.get("batch/v1", "Job", namespace, document["metadata"]["name"]):
            continue  # what it did is done; a Job cannot be changed
        cluster.apply(document)
    loads = [document for document in documents if document["kind"] in _LOADS]
    deadline = time.monotonic() + READY_S
    for document in loads:
        say(f"waiting for {document['metadata']['name']}")
        _wait(yard, document, deadline)
    return Installed(len(documents), tuple(made), tuple(document["metadata"]["name"] for document in loads))


def render(overlay: Path, namespace: str) -> list[Json]:
    """The objects of an overlay, those first that others refer to.

    Raises:
        Refused: there is no such overlay, or kustomize refuses it.
        Unavailable: there is no kubectl.
    """
    if not (overlay / "kustomization.yaml").is_file():
        raise Refused(f"{overlay} is no overlay: it has no kustomization.yaml. There are some in k8s/overlays.")
    if shutil.which("kubectl") is None:
        raise Unavailable(
            "kubectl is not on PATH, and it is what reads the files of k8s/. Install it:  make kubernetes"
        )
    done = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=RENDER_S, check=False
    )
    if done.returncode:
        raise Refused(f"kustomize refuses {overlay}: {done.stderr.strip()}")
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    for document in documents:
        if document["kind"] == "Namespace" and document["metadata"]["name"] != namespace:
            raise Refused(
                f"{overlay} is for the namespace {document['metadata']['name']}, and the stage's is {namespace}.\n"
                "Set `namespace` of the stage in yard.toml, or another overlay."
            )
    return sorted(documents, key=lambda document: _rank(document["kind"]))


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _own_secrets(yard: "Yard") -> Mapping[str, Callable[[], Mapping[str, str]]]:
    """Those that nobody but the stack's own parts needs to know, and what is in each."""
    return {
        "gateway": lambda: {"secret": yard.gateway_secret()},
        "mongodb-admin": lambda: {
            "keyfile": base64.b64encode(secrets.token_bytes(512)).decode(),
            "root-password": secrets.token_hex(24),
        },
        "mongodb": lambda: {f"{role}-url": _mongo_url(yard, role) for role in LOGINS},
    }


def _mongo_url(yard: "Yard", role: str) -> str:
    settings = yard.settings
    host, database = f"mongodb.{settings.namespace}.svc:27017", settings.database
    options = f"authSource={database}&replicaSet=rs0&w=majority&journal=true"
    return f"mongodb://{role}:{secrets.token_hex(24)}@{host}/{database}?{options}"


def _secret(namespace: str, name: str, content: Mapping[str, str]) -> Json:
    labels = {key: value for key, value in OURS.items() if key != COMPONENT}
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": dict(content)}


def _adopt(yard: "Yard") -> None:
    """Keep the stage's own secret beside the keys: `yard smoke` shows it. What is in the cluster counts."""
    found = yard.cluster.get("v1", "Secret", yard.settings.namespace, "gateway") or {"data": {}}
    said = base64.b64decode(found["data"].get("secret", "")).strip()
    file = yard.settings.gateway_secret_file
    if said and (not file.is_file() or file.read_bytes().strip() != said):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.unlink(missing_ok=True)
        write_secret(file, said)


def _missing_secrets(yard: "Yard", documents: Sequence[Json]) -> Iterator[str]:
    wanted = {name for document in documents for name in _referred(document)}
    for name in wanted:
        if yard.cluster.get("v1", "Secret", yard.settings.namespace, name) is None:
            yield name


def _referred(part: Any) -> Iterator[str]:
    """The Secrets that a document cannot do without."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("secretKeyRef", "secretRef") and not value.get("optional"):
                yield value["name"]
            elif key == "secret" and isinstance(value, dict) and "secretName" in value and not value.get("optional"):
                yield value["secretName"]
            elif key == "imagePullSecrets":
                yield from (each["name"] for each in value)
            else:
                yield from _referred(value)
    elif isinstance(part, list):
        for each in part:
            yield from _referred(each)


def _wait(yard: "Yard", document: Json, deadline: float) -> None:
    from modelyard_serving.kubernetes.why import faults

    kind, name = document["kind"], document["metadata"]["name"]
    cluster, namespace = yard.cluster, yard.settings.namespace
    while True:
        live = cluster.get(document["apiVersion"], kind, namespace, name) or {}
        if _up(kind, live):
            return
        selector = live.get("spec", {}).get("selector", {}).get("matchLabels", {})
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        pods = cluster.list("v1", "Pod", namespace, label_selector=labels) if labels else []
        known = faults(live, pods, ())
        # What waits for another part may end and start anew some times.
        hopeless = [fault for fault in known if fault.hopeless and (not fault.container or fault.restarts >= RESTARTS)]
        if hopeless or time.monotonic() > deadline:
            told = next(iter(hopeless or known), None)
            tail = cluster.log_tail(namespace, told.pod, told.container) if told and told.container else ""
            why = f"{told.text}\n{tail}".strip() if told else f"it is not ready after {READY_S} s"
            raise Unavailable(f"{kind} {name} does not come up: {why}")
        time.sleep(0.5)


def _up(kind: str, live: Mapping[str, Any]) -> bool:
    status, spec = live.get("status", {}), live.get("spec", {})
    if kind == "Job":
        return any(each["type"] == "Complete" and each["status"] == "True" for each in status.get("conditions") or ())
    fresh = status.get("observedGeneration", 0) >= live.get("metadata", {}).get("generation", 1)
    wanted = spec.get("replicas", 1)
    counted = ("readyReplicas", "updatedReplicas")
    return fresh and all(status.get(name, 0) >= wanted for name in counted) and status.get("replicas") == wanted
