"""The report of a build: what was checked, on what, and what came of it. Itself part of the evidence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import orjson

from modelyard_build.checks.finding import Finding, passed
from modelyard_tracking.digests import text_sha256

_MEASURED = ("seconds", "measured")  # other numbers each time


@dataclass(frozen=True, slots=True)
class Report:
    """Findings of all checks on one bento, or on its image, by digest."""

    ref: str
    bento_tag: str
    bento_sha256: str
    model_sha256: str
    findings: tuple[Finding, ...]
    image: str = ""  # its id, where it was the image that was checked

    @property
    def passed(self) -> bool:
        return passed(self.findings)

    @property
    def suite(self) -> str:
        """Its name among the results of tests."""
        return f"modelyard.{self.ref.replace(':', '.')}.{'image' if self.image else 'bento'}"

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        known = {field.name: document[field.name] for field in fields(cls) if field.name in document}
        return cls(**{**known, "findings": tuple(Finding(**finding) for finding in document["findings"])})

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings], "passed": self.passed}

    @property
    def sha256(self) -> str:
        return report_sha256(self.to_dict())


def report_sha256(report: Mapping[str, Any]) -> str:
    """The digest of a report, also of one read back from the database; what is only measured is no part of it."""
    findings = [
        {name: value for name, value in finding.items() if name not in _MEASURED} for finding in report["findings"]
    ]
    return text_sha256(orjson.dumps({**report, "findings": findings}, option=orjson.OPT_SORT_KEYS))


def refusal(what: str, report: Report) -> str:
    """Why something that was checked goes no further, as people read it."""
    failed = [finding for finding in report.findings if finding.stops]
    lines = [f"  - {finding.check}: {finding.message}\n    {finding.remedy}" for finding in failed]
    return f"{what} is refused; {len(failed)} of {len(report.findings)} checks failed:\n" + "\n".join(lines)
