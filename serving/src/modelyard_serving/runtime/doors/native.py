"""The native door: `{"rows": [{"column": value}]}`, or `{"columns": [...], "rows": [[...]]}`, which is shorter.

Faults are listed, each with its row and column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelyard_serving.manifest import Manifest
from modelyard_serving.runtime.doors.door import Answer, Asked, Reply
from modelyard_serving.runtime.rows import parse_rows

NAME = "native"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows, to be answered by their prediction's id and one list for each method."""

    rows: list[Any]

    def methods(self, manifest: Manifest) -> tuple[str, ...]:
        return manifest.methods

    def reply(self, answer: Answer) -> Reply:
        manifest = answer.manifest
        said = {"prediction_id": answer.prediction_id, "model": manifest.model, "version": manifest.version}
        classes = {"classes": manifest.classes} if manifest.classes else {}
        return Reply.of(said | dict(answer.values) | classes)


def parse(asked: Asked, manifest: Manifest) -> Rows:
    return Rows(parse_rows(asked.body, manifest.inputs))


def refuse(status: int, message: str, faults: Sequence[str] = ()) -> Reply:
    return Reply.of({"error": message, "faults": list(faults)} if status == 400 else {"error": message})
