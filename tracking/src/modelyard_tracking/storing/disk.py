"""Disk: a file or a folder comes to its place whole and for good, or not at all.

What is being written lies in `incoming/`, on the same disk. There it is flushed, and then renamed; so whatever a crash
leaves behind lies in `incoming/` and nowhere else.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

INCOMING = "incoming"


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A path in `incoming/` that nothing has yet; what is made there and not moved away is removed."""
    folder = root / INCOMING
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / secrets.token_hex(8)
    try:
        yield path
    finally:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def move_in(made: Path, place: Path) -> bool:
    """Flush what was made and rename it to its place; False if something is there already, which stays.

    A file's place may also hold one: that has the same digest, so either may win.
    """
    if made.is_dir():
        with ThreadPoolExecutor(8) as pool:  # the file system commits once for all who wait at the same time
            list(pool.map(_flush, made.rglob("*")))
    _flush(made)
    missing = [parent for parent in (place.parent, *place.parent.parents) if not parent.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not place.is_dir():
            raise
        return False
    for folder in (place.parent, *(parent.parent for parent in missing)):
        _flush(folder)
    return True


def remove(place: Path, root: Path) -> None:
    """Remove a file or a folder; whoever looks sees all of it or nothing."""
    with scratch(root) as gone, suppress(FileNotFoundError):
        place.rename(gone)


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
