"""Deviation: how far two runs of the same program lie apart, and what explains it. Pure.

A deviation is relative: 0 where two values are equal, infinite where they cannot be compared. Of a number it is
`|a - b| / max(|a|, |b|)`; of a weights array the largest difference against the array's largest number, since a weight
that should be zero is never exactly that on two machines.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from modelyard_tracking.runs import amount

_NOT_RECORDED = (
    "what explains it is not recorded: environment variables, threads, drivers, "
    "files that git ignores or that lie elsewhere"
)


class Verdict(StrEnum):
    IDENTICAL = "identical"
    WITHIN = "within tolerance"
    DIFFERENT = "different"


class Cause(StrEnum):
    """The first thing that explains a difference; in this order."""

    DATA = "data"
    CODE = "code"
    ENVIRONMENT = "environment"
    NONDETERMINISM = "nondeterminism"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """An evaluation: its digest, and its columns, if they are to be had."""

    sha256: str
    columns: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run started from and what it left behind, as far as a second run can be held to it."""

    id: int
    status: str
    failure: str = ""  # the last line of its traceback
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    result: Any = None
    curves: Mapping[str, Any] = field(default_factory=dict)  # name -> steps and values
    golden: Mapping[str, Any] = field(default_factory=dict)  # rows and answers of the model's golden rows
    weights: Any = None
    evaluations: Mapping[str, Evaluated] = field(default_factory=dict)
    artifacts: Sequence[tuple[str, str]] = ()  # name, sha256
    sources: Mapping[str, str] = field(default_factory=dict)  # name -> sha256
    left_out: Sequence[str] = ()  # files that were there and could not be kept
    software: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing of two runs, side by side."""

    what: str
    verdict: Verdict
    was: str
    now: str
    deviation: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why two runs differ, as far as their records tell."""

    cause: Cause
    because: tuple[str, ...]


def compare(old: Outcome, new: Outcome, tolerance: float) -> tuple[Compared, ...]:
    """Everything that both or one of the runs left behind, item by item."""
    return tuple(
        Compared(what, _verdict(apart, tolerance), _short(was), _short(now), apart)
        for what, was, now in _pairs(old, new)
        for apart in [deviation(was, now)]
    )


def overall(compared: Sequence[Compared]) -> Verdict:
    verdicts = {item.verdict for item in compared}
    return next((verdict for verdict in (Verdict.DIFFERENT, Verdict.WITHIN) if verdict in verdicts), Verdict.IDENTICAL)


def explain(old: Outcome, new: Outcome) -> Explanation | None:
    """What the records of two runs say of a difference; None where they say nothing and only a further run can tell."""
    if because := tuple(_other_data(old, new)):
        return Explanation(Cause.DATA, because)
    if because := tuple(_other_code(old, new)):
        return Explanation(Cause.CODE, because)
    if because := tuple(_other(old.software, new.software)):
        return Explanation(Cause.ENVIRONMENT, because)
    if new.status != old.status:
        return Explanation(Cause.ENVIRONMENT, (f"run {new.id} is {new.status}: {new.failure}", _NOT_RECORDED))
    return None


def tell_apart(old: Outcome, first: Outcome, second: Outcome) -> Explanation:
    """Nondeterminism or the machine: two reproductions of `old` on this machine, both of them recorded.

    Two that differ from each other prove nondeterminism. Two that agree leave only what lies outside the records.
    """
    differing = [item for item in compare(first, second, 0.0) if item.verdict is not Verdict.IDENTICAL]
    if differing:
        names = ", ".join(item.what for item in differing[:4]) + (", ..." if len(differing) > 4 else "")
        return Explanation(
            Cause.NONDETERMINISM,
            (f"runs {first.id} and {second.id}, made here one after the other, differ from each other in: {names}",),
        )
    agree = f"runs {first.id} and {second.id}, made here one after the other, are identical"
    machine = tuple(_other(old.machine, first.machine)) or (_NOT_RECORDED,)
    return Explanation(Cause.ENVIRONMENT, (agree, *machine))


def deviation(was: Any, now: Any) -> float:
    """How far `now` lies from `was`; see the top of this module."""
    if isinstance(was, np.ndarray) and isinstance(now, np.ndarray):
        return _of_arrays(was, now)
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        if was.keys() != now.keys():
            return math.inf
        return max((deviation(was[key], now[key]) for key in was), default=0.0)
    if _is_list(was) and _is_list(now):
        if len(was) != len(now):
            return math.inf
        return max((deviation(*pair) for pair in zip(was, now, strict=True)), default=0.0)
    if _is_number(was) and _is_number(now):
        return _of_numbers(was, now)
    return 0.0 if type(was) is type(now) and was == now else math.inf


def _pairs(old: Outcome, new: Outcome) -> Iterator[tuple[str, Any, Any]]:
    ended = [f"{run.status}: {run.failure}" if run.failure else run.status for run in (old, new)]
    yield "status", ended[0], ended[1]
    for name in _names(old.data, new.data):
        yield f"data {name}", _digest(old.data, name), _digest(new.data, name)
    if isinstance(old.result, Mapping) and isinstance(new.result, Mapping):
        for name in _names(old.result, new.result):
            yield f"result {name}", old.result.get(name), new.result.get(name)
    elif old.result is not None or new.result is not None:
        yield "result", old.result, new.result
    for name in _names(old.curves, new.curves):
        yield f"metric {name}", old.curves.get(name), new.curves.get(name)
    for name in _names(old.golden, new.golden):
        yield f"golden {name}", old.golden.get(name), new.golden.get(name)
    if old.weights is not None or new.weights is not None:
        yield "model weights", old.weights, new.weights
    for name in _names(old.evaluations, new.evaluations):
        yield f"evaluation {name}", *_sides(old.evaluations.get(name), new.evaluations.get(name))
    before, after = _numbered(old.artifacts), _numbered(new.artifacts)
    for name in _names(before, after):
        yield f"artifact {name}", before.get(name), after.get(name)


def _sides(old: Evaluated | None, new: Evaluated | None) -> tuple[Any, Any]:
    """The columns of both where something differs and the store has them; else the digests."""
    if not old or not new or old.sha256 == new.sha256 or old.columns is None or new.columns is None:
        return old and old.sha256, new and new.sha256
    return old.columns, new.columns


def _other_data(old: Outcome, new: Outcome) -> Iterator[str]:
    for name in _names(old.data, new.data):
        was, now = old.data.get(name), new.data.get(name)
        if was and now:
            if was["sha256"] != now["sha256"]:
                yield f"{name} was {_described(was)}, and is {_described(now)}"
        elif new.status == old.status:  # a run that broke off had no chance to read the rest
            yield f"{name} was {_described(was)}, and is {_described(now)}"


def _other_code(old: Outcome, new: Outcome) -> Iterator[str]:
    for name in old.left_out:
        yield f"{name} was there and in no commit, and could not be kept"
    for name in _names(old.sources, new.sources):
        if old.sources.get(name) != new.sources.get(name):
            where = "" if name in old.sources and name in new.sources else " in only one of the runs"
            yield f"{name} is{where or ' another file than the recorded one'}"


def _other(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in _names(old, new):
        if old.get(name) != new.get(name):
            yield f"{name} was {old.get(name, 'not recorded')}, and is {new.get(name, 'not recorded')}"


def _described(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return "not read"
    return f"{facts['sha256'][:12]} ({amount(facts)})"


def _names(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))


def _digest(data: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    return data[name]["sha256"] if name in data else None


def _numbered(artifacts: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Several artifacts may have one name."""
    found: dict[str, str] = {}
    for name, sha256 in artifacts:
        number = 2
        unique = name
        while unique in found:
            unique, number = f"{name} ({number})", number + 1
        found[unique] = sha256
    return found


def _verdict(apart: float, tolerance: float) -> Verdict:
    if apart == 0:
        return Verdict.IDENTICAL
    return Verdict.WITHIN if apart <= tolerance else Verdict.DIFFERENT


def _of_numbers(was: Any, now: Any) -> float:
    if was == now or (was != was and now != now):
        return 0.0
    apart = abs(was - now) / max(abs(was), abs(now))
    return float(apart) if math.isfinite(apart) else math.inf


def _of_arrays(was: np.ndarray, now: np.ndarray) -> float:
    if was.dtype != now.dtype or was.shape != now.shape:
        return math.inf
    if was.dtype.names:  # field by field: the bytes between the fields of a record mean nothing
        return max(_of_arrays(was[name], now[name]) for name in was.dtype.names)
    if was.dtype.kind not in "fc":
        return 0.0 if np.array_equal(was, now) else math.inf
    if np.array_equal(was, now, equal_nan=True):
        return 0.0
    finite = np.isfinite(was)
    if not np.array_equal(finite, np.isfinite(now)) or not np.array_equal(was[~finite], now[~finite], equal_nan=True):
        return math.inf
    with np.errstate(over="ignore"):
        largest = np.abs(was[finite] - now[finite]).max()
        return float(largest / max(np.abs(was[finite]).max(), np.abs(now[finite]).max()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _short(value: Any) -> str:
    """A value as a table has room for."""
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, str):
        return value[:12] if len(value) == 64 and " " not in value else value[:60]
    if isinstance(value, tuple) and len(value) == 2 and _is_list(value[1]):  # a curve
        last = f", last {_short(value[1][-1])}" if value[1] else ""
        return f"{len(value[1])} points{last}"
    if isinstance(value, Mapping):
        return "arrays" if value.get("__class__") else f"{len(value)} entries"
    return f"{len(value)} values" if _is_list(value) else str(value)[:60]
