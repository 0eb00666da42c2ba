"""The model: verified, loaded once, asked in batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from modelyard_serving import model_files
from modelyard_serving.errors import Refused
from modelyard_serving.manifest import METHODS, Manifest

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


class BadAnswer(Exception):
    """The model answered something that must not leave the image, such as NaN."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model and its manifest."""

    manifest: Manifest
    estimator: Any

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load `folder/model` if it is byte for byte what the manifest says.

        Raises:
            Refused: a file differs, or the model holds a type that is not trusted.
        """
        manifest = Manifest.read(folder)
        model_files.verify(folder / "model", manifest.model_sha256)
        return cls(manifest, load_estimator(folder / "model"))

    def answer(self, table: pd.DataFrame) -> dict[str, list[Any]]:
        """One list per method of the manifest, each as long as `table`."""
        answers: dict[str, list[Any]] = {}
        for method in self.manifest.methods:
            values = np.asarray(getattr(self.estimator, method)(table))
            if len(values) != len(table):
                raise BadAnswer(f"{method} gave {len(values)} answers for {len(table)} rows")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise BadAnswer(f"{method} gave an answer that is not a finite number")
            answers[METHODS[method]] = values.tolist()
        return answers


def load_estimator(folder: Path) -> Any:
    """The scikit-learn estimator in a verified model folder.

    Raises:
        Refused: it holds types that are neither skops' nor ours.
    """
    import skops.io

    file = folder / "mlflow" / "model.skops"
    untrusted = sorted(set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED_TYPES))
    if untrusted:
        raise Refused(f"{file} holds types that are not trusted: {', '.join(untrusted)}. They are not loaded.")
    return skops.io.load(file, trusted=list(TRUSTED_TYPES))
