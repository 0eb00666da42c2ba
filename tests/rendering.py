"""Renders k8s/ as `kubectl apply -k` would, and finds the pods in what comes out."""

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from places import REPOSITORY

K8S = REPOSITORY / "k8s"
OVERLAYS = ("dev", "production", "test")
PROFILES = ("fixed", "elastic", "zero")
PLACES = (*OVERLAYS, *PROFILES)
OLDEST_KUBECTL = (1, 27)  # those before bring a kustomize that lacks some of what we use

_OTHER_KINDS = ("DaemonSet", "CronJob", "ReplicaSet", "ReplicationController", "Pod")

# Words of labels that everything here has.
NAME, COMPONENT, PART_OF = "app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of"

Object = Mapping[str, Any]
Rendered = dict[str, tuple[Object, ...]]  # by overlay and profile


def what_is_missing() -> str:
    """Why nothing can be rendered here; empty if it can."""
    if shutil.which("kubectl") is None:
        return "there is no kubectl on PATH; install it:  make kubernetes"
    asked = ["kubectl", "version", "--client", "--output=json"]
    said = json.loads(subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout)
    version = said["clientVersion"]
    found = int(version["major"]), int(re.match(r"\d+", version["minor"])[0])
    if found < OLDEST_KUBECTL:
        return f"kubectl is {found[0]}.{found[1]}, whose kustomize is too old; install 1.27 or newer"
    return ""


def render(folder: Path) -> tuple[Object, ...]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def render_profile(name: str, scratch: Path) -> tuple[Object, ...]:
    """The example model with one profile, as a team's own kustomization would put them together."""
    here = os.path.relpath(K8S / "profiles", scratch)
    said = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "modelyard",
        "resources": [f"{here}/model"],
        "components": [f"{here}/{name}"],
    }
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(said))
    return render(scratch)


@dataclass(frozen=True)
class Workload:
    """Something that makes pods: a Deployment, a StatefulSet, a Job, or Jenkins with its agents."""

    place: str  # overlay or profile
    kind: str
    name: str
    replicas: int
    spec: dict[str, Any]  # of a Deployment and its like; empty for an agent
    labels: Mapping[str, str]  # of its pods
    pod: dict[str, Any]
    beside: Sequence[Object] = field(default=(), repr=False)  # everything that was rendered with it

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} {self.name}"

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them; those that only prepare come first."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def serves(self) -> bool:
        return self.kind in ("Deployment", "StatefulSet")

    def copy(self) -> Self:
        return copy.deepcopy(self)


def workloads(place: str, objects: Sequence[Object]) -> Iterator[Workload]:
    for each in objects:
        assert each["kind"] not in _OTHER_KINDS, f"{each['kind']}: it makes pods, and no rule would look at them"
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = each["spec"]["template"]
            yield Workload(
                place=place,
                kind=each["kind"],
                name=each["metadata"]["name"],
                replicas=each["spec"].get("replicas", 1),
                spec=each["spec"],
                labels=template["metadata"]["labels"],
                pod=template["spec"],
                beside=objects,
            )
    yield from _jenkins_agents(place, objects)


def named(objects: Sequence[Object], kind: str, name: str) -> Any:
    [found] = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def of_kind(objects: Sequence[Object], kind: str) -> list[Any]:
    return [each for each in objects if each["kind"] == kind]


def _jenkins_agents(place: str, objects: Sequence[Object]) -> Iterator[Workload]:
    """Pods that Jenkins makes: they stand as a text in its own configuration."""
    for each in of_kind(objects, "ConfigMap"):
        if "jenkins.yaml" not in each["data"]:
            continue
        settings = named(objects, "ConfigMap", "jenkins")["data"]
        for cloud in yaml.safe_load(each["data"]["jenkins.yaml"])["jenkins"]["clouds"]:
            for template in cloud["kubernetes"]["templates"]:
                text = template["yaml"].replace("${AGENT_IMAGE}", settings["agent-image"])
                pod = yaml.safe_load(text)
                yield Workload(
                    place=place,
                    kind="agent",
                    name=template["name"],
                    replicas=1,
                    spec={},
                    labels=pod["metadata"]["labels"],
                    pod=pod["spec"],
                    beside=objects,
                )
