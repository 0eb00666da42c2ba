"""The stage of pods: a deployed version is a Deployment and a Service, and Kubernetes does the rolling."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelyard_serving.endpoints import Deployment
from modelyard_serving.errors import NotFound, Refused, Unavailable
from modelyard_serving.kubernetes.cluster import Cluster
from modelyard_serving.kubernetes.objects import MEMORY_MB, NAME, SELECTOR, Place, budget, differences, label, objects
from modelyard_serving.kubernetes.why import Fault, faults
from modelyard_serving.stage import Shown

LOOK_S = 0.25
POLICIES = ("policy/v1", "policy/v1beta1")  # the second one is Kubernetes' before 1.21
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KubernetesStage:
    """Runs deployments in one namespace. A role in that namespace is enough."""

    cluster: Cluster
    place: Place
    timeout_s: float = 180

    def deploy(self, before: Deployment | None, wanted: Deployment, replicas: int | None, shown: Shown) -> Deployment:
        """As `Stage` says. What does not come up is taken back, and what answered before goes on."""
        if not wanted.image:
            raise Refused(
                f"{wanted.model}:{wanted.version} has no image in a registry, and pods run nothing else.\n"
                f"Make it:  yard build {wanted.model}:{wanted.version} --until push"
            )
        number = replicas or (before.pods if before else 0) or 1
        memory_mb = wanted.memory_mb or MEMORY_MB
        service = self.place.service(wanted.name)
        deployment = replace(wanted, pods=number, service=service, ports=(), memory_mb=memory_mb)
        try:
            self.apply(deployment)
            self.wait(deployment)
        except (Unavailable, Refused):
            if before is not None and before.pods:
                self.apply(before)
            else:
                self.stop(deployment)
            raise
        shown(deployment)
        return deployment

    def apply(self, deployment: Deployment) -> None:
        """Ask for it, and come back at once."""
        for document in self._documents(deployment):
            self.cluster.apply(document)

    def up(self, deployment: Deployment) -> tuple[str, ...]:
        """The pods that are ready, and run this deployment's image."""
        return tuple(
            pod["metadata"]["name"]
            for pod in self._pods(deployment)
            if _ready(pod) and pod["spec"]["containers"][0]["image"] == deployment.image
        )

    def stop(self, deployment: Deployment) -> None:
        self._delete(label(deployment.name))

    def drift(self, deployments: Sequence[Deployment]) -> list[str]:
        """Where the cluster is not as it should be: each thing in words."""
        found = []
        for deployment in deployments:
            for document in self._documents(deployment):
                there = self.cluster.get(
                    document["apiVersion"], document["kind"], self.place.namespace, document["metadata"]["name"]
                )
                what = f"{document['kind']} {document['metadata']['name']}"
                if there is None:
                    found.append(f"{what} is missing")
                else:
                    found += [f"{what}: {each}" for each in differences(document, there)]
        return found + [f"Deployment {name} runs, and is wanted by nobody" for name in self._strays(deployments)]

    def mend(self, deployments: Sequence[Deployment]) -> None:
        """Make the cluster as it should be: what is missing or changed is applied again, what nobody wants goes."""
        for deployment in deployments:
            self.apply(deployment)
        for name in self._strays(deployments):
            self._delete(name)

    def _documents(self, deployment: Deployment) -> list[Json]:
        documents = list(objects(deployment, self.place, scaled=self._scaled(deployment)))
        if deployment.pods > 1:
            documents.append(budget(deployment, self.place, self._policy))
        return documents

    def _scaled(self, deployment: Deployment) -> bool:
        """Does an autoscaler say how many pods there are? KEDA's, too, makes one of Kubernetes' own."""
        scalers = self.cluster.list("autoscaling/v1", "HorizontalPodAutoscaler", self.place.namespace)
        return any(each["spec"]["scaleTargetRef"]["name"] == label(deployment.name) for each in scalers)

    @property
    def _policy(self) -> str:
        return next(api for api in POLICIES if api == POLICIES[-1] or self.cluster.knows(api, "PodDisruptionBudget"))

    def _delete(self, name: str) -> None:
        for api, kind in (("apps/v1", "Deployment"), ("v1", "Service"), (self._policy, "PodDisruptionBudget")):
            self.cluster.delete(api, kind, self.place.namespace, name)

    def _strays(self, deployments: Sequence[Deployment]) -> list[str]:
        known = {label(deployment.name) for deployment in deployments}
        there = self.cluster.list("apps/v1", "Deployment", self.place.namespace, label_selector=SELECTOR)
        return sorted(each["metadata"]["name"] for each in there if each["metadata"]["name"] not in known)

    def wait(self, deployment: Deployment) -> None:
        """Wait until all of its pods are ready, and no older ones are left.

        Raises:
            Unavailable: that does not come, and why.
        """
        deadline = time.monotonic() + self.timeout_s
        while True:
            live = self.cluster.get("apps/v1", "Deployment", self.place.namespace, label(deployment.name))
            if live is None:
                raise NotFound(f"The Deployment {label(deployment.name)} is gone while it was waited for.")
            if _done(live):
                return
            over = time.monotonic() > deadline
            known = self._faults(deployment, live, with_events=over)
            if over or (known and known[0].hopeless):
                raise Unavailable(self._sentence(deployment, known))
            time.sleep(LOOK_S)

    def _faults(self, deployment: Deployment, live: Json, *, with_events: bool) -> list[Fault]:
        new = [pod for pod in self._pods(deployment) if pod["spec"]["containers"][0]["image"] == deployment.image]
        events = self.cluster.list("v1", "Event", self.place.namespace) if with_events else []
        return faults(live, [pod for pod in new if not _ready(pod)], events)

    def _sentence(self, deployment: Deployment, known: Sequence[Fault]) -> str:
        if not known:
            return f"{deployment.name} did not come up within {self.timeout_s:.0f} s, and Kubernetes does not say why."
        fault = known[0]
        text = f"{deployment.name} did not come up: {fault.text}"
        if fault.container:
            namespace = self.place.namespace
            tail = self.cluster.log_tail(namespace, fault.pod, fault.container)
            tail = tail or self.cluster.log_tail(namespace, fault.pod, fault.container, before=True)
            text += f"\nLast lines of its log:\n{tail}" if tail else ""
        return text

    def _pods(self, deployment: Deployment) -> list[Json]:
        selector = f"{NAME}={label(deployment.name)}"
        return self.cluster.list("v1", "Pod", self.place.namespace, label_selector=selector)


def _ready(pod: Mapping[str, Any]) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _done(live: Mapping[str, Any]) -> bool:
    status, generation = live.get("status", {}), live["metadata"]["generation"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return status.get("observedGeneration", 0) >= generation and counts == {live["spec"]["replicas"]}
