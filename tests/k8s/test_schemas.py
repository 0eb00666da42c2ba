"""Every field of k8s/ is one that Kubernetes knows: the newest, and for our own tests an old one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import SchemaNotFoundError, ValidationError

from rendering import PLACES, Object, Rendered, named, of_kind, workloads

CRDS = yaml.safe_load((Path(__file__).parent / "crds.schema.yaml").read_text())
OF_OTHERS = ("monitoring.coreos.com/", "keda.sh/")  # API groups that Kubernetes does not bring


def newest() -> str:
    return str(kubernetes_validate.latest_version())


def faults(objects: Sequence[Object], version: str) -> Iterator[str]:
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}"
        try:
            if each["apiVersion"].startswith(OF_OTHERS):
                jsonschema.validate(each, CRDS, jsonschema.Draft202012Validator)
            else:
                kubernetes_validate.validate(each, version, strict=True)
        except (ValidationError, SchemaNotFoundError, jsonschema.ValidationError) as error:
            yield f"{name}: {getattr(error, 'message', error)}"


@pytest.mark.parametrize("place", PLACES)
def test_every_field_is_one_that_the_newest_kubernetes_knows(place: str, rendered: Rendered) -> None:
    assert list(faults(rendered[place], newest())) == []


def test_a_misspelt_field_does_not_go_unnoticed(production: tuple[Object, ...]) -> None:
    broken = next(found for found in workloads("production", production) if found.name == "gateway").copy()
    broken.containers[0]["securityContext"]["readOnlyRootFileSystem"] = True
    deployment = named(production, "Deployment", "gateway") | {"spec": broken.spec}
    assert [fault for fault in faults([deployment], newest()) if "readOnlyRootFileSystem" in fault]
    rule = named(production, "PrometheusRule", "modelyard")
    assert list(faults([rule], newest())) == []
    assert list(faults([{**rule, "spec": {"group": []}}], newest())) != []


def test_the_old_kubernetes_of_our_own_tests_knows_everything_in_their_overlay(rendered: Rendered) -> None:
    kinds = {(each["apiVersion"], each["kind"]) for each in rendered["test"]}
    assert {group for group, _ in kinds} == {
        "v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1",
    }  # fmt: skip
    assert "PersistentVolumeClaim" not in {kind for _, kind in kinds}
    for stateful in of_kind(rendered["test"], "StatefulSet"):
        assert not stateful["spec"].get("volumeClaimTemplates"), "there is no storage class"


def test_the_overlay_of_our_own_tests_is_small_and_of_images_built_there(rendered: Rendered) -> None:
    found = list(workloads("test", rendered["test"]))
    assert {workload.name for workload in found} == {"mongodb", "mongodb-init", "console", "gateway"}
    images = {container["image"] for workload in found for container in workload.containers}
    assert images == {"modelyard:test", "modelyard-envoy:test", "modelyard-mongod:test"}
    assert {workload.replicas for workload in found if workload.name != "gateway"} == {1}
    wanted = [(w.replicas, c["resources"]["requests"]["cpu"]) for w in found for c in w.containers]
    assert sum(replicas * float(cpu.removesuffix("m")) for replicas, cpu in wanted) < 500
