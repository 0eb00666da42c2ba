"""Capture: what a run prints goes to the terminal as ever, and to a file.

Straight to the file, not through Sacred's buffer: the lines before a crash or a `kill -9` are the ones that matter.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

MODES = ("fd", "sys", "no")


def default_mode() -> str:
    """`fd` where Python's stdout is the process's own; `sys` in notebooks and under test runners, which replace it."""
    try:
        own = (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
        return "fd" if own and shutil.which("tee") else "sys"
    except (OSError, ValueError, AttributeError):
        return "sys"


@contextmanager
def captured(mode: str, file: Path) -> Iterator[None]:
    """Append what is printed in the block to `file`.

    Args:
        mode: Sacred's words: `fd` with the output of subprocesses and C code, `sys` of Python only, `no`.
    """
    if mode == "no":
        yield
    elif mode == "sys":
        with _replaced_streams(file):
            yield
    else:
        with _redirected_descriptors(file):
            yield


class _Tee:
    """A stream that writes to the original one and to a file; all else is the original's."""

    def __init__(self, stream: Any, file: IO[str]) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # a full disk, or a thread that prints after the end
            self._file.write(text)
        return int(self._stream.write(text) or 0)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _replaced_streams(file: Path) -> Iterator[None]:
    before = sys.stdout, sys.stderr
    with file.open("a", encoding="utf-8", errors="replace", buffering=1) as out:
        sys.stdout, sys.stderr = _Tee(sys.stdout, out), _Tee(sys.stderr, out)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            with suppress(OSError):
                out.flush()


@contextmanager
def _redirected_descriptors(file: Path) -> Iterator[None]:
    _flush()
    saved = os.dup(1), os.dup(2)
    # A session of their own: Ctrl-C is for the training, and a killed one's last words still arrive.
    tees = [
        subprocess.Popen(["tee", "-a", str(file)], stdin=subprocess.PIPE, stdout=fd, start_new_session=True)
        for fd in saved
    ]
    for fd, tee in zip((1, 2), tees, strict=True):
        if tee.stdin is not None:
            os.dup2(tee.stdin.fileno(), fd)
            tee.stdin.close()
    try:
        yield
    finally:
        _flush()
        for fd, original in zip((1, 2), saved, strict=True):
            os.dup2(original, fd)
            os.close(original)
        for tee in tees:
            try:
                tee.wait(timeout=1)
            except subprocess.TimeoutExpired:  # a process that the run left behind still holds its end
                tee.terminate()
                tee.wait(timeout=1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
