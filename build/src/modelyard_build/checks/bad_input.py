"""Bad input gets a 4xx with a reason, at once, and never reaches the model."""

import json
import re

import httpx

from modelyard_build.checks.bad_requests import BadRequest, bad_requests
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served

LONGEST_S = 5.0
CALLS = "modelyard_model_calls_total"
_REMEDY = "This is a fault of the runtime: report it."


def check(served: Served, subject: Subject) -> Finding:
    before = model_calls(served.http)
    if before is None:
        message = f"/metrics does not count {CALLS}, so nobody knows whether bad input reaches the model"
        return _failed(message)
    requests = bad_requests(subject.manifest, subject.golden_rows[0])
    for number, request in enumerate(requests):
        if fault := _fault(served.http, request):
            return _failed(f"bad request {number + 1} of {len(requests)}, {request.what}, to {request.path} {fault}")
    if reached := (model_calls(served.http) or 0) - before:
        return _failed(f"{len(requests)} malformed requests were refused, but the model was called {reached:g} times")
    message = f"{len(requests)} malformed requests were refused with a 4xx and a reason, and none reached the model"
    return Finding("bad input", True, message)


def model_calls(http: httpx.Client) -> float | None:
    """How often the model was called, by the served model's own count; None if it does not count."""
    text = http.get("/metrics").text
    if CALLS not in text:
        return None
    return sum(float(value) for value in re.findall(rf"(?m)^{CALLS}(?:{{.*}})? (\S+)", text))


def _fault(http: httpx.Client, request: BadRequest) -> str:
    """What is wrong with the answer to a bad request; empty where nothing is."""
    headers = {"content-type": request.content_type} if request.content_type else {}
    try:
        answer = http.post(request.path, content=request.content, headers=headers, timeout=LONGEST_S)
    except httpx.TransportError as error:
        return f"was not answered: {type(error).__name__} {error}".rstrip()
    if not 400 <= answer.status_code < 500:
        return f"was answered {answer.status_code}, not 4xx: {answer.text[:200]}"
    if answer.status_code == 415 and answer.text:  # whose reason MLflow's protocol gives as plain text
        return ""
    return "" if _says_why(answer.content) else f"was refused without a JSON error: {answer.text[:200]!r}"


def _says_why(content: bytes) -> bool:
    try:
        document = json.loads(content)
    except ValueError:
        return False
    said = document.get("error") or document.get("message") if isinstance(document, dict) else None  # MLflow's word
    return bool(said) and isinstance(said, str)


def _failed(message: str) -> Finding:
    return Finding("bad input", False, message, _REMEDY)
