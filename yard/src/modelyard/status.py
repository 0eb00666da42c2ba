"""Status: what should answer, beside what does."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from modelyard.live import KINDS, answering

if TYPE_CHECKING:
    from modelyard.yard import Yard


@dataclass(frozen=True, slots=True)
class VariantStatus:
    """A variant and the replicas behind it; without a variant, a version that is kept for a rollback."""

    endpoint: str
    variant: str | None
    version: int
    share: float  # of the units, 0 to 1
    shadow: float | None  # percent of the requests that it is sent a copy of
    since: datetime | None  # when this version was put there
    wanted: int
    up: int  # replicas that answer, and as this very version

    @property
    def holds(self) -> bool:
        return self.up == self.wanted


@dataclass(frozen=True, slots=True)
class PartStatus:
    """A part of a stage of pods, such as its console."""

    name: str
    wanted: int
    up: int
    restarts: int  # of all its containers

    @property
    def holds(self) -> bool:
        return self.up == self.wanted


def observe_parts(yard: "Yard") -> list[PartStatus]:
    """The stage's own parts, as Kubernetes says."""
    from modelyard_serving.kubernetes.objects import COMPONENT, PART_OF

    namespace, found = yard.settings.namespace, []
    of_stack = {"label_selector": f"{PART_OF}=modelyard,{COMPONENT}!=model"}
    pods = yard.cluster.list("v1", "Pod", namespace, **of_stack)
    for kind in ("Deployment", "StatefulSet"):
        for part in yard.cluster.list("apps/v1", kind, namespace, **of_stack):
            labels = part["spec"]["selector"]["matchLabels"].items()
            own = [pod for pod in pods if labels <= pod["metadata"]["labels"].items()]
            restarts = (each["restartCount"] for pod in own for each in pod["status"].get("containerStatuses") or ())
            ready = part["status"].get("readyReplicas", 0)
            found.append(PartStatus(part["metadata"]["name"], part["spec"]["replicas"], ready, sum(restarts)))
    return sorted(found, key=lambda part: part.name)


def observe(yard: "Yard") -> list[VariantStatus]:
    """Every variant, and every version that is kept; each replica is asked who it is."""
    deployments = {deployment.name: deployment for deployment in yard.endpoints.deployments()}
    up = {name: len(yard.serving.stage.up(deployment)) for name, deployment in deployments.items()}
    said = answering(yard.approvals.ledger.entries(KINDS))
    found, used = [], set()
    for endpoint in yard.endpoints.endpoints():
        shares = endpoint.table.shares()
        for variant, name in sorted(endpoint.variants.items()):
            deployment = deployments[name]
            used.add(name)
            entry = said.get(endpoint.name, {}).get(variant)
            found.append(
                VariantStatus(
                    endpoint.name,
                    variant,
                    deployment.version,
                    shares.get(variant, 0.0),
                    endpoint.shadow.percent if endpoint.shadow and endpoint.shadow.variant == variant else None,
                    entry[1].at if entry else None,
                    deployment.size,
                    up[name],
                )
            )
    kept = (deployment for name, deployment in deployments.items() if name not in used)
    return found + [VariantStatus(d.model, None, d.version, 0.0, None, None, d.size, up[d.name]) for d in kept]
