"""It comes up, and says that it is ready."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served


def check(served: Served, subject: Subject) -> Finding:  # noqa: ARG001 - all checks are called alike
    answer = served.http.get("/readyz")
    if answer.status_code == 200:
        return Finding("servable", True, "it comes up and is ready", measured=f"in {served.started_in_s:.1f} s")
    message = f"/readyz answered {answer.status_code} after it was ready once, not 200: {answer.text[:300]}"
    return Finding("servable", False, message, "Look at the log of the served model: it may lack memory.")
