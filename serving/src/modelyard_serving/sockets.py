"""Sockets: where one lies in the file system, given that its path may have 107 characters."""

import hashlib
import os
import tempfile
from pathlib import Path

_LONGEST = 89  # supervisord adds its pid


def socket_path(wanted: Path) -> Path:
    """`wanted` where that fits, else one in a folder for temporary files, the same on every call.

    Args:
        wanted: `.yard/PART/NAME`; no other part of the same `.yard` may have a socket of that name.
    """
    if len(str(wanted)) <= _LONGEST:
        return wanted
    short = hashlib.sha256(str(wanted.parents[1]).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{short}" / wanted.name
