"""Card: what a model is for, what it takes and what its answers mean, as people said it and as the data showed it.

In project.toml, `[inputs]` and `[outputs]` describe by patterns (`"mean_*"`), so that thirty columns need no thirty
lines. A name that several patterns fit is described by all of them, in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from modelyard_tracking.project import Description, Project
from modelyard_tracking.store import ArtifactStore

if TYPE_CHECKING:
    import pandas as pd

TRAINING_DATA = "train"  # the data set whose ranges stand in the card
ANSWER = "prediction"  # the output's name where there are no classes


@dataclass(frozen=True, slots=True)
class Observed:
    """What the training data has in one column."""

    name: str
    low: float | None  # None: it holds no numbers
    high: float | None
    missing: int


@dataclass(frozen=True, slots=True)
class Card:
    """The card as evidence holds it, and what it leaves open."""

    facts: Mapping[str, Any]
    objections: tuple[str, ...]


def observed(frame: "pd.DataFrame") -> tuple[Observed, ...]:
    """Least and greatest number, and the missing values, of each column."""
    found = []
    for name, column in frame.items():
        low = high = None
        if column.dtype.kind in "fiu":
            numbers = column[abs(column) != float("inf")].dropna()
            if len(numbers):
                low, high = float(numbers.min()), float(numbers.max())
        found.append(Observed(str(name), low, high, int(column.isna().sum())))
    return tuple(found)


def read_observed(files: ArtifactStore, recorded: Mapping[str, Any]) -> tuple[Observed, ...]:
    """What a run's training data has in each column; nothing where there is no frame of this name in the store."""
    facts = (recorded.get("datasets") or {}).get(TRAINING_DATA) or {}
    if "rows" not in facts or not files.frame_file(facts["sha256"]).is_file():
        return ()
    return observed(files.frame(facts["sha256"]))


def make_card(project: Project, schema: Mapping[str, Any], seen: Sequence[Observed]) -> Card:
    """The card of a model with this schema, which `save_model` recorded."""
    inputs = [str(entry["name"]) for entry in schema.get("inputs") or ()]
    outputs = [str(label) for label in schema.get("classes") or ()] or ([ANSWER] if inputs else [])
    texts = {part: getattr(project, part).strip() for part in ("owner", "purpose", "limitations")}
    objections = [f"project.toml leaves {part} blank" for part, text in texts.items() if not text]
    objections += _unsaid(project.inputs, inputs, "inputs", "the model takes")
    objections += _unsaid(project.outputs, outputs, "outputs", "the model answers")
    columns = {column.name: column for column in seen}
    described = [_input(project.inputs, name, columns.get(name)) for name in inputs]
    objections += [
        f"[inputs] says {entry['name']} lies between {entry['range'][0]:g} and {entry['range'][1]:g}, "
        f"and the training data has {entry['observed'][0]:g} to {entry['observed'][1]:g}"
        for entry in described
        if _beyond(entry["observed"], entry["range"])
    ]
    facts = {
        **texts,
        "license": project.license.strip(),
        "inputs": described,
        "outputs": [{"name": name, "meaning": _said(project.outputs, name)[0]} for name in outputs],
    }
    return Card(facts, tuple(objections))


def _unsaid(said: Mapping[str, Description], names: Sequence[str], table: str, verb: str) -> list[str]:
    found = []
    if blank := [name for name in names if not _said(said, name)[0]]:
        found.append(f"project.toml does not say what these {table} mean, see [{table}]: {', '.join(blank)}")
    if names and (strange := [pattern for pattern in said if not any(fnmatchcase(name, pattern) for name in names)]):
        found.append(f"[{table}] describes {', '.join(strange)}, and {verb} nothing of this name")
    return found


def _input(said: Mapping[str, Description], name: str, seen: Observed | None) -> dict[str, Any]:
    meaning, unit, bounds = _said(said, name)
    return {
        "name": name,
        "meaning": meaning,
        "unit": unit,
        "range": bounds,
        "observed": [seen.low, seen.high] if seen and seen.low is not None else None,
        "missing": seen.missing if seen else None,
    }


def _said(said: Mapping[str, Description], name: str) -> tuple[str, str, list[float] | None]:
    """Meaning, unit and range of a name; of the latter two, the last pattern's that has one."""
    fitting = [entry for pattern, entry in said.items() if fnmatchcase(name, pattern)]
    meaning = ", ".join(entry.meaning.strip() for entry in fitting if entry.meaning.strip())
    unit = next((entry.unit for entry in reversed(fitting) if entry.unit), "")
    return meaning, unit, next((list(entry.range) for entry in reversed(fitting) if entry.range), None)


def _beyond(observed: Sequence[float] | None, allowed: Sequence[float] | None) -> bool:
    return bool(observed and allowed and (observed[0] < allowed[0] or observed[1] > allowed[1]))
