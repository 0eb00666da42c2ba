"""Who may do what: the deployer's role, and who reaches whom over the network."""

from collections.abc import Sequence
from typing import Any

import pytest

from reach import Somebody, may_connect
from rendering import COMPONENT, NAME, OVERLAYS, PART_OF, Object, Rendered, named, of_kind, workloads


def test_nobody_has_a_right_outside_the_namespace(rendered: Rendered) -> None:
    for place in OVERLAYS:
        assert of_kind(rendered[place], "ClusterRole") + of_kind(rendered[place], "ClusterRoleBinding") == []
        for binding in of_kind(rendered[place], "RoleBinding"):
            named(rendered[place], "Role", binding["roleRef"]["name"])
            assert {subject["namespace"] for subject in binding["subjects"]} == {"modelyard"}


def granted(role: Object) -> dict[tuple[str, str], set[str]]:
    """(API group, resource) -> verbs; a name in brackets where only that one is meant."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [""]):
                    key = (group, f"{resource}[{name}]" if name else resource)
                    found.setdefault(key, set()).update(rule["verbs"])
    return found


@pytest.mark.parametrize("place", OVERLAYS)
def test_the_deployer_may_do_what_a_stage_needs_and_no_more(place: str, rendered: Rendered) -> None:
    manages, reads = {"get", "list", "watch", "create", "patch", "delete"}, {"get", "list", "watch"}
    assert granted(named(rendered[place], "Role", "deployer")) == {
        ("apps", "deployments"): manages,
        ("", "services"): manages,
        ("autoscaling", "horizontalpodautoscalers"): manages,
        ("policy", "poddisruptionbudgets"): manages,
        ("networking.k8s.io", "networkpolicies"): manages,
        ("keda.sh", "scaledobjects"): manages,
        ("apps", "replicasets"): reads,
        ("apps", "statefulsets"): reads,
        ("", "pods"): reads,
        ("", "events"): reads,
        ("", "resourcequotas"): reads,
        ("", "pods/log"): {"get"},
        ("", "services/proxy"): {"get", "create"},
        ("", "pods/proxy"): {"get", "create"},
        ("", "secrets[gateway]"): {"get"},
        ("", "secrets[mongodb]"): {"get"},
        ("", "secrets[registry-login]"): {"get"},
    }


US = "modelyard"
MODEL = Somebody("model", {NAME: "tumor-2", COMPONENT: "model", PART_OF: "modelyard"}, US)
PROMETHEUS = Somebody("prometheus", {NAME: "prometheus"}, "monitoring")
RAY = Somebody("ray", {"ray.io/cluster": "modelyard"}, "modelyard-ray")
STRANGER = Somebody("stranger", {NAME: "gateway"}, "default")  # who calls themselves what they like, elsewhere
DNS = Somebody("dns", {"k8s-app": "kube-dns"}, "kube-system")
OUTSIDE = Somebody("outside", address="203.0.113.9")
API_SERVER = Somebody("api server", address="192.0.2.1")
ENGINE = Somebody("docker engine", address="192.0.2.20")
ANYBODY = {"outside", "api server", "docker engine", "prometheus", "ray", "stranger", "dns"}

EXPECTED = {
    ("gateway", 7400): ANYBODY | {"jupyterlab", "jenkins-agent"},
    ("gateway", 7410): {"prometheus"},
    ("console", 7401): {"gateway", "model"},
    ("model", 3000): {"gateway", "prometheus", "api server"},
    ("mongodb", 27017): {"mongodb", "mongodb-init", "console", "omniboard", "jupyterlab", "jenkins-agent", "ray"},
    ("mlflow", 5000): {"jupyterlab", "jenkins-agent", "ray"},
    ("postgresql", 5432): {"mlflow"},
    ("registry", 5000): ANYBODY | {"jenkins-agent"},
    ("jenkins", 8080): {"jenkins-agent"},
    ("omniboard", 9000): set(),
    ("jupyterlab", 8888): set(),
    ("outside", 443): {"mlflow", "jupyterlab", "jenkins", "jenkins-agent"},
    ("outside", 6443): {"jenkins", "jenkins-agent"},
    ("outside", 80): set(),
    ("outside", 22): set(),
    ("docker engine", 2376): {"jenkins-agent"},
    ("docker engine", 32768): {"jenkins-agent"},
    ("stranger", 443): {"mlflow", "jupyterlab", "jenkins", "jenkins-agent"},
    ("stranger", 8080): set(),
}


def everybody(objects: Sequence[Object]) -> dict[str, Somebody]:
    ours = {w.labels[NAME]: Somebody(w.labels[NAME], w.labels, US) for w in workloads("", objects)}
    others = (MODEL, PROMETHEUS, RAY, STRANGER, DNS, OUTSIDE, API_SERVER, ENGINE)
    return ours | {each.name: each for each in others}


def test_who_reaches_whom_is_as_it_is_meant(production: tuple[Object, ...]) -> None:
    policies, people = of_kind(production, "NetworkPolicy"), everybody(production)
    inside = {name for name, each in people.items() if each.namespace == US}
    for (name, port), expected in EXPECTED.items():
        # From one place outside to another is not for our policies to say.
        asking = people if people[name].namespace == US else inside
        found = {a for a in asking if may_connect(policies, people[a], people[name], port)}
        assert found == expected, f"{name}:{port}"


def test_every_port_that_somebody_listens_on_is_in_that_table(production: tuple[Object, ...]) -> None:
    listening = {
        (workload.labels[NAME], port["containerPort"])
        for workload in workloads("production", production)
        for container in workload.containers
        for port in container.get("ports", [])
    }
    assert listening | {("model", 3000)} == {key for key in EXPECTED if key[0] not in ANYBODY}


def test_a_port_that_nobody_listens_on_is_shut(production: tuple[Object, ...]) -> None:
    policies, people = of_kind(production, "NetworkPolicy"), everybody(production)
    for a in people.values():
        for b in people.values():
            if b.namespace == US:
                assert not may_connect(policies, a, b, 4321), f"{a.name} reaches {b.name}"


def test_everybody_may_ask_for_a_name(production: tuple[Object, ...]) -> None:
    policies = of_kind(production, "NetworkPolicy")
    for each in everybody(production).values():
        assert may_connect(policies, each, DNS, 53, "UDP"), each.name
    assert not may_connect(policies, MODEL, OUTSIDE, 53, "UDP"), "names are a way out, too"


def test_a_model_reaches_the_console_and_nothing_else(production: tuple[Object, ...]) -> None:
    policies, people = of_kind(production, "NetworkPolicy"), everybody(production)
    another = Somebody("another", {**MODEL.labels, NAME: "digits-1"}, US)
    targets = [*people.values(), another]
    ports = {port for _, port in EXPECTED} | {53, 3000}
    reached = {(b.name, port) for b in targets for port in ports if may_connect(policies, MODEL, b, port)}
    assert reached == {("console", 7401), ("dns", 53)}


def test_the_overlays_without_monitoring_let_in_no_more(rendered: Rendered, production: tuple[Object, ...]) -> None:
    most = of_kind(production, "NetworkPolicy")
    for place in ("dev", "test"):
        objects = rendered[place]
        policies, people = of_kind(objects, "NetworkPolicy"), everybody(objects)
        for (name, port), _ in EXPECTED.items():
            for a in people:
                if name in people and may_connect(policies, people[a], people[name], port):
                    assert may_connect(most, people[a], people[name], port), f"{place}: {a} reaches {name}:{port}"


def _policy(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": US, "name": "p"}, "spec": {"podSelector": {}, **spec}}


A, B = Somebody("a", {"app": "a"}, US), Somebody("b", {"app": "b"}, US)
FROM_A = {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}


@pytest.mark.parametrize(
    ("policies", "asking", "port", "expected"),
    [
        ([], A, 1, True),  # without a policy, everything is open
        ([_policy(policyTypes=["Ingress"])], A, 1, False),
        ([_policy(policyTypes=["Egress"])], A, 1, False),  # both sides have to agree
        ([_policy(policyTypes=["Egress"])], OUTSIDE, 1, True),
        ([_policy(ingress=[{}])], A, 1, True),
        ([_policy(ingress=[FROM_A])], A, 1, True),
        ([_policy(ingress=[FROM_A])], B, 1, False),
        ([_policy(ingress=[FROM_A])], Somebody("a", {"app": "a"}, "default"), 1, False),  # another namespace's a
        ([_policy(ingress=[FROM_A | {"ports": [{"port": 2}]}])], A, 1, False),
        ([_policy(ingress=[FROM_A | {"ports": [{"port": 1, "endPort": 3}]}])], A, 2, True),
        ([_policy(ingress=[FROM_A | {"ports": [{"protocol": "UDP", "port": 1}]}])], A, 1, False),
        ([_policy(policyTypes=["Ingress"]), _policy(ingress=[FROM_A])], A, 1, True),  # what any of them lets through
        ([_policy(ingress=[{"from": [{"namespaceSelector": {}}]}])], PROMETHEUS, 1, True),
        ([_policy(ingress=[{"from": [{"namespaceSelector": {}}]}])], OUTSIDE, 1, False),
        ([_policy(ingress=[{"from": [{"namespaceSelector": {}, **FROM_A["from"][0]}]}])], PROMETHEUS, 1, False),
        ([_policy(ingress=[{"from": [{"namespaceSelector": {}}, *FROM_A["from"]]}])], PROMETHEUS, 1, True),  # or
        ([_policy(ingress=[{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}])], OUTSIDE, 1, True),
        ([_policy(ingress=[{"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.8/29"]}}]}])],
         OUTSIDE, 1, False),
        ([_policy(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])], A, 1, False),
        ([_policy(podSelector={"matchLabels": {"app": "a"}}, policyTypes=["Ingress"])], A, 1, True),  # not about b
        ([_policy(podSelector={"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]},
                  policyTypes=["Ingress"])], A, 1, False),
    ],
)  # fmt: skip
def test_policies_are_read_as_their_reference_describes_them(
    policies: list[dict[str, Any]], asking: Somebody, port: int, expected: bool
) -> None:
    assert may_connect(policies, asking, B, port) is expected
