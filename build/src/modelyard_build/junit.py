"""Findings as JUnit XML, for Jenkins, GitHub and GitLab. Each testcase has a classname: Jenkins throws without it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from modelyard_build.checks.finding import Finding
from modelyard_build.errors import Refused

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(suites: Mapping[str, Sequence[Finding]]) -> bytes:
    """One test case per finding; a warning is a test that passed and has something to say.

    Args:
        suites: findings by the name of their suite, such as `modelyard.tumor.2`; its dots become folders in Jenkins.
    """
    root = ET.Element("testsuites", _counts([finding for findings in suites.values() for finding in findings]))
    for name, findings in suites.items():
        suite = ET.SubElement(root, "testsuite", {"name": name, **_counts(findings)})
        seen: Counter[str] = Counter()
        for finding in findings:
            seen[finding.check] += 1
            number = f" ({seen[finding.check]})" if seen[finding.check] > 1 else ""
            _add(suite, name, finding, number)
    ET.indent(root)
    text: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return text


def write_junit(file: Path, suites: Mapping[str, Sequence[Finding]]) -> None:
    """Write it to `file`, making its folder.

    Raises:
        Refused: it cannot be written there.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(junit_xml(suites))
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}. Name another file.") from error


def _counts(findings: Sequence[Finding]) -> dict[str, str]:
    failures = sum(finding.stops for finding in findings)
    seconds = f"{sum(finding.seconds for finding in findings):.3f}"
    return {"tests": str(len(findings)), "failures": str(failures), "errors": "0", "skipped": "0", "time": seconds}


def _add(suite: ET.Element, suite_name: str, finding: Finding, number: str) -> None:
    names = {"classname": suite_name, "name": f"{finding.check}{number}", "time": f"{finding.seconds:.3f}"}
    case = ET.SubElement(suite, "testcase", names)
    said = "\n".join(filter(None, (finding.message, finding.measured)))
    if finding.stops:
        failure = ET.SubElement(case, "failure", {"message": _legal(finding.message), "type": finding.check})
        failure.text = _legal("\n".join(filter(None, (said, finding.remedy))))
    else:
        heading = "" if finding.passed else "warning: "
        remedy = "" if finding.passed else finding.remedy
        ET.SubElement(case, "system-out").text = _legal("\n".join(filter(None, (heading + said, remedy))))


def _legal(text: str) -> str:
    """The text without what XML cannot hold: an answer that is quoted may contain anything."""
    return _NOT_XML.sub("\ufffd", text)
