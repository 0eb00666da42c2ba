"""Smoke: a deployed version is asked what its build asked, past the gateway, and nobody's results change."""

import json
import time
from xml.etree import ElementTree

import pytest

from .conftest import Road

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

CALLER = {"caller": "yard smoke"}


def counted(road: Road) -> dict[str, int]:
    """What the results of the endpoint say, once they no longer grow: the audit arrives a moment after the answer."""
    seen: dict[str, int] = {}
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with road.http as http:
            rows = http.get("/v1/endpoints/tumor/results").json()["variants"]
        now = {row["variant"]: row["predictions"] + row["failures"] for row in rows}
        if now == seen:
            return now
        seen = now
        time.sleep(1)
    raise AssertionError(f"the results still grow: {seen}")


def test_a_good_deployment_is_green_and_what_it_is_asked_counts_in_no_result(road: Road) -> None:
    before, asked = counted(road), road.yard.db.predictions.count_documents(CALLER)
    findings = road.json("smoke", "tumor:1")
    assert [(finding["check"], finding["passed"]) for finding in findings] == [
        ("provenance", True), ("golden", True), ("cases", True),
    ]  # fmt: skip
    deadline = time.monotonic() + 15
    while road.yard.db.predictions.count_documents(CALLER) == asked and time.monotonic() < deadline:
        time.sleep(0.1)
    records = list(road.yard.db.predictions.find(CALLER))
    assert len(records) > asked, "it is in the audit"
    said = {(record["variant"], record["endpoint"], record["assigned_by"]) for record in records}
    assert said == {(None, None, None)}
    assert {record["door"] for record in records} == {"native", "v2", "invocations"}
    assert counted(road) == before


def test_what_was_found_is_written_for_jenkins(road: Road) -> None:
    done = road.command("smoke", "tumor@challenger", "--junit", "reports/smoke.xml")
    assert done.returncode == 0, done.stderr
    cases = list(ElementTree.parse(road.root / "reports" / "smoke.xml").iter("testcase"))  # noqa: S314 - our own
    assert {case.get("classname") for case in cases} == {"modelyard.tumor.challenger.smoke"}


def test_a_model_that_answers_otherwise_than_its_cases_say_is_found_out(road: Road) -> None:
    file = road.root / "projects" / "tumor" / "cases.json"
    kept = file.read_text()
    cases = json.loads(kept)
    typical = next(case for case in cases if case["kind"] == "typical")
    typical["expect"] = {"exact": {"predictions": ["neither"] * len(typical["rows"])}}
    file.write_text(json.dumps(cases))
    try:
        done = road.command("smoke", "tumor:1", "--junit", "reports/failed.xml")
    finally:
        file.write_text(kept)
    assert done.returncode == 4
    assert f"case {typical['name']!r}" in done.stderr.replace("\n", " ")
    report = ElementTree.parse(road.root / "reports" / "failed.xml")  # noqa: S314 - our own
    assert [failure.get("type") for failure in report.iter("failure")] == ["cases"]


def test_another_model_where_the_deployed_one_should_be_is_found_out(road: Road) -> None:
    deployments, other = road.yard.db.deployments, road.yard.endpoints.deployment("tumor-2")
    ports = road.yard.endpoints.deployment("tumor-1").ports
    deployments.update_one({"_id": "tumor-1"}, {"$set": {"ports": other.ports}})
    try:
        findings = {finding.check: finding for finding in road.yard.smoke("tumor:1")}
    finally:
        deployments.update_one({"_id": "tumor-1"}, {"$set": {"ports": ports}})
    assert findings["provenance"].stops
    assert findings["golden"].stops


def test_what_is_not_deployed_cannot_be_asked(road: Road) -> None:
    deployment = road.yard.endpoints.deployment("tumor-1")
    road.yard.endpoints.remove_deployment("tumor-1")
    try:
        done = road.command("smoke", "tumor:1")
    finally:
        road.yard.endpoints.put_deployment(deployment)
    assert done.returncode == 3
    assert "There is no deployment 'tumor-1'" in done.stderr
