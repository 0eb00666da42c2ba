"""The report of a build: what was checked, on what, and what came of it. Itself part of the evidence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from modelyard_build.checks.finding import Finding
from modelyard_tracking.digests import text_sha256


@dataclass(frozen=True, slots=True)
class Report:
    """Findings of all checks on one bento, by digest."""

    ref: str
    bento_tag: str
    bento_sha256: str
    model_sha256: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings], "passed": self.passed}

    @property
    def sha256(self) -> str:
        return report_sha256(self.to_dict())


def report_sha256(report: Mapping[str, Any]) -> str:
    """The digest of a report, also of one read back from the database."""
    return text_sha256(orjson.dumps(report, option=orjson.OPT_SORT_KEYS))
