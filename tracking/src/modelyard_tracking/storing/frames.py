"""Frames: a data set as a parquet file, checked before and after it is read."""

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard_tracking.digests import file_sha256, frame_sha256
from modelyard_tracking.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

# A table of nothing but zeros has some hundred values a byte; a file made to fill the memory, millions.
MAX_VALUES_PER_BYTE = 10_000
ALWAYS_READ_VALUES = 10_000_000


def read_frame(path: Path, digest: str) -> "pd.DataFrame":
    """The data frame in a file.

    Raises:
        Refused: the file holds other data, is no parquet, or would unpack to far more than its size.
    """
    import pandas as pd
    from pyarrow.parquet import read_metadata

    try:
        about = read_metadata(path)
        values = about.num_rows * max(about.num_columns, 1)
        if values > max(ALWAYS_READ_VALUES, MAX_VALUES_PER_BYTE * path.stat().st_size):
            raise Refused(f"{path} says it holds {values} values in {path.stat().st_size} bytes. It was not read.")
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as parquet: {error}") from error
    if frame_sha256(frame) != digest:
        raise Refused(f"{path} does not hold the data it is named for; its own digest is {file_sha256(path)[:12]}.")
    return frame
