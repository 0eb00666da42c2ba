"""Model files on disk: one folder, one index, one digest.

`SHA256SUMS` is the index in the format of coreutils' sha256sum, so an auditor needs no tool of ours
(`sha256sum -c SHA256SUMS`). The model's digest is the sha256 of that index. modelyard_tracking writes the
folder and this module checks it before anything inside is loaded: the two packages share the format, not code.
"""

import hashlib
import os
from pathlib import Path

from modelyard_serving.errors import Refused

INDEX = "SHA256SUMS"
MAX_INDEX_BYTES = 2**20


def index_of(folder: Path) -> str:
    """The text of `SHA256SUMS` for every file below `folder`, sorted by path; the index itself is left out."""
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused(f"{path} is a link or a device; model files must be plain files.")
        if path.is_file() and path != folder / INDEX:
            with path.open("rb") as file:
                lines.append(
                    f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}\n"
                )
    return "".join(lines)


def digest_of(folder: Path) -> str:
    """sha256 over the content of every file below `folder`."""
    return hashlib.sha256(index_of(folder).encode()).hexdigest()


def read_limited(file: Path, limit: int) -> bytes:
    """The bytes of a file, none of them read if there are more than `limit`; links are not followed.

    Raises:
        Refused: it is larger, missing, or no plain file.
    """
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            content = opened.read(size + 1) if size <= limit else b""  # Python takes the room it is asked for
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}. Build it again, or train again.") from error
    if max(size, len(content)) > limit:
        raise Refused(f"{file} has {size} bytes; more than {limit} are not read. Save a smaller model.")
    return content


def read_verified(folder: Path, name: str, sha256: str, limit: int) -> bytes:
    """The bytes of one file of a verified folder. They are hashed again: what is parsed is what was verified.

    Raises:
        Refused: it is larger than `limit` bytes, or was changed in the meantime.
    """
    content = read_limited(folder / name, limit)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Refused(f"{folder / name} was changed while it was read, so nothing here is loaded. Build it again.")
    return content


def verify(folder: Path, digest: str) -> dict[str, str]:
    """Stop unless every file in `folder` is the one that `digest` was taken of; gives the sha256 of each by name.

    Raises:
        Refused: names the first file that differs, is missing or was added.
    """
    index = folder / INDEX
    recorded = read_limited(index, MAX_INDEX_BYTES).decode(errors="replace") if index.is_file() else ""
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
    return {line[66:]: line[:64] for line in recorded.splitlines()}
