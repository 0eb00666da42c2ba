"""Rows: a request's bytes become the table the model was trained on, or a list of faults.

Pure and strict: a row has exactly the declared columns, each of its declared type and within its declared range,
and every number is finite. The model never sees anything else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nsmallest
from itertools import chain
from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from modelyard_serving.manifest import DTYPES, Column

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 10_000
MAX_FAULTS = 20  # enough to mend a request, too few to be a burden
_INT64 = range(-(2**63), 2**63)
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Values = tuple[Any, ...]  # of one row, in the declared order of the columns


class BadRequest(Exception):
    """The request cannot be answered; `faults` says why, each with its place. `status` is HTTP's, a 4xx."""

    def __init__(self, message: str, faults: Sequence[str] = (), status: int = 400) -> None:
        super().__init__(message)
        self.faults = list(faults)
        self.status = status


def parse_json(body: bytes) -> Any:
    """What a body says. NaN, Infinity and 1e999 are not JSON.

    Raises:
        BadRequest: it is no JSON, or nested deeper than 1024.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error


def check_count(rows: int) -> None:
    """Raise BadRequest unless one request may hold so many rows."""
    if not 1 <= rows <= MAX_ROWS:
        raise BadRequest(f"send between 1 and {MAX_ROWS} rows, not {rows}")


def parse_rows(body: bytes, columns: Sequence[Column]) -> list[Any]:
    """The rows of `{"rows": [...]}`, of a bare list of records, or of `{"columns": [...], "rows": [[...]]}`."""
    document = parse_json(body)
    if not isinstance(document, dict):
        rows = document
    elif document.keys() == {"columns", "rows"}:
        return _parse_table(document["columns"], document["rows"], columns)
    else:
        rows = document["rows"] if document.keys() == {"rows"} else None
    if not isinstance(rows, list):
        raise BadRequest('send {"rows": [{"column": value, ...}, ...]}, or a list of such records')
    check_count(len(rows))
    return rows


def _parse_table(names: Any, rows: Any, columns: Sequence[Column]) -> list[Any]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not isinstance(rows, list):
        raise BadRequest('columns is a list of names, and rows a list of lists: {"columns": [...], "rows": [[...]]}')
    check_count(len(rows))
    return table_of(names, rows, columns, "rows[{}]")


def table_of(
    names: Sequence[str], rows: Sequence[Any], columns: Sequence[Column], place: str, first: int = 0
) -> list[Any]:
    """Rows that stand below names, as `in_order` gives them.

    Args:
        place: where a row stands in the caller's eyes, by its number; the first one's is `first`.

    Raises:
        BadRequest: a row is not as long as there are names, or a name is there more than once.
    """
    if len(names) > len(columns) + MAX_FAULTS:
        raise BadRequest(f"{len(names)} columns are too many, the model takes {len(columns)}")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise BadRequest(f"the column {twice[:40]!r} is there more than once")
    for number, values in enumerate(rows, first):
        if not isinstance(values, list) or len(values) != len(names):
            found = f"{len(values)} values" if isinstance(values, list) else "no list"
            raise BadRequest(f"{place.format(number)}: expected {len(names)} values, as there are columns, got {found}")
    return in_order(names, rows, columns)


def in_order(names: Sequence[str], rows: Sequence[Sequence[Any]], columns: Sequence[Column]) -> list[Any]:
    """Rows whose values stand below `names`, as `Schema.read` takes them: values in the declared order where these are
    the declared columns, else records, whose faults it will name."""
    declared = [column.name for column in columns]
    if list(names) == declared:
        return list(map(tuple, rows))
    if len(names) == len(declared) > 1 and set(names) == set(declared):
        return list(map(itemgetter(*map(list(names).index, declared)), rows))
    return [dict(zip(names, row, strict=True)) for row in rows]


@dataclass(frozen=True)
class Schema:
    """The columns that a model takes; made once, asked for every request."""

    columns: tuple[Column, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def read(self, rows: Sequence[Any]) -> list[Values]:
        """The values of rows in the declared order, checked.

        Args:
            rows: records as a caller sent them; or tuples that a door has put into the declared order.

        Raises:
            BadRequest: with up to 20 faults, each with its row and column.
        """
        try:
            values = [row if type(row) is tuple else self._values(row) for row in rows]
            well = self._all_fit(values)
        except (KeyError, TypeError, OverflowError):
            well = False
        if not well and (faults := self._faults(rows)):
            raise BadRequest("the rows do not fit the model's inputs", faults)
        return values

    def array(self, values: Sequence[Values]) -> "np.ndarray[Any, Any]":
        """Checked rows as an array, (rows, columns); only where `dtype` names one.

        It lies column by column in memory, as a DataFrame does: sums come out the same to the last bit.
        """
        return np.array(values, dtype=self.dtype, order="F")

    def table(self, values: Sequence[Values]) -> "pd.DataFrame":
        """Checked rows as a DataFrame with the declared columns and dtypes."""
        import pandas as pd  # half a second and 30 MB, which a model that is asked arrays does without

        if self.dtype:  # one block instead of a column at a time: ten times faster
            return pd.DataFrame(self.array(values), columns=self._index)
        series = zip(self.columns, zip(*values, strict=True), strict=True)
        return pd.DataFrame({column.name: pd.Series(each, dtype=_PANDAS[column.dtype]) for column, each in series})

    @cached_property
    def _index(self) -> "pd.Index[str]":
        import pandas as pd

        return pd.Index(self.names)

    @cached_property
    def dtype(self) -> str:
        """That of all columns, if they have one in common and it is one of floating-point numbers."""
        dtypes = {column.dtype for column in self.columns}
        return dtypes.pop() if dtypes in ({"float64"}, {"float32"}) else ""

    @cached_property
    def _plain(self) -> bool:
        """Are all columns float64, without a range?"""
        return self.dtype == "float64" and all(column.least is column.greatest is None for column in self.columns)

    @cached_property
    def _getter(self) -> "itemgetter[Any]":
        return itemgetter(*self.names)

    def _values(self, row: dict[str, Any]) -> Values:
        if type(row) is not dict or len(row) != len(self.names):
            raise TypeError
        return self._getter(row) if len(self.names) > 1 else (row[self.names[0]],)

    def _all_fit(self, values: Sequence[Values]) -> bool:
        """Is it certain that everything fits? Asked of whole rows or columns, a value at a time costs most of the
        time of an answer."""
        if self._plain:
            flat = values[0] if len(values) == 1 else tuple(chain.from_iterable(values))
            return _NUMBERS.issuperset(map(type, flat)) and isfinite(sum(flat))
        pairs = zip(self.columns, zip(*values, strict=True), strict=True)
        return all(_column_fits(column, each) for column, each in pairs)

    def _faults(self, rows: Sequence[Any]) -> list[str]:
        faults: list[str] = []
        names = set(self.names)
        for number, sent in enumerate(rows):
            if len(faults) >= MAX_FAULTS:
                break
            row = dict(zip(self.names, sent, strict=True)) if type(sent) is tuple else sent
            if not isinstance(row, dict):
                faults.append(f"rows[{number}]: expected an object of columns, got {_kind(row)}")
                continue
            if row.keys() != names:
                missing, unknown = (nsmallest(MAX_FAULTS, which) for which in (names - row.keys(), row.keys() - names))
                faults += [f"rows[{number}]: column {name!r} is missing" for name in missing]
                faults += [f"rows[{number}]: column {name!r} is unknown" for name in unknown]
            for column in self.columns:
                if column.name in row and (fault := _fault(row[column.name], column)):
                    faults.append(f"rows[{number}].{column.name}: {fault}")
        return sorted(faults)[:MAX_FAULTS]


_NUMBERS = frozenset((int, float))
_TYPES = {
    "float64": _NUMBERS,
    "float32": _NUMBERS,
    "int64": frozenset((int,)),
    "bool": frozenset((bool,)),
    "str": frozenset((str,)),
}
_EXPECTED = {
    "float64": "a number",
    "float32": f"a number between -{_FLOAT32_MAX:.7g} and {_FLOAT32_MAX:.7g}",
    "int64": "a whole number",
    "bool": "true or false",
    "str": "a text",
}
_PANDAS: dict[str, Any] = {name: name for name in DTYPES}


def _column_fits(column: Column, values: Sequence[Any]) -> bool:
    if not _TYPES[column.dtype].issuperset(map(type, values)):
        return False
    if column.dtype in ("bool", "str"):
        return True
    low, high = min(values), max(values)
    return isfinite(sum(values)) and _in_range(low, column) and _in_range(high, column)


def _in_range(value: Any, column: Column) -> bool:
    """Is a number what its type holds, and what was declared of its column?"""
    if column.dtype == "float32" and abs(value) > _FLOAT32_MAX:  # beyond it lies infinity
        return False
    if column.dtype == "int64" and value not in _INT64:
        return False
    return (column.least is None or value >= column.least) and (column.greatest is None or value <= column.greatest)


def _fault(value: Any, column: Column) -> str:
    """What is wrong with one value; empty if nothing is."""
    dtype = column.dtype
    unbounded = Column(column.name, dtype)
    if type(value) not in _TYPES[dtype] or (type(value) is float and not isfinite(value)):
        return f"expected {_EXPECTED[dtype]}, got {_kind(value)}"
    if dtype in ("bool", "str"):
        return ""
    if not _in_range(value, unbounded):
        return f"expected {_EXPECTED[dtype]}, got {_kind(value)}"
    if not _in_range(value, column):
        bounds = ((column.least, "at least"), (column.greatest, "at most"))
        said = " and ".join(f"{words} {bound:g}" for bound, words in bounds if bound is not None)
        return f"expected {said}, got {_kind(value)}"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else repr(value)[:40]
