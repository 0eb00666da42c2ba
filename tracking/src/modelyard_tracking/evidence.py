"""Evidence: what an approver looks at, gathered from a run. Pure.

The approval binds to the sha256 of the evidence, so it is made of plain values in a fixed form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from modelyard_tracking.digests import text_sha256
from modelyard_tracking.project import Gate, Project
from modelyard_tracking.runs import Run
from modelyard_tracking.store import MAX_KEPT_BYTES


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts about a run, and the reasons, if any, not to put it before an approver."""

    facts: Mapping[str, Any]
    objections: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return evidence_sha256(self.facts)


def evidence_sha256(facts: Mapping[str, Any]) -> str:
    """The digest of evidence, also of evidence read back from the database."""
    return text_sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))


def gather(project: Project, run: Run, *, allow_dirty: bool) -> Evidence:
    """Weigh a run against its project's gates and card."""
    recorded = run.recorded
    kind = (recorded.get("model") or {}).get("kind", "sklearn")
    gates = [_weigh(name, gate, run.result.get(name)) for name, gate in sorted(project.gates.items())]
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
        *(
            f"project.toml leaves {part} blank"
            for part in ("owner", "purpose", "limitations")
            if not _card(project)[part]
        ),
        *(f"gate {gate['metric']}: {gate['value']} is not {gate['bound']}" for gate in gates if not gate["passed"]),
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
        "metrics": {name: value for name, value in sorted(run.result.items()) if isinstance(value, int | float)},
        "gates": gates,
        "card": _card(project),
    }
    return Evidence(facts, tuple(objections))


def _not_kept(recorded: Mapping[str, Any]) -> dict[str, list[str]]:
    """The data sets that are too large for the store, where there are any: known by digest and path only."""
    datasets = sorted((recorded.get("datasets") or {}).items())
    names = [name for name, data in datasets if data.get("bytes", 0) > MAX_KEPT_BYTES]
    return {"data_not_kept": names} if names else {}


def _of_a_trial(run: Run) -> list[str]:
    """A trial's score is the one that chose it; what a sweep gives to be promoted was trained and scored anew."""
    link = (run.raw.get("info") or {}).get("sweep") or {}
    if "trial" not in link:
        return []
    return [f"run {run.id} is a trial of sweep {link['id']}, flattered by the score that chose it: "
            f"ask for the winner, trained anew (yard show sweep:{link['id']})"]  # fmt: skip


def _card(project: Project) -> dict[str, str]:
    card = {"owner": project.owner, "purpose": project.purpose, "limitations": project.limitations}
    return {part: text.strip() for part, text in card.items()}


def _weigh(name: str, gate: Gate, value: Any) -> dict[str, Any]:
    bounds = []
    passed = isinstance(value, int | float)
    if gate.at_least is not None:
        bounds.append(f"at least {gate.at_least}")
        passed = passed and value >= gate.at_least
    if gate.at_most is not None:
        bounds.append(f"at most {gate.at_most}")
        passed = passed and value <= gate.at_most
    return {"metric": name, "value": value, "bound": " and ".join(bounds), "passed": passed}
