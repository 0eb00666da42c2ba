"""The road's last part on a real Kubernetes: `yard deploy`, `yard split`, and what answers, as an engineer and callers
see it. The engineer has MongoDB's role of that name, and a service account with a role in one namespace."""

import json
import math
from collections import defaultdict
from dataclasses import replace

import pytest

from asking import wait_until
from modelyard.status import observe
from modelyard.trace import trace
from modelyard_serving.endpoints import Deployment
from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.kubernetes.stage import KubernetesStage
from production import PREDICT, Production

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
UNITS = 1000


def test_two_versions_answer_their_share_of_the_units_always_the_same_and_all_is_traced(stage: Production) -> None:
    stage.command("deploy", "tumor:1", "--replicas", "2")
    stage.command("deploy", "tumor:2", "--replicas", "2", "--variant", "challenger")
    stage.command("split", "tumor", "champion=80", "challenger=20")
    seen, ids = defaultdict(set), []
    with stage.http() as http:
        for number in range(2 * UNITS):
            unit = f"unit-{number % UNITS}"
            answer = http.post(PREDICT, content=stage.body, headers={"x-unit-id": unit})
            assert answer.status_code == 200, answer.text
            seen[unit].add(answer.headers["x-variant"])
            ids.append(answer.headers["x-prediction-id"])
    assert {len(variants) for variants in seen.values()} == {1}, "a unit met two variants"
    share = sum(variants == {"challenger"} for variants in seen.values()) / UNITS
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / UNITS)
    wait_until(lambda: stage.audited(ids) == len(ids), 60)
    found = trace(stage.owner, ids[0])
    assert found.holds, [link for link in found.links if not link.holds]
    version = stage.owner.db.predictions.find_one({"_id": ids[0]})["version"]
    image = stage.wanted(version).image
    assert next(link for link in found.links if link.name == "image").digest == image.partition("@sha256:")[2]


def test_a_rollback_brings_the_version_before(stage: Production) -> None:
    stage.command("deploy", "tumor:1")
    stage.command("deploy", "tumor:2")
    with stage.http() as http:
        assert http.post(PREDICT, content=stage.body).headers["x-model-version"] == "2"
        stage.command("rollback", "tumor")
        assert http.post(PREDICT, content=stage.body).headers["x-model-version"] == "1"
        exact = http.post("/v1/endpoints/tumor/versions/2/predict", content=stage.body)
        assert exact.headers["x-model-version"] == "2"


def test_what_is_deployed_is_asked_again_what_its_build_asked_it(stage: Production) -> None:
    stage.deploy(stage.wanted(1))
    findings = json.loads(stage.command("smoke", "tumor:1", "--json"))
    assert {finding["check"] for finding in findings if finding["passed"]} >= {"golden", "cases", "provenance"}
    assert all(finding["passed"] for finding in findings)


def test_a_key_that_is_revoked_is_refused_by_every_gateway(stage: Production) -> None:
    stage.deploy(stage.wanted(1))
    key, token = stage.yard.issue_key("other", ["predict:tumor"])
    with stage.http(authorization=f"Bearer {token}", connection="close") as http:
        assert http.post(PREDICT, content=stage.body).status_code == 200
        stage.yard.revoke_key(key.id)
        assert {http.post(PREDICT, content=stage.body).status_code for _ in range(20)} == {401}


def test_what_somebody_changed_by_hand_is_found_and_mended(stage: Production) -> None:
    deployed = stage.deploy(stage.wanted(1), 2)
    assert json.loads(stage.command("status", "--json"))["drift"] == []
    stage.kubectl("scale", "deployment/tumor-1", "--replicas=1")
    stage.kubectl("set", "env", "deployment/tumor-1", "YARD_AUDIT_DIR=/elsewhere")
    stage.kubectl("delete", "service", "tumor-1")
    stage.kubectl("create", "deployment", "stray", "--image=modelyard:test")
    labels = [f"app.kubernetes.io/{name}={value}" for name, value in
              (("part-of", "modelyard"), ("component", "model"), ("managed-by", "modelyard"))]  # fmt: skip
    stage.kubectl("label", "deployment", "stray", *labels)
    said = "\n".join(json.loads(stage.command("status", "--json"))["drift"])
    for what in ("spec.replicas is 1", "should be /audit", "Service tumor-1 is missing", "stray runs"):
        assert what in said, said
    stage.command("up")
    assert json.loads(stage.command("status", "--json"))["drift"] == []
    wait_until(lambda: stage.ready(deployed), 60)
    with stage.http() as http:
        assert http.post(PREDICT, content=stage.body).status_code == 200


BROKEN = {
    "image": ("cannot be pulled", None),
    "crash": ("its container starts and ends", 'ENTRYPOINT ["sh", "-c", "echo the weights are missing; exit 3"]'),
    "probe": ("it does not get ready", 'ENTRYPOINT ["sleep", "600"]'),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_version_that_does_not_come_up_says_why_and_leaves_the_one_that_answers(stage: Production, what: str) -> None:
    stage.deploy(stage.wanted(1))
    said, dockerfile = BROKEN[what]
    wanted = stage.changed(1, dockerfile, f"odd{what}") if dockerfile else _without_image(stage)
    patient = 20 if what == "probe" else 120
    with pytest.raises(Unavailable) as raised:
        _impatient(stage, patient).deploy(stage.yard.endpoints.deployment("tumor-1"), wanted, None, lambda _: None)
    assert said in str(raised.value)
    if what == "crash":
        assert "the weights are missing" in str(raised.value)
    with stage.http() as http:
        answers = [http.post(PREDICT, content=stage.body) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    [variant] = observe(stage.yard)
    wait_until(lambda: observe(stage.yard)[0].holds, 60)
    assert variant.version == 1


def test_a_quota_that_is_used_up_is_said(stage: Production) -> None:
    stage.kubectl("create", "quota", "few", "--hard=pods=1")
    try:
        with pytest.raises(Unavailable, match="the quota is used up"):
            stage.deploy(stage.wanted(1))
    finally:
        stage.kubectl("delete", "quota", "few")
    assert stage.yard.endpoints.deployments() == []
    assert stage.pods("tumor-1") == []


def test_the_engineers_account_may_do_nothing_beyond_its_namespace(stage: Production) -> None:
    with pytest.raises(Refused, match="does not allow it"):
        stage.yard.cluster.list("v1", "Pod", "kube-system")
    with pytest.raises(Refused, match="does not allow it"):
        stage.yard.cluster.get("v1", "Secret", "modelyard", "mongodb-admin")


def test_a_killed_pod_ships_what_it_recorded_and_all_of_it_once(stage: Production) -> None:
    stage.deploy(stage.wanted(1), 2)
    with stage.http() as http:
        ids = [http.post(PREDICT, content=stage.body).headers["x-prediction-id"] for _ in range(50)]
        stage.kill("tumor-1", "model")
        ids += [http.post(PREDICT, content=stage.body).headers["x-prediction-id"] for _ in range(50)]
    assert len(set(ids)) == 100
    wait_until(lambda: stage.audited(ids) == 100, 60)


def test_doctor_looks_at_the_stage(stage: Production) -> None:
    found = {part["part"]: part for part in json.loads(stage.command("doctor", "--json"))}
    assert found["kubernetes"]["well"], found["kubernetes"]
    assert found["rights"]["well"], found["rights"]
    assert found["gateways"]["well"], found["gateways"]


def _without_image(stage: Production) -> Deployment:
    wanted = stage.wanted(1)
    return replace(wanted, image=f"{stage.engine.registry}/team/tumor@sha256:{'0' * 64}")


def _impatient(stage: Production, seconds: float) -> KubernetesStage:
    return replace(stage.yard.serving.stage, timeout_s=seconds)
