"""Bad input gets a 4xx with a JSON error, never a 5xx, and never reaches the model."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served


def check(served: Served, subject: Subject) -> Finding:
    bad = list(bad_bodies(subject.golden_rows[0]))
    for what, body in bad:
        response = served.http.post("/predict", content=body, headers={"content-type": "application/json"})
        if not 400 <= response.status_code < 500 or not _is_error(response.content):
            message = f"{what} was answered {response.status_code}: {response.text[:200]}"
            return Finding("bad input", False, message, "This is a fault of the runtime: report it.")
    return Finding("bad input", True, f"{len(bad)} malformed requests were refused with a 4xx and a reason")


def bad_bodies(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Bodies that must be refused, each with a name, made from a good row."""
    column = next(iter(row))
    yield from (("an empty body", b""), ("no JSON", b"{"), ("not UTF-8", b"\xff\xfe"), ("deep nesting", b"[" * 5000))
    documents: list[Any] = [
        None,
        7,
        "text",
        {},
        {"rows": None},
        {"rows": {}},
        {"rows": []},
        {"rows": [7]},
        {"rows": [[]]},
    ]
    for document in documents:
        yield f"the document {document!r}", json.dumps(document).encode()
    yield "an unknown key beside rows", json.dumps({"rows": [row], "more": 1}).encode()
    values: list[Any] = [None, [], {}, [1]]
    for wrong in values:
        yield f"{column}={wrong!r}", _body({**row, column: wrong})
    yield f"{column} of the wrong type", _body({**row, column: 7 if isinstance(row[column], str) else "seven"})
    yield f"{column} missing", _body({name: value for name, value in row.items() if name != column})
    yield "an unknown column", _body({**row, "no_such_column": 1})
    good = _body(row).decode()
    value = json.dumps(row[column])
    for literal in ("NaN", "Infinity", "-Infinity", "1e999"):
        yield f"{column}={literal}", good.replace(f": {value}", f": {literal}", 1).encode()


def _body(row: Mapping[str, Any]) -> bytes:
    return json.dumps({"rows": [copy.deepcopy(dict(row))]}).encode()


def _is_error(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content)["error"], str)
    except (ValueError, KeyError, TypeError):
        return False
