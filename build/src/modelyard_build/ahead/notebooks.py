"""Notebooks: what they show, and what is typed into them, holds nothing that looks like a secret."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from modelyard_build.ahead.draft import Draft
from modelyard_build.checks.finding import Finding

_SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an address with a password": r"://[^/@\s:\"']*:[^/@\s\"']+@",
    "an access key": r"\bAKIA[0-9A-Z]{16}\b",
    "a signed token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",
    "a password": r"(?i)(?:password|passwd|secret|api_?key|token)[\"']?\s*[=:]\s*[\"'][^\"'\s]{6,}[\"']",
}


def check(draft: Draft) -> Iterator[Finding]:
    files = sorted(draft.folder.glob("*.ipynb"))
    clean = True
    for file in files:
        try:
            cells = orjson.loads(file.read_bytes())["cells"]
            found = [(number, what) for number, cell in enumerate(cells, 1) for what in _secrets_in(cell)]
        except (ValueError, KeyError, TypeError, AttributeError):
            yield Finding("notebooks", False, f"{file.name} is no notebook", "Save it again in JupyterLab.")
            clean = False
            continue
        for number, what in found:
            message = f"cell {number} of {file.name} holds what looks like {what}"
            yield Finding("notebooks", False, message, "Take it out, clear the output, and change that secret.")
            clean = False
    if files and clean:
        yield Finding("notebooks", True, f"nothing that looks like a secret in {', '.join(f.name for f in files)}")


def _secrets_in(cell: Mapping[str, Any]) -> list[str]:
    text = "\n".join(_texts([cell.get("source", ""), cell.get("outputs", [])]))
    return [what for what, pattern in _SECRETS.items() if re.search(pattern, text)]


def _texts(value: Any) -> Iterator[str]:
    """The texts in it; a notebook writes a longer one as a list of lines."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield "".join(value)
        else:
            for item in value:
                yield from _texts(item)
