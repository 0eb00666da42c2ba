"""The shipper: brings audit segments to the console, as a process beside the one that answers.

`python -m modelyard_serving.runtime.shipper FOLDER`, with YARD_CONSOLE_URL and YARD_GATEWAY_SECRET_FILE. It lives as
long as its standard input stays open, so it ends soon after whoever started it. Of several in one folder one ships,
the others stand by. Sending a line twice does no harm: the console keeps records by their id.
"""

import fcntl
import http.client
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

BATCH_BYTES = 2**20
TIMEOUT_S = 10.0
PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
LAST_EFFORT_S = float(
    os.environ.get("YARD_LAST_EFFORT_S", "5")
)  # how long a console that is away is asked for, once nobody answers here any more
NICENESS = 10  # who is being answered goes first


class Shipper:
    """Posts what the segments of `folder` hold to the console."""

    def __init__(self, folder: Path, console_url: str, secret: str) -> None:
        self._folder = folder
        url = urlsplit(console_url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._console = kind(url.hostname or "", url.port, timeout=TIMEOUT_S)
        self._headers = {"x-gateway-secret": secret, "content-type": "application/x-ndjson"}

    def close(self) -> None:
        """Let go of the connection to the console."""
        self._console.close()

    def ship_once(self) -> bool:
        """Send one batch of each segment; remove those that are sent and whose writer is gone. True if there is more.

        What comes meanwhile waits for the next time: a batch costs the console more than the records in it.

        Raises:
            OSError: the console does not take it.
        """
        more = False
        for segment in sorted(self._folder.glob("*.jsonl")):
            with suppress(FileNotFoundError), segment.open("rb") as file:
                ended = _is_free(file)  # asked before reading: a writer that ends later has more to ship
                more = self._ship(segment, file, ended) or more
        return more

    def _ship(self, segment: Path, file: BinaryIO, ended: bool) -> bool:
        offset_file = segment.with_suffix(".offset")
        offset = int(offset_file.read_text()) if offset_file.exists() else 0
        file.seek(offset)
        batch = file.read(BATCH_BYTES)
        more = len(batch) == BATCH_BYTES
        if more and b"\n" not in batch:
            batch += file.readline()  # one record larger than a batch
        batch = batch[: batch.rfind(b"\n") + 1]
        if batch:
            self._post(batch)
            temporary = offset_file.with_suffix(".tmp")
            temporary.write_text(str(offset + len(batch)))
            temporary.replace(offset_file)
        if ended and not more:
            segment.unlink(missing_ok=True)
            offset_file.unlink(missing_ok=True)
        return more

    def _post(self, batch: bytes) -> None:
        kept = self._console.sock is not None
        try:
            status, said = self._send(batch)
        except ConnectionError:
            if not kept:
                raise
            status, said = self._send(batch)  # a console closes a connection that nothing came over for a while
        if status >= 300:
            raise ConnectionError(f"it answers {status}: {said[:200].decode(errors='replace')}")

    def _send(self, batch: bytes) -> tuple[int, bytes]:
        try:
            self._console.request("POST", "/internal/audit", batch, self._headers)
            answer = self._console.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            self._console.close()
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        except OSError:
            self._console.close()
            raise


class Keeper:
    """Keeps a shipper of `folder` running, with this process' environment, until it is told to stop."""

    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-m", "modelyard_serving.runtime.shipper", str(folder)]
        self._stopped = False
        self._shipper = self._start()
        threading.Thread(target=self._keep, name="keeper", daemon=True).start()

    def stop(self) -> None:
        """Let it ship what is left, for a while; then end it."""
        self._stopped = True
        shipper = self._shipper
        if shipper.stdin:
            shipper.stdin.close()
        try:
            shipper.wait(LAST_EFFORT_S + 2)
        except subprocess.TimeoutExpired:
            shipper.kill()
            shipper.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)

    def _keep(self) -> None:
        while self._shipper.wait() is not None and not self._stopped:
            log.warning("the shipper ended with %s and is started again", self._shipper.returncode)
            if self._shipper.stdin:
                self._shipper.stdin.close()
            time.sleep(1)
            self._shipper = self._start()


def run(shipper: Shipper, folder: Path, wanted: BinaryIO) -> None:
    """Ship until `wanted` is at its end, and then what is left."""
    with (folder / "shipper.lock").open("wb") as lock:
        while not _is_free(lock):
            if _at_end(wanted, PAUSE_S):  # the one that ships goes on with what is left
                return
        pause_s, give_up_at = PAUSE_S, float("inf")
        while time.monotonic() < give_up_at:
            try:
                while shipper.ship_once():
                    pass
                pause_s = PAUSE_S
                if give_up_at < float("inf"):
                    return
            except OSError as error:
                log.warning("audit records wait: the console does not take them (%s)", error)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if give_up_at == float("inf"):
                if _at_end(wanted, pause_s):
                    give_up_at = time.monotonic() + LAST_EFFORT_S
            else:
                time.sleep(PAUSE_S)


def _at_end(file: BinaryIO, timeout_s: float) -> bool:
    """Wait a while; is the other end of a pipe closed?"""
    readable, _, _ = select.select([file], [], [], timeout_s)
    return bool(readable) and not os.read(file.fileno(), 1)


def _is_free(file: BinaryIO) -> bool:
    """Take a file's lock if nobody holds it; it is held until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT):  # meant for who answers; its end is ours
        signal.signal(ignored, signal.SIG_IGN)
    os.nice(NICENESS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(sys.argv[1])
    secret_file = os.environ.get("YARD_GATEWAY_SECRET_FILE")
    secret = Path(secret_file).read_text().strip() if secret_file else ""
    run(Shipper(folder, os.environ["YARD_CONSOLE_URL"], secret), folder, sys.stdin.buffer)


if __name__ == "__main__":
    main()
