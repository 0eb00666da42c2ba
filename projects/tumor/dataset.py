"""The data: Breast Cancer Wisconsin (Diagnostic), 569 real cases, as scikit-learn ships it.

Source: W. H. Wolberg, W. N. Street, O. L. Mangasarian, 1995, doi:10.24432/C5DW2B. CC BY 4.0.
"""

from typing import NamedTuple

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

HOLDOUT_ROWS = 300  # never trained on, never tuned on: the rows that callers send in the demo


class Split(NamedTuple):
    """Three parts of the data; each frame has the thirty features and the column `diagnosis`."""

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: pd.DataFrame


def slices(rows: pd.DataFrame) -> pd.DataFrame:
    """Groups in which the model should do well, too: large nuclei are mostly malignant and small ones mostly benign.

    The bounds cut the training data in thirds, and stay as they are.
    """
    sizes = pd.cut(rows["mean_area"], [0, 480, 665, float("inf")], labels=["small", "middle", "large"])
    return pd.DataFrame({"nuclei": sizes.astype(str)})


def load() -> Split:
    """The split, the same one on every machine."""
    raw = load_breast_cancer(as_frame=True)
    frame = raw.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame["diagnosis"] = raw.target.map(dict(enumerate(raw.target_names)))
    rest, holdout = train_test_split(frame, test_size=HOLDOUT_ROWS, random_state=1995, stratify=frame["diagnosis"])
    train, validation = train_test_split(rest, test_size=0.33, random_state=1995, stratify=rest["diagnosis"])
    return Split(*(part.reset_index(drop=True) for part in (train, validation, holdout)))
