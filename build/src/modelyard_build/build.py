"""Build: from an approved version to a bento that passed its checks, step by step, remembered by digest."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo.database import Database

from modelyard_build.bento import package
from modelyard_build.builds import Build, BuildStore
from modelyard_build.cases import CASES, read_cases
from modelyard_build.checks import signature
from modelyard_build.checks.finding import Subject
from modelyard_build.checks.running import run_checks
from modelyard_build.environment import make_environment, serving_wheel
from modelyard_build.errors import Refused
from modelyard_build.live import live_manifests
from modelyard_build.locks.locking import served_part
from modelyard_build.report import Report, refusal
from modelyard_build.served import serve
from modelyard_build.steps import Steps
from modelyard_build.supply.known_bad import TABLE as KNOWN_BAD
from modelyard_build.supply.sbom import sbom
from modelyard_build.supply.signing import key_pair, sign, verify
from modelyard_serving.manifest import AuditPlan, Column, Manifest
from modelyard_tracking.approval import Approval, Approvals
from modelyard_tracking.digests import file_sha256, text_sha256
from modelyard_tracking.layout import check_layout
from modelyard_tracking.ledger import Entry
from modelyard_tracking.origin import locked_versions
from modelyard_tracking.project import LOCK, Project
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.saving import Golden, read_schema

SBOM, SIGNATURE = "sbom.json", "model.sig"  # in the bento, beside the manifest


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds versions into `home`, and remembers builds in MongoDB."""

    db: "Database[dict[str, Any]]" = field(repr=False)
    approvals: Approvals
    home: Path
    user: str
    keys: Path  # folder of the key pair that signs models
    wheelhouse: Path | None = None  # where packages come from instead of an index

    @property
    def store(self) -> BuildStore:
        return BuildStore(self.db, self.home)

    def build(self, version: ModelVersion, project: Project, steps: Steps | None = None) -> Build:
        """Package `version`, serve it as packaged, and check it over HTTP.

        An unchanged input that passed before does nothing.

        Raises:
            Refused: it is not approved, its files were changed, or a check said no.
        """
        steps = steps or Steps()
        with tempfile.TemporaryDirectory(prefix="yard-wheel-") as scratch:
            with steps.step("approval and digests"):
                approval, lock, wheel, inputs = self._inputs(version, project, Path(scratch))
                live = live_manifests(self.db, version.model, version.version)
                if before := self._before(version.ref, inputs, live, project):
                    return before
                model = self.approvals.files.model(version.model_sha256)
                model_kind = approval.evidence.get("kind", "sklearn")
                check_layout(model, model_kind)
                _check_pickle(model_kind, version.ref, project)
                manifest = _manifest(version, approval, model, project)
            with steps.step("environment from the run's lock"):
                part = Path(scratch) / LOCK
                part.write_text(served_part(lock.read_text(), manifest.kind))
                environments = self.home / "environments"
                environment = make_environment(part, wheel, manifest.python, environments, self.wheelhouse)
            subject = _subject(manifest, model, project, live, environment, part)
            with steps.step("bill of materials, signature"):
                at = approval.decided_at or version.created_at
                papers = {
                    SBOM: sbom(environment, part, manifest, approval.evidence, at),
                    SIGNATURE: self._signature(model, version.model_sha256),
                }
            with steps.step("bento"):
                bento = package(manifest, model, part, wheel, papers, at, self.home / "bentoml", inputs)
                verify(bento.path / "src" / "model", key_pair(self.keys).public, bento.path / "src" / SIGNATURE)
        with steps.step("served as packaged, checked over HTTP"), serve(bento.path, environment, self.home) as served:
            findings = run_checks(served, subject)
        report = Report(version.ref, bento.tag, bento.sha256, version.model_sha256, findings)
        if not report.passed:
            self.store.keep(report, inputs, bento, environment, "")
            raise Refused(refusal(version.ref, report))
        ledger = str(self._entered(report).head)
        self.store.keep(report, inputs, bento, environment, ledger)
        return Build(version.ref, bento, environment, report.to_dict(), report.sha256, inputs, False, ledger)

    def unchanged(self, version: ModelVersion, project: Project, steps: Steps) -> Build | None:
        """The build of a version if it passed before, of the same inputs; raises as `build` does."""
        with steps.step("approval and digests"), tempfile.TemporaryDirectory(prefix="yard-wheel-") as scratch:
            *_, inputs = self._inputs(version, project, Path(scratch))
            live = live_manifests(self.db, version.model, version.version)
            return self._before(version.ref, inputs, live, project)

    def find(self, ref: str) -> Build:
        """The build of a version that passed, its bento verified; raises as the store does."""
        return self.store.find(ref)

    def subject(self, build: Build, version: ModelVersion, project: Project) -> Subject:
        """What the checks of a build's image may know."""
        manifest = Manifest.read(build.bento.path / "src")
        model = self.approvals.files.model(version.model_sha256)
        live, lock = live_manifests(self.db, version.model, version.version), build.bento.path / "src" / LOCK
        return _subject(manifest, model, project, live, build.environment, lock)

    def _signature(self, model: Path, sha256: str) -> bytes:
        """A signature by this key; one that was made before, so that the same version gives the same bento again."""
        pair = key_pair(self.keys)
        file = self.home / "signatures" / f"{sha256}-{file_sha256(pair.public)[:12]}.sig"
        if not file.exists():
            sign(model, pair.private, file)
        return file.read_bytes()

    def _entered(self, report: Report) -> Entry:
        """The ledger's entry about a build that passed."""
        facts = {
            "bento": report.bento_tag,
            "bento_sha256": report.bento_sha256,
            "report_sha256": report.sha256,
            "model_sha256": report.model_sha256,
        }
        return self.approvals.ledger.append("build", report.ref, self.user, lambda: facts)

    def _inputs(self, version: ModelVersion, project: Project, scratch: Path) -> tuple[Approval, Path, Path, str]:
        """The approval, the lock and the runtime's wheel of a build, and the digest of all that goes into it."""
        approval = self.approvals.require(version)
        lock, wheel = self._lock(approval), serving_wheel(scratch)
        return approval, lock, wheel, _inputs_sha256(approval, lock, wheel, project)

    def _before(self, ref: str, inputs: str, live: tuple[Manifest, ...], project: Project) -> Build | None:
        try:
            build = self.find(ref)
        except Refused:
            return None
        if build.inputs_sha256 != inputs or not (build.environment / "complete").exists():
            return None
        _still_compatible(build, live, project)
        return build

    def _lock(self, approval: Approval) -> Path:
        digest = approval.evidence["lock_sha256"]
        lock = self.approvals.files.lock(digest)
        if not lock.is_file() or file_sha256(lock) != digest:
            raise Refused(f"The lock {digest[:12]} of {approval.ref} is missing or was changed. Train again.")
        return lock


def _inputs_sha256(approval: Approval, lock: Path, wheel: Path, project: Project) -> str:
    cases_file = project.folder / CASES
    parts = [
        approval.ref,
        approval.evidence_sha256,
        str(approval.approved_by),
        file_sha256(lock),
        file_sha256(wheel),
        project.endpoint.model_dump_json(exclude={"unit", "reward"}),
        project.build.model_dump_json(),
        project.audit.model_dump_json(),
        file_sha256(KNOWN_BAD),
        file_sha256(cases_file) if cases_file.is_file() else "no cases",
    ]
    return text_sha256("\n".join(parts).encode())


def _subject(
    manifest: Manifest, model: Path, project: Project, live: tuple[Manifest, ...], environment: Path, lock: Path
) -> Subject:
    golden, endpoint = Golden.read(model), project.endpoint
    return Subject(
        manifest,
        golden.rows,
        golden.answers,
        read_cases(project.folder),
        endpoint.tolerance,
        endpoint,
        live,
        environment,
        project.build,
        locked_versions(lock),
    )


def _still_compatible(build: Build, live: tuple[Manifest, ...], project: Project) -> None:
    """Stop where another version is live by now, and its callers could not call this one."""
    finding = signature.compared(Manifest.read(build.bento.path / "src"), live, project.endpoint.breaks)
    if finding.stops:
        raise Refused(f"{build.ref} is refused; {finding.message}\n{finding.remedy}")


def _check_pickle(model_kind: str, ref: str, project: Project) -> None:
    """Stop, before anything is loaded, at a pickle that the project does not want."""
    if model_kind == "pickle" and not project.model.allow_pickle:
        raise Refused(
            f"{ref} is a pickle, which runs code, and {project.folder / 'project.toml'} does not allow it.\n"
            "Save it as a scikit-learn estimator or an ONNX graph, or write:  [model] allow_pickle = true"
        )


def _manifest(version: ModelVersion, approval: Approval, model: Path, project: Project) -> Manifest:
    facts, schema = approval.evidence, read_schema(model)
    names = [column["name"] for column in schema["inputs"]]
    if strange := sorted(set(project.audit.redact) - set(names)):
        raise Refused(
            f"{project.folder / 'project.toml'}: [audit] redact names {', '.join(strange)}, which {version.ref} "
            f"does not take, so what it should hide would be recorded. It takes {', '.join(names)}."
        )
    bounds = {entry["name"]: entry.get("range") for entry in (facts.get("card") or {}).get("inputs") or ()}
    return Manifest(
        model=version.model,
        version=version.version,
        run_id=facts["run_id"],
        experiment=facts["model"],
        commit=facts["commit"] or "",
        dirty=facts["dirty"],
        model_sha256=version.model_sha256,
        data_sha256=tuple(facts["data"].values()),
        lock_sha256=facts["lock_sha256"],
        evidence_sha256=approval.evidence_sha256,
        approved_by=approval.approved_by or "",
        python=facts["python"],
        inputs=tuple(
            Column(column["name"], column["dtype"], *(bounds.get(column["name"]) or ())) for column in schema["inputs"]
        ),
        methods=tuple(schema["methods"]),
        classes=tuple(schema["classes"]),
        ledger=str(approval.ledger_entry or ""),
        kind=schema["kind"],
        tolerance=project.endpoint.tolerance,
        audit=AuditPlan(tuple(project.audit.redact), **project.audit.model_dump(exclude={"redact"})),
    )
