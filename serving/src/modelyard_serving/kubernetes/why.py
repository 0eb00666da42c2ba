"""Why a rollout does not come to its end, in a person's words. Pure: what Kubernetes says in, a sentence out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
_NO_IMAGE = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ErrImageInspect"}
_NOT_MADE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
CRASHES = 2  # a container that ended so often is not waited for


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where to look; `hopeless`: waiting longer would not help."""

    text: str
    hopeless: bool = False
    pod: str = ""
    container: str = ""  # whose log says more
    restarts: int = 0


def faults(deployment: Json, pods: Sequence[Json], events: Iterable[Json]) -> list[Fault]:
    """Of one rollout, the worst first.

    Args:
        pods: the new ones.
        events: of the namespace; those of these pods are looked at.
    """
    found = [*_of_deployment(deployment)]
    for pod in pods:
        found += _of_pod(pod)
    names = {pod["metadata"]["name"] for pod in pods}
    said = [event for event in events if event.get("involvedObject", {}).get("name") in names]
    found += _of_events(said)
    return sorted(found, key=lambda fault: not fault.hopeless)


def _of_deployment(deployment: Json) -> Iterable[Fault]:
    for condition in deployment.get("status", {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            quota = "exceeded quota" in message
            yield Fault(f"{'the quota is used up' if quota else 'its pods are not made'}: {message}", hopeless=True)


def _of_pod(pod: Json) -> Iterable[Fault]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Fault(f"no node takes {name}: {condition.get('message', condition.get('reason', ''))}", pod=name)
    for each in status.get("containerStatuses") or ():
        waiting = (each.get("state") or {}).get("waiting") or {}
        ended = (each.get("lastState") or {}).get("terminated") or (each.get("state") or {}).get("terminated") or {}
        reason, image = waiting.get("reason", ""), each.get("image", "")
        if reason in _NO_IMAGE:
            hopeless = reason != "ErrImagePull"  # the first try; a registry may have been busy
            yield Fault(f"the image {image} cannot be pulled: {waiting.get('message', reason)}", hopeless, name)
        elif reason in _NOT_MADE:
            yield Fault(f"its container is not made: {waiting.get('message', reason)}", True, name)
        elif ended and each.get("restartCount", 0) >= CRASHES:
            how = "was killed, it took too much memory" if ended.get("reason") == "OOMKilled" else _code(ended)
            yield Fault(
                f"its container starts and ends, {each['restartCount']} times: it {how}",
                True,
                name,
                each["name"],
                each["restartCount"],
            )
        elif ended and ended.get("exitCode"):
            yield Fault(f"its container ended: it {_code(ended)}", False, name, each["name"])


def _code(ended: Json) -> str:
    return (
        f"ended with {ended.get('exitCode')}" if not ended.get("signal") else f"was ended by signal {ended['signal']}"
    )


def _of_events(events: Iterable[Json]) -> Iterable[Fault]:
    for event in events:
        if event.get("reason") == "Unhealthy":
            yield Fault(f"it does not get ready: {event.get('message', '')}", pod=event["involvedObject"]["name"])
        elif event.get("reason") in ("FailedMount", "FailedCreatePodSandBox"):
            yield Fault(str(event.get("message", "")), pod=event["involvedObject"]["name"])
