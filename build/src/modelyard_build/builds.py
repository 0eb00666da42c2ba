"""Builds that passed, remembered in MongoDB by the digest of their bento, each with its report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pymongo.database import Database

from modelyard_build.bento import Bento
from modelyard_build.checks.finding import Finding
from modelyard_build.errors import Refused
from modelyard_build.junit import write_junit
from modelyard_build.report import Report
from modelyard_serving.model_files import digest_of


@dataclass(frozen=True, slots=True)
class Image:
    """An image that passed its checks."""

    ref: str  # name:tag
    id: str  # of the engine that made it
    base: str  # the digest of the image below it
    layers: Mapping[str, str]  # what it holds -> the digest of the layer
    size_mb: float  # beyond the base; a million bytes each
    report: Mapping[str, Any]
    report_sha256: str
    inputs_sha256: str
    ledger: str  # number:sha256 of the entry that says so
    digest: str = ""  # name@sha256:..., once it is in a registry


@dataclass(frozen=True, slots=True)
class Build:
    """A bento that passed, what it was made of, and its image where one was made."""

    ref: str
    bento: Bento
    environment: Path
    report: Mapping[str, Any]
    report_sha256: str
    inputs_sha256: str
    unchanged: bool  # all of it was made, and checked, before
    ledger: str  # number:sha256 of the entry that says so
    image: Image | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)  # that each step took
    ended: str = ""  # why it went no further; empty where it went as far as was asked


@dataclass(frozen=True, slots=True)
class BuildStore:
    """The collection `builds`, and the folder of reports."""

    db: "Database[dict[str, Any]]" = field(repr=False)
    home: Path

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

    def keep(self, report: Report, inputs: str, bento: Bento, environment: Path, ledger: str) -> None:
        for name in report_names(report.ref):  # also of an image of another bento
            (self.home / "reports" / name).unlink(missing_ok=True)
        self.write(report)
        self.db.builds.update_one(
            {"_id": bento.sha256},
            {
                "$set": {
                    "ref": report.ref,
                    "bento_tag": bento.tag,
                    "bento_path": str(bento.path),
                    "bento_sha256": bento.sha256,
                    "environment": str(environment),
                    "inputs_sha256": inputs,
                    "report": report.to_dict(),
                    "report_sha256": report.sha256,
                    "ledger": ledger,
                    "built_at": datetime.now(UTC),
                }
            },
            upsert=True,
        )

    def keep_image(self, bento: Bento, image: Image) -> None:
        self.db.builds.update_one({"_id": bento.sha256}, {"$set": {"image": asdict(image)}})

    def findings(self, ref: str) -> dict[str, tuple[Finding, ...]]:
        """What the checks of a version's last build found, by suite; also of one that did not pass."""
        files = [self.home / "reports" / name for name in report_names(ref) if name.endswith(".json")]
        found = [Report.from_dict(orjson.loads(file.read_bytes())) for file in files if file.is_file()]
        return {report.suite: report.findings for report in found}

    def write(self, report: Report) -> None:
        """Write a report for programs and for Jenkins."""
        own = [name for name in report_names(report.ref) if ("-image." in name) == bool(report.image)]
        for_programs, for_jenkins = (self.home / "reports" / name for name in own)
        write_junit(for_jenkins, {report.suite: report.findings})
        for_programs.write_bytes(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2))


def report_names(ref: str) -> tuple[str, ...]:
    """The files of a version's reports: on its bento and on its image, each for programs and for Jenkins."""
    stem = ref.replace(":", "-")
    return tuple(f"{stem}{of}.{kind}" for of in ("", "-image") for kind in ("json", "xml"))


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
        unchanged=True,
        ledger=document.get("ledger", ""),
        image=Image(**document["image"]) if document.get("image") else None,
    )
