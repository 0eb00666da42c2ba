"""What a check has to say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelyard_build.cases import Case
from modelyard_serving.manifest import Manifest
from modelyard_tracking.project import BuildPlan, EndpointContract

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict; one that does not pass stops the build, unless it is only a warning.

    `message` is the same whenever the same is found; numbers that are others each time stand in `measured`, and so
    neither they nor `seconds` are part of a report's digest.
    """

    check: str
    passed: bool
    message: str
    remedy: str = ""
    severity: Severity = "error"
    seconds: float = 0.0  # what the check took
    measured: str = ""

    @property
    def stops(self) -> bool:
        return not self.passed and self.severity == "error"


def passed(findings: Iterable[Finding]) -> bool:
    """Is there nothing but warnings to be said against it?"""
    return not any(finding.stops for finding in findings)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks may know beside the served model itself."""

    manifest: Manifest
    golden_rows: Sequence[Mapping[str, Any]]
    golden_answers: Mapping[str, Sequence[Any]]  # by method: predict, predict_proba
    cases: Sequence[Case]
    tolerance: float
    endpoint: EndpointContract
    live: Sequence[Manifest]  # what answers under this endpoint now
    environment: Path  # what it is served from
    build: BuildPlan
    locked: Mapping[str, str]  # package -> version, of what serving gets of the run's lock
