"""The data: 1797 handwritten digits of 8x8 pixels, as scikit-learn ships them.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, 1998, doi:10.24432/C50P49. CC BY 4.0.
"""

from typing import NamedTuple

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HOLDOUT_ROWS = 400  # no trial sees them: the winner of a sweep is scored on them, once
VALIDATION_ROWS = 400
MAX_INK = 16  # a pixel counts the inked dots of a 4x4 square


class Split(NamedTuple):
    """Three parts of the data; each frame has 64 columns of ink, 0 to 16, row by row, and the column `digit`."""

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: pd.DataFrame


def load() -> Split:
    """The split, the same one on every machine."""
    raw = load_digits(as_frame=True)
    frame = raw.data.assign(digit=raw.target)
    rest, holdout = train_test_split(frame, test_size=HOLDOUT_ROWS, random_state=1998, stratify=frame["digit"])
    train, validation = train_test_split(rest, test_size=VALIDATION_ROWS, random_state=1998, stratify=rest["digit"])
    return Split(*(part.reset_index(drop=True) for part in (train, validation, holdout)))
