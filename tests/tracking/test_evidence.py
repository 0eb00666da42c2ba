"""Evidence: what is weighed before anybody is asked, and that a database gives it back as it was."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from modelyard_tracking.card import Observed
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.evaluation import Evaluation, keep_evaluation, read_evaluations
from modelyard_tracking.evidence import Champion, Evidence, evidence_sha256, gather, read_champion
from modelyard_tracking.project import Project
from modelyard_tracking.runs import Run
from modelyard_tracking.store import ArtifactStore, Home
from places import PROJECTS

ROWS = 200
GATES = {"auc": {"at_least": 0.9}, "holdout.roc_auc": {"at_least": 0.8}}
COMPARISON = {"evaluation": "holdout", "metric": "roc_auc", "min_difference": -0.05}
SLICES = {"evaluation": "holdout", "metric": "accuracy", "columns": ["age"], "at_least": 0.5, "max_gap": 0.4}


def project(**parts: Any) -> Project:
    values: dict[str, Any] = {
        "folder": PROJECTS, "name": "wine", "owner": "me", "purpose": "to try", "limitations": "many",
        "metric": {"name": "auc", "direction": "max"}, "endpoint": {"unit": "u", "reward": "r"},
        "inputs": {"x.1": "acid"}, "outputs": {"*": "yes or no"},
        "gates": GATES, "comparison": COMPARISON, "slices": SLICES, **parts,
    }  # fmt: skip
    return Project(**values)


def answers(seed: int = 0, skill: float = 2.0, count: int = ROWS) -> dict[str, Any]:
    """Truths, the same ones for every seed, and a model's probabilities."""
    import pandas as pd

    truth = np.arange(count) % 3 == 0
    noise = np.random.default_rng(seed).normal(size=count)
    probability = 1 / (1 + np.exp(-(skill * (truth - 0.5) + noise)))
    slices = pd.DataFrame({"age": np.where(np.arange(count) % 2 == 0, "old", "young")})
    return {"truth": truth, "prediction": probability, "positive": True, "slices": slices}


class Store:
    """Runs with evaluations, as an artifact store has them."""

    def __init__(self, files: ArtifactStore) -> None:
        self.files = files

    def run(self, **parts: Any) -> tuple[Run, dict[str, Evaluation]]:
        parts = answers() | parts
        datasets = {
            "train": {"sha256": "d" * 64, "rows": 9},
            "holdout": {"sha256": "e" * 64, "rows": len(parts["truth"])},
        }
        model = {"sha256": "m" * 64, "inputs": [{"name": "x.1"}], "classes": [False, True]}
        recorded = {
            "commit": "c" * 40, "dirty": False, "changes": [], "lock_sha256": "l" * 64, "python": "3.11",
            "model": model, "datasets": datasets,
            "evaluations": {"holdout": keep_evaluation(self.files, "holdout", datasets, **parts)},
        }  # fmt: skip
        run = Run(1, "wine", "COMPLETED", None, None, {}, {"auc": 0.95}, recorded, None, "", {})
        return run, read_evaluations(self.files, recorded)

    def champion(self, **parts: Any) -> Champion:
        _, evaluations = self.run(**parts)
        return Champion("wine:1", "a" * 64, evaluations)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(ArtifactStore(tmp_path))


def weigh(found: tuple[Run, dict[str, Evaluation]], champion: Champion | None = None, **parts: Any) -> Evidence:
    run, evaluations = found
    seen = (Observed("x.1", 0.5, 2.0, 0),)
    return gather(project(**parts), run, allow_dirty=False, evaluations=evaluations, observed=seen, champion=champion)


def test_a_good_run_has_no_objection_and_says_that_there_is_no_champion(store: Store) -> None:
    evidence = weigh(store.run())
    assert evidence.objections == ()
    assert evidence.facts["comparison"]["why_not"] == "there is no champion yet"
    assert [gate["passed"] for gate in evidence.facts["gates"]] == [True, True]
    assert set(evidence.facts["evaluations"]["holdout"]["measures"]) == {"roc_auc", "accuracy", "f1", "log_loss"}
    assert evidence.facts["card"]["inputs"][0]["observed"] == [0.5, 2.0]


def test_a_gate_with_a_dot_is_measured_on_the_recorded_rows(store: Store) -> None:
    evidence = weigh(store.run(prediction=np.full(ROWS, 0.5) + np.arange(ROWS) % 2 * 0.1))
    [objection] = [text for text in evidence.objections if text.startswith("gate")]
    assert objection.startswith("gate holdout.roc_auc: 0.4943")
    assert objection.endswith("is not at least 0.8")


def test_a_candidate_that_is_no_worse_passes_and_one_that_may_be_worse_does_not(store: Store) -> None:
    champion = store.champion(**answers(1))
    good = weigh(store.run(**answers(2, skill=3.0)), champion)
    assert good.objections == ()
    said = good.facts["comparison"]
    assert said["passed"] is True
    assert said["champion"] == "wine:1"
    assert said["difference"]["low"] > -0.05
    [objection] = weigh(store.run(**answers(2, skill=1.6)), champion).objections
    assert objection.startswith("comparison with the champion wine:1: roc_auc is 0.")
    assert objection.endswith("does not lie above -0.05")


def test_to_be_better_can_be_demanded(store: Store) -> None:
    strict = COMPARISON | {"min_difference": 0}
    assert weigh(store.run(**answers(1)), store.champion(**answers(1)), comparison=strict).objections
    better = store.run(**answers(2, skill=4.0))
    assert not weigh(better, store.champion(**answers(1)), comparison=strict).objections


def test_a_champion_of_other_rows_is_refused_with_the_remedy(store: Store) -> None:
    other = store.champion(**answers(count=ROWS + 1))
    [objection] = weigh(store.run(), other).objections
    assert "wine:1 was not evaluated on the same rows as run 1 (holdout)" in objection
    assert "train the champion's configuration on today's code and data" in objection
    assert weigh(store.run(), Champion("wine:1", "a" * 64)).objections == (objection,)


def test_the_champion_itself_is_not_compared(store: Store) -> None:
    _, evaluations = found = store.run()
    evidence = weigh(found, Champion("wine:1", "m" * 64, evaluations))
    assert evidence.objections == ()
    assert evidence.facts["comparison"]["why_not"] == "this model is wine:1 itself"


def test_a_project_that_declares_nothing_of_evaluations_needs_none(store: Store) -> None:
    run, _ = store.run()
    evidence = weigh((run, {}), gates={"auc": {"at_least": 0.9}}, comparison=None, slices=None)
    assert evidence.objections == ()
    assert (evidence.facts["comparison"], evidence.facts["slices"]) == (None, None)


def test_an_evaluation_that_was_not_recorded_is_said_once(store: Store) -> None:
    run, _ = store.run()
    [objection] = weigh((run, {}), store.champion()).objections
    assert objection.startswith("run 1 recorded no evaluation 'holdout', only none: ex.evaluation('holdout', truth=")


def test_all_objections_are_there_at_once(store: Store) -> None:
    run, evaluations = store.run(**answers(2, skill=-1.0))
    poor = replace(
        run, status="FAILED", result={"auc": math.nan}, recorded={**run.recorded, "dirty": True, "changes": ["x"]}
    )
    objections = weigh((poor, evaluations), store.champion(), owner="", inputs={}).objections
    for said in ("is FAILED", "owner blank", "x.1", "auc: nan is not a finite number", "holdout.roc_auc: 0.",
                 "comparison with the champion", "slice age = old", "the code was changed"):  # fmt: skip
        assert any(said in objection for objection in objections), said


DEGENERATE = {
    "no rows": ({"truth": [], "prediction": [], "slices": None}, "there are no rows"),
    "one row": ({"truth": [True], "prediction": [0.5], "slices": None}, "every row is True"),
    "one class": ({"truth": np.ones(ROWS, bool)}, "every row is True, and roc_auc needs both classes"),
    "missing": ({"prediction": np.r_[np.nan, answers()["prediction"][1:]]}, "1 of 200 predictions are missing"),
    "infinite": ({"prediction": np.r_[np.inf, answers()["prediction"][1:]]}, "1 of 200 predictions are missing"),
    "constant": ({"prediction": np.full(ROWS, 0.25)}, "gives all 200 rows of holdout the same answer, 0.25"),
    "beyond 1": ({"prediction": answers()["prediction"] * 3}, "are not between 0 and 1"),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_rows_that_say_nothing_are_objected_to_in_sentences_and_leave_finite_facts(store: Store, case: str) -> None:
    parts, said = DEGENERATE[case]
    evidence = weigh(store.run(**parts), store.champion())
    assert any(said in objection for objection in evidence.objections), evidence.objections
    assert_finite(evidence.facts)


def assert_finite(value: Any, where: str = "") -> None:
    """Plain JSON, with finite numbers only."""
    assert value is None or isinstance(value, dict | list | str | int | float), (where, type(value))
    if isinstance(value, float):
        assert math.isfinite(value), where
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        assert_finite(item, f"{where}.{key}")


def test_evidence_is_plain_json(store: Store) -> None:
    facts = weigh(store.run(**answers(2, skill=3.0)), store.champion()).facts
    assert_finite(facts)
    assert orjson.loads(orjson.dumps(facts)) == facts


def test_evidence_read_back_from_mongodb_has_the_same_digest(home: Home, db) -> None:
    evidence = weigh(Store(home.files).run(**answers(2, skill=3.0)), Store(home.files).champion())
    db.approvals.insert_one({"_id": "wine:2", "evidence": dict(evidence.facts)})
    read = db.approvals.find_one({"_id": "wine:2"})["evidence"]
    assert evidence_sha256(read) == evidence.sha256
    assert read == evidence.facts


def test_the_same_run_has_the_same_evidence(store: Store) -> None:
    assert weigh(store.run(), store.champion(**answers(1))) == weigh(store.run(), store.champion(**answers(1)))


def test_a_champion_is_read_from_its_own_evidence(store: Store) -> None:
    evidence = weigh(store.run())
    read = read_champion(store.files, "wine:1", evidence.facts, evidence.sha256, {"holdout"})
    assert read.evaluations["holdout"].prediction.tolist() == answers()["prediction"].tolist()
    assert read_champion(store.files, "wine:1", evidence.facts, evidence.sha256, set()).evaluations == {}
    changed = {**evidence.facts, "commit": "f" * 40}
    with pytest.raises(Refused, match="The evidence of wine:1 was changed"):
        read_champion(store.files, "wine:1", changed, evidence.sha256)
    store.files.frame_file(evidence.facts["evaluations"]["holdout"]["sha256"]).unlink()
    with pytest.raises(NotFound):
        read_champion(store.files, "wine:1", evidence.facts, evidence.sha256)


@pytest.mark.parametrize("raw", [{"info": {"sweep": {"id": 3, "trial": 0}}}, {}], ids=["here", "imported"])
def test_a_trial_is_refused_also_one_that_was_imported(store: Store, raw: dict[str, Any]) -> None:
    run, evaluations = store.run()
    imported = {"imported": {"id": 9, "sweep": {"id": 3, "trial": 0}}}
    trial = replace(run, raw=raw, recorded={**run.recorded, **({} if raw else imported)})
    [objection] = weigh((trial, evaluations)).objections
    assert "is a trial of sweep 3" in objection
