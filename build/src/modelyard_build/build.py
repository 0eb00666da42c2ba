"""Build: from an approved version to a bento that passed its checks, step by step, remembered by digest."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pymongo.database import Database

from modelyard_build.bento import Bento, package
from modelyard_build.checks import bad_input, cases, golden, kind, provenance
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.environment import make_environment, serving_wheel
from modelyard_build.errors import Refused
from modelyard_build.locking import served_part
from modelyard_build.report import Report
from modelyard_build.served import serve
from modelyard_serving.manifest import Column, Manifest
from modelyard_serving.model_files import digest_of
from modelyard_tracking.approval import Approval, Approvals
from modelyard_tracking.digests import file_sha256, text_sha256
from modelyard_tracking.layout import check_layout
from modelyard_tracking.ledger import Entry
from modelyard_tracking.project import LOCK, Project
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.saving import Golden, read_schema

CHECKS = (provenance.check, kind.check, golden.check, cases.check, bad_input.check)

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Build:
    """A bento that passed, and what it was made of."""

    ref: str
    bento: Bento
    environment: Path
    report: Mapping[str, Any]
    report_sha256: str
    inputs_sha256: str
    cached: bool
    ledger: str  # number:sha256 of the entry that says so


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds versions into `home`, and remembers builds in MongoDB."""

    db: "Database[dict[str, Any]]" = field(repr=False)
    approvals: Approvals
    home: Path
    user: str

    def build(self, version: ModelVersion, project: Project, say: Say = lambda _: None) -> Build:
        """Package `version`, serve it as packaged, and check it over HTTP.

        An unchanged input that passed before does nothing. `say` is told each step as it begins.

        Raises:
            Refused: it is not approved, its files were changed, or a check said no.
        """
        say("approval and digests")
        approval = self.approvals.require(version)
        lock = self._lock(approval)
        with tempfile.TemporaryDirectory(prefix="yard-wheel-") as scratch:
            wheel = serving_wheel(Path(scratch))
            inputs = _inputs_sha256(approval, lock, wheel, project)
            before = self._before(version.ref, inputs)
            if before is not None:
                return before
            model = self.approvals.files.model(version.model_sha256)
            model_kind = approval.evidence.get("kind", "sklearn")
            check_layout(model, model_kind)
            _check_pickle(model_kind, version.ref, project)
            manifest = _manifest(version, approval, model)
            say("environment from the run's lock")
            part = Path(scratch) / LOCK
            part.write_text(served_part(lock.read_text(), manifest.kind))
            environment = make_environment(part, wheel, manifest.python, self.home / "environments")
            say("bento")
            bento = package(manifest, model, part, wheel, self.home / "bentoml", inputs)
        subject = _subject(manifest, model, project)
        say("served as packaged, checked over HTTP")
        with serve(bento.path, environment, self.home) as served:
            findings = tuple(check(served, subject) for check in CHECKS)
        report = Report(version.ref, bento.tag, bento.sha256, version.model_sha256, findings)
        if not report.passed:
            self._keep(report, inputs, bento, environment, "")
            raise Refused(_refusal(version.ref, findings))
        ledger = str(self._entered(report).head)
        self._keep(report, inputs, bento, environment, ledger)
        return Build(version.ref, bento, environment, report.to_dict(), report.sha256, inputs, False, ledger)

    def _entered(self, report: Report) -> Entry:
        """The ledger's entry about a build that passed."""
        facts = {
            "bento": report.bento_tag,
            "bento_sha256": report.bento_sha256,
            "report_sha256": report.sha256,
            "model_sha256": report.model_sha256,
        }
        return self.approvals.ledger.append("build", report.ref, self.user, lambda: facts)

    def find(self, ref: str) -> Build:
        """The build of a version that passed, its bento verified.

        Raises:
            Refused: there is none, or its bento was changed since.
        """
        document = self.db.builds.find_one({"ref": ref, "report.passed": True}, sort=[("built_at", -1)])
        if document is None:
            raise Refused(f"{ref} has no build that passed its checks.\nBuild it:  yard build {ref}")
        build = _build(document)
        verify_bento(build.bento)
        return build

    def _before(self, ref: str, inputs: str) -> Build | None:
        try:
            build = self.find(ref)
        except Refused:
            return None
        return build if build.inputs_sha256 == inputs and (build.environment / "complete").exists() else None

    def _lock(self, approval: Approval) -> Path:
        digest = approval.evidence["lock_sha256"]
        lock = self.approvals.files.lock(digest)
        if not lock.is_file() or file_sha256(lock) != digest:
            raise Refused(f"The lock {digest[:12]} of {approval.ref} is missing or was changed. Train again.")
        return lock

    def _keep(self, report: Report, inputs: str, bento: Bento, environment: Path, ledger: str) -> None:
        reports = self.home / "reports"
        reports.mkdir(parents=True, exist_ok=True)
        document = report.to_dict()
        file = reports / f"{report.ref.replace(':', '-')}.json"
        file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        self.db.builds.replace_one(
            {"_id": bento.sha256},
            {
                "ref": report.ref,
                "bento_tag": bento.tag,
                "bento_path": str(bento.path),
                "bento_sha256": bento.sha256,
                "environment": str(environment),
                "inputs_sha256": inputs,
                "report": document,
                "report_sha256": report.sha256,
                "ledger": ledger,
                "built_at": datetime.now(UTC),
            },
            upsert=True,
        )


def verify_bento(bento: Bento) -> None:
    """Stop unless the bento on disk is the one whose digest was recorded.

    Raises:
        Refused: it is gone, or was changed after its checks.
    """
    if not bento.path.is_dir() or digest_of(bento.path) != bento.sha256:
        ref = bento.tag.partition("-")[0]
        raise Refused(f"The bento {bento.path} is not the one that was checked.\nBuild it again:  yard build {ref}")


def _build(document: Mapping[str, Any]) -> Build:
    bento = Bento(document["bento_tag"], Path(document["bento_path"]), document["bento_sha256"])
    return Build(
        document["ref"],
        bento,
        Path(document["environment"]),
        document["report"],
        document["report_sha256"],
        document["inputs_sha256"],
        cached=True,
        ledger=document.get("ledger", ""),
    )


def _inputs_sha256(approval: Approval, lock: Path, wheel: Path, project: Project) -> str:
    cases_file = project.folder / "cases.json"
    parts = [
        approval.ref,
        approval.evidence_sha256,
        str(approval.approved_by),
        file_sha256(lock),
        file_sha256(wheel),
        str(project.endpoint.tolerance),
        file_sha256(cases_file) if cases_file.is_file() else "no cases",
    ]
    return text_sha256("\n".join(parts).encode())


def _check_pickle(model_kind: str, ref: str, project: Project) -> None:
    """Stop, before anything is loaded, at a pickle that the project does not want."""
    if model_kind == "pickle" and not project.model.allow_pickle:
        raise Refused(
            f"{ref} is a pickle, which runs code, and {project.folder / 'project.toml'} does not allow it.\n"
            "Save it as a scikit-learn estimator or an ONNX graph, or write:  [model] allow_pickle = true"
        )


def _manifest(version: ModelVersion, approval: Approval, model: Path) -> Manifest:
    facts, schema = approval.evidence, read_schema(model)
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
        inputs=tuple(Column(**column) for column in schema["inputs"]),
        methods=tuple(schema["methods"]),
        classes=tuple(schema["classes"]),
        ledger=str(approval.ledger_entry or ""),
        kind=schema["kind"],
    )


def _subject(manifest: Manifest, model: Path, project: Project) -> Subject:
    rows = Golden.read(model)
    cases_file = project.folder / "cases.json"
    try:
        own_cases = orjson.loads(cases_file.read_bytes()) if cases_file.is_file() else []
    except orjson.JSONDecodeError as error:
        raise Refused(f"{cases_file} is not valid JSON: {error}") from error
    return Subject(manifest, rows.rows, rows.answers, own_cases, project.endpoint.tolerance)


def _refusal(ref: str, findings: tuple[Finding, ...]) -> str:
    failed = [finding for finding in findings if not finding.passed]
    lines = [f"  - {finding.check}: {finding.message}\n    {finding.remedy}" for finding in failed]
    return f"{ref} is refused; {len(failed)} of {len(findings)} checks failed:\n" + "\n".join(lines)
