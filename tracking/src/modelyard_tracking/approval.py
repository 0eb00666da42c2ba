"""Approval: a person's recorded yes or no to one version, bound to the model's digest and the evidence's.

The evidence is a document that is written once. Everything that is said about it is an entry of the ledger, and the
state of a version is the last of these.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure

from modelyard_tracking.aliases import Aliases
from modelyard_tracking.digests import check_folder
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.evidence import Evidence, evidence_sha256
from modelyard_tracking.ledger import Head, Ledger, Stands
from modelyard_tracking.registry import ModelVersion, Registry, split_ref
from modelyard_tracking.store import ArtifactStore

STATES = {"request": "requested", "approve": "approved", "reject": "rejected", "withdraw": "withdrawn"}
_UNAUTHORIZED = 13  # MongoDB's error code
_FROM = {"approve": ("requested",), "reject": ("requested",), "withdraw": ("requested", "approved")}


@dataclass(frozen=True, slots=True)
class Approval:
    """What was asked and answered about one version."""

    ref: str
    state: str  # requested, approved, rejected, withdrawn
    evidence: Mapping[str, Any]
    evidence_sha256: str
    requested_by: str
    requested_at: datetime
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None
    ledger_entry: Head | None = None  # the answer's

    @property
    def approved_by(self) -> str | None:
        return self.decided_by if self.state == "approved" else None


@dataclass(frozen=True, slots=True)
class Approvals:
    """Asks for approval and records what was said.

    Args:
        team: nobody approves what they asked for themselves.
    """

    db: "Database[dict[str, Any]]" = field(repr=False)
    registry: Registry
    files: ArtifactStore
    team: bool = False

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.db)

    @property
    def aliases(self) -> Aliases:
        return Aliases(self.ledger, self.registry)

    def request(self, evidence: Evidence, requested_by: str) -> ModelVersion:
        """Register the evidence's model as a version that awaits approval. Asking twice gives the same version.

        Also asking again after a crash: files first, then the version's row with the evidence's digest, then the
        evidence, then the ledger; what is there already is used.

        Raises:
            NotFound: a file of the run is neither here nor in the shared store.
            Refused: there are objections; all of them are in the text. Or a file is not what was recorded, or this
                was asked before and answered with a no.
            Unavailable: there is a shared store, and it does not answer; so no version is without its files.
        """
        facts = evidence.facts
        if evidence.objections:
            listed = "\n".join(f"  - {objection}" for objection in evidence.objections)
            raise Refused(f"Run {facts['run_id']} cannot be put before an approver:\n{listed}")
        kept = [sha256 for name, sha256 in facts["data"].items() if name not in facts.get("data_not_kept", ())]
        self.files.ensure_kept(facts["model_sha256"], kept, facts["lock_sha256"])
        version = self._version(evidence)
        with suppress(NotFound):
            before = self.get(version.ref)
            if before.state in ("rejected", "withdrawn"):
                raise Refused(
                    f"{version.ref} is the same model with the same evidence, and was {before.state} by "
                    f"{before.decided_by}: {before.reason}\nTrain a better one, and ask for that."
                )
        document = {
            "evidence": dict(facts),
            "evidence_sha256": evidence.sha256,
            "requested_by": requested_by,
            "requested_at": datetime.now(UTC),
        }
        try:
            self.db.approvals.insert_one({"_id": version.ref, **document})
        except DuplicateKeyError:
            if self._document(version.ref)["evidence_sha256"] != evidence.sha256:
                raise Refused(f"{version.ref} has other evidence by now. Ask again:  yard request RUN") from None

        try:
            self._enter_request(version)
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
        return version

    def _enter_request(self, version: ModelVersion) -> None:
        """Have the ledger say who asked; where they may not write there, this is done with the answer."""
        asked = self._document(version.ref)

        def decide() -> Mapping[str, Any]:
            if self.ledger.last("request", subject=version.ref) is not None:
                raise Stands
            said = {name: asked["evidence"][name] for name in ("run_id", "commit", "lock_sha256", "data")}
            return {**_digests(version, asked["evidence_sha256"]), **said}

        with suppress(Stands):
            self.ledger.append("request", version.ref, asked["requested_by"], decide)

    def _version(self, evidence: Evidence) -> ModelVersion:
        """The version with this evidence, registered now if there is none."""
        facts = evidence.facts
        model, digest = facts["model"], facts["model_sha256"]
        for found in self.registry.versions(model):
            if found.tags.get("evidence_sha256") == evidence.sha256 or self._is_settled(found, facts):
                return found
        tags = {
            "run_id": str(facts["run_id"]),
            "model_sha256": digest,
            "evidence_sha256": evidence.sha256,
            "commit": facts["commit"] or "none",
            "lock_sha256": facts["lock_sha256"],
            "state": "requested",
        }
        version = self.registry.add(model, f"{self.files.place_of('model', digest)}/mlflow", tags)
        return self.registry.get(model, version)

    def _is_settled(self, version: ModelVersion, facts: Mapping[str, Any]) -> bool:
        """Whether it is approved, with this evidence but for the champion, which may be another one by now."""
        if version.model_sha256 != facts["model_sha256"] or version.run_id != facts["run_id"]:
            return False
        with suppress(NotFound):
            approval = self.get(version.ref)
            before, now = ({**said, "comparison": None} for said in (approval.evidence, facts))
            return approval.state == "approved" and evidence_sha256(before) == evidence_sha256(now)
        return False

    def approve(self, ref: str, approved_by: str, reason: str, alias: str | None = None) -> Approval:
        """Record a yes, and point `alias` at the version. The files are checked against the digest first.

        Raises:
            NotFound: nobody asked for this version.
            Refused: no reason is given, the files or the evidence are not those that were put forward, or the version
                was rejected or withdrawn; in a team, who asked is who says yes.
        """
        version = self.aliases.resolve(ref)
        expected = self.aliases.current(version.model, alias) if alias else None
        approval = self.verified(version)
        if self.team and approval.requested_by == approved_by:
            raise Refused(f"{approved_by} asked for {version.ref}, so somebody else says whether it may be used.")
        said = self._say("approve", version, approved_by, reason)
        if alias:
            self.aliases.move(version, alias, approved_by, reason, expected)
        return said

    def reject(self, ref: str, by: str, reason: str) -> Approval:
        """Record a no. A version that was rejected stays so; a better one has another number."""
        return self._say("reject", self.aliases.resolve(ref), by, reason)

    def withdraw(self, ref: str, by: str, reason: str) -> Approval:
        """Take back a request or an approval: the version is not built or deployed any more. What runs goes on."""
        return self._say("withdraw", self.aliases.resolve(ref), by, reason)

    def promote(self, ref: str, alias: str, by: str, reason: str, expected: int | None) -> None:
        """Point an alias at an approved version; see `Aliases.move`.

        Raises:
            Refused: it is not approved, or the alias is not where `expected` says.
        """
        version = self.aliases.resolve(ref)
        self.require(version)
        self.aliases.move(version, alias, by, reason, expected)

    def _say(self, kind: str, version: ModelVersion, by: str, reason: str) -> Approval:
        if not reason.strip():
            why = {"approve": "it may be used", "reject": "it may not be used", "withdraw": "it is taken back"}[kind]
            raise Refused(f"Say why {why}:  yard {kind} {version.ref} --reason '...'")

        def decide() -> Mapping[str, Any]:
            approval = self.get(version.ref)
            if approval.state == STATES[kind]:
                raise Stands
            if approval.state not in _FROM[kind]:
                raise Refused(
                    f"{version.ref} was {approval.state} by {approval.decided_by}: {approval.reason}\n"
                    "What was said stays. Ask for a new version:  yard request RUN"
                )
            return _digests(version, approval.evidence_sha256)

        with suppress(Stands):
            answer = {"_id": _answer_id(version.ref, kind), "by": by, "reason": reason.strip(), **decide()}
            with suppress(DuplicateKeyError):  # said before, and cut off before it was entered
                self.db.answers.insert_one(answer)
            self._enter_request(version)
            said = self._answer(version.ref, kind)
            self.ledger.append(kind, version.ref, said["by"], decide, said["reason"])
        approval = self.get(version.ref)
        self._show(version, approval.state)
        return approval

    def _answer(self, ref: str, kind: str) -> Mapping[str, Any]:
        """What an approver said. Whoever builds and deploys may add to the ledger, too; here, approvers only."""
        return self.db.answers.find_one({"_id": _answer_id(ref, kind)}) or {}

    def _show(self, version: ModelVersion, state: str) -> None:
        self.registry.tag(version.model, version.version, {"state": state})

    def get(self, ref: str, at: datetime | None = None) -> Approval:
        """What was said about a version, by now or by a time.

        Raises:
            NotFound: nobody asked for it.
        """
        document = self._document(ref)
        approval = Approval(ref=document.pop("_id"), state="requested", **document)
        said = self.ledger.last(*STATES, subject=ref, until=at)
        if said is None or said.kind == "request":
            return approval
        approval = replace(approval, state=STATES[said.kind], ledger_entry=said.head)
        return replace(approval, decided_by=said.by, decided_at=said.at, reason=said.reason)

    def _document(self, ref: str) -> dict[str, Any]:
        fields = dict.fromkeys(("evidence", "evidence_sha256", "requested_by", "requested_at"), 1)
        document = self.db.approvals.find_one({"_id": ref}, fields)
        if document is None:
            raise NotFound(f"Nobody asked for the approval of {ref}.\nAsk:  yard request RUN")
        return document

    def verified(self, version: ModelVersion, at: datetime | None = None) -> Approval:
        """The approval of a version, after checking that ledger, evidence, registry and files still agree.

        Raises:
            Refused: they do not; names what differs.
        """
        approval = self.get(version.ref, at)
        if evidence_sha256(approval.evidence) != approval.evidence_sha256:
            raise Refused(f"The evidence of {version.ref} was changed after it was gathered; its approval is void.")
        if approval.evidence["model_sha256"] != version.model_sha256:
            raise Refused(f"The registry gives {version.ref} another model than the one that was put forward.")
        for entry in self.ledger.entries(STATES, version.ref):
            if not entry.is_intact:
                raise Refused(f"Entry {entry.number} of the ledger, {entry.kind} of {version.ref}, was changed.")
            bound = _digests(version, approval.evidence_sha256)
            if any(entry.facts.get(name) != digest for name, digest in bound.items()):
                raise Refused(f"The ledger speaks of another model or other evidence of {version.ref}; it is void.")
            said = entry.facts if entry.kind == "request" else self._answer(version.ref, entry.kind)
            if any(said.get(name) != digest for name, digest in bound.items()):
                raise Refused(f"No approver said entry {entry.number} of the ledger, {entry.kind} of {version.ref}.")
        check_folder(self.files.model(version.model_sha256), version.model_sha256)
        return approval

    def version(self, ref: str) -> ModelVersion:
        """A version as it was put forward: what MLflow's registry says of it by now is not asked.

        Raises:
            NotFound: nobody asked for its approval.
            Refused: the text is no such name.
        """
        model, number = split_ref(ref)
        try:
            approval = self.get(ref)
        except NotFound as error:
            raise NotFound(f"There is no {ref}. See which there are:  yard models") from error
        facts = approval.evidence
        run_id, sha256, at = facts["run_id"], facts["model_sha256"], approval.requested_at
        return ModelVersion(model, number, run_id, sha256, approval.state, (), "", at, {})

    def require(self, version: ModelVersion, at: datetime | None = None) -> Approval:
        """The verified approval of a version that may be used, now or at a time.

        Raises:
            Refused: it is not approved, or no longer what was approved.
        """
        approval = self.verified(version, at)
        if approval.state in ("rejected", "withdrawn"):
            raise Refused(
                f"{version.ref} was {approval.state} by {approval.decided_by}, so it is not used: {approval.reason}\n"
                "See which are approved:  yard models"
            )
        if approval.state != "approved":
            raise Refused(
                f"{version.ref} has not been approved, so it will not be packaged.\n"
                f"Look at it:  yard show {version.ref}\n"
                f"Approve it:  yard approve {version.ref} --reason '...'"
            )
        return approval

    def drift(self) -> list[str]:
        """Where the registry shows something else than the ledger says; a sentence each."""
        states = [
            f"{version.ref} is {version.state} in MLflow's registry, and {state} to the ledger"
            for version, state in self._states()
            if version.state != state
        ]
        return [*self.aliases.drift(), *states]

    def mend(self) -> None:
        """Have the registry show what the ledger says."""
        for model in self.registry.models():
            self.aliases.show(model)
        for version, state in self._states():
            if version.state != state:
                self._show(version, state)

    def _states(self) -> list[tuple[ModelVersion, str]]:
        """Every version of the registry, and what it is to the ledger."""
        said = {entry.subject: STATES[entry.kind] for entry in self.ledger.entries(STATES)}
        return [(version, said.get(version.ref, "requested")) for version in self.registry.versions()]


def _answer_id(ref: str, kind: str) -> str:
    return f"{ref} {kind}"


def _digests(version: ModelVersion, evidence: str) -> dict[str, str]:
    return {"model_sha256": version.model_sha256, "evidence_sha256": evidence}
