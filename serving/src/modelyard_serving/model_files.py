"""Model files on disk: one folder, one index, one digest.

`SHA256SUMS` is the index in the format of coreutils' sha256sum, so an auditor needs no tool of ours
(`sha256sum -c SHA256SUMS`). The model's digest is the sha256 of that index. modelyard_tracking writes the
folder and this module checks it before anything inside is loaded: the two packages share the format, not code.
"""

import hashlib
from pathlib import Path

from modelyard_serving.errors import Refused

INDEX = "SHA256SUMS"


def index_of(folder: Path) -> str:
    """The text of `SHA256SUMS` for every file below `folder`, sorted by path; the index itself is left out."""
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink():
            raise Refused(f"{path} is a link; model files must be plain files.")
        if path.is_file() and path != folder / INDEX:
            with path.open("rb") as file:
                lines.append(
                    f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}\n"
                )
    return "".join(lines)


def digest_of(folder: Path) -> str:
    """sha256 over the content of every file below `folder`."""
    return hashlib.sha256(index_of(folder).encode()).hexdigest()


def verify(folder: Path, digest: str) -> None:
    """Stop unless every file in `folder` is the one that `digest` was taken of.

    Raises:
        Refused: names the first file that differs, is missing or was added.
    """
    index = folder / INDEX
    recorded = index.read_text() if index.is_file() else ""
    found = index_of(folder)
    if found != recorded:
        changed = sorted(set(found.splitlines()) ^ set(recorded.splitlines()), key=lambda line: line[66:])
        raise Refused(
            f"{folder}: '{changed[0][66:]}' is not the file that was recorded, so nothing here is loaded.\n"
            f"Look:     cd {folder} && sha256sum -c {INDEX}\n"
            f"Mend it:  train again, and let the new run be approved."
        )
    if hashlib.sha256(recorded.encode()).hexdigest() != digest:
        raise Refused(f"{folder}: the files do not have the approved digest {digest[:12]}, so nothing here is loaded.")
