"""Digests: what a data set or a folder of model files is, in 64 characters.

A data frame's digest is the sha256 of, for each column in order: its name, its dtype, and its values in row
order. Numbers are their little-endian bytes, with every NaN the same; anything else is its text with its
length, or a mark where it is missing. The index does not count; the order of columns and rows does.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelyard_tracking.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

INDEX = "SHA256SUMS"
MAX_FILES = 10_000  # of one folder
MAX_INDEX_BYTES = 8 * 2**20

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


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
    """Write `SHA256SUMS` over every file below `folder` and give its sha256, the folder's digest.

    Raises:
        Refused: there is something in it that an index cannot hold: a link, a name of two lines.
    """
    index = _index_of(folder)
    (folder / INDEX).write_text(index)
    return text_sha256(index.encode())


def read_index(content: bytes, what: str) -> dict[str, str]:
    """Name to sha256 of every file that an index from elsewhere names; all of them lie inside the folder.

    Args:
        what: whose index it is, for the error.

    Raises:
        Refused: it is no index, is too large, or has a name that leads out of the folder.
    """
    if len(content) > MAX_INDEX_BYTES:
        raise Refused(f"The {INDEX} of {what} is larger than {MAX_INDEX_BYTES} bytes. Nothing of it was read.")
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise Refused(f"The {INDEX} of {what} is not UTF-8. Nothing of it was read.") from error
    if lines.pop() != "" or len(lines) > MAX_FILES:
        raise Refused(f"The {INDEX} of {what} is cut off, or names more than {MAX_FILES} files. Nothing was read.")
    named: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None or not _stays_inside(found[2]) or found[2] in named:
            raise Refused(f"The {INDEX} of {what} has the line {line[:120]!r}: no file inside it. Nothing was read.")
        named[found[2]] = found[1]
    folders = {str(parent) for name in named for parent in PurePosixPath(name).parents}
    if folders & named.keys():
        raise Refused(f"The {INDEX} of {what} has a name that is a file and a folder. Nothing was read.")
    return named


def check_folder(folder: Path, digest: str) -> None:
    """Stop unless `folder` holds exactly the files that `digest` was taken of.

    Raises:
        Refused: names what differs.
    """
    index = folder / INDEX
    if not index.is_file():
        raise Refused(f"{folder} is gone or has no {INDEX}; nothing was changed. Train again:  yard train PROJECT")
    found = _index_of(folder)
    recorded = index.read_text(errors="replace")
    if recorded != found or text_sha256(found.encode()) != digest:
        changed = sorted({line[66:] for line in set(recorded.splitlines()) ^ set(found.splitlines())})
        raise Refused(
            f"{folder}: {', '.join(changed) or INDEX} is not what was recorded (digest {digest[:12]}).\n"
            f"Look:     cd {folder} && sha256sum -c {INDEX}\n"
            f"Mend it:  train again and have the new run approved."
        )


def _index_of(folder: Path) -> str:
    files = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused(f"{path} is a link or a device; model files must be plain files. Put the file itself there.")
        if name == INDEX or path.is_dir():
            if path.is_dir() and name == INDEX:
                raise Refused(f"{path} is a folder; the index has this name. Rename it.")
            continue
        if not _stays_inside(name):
            raise Refused(f"{str(path)!r} cannot be recorded. Rename it, without \\ and control characters.")
        files.append((name, path))
    if len(files) > MAX_FILES:
        raise Refused(f"{folder} holds {len(files)} files; {MAX_FILES} are the most. Pack them into fewer.")
    return "".join(f"{file_sha256(path)}  {name}\n" for name, path in sorted(files))


def _stays_inside(name: str) -> bool:
    """A relative name of plain parts, which means the same file everywhere."""
    return (
        name != INDEX
        and name.isprintable()
        and "\\" not in name
        and not name.startswith("/")
        and not {"", ".", ".."} & set(name.split("/"))
        and len(name.encode()) <= 800  # S3 takes 1024, with the folders before it
        and max(len(part.encode()) for part in name.split("/")) <= 255
    )
