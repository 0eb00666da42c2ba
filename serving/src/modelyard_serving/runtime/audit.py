"""The audit log: an answered prediction is in it exactly once.

The runtime appends one line to a local segment *before* the answer leaves; the page cache survives
`kill -9`. The shipper, a process beside it, posts the lines to the console, which keeps them by prediction id. A
segment is locked by the process that writes it, and in no shipper's way: what has been written is complete.
"""

import asyncio
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import orjson

SEGMENT_BYTES = 64 * 2**20
MAX_BYTES = 8 * 2**30  # of all segments that wait: beyond it the disk counts as full


class AuditLog:
    """Appends records to a segment file of this process. Lines are complete or absent.

    Args:
        flush: "system": what is appended survives the process. "disk": `settled` also waits for the disk.
        max_bytes: what may wait for the console.
    """

    def __init__(self, folder: Path, flush: str = "system", max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._to_disk, self._max_bytes = folder, flush == "disk", max_bytes
        self._fd, self._size = -1, 0
        self._unsettled: list[asyncio.Future[None]] = []
        self._settling: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    def append(self, record: dict[str, Any]) -> None:
        """Write one record.

        Raises:
            OSError: it could not be written (disk full, say); then nothing may be answered.
            TypeError: it is no JSON.
        """
        line = orjson.dumps(record) + b"\n"
        if self._fd < 0:
            self._open()
        written = os.write(self._fd, line)
        if written != len(line):  # a disk that is nearly full writes a part; take it back
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, "the audit record was written only in part")
        self._size += written
        if self._size > SEGMENT_BYTES and self._settling is None:
            self.close()

    async def settled(self) -> None:
        """Come back when what was appended is where the policy wants it; many wait for one flush together.

        Raises:
            OSError: the disk did not take it.
        """
        if not self._to_disk:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsettled.append(waiter)
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())
        await waiter

    def close(self) -> None:
        """End the segment: whoever ships next may finish and remove it. The next record opens another."""
        if self._fd >= 0:
            if self._to_disk:
                os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1

    async def _settle(self) -> None:
        while self._unsettled:
            waiters, self._unsettled = self._unsettled, []
            try:
                await asyncio.to_thread(os.fdatasync, self._fd)
                fault = None
            except OSError as error:
                fault = error
            for waiter in waiters:
                if waiter.done():
                    continue
                if fault:
                    waiter.set_exception(fault)
                else:
                    waiter.set_result(None)
        self._settling = None

    def _open(self) -> None:
        if (waiting := sum(file.stat().st_size for file in self._folder.glob("*.jsonl"))) > self._max_bytes:
            raise OSError(errno.EDQUOT, f"{waiting} bytes of records wait for the console, and no more are kept")
        path = self._folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        new = path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        new.rename(path)  # seen by a shipper only once it is locked: an empty, free segment would be removed
        self._fd, self._size = fd, 0
