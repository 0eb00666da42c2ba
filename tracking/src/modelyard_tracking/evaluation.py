"""Evaluation: what a model answered on rows whose truth is known, row by row.

It is kept as a data frame in the artifact store, with the columns `truth`, `prediction` and `slice NAME`. Two
evaluations can be compared row by row where `rows_sha256` is the same: it covers the truth, and what names the rows.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard_tracking.digests import frame_sha256, text_sha256
from modelyard_tracking.errors import Refused
from modelyard_tracking.store import ArtifactStore

if TYPE_CHECKING:
    import pandas as pd

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")
_SLICE = "slice "
MISSING = "(missing)"  # the slice of the rows that are in none


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Truths and answers, one a row, in the order of the rows."""

    name: str
    sha256: str  # of the stored frame
    rows_sha256: str
    truth: np.ndarray = field(repr=False)
    prediction: np.ndarray = field(repr=False)
    positive: Any = None  # the class whose probability `prediction` is; None: predictions are what truths are
    slices: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)  # by column, the slice of each row

    def __len__(self) -> int:
        return len(self.truth)

    def part(self, rows: np.ndarray) -> "Evaluation":
        """The rows under a mask."""
        slices = {column: values[rows] for column, values in self.slices.items()}
        chosen = self.truth[rows], self.prediction[rows]
        return Evaluation(self.name, self.sha256, self.rows_sha256, *chosen, self.positive, slices)


def keep_evaluation(
    files: ArtifactStore,
    name: str,
    datasets: Mapping[str, Mapping[str, Any]],
    *,
    truth: Any,
    prediction: Any,
    positive: Any = None,
    slices: "pd.DataFrame | None" = None,
    keys: Any = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Store an evaluation and give what a run records of it; the arguments are those of `Experiment.evaluation`.

    Raises:
        Refused: the parts do not belong together; nothing is said here of the values in them.
    """
    import pandas as pd

    data = data or name
    if not _NAME.fullmatch(name):
        raise Refused(f"evaluation({name!r}): use letters, digits, _ and -, such as holdout.")
    if data not in datasets:
        raise Refused(
            f"evaluation({name!r}): this run has recorded no data set {data!r}. "
            f"Say first which rows these are:  ex.dataset({data!r}, rows)"
        )
    columns = {"truth": _column(truth, name, "truth"), "prediction": _column(prediction, name, "prediction")}
    if keys is not None:
        keys = keys if isinstance(keys, pd.DataFrame) else pd.DataFrame({"key": _column(keys, name, "keys")})
    if slices is not None and not isinstance(slices, pd.DataFrame):
        raise Refused(f"evaluation({name!r}): slices= is a DataFrame with one column for each way to slice the rows.")
    sliced = {} if slices is None else {str(column): _named(values) for column, values in slices.items()}
    texts = {f"{_SLICE}{column}": values for column, values in sliced.items()}
    lengths = {part: len(values) for part, values in {**columns, **texts, "keys": keys}.items() if values is not None}
    rows = datasets[data].get("rows", lengths["truth"])
    if set(lengths.values()) != {rows}:
        said = ", ".join(f"{part} {length}" for part, length in lengths.items())
        raise Refused(f"evaluation({name!r}): one value a row is wanted, and {data} has {rows} rows: {said}.")
    if positive is not None and columns["prediction"].dtype.kind not in "fiu":
        raise Refused(f"evaluation({name!r}): with positive={positive!r}, predictions are its probabilities, 0 to 1.")
    if isinstance(positive, np.generic):
        positive = positive.item()
    frame = pd.DataFrame(columns | texts)
    digest = datasets[data]["sha256"]
    named_by = digest if keys is None else frame_sha256(keys)
    return {
        "sha256": files.keep_frame(frame),
        "rows": len(frame),
        "data": data,
        "data_sha256": digest,
        "rows_sha256": text_sha256(f"{named_by} {frame_sha256(frame[['truth']])}".encode()),
        "positive": positive,
        "slices": list(sliced),
    }


def read_evaluations(
    files: ArtifactStore, recorded: Mapping[str, Any], names: Collection[str] | None = None
) -> dict[str, Evaluation]:
    """Evaluations as a run, or evidence, names them; all of them, or those under `names`.

    Raises:
        NotFound: a stored frame is gone.
        Refused: a stored frame is not what was recorded.
    """
    there = recorded.get("evaluations") or {}
    return {name: _read(files, name, facts) for name, facts in there.items() if names is None or name in names}


def _read(files: ArtifactStore, name: str, facts: Mapping[str, Any]) -> Evaluation:
    frame = files.frame(facts["sha256"])
    slices = {column: frame[f"{_SLICE}{column}"].to_numpy(object) for column in facts["slices"]}
    arrays = (_array(frame["truth"]), _array(frame["prediction"]))
    return Evaluation(name, facts["sha256"], facts["rows_sha256"], *arrays, facts["positive"], slices)


def _array(column: "pd.Series[Any]") -> np.ndarray:
    """Numbers as they are, anything else as objects, None where a value is missing."""
    if column.dtype.kind in "fiub":
        return column.to_numpy()
    return np.array([None if value is None or value != value else value for value in column], dtype=object)


def _named(values: "pd.Series[Any]") -> "pd.Series[Any]":
    texts = _texts(values)
    return _texts([MISSING if text is None or text != text else text for text in texts])


def _column(values: Any, name: str, what: str) -> "pd.Series[Any]":
    """One value a row: numbers and bools as they are, anything else as text."""
    import pandas as pd

    if hasattr(values, "detach") and hasattr(values, "cpu"):  # a tensor, perhaps on a GPU
        values = values.detach().cpu().numpy()
    shape = np.shape(values)
    if len(shape) != 1:
        hint = "; of predict_proba, give the column of the class named by positive=" if len(shape) == 2 else ""
        raise Refused(
            f"evaluation({name!r}): {what} has the shape {tuple(shape)}, and one value a row is wanted{hint}."
        )
    series = pd.Series(values).reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(series) and not isinstance(series.dtype, np.dtype):  # pandas' own, with its NA
        return series.astype("float64") if series.isna().any() else pd.Series(np.asarray(series.tolist()))
    return series if series.dtype.kind in "fiub" else _texts(series)


def _texts(values: Iterable[Any]) -> "pd.Series[Any]":
    """Texts in pandas' own type for them, which parquet gives back; where there is none at all, NaN."""
    import pandas as pd

    texts = [None if value is None or pd.isna(value) else str(value) for value in values]
    return pd.Series(texts) if any(text is not None for text in texts) else pd.Series(texts, dtype="float64")
