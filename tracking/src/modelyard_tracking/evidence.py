"""Evidence: what an approver looks at, gathered from a run. Pure, but for `read_champion`.

The approval binds to the sha256 of the evidence, so it is made of plain values in a fixed form: finite numbers, texts,
lists, and nothing that a database would give back otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from modelyard_tracking.card import Observed, make_card
from modelyard_tracking.digests import text_sha256
from modelyard_tracking.errors import Refused
from modelyard_tracking.evaluation import Evaluation, read_evaluations
from modelyard_tracking.measures import MEASURES, Unmeasurable, fitting, score
from modelyard_tracking.paired import difference
from modelyard_tracking.project import ComparisonPlan, Gate, Project, SlicePlan
from modelyard_tracking.runs import Run
from modelyard_tracking.slices import judge
from modelyard_tracking.store import MAX_KEPT_BYTES, ArtifactStore


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts about a run, and the reasons, if any, not to put it before an approver."""

    facts: Mapping[str, Any]
    objections: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return evidence_sha256(self.facts)


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that a candidate is held against."""

    ref: str
    model_sha256: str
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict, repr=False)


def evidence_sha256(facts: Mapping[str, Any]) -> str:
    """The digest of evidence, also of evidence read back from the database."""
    return text_sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))


def read_champion(
    files: ArtifactStore, ref: str, facts: Mapping[str, Any], sha256: str, names: set[str] | None = None
) -> Champion:
    """A version as its own evidence describes it, with the evaluations under `names`, or all.

    Raises:
        NotFound: an evaluation is gone from the store.
        Refused: the evidence, or an evaluation, is not what was put forward.
    """
    if evidence_sha256(facts) != sha256:
        raise Refused(f"The evidence of {ref} was changed after it was gathered, so nothing can be held against it.")
    return Champion(ref, facts["model_sha256"], read_evaluations(files, facts, names))


def gather(
    project: Project,
    run: Run,
    *,
    allow_dirty: bool,
    evaluations: Mapping[str, Evaluation] | None = None,
    observed: Sequence[Observed] = (),
    champion: Champion | None = None,
) -> Evidence:
    """Weigh a run against its project's gates and card, and against the champion.

    Args:
        evaluations: the run's own, by name, as `read_evaluations` gives them.
        observed: what the training data has in each column.
        champion: None where there is none yet.
    """
    recorded = run.recorded
    kind = (recorded.get("model") or {}).get("kind", "sklearn")
    there = evaluations or {}
    gates = [_weigh(name, gate, run, there) for name, gate in sorted(project.gates.items())]
    card = make_card(project, recorded.get("model") or {}, observed)
    comparison, against = _compare(project.comparison, there, champion, run)
    slices, unfair = _slice(project.slices, there)
    objections = [
        *([f"run {run.id} belongs to {run.experiment}, not to {project.name}"] * (run.experiment != project.name)),
        *([f"run {run.id} is {run.status}, not COMPLETED"] * (run.status != "COMPLETED")),
        *([f"run {run.id} saved no model: call ex.save_model(...) in train.py"] * (run.model_sha256 is None)),
        *_of_a_trial(run),
        *(
            ["its model is a pickle, which project.toml does not allow ([model] allow_pickle = true)"]
            * (kind == "pickle" and not project.model.allow_pickle)
        ),
        *([f"run {run.id} recorded no lock: yard lock {project.name}"] * (not recorded.get("lock_sha256"))),
        *([f"run {run.id} recorded no data set: ex.dataset(...)"] * (not recorded.get("datasets"))),
        *card.objections,
        *_not_evaluated(project, run, there),
        *(_gate_objection(gate) for gate in gates if not gate["passed"] and not _is_missing(gate["metric"], there)),
        *against,
        *unfair,
    ]
    if recorded.get("dirty") and not allow_dirty:
        objections.append(
            "the code was changed after its commit, so the commit does not say what ran: "
            + ", ".join(recorded.get("changes", ())[:3])
            + " (commit and train again, or pass --allow-dirty)"
        )
    facts = {
        "model": project.name,
        "run_id": run.id,
        "model_sha256": run.model_sha256,
        "kind": kind,
        "data": {name: data["sha256"] for name, data in sorted((recorded.get("datasets") or {}).items())},
        **_not_kept(recorded),
        "lock_sha256": recorded.get("lock_sha256"),
        "commit": recorded.get("commit"),
        "python": recorded.get("python"),
        "dirty": bool(recorded.get("dirty")),
        "metric": {"name": project.metric.name, "direction": project.metric.direction},
        "metrics": {name: value for name, value in sorted(run.result.items()) if _is_finite(value)},
        "evaluations": {name: _described(recorded["evaluations"][name], there[name]) for name in sorted(there)},
        "gates": gates,
        "comparison": comparison,
        "slices": slices,
        "card": dict(card.facts),
    }
    return Evidence(facts, tuple(objections))


def _not_kept(recorded: Mapping[str, Any]) -> dict[str, list[str]]:
    """The data sets that are too large for the store, where there are any: known by digest and path only."""
    datasets = sorted((recorded.get("datasets") or {}).items())
    names = [name for name, data in datasets if data.get("bytes", 0) > MAX_KEPT_BYTES]
    return {"data_not_kept": names} if names else {}


def _of_a_trial(run: Run) -> list[str]:
    """A trial's score is the one that chose it; what a sweep gives to be promoted was trained and scored anew."""
    if not run.is_trial:
        return []
    return [f"run {run.id} is a trial of sweep {run.sweep_link['id']}, flattered by the score that chose it: "
            f"ask for the winner, trained anew (yard show sweep:{run.sweep_link['id']})"]  # fmt: skip


def _not_evaluated(project: Project, run: Run, there: Mapping[str, Evaluation]) -> list[str]:
    found = []
    for name in sorted(project.evaluations - there.keys()):
        also = ", ".join(sorted(there)) or "none"
        found.append(
            f"run {run.id} recorded no evaluation {name!r}, only {also}: "
            f"ex.evaluation({name!r}, truth=..., prediction=...) in train.py, and train again"
        )
    for name in sorted(project.evaluations & there.keys()):
        answers = there[name].prediction
        if len(answers) > 1 and all(answer == answers[0] for answer in answers):
            found.append(f"the model gives all {len(answers)} rows of {name} the same answer, {answers[0]}")
    return found


def _weigh(name: str, gate: Gate, run: Run, there: Mapping[str, Evaluation]) -> dict[str, Any]:
    """A gate with its value; a name with a dot is measured here, on the rows of an evaluation."""
    value: Any = run.result.get(name)
    why = ""
    if "." in name:
        evaluation, _, measure = name.rpartition(".")
        value = None
        if evaluation in there:
            try:
                value = score(MEASURES[measure], there[evaluation])
            except Unmeasurable as error:
                why = str(error)
    elif value is not None and not _is_finite(value):
        why = f"{str(value)[:40]} is not a finite number"
    elif value is None:
        why = f"the run's result has no {name}"
    number = value if _is_finite(value) else None
    passed = number is not None and gate.holds(number)
    return {"metric": name, "value": number, "bound": gate.bound, "passed": passed, "why": why}


def _gate_objection(gate: Mapping[str, Any]) -> str:
    return f"gate {gate['metric']}: {gate['why'] or gate['value']}" + (
        "" if gate["why"] else f" is not {gate['bound']}"
    )


def _is_missing(gate: str, there: Mapping[str, Evaluation]) -> bool:
    """Its evaluation is missing, which is said once for all gates."""
    return "." in gate and gate.rpartition(".")[0] not in there


def _compare(
    plan: ComparisonPlan | None, there: Mapping[str, Evaluation], champion: Champion | None, run: Run
) -> tuple[dict[str, Any] | None, list[str]]:
    """The comparison with the champion as facts, and what is to be said against the candidate."""
    if plan is None:
        return None, []
    facts: dict[str, Any] = {
        **plan.model_dump(),
        "champion": champion.ref if champion else None,
        "difference": None,
        "passed": None,
        "why_not": "",
    }
    if champion is None:
        return facts | {"why_not": "there is no champion yet"}, []
    if champion.model_sha256 == run.model_sha256:
        return facts | {"why_not": f"this model is {champion.ref} itself"}, []
    what = f"comparison with the champion {champion.ref}"
    candidate, other = there.get(plan.evaluation), champion.evaluations.get(plan.evaluation)
    if candidate is None:
        return facts | {"passed": False, "why_not": "the candidate was not evaluated"}, []
    if other is None or other.rows_sha256 != candidate.rows_sha256:
        why = f"{champion.ref} was not evaluated on the same rows as run {run.id} ({plan.evaluation})"
        remedy = (
            "train the champion's configuration on today's code and data, have that approved and made champion, "
            "and ask again"
        )
        return facts | {"passed": False, "why_not": why}, [f"{what}: {why}: {remedy}"]
    try:
        found = difference(MEASURES[plan.metric], candidate, other, plan.confidence)
    except Unmeasurable as error:
        return facts | {"passed": False, "why_not": str(error)}, [f"{what} by {plan.metric}: {error}"]
    passed = found.low > plan.min_difference
    facts |= {"difference": asdict(found), "passed": passed}
    if passed:
        return facts, []
    return facts, [
        f"{what}: {plan.metric} is {found.candidate:.4g} against {found.other:.4g} on {found.rows} rows; "
        f"the {plan.confidence:.0%} interval of the improvement, {found.low:+.4f} to {found.high:+.4f}, "
        f"does not lie above {plan.min_difference:+g}"
    ]


def _slice(plan: SlicePlan | None, there: Mapping[str, Evaluation]) -> tuple[dict[str, Any] | None, list[str]]:
    if plan is None:
        return None, []
    facts: dict[str, Any] = {**plan.model_dump(), "bound": plan.bound, "judged": [], "gaps": []}
    if plan.evaluation not in there:
        return facts, []
    found = judge(plan, there[plan.evaluation])
    facts |= {"judged": [asdict(part) for part in found.slices], "gaps": [asdict(gap) for gap in found.gaps]}
    return facts, list(found.objections)


def _described(facts: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """What the run recorded of an evaluation, and every measure that it has."""
    measures = {measure.name: score(measure, evaluation) for measure in fitting(evaluation)}
    return {**facts, "measures": measures}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
