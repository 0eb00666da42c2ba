"""What the stage of pods asks Kubernetes for, and what it makes of what Kubernetes says. Pure: no cluster is asked."""

import copy
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from hardening import EVERYWHERE, SOMEWHERE, Rule
from modelyard_serving.endpoints import Deployment
from modelyard_serving.kubernetes.objects import Place, budget, differences, label, objects
from modelyard_serving.kubernetes.why import faults
from rendering import Workload, workloads

IMAGE = f"registry.example/team/tumor@sha256:{'a' * 64}"
TUMOR = Deployment(
    "tumor-2", "tumor", 2, "tumor:2-x", "b" * 64, "", "", (), "m" * 64, IMAGE, 2, "tumor-2.modelyard.svc", 1024
)
PLACE = Place("modelyard", pull_secret="registry-login")


def rendered() -> list[dict[str, Any]]:
    return [*objects(TUMOR, PLACE), budget(TUMOR, PLACE, "policy/v1")]


def the_pod() -> Workload:
    [found] = workloads("stage", rendered())
    return found


@pytest.mark.parametrize("document", rendered(), ids=lambda document: document["kind"])
def test_every_field_is_one_that_the_newest_kubernetes_knows(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, str(kubernetes_validate.latest_version()), strict=True)


@pytest.mark.parametrize("rule", [*EVERYWHERE, *SOMEWHERE], ids=lambda rule: rule.__name__)
def test_a_models_pod_keeps_every_rule_that_the_stacks_own_pods_keep(rule: Rule) -> None:
    assert list(rule(the_pod())) == []


def test_the_service_stands_for_the_pods_themselves() -> None:
    deployment, service = objects(TUMOR, PLACE)
    assert service["spec"]["clusterIP"] == "None"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(("memory_mb", "said"), [(1024, "1Gi"), (1536, "1536Mi"), (4096, "4Gi"), (300, "300Mi")])
def test_a_quantity_is_written_as_kubernetes_gives_it_back(memory_mb: int, said: str) -> None:
    deployment, _ = objects(replace(TUMOR, memory_mb=memory_mb), PLACE)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == said


def test_an_autoscaler_has_the_say_over_how_many_pods_there_are() -> None:
    deployment, _ = objects(TUMOR, PLACE, scaled=True)
    assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize("name", ["tumor-2", "House_Prices-1", "1st-3", "x" * 70, "a.b-1", "-"])
def test_any_name_of_a_deployment_becomes_one_that_kubernetes_takes(name: str) -> None:
    assert len(label(name)) <= 63
    assert label(name)[0].isalpha()
    assert label(name)[-1].isalnum()
    assert set(label(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_two_names_never_become_one() -> None:
    names = ["a_b-1", "a-b-1", "a.b-1", "A-b-1", "x" * 70, "x" * 71]
    assert len({label(name) for name in names}) == len(names)
    assert label("tumor-2") == "tumor-2"


def test_what_kubernetes_adds_is_no_difference_and_what_somebody_changed_is_one() -> None:
    deployment, _ = objects(TUMOR, PLACE)
    live = copy.deepcopy(deployment) | {"status": {"replicas": 2}}
    live["spec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
    assert list(differences(deployment, live)) == []
    live["spec"]["replicas"] = 1
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    del live["spec"]["template"]["spec"]["volumes"][0]["emptyDir"]
    said = list(differences(deployment, live))
    assert said[0] == "spec.replicas is 1 and should be 2"
    assert any("containers[0].image is other" in each for each in said)
    assert any("volumes[0].emptyDir is missing" in each for each in said)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "tumor-2-x"}, "status": status}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(containerStatuses=[{"name": "model", "image": IMAGE, "state": state, "restartCount": 0, **more}])


ENDED = {"terminated": {"exitCode": 3, "reason": "Error"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("found", "said", "hopeless"),
    [
        (waiting("ImagePullBackOff", "no such manifest"), "cannot be pulled: no such manifest", True),
        (waiting("ErrImagePull", "time-out"), "cannot be pulled: time-out", False),
        (waiting("CreateContainerConfigError", 'secret "gateway" not found'), 'secret "gateway" not found', True),
        (waiting("CrashLoopBackOff", lastState=ENDED, restartCount=2), "2 times: it ended with 3", True),
        (waiting("CrashLoopBackOff", lastState=ENDED, restartCount=1), "its container ended: it ended with 3", False),
        (waiting("CrashLoopBackOff", lastState=KILLED, restartCount=2), "took too much memory", True),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient memory"}]),
            "no node takes tumor-2-x: Insufficient memory",
            False,
        ),
    ],
)
def test_why_a_pod_does_not_come_up_is_said_in_words(found: dict[str, Any], said: str, hopeless: bool) -> None:
    [fault] = faults({}, [found], [])
    assert said in fault.text
    assert fault.hopeless is hopeless


def test_a_quota_and_a_probe_are_said_in_words() -> None:
    message = 'pods "x" is forbidden: exceeded quota: few, requested: pods=1'
    full = {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}}
    assert faults(full, [], [])[0].text == f"the quota is used up: {message}"
    about = {"involvedObject": {"name": "tumor-2-x"}, "reason": "Unhealthy", "message": "Readiness probe failed: 503"}
    other = {**about, "involvedObject": {"name": "another"}}
    [fault] = faults({}, [pod()], [about, other])
    assert fault.text == "it does not get ready: Readiness probe failed: 503"
