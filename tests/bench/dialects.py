"""The forms in which rows are asked for and answered: a server's own, as its users would send it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows become a document, and where the predictions stand in what comes back."""

    asked: Callable[[Sequence[Row]], Any]
    answered: Callable[[Any], list[str]]

    def body(self, rows: Sequence[Row]) -> bytes:
        return json.dumps(self.asked(rows)).encode()


def _values(rows: Sequence[Row]) -> list[list[float]]:
    return [list(row.values()) for row in rows]


def _tensor(rows: Sequence[Row]) -> Any:
    flat = [value for row in rows for value in row.values()]
    return {"inputs": [{"name": "rows", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": flat}]}


NATIVE = Dialect(lambda rows: {"rows": list(rows)}, lambda document: document["predictions"])
OPEN_INFERENCE = Dialect(_tensor, lambda document: document["outputs"][0]["data"])
DATAFRAME_SPLIT = Dialect(
    lambda rows: {"dataframe_split": {"columns": list(rows[0]), "data": _values(rows)}},
    lambda document: document["predictions"],
)
INSTANCES = Dialect(lambda rows: {"instances": _values(rows)}, lambda document: document["predictions"])
INSTANCES_TO_LIST = Dialect(INSTANCES.asked, lambda document: document)
