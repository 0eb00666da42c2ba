"""Selection: which runs, in which order. Pure: it decides over the few entries that it names."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from modelyard_tracking.errors import Refused

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "~": lambda value, text: str(text).lower() in str(value).lower(),
}
_AGO = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one entry, such as `val_auc>0.9` or `status=COMPLETED`."""

    name: str
    sign: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition as a person types it.

        Raises:
            Refused: it is none.
        """
        found = re.fullmatch(r"\s*([^<>=!~]+?)\s*(<=|>=|!=|==|=|<|>|~)\s*(.*?)\s*", text)
        if not found:
            raise Refused(
                f"{text!r} is no condition. Write a name, one of = != < <= > >= ~ (contains) and a value: "
                "val_auc>0.9, status=FAILED, config.C<=1, scaler~robust, started>2d"
            )
        name, sign, value = found.groups()
        return cls(name, "=" if sign == "==" else sign, _moment(value) if name == "started" else _literal(value))

    def holds(self, entries: Mapping[str, Any]) -> bool:
        """False, too, where the entry is missing or is of another kind than the value."""
        value = entries.get(self.name)
        if value is None:
            return self.sign == "!=" and self.value is not None
        try:
            return bool(_OPERATORS[self.sign](value, self.value))
        except TypeError:
            return False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs, and which of them first."""

    experiment: str | None = None
    conditions: tuple[Condition, ...] = ()
    sort: str | None = None  # the newest first, without
    ascending: bool = False
    limit: int = 20

    @property
    def names(self) -> tuple[str, ...]:
        """The entries that the selection looks at."""
        return tuple(dict.fromkeys([*(c.name for c in self.conditions), *([self.sort] if self.sort else [])]))

    def pick(self, runs: Iterable[tuple[int, Mapping[str, Any]]]) -> list[int]:
        """The numbers of the runs, in order. Runs without a number to sort by come last."""
        chosen = [(run_id, entries) for run_id, entries in runs if all(c.holds(entries) for c in self.conditions)]
        chosen.sort(key=lambda pair: -pair[0])
        if self.sort:
            by = self.sort
            known = [pair for pair in chosen if _sortable(pair[1].get(by))]
            known.sort(key=lambda pair: _order(pair[1][by]), reverse=not self.ascending)
            chosen = known + [pair for pair in chosen if not _sortable(pair[1].get(by))]
        return [run_id for run_id, _ in chosen[: self.limit]]


def _sortable(value: Any) -> bool:
    return value is not None and value == value  # NaN is not equal to itself


def _order(value: Any) -> tuple[int, Any]:
    if isinstance(value, int | float):
        return 1, value
    return (2, value.timestamp()) if isinstance(value, datetime) else (0, str(value))


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip("'\"")


def _moment(text: str) -> datetime:
    """`2d` (two days ago), or a date such as 2026-11-20, in UTC."""
    ago = re.fullmatch(r"(\d+)([mhdw])", text)
    if ago:
        return datetime.now(UTC) - timedelta(**{_AGO[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(f"{text!r} is no time. Write 30m, 12h, 2d, 1w, or a date such as 2026-11-20.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
