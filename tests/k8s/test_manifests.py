"""k8s/: what `kubectl apply -k` would send, rendered by kubectl. No cluster is asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import hardening
from hardening import EVERYWHERE, SOMEWHERE, Rule
from rendering import (
    OVERLAYS,
    PROFILES,
    Object,
    Workload,
    named,
    workloads,
)

PLACES = (*OVERLAYS, *PROFILES)
NAME, COMPONENT, PART_OF = "app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of"
CRDS = yaml.safe_load((Path(__file__).parent / "crds.schema.yaml").read_text())
OF_OTHERS = ("monitoring.coreos.com/", "keda.sh/")  # API groups that Kubernetes does not bring
ZEROS = "sha256:" + 64 * "0"


def objections(rule: Rule, workloads_: Sequence[Workload]) -> list[str]:
    return [f"{workload}: {said}" for workload in workloads_ for said in rule(workload)]


# Hardening: a rule each, over all pods.


def test_nobody_is_root(pods: list[Workload]) -> None:
    assert objections(hardening.nobody_is_root, pods) == []


def test_nobody_gains_privileges(pods: list[Workload]) -> None:
    assert objections(hardening.nobody_gains_privileges, pods) == []


def test_system_calls_are_filtered(pods: list[Workload]) -> None:
    assert objections(hardening.system_calls_are_filtered, pods) == []


def test_the_root_file_system_is_read_only(pods: list[Workload]) -> None:
    assert objections(hardening.the_root_file_system_is_read_only, pods) == []


def test_scratch_space_is_bounded(pods: list[Workload]) -> None:
    assert objections(hardening.scratch_space_is_bounded, pods) == []


def test_a_pod_sees_nothing_of_its_node(pods: list[Workload]) -> None:
    assert objections(hardening.a_pod_sees_nothing_of_its_node, pods) == []


def test_a_container_gets_what_it_may_use_and_no_more(pods: list[Workload]) -> None:
    assert objections(hardening.a_container_gets_what_it_may_use_and_no_more, pods) == []


def test_who_listens_is_asked_whether_it_does(pods: list[Workload]) -> None:
    assert objections(hardening.who_listens_is_asked_whether_it_does, pods) == []


def test_no_key_to_kubernetes_where_none_is_needed(pods: list[Workload]) -> None:
    assert objections(hardening.no_key_to_kubernetes_where_none_is_needed, pods) == []


def test_secrets_come_from_secrets(pods: list[Workload]) -> None:
    assert objections(hardening.secrets_come_from_secrets, pods) == []


def test_secret_files_are_read_by_those_who_need_them(pods: list[Workload]) -> None:
    assert objections(hardening.secret_files_are_read_by_those_who_need_them, pods) == []


def test_replicas_are_spread_over_nodes(pods: list[Workload]) -> None:
    assert objections(hardening.replicas_are_spread_over_nodes, pods) == []


def test_a_rollout_adds_before_it_takes_away(pods: list[Workload]) -> None:
    assert objections(hardening.a_rollout_adds_before_it_takes_away, pods) == []


def test_what_is_under_way_is_finished(pods: list[Workload]) -> None:
    assert objections(hardening.what_is_under_way_is_finished, pods) == []


def test_images_are_not_whatever_is_newest(pods: list[Workload]) -> None:
    assert objections(hardening.images_are_not_whatever_is_newest, pods) == []


def test_replicas_do_not_go_all_at_once(pods: list[Workload]) -> None:
    new = [workload for workload in pods if workload.place != "test"]  # Kubernetes 1.20 has no such budgets
    assert {workload.name for workload in new if workload.replicas > 1} == {"gateway", "console", "mongodb", "model"}
    assert objections(hardening.replicas_do_not_go_all_at_once, new) == []


def test_in_production_images_are_named_by_digest(pods: list[Workload]) -> None:
    assert objections(hardening.images_are_named_by_digest, [w for w in pods if w.place == "production"]) == []


# And each of them finds what it is for.


def _container(key: str, value: Any) -> Callable[[Workload], None]:
    """Says something in the first container, or takes it away."""

    def act(workload: Workload) -> None:
        at = workload.containers[0]
        *path, last = key.split("/")
        for step in path:
            at = at.setdefault(step, {})
        if value is None:
            del at[last]
        else:
            at[last] = value

    return act


def _pod(key: str, value: Any) -> Callable[[Workload], None]:
    def act(workload: Workload) -> None:
        if value is None:
            del workload.pod[key]
        else:
            workload.pod[key] = value

    return act


def _volume(said: dict[str, Any]) -> Callable[[Workload], None]:
    return lambda workload: workload.pod["volumes"].append({"name": "new", **said})


def _env(name: str, value: str) -> Callable[[Workload], None]:
    return lambda workload: workload.containers[0].setdefault("env", []).append({"name": name, "value": value})


def _secrets_to_all(workload: Workload) -> None:
    next(volume["secret"] for volume in workload.pod["volumes"] if "secret" in volume)["defaultMode"] = 0o444


def _secret_to_write(workload: Workload) -> None:
    secrets = {volume["name"] for volume in workload.pod["volumes"] if "secret" in volume}
    mounts = [mount for container in workload.containers for mount in container["volumeMounts"]]
    del next(mount for mount in mounts if mount["name"] in secrets)["readOnly"]


def _spread_of_others(workload: Workload) -> None:
    workload.pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"][NAME] = "another"


def _rollout(unavailable: int) -> Callable[[Workload], None]:
    return lambda workload: workload.spec["strategy"]["rollingUpdate"].update(maxUnavailable=unavailable)


def _budget(**said: int) -> Callable[[Workload], None]:
    def act(workload: Workload) -> None:
        spec = named(workload.beside, "PodDisruptionBudget", workload.name)["spec"]
        spec.pop("minAvailable"), spec.update(said)

    return act


def _no_budget(workload: Workload) -> None:
    named(workload.beside, "PodDisruptionBudget", workload.name)["spec"]["selector"]["matchLabels"][NAME] = "another"


BREAKS: tuple[tuple[Rule, Callable[[Workload], None]], ...] = (
    (hardening.nobody_is_root, _pod("securityContext", {"runAsNonRoot": True})),
    (hardening.nobody_is_root, _pod("securityContext", {"runAsUser": 1000})),
    (hardening.nobody_is_root, _container("securityContext/runAsUser", 0)),
    (hardening.nobody_is_root, _container("securityContext", None)),
    (hardening.nobody_gains_privileges, _container("securityContext/allowPrivilegeEscalation", None)),
    (hardening.nobody_gains_privileges, _container("securityContext/privileged", True)),
    (hardening.nobody_gains_privileges, _container("securityContext/capabilities", {"drop": ["NET_RAW"]})),
    (hardening.nobody_gains_privileges, _container("securityContext/capabilities/add", ["NET_BIND_SERVICE"])),
    (hardening.system_calls_are_filtered, _container("securityContext/seccompProfile/type", "Unconfined")),
    (hardening.system_calls_are_filtered, _pod("securityContext", {})),
    (hardening.the_root_file_system_is_read_only, _container("securityContext/readOnlyRootFilesystem", False)),
    (hardening.the_root_file_system_is_read_only, _container("securityContext/readOnlyRootFilesystem", None)),
    (hardening.scratch_space_is_bounded, _volume({"emptyDir": {}})),
    (hardening.scratch_space_is_bounded, _volume({"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}})),
    (hardening.a_pod_sees_nothing_of_its_node, _volume({"hostPath": {"path": "/"}})),
    (hardening.a_pod_sees_nothing_of_its_node, _pod("hostNetwork", True)),
    (hardening.a_pod_sees_nothing_of_its_node, _container("ports", [{"containerPort": 1, "hostPort": 1}])),
    (hardening.a_container_gets_what_it_may_use_and_no_more, _container("resources", None)),
    (hardening.a_container_gets_what_it_may_use_and_no_more, _container("resources/limits/memory", "64Gi")),
    (hardening.a_container_gets_what_it_may_use_and_no_more, _container("resources/limits/cpu", None)),
    (hardening.a_container_gets_what_it_may_use_and_no_more, _container("resources/requests/cpu", "64")),
    (hardening.who_listens_is_asked_whether_it_does, _container("readinessProbe", None)),
    (hardening.who_listens_is_asked_whether_it_does, _container("livenessProbe", None)),
    (hardening.who_listens_is_asked_whether_it_does, _container("livenessProbe/tcpSocket/port", "htp")),
    (hardening.no_key_to_kubernetes_where_none_is_needed, _pod("automountServiceAccountToken", None)),
    (hardening.no_key_to_kubernetes_where_none_is_needed, _pod("automountServiceAccountToken", True)),
    (hardening.secrets_come_from_secrets, _env("YARD_MONGO_URL", "mongodb://mongodb")),
    (hardening.secrets_come_from_secrets, _env("ANYTHING", "postgresql://me:mine@db/mlflow")),
    (hardening.secret_files_are_read_by_those_who_need_them, _secrets_to_all),
    (hardening.secret_files_are_read_by_those_who_need_them, _secret_to_write),
    (hardening.replicas_are_spread_over_nodes, _pod("topologySpreadConstraints", None)),
    (hardening.replicas_are_spread_over_nodes, _spread_of_others),
    (hardening.replicas_do_not_go_all_at_once, _no_budget),
    (hardening.replicas_do_not_go_all_at_once, _budget(minAvailable=2)),
    (hardening.replicas_do_not_go_all_at_once, _budget(maxUnavailable=2)),
    (hardening.a_rollout_adds_before_it_takes_away, _rollout(1)),
    (hardening.what_is_under_way_is_finished, _pod("terminationGracePeriodSeconds", 15)),
    (hardening.images_are_named_by_digest, _container("image", "docker.io/envoyproxy/envoy:v1.39.3")),
    (hardening.images_are_named_by_digest, _container("image", "envoy@sha256:12")),
    (hardening.images_are_not_whatever_is_newest, _container("image", "envoyproxy/envoy")),
    (hardening.images_are_not_whatever_is_newest, _container("image", "envoyproxy/envoy:latest")),
    (hardening.images_are_not_whatever_is_newest, _container("imagePullPolicy", None)),
)


@pytest.mark.parametrize(
    ("rule", "break_it"), BREAKS, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(BREAKS)]
)
def test_a_rule_objects_to_a_pod_that_breaks_it(
    rule: Rule, break_it: Callable[[Workload], None], production: tuple[Object, ...]
) -> None:
    gateway = next(found for found in workloads("production", production) if found.name == "gateway").copy()
    assert list(rule(gateway)) == []
    break_it(gateway)
    assert list(rule(gateway)) != []


def test_no_rule_goes_without_a_pod_that_breaks_it_and_a_test() -> None:
    rules = {*EVERYWHERE, *SOMEWHERE}
    assert {rule for rule, _ in BREAKS} == rules
    tests = {
        name.removeprefix("test_").removeprefix("in_production_") for name in globals() if name.startswith("test_")
    }
    assert {rule.__name__ for rule in rules} <= tests


def test_agents_of_jenkins_are_among_the_pods(pods: list[Workload]) -> None:
    assert {workload.place for workload in pods if workload.kind == "agent"} == {"dev", "production"}
