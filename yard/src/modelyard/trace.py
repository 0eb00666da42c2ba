"""Trace: one prediction back to its image, approval, run, commit and data; or what was live. Every digest anew."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard_build.report import report_sha256
from modelyard_serving.errors import NotFound
from modelyard_serving.manifest import Manifest
from modelyard_serving.model_files import digest_of
from modelyard_tracking.digests import check_folder, file_sha256
from modelyard_tracking.ledger import Verification
from modelyard_tracking.origin import has_commit

if TYPE_CHECKING:
    from modelyard.yard import Yard


@dataclass(frozen=True, slots=True)
class Link:
    """One step back: what it is, the digest or commit that binds it, and whether it still holds."""

    name: str
    what: str
    digest: str
    holds: bool
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """The chain of one prediction."""

    prediction_id: str
    links: tuple[Link, ...]

    @property
    def holds(self) -> bool:
        return all(link.holds for link in self.links)


class _Broken(Exception):
    """A link does not hold; the text says why."""


def trace(yard: "Yard", prediction_id: str) -> Trace:
    """Walk from a prediction to its data.

    Raises:
        NotFound: the audit knows no such prediction.
    """
    record = yard.db.predictions.find_one({"_id": prediction_id})
    if record is None:
        raise NotFound(
            f"The audit knows no prediction {prediction_id!r}. Its id is in the answer and in the header "
            "x-prediction-id; a fresh one arrives within a second."
        )
    links = [_link("prediction", lambda: (_said_of(record), ""))]
    ref = f"{record['model']}:{record['version']}"
    walk = Walk(yard, ref, record["model_sha256"], record["bento_sha256"], record["at"], yard.verify_ledger())
    if image := record.get("image"):
        links.append(_link("image", lambda: walk.image(image)))
    return Trace(prediction_id, (*links, *walk.links()))


def _said_of(record: Mapping[str, Any]) -> str:
    who = f"unit {record['unit']}" if record.get("unit") else "no unit"
    answered = f"{record['variant'] or 'exact version'} {record['model']}:{record['version']}"
    return f"{record['at']:%Y-%m-%d %H:%M:%S} by {record['caller']}, {who}, {answered}"


class Walk:
    """From a version that is or was served back to its data.

    Args:
        at: when it was served; what was said about it later breaks nothing. None: now.
        chain: what the ledger was found to be, once for all walks.
    """

    def __init__(
        self,
        yard: "Yard",
        ref: str,
        model_sha256: str,
        bento_sha256: str,
        at: datetime | None,
        chain: Verification,
    ) -> None:
        self.yard = yard
        self.ref = ref
        self.model_sha256 = model_sha256
        self.bento_sha256 = bento_sha256
        self.at = at
        self.chain = chain
        self.facts: dict[str, Any] = {}

    def links(self) -> list[Link]:
        steps: list[tuple[str, Callable[[], tuple[str, str]]]] = [
            ("bento", self.bento),
            ("report", self.report),
            ("approval", self.approval),
            ("ledger", self.ledger),
            ("model", self.model),
            ("run", self.run),
            ("commit", self.commit),
            ("environment", self.lock),
        ]
        links = [_link(name, step) for name, step in steps]
        for name, digest in sorted(self.facts.get("data", {}).items()):
            links.append(_link("data", lambda name=name, digest=digest: self.data(name, digest)))  # type: ignore[misc]
        for name, said in sorted((self.facts.get("evaluations") or {}).items()):
            digest = said["sha256"]
            links.append(_link("evaluation", lambda name=name, digest=digest: self.data(name, digest)))  # type: ignore[misc]
        return links

    def image(self, image: str) -> tuple[str, str]:
        """Of what answered: the one that was checked and pushed, as the ledger says."""
        name, _, digest = image.partition("@")
        of_version = self.yard.approvals.ledger.entries(("push",), self.ref)
        pushed = [entry for entry in of_version if entry.facts["digest"] == digest]
        if not pushed:
            raise _Broken(f"the ledger knows no push of {image}")
        if all(entry.facts["bento_sha256"] != self.bento_sha256 for entry in pushed):
            raise _Broken(f"{image} was made of another bento than the one that answered")
        return name, digest.removeprefix("sha256:")

    def bento(self) -> tuple[str, str]:
        build = self._build()
        path = Path(build["bento_path"])
        if digest_of(path) != build["_id"]:
            raise _Broken(f"{path} was changed after it was checked")
        if Manifest.read(path / "src").model_sha256 != self.model_sha256:
            raise _Broken(f"{build['bento_tag']} holds another model than the one that answered")
        return build["bento_tag"], build["_id"]

    def report(self) -> tuple[str, str]:
        build = self._build()
        report = build["report"]
        if report_sha256(report) != build["report_sha256"]:
            raise _Broken("the report was changed")
        if not report["passed"] or report["bento_sha256"] != build["_id"]:
            raise _Broken("the report is not a pass of this bento")
        return f"{len(report['findings'])} checks passed", build["report_sha256"]

    def approval(self) -> tuple[str, str]:
        approvals, version = self.yard.approvals, self.yard.registry.resolve(self.ref)
        approval, now = approvals.get(self.ref, self.at), approvals.get(self.ref)
        self.facts = dict(approval.evidence)
        approvals.require(version, self.at)
        if version.model_sha256 != self.model_sha256:
            raise _Broken("another model was approved")
        said = f"{self.ref} by {approval.approved_by} on {approval.decided_at:%Y-%m-%d}: {approval.reason}"
        if now.state != approval.state:
            said += f" ({now.state} since by {now.decided_by}: {now.reason})"
        return said, approval.evidence_sha256

    def ledger(self) -> tuple[str, str]:
        if self.chain.faults:
            raise _Broken("; ".join(self.chain.faults))
        approval = self.yard.approvals.get(self.ref, self.at)
        if approval.ledger_entry is None or self.chain.head is None:
            raise _Broken("it is empty")
        return f"entry {approval.ledger_entry.number} of {self.chain.entries}", approval.ledger_entry.sha256

    def model(self) -> tuple[str, str]:
        folder = self.yard.settings.tracking_home.files.model(self.model_sha256)
        check_folder(folder, self.model_sha256)
        return "files in the store", self.model_sha256

    def run(self) -> tuple[str, str]:
        run = self.yard.run_store.get(self.facts["run_id"])
        if run.model_sha256 != self.model_sha256:
            raise _Broken(f"run {run.id} saved another model")
        score = ", ".join(f"{name} {value:.4g}" for name, value in run.result.items() if isinstance(value, float))
        sweep = f", sweep {run.sweep_id}" if run.sweep_id else ""
        return f"run {run.id} of {run.experiment}{sweep}: {score}", self.model_sha256

    def commit(self) -> tuple[str, str]:
        commit = self.facts["commit"]
        if not commit or not has_commit(self.yard.settings.root, commit):
            raise _Broken(f"commit {commit} is not in the repository of {self.yard.settings.root}")
        return "with changes on top, kept in the run" if self.facts["dirty"] else "clean", commit

    def lock(self) -> tuple[str, str]:
        digest = self.facts["lock_sha256"]
        lock = self.yard.settings.tracking_home.files.lock(digest)
        if not lock.is_file() or file_sha256(lock) != digest:
            raise _Broken(f"the lock {lock} is missing or was changed")
        return f"python {self.facts['python']}, lock", digest

    def data(self, name: str, digest: str) -> tuple[str, str]:
        return f"{name}, {self.yard.settings.tracking_home.files.check_data(digest)}", digest

    def _build(self) -> dict[str, Any]:
        build = self.yard.db.builds.find_one({"_id": self.bento_sha256})
        if build is None:
            raise _Broken("no build of the bento that answered is recorded")
        return build


def _link(name: str, step: Callable[[], tuple[str, str]]) -> Link:
    from modelyard.errors import OURS

    try:
        what, digest = step()
    except (_Broken, KeyError, *OURS) as error:
        fault = str(error) if not isinstance(error, KeyError) else f"nothing is recorded of {error}"
        return Link(name, "", "", False, fault)
    return Link(name, what, digest, True)
