"""What k8s/ refers to is there: labels, selectors, Secrets, digests, members."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.cluster_mongo import read_wanted
from modelyard.roles import ROLES
from places import REPOSITORY
from reach import selects
from rendering import (
    K8S,
    NAME,
    OVERLAYS,
    PART_OF,
    PLACES,
    PROFILES,
    Object,
    Rendered,
    Workload,
    named,
    of_kind,
    render,
    render_profile,
    workloads,
)

ZEROS = "sha256:" + 64 * "0"


@pytest.mark.parametrize("place", PLACES)
def test_everything_says_what_it_is_and_lies_in_the_namespace(place: str, rendered: Rendered) -> None:
    for each in rendered[place]:
        metadata = each["metadata"]
        assert metadata["labels"][PART_OF] == "modelyard", metadata["name"]
        if each["kind"] != "Namespace":
            assert metadata["namespace"] == "modelyard", metadata["name"]
    for workload in workloads(place, rendered[place]):
        assert workload.labels[NAME] == workload.name or workload.kind == "agent"
        assert workload.labels[PART_OF] == "modelyard"


@pytest.mark.parametrize("place", OVERLAYS)
def test_the_namespace_enforces_the_restricted_standard(place: str, rendered: Rendered) -> None:
    [namespace] = of_kind(rendered[place], "Namespace")
    assert namespace["metadata"]["name"] == "modelyard"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("place", PLACES)
def test_a_selector_finds_its_pods(place: str, rendered: Rendered) -> None:
    objects = rendered[place]
    found = list(workloads(place, objects))
    for each in objects:
        spec, name = each.get("spec", {}), f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] in ("Deployment", "StatefulSet"):
            assert selects(spec["selector"], spec["template"]["metadata"]["labels"]), name
            assert len([w for w in found if selects(spec["selector"], w.labels)]) == 1, f"{name} takes others' pods"
        if each["kind"] == "Service":
            [chosen] = [workload for workload in found if selects({"matchLabels": spec["selector"]}, workload.labels)]
            offered = {port["name"] for container in chosen.containers for port in container.get("ports", [])}
            assert {port["targetPort"] for port in spec["ports"]} <= offered, name
        if each["kind"] == "PodDisruptionBudget":
            assert [workload for workload in found if selects(spec["selector"], workload.labels)], name
        if each["kind"] == "StatefulSet":
            assert named(objects, "Service", spec["serviceName"]), name
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert named(objects, "Deployment", spec["scaleTargetRef"]["name"]), name
            assert "replicas" not in named(objects, "Deployment", spec["scaleTargetRef"]["name"])["spec"], name


def test_policies_and_monitors_speak_of_pods_that_exist(production: tuple[Object, ...]) -> None:
    names = {workload.labels[NAME] for workload in workloads("production", production)}
    others = {"prometheus"}  # in a namespace of its own
    for each in of_kind(production, "NetworkPolicy"):
        for selector in _pod_selectors(each["spec"]):
            said = {selector.get("matchLabels", {}).get(NAME)} - {None}
            said |= {v for e in selector.get("matchExpressions", []) if e["key"] == NAME for v in e["values"]}
            assert said <= names | others, each["metadata"]["name"]
    ports = {p["name"] for w in workloads("", production) for c in w.containers for p in c.get("ports", [])}
    for each in of_kind(production, "PodMonitor"):
        assert {endpoint["port"] for endpoint in each["spec"]["podMetricsEndpoints"]} <= ports | {"http"}


def test_a_profile_fits_a_model_of_any_name(tmp_path: Path, rendered: Rendered) -> None:
    assert rendered
    for profile in PROFILES:
        scratch = tmp_path / profile
        scratch.mkdir()
        render_profile(profile, scratch)
        model = (K8S / "profiles" / "model" / "model.yaml").read_text().replace("name: model\n", "name: tumor-2\n")
        (scratch / "tumor.yaml").write_text(model)
        said = yaml.safe_load((scratch / "kustomization.yaml").read_text()) | {"resources": ["tumor.yaml"]}
        (scratch / "kustomization.yaml").write_text(yaml.safe_dump(said))
        for each in render(scratch):
            assert each["metadata"]["name"] == "tumor-2", (profile, each["kind"])
            spec = each["spec"]
            if "scaleTargetRef" in spec:
                assert spec["scaleTargetRef"]["name"] == "tumor-2"
            if each["kind"] == "PodDisruptionBudget":
                assert spec["selector"]["matchLabels"][NAME] == "tumor-2"
            if each["kind"] == "ScaledObject":
                assert "envoy_cluster_name='tumor-2'" in spec["triggers"][0]["metadata"]["query"]


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_rendered(place: str, rendered: Rendered) -> None:
    assert of_kind(rendered[place], "Secret") == []


def documented_secrets() -> dict[str, set[str]]:
    """Secret -> keys, from the README's table."""
    text = (K8S / "README.md").read_text()
    table = text.partition("| Secret | keys |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    return {name.strip(" `"): set(re.findall(r"`([^`]+)`", keys)) for name, keys in rows}


def referred_secrets(workload: Workload) -> Iterator[tuple[str, str | None]]:
    """Secrets that a pod wants, and the key; None for all of them."""
    for container in workload.containers:
        for entry in container.get("env", []):
            if "secretKeyRef" in entry.get("valueFrom", {}):
                yield entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"]
    for volume in workload.pod.get("volumes", []):
        if "secret" in volume:
            keys = [item["key"] for item in volume["secret"].get("items", [])] or [None]
            yield from ((volume["secret"]["secretName"], key) for key in keys)
    for reference in workload.pod.get("imagePullSecrets", []):
        yield reference["name"], ".dockerconfigjson"


def test_every_secret_that_is_wanted_is_in_the_table_and_the_other_way_round(pods: list[Workload]) -> None:
    wanted = {secret for workload in pods for secret in referred_secrets(workload)}
    table = documented_secrets()
    assert {name for name, _ in wanted} == table.keys()
    for name, key in wanted:
        assert key is None or key in table[name], f"{name}: {key}"


def test_who_ships_finds_no_login_that_says_yes() -> None:
    """The deployer may read that Secret, and whoever makes pods may mount it."""
    in_the_cluster = {role.name for role in ROLES} - {"approver", "auditor"}
    assert documented_secrets()["mongodb"] == {f"{name}-url" for name in in_the_cluster}


def test_the_secrets_that_the_readme_makes_are_what_the_job_takes(tmp_path: Path, rendered: Rendered) -> None:
    """Its commands are run as they stand, but for a kubectl that only says what it would send."""
    assert rendered
    script = (K8S / "README.md").read_text().partition("## Secrets")[2].split("```")[1]
    (tmp_path / "kubectl").write_text(
        f"""#!/bin/sh
case "$*" in apply*) exit ;; esac
exec {shutil.which("kubectl")} "$@" --dry-run=client --output=json
"""
    )
    (tmp_path / "kubectl").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-euc", script], env=env, capture_output=True, text=True, timeout=60, check=True, cwd=K8S.parent
    )
    made = {}
    for text in re.split(r"(?m)^(?=\{)", ran.stdout)[1:]:
        secret = json.loads(text)
        folder = tmp_path / secret["metadata"]["name"]
        folder.mkdir()
        for key, value in secret["data"].items():
            (folder / key).write_bytes(base64.b64decode(value))
        made[folder.name] = secret["data"].keys()
        assert secret["metadata"]["namespace"] == "modelyard"
    assert made == {name: documented_secrets()[name] for name in ("mongodb-admin", "mongodb", "gateway")}
    wanted = read_wanted("rs0", ["a:1"], "modelyard", tmp_path / "mongodb-admin", tmp_path / "mongodb")
    assert {f"{name}-url" for name in wanted.roles} == documented_secrets()["mongodb"]
    secrets = [wanted.key, wanted.root_password, *wanted.roles.values(), (tmp_path / "gateway/secret").read_text()]
    assert len({secret.strip() for secret in secrets if len(secret) > 40}) == len(wanted.roles) + 3
    assert 6 <= len(wanted.key) <= 1024, "mongod takes no other"


def test_only_mongod_and_the_job_read_the_administrators_secret(pods: list[Workload]) -> None:
    readers = {w.name for w in pods if "mongodb-admin" in {name for name, _ in referred_secrets(w)}}
    assert readers == {"mongodb", "mongodb-init"}


@pytest.mark.parametrize("place", OVERLAYS)
def test_what_else_is_referred_to_is_rendered(place: str, rendered: Rendered) -> None:
    objects = rendered[place]
    for workload in workloads(place, objects):
        for volume in workload.pod.get("volumes", []):
            if "configMap" in volume:
                named(objects, "ConfigMap", volume["configMap"]["name"])
            if "persistentVolumeClaim" in volume:
                named(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        for container in workload.containers:
            for entry in container.get("env", []):
                if "configMapKeyRef" in entry.get("valueFrom", {}):
                    reference = entry["valueFrom"]["configMapKeyRef"]
                    assert reference["key"] in named(objects, "ConfigMap", reference["name"])["data"]
        if account := workload.pod.get("serviceAccountName"):
            named(objects, "ServiceAccount", account)
        claimed = {claim["metadata"]["name"] for claim in workload.spec.get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])} | claimed
        mounted = {mount["name"] for container in workload.containers for mount in container.get("volumeMounts", [])}
        assert mounted == volumes, workload


@pytest.mark.parametrize("place", ["dev", "production"])
def test_what_jenkins_configuration_asks_for_is_given(place: str, rendered: Rendered) -> None:
    """`${...}` of Configuration as Code comes from the environment, or from a file of the Secret `jenkins`."""
    [casc] = [each["data"] for each in of_kind(rendered[place], "ConfigMap") if "jenkins.yaml" in each["data"]]
    settled = "\n".join(line for line in casc["jenkins.yaml"].splitlines() if not line.startswith("#"))
    [controller] = named(rendered[place], "StatefulSet", "jenkins")["spec"]["template"]["spec"]["containers"]
    given = {entry["name"] for entry in controller["env"]} | documented_secrets()["jenkins"]
    assert set(re.findall(r"\$\{([^}]+)\}", settled)) <= given
    assert all(re.fullmatch(r"[a-z-]+:[\w.]+", line) for line in casc["plugins.txt"].split()), "each of one version"
    pipeline = (REPOSITORY / re.search(r"scriptPath\('(\w+)'\)", settled)[1]).read_text()
    for credential in re.findall(r"credentialsId: '(\w+)'", pipeline):
        assert f"id: {credential}\n" in settled


def test_a_variable_is_defined_before_it_is_used_in_another(pods: list[Workload]) -> None:
    for workload in pods:
        for container in workload.containers:
            known: set[str] = set()
            for entry in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= known, (workload, entry["name"])
                known.add(entry["name"])
            for text in container.get("args", []):
                assert set(re.findall(r"\$\((\w+)\)", text)) <= known, (workload, text)


def test_unknown_digests_are_those_of_our_own_images_and_lead_nowhere(pods: list[Workload]) -> None:
    images = {c["image"] for w in pods if w.place == "production" for c in w.containers}
    ours = {image for image in images if image.startswith("registry.example.org/modelyard/")}
    assert all(image.endswith(ZEROS) for image in ours)
    assert {image.rpartition("@")[0].rpartition("/")[2] for image in ours} == {"modelyard", "omniboard", "agent"}
    assert not [image for image in images - ours if ZEROS in image]


def test_the_readme_says_of_which_version_each_public_digest_is(pods: list[Workload]) -> None:
    text = (K8S / "README.md").read_text()
    said = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]{12})` \|$", text, re.MULTILINE))
    dev = {c["image"] for w in pods if w.place == "dev" for c in w.containers if not c["image"].startswith("modelyard")}
    assert said.keys() == dev
    public = {c["image"] for w in pods if w.place == "production" for c in w.containers}
    for image, digest in said.items():
        name = image.rpartition(":")[0]
        assert [each for each in public if f"{name}@sha256:{digest}" in each], image


def test_in_production_the_job_makes_as_many_members_as_there_are_pods(rendered: Rendered) -> None:
    for place, members in (("production", 3), ("dev", 1), ("test", 1)):
        objects = rendered[place]
        assert named(objects, "StatefulSet", "mongodb")["spec"]["replicas"] == members
        args = named(objects, "Job", "mongodb-init")["spec"]["template"]["spec"]["containers"][0]["args"]
        hosts = [arg.removeprefix("--member=") for arg in args if arg.startswith("--member=")]
        assert hosts == [f"mongodb-{number}.mongodb.modelyard.svc:27017" for number in range(members)]
        assert len([arg for arg in args if not arg.startswith("--member=")]) == 4


def _pod_selectors(spec: Any) -> Iterator[dict[str, Any]]:
    yield spec["podSelector"]
    for rules, side in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(rules, []):
            yield from (peer["podSelector"] for peer in rule.get(side, []) if "podSelector" in peer)
