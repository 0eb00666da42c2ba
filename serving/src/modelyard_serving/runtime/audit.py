"""The audit log: an answered prediction is in it exactly once.

The runtime appends one line to a local segment *before* the answer leaves; the page cache survives
`kill -9`. A shipper thread posts the lines to the console, which keeps them by prediction id, so sending
one twice does no harm. A segment is locked by the process that writes it: one that nobody holds was left
by a process that died, and whoever runs next ships the rest of it and removes it.
"""

import fcntl
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import orjson

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 2**20
BATCH_BYTES = 2**20


class AuditLog:
    """Appends records to a segment file of this process. Lines are complete or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    def append(self, record: dict[str, Any]) -> None:
        """Write one record.

        Raises:
            OSError: it could not be written (disk full, say); then nothing may be answered.
        """
        line = orjson.dumps(record) + b"\n"
        written = os.write(self._fd, line)
        if written != len(line):  # a disk that is nearly full writes a part; take it back
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "the audit record was written only in part")
        self._size += written
        if self._size > SEGMENT_BYTES:
            self.close()
            self._open()

    def close(self) -> None:
        """End the segment: whoever ships next may finish and remove it."""
        os.close(self._fd)

    def _open(self) -> None:
        path = self._folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        new = path.with_suffix(".new")
        self._fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        new.rename(path)  # seen by a shipper only once it is locked: an empty, free segment would be removed
        self._size = 0


class Shipper(threading.Thread):
    """Posts what the segments of `folder` hold to the console, for ever; a console that is away is waited for."""

    def __init__(self, folder: Path, console_url: str, secret: str, pause_s: float = 0.2) -> None:
        super().__init__(name="audit-shipper", daemon=True)
        self._folder = folder
        self._pause_s = pause_s
        self._client = httpx.Client(base_url=console_url, headers={"x-gateway-secret": secret}, timeout=10)

    def run(self) -> None:
        wait_s = self._pause_s
        while True:
            try:
                while self.ship_once():
                    pass
                wait_s = self._pause_s
            except (httpx.HTTPError, OSError) as error:
                log.warning("audit records wait: the console does not take them (%s)", error)
                wait_s = min(wait_s * 2, 5.0)
            time.sleep(wait_s)

    def close(self) -> None:
        """Let go of the connection to the console."""
        self._client.close()

    def ship_once(self) -> bool:
        """Send one batch of each segment that is ours or was left behind. True while there may be more."""
        more = False
        for segment in sorted(self._folder.glob("*.jsonl")):
            with segment.open("rb") as file:
                ended = _locked(file)  # asked before reading: a writer that ends later has more to ship
                if ended or segment.stem.endswith(f"-{os.getpid()}"):
                    more = self._ship(segment, file, ended) or more
        return more

    def _ship(self, segment: Path, file: BinaryIO, ended: bool) -> bool:
        offset_file = segment.with_suffix(".offset")
        offset = int(offset_file.read_text()) if offset_file.exists() else 0
        file.seek(offset)
        batch = file.read(BATCH_BYTES)
        if len(batch) == BATCH_BYTES and b"\n" not in batch:
            batch += file.readline()  # one record larger than a batch
        batch = batch[: batch.rfind(b"\n") + 1]
        if batch:
            self._client.post("/internal/audit", content=batch).raise_for_status()
            temporary = offset_file.with_suffix(".tmp")
            temporary.write_text(str(offset + len(batch)))
            temporary.replace(offset_file)
        elif ended:
            segment.unlink(missing_ok=True)
            offset_file.unlink(missing_ok=True)
        return bool(batch)


def _locked(file: BinaryIO) -> bool:
    """Take the segment's lock if its writer has let go of it; it is held until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
