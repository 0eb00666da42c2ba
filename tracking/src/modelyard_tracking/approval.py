"""Approval: a person's recorded yes to one version, bound to the model's digest and the evidence's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database

from modelyard_tracking.digests import check_folder
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.evidence import Evidence, evidence_sha256
from modelyard_tracking.registry import ModelVersion, Registry
from modelyard_tracking.store import ArtifactStore


@dataclass(frozen=True, slots=True)
class Approval:
    """What was asked and answered about one version."""

    ref: str
    state: str  # requested, approved
    evidence: Mapping[str, Any]
    evidence_sha256: str
    requested_by: str
    requested_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Approvals:
    """Asks for approval and records it; registry and database are kept in step."""

    db: "Database[dict[str, Any]]" = field(repr=False)
    registry: Registry
    files: ArtifactStore

    def request(self, evidence: Evidence, requested_by: str) -> ModelVersion:
        """Register the evidence's model as a version that awaits approval. Asking twice gives the same version.

        Raises:
            Refused: there are objections; all of them are in the text.
        """
        facts = evidence.facts
        if evidence.objections:
            listed = "\n".join(f"  - {objection}" for objection in evidence.objections)
            raise Refused(f"Run {facts['run_id']} cannot be put before an approver:\n{listed}")
        model, digest = facts["model"], facts["model_sha256"]
        check_folder(self.files.model(digest), digest)
        before = self.db.approvals.find_one({"evidence.model": model, "evidence_sha256": evidence.sha256})
        if before is not None:
            return self.registry.resolve(before["_id"])
        tags = {
            "run_id": str(facts["run_id"]),
            "model_sha256": digest,
            "evidence_sha256": evidence.sha256,
            "commit": facts["commit"] or "none",
            "lock_sha256": facts["lock_sha256"],
            "state": "requested",
        }
        version = self.registry.add(model, self.files.model(digest) / "mlflow", tags)
        self.db.approvals.insert_one(
            {
                "_id": f"{model}:{version}",
                "state": "requested",
                "evidence": dict(facts),
                "evidence_sha256": evidence.sha256,
                "requested_by": requested_by,
                "requested_at": datetime.now(UTC),
            }
        )
        return self.registry.get(model, version)

    def approve(self, ref: str, approved_by: str, reason: str, alias: str | None = None) -> Approval:
        """Record a yes, and point `alias` at the version. The files are checked against the digest first.

        Raises:
            NotFound: nobody asked for this version.
            Refused: no reason is given, or the files or the evidence are not those that were put forward.
        """
        if not reason.strip():
            raise Refused(f"Say why {ref} may be used:  yard approve {ref} --reason '...'")
        version = self.registry.resolve(ref)
        approval = self.verified(version)
        if approval.state != "approved":
            said = {"approved_by": approved_by, "approved_at": datetime.now(UTC), "reason": reason.strip()}
            self.db.approvals.update_one(
                {"_id": version.ref, "state": "requested"}, {"$set": {"state": "approved", **said}}
            )
            self.registry.tag(version.model, version.version, {"state": "approved", "approved_by": approved_by})
        if alias:
            self.registry.set_alias(version.model, alias, version.version)
        return self.get(version.ref)

    def get(self, ref: str) -> Approval:
        document = self.db.approvals.find_one({"_id": ref})
        if document is None:
            raise NotFound(f"Nobody asked for the approval of {ref}.\nAsk:  yard request RUN")
        return Approval(ref=document.pop("_id"), **document)

    def verified(self, version: ModelVersion) -> Approval:
        """The approval of a version, after checking that evidence, registry and files still agree.

        Raises:
            Refused: they do not; names what differs.
        """
        approval = self.get(version.ref)
        if evidence_sha256(approval.evidence) != approval.evidence_sha256:
            raise Refused(f"The evidence of {version.ref} was changed after it was gathered; its approval is void.")
        if approval.evidence["model_sha256"] != version.model_sha256:
            raise Refused(f"The registry gives {version.ref} another model than the one that was put forward.")
        check_folder(self.files.model(version.model_sha256), version.model_sha256)
        return approval

    def require(self, version: ModelVersion) -> Approval:
        """The verified approval of a version that may be used.

        Raises:
            Refused: it is not approved, or no longer what was approved.
        """
        approval = self.verified(version)
        if approval.state != "approved":
            raise Refused(
                f"{version.ref} has not been approved, so it will not be packaged.\n"
                f"Look at it:  yard show {version.ref}\n"
                f"Approve it:  yard approve {version.ref} --reason '...'"
            )
        return approval
