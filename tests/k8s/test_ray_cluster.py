"""k8s/ray: what KubeRay is asked for, and each hardening of it. No cluster is asked: these are tests of the YAML."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelyard_tracking.origin import locked_versions
from places import REPOSITORY

RAY = REPOSITORY / "k8s" / "ray"
SCHEMA = yaml.safe_load((Path(__file__).parent / "raycluster.schema.yaml").read_text())


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((RAY / name).read_text())


CLUSTER = _read("ray-cluster.yaml")
SPEC = CLUSTER["spec"]
HEAD = SPEC["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in SPEC["workerGroupSpecs"]}
PODS = {"head": HEAD["template"]["spec"]} | {name: group["template"]["spec"] for name, group in GROUPS.items()}
CONTAINERS = {name: container for name, pod in PODS.items() for container in pod["containers"]}
EVERYTHING = CONTAINERS | {"autoscaler": SPEC["autoscalerOptions"]}  # KubeRay puts that one into the head's pod

each_container = pytest.mark.parametrize("container", EVERYTHING.values(), ids=EVERYTHING)
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)


def test_every_field_is_one_that_kuberay_knows() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(CLUSTER, SCHEMA)


@pytest.mark.parametrize("misspelt", ["readOnlyRootFileSystem", "runAsNonroot", "privileged"])
def test_a_misspelt_or_unknown_hardening_does_not_go_unnoticed(misspelt: str) -> None:
    broken = copy.deepcopy(CLUSTER)
    broken["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["securityContext"][misspelt] = True
    with pytest.raises(jsonschema.ValidationError, match=misspelt):
        jsonschema.validate(broken, SCHEMA)


@each_container
def test_no_container_runs_as_root(container) -> None:
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["runAsUser"] > 0


@each_container
def test_no_container_can_gain_privileges(container) -> None:
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@each_container
def test_system_calls_are_filtered(container) -> None:
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@each_container
def test_the_root_file_system_is_read_only_and_what_is_written_lies_in_tmp(container) -> None:
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108
    assert {"name": "HOME", "value": "/tmp"} in container["env"]  # noqa: S108


@each_pod
def test_a_pod_is_hardened_as_a_whole_too_for_containers_that_others_add(pod) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@each_pod
def test_a_pod_sees_nothing_of_its_node(pod) -> None:
    assert {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}} == {
        "emptyDir",
        "persistentVolumeClaim",
    }
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_workers_hold_no_key_to_the_kubernetes_api(group) -> None:
    assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_namespace_enforces_the_restricted_standard() -> None:
    namespace = _read("namespace.yaml")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["name"] == _read("kustomization.yaml")["namespace"]


def test_ray_asks_for_a_token() -> None:
    assert SPEC["authOptions"] == {"mode": "token"}


def test_ray_is_the_workspaces_version_and_one_that_can_ask_for_a_token() -> None:
    assert SPEC["rayVersion"] == locked_versions(REPOSITORY / "requirements.lock")["ray"]
    assert tuple(map(int, SPEC["rayVersion"].split(".")[:2])) >= (2, 54)


def test_the_dashboard_listens_on_loopback_and_no_service_offers_it() -> None:
    assert HEAD["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert HEAD["serviceType"] == "ClusterIP"
    assert {port["containerPort"] for port in CONTAINERS["head"]["ports"]} == {6379}


def test_only_pods_of_the_same_namespace_reach_ray() -> None:
    policy = _read("network-policy.yaml")
    assert policy["spec"]["podSelector"] == {"matchLabels": {"ray.io/cluster": CLUSTER["metadata"]["name"]}}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}], "without a namespaceSelector: this namespace"


def test_a_gpu_is_there_only_while_a_trial_asks_for_one() -> None:
    gpu, container = GROUPS["gpu"], CONTAINERS["gpu"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in PODS["gpu"]["tolerations"]
    assert gpu["minReplicas"] == gpu["replicas"] == 0 < gpu["maxReplicas"]
    assert SPEC["enableInTreeAutoscaling"] is True
    assert all("nvidia.com/gpu" not in CONTAINERS[name]["resources"]["limits"] for name in ("head", "cpu"))


def test_no_trial_runs_on_the_head() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


@each_container
def test_a_container_gets_what_it_may_use_and_no_more(container) -> None:
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"].keys() >= {"cpu", "memory"}


def test_head_and_workers_run_one_image_named_by_its_digest() -> None:
    [image] = _read("kustomization.yaml")["images"]
    assert {container["image"] for container in CONTAINERS.values()} == {image["name"]}
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"])
    assert "newTag" not in image


@each_container
def test_secrets_come_from_secrets(container) -> None:
    for entry in container["env"]:
        if re.search(r"URL|TOKEN|PASSWORD|KEY", entry["name"]):
            assert "secretKeyRef" in entry["valueFrom"], entry["name"]


@each_pod
def test_checkpoints_outlive_the_node_that_wrote_them(pod) -> None:
    claim = _read("storage.yaml")
    assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    [artifacts] = [entry["value"] for entry in pod["containers"][0]["env"] if entry["name"] == "YARD_ARTIFACTS"]
    [shared] = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "shared"]
    assert artifacts.startswith(f"{shared}/")


def test_one_command_applies_every_file() -> None:
    listed = _read("kustomization.yaml")["resources"]
    assert sorted(listed) == sorted(file.name for file in RAY.glob("*.yaml") if file.name != "kustomization.yaml")
