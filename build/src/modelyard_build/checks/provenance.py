"""The running bento says what it is, and says it truly."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_serving.manifest import Manifest


def check(served: Served, subject: Subject) -> Finding:
    answer = served.http.get("/provenance")
    said = Manifest.from_json(answer.content) if answer.status_code == 200 else None
    if said == subject.manifest:
        return Finding("provenance", True, f"answers with the manifest of {said.model}:{said.version}")
    return Finding(
        "provenance", False, f"/provenance gave {answer.status_code} and another manifest", "Build it again."
    )
