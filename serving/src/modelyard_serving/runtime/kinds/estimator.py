"""A scikit-learn estimator, in skops: data, and the names of types. Only types of our own list are made."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any

import numpy as np

from modelyard_serving.errors import Refused
from modelyard_serving.runtime.kinds import archive
from modelyard_serving.runtime.kinds.ask import Ask

FILE = "model.skops"
MAX_BYTES = 4 * 2**30

# skops loads NumPy, SciPy and scikit-learn estimators by itself. These compiled types it leaves to us: they
# hold arrays and no code. Our own list; never the one a model brings along.
TRUSTED_TYPES = (
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def load(content: bytes) -> Ask:
    """The estimator in a skops file.

    Raises:
        Refused: it would unpack to too much, or holds types that are neither skops' nor ours.
    """
    with _without("pandas", "rich"):
        import skops.io
        from sklearn import set_config

    archive.check(content)
    untrusted = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
    if untrusted:
        raise Refused(f"it holds types that are not trusted: {', '.join(untrusted)}")
    set_config(assume_finite=True, skip_parameter_validation=True)  # what comes in and goes out is checked around it
    _know_arrays()
    return _steps_once(skops.io.loads(content, trusted=list(TRUSTED_TYPES)))


@contextmanager
def _without(*optional: str) -> Iterator[None]:
    """scikit-learn loads these where they are there, for its own tests' sake or for progress bars: half a second and
    30 MB. It does without, and a DataFrame that it is given later it knows by what is loaded then."""
    absent = [name for name in optional if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # how an import is told that there is none
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@cache
def _know_arrays() -> None:
    """Let narwhals say at once that an array is no DataFrame. Each step of a pipeline asks it several times, and it
    looks through all that the array has: a tenth of a replica's time. A scikit-learn that asks nobody is left alone."""
    from sklearn.utils import validation

    if narwhals := getattr(validation, "nw", None):
        for name in ("is_into_dataframe", "is_into_series"):
            setattr(narwhals.dependencies, name, _of_no_array(getattr(narwhals.dependencies, name)))


def _of_no_array(answers: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda given: type(given) is not np.ndarray and answers(given)


def _steps_once(estimator: Any) -> Ask:
    """Ask an estimator, from a DataFrame or from an array of its values; of a pipeline all but the last step are
    computed once for all methods."""
    named = _steps(estimator)
    nameless = [_without_names(step) for step in named]

    def ask(table: Any, methods: Sequence[str]) -> list[Any]:
        *before, last = nameless if isinstance(table, np.ndarray) else named
        for step in before:
            table = step.transform(table)
        return [getattr(last, method)(table) for method in methods]

    return ask


def _steps(estimator: Any) -> list[Any]:
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [estimator]
    return [step for _, step in estimator.steps if step not in (None, "passthrough")]


def _without_names(step: Any) -> Any:
    """The same, but it does not warn of an array that its columns were called something in training."""
    bare = copy(step)
    vars(bare).pop("feature_names_in_", None)
    return bare
