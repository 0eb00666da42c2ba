"""What a check has to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard_serving.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict; a check that does not pass stops the build."""

    check: str
    passed: bool
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks may know: the manifest, the golden rows, the project's cases and tolerance."""

    manifest: Manifest
    golden_rows: Sequence[Mapping[str, Any]]
    golden_answers: Mapping[str, Sequence[Any]]  # by method: predict, predict_proba
    cases: Sequence[Mapping[str, Any]]
    tolerance: float
