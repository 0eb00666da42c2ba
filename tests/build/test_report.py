"""A report: its digest, and how other programs read it."""

import json
from xml.etree import ElementTree as ET

from modelyard_build.checks.finding import Finding
from modelyard_build.junit import junit_xml
from modelyard_build.report import Report, report_sha256
from modelyard_tracking.digests import text_sha256


def report(*findings: Finding) -> Report:
    return Report("tumor:2", "tumor:2-x", "b", "m", findings)


FINE = Finding("golden", True, "fine", seconds=1.25, measured="p99 3 ms")
WARNING = Finding("licences", False, "one is unknown", "Look it up.", "warning")
FAILED = Finding("cases", False, 'case "x" \x00 <&>', "Mend it.")


def test_one_failed_check_fails_the_report_and_changes_its_digest() -> None:
    good, bad = report(FINE), report(FINE, FAILED)
    assert good.passed
    assert not bad.passed
    assert good.sha256 != bad.sha256
    assert report_sha256(json.loads(json.dumps(good.to_dict()))) == good.sha256


def test_a_warning_stops_nothing_and_is_a_part_of_the_digest() -> None:
    assert report(FINE, WARNING).passed
    assert not report(FINE, WARNING).findings[1].stops
    assert report(FINE, WARNING).sha256 != report(FINE).sha256


def test_what_was_only_measured_does_not_change_the_digest() -> None:
    slower = Finding("golden", True, "fine", seconds=9.0, measured="p99 7 ms")
    assert report(slower).sha256 == report(FINE).sha256
    assert report(slower).to_dict()["findings"][0]["seconds"] == 9.0


def test_a_report_of_before_there_were_seconds_keeps_its_digest() -> None:
    old = {"ref": "m:1", "findings": [{"check": "a", "message": "m", "passed": True, "remedy": ""}], "passed": True}
    assert report_sha256(old) == text_sha256(json.dumps(old, sort_keys=True, separators=(",", ":")).encode())


def test_junit_has_a_class_name_for_each_check_and_says_what_failed() -> None:
    found = report(FINE, WARNING, FAILED)
    suites = ET.fromstring(junit_xml({found.suite: found.findings}))  # noqa: S314 - our own
    [suite] = suites
    assert suite.attrib == {
        "name": "modelyard.tumor.2.bento", "tests": "3", "failures": "1", "errors": "0", "skipped": "0",
        "time": "1.250",
    }  # fmt: skip
    fine, warning, failed = suite
    assert fine.attrib == {"classname": "modelyard.tumor.2.bento", "name": "golden", "time": "1.250"}
    assert fine.findtext("system-out") == "fine\np99 3 ms"
    assert warning.find("failure") is None
    assert warning.findtext("system-out") == "warning: one is unknown\nLook it up."
    assert failed.find("failure").get("message") == 'case "x" � <&>'
    assert failed.findtext("failure").endswith("\nMend it.")
