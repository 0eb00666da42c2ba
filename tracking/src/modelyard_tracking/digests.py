"""Digests: what a data set or a folder of model files is, in 64 characters.

A data frame's digest is the sha256 of, for each column in order: its name, its dtype, and its values in row
order. Numbers are their little-endian bytes, with every NaN the same; anything else is its text with its
length, or a mark where it is missing. The index does not count; the order of columns and rows does.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard_tracking.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

INDEX = "SHA256SUMS"


def frame_sha256(frame: "pd.DataFrame") -> str:
    """The digest of a data frame, as defined at the top of this module."""
    import numpy as np
    import pandas as pd

    digest = hashlib.sha256()
    for name, column in frame.items():
        header = f"{name}\0{column.dtype}\0{len(column)}\0".encode()
        digest.update(len(header).to_bytes(8, "little") + header)
        values = column.to_numpy()
        if values.dtype.kind in "biufmM":
            values = values.astype(values.dtype.newbyteorder("<"))
            if values.dtype.kind == "f":
                values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
            digest.update(np.ascontiguousarray(values).tobytes())
        else:
            for value in column:
                text = b"" if pd.isna(value) else str(value).encode()
                digest.update((-1 if pd.isna(value) else len(text)).to_bytes(8, "little", signed=True) + text)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def write_index(folder: Path) -> str:
    """Write `SHA256SUMS` over every file below `folder` and give its sha256, the folder's digest."""
    index = _index_of(folder)
    (folder / INDEX).write_text(index)
    return text_sha256(index.encode())


def check_folder(folder: Path, digest: str) -> None:
    """Stop unless `folder` holds exactly the files that `digest` was taken of.

    Raises:
        Refused: names what differs.
    """
    index = folder / INDEX
    if not index.is_file():
        raise Refused(f"{folder} is gone or has no {INDEX}; nothing was changed. Train again:  yard train PROJECT")
    recorded, found = index.read_text(), _index_of(folder)
    if recorded != found or text_sha256(found.encode()) != digest:
        changed = sorted({line[66:] for line in set(recorded.splitlines()) ^ set(found.splitlines())})
        raise Refused(
            f"{folder}: {', '.join(changed) or INDEX} is not what was recorded (digest {digest[:12]}).\n"
            f"Look:     cd {folder} && sha256sum -c {INDEX}\n"
            f"Mend it:  train again and have the new run approved."
        )


def _index_of(folder: Path) -> str:
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused(f"{path} is a link or no file at all; model files must be plain files. Train again.")
    files = sorted((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_file())
    return "".join(f"{file_sha256(path)}  {name}\n" for name, path in files if name != INDEX)
