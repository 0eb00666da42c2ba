"""Versus: two versions side by side, as their evidence describes them. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modelyard_tracking.compare import MISSING, Difference
from modelyard_tracking.evaluation import Evaluation
from modelyard_tracking.measures import MEASURES, Unmeasurable, fitting
from modelyard_tracking.paired import Difference as PairedDifference
from modelyard_tracking.paired import difference


@dataclass(frozen=True, slots=True)
class Side:
    """A version: its evidence's facts, and its evaluations as the store has them."""

    ref: str
    facts: Mapping[str, Any]
    evaluations: Mapping[str, Evaluation]


@dataclass(frozen=True, slots=True)
class Contest:
    """One measure on the rows of one evaluation; `difference` is positive where the second version is better."""

    evaluation: str
    measure: str
    difference: PairedDifference | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Versus:
    """Two versions; the first one is the base."""

    refs: tuple[str, str]
    metrics: tuple[Difference, ...]
    contests: tuple[Contest, ...]
    origin: tuple[Difference, ...]  # run, commit, lock, data, Python
    card: tuple[Difference, ...]

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        parts = {"metrics": self.metrics, "origin": self.origin, "card": self.card}
        return {
            "versions": list(self.refs),
            "contests": [asdict(contest) for contest in self.contests],
            **{part: {entry.name: list(entry.values) for entry in entries} for part, entries in parts.items()},
        }


def versus(base: Side, other: Side, confidence: float = 0.95) -> Versus:
    """Everything that can be said of `other` against `base`."""
    sides = (base.facts, other.facts)
    return Versus(
        (base.ref, other.ref),
        _entries(*({**facts.get("metrics", {}), **_measured(facts)} for facts in sides)),
        tuple(_contests(base, other, confidence)),
        _entries(*map(_origin, sides)),
        _entries(*({part: facts["card"].get(part) for part in ("owner", "purpose", "limitations")} for facts in sides)),
    )


def _contests(base: Side, other: Side, confidence: float) -> list[Contest]:
    found = []
    for name in sorted(base.evaluations.keys() & other.evaluations.keys()):
        first, second = base.evaluations[name], other.evaluations[name]
        if first.rows_sha256 != second.rows_sha256:
            found.append(Contest(name, "", None, "the two were not evaluated on the same rows"))
            continue
        shared = {measure.name for measure in fitting(first)} & {measure.name for measure in fitting(second)}
        for measure in (measure for measure in MEASURES.values() if measure.name in shared):
            try:
                found.append(Contest(name, measure.name, difference(measure, second, first, confidence)))
            except Unmeasurable as error:
                found.append(Contest(name, measure.name, None, str(error)))
    return found


def _measured(facts: Mapping[str, Any]) -> dict[str, Any]:
    evaluations = facts.get("evaluations") or {}
    return {f"{name}.{key}": value for name, said in evaluations.items() for key, value in said["measures"].items()}


def _origin(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": facts["run_id"],
        "model": (facts["model_sha256"] or "")[:12],
        "commit": (facts["commit"] or "none")[:12] + (" and changes" if facts["dirty"] else ""),
        "lock": (facts["lock_sha256"] or "none")[:12],
        "python": facts["python"],
        **{f"data {name}": digest[:12] for name, digest in facts["data"].items()},
    }


def _entries(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Difference, ...]:
    names = dict.fromkeys([*first, *second])
    return tuple(Difference(name, (first.get(name, MISSING), second.get(name, MISSING))) for name in names)
