"""Spool: a run on this machine's disk, written first and for certain; the uploader brings it to MongoDB.

One folder per run, on no network and behind no lock that anybody else could hold:

    events.jsonl    what happened, one line each, only appended to: points of metrics as
                    `["val.auc", 3, 0.97, 1763640000.5]`, everything else as a document with a key "event"
    output.log      what the run printed
    files/SHA256    copies of sources, resources and artifacts
    lock            held by the training process for as long as it lives, in whatever way it ends
    uploading       held by whoever uploads
    reserve         some disk space, given back when the disk is full, so that the end can still be written

A line that was written is in the page cache and survives `kill -9`. A line without its newline was cut off by a crash.
"""

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from bson import json_util

from modelyard_tracking.digests import file_sha256

log = logging.getLogger(__name__)

EVENTS, OUTPUT, FILES = "events.jsonl", "output.log", "files"
RESERVE_BYTES = 256 * 1024
MAX_HELD_BYTES = 64 * 2**20  # kept in memory while the disk is full

Event = list[Any] | dict[str, Any]  # a point of a metric; anything else


@dataclass(frozen=True, slots=True)
class Spool:
    """The runs on this machine that go to one database."""

    root: Path

    def new(self) -> "RunFolder":
        """A name for a run's folder that sorts by time; nothing is written yet."""
        return RunFolder(self.root / f"{_stamp(datetime.now(UTC))}-{secrets.token_hex(4)}")

    def runs(self, since: datetime | None = None) -> list["RunFolder"]:
        """Those that are not in MongoDB in full yet, oldest first."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0].isdigit())
        except FileNotFoundError:
            return []
        return [RunFolder(self.root / name) for name in names if since is None or name >= _stamp(since)]


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%d-%H%M%S-%f}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run in the spool. Its name is the run's own, from the first moment and in every database."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def uuid(self) -> str:
        return self.path.name

    @property
    def output(self) -> Path:
        return self.path / OUTPUT

    @property
    def exists(self) -> bool:
        return (self.path / EVENTS).exists()

    def file(self, digest: str) -> Path:
        return self.path / FILES / digest

    def is_live(self) -> bool:
        """Does the process that writes it still live?"""
        if not self.exists:
            return False
        with try_lock(self.path / "lock", fcntl.LOCK_SH) as free:
            return not free

    @contextmanager
    def uploading(self) -> Iterator[bool]:
        """Claim the right to upload it; gives False where another process has it."""
        with try_lock(self.path / "uploading") as mine:
            yield mine

    def touch_progress(self) -> None:
        with suppress(OSError):
            (self.path / "progress").touch()

    def progressed_at(self) -> float:
        """When a part of it last arrived in MongoDB, in seconds since the epoch; 0 for never."""
        try:
            return (self.path / "progress").stat().st_mtime
        except OSError:
            return 0.0

    def remove(self) -> None:
        """Remove it in one step, so that no half of it is ever taken for a run."""
        trash = self.path.with_name(f".{self.path.name}")
        with suppress(FileNotFoundError):
            self.path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


class EventReader:
    """Reads a run's events as they are appended."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / EVENTS
        self._offset = 0

    def read(self, limit: int = 8 * 2**20) -> list[Event]:
        """What was appended since, up to about `limit` bytes. A line still without its end is left for later."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read(limit)
                end = block.rfind(b"\n") + 1
                if end == 0 and len(block) == limit:  # one line that is longer than that
                    block += file.readline()
                    end = len(block) if block.endswith(b"\n") else 0
        except FileNotFoundError:
            return []
        self._offset += end
        return [_event(line) for line in block[:end].splitlines() if line]


def _event(line: bytes) -> Event:
    try:
        if line.startswith(b"["):
            point: list[Any] = orjson.loads(line)
            return point
        document: dict[str, Any] = json_util.loads(line, json_options=_JSON)
    except ValueError:
        return {"event": "unreadable", "line": line[:200].decode(errors="replace")}
    return document


class RunWriter:
    """Writes a run's folder. Training never fails or waits for it: a full disk is said once, and waited out."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        (folder.path / FILES).mkdir(parents=True)
        self._lock_fd = os.open(folder.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        os.write(self._lock_fd, str(os.getpid()).encode())
        _LOCKS.add(self._lock_fd)
        (folder.path / "uploading").touch()  # now, while there is room
        self._fd = os.open(folder.path / EVENTS, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._mutex = threading.Lock()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._names: dict[str, bytes] = {}
        self.lost_lines = 0
        self._said = False
        with suppress(OSError):
            (folder.path / "reserve").write_bytes(bytes(RESERVE_BYTES))

    def point(self, name: str, step: Any, value: Any) -> None:
        """Append one point of a metric."""
        quoted = self._names.get(name)
        if quoted is None:
            quoted = self._names[name] = orjson.dumps(str(name).encode("utf-8", "replace").decode())
        # Formatted by hand: this is what training waits for at every step.
        if type(value) is float and value - value == 0.0 and type(step) is int:
            self._append(b"[%b,%d,%b,%.6f]\n" % (quoted, step, repr(value).encode(), time.time()))
        else:
            line = orjson.dumps([_json_number(step), _json_number(value)], default=str)
            self._append(b"[%b,%b,%.6f]\n" % (quoted, line[1:-1], time.time()))

    def event(self, kind: str, **document: Any) -> None:
        """Append anything else."""
        text = json_util.dumps({"event": kind, "at": datetime.now(UTC), **document}, json_options=_JSON)
        self._append(text.encode() + b"\n")

    def keep(self, path: Path) -> str:
        """Copy a file into the run's folder; gives its sha256.

        Raises:
            OSError: it cannot be read, or there is no room for it.
        """
        temporary = self.folder.path / FILES / f"incoming-{secrets.token_hex(4)}"
        try:
            shutil.copyfile(path, temporary)
            digest = file_sha256(temporary)
            temporary.replace(self.folder.file(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def keep_bytes(self, content: bytes) -> str:
        """As `keep`, for bytes."""
        digest = hashlib.sha256(content).hexdigest()
        self.folder.file(digest).write_bytes(content)
        return digest

    def flush(self) -> bool:
        """Try to write what a full disk has held back; True if nothing is held back any more."""
        with self._mutex:
            while self._held:
                line = self._held[0]
                written = self._write(line)
                self._held_bytes -= written
                if written < len(line):
                    self._held[0] = line[written:]
                    return False
                del self._held[0]
            return True

    def end(self, **document: Any) -> None:
        """Append the event that ends the run; the reserve is for this."""
        if not self.flush():
            # What was held back does not fit. Better a run with a gap, which is said, than one without an end.
            (self.folder.path / "reserve").unlink(missing_ok=True)
            with self._mutex:
                self.lost_lines += len(self._held)
                self._held, self._held_bytes = [b"\n"], 1  # the last line may have been written in part
            log.warning("The disk stayed full: %s lines of run %s are lost.", self.lost_lines, self.folder.uuid)
        self.event("ended", lost_lines=self.lost_lines, **document)
        self.flush()

    def close(self) -> None:
        """Let go of the folder; it is the uploader's now."""
        (self.folder.path / "reserve").unlink(missing_ok=True)
        os.close(self._fd)
        _LOCKS.discard(self._lock_fd)
        os.close(self._lock_fd)

    def _append(self, line: bytes) -> None:
        with self._mutex:
            if not self._held:
                written = self._write(line)
                if written == len(line):
                    return
                line = line[written:]
            if self._held_bytes + len(line) > MAX_HELD_BYTES:
                self.lost_lines += 1
                return
            self._held.append(line)
            self._held_bytes += len(line)

    def _write(self, line: bytes) -> int:
        why = "no room for a whole line"
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            written, why = 0, str(error.strerror)
        if written < len(line) and not self._said:
            self._said = True
            log.warning(
                "The spool %s cannot be written (%s). Training goes on; what it logs waits in memory for room.",
                self.folder,
                why,
            )
        return written


_JSON = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=True)


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0.0:  # JSON knows no infinity and no NaN
        return {"f": repr(value)}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return float(value)
    return value


def number(value: Any) -> Any:
    """A value of a point as it was logged; the reader's half of `RunWriter.point`."""
    return float(value["f"]) if isinstance(value, Mapping) else value


@contextmanager
def try_lock(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold a lock for the length of a block, if nobody else does; gives whether.

    Args:
        kind: `LOCK_SH` just to see whether somebody has it, so that two who look do not take each other for an owner.
    """
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the folder is gone
        yield False
        return
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        locked = True
    except BlockingIOError:
        locked = False
    try:
        yield locked
    finally:
        os.close(fd)


# A forked child, such as a data loader's worker, would hold the lock beyond the death of the training process.
_LOCKS: set[int] = set()


def _let_go_in_child() -> None:
    for fd in _LOCKS:
        os.close(fd)
    _LOCKS.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
