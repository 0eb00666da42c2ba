"""May A connect to B? What NetworkPolicies say of that, worked out as their reference describes it. Pure.

Where no policy of a direction selects a pod, that direction is open; else it is what any of them lets through. A
connection needs both: the one who asks must be let out, the one who is asked must let in.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NAMESPACE_NAME = "kubernetes.io/metadata.name"  # Kubernetes puts this label on each namespace


@dataclass(frozen=True)
class Somebody:
    """A pod, by its labels and its namespace's; or an address outside."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    address: str = ""

    @property
    def is_pod(self) -> bool:
        return not self.address


def may_connect(
    policies: Sequence[Mapping[str, Any]], a: Somebody, b: Somebody, port: int, protocol: str = "TCP"
) -> bool:
    """May `a` open a connection to `b` on this port?"""
    return _open(policies, "Egress", a, b, port, protocol) and _open(policies, "Ingress", b, a, port, protocol)


def _open(
    policies: Sequence[Mapping[str, Any]], direction: str, owner: Somebody, other: Somebody, port: int, protocol: str
) -> bool:
    if not owner.is_pod:
        return True  # policies are about pods
    about = [policy for policy in policies if _is_about(policy, owner) and direction in _directions(policy["spec"])]
    rules, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return not about or any(
        _lets(rule, side, policy["metadata"]["namespace"], other, port, protocol)
        for policy in about
        for rule in policy["spec"].get(rules, [])
    )


def _is_about(policy: Mapping[str, Any], pod: Somebody) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and selects(policy["spec"]["podSelector"], pod.labels)


def _directions(spec: Mapping[str, Any]) -> Sequence[str]:
    said: Sequence[str] = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return said


def _lets(rule: Mapping[str, Any], side: str, namespace: str, other: Somebody, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if ports and not any(_covers(each, port, protocol) for each in ports):
        return False
    peers = rule.get(side)
    return not peers or any(_is(peer, namespace, other) for peer in peers)


def _covers(said: Mapping[str, Any], port: int, protocol: str) -> bool:
    if said.get("protocol", "TCP") != protocol:
        return False
    first = said.get("port")
    if first is None:
        return True
    assert isinstance(first, int), "a port's name means something else for each pod: say the number"
    return bool(first <= port <= said.get("endPort", first))


def _is(peer: Mapping[str, Any], namespace: str, other: Somebody) -> bool:
    if "ipBlock" in peer:
        if other.is_pod:
            return False  # blocks are for what is outside: pods' addresses come and go
        block, address = peer["ipBlock"], ipaddress.ip_address(other.address)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(each) for each in block.get("except", []))
    if not other.is_pod:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {NAMESPACE_NAME: other.namespace}):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Does a label selector select this? An empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for said in selector.get("matchExpressions", []):
        key, operator, values = said["key"], said["operator"], said.get("values", [])
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held[operator]:
            return False
    return True
