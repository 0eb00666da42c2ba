"""The project's own cases: typical, critical, out of domain, and such that must fail."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served


def check(served: Served, subject: Subject) -> Finding:
    for case in subject.cases:
        expected = case["expect"]
        response = served.http.post("/predict", json={"rows": case["rows"]})
        if response.status_code != expected.get("status", 200):
            return _failed(case["name"], f"answered {response.status_code}: {response.text[:200]}")
        if "predictions" in expected and response.json()["predictions"] != expected["predictions"]:
            return _failed(case["name"], f"expected {expected['predictions']}, got {response.json()['predictions']}")
    return Finding("cases", True, f"{len(subject.cases)} cases of cases.json answered as expected")


def _failed(name: str, message: str) -> Finding:
    return Finding("cases", False, f"case {name!r}: {message}", "Mend the model, or the case if it is wrong.")
