"""The image holds no secret in its variables, labels and history, where everyone who pulls it can read them."""

import re
from collections.abc import Iterator

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.images.engine import ServedImage

_NAME = re.compile(r"pass(word|wd|phrase)?|token|secret|credential|api_?key|private_?key", re.IGNORECASE)
_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bglpat-[\w-]{20}"
    r"|\w+://[^/\s:@]+:[^/\s@]+@|\beyJ[\w-]{10,}\.[\w-]{10,}\."
)


def check(served: ServedImage, subject: Subject) -> Finding:  # noqa: ARG001 - the signature of every check
    for place, text in _texts(served):
        name, _, value = text.partition("=")
        if (_NAME.search(name) and value) or _VALUE.search(text):
            remedy = "Take it out of what the image is made from, and change the secret: it may have been seen."
            return Finding("image secrets", False, f"its {place} {name[:60]!r} looks like a secret", remedy)
    return Finding("image secrets", True, "its variables, labels and history hold no secret")


def _texts(served: ServedImage) -> Iterator[tuple[str, str]]:
    config = served.image["Config"]
    for variable in config.get("Env") or ():
        yield "variable", variable
    for key, value in (config.get("Labels") or {}).items():
        yield "label", f"{key}={value}"
    for step in served.container.client.images.get(served.image["Id"]).history():
        if found := _VALUE.search(step.get("CreatedBy", "")):
            yield "history", found.group()
