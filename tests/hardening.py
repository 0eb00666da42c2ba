"""What a pod must be like before it runs in the cluster: a rule each, pure, which says what is wrong."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from rendering import Workload, of_kind

Rule = Callable[[Workload], Iterator[str]]

# Who speaks to Kubernetes' API: Jenkins starts its agents, and they run `yard deploy`.
WITH_A_TOKEN = {"jenkins", "jenkins-agent"}
_HOLDS_A_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|LOGIN|ACCESS_KEY|MONGO_UR[IL]|STORE_URI")
_PASSWORD_IN_A_URL = re.compile(r"://[^/\s]*:[^/\s]*@")
_VOLUMES = {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}
_UNITS = {"m": 0.001, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def nobody_is_root(workload: Workload) -> Iterator[str]:
    pod = workload.pod.get("securityContext", {})
    if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser", 0) > 0:
        yield "the pod does not say who its user is, and that it is not root"
    for container in workload.containers:
        context = _context(container)
        if context.get("runAsNonRoot") is not True or context.get("runAsUser", 1) == 0:
            yield f"{container['name']} may be root"


def nobody_gains_privileges(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        context = _context(container)
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{container['name']} may gain privileges"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} keeps capabilities"


def system_calls_are_filtered(workload: Workload) -> Iterator[str]:
    for name, context in [
        ("the pod", workload.pod.get("securityContext", {})),
        *((container["name"], _context(container)) for container in workload.containers),
    ]:
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} does not filter system calls"


def the_root_file_system_is_read_only(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        if _context(container).get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} writes into its image"


def scratch_space_is_bounded(workload: Workload) -> Iterator[str]:
    memory = sum(_number(c["resources"]["limits"]["memory"]) for c in workload.pod["containers"] if c.get("resources"))
    for volume in workload.pod.get("volumes", []):
        if "emptyDir" not in volume:
            continue
        limit = volume["emptyDir"].get("sizeLimit")
        if limit is None:
            yield f"the volume {volume['name']} may fill the node's disk"
        elif volume["emptyDir"].get("medium") == "Memory" and _number(limit) > memory / 2:
            yield f"the volume {volume['name']} is memory, and may take most of the pod's"


def a_pod_sees_nothing_of_its_node(workload: Workload) -> Iterator[str]:
    for key in workload.pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"}:
        yield f"the pod says {key}"
    for volume in workload.pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"the volume {volume['name']} is a {kind}"
    for container in workload.containers:
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{container['name']} takes a port of the node"


def a_container_gets_what_it_may_use_and_no_more(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        for kind in ("cpu", "memory"):
            if kind not in requests or kind not in limits:
                yield f"{container['name']} does not say how much {kind} it wants, or may have"
            elif _number(requests[kind]) > _number(limits[kind]):
                yield f"{container['name']} wants more {kind} than it may have"
        # Memory cannot be taken back as time on a processor can: what was promised twice kills somebody.
        if requests.get("memory") != limits.get("memory"):
            yield f"{container['name']} may take more memory than it was promised"


def who_listens_is_asked_whether_it_does(workload: Workload) -> Iterator[str]:
    if not workload.serves:
        return
    for container in workload.pod["containers"]:
        wanted = {"startupProbe", "readinessProbe", "livenessProbe"} if container.get("ports") else {"startupProbe"}
        for probe in sorted(wanted - container.keys()):
            yield f"{container['name']} has no {probe}"
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in sorted(wanted & container.keys()):
            ask = container[probe]
            named = ask.get("httpGet", ask.get("tcpSocket", {})).get("port")
            if named is not None and named not in ports:
                yield f"{container['name']} is asked on a port that it does not have, {named}"


def no_key_to_kubernetes_where_none_is_needed(workload: Workload) -> Iterator[str]:
    token = workload.pod.get("automountServiceAccountToken")
    if not isinstance(token, bool):
        yield "the pod does not say whether it gets a key to Kubernetes, so it gets one"
    elif token and workload.labels["app.kubernetes.io/name"] not in WITH_A_TOKEN:
        yield "the pod gets a key to Kubernetes"


def secrets_come_from_secrets(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        for entry in container.get("env", []):
            name = entry["name"]
            said = "secretKeyRef" in entry.get("valueFrom", {}) or entry.get("value", "").startswith("/")  # or a place
            if _HOLDS_A_SECRET.search(name) and not said:
                yield f"{container['name']}: {name} does not come from a Secret"
        for text in _texts(container):
            if _PASSWORD_IN_A_URL.search(text):
                yield f"{container['name']}: there is a password in {text!r}"


def secret_files_are_read_by_those_who_need_them(workload: Workload) -> Iterator[str]:
    secret = {}
    for volume in workload.pod.get("volumes", []):
        if "secret" in volume:
            secret[volume["name"]] = volume["secret"]
    for name, said in secret.items():
        if said.get("defaultMode") != 0o440:
            yield f"everybody in the pod may read the volume {name}"
    for container in workload.containers:
        for mount in container.get("volumeMounts", []):
            if mount["name"] in secret and mount.get("readOnly") is not True:
                yield f"{container['name']} mounts {mount['name']} to write into it"


def replicas_are_spread_over_nodes(workload: Workload) -> Iterator[str]:
    if not workload.serves or workload.replicas < 2:
        return
    spread = workload.pod.get("topologySpreadConstraints", [])
    if "kubernetes.io/hostname" not in {each["topologyKey"] for each in spread}:
        yield "all replicas may be on one node"
    for each in spread:
        if not _selects(each["labelSelector"], workload.labels):
            yield f"what is spread by {each['topologyKey']} is something else"


def replicas_do_not_go_all_at_once(workload: Workload) -> Iterator[str]:
    if not workload.serves or workload.replicas < 2:
        return
    budgets = [
        budget["spec"]
        for budget in of_kind(workload.beside, "PodDisruptionBudget")
        if _selects(budget["spec"]["selector"], workload.labels)
    ]
    if len(budgets) != 1:
        yield f"{len(budgets)} disruption budgets cover it, not one"
    for budget in budgets:
        kept = budget.get("minAvailable", workload.replicas - budget.get("maxUnavailable", workload.replicas))
        if not 0 < kept < workload.replicas:
            yield f"its budget keeps {kept} of {workload.replicas}: a node could never be emptied, or all may go"


def a_rollout_adds_before_it_takes_away(workload: Workload) -> Iterator[str]:
    if workload.kind == "Deployment" and workload.replicas > 1:
        said = workload.spec.get("strategy", {}).get("rollingUpdate", {})
        if said.get("maxUnavailable") != 0 or not said.get("maxSurge", 0) > 0:
            yield "a rollout takes a replica away before another one is there"


def what_is_under_way_is_finished(workload: Workload) -> Iterator[str]:
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    for container in workload.pod["containers"]:
        stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        if stop[:1] == ["sleep"] and int(stop[1]) >= grace:
            yield f"{container['name']} sleeps until it is killed"


def images_are_named_by_digest(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        if not re.fullmatch(r"[^\s:@]+(:\d+)?[^\s:@]*@sha256:[0-9a-f]{64}", container["image"]):
            yield f"{container['name']}: {container['image']} may be another image tomorrow"


def images_are_not_whatever_is_newest(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        name = container["image"].rpartition("/")[2]
        if "@" not in name and (":" not in name or name.endswith(":latest")):
            yield f"{container['name']}: {container['image']} has no version"
        if container.get("imagePullPolicy") != "IfNotPresent":
            yield f"{container['name']} asks the registry at each start, or as its tag happens to be"


EVERYWHERE: tuple[Rule, ...] = (
    nobody_is_root,
    nobody_gains_privileges,
    system_calls_are_filtered,
    the_root_file_system_is_read_only,
    scratch_space_is_bounded,
    a_pod_sees_nothing_of_its_node,
    a_container_gets_what_it_may_use_and_no_more,
    who_listens_is_asked_whether_it_does,
    no_key_to_kubernetes_where_none_is_needed,
    secrets_come_from_secrets,
    secret_files_are_read_by_those_who_need_them,
    replicas_are_spread_over_nodes,
    a_rollout_adds_before_it_takes_away,
    what_is_under_way_is_finished,
    images_are_not_whatever_is_newest,
)
SOMEWHERE: tuple[Rule, ...] = (replicas_do_not_go_all_at_once, images_are_named_by_digest)  # not on an old test cluster


def _context(container: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = container.get("securityContext", {})
    return found


def _texts(container: dict[str, Any]) -> Iterator[str]:
    yield from container.get("command", [])
    yield from container.get("args", [])
    yield from (entry["value"] for entry in container.get("env", []) if "value" in entry)


def _selects(selector: dict[str, Any], labels: Any) -> bool:
    return all(labels.get(key) == value for key, value in selector["matchLabels"].items())


def _number(quantity: Any) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]
