"""From a run to an approved version, on a real MongoDB and a real MLflow registry."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from modelyard_tracking.approval import Approvals
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.evidence import evidence_sha256, gather
from modelyard_tracking.ledger import Ledger
from modelyard_tracking.project import Project, load_project
from modelyard_tracking.registry import Registry
from modelyard_tracking.runs import Run
from modelyard_tracking.store import Home
from places import PROJECTS


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def project(request: pytest.FixtureRequest) -> Project:
    """The example project under a name of the test's own: the registry is shared."""
    name = f"m{abs(hash(request.node.name)) % 10**12}"
    tumor = load_project(PROJECTS, "tumor")
    gates = {gate: bounds for gate, bounds in tumor.gates.items() if "." not in gate}  # the run has no evaluation
    return tumor.model_copy(update={"name": name, "gates": gates, "comparison": None, "slices": None})


@pytest.fixture
def approvals(db, registry: Registry, home: Home) -> Approvals:
    return Approvals(db, registry, home.files)


@pytest.fixture
def run(project: Project, home: Home) -> Run:
    with home.files.new_model() as folder:
        (folder / "mlflow").mkdir()
        (folder / "mlflow" / "model.skops").write_bytes(b"weights")
        digest = home.files.keep_model(folder)
    lock = home.files.keep_lock(PROJECTS / "tumor" / "requirements.lock")
    data = home.files.keep_frame(pd.DataFrame({"x": [1.0]}))
    recorded: Mapping[str, Any] = {
        "commit": "c" * 40, "dirty": False, "changes": [], "lock_sha256": lock, "python": "3.11",
        "datasets": {"train": {"sha256": data, "rows": 1, "columns": 1}}, "model": {"sha256": digest},
    }  # fmt: skip
    result = {"val_auc": 0.99, "val_accuracy": 0.95}
    return Run(1, project.name, "COMPLETED", None, None, {}, result, recorded, None, "", {})


def ask(approvals: Approvals, project: Project, run: Run, *, allow_dirty: bool = False) -> str:
    return approvals.request(gather(project, run, allow_dirty=allow_dirty), "scientist").ref


def test_a_good_run_becomes_a_version_that_awaits_approval_and_then_has_it(approvals, project, run, registry) -> None:
    ref = ask(approvals, project, run)
    assert ref == f"{project.name}:1"
    assert registry.resolve(ref).state == "requested"
    approval = approvals.approve(ref, "approver", "it is good", alias="champion")
    assert (approval.state, approval.approved_by, approval.requested_by) == ("approved", "approver", "scientist")
    version = approvals.aliases.resolve(f"{project.name}@champion")
    assert (version.ref, version.state, version.model_sha256) == (ref, "approved", run.model_sha256)
    assert approvals.require(version).reason == "it is good"


def test_asking_twice_gives_the_same_version(approvals, project, run) -> None:
    assert ask(approvals, project, run) == ask(approvals, project, run)


def test_approving_twice_keeps_the_first_reason(approvals, project, run) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "first", "because")
    assert approvals.approve(ref, "second", "me too").approved_by == "first"


def test_every_objection_is_named_at_once(approvals, project, run) -> None:
    blank = project.model_copy(update={"owner": "", "limitations": " "})
    poor = replace(
        run, status="FAILED", result={"val_auc": 0.5}, recorded={**run.recorded, "dirty": True, "changes": [" M a.py"]}
    )
    with pytest.raises(Refused) as caught:
        ask(approvals, blank, poor)
    for objection in (
        "is FAILED",
        "owner blank",
        "limitations blank",
        "val_auc: 0.5 is not at least",
        "val_accuracy: the run's result has no val_accuracy",
        "M a.py",
    ):
        assert objection in str(caught.value)


def test_uncommitted_code_is_accepted_only_on_request_and_stays_in_the_evidence(approvals, project, run) -> None:
    dirty = replace(run, recorded={**run.recorded, "dirty": True})
    with pytest.raises(Refused, match="--allow-dirty"):
        ask(approvals, project, dirty)
    ref = ask(approvals, project, dirty, allow_dirty=True)
    assert approvals.get(ref).evidence["dirty"] is True


def test_a_run_without_a_model_cannot_be_put_forward(approvals, project, run) -> None:
    with pytest.raises(Refused, match="saved no model"):
        ask(approvals, project, replace(run, recorded={**run.recorded, "model": None}))


def test_an_approval_needs_a_reason(approvals, project, run) -> None:
    ref = ask(approvals, project, run)
    with pytest.raises(Refused, match="Say why"):
        approvals.approve(ref, "approver", "  ")


def test_what_is_not_approved_may_not_be_used(approvals, project, run, registry) -> None:
    version = registry.resolve(ask(approvals, project, run))
    with pytest.raises(Refused, match="has not been approved"):
        approvals.require(version)


def test_one_changed_byte_of_the_model_voids_the_approval(approvals, project, run, registry, home: Home) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "approver", "good")
    (home.files.model(run.model_sha256) / "mlflow" / "model.skops").write_bytes(b"Weights")
    with pytest.raises(Refused, match=r"mlflow/model\.skops is not what was recorded"):
        approvals.require(registry.resolve(ref))


def test_changed_evidence_voids_the_approval(approvals, project, run, registry, db) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "approver", "good")
    db.approvals.update_one({"_id": ref}, {"$set": {"evidence.commit": "f" * 40}})
    with pytest.raises(Refused, match="was changed after it was gathered"):
        approvals.require(registry.resolve(ref))


def test_changed_evidence_is_found_though_its_digest_was_changed_too(approvals, project, run, registry, db) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "approver", "good")
    document = db.approvals.find_one({"_id": ref})
    document["evidence"]["commit"] = "f" * 40
    document["evidence_sha256"] = evidence_sha256(document["evidence"])
    db.approvals.replace_one({"_id": ref}, document)
    with pytest.raises(Refused, match="speaks of another model or other evidence"):
        approvals.require(registry.resolve(ref))


def test_an_approval_that_only_the_ledger_knows_is_nobodys(approvals, project, run, registry) -> None:
    version = registry.resolve(ask(approvals, project, run))
    digests = {name: approvals.get(version.ref).evidence[name] for name in ("model_sha256",)}
    facts = {**digests, "evidence_sha256": approvals.get(version.ref).evidence_sha256}
    approvals.ledger.append("approve", version.ref, "engineer", lambda: facts, "trust me")
    with pytest.raises(Refused, match="No approver said entry 2 of the ledger"):
        approvals.require(version)


def test_a_changed_entry_of_the_ledger_voids_the_approval(approvals, project, run, registry, db) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "approver", "good")
    db.ledger.update_one({"kind": "approve"}, {"$set": {"by": "somebody else"}})
    with pytest.raises(Refused, match=r"Entry 2 of the ledger, approve of .* was changed"):
        approvals.require(registry.resolve(ref))


def test_a_state_that_was_written_into_the_registry_approves_nothing(approvals, project, run, registry) -> None:
    ref = ask(approvals, project, run)
    registry.tag(project.name, 1, {"state": "approved"})
    with pytest.raises(Refused, match="has not been approved"):
        approvals.require(registry.resolve(ref))
    assert f"{ref} is approved in MLflow's registry, and requested to the ledger" in approvals.drift()
    approvals.mend()
    assert registry.resolve(ref).state == "requested"


def test_a_rejected_version_stays_rejected(approvals, project, run, registry) -> None:
    ref = ask(approvals, project, run)
    said = approvals.reject(ref, "approver", "too few rows")
    assert (said.state, said.decided_by, said.reason) == ("rejected", "approver", "too few rows")
    assert said.approved_by is None
    assert registry.resolve(ref).state == "rejected"
    for say in (approvals.approve, approvals.withdraw):
        with pytest.raises(Refused, match=r"was rejected by approver: too few rows"):
            say(ref, "another", "it is fine")
    with pytest.raises(Refused, match="the same model with the same evidence, and was rejected by approver"):
        ask(approvals, project, run)
    with pytest.raises(Refused, match="was rejected by approver, so it is not used"):
        approvals.require(registry.resolve(ref))


def test_an_approval_can_be_withdrawn_and_then_nothing_uses_it(approvals, project, run, registry) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "approver", "good", alias="champion")
    approvals.withdraw(ref, "approver", "it was trained on wrong labels")
    with pytest.raises(Refused, match="was withdrawn by approver, so it is not used: it was trained on wrong labels"):
        approvals.require(registry.resolve(ref))
    with pytest.raises(Refused, match="was withdrawn"):
        approvals.approve(ref, "approver", "again")


def test_in_a_team_nobody_approves_what_they_asked_for(approvals, project, run) -> None:
    team = replace(approvals, team=True)
    ref = ask(team, project, run)
    with pytest.raises(Refused, match=r"scientist asked for .*, so somebody else says"):
        team.approve(ref, "scientist", "I am sure")
    assert team.approve(ref, "approver", "so am I").state == "approved"


def test_only_an_approved_version_is_promoted(approvals, project, run) -> None:
    ref = ask(approvals, project, run)
    with pytest.raises(Refused, match="has not been approved"):
        approvals.promote(ref, "champion", "approver", "", None)
    approvals.approve(ref, "approver", "good")
    approvals.promote(ref, "champion", "approver", "", None)
    assert approvals.aliases.current(project.name, "champion") == 1


@pytest.mark.parametrize("step", ["add", "insert", "append"])
def test_a_request_that_was_cut_off_anywhere_is_the_same_version_when_it_is_made_again(
    approvals, project, run, registry, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Cut(BaseException):
        pass

    def cut(*_: object, **__: object) -> None:
        raise Cut

    if step == "add":  # after the row is there, before it is known
        monkeypatch.setattr(Registry, "get", cut)
    if step == "insert":
        monkeypatch.setattr("pymongo.collection.Collection.insert_one", cut)
    if step == "append":
        monkeypatch.setattr(Ledger, "append", cut)
    with pytest.raises(Cut):
        ask(approvals, project, run)
    monkeypatch.undo()
    if step != "append":  # half a request is none
        with pytest.raises(NotFound):
            approvals.approve(f"{project.name}:1", "approver", "good")
    assert ask(approvals, project, run) == f"{project.name}:1"
    assert len(registry.versions(project.name)) == 1
    assert approvals.approve(f"{project.name}:1", "approver", "good").state == "approved"


def test_a_version_that_the_registry_gives_another_model_is_refused(approvals, project, run, registry) -> None:
    ref = ask(approvals, project, run)
    approvals.approve(ref, "approver", "good")
    registry.tag(project.name, 1, {"model_sha256": "0" * 64})
    with pytest.raises(Refused, match="another model"):
        approvals.require(registry.resolve(ref))


def test_the_digest_of_evidence_survives_the_database(approvals, project, run, db) -> None:
    ref = ask(approvals, project, run)
    stored = db.approvals.find_one({"_id": ref})
    assert evidence_sha256(stored["evidence"]) == stored["evidence_sha256"]


@pytest.mark.parametrize(
    ("ref", "error"), [("tumor", Refused), ("tumor:x", Refused), ("nosuch:1", NotFound), ("nosuch@champion", NotFound)]
)
def test_a_reference_to_nothing_is_reported(approvals, ref: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        approvals.aliases.resolve(ref)


def test_files_of_the_registry_stay_inside_the_store(approvals, project, run, registry, home: Home) -> None:
    version = registry.resolve(ask(approvals, project, run))
    assert Path(version.source).is_relative_to(home.artifacts)
