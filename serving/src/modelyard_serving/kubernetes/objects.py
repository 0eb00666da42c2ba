"""What Kubernetes is asked for: the objects of one deployed version. Pure: values in, documents out."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard_serving.endpoints import POD_PORT, Deployment

Json = dict[str, Any]
USER = 10001  # the image's own
# From a pod's end to its closed door: as long as a cluster's DNS may take to tell the gateways of the pod in its place.
DRAIN_S = 8
SETTLED_S = 2  # a new pod is ready for so long before an old one goes
LAST_EFFORT_S = 30  # a console that is away is waited for: what a pod has not shipped is gone with it
MEMORY_MB = 1024  # of a pod whose project says nothing
GRACE_S = 60  # for what is in flight, and for the last records
SECRET = "gateway"  # noqa: S105 - the name of one
PART_OF, COMPONENT, NAME = "app.kubernetes.io/part-of", "app.kubernetes.io/component", "app.kubernetes.io/name"
MANAGED = "app.kubernetes.io/managed-by"
OURS = {PART_OF: "modelyard", COMPONENT: "model", MANAGED: "modelyard"}
SELECTOR = ",".join(f"{name}={value}" for name, value in OURS.items())


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a Kubernetes, and what all pods there have in common."""

    namespace: str
    console_url: str = "http://console:7401"
    pull_secret: str = ""  # of a registry that wants a login
    domain: str = "svc.cluster.local"

    def service(self, deployment: str) -> str:
        """The whole name: a gateway that looks up less asks for each of the search domains."""
        return f"{label(deployment)}.{self.namespace}.{self.domain}"


def label(name: str, longest: int = 55) -> str:
    """A deployment's name as Kubernetes takes it: small letters, digits and hyphens, no more than 63."""
    plain = re.sub(r"[^a-z0-9-]", "-", name.lower())
    if plain == name and len(plain) <= longest and plain[0].isalpha():
        return plain
    return f"m-{plain[: longest - 15].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def objects(deployment: Deployment, place: Place, *, scaled: bool = False) -> Iterator[Json]:
    """A Deployment, and the Service by whose name the gateways find each of its pods.

    Args:
        scaled: an autoscaler says how many pods there are.
    """
    about = {"namespace": place.namespace, "name": label(deployment.name)}
    labels = {**OURS, NAME: label(deployment.name)}
    said = provenance(deployment)
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**about, "labels": labels, "annotations": said},
        "spec": {
            **({} if scaled else {"replicas": deployment.pods}),
            "selector": {"matchLabels": {NAME: label(deployment.name)}},
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 120,
            "minReadySeconds": SETTLED_S,
            # New before old, one at a time.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels, "annotations": said}, "spec": pod(deployment, place)},
        },
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**about, "labels": labels},
        "spec": {
            "clusterIP": "None",  # its name stands for the pods themselves: the gateway balances and retries
            "selector": {NAME: label(deployment.name)},
            "ports": [{"name": "http", "port": POD_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def budget(deployment: Deployment, place: Place, api: str) -> Json:
    """So that no drained node takes two replicas at once.

    Args:
        api: policy/v1, or what an older Kubernetes has.
    """
    name = label(deployment.name)
    return {
        "apiVersion": api,
        "kind": "PodDisruptionBudget",
        "metadata": {"namespace": place.namespace, "name": name, "labels": {**OURS, NAME: name}},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {NAME: name}}},
    }


def provenance(deployment: Deployment) -> dict[str, str]:
    """Annotations that say what runs there."""
    return {
        "modelyard.io/model": f"{deployment.model}:{deployment.version}",
        "modelyard.io/bento": deployment.bento_tag,
        "modelyard.io/bento-sha256": deployment.bento_sha256,
        "modelyard.io/model-sha256": deployment.model_sha256,
    }


def pod(deployment: Deployment, place: Place) -> Json:
    """The pod of a replica: one container, which may do nothing but answer."""
    memory = _mebibytes(deployment.memory_mb or MEMORY_MB)
    made: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {NAME: label(deployment.name)}},
            }
        ],
        "containers": [
            {
                "name": "model",
                "image": deployment.image,
                "imagePullPolicy": "IfNotPresent",  # a digest is always the same image
                "ports": [{"name": "http", "containerPort": POD_PORT, "protocol": "TCP"}],
                "env": [
                    {"name": "YARD_AUDIT_DIR", "value": "/audit"},
                    {"name": "YARD_CONSOLE_URL", "value": place.console_url},
                    {"name": "YARD_GATEWAY_SECRET_FILE", "value": "/secrets/gateway/secret"},
                    {"name": "YARD_IMAGE", "value": deployment.image},
                    {"name": "YARD_DRAIN_S", "value": str(DRAIN_S)},
                    {"name": "YARD_LAST_EFFORT_S", "value": str(LAST_EFFORT_S)},
                    {"name": "OMP_NUM_THREADS", "value": "1"},
                    {"name": "OPENBLAS_NUM_THREADS", "value": "1"},
                ],
                "resources": {
                    "requests": {"cpu": "250m", "memory": memory},
                    "limits": {"cpu": "2", "memory": memory},  # one replica is one process, and its shipper
                },
                "securityContext": {
                    "runAsNonRoot": True,
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "startupProbe": _probe("/readyz", 1, 120),
                "readinessProbe": _probe("/readyz", 2, 2),
                "livenessProbe": _probe("/livez", 10, 3),
                "volumeMounts": [
                    {"name": "audit", "mountPath": "/audit"},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in a pod
                    {"name": "gateway", "mountPath": "/secrets/gateway", "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "audit", "emptyDir": {"sizeLimit": "10Gi"}},  # of the pod: it outlives the container
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "gateway", "secret": {"secretName": SECRET, "defaultMode": 0o440}},
        ],
    }
    if place.pull_secret:
        made["imagePullSecrets"] = [{"name": place.pull_secret}]
    return made


def _mebibytes(number: int) -> str:
    """As Kubernetes gives it back: 1024Mi is 1Gi."""
    return f"{number // 1024}Gi" if number % 1024 == 0 else f"{number}Mi"


def _probe(path: str, period_s: int, failures: int) -> Json:
    asked = {"path": path, "port": "http", "scheme": "HTTP"}
    return {"httpGet": asked, "periodSeconds": period_s, "failureThreshold": failures, "timeoutSeconds": 2}


def differences(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where what was asked for is not what is there; what Kubernetes adds of its own is no difference."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key, value in wanted.items():
            yield from differences(value, found.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif wanted != found:
        yield f"{place} is {_short(found)} and should be {_short(wanted)}"


def _short(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
